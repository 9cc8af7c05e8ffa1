# Memory that all connections of a table share.
from tcptrace.engine.percentiles cimport histogram_memory
from tcptrace.engine.segments cimport segment_pool

cdef struct shared_memory:
    segment_pool segments
    histogram_memory histograms

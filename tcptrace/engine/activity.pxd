# Connections by last activity: two lists, one of the live ones and one of the closed.
from libc.stdint cimport int32_t

from tcptrace.engine.rows cimport connection

cdef struct activity_list:
    int32_t newest
    int32_t oldest

cdef inline void unlink(activity_list *by_activity, connection *rows, int32_t row) noexcept nogil:
    cdef connection *c = &rows[row]
    if c.newer >= 0:
        rows[c.newer].older = c.older
    else:
        by_activity.newest = c.older
    if c.older >= 0:
        rows[c.older].newer = c.newer
    else:
        by_activity.oldest = c.newer

cdef inline void append(activity_list *by_activity, connection *rows, int32_t row) noexcept nogil:
    """The most recently active one from now on."""
    rows[row].newer = -1
    rows[row].older = by_activity.newest
    if by_activity.newest >= 0:
        rows[by_activity.newest].newer = row
    else:
        by_activity.oldest = row
    by_activity.newest = row

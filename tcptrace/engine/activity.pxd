# Connections by last activity: those that live, those that are closed, and those that are silent but open.
from libc.stdint cimport int32_t

from tcptrace.engine.rows cimport connection

# Lists that a connection may be in, as connection.by_activity.
cdef enum:
    LIVE
    SHUT            # closed on both ends
    QUIET           # no packets for long or ever, but the kernel says that it is open
    ACTIVITIES

cdef struct activity_list:
    int32_t newest
    int32_t oldest

cdef inline void unlink(activity_list *lists, connection *rows, int32_t row) noexcept nogil:
    cdef connection *c = &rows[row]
    cdef activity_list *by_activity = &lists[c.by_activity]
    if c.newer >= 0:
        rows[c.newer].older = c.older
    else:
        by_activity.newest = c.older
    if c.older >= 0:
        rows[c.older].newer = c.newer
    else:
        by_activity.oldest = c.newer

cdef inline void append(activity_list *lists, connection *rows, int32_t row, int kind) noexcept nogil:
    """The most recently active one of its list from now on."""
    cdef activity_list *by_activity = &lists[kind]
    rows[row].by_activity = kind
    rows[row].newer = -1
    rows[row].older = by_activity.newest
    if by_activity.newest >= 0:
        rows[by_activity.newest].newer = row
    else:
        by_activity.oldest = row
    by_activity.newest = row

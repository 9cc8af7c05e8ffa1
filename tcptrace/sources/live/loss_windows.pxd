# When one CPU was losing records: those that other CPUs wrote meanwhile do not know of it yet.
#
# A batch is lost after all of its records have been written.  What was written until then, wherever, says nothing of them.
from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    # Of one CPU, that records still have to pass; further ones widen the last.
    WINDOWS = 16

cdef struct loss_windows:
    uint64_t from_ns[WINDOWS]
    uint64_t until_ns[WINDOWS]
    uint32_t first
    uint32_t count

cdef inline void add_window(loss_windows *windows, uint64_t from_ns, uint64_t until_ns) noexcept nogil:
    """From one time to the other, both included: CPUs may take one time for two records."""
    cdef uint32_t place = (windows.first + windows.count) % WINDOWS
    if windows.count == WINDOWS:
        windows.until_ns[(place + WINDOWS - 1) % WINDOWS] = until_ns
        return
    windows.from_ns[place] = from_ns
    windows.until_ns[place] = until_ns
    windows.count += 1

cdef inline bint is_within(loss_windows *windows, uint64_t time_ns) noexcept nogil:
    """Whether a record of that time is; those that are asked for do not go back in time."""
    while windows.count and windows.until_ns[windows.first] < time_ns:
        windows.first = (windows.first + 1) % WINDOWS
        windows.count -= 1
    return windows.count > 0 and windows.from_ns[windows.first] <= time_ns

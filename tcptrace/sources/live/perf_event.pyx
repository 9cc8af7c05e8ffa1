"""Opens the perf rings that BPF programs write to."""

import errno
import mmap
import os

from tcptrace.errors import MissingFeatureError, NotPermittedError

cdef extern from *:
    """
    #include <errno.h>
    #include <linux/perf_event.h>
    #include <string.h>
    #include <sys/ioctl.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    /* Wakes the reader once `watermark` bytes wait, not at every sample.  A descriptor or -errno. */
    static int open_output_event(int cpu, unsigned int watermark)
    {
        struct perf_event_attr attr;

        memset(&attr, 0, sizeof(attr));
        attr.size = sizeof(attr);
        attr.type = PERF_TYPE_SOFTWARE;
        attr.config = PERF_COUNT_SW_BPF_OUTPUT;
        attr.sample_type = PERF_SAMPLE_RAW;
        attr.sample_period = 1;
        attr.watermark = 1;
        attr.wakeup_watermark = watermark;
        int fd = (int)syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
        return fd < 0 ? -errno : fd;
    }

    static int enable_event(int fd) { return ioctl(fd, PERF_EVENT_IOC_ENABLE, 0); }
    """
    int open_output_event(int cpu, unsigned int watermark)
    int enable_event(int fd)


def open_ring(cpu, ring_bytes):
    """The ring of one CPU, `ring_bytes` (a power of two, at least a page) and the kernel's page before them.

    Its perf event's file descriptor, for the BPF map, which wakes whoever polls it once a quarter is full; and the
    mapped memory.  Raises NotPermittedError or MissingFeatureError when the kernel does not open it.
    """
    fd = open_output_event(cpu, ring_bytes // 4)
    if fd < 0:
        message = f"perf_event_open for CPU {cpu}: {os.strerror(-fd)}"
        if -fd in (errno.EPERM, errno.EACCES):
            raise NotPermittedError(message)
        raise MissingFeatureError(message + " (the kernel needs CONFIG_PERF_EVENTS)")
    try:
        mapped = mmap.mmap(fd, mmap.PAGESIZE + ring_bytes, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    except OSError:
        os.close(fd)
        raise
    enable_event(fd)
    return fd, mapped

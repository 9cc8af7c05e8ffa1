"""bpf(2), for what bcc has no function: links, and whether the kernel has a hook."""

import os

cdef extern from *:
    """
    #include <errno.h>
    #include <linux/bpf.h>
    #include <string.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    /* Its result or -errno. */
    static int bpf(int command, union bpf_attr *attributes)
    {
        int result = (int)syscall(SYS_bpf, command, attributes, sizeof(*attributes));
        return result < 0 ? -errno : result;
    }

    static int link_create(int program_fd, unsigned int ifindex, unsigned int hook, unsigned int flags)
    {
        union bpf_attr attributes;

        memset(&attributes, 0, sizeof(attributes));
        attributes.link_create.prog_fd = program_fd;
        attributes.link_create.target_ifindex = ifindex;
        attributes.link_create.attach_type = hook;
        attributes.link_create.flags = flags;
        return bpf(BPF_LINK_CREATE, &attributes);
    }

    static int link_detach(int link_fd)
    {
        union bpf_attr attributes;

        memset(&attributes, 0, sizeof(attributes));
        attributes.link_detach.link_fd = link_fd;
        return bpf(BPF_LINK_DETACH, &attributes);
    }

    static int query(unsigned int ifindex, unsigned int hook)
    {
        union bpf_attr attributes;

        memset(&attributes, 0, sizeof(attributes));
        attributes.query.target_fd = ifindex; /* later headers call it target_ifindex */
        attributes.query.attach_type = hook;
        return bpf(BPF_PROG_QUERY, &attributes);
    }
    """
    int link_create(int program_fd, unsigned int ifindex, unsigned int hook, unsigned int flags)
    int link_detach(int link_fd)
    int query(unsigned int ifindex, unsigned int hook)


def create(int program_fd, unsigned int ifindex, unsigned int hook, unsigned int flags):
    """Attach a program to an interface's hook (enum bpf_attach_type); the link's descriptor.  Raises OSError."""
    fd = link_create(program_fd, ifindex, hook, flags)
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd))
    return fd


def close(int link_fd):
    """Detach the link's program, also where a forked process holds the link, too; needs no privileges."""
    link_detach(link_fd)
    os.close(link_fd)


def is_known(unsigned int ifindex, unsigned int hook):
    """Whether this kernel has that hook of interfaces."""
    return query(ifindex, hook) == 0

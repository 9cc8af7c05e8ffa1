"""Attach and remove TC filters and XDP programs over rtnetlink, ours only.

Runs in the guard (see guard.py), the one process that stays root; importing this brings in pyroute2.

Several tracers may share an interface, so what must be known about a filter is written on the filter itself:

- Ours is what carries one of our two names, the handle that we chose and the id of our program.
- The name also says whose the clsact qdisc is: NAME_GUEST if it was there before any tracer, NAME_OWNER if a tracer
  made it.  A tracer that finds a NAME_OWNER filter takes that name too, so the last one to leave, in whatever order,
  removes the qdisc - unless somebody else has put a filter there meanwhile.
"""

import errno
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.tcmsg import sched_bpf

from tcptrace.errors import MissingFeatureError, TcptraceError
from tcptrace.sources.live import hooks
from tcptrace.sources.live.guard_lock import sole_tracer
from tcptrace.sources.live.hooks import TcHook, XdpMode, name_of

NAME_GUEST = "tcptrace"
NAME_OWNER = "tcptrace+qdisc"

# TC_H_CLSACT with TC_H_MIN_INGRESS and TC_H_MIN_EGRESS (linux/pkt_sched.h).
PARENTS: Mapping[TcHook, int] = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}

ETH_P_ALL = 3
# Explicit and unusual, so that somebody's "replace prio 1 handle 1" never lands on our filter ("tc" in ASCII).
FIRST_HANDLE = 0x7463
LAST_PRIORITY = 0xFFFF

# enum in linux/if_link.h
XDP_UPDATE_IF_NOEXIST = 1 << 0
XDP_REPLACE = 1 << 4

# What removing may meet when the interface, the qdisc or the filter has gone before us.
GONE = (errno.ENODEV, errno.ENOENT, errno.EINVAL)


@dataclass(frozen=True)
class TcFilter:
    """One filter of ours: where it hangs, and what proves that it is ours."""

    ifindex: int
    parent: int
    priority: int
    handle: int
    name: str
    program_id: int


@dataclass(frozen=True)
class XdpProgram:
    """One XDP program of ours; the open program_fd lets the kernel check that it is still the attached one."""

    ifindex: int
    mode_flag: int
    program_fd: int


def read_program_id(program_fd: int) -> int:
    """The kernel's id of an open BPF program (bpf_prog_show_fdinfo()); TcptraceError if the fd is none."""
    with open(f"/proc/self/fdinfo/{program_fd}", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("prog_id:"):
                return int(line.split()[1])
    raise TcptraceError("not a BPF program")


def as_os_error(error: NetlinkError) -> OSError:
    """With the kernel's own words where it has some (ext_ack)."""
    return OSError(error.code, error.args[1])


def explained(error: NetlinkError, what: str) -> TcptraceError:
    """As hooks.explained()."""
    explanation = hooks.explained(as_os_error(error), what)
    if error.code == errno.ENOENT:  # "unknown kind": not in this kernel, nor as a module
        return MissingFeatureError(f"{explanation} (the kernel needs CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF)")
    return explanation


def _teach_program_id() -> None:
    """Let pyroute2 decode the attributes of cls_bpf that follow TCA_BPF_FLAGS (linux/pkt_cls.h)."""
    known = sched_bpf.options.nla_map
    later = (("TCA_BPF_FLAGS_GEN", "uint32"), ("TCA_BPF_TAG", "hex"), ("TCA_BPF_ID", "uint32"))
    sched_bpf.options.nla_map = known + tuple(entry for entry in later if entry[0] not in [name for name, _ in known])


class Attachments:
    """Everything attached by this tracer, and how to take it away again."""

    def __init__(self) -> None:
        _teach_program_id()
        self._netlink = IPRoute(ext_ack=True)
        self._filters: list[TcFilter] = []
        self._xdp: list[XdpProgram] = []
        self._failures: list[NetlinkError] = []

    def attach_tc(self, ifindex: int, program_fds: Mapping[TcHook, int]) -> None:
        """Put each program on its hook, ahead of other filters; all of them or, with an error, none."""
        added: list[TcFilter] = []
        with sole_tracer() as alone:
            if not alone:
                raise TcptraceError("another tcptrace does not finish attaching; is it stopped?")
            name = self._enter_clsact(ifindex)
            try:
                for hook, program_fd in program_fds.items():
                    added.append(self._add_filter(ifindex, PARENTS[hook], name, program_fd))
            except NetlinkError as error:
                self._remove_filters(added)
                if name == NAME_OWNER:
                    self._remove_empty_clsact(ifindex)
                raise explained(error, f"cannot attach to {name_of(ifindex)}") from error
            self._filters += added

    def attach_xdp(self, ifindex: int, program_fd: int) -> XdpMode:
        """Attach in the driver or else in the stack; keeps program_fd open on success."""

        def attach(mode_flag: int) -> None:
            self._set_xdp(ifindex, program_fd, mode_flag | XDP_UPDATE_IF_NOEXIST)
            self._xdp.append(XdpProgram(ifindex, mode_flag, program_fd))

        return hooks.attach_xdp(ifindex, attach)

    def remove_all(self) -> None:
        """Take away what is still there of ours; what is gone, or somebody else's by now, is no error.

        TcptraceError, after all has been tried, if the kernel refused something.
        """
        for program in self._xdp:
            with suppress(OSError):  # EEXIST: another program is there; ENODEV: no interface
                self._set_xdp(program.ifindex, -1, program.mode_flag | XDP_REPLACE, program.program_fd)
            os.close(program.program_fd)
        self._xdp.clear()
        if self._filters:
            with sole_tracer():  # without the lock too: a filter left is worse than a qdisc left
                self._remove_filters(self._filters)
                for ifindex in {one.ifindex for one in self._filters if one.name == NAME_OWNER}:
                    self._remove_empty_clsact(ifindex)
            self._filters.clear()
        if self._failures:
            raise explained(self._failures.pop(), "cannot remove a TC filter")

    def _enter_clsact(self, ifindex: int) -> str:
        """See to it that the interface has a clsact qdisc; the name our filters take on it."""
        try:
            self._netlink.tc("add", "clsact", ifindex)
            return NAME_OWNER
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise explained(error, f"cannot add a clsact qdisc to {name_of(ifindex)}") from error
        kinds = [one.get_attr("TCA_KIND") for one in self._netlink.get_qdiscs() if one["index"] == ifindex]
        if "clsact" not in kinds:
            name = name_of(ifindex)
            raise TcptraceError(f"{name} has an ingress qdisc in the place of clsact: tc qdisc show dev {name}")
        names = {_bpf_option(one, "TCA_BPF_NAME") for parent in PARENTS.values() for one in self._dump(ifindex, parent)}
        return NAME_OWNER if NAME_OWNER in names else NAME_GUEST

    def _add_filter(self, ifindex: int, parent: int, name: str, program_fd: int) -> TcFilter:
        """Add one filter at the first priority that takes it; NetlinkError."""
        program_id = read_program_id(program_fd)
        others = self._dump(ifindex, parent)
        priority = _first_priority(others)
        taken = {one["handle"] for one in others if _priority_of(one) == priority}
        handle = next(number for number in range(FIRST_HANDLE, 1 << 32) if number not in taken)
        self._netlink.tc(
            "add-filter",
            "bpf",
            ifindex,
            handle,
            parent=parent,
            prio=priority,
            protocol=ETH_P_ALL,
            fd=program_fd,
            name=name,
            direct_action=True,
        )
        return TcFilter(ifindex, parent, priority, handle, name, program_id)

    def _remove_filters(self, filters: list[TcFilter]) -> None:
        """Delete those of `filters` that are still there and still ours."""
        for ours in filters:
            if not any(_is_same(ours, one) for one in self._dump(ours.ifindex, ours.parent)):
                continue
            where = {"parent": ours.parent, "prio": ours.priority, "protocol": ETH_P_ALL}
            self._unless_gone("del-filter", "bpf", ours.ifindex, ours.handle, **where)

    def _remove_empty_clsact(self, ifindex: int) -> None:
        if not any(self._dump(ifindex, parent) for parent in PARENTS.values()):
            self._unless_gone("del", "clsact", ifindex)

    def _unless_gone(self, *command: Any, **options: Any) -> None:
        """A command whose object may be gone already; other failures wait for the end of remove_all()."""
        try:
            self._netlink.tc(*command, **options)
        except NetlinkError as error:
            if error.code not in GONE:
                self._failures.append(error)

    def _dump(self, ifindex: int, parent: int) -> list[Any]:
        """The filters of everybody on one hook; none if the interface or its qdisc is gone."""
        return list(self._netlink.get_filters(index=ifindex, parent=parent))

    def _set_xdp(self, ifindex: int, program_fd: int, flags: int, expected_fd: int | None = None) -> None:
        """OSError if the kernel refuses."""
        attributes = [("IFLA_XDP_FD", program_fd), ("IFLA_XDP_FLAGS", flags)]
        if expected_fd is not None:
            attributes.append(("IFLA_XDP_EXPECTED_FD", expected_fd))
        try:
            self._netlink.link("set", index=ifindex, xdp={"attrs": attributes})
        except NetlinkError as error:
            raise as_os_error(error) from error


def _priority_of(message: Any) -> int:
    return int(message["info"]) >> 16


def _bpf_option(message: Any, attribute: str) -> Any:
    """An option of a cls_bpf filter; None for other kinds and for the entry that stands for a whole priority."""
    if message.get_attr("TCA_KIND") != "bpf" or message["handle"] == 0:
        return None
    options = message.get_attr("TCA_OPTIONS")
    return options.get_attr(attribute) if options is not None else None


def _first_priority(others: list[Any]) -> int:
    """The lowest priority that is free or holds filters like ours; tcf_proto is one kind and protocol a priority."""
    protocol = socket.htons(ETH_P_ALL)
    unlike = {
        _priority_of(one) for one in others if one.get_attr("TCA_KIND") != "bpf" or one["info"] & 0xFFFF != protocol
    }
    return next(priority for priority in range(1, LAST_PRIORITY + 1) if priority not in unlike)


def _is_same(ours: TcFilter, message: Any) -> bool:
    return (
        _priority_of(message) == ours.priority
        and message["handle"] == ours.handle
        and _bpf_option(message, "TCA_BPF_NAME") == ours.name
        and _bpf_option(message, "TCA_BPF_ID") == ours.program_id
    )

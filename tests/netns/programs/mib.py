"""The kernel's own counters of why it sent segments again, of one network namespace (/proc/net/netstat)."""

from netns_tools import Namespace

Counts = dict[str, int]
"""By the causes of tcptrace's events, as far as the kernel counts them."""


def read(namespace: Namespace) -> Counts:
    """Since the namespace began.

    A timer of a SYN that runs out counts as a timeout, too.  A probe of new data counts as a tail loss probe.
    """
    counters = _counters(namespace)
    return {
        "rto": counters["TCPTimeouts"] + counters["TCPSlowStartRetrans"],
        "fast": counters["TCPFastRetrans"],
        "tlp": counters["TCPLossProbes"],
        "syn": counters["TCPSynRetrans"],
    }


def since(before: Counts, namespace: Namespace) -> Counts:
    return {name: value - before[name] for name, value in read(namespace).items()}


def _counters(namespace: Namespace) -> Counts:
    lines = [line.split() for line in namespace.output("cat", "/proc/net/netstat").splitlines()]
    names, values = (words for words in lines if words[0] == "TcpExt:")
    return dict(zip(names[1:], map(int, values[1:]), strict=True))

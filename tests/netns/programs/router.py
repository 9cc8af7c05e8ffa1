"""Two namespaces with a router between them whose links are slow and short-queued, or bad in other ways."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from netns_tools import Namespace, veth

NEAR, FAR = "10.9.0.1", "10.9.1.2"
NEAR6, FAR6 = "fd09::1", "fd09:1::2"
FAR_MAPPED = f"::ffff:{FAR}"
NARROWER = ("tbf", "rate", "1mbit", "burst", "2k", "limit", "60k")
BOTTLENECK = ("tbf", "rate", "20mbit", "burst", "10k", "limit", "60k")


@dataclass(frozen=True)
class Routed:
    """near veth0 – veth0 router veth1 – veth0 far"""

    near: Namespace
    router: Namespace
    far: Namespace


@contextmanager
def routed() -> Iterator[Routed]:
    with Namespace() as near, Namespace() as router, Namespace() as far:
        for namespace in (near, router, far):
            # What one connection taught the kernel of a path does not change the next one.
            namespace.run(["sysctl", "-qw", "net.ipv4.tcp_no_metrics_save=1"])
        veth(near, router, [f"{NEAR}/24", f"{NEAR6}/64"], ["10.9.0.3/24", "fd09::3/64"])
        veth(router, far, ["10.9.1.1/24", "fd09:1::1/64"], [f"{FAR}/24", f"{FAR6}/64"], name_a="veth1")
        router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
        for namespace, gateway, gateway6 in ((near, "10.9.0.3", "fd09::3"), (far, "10.9.1.1", "fd09:1::1")):
            namespace.run(["ip", "route", "add", "default", "via", gateway])
            namespace.run(["ip", "route", "add", "default", "via", gateway6])
        yield Routed(near, router, far)


def slow(namespace: Namespace, interface: str) -> None:
    """What leaves there queues for 20 Mbit/s, and is dropped when 60 kB wait."""
    namespace.run(["tc", "qdisc", "add", "dev", interface, "root", *BOTTLENECK])


@contextmanager
def narrower(namespace: Namespace, interface: str) -> Iterator[None]:
    """Where it is slow already: 12 ms a full packet for a while."""
    change = ["tc", "qdisc", "change", "dev", interface, "root"]
    namespace.run([*change, *NARROWER])
    try:
        yield
    finally:
        namespace.run([*change, *BOTTLENECK])

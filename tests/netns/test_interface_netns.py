"""Finding interfaces in a namespace that is not the one /sys shows, as nobody, and noticing that they go."""

from collections.abc import Iterator

import pytest
from netns_tools import Namespace

# Prints what is found, then the status again whenever a line comes in.
WATCH = """
import os, sys
from tcptrace.sources.live.interface import find_interface, list_interfaces, still_there
os.setgroups([]), os.setgid(65534), os.setuid(65534)
interface = find_interface(sys.argv[1] if sys.argv[1:] else None)
names = [one.name for one in list_interfaces()]
print(interface.name, interface.index, interface.link, interface.mtu_bytes, *names, flush=True)
for line in sys.stdin:
    print(still_there(interface), flush=True)
"""


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace() as namespace:
        yield namespace


def test_a_tun_device_has_no_link_header(namespace: Namespace) -> None:
    namespace.run(["ip", "tuntap", "add", "dev", "tun7", "mode", "tun"])
    namespace.run(["ip", "link", "set", "tun7", "mtu", "1420"])
    index = namespace.index_of("tun7")
    assert namespace.python(WATCH, "tun7", input="").stdout == f"tun7 {index} raw 1420 lo tun7\n"


@pytest.mark.parametrize("prefix", ["10.8.0.9/24", "fd08::9/64"])
def test_the_default_route_is_this_namespaces(namespace: Namespace, prefix: str) -> None:
    family = "-6" if ":" in prefix else "-4"
    namespace.run(["ip", "link", "add", "one", "type", "veth", "peer", "name", "two"])
    for name in ("one", "two"):
        namespace.run(["ip", "link", "set", name, "up"])
    namespace.run(["ip", "address", "add", prefix, "dev", "two"])
    namespace.run(["ip", family, "route", "add", "default", "dev", "two"])
    assert namespace.python(WATCH, input="").stdout.split()[0] == "two"


def test_down_then_up_then_another_of_the_same_name(namespace: Namespace) -> None:
    create = ["ip", "link", "add", "one", "type", "veth", "peer", "name", "two"]
    namespace.run(create)
    with namespace.popen_python(WATCH, "one", stderr=None) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        for change, status in (
            (["ip", "link", "set", "one", "up"], "up"),
            (["ip", "link", "set", "one", "down"], "down"),
            (["ip", "link", "set", "one", "name", "other"], "down"),
            (["ip", "link", "set", "other", "up"], "up"),
            (["ip", "link", "delete", "other"], "gone"),
            (create, "gone"),
        ):
            namespace.run(change)
            print(file=process.stdin, flush=True)
            assert process.stdout.readline() == f"{status}\n"

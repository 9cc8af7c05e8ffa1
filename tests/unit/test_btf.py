"""The running kernel's types, against structs that user space knows: their layout is fixed (RFCs, linux/*.h)."""

from pathlib import Path

import pytest

from tcptrace.errors import MissingFeatureError
from tcptrace.sources.live import btf
from tcptrace.sources.live.btf import Field, KernelTypes

pytestmark = pytest.mark.skipif(
    not Path("/sys/kernel/btf/vmlinux").exists(), reason="this kernel does not tell its types"
)


@pytest.fixture(scope="module")
def types() -> KernelTypes:
    try:
        return KernelTypes()
    except MissingFeatureError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("struct", "path", "field"),
    [
        ("iphdr", "ttl", Field(8, 1)),
        ("iphdr", "saddr", Field(12, 4)),  # in an anonymous union of newer kernels
        ("iphdr", "ihl", Field(0, 1, 0, 4)),
        ("iphdr", "version", Field(0, 1, 4, 4)),
        ("tcphdr", "doff", Field(12, 1, 4, 4)),
        ("tcphdr", "window", Field(14, 2)),
        ("sockaddr_in6", "sin6_addr", Field(8, 16)),
        ("sockaddr_in6", "sin6_addr.in6_u.u6_addr32", Field(8, 16)),  # an array
        ("list_head", "prev", Field(8, 8)),
        ("tcp_info", "tcpi_rto", Field(8, 4)),
        ("tcp_info", "tcpi_rcv_wscale", Field(6, 1, 4, 4)),
        ("tcp_sock", "inet_conn.icsk_inet.sk", Field(0, 0)),
    ],
)
def test_fields(types: KernelTypes, struct: str, path: str, field: Field) -> None:
    found = types.field(struct, path)
    assert found is not None
    if struct == "tcp_sock":  # whose size is the kernel's own matter
        assert found == Field(0, types.size("sock") or 0)
    else:
        assert found == field


@pytest.mark.parametrize(
    ("struct", "path"),
    [("iphdr", "nothing"), ("no_such_struct", "ttl"), ("iphdr", "ttl.more"), ("list_head", "next.next")],
)
def test_no_such_field(types: KernelTypes, struct: str, path: str) -> None:
    assert types.field(struct, path) is None


def test_sizes_and_names(types: KernelTypes) -> None:
    assert (types.size("iphdr"), types.size("list_head"), types.size("no_such_struct")) == (20, 16, None)
    assert types.has_function("tcp_v4_connect")
    assert not types.has_function("tcp_v4_connect_not")
    assert types.has_typedef("btf_trace_inet_sock_set_state")
    assert not types.has_typedef("btf_trace_no_such")
    assert not types.has_typedef("tcp_v4_connect")


def test_without_libbpf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(btf, "LIBRARIES", ("libnothing.so.9",))
    with pytest.raises(MissingFeatureError, match="libbpf is not installed"):
        KernelTypes()

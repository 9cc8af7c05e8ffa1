"""The running kernel's layout of its sockets, as C for bpf/followed.c and socket.c.

The program copies what it needs of a socket, byte ranges that hold several fields at once, to the same
offsets of an image, and reads the fields there: each range costs about as much as each field would.
"""

from collections.abc import Iterable
from typing import Final

from tcptrace.errors import MissingFeatureError
from tcptrace.sources.live.btf import Field, KernelTypes

# name in bpf/socket.c: struct, path.
KEY_FIELDS: Final = {
    "family": ("sock", "__sk_common.skc_family"),
    "state": ("sock", "__sk_common.skc_state"),
    "net": ("sock", "__sk_common.skc_net.net"),
    "daddr": ("sock", "__sk_common.skc_daddr"),
    "rcv_saddr": ("sock", "__sk_common.skc_rcv_saddr"),
    "v6_daddr": ("sock", "__sk_common.skc_v6_daddr"),
    "v6_rcv_saddr": ("sock", "__sk_common.skc_v6_rcv_saddr"),
    "dport": ("sock", "__sk_common.skc_dport"),
    "num": ("sock", "__sk_common.skc_num"),
    "sport": ("inet_sock", "inet_sport"),
    "cgroup": ("sock", "sk_cgrp_data.cgroup"),
}
VIEW_FIELDS: Final = {
    "pacing_rate": ("sock", "sk_pacing_rate"),
    "rto": ("inet_connection_sock", "icsk_rto"),
    "ca_ops": ("inet_connection_sock", "icsk_ca_ops"),
    "ca_state": ("inet_connection_sock", "icsk_ca_state"),
    "pending": ("inet_connection_sock", "icsk_pending"),
    "srtt_us": ("tcp_sock", "srtt_us"),
    "mdev_us": ("tcp_sock", "mdev_us"),
    "rtt_min": ("tcp_sock", "rtt_min.s.v"),
    "snd_cwnd": ("tcp_sock", "snd_cwnd"),
    "snd_ssthresh": ("tcp_sock", "snd_ssthresh"),
    "packets_out": ("tcp_sock", "packets_out"),
    "sacked_out": ("tcp_sock", "sacked_out"),
    "lost_out": ("tcp_sock", "lost_out"),
    "retrans_out": ("tcp_sock", "retrans_out"),
    "total_retrans": ("tcp_sock", "total_retrans"),
    "bytes_sent": ("tcp_sock", "bytes_sent"),
    "bytes_retrans": ("tcp_sock", "bytes_retrans"),
    "bytes_acked": ("tcp_sock", "bytes_acked"),
    "bytes_received": ("tcp_sock", "bytes_received"),
    "delivered": ("tcp_sock", "delivered"),
    "rate_delivered": ("tcp_sock", "rate_delivered"),
    "rate_interval_us": ("tcp_sock", "rate_interval_us"),
    "mss_cache": ("tcp_sock", "mss_cache"),
    "snd_wnd": ("tcp_sock", "snd_wnd"),
    "rcv_wnd": ("tcp_sock", "rcv_wnd"),
    "reordering": ("tcp_sock", "reordering"),
    "dsack_dups": ("tcp_sock", "dsack_dups"),
    "chrono_start": ("tcp_sock", "chrono_start"),
    "chrono_type": ("tcp_sock", "chrono_type"),
}
# The three times of enum tcp_chrono less its first: an array.
CHRONO_STAT: Final = ("chrono_busy", "chrono_rwnd", "chrono_sndbuf")
# Without these there is nothing that could be told of a socket.
NEEDED: Final = ("family", "state", "net", "daddr", "rcv_saddr", "dport", "num", "sport")
# Offsets in other structs, by pointer from a socket or a task: name of the constant: struct, path.
POINTED: Final = {
    "NETNS_INUM": ("net", "ns.inum"),
    "CGROUP_KN": ("cgroup", "kn"),
    "KERNFS_ID": ("kernfs_node", "id"),
    "CA_OPS_NAME": ("tcp_congestion_ops", "name"),
    "TASK_GROUP_LEADER": ("task_struct", "group_leader"),
    "TASK_COMM": ("task_struct", "comm"),
}
# What needs several of POINTED at once.
CHAINS: Final = {
    "kernfs_id": ("CGROUP_KN", "KERNFS_ID"),
    "process_comm": ("TASK_GROUP_LEADER", "TASK_COMM"),
}
# The way from accept()'s file descriptor to its socket.
TASK_FILES: Final = {
    "TASK_FILES": ("task_struct", "files"),
    "FILES_FDT": ("files_struct", "fdt"),
    "FDTABLE_FD": ("fdtable", "fd"),
    "FILE_PRIVATE_DATA": ("file", "private_data"),
    "SOCKET_SK": ("socket", "sk"),
}
# Copying one byte range more costs as much as copying so many bytes more: 10 ns against 1 ns for 8.
GAP_BYTES: Final = 80
# A range is copied to the same place in the image; ranges begin and end at multiples of this.
ALIGNMENT: Final = 8


def layout_source(types: KernelTypes) -> str:
    """FIELD_…, HAS_…, OFFSET_…, READ_KEY, READ_VIEW and the constants of POINTED, as preprocessor lines.

    A field that this kernel lacks reads as 0 and HAS_… is 0.  MissingFeatureError where one of NEEDED is missing.
    """
    key = {name: types.field(*where) for name, where in KEY_FIELDS.items()}
    view = {name: types.field(*where) for name, where in VIEW_FIELDS.items()}
    view |= _chrono_stat(types)
    if missing := [name for name in NEEDED if key[name] is None]:
        raise MissingFeatureError(f"this kernel's sockets have no {', '.join(missing)}")
    lines = [line for name, field in (key | view).items() for line in _field(name, field)]
    lines += _constants(types, POINTED)
    for name, chain in CHAINS.items():
        lines.append(f"#define HAS_{name} {int(all(types.field(*POINTED[one]) for one in chain))}")
    protocol = types.field("sock", "sk_protocol")
    lines.append(f"#define OFFSET_protocol {protocol.offset if protocol else 0}")
    image_bytes = 0
    for name, fields in (("READ_KEY", key), ("READ_VIEW", view | {"state": key["state"]})):
        ranges = byte_ranges(field for field in fields.values() if field is not None)
        reads = " ".join(
            f"bpf_probe_read_kernel((image) + {start}, {end - start}, (void *)((sk) + {start}));"
            for start, end in ranges
        )
        lines.append(f"#define {name}(image, sk) do {{ {reads} }} while (0)")
        image_bytes = max(image_bytes, ranges[-1][1])
    lines.append(f"#define IMAGE_BYTES {image_bytes}")
    return "\n".join(lines)


def accept_source(types: KernelTypes) -> str | None:
    """The constants of TASK_FILES; None where this kernel has another way from a process to its sockets."""
    if not all(types.field(*where) for where in TASK_FILES.values()):
        return None
    return "\n".join(["#define HAVE_TASK_FILES", *_constants(types, TASK_FILES)])


def byte_ranges(fields: Iterable[Field]) -> list[tuple[int, int]]:
    """The ranges to copy, in order, so that every field is in one of them."""
    ranges: list[tuple[int, int]] = []
    for start, end in sorted((field.offset, field.offset + field.size) for field in fields):
        start, end = start // ALIGNMENT * ALIGNMENT, -(-end // ALIGNMENT) * ALIGNMENT
        if ranges and start <= ranges[-1][1] + GAP_BYTES:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((start, end))
    return ranges


def _chrono_stat(types: KernelTypes) -> dict[str, Field | None]:
    array = types.field("tcp_sock", "chrono_stat")
    if array is None:
        return dict.fromkeys(CHRONO_STAT)
    size = array.size // len(CHRONO_STAT)
    return {name: Field(array.offset + index * size, size) for index, name in enumerate(CHRONO_STAT)}


def _field(name: str, field: Field | None) -> list[str]:
    if field is None:
        return [f"#define HAS_{name} 0", f"#define FIELD_{name}(image) 0", f"#define OFFSET_{name} 0"]
    # More bytes than a load takes (an IPv6 address) are only copied.
    bits = 8 * field.size if field.size in (1, 2, 4, 8) else 8
    value = f"(*(const __u{bits} *)((image) + {field.offset}))"
    if field.bits:
        value = f"({value} >> {field.shift} & {(1 << field.bits) - 1})"
    return [f"#define HAS_{name} 1", f"#define FIELD_{name}(image) {value}", f"#define OFFSET_{name} {field.offset}"]


def _constants(types: KernelTypes, wanted: dict[str, tuple[str, str]]) -> list[str]:
    fields = {name: types.field(*where) for name, where in wanted.items()}
    return [f"#define {name} {field.offset if field else 0}" for name, field in fields.items()]

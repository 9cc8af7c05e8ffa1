"""The C structs of engine.rows and bpf/records.h, and what numbers mean, against what Python goes by."""

from libc.stdint cimport uint8_t

from tcptrace.engine.rows cimport direction_row, finding, packet_brief, whole_row
from tcptrace.engine.states cimport STATE_TIME_WAIT, STATES
from tcptrace.records cimport flow_count, flow_key, packet_record, socket_key, socket_record, socket_view

import numpy as np

from tcptrace import model
from tcptrace.records import FLOW_COUNT, FLOW_KEY, PACKET_RECORD, SOCKET_KEY, SOCKET_RECORD, SOCKET_VIEW


def check():
    """Raises ImportError where they differ."""
    cdef whole_row whole
    cdef direction_row direction
    cdef packet_brief brief
    cdef finding found
    cdef uint8_t *base = <uint8_t *>&whole
    offsets = {
        "sent": <uint8_t *>&whole.row.sent - base,
        "received": <uint8_t *>&whole.row.received - base,
        "recent": <uint8_t *>&whole.row.recent - base,
        "src_socket": <uint8_t *>&whole.sockets.src - base,
        "dst_socket": <uint8_t *>&whole.sockets.dst - base,
        "recent_total": <uint8_t *>&whole.row.recent_total - base,
        "dst_addr": <uint8_t *>&whole.row.dst_addr - base,
        "vlan_id": <uint8_t *>&whole.row.vlan_id - base,
        "state": <uint8_t *>&whole.row.state - base,
        "near_end": <uint8_t *>&whole.row.near_end - base,
        "changed": <uint8_t *>&whole.row.changed - base,
        "records_lost": <uint8_t *>&whole.row.records_lost - base,
    }
    same = (
        np.asarray(<direction_row[:1]>&direction).dtype == model.DIRECTION
        and np.asarray(<packet_brief[:1]>&brief).dtype == model.PACKET_BRIEF
        and np.asarray(<finding[:1]>&found).dtype == model.FINDING
        and model.CONNECTION.itemsize == sizeof(whole_row)
        and all(model.CONNECTION.fields[name][1] == offset for name, offset in offsets.items())
        and PACKET_RECORD.itemsize == sizeof(packet_record)
        and FLOW_KEY.itemsize == sizeof(flow_key)
        and FLOW_COUNT.itemsize == sizeof(flow_count)
        and SOCKET_KEY.itemsize == sizeof(socket_key)
        and SOCKET_VIEW.itemsize == sizeof(socket_view)
        and SOCKET_RECORD.itemsize == sizeof(socket_record)
    )
    if not same:
        raise ImportError("tcptrace.model and the compiled engine do not match: reinstall tcptrace")


def check_names():
    """Raises ImportError where engine.findings and engine.states do not count as tcptrace.model does."""
    if (
        (model.ANALYSIS[0], model.ANALYSIS[5], model.ANALYSIS[12], model.ANALYSIS[16:])
        != ("retransmission", "duplicate_ack", "keep_alive", ("local_drop",))
        or len(model.STATES) != STATES
        or model.STATES[STATE_TIME_WAIT] != "TIME-WAIT"
    ):
        raise ImportError("tcptrace.model and the compiled engine do not match: reinstall tcptrace")

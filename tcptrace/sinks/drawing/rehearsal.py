"""A made-up connection in which everything happens, to draw before it matters."""

import numpy as np

from tcptrace import records as r
from tcptrace.model import ANALYSIS
from tcptrace.sinks.drawing.history import PACKET, SACK, Endpoints, History


def sample_history() -> History:
    """Each finding once in each direction, both with payload; a SACK block; windows of known scale."""
    count = 2 * len(ANALYSIS)
    packets = np.zeros(count, PACKET)
    packets["time_ns"] = np.arange(count) * 1_000_000
    packets["received"] = np.arange(count) % 2
    packets["seq"] = packets["ack"] = 1 + np.arange(count) // 2 * 100
    packets["payload_bytes"] = packets["frame_bytes"] = packets["in_flight_bytes"] = 100
    packets["analysis"] = 1 << np.arange(count) // 2
    packets["rtt_us"] = np.arange(count) + 1
    packets["window"] = 1000
    packets["flags"] = r.FLAG_ACK
    packets["flags"][:2] |= r.FLAG_SYN
    packets["flags"][2:4] |= r.FLAG_FIN
    packets["flags"][4:6] |= r.FLAG_RST
    history = History(1, Endpoints(("192.0.2.1", 1), ("2001:db8::1", 2)), scales=[7, 7])
    history.packets_kept.append(packets)
    history.sacks_kept.append(np.array([(5, 300, 400), (6, 300, 400)], SACK))
    history.frame_bytes = [100, 100]
    return history

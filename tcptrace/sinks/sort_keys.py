"""The names of the orders a table can be in; apart from `order`, so that the command line need not import numpy."""

from typing import Final

SORT_KEYS: Final = (
    "rate",
    "bytes",
    "packets",
    "rtt",
    "retransmissions",
    "duration",
    "start",
    "state",
    "src",
    "dst",
    "port",
    "process",
    "srtt",
    "cwnd",
)

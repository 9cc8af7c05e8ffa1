"""Axis labels: numbers with units that suit the whole axis."""

import math
from typing import Final

from tcptrace.sinks import human

_TIME_UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
# Fewer are all drawn: nobody wonders how many of them are there to be seen.
_MANY_PACKETS: Final = 1000


def time_unit(duration_s: float) -> tuple[float, str]:
    """Seconds in the unit that an axis of that length is labelled with, and its name."""
    return next(
        ((size, name) for size, name in _TIME_UNITS if duration_s >= 2 * size),
        _TIME_UNITS[0 if duration_s <= 0 else -1],
    )


def bytes_label(value: float) -> str:
    """A height on a byte axis: 1.5 MB, -200 B."""
    sign, size = ("-" if value < 0 else ""), abs(value)
    if size < 1000:
        return f"{sign}{size:g} B"
    prefixes = ("k", "M", "G", "T", "P", "E")
    index = min(int(math.log10(size) // 3), len(prefixes))
    return f"{sign}{float(f'{size / 1000**index:.4g}'):g} {prefixes[index - 1]}B"


def ascending_width(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten that is not below `value` > 0."""
    power = 10 ** math.floor(math.log10(value))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9)))


def packets_note(packets: int, not_kept: int, marks: int | None = None) -> str:
    """How much of it is in the picture; of many packets, in how many `marks`."""
    note = human.plural(packets, "packet")
    if marks is not None and marks < packets >= _MANY_PACKETS:
        note += f", shown as {human.plural(marks, 'mark')}"
    return f"{note}; {not_kept:,} later ones not drawn: memory for packets was full" if not_kept else note


def duration_label(seconds: float) -> str:
    """A bin's width: 50 ms, 2 s."""
    size, unit = time_unit(seconds * 2)
    return f"{round(seconds / size, 6):g} {unit}"


def flight_notes(window_known: bool, cut_off: int) -> list[str]:
    """What to say of a receiver's window that is not, or not all, beside the bytes in flight."""
    if not window_known:
        return ["window not drawn: its scale is unknown (not both SYNs seen)"]
    return [f"window up to {human.byte_count(cut_off)}, above the picture"] * bool(cut_off)


def window_notes(window_known: bool, cut_off: int) -> list[str]:
    """What to say of a window edge that is not, or not all, in the picture."""
    notes = []
    if not window_known:
        notes.append("window edge not drawn: its scale is unknown (not both SYNs seen)")
    if cut_off:
        notes.append(f"window edge up to {human.byte_count(cut_off)} above the picture")
    return notes

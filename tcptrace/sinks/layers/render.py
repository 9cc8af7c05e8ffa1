"""Layers as lines of text: names, values and meanings in columns, no wider than asked for."""

import textwrap
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from tcptrace.sinks import human
from tcptrace.sinks.layers.parts import DUMP_BYTES, Field, Layer, Tone
from tcptrace.sinks.paint import Paint

_LAYER_INDENT: Final = 2
_FIELD_INDENT: Final = 4
_NAME_WIDTH: Final = 17
_VALUE_WIDTH: Final = 17
_VALUE_AT: Final = _FIELD_INDENT + _NAME_WIDTH + 1
_MEANING_AT: Final = _VALUE_AT + _VALUE_WIDTH + 2
_LEAST_MEANING: Final = 24
"""Characters a line: with less room, meanings are left out."""
_LEAST_WIDTH: Final = _VALUE_AT + 8
_DUMP_COLUMNS: Final = ((16, 78), (8, 44), (4, 30))
"""Bytes a line of a dump, and the characters that takes."""

_TITLE: Final = "bold cyan"
_MEANING: Final = "dim"
_TONES: Final[dict[Tone, str]] = {"plain": "", "good": "green", "warning": "yellow", "bad": "bold red", "quiet": "dim"}


def heading_lines(parts: Sequence[str], width: int, style: str, paint: Paint) -> list[str]:
    """The parts on one line, or on as many as they need."""
    lines = [""]
    for part in parts:
        text = human.ellipsise(part, max(1, width - _LAYER_INDENT))
        if lines[-1].strip() and len(lines[-1]) + 2 + len(text) > width:
            lines.append(" " * _LAYER_INDENT)
        lines[-1] += f"  {text}" if lines[-1].strip() else text
    return [paint(line, style) for line in lines]


def layer_lines(layer: Layer, width: int, paint: Paint) -> list[str]:
    """The layer's title, its fields, and a payload's first bytes."""
    width = max(width, _LEAST_WIDTH)
    lines = [_title(layer, width, paint)]
    for field in layer.fields:
        lines += _field_lines(field, width, paint)
    lines += _dump_lines(layer.dump, width)
    return lines


def _title(layer: Layer, width: int, paint: Paint) -> str:
    purpose = f", {layer.purpose}" if layer.purpose else ""
    if _LAYER_INDENT + len(layer.name) + len(purpose) > width:
        purpose = ""
    name = human.ellipsise(layer.name, width - _LAYER_INDENT)
    return " " * _LAYER_INDENT + paint(name, _TITLE) + paint(purpose, _MEANING)


def _field_lines(field: Field, width: int, paint: Paint) -> list[str]:
    style = _TONES[field.tone]
    # A name that has neither value nor room beside it pushes what follows to the right.
    value_at = max(_VALUE_AT, _FIELD_INDENT + len(field.name) + 2)
    head = " " * _FIELD_INDENT + field.name.ljust(value_at - _FIELD_INDENT)
    narrow = width - _MEANING_AT < _LEAST_MEANING
    meaning = field.meaning if not narrow or field.tone in ("bad", "warning") else ""
    if not field.value:
        told = _wrapped(meaning, value_at, _VALUE_AT, width)
        return _joined(head, told, style or _MEANING, paint)
    values = _wrapped(field.value, value_at, _VALUE_AT, width)
    if not meaning:
        return _joined(head, values, style, paint)
    lines = _joined(head, values, style, paint)
    if narrow:
        told = _wrapped(meaning, _VALUE_AT, _VALUE_AT, width)
        return lines + [" " * _VALUE_AT + paint(line, _MEANING) for line in told]
    at = (value_at if len(values) == 1 else _VALUE_AT) + len(values[-1]) + 2
    if at <= _MEANING_AT:
        told = _wrapped(meaning, _MEANING_AT, _MEANING_AT, width)
        lines[-1] += " " * (_MEANING_AT - at + 2) + paint(told[0], _MEANING)
        rest: Iterable[str] = told[1:]
    elif at + len(meaning) <= width:
        lines[-1] += "  " + paint(meaning, _MEANING)
        rest = ()
    else:
        rest = _wrapped(meaning, _MEANING_AT, _MEANING_AT, width)
    return lines + [" " * _MEANING_AT + paint(line, _MEANING) for line in rest]


def _joined(head: str, texts: Sequence[str], style: str, paint: Paint) -> list[str]:
    """The head with the first text, the others below it."""
    if not texts:
        return [head.rstrip()]
    return [head + paint(texts[0], style)] + [" " * _VALUE_AT + paint(text, style) for text in texts[1:]]


@lru_cache(maxsize=4096)
def _wrapped(text: str, first_at: int, others_at: int, width: int) -> tuple[str, ...]:
    """`text` in lines that end before `width`; the first begins further right than the others, maybe."""
    least = max(first_at, others_at) + 8
    lines = textwrap.wrap(
        text,
        max(width, least),
        initial_indent=" " * first_at,
        subsequent_indent=" " * others_at,
        break_on_hyphens=False,
    )
    return tuple(line[others_at:] if number else line[first_at:] for number, line in enumerate(lines))


def _dump_lines(dump: bytes, width: int) -> list[str]:
    """Sixteen bytes a line, as hexadecimal numbers and as characters."""
    columns = next((columns for columns, needed in _DUMP_COLUMNS if needed <= width), _DUMP_COLUMNS[-1][0])
    lines = []
    for start in range(0, len(dump[:DUMP_BYTES]), columns):
        part = dump[start : start + columns]
        halves = "  ".join(part[at : at + 8].hex(" ").ljust(23) for at in range(0, columns, 8))
        characters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        lines.append(f"{' ' * _FIELD_INDENT}{start:04x}  {halves[: columns * 3 - 1 + columns // 16]}  {characters}")
    return lines

"""Imports go one way: cli -> pipeline -> {sources | engine | sinks} -> {records, model, errors}."""

import re
from pathlib import Path

import pytest

# The wheel has no Cython sources in it: this is about the checkout.
PACKAGE = Path(__file__).parents[2] / "tcptrace"
CONTRACTS = {"records", "model", "errors"}
MAY_IMPORT = {
    "errors": set(),
    "records": set(),
    "model": {"records"},
    "engine": CONTRACTS,
    "sources": CONTRACTS,
    "sinks": CONTRACTS,
    "pipeline": CONTRACTS,
}
IMPORT = re.compile(
    r"^\s*(?:from\s+(tcptrace[\w.]*)\s+c?import\s+(?:\(([^)]*)\)|([^\n]*))|c?import\s+(tcptrace[\w.]*))", re.MULTILINE
)


def modules() -> list[Path]:
    return sorted(path for suffix in ("py", "pyx", "pxd") for path in PACKAGE.rglob(f"*.{suffix}"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].split(".")[0]


def imported_rooms(text: str) -> set[str]:
    rooms = set()
    for module, several, names, plain in IMPORT.findall(text):
        parts = (module or plain).split(".")
        # "from tcptrace import model" names the room after the import.
        rooms |= {parts[1]} if len(parts) > 1 else set(re.findall(r"\w+", re.sub(r"\s+as\s+\w+", "", several or names)))
    return rooms - {"__version__"}


def test_all_kinds_of_modules_are_looked_at() -> None:
    assert {"table.pyx", "rows.pxd", "ring.pyx", "pipeline.py", "source.py"} <= {path.name for path in modules()}


def test_the_reading_of_imports_itself() -> None:
    text = "from tcptrace import model\nfrom tcptrace.engine.rows cimport (\n a, b\n)\nimport tcptrace.sinks.human\n"
    assert imported_rooms(text) == {"model", "engine", "sinks"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    if room not in MAY_IMPORT:
        assert room in {"cli", "__main__", "__init__"}
        return
    assert imported_rooms(path.read_text()) <= MAY_IMPORT[room] | {room}


def test_the_engine_reads_no_clock_and_does_no_input_or_output() -> None:
    words = re.compile(r"\b(import (time|os|io|socket|random|datetime)|open\(|print\()")
    for path in (PACKAGE / "engine").glob("*.pyx"):
        assert not words.search(path.read_text()), path.name

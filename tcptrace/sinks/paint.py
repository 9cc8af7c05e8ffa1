"""Colour for text that is written without a Rich renderer's help: line by line, as it comes."""

from collections.abc import Callable

from rich.console import COLOR_SYSTEMS, Console
from rich.style import Style

Paint = Callable[[str, str], str]
"""Text and a Rich style to what is written."""


def painter(console: Console) -> Paint:
    """How to colour; as it is where the stream or the user (--no-color, NO_COLOR) has no colour."""
    system = COLOR_SYSTEMS.get(console.color_system or "")
    if not console.is_terminal or console.no_color or system is None:
        return lambda text, style: text
    return lambda text, style: Style.parse(style).render(text, color_system=system) if style and text else text

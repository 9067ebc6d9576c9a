"""What is written to a terminal for lines of cells: of a frame only the lines that are others than before.

Rich lays out what it is given anew each time, which for lines that are laid out already costs more than all the rest
of a frame; from it come the escape codes of styles alone, and what the terminal can do with them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from rich.console import COLOR_SYSTEMS, Console

from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.demo.state import Size

__all__ = ["Painter"]

#: Every so many frames all lines are written, whatever another program has put over them meanwhile.
_ALL_EVERY: Final = 10
#: A terminal that measures a character otherwise than we do, or is smaller than it just was, cuts a line instead of
#: going on in the next one.
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_CLEAR: Final = "\x1b[H\x1b[2J"
#: A line with any other character than these may be narrower on the terminal than we take it for: it is wiped before it
#: is written, or cells of the one before it would stay at its end.
_DOUBTFUL: Final = re.compile("[^\\x00-\\x7f·×…–←-⇿─-◿✓✗]").search
_WIPE: Final = "\x1b[K"
_TEXT: Final = "x"


class Painter:
    """Remembers what the terminal shows. ``console`` says which colours there are, and whether any are wanted."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._codes: dict[str, tuple[str, str]] = {"": ("", "")}
        self._shown: list[str] = []
        self._size: Size | None = None
        self._frames = 0

    def forget(self) -> None:
        """Somebody else had the terminal: the next frame is painted whole, on an empty screen."""
        self._size = None

    def painted(self, lines: Sequence[Sequence[Cell]], size: Size) -> str:
        """What makes the terminal show ``lines``, each as wide as ``size``; empty where it does already."""
        before, cleared = self._shown, ""
        self._frames += 1
        if size != self._size:
            before, cleared = [], _CLEAR
            self._frames = 0
        elif self._frames % _ALL_EVERY == 0:
            before = []
        shown = self._shown = [self._line(line) for line in lines]
        self._size = size
        kept = len(before)
        moved = [
            f"\x1b[{at + 1};1H{_WIPE if _DOUBTFUL(text) else ''}{text}"
            for at, text in enumerate(shown)
            if at >= kept or before[at] != text
        ]
        return f"{_NO_WRAP}{cleared}{''.join(moved)}{_WRAP}" if moved else ""

    def _line(self, line: Sequence[Cell]) -> str:
        codes = self._codes
        parts = []
        for cell in line:
            style = cell.style
            if not style:
                parts.append(cell.text)
                continue
            begin, end = codes.get(style) or self._learned(style)
            parts.append(f"{begin}{cell.text}{end}")
        return "".join(parts)

    def _learned(self, name: str) -> tuple[str, str]:
        """What is written before and behind a text of a style."""
        console = self._console
        style = console.get_style(name)
        system = console.color_system
        if console.no_color:
            style = style.without_color
        rendered = style.render(_TEXT, color_system=None if system is None else COLOR_SYSTEMS[system])
        begin, _, end = rendered.partition(_TEXT)
        self._codes[name] = begin, end
        return begin, end

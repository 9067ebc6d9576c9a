"""Tables of records: columns with a head, aligned by the cells of a terminal. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from nats_mesh_cli.errors import one_line

__all__ = ["Column", "Layout", "Record", "layout", "paint", "table", "width"]

Record: TypeAlias = dict[str, Any]

_STYLES = {"ok": "32", "warn": "33", "bad": "31", "dim": "2", "bold": "1", "name": "36"}
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its head, how a record's cell reads, and whether ``-o wide`` alone shows it."""

    header: str
    text: Callable[[Record], str]
    wide: bool = False
    right: bool = False
    style: Callable[[Record], str] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that a table shows, each with the cells it takes: chosen once, for the head and all rows."""

    columns: tuple[Column, ...]
    sizes: tuple[int, ...]

    def head(self, *, color: bool = False) -> str:
        """The line above all rows."""
        return paint(self._line([column.header for column in self.columns]), "bold", color)

    def row(self, record: Record, *, color: bool = False) -> str:
        """One line; what is wider than its column pushes the others to the right."""
        styles = [column.style(record) if column.style is not None else "" for column in self.columns]
        return self._line([_cell(column, record) for column in self.columns], styles if color else ())

    def _line(self, cells: Sequence[str], styles: Sequence[str] = ()) -> str:
        padded = []
        for at, (cell, column, size) in enumerate(zip(cells, self.columns, self.sizes, strict=True)):
            blanks = " " * max(0, size - width(cell))
            text = paint(cell, styles[at], color=True) if styles else cell
            last = at == len(self.columns) - 1
            padded.append(blanks + text if column.right else text if last else text + blanks)
        return _GAP.join(padded)


def layout(
    records: Sequence[Record], columns: Sequence[Column], *, wide: bool = False, least: Sequence[int] = ()
) -> Layout:
    """How a table of ``columns`` is laid out that begins with ``records``. ``least``: how wide each of ``columns`` is
    at least, those of ``-o wide`` included, where wider records may follow."""
    shown = [
        (column, max([size, width(column.header), *(width(_cell(column, record)) for record in records)]))
        for column, size in zip(columns, least or [0] * len(columns), strict=True)
        if wide or not column.wide
    ]
    return Layout(tuple(column for column, _ in shown), tuple(size for _, size in shown))


def table(
    records: Sequence[Record], columns: Sequence[Column], *, wide: bool = False, color: bool = False
) -> str:
    """Aligned columns with a head; never cut, because what is cut cannot be copied."""
    found = layout(records, columns, wide=wide)
    return "\n".join([found.head(color=color), *(found.row(record, color=color) for record in records)])


def _cell(column: Column, record: Record) -> str:
    return one_line(column.text(record)) or "-"


def paint(text: str, style: str, color: bool) -> str:
    """``text`` in a style (``ok``, ``warn``, ``bad``, ``dim``, ``bold``, ``name``), where colour is wanted."""
    code = _STYLES.get(style)
    return f"\x1b[{code}m{text}\x1b[0m" if color and code and text else text


def width(text: str) -> int:
    """How many cells of a terminal ``text`` takes (wide East Asian characters take two, marks none)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )

"""Tables of records: columns with a head, aligned by the cells of a terminal. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from nats_mesh_cli.errors import one_line

__all__ = [
    "FINE",
    "TEXT",
    "Column",
    "Layout",
    "Record",
    "clip",
    "is_empty",
    "layout",
    "paint",
    "plain",
    "table",
    "widest",
    "width",
]

Record: TypeAlias = dict[str, Any]

_STYLES = {"ok": "32", "warn": "33", "bad": "31", "dim": "2", "bold": "1", "name": "36", "part": "35"}
_GAP = "  "
#: From this ``drop`` on a column tells less than more of a text would.
FINE = 10
#: How much of a text is enough before such columns come (cells).
TEXT = 40
_CODE = re.compile("\x1b\\[[0-9]{1,2}m")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its head, how a record's cell reads, and whether ``-o wide`` alone shows it.

    Where a terminal is too narrow, ``brief`` is how its cell reads, and text of which the beginning says enough is cut
    down to ``short`` cells (0: it is not cut, as what is cut cannot be copied). Those with ``drop`` 0 stand (names),
    and of the others what finds room: the lowest ``drop`` first, of equal ones the leftmost. One that is empty in all
    rows comes last; one with ``drop`` :data:`FINE` or more comes after texts that were cut have :data:`TEXT` cells.
    """

    header: str
    text: Callable[[Record], str]
    wide: bool = False
    right: bool = False
    style: Callable[[Record], str] | None = None
    drop: int = 10
    short: int = 0
    brief: Callable[[Record], str] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that a table shows, each with the cells it takes: chosen once, for the head and all rows.

    ``room`` is how many cells a line has at most, of a terminal; ``None``: as many as it takes. ``hidden`` counts the
    columns that found no room.
    """

    columns: tuple[Column, ...]
    sizes: tuple[int, ...]
    room: int | None = None
    hidden: int = 0

    def head(self, *, color: bool = False) -> str:
        """The line above all rows."""
        return self._line([column.header for column in self.columns], ["bold"] * len(self.columns), color)

    def row(self, record: Record, *, color: bool = False) -> str:
        """One line; what is wider than its column pushes the others to the right, as far as there is room."""
        styles = [column.style(record) if column.style is not None else "" for column in self.columns]
        return self._line([_cell(column, record) for column in self.columns], styles, color)

    def rows(self, records: Iterable[Record], *, color: bool = False) -> str:
        """The head and a line for each record."""
        return "\n".join([self.head(color=color), *(self.row(record, color=color) for record in records)])

    def fits(self, record: Record) -> bool:
        """Whether a row of it keeps to the columns; what the last one has may be longer, and on a terminal text that
        may be cut."""
        sized = zip(self.columns[:-1], self.sizes, strict=False)
        return all(
            width(_cell(column, record)) <= size
            for column, size in sized
            if self.room is None or not column.short
        )

    @property
    def shape(self) -> tuple[tuple[str, int], ...]:
        """What its head shows: names and widths."""
        return tuple((column.header, size) for column, size in zip(self.columns, self.sizes, strict=True))

    @property
    def note(self) -> str:
        """What to say of the columns that are hidden; empty where none is."""
        if not self.hidden:
            return ""
        some = "1 column is" if self.hidden == 1 else f"{self.hidden} columns are"
        return f"{some} hidden: -o json, a wider terminal or a pipe shows all"

    def _line(self, cells: Sequence[str], styles: Sequence[str], color: bool) -> str:
        line, used = "", 0
        for at, (cell, column, size) in enumerate(zip(cells, self.columns, self.sizes, strict=True)):
            before, last = _GAP if at else "", at == len(self.columns) - 1
            if self.room is not None:
                if used + len(before) >= self.room:
                    break
                left = self.room - used - len(before)
                cell = clip(cell, min(size, left) if column.short and not last else left)
            blanks = " " * max(0, size - width(cell))
            used += len(before) + len(blanks) + width(cell)
            text = paint(cell, styles[at], color)
            line += before + (blanks + text if column.right else text if last else text + blanks)
        return line


def layout(
    records: Sequence[Record],
    columns: Sequence[Column],
    *,
    wide: bool = False,
    least: Sequence[int] = (),
    room: int | None = None,
) -> Layout:
    """How a table of ``columns`` is laid out that begins with ``records``. ``least``: how wide each of ``columns`` is
    at least, those of ``-o wide`` included, where wider records may follow and there is room. ``room``: see
    :class:`Layout`."""
    asked = [
        (column, size)
        for column, size in zip(columns, least or [0] * len(columns), strict=True)
        if wide or not column.wide
    ]
    shown = [(column, _size(column, records, size)) for column, size in asked]
    if room is None or _total(shown) <= room:
        return _laid(shown, room, 0)
    narrow = _Narrow([_brief(column) for column, _ in asked], records, room)
    kept = narrow.kept([size for _, size in asked])
    return _laid(_squeezed(kept, room), room, len(asked) - len(kept))


class _Narrow:
    """Which columns find room, and how much of it."""

    def __init__(self, columns: Sequence[Column], records: Sequence[Record], room: int) -> None:
        self._columns, self._room = columns, room
        self._wanted = [_size(column, records, 0) for column in columns]
        self._sizes = [
            min(size, column.short) if column.short else size
            for column, size in zip(columns, self._wanted, strict=True)
        ]
        self._empty = [is_empty(column, records) for column in columns]
        self._kept: list[int] = []

    def kept(self, least: Sequence[int]) -> list[tuple[Column, int]]:
        """Those that stand, each with its cells, ``least`` of them where there is room."""
        everything = range(len(self._columns))
        fine = [self._empty[at] or self._columns[at].drop >= FINE for at in everything]
        order = sorted(everything, key=lambda at: (self._empty[at], self._columns[at].drop, at))
        self._keep([at for at in order if not fine[at]])
        self._lengthen(TEXT)
        self._keep([at for at in order if fine[at]])
        self._lengthen(self._room)
        for at in self._kept[:-1]:  # nothing stands to the right of the last one
            if self._columns[at].brief is None and not self._columns[at].short:
                self._grow(at, least[at])
        return [(self._columns[at], self._sizes[at]) for at in self._kept]

    def _keep(self, order: Sequence[int]) -> None:
        for at in order:
            if not self._kept or not self._columns[at].drop or len(_GAP) + self._sizes[at] <= self._left():
                self._kept.append(at)
        self._kept.sort()

    def _lengthen(self, most: int) -> None:
        """What is left over is for texts that were cut, from the left."""
        for at in self._kept:
            if self._columns[at].short:
                self._grow(at, min(self._wanted[at], most))

    def _grow(self, at: int, most: int) -> None:
        self._sizes[at] += max(0, min(most - self._sizes[at], self._left()))

    def _left(self) -> int:
        return self._room - sum(self._sizes[at] for at in self._kept) - len(_GAP) * (len(self._kept) - 1)


def widest(records: Sequence[Record], columns: Sequence[Column]) -> list[Record]:
    """Of ``records`` those by which a table of all of them is laid out: of each column the one with the widest cell."""
    found = {max(range(len(records)), key=lambda at: width(_cell(column, records[at]))) for column in columns}
    return [records[at] for at in sorted(found)]


def is_empty(column: Column, records: Sequence[Record]) -> bool:
    """Whether it says nothing of any of them, and is no name."""
    return bool(column.drop and records) and all(_cell(column, record) == "-" for record in records)


def _squeezed(shown: Sequence[tuple[Column, int]], room: int) -> list[tuple[Column, int]]:
    """What may not go, made to fit all the same: the widest are cut first."""
    sizes = [min(size, room) for _, size in shown]
    while sum(sizes) + len(_GAP) * (len(sizes) - 1) > room and max(sizes) > 1:
        sizes[sizes.index(max(sizes))] -= 1
    return [
        (column if cut == size else replace(column, short=cut), cut)
        for (column, size), cut in zip(shown, sizes, strict=True)
    ]


def _size(column: Column, records: Sequence[Record], least: int) -> int:
    """How wide it must be for its head and every cell."""
    return max([least, width(column.header), *(width(_cell(column, record)) for record in records)])


def _brief(column: Column) -> Column:
    return replace(column, text=column.brief or column.text)


def _total(shown: Sequence[tuple[Column, int]]) -> int:
    return sum(size for _, size in shown) + len(_GAP) * (len(shown) - 1)


def _laid(shown: Sequence[tuple[Column, int]], room: int | None, hidden: int) -> Layout:
    return Layout(tuple(column for column, _ in shown), tuple(size for _, size in shown), room, hidden)


def table(
    records: Sequence[Record], columns: Sequence[Column], *, wide: bool = False, color: bool = False
) -> str:
    """Aligned columns with a head; never cut, because what is cut cannot be copied."""
    return layout(records, columns, wide=wide).rows(records, color=color)


def _cell(column: Column, record: Record) -> str:
    return one_line(column.text(record)) or "-"


def paint(text: str, style: str, color: bool) -> str:
    """``text`` in a style (``ok``, ``warn``, ``bad``, ``dim``, ``bold``, ``name``, ``part``), if ``color``."""
    code = _STYLES.get(style)
    return f"\x1b[{code}m{text}\x1b[0m" if color and code and text else text


def plain(text: str) -> str:
    """``text`` without the colours of :func:`paint`."""
    return _CODE.sub("", text) if "\x1b" in text else text


def width(text: str) -> int:
    """How many cells of a terminal ``text`` takes (wide East Asian characters take two, marks none)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def clip(text: str, cells: int) -> str:
    """``text`` in at most ``cells`` cells of a terminal; an ellipsis says that it was longer."""
    if len(text) <= cells and text.isascii():
        return text
    if width(text[: cells + 1]) <= cells and width(text) <= cells:
        return text
    kept, used = [], 0
    for character in text:
        used += width(character)
        if used > cells - 1:
            break
        kept.append(character)
    return "".join(kept) + "…" if cells > 0 else ""

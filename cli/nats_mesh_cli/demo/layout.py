"""Lines of an exact width out of cells: what does not fit is left out or shortened, never wrapped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from rich.cells import cell_len
from rich.text import Text

__all__ = ["Cell", "Column", "fit_columns", "join_fitting", "line", "shorten", "sparkline", "two_sided"]

GAP = 2
_BARS = "▁▂▃▄▅▆▇█"


class Cell(msgspec.Struct, frozen=True):
    """A text and its style."""

    text: str
    style: str = ""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One column: its head, its width in cells, and when it goes: the highest ``drop`` first, 0 never."""

    key: str
    head: str
    width: int
    right: bool = True
    drop: int = 0


def fit_columns(columns: Sequence[Column], width: int) -> list[Column]:
    """Those columns that fit side by side into ``width``; where those that never go are too wide, their texts have less
    room."""
    shown = list(columns)
    while (over := sum(column.width + GAP for column in shown) - GAP - width) > 0:
        going = max(shown, key=lambda column: column.drop)
        if going.drop == 0:
            at = max(range(len(shown)), key=lambda at: 0 if shown[at].right else shown[at].width)
            shown[at] = msgspec.structs.replace(shown[at], width=max(1, shown[at].width - over))
            break
        shown.remove(going)
    return shown


def line(columns: Sequence[Column], cells: dict[str, Cell]) -> Text:
    """One row of a table; a cell that is missing stays empty, one that is too long is shortened."""
    text = Text(no_wrap=True)
    for at, column in enumerate(columns):
        if at:
            text.append(" " * GAP)
        cell = cells.get(column.key, Cell(""))
        content = shorten(cell.text, column.width)
        blanks = " " * (column.width - cell_len(content))
        if column.right:
            text.append(blanks)
        text.append(content, cell.style)
        if not column.right:
            text.append(blanks)
    text.rstrip()
    return text


def shorten(text: str, width: int) -> str:
    """``text`` in at most ``width`` cells: whole words and an ellipsis, or a part of the first word and one."""
    if cell_len(text) <= width:
        return text
    if width < 2:
        return "…"[:width]
    kept = text
    while cell_len(kept) > width - 1:
        kept = kept[:-1]
    whole, _, part = kept.rpartition(" ")
    cut_inside = text[len(kept) : len(kept) + 1] not in ("", " ")
    if cut_inside and whole and part:
        kept = whole
    return f"{kept.rstrip()}…"


def join_fitting(segments: Iterable[Cell], width: int, gap: str = "   ") -> Text:
    """As many of ``segments`` as fit, in order; one that does not fit is left out whole."""
    text = Text(no_wrap=True)
    for segment in segments:
        lead = gap if text else ""
        if text.cell_len + len(lead) + cell_len(segment.text) <= width:
            text.append(lead)
            text.append(segment.text, segment.style)
    return text


def two_sided(left: Text, right: Text, width: int) -> Text:
    """``left`` and ``right`` at the two ends of a line."""
    text = left.copy()
    text.append(" " * max(1, width - left.cell_len - right.cell_len))
    text.append_text(right)
    return text


def sparkline(values: Sequence[float], width: int) -> str:
    """The last ``width`` values as bars; a steady one stands at two thirds. Nothing where nothing happened."""
    shown = values[-width:]
    top = max(shown, default=0.0) * 1.4
    if top <= 0.0:
        return ""
    return "".join(_BARS[int(value / top * len(_BARS))] for value in shown)

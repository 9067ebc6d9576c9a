"""The body of a view: rows around the selected one, with a pane under them where there is room. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.top import words
from nats_mesh_cli.top.columns import Sheet
from nats_mesh_cli.top.following import Facts
from nats_mesh_cli.top.frame import Line, boxed, filled, width_of
from nats_mesh_cli.top.grid import Field, fitted, pieces, wishes
from nats_mesh_cli.top.pane import pane_of
from nats_mesh_cli.top.sheets import index_of, listed, sheet_of
from nats_mesh_cli.top.state import State, View

__all__ = ["table"]

#: Below this many lines of the screen no pane stands under the table, and this many lines a pane has at most.
_PANE_FROM: Final = 20
_PANE: Final = 5
_MAX_PANE: Final = 12
_SELECTED: Final = "reverse"


def table(state: State, facts: Facts, width: int, height: int) -> list[Line]:
    """Rows around the selected one, and where there is room a pane with more about it."""
    sheet = sheet_of(state)
    items = listed(state)
    at = index_of(state, items)
    below: list[Line] = []
    if height + 4 >= _PANE_FROM:
        pane_height = max(_PANE, min(_MAX_PANE, height // 4))
        below = pane_of(state, facts, items[at] if items else None, width, pane_height)
    rows = max(1, height - 1 - len(below))
    first = max(0, min(at - rows // 2, len(items) - rows))
    shown = items[first : first + rows]
    cells = [sheet.cells(item, facts) for item in shown]
    unsaid = sheet.left_out(facts)
    fields = [field for field in sheet.fields if field.key not in unsaid]
    sizes = fitted(fields, width - 3, wishes(fields, cells))
    lines = [
        boxed([Cell(" "), *_heads(state, sheet, sizes, first, len(shown), len(items), width - 3)], width)
    ]
    for place, row in enumerate(cells, first):
        if place == at:
            marked = [
                Cell("▶", "bold"),
                *[Cell(each.text, _marked(each.style)) for each in pieces(sizes, row)],
            ]
            lines.append(boxed(marked, width))
        else:
            lines.append(boxed([Cell(" "), *pieces(sizes, row)], width))
    if not items:
        lines += [
            boxed([Cell(" "), Cell(part, words.DIM)], width) for part in _nothing(state, sheet, width - 4)
        ]
    return [*filled(lines, width, 1 + rows), *below]


def _marked(style: str) -> str:
    """The style of a cell in the selected row: one for all, but that trouble stays to be seen."""
    return f"{style} {_SELECTED}" if style in (words.BAD, words.WARN) else _SELECTED


def _heads(
    state: State,
    sheet: Sheet,
    sizes: Sequence[tuple[Field, int]],
    first: int,
    shown: int,
    count: int,
    width: int,
) -> Line:
    """The columns' names; the one that is sorted by is marked, and where not all rows show that is said, where there is
    room for it."""
    choice = state.choice
    sorted_by = sheet.orders[choice.sorted % len(sheet.orders)].column
    mark = "▲" if choice.turned else "▼"
    cells = {}
    for field, size in sizes:
        head = field.head
        if field.key == sorted_by:
            head = f"{head[: max(0, size - 1)]}{mark}"
        cells[field.key] = Cell(head, words.HEAD)
    line = pieces(sizes, cells)
    if shown < count:
        for text in (f"{first + 1}–{first + shown} of {count}", f"{first + shown}/{count}"):
            if width_of(line) + 1 + len(text) <= width:
                return [*line, Cell(" "), Cell(text, words.DIM)]
    return line


def _nothing(state: State, sheet: Sheet, width: int) -> list[str]:
    if state.needle:
        text = f"nothing here has {words.clean(state.needle)!r} in it; esc drops the filter"
    elif state.view is View.POLICIES and state.data.store:
        text = state.data.store
    elif state.view is View.TAP and state.only:
        text = "no such call yet: f says which ones are shown"
    elif sheet.unheard and not state.data.settled:
        listening = f"listening to everybody in namespace {words.clean(state.data.mesh.namespace)}"
        text = f"{listening}: {sheet.unheard}"
    else:
        text = sheet.nothing
    return textwrap.wrap(text, max(1, width))

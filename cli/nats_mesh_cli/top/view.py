"""The whole screen as a pure function: a state and a size in, exactly that many lines of exactly that width out."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Final

from rich.cells import cell_len

from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.demo.state import Size
from nats_mesh_cli.top import words
from nats_mesh_cli.top.columns import Sheet
from nats_mesh_cli.top.drill import errors_of, latency_lines, lines_of, name_of, red_of
from nats_mesh_cli.top.following import Facts
from nats_mesh_cli.top.frame import Frame, Line, boxed, joined, ruled, width_of
from nats_mesh_cli.top.grid import Field, clip, fitted, pieces
from nats_mesh_cli.top.heading import banner, numbers, title
from nats_mesh_cli.top.reducing import wrapped
from nats_mesh_cli.top.sheets import index_of, listed, sheet_of
from nats_mesh_cli.top.state import VIEWS, Page, State, View

__all__ = ["MIN_SIZE", "render"]

MIN_SIZE: Final = Size(36, 8)
#: Below this many lines no pane stands under the table, and this many lines a pane has at most.
_PANE_FROM: Final = 20
_PANE: Final = 5
_MAX_PANE: Final = 12
_SELECTED: Final = "reverse"
_SAMPLED: Final = 200


def render(state: State, size: Size) -> Frame:
    """Draw ``state``."""
    if size.width < MIN_SIZE.width or size.height < MIN_SIZE.height:
        return _too_small(size)
    width = size.width
    facts = Facts(state.data)
    top = [
        ruled([Cell(" "), *title(state, facts, width - 4)], width, "┌", "┐", " "),
        boxed([Cell(" "), *(banner(state, width - 4) or numbers(state, width - 4))], width),
        ruled([Cell(" "), *_tabs(state, width - 4), Cell(" ")], width, "├", "┤"),
    ]
    room = size.height - len(top) - 1
    if state.page is not None:
        body = _page(state.page, width, room)
    elif state.drill:
        body = _drill(state, width, room)
    else:
        body = _table(state, facts, width, room)
    bottom = ruled([Cell(" "), *_footer(state, width - 4), Cell(" ")], width, "└", "┘")
    return Frame([*top, *body, bottom], size)


# -- around the body ----------------------------------------------------------------------------------------


def _tabs(state: State, width: int) -> Line:
    """The views, and at the end what is chosen: the order, the filter."""
    needle = f"/{state.needle}{'▏' if state.typing else ''}" if state.needle or state.typing else ""
    shown = [Cell(clip(words.clean(needle), max(0, width // 2)), "bold yellow")] if needle else []
    if order := _order(state):
        shown = joined([*shown[::-1], Cell(order, words.DIM)], width // 2)[::-1]
    full = sum(len(view.name) + 3 for view in VIEWS) - 1
    if needle and full + width_of(shown) + 4 > width:  # what filters matters more than what sorts
        shown = shown[-1:]
    room = width - (width_of(shown) + 4 if needle else 0)
    names = {view: f"{view.value} {view.name.title()}" for view in VIEWS}
    if full > room:  # the one that shows in full, of the others the key
        names = {view: name if view is state.view else str(view.value) for view, name in names.items()}
    tabs = joined(
        [Cell(name, "bold reverse" if view is state.view else "") for view, name in names.items()], room, " "
    )
    gap = width - width_of(tabs) - width_of(shown) - 2
    return [*tabs, Cell(" "), Cell("─" * gap, words.DIM), Cell(" "), *shown] if shown and gap > 0 else tabs


def _order(state: State) -> str:
    """How the rows are sorted, in words."""
    if state.page is not None or state.drill:
        return ""
    orders = sheet_of(state).orders
    order = orders[state.choice.sorted % len(orders)]
    turned = " (turned)" if state.choice.turned else ""
    return f"{order.word}{turned}" if order.first else f"by {order.word}{turned}"


def _footer(state: State, width: int) -> Line:
    if state.typing:
        keys = ["type to filter", "enter keep", "esc drop"]
    elif state.page is not None:
        keys = ["esc back", "q quit", "↑↓ scroll"]
    elif state.drill:
        keys = ["esc back", "q quit", "? help", "d describe", "↑↓ scroll", "p pause"]
    else:
        keys = ["? help", "q quit", "/ find", "enter drill", "d describe", "s sort", "p pause"]
        if state.view is View.EDGES:
            keys.insert(4, "g table" if state.graph else "g graph")
    return joined([Cell(key, words.DIM) for key in keys], width)


# -- the body -----------------------------------------------------------------------------------------------


def _page(page: Page, width: int, height: int) -> list[Line]:
    lines = wrapped(page, width - 4)
    top = max(0, min(page.top, len(lines) - (height - 1)))
    shown = lines[top : top + height - 1]
    more = f" {top + len(shown)}/{len(lines)} " if len(lines) > height - 1 else ""
    head = boxed(
        [Cell(" "), Cell(clip(page.title, width - 4 - len(more)), words.HEAD), Cell(more, words.DIM)], width
    )
    body = [boxed([Cell(" "), Cell(line, words.HEAD if line.isupper() else "")], width) for line in shown]
    return _filled([head, *body], width, height)


def _drill(state: State, width: int, height: int) -> list[Line]:
    caller, service = name_of(state.drill)
    lines = lines_of(state.drill, state.data, width - 4)
    top = max(0, min(state.drill_top, len(lines) - (height - 1)))
    shown = lines[top : top + height - 1]
    more = f" {top + len(shown)}/{len(lines)} " if len(lines) > height - 1 else ""
    name = words.clean(f"{caller} → {service}" if caller else service)
    head = boxed(
        [Cell(" "), Cell(clip(name, width - 4 - len(more)), words.NAME), Cell(more, words.DIM)], width
    )
    return _filled([head, *[boxed([Cell(" "), *line], width) for line in shown]], width, height)


def _filled(lines: list[Line], width: int, height: int) -> list[Line]:
    return lines[:height] + [boxed([], width)] * (height - len(lines))


def _table(state: State, facts: Facts, width: int, height: int) -> list[Line]:
    """Rows around the selected one, and where there is room a pane with more about it."""
    sheet = sheet_of(state)
    items = listed(state)
    at = index_of(state, items)
    pane: list[Line] = []
    if height + 4 >= _PANE_FROM:
        pane_height = max(_PANE, min(_MAX_PANE, height // 4))
        pane = _pane(state, facts, items[at] if items else None, width, pane_height)
    rows = max(1, height - 1 - len(pane))
    first = max(0, min(at - rows // 2, len(items) - rows))
    shown = items[first : first + rows]
    cells = [sheet.cells(item, facts) for item in shown]
    sizes = fitted(sheet.fields, width - 3, _wanted(sheet, cells))
    lines = [boxed([Cell(" "), *_heads(state, sheet, sizes, first, len(shown), len(items))], width)]
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
    return [*_filled(lines, width, 1 + rows), *pane]


def _marked(style: str) -> str:
    """The style of a cell in the selected row: one for all, but that trouble stays to be seen."""
    return f"{style} {_SELECTED}" if style in (words.BAD, words.WARN) else _SELECTED


def _wanted(sheet: Sheet, cells: Sequence[dict[str, Cell]]) -> dict[str, int]:
    """How wide each column that can grow would like to be."""
    return {
        field.key: max(
            [cell_len(each[field.key].text[:_SAMPLED]) for each in cells if field.key in each], default=0
        )
        for field in sheet.fields
        if field.most
    }


def _heads(
    state: State, sheet: Sheet, sizes: Sequence[tuple[Field, int]], first: int, shown: int, count: int
) -> Line:
    """The columns' names; the one that is sorted by is marked, and where not all rows show that is said."""
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
        line += [Cell(" "), Cell(f"{first + 1}–{first + shown} of {count}", words.DIM)]
    return line


def _nothing(state: State, sheet: Sheet, width: int) -> list[str]:
    if state.needle:
        text = f"nothing here has {words.clean(state.needle)!r} in it; esc drops the filter"
    elif state.view is View.POLICIES and state.data.store:
        text = state.data.store
    else:
        text = sheet.nothing
    return textwrap.wrap(text, max(1, width))


# -- the pane under the table -------------------------------------------------------------------------------


def _pane(state: State, facts: Facts, item: Any, width: int, height: int) -> list[Line]:
    """More about the selected row, in so many lines under a heading; none where the view has nothing more to say."""
    if state.view is View.POLICIES:
        return _members(facts, width, height)
    if state.view is View.TAP:
        return [ruled([Cell(f" {words.clean(state.data.tapped)} ", words.DIM)], width, "├", "┤")]
    if state.view is View.EVENTS:
        return []
    if item is None:
        return []
    drill = _drill_of(state, item)
    red, _, _ = red_of(drill, state.data)
    if red is None:
        return []
    inner = width - 2
    left = (inner - 1) // 2
    right = inner - 1 - left
    caller, service = name_of(drill)
    name = words.clean(f"{caller} → {service}" if caller else service)
    head = clip(f" {name} ▸ latency ", left)
    lines: list[Line] = [
        [
            Cell("├", words.DIM),
            Cell(head, words.HEAD),
            Cell("─" * (left - cell_len(head)) + "┬", words.DIM),
            Cell(clip(" last errors ", right), words.HEAD),
            Cell("─" * max(0, right - 13) + "┤", words.DIM),
        ]
    ]
    bars = latency_lines(red, left - 1, height)
    told = errors_of(drill, state.data, right - 1, height)
    for at in range(height):
        one = bars[at] if at < len(bars) else []
        two = told[at] if at < len(told) else []
        blank = Cell(" " * max(0, left - 1 - width_of(one)))
        lines.append(boxed([Cell(" "), *one, blank, Cell("│", words.DIM), Cell(" "), *two], width))
    return lines


def _drill_of(state: State, item: Any) -> str:
    sheet = sheet_of(state)
    if state.view is View.INSTANCES:
        return str(item.service)
    return str(sheet.key(item))


_MEMBERS: Final = (
    Field(key="member", head="MEMBER", width=16, most=48, right=False),
    Field(key="state", head="STATE", width=11, right=False),
    Field(key="revision", head="REV", width=5),
    Field(key="reason", head="WHY", width=4, most=300, right=False, drop=1),
)


def _members(facts: Facts, width: int, height: int) -> list[Line]:
    """Who follows the policies, the worst first."""
    sync = facts.counts
    count = "  ".join(
        f"{state} {sync[state]}" for state in ("REJECTED", "STALE", "SYNCED", "ELSEWHERE") if sync[state]
    )
    lines = [ruled([Cell(f" members ▸ {count or 'nobody'} ", words.HEAD)], width, "├", "┤")]
    shown = facts.followers[: height - 1]
    cells = [
        {
            "member": Cell(words.clean(f"{each.service}/{each.name or each.id}"), words.NAME),
            "state": words.state_cell(each.state),
            "revision": Cell("-" if each.revision is None else str(each.revision)),
            "reason": Cell(words.clean(each.reason), words.DIM),
        }
        for each in shown
    ]
    wanted = {
        field.key: max([cell_len(each[field.key].text[:_SAMPLED]) for each in cells], default=0)
        for field in _MEMBERS
        if field.most
    }
    sizes = fitted(_MEMBERS, width - 3, wanted)
    lines += [boxed([Cell(" "), *pieces(sizes, each)], width) for each in cells]
    if len(facts.followers) > len(shown):
        more = len(facts.followers) - len(shown)
        lines.append(boxed([Cell(" "), Cell(f"… and {more} more", words.DIM)], width))
    return _filled(lines, width, height + 1)


def _too_small(size: Size) -> Frame:
    """Says so in whole words, as far as there is room for them."""
    need = f"{MIN_SIZE.width}×{MIN_SIZE.height}"
    text = f"This window is {size.width}×{size.height}; make it {need} or more. q quits."
    parts = textwrap.wrap(text, max(1, size.width), break_long_words=False)
    return Frame([[Cell(part)] for part in parts if cell_len(part) <= size.width], size)

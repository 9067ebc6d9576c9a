"""The whole screen as a pure function: a state and a size in, exactly that many lines of exactly that width out."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Final

from rich.cells import cell_len

from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.demo.state import Size
from nats_mesh_cli.top import words
from nats_mesh_cli.top.asked import asked_lines
from nats_mesh_cli.top.drill import lines_of, title_of
from nats_mesh_cli.top.following import facts_of
from nats_mesh_cli.top.frame import Frame, Line, boxed, filled, joined, ruled, width_of
from nats_mesh_cli.top.grid import clip
from nats_mesh_cli.top.heading import banner, numbers, title
from nats_mesh_cli.top.reducing import wrapped
from nats_mesh_cli.top.sheets import sheet_of
from nats_mesh_cli.top.state import VIEWS, Page, State, View
from nats_mesh_cli.top.tables import table

__all__ = ["MIN_SIZE", "render"]

MIN_SIZE: Final = Size(36, 8)
#: What the views need in the line above them where all but one have their key alone (cells).
_KEYS_WIDTH: Final = 22


def render(state: State, size: Size) -> Frame:
    """Draw ``state``."""
    if size.width < MIN_SIZE.width or size.height < MIN_SIZE.height:
        return _too_small(size)
    width = size.width
    facts = facts_of(state.data)
    top = [
        ruled([Cell(" "), *title(state, facts, width - 4)], width, "┌", "┐", " "),
        *[
            boxed([Cell(" "), *line], width)
            for line in banner(state, width - 4) or [numbers(state, width - 4)]
        ],
        ruled([Cell(" "), *_tabs(state, width - 4), Cell(" ")], width, "├", "┤"),
    ]
    room = size.height - len(top) - 1
    if state.page is not None:
        body = _page(state.page, width, room)
    elif state.drill:
        body = _drill(state, width, room)
    else:
        below = asked_lines(state, width, room)
        body = [*table(state, facts, width, room - len(below)), *below]
    bottom = ruled([Cell(" "), *_footer(state, width - 4), Cell(" ")], width, "└", "┘")
    return Frame([*top, *body, bottom], size)


# -- around the body ----------------------------------------------------------------------------------------


def _tabs(state: State, width: int) -> Line:
    """The views, and at the end what is chosen: the order, the filter."""
    needle = f"/{state.needle}{'▏' if state.typing else ''}" if state.needle or state.typing else ""
    most = width // 2
    if state.view is View.TAP and state.only:
        needle = f"only {state.only} {needle}".rstrip()
        most = width - _KEYS_WIDTH
    shown = [Cell(clip(words.clean(needle), max(0, most)), "bold yellow")] if needle else []
    if order := _order(state):
        shown = joined([*shown[::-1], Cell(order, words.DIM)], most)[::-1]
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
    if state.asking is not None:
        keys = ["enter use it", "esc leave it", "empty: every call"]
    elif state.typing:
        keys = ["type to filter", "enter keep", "esc drop"]
    elif state.page is not None:
        keys = ["esc back", "q quit", "↑↓ scroll"]
        if state.page.about is not None:
            keys.insert(1, "d describe")
    elif state.drill:
        keys = ["esc back", "q quit", "? help", "d describe", "↑↓ scroll", "p pause"]
    else:
        keys = ["? help", "q quit", "/ find", "enter drill", "d describe", "s sort", "p pause"]
        if state.view is View.EDGES:
            keys.insert(4, "g table" if state.graph else "g graph")
        if state.view is View.TAP:
            keys.insert(2, "f filter")
    return joined([Cell(key, words.DIM) for key in keys], width)


# -- the body -----------------------------------------------------------------------------------------------


def _page(page: Page, width: int, height: int) -> list[Line]:
    lines = wrapped(page, width - 4)

    def line(at: int) -> Line:
        return [Cell(lines[at], words.HEAD if lines[at].isupper() else "")]

    return _scrolled(Cell(page.title, words.HEAD), line, len(lines), page.top, width, height)


def _drill(state: State, width: int, height: int) -> list[Line]:
    lines = lines_of(state.drill, state.data, width - 4)
    return _scrolled(
        Cell(title_of(state.drill), words.NAME), lines.__getitem__, len(lines), state.drill_top, width, height
    )


def _scrolled(
    title: Cell, line: Callable[[int], Line], count: int, top: int, width: int, height: int
) -> list[Line]:
    """A title that stays, and the ``count`` lines from ``top`` on; how far one is where not all of them fit."""
    top = max(0, min(top, count - (height - 1)))
    shown = [line(at) for at in range(top, min(count, top + height - 1))]
    more = f" {top + len(shown)}/{count} " if count > height - 1 else ""
    name = Cell(clip(title.text, width - 4 - len(more)), title.style)
    head = boxed([Cell(" "), name, Cell(more, words.DIM)], width)
    return filled([head, *[boxed([Cell(" "), *each], width) for each in shown]], width, height)


def _too_small(size: Size) -> Frame:
    """Says so in whole words, as far as there is room for them."""
    need = f"{MIN_SIZE.width}×{MIN_SIZE.height}"
    text = f"This window is {size.width}×{size.height}; make it {need} or more. q quits."
    parts = textwrap.wrap(text, max(1, size.width), break_long_words=False)
    return Frame([[Cell(part)] for part in parts if cell_len(part) <= size.width], size)

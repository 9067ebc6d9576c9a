"""Which table a view has, which rows a filter leaves of it, in which order, and which is selected. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from nats_mesh_cli.top.called import EDGES, GRAPH, SERVICES
from nats_mesh_cli.top.columns import Sheet
from nats_mesh_cli.top.following import facts_of
from nats_mesh_cli.top.present import EVENTS, INSTANCES, POLICIES, TAP
from nats_mesh_cli.top.state import State, View

__all__ = ["index_of", "listed", "selected", "sheet_of"]

_SHEETS: Final = {
    View.SERVICES: SERVICES,
    View.EDGES: EDGES,
    View.INSTANCES: INSTANCES,
    View.POLICIES: POLICIES,
    View.TAP: TAP,
    View.EVENTS: EVENTS,
}


def sheet_of(state: State) -> Sheet:
    """The table of the view that shows."""
    return GRAPH if state.graph and state.view is View.EDGES else _SHEETS[state.view]


def listed(state: State) -> Sequence[Any]:
    """The rows of the view that shows: those that the filter leaves, in the order that is chosen."""
    choice = state.choice
    key = (state.view, state.graph, state.needle, choice.sorted, choice.turned)
    return facts_of(state.data).table(key, lambda: _listed(state))


def _listed(state: State) -> list[Any]:
    sheet = sheet_of(state)
    items = list(sheet.items(state.data))
    if needles := state.needle.lower().split():
        text = sheet.text
        items = [each for each in items if all(needle in text(each).lower() for needle in needles)]
    order = sheet.orders[state.choice.sorted % len(sheet.orders)]
    if order.by is not None:
        items.sort(key=order.by)
    if state.choice.turned:
        items.reverse()
    return items


def index_of(state: State, items: Sequence[Any]) -> int:
    """Which of ``items`` is selected; 0 where there are none."""
    choice = state.choice
    if choice.key:
        key = sheet_of(state).key
        if choice.at < len(items) and key(items[choice.at]) == choice.key:  # where it was
            return choice.at
        for at, item in enumerate(items):
            if key(item) == choice.key:
                return at
    return max(0, min(choice.at, len(items) - 1))


def selected(state: State) -> Any | None:
    """The item that is selected, where there is one."""
    items = listed(state)
    return items[index_of(state, items)] if items else None

"""Keys and news as functions from state to state. Pure: no key can fail, and none makes the state grow without end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from msgspec.structs import replace

from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.series import PLAIN
from nats_mesh.telemetry.snapshots import Edge, Member, Service
from nats_mesh_cli.demo.state import Size
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.tap_line import wanted_of
from nats_mesh_cli.top.drill import lines_of, name_of
from nats_mesh_cli.top.graph import Branch
from nats_mesh_cli.top.grid import wrap
from nats_mesh_cli.top.model import CallLine, Data, PolicyLine, edge_key
from nats_mesh_cli.top.pages import call_page, event_page, help_page, policy_page
from nats_mesh_cli.top.sheets import index_of, listed, selected, sheet_of
from nats_mesh_cli.top.state import MAX_FILTER, MAX_ONLY, MAX_PAGE, VIEWS, Page, State, View
from nats_mesh_cli.top.words import clean

__all__ = ["CHROME", "described", "fed", "reduce", "resized", "wrapped"]

#: How many lines of the screen are no body: three above it, one below.
CHROME: Final = 4
_LEAST_STEP: Final = 3
_WAITING: Final = "asking …"


def fed(state: State, data: Data) -> State:
    """Newer data; while paused it waits."""
    return replace(state, latest=data) if state.paused else replace(state, data=data)


def resized(state: State, size: Size) -> State:
    """Another size of the terminal."""
    return state if size == state.size else replace(state, size=size)


def described(state: State, title: str, text: str) -> State:
    """The answer to what is ``wanted``; nobody waits for one that comes when the page is closed."""
    if state.wanted is None:
        return state
    lines = tuple([clean(line) for line in text.split("\n")[:MAX_PAGE]])
    under = None if state.page is None else state.page.under
    return replace(state, wanted=None, page=Page(title, lines, under=under))


def wrapped(page: Page, width: int) -> Sequence[str]:
    """The lines of a page in a window of this width."""
    return _wrapped(page.lines, width)


@lru_cache(maxsize=2)
def _wrapped(lines: tuple[str, ...], width: int) -> Sequence[str]:
    """Keys and frames ask the same again and again: a long page is not laid out each time."""
    return tuple([part for line in lines for part in (wrap(line, width) or [""])])


def reduce(state: State, key: str) -> State:
    """The state after a key."""
    if key == "ctrl-z":
        return replace(state, stop=True)
    if key == "ctrl-l":
        return replace(state, anew=True)
    if state.asking is not None:
        return _ask(state, state.asking, key)
    if state.typing:
        return _type(state, key)
    if key in ("q", "Q"):
        return replace(state, done=True)
    if key in ("p", " "):
        return _pause(state)
    if state.page is not None:
        return _read(state, state.page, key)
    if key in ("?", "h"):
        return replace(state, page=help_page())
    if len(key) == 1 and key in "123456":
        return replace(state, view=View(int(key)), drill="", drill_top=0)
    if key in ("tab", "right", "backtab", "left"):
        step = 1 if key in ("tab", "right") else -1
        at = (state.view - 1 + step) % len(VIEWS)
        return replace(state, view=VIEWS[at], drill="", drill_top=0)
    if state.drill:
        return _look(state, state.drill, key)
    return _list(state, key)


def _pause(state: State) -> State:
    if state.latest is None:
        return replace(state, latest=state.data)
    return replace(state, data=state.latest, latest=None)


def _type(state: State, key: str) -> State:
    """Keys while the filter is typed."""
    if key == "esc":
        return replace(state, typing=False, needle="")
    if key == "enter":
        return replace(state, typing=False)
    if key in ("backspace", "delete"):
        return replace(state, needle=state.needle[:-1])
    if key == "ctrl-u":
        return replace(state, needle="")
    if key in ("up", "down"):
        return _move(state, -1 if key == "up" else 1)
    if len(key) == 1 and key.isprintable() and len(state.needle) < MAX_FILTER:
        return replace(state, needle=state.needle + key)
    return state


def _ask(state: State, asking: str, key: str) -> State:
    """Keys while it is written which calls to tap."""
    if key == "enter":
        only = asking.strip()
        try:
            wanted_of(only)
        except CliError as error:
            return replace(state, refused=error.message)
        if only != state.only:
            state = state.choose(replace(state.choice, key="", at=0))
        return replace(state, only=only, asking=None, refused="")
    if key == "esc":
        return replace(state, asking=None, refused="")
    if key in ("backspace", "delete"):
        return replace(state, asking=asking[:-1], refused="")
    if key == "ctrl-u":
        return replace(state, asking="", refused="")
    if len(key) == 1 and key.isprintable() and len(asking) < MAX_ONLY:
        return replace(state, asking=asking + key, refused="")
    return state


def _body(state: State) -> int:
    return max(1, state.size.height - CHROME)


def _scrolled(top: int, key: str, body: int, count: int) -> int | None:
    """Where a text of ``count`` lines begins after a key; ``None`` for keys that do not scroll."""
    step = max(_LEAST_STEP, body - 1)
    moves: dict[str, Callable[[int], int]] = {
        "up": lambda at: at - 1,
        "k": lambda at: at - 1,
        "down": lambda at: at + 1,
        "j": lambda at: at + 1,
        "pageup": lambda at: at - step,
        "pagedown": lambda at: at + step,
        "home": lambda at: 0,
        "end": lambda at: count,
        "G": lambda at: count,
    }
    move = moves.get(key)
    return None if move is None else max(0, min(move(top), count - body))


def _read(state: State, page: Page, key: str) -> State:
    """Keys while a page shows."""
    if key == "d" and page.about is not None:
        return _want(state, *page.about)
    if key in ("esc", "enter", "backspace", "?", "d"):
        return replace(state, page=page.under, wanted=None)
    count = len(wrapped(page, max(1, state.size.width - 4)))
    top = _scrolled(page.top, key, _body(state), count)
    return state if top is None else replace(state, page=replace(page, top=top))


def _look(state: State, drill: str, key: str) -> State:
    """Keys while a service is looked into."""
    if key in ("esc", "backspace"):
        return replace(state, drill="", drill_top=0)
    if key == "d":
        caller, service = name_of(drill)
        return _want(state, service, caller)
    count = len(lines_of(drill, state.data, max(1, state.size.width - 4)))
    top = _scrolled(state.drill_top, key, _body(state), count)
    return state if top is None else replace(state, drill_top=top)


def _list(state: State, key: str) -> State:
    """Keys while a table shows."""
    if key in ("up", "k"):
        return _move(state, -1)
    if key in ("down", "j"):
        return _move(state, 1)
    if key in ("pageup", "pagedown"):
        step = max(_LEAST_STEP, _body(state) // 2)
        return _move(state, step if key == "pagedown" else -step)
    if key == "home":
        return state.choose(replace(state.choice, key="", at=0))
    if key in ("end", "G"):
        return _move(state, len(listed(state)))
    if key == "/":
        return replace(state, typing=True)
    if key == "esc":
        return replace(state, needle="")
    if key == "s":
        orders = len(sheet_of(state).orders)
        chosen = replace(state.choice, sorted=(state.choice.sorted + 1) % orders, turned=False)
        return state.choose(chosen)
    if key == "S":
        return state.choose(replace(state.choice, turned=not state.choice.turned))
    if key == "g" and state.view is View.EDGES:
        first = replace(state.choice, sorted=0, turned=False)
        return replace(state.choose(first), graph=not state.graph)
    if key == "f" and state.view is View.TAP:
        return replace(state, asking=state.only)
    if key == "enter":
        return _enter(state)
    if key == "d":
        return _describe(state)
    return state


def _move(state: State, by: int) -> State:
    items: Sequence[Any] = listed(state)
    if not items:
        return state
    at = max(0, min(index_of(state, items) + by, len(items) - 1))
    return state.choose(replace(state.choice, key=sheet_of(state).key(items[at]), at=at))


def _enter(state: State) -> State:
    """Look into what is selected; that stays the selection, whatever comes before it."""
    item = selected(state)
    if item is None:
        return state
    state = _move(state, 0)
    if isinstance(item, Service):
        return replace(state, drill=item.name, drill_top=0)
    if isinstance(item, Branch):
        return replace(state, drill=item.name if item.edge is None else item.key, drill_top=0)
    if isinstance(item, Edge):
        return replace(state, drill=edge_key(item), drill_top=0)
    if isinstance(item, Member):
        return replace(state, drill=item.service, drill_top=0)
    if isinstance(item, PolicyLine):
        return replace(state, page=policy_page(item, state.data))
    if isinstance(item, CallLine):
        return replace(state, page=call_page(item))
    assert isinstance(item, Event)
    return replace(state, page=event_page(item))


def _describe(state: State) -> State:
    """Ask for all that is known of what is selected."""
    item = selected(state)
    edge = item.edge if isinstance(item, Branch) else item
    if isinstance(edge, Edge) and edge.service == PLAIN:
        return _enter(state)  # no policy is about it: all that is known is on its page
    if isinstance(item, Service):
        return _want(state, item.name, "")
    if isinstance(item, Branch):
        return _want(state, item.name, "" if item.edge is None else item.edge.source)
    if isinstance(item, Edge):
        return _want(state, item.service, item.source)
    if isinstance(item, Member):
        return _want(state, item.id, "")
    if isinstance(item, CallLine):
        return _want(state, item.target, item.caller)
    return _enter(state)  # of policies and events everything is on their page


def _want(state: State, what: str, caller: str) -> State:
    title = f"describe {what}{f' --from {caller}' if caller else ''}"
    return replace(state, wanted=(what, caller), page=Page(title, (_WAITING,), under=state.page))

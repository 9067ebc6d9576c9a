"""Keys of `top`: names out of what a terminal sends, and what every sequence of them leaves of the state."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh_cli.demo.state import Size
from nats_mesh_cli.tap_line import wanted_of
from nats_mesh_cli.top.keys import KeyReader
from nats_mesh_cli.top.model import CallLine, Data, PolicyLine
from nats_mesh_cli.top.reducing import described, fed, reduce, resized
from nats_mesh_cli.top.sheets import index_of, listed, selected, sheet_of
from nats_mesh_cli.top.state import MAX_FILTER, MAX_ONLY, State, View, start
from nats_mesh_cli.top.view import render
from tests.snapshots import snapshot

CALLS = tuple(
    CallLine(
        key=str(n),
        at=f"2026-01-01T12:00:{n:02}.000000Z",
        caller="web",
        target="orders.place",
        status="OK" if n % 3 else "UNAVAILABLE",
        duration_s=0.001 * n,
    )
    for n in range(20)
)
POLICIES = tuple(
    PolicyLine(name=f"Route/r{n}", target="orders", revision=n, document="kind: Route\nspec: {}")
    for n in range(5)
)
DATA = Data(mesh=snapshot(9), calls=CALLS, policies=POLICIES, head=(1, 42))
KEYS = [
    *"123456/?qQpsSgdhjkGf x→",
    *("=", ">", '"', "5f"),
    *("up", "down", "left", "right", "pageup", "pagedown", "home", "end", "tab", "backtab", "enter", "esc"),
    *("backspace", "delete", "ctrl-l", "ctrl-u", "ctrl-z"),
]


def pressed(state: State, *keys: str) -> State:
    """The state after these keys."""
    for key in keys:
        state = reduce(state, key)
    return state


# -- what a terminal sends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ("q", ["q"]),
        ("é", ["é"]),
        ("\x1b[A\x1b[B", ["up", "down"]),
        ("\x1bOA", ["up"]),
        ("\x1b[5~\x1b[6~", ["pageup", "pagedown"]),
        ("\x1b[1;5A", ["up"]),
        ("\x1b[H\x1b[F", ["home", "end"]),
        ("\r\n\t\x7f", ["enter", "enter", "tab", "backspace"]),
        ("\x1a\x15", ["ctrl-z", "ctrl-u"]),
        ("\x1bq", ["esc", "q"]),
        ("\x1b\x1b[A", ["esc", "up"]),
        ("\x1b[99~x", ["x"]),
        ("\x01\x02", []),
    ],
)
def test_what_a_terminal_sends_becomes_keys(sent: str, keys: list[str]) -> None:
    """Sequences are one key each, with modifiers too; what is unknown is none, and takes nothing with it."""
    reader = KeyReader()
    assert [key for character in sent for key in reader.feed(character)] == keys


def test_escape_alone_is_a_key_once_nothing_follows() -> None:
    """It begins sequences, so only time can tell."""
    reader = KeyReader()
    assert reader.feed("\x1b") == []
    assert reader.waiting
    assert reader.flush() == ["esc"]
    assert reader.flush() == []


@given(st.text(max_size=200))
def test_nothing_that_is_sent_can_fail_or_pile_up(sent: str) -> None:
    """Whatever a terminal or a paste sends: keys come out, and what waits is short."""
    reader = KeyReader()
    for character in sent:
        for key in reader.feed(character):
            assert len(key) == 1 or key.replace("-", "").isalpha()
        assert len(reader._sequence) <= 17


# -- what keys do -------------------------------------------------------------------------------------------

_steps = st.lists(
    st.one_of(
        st.sampled_from(KEYS),
        st.tuples(st.integers(0, 12)),  # newer data with so many services
        st.tuples(st.integers(1, 200), st.integers(1, 70)),  # another size
    ),
    max_size=40,
)


@given(_steps)
def test_no_sequence_of_keys_breaks_anything(steps: list[str | tuple[int, ...]]) -> None:
    """Keys, news and resizes in any order: nothing fails, the selection is one of the rows, texts stay bounded, and
    what is drawn is exactly the screen."""
    state = start(DATA)
    snapshots = {n: msgspec.structs.replace(DATA, mesh=snapshot(n)) for n in (0, 1, 5, 12)}
    for step in steps:
        if isinstance(step, str):
            state = pressed(state, *step) if step == "5f" else reduce(state, step)
        elif len(step) == 1:
            state = fed(state, snapshots[min(snapshots, key=lambda n: abs(n - step[0]))])
        else:
            state = resized(state, Size(*step))
        items = listed(state)
        assert index_of(state, items) in range(max(1, len(items)))
        assert (selected(state) is None) == (not items)
        assert len(state.needle) <= MAX_FILTER
        wanted_of(state.only)
        assert len(state.choices) == len(View)
        assert state.choice.sorted < len(sheet_of(state).orders)
        frame = render(state, state.size)
        assert len(frame.lines) == state.size.height


def test_the_selection_follows_its_row() -> None:
    """A row that is chosen stays so wherever it moves; one that is gone leaves its place."""
    state = pressed(start(DATA), "down", "down")
    chosen = selected(state)
    assert chosen is not None
    turned = pressed(state, "S")
    assert selected(turned) == chosen
    rest = tuple(each for each in DATA.mesh.services if each.name != chosen.name)
    without = msgspec.structs.replace(DATA, mesh=msgspec.structs.replace(DATA.mesh, services=rest))
    after = selected(fed(state, without))
    assert after is not None
    assert after.name != chosen.name


def test_without_a_choice_the_first_row_is_selected_whichever_it_is() -> None:
    """The worst one at first; Home goes back to that."""
    state = start(DATA)
    assert selected(state).red.success < 0.99  # type: ignore[union-attr]
    moved = pressed(state, "down", "down", "home")
    assert moved == state


def test_the_worst_is_first_in_every_view() -> None:
    """Services and edges with open breakers, instances with failures."""
    for key in "123":
        item = selected(pressed(start(DATA), key))
        assert item is not None
        assert item.red.success < 0.99


def test_a_filter_takes_words_in_any_order_and_case() -> None:
    """All of them must be there; Enter keeps it, Escape drops it."""
    state = pressed(start(DATA), "/", *"OPEN -7")
    assert [each.name for each in listed(state)] == ["service-7"]
    kept = pressed(state, "enter")
    assert (kept.typing, kept.needle) == (False, "OPEN -7")
    assert pressed(kept, "esc").needle == ""
    assert pressed(state, "backspace", "backspace").needle == "OPEN "
    assert pressed(state, "esc").needle == ""
    assert not pressed(start(DATA), "/", "q").done


def test_which_calls_are_tapped_is_written_on_a_line() -> None:
    """`f` opens it in the Tap view alone, with what is in force; Enter takes it, Escape leaves all as it was."""
    assert pressed(start(DATA), "f") == start(DATA)
    asked = pressed(start(DATA), "5", "f", *"orders.place q1?/")
    assert (asked.asking, asked.only, asked.done) == ("orders.place q1?/", "", False)
    state = pressed(asked, "ctrl-u", *"orders errors ", "enter")
    assert (state.asking, state.only) == (None, "orders errors")
    again = pressed(state, "f", "backspace")
    assert again.asking == "orders error"
    assert pressed(again, "esc") == state
    assert pressed(state, "f", "ctrl-u", "enter").only == ""
    long = pressed(state, "f", *"x" * 500)
    assert len(long.asking or "") == MAX_ONLY


def test_what_cannot_be_tapped_is_said_in_place() -> None:
    """The line stays to be mended, and what was in force stays in force; the next key takes the complaint away."""
    state = pressed(start(DATA), "5", "f", *"orders", "enter", "f", *" slow>100", "enter")
    assert (state.asking, state.only) == ("orders slow>100", "orders")
    assert state.refused == "'100' has no unit; write 100ms or 100s"
    mended = pressed(state, *"ms", "enter")
    assert (mended.only, mended.refused, mended.asking) == ("orders slow>100ms", "", None)
    assert pressed(state, "m").refused == ""


def test_sorting_goes_through_all_columns_and_around() -> None:
    """Each press takes the next one; the last is followed by the first."""
    state = start(DATA)
    orders = len(sheet_of(state).orders)
    seen = []
    for _ in range(orders):
        seen.append([each.name for each in listed(state)])
        state = reduce(state, "s")
    assert len({tuple(each) for each in seen}) > 1
    assert [each.name for each in listed(state)] == seen[0]
    by_name = seen[-1]
    assert by_name == sorted(by_name)


def test_paused_nothing_moves_until_it_goes_on() -> None:
    """News waits, and the newest is shown then."""
    newer = msgspec.structs.replace(DATA, mesh=snapshot(2))
    state = fed(pressed(start(DATA), "p"), newer)
    assert state.data is DATA
    assert "PAUSED" in render(state, Size(80, 24)).plain
    assert pressed(state, "p").data is newer


def test_enter_looks_into_what_is_selected_and_escape_comes_back() -> None:
    """A service, the calls of one caller, a policy, a call, an event: each has more to show."""
    assert pressed(start(DATA), "enter").drill == "service-7"
    assert pressed(start(DATA), "2", "enter").drill == "service-6→service-7"
    assert pressed(start(DATA), "2", "g", "enter").drill == "web"
    assert pressed(start(DATA), "3", "enter").drill.startswith("service-")
    for key, title in (("4", "Route/r0"), ("5", "web → orders.place"), ("6", "breaker.open")):
        state = pressed(start(DATA), key, "enter")
        assert state.page is not None
        assert state.page.title == title
        assert pressed(state, "esc").page is None
    assert pressed(start(DATA), "enter", "esc").drill == ""


def test_describe_asks_and_the_answer_comes_only_to_who_waits() -> None:
    """The question is part of the state; whoever closes the page gets no answer later."""
    state = pressed(start(DATA), "d")
    assert state.wanted == ("service-7", "")
    assert pressed(start(DATA), "2", "d").wanted == ("service-7", "service-6")
    answered = described(state, "describe service-7", "service service-7\n\x1b[31m red")
    assert answered.page is not None
    assert answered.page.lines == ("service service-7", " [31m red")
    assert answered.wanted is None
    closed = pressed(state, "esc")
    assert described(closed, "describe service-7", "late") == closed


@pytest.mark.parametrize(
    ("keys", "wanted"), [("5", ("orders.place", "web")), ("6", ("service-4.op-0", ""))], ids=["call", "event"]
)
def test_describe_goes_on_from_a_page(keys: str, wanted: tuple[str, str]) -> None:
    """A call's or an event's facts lead to the endpoint they are about, and that leads back to them."""
    page = pressed(start(DATA), keys, "enter")
    assert page.page is not None
    asked = pressed(page, "d")
    assert asked.wanted == wanted
    answered = described(asked, "describe", "all of it")
    assert answered.page is not None
    assert answered.page.lines == ("all of it",)
    assert pressed(answered, "esc").page == page.page
    assert pressed(asked, "esc").page == page.page
    assert pressed(answered, "esc", "esc").page is None


def test_pages_scroll_no_further_than_they_go() -> None:
    """Up and down, by pages, to both ends."""
    state = pressed(start(DATA, Size(60, 12)), "?")
    down = pressed(state, "end")
    assert down.page is not None
    assert down.page.top > 0
    assert pressed(down, "down", "pagedown") == down
    assert pressed(down, "home") == state
    assert pressed(state, "up", "pageup") == state


def test_quitting_and_stopping_are_asked_for() -> None:
    """By keys alone: whoever has the terminal does it."""
    assert pressed(start(DATA), "q").done
    assert pressed(start(DATA), "?", "q").done
    assert pressed(start(DATA), "ctrl-z").stop

"""What `top` draws is a pure function: it follows from what it is given, at any size, whatever names there are."""

from __future__ import annotations

import functools
import io
import math
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from nats_mesh.telemetry.snapshots import Edge
from nats_mesh_cli.demo.state import Size
from nats_mesh_cli.silent import Silent
from nats_mesh_cli.top.buckets import bounds_for, classes
from nats_mesh_cli.top.drill import latency_lines
from nats_mesh_cli.top.frame import Frame
from nats_mesh_cli.top.graph import branches
from nats_mesh_cli.top.grid import Cell, Field, clip, fitted, pieces, wrap
from nats_mesh_cli.top.model import Data
from nats_mesh_cli.top.reducing import fed, reduce
from nats_mesh_cli.top.state import State, start
from nats_mesh_cli.top.view import MIN_SIZE, render
from nats_mesh_cli.top.words import breaker_cell, duration_text, rate_text, success_cell, trend_text
from tests.cli.top_data import ALERTED, DATA, EMPTY, GIVEN_UP, MESH, burn, hostile, numbers
from tests.snapshots import snapshot

SCREENS = Path(__file__).parent / "screens"
SIZES = [Size(80, 24), Size(120, 40), Size(40, 10), Size(200, 60)]
#: What is pressed before the picture is taken.
VIEWS = {
    "services": "",
    "edges": "2",
    "graph": "2g",
    "instances": "3",
    "policies": "4",
    "tap": "5",
    "events": "6",
    "help": "?",
    "filtered": "/cart",
}
ENTERED = {"drill": "", "edge": "2", "policy": "4", "call": "5", "event": "6"}


def state_of(data: Data, size: Size, keys: str = "", *further: str) -> State:
    """The state after these keys."""
    state = start(data, size)
    for key in (*keys, *further):
        state = reduce(state, key)
    return state


def drawn(data: Data, size: Size, keys: str = "", *further: str) -> Frame:
    """The screen after these keys."""
    return render(state_of(data, size, keys, *further), size)


def check(name: str, size: Size, frame: Frame) -> None:
    """Hold a screen against the one that was approved."""
    approved = SCREENS / f"{name}-{size.width}x{size.height}.txt"
    assert frame.plain + "\n" == approved.read_text(encoding="utf-8"), approved.name


@pytest.mark.parametrize("size", SIZES[:3], ids=str)
def test_calls_that_were_given_up_have_a_column(size: Size) -> None:
    """Where some were: of services as their callers count them."""
    check("given-up", size, drawn(GIVEN_UP, size))


def test_a_page_says_what_was_given_up_and_what_is_no_error() -> None:
    """Of the service, of its endpoints and callers; what was applied, and who came, is no error, and who is back is
    told."""
    text = drawn(GIVEN_UP, Size(120, 40), "/details", "enter", "enter").plain
    assert "✗ 50.0% of the calls were given up by their callers" in text
    assert "GAVE UP" in text
    events = [
        msgspec.structs.replace(MESH.events[1], kind=kind, service="cart", target="cart", detail="by ada")
        for kind in ("policy.applied", "instance.gone", "instance.alive")
    ]
    data = msgspec.structs.replace(DATA, mesh=msgspec.structs.replace(MESH, events=tuple(events)))
    text = drawn(data, Size(120, 40), "/cart", "enter", "enter").plain
    assert "policy.applied" not in text
    assert text.index("instance.alive") < text.index("instance.gone")


@pytest.mark.parametrize(
    ("counts", "shares"),
    [((549, 1), [">99%", "<1%"]), ((1, 1), ["50%", "50%"]), ((3, 0), ["100%"]), ((199, 1), [">99%", "<1%"])],
)
def test_some_is_neither_none_nor_all(counts: tuple[int, int], shares: list[str]) -> None:
    """One of 550 calls is not drawn as 0 %, nor are the other 549 as 100 %."""
    recent = msgspec.structs.replace(
        numbers().recent, requests=sum(counts), buckets=((0.00089, counts[0]), (2.0, counts[1]))
    )
    lines = latency_lines(msgspec.structs.replace(numbers(), recent=recent), 60, 12)
    found = [re.findall(r"([<>]?\d+%)", "".join(cell.text for cell in line)) for line in lines]
    assert [each[0] for each in found if each] == shares


@pytest.mark.parametrize("size", SIZES[:3], ids=str)
@pytest.mark.parametrize("name", VIEWS)
def test_each_view_is_as_it_was_approved(name: str, size: Size) -> None:
    """Trouble of every kind, at the sizes that people use."""
    check(name, size, drawn(DATA, size, VIEWS[name]))


@pytest.mark.parametrize("size", SIZES[:3], ids=str)
@pytest.mark.parametrize("name", ENTERED)
def test_what_is_looked_into_is_as_it_was_approved(name: str, size: Size) -> None:
    """A service, the calls of one caller, a policy, a call, an event."""
    check(name, size, drawn(DATA, size, ENTERED[name], "enter"))


@pytest.mark.parametrize("size", SIZES[:3], ids=str)
@pytest.mark.parametrize(("name", "entered"), [("alerts", False), ("objectives", True)])
def test_what_is_promised_is_as_it_was_approved(name: str, entered: bool, size: Size) -> None:
    """What fires is counted in the header and marked at its service; a service's page has all of its objectives."""
    further = ["enter"] if entered else []
    check(name, size, drawn(ALERTED, size, "", *further))


def test_where_nobody_watches_nothing_is_said_to_be_well() -> None:
    """Neither that something fires nor that nothing does; a page says since when nobody knows."""
    size = Size(120, 40)
    left = msgspec.structs.replace(ALERTED.promised, live=False)
    for data in (DATA, msgspec.structs.replace(DATA, promised=left)):
        frames = [drawn(data, size, keys).plain for keys in VIEWS.values() if keys != "?"]
        assert not any(word in frame for frame in frames for word in ("PAGE", "TICKET", "ALERT"))
    entered = drawn(msgspec.structs.replace(DATA, promised=left), size, "", "enter").plain
    assert "OBJECTIVES  nobody has watched since 2026-01-01T12:04:02Z" in entered
    assert "OBJECTIVE" not in drawn(DATA, size, "", "enter").plain


def test_kept_promises_are_no_alerts() -> None:
    """Where somebody watches and nothing fires, the header says so and no column stands for it."""
    kept = tuple(each for each in ALERTED.promised.alerts if each.level == "ok")
    data = msgspec.structs.replace(DATA, promised=msgspec.structs.replace(ALERTED.promised, alerts=kept))
    shown = drawn(data, Size(200, 60)).plain
    assert "ALERTS 0" in shown
    assert " ALERT " not in shown


ONLY = "orders.place errors slow>100ms from=web"
ASKED = {
    "tap-only": ("f", *ONLY, "enter"),
    "tap-refused": ("f", *ONLY, *" status=LOST", "enter"),
    "tap-asked": ("f", "c"),
}


@pytest.mark.parametrize("size", SIZES[:3], ids=str)
@pytest.mark.parametrize("name", ASKED)
def test_which_calls_are_tapped_is_as_it_was_approved(name: str, size: Size) -> None:
    """The filter in force is in the title; while one is written the line is there, with what is wrong with it."""
    check(name, size, drawn(DATA, size, "5", *ASKED[name]))


@pytest.mark.parametrize("size", SIZES[:3], ids=str)
def test_an_empty_mesh_says_so(size: Size) -> None:
    """Without services there is a sentence and no table out of nothing."""
    check("empty", size, drawn(EMPTY, size))


@pytest.mark.parametrize("size", SIZES[:3], ids=str)
def test_a_bus_that_is_away_is_a_banner(size: Size) -> None:
    """Since when, why, and that what is shown is old; the rest of the screen stays, and it goes with the next news."""
    away = msgspec.structs.replace(
        DATA, mesh=msgspec.structs.replace(MESH, connected=False, away_s=12.0), away="stale connection"
    )
    state = fed(state_of(DATA, size), away)
    check("away", size, render(state, size))
    assert "AWAY" not in render(fed(state, DATA), size).plain


def test_who_hangs_and_has_no_row_stands_at_the_top() -> None:
    """By service and ``host-pid``, as far as others know; nothing where nobody does."""
    size = Size(120, 30)
    silent = (Silent("stock", "ABCDEFGHIJ", "host-7", 60.0), Silent("legacy"))
    assert (
        "✗ SILENT stock (host-7) and 1 more"
        in drawn(msgspec.structs.replace(DATA, silent=silent), size).plain
    )
    assert "✗ SILENT legacy" in drawn(msgspec.structs.replace(DATA, silent=silent[1:]), size).plain
    assert "SILENT" not in drawn(DATA, size).plain


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("keys", VIEWS.values())
@pytest.mark.parametrize("count", [0, 1, 500])
def test_no_number_of_services_breaks_a_screen(count: int, keys: str, size: Size) -> None:
    """None and five hundred: exactly so many lines, each exactly so wide."""
    exact(drawn(mesh_of(count), size, keys), size)


@functools.cache
def mesh_of(count: int) -> Data:
    """A mesh of so many services."""
    return Data(mesh=snapshot(count))


def exact(frame: Frame, size: Size) -> None:
    """A frame fills its screen: no line is too long, none is missing."""
    assert len(frame.lines) == size.height
    for line in frame.lines:
        assert sum(cell_len(cell.text) for cell in line) == size.width


HOSTILE = {
    "long": "n" * 300,
    "words": "many small words " * 30,
    "wide": "日本語のサービス名" * 10,
    "marks": "e\u0301a\u0308" * 60,
    "control": "a\x1b[2J\x07\r\nb\x9b31m",
    "direction": "abc\u202edcba\u2066x\u200b",
    "empty": "",
    "markup": "[bold red]x[/] :smile:",
    "emoji": "👩‍👩‍👧🏽🚀" * 20,
}


@pytest.mark.parametrize("size", SIZES[:3], ids=str)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_texts(name: str, size: Size) -> None:
    """Whatever a name, a version or an error is made of: it moves no cursor, turns no line, and fits its cells."""
    data = hostile(HOSTILE[name])
    for keys in VIEWS.values():
        frame = drawn(data, size, keys)
        exact(frame, size)
        assert all(line.isprintable() for line in frame.plain.split("\n"))
        entered = drawn(data, size, keys.replace("?", ""), "enter")
        exact(entered, size)
        assert all(line.isprintable() for line in entered.plain.split("\n"))
        if name == "markup":
            assert "[bold" in frame.plain or keys in ("?", "/cart")


@given(st.integers(1, 230), st.integers(1, 70), st.sampled_from([*VIEWS.values()]), st.booleans())
def test_every_size_is_filled(width: int, height: int, keys: str, enter: bool) -> None:
    """However the window is dragged, nothing wraps and nothing is missing."""
    size = Size(width, height)
    exact(drawn(DATA, size, keys, *(["enter"] if enter else [])), size)


def test_a_window_that_is_too_small_says_so() -> None:
    """In words that fit it."""
    text = " ".join(drawn(DATA, Size(30, 7)).plain.split())
    assert text == f"This window is 30×7; make it {MIN_SIZE.width}×{MIN_SIZE.height} or more. q quits."


@pytest.mark.parametrize("state", ["OPEN", "HALF_OPEN"])
@pytest.mark.parametrize(
    ("count", "text"), [(1, " {}"), (2, "{}×2"), (9, "{}×9"), (10, "{}9+"), (999, "{}9+")]
)
def test_circuits_have_room_in_their_column(state: str, count: int, text: str) -> None:
    """However many there are, nothing is cut."""
    cell = breaker_cell({state: count})
    assert cell.text[1:] == text.format(state.partition("_")[0] if state == "HALF_OPEN" else state)
    assert len(cell.text) <= 7


def test_colours_say_nothing_that_text_does_not() -> None:
    """Without colour every state and every verdict can still be read: each has a glyph, or a word of its own."""
    size = Size(120, 40)
    plain = "\n".join(drawn(DATA, size, keys).plain for keys in VIEWS.values())
    for text in (
        *(
            "✓ 100%",
            "▲ 99.82%",
            "✓ 99.99%",
            "✗ 97.10%",
            "✗ OPEN",
            "▲ HALF",
            "▲2/3",
            "✗0/0",
            "● ready",
            "✗ suspect",
            "○ draining",
        ),
        *(
            "✗ REJECTED",
            "▲ STALE",
            "✓ SYNCED",
            "✗ 1 refuse",
            "✗ UNAVAILABLE",
            "✓ OK",
            "✗ breaker.open",
            "▶cart",
        ),
    ):
        assert text in plain


def test_colour_can_be_switched_off() -> None:
    """On a terminal with NO_COLOR there is no colour in what is written; without it there is."""

    def written(*, no_color: bool) -> str:
        out = io.StringIO()
        console = Console(
            file=out, force_terminal=True, color_system="truecolor", no_color=no_color, width=120
        )
        console.print(drawn(DATA, Size(120, 40)))
        return out.getvalue()

    assert "\x1b[31m" in written(no_color=False)
    assert not any(f"{code}m" in written(no_color=True) for code in ("[31", "[32", "[33", ";36"))


def test_what_rich_prints_is_the_frame() -> None:
    """Line by line, without a blank line at the end that would scroll the screen."""
    size = Size(80, 24)
    out = io.StringIO()
    Console(file=out, width=80, color_system=None).print(drawn(DATA, size), end="")
    assert [line.rstrip() for line in out.getvalue().split("\n")] == drawn(DATA, size).plain.split("\n")


# -- the graph ----------------------------------------------------------------------------------------------

_names = st.sampled_from("abcdefgh")


@given(st.sets(st.tuples(_names, _names), max_size=30))
def test_every_edge_is_in_the_graph_once(pairs: set[tuple[str, str]]) -> None:
    """Circles, diamonds and services that call themselves: each edge is one line, each line is another one's key."""
    edges = [
        Edge(source=source, service=service, reporter="out", red=numbers())
        for source, service in sorted(pairs)
    ]
    lines = branches(edges)
    keys = [line.key for line in lines if line.edge is not None]
    assert sorted(keys) == sorted(f"{source}→{service}" for source, service in pairs)
    assert len({line.key for line in lines}) == len(lines)


def test_a_circle_of_calls_ends_where_it_closes() -> None:
    """And what is called from two sides is drawn in full once."""
    pairs = [("a", "b"), ("b", "c"), ("c", "a"), ("w", "b")]
    edges = [Edge(source=source, service=service, reporter="out", red=numbers()) for source, service in pairs]
    assert [f"{line.rails}{line.name} {line.note}".rstrip() for line in branches(edges)] == [
        "w",
        "└─▶ b",
        "    └─▶ c",
        "        └─▶ a",
        "            └─▶ b (calls back)",
    ]


# -- words and cells ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (math.nan, "-"),
        (0.0, "0µs"),
        (0.00042, "420µs"),
        (0.0000126, "12.6µs"),
        (0.0009996, "1.00ms"),
        (0.00123, "1.23ms"),
        (0.009996, "10.0ms"),
        (0.0412, "41.2ms"),
        (0.9996, "1.00s"),
        (1.25, "1.25s"),
        (9.996, "10.0s"),
        (99.6, "99.6s"),
        (131.0, "131s"),
        (7200.0, "120m"),
        (1e9, ">999d"),
    ],
)
def test_durations_are_short(seconds: float | None, text: str) -> None:
    """Three digits of what was measured, in six cells; never a number that the rounding made too long."""
    assert duration_text(seconds) == text


@given(st.floats(0.0, 1e9))
def test_numbers_fit_their_columns(value: float) -> None:
    """Five cells for rates, six for durations, eight for shares."""
    assert len(rate_text(value)) <= 5
    assert len(duration_text(value)) <= 6
    assert len(success_cell(value / 1e9).text) <= 8


def test_hundred_percent_means_all() -> None:
    """A share is rounded down: one failure in a hundred thousand does not look like none."""
    assert success_cell(0.99999).text == "✓ 99.99%"
    assert success_cell(0.99899).text == "▲ 99.89%"
    assert success_cell(1.0).text == "✓ 100%"
    assert success_cell(0.98999).text == "✗ 98.99%"


def test_bars_show_proportions() -> None:
    """A steady rate is a steady line at two thirds; nothing at all is no line."""
    assert trend_text((5.0,) * 3, 8) == "▆▆▆"
    assert trend_text((0.0, 0.0), 8) == ""
    assert trend_text((1.0, 2.0, 4.0, 8.0), 3) == "▂▃▆"
    assert trend_text((1.0,), 0) == ""


@given(
    st.text() | st.lists(st.sampled_from(["☎\ufe0f", "a", "日"]), max_size=40).map("".join),
    st.integers(0, 40),
)
def test_what_is_clipped_fits(text: str, width: int) -> None:
    """At most so many cells, and an ellipsis where anything is missing."""
    short = clip(text, width)
    assert cell_len(short) <= width
    assert short == text or short.endswith("…") or width == 0


@given(
    st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=200),
    st.integers(1, 60),
)
def test_what_is_wrapped_fits_and_nothing_is_lost(text: str, width: int) -> None:
    """Every line fits, and all that is no blank is there in order (a character too wide for the line excepted)."""
    lines = wrap(text, width)
    if width > 1:
        assert all(cell_len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_columns_give_way_in_their_order() -> None:
    """The one with the highest number goes first, one with 0 never; what is left over goes to who wants it."""
    fields = [
        Field(key="a", head="A", width=5, most=20, right=False),
        Field(key="b", head="B", width=5, drop=2),
        Field(key="c", head="C", width=5, drop=1),
    ]
    assert [[(f.key, size) for f, size in fitted(fields, width)] for width in (25, 17, 16, 11, 10, 4)] == [
        [("a", 13), ("b", 5), ("c", 5)],
        [("a", 5), ("b", 5), ("c", 5)],
        [("a", 10), ("c", 5)],
        [("a", 5), ("c", 5)],
        [("a", 10)],
        [("a", 4)],
    ]
    assert fitted(fields, 25, {"a": 7})[0][1] == 7


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 12), st.integers(0, 30), st.integers(0, 9)), min_size=1),
    st.integers(0, 120),
)
def test_numbers_stand_whole_or_not_at_all(made: list[tuple[bool, int, int, int]], width: int) -> None:
    """Whatever columns there are and however narrow it gets: a column of numbers goes, and is never cut; nothing is
    wider than there is room for."""
    fields = [
        Field(key=str(at), head="", width=least, right=right and at > 0, most=40, need=wish, drop=drop)
        for at, (right, least, wish, drop) in enumerate(made)
    ]
    wanted = {str(at): wish for at, (_, _, wish, _) in enumerate(made)}
    sizes = fitted(fields, width, wanted)
    assert sum(size + 1 for _, size in sizes) - 1 <= width
    assert all(size >= max(each.width, wanted[each.key]) for each, size in sizes if each.right)


@pytest.mark.parametrize("width", range(36, 130, 3))
@pytest.mark.parametrize("keys", ["", "2", "2g", "3", "4", "5"])
def test_no_figure_of_a_table_is_cut(keys: str, width: int) -> None:
    """At any width every figure that shows is one of those that are there, and no column's name has an ellipsis."""
    head, *rows = drawn(DATA, Size(width, 16), keys).plain.split("\n")[3:-1]
    assert "…" not in head
    whole = set(re.split(r"[\s│▶]+", drawn(DATA, Size(300, 16), keys).plain))
    for row in rows:
        figures = [word for word in re.split(r"[\s│▶]+", row) if word[:1].isdigit()]
        assert whole.issuperset(figures), row


def test_cells_fill_their_columns() -> None:
    """Numbers end and names begin where their head does; wide characters take two cells; of a curve the end stays."""
    fields = [
        (Field(key="name", head="", width=6, right=False), 6),
        (Field(key="n", head="", width=4), 4),
        (Field(key="t", head="", width=3, right=False, tail=True), 3),
    ]
    cells = {"name": Cell("日本"), "n": Cell("7"), "t": Cell("▁▂▃▄▅")}
    assert "".join(cell.text for cell in pieces(fields, cells)) == "日本      7 ▃▄▅"


def test_classes_of_durations_hold_every_call() -> None:
    """What a bound cuts through counts where most of it lies; what is above all bounds has a class of its own."""
    buckets = ((0.0009, 3), (0.00105, 2), (0.0063, 4), (math.inf, 1))
    bars = classes(buckets, (0.001, 0.005))
    assert [(bar.label, bar.count) for bar in bars] == [("≤1ms", 5), ("≤5ms", 0), (">5ms", 5)]
    assert sum(bar.share for bar in bars) == pytest.approx(1.0)
    assert classes((), (0.001,)) == ()
    assert [len(bounds_for(lines)) for lines in (3, 5, 9, 12, 60)] == [4, 4, 8, 11, 11]


def test_an_objective_that_will_not_be_well_for_long_is_not_green() -> None:
    """Its short window burns above its limit, and the long one was not seen for long enough: its page says when."""
    (first, *_) = ALERTED.promised.alerts
    burns = (burn(300.0, 79.0, 120.0), burn(3600.0, 79.0, 120.0))
    soon = msgspec.structs.replace(first, level="ok", burns=burns)
    data = msgspec.structs.replace(
        ALERTED, promised=msgspec.structs.replace(ALERTED.promised, alerts=(soon,))
    )
    text = drawn(data, Size(120, 40), "", "enter").plain
    assert "▲ soon" in text
    assert "✓ ok" not in text
    assert "limit page in 8.9m at this rate" in text


def test_the_reason_of_the_last_error_shows_beside_a_table() -> None:
    """Its status and text stand on as many lines as they need, up to three; its age takes few cells."""
    text = "web was told: UNAVAILABLE: no instance of cart takes calls (EndOfError)"
    red = numbers(error=text)
    services = tuple(
        msgspec.structs.replace(each, red=red, served=red) if each.name == "cart" else each
        for each in MESH.services
    )
    data = msgspec.structs.replace(DATA, mesh=msgspec.structs.replace(MESH, services=services, edges=()))
    pane = [line.split("│")[2] for line in drawn(data, Size(80, 24)).plain.splitlines()[18:23]]
    assert text in " ".join(" ".join(pane).split())

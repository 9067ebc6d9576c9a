"""The demo's view is a pure function: what it shows follows from what it is given, at any size."""

from __future__ import annotations

import io

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from nats_mesh_cli.demo.layout import Cell, Column, fit_columns, join_fitting, line, shorten, sparkline
from nats_mesh_cli.demo.picture import draw
from nats_mesh_cli.demo.state import (
    EdgeLine,
    Event,
    InstanceLine,
    Mark,
    PagesLine,
    Recent,
    ServiceLine,
    Size,
    ViewState,
)
from nats_mesh_cli.demo.view import MIN_SIZE, render

RECENT = Recent(rate_per_s=50.0, success=1.0, p50_s=0.00218, p99_s=0.0123, calls=2512)
SHARES = (("1.0.0", 0.331), ("2.0.0", 0.335), ("3.0.0", 0.334))
STATE = ViewState(
    url="nats://127.0.0.1:41849",
    phase="running",
    elapsed_s=52.4,
    duration_s=60.0,
    pages=PagesLine(asked_per_s=50.0, calls=2530, failed=0, degraded=2, skipped=0, in_flight=3),
    services=(
        ServiceLine(
            name="productpage",
            ready=1,
            instances=1,
            recent=RECENT,
            trend=(50.0,) * 9,
            shares=(("1.0.0", 1.0),),
        ),
        ServiceLine(
            name="details",
            ready=1,
            instances=1,
            recent=RECENT,
            trend=(0.0, 25.0, 50.0),
            shares=(("1.0.0", 1.0),),
        ),
        ServiceLine(
            name="reviews",
            ready=2,
            instances=3,
            recent=msgspec.structs.replace(RECENT, success=0.99996),
            shares=SHARES,
        ),
        ServiceLine(name="ratings", ready=0, instances=1, recent=Recent()),
    ),
    edges=(
        EdgeLine(
            source="web",
            service="productpage",
            recent=msgspec.structs.replace(RECENT, success=0.9712, p99_s=1.5),
        ),
        EdgeLine(source="productpage", service="details", recent=RECENT),
        EdgeLine(source="productpage", service="reviews", recent=RECENT),
        EdgeLine(source="reviews", service="ratings", recent=RECENT),
    ),
    instances=tuple(
        InstanceLine(
            service=service, version=version, pid=str(4100 + at), state=state, in_flight=at, calls=837
        )
        for at, (service, version, state) in enumerate(
            [
                ("productpage", "1.0.0", "ready"),
                ("details", "1.0.0", "joining"),
                ("reviews", "1.0.0", "draining"),
                ("reviews", "2.0.0", "suspect"),
                ("reviews", "3.0.0", "ready"),
                ("ratings", "1.0.0", "ended"),
            ]
        )
    ),
    events=(
        Event(time="21:04:05", mark=Mark.JOIN, text="ratings 1.0.0 (pid 4105)"),
        Event(time="21:04:05", mark=Mark.INFO, text="all 6 instances answer; the load begins"),
        Event(
            time="21:04:51", mark=Mark.WARN, text="reviews 2.0.0 (pid 4103) is suspect: its beats are missing"
        ),
        Event(
            time="21:04:52",
            mark=Mark.ERROR,
            text="ratings:v1 (pid 4105) ended with status 1: something went terribly and at great length wrong",
        ),
        Event(time="21:04:57", mark=Mark.ERROR, text="a page came without its details", count=2),
    ),
)

AT_80X24 = """\
nats-mesh demo  nats://127.0.0.1:41849    ● running 0:52 of 1:00  t top  q quits
50.0 of 50 pages/s   ✗ 97.12%   ▲ 2 incomplete   p99 1.50 s   3 in flight
SERVICES                READY   CALLS/S   SUCCESS       P50       P99     CALLS
productpage               1/1      50.0    ✓ 100%   2.18 ms   12.3 ms      2512
details                   1/1      50.0    ✓ 100%   2.18 ms   12.3 ms      2512
reviews                 ▲ 2/3      50.0  ✓ 99.99%   2.18 ms   12.3 ms      2512
ratings                 ▲ 0/1       0.0         -         -         -         0
EDGES                           CALLS/S   SUCCESS       P50       P99     CALLS
web → productpage                  50.0  ✗ 97.12%   2.18 ms    1.50 s      2512
productpage → details              50.0    ✓ 100%   2.18 ms   12.3 ms      2512
productpage → reviews              50.0    ✓ 100%   2.18 ms   12.3 ms      2512
reviews → ratings                  50.0    ✓ 100%   2.18 ms   12.3 ms      2512
INSTANCES              STATE        IN FLIGHT     CALLS       PID
productpage 1.0.0      ● ready              0       837      4100
details 1.0.0          ○ joining            1       837      4101
reviews 1.0.0          ○ draining           2       837      4102
reviews 2.0.0          ▲ suspect            3       837      4103
reviews 3.0.0          ● ready              4       837      4104
ratings 1.0.0          ✗ ended              5       837      4105
EVENTS
21:04:05  · info     all 6 instances answer; the load begins
21:04:51  ▲ warning  reviews 2.0.0 (pid 4103) is suspect: its beats are missing
21:04:52  ✗ error    ratings:v1 (pid 4105) ended with status 1: something went…
21:04:57  ✗ error    a page came without its details ×2
"""

AT_120X36 = """\
nats-mesh demo  nats://127.0.0.1:41849  Bookinfo                                  ● running 0:52 of 1:00  t top  q quits
50.0 of 50 pages/s   ✗ 97.12%   ▲ 2 incomplete   p99 1.50 s   3 in flight   2530 pages

SERVICES                READY   CALLS/S   SUCCESS       P50       P99     CALLS  TREND     ANSWERED BY
productpage               1/1      50.0    ✓ 100%   2.18 ms   12.3 ms      2512  ▆▆▆▆▆▆▆▆  1.0.0 100%
details                   1/1      50.0    ✓ 100%   2.18 ms   12.3 ms      2512  ▁▃▆       1.0.0 100%
reviews                 ▲ 2/3      50.0  ✓ 99.99%   2.18 ms   12.3 ms      2512            1.0.0 33% 2.0.0 34% 3.0.0 33%
ratings                 ▲ 0/1       0.0         -         -         -         0

EDGES                           CALLS/S   SUCCESS       P50       P99     CALLS
web → productpage                  50.0  ✗ 97.12%   2.18 ms    1.50 s      2512
productpage → details              50.0    ✓ 100%   2.18 ms   12.3 ms      2512
productpage → reviews              50.0    ✓ 100%   2.18 ms   12.3 ms      2512
reviews → ratings                  50.0    ✓ 100%   2.18 ms   12.3 ms      2512

INSTANCES              STATE        IN FLIGHT     CALLS       PID
productpage 1.0.0      ● ready              0       837      4100
details 1.0.0          ○ joining            1       837      4101
reviews 1.0.0          ○ draining           2       837      4102
reviews 2.0.0          ▲ suspect            3       837      4103
reviews 3.0.0          ● ready              4       837      4104
ratings 1.0.0          ✗ ended              5       837      4105

EVENTS
21:04:05  + joined   ratings 1.0.0 (pid 4105)
21:04:05  · info     all 6 instances answer; the load begins
21:04:51  ▲ warning  reviews 2.0.0 (pid 4103) is suspect: its beats are missing
21:04:52  ✗ error    ratings:v1 (pid 4105) ended with status 1: something went terribly and at great length wrong
21:04:57  ✗ error    a page came without its details ×2







"""


def lines(size: Size, state: ViewState = STATE) -> list[str]:
    """The view as text."""
    return render(state, size).plain.split("\n")


@pytest.mark.parametrize(("size", "expected"), [(Size(80, 24), AT_80X24), (Size(120, 36), AT_120X36)])
def test_the_view_is_as_it_was_approved(size: Size, expected: str) -> None:
    """Both sizes that people use, with trouble of every kind on the screen."""
    assert "\n".join(text.rstrip() for text in lines(size)) + "\n" == expected


@given(st.integers(1, 220), st.integers(1, 70))
def test_nothing_is_wrapped(width: int, height: int) -> None:
    """At any size the view is exactly that many lines, none of them too long."""
    shown = lines(Size(width, height))
    assert len(shown) == height
    assert max(Text(text).cell_len for text in shown) <= width


@given(st.integers(MIN_SIZE.width, 220), st.integers(MIN_SIZE.height, 70))
def test_nothing_is_cut_inside_a_word(width: int, height: int) -> None:
    """Every word on a small screen is one of those on a large one; where a text ends early an ellipsis says so."""
    vocabulary = set("\n".join(lines(Size(400, 100))).split())
    for text in lines(Size(width, height)):
        for word in text.split():
            assert word.removesuffix("…") in vocabulary


@pytest.mark.parametrize("height", range(MIN_SIZE.height, 40))
def test_the_latest_event_is_always_there(height: int) -> None:
    """However low the window, services and the newest event stay; the instances go first, the edges next."""
    shown = "\n".join(lines(Size(80, height)))
    assert "SERVICES" in shown
    assert "a page came without its details ×2" in shown
    assert ("EDGES" in shown) >= ("INSTANCES" in shown)
    assert ("INSTANCES" in shown) == (height >= 22)


def test_a_window_that_is_too_small_says_so() -> None:
    """In words that fit it."""
    assert (
        " ".join(" ".join(lines(Size(40, 8))).split())
        == "This window is 40×8; make it 50×10 or more. q quits."
    )


def test_colours_say_nothing_that_text_does_not() -> None:
    """Without colour every state and every verdict can still be read: each has a glyph, or a word of its own."""
    plain = "\n".join(lines(Size(120, 36)))
    for text in (
        "✓ 100%",
        "✓ 99.99%",
        "✗ 97.12%",
        "▲ 2/3",
        "● ready",
        "▲ suspect",
        "✗ ended",
        "▲ warning",
        "✗ error",
    ):
        assert text in plain


def test_colour_can_be_switched_off() -> None:
    """On a terminal with NO_COLOR there is no colour in what is written; without it there is."""

    def written(*, no_color: bool) -> str:
        out = io.StringIO()
        console = Console(
            file=out,
            force_terminal=True,
            color_system="truecolor",
            no_color=no_color,
            width=120,
            highlight=False,
        )
        console.print(render(STATE, Size(120, 36)))
        return out.getvalue()

    assert "\x1b[1;36m" in written(no_color=False)
    assert not any(f"\x1b[{code}m" in written(no_color=True) for code in ("32", "33", "31", "1;36"))


def test_before_anything_runs_the_view_says_that_it_starts() -> None:
    """No clock, no figures, no sections out of nothing."""
    empty = ViewState(
        url="", phase="starting", elapsed_s=0.0, duration_s=None, pages=PagesLine(asked_per_s=50.0)
    )
    shown = lines(Size(80, 24), empty)
    assert shown[0].split() == ["nats-mesh", "demo", "Bookinfo", "○", "starting", "q", "quits"]
    assert [text for text in shown[2:] if text] == [
        text for text in shown[2:] if text.startswith(("SERVICES", "EDGES", "INSTANCES", "EVENTS"))
    ]


def test_hundred_percent_means_all() -> None:
    """A share is rounded down: one failure in a hundred thousand does not look like none."""
    one = msgspec.structs.replace(STATE.edges[0], recent=msgspec.structs.replace(RECENT, success=0.99999))
    assert "✓ 99.99%" in "\n".join(lines(Size(80, 24), msgspec.structs.replace(STATE, edges=(one,))))


def test_more_rows_than_there_is_room_for_are_counted() -> None:
    """Strangers on the bus cannot push everything else off the screen."""
    many = tuple(msgspec.structs.replace(STATE.services[1], name=f"service-{n}") for n in range(40))
    shown = "\n".join(lines(Size(120, 40), msgspec.structs.replace(STATE, services=many)))
    assert "… and 29 more" in shown
    assert "EVENTS" in shown


def test_the_picture_is_what_the_view_shows_and_loads_nothing() -> None:
    """The SVG holds the view's texts and refers to no other address."""
    svg = draw(STATE)
    assert "productpage&#160;→&#160;reviews" in svg
    assert svg.count("://") == svg.count("http://www.w3.org/2000/svg") + svg.count("nats://127.0.0.1")


# -- layout -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("short", 10, "short"),
        ("two words", 9, "two words"),
        ("two words", 8, "two…"),
        ("three small words", 12, "three small…"),
        ("three small words", 11, "three…"),
        ("unbreakable", 6, "unbre…"),
        ("日本 語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
    ],
)
def test_a_text_is_shortened_at_a_word(text: str, width: int, expected: str) -> None:
    """Whole words and an ellipsis; only a first word that is too long by itself is broken."""
    assert shorten(text, width) == expected


def test_columns_go_in_their_order() -> None:
    """The column with the highest number goes first, one with 0 never."""
    columns = [Column(key=key, head=key, width=5, drop=drop) for key, drop in (("a", 0), ("b", 2), ("c", 1))]
    assert [[c.key for c in fit_columns(columns, width)] for width in (19, 18, 12, 11, 5, 1)] == [
        ["a", "b", "c"],
        ["a", "c"],
        ["a", "c"],
        ["a"],
        ["a"],
        ["a"],
    ]


def test_cells_are_as_wide_as_their_columns() -> None:
    """Numbers end, names begin where their head does; wide characters take two cells."""
    columns = [Column(key="name", head="", width=6, right=False), Column(key="n", head="", width=4)]
    assert line(columns, {"name": Cell("日本"), "n": Cell("7")}).plain == "日本       7"
    assert line(columns, {}).plain == ""


def test_segments_that_do_not_fit_are_left_out_whole() -> None:
    """A later one that fits still gets its place."""
    segments = [Cell("aaaa"), Cell("bbbbbbbbbb"), Cell("cc")]
    assert join_fitting(segments, 9, " ").plain == "aaaa cc"


def test_bars_show_proportions() -> None:
    """A steady value is a steady line below the top; nothing at all is no line."""
    assert sparkline([5.0] * 3, 8) == "▆▆▆"
    assert sparkline([0.0, 0.0], 8) == ""
    assert sparkline([1.0, 2.0, 4.0, 8.0], 3) == "▂▃▆"

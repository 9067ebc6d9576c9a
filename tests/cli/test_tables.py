"""Tables that fit the terminal they are written to, and are left as they are in a pipe."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh_cli.breakers import breakers_table
from nats_mesh_cli.get import KINDS
from nats_mesh_cli.options import Format
from nats_mesh_cli.output import Out, drawn
from nats_mesh_cli.rows import Rows
from nats_mesh_cli.stat_table import edges_table, stat_table
from nats_mesh_cli.tables import FINE, Column, Record, clip, layout, table, width

COLUMNS = (
    Column("TIME", lambda r: "2026-11-26T16:48:10Z", drop=5, brief=lambda r: "16:48:10Z"),
    Column("NAME", lambda r: str(r["name"]), drop=0, style=lambda _: "name"),
    Column("P50", lambda r: "12.5 ms", right=True, drop=9),
    Column("P99", lambda r: "99.5 ms", right=True, drop=8),
    Column("STATE", lambda r: "OPEN", drop=2, style=lambda _: "bad"),
    Column("WHY", lambda r: str(r.get("why", "")), drop=1, short=6),
)
RECORDS: list[Record] = [
    {"name": "orders", "why": "the circuit is open"},
    {"name": "日本", "why": "日本語日本語"},
]
#: What tells of trouble in figures.
TROUBLE = ["SUCCESS", "IN FLIGHT", "GAVE UP", "BREAKER", "LAST ERROR"]
CODES = re.compile("\x1b\\[[0-9]*m")


class Terminal(io.StringIO):
    """A stream that a person reads."""

    def isatty(self) -> bool:
        return True


def headers(room: int, records: list[Record] = RECORDS) -> list[str]:
    """The heads of what is shown in so many cells."""
    return [each.header for each in layout(records, COLUMNS, room=room).columns]


def test_columns_go_by_what_the_table_says() -> None:
    """First what needs no room is made brief and texts are cut, then the highest drop goes, and what finds room comes
    back; names stay."""
    assert headers(200) == ["TIME", "NAME", "P50", "P99", "STATE", "WHY"]
    assert headers(50) == headers(200), "brief instants, and a text that is cut"
    assert headers(49) == ["TIME", "NAME", "P99", "STATE", "WHY"]
    assert headers(40) == ["TIME", "NAME", "STATE", "WHY"]
    assert headers(30) == ["NAME", "P99", "STATE", "WHY"], "no room for TIME, but for what is less important"
    assert headers(14) == ["NAME", "WHY"], "the first may go"
    assert headers(5) == ["NAME"]
    nameless = [COLUMNS[2], COLUMNS[0]]
    assert [each.header for each in layout(RECORDS, nameless, room=3).columns] == ["TIME"], (
        "one always stands"
    )


def test_a_text_has_all_the_room_that_is_left() -> None:
    """Of what others do not need; an ellipsis says that there is more."""
    text = layout(RECORDS, COLUMNS, room=60).rows(RECORDS).split("\n")
    assert text[1] == "16:48:10Z  orders  12.5 ms  99.5 ms  OPEN   the circuit is …"
    assert text[2] == "16:48:10Z  日本    12.5 ms  99.5 ms  OPEN   日本語日本語"
    assert table(RECORDS, COLUMNS).split("\n")[1].startswith("2026-11-26T16:48:10Z"), "a pipe has all of it"


def test_more_of_a_text_is_worth_more_than_fine_figures() -> None:
    """Of two kinds of figures the one that says little goes before a text that was cut has 40 cells; what matters
    stays, with its width."""
    columns = [*COLUMNS, Column("P90", lambda r: "50.5 ms", right=True, drop=FINE)]
    long: list[Record] = [{"name": "orders", "why": "the circuit is open, as of ten calls nine failed"}]
    shown = layout(long, columns, room=88)
    assert [each.header for each in shown.columns] == ["TIME", "NAME", "P50", "P99", "STATE", "WHY"]
    assert shown.sizes[-1] == 88 - (9 + 6 + 7 + 7 + 5 + 5 * 2)
    assert [each.header for each in layout(RECORDS, columns, room=88).columns][-1] == "P90", "nothing was cut"


def test_a_column_that_says_nothing_goes_first() -> None:
    """Whatever it could say: of what is shown it tells nothing, and other columns do."""
    assert headers(49, [{"name": "orders", "why": ""}]) == ["TIME", "NAME", "P50", "P99", "STATE", "WHY"]
    assert headers(42, [{"name": "orders", "why": ""}]) == ["TIME", "NAME", "P50", "P99", "STATE"]
    assert headers(42, [{"name": "orders", "why": "open"}]) == ["TIME", "NAME", "P99", "STATE", "WHY"]


def test_rows_that_come_are_as_wide_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal nothing is hidden for what might come: what comes and needs other room gets a head of its own."""
    monkeypatch.setenv("COLUMNS", "52")
    screen, notes = Terminal(), io.StringIO()
    rows = Rows(Out(screen, notes), Format.TABLE, COLUMNS, (24, 24, 12, 12, 12, 0))
    for record in ({"name": "a", "why": "b"}, {"name": "c", "why": "b"}, {"name": "n" * 30, "why": "b"}):
        rows.show([record])
    lines = CODES.sub("", screen.getvalue()).splitlines()
    heads = [line.split() for line in lines if "NAME" in line]
    assert heads == [["TIME", "NAME", "P50", "P99", "STATE", "WHY"], ["NAME", "P99", "STATE", "WHY"]]
    assert len(lines) == 5
    assert notes.getvalue().count("hidden") == 1
    assert max(map(width, lines)) <= 52


def test_what_nobody_said_has_a_column_from_when_somebody_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a table that grows: it was hidden for want of room and of words."""
    monkeypatch.setenv("COLUMNS", "42")
    screen = Terminal()
    rows = Rows(Out(screen, io.StringIO()), Format.TABLE, COLUMNS, (0,) * 6)
    for why in ("", "", "open", "open"):
        rows.show([{"name": "orders", "why": why}])
    lines = CODES.sub("", screen.getvalue()).splitlines()
    assert [("WHY" in line) for line in lines if "NAME" in line] == [False, True]
    assert [line.endswith("open") for line in lines] == [False, False, False, False, True, True]


def test_what_is_hidden_is_said() -> None:
    """How many columns, and how they are seen; nothing where none is."""
    assert layout(RECORDS, COLUMNS, room=200).note == ""
    assert layout(RECORDS, COLUMNS, room=50).note == ""
    assert layout(RECORDS, COLUMNS, room=49).note.startswith("1 column is hidden: -o json")
    assert layout(RECORDS, COLUMNS, room=40).note.startswith("2 columns are hidden")


@given(st.integers(1, 90), st.lists(st.tuples(st.text(max_size=40), st.text(max_size=60)), max_size=3))
def test_no_line_is_wider_than_the_terminal(room: int, texts: list[tuple[str, str]]) -> None:
    """Whatever stands in it, with colours and without, and colours change no letter."""
    records: list[Record] = [{"name": name, "why": why} for name, why in texts]
    found = layout(records, COLUMNS, room=room)
    plain, coloured = found.rows(records), found.rows(records, color=True)
    assert max(width(line) for line in plain.split("\n")) <= room
    assert CODES.sub("", coloured) == plain
    later = {"name": "n" * 100, "why": "w" * 100}
    assert width(found.row(later)) <= room, "what comes later is not wider"


@given(st.text(), st.integers(0, 20))
def test_a_cut_text_fits(text: str, cells: int) -> None:
    """It ends in an ellipsis where it was longer, and is as it was where it fits."""
    short = clip(text, cells)
    assert width(short) <= cells
    assert short == text if width(text) <= cells else short.endswith("…") or not cells


@pytest.mark.parametrize(
    ("columns", "trouble"),
    [
        (stat_table("service", ()).columns, ["SERVICE", *TROUBLE]),
        (edges_table("service", ()).columns, ["FROM", "TO", *TROUBLE]),
        (KINDS["instances"].columns, ["INSTANCE", "SERVICE", "STATE", "FULL", "FAULTS"]),
        (KINDS["services"].columns, ["SERVICE", "READY", "STATE"]),
        (breakers_table(None).columns, ["CALLER", "TO", "STATE", "NEXT TRY"]),
    ],
)  # fmt: skip
def test_names_and_what_tells_of_trouble_stay_in_80_columns(
    columns: tuple[Column, ...], trouble: list[str]
) -> None:
    """Of everything that -o wide has, the last to go."""
    plain = [Column(c.header, lambda r: "x" * 7, c.wide, c.right, None, c.drop, c.short) for c in columns]
    found = layout([{}], plain, wide=True, room=80)
    assert [each.header for each in found.columns if each.header in trouble] == trouble


def test_a_terminal_gets_a_table_that_fits_and_a_pipe_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As wide as COLUMNS says; the note stands beside the data, once, and without colour where NO_COLOR says so."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    pipe, notes = io.StringIO(), io.StringIO()
    Out(pipe, notes).rows(RECORDS, COLUMNS, Format.TABLE, name=str)
    assert (pipe.getvalue(), notes.getvalue()) == (f"{table(RECORDS, COLUMNS)}\n", "")
    screen = Terminal()
    Out(screen, notes).rows(RECORDS, COLUMNS, Format.TABLE, name=str)
    assert max(width(line) for line in screen.getvalue().splitlines()) <= 40
    assert notes.getvalue().count("2 columns are hidden") == 1
    assert "\x1b" not in screen.getvalue() + notes.getvalue()


def test_a_table_that_is_drawn_or_grows_fits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """--watch says at its end what it hides; a table that grows says it once, under its head."""
    monkeypatch.setenv("COLUMNS", "40")
    text = CODES.sub("", drawn(RECORDS, COLUMNS, Out(Terminal(), io.StringIO()), wide=False))
    assert max(width(line) for line in text.split("\n")) <= 40
    assert text.split("\n")[-2:] == [
        "2 columns are hidden: -o json, a wider",
        "  terminal or a pipe shows all",
    ]
    screen, notes = Terminal(), io.StringIO()
    rows = Rows(Out(screen, notes), Format.TABLE, COLUMNS, (0, 12, 0, 0, 0, 0))
    rows.show(RECORDS)
    rows.show([{"name": "n" * 50, "why": "w" * 50}])
    assert max(width(CODES.sub("", line)) for line in screen.getvalue().splitlines()) <= 40
    assert notes.getvalue().count("hidden") == 1


def test_a_narrow_stat_says_what_went_wrong() -> None:
    """In 80 columns the last error has room for its status and its reason, and `edges` in 60 says how many calls."""
    stat = stat_table("service", ()).columns
    plain = [Column(c.header, lambda r: "x" * 5, c.wide, c.right, None, c.drop, c.short) for c in stat]
    told = [
        replace(c, text=lambda r: "0s · reviews was told: UNAVAILABLE: the circuit is open") if c.short else c
        for c in plain
    ]
    found = layout([{}], told, room=80)
    assert "UNAVAILABLE: the" in found.row({})
    heads = [c.header for c in found.columns]
    assert heads[0] == "SERVICE"
    assert {"SUCCESS", "RPS", "LAST ERROR"} <= set(heads)
    edges = edges_table("service", ()).columns
    plain = [Column(c.header, lambda r: "x" * 10, c.wide, c.right, None, c.drop, c.short) for c in edges]
    assert "RPS" in [c.header for c in layout([{}], plain, room=60).columns]

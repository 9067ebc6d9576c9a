"""The list of ``trace``: what it takes, what it puts together, and which columns it has."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import msgspec
import pytest

from nats_mesh.telemetry.spans import Summary, assemble, summary_of
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out
from nats_mesh_cli.statuses import statuses_of
from nats_mesh_cli.trace import show_list
from nats_mesh_cli.trace_document import record_of
from nats_mesh_cli.trace_finding import Found, Query
from nats_mesh_cli.trace_rows import columns_for, together
from tests.unit.test_traces import changed, three_hops

BEGIN_US = three_hops()[0].start_us


class Terminal(io.StringIO):
    """A stream that a person reads."""

    def isatty(self) -> bool:
        return True


def trace(number: int, at_ms: int, **fields: Any) -> dict[str, Any]:
    """The spans of one trace with one call of `web`, ``at_ms`` after the first; ``fields`` of its span."""
    (only,) = changed(
        three_hops()[:1], "1", trace=f"{number:032x}", start_us=BEGIN_US + at_ms * 1000, **fields
    )
    return {only.id: only}


def refused(number: int, at_ms: int, **fields: Any) -> dict[str, Any]:
    """One that an open circuit did not let pass."""
    return trace(number, at_ms, **{"status": "UNAVAILABLE", "flags": "UO", "refused": "breaker", **fields})


def aborted(number: int, at_ms: int) -> dict[str, Any]:
    """One that was made to fail on purpose."""
    return trace(number, at_ms, status="UNAVAILABLE", flags="FI", injected="abort")


def summaries(*traces: dict[str, Any]) -> list[Summary]:
    """What a list knows of them."""
    return [summary_of(assemble(spans.values())) for spans in traces]


BURIED = [
    *(refused(number, 10 * number) for number in range(1, 21)),
    aborted(21, 210),
    *(refused(number, 10 * number) for number in range(22, 62)),
    refused(62, 620, endpoint="put"),
]


def shown(fmt: Format, query: Query, traces: list[dict[str, Any]], out: io.StringIO) -> tuple[list[str], str]:
    """The lines of the list and its notes."""
    notes = io.StringIO()
    found = Found(traces={next(iter(each.values())).trace: each for each in traces})
    assert show_list(found, Options(format=fmt), Out(out, notes), query) == 0
    return re.sub("\x1b\\[[0-9]*m", "", out.getvalue()).splitlines(), notes.getvalue()


def test_neighbours_that_say_the_same_are_one_row() -> None:
    """The latest of them, how many, and the span of time; another first call, status or reason begins another row."""
    late = [trace(number, 10 * number, status="DEADLINE_EXCEEDED") for number in (1, 2, 3)]
    rows, stood_for = together(summaries(*late, aborted(4, 40), *late), 50)
    assert [(each["count"], each["within_s"], int(each["trace"], 16)) for each in rows] == [
        (3, 0.02, 3), (1, 0.0, 4), (3, 0.02, 3),
    ]  # fmt: skip
    assert stood_for == 7


def test_refusals_that_say_the_same_are_one_row_wherever_they_stand() -> None:
    """So that what failed by itself is found among them; those of another call are others."""
    rows, stood_for = together(summaries(*BURIED), 50)
    assert [(each["count"], each["within_s"], int(each["trace"], 16)) for each in rows] == [
        (1, 0.0, 21), (60, 0.6, 61), (1, 0.0, 62),
    ]  # fmt: skip
    assert stood_for == 62


def test_what_failed_by_itself_is_no_mere_refusal() -> None:
    """A trace in which a handler failed, and then a circuit opened, is what one looks for; above a refusal everybody
    fails because of it."""
    mere, root, aborted_one = summaries(refused(1, 0), trace(2, 0, status="INTERNAL"), aborted(3, 0))
    assert [each.only_refused for each in (mere, root, aborted_one)] == [True, False, False]
    above = changed(three_hops()[:3], "3", status="UNAVAILABLE", refused="breaker")
    above = changed(changed(above, "1", status="INTERNAL"), "2", status="INTERNAL")
    assert summary_of(assemble(above)).only_refused
    assert not summary_of(assemble(three_hops())).only_refused, "its first attempt was answered"
    both = changed(three_hops(), "5", status="UNAVAILABLE", refused="breaker")
    assert not summary_of(assemble(both)).only_refused
    well = trace(4, 0)
    assert not summary_of(assemble(well.values())).only_refused
    assert not Query(unrefused=True).takes(mere)
    assert Query(unrefused=True).takes(root)


@pytest.mark.parametrize("out", [Terminal, io.StringIO])
def test_where_refusals_fill_a_list_it_is_said_how_to_leave_them_out(out: type[io.StringIO]) -> None:
    """In the table of a terminal and of a pipe, where there is anything else at all."""
    hint = "--no-refused lists the other 1"
    assert hint in shown(Format.TABLE, Query(), BURIED, out())[1]
    assert "--no-refused" not in shown(Format.TABLE, Query(), [refused(1, 0), refused(2, 1)], out())[1]
    lines, notes = shown(Format.TABLE, Query(unrefused=True), BURIED, out())
    assert (len(lines), "--no-refused" in notes) == (2, False)
    assert "--no-refused" not in shown(Format.JSON, Query(), BURIED, io.StringIO())[1]


def test_the_limit_counts_rows() -> None:
    """Not the traces that they stand for; the latest row has all of its own."""
    rows, stood_for = together(summaries(*BURIED), 2)
    assert [each["count"] for each in rows] == [40, 1]
    assert stood_for == 41, "what comes before a row that finds no room is not looked at"


def test_what_went_well_is_not_put_together() -> None:
    """Where there is no reason to tell, one looks for the one that took long; with a reason they are one."""
    well = summaries(
        trace(1, 0), trace(2, 10), trace(3, 20, injected="delay"), trace(4, 30, injected="delay")
    )
    assert [each["count"] for each in together(well, 50)[0]] == [1, 1, 2]


def test_a_terminal_has_one_row_for_many_and_others_have_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """-o json and wide, a pipe and --each show every one; it is said how."""
    monkeypatch.setenv("COLUMNS", "200")
    lines, notes = shown(Format.TABLE, Query(), BURIED, Terminal())
    assert len(lines) == 4
    assert lines[0].split()[:4] == ["TIME", "TRACE", "COUNT", "WITHIN"]
    assert lines[2].split()[2:5] == ["60", "600", "ms"]
    assert "--each" in notes
    for fmt, query, out in (
        (Format.TABLE, Query(limit=100, each=True), Terminal()),
        (Format.WIDE, Query(limit=100), Terminal()),
        (Format.TABLE, Query(limit=100), io.StringIO()),
    ):
        lines, notes = shown(fmt, query, BURIED, out)
        assert (len(lines), "COUNT" in lines[0], "--each" in notes) == (63, False, False)
    lines, _ = shown(Format.JSON, Query(limit=100), BURIED, io.StringIO())
    assert len(json.loads("\n".join(lines))) == 62


def test_a_list_is_narrowed_by_status_and_by_why() -> None:
    """So that three with the cause are found among a thousand without it; before anything is limited."""
    lines, _ = shown(Format.TABLE, Query(why="FAULT: ab", limit=1), BURIED, io.StringIO())
    assert len(lines) == 2
    assert "fault: abort" in lines[1]
    well, other = summaries(trace(1, 0), aborted(2, 1))
    assert Query(statuses=("UNAVAILABLE", "INTERNAL")).takes(other)
    assert not Query(statuses=("UNAVAILABLE",)).takes(well)
    assert not Query(why="abort").takes(well)
    assert not Query(why="abort", statuses=("OK",)).takes(other), "all that is given must hold"


def test_statuses_are_read_as_people_write_them() -> None:
    """Several at once, in small letters; what is none is refused with the nearest."""
    assert statuses_of(["unavailable, not-found", "OK", "ok"]) == ("UNAVAILABLE", "NOT_FOUND", "OK")
    with pytest.raises(CliError, match="no such status") as caught:
        statuses_of(["UNAVAILBLE"])
    assert "UNAVAILABLE" in caught.value.hint


def test_why_stands_before_counts_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happened is worth more than how often; of status and reason the beginning says enough."""
    call = {"service": "productpage", "endpoint": "page"}
    late = [trace(number, number, status="DEADLINE_EXCEEDED", flags="UT", **call) for number in range(1, 3)]
    monkeypatch.setenv("COLUMNS", "60")
    lines, notes = shown(Format.TABLE, Query(error=True), [*late, refused(3, 3, **call)], Terminal())
    assert lines == [
        "TRACE     CALL              STATUS           WHY",
        f"{'0' * 8}  productpage.page  DEADLINE_EXCEE…  out of time",
        f"{'0' * 8}  productpage.page  UNAVAILABLE      refused: circu…",
    ]
    assert "--each" in notes
    monkeypatch.setenv("COLUMNS", "67")
    lines, _ = shown(Format.TABLE, Query(error=True), [*late, refused(3, 3, **call)], Terminal())
    assert lines[0].split() == ["TRACE", "COUNT", "CALL", "STATUS", "WHY"]


def heads(*found: Summary, slow: bool = False) -> list[str]:
    """The columns of the usual table."""
    return [
        each.header for each in columns_for([record_of(each) for each in found], slow=slow) if not each.wide
    ]


def test_the_total_stands_where_it_matters() -> None:
    """With --slow, which goes by it, and where a trace goes on for much longer than its first call took."""
    (usual,) = summaries(trace(1, 0))
    long = msgspec.structs.replace(usual, took_us=3 * usual.root_us)
    little = msgspec.structs.replace(usual, took_us=usual.root_us + usual.root_us // 2)
    assert "TOTAL" not in heads(usual, little)
    assert "TOTAL" in heads(usual, slow=True)
    assert "TOTAL" in heads(usual, long)
    lines, _ = shown(Format.TABLE, Query(slow_s=0.001), [trace(1, 0)], io.StringIO())
    assert "TOTAL" in lines[0]

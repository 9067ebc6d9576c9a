"""``trace`` and ``why --trace``: what there was lately, and one of them drawn."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from nats_mesh.policy import PolicySet, parse
from nats_mesh.telemetry.span_messages import SpanMessage, let_go
from nats_mesh.telemetry.span_parts import RecordedSpan
from nats_mesh.telemetry.span_store import SpanStore
from nats_mesh.telemetry.spans import Trace, assemble, summary_of
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.subjects import Subjects
from nats_mesh_cli import why_trace
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, millis
from nats_mesh_cli.tables import plain, width
from nats_mesh_cli.trace_document import document_of, notes_of, reasons_of, record_of
from nats_mesh_cli.trace_finding import Found, Query, let_go_notes, one_of
from nats_mesh_cli.trace_text import NARROWEST, waterfall
from nats_mesh_cli.why import Seen
from nats_mesh_cli.why_calls import calls_of
from tests.cli.conftest import Shop
from tests.unit.test_traces import TRACE, changed, span, three_hops

UNKEPT = (
    "calls that went well leave no spans where their trace is not sampled: what a service waited for them is in its "
    "own time"
)

# -- drawn ------------------------------------------------------------------------------------------


PICTURE = """\
trace 4bf92f3577b34da6a3ce929d0e0e4736
a.get called by web at 2027-01-15T08:00:00.000000Z
10.0 ms · 9 spans · 3 services · 1 retry · 1 failure · OK
SPAN                               TIME 0                  10.0 ms
web → a.get                     10.0 ms ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
  a.get @a                      9.60 ms █████████████████████████
    a → b.get 2 attempts        9.00 ms  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
      attempt 1 ✗ UNAVAILABLE   2.00 ms  ░░░░░
        b.get @b1 ✗ UNAVAILABLE 1.50 ms  █████
      attempt 2                 6.40 ms        ░░░░░░░░░░░░░░░░░
        b.get @b2 attempt 2     6.00 ms         ████████████████
          b → c.get             5.00 ms          ▒▒▒▒▒▒▒▒▒▒▒▒▒
            c.get @c            4.50 ms          ████████████
own time: c 4.50 ms, b 2.50 ms, a 600 µs"""


def test_a_waterfall_shows_who_waited_for_whom() -> None:
    """Each span below the one it was called from, at its time; attempts by themselves; what failed says so in words."""
    assert waterfall(assemble(three_hops()), 80) == PICTURE


def test_own_time_is_a_bound_where_calls_left_no_spans() -> None:
    """What went well in a trace that is not sampled is not there, and its time is in that of who waited for it."""
    unsampled = [msgspec.structs.replace(each, why="error") for each in three_hops()]
    assert notes_of(assemble(three_hops())) == []
    assert notes_of(assemble(unsampled)) == [UNKEPT]
    text = waterfall(assemble(unsampled), None)
    assert "own time at most: c 4.50 ms, b 2.50 ms, a 600 µs\n" in text
    assert text.endswith(f"note: {UNKEPT}")
    refused = changed(changed(unsampled[:2], "1", refused="breaker"), "2", refused="concurrency")
    assert notes_of(assemble(refused)) == [], "no handler ran"


def deep(error: str = "it did not go well, ") -> Trace:
    """Fifteen levels of calls with long names, long errors and much to tell."""
    spans = [
        span(
            f"{n:x}", f"{n - 1:x}" if n > 1 else "", n * 10, 2_000 - n * 10, service="s" * 63, caller="c" * 63
        )
        for n in range(1, 16)
    ]
    spans = changed(spans, "f", status="INTERNAL", error=error * 9, flags="URX,UT", rules=("r" * 90,))
    return assemble(
        changed(spans, "e", took_us=0, queue_us=0, refused="concurrency", route="v2", injected="delay")
    )


def body(text: str) -> list[str]:
    """The lines of a waterfall with its spans."""
    lines = text.splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith("SPAN"))
    end = next(at for at, line in enumerate(lines) if line.startswith(("✗ ", "own time")))
    return lines[begin + 1 : end]


@pytest.mark.parametrize("columns", [10, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("error", ["it did not go well, ", "没有成功 ", "没有成功"])
def test_a_waterfall_keeps_to_its_width(columns: int, wide: bool, error: str) -> None:
    """Deep traces, long names and long errors, too; only words of its head and foot may be wider, which can be copied
    so. Only a terminal gets escape codes, and they take no room."""
    room = max(NARROWEST, columns)
    text = waterfall(deep(error), columns, wide=wide)
    assert max(map(width, body(text))) <= room
    assert all(width(line) <= room or len(line.split()) <= 2 for line in text.splitlines())
    assert "\x1b" not in text
    colored = waterfall(deep(error), columns, color=True, wide=wide)
    assert "\x1b" in colored
    assert plain(colored) == text


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200, None])
def test_durations_stand_whatever_room_there_is(columns: int | None) -> None:
    """What a span says is shortened, and says so; bars shrink, and go before that would leave nothing to read."""
    trace = deep()
    lines = body(waterfall(trace, columns))
    assert len(lines) == len(trace.placed)
    for line, placed in zip(lines, trace.placed, strict=True):
        assert f" {millis(placed.span.took_us / 1e6)}" in line
        assert "…" in line or columns not in (40, 60, 80)
        assert "…" not in line or columns is not None
        assert ("█" in line or "▏" in line) is (columns is None or columns >= 60)
    assert "✗ INTERNAL" in lines[-1] or columns == 40


def test_bars_shrink_before_words_do() -> None:
    """A text that has room beside a smaller bar stands whole; a bar is a fifth of the terminal at least."""
    spans = changed(three_hops(), "3", status="UNAVAILABLE", flags="URX,UT", refused="concurrency")
    lines = body(waterfall(assemble(spans), 80))
    assert "    a → b.get ✗ UNAVAILABLE URX,UT, refused: concurrency, 2 attempts" not in lines[2]
    assert lines[2].startswith("    a → b.get ✗ UNAVAILABLE URX,UT, refused: concurren… 9.00 ms ")
    assert lines[2].endswith(f" {'▒' * 15}")
    assert (
        "    a → b.get ✗ UNAVAILABLE URX,UT, refused: concurrency, 2 attempts"
        in body(waterfall(assemble(spans), 100))[2]
    )


def test_a_pipe_gets_all_of_it() -> None:
    """Whole names at their whole indentation, and each line of the foot unbroken."""
    text = waterfall(deep(), None)
    lines = body(text)
    assert lines[-1].startswith(f"{'  ' * 14}{'s' * 63}.get @")
    assert "✗ INTERNAL URX,UT" in lines[-1]
    assert f"✗ at {'s' * 63}.get: INTERNAL, {('it did not go well, ' * 9).strip()}" in text.splitlines()


def test_what_stands_less_deep_than_it_is_says_by_how_much() -> None:
    """Half of the room is for words at least."""
    deepest = [
        span(f"{n:02x}", f"{n - 1:02x}" if n > 1 else "", n, 2_000 - n, service="s" * 63)
        for n in range(1, 32)
    ]
    _, _, text = waterfall(assemble(deepest), 40).partition(" TIME\n")
    lines = text.splitlines()
    assert lines[16].startswith(f"{' ' * 16}s")
    assert lines[18].startswith(f"{' ' * 16}+2 s")


def test_what_must_be_known_to_read_it_is_said() -> None:
    """A clock that was moved and by how much, and what was called from nowhere."""
    behind = [
        msgspec.structs.replace(each, start_us=each.start_us - 2_000_000) if each.member == "c" else each
        for each in three_hops()
    ]
    (note,) = notes_of(assemble(behind))
    assert note.startswith("the clock of c c is about 2.00 s behind of its caller's")
    (note,) = notes_of(assemble(three_hops()[1:]))
    assert note.startswith("1 span (…) was called from one that is not there")
    text = waterfall(assemble(behind[1:]), 100)
    assert "… a.get @a" in text
    assert text.count("note: ") == 2


def test_the_document_has_the_same_in_numbers() -> None:
    """Raw numbers with units in their names, spans in the order in which they are read, where the time went."""
    document = document_of(assemble(three_hops()))
    assert document["trace"] == TRACE
    assert (document["duration_ms"], document["retries"], document["status"]) == (10.0, 1, "OK")
    assert [each["span"][0] for each in document["tree"]] == list("123465789"[:3] + "465789")
    assert document["where"] == [
        {"service": "c", "own_ms": 4.5},
        {"service": "b", "own_ms": 2.5},
        {"service": "a", "own_ms": 0.6},
    ]
    json.dumps(document)


def test_time_that_calls_share_is_taken_off_once() -> None:
    """A handler that waits for two at the same time waits once."""
    spans = [
        span("1", "", 0, 1_000, service="a"),
        span("2", "1", 100, 500, kind="client", caller="a"),
        span("3", "1", 200, 600, kind="client", caller="a"),
    ]
    assert document_of(assemble(spans))["where"] == [{"service": "a", "own_ms": 0.3}]


def test_what_was_decided_about_a_call_is_told_in_order() -> None:
    """The caller's side, each instance's, and what the caller was told in the end."""
    spans = changed(three_hops(), "3", status="UNAVAILABLE", flags="URX", error="busy", route="v2",
                    rules=("Route/b rules[0]",))  # fmt: skip
    spans = changed(spans, "6", refused="concurrency", error="32 calls run already")
    (call,) = [each for each in calls_of(assemble(spans)) if each["service"] == "b"]
    told = [(step["layer"], step["happened"]) for step in call["steps"]]
    assert told[0] == ("route", "sent to b.get, subset v2 by Route/b rules[0]")
    assert told[1] == ("retry", "2 attempts")
    assert told[2][1].startswith("attempt 1, after 0 µs: UNAVAILABLE in 2.00 ms")
    assert ("concurrency", "not let in: 32 calls run already") in told
    assert told[-1] == (
        "outcome", "its caller was told: UNAVAILABLE, busy; no other attempt was allowed",
    )  # fmt: skip


CIRCUIT = "the circuit of b.get is open: too many of the last calls failed; next try in 4.2 s"


@pytest.mark.parametrize("fields", [{"refused": "breaker", "error": "whatever it says"}, {"error": CIRCUIT}])
def test_a_call_that_its_caller_refused_is_known_by_its_data(fields: dict[str, str]) -> None:
    """And of members that do not tell it by the words of its error; both for a call and for one of its attempts."""
    alone = changed(three_hops()[:1], "1", status="UNAVAILABLE", flags="UO", **fields)
    (call,) = calls_of(assemble(alone))
    assert [(step["layer"], step["happened"]) for step in call["steps"]] == [
        ("breaker", f"not sent: {fields['error']}"),
        ("outcome", f"its caller was told: UNAVAILABLE, {fields['error']}; the breaker was open"),
    ]
    spans = changed(three_hops()[:6], "5", status="UNAVAILABLE", **fields)
    (call,) = [each for each in calls_of(assemble(spans)) if each["service"] == "b"]
    assert call["steps"][2]["layer"] == "breaker"
    assert call["steps"][2]["happened"].endswith(f"not sent, {fields['error']}")


@pytest.mark.parametrize("layer", ["fault", "deadline", "wire", "encode", "gatekeeper"])
def test_every_layer_may_have_refused_it(layer: str) -> None:
    """Also one that this version does not know."""
    spans = changed(three_hops()[:1], "1", status="UNAVAILABLE", refused=layer)
    (call,) = calls_of(assemble(spans))
    assert [(step["layer"], step["happened"]) for step in call["steps"]] == [(layer, "not sent: UNAVAILABLE")]


@pytest.mark.parametrize(
    ("fields", "told", "outcome"),
    [
        (
            {"status": "DEADLINE_EXCEEDED", "flags": "UT", "error": "no answer in 3 s", "why": "sampled"},
            "sent; no instance told of it: a silent instance, or it was lost",
            "its caller was told: DEADLINE_EXCEEDED, no answer in 3 s; its time was up",
        ),
        (
            {
                "status": "CANCELLED",
                "flags": "DC",
                "error": "given up by its caller after 3 s",
                "why": "error",
            },
            "sent; no instance told of it: a silent instance, or it was lost, or answered too late",
            "given up by its caller after 3 s",
        ),
        (
            {
                "status": "CANCELLED",
                "flags": "DC",
                "error": "given up by its caller after 100 ms, before it was sent",
            },
            "not sent: its caller gave it up before",
            "given up by its caller after 100 ms, before it was sent",
        ),
        (
            {"status": "UNAVAILABLE", "flags": "UH", "error": "nobody serves b"},
            "sent, and nobody listens there",
            "its caller was told: UNAVAILABLE, nobody serves b; nobody serves it",
        ),
    ],
)
def test_a_call_of_which_no_instance_told_was_sent_all_the_same(
    fields: dict[str, str], told: str, outcome: str
) -> None:
    """What its caller kept back says so; of all others it is said what may have become of them, and who gave up."""
    (call,) = calls_of(assemble(changed(three_hops()[:1], "1", **fields)))
    assert [(step["layer"], step["happened"]) for step in call["steps"]] == [
        ("attempt", told),
        ("outcome", outcome),
    ]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"instance": "a1b2c3d4e5"},
            "answered by a a1b2c3d4, which told nothing of it: it hangs, was stopped or has left, or what it told was "
            "lost",
        ),
        (
            {"instance": "a1b2c3d4e5", "why": "slow"},
            "answered by a a1b2c3d4, which tells of what is no failure only where its trace is sampled",
        ),
        (
            {"instance": "a1b2c3d4e5", "why": "error", "status": "INTERNAL"},
            "answered by a a1b2c3d4, which told nothing of it: it hangs, was stopped or has left, or what it told was "
            "lost",
        ),
        (
            {},
            "answered, by whom is not known, and nobody told of it: what its instance told was lost, or it is outside "
            "the mesh",
        ),
        ({"route": "plain"}, "answered from outside the mesh, where nobody tells of calls"),
    ],
)
def test_a_call_that_was_answered_and_of_which_nobody_told_says_who_answered(
    fields: dict[str, str], told: str
) -> None:
    """Its instance may hang, have left, or have lost it; one that tells of failures alone has done nothing wrong."""
    (call,) = calls_of(assemble(changed(three_hops()[:1], "1", **fields)))
    (step,) = [each for each in call["steps"] if each["layer"] == "answer"]
    assert (step["happened"], step["ok"]) == (told, True)
    (call,) = calls_of(assemble(changed(three_hops()[:2], "1", **fields)))
    assert not [each for each in call["steps"] if each["layer"] == "answer"], "its instance told of it"


@pytest.mark.anyio
@pytest.mark.parametrize("fmt", [Format.TABLE, Format.JSON])
async def test_why_notes_gaps_as_trace_does(monkeypatch: pytest.MonkeyPatch, fmt: Format) -> None:
    """What members let go may be what is missing here."""

    @contextlib.asynccontextmanager
    async def connected(*_: object) -> AsyncIterator[None]:
        yield

    async def look(*_: object, timeout_s: float) -> Found:
        (note,) = gaps(3, {"rate": 3})
        spans = {each.id: each for each in three_hops()}
        return Found(traces={TRACE: spans}, notes=(note,))

    async def look_around(*_: object, name: str | None) -> Seen:
        return Seen(policies=PolicySet.empty())

    for each in (connected, look, look_around):
        monkeypatch.setattr(why_trace, each.__name__, each)
    data, notes = io.StringIO(), io.StringIO()
    assert await why_trace.why_trace(Options(format=fmt), Out(data, notes), TRACE, None) == 0
    assert notes.getvalue().startswith("note: traces may have gaps: 3 spans came faster")
    assert "web" in data.getvalue()


def test_an_attempt_that_broke_off_was_sent() -> None:
    """Only what its caller kept back was not; of what was on its way it is told how it ended."""
    spans = changed(three_hops()[:6], "5", status="UNAVAILABLE", error="the connection was lost")
    (call,) = [each for each in calls_of(assemble(spans)) if each["service"] == "b"]
    assert call["steps"][2]["layer"] == "attempt"
    assert call["steps"][2]["happened"].endswith(", the connection was lost")
    assert "not sent" not in call["steps"][2]["happened"]


def test_a_flag_for_two_things_says_which_it_was() -> None:
    """That as many calls ran as may, where the instance told of it; both, where nobody did."""
    spans = changed(three_hops()[:2], "1", status="RESOURCE_EXHAUSTED", flags="UO")
    (call,) = [each for each in calls_of(assemble(spans)) if each["caller"] == "web"]
    assert call["steps"][-1]["happened"].endswith("; the breaker was open, or as many calls ran as may")
    spans = changed(spans, "2", status="RESOURCE_EXHAUSTED", refused="concurrency")
    (call,) = [each for each in calls_of(assemble(spans)) if each["caller"] == "web"]
    assert call["steps"][-1]["happened"].endswith("RESOURCE_EXHAUSTED; as many calls ran as may")


def test_a_list_says_why_a_trace_went_as_it_did() -> None:
    """A call that its caller's circuit refused is one span; what a flag adds; of others than the first, whose call it
    was."""

    def reasons(spans: list[RecordedSpan]) -> list[str]:
        return reasons_of(record_of(summary_of(assemble(spans))))

    alone = changed(three_hops()[:1], "1", status="UNAVAILABLE", flags="UO", refused="breaker")
    assert reasons(alone) == ["refused: circuit open"]
    spans = changed(three_hops(), "3", status="UNAVAILABLE", flags="UO,URX", refused="breaker")
    spans = changed(spans, "9", injected="delay", fault_us=900, flags="UT")
    spans = changed(spans, "8", took_us=1_200_000)  # goes on when its own caller has been answered
    assert reasons(spans) == [
        "refused: circuit open (b.get)", "fault: delay", "retries exhausted (a → b)", "out of time (b → c)",
        "+1.19 s after",
    ]  # fmt: skip
    assert reasons(changed(three_hops(), "2", refused="concurrency", flags="UO")) == ["refused: concurrency"]
    assert reasons(changed(three_hops(), "2", refused="rate", flags="RL")) == ["refused: rate"]
    assert reasons(changed(three_hops(), "1", refused="fault", flags="FI")) == [
        "refused: a route's fault", "fault: abort",
    ]  # fmt: skip
    assert reasons(changed(three_hops(), "1", status="CANCELLED", flags="DC")) == ["given up by its caller"]
    assert reasons(changed(three_hops(), "1", flags="UO,XX")) == ["circuit open, or full"]
    assert reasons(three_hops()) == []
    left = changed(changed(three_hops(), "8", status="CANCELLED", flags="DC"), "1", flags="UT")
    assert reasons(changed(left, "2", flags="DC")) == [
        "out of time", "given up by its caller", "given up by its caller (b → c)",
    ]  # fmt: skip
    both = changed(changed(three_hops(), "2", refused="rate", flags="RL"), "9", flags="RL")
    assert reasons(both) == ["refused: rate", "rate limited (b → c)"], (
        "a refusal speaks for its own call alone"
    )
    document = document_of(assemble(spans))
    assert (document["duration_ms"], document["total_ms"]) == (10.0, 1203.5)
    assert document["after_ms"] == pytest.approx(1193.5)
    assert "10.0 ms, and 1.19 s after its end · 9 spans" in waterfall(assemble(spans), 100)


def test_the_head_says_what_its_axis_has_beside_the_first_call() -> None:
    """However short that is, where it can be seen; what stands before the first call, too, where clocks contradict."""

    def took(spans: list[RecordedSpan]) -> str:
        return waterfall(assemble(spans), None).splitlines()[2].partition(" · ")[0]

    assert took(three_hops()) == "10.0 ms"
    gave_up = changed(three_hops()[:2], "1", status="DEADLINE_EXCEEDED", took_us=520)
    assert took(changed(gave_up, "2", start_us=gave_up[0].start_us + 100, took_us=950)) == (
        "520 µs, and 530 µs after its end"
    )
    assert took(changed(gave_up, "2", start_us=gave_up[0].start_us + 100, took_us=420)) == "520 µs"
    outside = changed(three_hops()[:2], "2", took_us=10_400)  # of a call that was answered
    assert took(outside) == "10.0 ms, and 200 µs before its begin and 200 µs after its end"


# -- found ------------------------------------------------------------------------------------------


def found(*names: str) -> Found:
    """Traces with these ids."""
    return Found(traces={name: {} for name in names})


@pytest.mark.parametrize(
    ("which", "problem"),
    [
        ("", "is no id"), ("xyz", "is no id"), ("a" * 33, "is no id"), ("ab", "2 traces begin with 'ab'"),
        ("12", "no trace '12' is known"),
    ],
)  # fmt: skip
def test_an_id_is_asked_for_in_few_digits(which: str, problem: str) -> None:
    """As many as tell it from the others; else it is said what is wrong."""
    some = found("abc".ljust(32, "0"), "abd".ljust(32, "0"))
    assert one_of(some, "ABC") is some.traces["abc".ljust(32, "0")]
    with pytest.raises(CliError, match=problem):
        one_of(some, which)


def test_a_query_takes_what_it_is_about() -> None:
    """By service on either side, by length, by failures."""
    summary = summary_of(assemble(three_hops()))
    assert Query().takes(summary)
    assert Query(service="c").takes(summary)
    assert Query(service="web").takes(summary)
    assert not Query(service="d").takes(summary)
    assert Query(slow_s=0.01).takes(summary)
    assert not Query(slow_s=0.011).takes(summary)
    assert Query(error=True).takes(summary)
    assert not Query(error=True).takes(summary_of(assemble(three_hops()[6:])))


def gaps(dropped: int, reasons: dict[str, int]) -> list[str]:
    """The notes of what a member says it let go."""
    message = SpanMessage(
        instance="b1",
        service="b",
        version="1.0.0",
        namespace="x",
        seq=1,
        dropped=dropped,
        dropped_for=reasons,
    )
    return let_go_notes(let_go(message), {})


@pytest.mark.anyio
async def test_a_gap_says_when_it_was() -> None:
    """By the server's time, where the stream has the message, the last of them: ten minutes later it is old news."""
    nobody = cast(Any, SimpleNamespace(jetstream="$JS.API"))  # what members say is read, and nobody is asked
    store = SpanStore(Subjects("x"), transport=nobody, mux=nobody)
    for at, dropped in (
        ("2026-11-27T12:00:02.5Z", 2),
        ("2026-11-27T12:00:01Z", 1),
        ("2026-11-27T12:00:09Z", 0),
    ):
        message = SpanMessage(
            instance="b1", service="b", version="1.0.0", namespace="x", seq=1, dropped=dropped,
            dropped_for={"rate": dropped},
        )  # fmt: skip
        store.spans("b", "b1", JSON.encode(message), at=at)
    (note,) = let_go_notes(store.dropped, store.dropped_at)
    assert "3 spans came faster than members tell of them" in note
    assert note.endswith(", last at 2026-11-27T12:00:02.500Z")


def test_why_spans_are_missing_is_said_by_its_reason() -> None:
    """Each is something else to do; words that nobody knows are no reasons, and no member counts beyond its own sum."""
    defect, rate, untaken = gaps(7, {"rate": 4, "untaken": 2, "defect": 1})
    assert "4 spans came faster than members tell of them (500/s each)" in rate
    assert "nobody took 2 spans, and members remember their latest 512 alone" in untaken
    assert "1 span could not be told for a defect" in defect
    assert [note.partition(": ")[2] for note in gaps(3, {})] == [
        "traces may have gaps: 3 spans found no room at their members"
    ]
    assert gaps(3, {"mood": 2, "other": 1}) == gaps(3, {})
    (alone,) = gaps(3, {"rate": 10**9})
    assert "3 spans came faster" in alone
    assert gaps(0, {"rate": 5}) == []


async def why_of(
    monkeypatch: pytest.MonkeyPatch, spans: list[RecordedSpan], policies: PolicySet, fmt: Format
) -> str:
    """What `why --trace` prints of a trace of these spans, with these policies now."""

    @contextlib.asynccontextmanager
    async def connected(*_: object) -> AsyncIterator[None]:
        yield

    async def look(*_: object, timeout_s: float) -> Found:
        return Found(traces={TRACE: {each.id: each for each in spans}}, notes=())

    async def look_around(*_: object, name: str | None) -> Seen:
        return Seen(policies=policies)

    for each in (connected, look, look_around):
        monkeypatch.setattr(why_trace, each.__name__, each)
    data = io.StringIO()
    assert await why_trace.why_trace(Options(format=fmt), Out(data, io.StringIO()), TRACE, None) == 0
    return data.getvalue()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("policy", "took_us", "told"),
    [
        ("timeout: 3ms", 3_100, "its time was over: such a call has 3ms, said by Destination/b"),
        ("timeout: 3ms", 500_000, "its time was another one: such a call has 3ms, said by Destination/b"),
        ("balancer: queue", 5_000_100, "its time was over: such a call has 5s, said by the default"),
    ],
)
async def test_why_says_whose_timeout_a_call_ran_out_of(
    monkeypatch: pytest.MonkeyPatch, policy: str, took_us: int, told: str
) -> None:
    """Where its length is that of the timeout of such calls; else that it must have had another."""
    text = f"apiVersion: mesh/v1\nkind: Destination\nmetadata: {{name: b}}\nspec: {{target: {{service: b}}, {policy}}}"
    late = changed(three_hops()[:4], "3", status="DEADLINE_EXCEEDED", flags="UT", took_us=took_us)
    for fmt in (Format.TABLE, Format.JSON):
        data = await why_of(monkeypatch, late, PolicySet.of(parse(text)), fmt)
        if fmt is Format.TABLE:
            assert told in data
            assert data.count("said by") == 1, "those that ended otherwise have none"
        else:
            (timeout,) = [each["timeout"] for each in json.loads(data)["calls"] if each["timeout"]]
            assert timeout["fits"] is ("over" in told)


# -- as typed ---------------------------------------------------------------------------------------

GOOD, BAD = "a1".ljust(32, "1"), "b2".ljust(32, "2")


@pytest.fixture(scope="module")
def traced(shop: Shop) -> Shop:
    """A shop with the stream made, and two traces in it: one went well, one did not."""
    assert shop("trace").code == 0
    for trace, arguments in ((GOOD, ("orders.place", '{"sku": "b"}')), (BAD, ("orders.boom",))):
        shop("call", *arguments, "-H", f"traceparent=00-{trace}-{'3' * 16}-01")
    deadline = time.monotonic() + 20.0
    while len(shop("trace", "-o", "name").out.split()) < 2:
        assert time.monotonic() < deadline, shop("trace").out
    return shop


def test_traces_are_listed_and_narrowed(traced: Shop) -> None:
    """The oldest first, in every form; by failure, by service, by length, by number."""
    listed = traced("trace")
    assert listed.code == 0
    head, *rows = listed.out.splitlines()
    assert head.split() == [
        "TIME",
        "TRACE",
        "CALL",
        "FROM",
        "DURATION",
        "SPANS",
        "ERRORS",
        "RETRIES",
        "STATUS",
        "WHY",
    ]
    assert [row.split()[1:3] for row in rows] == [[GOOD[:12], "orders.place"], [BAD[:12], "orders.boom"]]
    many = traced.many(
        ["trace", "-o", "json"], ["trace", "--error", "-o", "name"], ["trace", "--limit", "1", "-o", "jsonl"],
        ["trace", "--service", "stock"], ["trace", "--service", "stock", "-o", "json"],
        ["trace", "--slow", "1h", "-o", "json"],
    )  # fmt: skip
    every, error, one, none, empty, slow = many
    records = every.json
    assert [each["trace"] for each in records] == [GOOD, BAD]
    assert (records[1]["status"], records[1]["errors"] > 0) == ("INTERNAL", True)
    assert error.out.split() == [BAD]
    assert [json.loads(line)["trace"] for line in one.out.splitlines()] == [BAD]
    assert (none.out, none.code) == ("", 0)
    assert "none of 2 traces" in none.err
    assert empty.json == slow.json == []


def test_one_is_drawn_and_explained(traced: Shop) -> None:
    """By the first digits of its id: as text and as a document; and layer by layer."""
    drawn, document, why, full, wrong = traced.many(
        ["trace", BAD[:4]], ["trace", BAD, "-o", "json"], ["why", "--trace", BAD[:4]],
        ["why", "orders.boom", "--trace", BAD, "-o", "json"], ["why", "orders.bom", "--trace", BAD],
    )  # fmt: skip
    assert f"trace {BAD}" in drawn.out
    assert "orders.boom" in drawn.out
    assert "✗ INTERNAL" in drawn.out
    assert document.json["tree"][-1]["kind"] == "server"
    assert "nats-mesh called orders.boom: INTERNAL" in why.out
    assert "✗ handler" in why.out
    assert "now such a call would reach orders.boom" in why.out
    (call,) = full.json["calls"]
    assert call["why"]["target"] == "orders.boom"
    assert (wrong.code, "did you mean" in wrong.err.lower()) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["trace", "deadbeef"], 1, "no trace 'deadbeef' is known"),
        (["trace", "hello"], 2, "is no id of a trace"),
        (["trace", "hello", "-s", "nats://127.0.0.1:1"], 2, "is no id of a trace"),  # before anybody is asked
        (["trace", "ab", "--watch"], 2, "--watch"),
        (["trace", "--sample", "10%"], 2, "--watch"),
        (["trace", "--watch", "-o", "json"], 2, "jsonl"),
        (["trace", "--since", "yesterday"], 2, "is no instant"),
        (["trace", "--service", "a.b"], 2, "service"),
        (["why"], 2, "say which call"),
        (["why", "--trace", "ab", "--from", "web"], 2, "leave the other options out"),
        (["why", "--trace", "deadbeef"], 1, "no trace"),
    ],
)
def test_mistakes_are_told(traced: Shop, arguments: list[str], code: int, text: str) -> None:
    """What is wrong, and what to do."""
    (done,) = traced.many(arguments)
    assert (done.code, text in done.err) == (code, True), done.err


def test_a_bus_without_jetstream_has_what_members_remember(traced: Shop) -> None:
    """What cannot be kept is said, and what there is is shown."""
    done = traced("trace", "--no-keep", "-o", "json")
    assert done.code == 0
    assert len(done.json) == 2


def test_watching_shows_traces_as_they_end(traced: Shop) -> None:
    """One line each, once it is quiet."""
    with traced.background("trace", "--watch", "-o", "jsonl") as watching:
        deadline = time.monotonic() + 30.0
        number = 0
        while not watching.out and time.monotonic() < deadline:
            number += 1
            traced("call", "stock.count", "5", "-H", f"traceparent=00-{number:032x}-{'3' * 16}-01")
        assert watching.out
        found = json.loads(watching.out[0])
        assert (found["service"], found["endpoint"]) == ("stock", "count")
        assert 1 <= int(found["trace"], 16) <= number

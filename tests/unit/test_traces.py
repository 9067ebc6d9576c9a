"""Traces put together out of spans: order, gaps, clocks that are off, and whatever hostile members tell."""

from __future__ import annotations

import contextlib
import math
import struct
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.errors import CodecError
from nats_mesh.telemetry.notes import Row
from nats_mesh.telemetry.span_columns import encode_alike, encode_columns, read_columns
from nats_mesh.telemetry.span_messages import (
    MAX_BYTES,
    SpanHead,
    SpanMessage,
    SpanWish,
    decode_span_wish,
    decode_spans,
    encode_span,
    encode_spans,
    spans_of,
)
from nats_mesh.telemetry.span_parts import RecordedSpan, Span
from nats_mesh.telemetry.spans import (
    MAX_MOVE_US,
    MAX_TOLD,
    MAX_TRACE,
    Flagged,
    Refusal,
    assemble,
    summary_of,
    traces_of,
)
from nats_mesh.wire.codecs import JSON
from nats_mesh_cli.trace_document import document_of, record_of
from nats_mesh_cli.trace_text import waterfall

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
T0 = 1_800_000_000_000_000


def span(
    name: str,
    parent: str,
    start: int,
    took: int,
    *,
    kind: str = "server",
    member: str = "",
    service: str = "b",
    status: str = "OK",
    attempt: int = 1,
    caller: str = "a",
) -> RecordedSpan:
    """A span whose id begins with ``name``; instants in microseconds after the trace's beginning."""
    own = service if kind == "server" else caller
    return msgspec.convert(
        {
            "trace": TRACE,
            "id": name.ljust(16, "0"),
            "parent": parent.ljust(16, "0") if parent else "",
            "kind": kind,
            "service": service,
            "endpoint": "get",
            "caller": caller,
            "start_us": T0 + start,
            "took_us": took,
            "status": status,
            "attempt": attempt,
            "why": "error" if status != "OK" else "sampled",
            "member": own,
            "member_instance": member or own,
        },
        RecordedSpan,
    )


def three_hops() -> list[RecordedSpan]:
    """web calls a, a calls b in two attempts, of which the first failed, b calls c."""
    return [
        span("1", "", 0, 10_000, kind="client", caller="web", service="a"),
        span("2", "1", 200, 9_600, service="a", caller="web"),
        span("3", "2", 500, 9_000, kind="client", caller="a", attempt=2),
        span("4", "3", 500, 2_000, kind="attempt", caller="a", status="UNAVAILABLE"),
        span("5", "3", 3_000, 6_400, kind="attempt", caller="a", attempt=2),
        span("6", "4", 700, 1_500, status="UNAVAILABLE", member="b1"),
        span("7", "5", 3_200, 6_000, member="b2", attempt=2),
        span("8", "7", 3_500, 5_000, kind="client", caller="b", service="c", member="b2"),
        span("9", "8", 3_700, 4_500, service="c", caller="b"),
    ]


def test_a_trace_reads_from_the_first_call_downwards() -> None:
    """Each span stands before what it called, those of one parent by time, however they came in."""
    trace = assemble(reversed(three_hops()))
    assert [(each.span.id[0], each.depth) for each in trace.placed] == [
        ("1", 0), ("2", 1), ("3", 2), ("4", 3), ("6", 4), ("5", 3), ("7", 4), ("8", 5), ("9", 6),
    ]  # fmt: skip
    assert trace.took_us == 10_000
    assert trace.skews == ()
    summary = summary_of(trace)
    assert (summary.caller, summary.service, summary.status) == ("web", "a", "OK")
    assert (summary.spans, summary.retries, summary.errors, summary.lost) == (9, 1, 1, 0)
    assert summary.services == ("a", "b", "c")


def changed(spans: list[RecordedSpan], name: str, **fields: Any) -> list[RecordedSpan]:
    """These spans with one of them changed."""
    return [msgspec.structs.replace(each, **fields) if each.id.startswith(name) else each for each in spans]


@pytest.mark.parametrize(
    ("took_us", "after_us"), [(5_000, 0), (6_500, 0), (7_400, 0), (7_500, 1_000), (1_200_000, 1_193_500)]
)
def test_a_trace_took_as_long_as_its_first_call(took_us: int, after_us: int) -> None:
    """What went on after that is told beside it, where it is more than a clock may be off."""
    summary = summary_of(assemble(changed(three_hops(), "8", took_us=took_us)))
    assert (summary.root_us, summary.after_us) == (10_000, after_us)
    assert summary.took_us == max(10_000, 3_500 + took_us)


def test_a_trace_says_who_refused_what_and_what_was_done_on_purpose() -> None:
    """By layer and target, each once; flags of all calls one by one; a circuit also by the words of before."""
    spans = changed(three_hops(), "3", status="UNAVAILABLE", flags="UO,URX", refused="breaker")
    spans = changed(spans, "5", status="UNAVAILABLE", refused="breaker")
    spans = changed(spans, "8", status="UNAVAILABLE", flags="UO", error="the circuit of c.get is open: x")
    spans = changed(spans, "9", error="the circuit of d.get is open: its own call failed", injected="abort")
    spans = changed(spans, "6", refused="concurrency", flags="DI")
    summary = summary_of(assemble(spans))
    assert summary.flags == ("DI", "UO", "URX")
    assert summary.injected == ("abort", "delay")
    assert summary.flagged == (
        Flagged("UO", "a", "b", "get"), Flagged("URX", "a", "b", "get"),
        Flagged("DI", "a", "b", "get"), Flagged("UO", "b", "c", "get"),
    )  # fmt: skip
    first = summary_of(assemble(changed(changed(spans, "1", flags="UT"), "2", flags="DC")))
    assert first.flagged[:2] == (Flagged("UT", "web", "a", "get"), Flagged("DC", "web", "a", "get"))
    assert summary.refusals == (
        Refusal("outbound", "breaker", "b", "get"),
        Refusal("inbound", "concurrency", "b", "get"),
        Refusal("outbound", "breaker", "c", "get"),
    )
    plain = summary_of(assemble(three_hops()))
    assert (plain.flags, plain.refusals, plain.injected) == ((), (), ())
    many = [span(f"{n:x}", "", n, 5, kind="client", caller=f"c{n}", service=f"s{n}") for n in range(1, 40)]
    many = [msgspec.structs.replace(each, refused="breaker", flags="UO") for each in many]
    summary = summary_of(assemble(many))
    assert len(summary.refusals) == len(summary.flagged) == MAX_TOLD


@given(st.randoms(use_true_random=False))
def test_the_order_in_which_spans_come_changes_nothing(rng: object) -> None:
    """They come from many members, late and twice."""
    spans = three_hops() + three_hops()[2:5]
    rng.shuffle(spans)  # type: ignore[attr-defined]
    found = traces_of(spans)
    assert list(found) == [TRACE]
    assert assemble(found[TRACE].values()) == assemble(three_hops())


@pytest.mark.parametrize("off", [-3_600_000_000, -50_000, 50_000, 86_400_000_000])
def test_a_clock_that_is_off_is_moved_between_its_bounds(off: int) -> None:
    """What an instance did lies within the attempt that asked for it; everything it tells moves by the same, and what
    it called in turn moves along; the rest stays where it is, and the move is said."""
    moved = [
        msgspec.structs.replace(each, start_us=each.start_us + off)
        if each.member_instance in ("b2", "c")
        else each
        for each in three_hops()
    ]
    trace = assemble(moved)
    where = {each.span.id[0]: each.offset_us for each in trace.placed}
    assert where["1"] == 0
    assert where["7"] == 3_200  # the attempt's 6,400 µs leave 200 to either side of its 6,000
    assert where["8"] - where["7"] == 300
    assert where["8"] <= where["9"] <= where["8"] + 500
    assert trace.took_us == 10_000
    assert {skew.instance: skew.sure for skew in trace.skews} == {"b2": True, "c": True}
    assert all(abs(skew.moved_us + off) <= 250 for skew in trace.skews)


def test_clocks_that_fit_are_left_alone() -> None:
    """A few milliseconds within the bounds are nobody's to correct."""
    early = [
        msgspec.structs.replace(each, start_us=each.start_us - 150) if each.id[0] == "9" else each
        for each in three_hops()
    ]
    assert {each.span.id[0]: each.offset_us for each in assemble(early).placed}["9"] == 3_550


def test_who_gave_up_says_nothing_of_when_the_instance_was_done() -> None:
    """A handler may go on for a while after its caller went away: that is no wrong clock."""
    spans = [
        span("1", "", 0, 1_000, kind="client", status="DEADLINE_EXCEEDED"),
        span("2", "1", 100, 5_000, status="CANCELLED"),
    ]
    trace = assemble(spans)
    assert trace.skews == ()
    assert [each.offset_us for each in trace.placed] == [0, 100]
    assert trace.took_us == 5_100


def test_a_clock_that_contradicts_itself_is_said_to() -> None:
    """No move fits: the spans go between the bounds, and are not sure."""
    spans = [
        span("1", "", 0, 1_000, kind="client"),
        span("2", "1", -100_000, 100_900),
    ]
    trace = assemble(spans)
    assert [skew.sure for skew in trace.skews] == [False]


def test_what_was_called_from_nowhere_stands_by_itself() -> None:
    """Its parent was not kept, or belongs to another system."""
    trace = assemble([each for each in three_hops() if each.id[0] != "7"])
    lost = [each.span.id[0] for each in trace.placed if each.lost]
    assert lost == ["8"]
    assert trace.lost == 1


ids = st.sampled_from("0123456789abcdef")


@given(
    st.lists(
        st.tuples(
            ids, st.one_of(st.just(""), ids), st.integers(-T0, T0), st.integers(0, 10**13),
            st.sampled_from(["client", "attempt", "server"]), st.sampled_from(["x", "y", "z"]),
            st.sampled_from(["OK", "UNAVAILABLE", "DEADLINE_EXCEEDED"]),
        ),
        min_size=1,
        max_size=30,
    )
)  # fmt: skip
def test_nothing_that_members_tell_makes_it_fail(
    told: list[tuple[str, str, int, int, str, str, str]],
) -> None:
    """Circles, spans that are their own parents, ids that stand twice, clocks from the last century: each span is there
    once, none stands before its trace begins, and none is deeper than all of them."""
    spans = [
        span(name, parent, start, took, kind=kind, member=member, status=status)
        for name, parent, start, took, kind, member, status in told
    ]
    trace = assemble(spans)
    assert len(trace.placed) == len(spans)
    assert all(each.offset_us >= 0 for each in trace.placed)
    assert all(0 <= each.depth < len(spans) for each in trace.placed)
    assert all(each.offset_us + each.span.took_us <= trace.took_us for each in trace.placed)
    assert summary_of(trace).spans == len(spans)


def test_clocks_that_move_each_other_leave_the_calendar_to_no_one() -> None:
    """Whoever makes up instants has one trace of the list look odd, and not the list end."""
    never = 2**53 - 1 - T0
    told = [span("f0", "", -T0, 1, member="h")]
    for hop in range(200):
        told += [
            span(f"e{hop:03}", f"f{hop:03}" if hop else "f0", never, 1, member=f"h{hop}"),
            span(f"f{hop + 1:03}", "", -T0, 1, member=f"h{hop}"),
        ]
    trace = assemble(told)
    assert abs(trace.start_us) <= MAX_MOVE_US
    assert not all(skew.sure for skew in trace.skews)
    assert record_of(summary_of(trace))["at"].endswith("Z")
    assert document_of(trace)
    assert waterfall(trace, 100)


def test_a_trace_without_end_is_cut() -> None:
    """As many spans as are looked at, in a chain as deep as that; the rest is counted."""
    spans = [
        msgspec.structs.replace(each, id=f"{n:016x}", parent=f"{n - 1:016x}" if n > 1 else "")
        for n, each in enumerate([span("1", "", n, 5) for n in range(1, MAX_TRACE + 11)], 1)
    ]
    trace = assemble(spans)
    assert (len(trace.placed), trace.cut) == (MAX_TRACE, 10)


# -- messages -----------------------------------------------------------------------------------------


def message(**said: object) -> SpanMessage:
    """A message of service b."""
    spans = [each for each in three_hops() if each.member == "b"]
    plain = tuple(Span(**{name: getattr(each, name) for name in Span.__struct_fields__}) for each in spans)
    return SpanMessage(
        **{  # type: ignore[arg-type]
            "instance": "b1", "service": "b", "version": "1.0.0", "namespace": "default", "seq": 1, "spans": plain,
            **said,
        }
    )  # fmt: skip


def bodies_of(sent: SpanMessage, max_bytes: int) -> list[bytes]:
    """As a member writes it."""
    head = SpanHead(**{name: getattr(sent, name) for name in SpanHead.__struct_fields__})
    return encode_spans(head, [encode_span(span) for span in sent.spans], [], max_bytes)


@given(
    st.sampled_from(["client", "server"]),
    st.tuples(st.floats(0.0, 1e6), st.floats(0.0, 1e6, width=32), st.floats(0.0, 1e6, width=32)),
    st.sampled_from(["", "b7ad6b7169203331"]),
    st.sampled_from(["all", "v2"]),
    st.sampled_from([(), ('Route/"x" rules[1]', "Route/{y} rules[2]")]),
    st.sampled_from([{}, {"team": "shop", "zone/a": 'the "first"'}]),
)
def test_rows_are_read_as_the_spans_they_stand_for(
    kind: Literal["client", "server"],
    times: tuple[float, float, float],
    above: str,
    route: str,
    rules: tuple[str, ...],
    labels: dict[str, str],
) -> None:
    """Whatever calls have in common, a row says the rest, in a message and for who takes spans beside it."""
    clock_s = 1_800_000_000.25
    start, took, waited = times
    own, parent = (
        ("00f067aa0ba902b7", above) if kind == "client" else ("b7ad6b7169203331", "00f067aa0ba902b7")
    )
    span = Span(
        trace=TRACE, id=own, kind=kind, service="b", endpoint="e", caller="b",
        start_us=round((start + clock_s) * 1e6), took_us=round(took * 1e6), parent=parent,
        queue_us=round(waited * 1e6) if kind == "server" else 0, route=route, rules=rules, labels=labels,
    )  # fmt: skip
    other = above if kind == "client" else own
    row: Row = (f"{TRACE}-00f067aa0ba902b7", other, route, "", start, took, waited)
    rows = encode_columns(encode_alike(span), [*row], server=kind == "server")
    assert read_columns(rows, clock_s) == [span]
    head = SpanHead(instance="b1", service="b", version="1.0.0", namespace="default", seq=1, clock_s=clock_s)
    (body,) = encode_spans(head, [encode_span(span)], [rows, rows], MAX_BYTES)
    assert decode_spans(body, service="b", instance="b1", namespace="default").spans == (span,) * 3


@given(
    st.sampled_from(["client", "server"]),
    st.lists(
        st.tuples(
            st.integers(1, 16**32 - 1),
            st.integers(1, 16**16 - 1),
            st.integers(0, 16**16 - 1),
            st.sampled_from(["", "v2", "v3"]),
            st.sampled_from(["", "b1", "b2"]),
            st.tuples(st.floats(0.0, 1e6), st.floats(0.0, 1e6, width=32), st.floats(0.0, 1e6, width=32)),
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_rows_that_differ_in_everything_are_told_apart(
    kind: Literal["client", "server"], calls: list[tuple[int, int, int, str, str, tuple[float, float, float]]]
) -> None:
    """Each row of a group is read as its own span, whatever stands beside it: with and without a parent, by other
    routes, answered by others, at other times; ids as text and as they came."""
    server = kind == "server"
    rows: list[Any] = []
    seconds: list[str] = []
    for trace, id_, other, route, instance, (start, took, waited) in calls:
        ids = f"{trace:032x}-{id_:016x}"
        second = f"{max(1, other):016x}" if server else f"{other:016x}" if other else ""
        rows += (ids.encode() if server else ids, second, route, instance, start, took, waited)
        seconds.append(second)
    alike = msgspec.json.encode({"kind": kind, "service": "b", "endpoint": "e", "caller": "a"})
    spans = read_columns(encode_columns(alike, rows, server=server), 0.0)
    assert [
        (
            span.trace,
            span.id,
            span.parent,
            span.route,
            span.instance,
            span.start_us,
            span.took_us,
            span.queue_us,
        )
        for span in spans
    ] == [
        (
            f"{trace:032x}",
            second if server else f"{id_:016x}",
            f"{id_:016x}" if server else second,
            route or "all",
            instance,
            round(start * 1e6),
            round(took * 1e6),
            round(waited * 1e6) if server else 0,
        )
        for (trace, id_, _, route, instance, (start, took, waited)), second in zip(
            calls, seconds, strict=True
        )
    ]


@given(st.floats(0.0, 1e3))
def test_how_long_a_row_took_is_told_to_seven_digits(took: float) -> None:
    """Which is more than anybody reads; when it began is told as it was noted."""
    alike = b'{"kind":"client","service":"b","endpoint":"e","caller":"a"}'
    row: Row = (f"{TRACE}-00f067aa0ba902b7", "", "", "", 987_654.321012, took, 0.0)
    (span,) = read_columns(encode_columns(alike, [*row], server=False), 1_800_000_000.0)
    assert span.start_us == 1_800_987_654_321_012
    assert abs(span.took_us - took * 1e6) <= 0.5 + took * 0.1


@pytest.mark.parametrize(
    "ids",
    [
        b"",
        b"-",
        b"0" * 32 + b"-00f067aa0ba902b7",
        TRACE.encode() + b"-" + b"0" * 16,
        TRACE.upper().encode() + b"-00f067aa0ba902b7",
        b"\x00" * 49,
        b"\xe9" * 49,
        b'"' * 49,
        TRACE.encode() + b"-00f067aa0ba902b7\r\n\r\n",
        TRACE.encode() + b"+00f067aa0ba902b7",
    ],
)
def test_a_row_with_ids_that_are_none_has_no_span(ids: bytes) -> None:
    """It is a caller's fault who sent them, and costs no other row anything."""
    alike = b'{"kind":"server","service":"b","endpoint":"e","caller":"a"}'
    good: Row = (f"{TRACE}-00f067aa0ba902b7".encode(), "b7ad6b7169203331", "all", "", 1.0, 1.0, 2.0)
    rows = encode_columns(alike, [*good, ids, *good[1:], *good], server=True)
    assert [span.trace for span in read_columns(rows, 0.0)] == [TRACE] * 2


_SERVER = {"kind": "server", "service": "b", "endpoint": "e", "caller": "a"}


def columns(count: int = 1, **said: Any) -> dict[str, Any]:
    """A group of so many calls that b answered."""
    return {
        "alike": _SERVER,
        "ids": f"{TRACE}-00f067aa0ba902b7" * count,
        "spans": "b7ad6b7169203331" * count,
        "times": struct.pack(f"<{count}d{2 * count}f", *[1.0] * 3 * count),
        **said,
    }


def with_group(group: dict[str, Any]) -> bytes:
    """A message of b that has it."""
    return msgspec.json.encode(
        {
            "instance": "b1",
            "service": "b",
            "version": "1.0.0",
            "namespace": "default",
            "seq": 1,
            "groups": [group],
        }
    )


def test_a_group_with_the_least_that_it_needs_is_read() -> None:
    """What the cases below break is whole otherwise: as many calls as a message may have, and none."""
    assert len(decode_spans(with_group(columns(512))).spans) == 512
    assert len(decode_spans(with_group(columns(2, route=["all", "v2"], instance=["b1", "b2"]))).spans) == 2
    assert decode_spans(with_group(columns(0))).spans == ()


@pytest.mark.parametrize(
    "group",
    [
        columns(alike={"kind": "attempt"}),
        columns(alike={}),
        columns(alike=5),
        columns(alike={**_SERVER, "kind": "client"}, spans="", times=struct.pack("<df", 1.0, 2.0)),
        columns(ids="ab"),
        columns(ids=[TRACE]),
        columns(spans=""),
        columns(spans="b7ad6b716920333"),
        columns(2, spans="b7ad6b7169203331"),
        columns(route=["all", "all"]),
        columns(route=1),
        columns(2, instance=["b1"]),
        columns(times=struct.pack("<df", 1.0, 2.0)),
        columns(times=b"\0" * 17),
        columns(times="!"),
        columns(times=[1.0, 1.0, 2.0]),
        columns(times=struct.pack("<d2f", 1.0, math.nan, 2.0)),
        columns(times=struct.pack("<d2f", 1.0, 1.0, math.inf)),
        columns(times=struct.pack("<d2f", -2e12, 1.0, 2.0)),
        columns(513),
        columns(513, ids=""),
    ],
)
def test_rows_that_break_a_bound_are_refused(group: dict[str, Any]) -> None:
    """With the message that has them, clearly; so is a member that tells of somebody else's call."""
    with pytest.raises(CodecError):
        decode_spans(with_group(group))


def test_an_error_is_no_longer_than_a_line() -> None:
    """Whatever stands in the place of a word."""
    with pytest.raises(CodecError) as raised:
        decode_spans(with_group(columns(alike={"kind": "x" * 400_000})))
    assert len(str(raised.value)) < 100


def test_spans_survive_the_wire() -> None:
    """A message is read as it was written, and each span says who told it."""
    sent = message(dropped=3)
    (body,) = bodies_of(sent, MAX_BYTES)
    read = decode_spans(body, service="b", instance="b1", namespace="default")
    assert read == sent
    assert {(each.member, each.member_instance, each.version) for each in spans_of(read)} == {
        ("b", "b1", "1.0.0")
    }


def test_a_large_message_travels_in_parts() -> None:
    """Each fits, together they hold everything once, and what was dropped is said once."""
    sent = message(dropped=3, spans=message().spans * 40)
    bodies = bodies_of(sent, 2_000)
    parts = [decode_spans(body) for body in bodies]
    assert all(len(body) <= 2_000 for body in bodies)
    assert sum([part.spans for part in parts], ()) == sent.spans
    assert sum(part.dropped for part in parts) == 3


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"service": "c"}, "its subject says"),
        ({"instance": "b9"}, "its subject says"),
        ({"namespace": "prod"}, "its subject says"),
    ],
)
def test_who_speaks_for_another_is_not_believed(said: dict[str, str], problem: str) -> None:
    """The subject says who publishes, and the server enforces it."""
    body = JSON.encode(message(spans=(), **said))
    with pytest.raises(CodecError, match=problem):
        decode_spans(body, service="b", instance="b1", namespace="default")


def test_nobody_tells_of_calls_that_are_not_his_own() -> None:
    """An instance answers for its service, a caller for itself."""
    foreign = msgspec.structs.replace(message().spans[0], service="c")
    with pytest.raises(CodecError, match="tells of a call of 'c'"):
        decode_spans(JSON.encode(message(spans=(foreign,))))


@pytest.mark.parametrize(
    "change",
    [
        {"trace": TRACE.upper()}, {"trace": "1"}, {"id": ""}, {"parent": "zz"}, {"kind": "other"}, {"start_us": -1},
        {"took_us": 10**14}, {"status": "ok\n"}, {"error": "a\x1b[2J"}, {"error": "x" * 201}, {"endpoint": "a b"},
        {"attempt": 0}, {"rules": ["x"] * 9}, {"instance": "a.b"}, {"why": "because"},
    ],
)  # fmt: skip
def test_spans_are_bounded_and_can_be_printed(change: dict[str, object]) -> None:
    """Whatever passes fits a table and moves no cursor."""
    document = msgspec.to_builtins(message())
    document["spans"] = [{**document["spans"][0], **change}]
    with pytest.raises(CodecError):
        decode_spans(msgspec.json.encode(document))


def body_of_rows(group: bytes) -> bytes:
    """A message of one member with this in the place of a group."""
    head = b'{"instance":"b1","service":"b","version":"1.0.0","namespace":"default","seq":1,"groups":['
    return head + group + b"]}"


@pytest.mark.parametrize(
    "group",
    [
        b'{"alike":{"kind":"server"},"rows":[["IDS","","all","",1e308,1.0,2.0]]}',
        b'{"alike":{"kind":"server"},"rows":[["IDS","","all","",-1.7e308,1.0,1.7e308]]}',
        b'{"alike":{"kind":"server"},"rows":[["IDS","","all","",1e999,1.0,2.0]]}',
        b'{"alike":{"kind":"server"},"rows":[["\xff","","all","",1.0,1.0,2.0]]}',
        b'{"alike":{"kind":"server","rules":["\xff"]},"rows":[]}',
        b'{"alike":{"kind":1e99999},"rows":[]}',
        b'{"alike":{"kind":' + b"9" * 5000 + b'},"rows":[]}',
        b'{"alike":{"kind":"server","rules":' + b"[" * 900 + b"]" * 900 + b'},"rows":[]}',
        b'{"alike":{"kind":"server"},"rows":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
    ],
    ids=[
        "no instant",
        "no length",
        "no number",
        "no text",
        "no rule",
        "no float",
        "no integer",
        "deep",
        "deeper",
    ],
)
def test_bytes_that_stand_in_rows_as_they_are_break_no_reader(group: bytes) -> None:
    """Whoever looks at traces reads messages of everybody: one that is nonsense is dropped, and ends nothing."""
    body = body_of_rows(group.replace(b"IDS", f"{TRACE}-00f067aa0ba902b7".encode()))
    with contextlib.suppress(CodecError):
        assert decode_spans(body).spans == ()


@given(st.binary(max_size=300))
def test_no_bytes_make_the_readers_fail_otherwise(data: bytes) -> None:
    """What cannot be read is a CodecError."""
    for read in (decode_spans, decode_span_wish):
        try:
            read(data)
        except CodecError:
            pass


def test_a_wish_is_a_share() -> None:
    """Nothing said: as policies have it."""
    assert decode_span_wish(b"") == SpanWish()
    assert decode_span_wish(b'{"sampling":0.5}').sampling == 0.5
    for body in (b'{"sampling":1.5}', b'{"sampling":-1}', b"x", b"[" * 2000):
        with pytest.raises(CodecError):
            decode_span_wish(body)

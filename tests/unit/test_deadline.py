"""Deadline arithmetic, and the gate that turns the time on the wire into a deadline."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nats_mesh.core.age import AgeGauge
from nats_mesh.core.deadline import MAX_TIMEOUT_S, check_timeout, deadline_for, to_wire_ms
from nats_mesh.errors import ConfigError, Refused, Status
from nats_mesh.layers.base import Arrival, Refusal
from nats_mesh.layers.deadline import DeadlineGate
from nats_mesh.telemetry.stats import Stats

INBOX = "_INBOX.web.C1.0123456789abcdef0123456789abcdef."
durations = st.floats(0.001, MAX_TIMEOUT_S)
instants = st.floats(0.0, 1e9)


@pytest.mark.parametrize("timeout", [1, 0.001, 5.0, MAX_TIMEOUT_S])
def test_a_timeout_is_a_positive_number_of_seconds_up_to_a_day(timeout: float) -> None:
    """It comes back as a float."""
    assert check_timeout("here", timeout) == float(timeout)


@pytest.mark.parametrize(
    "timeout",
    [0, -1, 0.0, math.inf, -math.inf, math.nan, MAX_TIMEOUT_S + 1, True, "5", None, 10**400],
    ids=lambda value: repr(value)[:12],
)
def test_any_other_timeout_is_refused_where_it_is_given(timeout: object) -> None:
    """The error names the place and says what is allowed."""
    with pytest.raises(ConfigError, match="call to x: timeout"):
        check_timeout("call to x", timeout)


@given(instants, durations, instants)
def test_a_deadline_is_never_later_than_the_parents(now: float, timeout: float, parent: float) -> None:
    """A nested call gets its own timeout or what is left, whichever ends sooner."""
    deadline = deadline_for(now, timeout, parent)
    assert deadline <= parent
    assert deadline <= now + timeout
    assert deadline in (parent, now + timeout)
    assert deadline_for(now, timeout, None) == now + timeout


@given(durations)
def test_the_wire_never_grants_more_than_is_left(remaining: float) -> None:
    """Whole milliseconds, rounded down; only a rest of under a millisecond becomes one."""
    milliseconds = to_wire_ms(remaining)
    assert milliseconds >= 1
    assert milliseconds / 1000.0 <= remaining or milliseconds == 1
    assert remaining * 1000.0 - milliseconds < 1.001


@given(st.lists(st.floats(0.0, 0.5), min_size=1, max_size=6), st.floats(2.0, 10.0))
def test_each_hop_sees_less_than_its_caller(spent: list[float], timeout: float) -> None:
    """Over any chain of hops the time on the wire falls by what each hop spent, or more."""
    seen = [to_wire_ms(timeout)]
    for seconds in spent:
        left = seen[-1] / 1000.0 - seconds
        assume(left > 0)
        seen.append(to_wire_ms(left))
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] / 1000.0 <= timeout - sum(spent) + 0.001


def arrival(block: bytes, *, reply: str = INBOX + "1", received: float = 100.0) -> Arrival:
    """One call."""
    return Arrival(
        caller="web",
        reply=reply,
        headers=block,
        payload=b"",
        received=received,
        series=Stats().series("in", "orders", "place", "web"),
    )


def enter(
    block: bytes,
    *,
    received: float = 100.0,
    stall_s: float = 0.0,
    reply: str = INBOX + "1",
    gauge: AgeGauge | None = None,
) -> tuple[Arrival, Refusal | None]:
    """One call at a gate whose default is 5 s."""
    call = arrival(block, reply=reply, received=received)
    call.stall_s = stall_s
    return call, DeadlineGate(5.0, AgeGauge() if gauge is None else gauge).enter(call)


def block(*lines: str) -> bytes:
    """A header block."""
    return "NATS/1.0\r\n{}\r\n".format("".join(f"{line}\r\n" for line in lines)).encode()


_TRACE = "traceparent: 00-" + "a" * 32 + "-" + "b" * 16 + "-01"
_USUAL = ("Mesh-Timeout-Ms: 250", "Mesh-Sent-Ms: 90000")


@pytest.mark.parametrize(
    "headers",
    [
        block(*_USUAL, _TRACE),
        block(*_USUAL, _TRACE.replace("a", "c")),
        block(*_USUAL, _TRACE, "content-type: application/msgpack"),
        block(*_USUAL, _TRACE, "Mesh-Attempt: 3"),
        block(*_USUAL, _TRACE[:-1]),
        block(*_USUAL, _TRACE + "1"),
        block(*_USUAL, "Mesh-Attempt: 3" + " " * (len(_TRACE) - 15)),
        block(*_USUAL, "traceparent: " + "a" * 38, "Mesh-Attempt: 3"),
        block(*_USUAL, "tracestate : " + "a" * 55),
        block(*_USUAL, _TRACE)[:-2] + b"xx",
        block(*_USUAL),
        block("Mesh-Timeout-Ms: 251", "Mesh-Sent-Ms: 90000", _TRACE),
        block("Mesh-Timeout-Ms: 250", "Mesh-Sent-Ms: 90001", _TRACE),
        block(*reversed(_USUAL), _TRACE),
        b"",
    ],
)
def test_a_request_is_judged_as_if_it_were_the_first(headers: bytes) -> None:
    """What begins like one that came before says what it says itself: deadline, attempt, codec, whether it is plain."""

    def judged(*before: bytes) -> tuple[object, ...]:
        gate = DeadlineGate(5.0, AgeGauge())
        for each in (*before, headers):
            call = arrival(each)
            refusal = gate.enter(call)
        return refusal, call.deadline, call.attempt, call.plain, call.content_type

    usual = block(*_USUAL, _TRACE)
    assert judged(usual) == judged(usual, usual, headers) == judged()


def test_the_gate_counts_from_arrival() -> None:
    """The time on the wire, or the endpoint's default where there is none, from the moment it was received."""
    call, refusal = enter(block("Mesh-Timeout-Ms: 250"))
    assert refusal is None
    assert call.deadline == pytest.approx(100.25)
    for headers in (b"", block()):
        call, refusal = enter(headers)
        assert (refusal, call.deadline, call.attempt) == (None, 105.0, 1)
    call, refusal = enter(block("Mesh-Timeout-Ms: 999999999999", "Mesh-Attempt: 3"))
    assert (refusal, call.deadline, call.attempt) == (None, 100.0 + MAX_TIMEOUT_S, 3)


@pytest.mark.parametrize("timeout_ms", ["0", "-5"])
def test_no_time_left_is_refused_without_running(timeout_ms: str) -> None:
    """The caller learns that it surely did not run."""
    _, refusal = enter(block(f"Mesh-Timeout-Ms: {timeout_ms}"))
    assert refusal is not None
    assert (refusal.status, refusal.refused) == (Status.DEADLINE_EXCEEDED, Refused.DEADLINE)


@pytest.mark.parametrize(
    "line", ["Mesh-Timeout-Ms: soon", "Mesh-Sent-Ms: 1.5", "Mesh-Attempt: ", "Mesh-Timeout-Ms: +5"]
)
def test_a_number_that_is_none_is_an_invalid_argument(line: str) -> None:
    """Guessing a deadline would be worse than refusing."""
    _, refusal = enter(block(line))
    assert refusal is not None
    assert refusal.status is Status.INVALID_ARGUMENT
    assert line.split(":")[0] in refusal.message


def test_age_is_taken_off_the_time_that_was_left() -> None:
    """A message that waited has so much less; what waited longer than it had is expired on arrival."""
    gauge = AgeGauge()
    sent = block("Mesh-Timeout-Ms: 500", "Mesh-Sent-Ms: 7000")
    _, refusal = enter(sent, received=100.0, gauge=gauge)
    assert refusal is None
    call, refusal = enter(sent, received=100.3, gauge=gauge)
    assert refusal is None
    assert call.deadline == pytest.approx(100.5, abs=1e-3)
    _, refusal = enter(sent, received=100.6, gauge=gauge)
    assert refusal is not None
    assert refusal.refused is Refused.DEADLINE
    assert "500 ms were left when it was sent, it waited 600 ms" in refusal.message


def test_a_stall_ages_what_says_nothing_of_its_sending() -> None:
    """Without a known clock of the sender, whatever was read after a stall counts as having waited through it."""
    _, refusal = enter(block("Mesh-Timeout-Ms: 300"), stall_s=0.5)
    assert refusal is not None
    call, refusal = enter(block("Mesh-Timeout-Ms: 900", "Mesh-Sent-Ms: 5"), stall_s=0.5)
    assert refusal is None
    assert call.deadline == pytest.approx(100.4)


@pytest.mark.parametrize("reply", ["_INBOX.NUID", "_INBOX.web.NUID", "_INBOX.a.b.c", "", "_INBOX"])
def test_clocks_of_two_senders_are_never_compared(reply: str) -> None:
    """An inbox that does not name its connection says nothing of whose clock was sent: it makes no age."""
    gauge = AgeGauge()
    for number, sent_ms in enumerate((50, 9_000_000_000, 50)):
        call, refusal = enter(
            block("Mesh-Timeout-Ms: 500", f"Mesh-Sent-Ms: {sent_ms}"),
            received=100.0 + number,
            reply=reply,
            gauge=gauge,
        )
        assert refusal is None
        assert call.deadline == pytest.approx(100.5 + number)
    assert len(gauge) == 0

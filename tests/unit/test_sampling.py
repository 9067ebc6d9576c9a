"""Which calls leave spans."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.refill import Refill
from nats_mesh.core.sampling import failed, kept, reason
from nats_mesh.core.trace import parse_traceparent
from nats_mesh.errors import Status
from nats_mesh.wire.headers import is_sampled

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def block(parent: str) -> bytes:
    """A request's header block with this ``traceparent``."""
    return f"NATS/1.0\r\nMesh-Timeout-Ms: 5\r\ntraceparent: {parent}\r\n\r\n".encode()


@pytest.mark.parametrize("flags", [f"{n:02x}" for n in range(256)])
def test_the_glance_sees_what_the_careful_reader_sees(flags: str) -> None:
    """Only the last bit of the flags says that a trace is sampled, whatever the others say."""
    parent = f"00-{TRACE}-{SPAN}-{flags}"
    known = parse_traceparent(parent)
    assert known is not None
    assert is_sampled(block(parent)) is is_sampled(block(parent), alone=True) is known.sampled


@given(st.binary(max_size=200))
def test_the_glance_never_fails(data: bytes) -> None:
    """Whatever a peer sends."""
    for block_of in (data, b"\r\ntraceparent: " + data):
        assert is_sampled(block_of) in (True, False)
        assert is_sampled(block_of, alone=True) in (True, False)


def test_failures_and_slow_calls_are_kept_whatever_the_head_decided() -> None:
    """The first reason that holds is told."""
    assert reason(Status.UNAVAILABLE, 0.1, 1.0, sampled=False) == "error"
    assert reason(Status.UNAVAILABLE, 2.0, 1.0, sampled=True) == "error"
    assert reason(Status.OK, 1.0, 1.0, sampled=False) == "slow"
    assert reason(Status.OK, 0.9, 1.0, sampled=True) == "sampled"
    assert reason(Status.OK, 0.9, 1.0, sampled=False) is None


@pytest.mark.parametrize("status", list(Status))
def test_what_is_the_callers_fault_is_no_failure(status: Status) -> None:
    """A flood of NOT_FOUND must not flood whoever keeps spans."""
    assert failed(status) == (status.code >= 500)
    assert failed("NO_SUCH_STATUS") is False


digits = st.text("0123456789abcdef", min_size=4, max_size=4)
notes = st.lists(st.tuples(st.booleans(), digits), max_size=40)
traces = st.lists(digits, max_size=40)


@given(notes, traces, st.integers(-1, 90))
def test_the_urgent_come_first_and_then_the_same_traces_everywhere(
    given_notes: list[tuple[bool, str]], given_traces: list[str], room: int
) -> None:
    """Never more than there is room for; nothing calm while something urgent is left out; low traces before high. A
    note begins with whether it is calm; what is known by its trace alone always is."""
    kept_notes, places = kept(given_notes, given_traces, room)
    left = [*given_notes, *[(True, trace) for trace in given_traces]]
    found = [*kept_notes, *[(True, given_traces[at]) for at in places]]
    assert len(set(places)) == len(places)
    assert len(found) == min(len(left), max(0, room))
    for note in found:
        left.remove(note)
    for out in left:
        assert all(note <= out for note in found)


@given(notes, traces, st.integers(1, 80))
def test_two_members_keep_the_same_traces(
    given_notes: list[tuple[bool, str]], given_traces: list[str], room: int
) -> None:
    """The order in which calls ended is each member's own, and changes nothing."""
    some = sorted({(False, trace) for _, trace in given_notes})
    others = sorted(set(given_traces))
    one, one_at = kept(some, others, room)
    other, other_at = kept(some[::-1], others[::-1], room)
    assert set(one) == set(other)
    assert {others[at] for at in one_at} == {others[::-1][at] for at in other_at}


def test_the_rate_holds_in_the_long_run() -> None:
    """As many at once as the burst, then as many a second as the rate."""
    refill = Refill(10.0, 20.0, 100.0)
    assert refill.room(100.0) == 20
    refill.take(20)
    assert refill.room(100.0) == 0
    assert refill.room(100.5) == 5
    assert refill.room(99.0) == 5  # a clock that went back gives nothing
    assert refill.room(200.0) == 20

"""What is slow for an endpoint, and where the time of a call went."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.slowness import MIN_CALLS, WINDOW_S, Slow, Slowness, Tail, stood, uncovered
from nats_mesh.core.telemetry_rules import SlowRules


def test_a_fixed_time_needs_no_past() -> None:
    """The very first call is slow where it takes as long as the policy says; a shorter one never is."""
    slowness = Slowness(SlowRules(threshold_s=0.5), 0.0)
    assert slowness.look(0.499, 0.0) is None
    assert slowness.look(0.5, 0.0) == Slow(0.5, None)
    assert slowness.look(9.0, 0.0) == Slow(0.5, None)


def test_a_multiple_of_the_own_p99_waits_until_it_is_known() -> None:
    """With few calls nothing is slow; then what takes so many times the p99 is, judged by those before it."""
    slowness = Slowness(SlowRules(times_p99=3.0), 0.0)
    assert slowness.look(60.0, 0.0, ran=False) is None
    for at in range(2 * MIN_CALLS):
        assert slowness.look(0.010, at * 0.01) is None
    found = slowness.look(0.050, 3.0)
    assert found is not None
    assert found.p99_s == pytest.approx(0.010, rel=0.1)
    assert found.p99_s is not None
    assert found.threshold_s == pytest.approx(3 * found.p99_s)
    assert slowness.look(0.020, 3.0) is None


def test_what_goes_by_an_unknown_p99_says_so() -> None:
    """With how many calls are known, until it is known, and again after silence; a fixed time never does."""
    slowness = Slowness(SlowRules(times_p99=3.0), 0.0)
    told = [slowness.learning]
    for _ in range(2 * MIN_CALLS):
        slowness.look(0.010, 0.0)
        told.append(slowness.learning)
    known = told.index(None)
    assert told[:known] == list(range(known))
    assert MIN_CALLS <= known <= 1.5 * MIN_CALLS, "it is about so many"
    assert set(told[known:]) == {None}
    slowness.look(0.010, 100 * WINDOW_S)
    assert slowness.learning == 1
    assert Slowness(SlowRules(threshold_s=0.5), 0.0).learning is None


def test_what_never_ran_teaches_nothing() -> None:
    """A refused call takes no time; a thousand of them make no call of usual length slow."""
    slowness = Slowness(SlowRules(times_p99=2.0), 0.0)
    for _ in range(1000):
        slowness.look(0.0001, 1.0, ran=False)
    assert slowness.tail.p99_s is None


def test_the_past_is_forgotten() -> None:
    """After two windows of other calls the old ones do not count any more; after silence nothing does."""
    tail = Tail(0.0)
    for _ in range(500):
        tail.take(1.0, 0.0)
    assert tail.p99_s == pytest.approx(1.0, rel=0.1)
    for at in (WINDOW_S, 2 * WINDOW_S, 3 * WINDOW_S):
        for _ in range(500):
            tail.take(0.01, at)
    assert tail.p99_s == pytest.approx(0.01, rel=0.1)
    tail.take(0.01, 100 * WINDOW_S)
    assert tail.p99_s is None


@given(st.lists(st.floats(0.0001, 10.0), min_size=MIN_CALLS, max_size=600))
def test_the_tail_is_the_p99_of_what_was_taken(durations: list[float]) -> None:
    """Within the error of the histogram, of the calls taken into it so far (64 at a time where they come slowly)."""
    tail = Tail(0.0)
    for at, each in enumerate(durations):
        tail.take(each, at * 0.05)
    counted = sorted(durations[: len(durations) // 64 * 64])
    if len(counted) < MIN_CALLS:
        assert tail.p99_s is None
        return
    rank = max(1, -(-99 * len(counted) // 100))
    assert tail.p99_s == pytest.approx(counted[rank - 1], rel=0.1)


_INTERVALS = st.lists(st.tuples(st.integers(-5, 25), st.integers(-5, 25)), max_size=8)


@given(st.integers(0, 10), st.integers(0, 20), _INTERVALS)
def test_the_rest_of_the_time_is_counted_once(start: int, length: int, parts: list[tuple[int, int]]) -> None:
    """Calls may overlap, lie outside, end before they begin: what is left is what a count second by second says."""
    end = start + length
    by_hand = sum(
        1 for second in range(start, end) if not any(begin <= second < stop for begin, stop in parts)
    )
    assert uncovered(float(start), float(end), parts) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("parts", "stalls", "expected"),
    [
        ([], [(1.0, 2.0)], 0.0),
        ([(0.0, 10.0)], [], 0.0),
        ([(1.0, 9.0)], [(2.0, 4.0), (5.0, 6.0)], 3.0),
        ([(1.0, 3.0), (2.0, 4.0)], [(0.0, 10.0)], 3.0),
        ([(-5.0, 20.0)], [(-3.0, 1.0), (9.0, 30.0)], 2.0),
    ],
)
def test_what_stood_still_in_parts_counts_once(
    parts: list[tuple[float, float]], stalls: list[tuple[float, float]], expected: float
) -> None:
    """Of a time from 0 to 10; of parts at the same time once."""
    assert stood(0.0, 10.0, parts, stalls) == pytest.approx(expected)

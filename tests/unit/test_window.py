"""Outcomes and latencies of a while ago: counted while they are young, forgotten when they are old."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.quantile import LatencyWindow
from nats_mesh.core.window import OutcomeWindow, Totals

SPAN_S = 10.0
BUCKETS = 10

steps = st.lists(
    st.tuples(st.floats(0.0, 6.0) | st.just(0.0) | st.floats(0.0, 1e5), st.booleans(), st.booleans()),
    max_size=60,
)


@given(st.floats(0.0, 1e7), steps)
def test_what_is_young_is_counted_and_what_is_old_is_not(
    now: float, steps: list[tuple[float, bool, bool]]
) -> None:
    """At any moment the window holds all outcomes of the last nine buckets' time and none older than its span."""
    window = OutcomeWindow(SPAN_S, BUCKETS)
    ended: list[tuple[float, bool, bool]] = []
    for wait, failed, slow in steps:
        now += wait
        window.record(now, failed, slow)
        ended.append((now, failed, slow))
        totals = window.totals(now)
        surely = [each for each in ended if now - each[0] < SPAN_S - SPAN_S / BUCKETS - 1e-6]
        perhaps = [each for each in ended if now - each[0] <= SPAN_S + 1e-6]
        assert len(surely) <= totals.calls <= len(perhaps)
        assert sum(each[1] for each in surely) <= totals.failures <= sum(each[1] for each in perhaps)
        assert sum(each[2] for each in surely) <= totals.slow <= sum(each[2] for each in perhaps)


@pytest.mark.parametrize("start", [0.0, -50.0, 3.7, 1e6])
def test_a_bucket_at_a_time_is_forgotten(start: float) -> None:
    """One outcome a second for twenty seconds: never more than ten are held, and a pause takes them one by one."""
    window = OutcomeWindow(SPAN_S, BUCKETS)
    for second in range(20):
        window.record(start + second, failed=second % 2 == 0)
        assert window.totals(start + second).calls == min(second + 1, 10)
    assert [window.totals(start + 19 + pause).calls for pause in (1, 5, 9, 10)] == [9, 5, 1, 0]


def test_a_jump_forwards_empties_it() -> None:
    """A clock that goes on by years leaves nothing, and counting goes on."""
    window = OutcomeWindow(SPAN_S)
    window.record(5.0, failed=True, slow=True)
    assert window.totals(5.0) == Totals(1, 1, 1)
    assert window.totals(1e12) == Totals(0, 0, 0)
    window.record(1e12, failed=False)
    assert window.totals(1e12) == Totals(1, 0, 0)


def test_a_clock_that_goes_back_changes_nothing() -> None:
    """An instant before the present bucket counts in the present one: nothing becomes negative or is lost."""
    window = OutcomeWindow(SPAN_S)
    window.record(100.0, failed=True)
    window.record(3.0, failed=True)
    assert window.totals(3.0) == Totals(2, 2, 0)
    assert window.totals(100.5) == Totals(2, 2, 0)


def test_successes_may_be_counted_together() -> None:
    """Many successes of one bucket at once are forgotten together with it."""
    window = OutcomeWindow(SPAN_S)
    window.record(100.2, failed=True)
    window.succeeded(7)
    window.record(104.0, failed=False)
    assert window.totals(104.0) == Totals(9, 1, 0)
    assert window.totals(111.0) == Totals(1, 0, 0)


def test_clear_forgets_all() -> None:
    """After clear nothing is left that could be taken away a second time."""
    window = OutcomeWindow(SPAN_S)
    for second in range(8):
        window.record(second, failed=True, slow=True)
    window.clear()
    assert window.totals(8.0) == Totals(0, 0, 0)
    window.record(9.0, failed=False)
    assert [window.totals(at).calls for at in (9.0, 18.9, 19.1)] == [1, 1, 0]
    assert repr(window) == "<OutcomeWindow 0 of 0 failed, 0 slow>"


@pytest.mark.parametrize(
    ("span", "buckets"), [(0.0, 10), (-1.0, 10), (math.inf, 10), (math.nan, 10), (1.0, 0)]
)
def test_a_window_of_nothing_is_refused(span: float, buckets: int) -> None:
    """A window spans some time, in at least one bucket."""
    with pytest.raises(ValueError, match="a window"):
        OutcomeWindow(span, buckets)


# -- latencies --------------------------------------------------------------------------------------


def test_latencies_are_forgotten_by_halves() -> None:
    """What was observed in the half before last is gone, what came in the last half counts with the present one."""
    latencies = LatencyWindow(10.0)
    assert latencies.quantile(0.5) is None
    for at in (0.0, 1.0, 4.9):
        latencies.observe(at, 1.0)
    latencies.observe(5.0, 0.001)
    assert latencies.count == 4
    assert latencies.quantile(1.0) == pytest.approx(1.0, rel=0.1)
    latencies.observe(10.0, 0.001)
    assert latencies.count == 2
    assert latencies.quantile(1.0) == pytest.approx(0.001, rel=0.1)
    latencies.observe(100.0, 0.5)
    assert latencies.count == 1


@given(
    st.lists(st.tuples(st.floats(0.0, 4.0), st.floats(1e-4, 100.0)), min_size=1, max_size=60),
    st.floats(0.0, 1.0),
)
def test_a_quantile_is_of_the_young_alone(steps: list[tuple[float, float]], q: float) -> None:
    """The quantile lies within a bucket of those that are in the last span, whatever was there before."""
    latencies = LatencyWindow(10.0)
    now = 0.0
    seen: list[tuple[float, float]] = []
    for wait, seconds in steps:
        now += wait
        latencies.observe(now, seconds)
        seen.append((now, seconds))
    young = [seconds for at, seconds in seen if now - at <= 10.0]
    surely = sum(now - at < 5.0 for at, _ in seen)
    assert surely <= latencies.count <= len(young)
    found = latencies.quantile(q)
    assert found is not None
    assert min(young) / 1.1 <= found <= max(young) * 1.1


@pytest.mark.parametrize("span", [0.0, -1.0, math.inf, math.nan])
def test_latencies_of_no_time_are_refused(span: float) -> None:
    """A window of latencies spans some time."""
    with pytest.raises(ValueError, match="a window"):
        LatencyWindow(span)

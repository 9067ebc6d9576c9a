"""Moving averages: weighted by age, whatever the rate of observations."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.ewma import Ewma, PeakEwma

samples = st.lists(st.tuples(st.floats(0.0, 30.0), st.floats(0.0, 100.0)), min_size=1, max_size=40)


@given(samples)
def test_a_mean_weighs_by_age(samples: list[tuple[float, float]]) -> None:
    """It is the mean of all observations, each with the weight e^(−age ÷ decay)."""
    mean, now = Ewma(5.0), 1000.0
    seen: list[tuple[float, float]] = []
    for wait, value in samples:
        now += wait
        mean.observe(now, value)
        seen.append((now, value))
    weights = [math.exp((at - now) / 5.0) for at, _ in seen]
    exact = sum(w * value for w, (_, value) in zip(weights, seen, strict=True)) / sum(weights)
    assert mean.value(now) == pytest.approx(exact, abs=1e-9)
    assert mean.value(now + 100.0) == mean.value(now)


def test_a_mean_takes_in_all_of_one_moment() -> None:
    """Several observations of one instant count alike, and a clock that goes back loses none."""
    mean = Ewma(1.0)
    assert mean.value(5.0) == 0.0
    for value in (1.0, 2.0, 3.0):
        mean.observe(5.0, value)
    assert mean.value(5.0) == 2.0
    mean.observe(4.0, 6.0)
    assert mean.value(5.0) == 3.0


def test_a_mean_forgets_everything_in_the_end() -> None:
    """After ages only the newest counts, without a division by nothing."""
    mean = Ewma(1.0)
    mean.observe(0.0, 50.0)
    mean.observe(1e9, 2.0)
    assert mean.value(1e9) == 2.0


def test_a_peak_counts_at_once() -> None:
    """One slow answer is the cost from then on, however many quick ones there were."""
    peak = PeakEwma(10.0)
    assert peak.value(0.0) == 0.0
    for at in range(100):
        peak.observe(at * 0.01, 0.001)
    peak.observe(1.0, 2.0)
    assert peak.value(1.0) == 2.0


def test_a_peak_decays() -> None:
    """With the decay's time it falls to 1/e, by silence as by quick answers, and ends at what answers take."""
    silent, busy = PeakEwma(10.0), PeakEwma(10.0)
    for each in (silent, busy):
        each.observe(0.0, 1.0)
    assert silent.value(10.0) == pytest.approx(1 / math.e)
    for at in range(1, 1001):
        busy.observe(at * 0.01, 0.1)
    assert busy.value(10.0) == pytest.approx(0.1 + 0.9 / math.e, rel=1e-2)
    for at in range(1001, 20_001):
        busy.observe(at * 0.01, 0.1)
    assert busy.value(200.0) == pytest.approx(0.1, rel=1e-3)
    assert silent.value(1e9) == 0.0


@given(samples)
def test_a_peak_stays_between_nothing_and_the_highest(samples: list[tuple[float, float]]) -> None:
    """It is at least the last value, and never above the highest one; asking does not change it."""
    peak, now, highest = PeakEwma(5.0), 1000.0, 0.0
    for wait, value in samples:
        now += wait
        peak.observe(now, value)
        highest = max(highest, value)
        assert value - 1e-9 <= peak.value(now) <= highest + 1e-9
        assert peak.value(now - 3.0) == peak.value(now)
        peak.observe(now - 3.0, peak.value(now) / 2)  # a clock that goes back is one that stands still
        assert peak.value(now) <= highest + 1e-9
        assert peak.value(now + 1.0) <= peak.value(now)


@pytest.mark.parametrize("kind", [Ewma, PeakEwma])
@pytest.mark.parametrize("decay", [0.0, -1.0, math.inf, math.nan])
def test_a_decay_of_no_time_is_refused(kind: type[Ewma] | type[PeakEwma], decay: float) -> None:
    """A decay is a positive number of seconds."""
    with pytest.raises(ValueError, match="a decay"):
        kind(decay)

"""Hedging: when a second instance is asked, how few calls are hedged, and what it is good for."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.budget import BURST
from nats_mesh.core.hedge import LEAST_KNOWN, WINDOW_S, Hedger
from nats_mesh.core.rules import HedgeRules


def taught(rules: HedgeRules, took_s: list[float], now: float = 100.0) -> Hedger:
    """A hedger that has seen these answers, all of one moment."""
    hedger = Hedger(rules)
    for each in took_s:
        hedger.answered(now, each)
    return hedger


# -- the delay --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantile", "least"), [(0.5, LEAST_KNOWN), (0.95, 20), (0.96, 25), (0.99, 100), (0.999, 1000)]
)
def test_too_little_is_known(quantile: float, least: int) -> None:
    """Nothing is hedged before there are so many answers that one is expected beyond the quantile."""
    rules = HedgeRules(quantile=quantile)
    assert taught(rules, [0.01] * (least - 1)).delay_s(100.0) is None
    assert taught(rules, [0.01] * least).delay_s(100.0) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(("quantile", "delay_s"), [(0.5, 0.01), (0.89, 0.01), (0.95, 1.0)])
def test_the_delay_is_the_quantile(quantile: float, delay_s: float) -> None:
    """What the share of answers does not exceed, as closely as a histogram knows."""
    hedger = taught(HedgeRules(quantile=quantile), [0.01] * 90 + [1.0] * 10)
    assert hedger.delay_s(100.0) == pytest.approx(delay_s, rel=0.1)


def test_the_delay_is_bounded_below() -> None:
    """Answers that take microseconds are no reason to hedge after microseconds."""
    assert taught(HedgeRules(), [0.0001] * 100).delay_s(100.0) == 0.001
    assert taught(HedgeRules(min_delay_s=0.02), [0.01] * 100).delay_s(100.0) == 0.02


def test_a_fixed_delay_needs_no_knowledge() -> None:
    """Where the rules say it, it is that from the first call on, whatever answers take."""
    hedger = taught(HedgeRules(delay_s=0.3, min_delay_s=0.5), [0.01] * 100)
    assert [hedger.delay_s(at) for at in (0.0, 100.0, 1e9)] == [0.3] * 3


def test_the_delay_follows() -> None:
    """It is worked out anew when it has stood for a tenth of a second, and what is old is forgotten."""
    hedger = taught(HedgeRules(), [0.01] * 100)
    first = hedger.delay_s(100.0)
    for _ in range(10_000):
        hedger.answered(100.05, 0.5)
    assert hedger.delay_s(100.05) == first
    assert hedger.delay_s(100.1) == pytest.approx(0.5, rel=0.1)
    for _ in range(LEAST_KNOWN - 1):
        hedger.answered(100.0 + 2 * WINDOW_S, 0.01)
    assert hedger.delay_s(100.0 + 2 * WINDOW_S) is None
    hedger.answered(100.0 + 2 * WINDOW_S, 0.01)
    assert hedger.delay_s(100.2 + 2 * WINDOW_S) == pytest.approx(0.01, rel=0.1)
    assert repr(hedger) == f"<Hedger after {hedger.delay_s(120.2):.6f} s, 20 answers known>"


# -- the cap ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "hedges"), [(0.05, 5), (0.1, 10), (0.5, 50), (1.0, 100)])
def test_the_share_of_hedges_is_capped(ratio: float, hedges: int) -> None:
    """Of a hundred calls that all want one, the share gets one; time alone brings none."""
    hedger = Hedger(HedgeRules(max_ratio=ratio))
    for _ in range(100):
        hedger.called(50.0)
    assert sum(hedger.may_hedge(50.1) for _ in range(200)) == hedges
    assert not any(hedger.may_hedge(50.1 + later) for later in (1.0, 5.0, 60.0))


@given(
    st.sampled_from([0.02, 0.1, 0.5]),
    st.lists(
        st.tuples(
            st.just(0.0) | st.floats(0.0, 1.0) | st.floats(0.0, 20.0), st.integers(0, 40), st.integers(0, 10)
        ),
        max_size=40,
    ),
)
def test_hedges_are_a_share_of_the_calls_of_any_ten_seconds(
    ratio: float, steps: list[tuple[float, int, int]]
) -> None:
    """Looking back over ten seconds from any hedge: hedges ≤ ratio × calls."""
    hedger = Hedger(HedgeRules(max_ratio=ratio))
    now, calls, hedges = 100.0, [], []
    for wait, called, asked in steps:
        now += wait
        for _ in range(called):
            hedger.called(now)
        calls += [now] * called
        for _ in range(asked):
            if hedger.may_hedge(now):
                hedges.append(now)
                since = now - WINDOW_S
                assert sum(at > since for at in hedges) <= ratio * sum(at >= since for at in calls) + 1e-6


@pytest.mark.parametrize("delay_s", [0.01, 2.0, 20.0])
def test_a_long_delay_does_not_lose_the_permits(delay_s: float) -> None:
    """Hedges come a delay after their calls: what a burst earned is still there, five at least and those it needs."""
    hedger = Hedger(HedgeRules(delay_s=delay_s, max_ratio=0.1))
    for _ in range(200):
        hedger.called(50.0)
    assert sum(hedger.may_hedge(50.0 + delay_s) for _ in range(200)) == 20


# -- what it is good for ----------------------------------------------------------------------------


def run(
    took_s: Callable[[random.Random], float], hedger: Hedger | None, calls: int, start: float = 100.0
) -> tuple[list[float], int]:
    """Calls that begin every 2 ms; how long each took with hedging, and how many attempts there were."""
    chance = random.Random(7)
    begun, attempts = [], 0
    happens: list[tuple[float, int, str, float, float]] = []
    for number in range(calls):
        heapq.heappush(happens, (start + number * 0.002, number, "call", 0.0, 0.0))
    while happens:
        now, number, what, since, first_s = heapq.heappop(happens)
        if what == "call":
            attempts += 1
            first_s = took_s(chance)
            delay_s = None
            if hedger is not None:
                hedger.called(now)
                delay_s = hedger.delay_s(now)
            if delay_s is not None and delay_s < first_s:
                heapq.heappush(happens, (now + delay_s, number, "hedge", now, first_s))
            else:
                heapq.heappush(happens, (now + first_s, number, "answer", now, first_s))
        elif what == "hedge":
            assert hedger is not None
            ends = since + first_s
            if hedger.may_hedge(now):
                attempts += 1
                ends = min(ends, now + took_s(chance))
            heapq.heappush(happens, (ends, number, "answer", since, first_s))
        else:
            if hedger is not None:
                hedger.answered(now, now - since)
            begun.append(now - since)
    return sorted(begun), attempts


def test_a_hedge_cuts_the_tail_of_a_bimodal_handler() -> None:
    """Where 4 % take 200 ms instead of 5, p99 falls by 40 % and more, for at most 10 % more attempts."""

    def bimodal(chance: random.Random) -> float:
        return 0.2 if chance.random() < 0.04 else chance.uniform(0.004, 0.006)

    calls = 10_000
    plain, _ = run(bimodal, None, calls)
    hedged, attempts = run(bimodal, Hedger(HedgeRules()), calls)
    p99 = calls * 99 // 100
    assert plain[p99] == pytest.approx(0.2)
    assert hedged[p99] <= 0.6 * plain[p99]
    assert calls < attempts <= 1.1 * calls


def test_when_all_is_slow_few_calls_are_hedged() -> None:
    """Everything suddenly takes a hundred times as long, so that every call looks slow: the cap holds."""
    slow = False

    def handler(chance: random.Random) -> float:
        return chance.uniform(0.4, 0.6) if slow else chance.uniform(0.004, 0.006)

    hedger = Hedger(HedgeRules())
    run(handler, hedger, 5_000)
    slow = True
    _, attempts = run(handler, hedger, 5_000, 110.0)
    assert 5_100 <= attempts <= 1.1 * 5_000 + BURST

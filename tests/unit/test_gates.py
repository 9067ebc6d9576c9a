"""The gates of a rollout: which calls they look at, what they compare, and that too few calls are no success."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.gates import (
    MAX_CHECKS,
    ErrorGate,
    Gates,
    LatencyGate,
    Outcome,
    Pair,
    Sample,
    Window,
)

HOLDS, FAILS, UNKNOWN = Outcome.HOLDS, Outcome.FAILS, Outcome.UNKNOWN


def sample(calls: int, failures: int = 0, took_s: float = 0.01) -> Sample:
    """Calls that all took so long."""
    found = Sample(calls, failures)
    for _ in range(calls):
        found.took.record(took_s)
    return found


def window(*checks: tuple[Sample, Sample], side: str = "callers") -> Window:
    """A step with these checks: new and old."""
    made = Window()
    for new, old in checks:
        made.add({side: Pair(new, old)})
    return made


ERRORS = Gates(errors=ErrorGate(maximum=0.01, min_calls=50))


@pytest.mark.parametrize(
    ("calls", "failures", "outcome"),
    [(49, 49, UNKNOWN), (50, 0, HOLDS), (50, 1, FAILS), (100, 1, HOLDS), (100, 2, FAILS), (0, 0, UNKNOWN)],
)
def test_errors_are_a_share_of_enough_calls(calls: int, failures: int, outcome: Outcome) -> None:
    """At most 1 %: exactly that much holds; below the least number of calls nobody knows, however many failed."""
    assert window((sample(calls, failures), Sample())).judge(ERRORS).outcome is outcome


@pytest.mark.parametrize(("failures", "outcome"), [(3, HOLDS), (4, FAILS)])
def test_errors_are_compared_with_those_of_the_old_subset(failures: int, outcome: Outcome) -> None:
    """At most 1 of 100 more than the old subset, whose 2 % are nobody's fault now."""
    gates = Gates(errors=ErrorGate(increase=0.01, min_calls=50))
    assert window((sample(100, failures), sample(1000, 20))).judge(gates).outcome is outcome


def test_latency_is_judged_by_itself_and_beside_the_old_subset() -> None:
    """An upper bound, and a multiple of what the old subset takes."""
    slow, quick = sample(100, took_s=0.4), sample(100, took_s=0.1)
    for gate, outcome in (
        (LatencyGate(maximum_s=0.3), FAILS),
        (LatencyGate(maximum_s=0.5), HOLDS),
        (LatencyGate(ratio=3.0), FAILS),
        (LatencyGate(ratio=5.0), HOLDS),
    ):
        assert window((slow, quick)).judge(Gates(latency=gate)).outcome is outcome, gate


def test_the_quantile_is_the_gates_own() -> None:
    """One slow call in a hundred is no matter of the p95."""
    calls = sample(98, took_s=0.01)
    calls.add(sample(2, took_s=5.0))
    for quantile, outcome in ((0.95, HOLDS), (0.99, FAILS)):
        gates = Gates(latency=LatencyGate(quantile=quantile, maximum_s=1.0))
        assert window((calls, Sample())).judge(gates).outcome is outcome


def test_what_is_bad_now_is_not_hidden_by_what_was_good_before() -> None:
    """The newest calls count, as few checks of them as have enough."""
    good = [(sample(1000), Sample())] * 20
    assert window(*good, (sample(60, 60), Sample())).judge(ERRORS).outcome is FAILS


def test_few_calls_a_check_are_taken_together() -> None:
    """Ten checks with five calls each are fifty calls."""
    few = [(sample(5, 1), Sample())] * 10
    assert window(*few[:9]).judge(ERRORS).outcome is UNKNOWN
    assert window(*few).judge(ERRORS).outcome is FAILS


def test_without_calls_of_the_old_subset_those_before_count() -> None:
    """At 100 % nobody calls the old one: what it did last is compared with; without any, nobody knows."""
    gates = Gates(latency=LatencyGate(ratio=2.0))
    made = window((sample(100, took_s=0.1), sample(100, took_s=0.1)))
    assert made.judge(gates).outcome is HOLDS
    made.clear()
    made.add({"callers": Pair(sample(100, took_s=0.4), Sample())})
    assert made.judge(gates).outcome is FAILS
    assert window((sample(100, took_s=0.4), Sample())).judge(gates).outcome is UNKNOWN


def test_either_side_may_say_no_and_one_that_knows_suffices() -> None:
    """Callers see what never arrived, instances what a retry hid; foreign callers count nothing."""
    good, bad = Pair(sample(100)), Pair(sample(100, 50))
    nothing = Pair()
    for callers, instances, outcome in (
        (good, good, HOLDS),
        (good, bad, FAILS),
        (bad, good, FAILS),
        (nothing, good, HOLDS),
        (good, nothing, HOLDS),
        (nothing, bad, FAILS),
        (nothing, nothing, UNKNOWN),
    ):
        made = Window()
        made.add({"callers": callers, "instances": instances})
        assert made.judge(ERRORS).outcome is outcome


def test_every_gate_must_hold() -> None:
    """A latency that nobody can tell leaves open what good error rates say, and a bad one is bad."""
    both = Gates(errors=ErrorGate(maximum=0.01), latency=LatencyGate(maximum_s=0.3, min_calls=500))
    assert window((sample(100), Sample())).judge(both).outcome is UNKNOWN
    assert window((sample(100, 50), Sample())).judge(both).outcome is FAILS


def test_the_reason_has_the_figures() -> None:
    """Which side, how many, how much is allowed: an operator reads it in an event."""
    verdict = window((sample(100, 24), Sample())).judge(ERRORS)
    assert verdict.reason == "24 of 100 calls failed (24%), as callers count: at most 1% may"
    assert verdict.numbers == {"calls": 100.0, "failures": 24.0, "rate": 0.24}
    assert window((sample(12), Sample())).judge(ERRORS).reason == "12 of 50 calls so far, as callers count"


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40), st.integers(1, 60))
def test_the_newest_calls_are_the_shortest_run_that_is_enough(
    checks: list[tuple[int, int]], least: int
) -> None:
    """Whatever comes check by check, the share is that of the shortest run from the end with enough calls."""
    pairs = [(calls + bad, bad) for calls, bad in checks]
    made = window(*[(sample(calls, bad), Sample()) for calls, bad in pairs])
    gates = Gates(errors=ErrorGate(maximum=0.2, min_calls=least))
    expected: Outcome = UNKNOWN
    for start in range(len(pairs) - 1, -1, -1):
        calls, bad = (sum(each[index] for each in pairs[start:]) for index in (0, 1))
        if calls >= least:
            expected = FAILS if bad / calls > 0.2 else HOLDS
            break
    assert made.judge(gates).outcome is expected
    assert made.calls() == sum(calls for calls, _ in pairs)


def test_a_window_is_bounded() -> None:
    """Of a long step the oldest checks are added up; no call is lost."""
    made = window(*[(sample(2, 1), Sample()) for _ in range(3 * MAX_CHECKS)])
    assert made.calls() == 6 * MAX_CHECKS
    assert len(made._checks["callers"]) == MAX_CHECKS

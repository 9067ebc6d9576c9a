"""The circuit breaker: when it opens, for how long, whom it lets through, and that it always comes back."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nats_mesh.core.breaker import MIN_PATIENCE_S, Breaker, BreakerState, Transition
from nats_mesh.core.rules import BreakerRules, BreakerVerdictRules

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
LEGAL = {(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, OPEN), (HALF_OPEN, CLOSED)}


def middle() -> float:
    """Chance without jitter."""
    return 0.5


def end(breaker: Breaker, now: float, outcome: str, took_s: float = 0.0) -> Transition | None:
    """One call that enters and ends: S success, F failure, I ignored."""
    token = breaker.enter(now)
    assert token >= 0, "refused"
    if outcome == "I":
        return breaker.ignored(now, token)
    return (breaker.success if outcome == "S" else breaker.failure)(now, token, took_s)


def opened(rules: BreakerRules, now: float = 100.0, chance: Callable[[], float] = middle) -> Breaker:
    """A breaker that has just opened."""
    breaker = Breaker(rules, chance)
    while breaker.closed:
        end(breaker, now, "F")
    return breaker


def probing(rules: BreakerRules, now: float = 100.0) -> Breaker:
    """A breaker that is half-open, with no probe under way."""
    breaker = opened(rules, now - 1000.0)
    breaker.ignored(now, breaker.enter(now))
    breaker.take_transition()
    assert breaker.state is HALF_OPEN
    return breaker


# -- opening ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "outcomes", "opens_at"),
    [
        (BreakerRules(min_calls=4), "FFFF", 4),
        (BreakerRules(min_calls=4), "SFFS", 4),  # the success makes it four
        (BreakerRules(min_calls=4), "SSSFFF", 6),
        (BreakerRules(min_calls=4), "SSSSSSSSF", None),
        (BreakerRules(min_calls=4, failure_ratio=0.75), "SFFSFFFF", 8),  # six of eight
        (BreakerRules(min_calls=4), "FFSS", 4),
        (BreakerRules(min_calls=25, failure_ratio=0.56), "S" * 11 + "F" * 14, 25),
        (BreakerRules(min_calls=25, failure_ratio=0.56), "F" * 13 + "S" * 12, None),
        (BreakerRules(min_calls=100, consecutive=3), "FFSFFSFFF", 9),
        (BreakerRules(min_calls=4, consecutive=2), "FF", 2),
        (BreakerRules(min_calls=4), "IIIIIIFFF", None),  # what is ignored is no call
        (BreakerRules(min_calls=100, consecutive=3), "FFIF", 4),  # and breaks no row
    ],
)
def test_when_it_opens(rules: BreakerRules, outcomes: str, opens_at: int | None) -> None:
    """It opens with exactly the outcome that makes the rule true, and says why."""
    breaker = Breaker(rules, middle)
    for number, outcome in enumerate(outcomes, 1):
        transition = end(breaker, 100.0 + number * 0.01, outcome)
        if number == opens_at:
            assert transition is not None
            assert (transition.old, transition.new) == (CLOSED, OPEN)
            assert "fail" in transition.reason
            break
        assert transition is None
    assert breaker.closed is (opens_at is None)


def test_it_says_why() -> None:
    """The reason has the numbers that were judged."""
    breaker = Breaker(BreakerRules(min_calls=4), middle)
    for outcome in "SFF":
        end(breaker, 1.0, outcome)
    assert end(breaker, 1.0, "F") == Transition(CLOSED, OPEN, "3 of 4 calls failed", 1.0)
    breaker = Breaker(BreakerRules(consecutive=1), middle)
    assert end(breaker, 1.0, "F") == Transition(CLOSED, OPEN, "a call failed", 1.0)


@pytest.mark.parametrize("outcome", ["S", "F"])
def test_slow_calls_open_it(outcome: str) -> None:
    """Where slow calls are asked about, their share opens it, whether they succeed or not."""
    breaker = Breaker(BreakerRules(min_calls=10, failure_ratio=1.0, slow_call_s=0.5, slow_ratio=0.3), middle)
    for _ in range(8):
        end(breaker, 10.0, "S", took_s=0.5)  # not longer than that
    for _ in range(2):
        assert end(breaker, 10.0, outcome, took_s=0.6) is None
    transition = end(breaker, 10.0, outcome, took_s=0.6)
    assert transition is None  # three of eleven
    transition = end(breaker, 10.0, outcome, took_s=0.6)
    assert transition is not None
    assert transition.reason == "4 of 12 calls took over 0.5 s"


def test_slow_calls_are_nothing_where_nobody_asks() -> None:
    """Without ``slow_call_s`` a call may take for ever."""
    breaker = Breaker(BreakerRules(min_calls=1), middle)
    for at in range(50):
        end(breaker, 100.0 + at, "S", took_s=1e6)
    assert breaker.closed


def test_old_failures_are_forgotten() -> None:
    """Failures count for the window: as many, spread over more time, open nothing."""
    breaker = Breaker(BreakerRules(min_calls=10), middle)
    for number in range(100):
        end(breaker, number * 1.2, "F")  # nine at most are within ten seconds
    assert breaker.closed
    breaker = Breaker(BreakerRules(min_calls=10), middle)
    for number in range(10):
        end(breaker, number * 0.9, "F")
    assert not breaker.closed


def test_successes_that_leave_the_window_no_longer_help() -> None:
    """A quiet time's many successes, counted in passing, are forgotten like all else."""
    breaker = Breaker(BreakerRules(min_calls=4), middle)
    for number in range(1000):
        end(breaker, number * 0.001, "S")
    for number in range(4):
        end(breaker, 5.0 + number * 0.1, "F")
    assert breaker.closed  # 4 of 1004
    end(breaker, 11.5, "F")
    assert not breaker.closed  # 5 of 5


def test_a_row_may_be_as_long_as_it_likes() -> None:
    """Failures in a row count however far apart they are; a success between them, in any case."""
    breaker = Breaker(BreakerRules(consecutive=3), middle)
    for number in range(2):
        end(breaker, number * 1000.0, "F")
    end(breaker, 2000.0, "S")
    for number in range(2):
        end(breaker, 3000.0 + number * 1000.0, "F")
    assert breaker.closed
    end(breaker, 6000.0, "F")
    assert not breaker.closed


# -- being open -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("chance", "factor"), [(0.0, 0.8), (0.5, 1.0), (0.999999, 1.2)])
def test_open_times_double_and_are_jittered(chance: float, factor: float) -> None:
    """5, 5, 10, 20, 40, 60, 60 … s, each ± 20 %; having closed, it begins anew."""
    breaker = opened(BreakerRules(min_calls=4, successes=1), 0.0, lambda: chance)
    now = 0.0
    for plain in (5.0, 5.0, 10.0, 20.0, 40.0, 60.0, 60.0):
        wait = plain * factor
        assert breaker.retry_after_s(now) == pytest.approx(wait, rel=1e-5)
        assert breaker.enter(now + wait - 0.01) == -1
        now += wait + 0.01
        assert breaker.state is OPEN
        end(breaker, now, "F")
    now += 72.1
    end(breaker, now, "S")
    assert breaker.closed
    for _ in range(4):
        end(breaker, now, "F")
    assert breaker.retry_after_s(now) == pytest.approx(5.0 * factor, rel=1e-5)


def test_nothing_is_counted_while_it_is_open() -> None:
    """Calls that went out before and end now neither prolong the opening nor end it."""
    breaker = opened(BreakerRules(min_calls=4))
    before = breaker.retry_after_s(101.0)
    for _ in range(100):
        assert breaker.failure(101.0, 0, 2.0) is None
        assert breaker.success(101.0, 0, 2.0) is None
    assert breaker.retry_after_s(101.0) == before
    assert breaker.state is OPEN


def test_the_half_opening_is_told_once() -> None:
    """Entering makes the transition; it waits to be taken, once."""
    breaker = opened(BreakerRules(min_calls=4))
    assert breaker.enter(104.0) == -1
    assert breaker.take_transition() is None
    assert breaker.enter(105.0) > 0
    told = breaker.take_transition()
    assert told is not None
    assert (told.old, told.new, told.at) == (OPEN, HALF_OPEN, 105.0)
    assert breaker.take_transition() is None


# -- half-open --------------------------------------------------------------------------------------


def test_permits_are_given_and_come_back() -> None:
    """So many probes at a time; any way to end gives the permit back; two with one token do not count twice."""
    breaker = probing(BreakerRules(min_calls=4, permits=4, successes=100))
    tokens = [breaker.enter(100.0) for _ in range(4)]
    assert min(tokens) > 0
    assert len(set(tokens)) == 4
    assert breaker.enter(100.0) == -1
    assert breaker.retry_after_s(100.0) == 1.0
    breaker.success(100.1, tokens[0], 0.1)
    breaker.success(100.1, tokens[0], 0.1)
    assert (breaker.enter(100.1) > 0, breaker.enter(100.1)) == (True, -1)
    breaker.ignored(100.2, tokens[1])
    assert (breaker.enter(100.2) > 0, breaker.enter(100.2)) == (True, -1)


def test_successes_in_a_row_close_it() -> None:
    """As many as asked for, not one less, and what is ignored is none of them."""
    breaker = probing(BreakerRules(min_calls=4, successes=3))
    for outcome in "SISI":
        assert end(breaker, 100.0, outcome) is None
    closed = end(breaker, 100.0, "S")
    assert closed == Transition(HALF_OPEN, CLOSED, "3 probes succeeded", 100.0)
    assert (breaker.closed, breaker.retry_after_s(100.0), breaker.enter(100.0)) == (True, 0.0, 0)


def test_one_failure_opens_it_again() -> None:
    """However many succeeded before it."""
    breaker = probing(BreakerRules(min_calls=4, successes=3))
    for outcome in "SS":
        end(breaker, 100.0, outcome)
    assert end(breaker, 100.0, "F") == Transition(HALF_OPEN, OPEN, "a probe failed", 100.0)


@pytest.mark.parametrize(("took", "new"), [([1.0, 1.0], OPEN), ([1.0, 0.1], OPEN), ([0.1, 0.1], CLOSED)])
def test_slow_probes_are_judged_by_the_ratio(took: list[float], new: BreakerState) -> None:
    """Probes that succeed, but as slowly as what opens a circuit, do not close it."""
    breaker = probing(BreakerRules(min_calls=4, successes=2, slow_call_s=0.5, slow_ratio=0.5))
    assert end(breaker, 100.0, "S", took[0]) is None
    transition = end(breaker, 100.0, "S", took[1])
    assert transition is not None
    assert transition.new is new


def test_a_probe_that_never_ends_loses_its_permit() -> None:
    """After a bounded time its permit goes to another, and what it then says counts for nothing."""
    breaker = probing(BreakerRules(min_calls=4, permits=1, successes=1))
    lost = breaker.enter(100.0)
    assert breaker.enter(100.0 + MIN_PATIENCE_S - 0.1) == -1
    assert breaker.enter(100.0 + MIN_PATIENCE_S) > lost
    assert breaker.success(200.0, lost, 100.0) is None
    assert breaker.failure(200.0, lost, 100.0) is None
    assert breaker.state is HALF_OPEN
    patient = probing(BreakerRules(min_calls=4, permits=1, open_s=90.0, max_open_s=90.0))
    patient.enter(100.0)
    assert (patient.enter(189.0), patient.enter(190.0) > 0) == (-1, True)


def test_each_half_opening_judges_its_own_probes() -> None:
    """Slow probes of one that failed are nothing to the next."""
    breaker = probing(BreakerRules(min_calls=4, successes=2, slow_call_s=0.5, slow_ratio=0.5))
    end(breaker, 100.0, "S", 1.0)
    end(breaker, 100.0, "F")
    end(breaker, 200.0, "S")
    assert breaker.state is HALF_OPEN
    end(breaker, 200.0, "S")
    assert breaker.closed


# -- what others say --------------------------------------------------------------------------------


@pytest.mark.parametrize(("chance", "lasts_s"), [(0.0, 4.0), (0.5, 5.0)])
def test_an_agreement_opens_it_as_it_would_itself(chance: float, lasts_s: float) -> None:
    """For its own open time with its own jitter, closed by its own probes; with failing ones it grows as always."""
    breaker = Breaker(BreakerRules(successes=1, verdicts=BreakerVerdictRules()), lambda: chance)
    assert breaker.agreed(100.0, "they say so") == Transition(CLOSED, OPEN, "they say so", 100.0)
    assert breaker.retry_after_s(100.0) == pytest.approx(lasts_s)
    now = 100.0
    for again_s in (lasts_s, 2 * lasts_s, 4 * lasts_s):
        now += again_s if now > 100.0 + lasts_s else lasts_s
        end(breaker, now, "F")
        assert breaker.state is OPEN
    end(breaker, now + 100.0, "S")
    assert breaker.closed


@pytest.mark.parametrize("state", [OPEN, HALF_OPEN])
def test_an_agreement_changes_nothing_while_it_is_not_closed(state: BreakerState) -> None:
    """It neither prolongs an opening nor stops a recovery."""
    rules = BreakerRules(min_calls=4, successes=2)
    breaker = opened(rules) if state is OPEN else probing(rules)
    before = breaker.retry_after_s(100.0)
    assert breaker.agreed(100.0, "they say so") is None
    assert (breaker.state, breaker.retry_after_s(100.0)) == (state, before)


def test_own_probes_count_more_than_words() -> None:
    """For a whole window after they closed it no agreement opens it; its own counting does."""
    rules = BreakerRules(min_calls=4, successes=1, verdicts=BreakerVerdictRules(window_s=30.0))
    breaker = opened(rules, 100.0)
    end(breaker, 110.0, "S")
    assert breaker.agreed(110.0, "they say so") is None
    assert breaker.agreed(139.9, "they say so") is None
    assert breaker.closed
    assert breaker.agreed(140.0, "they say so") is not None
    end(breaker, 150.0, "S")
    for _ in range(4):
        end(breaker, 151.0, "F")
    assert breaker.state is OPEN


def test_without_end_a_crowd_costs_one_open_time_a_window() -> None:
    """Whoever agrees every second, about an endpoint that is well: 5 s of each 35 s."""
    breaker = Breaker(BreakerRules(successes=1, verdicts=BreakerVerdictRules(window_s=30.0)), middle)
    refused = 0
    for second in range(350):
        breaker.agreed(float(second), "they say so")
        token = breaker.enter(float(second))
        refused += token < 0
        if token >= 0:
            breaker.success(float(second), token, 0.0)
    assert refused == 50


def test_successes_from_before_an_agreement_are_forgotten() -> None:
    """Also those that were counted in passing: a new era begins."""
    breaker = Breaker(BreakerRules(min_calls=4, successes=1), middle)
    for _ in range(50):
        breaker.success(100.0, 0, 0.0)
    breaker.agreed(100.0, "they say so")
    end(breaker, 106.0, "S")
    for _ in range(3):
        end(breaker, 106.5, "F")
    transition = end(breaker, 106.5, "F")
    assert transition is not None
    assert transition.reason == "4 of 4 calls failed"


# -- eras -------------------------------------------------------------------------------------------


def test_calls_of_an_earlier_era_count_for_nothing() -> None:
    """Free passes of before the opening, and probes of before the closing, that end afterwards."""
    breaker = opened(BreakerRules(min_calls=4, successes=1, permits=2), 100.0)
    one, late = breaker.enter(106.0), breaker.enter(106.0)
    breaker.success(106.0, one, 0.0)
    assert breaker.closed
    for _ in range(10):
        assert breaker.failure(107.0, 0, 7.5) is None  # began at 99.5
        assert breaker.failure(107.0, late, 1.0) is None
    for _ in range(3):
        assert breaker.failure(107.0, 0, 1.0) is None  # began at 106, when it closed
    assert breaker.success(107.0, 0, 7.5) is None
    transition = breaker.failure(107.0, 0, 0.5)
    assert transition is not None
    assert transition.reason == "4 of 4 calls failed"


def test_successes_of_an_earlier_era_count_for_nothing() -> None:
    """Nor do they where successes are counted in passing."""
    breaker = opened(BreakerRules(min_calls=4, successes=1, permits=2), 100.0)
    one, late = breaker.enter(106.0), breaker.enter(106.0)
    breaker.success(106.0, one, 0.0)
    breaker.success(107.0, 0, 0.5)
    for _ in range(10):
        breaker.success(107.0, 0, 7.5)
        breaker.success(107.0, late, 0.5)
    for _ in range(2):
        assert breaker.failure(107.0, 0, 0.5) is None
    transition = breaker.failure(107.0, 0, 0.5)
    assert transition is not None
    assert transition.reason == "3 of 4 calls failed"


def test_a_probe_of_an_earlier_half_opening_counts_for_nothing() -> None:
    """Its token is worth nothing after the circuit has opened again, whatever it ends with."""
    breaker = probing(BreakerRules(min_calls=4, successes=1, permits=2))
    old, new = breaker.enter(100.0), breaker.enter(100.0)
    breaker.failure(100.0, new, 0.0)
    breaker.enter(150.0)
    assert breaker.state is HALF_OPEN
    assert breaker.success(150.0, old, 50.0) is None
    assert breaker.failure(150.0, old, 50.0) is None
    assert breaker.state is HALF_OPEN


def test_what_a_person_sees() -> None:
    """State, probes and the window at a glance."""
    assert (
        repr(probing(BreakerRules()))
        == "<Breaker HALF_OPEN, 0 probes, <OutcomeWindow 0 of 0 failed, 0 slow>>"
    )


# -- all of it at once ------------------------------------------------------------------------------


class Model:
    """What is to be counted since the last change of state, and whether that opens a circuit: plainly."""

    def __init__(self, rules: BreakerRules) -> None:
        self.rules = rules
        self.width = rules.window_s / 10
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.row = 0
        #: By bucket of time: calls, failures, slow calls.
        self.ended: collections.Counter[tuple[int, str]] = collections.Counter()

    def opens(self, now: float, failed: bool, took_s: float) -> bool:
        """Count one outcome; whether the circuit is to open with it."""
        rules = self.rules
        bucket = math.floor(now / self.width)
        self.row = self.row + 1 if failed else 0
        self.ended[bucket, "all"] += 1
        self.ended[bucket, "failed"] += failed
        self.ended[bucket, "slow"] += rules.slow_call_s is not None and took_s > rules.slow_call_s
        if self.row == rules.consecutive:
            return True
        calls, failures, slow = (
            sum(self.ended[bucket - age, kind] for age in range(10)) for kind in ("all", "failed", "slow")
        )
        if calls < rules.min_calls:
            return False
        return failures / calls >= rules.failure_ratio or (slow > 0 and slow / calls >= rules.slow_ratio)


class BreakerMachine(RuleBasedStateMachine):
    """Any mixture of calls that overlap, end in any way or never, and time that passes."""

    @initialize(
        rules=st.builds(
            BreakerRules,
            failure_ratio=st.sampled_from([0.3, 0.5, 1.0]),
            min_calls=st.integers(1, 6),
            consecutive=st.none() | st.integers(1, 4),
            slow_call_s=st.none() | st.just(1.0),
            slow_ratio=st.sampled_from([0.5, 1.0]),
            permits=st.integers(1, 3),
            successes=st.integers(1, 4),
            verdicts=st.none() | st.builds(BreakerVerdictRules, window_s=st.sampled_from([1.0, 10.0])),
        ),
        chance=st.sampled_from([0.0, 0.5, 0.99]),
    )
    def start(self, rules: BreakerRules, chance: float) -> None:
        """A breaker of some rules."""
        self.limits = rules
        self.breaker = Breaker(rules, lambda: chance)
        self.now = 1000.0
        self.era = 0
        self.state = CLOSED
        self.model = Model(rules)
        self.closed_at = -math.inf
        self.calls: list[tuple[int, float, int]] = []  # token, when it began, its era

    def _moves(self, transition: Transition | None) -> None:
        if transition is None:
            return
        assert (transition.old, transition.new) in LEGAL
        assert transition.old is self.state
        assert transition.at == self.now
        assert transition.reason
        self.state = transition.new
        if self.state is CLOSED:
            self.closed_at = self.now
        self.era += 1
        self.model.forget()

    @rule()
    def others_agree(self) -> None:
        """It opens where it is closed, and was not closed by its own probes within the window."""
        deaf_s = 0.0 if self.limits.verdicts is None else self.limits.verdicts.window_s
        opens = self.state is CLOSED and self.now >= self.closed_at + deaf_s
        transition = self.breaker.agreed(self.now, "they say so")
        assert (transition is not None) is opens
        self._moves(transition)

    @rule(seconds=st.sampled_from([0.0, 0.25, 1.0, 3.0, 7.0, 30.0, 100.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; the steps are fractions of two, so that no instant is rounded."""
        self.now += seconds

    @rule(count=st.integers(1, 4))
    def begin(self, count: int) -> None:
        """Calls enter: all of them while closed, none while open, few while half-open."""
        for _ in range(count):
            was = self.state
            token = self.breaker.enter(self.now)
            self._moves(self.breaker.take_transition())
            if was is CLOSED:
                assert token == 0
            else:
                assert token == -1 or token > max((call[0] for call in self.calls), default=0)
                assert (token > 0) <= (self.state is HALF_OPEN)
            if token >= 0:
                self.calls.append((token, self.now, self.era))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), outcome=st.sampled_from("SSFFI"))
    def finish(self, data: st.DataObject, outcome: str) -> None:
        """A call ends, in whatever order; the circuit does what the model says."""
        index = data.draw(st.integers(0, len(self.calls) - 1))
        token, began, era = self.calls.pop(index)
        took_s = self.now - began
        if outcome == "I":
            assert self.breaker.ignored(self.now, token) is None
            return
        counts, was = era == self.era, self.state
        told = self.breaker.success if outcome == "S" else self.breaker.failure
        transition = told(self.now, token, took_s)
        if not counts:
            assert transition is None
        elif was is CLOSED:
            assert (transition is not None) is self.model.opens(self.now, outcome == "F", took_s)
        self._moves(transition)

    @rule(count=st.integers(1, 30))
    def pass_by(self, count: int) -> None:
        """Calls that do not even enter while it is closed, and succeed at once."""
        for _ in range(count):
            if self.breaker.closed:
                transition = self.breaker.success(self.now, 0, 0.0)
                assert (transition is not None) is self.model.opens(self.now, False, 0.0)
                self._moves(transition)

    @invariant()
    def states_agree(self) -> None:
        """The transitions tell everything, and the attribute is the state."""
        assert self.breaker.state is self.state
        assert self.breaker.closed is (self.state is CLOSED)
        assert 0.0 <= self.breaker.retry_after_s(self.now) <= self.limits.max_open_s * 1.2

    @invariant()
    def probes_are_few(self) -> None:
        """Never more than the permits, but for probes so old that their permits were taken back."""
        young = [
            began
            for token, began, era in self.calls
            if token and era == self.era and self.now - began < MIN_PATIENCE_S
        ]
        assert len(young) <= self.limits.permits

    def teardown(self) -> None:
        """Whatever was left behind: with time and successes it closes, after two rounds where slow probes were."""
        for _ in range(1 if self.limits.slow_call_s is None else 2):
            self.now += 100.0
            while not self.breaker.closed:
                token = self.breaker.enter(self.now)
                self._moves(self.breaker.take_transition())
                assert token > 0, "stuck"
                self._moves(self.breaker.success(self.now, token, 0.0))
                if self.state is OPEN:
                    break
        assert self.breaker.closed


TestBreakerMachine = BreakerMachine.TestCase


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 4.0]), st.booleans()), max_size=60))
def test_successes_counted_in_passing_are_counted(steps: list[tuple[float, bool]]) -> None:
    """A breaker that is asked about slow calls counts each success the long way: both decide alike."""
    quick = Breaker(BreakerRules(min_calls=3, consecutive=4), middle)
    careful = Breaker(BreakerRules(min_calls=3, consecutive=4, slow_call_s=1e9), middle)
    now = 100.0
    for wait, failed in steps:
        now += wait
        tokens = quick.enter(now), careful.enter(now)
        assert tokens[0] == tokens[1]
        if tokens[0] >= 0:
            ended = [
                (each.failure if failed else each.success)(now, token, 0.0)
                for each, token in zip((quick, careful), tokens, strict=True)
            ]
            assert ended[0] == ended[1]

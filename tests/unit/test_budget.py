"""The retry budget: what calls and time earn, how much may be spent at once, and that nothing is spent twice."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from nats_mesh.core.budget import BURST, BURST_SHARE, RetryBudget
from nats_mesh.core.rules import BudgetRules

TOLERANCE = 1e-5
CALL, RETRY = 0, 1


def slack_of(rules: BudgetRules) -> float:
    """How many retries more than it earned a time shorter than the window may have."""
    return max(0.0, BURST - rules.floor_per_s * rules.window_s * BURST_SHARE)


class Ledger:
    """Calls and retries in the order in which they happened, and what holds of them."""

    def __init__(self, rules: BudgetRules) -> None:
        self.rules = rules
        self.times: list[float] = []
        self.calls = [0]
        self.retries = [0]

    def add(self, now: float, what: int) -> None:
        """One more call or retry."""
        self.times.append(now)
        self.calls.append(self.calls[-1] + (what == CALL))
        self.retries.append(self.retries[-1] + (what == RETRY))

    def check(self) -> None:
        """Look back from the last event over every length of time: the retries in it are within bounds."""
        rules, now, end = self.rules, self.times[-1], len(self.times)
        burst_s, window_s = rules.window_s * BURST_SHARE, rules.window_s
        for begin, at in enumerate(self.times):
            earned = rules.ratio * (self.calls[end] - self.calls[begin])
            spent = self.retries[end] - self.retries[begin]
            # From the event on, and from before it, where that makes the length a special one.
            earlier = self.times[begin - 1] if begin else -math.inf
            for length in (now - at, burst_s, window_s):
                if not (earlier < now - length <= at and burst_s <= length <= window_s):
                    continue
                slack = 0.0 if length == window_s else slack_of(rules)
                assert spent <= earned + rules.floor_per_s * length + slack + TOLERANCE, length


def withdraw_all(budget: RetryBudget, now: float) -> int:
    """How many retries may be taken at once."""
    taken = 0
    while budget.withdraw(now):
        taken += 1
        assert taken < 100_000
    return taken


# -- what calls earn --------------------------------------------------------------------------------


@pytest.mark.parametrize("spread_s", [0.0, 0.5, 5.0, 9.0])
def test_ten_per_cent_of_a_hundred_calls(spread_s: float) -> None:
    """Without a floor, a hundred calls that all fail and ask for a retry each get ten, however quickly they come."""
    budget = RetryBudget(BudgetRules(ratio=0.1, floor_per_s=0.0))
    granted = 0
    for number in range(100):
        now = 50.0 + spread_s * number / 100
        budget.deposit(now)
        granted += budget.withdraw(now)
    assert granted == 10


def test_it_refills_with_traffic_and_not_with_time() -> None:
    """Once spent, an hour brings nothing without a floor; ten more calls bring one more."""
    budget = RetryBudget(BudgetRules(ratio=0.1, floor_per_s=0.0))
    for _ in range(100):
        budget.deposit(50.0)
    assert withdraw_all(budget, 50.0) == 10
    assert [budget.withdraw(50.0 + later) for later in (1.0, 10.0, 11.0, 3600.0)] == [False] * 4
    for number in range(9):
        budget.deposit(4000.0)
        assert not budget.withdraw(4000.0), number
    budget.deposit(4000.0)
    assert withdraw_all(budget, 4000.0) == 1


@pytest.mark.parametrize("per_s", [1.5, 5.0, 50.0, 1000.0])
def test_slow_and_fast_callers_get_their_share(per_s: float) -> None:
    """Without a floor, at any rate that earns a whole retry within the window: of calls that all fail, a tenth."""
    budget = RetryBudget(BudgetRules(ratio=0.1, floor_per_s=0.0))
    calls = int(per_s * 60)
    granted = 0
    for number in range(calls):
        now = 7.0 + number / per_s
        budget.deposit(now)
        granted += budget.withdraw(now)
    assert 0.1 * calls - 10 <= granted <= 0.1 * calls + 1e-6


def test_what_is_not_used_is_forgotten() -> None:
    """Calls of more than a window ago have earned nothing for now."""
    budget = RetryBudget(BudgetRules(ratio=0.1, floor_per_s=0.0))
    for _ in range(1000):
        budget.deposit(50.0)
    assert budget.left(50.0) == pytest.approx(100.0)
    assert budget.left(50.8) == pytest.approx(100.0)
    assert budget.left(51.5) == pytest.approx(5.0)  # of what came more than a tenth of the window ago
    assert budget.left(59.8) == pytest.approx(5.0)
    assert budget.left(60.2) == 0.0


def test_a_retry_counts_for_a_whole_window() -> None:
    """Retries that came a moment after their calls are still in the window when the calls have left it."""
    budget = RetryBudget(BudgetRules(ratio=0.1, floor_per_s=0.0))
    for _ in range(100):
        budget.deposit(50.0)
    assert withdraw_all(budget, 50.05) == 10
    for _ in range(100):
        budget.deposit(60.02)
    assert withdraw_all(budget, 60.02) == 0
    assert withdraw_all(budget, 60.2) == 10


# -- what time earns --------------------------------------------------------------------------------


def test_a_first_call_may_be_retried() -> None:
    """Time before the first use counts as idle: the floor is there from the beginning."""
    budget = RetryBudget(BudgetRules())
    budget.deposit(0.0)
    assert withdraw_all(budget, 0.0) == 5


@pytest.mark.parametrize("idle_s", [1.0, 2.0, 10.0, 3600.0, 1e7])
@pytest.mark.parametrize(
    ("rules", "at_once"),
    [
        (BudgetRules(), 5),
        (BudgetRules(ratio=0.0, floor_per_s=20.0), 20),
        (BudgetRules(ratio=0.0, floor_per_s=2.0), 5),
        (BudgetRules(ratio=0.0, floor_per_s=0.5), 5),
        (BudgetRules(ratio=0.0, floor_per_s=0.2, window_s=20.0), 4),
        (BudgetRules(ratio=0.0, floor_per_s=5.0, window_s=20.0), 10),
        (BudgetRules(ratio=0.0, floor_per_s=0.0), 0),
    ],
)
def test_idleness_piles_up_no_more_than_a_tenth_of_the_window(
    rules: BudgetRules, at_once: int, idle_s: float
) -> None:
    """However long nothing was retried, a burst finds what the floor gives in a tenth of the window, or five of what it
    gives in all of it."""
    budget = RetryBudget(rules)
    withdraw_all(budget, 123.4)
    withdraw_all(budget, 143.4)
    now = 163.4 + idle_s
    assert withdraw_all(budget, now) == at_once
    assert withdraw_all(budget, now + 0.01) == 0


@pytest.mark.parametrize(("floor", "least"), [(0.5, 0.5), (1.0, 1.0), (2.0, 1.8), (5.0, 4.0), (50.0, 49.0)])
def test_the_floor_keeps_coming(floor: float, least: float) -> None:
    """Who asks all the time gets the floor, less at most one retry in a tenth of the window, and never more than it."""
    budget = RetryBudget(BudgetRules(ratio=0.0, floor_per_s=floor))
    granted = sum(budget.withdraw(1000.0 + step * 0.01) for step in range(20_000))
    assert least * 200 * 0.95 <= granted <= floor * 200 + BURST


# -- storms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("before_s", [0.0, 3.0, 30.0])
@pytest.mark.parametrize("outage_s", [1.5, 2.5, 10.0, 10.3, 11.0, 19.0, 35.0])
@pytest.mark.parametrize("per_s", [3.0, 80.0, 400.0])
def test_a_storm_is_bounded_from_its_first_second(before_s: float, outage_s: float, per_s: float) -> None:
    """Every call of an outage fails and asks twice: attempts ≤ 1.1 × calls + 5 a second, whatever was before it."""
    chance = random.Random(1)
    budget = RetryBudget(BudgetRules())
    now = 500.0
    while now < 500.0 + before_s:
        budget.deposit(now)
        now += chance.expovariate(per_s)
    calls = retries = 0
    begin = now
    while now <= begin + outage_s:
        budget.deposit(now)
        calls += 1
        retries += budget.withdraw(now) + budget.withdraw(now)
        now += chance.expovariate(per_s)
    assert calls + retries <= 1.1 * calls + 5.0 * outage_s
    assert retries >= 0.5 * (0.1 * calls + 5.0 * outage_s) - 5.0


@given(
    st.builds(
        BudgetRules,
        ratio=st.sampled_from([0.0, 0.1, 0.37, 1.0]),
        floor_per_s=st.sampled_from([0.0, 0.3, 1.0, 1.5, 5.0, 20.0]),
        window_s=st.sampled_from([1.0, 10.0]),
    ),
    st.floats(0.0, 1e6),
    st.lists(
        st.tuples(
            st.just(0.0) | st.floats(0.0, 0.3) | st.floats(0.0, 15.0), st.integers(0, 30), st.integers(0, 5)
        ),
        max_size=40,
    ),
)
def test_looking_back_from_any_retry(
    rules: BudgetRules, now: float, steps: list[tuple[float, int, int]]
) -> None:
    """Over a tenth of the window and longer, over the whole and longer: what was retried is within what is promised."""
    budget, ledger = RetryBudget(rules), Ledger(rules)
    for wait, calls, asked in steps:
        now += wait
        for _ in range(calls):
            budget.deposit(now)
            ledger.add(now, CALL)
        for _ in range(asked):
            if budget.withdraw(now):
                ledger.add(now, RETRY)
                ledger.check()


class BudgetMachine(RuleBasedStateMachine):
    """Calls, retries and time in any order against the definition: what is granted is it, no more and no less."""

    @initialize(
        rules=st.builds(
            BudgetRules,
            ratio=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
            floor_per_s=st.sampled_from([0.0, 0.5, 2.0, 5.0]),
        ),
        now=st.sampled_from([0.0, 0.3, 12_345.678]),
    )
    def start(self, rules: BudgetRules, now: float) -> None:
        """A budget of some rules."""
        self.limits = rules
        self.budget = RetryBudget(rules)
        self.now = now
        self.earned = 0.0
        #: Each event: when, and what was earned (without the floor) before it.
        self.events: list[tuple[float, float]] = []

    def _highest(self, since: float, before: float) -> float:
        """The highest that was earned, with the floor, between two moments."""
        floor = self.limits.floor_per_s
        ends = [
            next((earned for at, earned in self.events if at > end), self.earned) + floor * end
            for end in (since, before)
        ]
        return max([*ends, *(earned + floor * at for at, earned in self.events if since < at <= before)])

    def _left(self, blur_s: float) -> float:
        """What may be spent by the definition; with ``blur_s``, if that were not known any closer."""
        rules = self.limits
        have = self.earned + rules.floor_per_s * self.now
        burst, window = (self.now - span for span in (rules.window_s * BURST_SHARE, rules.window_s))
        return min(
            have - self._highest(window - blur_s, burst + blur_s) + slack_of(rules),
            have - self._highest(window - blur_s, window + blur_s),
        )

    @rule(seconds=st.just(0.0) | st.floats(0.0, 2.0) | st.floats(0.0, 100.0))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule(count=st.integers(1, 30))
    def call(self, count: int) -> None:
        """Calls begin."""
        for _ in range(count):
            self.budget.deposit(self.now)
            self.events.append((self.now, self.earned))
            self.earned += self.limits.ratio

    @rule(count=st.integers(1, 12))
    def retry(self, count: int) -> None:
        """Retries are asked for."""
        for _ in range(count):
            most, least = self._left(0.0), self._left(self.limits.window_s / 100 + 1e-6)
            left = self.budget.left(self.now)
            assert max(0.0, least) - TOLERANCE <= left <= max(0.0, most) + TOLERANCE
            granted = self.budget.withdraw(self.now)
            assert granted is (left >= 1.0 - 1e-6)
            if granted:
                self.events.append((self.now, self.earned))
                self.earned -= 1.0


TestBudgetMachine = BudgetMachine.TestCase


# -- running for long -------------------------------------------------------------------------------


def test_it_stays_exact_and_small_however_long_it_runs() -> None:
    """After fifty million calls the share is still what it was, and no more is remembered than a window has buckets."""
    budget = RetryBudget(BudgetRules(ratio=1.0, floor_per_s=0.0))
    now = 1e6
    for _ in range(5000):
        now += 0.05
        budget.deposit(now)
        budget._calls += 9_999  # as that many more deposits would
        assert budget.withdraw(now)
        assert abs(budget._earned) <= 1.03e6
        assert len(budget._tops) <= len(budget._old)
        assert len(budget._young) + len(budget._old) <= 102
    assert 180_000 <= budget.left(now) <= 210_000  # those of one second


def test_a_large_sum_is_brought_down_without_a_trace() -> None:
    """What is left is the same before and after."""
    budget = RetryBudget(BudgetRules(ratio=1.0, floor_per_s=0.0))
    budget.deposit(50.0)
    budget._calls += 1_999_999  # as that many more deposits would
    assert budget.left(50.05) == pytest.approx(2e6)
    assert budget.left(50.15) == pytest.approx(2e6)
    assert budget._earned == 0.0
    assert budget.left(55.0) == pytest.approx(5.0)
    assert budget.left(60.2) == 0.0


def test_a_clock_that_goes_back_grants_nothing() -> None:
    """An instant of the past is no new time: nothing is earned by it, and nothing breaks."""
    budget = RetryBudget(BudgetRules(ratio=0.0))
    assert withdraw_all(budget, 100.0) == 5
    assert withdraw_all(budget, 50.0) == 0
    assert budget.left(50.0) == 0.0
    assert withdraw_all(budget, 102.0) == 5
    assert repr(budget) == "<RetryBudget 0% of calls and 5 a second>"

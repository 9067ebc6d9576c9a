"""The published cases for retries and breakers, held by the cores alone, with time passed in.

The names are those of gRPC's retry design (A6) and xDS interop tests, the MicroProfile Fault Tolerance TCK,
resilience4j and Linkerd. The same cases over a bus: ``test_surviving.py``.
"""

from __future__ import annotations

from typing import Any

import pytest

from nats_mesh.core.breaker import Breaker, BreakerState
from nats_mesh.core.budget import RetryBudget
from nats_mesh.core.retry import Failure, decide
from nats_mesh.core.rules import BackoffRules, BreakerRules, BudgetRules, HedgeRules, RetryRules
from nats_mesh.errors import ConfigError, Executed, Status

#: Opens at three quarters of four calls; one success closes it.
VOLUME_4 = BreakerRules(min_calls=4, failure_ratio=0.75, successes=1)


class Play:
    """Calls to a destination whose outcomes are scripted, through a breaker.

    ``S`` and ``F``: a call that succeeds or fails, ``I``: one that is cancelled; ``.``: wait until the circuit may
    half-open; ``x``: a call that must be refused. ``executions``: the calls that were let through.
    """

    def __init__(self, rules: BreakerRules) -> None:
        self.breaker = Breaker(rules, lambda: 0.5)
        self.now = 1000.0
        self.executions = 0

    def run(self, script: str) -> None:
        """Play it; AssertionError where a call is refused that is not to be, or the other way round."""
        breaker = self.breaker
        for step in script:
            if step == ".":
                self.now += breaker.retry_after_s(self.now)
                continue
            token = breaker.enter(self.now)
            assert (token < 0) == (step == "x"), f"{step} at {self.now}: {breaker!r}"
            if token < 0:
                continue
            self.executions += 1
            if step == "I":
                breaker.ignored(self.now, token)
            else:
                (breaker.success if step == "S" else breaker.failure)(self.now, token, 0.0)


@pytest.mark.parametrize(
    ("rules", "script", "executions", "state"),
    [
        pytest.param(VOLUME_4, "FFFFx", 4, "OPEN", id="ClosedThenOpen"),
        pytest.param(VOLUME_4, "SFFFx", 4, "OPEN", id="ClosedThenOpen at the ratio"),
        pytest.param(VOLUME_4, "SSFFFF", 6, "CLOSED", id="ClosedThenOpen below the ratio"),
        pytest.param(VOLUME_4, "FFFFx.SFFFFx", 9, "OPEN", id="DefaultSuccessThreshold"),
        pytest.param(
            BreakerRules(min_calls=4, failure_ratio=0.75, successes=3),
            "FFFFx.SSFx",
            7,
            "OPEN",
            id="HighSuccessThreshold",
        ),
        pytest.param(
            BreakerRules(min_calls=4, failure_ratio=0.75, successes=3),
            "FFFFx.SSSFFFFx",
            11,
            "OPEN",
            id="SuccessThreshold met",
        ),
        pytest.param(BreakerRules(min_calls=4, failure_ratio=0.5), "SFFSx", 4, "OPEN", id="RollingWindow"),
        pytest.param(VOLUME_4, "FFFFx.IIIIIIS", 11, "CLOSED", id="ignored outcome"),
        pytest.param(VOLUME_4, "IIIIII" + "FFFFx", 10, "OPEN", id="ignored outcomes are no calls"),
        pytest.param(BreakerRules(consecutive=5), "FFFFFx", 5, "OPEN", id="consecutive failures"),
        pytest.param(
            BreakerRules(consecutive=5, successes=1),
            "FFFFFx.SFFFFFx",
            11,
            "OPEN",
            id="consecutive, anew after closing",
        ),
        pytest.param(
            BreakerRules(consecutive=5),
            "FFFFSFFFFSFFFF",
            14,
            "CLOSED",
            id="failures that are not consecutive",
        ),
        pytest.param(VOLUME_4, "FFFFx.Fx.Fx.Fx.S", 8, "CLOSED", id="opens again and again, and closes"),
    ],
)
def test_a_scripted_breaker(rules: BreakerRules, script: str, executions: int, state: str) -> None:
    """As many executions as published, and the state at the end."""
    play = Play(rules)
    play.run(script)
    assert (play.executions, play.breaker.state) == (executions, BreakerState(state))


def test_half_open_permits() -> None:
    """Four permits: the fifth is refused; one released, one more."""
    play = Play(BreakerRules(min_calls=4, permits=4, successes=4))
    play.run("FFFF.")
    tokens = [play.breaker.enter(play.now) for _ in range(4)]
    assert min(tokens) > 0
    assert play.breaker.enter(play.now) == -1
    play.breaker.ignored(play.now, tokens[2])
    assert play.breaker.enter(play.now) > 0
    assert play.breaker.enter(play.now) == -1


@pytest.mark.parametrize("chance", [0.0, 0.25, 0.5, 0.999])
def test_wait_duration(chance: float) -> None:
    """Five seconds open: refused at 3 s, half-open at 6 s, whatever the jitter."""
    breaker = Breaker(BreakerRules(min_calls=4), lambda: chance)
    for _ in range(4):
        breaker.failure(0.0, breaker.enter(0.0), 0.0)
    assert breaker.enter(3.0) == -1
    assert breaker.enter(6.0) > 0
    assert breaker.state is BreakerState.HALF_OPEN


def test_retry_budget() -> None:
    """10 %, no floor: of a hundred calls that all fail ten are retried; traffic refills it, time alone does not."""
    budget = RetryBudget(BudgetRules(ratio=0.1, floor_per_s=0.0))
    now, granted = 1000.0, []
    for _ in range(100):
        budget.deposit(now)
        granted.append(budget.withdraw(now))
        now += 0.01
    assert sum(granted) == 10
    assert not any(budget.withdraw(now + later) for later in (0.0, 5.0, 20.0))
    for _ in range(100):
        budget.deposit(now + 20.0)
    assert sum(budget.withdraw(now + 20.0) for _ in range(100)) == 10


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0 - 2**-53])
@pytest.mark.parametrize(
    ("attempt", "plain_ms"),
    [(1, 25.0), (2, 50.0), (3, 100.0), (4, 200.0), (5, 250.0), (6, 250.0), (9, 250.0)],
)
def test_backoff(attempt: int, plain_ms: float, chance: float) -> None:
    """min(init·m^(n−1), max) × [0.8, 1.2]."""
    failure = Failure(Status.UNAVAILABLE, Executed.NO)
    decision = decide(
        RetryRules(attempts=10), attempt, failure, idempotent=True, remaining_s=5.0, chance=lambda: chance
    )
    assert decision.delay_s * 1000.0 == pytest.approx(plain_ms * (0.8 + 0.4 * chance))


@pytest.mark.parametrize(("attempts", "calls", "ok"), [(5, 100, 100), (4, 100, 100), (3, 100, 0)])
def test_retry_up_to_4(attempts: int, calls: int, ok: int) -> None:
    """What succeeds on its fourth attempt succeeds for all who may try that often, and for nobody else."""
    rules = RetryRules(attempts=attempts, budget=BudgetRules(ratio=1.0, floor_per_s=300.0))
    budget = RetryBudget(rules.budget)
    now, succeeded = 1000.0, 0
    for _ in range(calls):
        budget.deposit(now)
        deadline, attempt = now + 5.0, 1
        while attempt < 4:
            decision = decide(
                rules, attempt, Failure(Status.UNAVAILABLE, Executed.YES),
                idempotent=True, remaining_s=deadline - now, chance=lambda: 0.5,
            )  # fmt: skip
            if not decision.again or not budget.withdraw(now):
                break
            now += decision.delay_s
            attempt += 1
        succeeded += attempt == 4
        now += 0.01
    assert succeeded == ok


@pytest.mark.parametrize(
    ("rules", "field", "value", "path"),
    [
        (BreakerRules, "failure_ratio", -0.1, "breaker.failureRatio"),
        (BreakerRules, "failure_ratio", 1.1, "breaker.failureRatio"),
        (BreakerRules, "min_calls", 0, "breaker.minCalls"),
        (BreakerRules, "min_calls", -1, "breaker.minCalls"),
        (BreakerRules, "successes", 0, "breaker.successes"),
        (BreakerRules, "successes", -1, "breaker.successes"),
        (BreakerRules, "open_s", -1.0, "breaker.open"),
        (BreakerRules, "window_s", -1.0, "breaker.window"),
        (BreakerRules, "permits", 0, "breaker.permits"),
        (RetryRules, "attempts", -1, "retry.attempts"),
        (RetryRules, "per_try_timeout_s", -1.0, "retry.perTryTimeout"),
        (BackoffRules, "initial_s", -1.0, "retry.backoff.initial"),
        (BackoffRules, "jitter", -1.0, "retry.backoff.jitter"),
        (BackoffRules, "max_s", 0.001, "retry.backoff.max"),
        (BudgetRules, "ratio", -0.1, "retry.budget.ratio"),
        (HedgeRules, "max_extra", 0, "hedge.maxExtra"),
    ],
)
def test_invalid_parameters(rules: Any, field: str, value: float, path: str) -> None:
    """Each is refused when it is defined, with the field's path; ``tests/unit/test_rules.py`` has them all."""
    with pytest.raises(ConfigError, match=rf"^{path}: must be .*{value}"):
        rules(**{field: value})

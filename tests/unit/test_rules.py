"""Rules that cannot work are refused where they are made, with the field as policies spell it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from nats_mesh.core.rules import (
    BALANCERS,
    BackoffRules,
    BalancerRules,
    BreakerRules,
    BreakerVerdictRules,
    BudgetRules,
    ConcurrencyRules,
    EjectionRules,
    HedgeRules,
    RetryRules,
    VerdictRules,
)
from nats_mesh.errors import ConfigError

INVALID: list[tuple[type, dict[str, Any], str]] = [
    (BreakerRules, {"failure_ratio": 0.0}, "breaker.failureRatio"),
    (BreakerRules, {"failure_ratio": -0.1}, "breaker.failureRatio"),
    (BreakerRules, {"failure_ratio": 1.1}, "breaker.failureRatio"),
    (BreakerRules, {"failure_ratio": math.nan}, "breaker.failureRatio"),
    (BreakerRules, {"window_s": 0.0}, "breaker.window"),
    (BreakerRules, {"window_s": math.inf}, "breaker.window"),
    (BreakerRules, {"min_calls": 0}, "breaker.minCalls"),
    (BreakerRules, {"min_calls": -1}, "breaker.minCalls"),
    (BreakerRules, {"consecutive": 0}, "breaker.consecutive"),
    (BreakerRules, {"slow_call_s": 0.0}, "breaker.slowCall"),
    (BreakerRules, {"slow_ratio": 0.0}, "breaker.slowRatio"),
    (BreakerRules, {"slow_ratio": 1.5}, "breaker.slowRatio"),
    (BreakerRules, {"open_s": 0.0}, "breaker.open"),
    (BreakerRules, {"open_s": -5.0}, "breaker.open"),
    (BreakerRules, {"open_s": 60.5}, "breaker.maxOpen"),
    (BreakerRules, {"open_s": 5.0, "max_open_s": 4.0}, "breaker.maxOpen"),
    (BreakerRules, {"max_open_s": math.inf}, "breaker.maxOpen"),
    (BreakerRules, {"jitter": -0.1}, "breaker.jitter"),
    (BreakerRules, {"jitter": 1.1}, "breaker.jitter"),
    (BreakerRules, {"permits": 0}, "breaker.permits"),
    (BreakerRules, {"successes": 0}, "breaker.successes"),
    (BreakerVerdictRules, {"callers": 1}, "breaker.verdicts.callers"),
    (BreakerVerdictRules, {"callers": 1001}, "breaker.verdicts.callers"),
    (BreakerVerdictRules, {"window_s": 0.0}, "breaker.verdicts.window"),
    (BreakerVerdictRules, {"window_s": math.inf}, "breaker.verdicts.window"),
    (BudgetRules, {"ratio": -0.1}, "retry.budget.ratio"),
    (BudgetRules, {"ratio": 1.1}, "retry.budget.ratio"),
    (BudgetRules, {"floor_per_s": -1.0}, "retry.budget.floor"),
    (BudgetRules, {"floor_per_s": math.inf}, "retry.budget.floor"),
    (BudgetRules, {"window_s": 0.0}, "retry.budget.window"),
    (BackoffRules, {"initial_s": -0.001}, "retry.backoff.initial"),
    (BackoffRules, {"initial_s": 0.5, "max_s": 0.25}, "retry.backoff.max"),
    (BackoffRules, {"multiplier": 0.5}, "retry.backoff.multiplier"),
    (BackoffRules, {"multiplier": math.inf}, "retry.backoff.multiplier"),
    (BackoffRules, {"jitter": 2.0}, "retry.backoff.jitter"),
    (RetryRules, {"attempts": 0}, "retry.attempts"),
    (RetryRules, {"attempts": 11}, "retry.attempts"),
    (RetryRules, {"per_try_timeout_s": 0.0}, "retry.perTryTimeout"),
    (HedgeRules, {"delay_s": 0.0}, "hedge.delay"),
    (HedgeRules, {"quantile": 0.4}, "hedge.quantile"),
    (HedgeRules, {"quantile": 1.0}, "hedge.quantile"),
    (HedgeRules, {"min_delay_s": -1.0}, "hedge.minDelay"),
    (HedgeRules, {"max_extra": 0}, "hedge.maxExtra"),
    (HedgeRules, {"max_extra": 6}, "hedge.maxExtra"),
    (HedgeRules, {"max_ratio": 0.0}, "hedge.maxRatio"),
    (VerdictRules, {"callers": 1}, "ejection.verdicts.callers"),
    (VerdictRules, {"window_s": 0.0}, "ejection.verdicts.window"),
    (EjectionRules, {"consecutive": 0}, "ejection.consecutive"),
    (EjectionRules, {"success_ratio": 1.1}, "ejection.successRatio"),
    (EjectionRules, {"window_s": 0.0}, "ejection.window"),
    (EjectionRules, {"min_calls": 0}, "ejection.minCalls"),
    (EjectionRules, {"silent": 0}, "ejection.silent"),
    (EjectionRules, {"base_s": 0.0}, "ejection.base"),
    (EjectionRules, {"base_s": 10.0, "max_s": 9.0}, "ejection.max"),
    (EjectionRules, {"max_ratio": -0.5}, "ejection.maxRatio"),
    (EjectionRules, {"panic_ratio": 1.5}, "ejection.panicRatio"),
    (BalancerRules, {"name": "fastest"}, "balancer.name"),
    (BalancerRules, {"bound": 0.9}, "balancer.bound"),
    (BalancerRules, {"slow_start_s": -1.0}, "balancer.slowStart"),
    (BalancerRules, {"locality_healthy": 0.0}, "balancer.localityHealthy"),
    (BalancerRules, {"ewma_decay_s": 0.0}, "balancer.ewmaDecay"),
    (BalancerRules, {"name": "random", "header": "user"}, "balancer.header"),
    (ConcurrencyRules, {"limit": 0}, "concurrency.limit"),
]


@pytest.mark.parametrize(
    ("rules", "fields", "path"),
    INVALID,
    ids=[
        f"{path}-{'-'.join(str(value) for value in fields.values())}".replace("/", "_")
        for _, fields, path in INVALID
    ],
)
def test_what_cannot_work_is_refused(rules: type, fields: dict[str, Any], path: str) -> None:
    """The error names the field by its path, and the value or what is possible instead."""
    with pytest.raises(ConfigError) as caught:
        rules(**fields)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert any(str(value) in said for value in fields.values())


@pytest.mark.parametrize(
    ("rules", "fields"),
    [
        (BreakerRules, {"failure_ratio": 1.0, "min_calls": 1, "jitter": 0.0, "permits": 1, "successes": 1}),
        (
            BreakerRules,
            {"open_s": 5.0, "max_open_s": 5.0, "jitter": 1.0, "consecutive": 1, "slow_ratio": 0.01},
        ),
        (BudgetRules, {"ratio": 0.0, "floor_per_s": 0.0}),
        (BudgetRules, {"ratio": 1.0}),
        (BackoffRules, {"initial_s": 0.0, "max_s": 0.0, "multiplier": 1.0, "jitter": 0.0}),
        (RetryRules, {"attempts": 1, "retry_on": frozenset()}),
        (RetryRules, {"attempts": 10}),
        (HedgeRules, {"quantile": 0.5, "min_delay_s": 0.0, "max_extra": 5, "max_ratio": 1.0}),
        (VerdictRules, {"callers": 2}),
        (EjectionRules, {"success_ratio": 0.0, "max_ratio": 0.0, "panic_ratio": 0.0}),
        (BalancerRules, {"name": "consistent_hash", "header": "user", "bound": 1.0}),
        (ConcurrencyRules, {"limit": 1}),
    ],
)
def test_what_is_just_possible_is_taken(rules: type, fields: dict[str, Any]) -> None:
    """The ends of every range belong to it."""
    made = rules(**fields)
    assert {name: getattr(made, name) for name in fields} == fields


@pytest.mark.parametrize(
    "rules",
    [
        BreakerRules,
        BudgetRules,
        BackoffRules,
        RetryRules,
        HedgeRules,
        VerdictRules,
        EjectionRules,
        ConcurrencyRules,
    ],
)
def test_rules_are_values(rules: type) -> None:
    """Equal ones are equal, so that a policy that changes nothing is seen to change nothing; none can be altered."""
    made = rules()
    assert made == rules()
    assert hash(made) == hash(rules())
    with pytest.raises(AttributeError):
        setattr(made, made.__struct_fields__[0], 1)


def test_every_balancer_has_rules() -> None:
    """Each name that is listed can be asked for."""
    assert [BalancerRules(name=name).name for name in BALANCERS] == list(BALANCERS)

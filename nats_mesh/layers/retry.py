"""Another attempt, where the first surely did no harm, and where the destination can bear it.

Above the breaker and the balancer: each attempt passes both anew. The decision is :func:`nats_mesh.core.retry.decide`;
what all callers of this process spend on a service comes out of one budget (:mod:`nats_mesh.core.budget`).
"""

from __future__ import annotations

from collections.abc import Callable

from nats_mesh.core.budget import RetryBudget
from nats_mesh.core.retry import attempt_timeout_s, decide, failure_of
from nats_mesh.core.rules import RetryRules
from nats_mesh.errors import CallError
from nats_mesh.layers.breaker import Tell

__all__ = ["Retries"]


class Retries:
    """The retries of one destination endpoint. ``made`` counts them, ``denied`` those the budget had no room for."""

    __slots__ = ("_chance", "_tell", "bounded", "budget", "denied", "made", "rules", "where")

    def __init__(
        self, rules: RetryRules, budget: RetryBudget, chance: Callable[[], float], where: str, tell: Tell
    ) -> None:
        self.rules = rules
        #: Whether an attempt has a time of its own, also where no other may follow.
        self.bounded = rules.per_try_timeout_s is not None
        self.budget = budget
        self.where = where
        self.made = 0
        self.denied = 0
        self._chance = chance
        self._tell = tell

    def time_for(self, attempt: int, remaining_s: float, *, idempotent: bool) -> float:
        """How long this attempt may take, seconds."""
        return attempt_timeout_s(self.rules, attempt, remaining_s, may_follow=idempotent)

    def delay_s(
        self,
        now: float,
        attempt: int,
        error: CallError,
        remaining_s: float,
        *,
        idempotent: bool,
        timed_out: bool,
    ) -> float:
        """How long to wait before the next attempt; negative where there is none."""
        rules = self.rules
        if attempt >= rules.attempts or error.fault:  # what was injected on purpose is to be met, not avoided
            return -1.0
        decision = decide(
            rules,
            attempt,
            failure_of(error, attempt_timed_out=timed_out),
            idempotent=idempotent,
            remaining_s=remaining_s,
            chance=self._chance,
        )
        if not decision.again:
            return -1.0
        if not self.budget.withdraw(now):
            self.denied += 1
            if (
                self.denied & (self.denied - 1) == 0
            ):  # ever more rarely: a storm must not be one of events, too
                self._tell("retry.denied", self.where, f"the retry budget is empty ({self.denied} so far)")
            return -1.0
        self.made += 1
        return decision.delay_s

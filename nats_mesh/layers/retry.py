"""Another attempt, where the first surely did no harm, and where the destination can bear it.

Above the breaker and the balancer: each attempt passes both anew. The decision is :func:`nats_mesh.core.retry.decide`;
what all callers of this process spend on a service comes out of one budget (:mod:`nats_mesh.core.budget`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nats_mesh.core.budget import RetryBudget
from nats_mesh.core.retry import (
    MIN_ATTEMPT_S,
    Decision,
    attempt_timeout_s,
    decide,
    failure_of,
    longest_backoff_s,
)
from nats_mesh.core.rules import RetryRules
from nats_mesh.core.seldom import worth_saying
from nats_mesh.errors import CallError, DeadlineExceededError
from nats_mesh.layers.breaker import Tell
from nats_mesh.model import Request
from nats_mesh.telemetry.kinds import EventKind

__all__ = ["DENIED", "Retries"]

#: What stands for a time to wait where there would be another attempt, and the budget has no room for it.
DENIED: Final = -2.0

#: What was injected on purpose is to be met, not avoided.
_INJECTED = Decision(False, 0.0, False, "injected on purpose")


class Retries:
    """The retries of one destination endpoint. ``made`` counts them, ``denied`` those the budget had no room for."""

    __slots__ = (
        "_chance",
        "_halved_from_s",
        "_tell",
        "bounded",
        "budget",
        "denied",
        "made",
        "rules",
        "where",
    )

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
        #: By attempt but the last: with less than this left, seconds, half of it has no room for the longest wait and
        #: another attempt.
        self._halved_from_s = [
            2.0 * (longest_backoff_s(rules.backoff, attempt) + MIN_ATTEMPT_S)
            for attempt in range(1, rules.attempts)
        ]

    def time_for(self, now: float, attempt: int, remaining_s: float, *, idempotent: bool) -> float:
        """How long this attempt may take, seconds: all the time there is where there is no time for another, or the
        budget has none for it."""
        halved_from_s = self._halved_from_s
        if idempotent and attempt <= len(halved_from_s):
            idempotent = remaining_s >= halved_from_s[attempt - 1]
        timeout_s = attempt_timeout_s(self.rules, attempt, remaining_s, may_follow=idempotent)
        if timeout_s < remaining_s and self.budget.left(now) < 1.0:
            return attempt_timeout_s(self.rules, attempt, remaining_s, may_follow=False)
        return timeout_s

    def after(self, now: float, request: Request, error: CallError, *, keyed: bool) -> float:
        """How long to wait, seconds, before the attempt after the one that ended with ``error``; negative where there
        is none.

        ``keyed``: every instance knows the idempotency keys of the others, so that with one a second attempt gets the
        reply of the first. Not where the first was cut off by its time: then it was stopped, and there is no reply.
        """
        decision = self.decision(now, request, error, keyed=keyed)
        if not decision.again:
            return -1.0
        if not self.budget.withdraw(now):
            self.denied += 1
            if worth_saying(self.denied):  # a storm must not be one of events, too
                self._tell(
                    EventKind.RETRY_DENIED, self.where, f"the retry budget is empty ({self.denied} so far)"
                )
            return DENIED
        self.made += 1
        return decision.delay_s

    def decision(self, now: float, request: Request, error: CallError, *, keyed: bool) -> Decision:
        """Whether another attempt is wanted, and why (not): all that :meth:`after` goes by, but for the budget."""
        if error.fault:
            return _INJECTED
        remaining_s = request.deadline - now
        timed_out = isinstance(error, DeadlineExceededError) and remaining_s > MIN_ATTEMPT_S
        repeatable = keyed and request.idempotency_key is not None and not timed_out
        return decide(
            self.rules,
            request.attempt,
            failure_of(error, attempt_timed_out=timed_out),
            idempotent=bool(request.idempotent) or repeatable,
            remaining_s=remaining_s,
            chance=self._chance,
        )

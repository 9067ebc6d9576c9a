"""Whether a failed attempt is followed by another, when, and how long each may take.

A second attempt needs three things: a failure that another attempt may not meet, certainty that a handler is not run
twice against its owner's will (Google SRE, ch. 22; what ran or not is data on the error, as in Finagle), and time. The
wait grows exponentially with jitter (M. Brooker, "Exponential Backoff and Jitter", AWS 2015), unless the other side
says how long to wait, as gRPC's pushback does (gRFC A6). Whether the destination can bear it is asked afterwards,
of the budget (:mod:`nats_mesh.core.budget`).

Rejected: "full jitter" (uniform from 0): half of the waits are then shorter than half of what was meant, and here
the budget, not the wait, is what bounds a storm. Retrying whatever has an error class for it: the class says what
happened, not whether something ran.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from nats_mesh.core.rules import BackoffRules, RetryCondition, RetryRules
from nats_mesh.errors import CallError, CircuitOpenError, Executed, NoInstancesError, Refused, Status

__all__ = [
    "MIN_ATTEMPT_S",
    "REASONS",
    "Decision",
    "Failure",
    "attempt_timeout_s",
    "backoff_s",
    "condition_of",
    "decide",
    "failure_of",
    "longest_backoff_s",
]

#: With less time left after the wait, seconds, another attempt cannot end well: no timeout on the wire is shorter.
MIN_ATTEMPT_S: Final = 0.001

ATTEMPTS_USED: Final = "attempts used up"
CIRCUIT_OPEN: Final = "the circuit is open"
NOT_RETRYABLE: Final = "not retryable"
MAY_HAVE_RUN: Final = "may have run, and is not idempotent"
NO_TIME: Final = "no time left"
#: Why there is no other attempt. Where there is one, the reason is its :data:`~nats_mesh.core.rules.RetryCondition`.
REASONS: Final[tuple[str, ...]] = (ATTEMPTS_USED, CIRCUIT_OPEN, NOT_RETRYABLE, MAY_HAVE_RUN, NO_TIME)

_REFUSED: Final = frozenset({Refused.DRAINING, Refused.CONCURRENCY, Refused.RATE})
#: Refusals that another attempt would meet as well, whatever their status.
_FINAL: Final = frozenset(
    {Refused.ACCESS, Refused.AUTHN, Refused.DEADLINE, Refused.UNIMPLEMENTED, Refused.INVALID}
)
_BY_STATUS: Final[dict[Status, RetryCondition]] = {
    Status.UNAVAILABLE: "unavailable",
    Status.RESOURCE_EXHAUSTED: "resource-exhausted",
    Status.INTERNAL: "internal",
    Status.UNKNOWN: "internal",
}


class Failure(msgspec.Struct, frozen=True):
    """What a decision needs to know of a failed attempt.

    ``attempt_timed_out``: the attempt's time was over, the call's was not. ``circuit_open``: the caller's own
    breaker refused it.
    """

    status: Status
    executed: Executed
    refused: Refused | None = None
    no_instances: bool = False
    attempt_timed_out: bool = False
    retry_after_s: float | None = None
    circuit_open: bool = False


class Decision(msgspec.Struct, frozen=True):
    """Whether to try ``again``, after ``delay_s`` seconds, ``elsewhere`` (at another instance, where one can be
    chosen), and the ``reason``: one of :data:`REASONS`, or the condition under which it is retried."""

    again: bool
    delay_s: float
    elsewhere: bool
    reason: str


_ATTEMPTS_USED: Final = Decision(False, 0.0, False, ATTEMPTS_USED)
_CIRCUIT_OPEN: Final = Decision(False, 0.0, False, CIRCUIT_OPEN)
_NOT_RETRYABLE: Final = Decision(False, 0.0, False, NOT_RETRYABLE)
_MAY_HAVE_RUN: Final = Decision(False, 0.0, False, MAY_HAVE_RUN)
_NO_TIME: Final = Decision(False, 0.0, False, NO_TIME)


def failure_of(error: CallError, *, attempt_timed_out: bool) -> Failure:
    """What ``error`` says. ``attempt_timed_out`` is what only the caller knows: that the call had time left."""
    return Failure(
        status=error.status,
        executed=error.executed,
        refused=error.refused,
        no_instances=isinstance(error, NoInstancesError),
        attempt_timed_out=attempt_timed_out,
        retry_after_s=error.retry_after_s,
        circuit_open=isinstance(error, CircuitOpenError),
    )


def condition_of(failure: Failure) -> RetryCondition | None:
    """Under which condition this failure may be retried; ``None`` for what another attempt would meet as well.

    An attempt whose time was over on arrival is refused as ``deadline``: where the call has time left, that is a
    time-out of the attempt like any other.
    """
    refused = failure.refused
    if refused is not None:
        if refused in _REFUSED:
            return "refused"
        if refused in _FINAL and not (refused is Refused.DEADLINE and failure.attempt_timed_out):
            return None
    if failure.no_instances:
        return "refused"
    if failure.attempt_timed_out:
        return "attempt-timeout"
    return _BY_STATUS.get(failure.status)


def decide(
    rules: RetryRules,
    attempt: int,
    failure: Failure,
    *,
    idempotent: bool,
    remaining_s: float,
    chance: Callable[[], float],
) -> Decision:
    """What follows ``attempt`` (the first is 1), which ended in ``failure`` with ``remaining_s`` left of the call.

    Reasons against are looked for in the order of :data:`REASONS`. The other side's ``retry_after_s`` wins over
    the backoff; where it is longer than the call has, there is no other attempt. ``chance`` is uniform in [0, 1).
    """
    if attempt >= rules.attempts:
        return _ATTEMPTS_USED
    if failure.circuit_open:
        return _CIRCUIT_OPEN
    condition = condition_of(failure)
    if condition is None or condition not in rules.retry_on:
        return _NOT_RETRYABLE
    if failure.executed is not Executed.NO and not idempotent:
        return _MAY_HAVE_RUN
    asked_s = failure.retry_after_s
    delay_s = backoff_s(rules.backoff, attempt, chance) if asked_s is None else max(0.0, asked_s)
    if remaining_s - delay_s < MIN_ATTEMPT_S:
        return _NO_TIME
    # What was never sent, for reasons of this side, says nothing about any instance.
    unsent = failure.executed is Executed.NO and failure.refused is None and not failure.no_instances
    return Decision(True, delay_s, not unsent, condition)


def backoff_s(rules: BackoffRules, attempt: int, chance: Callable[[], float]) -> float:
    """How long to wait after ``attempt``: min(initial × multiplier ⁿ⁻¹, max) × (1 ± jitter), seconds."""
    wait_s = rules.initial_s
    for _ in range(attempt - 1):
        if wait_s >= rules.max_s:
            break
        wait_s *= rules.multiplier
    return min(wait_s, rules.max_s) * (1.0 - rules.jitter + 2.0 * rules.jitter * chance())


def longest_backoff_s(rules: BackoffRules, attempt: int) -> float:
    """The longest wait that jitter makes of the one after ``attempt``, seconds."""
    return backoff_s(rules, attempt, lambda: 1.0)


def attempt_timeout_s(rules: RetryRules, attempt: int, remaining_s: float, *, may_follow: bool) -> float:
    """How long ``attempt`` may take, seconds; never more than ``remaining_s``.

    Half of what is left where another may follow after a time-out: ``may_follow`` (the call is idempotent, and the
    other half has time for another), attempts are left, and ``attempt-timeout`` is retried. ``per_try_timeout_s``
    bounds it in any case.
    """
    timeout_s = remaining_s
    if may_follow and attempt < rules.attempts and "attempt-timeout" in rules.retry_on:
        timeout_s = remaining_s / 2.0
    if rules.per_try_timeout_s is not None and rules.per_try_timeout_s < timeout_s:
        return rules.per_try_timeout_s
    return timeout_s

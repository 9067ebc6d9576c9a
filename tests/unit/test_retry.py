"""The retry decision: what may be tried again, what may not and why, when, and with how much time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.budget import RetryBudget
from nats_mesh.core.retry import (
    MIN_ATTEMPT_S,
    REASONS,
    Decision,
    Failure,
    attempt_timeout_s,
    backoff_s,
    decide,
    failure_of,
)
from nats_mesh.core.rules import BackoffRules, RetryCondition, RetryRules
from nats_mesh.errors import (
    ApplicationError,
    CallError,
    CancelledByPeerError,
    CircuitOpenError,
    DeadlineExceededError,
    DisconnectedError,
    Executed,
    NoInstancesError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitedError,
    Refused,
    RemoteError,
    Status,
)
from nats_mesh.layers.retry import Retries

ALL_CONDITIONS: frozenset[RetryCondition] = frozenset(
    {"refused", "unavailable", "attempt-timeout", "resource-exhausted", "internal"}
)
EVERYTHING = RetryRules(attempts=5, retry_on=ALL_CONDITIONS)
NO, MAYBE, YES = Executed.NO, Executed.MAYBE, Executed.YES


def middle() -> float:
    """Chance without jitter."""
    return 0.5


def decided(
    failure: Failure,
    rules: RetryRules = EVERYTHING,
    *,
    attempt: int = 1,
    idempotent: bool = False,
    remaining_s: float = 5.0,
) -> Decision:
    """The decision after an attempt that left plenty of time."""
    return decide(rules, attempt, failure, idempotent=idempotent, remaining_s=remaining_s, chance=middle)


# -- what is tried again ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "alone", "idempotent"),
    [
        # Refused before the handler ran: any call, by itself.
        (Failure(Status.UNAVAILABLE, NO, Refused.DRAINING), "refused", "refused"),
        (Failure(Status.RESOURCE_EXHAUSTED, NO, Refused.CONCURRENCY), "refused", "refused"),
        (Failure(Status.RESOURCE_EXHAUSTED, NO, Refused.RATE), "refused", "refused"),
        (Failure(Status.UNAVAILABLE, NO, no_instances=True), "refused", "refused"),
        (Failure(Status.UNAVAILABLE, NO, Refused.IDEMPOTENCY), "unavailable", "unavailable"),
        (Failure(Status.RESOURCE_EXHAUSTED, NO, Refused.QUOTA), "resource-exhausted", "resource-exhausted"),
        # Never sent.
        (Failure(Status.UNAVAILABLE, NO), "unavailable", "unavailable"),
        # May have run, or has: idempotent calls alone.
        (Failure(Status.UNAVAILABLE, MAYBE), "may have run", "unavailable"),
        (Failure(Status.UNAVAILABLE, YES), "may have run", "unavailable"),
        (Failure(Status.INTERNAL, YES), "may have run", "internal"),
        (Failure(Status.UNKNOWN, YES), "may have run", "internal"),
        (Failure(Status.RESOURCE_EXHAUSTED, YES), "may have run", "resource-exhausted"),
        (Failure(Status.DEADLINE_EXCEEDED, MAYBE, attempt_timed_out=True), "may have run", "attempt-timeout"),
        (Failure(Status.DEADLINE_EXCEEDED, YES, attempt_timed_out=True), "may have run", "attempt-timeout"),
        (
            Failure(Status.DEADLINE_EXCEEDED, NO, Refused.DEADLINE, attempt_timed_out=True),
            "attempt-timeout",
            "attempt-timeout",
        ),
        # Another attempt would meet the same.
        (Failure(Status.DEADLINE_EXCEEDED, MAYBE), "not retryable", "not retryable"),
        (Failure(Status.DEADLINE_EXCEEDED, NO, Refused.DEADLINE), "not retryable", "not retryable"),
        (Failure(Status.PERMISSION_DENIED, NO, Refused.ACCESS), "not retryable", "not retryable"),
        (Failure(Status.UNAUTHENTICATED, NO, Refused.AUTHN), "not retryable", "not retryable"),
        (Failure(Status.UNAVAILABLE, NO, Refused.AUTHN), "not retryable", "not retryable"),
        (Failure(Status.UNIMPLEMENTED, NO, Refused.UNIMPLEMENTED), "not retryable", "not retryable"),
        (Failure(Status.INVALID_ARGUMENT, NO, Refused.INVALID), "not retryable", "not retryable"),
        (Failure(Status.UNAVAILABLE, NO, circuit_open=True), "the circuit is open", "the circuit is open"),
        *(
            (Failure(status, executed), "not retryable", "not retryable")
            for executed in (NO, YES)
            for status in (
                Status.CANCELLED,
                Status.INVALID_ARGUMENT,
                Status.NOT_FOUND,
                Status.ALREADY_EXISTS,
                Status.PERMISSION_DENIED,
                Status.UNAUTHENTICATED,
                Status.FAILED_PRECONDITION,
                Status.ABORTED,
                Status.OUT_OF_RANGE,
                Status.UNIMPLEMENTED,
                Status.DATA_LOSS,
            )
        ),
    ],
    ids=str,
)
def test_what_is_tried_again(failure: Failure, alone: str, idempotent: str) -> None:
    """Each failure, of a call that is not idempotent and of one that is: the condition, or why not."""
    for expected, is_idempotent in ((alone, False), (idempotent, True)):
        decision = decided(failure, idempotent=is_idempotent)
        assert decision.reason.startswith(expected)
        assert decision.again is (decision.reason in ALL_CONDITIONS)
        assert decision.again or decision.reason in REASONS


@pytest.mark.parametrize("condition", sorted(ALL_CONDITIONS))
def test_only_what_is_asked_for_is_tried_again(condition: RetryCondition) -> None:
    """A failure whose condition is not in ``retry_on`` is not retried, one whose condition is, is."""
    failures: dict[str, Failure] = {
        "refused": Failure(Status.UNAVAILABLE, NO, no_instances=True),
        "unavailable": Failure(Status.UNAVAILABLE, MAYBE),
        "attempt-timeout": Failure(Status.DEADLINE_EXCEEDED, MAYBE, attempt_timed_out=True),
        "resource-exhausted": Failure(Status.RESOURCE_EXHAUSTED, YES),
        "internal": Failure(Status.INTERNAL, YES),
    }
    rules = RetryRules(attempts=2, retry_on=frozenset({condition}))
    again = {name for name, failure in failures.items() if decided(failure, rules, idempotent=True).again}
    assert again == {condition}


def test_by_default() -> None:
    """With no policy: two attempts, for refusals, UNAVAILABLE and time-outs; any other failure is the answer."""
    rules = RetryRules()
    for failure in (
        Failure(Status.UNAVAILABLE, NO, Refused.DRAINING),
        Failure(Status.UNAVAILABLE, YES),
        Failure(Status.DEADLINE_EXCEEDED, MAYBE, attempt_timed_out=True),
    ):
        assert decided(failure, rules, idempotent=True).again
        assert decided(failure, rules, attempt=2, idempotent=True).reason == "attempts used up"
    for failure in (Failure(Status.INTERNAL, YES), Failure(Status.RESOURCE_EXHAUSTED, YES)):
        assert decided(failure, rules, idempotent=True).reason == "not retryable"


def test_reasons_are_looked_for_in_one_order() -> None:
    """Of several reasons against, the first in the list is said."""
    worst = Failure(Status.INVALID_ARGUMENT, YES, retry_after_s=10.0, circuit_open=True)
    steps: list[dict[str, Any]] = [
        {},
        {"attempt": 1},
        {"circuit_open": False},
        {"status": Status.UNAVAILABLE},
    ]
    attempt, said = 5, []
    for step in steps:
        attempt = step.pop("attempt", attempt)
        worst = msgspec.structs.replace(worst, **step)
        said.append(decided(worst, attempt=attempt).reason)
    said.append(decided(worst, attempt=attempt, idempotent=True).reason)
    assert said == list(REASONS)


@given(
    st.builds(
        Failure,
        status=st.sampled_from([status for status in Status if status is not Status.OK]),
        executed=st.sampled_from(Executed),
        refused=st.none() | st.sampled_from(Refused),
        no_instances=st.booleans(),
        attempt_timed_out=st.booleans(),
        retry_after_s=st.none() | st.floats(-1.0, 10.0),
    ),
    st.integers(1, 6),
    st.booleans(),
    st.floats(-1.0, 10.0),
    st.floats(0.0, 1.0, exclude_max=True),
)
def test_no_decision_does_harm(
    failure: Failure, attempt: int, idempotent: bool, remaining_s: float, chance: float
) -> None:
    """Whatever happened: nothing that may have run is repeated unasked, no wait is negative or outlasts the call."""
    decision = decide(
        EVERYTHING, attempt, failure, idempotent=idempotent, remaining_s=remaining_s, chance=lambda: chance
    )
    if decision.again:
        assert idempotent or failure.executed is NO
        assert attempt < EVERYTHING.attempts
        assert 0.0 <= decision.delay_s <= remaining_s - MIN_ATTEMPT_S + 1e-9
        assert decision.reason in EVERYTHING.retry_on
    else:
        assert (decision.delay_s, decision.elsewhere) == (0.0, False)
        assert decision.reason in REASONS


# -- where and when ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "elsewhere"),
    [
        (Failure(Status.UNAVAILABLE, NO, Refused.DRAINING), True),
        (Failure(Status.UNAVAILABLE, NO, no_instances=True), True),
        (Failure(Status.UNAVAILABLE, YES), True),
        (Failure(Status.DEADLINE_EXCEEDED, MAYBE, attempt_timed_out=True), True),
        (Failure(Status.UNAVAILABLE, NO), False),  # the bus was away: no instance is to blame
    ],
    ids=str,
)
def test_the_next_attempt_goes_elsewhere(failure: Failure, elsewhere: bool) -> None:
    """Away from an instance that failed, refused, was silent or is gone."""
    assert decided(failure, idempotent=True).elsewhere is elsewhere


@pytest.mark.parametrize(
    ("asked_s", "remaining_s", "delay_s"),
    [
        (0.0, 1.0, 0.0),
        (0.3, 1.0, 0.3),
        (-5.0, 1.0, 0.0),
        (0.999, 1.0, 0.999),
        (1.0, 1.0, None),
        (60.0, 1.0, None),
        (0.0, 0.0005, None),
        (0.0, 0.0, None),
        (0.0, -1.0, None),
        (None, 1.0, 0.025),
        (None, 0.027, 0.025),
        (None, 0.0255, None),
    ],
)
def test_the_wait(asked_s: float | None, remaining_s: float, delay_s: float | None) -> None:
    """What the other side asks for wins over the backoff, is never negative, and must leave time for an attempt."""
    failure = Failure(Status.RESOURCE_EXHAUSTED, NO, Refused.CONCURRENCY, retry_after_s=asked_s)
    decision = decided(failure, remaining_s=remaining_s)
    assert decision.again is (delay_s is not None)
    assert decision.delay_s == pytest.approx(delay_s or 0.0)
    assert decision.reason == ("no time left" if delay_s is None else "refused")


def test_a_draining_instance_is_left_at_once() -> None:
    """What it says when it refuses: come back now, to another one."""
    failure = Failure(Status.UNAVAILABLE, NO, Refused.DRAINING, retry_after_s=0.0)
    assert decided(failure) == Decision(True, 0.0, True, "refused")


@given(
    st.floats(0.0, 1.0),
    st.floats(0.0, 10.0),
    st.floats(1.0, 1e300),
    st.floats(0.0, 1.0),
    st.integers(1, 10),
    st.floats(0.0, 1.0, exclude_max=True),
)
def test_backoff_grows_up_to_its_limit(
    initial: float, more: float, multiplier: float, jitter: float, attempt: int, chance: float
) -> None:
    """min(initial × multiplier ⁿ⁻¹, max) × (1 ± jitter), whatever the numbers."""
    rules = BackoffRules(initial_s=initial, max_s=initial + more, multiplier=multiplier, jitter=jitter)
    try:
        grown = initial * multiplier ** (attempt - 1)
    except OverflowError:
        grown = rules.max_s if initial else 0.0
    plain = min(grown, rules.max_s)
    wait = backoff_s(rules, attempt, lambda: chance)
    assert plain * (1.0 - jitter) - 1e-9 <= wait <= plain * (1.0 + jitter) * (1.0 + 1e-9)
    assert wait == pytest.approx(plain * (1.0 - jitter + 2.0 * jitter * chance), rel=1e-9)


# -- time per attempt -------------------------------------------------------------------------------

WITHOUT_TIMEOUT = RetryRules(attempts=2, retry_on=frozenset({"refused", "unavailable"}))


@pytest.mark.parametrize(
    ("rules", "attempt", "remaining_s", "may_follow", "expected_s"),
    [
        (RetryRules(), 1, 4.0, True, 2.0),
        (RetryRules(), 1, 4.0, False, 4.0),
        (RetryRules(), 2, 2.0, True, 2.0),
        (RetryRules(attempts=3), 1, 4.0, True, 2.0),
        (RetryRules(attempts=3), 2, 2.0, True, 1.0),
        (RetryRules(attempts=3), 3, 1.0, True, 1.0),
        (RetryRules(attempts=1), 1, 4.0, True, 4.0),
        (WITHOUT_TIMEOUT, 1, 4.0, True, 4.0),
        (RetryRules(per_try_timeout_s=0.5), 1, 4.0, True, 0.5),
        (RetryRules(per_try_timeout_s=0.5), 1, 4.0, False, 0.5),
        (RetryRules(per_try_timeout_s=0.5), 2, 4.0, True, 0.5),
        (RetryRules(per_try_timeout_s=0.5), 1, 0.3, False, 0.3),
        (RetryRules(per_try_timeout_s=3.0), 1, 4.0, True, 2.0),
        (RetryRules(per_try_timeout_s=3.0), 1, 4.0, False, 3.0),
        (RetryRules(), 1, 0.0, True, 0.0),
    ],
)
def test_the_time_of_an_attempt(
    rules: RetryRules, attempt: int, remaining_s: float, may_follow: bool, expected_s: float
) -> None:
    """Half of what is left where another attempt may follow a time-out, else all; a limit per attempt bounds both."""
    assert attempt_timeout_s(rules, attempt, remaining_s, may_follow=may_follow) == expected_s


def retries_with(rules: RetryRules) -> Retries:
    """Those of a caller whose budget has room."""
    budget = RetryBudget(rules.budget)
    budget.deposit(0.0)
    return Retries(rules, budget, middle, "a.get", lambda kind, target, detail: None)


@pytest.mark.parametrize(
    ("rules", "attempt", "remaining_s", "expected_s"),
    [
        (RetryRules(), 1, 0.003, 0.003),
        (
            RetryRules(),
            1,
            0.0619,
            0.0619,
        ),  # the other half, and not all of the longest wait and a millisecond
        (RetryRules(), 1, 0.0621, 0.03105),
        (RetryRules(), 2, 1.0, 1.0),
        (RetryRules(attempts=3), 2, 0.1, 0.1),  # this wait is twice as long
        (RetryRules(attempts=3), 2, 0.2, 0.1),
        (RetryRules(backoff=BackoffRules(initial_s=0.0, max_s=0.0)), 1, 0.003, 0.0015),
        (RetryRules(backoff=BackoffRules(initial_s=0.0, max_s=0.0)), 1, 0.0015, 0.0015),
        (RetryRules(per_try_timeout_s=0.002), 1, 0.003, 0.002),
    ],
)
def test_an_attempt_has_all_the_time_where_no_other_fits(
    rules: RetryRules, attempt: int, remaining_s: float, expected_s: float
) -> None:
    """Half of the time is kept back for another attempt only where that finds room there after any wait."""
    assert retries_with(rules).time_for(0.0, attempt, remaining_s, idempotent=True) == expected_s


@given(
    remaining_s=st.floats(0.0, 2.0),
    attempt=st.integers(1, 4),
    initial_s=st.floats(0.0, 0.3),
    jitter=st.floats(0.0, 1.0),
    chance=st.floats(0.0, 1.0, exclude_max=True),
)
def test_time_that_is_kept_back_is_used(
    remaining_s: float, attempt: int, initial_s: float, jitter: float, chance: float
) -> None:
    """Where an attempt gets less than there is, another one follows its time-out, whatever the jitter."""
    backoff = BackoffRules(initial_s=initial_s, max_s=max(0.25, initial_s), jitter=jitter)
    rules = RetryRules(attempts=4, backoff=backoff)
    has_s = retries_with(rules).time_for(0.0, attempt, remaining_s, idempotent=True)
    if has_s < remaining_s:
        late = Failure(Status.DEADLINE_EXCEEDED, MAYBE, attempt_timed_out=True)
        left_s = remaining_s - has_s + 1e-9  # two roundings
        decision = decide(rules, attempt, late, idempotent=True, remaining_s=left_s, chance=lambda: chance)
        assert decision.again


# -- from errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "timed_out", "failure"),
    [
        (NoInstancesError("none"), False, Failure(Status.UNAVAILABLE, NO, no_instances=True)),
        (DisconnectedError("away", executed=NO), False, Failure(Status.UNAVAILABLE, NO)),
        (DisconnectedError("lost"), False, Failure(Status.UNAVAILABLE, MAYBE)),
        (CircuitOpenError("open"), False, Failure(Status.UNAVAILABLE, NO, circuit_open=True)),
        (
            DeadlineExceededError("late"),
            True,
            Failure(Status.DEADLINE_EXCEEDED, MAYBE, attempt_timed_out=True),
        ),
        (DeadlineExceededError("late"), False, Failure(Status.DEADLINE_EXCEEDED, MAYBE)),
        (CancelledByPeerError("stop"), False, Failure(Status.CANCELLED, MAYBE)),
        (PermissionDeniedError("no"), False, Failure(Status.PERMISSION_DENIED, NO)),
        (
            OverloadedError("bye", status=Status.UNAVAILABLE, refused=Refused.DRAINING, retry_after_s=0.0),
            False,
            Failure(Status.UNAVAILABLE, NO, Refused.DRAINING, retry_after_s=0.0),
        ),
        (
            RateLimitedError("slowly", refused=Refused.RATE, retry_after_s=0.2),
            False,
            Failure(Status.RESOURCE_EXHAUSTED, NO, Refused.RATE, retry_after_s=0.2),
        ),
        (RemoteError("broken", status=Status.INTERNAL), False, Failure(Status.INTERNAL, YES)),
        (ApplicationError("gone", status=Status.NOT_FOUND), False, Failure(Status.NOT_FOUND, YES)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, CallError) else "",
)
def test_what_an_error_says(error: CallError, timed_out: bool, failure: Failure) -> None:
    """Everything the decision needs is data on the error, but for what only the caller knows: whose time was over."""
    assert failure_of(error, attempt_timed_out=timed_out) == failure

"""What a call's attempts may come to: their times, after which failures another follows, and what fails for sure.

It asks what every call asks (:mod:`nats_mesh.layers.retry`), with failures that nobody has met.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from nats_mesh.calling.exchange import Target
from nats_mesh.core.budget import RetryBudget
from nats_mesh.core.durations import duration_text
from nats_mesh.core.retry import MIN_ATTEMPT_S
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.errors import (
    CallError,
    CircuitOpenError,
    DeadlineExceededError,
    Executed,
    NoInstancesError,
    RemoteError,
    Status,
)
from nats_mesh.layers.retry import Retries
from nats_mesh.model import Request

__all__ = ["Ending", "Retry", "Silence", "attempts_of", "endings_of", "retries_of"]

#: How attempts may end, and an error that says so: each as its caller gets it.
_FAILURES: tuple[tuple[str, CallError], ...] = (
    ("nobody listens, or who does drains or is full", NoInstancesError()),
    (
        "UNAVAILABLE, or the connection broke",
        RemoteError(status=Status.UNAVAILABLE, executed=Executed.MAYBE),
    ),
    ("its time is over", DeadlineExceededError(executed=Executed.MAYBE)),
    ("RESOURCE_EXHAUSTED from the handler", RemoteError(status=Status.RESOURCE_EXHAUSTED)),
    ("INTERNAL or UNKNOWN", RemoteError(status=Status.INTERNAL)),
    ("any other error, such as NOT_FOUND", RemoteError(status=Status.NOT_FOUND)),
    ("refused by this caller's circuit", CircuitOpenError()),
)
#: Of what is drawn, the middle.
_MIDDLE = 0.5
_TIMED_OUT = DeadlineExceededError(executed=Executed.MAYBE)


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """What follows a first attempt that ended in ``failure``: another one (``again``, after about ``delay_s``), or
    none, and the ``reason``."""

    failure: str
    again: bool
    delay_s: float
    reason: str


class Silence(StrEnum):
    """What it means that no instance of a service answers: ``NOBODY`` listens there, or somebody does and is
    ``SILENT`` (hung, or stopped: the server still hands it calls). ``UNKNOWN`` where nothing tells these apart."""

    NOBODY = "nobody"
    SILENT = "silent"
    UNKNOWN = "unknown"


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """``share`` of the calls of a way end with ``status``, or ``otherwise``, for this ``reason``.

    Not ``sure``: as far as can be seen from here. ``sent``: they leave their caller before they end so.
    """

    share: float
    status: Status
    reason: str
    otherwise: Status | None = None
    sure: bool = True
    sent: bool = True


def attempts_of(target: Target, request: Request) -> tuple[float, ...]:
    """How long each attempt may take, where the one before it took all of its time."""
    if target.retries is None:
        return (request.deadline,)
    retries = _rested(target.retries)
    found: list[float] = []
    now = 0.0
    trial: Request = request.__copy__()  # type: ignore[attr-defined]  # every Struct has one, in C
    for number in range(1, retries.rules.attempts + 1):
        remaining_s = trial.deadline - now
        if remaining_s < MIN_ATTEMPT_S:
            break
        trial.attempt = number
        found.append(retries.time_for(now, number, remaining_s, idempotent=bool(trial.idempotent)))
        now += found[-1]
        decision = retries.decision(now, trial, _TIMED_OUT, keyed=target.keyed)
        if not decision.again:
            break
        now += decision.delay_s
    return tuple(found)


def retries_of(target: Target, request: Request) -> tuple[Retry, ...]:
    """What follows the first attempt, failure by failure."""
    found: list[Retry] = []
    if target.retries is None:
        return ()
    retries = _rested(target.retries)
    for failure, error in _FAILURES:
        after_s = 0.0
        if isinstance(error, DeadlineExceededError):
            after_s = retries.time_for(0.0, 1, request.deadline, idempotent=bool(request.idempotent))
            if after_s >= request.deadline:
                found.append(
                    Retry(failure=failure, again=False, delay_s=0.0, reason="that is the time of the call")
                )
                continue
        decision = retries.decision(after_s, request, error, keyed=target.keyed)
        found.append(
            Retry(
                failure=failure,
                again=decision.again,
                delay_s=decision.delay_s,
                reason=decision.reason,
            )
        )
    return tuple(found)


def _rested(retries: Retries) -> Retries:
    """The same of a caller that begins its first call: with a budget of which nothing was spent."""
    budget = RetryBudget(retries.rules.budget)
    budget.deposit(0.0)
    return Retries(retries.rules, budget, lambda: _MIDDLE, retries.where, lambda kind, target, detail: None)


def endings_of(
    target: Target,
    timeout_s: float,
    instances: tuple[InfoReply, ...] | None,
    foreign: str,
    silence: Silence = Silence.UNKNOWN,
) -> tuple[Ending, ...]:
    """The calls that fail, in the order in which that is decided. ``silence`` says what it means where no instance of
    the service answers."""
    found: list[Ending] = []
    left = 1.0
    fault = None if target.effects is None else target.effects.fault
    if fault is not None and fault.delay_s >= timeout_s:
        share = min(1.0, fault.delay_share)
        reason = f"a route delays it by {duration_text(fault.delay_s)}, and it has {duration_text(timeout_s)}"
        found.append(Ending(share=share, status=Status.DEADLINE_EXCEEDED, reason=reason, sent=False))
        left -= share
    if fault is not None and fault.abort is not None and left > 0.0:
        share = left * min(1.0, fault.abort_share)
        reason = "a route fails it on purpose"
        found.append(Ending(share=share, status=fault.abort, reason=reason, sent=False))
        left -= share
    if instances is not None and not instances and not foreign and left > 0.0:
        found.append(_unanswered(target, left, silence))
    elif instances and left > 0.0:
        found += _at_instances(target, timeout_s, instances, left)
    return tuple([each for each in found if each.share > 0.0])


def _unanswered(target: Target, left: float, silence: Silence) -> Ending:
    """Where no instance that answers takes such calls."""
    where = f"subset {target.subset} of {target.service}" if target.subset else target.service
    if silence is Silence.NOBODY:
        return Ending(share=left, status=Status.UNAVAILABLE, reason=f"no instance of {where} takes calls")
    if silence is Silence.SILENT and not target.subset:
        reason = (
            f"an instance of {where} is connected and answers nothing (hung, or stopped), so the call waits until its "
            "time is over"
        )
        return Ending(share=left, status=Status.DEADLINE_EXCEEDED, reason=reason, sure=False)
    reason = (
        f"no instance of {where} that answers takes calls: at once where there is no other, and when its time is over "
        "where one is silent (hung, or stopped)"
    )
    return Ending(
        share=left, status=Status.UNAVAILABLE, otherwise=Status.DEADLINE_EXCEEDED, reason=reason, sure=False
    )


def _at_instances(
    target: Target, timeout_s: float, instances: tuple[InfoReply, ...], left: float
) -> list[Ending]:
    """What every instance would answer alike."""
    if all(target.endpoint not in [each.name for each in info.endpoints] for info in instances):
        reason = f"no instance of {target.service} has an endpoint {target.endpoint}"
        return [Ending(share=left, status=Status.UNIMPLEMENTED, reason=reason)]
    return []

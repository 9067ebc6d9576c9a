"""The circuit of one destination endpoint, at its caller: while it is open nothing is sent there.

Below retry, so that every attempt counts, and above the wire, so that what is refused costs nothing. Whether the
endpoint works is asked here; whether one of its instances does is another question (``layers/balance.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from nats_mesh.core.breaker import Breaker, BreakerState, Transition
from nats_mesh.core.rules import BreakerRules
from nats_mesh.errors import (
    CallError,
    CircuitOpenError,
    DisconnectedError,
    Executed,
    Refused,
    Status,
)
from nats_mesh.telemetry.flags import NEXT_TRY
from nats_mesh.telemetry.kinds import EventKind

__all__ = ["Circuit", "Tell", "is_failure"]

#: ``(kind, target, detail)``: how a layer says what happened; must not raise.
Tell: TypeAlias = Callable[[str, str, str], None]

#: Refusals that say nothing about whether the endpoint works: somebody else will take the call, or nobody should.
_NO_VERDICT = frozenset(Refused) - {Refused.DEADLINE}

_OWN_WHY = "too many of the last calls failed"

_KINDS = {
    BreakerState.CLOSED: EventKind.BREAKER_CLOSED,
    BreakerState.OPEN: EventKind.BREAKER_OPEN,
    BreakerState.HALF_OPEN: EventKind.BREAKER_HALF_OPEN,
}


def is_failure(error: CallError) -> bool | None:
    """Whether this end of an attempt counts against its endpoint; ``None``: it says nothing about it.

    Statuses from 500 on do. What never reached an instance (no responders, the bus away, this client full, a
    breaker) and what an instance refused for reasons of its own say nothing.
    """
    if error.executed is Executed.NO and error.refused is None and not error.fault:
        return None  # it never got there
    if isinstance(error, DisconnectedError) or error.status is Status.UNIMPLEMENTED:
        return None
    if error.refused is not None and error.refused in _NO_VERDICT:
        return None
    return error.status.code >= 500


class Circuit:
    """A breaker, what it is called, and who hears of its changes. ``refused`` counts calls that it ended.

    ``on_change`` hears of changes that this caller's own calls made, and of no others: see ``calling/breaking.py``.
    """

    __slots__ = ("_tell", "_why", "breaker", "on_change", "refused", "where")

    def __init__(self, rules: BreakerRules, chance: Callable[[], float], where: str, tell: Tell) -> None:
        self.breaker = Breaker(rules, chance)
        self.where = where
        self.refused = 0
        self.on_change: Callable[[Transition], None] | None = None
        self._tell = tell
        self._why = _OWN_WHY

    def enter(self, now: float) -> int:
        """A permit to try, or :class:`CircuitOpenError`. Need not be asked while the breaker is ``closed``."""
        permit = self.breaker.enter(now)
        self.say(self.breaker.take_transition())
        if permit < 0:
            self.refused += 1
            wait_s = self.breaker.retry_after_s(now)
            state = self.breaker.state.value.lower().replace("_", "-")
            raise CircuitOpenError(
                f"the circuit of {self.where} is {state}: {self._why}{NEXT_TRY}{wait_s:.1f} s",
                retry_after_s=wait_s,
            )
        return permit

    def ended(self, now: float, permit: int, took_s: float, failed: bool | None) -> None:
        """How the attempt ended: ``None`` where that says nothing; its permit is given back all the same."""
        breaker = self.breaker
        if failed is None:
            transition = breaker.ignored(now, permit)
        elif failed:
            transition = breaker.failure(now, permit, took_s)
        else:
            transition = breaker.success(now, permit, took_s)
        if transition is not None:
            self.say(transition)

    def say(self, transition: Transition | None) -> None:
        """Tell of a change of state, where there was one."""
        if transition is not None:
            if transition.new is BreakerState.OPEN:
                self._why = _OWN_WHY
            self._tell(_KINDS[transition.new], self.where, transition.reason)
            if self.on_change is not None:
                self.on_change(transition)

    def agreed(self, now: float, why: str) -> bool:
        """Enough callers say that the endpoint is broken; whether that opened the circuit. ``why`` names them."""
        transition = self.breaker.agreed(now, why)
        if transition is None:
            return False
        self._why = why
        self._tell(_KINDS[transition.new], self.where, why)
        return True

"""Faults that operators inject: a call waits before it goes on, or is answered with an error in the handler's place."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nats_mesh.core.fault import Faults
from nats_mesh.errors import Refused, Status
from nats_mesh.layers.base import Arrival, Refusal
from nats_mesh.wire.loop import Timer, call_later

__all__ = ["TOO_MANY", "FaultGate", "Postponed"]

#: Calls that may wait for an injected delay at a time.
_MAX_POSTPONED = 10_000

_ABORTED = "an operator injected this error (nats-mesh fault)"
_DELAYED = "an operator injected a delay (nats-mesh fault)"


class FaultGate:
    """Draws once per call. A delay is a refusal for now (:attr:`Refusal.delay_s`): the call comes again, and
    meets every gate anew. An abort says that the handler did not run, but is no ``Mesh-Refused``: nobody may retry it.
    """

    name = "fault"
    holds = False

    def __init__(
        self, endpoint: str, faults: Faults, now: Callable[[], float], chance: Callable[[], float]
    ) -> None:
        self._endpoint = endpoint
        self._faults = faults
        self._now = now
        self._chance = chance

    @property
    def present(self) -> bool:
        return self._faults.of(self._endpoint, self._now()) is not None

    def enter(self, call: Arrival) -> Refusal | None:
        if not call.drawn:
            call.drawn = True
            call.fault = self._faults.draw(self._endpoint, self._now(), self._chance)
        fault = call.fault
        if fault is None:
            return None
        if fault.delay_s and call.injected != "delay":
            call.injected, call.noted = "delay", True
            return Refusal(Status.UNAVAILABLE, None, _DELAYED, delay_s=fault.delay_s)
        if fault.abort is not None:
            call.injected, call.noted = "abort", True
            return Refusal(fault.abort, None, _ABORTED)
        return None

    def leave(self, call: Arrival) -> None:
        """Nothing was taken."""


#: What a call is told that would be one too many.
TOO_MANY = Refusal(
    Status.RESOURCE_EXHAUSTED, Refused.CONCURRENCY, "too many calls wait for an injected delay already", 1.0
)


class Postponed:
    """The calls that wait for an injected delay; ``again`` takes each when its time has come, or sooner. ``now`` says
    how long it was held (monotonic seconds)."""

    def __init__(self, again: Callable[[Arrival], None], now: Callable[[], float]) -> None:
        self._again = again
        self._now = now
        self._waiting: dict[int, tuple[Arrival, Timer]] = {}
        self._by_reply: dict[str, Arrival] = {}

    def hold(self, call: Arrival, wait_s: float) -> bool:
        """Keep a call for ``wait_s`` seconds; ``False`` where as many wait as may."""
        if len(self._waiting) >= _MAX_POSTPONED:
            return False
        call.held = self._now()
        self._waiting[id(call)] = (call, call_later(max(0.0, wait_s), self.resume, call))
        if call.reply:
            self._by_reply[call.reply] = call
        return True

    def find(self, reply: str) -> Arrival | None:
        """The call that waits and is answered at ``reply``."""
        return self._by_reply.get(reply)

    def resume(self, call: Arrival) -> None:
        """A call waits no longer, if it did."""
        waiting = self._waiting.pop(id(call), None)
        if waiting is not None:
            waiting[1].cancel()
            call.held_s = self._now() - call.held
            if self._by_reply.get(call.reply) is call:
                del self._by_reply[call.reply]
            self._again(call)

    def resume_all(self) -> None:
        """Nobody waits any longer."""
        for call, _ in list(self._waiting.values()):
            self.resume(call)

    def __iter__(self) -> Iterator[Arrival]:
        return iter([call for call, _ in self._waiting.values()])

    def __len__(self) -> int:
        return len(self._waiting)

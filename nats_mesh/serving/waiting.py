"""The calls whose handlers wait: each can be stopped by its caller, at its deadline, or because the instance leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nats_mesh.errors import Status
from nats_mesh.layers.base import Arrival
from nats_mesh.layers.fault import Postponed
from nats_mesh.wire.eager import EagerPool
from nats_mesh.wire.loop import call_later

__all__ = ["STOPPED", "Waiting"]

#: How many attempts one cancellation can name.
_MAX_CANCELLED: Final = 256
#: When to look again for a call whose cancellation may have overtaken it on its way through the client (seconds).
_OVERTAKEN_S: Final = 0.01

#: What a stopped call is answered with, and whether nobody knows how far its handler came. Who leaves answers as who
#: dies does: what may run again goes to another instance, and the caller's breaker counts a failure.
STOPPED: Final[dict[str, tuple[Status, str, bool]]] = {
    "deadline": (Status.DEADLINE_EXCEEDED, "the handler did not finish in time and was stopped", False),
    "cancelled": (Status.CANCELLED, "the caller no longer waits", False),
    "shutdown": (Status.UNAVAILABLE, "the instance is shutting down and stopped the handler", True),
}


class Waiting:
    """What waits, by itself and by the reply subject that a cancellation names. What is still in the queue of ``pool``,
    or ``postponed``, is found there."""

    __slots__ = ("_now", "_pool", "_postponed", "by_reply", "calls")

    def __init__(self, pool: EagerPool[Arrival], postponed: Postponed, now: Callable[[], float]) -> None:
        self._pool = pool
        self._postponed = postponed
        self._now = now
        self.calls: dict[int, Arrival] = {}
        self.by_reply: dict[str, Arrival] = {}

    def add(self, call: Arrival, stop: Callable[[], object]) -> None:
        """Its handler waits, and ``stop`` stops it: at its deadline at the latest."""
        call.stop = stop
        call.series.in_flight += 1
        self.calls[id(call)] = call
        if call.reply:
            self.by_reply[call.reply] = call
        call.timer = call_later(max(0.0, call.deadline - self._now()), end, call, "deadline")
        if call.ended:  # before it began to wait
            stop()

    def remove(self, call: Arrival) -> None:
        """It is over: what :meth:`add` noted is taken back."""
        if call.timer is not None:
            call.timer.cancel()
        if self.by_reply.get(call.reply) is call:
            del self.by_reply[call.reply]
        del self.calls[id(call)]
        call.stop = None
        call.series.in_flight -= 1

    def end_all(self, why: str) -> int:
        """Stop all that waits; returns how many those are."""
        calls = list(self.calls.values())
        for call in calls:
            end(call, why)
        return len(calls)

    def cancel(self, payload: bytes, caller: str, *, ordered: bool) -> None:
        """``caller`` no longer waits for one of its attempts, or for several: a line of ``payload`` names each. Where
        messages may overtake each other, those that are not here yet are looked for once more."""
        named = payload.decode("ascii", "replace").split("\n", _MAX_CANCELLED)[:_MAX_CANCELLED]
        elsewhere = self._cancel(named, caller)
        if elsewhere and not ordered:
            call_later(_OVERTAKEN_S, self._cancel, elsewhere, caller)

    def _cancel(self, replies: list[str], caller: str) -> list[str]:
        """End the calls of ``caller`` that are answered at ``replies``; returns those that are not here.

        Every instance hears of every cancellation, and most match nothing: the queue is gone through once for all of
        them, and not at all where it is empty.
        """
        unstarted: dict[str, Arrival] | None = None
        elsewhere: list[str] = []
        for reply in replies:
            call = self.by_reply.get(reply) or self._postponed.find(reply)
            if call is None:  # it may not have begun yet
                if unstarted is None:
                    unstarted = {each.reply: each for each in self._pool.unstarted() if each.reply}
                call = unstarted.get(reply)
            if call is None:
                elsewhere.append(reply)
            elif call.caller == caller:
                end(call, "cancelled")
                self._postponed.resume(call)
        return elsewhere


def end(call: Arrival, why: str) -> None:
    """Stop a call from outside; whoever runs it ends it, and answers with what :data:`STOPPED` says."""
    if not call.ended:
        call.ended = why
        if call.stop is not None:
            call.stop()

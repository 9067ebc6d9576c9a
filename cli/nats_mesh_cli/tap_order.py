"""Calls of several instances in the order in which they ended, as far as a short wait can tell. Pure.

Each instance tells of its calls in batches, ten times a second: what comes first need not have ended first. A call
waits a moment after it came, and goes with all that are known by then and ended before it. What comes later than that,
or from a host whose clock is off by more, stands where it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nats_mesh.core.presence import incarnation
from nats_mesh.telemetry.tap_feed import SeenCall
from nats_mesh.telemetry.taps import BATCH_S

__all__ = ["ORDER_S", "InOrder"]

#: How long a call waits for others (seconds): an instance's batch, and its way here.
ORDER_S: Final = 2.5 * BATCH_S


class InOrder:
    """Hands out what is put in by the instants at which it ended, each after at most ``wait_s`` seconds.

    It holds what comes within that time and no more: whoever feeds it has a rate.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        #: When each came (seconds, monotonic), what sorts it, and the call; in the order in which they came.
        self._held: list[tuple[float, str, SeenCall]] = []

    def put(self, calls: Sequence[SeenCall], now: float) -> list[SeenCall]:
        """Take some more; what has waited long enough, and what ended before it."""
        self._held += [(now, incarnation(call.at), call) for call in calls]
        waited = [at for came, at, _ in self._held if came <= now - self._wait_s]
        if not waited:
            return []
        upto = max(waited)
        gone = sorted([each for each in self._held if each[1] <= upto], key=lambda each: each[1])
        self._held = [each for each in self._held if each[1] > upto]
        return [call for _, _, call in gone]

    def rest(self) -> list[SeenCall]:
        """All that is left."""
        gone = sorted(self._held, key=lambda each: each[1])
        self._held = []
        return [call for _, _, call in gone]

    def due_s(self, now: float) -> float:
        """After how many seconds there is something to hand out; without anything, never."""
        return max(0.0, self._held[0][0] + self._wait_s - now) if self._held else float("inf")

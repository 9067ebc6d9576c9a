"""Says when an endpoint fills up, and when a slot of it is free again: what credit-based dispatch looks at."""

from __future__ import annotations

from collections.abc import Callable

from nats_mesh.layers.base import Arrival, Refusal
from nats_mesh.layers.concurrency import ConcurrencyGate

__all__ = ["CreditGate"]


class CreditGate:
    """Refuses nobody: it stands behind the concurrency gate where that one's rules say ``leave_queue``.

    ``signal`` is called when the last slot was taken, and with every call that ends while ``alert`` is set.
    """

    name = "credit"
    holds = True

    def __init__(self, concurrency: ConcurrencyGate, signal: Callable[[], None]) -> None:
        self.present = False
        self.alert = False
        self._concurrency = concurrency
        self._signal = signal

    def enter(self, call: Arrival) -> Refusal | None:
        if self._concurrency.in_flight >= self._concurrency.limit:
            self._signal()
        return None

    def leave(self, call: Arrival) -> None:
        if self.alert:
            self._signal()

"""At most so many calls of an endpoint at a time in this instance; the next is refused at once."""

from __future__ import annotations

from nats_mesh.errors import Refused, Status
from nats_mesh.layers.base import Arrival, Refusal

__all__ = ["ConcurrencyGate"]

#: What a refused caller is told to wait at least and at most, seconds.
_SHORTEST_S, _LONGEST_S = 0.005, 1.0


class ConcurrencyGate:
    """A number of slots. ``typical_s`` (how long a call usually takes) makes the advice when to come back.

    ``limit`` may change while calls run: a higher one counts from the next call on; under a lower one nobody
    is stopped, and nobody is let in until enough have ended.
    """

    name = "concurrency"
    holds = True
    present = True

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self.refused = 0
        #: The policy that says how many slots there are (empty: none does), and how many calls each has cost.
        self.policy = ""
        self.refused_by: dict[str, int] = {}
        self.typical_s = 0.025

    def enter(self, call: Arrival) -> Refusal | None:
        if self.in_flight >= self.limit:
            self.refused += 1
            self.refused_by[self.policy] = self.refused_by.get(self.policy, 0) + 1
            return Refusal(
                Status.RESOURCE_EXHAUSTED,
                Refused.CONCURRENCY,
                f"all {self.limit} slots of this instance are taken",
                min(_LONGEST_S, max(_SHORTEST_S, self.typical_s)),
            )
        self.in_flight += 1
        return None

    def leave(self, call: Arrival) -> None:
        self.in_flight -= 1

    def took(self, seconds: float) -> None:
        """Learn from a finished call (an exponentially weighted mean over about eight calls)."""
        self.typical_s += (seconds - self.typical_s) / 8.0

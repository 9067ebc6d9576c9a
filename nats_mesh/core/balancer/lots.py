"""Drawing members by lot, each as often as its weight of the moment says.

A draw is one number where all weights are equal, else a bisection of the running totals. The totals are made
anew when the members change, and from time to time while one of them is in its slow start.

Rejected: the alias method (Walker, 1977), which draws in constant time whatever the weights. Its tables cannot
leave out a part of a member, as :meth:`Lots.second` has to, and for the members of a service a bisection is as fast.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from nats_mesh.core.balancer.base import Chance, Member

__all__ = ["Lots"]

#: In how many steps a slow start is climbed.
_STEPS: Final = 64


class Lots:
    """The members of one balancer. ``even`` says that all have the same weight now; ``unit`` is the smallest whole
    weight among them."""

    __slots__ = ("_chance", "_ends", "_slow_start_s", "_stale_at", "even", "members", "unit")

    def __init__(self, slow_start_s: float, chance: Chance) -> None:
        self._slow_start_s = slow_start_s
        self._chance = chance
        self._ends: list[float] = []
        self._stale_at = -math.inf
        self.members: list[Member] = []
        self.even = True
        self.unit = 1.0

    def update(self, members: Sequence[Member]) -> None:
        """Draw from these from now on."""
        self.members = list(members)
        self._stale_at = -math.inf

    def first(self, now: float) -> int:
        """The place of one member, drawn by weight."""
        if now >= self._stale_at:
            self._weigh(now)
        if self.even:
            return int(self._chance() * len(self.members))
        return self._at(self._chance() * self._ends[-1])

    def second(self, first: int) -> int:
        """The place of another one, drawn by weight from the rest. To be called after :meth:`first`.

        A member of three times the smallest weight stands for three equal ones: once one of them is drawn,
        the other two are still among the rest. So it can be drawn again.
        """
        count = len(self.members)
        if self.even:
            other = int(self._chance() * (count - 1))
            return other + 1 if other >= first else other
        begin = self._ends[first - 1] if first > 0 else 0.0
        taken = min(self.unit, self._ends[first] - begin)
        drawn = self._chance() * (self._ends[-1] - taken)
        return self._at(drawn + taken if drawn >= begin else drawn)

    def total(self, now: float) -> float:
        """All weights together."""
        if now >= self._stale_at:
            self._weigh(now)
        return self._ends[-1]

    def worth(self, place: int) -> float:
        """The weight of the member at ``place`` as it was last looked at."""
        return self._ends[place] - self._ends[place - 1] if place > 0 else self._ends[0]

    def _at(self, drawn: float) -> int:
        return min(bisect_right(self._ends, drawn), len(self.members) - 1)

    def _weigh(self, now: float) -> None:
        total, unit, warming = 0.0, math.inf, False
        ends: list[float] = []
        lightest, heaviest = math.inf, 0.0
        for member in self.members:
            worth = member.worth(now, self._slow_start_s)
            whole = member.weight * member.share
            warming = warming or worth < whole
            unit = min(unit, whole)
            lightest, heaviest = min(lightest, worth), max(heaviest, worth)
            total += worth
            ends.append(total)
        self._ends = ends
        self.unit = unit
        self.even = lightest == heaviest
        self._stale_at = now + self._slow_start_s / _STEPS if warming else math.inf

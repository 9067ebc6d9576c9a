"""Each member in its turn, as often as its weight says, and never many times in a row.

A member of weight w is due every 1/w of a round; who is due first is chosen (stride scheduling: Waldspurger and
Weihl, 1995; Envoy's weighted round robin is of this kind). Members begin at points of the round that the golden
ratio spreads evenly, so that those of equal weight do not come in a row while a heavy one waits.

Rejected: nginx's smooth weighted round robin (add each member's weight to its credit, take the highest credit,
subtract the total from it). It is as smooth, but touches every member at each choice; this one is O(log n), and
takes the weight of the moment, so a slow start needs nothing more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from heapq import heapify, heapreplace
from typing import Final

from nats_mesh.core.balancer.base import Chance, Member
from nats_mesh.core.rules import BalancerRules

__all__ = ["RoundRobin"]

_GOLDEN: Final = 0.6180339887498949


class RoundRobin:
    """Turns survive a change of the members: who stays is due when it was, who is new joins somewhere in the round.

    Callers begin at different members, by chance.
    """

    __slots__ = ("_heap", "_now", "_phase", "_seen", "_slow_start_s")

    name: Final = "round_robin"

    def __init__(self, rules: BalancerRules, chance: Chance) -> None:
        self._slow_start_s = rules.slow_start_s
        self._phase = chance()
        self._now = 0.0
        #: When each is due, in rounds; a number that decides between two who are due at once; the member.
        self._heap: list[tuple[float, int, Member]] = []
        self._seen: Sequence[Member] | None = None

    def update(self, members: Sequence[Member]) -> None:
        begin = self._heap[0][0] if self._heap else 0.0
        due = {member.id: at - begin for at, _, member in self._heap}
        heap: list[tuple[float, int, Member]] = []
        for place, member in enumerate(members):
            period = 1.0 / member.worth(self._now, self._slow_start_s)
            at = due.get(member.id)
            if at is None:
                self._phase = (self._phase + _GOLDEN) % 1.0
                at = self._phase * period
            # Whose weight has grown does not wait as long as it would have with the old one.
            heap.append((min(at, period), place, member))
        heapify(heap)
        self._heap = heap
        self._seen = members

    def pick(
        self, members: Sequence[Member], now: float, key: str | None, avoid: Collection[str] = ()
    ) -> Member:
        if members is not self._seen:
            self.update(members)
        self._now = now
        at, place, member = self._heap[0]
        heapreplace(self._heap, (at + 1.0 / member.worth(now, self._slow_start_s), place, member))
        return member

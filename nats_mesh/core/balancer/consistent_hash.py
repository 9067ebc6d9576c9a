"""The same key to the same member, whoever asks, with a bound on what one member may get.

Members own points on a ring; a key belongs to the first point after its own hash (Karger and others, 1997). When
one of n members comes or goes, about 1/n of the keys move and no others. A key may be hot, so no member takes more
than ``bound`` times its part of this caller's calls under way; the next one on the ring takes what is over
(Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016). Hashes are BLAKE2b and not
Python's own, which differ from process to process: all callers agree.

Rejected: rendezvous hashing (needs no ring, but looks at every member for every call) and jump hashing (needs no
memory, but members can only go in the order in which they came).

The bound counts what this caller has under way, as that of Envoy and HAProxy does: what instances say about
themselves is old, and a key would wander with it.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from nats_mesh.core.balancer.base import Chance, Member, Tally
from nats_mesh.core.balancer.lots import Lots
from nats_mesh.core.rules import BalancerRules

__all__ = ["ConsistentHash"]

#: Points of the heaviest member; the others have as many as their weight says. With 128 each, parts of the ring
#: differ by about 9 % (1 / √128).
_POINTS: Final = 128
#: All points together, roughly: from 512 members on each has fewer, so that no change takes long.
_RING: Final = 1 << 16
#: The lower bits of a point say whose it is.
_OWNER: Final = (1 << 16) - 1
_BLOCK: Final = struct.Struct(">8Q")


def _hash(key: str) -> int:
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _points(id: str, count: int) -> list[int]:
    """The first ``count`` points of a member, sorted; with another count the same ones, fewer or more."""
    points: list[int] = []
    for block in range(-(-count // 8)):
        points += _BLOCK.unpack(blake2b(f"{block} {id}".encode("utf-8", "surrogatepass")).digest())
    return sorted(points[:count])


class ConsistentHash:
    """A choice is one hash and one bisection. Slow start lowers the bound of a new member and not its part of the
    ring, so a key moves once. A call without a key goes to any member, by weight."""

    __slots__ = ("_bound", "_known", "_lots", "_members", "_points", "_seen", "_tally", "_weights")

    name: Final = "consistent_hash"

    def __init__(self, rules: BalancerRules, chance: Chance) -> None:
        self._bound = rules.bound
        self._lots = Lots(rules.slow_start_s, chance)
        self._members: list[Member] = []
        self._points: list[int] = []
        #: What the ring was made of: each member's weight, and its points.
        self._weights: list[tuple[str, float]] = []
        self._known: dict[str, list[int]] = {}
        self._tally = Tally()
        self._seen: Sequence[Member] | None = None

    def update(self, members: Sequence[Member]) -> None:
        if len(members) > _OWNER:
            raise ValueError(f"consistent_hash: at most {_OWNER} members, got {len(members)}")
        self._seen = members
        self._lots.update(members)
        self._members = list(members)
        self._tally = Tally()
        for member in members:
            member.count_in(self._tally)
        weights = [(member.id, member.weight * member.share) for member in members]
        if weights != self._weights:
            self._weights = weights
            self._points = self._ring()

    def pick(self, members: Sequence[Member], now: float, key: str | None) -> Member:
        if members is not self._seen:
            self.update(members)
        if key is None:
            return self._members[self._lots.first(now)]
        begin = bisect_left(self._points, _hash(key))
        if begin == len(self._points):
            begin = 0
        first = self._members[self._points[begin] & _OWNER]
        # Whoever holds nothing is always within its bound.
        return first if first.in_flight == 0 else self._within(begin, now)

    def __repr__(self) -> str:
        return f"<ConsistentHash {len(self._members)} members, {len(self._points)} points>"

    def _within(self, begin: int, now: float) -> Member:
        """The first member from ``begin`` on that has room. One always has: together they may hold more than
        there is."""
        tally = self._tally
        total = tally.in_flight if tally.whole else sum([member.in_flight for member in self._members])
        lots = self._lots
        each = self._bound * (total + 1) / lots.total(now)
        points, count = self._points, len(self._points)
        for step in range(begin, begin + count):
            place = points[step if step < count else step - count] & _OWNER
            member = self._members[place]
            if member.in_flight < math.ceil(each * lots.worth(place)):
                return member
        return self._members[points[begin] & _OWNER]

    def _ring(self) -> list[int]:
        heaviest = max([weight for _, weight in self._weights], default=1.0)
        most = max(1, min(_POINTS, _RING // max(1, len(self._weights))))
        known: dict[str, list[int]] = {}
        ring: list[int] = []
        for place, (id, weight) in enumerate(self._weights):
            count = max(1, round(most * weight / heaviest))
            own = self._known.get(id)
            if own is None or len(own) != count:
                own = _points(id, count)
            known[id] = own
            ring += [point & ~_OWNER | place for point in own]
        ring.sort()
        self._known = known
        return ring

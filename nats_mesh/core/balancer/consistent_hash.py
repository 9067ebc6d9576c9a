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
from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import Final

from nats_mesh.core.balancer.base import Chance, Member, Tally
from nats_mesh.core.balancer.lots import Lots
from nats_mesh.core.rules import BalancerRules

__all__ = ["ConsistentHash"]

#: Points of the heaviest member; the others have as many as their weight says. A part of the ring differs from what
#: it should be by about 4 % (1 / √512); that of a member with a tenth of the weight by 14 %.
_POINTS: Final = 512
#: All points together, roughly: from 128 members on each has fewer, so that no change takes long.
_RING: Final = 1 << 16
#: The lower bits of a point say whose it is: the number that its owner has as long as it stays.
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
    ring, so a key moves once. A call without a key goes to any member, by weight. A change costs a look at each point
    of the ring, and hashes for those that came."""

    __slots__ = (
        "_bound", "_free", "_lots", "_members", "_numbers", "_owned", "_places", "_points", "_seen", "_tally",
    )  # fmt: skip

    name: Final = "consistent_hash"

    def __init__(self, rules: BalancerRules, chance: Chance) -> None:
        self._bound = rules.bound
        self._lots = Lots(rules.slow_start_s, chance)
        self._members: list[Member] = []
        self._points: list[int] = []
        #: Whose points are on the ring: the number of each member, and how many it has; and numbers that are free.
        self._numbers: dict[str, int] = {}
        self._owned: dict[str, int] = {}
        self._free: list[int] = []
        #: Where the member with each number stands in the list.
        self._places: list[int] = []
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
        self._turn()

    def pick(
        self, members: Sequence[Member], now: float, key: str | None, avoid: Collection[str] = ()
    ) -> Member:
        if members is not self._seen:
            self.update(members)
        if key is None:
            return self._members[self._lots.first(now)]
        begin = bisect_left(self._points, _hash(key))
        if begin == len(self._points):
            begin = 0
        first = self._members[self._places[self._points[begin] & _OWNER]]
        # Whoever holds nothing is always within its bound.
        if first.in_flight == 0 and first.id not in avoid:
            return first
        return self._within(begin, now, avoid)

    def __repr__(self) -> str:
        return f"<ConsistentHash {len(self._members)} members, {len(self._points)} points>"

    def _within(self, begin: int, now: float, avoid: Collection[str]) -> Member:
        """The first member from ``begin`` on that has room. One always has: together they may hold more than
        there is. Whom to avoid gets it only where no other has."""
        tally = self._tally
        total = tally.in_flight if tally.whole else sum([member.in_flight for member in self._members])
        lots = self._lots
        each = self._bound * (total + 1) / lots.total(now)
        points, places, count = self._points, self._places, len(self._points)
        other: Member | None = None
        for step in range(begin, begin + count):
            place = places[points[step if step < count else step - count] & _OWNER]
            member = self._members[place]
            if member.id in avoid:
                continue
            if member.in_flight < math.ceil(each * lots.worth(place)):
                return member
            other = other or member
        # Where only the one to avoid has room left, the next one takes one call too many.
        return other or self._members[places[points[begin] & _OWNER]]

    def _turn(self) -> None:
        """Take from the ring whose points have gone or become another number, and put on it what has come."""
        members = self._members
        weights = [member.weight * member.share for member in members]
        heaviest = max(weights, default=1.0)
        most = max(1, min(_POINTS, _RING // max(1, len(members))))
        wanted = {
            member.id: max(1, round(most * weight / heaviest))
            for member, weight in zip(members, weights, strict=True)
        }
        stale = {self._numbers[id] for id, count in self._owned.items() if wanted.get(id) != count}
        ring = [point for point in self._points if point & _OWNER not in stale] if stale else self._points
        for id in [id for id in self._numbers if id not in wanted]:
            self._free.append(self._numbers.pop(id))
        came: list[int] = []
        for id, count in wanted.items():
            if self._owned.get(id) == count:
                continue
            number = self._numbers.get(id)
            if number is None:
                number = self._numbers[id] = self._free.pop() if self._free else len(self._numbers)
            came += [point & ~_OWNER | number for point in _points(id, count)]
        if came:
            # Two sorted runs, which sorting merges.
            came.sort()
            ring = ring + came
            ring.sort()
        self._points, self._owned = ring, wanted
        self._places = [0] * (max(self._numbers.values(), default=-1) + 1)
        for place, member in enumerate(members):
            self._places[self._numbers[member.id]] = place

"""The power of two choices: draw two members by lot, take the cheaper one.

With one choice at random the fullest of n members holds about log n / log log n calls more than its share, with
two choices about log log n (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). What two
callers with the same view do at the same moment still differs, so they do not fall upon the same idle member.

Rejected: to look at all members and take the cheapest. It costs more with every member, and callers that share
a view all choose the same one.

Weights: a member of three times the weight is treated as three members that share its calls. Both draws
and the comparison are of such thirds, so shares are right within some percent at any load, with one call under way
as with a thousand. Comparing load divided by weight is not: with few calls under way it is wrong by a third, and
with (load + 1) divided by weight the heaviest gets all of them. Members of different weights are not compared by
what they take at a time, too: whoever has three times the slots and says so by its weight would get nine times the
calls.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import ClassVar

from nats_mesh.core.balancer.base import FULL, Chance, Member
from nats_mesh.core.balancer.lots import Lots
from nats_mesh.core.rules import BalancerRules

__all__ = ["TwoChoices"]


class TwoChoices:
    """What least_request and peak_ewma share; each says what a member with a load costs. Cost of a choice: O(1),
    with unequal weights O(log n)."""

    __slots__ = ("_chance", "_lots", "_seen")

    #: Whether what a member holds is compared as a part of what it takes at a time, where it said how much that is.
    by_room: ClassVar[bool] = False

    def __init__(self, rules: BalancerRules, chance: Chance) -> None:
        self._chance = chance
        self._lots = Lots(rules.slow_start_s, chance)
        self._seen: Sequence[Member] | None = None

    def cost(self, member: Member, load: float, now: float) -> float:
        """What one more call costs at ``member`` while it has ``load``."""
        raise NotImplementedError

    def update(self, members: Sequence[Member]) -> None:
        self._seen = members
        self._lots.update(members)

    def pick(
        self, members: Sequence[Member], now: float, key: str | None, avoid: Collection[str] = ()
    ) -> Member:
        if members is not self._seen:
            self.update(members)
        lots = self._lots
        all_ = lots.members
        if len(all_) == 1:
            return all_[0]
        first = lots.first(now)
        second = lots.second(first)
        one, other = all_[first], all_[second]
        if lots.even:
            load, other_load = one.load(now), other.load(now)
        else:
            load, other_load = self._part(one, first, now), self._part(other, second, now)
        if load >= FULL and other_load >= FULL:
            return self._roomy(now) or one
        return self._cheaper(one, load, other, other_load, now)

    def _cheaper(self, one: Member, load: float, other: Member, other_load: float, now: float) -> Member:
        if (
            self.by_room
            and one.limit != other.limit
            and one.limit > 0
            and other.limit > 0
            and one.weight == other.weight  # else it is said already what each is to get of the other's calls
        ):
            # As parts of what each takes at a time, brought to the same denominator.
            load, other_load = load * other.limit, other_load * one.limit
        return one if self.cost(one, load, now) <= self.cost(other, other_load, now) else other

    def _roomy(self, now: float) -> Member | None:
        """The cheaper of two members that have room, where both that were drawn are full; ``None`` where all are.

        It looks at every member, which only happens to callers of instances that are full.
        """
        roomy = [member for member in self._lots.members if member.load(now) < FULL]
        if not roomy:
            return None
        one, other = (roomy[int(self._chance() * len(roomy))] for _ in range(2))
        return self._cheaper(one, one.load(now), other, other.load(now), now)

    def _part(self, member: Member, place: int, now: float) -> float:
        """The load of one of the equal parts that ``member`` stands for: some have one call more than the others,
        and which one was drawn is a matter of chance."""
        lots = self._lots
        return math.floor(member.load(now) * lots.unit / lots.worth(place) + self._chance())

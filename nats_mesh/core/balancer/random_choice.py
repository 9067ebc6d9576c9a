"""Any member, as often as its weight says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from nats_mesh.core.balancer.base import Chance, Member
from nats_mesh.core.balancer.lots import Lots
from nats_mesh.core.rules import BalancerRules

__all__ = ["RandomChoice"]


class RandomChoice:
    """Keeps no state and agrees with nobody, which is what makes it safe with many callers of few calls each."""

    __slots__ = ("_lots", "_seen")

    name: Final = "random"

    def __init__(self, rules: BalancerRules, chance: Chance) -> None:
        self._lots = Lots(rules.slow_start_s, chance)
        self._seen: Sequence[Member] | None = None

    def update(self, members: Sequence[Member]) -> None:
        self._seen = members
        self._lots.update(members)

    def pick(
        self, members: Sequence[Member], now: float, key: str | None, avoid: Collection[str] = ()
    ) -> Member:
        if members is not self._seen:
            self.update(members)
        return self._lots.members[self._lots.first(now)]

"""Of two members drawn by lot, the one where a call is likely to be over first.

What a member costs is the moving average of its times, which follows a peak at once and forgets it slowly, times
the calls it would then hold (Finagle's "peak EWMA"; the average: :mod:`nats_mesh.core.ewma`). It finds the members
that are slow for reasons that a count of calls does not show: another zone, a cold cache, a busy machine.

Rejected: the plain average, which needs several slow answers before it believes the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nats_mesh.core.balancer.base import Member
from nats_mesh.core.balancer.two_choices import TwoChoices

__all__ = ["PeakEwmaChoice"]

#: What a member costs (seconds) while its first call is under way: nobody knows yet, so the others come first.
_UNKNOWN_S: Final = 1e6


class PeakEwmaChoice(TwoChoices):
    """Members are measured from the moment at which they are first seen."""

    __slots__ = ()

    name: Final = "peak_ewma"

    def update(self, members: Sequence[Member]) -> None:
        for member in members:
            member.measure()
        super().update(members)

    def cost(self, member: Member, load: float, now: float) -> float:
        average = member.cost
        took_s = 0.0 if average is None else average.value(now)
        if took_s <= 0.0 and load > 0.0:
            return _UNKNOWN_S + load
        return took_s * (load + 1.0)

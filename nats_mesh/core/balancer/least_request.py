"""Of two members drawn by lot, the one with fewer calls (Mitzenmacher, 2001; see :mod:`.two_choices`)."""

from __future__ import annotations

from typing import ClassVar, Final

from nats_mesh.core.balancer.base import Member
from nats_mesh.core.balancer.two_choices import TwoChoices

__all__ = ["LeastRequest"]


class LeastRequest(TwoChoices):
    """A slow or frozen member gathers calls and is then passed over. One of two calls is more than three of twelve:
    of members that take different numbers of calls at a time, but have the same weight, the emptier one gets the next.
    """

    __slots__ = ()

    name: Final = "least_request"
    by_room: ClassVar[bool] = True

    def cost(self, member: Member, load: float, now: float) -> float:
        return load

"""Of two members drawn by lot, the one with fewer calls (Mitzenmacher, 2001; see :mod:`.two_choices`)."""

from __future__ import annotations

from typing import Final

from nats_mesh.core.balancer.base import Member
from nats_mesh.core.balancer.two_choices import TwoChoices

__all__ = ["LeastRequest"]


class LeastRequest(TwoChoices):
    """A slow or frozen member gathers calls and is then passed over."""

    __slots__ = ()

    name: Final = "least_request"

    def cost(self, member: Member, load: float, now: float) -> float:
        return load

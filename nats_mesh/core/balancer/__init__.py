"""Balancers: which instance gets a call. One file for each strategy, and one line for it here.

``queue`` has no line: there the server chooses, by its queue group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nats_mesh.core.balancer.base import Balancer, Chance, Member
from nats_mesh.core.balancer.consistent_hash import ConsistentHash
from nats_mesh.core.balancer.least_request import LeastRequest
from nats_mesh.core.balancer.locality import ZoneSize, choose_zone
from nats_mesh.core.balancer.peak_ewma import PeakEwmaChoice
from nats_mesh.core.balancer.random_choice import RandomChoice
from nats_mesh.core.balancer.round_robin import RoundRobin
from nats_mesh.core.rules import BalancerName, BalancerRules

__all__ = ["STRATEGIES", "Balancer", "Chance", "Member", "ZoneSize", "choose_zone", "make"]

STRATEGIES: Final[dict[BalancerName, Callable[[BalancerRules, Chance], Balancer]]] = {
    "round_robin": RoundRobin,
    "random": RandomChoice,
    "least_request": LeastRequest,
    "peak_ewma": PeakEwmaChoice,
    "consistent_hash": ConsistentHash,
}


def make(rules: BalancerRules, chance: Chance) -> Balancer | None:
    """The balancer that ``rules`` ask for, for one set of members; ``None`` for ``queue``."""
    return None if rules.name == "queue" else STRATEGIES[rules.name](rules, chance)

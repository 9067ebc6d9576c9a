"""Which zones get the calls: the own one while it is healthy enough, others as far as it is not.

A zone that lost some instances can often carry on, and crossing zones costs time and money; one that lost most of
them would be overrun. So the own zone keeps everything while ``locality_healthy`` of it is healthy, below that
the part it can carry, and nothing when nobody is left. Envoy's overprovisioning factor is the same idea: its 1.4
is a share of 71 %.

Rejected: to fail over all at once at a threshold. It moves the whole load in one step, and back again, whenever
the number of healthy instances wavers around it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from nats_mesh.core.balancer.base import Member
from nats_mesh.core.rules import BalancerRules

__all__ = ["choose_zone"]


def choose_zone(
    members: Sequence[Member], own_zone: str, rules: BalancerRules, healthy: Collection[Member]
) -> Sequence[Member]:
    """The members that calls may go to: ``healthy`` ones alone, where there are any; never empty unless ``members`` is.

    To be called when the members or their health change, not for every call, and with all members that are known,
    also those that are down: what counts is how many of the own zone's are healthy. What is needed is rounded to whole
    instances: 70 % of three are two. Where zones are mixed, ``share`` of the members of others is set so that the
    own zone gets its part whatever the number of the others; in any other case it is 1.
    """
    own = [member for member in members if member.zone == own_zone] if rules.locality and own_zone else []
    well = set(healthy)
    near = [member for member in own if member in well]
    far = [member for member in members if member in well and (member.zone != own_zone or not own)]
    needed = max(1, math.floor(rules.locality_healthy * len(own) + 0.5))
    for member in members:
        member.share = 1.0
    if near and (len(near) >= needed or not far):
        return near
    if near:
        # The own zone gets near / needed of the calls, the others share what is missing.
        missing = (needed - len(near)) / len(near)
        share = missing * sum([member.weight for member in near]) / sum([member.weight for member in far])
        for member in far:
            member.share = share
        return near + far
    return far or list(members)

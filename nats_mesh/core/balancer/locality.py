"""Which zones get the calls: the own one while it is healthy enough, others as far as it is not.

A zone that lost some instances can often carry on, and crossing zones costs time and money; one that lost most of
them would be overrun. So the own zone keeps everything while ``locality_healthy`` of it is healthy, below that
the part it can carry, and nothing when nobody is left. Envoy's overprovisioning factor is the same idea: its 1.4
is a share of 71 %.

Instances that die or leave do not make the load smaller, so a zone is as large as it was within the last minutes:
whoever is gone counts as one that is not healthy. That holds for whoever left in order as well: a zone that is scaled
down keeps all the calls only where its rest can carry what the whole carried, and gets them back once the minutes are
over.

Rejected: to fail over all at once at a threshold. It moves the whole load in one step, and back again, whenever
the number of healthy instances wavers around it. Also rejected: to remember who is gone by name. A restart brings
other names, and a zone of three that was restarted would be one of six.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from typing import Final

from nats_mesh.core.balancer.base import Member
from nats_mesh.core.rules import BalancerRules

__all__ = ["GONE_S", "ZoneSize", "choose_zone"]

#: How long an instance that is gone counts as an unhealthy one of its zone (seconds).
GONE_S: Final = 300.0


class ZoneSize:
    """How many instances of one zone are gone, as far as they still count: the zone's size is the largest number that
    were there at a time within the last :data:`GONE_S` seconds, as of the last :meth:`observe`.

    It holds an instant for each that is gone, so never more than the zone ever had at a time.
    """

    __slots__ = ("_gone", "_present")

    def __init__(self) -> None:
        self._present = 0
        #: Until when each that is gone counts, the first to be forgotten first.
        self._gone: deque[float] = deque()

    def observe(self, present: int, now: float) -> int:
        """There are ``present`` of them now; how many more count, though they are gone."""
        gone = self._gone
        while gone and now >= gone[0]:
            gone.popleft()
        for _ in range(self._present - present):
            gone.append(now + GONE_S)
        # Whoever comes takes the place of the last who went: that is how a zone is restarted.
        for _ in range(min(present - self._present, len(gone))):
            gone.pop()
        self._present = present
        return len(gone)

    @property
    def next_end(self) -> float:
        """The instant at which the next of them is forgotten; ``inf`` where nobody is gone."""
        return self._gone[0] if self._gone else math.inf

    def __repr__(self) -> str:
        return f"<ZoneSize {self._present} there, {len(self._gone)} gone>"


def choose_zone(
    members: Sequence[Member],
    own_zone: str,
    rules: BalancerRules,
    healthy: Collection[Member],
    gone: int = 0,
) -> Sequence[Member]:
    """The members that calls may go to: ``healthy`` ones alone, nobody where there are none.

    To be called when the members or their health change, not for every call, and with all members that are known,
    also those that are down, and how many of the own zone are ``gone`` (:class:`ZoneSize`): what counts is how many of
    the own zone's are healthy. What is needed is rounded to whole instances: 70 % of three are two. Where zones are
    mixed, ``share`` of the members of others is set so that the own zone gets its part whatever the number of the
    others; in any other case it is 1.
    """
    own = [member for member in members if member.zone == own_zone] if rules.locality and own_zone else []
    well = set(healthy)
    near = [member for member in own if member in well]
    far = [member for member in members if member in well and (member.zone != own_zone or not own)]
    needed = max(1, math.floor(rules.locality_healthy * (len(own) + gone) + 0.5))
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
    return far

"""Which instance gets the attempt, where a policy asks for more than the server's queue group.

Below retry, so that a second attempt can go elsewhere, and below the breaker, which judges the endpoint as a whole: an
open circuit must choose nobody, and an instance that is ejected is no failing endpoint.
What is known of the instances comes from presence (``discovery/fleet.py``) and from the replies themselves;
while nothing is known the queue group takes the calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

from nats_mesh.core.balancer import Balancer, Member, ZoneSize, choose_zone, make
from nats_mesh.core.ejection import Ejection, Ejector
from nats_mesh.core.rules import BalancerRules, EjectionRules, SubsetRules
from nats_mesh.core.seldom import worth_saying
from nats_mesh.discovery.fleet import Fleet
from nats_mesh.errors import CallError, NoInstancesError, Refused
from nats_mesh.layers.breaker import Tell, is_failure
from nats_mesh.model import Request
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.wire import headers as h

__all__ = ["Balance", "Group", "Keys", "Way"]

#: How long an instance that nobody answered for is left out, unless presence says otherwise (seconds).
_ABSENT_S = 2.0
#: Names of instances that an event shows.
_SHOWN = 5


#: What a request is hashed by, for consistent hashing; ``None``: it has nothing to be hashed by, and goes anywhere.
Keys: TypeAlias = Callable[[Request], "str | None"]


class Group:
    """The instances of one service as one caller sees them under one set of rules; its endpoints share it."""

    def __init__(
        self,
        service: str,
        fleet: Fleet,
        balancer: BalancerRules,
        ejection: EjectionRules,
        *,
        subset: SubsetRules | None = None,
        zone: str,
        chance: Callable[[], float],
        tell: Tell,
    ) -> None:
        strategy = make(balancer, chance)
        if strategy is None:
            raise ValueError(f"{balancer.name} chooses no instance")
        self.service = service
        self.fleet = fleet
        #: How many endpoints' calls are balanced over it.
        self.users = 0
        self.rules = balancer
        self.ejection = ejection
        #: Which of the service's instances they are; ``None``: all of them.
        self.subset = subset
        self.ejector = Ejector(ejection, chance)
        self.members: dict[str, Member] = {}
        self._strategy: Balancer = strategy
        self._zone = zone
        self._tell = tell
        self._seen = -1
        self._review_at = 0.0
        self._usable: Sequence[Member] = ()
        self._absent: dict[str, float] = {}
        self._panicking = False
        #: How many instances are there and not absent, as of the last review.
        self._here = 0
        self._zone_size = ZoneSize()
        #: Ejections that the bound on their number has prevented, in all and since one began or ended.
        self._capped = self._prevented = 0
        #: Who hears of ejections by this caller's own judgement, and of returns, where a policy asks for verdicts. A
        #: caller that knows one instance alone, or panics, has no judgement that others should hear.
        self.on_own_ejection: Callable[[str, str], None] | None = None
        self.on_return: Callable[[str], None] | None = None

    def pick(self, now: float, key: str | None, avoid: Collection[str]) -> Member | None:
        """The instance for one attempt, none of ``avoid`` where there is another; ``None``: whichever gets it."""
        if self._seen != self.fleet.version or now >= self._review_at:
            self._review(now)
        usable = self._usable
        if not usable:
            return None
        found = self._strategy.pick(usable, now, key, avoid)
        if found.id in avoid and len(usable) > 1:
            found = self._strategy.pick(usable, now, key, avoid)
            if found.id in avoid:
                found = next((each for each in usable if each.id not in avoid), found)
        return found

    def candidates(self, now: float) -> Sequence[Member]:
        """Among whom :meth:`pick` chooses; nobody where it leaves that to the queue group."""
        if self._seen != self.fleet.version or now >= self._review_at:
            self._review(now)
        return self._usable

    def _review(self, now: float) -> None:
        """Who may be chosen from now on, until something changes or somebody's time is over."""
        if self._seen != self.fleet.version:
            self._take_in()
        ejector = self.ejector
        for over in ejector.returned(now):
            self._prevented = 0
            self._tell(EventKind.EJECTION_ENDED, self.service, f"{over.id} takes calls again")
            if self.on_return is not None:
                self.on_return(over.id)
        for gone in [each for each, until in self._absent.items() if now >= until]:
            del self._absent[gone]
        here = [each for each in self.members.values() if each.id not in self._absent]
        ids = tuple([each.id for each in here])
        self._here = len(ids)
        available = ejector.available(ids, now)
        if ejector.panicking is not self._panicking:
            self._panicking = ejector.panicking
            if self._panicking:
                detail = f"too few instances are healthy: ejections are ignored (out: {self._out(now)})"
                self._tell(EventKind.EJECTION_PANIC, self.service, detail)
        if available is not ids:
            allowed = set(available)
            usable: Sequence[Member] = [each for each in here if each.id in allowed]
        else:
            usable = here
        if self.rules.locality and self._zone:
            usable = self._by_zone(usable, now)
        self._usable = usable
        if usable:
            self._strategy.update(usable)
        self._review_at = min([ejector.next_return, self._zone_size.next_end, *self._absent.values()])

    def _by_zone(self, healthy: Sequence[Member], now: float) -> Sequence[Member]:
        """Those that locality chooses. Who is gone counts from the first review that missed it: a caller that makes no
        calls notices late, and fails over for longer than it would have."""
        members = list(self.members.values())
        gone = self._zone_size.observe(sum([each.zone == self._zone for each in members]), now)
        return choose_zone(members, self._zone, self.rules, healthy, gone)

    def _out(self, now: float) -> str:
        """Who is ejected, for an event."""
        out = [each.id for each in self.ejector.ejected(now)]
        return f"{', '.join(out[:_SHOWN])}{', …' if len(out) > _SHOWN else ''}"

    def _take_in(self) -> None:
        """The fleet has changed: members that stay keep what is known of them."""
        self._seen = self.fleet.version
        current: dict[str, Member] = {}
        subset = self.subset
        for each in self.fleet.instances():
            if subset is not None and not subset.selects(each.version, each.labels):
                continue
            member = self.members.get(each.id)
            if member is None or member.zone != each.zone:
                member = Member(
                    each.id, zone=each.zone, joined=each.first_seen, decay_s=self.rules.ewma_decay_s
                )
                member.limit = each.limit  # until its replies say so
            member.weight = each.weight
            current[each.id] = member
        before, self.members = self.members, current
        for gone in before.keys() - current.keys():
            self.ejector.forget(gone)
            if self.on_return is not None:  # what was said of it is taken back
                self.on_return(gone)
            self._absent.pop(gone, None)

    def absent(self, member: Member, now: float) -> None:
        """Nobody listens where presence said that an instance is."""
        self._absent[member.id] = now + _ABSENT_S
        self._review_at = now

    def __contains__(self, instance: str) -> bool:
        """Whether it is one of them, as far as presence has said by now."""
        if self._seen != self.fleet.version:
            self._take_in()
            self._review_at = -math.inf
        return instance in self.members

    def eject(self, instance: str, now: float, reason: str) -> None:
        """Take an instance out because others say so: callers that agree, or an operator."""
        self._ejected(self.ejector.eject(instance, now, reason), now)

    def judged(self, ejection: Ejection | None, now: float) -> None:
        """What this caller's own judgement of an instance came to: an ejection, or nothing."""
        self._ejected(ejection, now)
        if ejection is not None and self.on_own_ejection is not None:
            self._review(now)  # does it panic with this one out, too?
            if self._here > 1 and not self._panicking:
                self.on_own_ejection(ejection.id, ejection.reason)

    def _ejected(self, ejection: Ejection | None, now: float) -> None:
        ejector = self.ejector
        if ejection is not None:
            self._review_at = now
            self._prevented = 0
            detail = f"{ejection.id}: {ejection.reason}, for {ejection.until - now:.0f} s ({ejection.times})"
            self._tell(EventKind.EJECTION_BEGAN, self.service, detail)
        elif ejector.capped != self._capped:
            self._prevented += 1
            if worth_saying(self._prevented):
                detail = f"{ejector.capped_id} stays in: as many as may be are out already ({self._out(now)})"
                self._tell(EventKind.EJECTION_CAPPED, self.service, f"{detail}; {self._prevented} so far")
        self._capped = ejector.capped


class Way:
    """To one instance, for the calls of one endpoint."""

    __slots__ = ("_group", "line", "member", "subject")

    def __init__(self, group: Group, member: Member, subject: str, line: str) -> None:
        self._group = group
        self.member = member
        self.subject = subject
        #: What the command that publishes there begins with, up to the number of the reply.
        self.line = line

    def succeeded(self, now: float, took_s: float, headers: bytes) -> None:
        """The attempt was answered with a value."""
        member = self.member
        load = h.load_field(headers)
        if load is not None:
            member.said(now, *load)
        member.ended(now, took_s, True)
        self._group.ejector.success(member.id, now)

    def failed(self, now: float, took_s: float, headers: bytes, failed: CallError, *, silent: bool) -> None:
        """How the attempt failed, and what that says of the instance; ``silent``: nobody answered in its time."""
        group, member = self._group, self.member
        ejector = group.ejector
        load = h.load_field(headers) if headers else None
        if load is not None:
            member.said(now, *load)
        verdict = is_failure(failed)
        if isinstance(failed, NoInstancesError) or failed.refused is Refused.DRAINING:
            member.ended(now, took_s, None)
            group.absent(member, now)
        elif silent:
            member.ended(now, took_s, False)
            group.judged(ejector.silence(member.id, now, took_s), now)
        elif verdict is None:
            member.ended(now, took_s, None)
            if failed.refused is Refused.CONCURRENCY:
                member.refused(now, failed.retry_after_s)
        elif verdict:
            member.ended(now, took_s, False)
            group.judged(ejector.failure(member.id, now), now)
        else:  # an answer, be it an application's no
            member.ended(now, took_s, True)
            ejector.success(member.id, now)

    def outrun(self, now: float, waited_s: float) -> None:
        """A hedge was answered first: this instance takes at least so long."""
        self.member.ended(now, waited_s, True)
        self._group.judged(self._group.ejector.outrun(self.member.id, now), now)

    def dropped(self, now: float) -> None:
        """The attempt was broken off from this side: it says nothing of the instance."""
        self.member.ended(now, 0.0, None)


class Balance:
    """The choice of an instance for one endpoint, with the way to each."""

    def __init__(self, group: Group, way_to: Callable[[str], tuple[str, str]], key: Keys | None) -> None:
        self.group = group
        self._way_to = way_to
        self._key = key
        self._ways: dict[str, Way] = {}

    def key_of(self, request: Request) -> str | None:
        """What a request is hashed by; ``None`` where it goes anywhere."""
        return None if self._key is None else self._key(request)

    def pick(self, now: float, request: Request, avoid: Collection[str]) -> Way | None:
        """The way for one attempt, its load counted from now on; ``None`` leaves it to the queue group."""
        member = self.group.pick(now, None if self._key is None else self._key(request), avoid)
        if member is None:
            return None
        way = self._ways.get(member.id)
        if way is None or way.member is not member:
            if len(self._ways) > 2 * len(self.group.members) + 16:
                self._ways.clear()  # of instances long gone
            way = self._ways[member.id] = Way(self.group, member, *self._way_to(member.id))
        member.began(now)
        return way

"""Who is there: presence announcements in, membership changes out. No clock of its own.

An instance is alive while its beats come, suspect after two missed ones and gone after three. A beat
counts as missed once its promised interval, the sender's jitter and some slack are over, so jitter
alone never makes a suspect. Silence is judged only while this process was listening: after a stall
of its own, everyone gets one more interval.

Rejected: a phi-accrual detector (Hayashibara et al., 2004). It adapts to a network's delays, but beats
here are seconds apart, their interval is announced, and calls never depend on the verdict.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import msgspec

from nats_mesh.core.members import (
    AmbiguousInstanceError,
    Change,
    ChangeKind,
    Health,
    Instance,
    Reason,
    ServiceSummary,
    UnknownInstanceError,
    find,
    heard,
    summary,
)
from nats_mesh.core.presence import Announcement, Kind, incarnation
from nats_mesh.errors import ConfigError

__all__ = [
    "BEAT_FACTOR",
    "GONE_AFTER",
    "HEARSAY_INTERVAL_S",
    "STALL_S",
    "SUSPECT_AFTER",
    "AmbiguousInstanceError",
    "Change",
    "ChangeKind",
    "Health",
    "Instance",
    "Reason",
    "Registry",
    "ServiceSummary",
    "UnknownInstanceError",
]

SUSPECT_AFTER: Final = 2
GONE_AFTER: Final = 3
#: A beat is missed after this many intervals: 20 % jitter of the sender and 10 % for the way.
BEAT_FACTOR: Final = 1.3
#: How late a tick may be before this process counts as having been away.
STALL_S: Final = 0.5
#: How often in a row a silent instance is excused by our own stalls.
MAX_EXCUSES: Final = 3
TOMBSTONE_S: Final = 300.0
#: The longest interval that is believed of an instance which did not promise it itself (seconds).
HEARSAY_INTERVAL_S: Final = 60.0

_COMPARED = ("name", "version", "labels", "state", "revision", "rejections")

_Key = tuple[str, str]


class _Member:
    __slots__ = ("excuses", "gone_at", "hearsay", "incarnation", "instance", "seq", "suspect_at")

    def __init__(self, instance: Instance, born: str, seq: int) -> None:
        self.instance = instance
        self.incarnation = born
        self.seq = seq
        #: Whether it did not say so itself where its name is checked.
        self.hearsay = False
        self.restart()

    def restart(self) -> None:
        """Start the wait for the next beat."""
        beat_s = self.instance.interval_s * BEAT_FACTOR
        self.suspect_at = self.instance.seen + SUSPECT_AFTER * beat_s
        self.gone_at = self.instance.seen + GONE_AFTER * beat_s
        self.excuses = 0

    def excuse(self, now: float) -> None:
        """Allow one more interval from now on."""
        beat_s = self.instance.interval_s * BEAT_FACTOR
        if self.instance.health is Health.SUSPECT:
            self.gone_at = max(self.gone_at, now + beat_s)
        else:
            self.suspect_at = max(self.suspect_at, now + beat_s)
            self.gone_at = max(self.gone_at, self.suspect_at + beat_s)

    @property
    def due(self) -> float:
        return self.gone_at if self.instance.health is Health.SUSPECT else self.suspect_at


class _Tombstone(msgspec.Struct, frozen=True):
    incarnation: str
    seq: int
    left: bool
    expires: float


class Registry:
    """The instances of a namespace, or of the services somebody observes.

    Feed it with :meth:`apply`, call :meth:`tick` no later than :meth:`next_due` says, and tell it with
    :meth:`suspend` and :meth:`resume` when the bus is away. All instants are seconds of one monotonic clock.
    An instance is known by service *and* id: the server vouches for the service in a subject, not for
    the id, so no service can touch another's instances.

    Counters: ``stale`` announcements without effect, ``overflowed`` ones of instances that found no
    room, ``stalls`` of this process, ``tombstones_evicted`` before their time.
    """

    def __init__(
        self,
        *,
        max_instances: int = 10_000,
        max_per_service: int = 5_000,
        max_tombstones: int = 4_096,
        tick_s: float = 1.0,
    ) -> None:
        if min(max_instances, max_per_service, max_tombstones) < 1 or not tick_s > 0:
            raise ConfigError("registry: every bound must be at least 1 and tick_s above 0")
        self._max_instances = max_instances
        self._max_per_service = max_per_service
        self._max_tombstones = max_tombstones
        self._tick_s = tick_s
        self._members: dict[_Key, _Member] = {}
        self._sizes: dict[str, int] = {}
        self._tombstones: OrderedDict[_Key, _Tombstone] = OrderedDict()
        self._ticked = -math.inf
        self._earliest = math.inf  # never later than the first instant at which a tick has something to do
        self._suspended = False
        self.stale = 0
        self.overflowed = 0
        self.stalls = 0
        self.tombstones_evicted = 0

    def apply(self, announcement: Announcement, now: float) -> list[Change]:
        """Take in one announcement; old news (replayed, overtaken, of an older start) changes nothing."""
        key = (announcement.service, announcement.instance)
        born = incarnation(announcement.started)
        member = self._members.get(key)
        if member is None:
            return self._meet(key, announcement, born, now)
        if not member.hearsay and (born, announcement.seq) <= (member.incarnation, member.seq):
            self.stale += 1
            return []
        if announcement.type is Kind.LEAVE:
            self._remove(key)
            self._bury(key, born, announcement.seq, True, announcement.interval_s, now)
            return [Change(kind=ChangeKind.GONE, instance=member.instance, reason=Reason.LEFT)]
        if member.hearsay:
            member.hearsay, member.incarnation = False, born
            return self._refresh(member, announcement, now)
        if born > member.incarnation:
            self._remove(key)
            gone = Change(kind=ChangeKind.GONE, instance=member.instance, reason=Reason.REPLACED)
            return [gone, self._insert(key, announcement, born, now)]
        return self._refresh(member, announcement, now)

    def hearsay(self, announcement: Announcement, now: float) -> list[Change]:
        """Take in what anybody may have said in an instance's place, as the answers to a roll call.

        It tells of instances that were not heard of yet, and changes nothing that they said themselves; their own
        next word replaces it, whatever its number. It is believed for a bounded time.
        """
        key = (announcement.service, announcement.instance)
        member = self._members.get(key)
        if member is not None and not member.hearsay:
            self.stale += 1
            return []
        interval_s = min(announcement.interval_s, HEARSAY_INTERVAL_S)
        weak = msgspec.structs.replace(announcement, seq=0, interval_s=interval_s)
        if member is not None:
            return self._refresh(member, weak, now)
        changes = self._meet(key, weak, "", now)
        if key in self._members:
            self._members[key].hearsay = True
        return changes

    def tick(self, now: float, *, stalled: bool = False) -> list[Change]:
        """Judge silence: who became suspect, who is gone. Nobody is judged while suspended.

        ``stalled``: whoever calls knows that this process was away, as from a timer that came late.
        """
        late = stalled or now - self._ticked > self._tick_s + STALL_S
        self._ticked = now
        if self._suspended or not self._members:
            return []
        if late:
            self.stalls += 1
            for member in self._members.values():
                if member.excuses < MAX_EXCUSES:
                    member.excuses += 1
                    member.excuse(now)
        if now < self._earliest:
            return []
        return self._judge(now)

    def next_due(self, now: float) -> float | None:
        """The instant of the next :meth:`tick`; ``None`` while there is nothing to wait for.

        Never further off than ``tick_s``, even with nothing due: that is how a stall is noticed.
        """
        if self._suspended or not self._members:
            return None
        return max(now, min(self._earliest, self._ticked + self._tick_s))

    def suspend(self) -> None:
        """The bus is away: silence says nothing about the others from here on."""
        self._suspended = True

    def resume(self, now: float) -> None:
        """The bus is back: everyone gets one more interval to be heard."""
        self._suspended = False
        self._ticked = now
        for member in self._members.values():
            member.excuse(now)

    def services(self) -> list[ServiceSummary]:
        """Every service with at least one instance, by name."""
        groups: dict[str, list[Instance]] = {}
        for instance in self._iter():
            groups.setdefault(instance.service, []).append(instance)
        return [summary(name, groups[name]) for name in sorted(groups)]

    def instances(self, service: str | None = None) -> list[Instance]:
        """All instances, or those of one service, ordered by service and id."""
        found = [i for i in self._iter() if service is None or i.service == service]
        return sorted(found, key=lambda i: (i.service, i.id))

    def get(self, prefix: str, service: str | None = None) -> Instance:
        """The one instance whose id or ``host-pid`` name is, or else begins with, ``prefix``.

        :class:`UnknownInstanceError` where none does, :class:`AmbiguousInstanceError` where several do.
        """
        return find(self.instances(service), prefix)

    def exactly(self, service: str, instance: str) -> Instance | None:
        """The instance of ``service`` with this whole id, without a search; ``None`` where it is not there."""
        member = self._members.get((service, instance))
        return None if member is None else member.instance

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return (
            f"<Registry {len(self._members)} instances of {len(self._sizes)} services, "
            f"{len(self._tombstones)} tombstones ({self.tombstones_evicted} evicted), {self.stale} stale, "
            f"{self.overflowed} without room, {self.stalls} stalls>"
        )

    def _iter(self) -> Iterator[Instance]:
        return (member.instance for member in self._members.values())

    def _meet(self, key: _Key, announcement: Announcement, born: str, now: float) -> list[Change]:
        tombstone = self._tombstones.get(key)
        if tombstone is not None and now < tombstone.expires:
            # Whoever left is back by a new start alone; whoever fell silent also by a newer word of his.
            newer = (born, 0 if tombstone.left else announcement.seq) > (
                tombstone.incarnation,
                0 if tombstone.left else tombstone.seq,
            )
            if not newer:
                self.stale += 1
                return []
        if announcement.type is Kind.LEAVE:
            self._bury(key, born, announcement.seq, True, announcement.interval_s, now)
            return []
        if (
            len(self._members) >= self._max_instances
            or self._sizes.get(announcement.service, 0) >= self._max_per_service
        ):
            self.overflowed += 1
            return []
        self._tombstones.pop(key, None)
        return [self._insert(key, announcement, born, now)]

    def _insert(self, key: _Key, announcement: Announcement, born: str, now: float) -> Change:
        if not self._members:
            self._ticked = now  # nobody asked for ticks until now
        member = _Member(heard(announcement, None, now), born, announcement.seq)
        self._members[key] = member
        self._sizes[key[0]] = self._sizes.get(key[0], 0) + 1
        self._earliest = min(self._earliest, member.due)
        return Change(kind=ChangeKind.JOINED, instance=member.instance)

    def _refresh(self, member: _Member, announcement: Announcement, now: float) -> list[Change]:
        before = member.instance
        member.instance = after = heard(announcement, before, now)
        member.seq = announcement.seq
        member.restart()
        self._earliest = min(self._earliest, member.due)  # a shorter interval may have been promised
        changes: list[Change] = []
        if before.health is Health.SUSPECT:
            changes.append(Change(kind=ChangeKind.ALIVE, instance=after))
        fields = [name for name in _COMPARED if getattr(before, name) != getattr(after, name)]
        if before.endpoints != after.endpoints or before.described != after.described:
            fields.append("endpoints")
        if fields:
            changes.append(Change(kind=ChangeKind.CHANGED, instance=after, fields=tuple(fields)))
        return changes

    def _judge(self, now: float) -> list[Change]:
        changes: list[Change] = []
        self._earliest = math.inf
        for key, member in list(self._members.items()):
            instance = member.instance
            if now >= member.gone_at:
                self._remove(key)
                self._bury(key, member.incarnation, member.seq, False, instance.interval_s, now)
                changes.append(Change(kind=ChangeKind.GONE, instance=instance, reason=Reason.MISSED))
                continue
            if now >= member.suspect_at and instance.health is Health.ALIVE:
                member.instance = msgspec.structs.replace(instance, health=Health.SUSPECT)
                changes.append(Change(kind=ChangeKind.SUSPECT, instance=member.instance))
            self._earliest = min(self._earliest, member.due)
        return changes

    def _remove(self, key: _Key) -> None:
        del self._members[key]
        if self._sizes[key[0]] == 1:
            del self._sizes[key[0]]
        else:
            self._sizes[key[0]] -= 1

    def _bury(self, key: _Key, born: str, seq: int, left: bool, interval_s: float, now: float) -> None:
        """Remember somebody gone until none of his delayed announcements need be feared any more."""
        expires = now + max(TOMBSTONE_S, GONE_AFTER * interval_s)
        self._tombstones[key] = _Tombstone(born, seq, left, expires)
        self._tombstones.move_to_end(key)
        while self._tombstones:
            oldest = next(iter(self._tombstones.values()))
            expired = now >= oldest.expires
            if not expired and len(self._tombstones) <= self._max_tombstones:
                return
            self._tombstones.popitem(last=False)
            self.tombstones_evicted += not expired

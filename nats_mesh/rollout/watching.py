"""How the calls of two subsets end: from the statistics that members publish while somebody leases them.

An instance counts what it answered, and presence says which subset it is in. A caller counts by the subset that its
route chose, and so what never reached an instance: nobody there, no time left, a circuit that is open. All numbers
are cumulative, so what ended between two looks is a difference, and a lost message loses nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.core.gates import Pair, Sample
from nats_mesh.core.rules import SubsetRules
from nats_mesh.core.seldom import worth_saying
from nats_mesh.discovery.fleet import Fleet
from nats_mesh.errors import CodecError
from nats_mesh.mesh import Mesh
from nats_mesh.telemetry.leasing import hold_lease
from nats_mesh.telemetry.stats_messages import SeriesSnapshot, StatsMessage, decode_stats
from nats_mesh.telemetry.tracks import SILENT_S, Kind, Tracks
from nats_mesh.wire.subjects import ALL
from nats_mesh.wire.vouching import member_of

__all__ = ["CALLERS", "INSTANCES", "SubsetWatch"]

log = logging.getLogger("nats_mesh.rollout")

#: The two sides that count, in the words of verdicts.
CALLERS: Final = "callers"
INSTANCES: Final = "instances"
MAX_TRACKS: Final = 20_000
#: So many of them one caller may have, and all callers together: whoever makes up kinds of calls blinds nobody to what
#: the others count, and none of them to what the instances do.
MAX_OF_CALLER: Final = 2_000
MAX_OF_CALLERS: Final = MAX_TRACKS // 2
MAX_INSTANCES: Final = 10_000


class SubsetWatch:
    """Watches the subsets ``old`` and ``new`` of ``service`` over the connection of ``mesh``."""

    def __init__(
        self, mesh: Mesh, service: str, old: SubsetRules, new: SubsetRules, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        client = mesh.client
        self.service = service
        self.old, self.new = old, new
        self._ignored = 0
        self._enforced = mesh.settings.enforced
        self._transport = client.transport
        self._mux = client.mux
        self._subjects = client.subjects
        self._now = clock.monotonic
        self._want = client.subjects.want("stats", ALL, mesh.name)
        self._tracks = Tracks(self._now(), room=self._has_room, concerns=self._concerns)
        #: How many of them each caller has.
        self._of_caller: Counter[str] = Counter()
        self._of_callers = 0
        #: The subset of every instance that was ever seen: ``new``, ``old`` or neither.
        self._subset_of: dict[str, str] = {}
        self._fleet = Fleet(
            service,
            transport=client.transport,
            mux=client.mux,
            subjects=client.subjects,
            clock=clock,
            enforced=self._enforced,
            on_change=self._sort,
        )
        self._subscription = client.transport.subscribe(client.subjects.telemetry_of("stats"), self._on_stats)

    async def open(self) -> None:
        """Know who is there; :class:`PermissionDeniedError` where one may not listen."""
        await self._transport.fence()
        await self._fleet.start()
        self._sort()

    async def lease(self) -> None:
        """Hold the lease on statistics until cancelled."""
        # Totals are cumulative: nothing is lost while the bus is away.
        await hold_lease(self._want, transport=self._transport, mux=self._mux)

    def select(self, old: SubsetRules, new: SubsetRules) -> None:
        """The subsets are these now."""
        if (old, new) != (self.old, self.new):
            self.old, self.new = old, new
            self._subset_of.clear()
            self._sort()

    def there(self) -> int | None:
        """How many instances of the new subset take calls; ``None`` while nobody knows."""
        if not self._fleet.ready:
            return None
        return sum(self.new.selects(each.version, each.labels) for each in self._fleet.instances())

    @property
    def ignored(self) -> int:
        """Messages that were not believed, and words that came late or again."""
        return self._ignored + self._tracks.stale

    @property
    def overflowed(self) -> int:
        """Series that found no room."""
        return self._tracks.overflowed

    @property
    def problem(self) -> str:
        """Why nobody knows who is there, and will not; empty where nothing stands in the way."""
        return self._fleet.problem

    def take(self) -> dict[str, Pair]:
        """What has ended since this was asked last, by the side that counts it."""
        found = {CALLERS: Pair(), INSTANCES: Pair()}
        now = self._now()
        for key, track in self._tracks:
            side, subset = self._place(key)
            news = track.take() if subset else None
            if news is not None:
                pair = found[side]
                (pair.new if subset == self.new.name else pair.old).add(Sample(*news))
            elif now - track.heard > SILENT_S:
                self._forget(key)
        return found

    def close(self) -> None:
        """Watch no more."""
        self._transport.unsubscribe(self._subscription)
        self._fleet.shut()

    # -- hearing ------------------------------------------------------------------------------------

    def _sort(self) -> None:
        """Who is in which subset; whoever leaves is remembered, because his last numbers come after it."""
        for each in self._fleet.known():
            if each.id in self._subset_of:
                continue
            if len(self._subset_of) >= MAX_INSTANCES:
                del self._subset_of[next(iter(self._subset_of))]
            # An instance that is in both is one of those that are watched.
            in_new = self.new.selects(each.version, each.labels)
            in_old = self.old.selects(each.version, each.labels)
            self._subset_of[each.id] = self.new.name if in_new else self.old.name if in_old else ""

    def _place(self, key: Kind) -> tuple[str, str]:
        """Which side a series is of, and which subset; empty where that is none, or not known yet."""
        if key.side == "out":
            return CALLERS, key.subset
        return INSTANCES, self._subset_of.get(key.instance, "") if key.member == self.service else ""

    def _on_stats(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        whose = member_of(subject, reply, enforced=self._enforced)
        if whose is None:
            self._ignored += 1
            return
        try:
            message = decode_stats(
                payload, service=whose[0], instance=whose[1], namespace=self._subjects.namespace
            )
        except CodecError:
            self._ignored += 1
            return
        self._heard(message)

    def _heard(self, message: StatsMessage) -> None:
        self._tracks.hear(message, self._now())

    def _concerns(self, series: SeriesSnapshot) -> bool:
        if series.service != self.service:
            return False
        return series.side == "in" or series.subset in (self.old.name, self.new.name)

    def _has_room(self, key: Kind) -> bool:
        full, who = len(self._tracks) >= MAX_TRACKS, "members"
        if key.side == "out":
            full = full or self._of_callers >= MAX_OF_CALLERS
            if self._of_caller[key.member] >= MAX_OF_CALLER:
                full, who = True, key.member
        if full:
            so_far = self.overflowed + 1
            if worth_saying(so_far):
                log.warning(
                    "%s: more kinds of calls are counted by %s than there is room for; those beyond are not looked at "
                    "(%d so far)", self.service, who, so_far,
                )  # fmt: skip
            return False
        if key.side == "out":
            self._of_caller[key.member] += 1
            self._of_callers += 1
        return True

    def _forget(self, key: Kind) -> None:
        self._tracks.forget(key)
        if key.side == "out":
            self._of_callers -= 1
            self._of_caller[key.member] -= 1
            if not self._of_caller[key.member]:
                del self._of_caller[key.member]

    def __repr__(self) -> str:
        return f"<SubsetWatch of {self.service}: {len(self._tracks)} series>"

"""Who ought to answer a roll call: instances whose beats are heard, and those of whom the audit has a sign of life.

Whoever asks "who is there?" hears nothing of an instance that hangs at that moment. Presence is the second witness: an
instance that was there, and has neither left nor been silent for so long that observers drop it, is still to be
reckoned with. Whoever has only just begun to listen knows the past from the audit, where there is one; from then on
silence is judged as every observer judges it (:mod:`nats_mesh.core.registry`). Pure clients have no presence.
"""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

import anyio

from nats_mesh.audit.reading import AuditReader, seconds_of, sign_of, utc_of
from nats_mesh.audit.records import MAX_WITHIN_S, PresenceRecord
from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.core.presence import Announcement, Kind
from nats_mesh.core.registry import BEAT_FACTOR, GONE_AFTER, HEARSAY_INTERVAL_S, Registry
from nats_mesh.core.roster import MAX_ENTRIES, Due, Roster
from nats_mesh.discovery.messages import nominal_interval_s
from nats_mesh.discovery.observer import Observer
from nats_mesh.errors import CallError, PermissionDeniedError
from nats_mesh.wire.kv import KvAbsentError, KvError
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["Expected", "Sighting"]

log = logging.getLogger("nats_mesh.policies")

#: How far back the audit is read at first: the promises of instances of small services, and what observers add
#: (seconds). Where instances promise less often, it is read again from so far back.
_BACK_S: Final = 120.0
#: How long reading may take in all (seconds).
_READ_S: Final = 3.0


class Sighting(NamedTuple):
    """An instance that ought to be there. Its last sign of life is ``silent_s`` old; ``revision`` is what it said then
    that it follows. ``recorded``: the sign is one of the audit, which has few of them; it may have lived on."""

    service: str
    instance: str
    name: str
    silent_s: float
    revision: tuple[int, int]
    recorded: bool = False


class Expected:
    """Hears beats from :meth:`open` to :meth:`close`, and reads the audit on :meth:`recall`. ``problem`` says why
    something of that could not be: then not everybody may be known. So it does beyond ``most`` instances."""

    def __init__(
        self,
        *,
        subjects: Subjects,
        transport: Transport,
        mux: ReplyMux,
        clock: Clock = SYSTEM_CLOCK,
        enforced: bool = False,
        most: int = MAX_ENTRIES,
    ) -> None:
        self._problem = ""
        #: Whether the audit has told who was there.
        self.recalled = False
        self._most = most
        self._subjects = subjects
        self._transport = transport
        self._mux = mux
        self._clock = clock
        self._now = clock.monotonic
        self._enforced = enforced
        self._observer: Observer | None = None
        #: Of those that the audit told of: when the last sign was given, and when it was told.
        self._recorded: dict[tuple[str, str], tuple[float, float]] = {}
        #: Who has ended, as somebody knows for certain, and when that was said.
        self._ended: dict[tuple[str, str], float] = {}

    @property
    def problem(self) -> str:
        """Why not everybody may be known; empty where nothing is wrong."""
        if not self._problem and self._observer is not None and self._observer.registry.overflowed:
            return self._too_many()
        return self._problem

    def _too_many(self) -> str:
        return f"there are more than {self._most:,} instances: not all of them are known"

    async def open(self) -> None:
        """Listen; returns when the server has confirmed it."""
        self._observer = observer = Observer(
            subjects=self._subjects,
            transport=self._transport,
            mux=self._mux,
            clock=self._clock,
            enforced=self._enforced,
            registry=Registry(max_instances=self._most, max_per_service=self._most),
        )
        try:
            await self._transport.fence()
        except PermissionDeniedError as error:
            self._problem = f"presence may not be heard: {error.message}"
            observer.close()

    async def recall(self) -> None:
        """Take the signs that the audit has, where there is one. Raises nothing: ``problem`` says what could not be."""
        with anyio.move_on_after(_READ_S) as reading:
            try:
                await self._read()
            except KvAbsentError:
                return  # nobody keeps records
            except (KvError, CallError) as error:
                self._problem = f"the audit does not say who was there: {error}"
        if reading.cancelled_caught:
            self._problem = (
                f"the audit could not be read in {_READ_S:g} s: not everybody who was there is known"
            )

    async def _read(self) -> None:
        reader = AuditReader(self._subjects, transport=self._transport, mux=self._mux, timeout_s=_READ_S)
        info = await reader.info()
        back_s = _BACK_S
        while True:
            now = seconds_of(info.now)
            roster: Roster[PresenceRecord] = Roster(self._most)
            since = max(now - back_s, seconds_of(info.since))
            async for entry in reader.entries(kind="presence", since=utc_of(since), upto=info.last):
                record = entry.record
                if isinstance(record, PresenceRecord):
                    roster.take(
                        (record.service, record.instance), sign_of(record, seconds_of(entry.time)), record
                    )
            intervals = {service: nominal_interval_s(count) for service, count in roster.sizes().items()}
            patience = {service: _patience_s(interval_s) for service, interval_s in intervals.items()}
            longest_s = min(roster.longest_s, MAX_WITHIN_S) + max(patience.values(), default=0.0)
            if longest_s <= back_s:
                break
            back_s = longest_s
        if roster.more:
            self._problem = self._too_many()
        self.recalled = True
        for due in roster.due(now, patience):
            self._take(due, intervals[due.key[0]])

    def _take(self, due: Due[PresenceRecord], interval_s: float) -> None:
        """What is recorded counts as what others say of an instance: its own word replaces it."""
        record, observer = due.value, self._observer
        if observer is None:
            return
        now = self._now()
        observer.hearsay(
            Announcement(
                type=Kind.BEAT,
                service=record.service,
                instance=record.instance,
                name=record.name,
                version=record.version,
                namespace=record.namespace,
                seq=1,
                started=record.started,
                interval_s=min(interval_s, HEARSAY_INTERVAL_S),
                state=record.state,
                labels=record.labels,
                revision=record.revision,
            )
        )
        told = observer.registry.exactly(*due.key)
        if told is not None and told.seen >= now:  # else it was heard itself already
            self._recorded[due.key] = now - due.silent_s, told.seen

    def find(self, service: str, instance: str) -> Sighting | None:
        """What is known of one instance; ``None`` where presence does not show it."""
        key = (service, instance)
        found = None if self._observer is None else self._observer.registry.exactly(service, instance)
        if found is None:
            return None
        seen = found.seen
        if seen <= self._ended.get(key, seen - 1.0):
            return None
        signed = self._recorded.get(key)
        recorded = signed is not None and signed[1] == seen  # it was not heard itself since
        if signed is not None and recorded:
            seen = signed[0]
        silent_s = max(0.0, self._now() - seen)
        return Sighting(found.service, found.id, found.name, silent_s, found.revision, recorded)

    def everybody(self) -> list[Sighting]:
        """All that presence shows now, by service and id."""
        if self._observer is None:
            return []
        found = [self.find(each.service, each.id) for each in self._observer.registry.instances()]
        return [each for each in found if each is not None]

    def ended(self, service: str, instance: str) -> None:
        """Somebody knows for certain that it is not there; until it is heard again."""
        self._ended[service, instance] = self._now()

    def close(self) -> None:
        """Listen no more; what is known stays."""
        if self._observer is not None:
            self._observer.close()

    def __repr__(self) -> str:
        count = 0 if self._observer is None else len(self._observer.registry)
        return f"<Expected {count} instances>"


def _patience_s(interval_s: float) -> float:
    """How long observers keep an instance that beats so often and is silent."""
    return GONE_AFTER * BEAT_FACTOR * interval_s

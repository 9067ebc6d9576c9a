"""How many instances a service has, as one of them hears it: what sets the pace of its beats.

An instance listens to the presence of its own service alone and reads nothing but the subject, so that a
beat costs a dictionary entry. The beats it hears are bounded, because their pace follows this very count.
Only while its own dispatch goes by credit, or verdicts may have it step aside, it reads what the others say of
their state and load.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from nats_mesh.clock import Clock
from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.presence import MAX_INTERVAL_S, InstanceName, Kind, Load, State
from nats_mesh.core.registry import BEAT_FACTOR, SUSPECT_AFTER
from nats_mesh.discovery.messages import BASE_INTERVAL_S, MAX_BYTES, nominal_interval_s
from nats_mesh.discovery.overdue import MAX_OVERDUE, Overdue
from nats_mesh.errors import UNREADABLE
from nats_mesh.model import is_name
from nats_mesh.wire.subjects import Subjects, reply_allowed
from nats_mesh.wire.transport import Transport

__all__ = ["Peers"]

#: Instances that are told apart; the interval has reached its cap by then.
_MAX_PEERS = 20_000
#: After so many silent intervals an instance is no peer any more.
_SILENT_INTERVALS = 4.0
#: After so many silent intervals nobody relies on what it said of its load: one beat, its jitter, and the way.
_FRESH_INTERVALS = BEAT_FACTOR
#: And after so many not on what it said of its state: two beats, as where an observer calls it suspect.
_STATE_INTERVALS = SUSPECT_AFTER * BEAT_FACTOR
#: How long one that fell silent without leaving is told of (seconds), and of how many: a server notices a process that
#: hangs within minutes.
_LOST_S: Final = 600.0
_MAX_LOST: Final = 64
#: Of how many it is known what people call them.
_MAX_NAMED: Final = 1024
_LEAVE = re.compile(rb'"type"\s*:\s*"leave"')


class _Said(msgspec.Struct, frozen=True):
    """As much of an announcement as is read here."""

    type: Kind
    state: State = State.READY
    load: Load = Load()
    interval_s: float = BASE_INTERVAL_S


class _Named(msgspec.Struct, frozen=True):
    """What people call an instance (``host-pid``)."""

    name: InstanceName


_decode = at_first_use(lambda: msgspec.json.Decoder(_Said).decode)
_decode_name = at_first_use(lambda: msgspec.json.Decoder(_Named).decode)


class Peers:
    """Counts the instances of one service, this one included.

    While ``watching``, :meth:`with_room` and :meth:`others` know what the others said of themselves, and ``on_room``
    is called when that may have changed.
    """

    def __init__(
        self,
        *,
        service: str,
        subjects: Subjects,
        transport: Transport,
        clock: Clock,
        enforced: bool,
        instance: str = "",
        on_room: Callable[[], None] | None = None,
    ) -> None:
        self._watchers: set[str] = set()
        self._service = service
        self._instance = instance
        self._on_room = on_room
        self._transport = transport
        self._now = clock.monotonic
        self._enforced = enforced
        self._seen: dict[str, float] = {}
        #: Until when each other instance is believed to have room.
        self._roomy: dict[str, float] = {}
        #: The state that each other instance said it is in, and until when that is believed.
        self._states: dict[str, tuple[State, float]] = {}
        #: When those were heard last that fell silent and never said that they leave; the latest are at the end.
        self._lost: dict[str, float] = {}
        self._names: dict[str, str] = {}
        self._prune_at = 0.0
        self._subscription = transport.subscribe(subjects.presence_of(service), self._on_presence)

    def _on_presence(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        if not reply_allowed(reply, self._service, enforced=self._enforced):
            return
        instance = subject[subject.rfind(".") + 1 :]
        if _LEAVE.search(payload) is not None:
            self._forget(instance)
        elif instance in self._seen:
            self._seen[instance] = self._now()
        elif len(self._seen) < _MAX_PEERS and is_name(instance):
            self._meet(instance, payload)
        if self.watching and instance != self._instance:
            self._read(instance, payload)

    def _meet(self, instance: str, payload: bytes) -> None:
        self._seen[instance] = self._now()
        self._lost.pop(instance, None)
        if instance not in self._names and len(self._names) < _MAX_NAMED and len(payload) <= MAX_BYTES:
            with suppress(*UNREADABLE):  # who cannot be read has no name
                self._names[instance] = _decode_name(payload).name

    def _forget(self, instance: str) -> None:
        for table in (self._seen, self._lost, self._names):
            table.pop(instance, None)

    @property
    def watching(self) -> bool:
        """Whether somebody asks for more than the count."""
        return bool(self._watchers)

    def _read(self, instance: str, payload: bytes) -> None:
        self._roomy.pop(instance, None)
        self._states.pop(instance, None)
        try:
            said = _decode(payload) if len(payload) <= MAX_BYTES else None
        except UNREADABLE:
            said = None  # of whom nothing can be read nobody relies on
        if said is not None and instance in self._seen and said.type is not Kind.LEAVE:
            load, now = said.load, self._now()
            interval_s = min(MAX_INTERVAL_S, max(0.0, said.interval_s))
            self._states[instance] = said.state, now + _STATE_INTERVALS * interval_s
            if said.state is State.READY and not load.full and load.in_flight < load.limit:
                self._roomy[instance] = now + _FRESH_INTERVALS * interval_s
        if self._on_room is not None:
            self._on_room()

    def watch(self, on: bool, who: str = "credit") -> None:
        """Begin to read what the others say of themselves, or stop where nobody else (``who``) asks for it."""
        if on:
            self._watchers.add(who)
            return
        self._watchers.discard(who)
        if not self._watchers:
            self._roomy.clear()
            self._states.clear()

    def with_room(self) -> int:
        """How many other instances take calls, by what they said lately; 0 while not watching."""
        now = self._now()
        return sum(now < until for until in self._roomy.values())

    def others(self) -> tuple[set[str], set[str]]:
        """Which other instances take calls, and which live without taking any, by what they said lately; nobody
        while not watching."""
        now = self._now()
        states = [(each, state) for each, (state, until) in self._states.items() if now < until]
        serving = {each for each, state in states if state is State.READY}
        return serving, {each for each, state in states if state is State.DRAINING}

    def count(self) -> int:
        """Instances heard of lately; at least 1."""
        now = self._now()
        if now >= self._prune_at:
            patience_s = _SILENT_INTERVALS * nominal_interval_s(len(self._seen))
            for name in [name for name, at in self._seen.items() if now - at >= patience_s]:
                self._lose(name, self._seen.pop(name))
            self._roomy = {name: until for name, until in self._roomy.items() if now < until}
            self._states = {name: said for name, said in self._states.items() if now < said[1]}
            self._prune_at = now + patience_s / 2
        return max(1, len(self._seen))

    def _lose(self, instance: str, heard: float) -> None:
        self._lost[instance] = heard
        if len(self._lost) > _MAX_LOST:
            oldest = next(iter(self._lost))
            del self._lost[oldest]
            self._names.pop(oldest, None)

    def overdue(self) -> list[Overdue]:
        """The other instances that were not heard for the longest and have not left, at most
        :data:`~nats_mesh.discovery.overdue.MAX_OVERDUE`: whoever asks finds out which of them answer.

        Half of the places at most are for those who are no peers any more, the last of them first: a service whose
        instances crash again and again hides nobody who hangs."""
        self.count()
        now = self._now()
        for each in [each for each, at in self._lost.items() if now - at >= _LOST_S]:
            self._forget(each)
        lost = heapq.nlargest(MAX_OVERDUE // 2, [(at, each) for each, at in self._lost.items()])
        seen = [(at, each) for each, at in self._seen.items() if each != self._instance]
        return [
            Overdue(instance=each, name=self._names.get(each, ""), heard_s=round(now - at, 1))
            for at, each in sorted(lost) + heapq.nsmallest(MAX_OVERDUE - len(lost), seen)
        ]

    def close(self) -> None:
        """Stop listening."""
        self._transport.unsubscribe(self._subscription)

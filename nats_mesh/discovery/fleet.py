"""The instances of one service, as one caller knows them: for calls that choose an instance, and for gather.

Made only where something asks for it: a queue group needs no list. Everybody who is there is asked once
(``$SRV.PING.<service>``); from then on presence says who comes, goes, changes and beats. What is known here never
fails a call: it may be late by a moment, and whoever uses it goes on with the queue group where an instance is gone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Final

import anyio
import msgspec

from nats_mesh.clock import Clock
from nats_mesh.core.members import Change, ChangeKind, Health, Instance
from nats_mesh.core.presence import MAX_WEIGHT, Announcement, State, weight_of
from nats_mesh.core.registry import Registry
from nats_mesh.discovery.observer import Observer
from nats_mesh.discovery.roll_call import ROLL_S, RollCall
from nats_mesh.errors import CallError, PermissionDeniedError
from nats_mesh.model import check_name
from nats_mesh.wire.loop import Timer, call_later
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["MAX_INSTANCES", "Fleet", "FleetMember"]

log = logging.getLogger("nats_mesh.fleet")

MAX_INSTANCES: Final = 10_000
#: How often everybody is looked at though nobody is due (seconds): a timer that comes late tells of a stall by itself.
_TICK_S = 3600.0


class FleetMember(msgspec.Struct, frozen=True, kw_only=True):
    """One instance. ``in_flight`` of ``limit`` calls are what its last beat said (a limit of 0: it did not say).

    ``first_seen`` is when it joined while this caller watched (monotonic seconds), and minus infinity for whoever
    was there before: nobody knows since when, and it needs no slow start. A ``suspect`` has missed two beats.
    ``weight`` is that of its label, and 1 where it has none that can be read.
    """

    id: str
    version: str
    labels: dict[str, str]
    zone: str
    state: State
    suspect: bool
    in_flight: int
    limit: int
    first_seen: float
    weight: float = 1.0

    @property
    def callable(self) -> bool:
        """Whether calls may go there: not joining, not draining."""
        return self.state is State.READY


class Fleet:
    """Who serves ``service``. Everything but :meth:`start`, :meth:`wait` and :meth:`close` is synchronous.

    ``version`` grows with every change: who is there, in which state, with which version and labels, and whether all
    of that is :attr:`ready` to be used; the load of a beat is no change. ``on_change`` is told of changes, once for all
    of one turn of the loop.
    """

    def __init__(
        self,
        service: str,
        *,
        transport: Transport,
        mux: ReplyMux,
        subjects: Subjects,
        clock: Clock,
        enforced: bool = False,
        max_instances: int = MAX_INSTANCES,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self.service = check_name("service", service)
        self.on_change = on_change
        self.version = 0
        #: Whether the first answers are in. It stays so when the connection goes: what was known is the best guess.
        self.ready = False
        #: Why it is not ready and will not be; empty where nothing stands in the way.
        self.problem = ""
        self._transport = transport
        self._mux = mux
        self._subjects = subjects
        self._clock = clock
        self._enforced = enforced
        self._max_instances = max_instances
        self._registry = self._new_registry()
        self._observer: Observer | None = None
        self._members: dict[str, FleetMember] = {}
        self._listed: tuple[FleetMember, ...] | None = ()
        self._sorted = True
        self._roll: RollCall | None = None
        self._waiting: list[anyio.Event] = []
        self._notice: Timer | None = None
        self._open = False
        self._said_full = False
        self._said_weight = False

    # -- what is known ------------------------------------------------------------------------------

    def instances(self) -> Sequence[FleetMember]:
        """Everybody who may be called, by id; nobody until it is :attr:`ready`. Cheap while nothing has changed."""
        return self.known() if self.ready else ()

    def known(self) -> Sequence[FleetMember]:
        """As :meth:`instances`, with whoever was heard of so far also where that may not be everybody."""
        if self._listed is None:
            if not self._sorted:
                self._sorted = True
                self._members = dict(sorted(self._members.items()))
            self._listed = tuple(each for each in self._members.values() if each.callable)
        return self._listed

    @property
    def versions(self) -> set[str]:
        """The versions of all instances that may be called, as far as they are known; from any thread."""
        return {each.version for each in list(self._members.values()) if each.callable}

    @property
    def overflowed(self) -> int:
        """Announcements of instances that found no room."""
        return self._registry.overflowed

    # -- opening and closing ------------------------------------------------------------------------

    def open(self) -> None:
        """Listen and ask, without waiting for the answers; once."""
        if self._open:
            return
        self._open = True
        self._listen()
        self._transport.add_listener(self)
        self.ask()

    async def start(self) -> None:
        """As :meth:`open`; returns when the first answers are in, or it is known that none will come."""
        self.open()
        await self.wait(ROLL_S)

    async def wait(self, timeout_s: float) -> bool:
        """Return when it is ready, or nothing more is to be waited for, or after ``timeout_s``; whether it is ready.

        Where nobody is being asked, as where presence cannot be heard, everybody is asked anew.
        """
        if self.ready or not self._open:
            return self.ready
        if self._roll is None or self._roll.over:
            self.ask()
        if self._roll is not None and self._roll.counting:
            answered = anyio.Event()
            self._waiting.append(answered)
            try:
                with anyio.move_on_after(timeout_s):
                    await answered.wait()
            finally:
                if answered in self._waiting:
                    self._waiting.remove(answered)
        return self.ready

    async def close(self) -> None:
        """Know nothing any more."""
        self.shut()

    def shut(self) -> None:
        """As :meth:`close`."""
        if not self._open:
            return
        self._open = False
        self._transport.remove_listener(self)
        if self._roll is not None:
            self._roll.stop()
            self._roll = None
        self._deafen()
        if self._notice is not None:
            self._notice.cancel()
            self._notice = None
        self.ready = False
        self._forget()
        self._wake()

    def _listen(self) -> None:
        self._observer = Observer(
            subjects=self._subjects,
            transport=self._transport,
            mux=self._mux,
            clock=self._clock,
            service=self.service,
            enforced=self._enforced,
            on_change=self._on_change,
            on_heard=self._on_heard,
            registry=self._registry,
        )

    def _deafen(self) -> None:
        if self._observer is not None:
            self._observer.close()
            self._observer = None

    def _new_registry(self) -> Registry:
        most = self._max_instances
        return Registry(max_instances=most, max_per_service=most, tick_s=_TICK_S)

    def _forget(self) -> None:
        self._registry = self._new_registry()
        self._members = {}
        self._changed()

    # -- asking -------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Ask everybody who is there to say so. Where the connection is away that is done when it is back."""
        if self._roll is not None:
            self._roll.stop()
            self._roll = None
        if self._observer is None:  # whoever leaves is not heard: only who answers now is surely there
            self._forget()
        try:
            self._roll = RollCall(
                self.service,
                self,
                transport=self._transport,
                mux=self._mux,
                now=self._clock.monotonic,
                limit=2 * self._max_instances + 16,
            )
        except CallError as error:
            self.unanswered(error)

    def answered(self, announcement: Announcement) -> None:
        """One answer to the question; instances of other namespaces do not count."""
        if announcement.namespace != self._subjects.namespace:
            return
        if self._observer is not None:
            self._observer.hearsay(announcement)
        else:
            for change in self._registry.hearsay(announcement, self._clock.monotonic()):
                self._on_change(change)
            self._on_heard(announcement.instance)

    def counted(self) -> None:
        """The first answers are in."""
        if self._observer is not None and not self.ready:
            self.ready = True
            self._changed()
        self._wake()

    def unanswered(self, error: CallError) -> None:
        """The question was lost, or may not be asked."""
        if isinstance(error, PermissionDeniedError):
            self._cannot(error.message)
        else:
            log.debug("%s: nobody can be asked now: %s", self.service, error.message)
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.set()

    def _cannot(self, why: str) -> None:
        if why != self.problem:
            self.problem = why
            log.warning(
                "%s: its instances are not known, its queue group takes the calls: %s", self.service, why
            )

    # -- hearing ------------------------------------------------------------------------------------

    def _on_change(self, change: Change) -> None:
        instance = change.instance
        if change.kind is ChangeKind.GONE:
            self._members.pop(instance.id, None)
        else:
            before = self._members.get(instance.id)
            if before is not None:
                first_seen = before.first_seen
            elif change.kind is ChangeKind.JOINED and instance.described:
                first_seen = instance.seen
            else:
                first_seen = -math.inf
            member = self._members[instance.id] = _member(instance, first_seen)
            if not self._said_weight and weight_of(member.labels) is None:
                self._said_weight = True
                log.warning(
                    "%s: the label weight of instance %s is no number above 0 up to %g: %r; it counts as 1",
                    self.service,
                    instance.id,
                    MAX_WEIGHT,
                    member.labels["weight"],
                )
            if before is None:
                self._sorted = False
        self._changed()

    def _on_heard(self, instance_id: str) -> None:
        """A beat: the load alone may be new."""
        if self._registry.overflowed and not self._said_full:
            self._said_full = True
            log.warning(
                "%s has more than %d instances; those beyond get no calls that choose an instance",
                self.service,
                self._max_instances,
            )
        instance = self._registry.exactly(self.service, instance_id)
        member = self._members.get(instance_id)
        if instance is None or member is None:
            return
        load = instance.load
        if (load.in_flight, load.limit) != (member.in_flight, member.limit):
            self._members[instance_id] = _member(instance, member.first_seen)
            self._listed = None

    def _changed(self) -> None:
        self.version += 1
        self._listed = None
        if self._notice is None and self._open and self.on_change is not None:
            self._notice = call_later(0.0, self._tell)

    def _tell(self) -> None:
        self._notice = None
        if self.on_change is not None:
            self.on_change()

    # -- the connection -----------------------------------------------------------------------------

    def on_disconnect(self, reason: str) -> None:
        """Nobody is forgotten: what was known is still the best guess."""

    def on_reconnect(self) -> None:
        """Who came and went meanwhile was not heard; and what was not allowed may be now."""
        self.problem = ""
        if self._observer is None:
            self._forget()
            self._listen()
        self.ask()

    def on_denied(self, operation: str, subject: str) -> None:
        """Without presence a list would only grow old."""
        if operation == "subscription" and subject == self._subjects.presence_of(self.service):
            self._deafen()
            self.ready = False
            self._changed()
            self._cannot(
                f"the server's permissions do not let {self._transport.name!r} subscribe to {subject}"
            )

    def __repr__(self) -> str:
        state = "ready" if self.ready else self.problem or "not ready"
        return f"<Fleet of {self.service}: {len(self._members)} instances, version {self.version}, {state}>"


def _member(instance: Instance, first_seen: float) -> FleetMember:
    return FleetMember(
        id=instance.id,
        version=instance.version,
        labels=instance.labels,
        zone=instance.labels.get("zone", ""),
        state=instance.state,
        suspect=instance.health is Health.SUSPECT,
        in_flight=instance.load.in_flight,
        limit=instance.load.limit,
        first_seen=first_seen,
        weight=weight_of(instance.labels) or 1.0,
    )

"""Credit-based dispatch in one instance: what is decided in ``core/credit.py`` is carried out here."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nats_mesh.clock import Clock
from nats_mesh.core.credit import Credit, Seat
from nats_mesh.discovery.peers import Peers
from nats_mesh.serving.handling import Served
from nats_mesh.serving.seats import Seats
from nats_mesh.telemetry.events import Events
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.wire.loop import Timer, call_later

__all__ = ["Crediting"]

#: How often the seat is looked at while it is not open (seconds): others may fall silent, a pause may be over.
_LOOK_S = 0.05


class Crediting:
    """Gives up the seat in the queue group and takes it again. ``report`` tells the others what became of it.

    Costs nothing while no endpoint asks for it, and a timer while the instance is full.
    """

    def __init__(
        self,
        *,
        service: str,
        clock: Clock,
        peers: Peers,
        seats: Seats,
        events: Events,
        report: Callable[[], None],
    ) -> None:
        self._service = service
        self._now = clock.monotonic
        self._peers = peers
        self._seats = seats
        self._events = events
        self._report = report
        self._credit = Credit()
        self._asking: tuple[Served, ...] = ()
        self._timer: Timer | None = None
        self._soon: Timer | None = None

    @property
    def full(self) -> bool:
        """Whether the instance asks for no more calls from the queue for now."""
        return self._credit.seat is not Seat.OPEN

    def apply(self, served: Iterable[Served]) -> None:
        """The endpoints are served under these rules from now on."""
        self._asking = tuple(each for each in served if each.credit is not None and each.credit.present)
        self._peers.watch(bool(self._asking))
        if self._asking or self.full:
            self._look()

    def signal(self) -> None:
        """A slot was taken or given back, or another instance spoke: look, once for all that comes in this turn."""
        if self._soon is None:
            self._soon = call_later(0.0, self._look)

    def room_changed(self) -> None:
        """Another instance said how it is; that matters only while this one is full."""
        if self.full:
            self.signal()

    def _look(self) -> None:
        self._cancel()
        before = self._credit.seat
        loads = [(each.concurrency.in_flight, each.concurrency.limit) for each in self._asking]
        others = self._peers.with_room()
        seat = self._credit.look(self._now(), loads, others > 0)
        if seat is not before:
            self._changed(before, seat, others)
        if seat is not Seat.OPEN:
            self._timer = call_later(_LOOK_S, self._look)

    def _changed(self, before: Seat, seat: Seat, others: int) -> None:
        for each in self._asking:
            if each.credit is not None:
                each.credit.alert = seat is not Seat.OPEN
        self._seats.keep_away(seat is Seat.LEFT)
        if Seat.OPEN in (before, seat):
            self._report()
        if seat is Seat.LEFT:
            self._events.emit(
                EventKind.QUEUE_LEFT,
                self._service,
                f"it is full, and {others} others have room",
                others=others,
            )
        elif before is Seat.LEFT:
            why = "it has room again" if seat is Seat.OPEN or others else "no other instance has room"
            self._events.emit(EventKind.QUEUE_BACK, self._service, why, others=others)

    def _cancel(self) -> None:
        for timer in (self._timer, self._soon):
            if timer is not None:
                timer.cancel()
        self._timer = self._soon = None

    def close(self) -> None:
        """Look no more."""
        self._cancel()
        self._asking = ()

"""The fleets of one client: each made when it is first needed, and closed when nobody needs it any more."""

from __future__ import annotations

import logging
from typing import Final

from nats_mesh.clock import Clock
from nats_mesh.discovery.fleet import MAX_INSTANCES, Fleet
from nats_mesh.errors import ConfigError
from nats_mesh.wire.loop import Timer, call_later
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["IDLE_S", "MAX_FLEETS", "FleetDirectory"]

log = logging.getLogger("nats_mesh.fleet")

MAX_FLEETS: Final = 256
#: How long a fleet that nobody holds is kept after its last use (seconds).
IDLE_S: Final = 300.0


class FleetDirectory:
    """The fleets of one client by service. A fleet that is held stays; any other goes ``idle_s`` after its last use."""

    def __init__(
        self,
        transport: Transport,
        mux: ReplyMux,
        subjects: Subjects,
        clock: Clock,
        *,
        enforced: bool = False,
        max_fleets: int = MAX_FLEETS,
        max_instances: int = MAX_INSTANCES,
        idle_s: float = IDLE_S,
    ) -> None:
        if max_fleets < 1 or max_instances < 1 or not idle_s > 0:
            raise ConfigError("fleets: every bound must be at least 1 and idle_s above 0")
        self._transport = transport
        self._mux = mux
        self._subjects = subjects
        self._clock = clock
        self._enforced = enforced
        self._max_fleets = max_fleets
        self._max_instances = max_instances
        self._idle_s = idle_s
        self._places: dict[str, _Place] = {}
        self._timer: Timer | None = None
        self._closed = False
        self._said_full = False

    def fleet(self, service: str) -> Fleet:
        """The fleet of ``service``, opened where it is new, and held until :meth:`release`.

        Where all places are taken by fleets that are held, the answer is one that never gets ready: its service's
        queue group takes the calls. The log says so.
        """
        place = self._place(service)
        if place is None:
            return self._new(service)
        place.holds += 1
        return place.fleet

    def release(self, fleet: Fleet) -> None:
        """Whoever was given it by :meth:`fleet` needs it no longer. One that had no place was held by nobody."""
        place = self._places.get(fleet.service)
        if place is not None and place.fleet is fleet and place.holds > 0:
            place.holds -= 1
            place.used = self._clock.monotonic()
            self._plan()

    def visit(self, service: str) -> Fleet | None:
        """The fleet of ``service`` for now; ``None`` where all places are taken by fleets that are held."""
        place = self._place(service)
        return None if place is None else place.fleet

    def versions(self, service: str) -> set[str]:
        """The versions of the instances of ``service`` that are known to be there; from any thread."""
        place = self._places.get(service)
        return set() if place is None else place.fleet.versions

    def _place(self, service: str) -> _Place | None:
        place = self._places.get(service)
        now = self._clock.monotonic()
        if place is None:
            if self._closed or not self._room():
                return None
            fleet = self._new(service)
            fleet.open()
            place = self._places[service] = _Place(fleet)
        place.used = now
        self._plan()
        return place

    def _new(self, service: str) -> Fleet:
        return Fleet(
            service,
            transport=self._transport,
            mux=self._mux,
            subjects=self._subjects,
            clock=self._clock,
            enforced=self._enforced,
            max_instances=self._max_instances,
        )

    def _room(self) -> bool:
        """Whether there is a place for one more; the one that was not used for the longest time makes room."""
        if len(self._places) < self._max_fleets:
            return True
        idle = [(place.used, name) for name, place in self._places.items() if not place.holds]
        if idle:
            self._drop(min(idle)[1])
            return True
        if not self._said_full:
            self._said_full = True
            log.warning(
                "the instances of %d services are watched already, which is the most: the queue groups of further "
                "services take their calls, whatever their policies say",
                self._max_fleets,
            )
        return False

    def _drop(self, service: str) -> None:
        self._places.pop(service).fleet.shut()

    def _plan(self) -> None:
        """Come back when the first that nobody holds has been idle for long enough."""
        if self._timer is None and not self._closed:
            idle = [place.used for place in self._places.values() if not place.holds]
            if idle:
                due = min(idle) + self._idle_s
                self._timer = call_later(max(0.0, due - self._clock.monotonic()), self._review)

    def _review(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        # Instants are compared as _plan() computes them: a difference that is rounded another way would come too early.
        for service, place in list(self._places.items()):
            if not place.holds and place.used + self._idle_s <= now:
                self._drop(service)
        self._plan()

    async def close(self) -> None:
        """Close all of them; none is opened any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for service in list(self._places):
            self._drop(service)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"<FleetDirectory of {len(self)} services>"


class _Place:
    """A fleet in the directory: how many hold it, and when it was used last (monotonic seconds)."""

    __slots__ = ("fleet", "holds", "used")

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.holds = 0
        self.used = 0.0

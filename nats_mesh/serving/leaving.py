"""How an instance is left: what it is made of, and in which order that ends."""

from __future__ import annotations

import logging

import anyio

from nats_mesh.calling.client import Client
from nats_mesh.calling.tracing import MemberTracing
from nats_mesh.config.follower import ConfigFollower
from nats_mesh.core.presence import State
from nats_mesh.discovery.announcer import Announcer
from nats_mesh.discovery.peers import Peers
from nats_mesh.discovery.responder import Responder
from nats_mesh.errors import CallError
from nats_mesh.serving.call_log import InstanceLog
from nats_mesh.serving.crediting import Crediting
from nats_mesh.serving.dispatch import Dispatcher
from nats_mesh.serving.lifespan import Lifespan
from nats_mesh.serving.operating import Operating
from nats_mesh.serving.seats import Seats
from nats_mesh.telemetry.events import Events
from nats_mesh.telemetry.publisher import StatsPublisher
from nats_mesh.telemetry.taps import Taps
from nats_mesh.telemetry.wants import Wants
from nats_mesh.wire.transport import Listener, Transport

__all__ = ["CLOSE_S", "DRAIN_S", "Leaving", "Parts"]

log = logging.getLogger("nats_mesh.instance")

#: How long a draining instance may take to finish what it holds, seconds.
DRAIN_S = 25.0
#: How long its lifespan may take to end, and then its connection, cancelled or not (seconds).
CLOSE_S = 10.0
#: How long handlers may take to end that were told to stop (seconds).
_STOP_S = 1.0


class Parts:
    """What a running instance is made of; each is there from when it has been started."""

    def __init__(self) -> None:
        self.transport: Transport | None = None
        self.client: Client | None = None
        self.dispatcher: Dispatcher | None = None
        self.lifespan: Lifespan | None = None
        self.announcer: Announcer | None = None
        self.responder: Responder | None = None
        self.peers: Peers | None = None
        self.config: ConfigFollower | None = None
        self.seats: Seats | None = None
        self.crediting: Crediting | None = None
        self.operating: Operating | None = None
        self.wants: Wants | None = None
        self.publisher: StatsPublisher | None = None
        self.events: Events | None = None
        self.taps: Taps | None = None
        self.tracing: MemberTracing | None = None
        self.written: InstanceLog | None = None
        #: Who listens to the connection.
        self.listener: Listener | None = None

    def fall_silent(self) -> None:
        """Neither say nor answer anything any more."""
        if self.announcer is not None:
            self.announcer.stop()
        for part in (
            self.operating, self.publisher, self.taps, self.tracing, self.written, self.events, self.wants,
            self.responder, self.peers,
        ):  # fmt: skip
            if part is not None:
                part.close()


class Leaving:
    """Takes an instance out of the mesh. ``withdrawn``: it asks for no more calls; ``left``: it holds none."""

    def __init__(self, name: str, parts: Parts, drain_s: float) -> None:
        self.withdrawn = False
        self.left = False
        self._name = name
        self._parts = parts
        self._drain_s = drain_s
        #: Who drains sets it when it is done, and takes it away; ``_waiting`` is its wait for handlers.
        self._draining: anyio.Event | None = None
        self._waiting: anyio.CancelScope | None = None

    def withdraw(self) -> None:
        """Ask for no more calls: presence ends, then the subscriptions; once."""
        parts = self._parts
        if self.withdrawn or parts.transport is None:
            return
        self.withdrawn = True
        try:
            if parts.crediting is not None:
                parts.crediting.close()
            if parts.announcer is not None and parts.announcer.state is not State.JOINING:
                parts.announcer.leave()
        finally:
            if parts.seats is not None:
                parts.seats.leave()

    async def drain(self, timeout_s: float | None = None) -> int:
        """Leave without losing a call; returns how many handlers had to be stopped after ``timeout_s``.

        The order matters: presence first, then the queue group, then a fence (after it nothing new can
        arrive), then what is held is finished while replies still reach it, the connection last.
        Whoever comes second waits for the first; a drain that was cancelled can be taken up again.
        """
        while self._draining is not None:
            await self._draining.wait()
        transport, dispatcher = self._parts.transport, self._parts.dispatcher
        if self.left or transport is None or dispatcher is None:
            return 0
        self._draining = done = anyio.Event()
        try:
            self.withdraw()
            with anyio.CancelScope() as self._waiting:
                return await self._finish(transport, dispatcher, timeout_s)
            return dispatcher.in_flight  # halt() ended the wait, and stops them
        finally:
            self._draining = self._waiting = None
            done.set()

    async def _finish(self, transport: Transport, dispatcher: Dispatcher, timeout_s: float | None) -> int:
        dispatcher.resume_all()
        try:
            await transport.fence()
        except CallError as error:  # cut off, or an earlier refusal: what is held is finished all the same
            log.warning("%s leaves, but the bus does not confirm it: %s", self._name, error.message)
        dispatcher.shut()
        stopped = await dispatcher.finish_all(self._drain_s if timeout_s is None else timeout_s)
        self.left = True
        if stopped:
            log.warning("%s: %d calls did not finish in time and were stopped", self._name, stopped)
        return stopped

    async def halt(self) -> None:
        """Leave without waiting: no more calls, and what is held is stopped, for which it has a second.

        A handler that does not let itself be stopped goes on, as a plain function in a thread does.
        """
        try:
            self.withdraw()
        finally:
            if self._parts.dispatcher is not None and not self.left:
                await self._stop_handlers(self._parts.dispatcher)

    async def _stop_handlers(self, dispatcher: Dispatcher) -> None:
        dispatcher.shut()
        with anyio.move_on_after(_STOP_S, shield=True):
            if self._waiting is not None:
                self._waiting.cancel()
            while self._draining is not None:
                await self._draining.wait()
            await dispatcher.finish_all(0.0)
        dispatcher.duplicates.close()
        self.left = True
        if dispatcher.in_flight:
            log.warning("%s: %d calls were told to stop and still run", self._name, dispatcher.in_flight)

    async def close(self, timeout_s: float) -> None:
        """What leaving ends with, cancelled or not: handlers are stopped, the lifespan ends, the connection closes.

        The lifespan and the connection have ``timeout_s`` seconds each. Raises what the lifespan raised.
        """
        try:
            await self.halt()
        finally:
            try:
                self._parts.fall_silent()
                if self._parts.lifespan is not None:
                    await self._parts.lifespan.stop(timeout_s)
            finally:
                await self._disconnect(timeout_s)

    async def _disconnect(self, timeout_s: float) -> None:
        client, transport = self._parts.client, self._parts.transport
        try:
            if client is not None:
                with anyio.move_on_after(timeout_s, shield=True):
                    await client.close()
        finally:
            if transport is not None:
                if self._parts.listener is not None:
                    transport.remove_listener(self._parts.listener)
                with anyio.move_on_after(timeout_s, shield=True):
                    await transport.close()

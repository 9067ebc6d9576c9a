"""A running instance: connects, serves, announces itself, drains and leaves."""

from __future__ import annotations

import logging
import os
import platform
import random
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

import anyio

from nats_mesh.client import Client
from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.core.presence import EndpointInfo, Load, State
from nats_mesh.discovery.announcer import Announcer
from nats_mesh.discovery.peers import Peers
from nats_mesh.discovery.responder import Responder
from nats_mesh.discovery.services_api import EndpointCounters, EndpointDoc, mesh_endpoint
from nats_mesh.dispatch import Dispatcher
from nats_mesh.endpoint import Endpoint
from nats_mesh.errors import CallError, ConfigError
from nats_mesh.lifespan import Lifespan
from nats_mesh.service import Service
from nats_mesh.settings import Settings
from nats_mesh.telemetry.publisher import StatsPublisher
from nats_mesh.telemetry.stats import Stats, encode_stats
from nats_mesh.wire.ids import new_id
from nats_mesh.wire.nats_transport import connect
from nats_mesh.wire.subjects import QUEUE, Subjects
from nats_mesh.wire.transport import Connector, Subscription, Transport

__all__ = ["CLOSE_S", "DRAIN_S", "Instance", "display_name"]

log = logging.getLogger("nats_mesh.instance")

#: How long a draining instance may take to finish what it holds, seconds.
DRAIN_S = 25.0
#: How long its lifespan may take to end, and then its connection, cancelled or not (seconds).
CLOSE_S = 10.0
#: How long handlers may take to end that were told to stop (seconds).
_STOP_S = 1.0
_ID_CHECK_S = 0.5


def display_name() -> str:
    """``host-pid``: what people read in place of an instance id."""
    host = (
        "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in platform.node()) or "host"
    )
    return f"{host[:100]}-{os.getpid()}"


class Instance:
    """One running instance of a service; ``async with Instance(service): …`` serves meanwhile.

    Entering returns when the server has confirmed every subscription. Leaving drains: presence ends,
    the subscriptions are left, what is held is finished within ``drain_s`` seconds, then the connection closes.
    Cancelled meanwhile, it stops what it holds and leaves all the same. ``on_failure`` may be set: it is
    called where the service's lifespan ends on its own, after which the instance takes no calls any more.
    """

    def __init__(
        self,
        service: Service,
        *,
        settings: Settings | None = None,
        connector: Connector = connect,
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
        connect_timeout: float = 5.0,
        drain_s: float = DRAIN_S,
    ) -> None:
        self.service = service
        self.settings = settings or Settings.resolve(
            servers=service.servers,
            namespace=service.namespace,
            credentials=service.credentials,
            tls=service.tls,
        )
        self.id = service.instance or new_id()
        self.name = display_name()
        self.subjects = Subjects(self.settings.namespace)
        self.stats = Stats(clock=clock)
        self._connector = connector
        self._clock = clock
        self._rng = rng or random.Random()
        self._connect_timeout_s = connect_timeout
        self._drain_s = drain_s
        self.on_failure: Callable[[], None] | None = None
        self._lifespan: Lifespan | None = None
        self._entered = False
        self._requests: list[Subscription] = []
        self._transport: Transport | None = None
        self._client: Client | None = None
        self._dispatcher: Dispatcher | None = None
        self._announcer: Announcer | None = None
        self._publisher: StatsPublisher | None = None
        self._responder: Responder | None = None
        self._peers: Peers | None = None
        self._withdrawn = False
        #: Who drains sets it when it is done, and takes it away; ``_waiting`` is its wait for handlers.
        self._draining: anyio.Event | None = None
        self._waiting: anyio.CancelScope | None = None
        self._left = False

    # -- starting -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._entered:
            raise ConfigError(
                f"{self.service.name}: this Instance was started already; make another one to serve again"
            )
        self._entered = True
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise
        return self

    async def _start(self) -> None:
        service = self.service
        if not service.endpoints:
            raise ConfigError(
                f"service {service.name!r} has no endpoints; decorate a function with @….endpoint()"
            )
        options = self.settings.options(service.name, connect_timeout_s=self._connect_timeout_s)
        self._transport = transport = await self._connector(options)
        self._client = client = Client(
            name=service.name,
            namespace=self.settings.namespace,
            transport=transport,
            clock=self._clock,
            rng=self._rng,
            stats=self.stats,
        )
        await self._check_id(client)
        self._dispatcher = dispatcher = Dispatcher(
            service=service.name,
            instance=self.id,
            client=client,
            transport=transport,
            clock=self._clock,
            rng=self._rng,
            stats=self.stats,
            endpoints=service.endpoints,
            interceptors=service.interceptors,
            codec=service.codec,
            enforced=self.settings.enforced,
        )
        if service.lifespan is not None:
            self._lifespan = Lifespan(service.name, service.lifespan(service), self._lifespan_failed)
            dispatcher.state = await self._lifespan.start()
        self._announce_with(client, transport, dispatcher)
        self._subscribe(transport, dispatcher)
        await transport.fence()
        assert self._announcer is not None
        self._announcer.join()
        transport.add_listener(self)
        await transport.fence()
        log.info("%s %s is ready as %s (%s)", service.name, service.version, self.id, self.name)

    async def _check_id(self, client: Client) -> None:
        """A second instance under one id would share its direct subjects and its reputation."""
        if self.service.instance is None:
            return
        await client.transport.fence()
        taken = await client.directory.ask(f"$SRV.PING.{self.service.name}.{self.id}", timeout_s=_ID_CHECK_S)
        if taken:
            raise ConfigError(
                f"{self.service.name}: an instance with the id {self.id!r} is running already; "
                "stop it, or give this one another instance="
            )

    def _subscribe(self, transport: Transport, dispatcher: Dispatcher) -> None:
        name, subjects = self.service.name, self.subjects
        self._requests = [
            transport.subscribe(subjects.rpc_of(name), dispatcher.on_request, QUEUE),
            transport.subscribe(subjects.direct_of(name, self.id), dispatcher.on_request),
        ]
        for served in dispatcher.served.values():
            endpoint = served.endpoint
            if endpoint.subject is not None:
                handler = partial(dispatcher.on_plain, served)
                self._requests.append(transport.subscribe(endpoint.subject, handler, endpoint.queue))
        transport.subscribe(subjects.cancel_of(name), dispatcher.on_cancel)

    def _announce_with(self, client: Client, transport: Transport, dispatcher: Dispatcher) -> None:
        service = self.service
        self._peers = peers = Peers(
            service=service.name,
            subjects=self.subjects,
            transport=transport,
            clock=self._clock,
            enforced=self.settings.enforced,
        )
        self._announcer = announcer = Announcer(
            service=service.name,
            instance=self.id,
            display_name=self.name,
            version=service.version,
            labels=service.labels,
            endpoints=tuple(_endpoint_info(endpoint) for endpoint in service.endpoints.values()),
            subjects=self.subjects,
            transport=transport,
            mux=client.mux,
            rng=self._rng,
            started_wall_s=self._clock.time(),
            load=self._load,
            peers=peers.count,
        )
        self._responder = Responder(
            service=service.name,
            instance=self.id,
            version=service.version,
            description=service.description,
            labels=service.labels,
            endpoints=tuple(self._document(endpoint) for endpoint in service.endpoints.values()),
            announcer=announcer,
            namespace=self.settings.namespace,
            transport=transport,
            load=self._load,
            counters=self._counters,
        )
        self._publisher = StatsPublisher(
            member=service.name,
            instance=self.id,
            subjects=self.subjects,
            transport=transport,
            mux=client.mux,
            clock=self._clock,
            enforced=self.settings.enforced,
            snapshot=self._snapshot,
        )

    # -- what others are told -----------------------------------------------------------------------

    def _document(self, endpoint: Endpoint) -> EndpointDoc:
        return mesh_endpoint(
            self.subjects,
            self.service.name,
            endpoint.name,
            subject=endpoint.subject,
            queue=endpoint.queue,
            timeout_s=endpoint.contract.timeout_s,
            idempotent=endpoint.contract.idempotent,
            concurrency=endpoint.concurrency,
            schema_hash=endpoint.schema_hash,
            request_schema=endpoint.request_schema,
            response_schema=endpoint.response_schema,
        )

    def _counters(self) -> dict[str, EndpointCounters]:
        return {
            name: EndpointCounters(
                requests=total.requests, errors=total.errors, busy_s=total.busy_s, last_error=total.last_error
            )
            for name, total in self.stats.by_endpoint("in").items()
        }

    def _load(self) -> Load:
        dispatcher = self._dispatcher
        if dispatcher is None:
            return Load()
        requests, errors = self.stats.totals("in")
        return Load(
            in_flight=dispatcher.in_flight,
            limit=sum(served.concurrency.limit for served in dispatcher.served.values()),
            requests=requests,
            errors=errors,
        )

    def _snapshot(self) -> list[bytes]:
        return encode_stats(
            self.stats.snapshot(
                instance=self.id,
                service=self.service.name,
                version=self.service.version,
                namespace=self.settings.namespace,
                state=self.state,
            )
        )

    @property
    def state(self) -> State:
        """What the instance announces of itself."""
        return State.JOINING if self._announcer is None else self._announcer.state

    @property
    def peers(self) -> int:
        """How many instances of the service this one has heard of lately, itself included."""
        return 1 if self._peers is None else self._peers.count()

    @property
    def client(self) -> Client:
        """Calls as this service; :class:`ConfigError` before the start."""
        if self._client is None:
            raise ConfigError(f"{self.service.name} is not running")
        return self._client

    @property
    def transport(self) -> Transport:
        """The connection; :class:`ConfigError` before the start."""
        if self._transport is None:
            raise ConfigError(f"{self.service.name} is not running")
        return self._transport

    @property
    def dispatcher(self) -> Dispatcher:
        """The data path of this instance; :class:`ConfigError` before the start."""
        if self._dispatcher is None:
            raise ConfigError(f"{self.service.name} is not running")
        return self._dispatcher

    def on_disconnect(self, reason: str) -> None:
        """Handlers go on: what they answer is lost, and their callers know already."""

    def on_reconnect(self) -> None:
        """Observers may have missed anything: say everything again."""
        if self._announcer is None:
            return
        if self._withdrawn:
            self._announcer.leave()
        else:
            self._announcer.again()

    def on_denied(self, operation: str, subject: str) -> None:
        """The transport has logged it; a start-up fence raises it."""

    # -- leaving ------------------------------------------------------------------------------------

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.drain()
        finally:
            await self.close()

    async def drain(self, timeout_s: float | None = None) -> int:
        """Leave without losing a call; returns how many handlers had to be stopped after ``timeout_s``.

        The order matters: presence first, then the queue group, then a fence (after it nothing new can
        arrive), then what is held is finished while replies still reach it, the connection last.
        Whoever comes second waits for the first; a drain that was cancelled can be taken up again.
        """
        while self._draining is not None:
            await self._draining.wait()
        if self._left or self._transport is None or self._dispatcher is None:
            return 0
        self._draining = done = anyio.Event()
        try:
            self._withdraw()
            with anyio.CancelScope() as self._waiting:
                return await self._finish(self._transport, self._dispatcher, timeout_s)
            return self._dispatcher.in_flight  # halt() ended the wait, and stops them
        finally:
            self._draining = self._waiting = None
            done.set()

    async def _finish(self, transport: Transport, dispatcher: Dispatcher, timeout_s: float | None) -> int:
        try:
            await transport.fence()
        except CallError as error:  # cut off, or an earlier refusal: what is held is finished all the same
            log.warning("%s leaves, but the bus does not confirm it: %s", self.service.name, error.message)
        dispatcher.shut()
        stopped = await dispatcher.finish_all(self._drain_s if timeout_s is None else timeout_s)
        self._left = True
        if stopped:
            log.warning("%s: %d calls did not finish in time and were stopped", self.service.name, stopped)
        return stopped

    def _withdraw(self) -> None:
        """Ask for no more calls: presence ends, then the subscriptions; once."""
        if self._withdrawn or self._transport is None:
            return
        self._withdrawn = True
        try:
            if self._announcer is not None and self._announcer.state is not State.JOINING:
                self._announcer.leave()
        finally:
            for subscription in self._requests:
                self._transport.unsubscribe(subscription)

    def _lifespan_failed(self) -> None:
        """Without its lifespan every call would fail: others shall serve them."""
        try:
            self._withdraw()
        finally:
            if self.on_failure is not None:
                self.on_failure()

    async def halt(self) -> None:
        """Leave without waiting: no more calls, and what is held is stopped, for which it has a second.

        A handler that does not let itself be stopped goes on, as a plain function in a thread does.
        """
        try:
            self._withdraw()
        finally:
            if self._dispatcher is not None and not self._left:
                await self._stop_handlers(self._dispatcher)

    async def _stop_handlers(self, dispatcher: Dispatcher) -> None:
        dispatcher.shut()
        with anyio.move_on_after(_STOP_S, shield=True):
            if self._waiting is not None:
                self._waiting.cancel()
            while self._draining is not None:
                await self._draining.wait()
            await dispatcher.finish_all(0.0)
        self._left = True
        if dispatcher.in_flight:
            log.warning(
                "%s: %d calls were told to stop and still run", self.service.name, dispatcher.in_flight
            )

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """What leaving ends with, cancelled or not: handlers are stopped, the lifespan ends, the connection closes.

        The lifespan and the connection have ``timeout_s`` seconds each. Raises what the lifespan raised.
        """
        try:
            await self.halt()
        finally:
            try:
                self._fall_silent()
                if self._lifespan is not None:
                    await self._lifespan.stop(timeout_s)
            finally:
                await self._disconnect(timeout_s)

    def _fall_silent(self) -> None:
        if self._announcer is not None:
            self._announcer.stop()
        if self._publisher is not None:
            self._publisher.close()
        if self._responder is not None:
            self._responder.close()
        if self._peers is not None:
            self._peers.close()

    async def _disconnect(self, timeout_s: float) -> None:
        try:
            if self._client is not None:
                with anyio.move_on_after(timeout_s, shield=True):
                    await self._client.close()
        finally:
            if self._transport is not None:
                self._transport.remove_listener(self)
                with anyio.move_on_after(timeout_s, shield=True):
                    await self._transport.close()

    def __repr__(self) -> str:
        return f"<Instance {self.service.name} {self.id} {self.state}>"


def _endpoint_info(endpoint: Endpoint) -> EndpointInfo:
    timeout_s = endpoint.contract.timeout_s
    return EndpointInfo(
        name=endpoint.name,
        subject=endpoint.subject or "",
        timeout_ms=None if timeout_s is None else max(1, round(timeout_s * 1000)),
        idempotent=endpoint.contract.idempotent,
        concurrency=endpoint.concurrency,
        schema=endpoint.schema_hash,
    )

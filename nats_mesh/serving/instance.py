"""A running instance: connects, serves, announces itself, drains and leaves."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from nats_mesh import plugins
from nats_mesh.calling.client import Client
from nats_mesh.calling.condition import display_name
from nats_mesh.calling.verdicts import StepAside
from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.config.follower import ConfigFollower
from nats_mesh.config.live import Configuration
from nats_mesh.core.presence import Standing, State
from nats_mesh.core.rules import ConcurrencyRules
from nats_mesh.errors import ConfigError
from nats_mesh.following import Follower
from nats_mesh.policy import PolicySet
from nats_mesh.policy.rules import DEFAULT, policy_of
from nats_mesh.service import Service
from nats_mesh.serving import exposing
from nats_mesh.serving.call_log import InstanceLog
from nats_mesh.serving.dispatch import Dispatcher
from nats_mesh.serving.leaving import CLOSE_S, DRAIN_S, Leaving, Parts
from nats_mesh.serving.lifespan import Lifespan
from nats_mesh.serving.operating import Operating
from nats_mesh.serving.telling import Telling
from nats_mesh.serving.tracing import InstanceTracing
from nats_mesh.settings import Settings
from nats_mesh.telemetry.events import Events
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.telemetry.stats import Stats
from nats_mesh.wire.ids import new_id
from nats_mesh.wire.nats_transport import connect
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Connector, Subscription, Transport

__all__ = ["CLOSE_S", "DRAIN_S", "Instance", "display_name"]

log = logging.getLogger("nats_mesh.instance")

_ID_CHECK_S = 0.5
#: Who drains where no operator says so.
_ITSELF = "itself"


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
        self.events = Events(service.name, self.settings.namespace, instance=self.id, clock=clock)
        self._connector = connector
        self._clock = clock
        self._rng = rng or random.Random()
        self._connect_timeout_s = connect_timeout
        self.on_failure: Callable[[], None] | None = None
        self._entered = False
        self._step_aside: StepAside | None = None
        self._parts = Parts()
        self._leaving = Leaving(service.name, self._parts, drain_s)
        self._follower = Follower(service.policies, self.settings, self.events.emit)
        self._telling = Telling(
            service=service,
            instance=self.id,
            display_name=self.name,
            settings=self.settings,
            subjects=self.subjects,
            stats=self.stats,
            events=self.events,
            clock=clock,
            rng=self._rng,
            parts=self._parts,
            standing=lambda: self._follower.standing,
        )

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
        parts, plugged = self._parts, self.settings.plugins
        policies = await self._follower.open()
        inbound = plugins.interceptors(plugins.INBOUND, service.interceptors, on=plugged)
        outbound = plugins.interceptors(plugins.OUTBOUND, (), on=plugged)
        parts.transport = transport = await self._connector(options)
        parts.client = client = Client(
            name=service.name,
            namespace=self.settings.namespace,
            transport=transport,
            clock=self._clock,
            rng=self._rng,
            stats=self.stats,
            interceptors=outbound,
            policies=policies,
            zone=service.labels.get("zone", ""),
            tell=self.events.emit,
            enforced=self.settings.enforced,
        )
        await self._check_id(client)
        client.begin(
            await self._follower.connect(
                name=service.name,
                instance=self.id,
                kind="service",
                transport=transport,
                mux=client.mux,
                clock=self._clock,
                rng=self._rng,
            )
        )
        parts.dispatcher = dispatcher = Dispatcher(
            service=service.name,
            instance=self.id,
            client=client,
            transport=transport,
            clock=self._clock,
            rng=self._rng,
            stats=self.stats,
            endpoints=service.endpoints,
            interceptors=inbound,
            codec=service.codec,
            enforced=self.settings.enforced,
        )
        await self._configure(client, dispatcher)
        if service.lifespan is not None:
            configuration = parts.config if service.lifespan_takes_config else None
            arguments = () if configuration is None else (Configuration[Any](configuration),)
            manager = service.lifespan(service, *arguments)
            parts.lifespan = Lifespan(service.name, manager, self._lifespan_failed)
            dispatcher.state = await parts.lifespan.start()
        self._telling.begin(client, transport, self._room_changed)
        self._telling.listen(transport, dispatcher)
        parts.tracing = tracing = InstanceTracing(
            client,
            dispatcher,
            version=service.version,
            clock=self._clock,
            rng=self._rng,
            wants=parts.wants,
            policies=self._follower.current,
            otlp=self.settings.otlp,
        )
        assert parts.wants is not None, "it has begun"
        parts.written = InstanceLog(
            dispatcher,
            client,
            version=service.version,
            clock=self._clock,
            wants=parts.wants,
            destination=self.settings.access_log or "stdout",
            keep=tracing.keep_long,
        )
        assert parts.peers is not None, "it has begun"
        self._step_aside = StepAside(
            service=service.name,
            instance=self.id,
            transport=transport,
            mux=client.mux,
            subjects=self.subjects,
            enforced=self.settings.enforced,
            now=self._clock.monotonic,
            peers=parts.peers,
            tell=self.events.emit,
            aside=self.stand_aside,
            back=self.come_back,
        )
        self._follow(self._follower.current)
        self._follower.follow(self._follow, client.hold)
        await transport.fence()
        self._check_lifespan()
        assert parts.announcer is not None
        parts.announcer.join()
        parts.listener = self
        transport.add_listener(self)
        await transport.fence()
        self._check_lifespan()
        exposing.join(self, self.settings.metrics, self.settings.metrics_hosts)
        log.info("%s %s is ready as %s (%s)", service.name, service.version, self.id, self.name)

    async def _configure(self, client: Client, dispatcher: Dispatcher) -> None:
        """Have the configuration that the service declares."""
        declared = self.service.config
        if declared is None:
            return
        settings = self.settings
        self._parts.config = dispatcher.config = config = ConfigFollower(
            declared,
            service=self.service.name,
            subjects=self.subjects,
            clock=self._clock,
            chance=self._rng.random,
            tell=self.events.emit,
            cache_dir=settings.cache_dir,
            identity=settings.identity,
        )
        await config.start(client.transport, client.mux)

    def _check_lifespan(self) -> None:
        """Whoever has withdrawn already is not ready; leaving raises what the lifespan ended with."""
        if self._leaving.withdrawn:
            raise ConfigError(f"{self.service.name}: its lifespan ended before the instance was ready")

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

    # -- while it runs ------------------------------------------------------------------------------

    def _follow(self, policies: PolicySet) -> None:
        """Take in what policies say of the calls that are made, and of those that are answered."""
        self.client.apply(policies)
        service = self.service.name
        for endpoint in sorted(policies.endpoints(service) - self.service.endpoints.keys()):
            log.warning(
                "%s: policies name an endpoint %r, which it has not: they do nothing", service, endpoint
            )
        if self._step_aside is not None:
            self._step_aside.apply(policies.outbound(service, "", service).ejection)
        if self._parts.seats is not None and not self._leaving.withdrawn:
            found = policies.subsets(service).values()
            labels = self.service.labels
            self._parts.seats.belong(
                [each.name for each in found if each.selects(self.service.version, labels)]
            )
        if self._parts.tracing is not None:
            self._parts.tracing.apply(policies)
        if self._parts.written is not None:
            self._parts.written.apply(policies)
        if self._parts.taps is not None:
            self._parts.taps.follow(lambda endpoint: policies.telemetry(service, endpoint).tap)
        self.apply_limits(lambda endpoint: policies.inbound(service, endpoint).concurrency)
        if self._parts.dispatcher is not None:
            for name, served in self._parts.dispatcher.served.items():
                said = policies.inbound(service, name).sources.get("concurrency.limit", DEFAULT)
                served.concurrency.policy = policy_of(said)

    def apply_limits(self, find: Callable[[str], ConcurrencyRules | None]) -> None:
        """Limit the endpoints as ``find`` says of their names, from the next call on; ``None``: as they declare.

        As often as policies change; calls that run go on.
        """
        dispatcher, crediting = self._parts.dispatcher, self._parts.crediting
        if dispatcher is None or crediting is None:
            return
        changed = dispatcher.limits.apply(find)
        if not self._leaving.withdrawn:
            crediting.apply(dispatcher.served.values())
        for name, (before, after) in changed.items():
            self.events.emit(
                EventKind.LIMIT_CHANGED,
                f"{self.service.name}.{name}",
                f"at most {after} calls at a time, before it was {before}",
                limit=after,
            )
        if changed:
            self._telling.limits_changed(announce=not self._leaving.withdrawn)

    async def stand_aside(self, why: str) -> str:
        """Take no more calls, finish what is held, and go on living; says what was done.

        :class:`ConfigError` where the instance is not running, or leaving for good.
        """
        return await self._operating.drain(why, _ITSELF)

    async def come_back(self, why: str) -> str:
        """Take calls again after :meth:`stand_aside`, unless an operator drained it, too; says what was done."""
        return await self._operating.undrain(why, _ITSELF)

    @property
    def _operating(self) -> Operating:
        if self._parts.operating is None:
            raise ConfigError(f"{self.service.name} is not running")
        return self._parts.operating

    def _room_changed(self) -> None:
        if self._parts.crediting is not None:
            self._parts.crediting.room_changed()

    # -- what it is -----------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What the instance announces of itself."""
        return State.JOINING if self._parts.announcer is None else self._parts.announcer.state

    @property
    def ready(self) -> bool:
        """Whether calls reach it: its lifespan is up, its subscriptions stand, it is connected and does not drain."""
        transport = self._parts.transport
        return self.state is State.READY and transport is not None and transport.connected

    @property
    def standing(self) -> Standing:
        """Where it stands with the policies it follows."""
        return self._follower.standing

    @property
    def peers(self) -> int:
        """How many instances of the service this one has heard of lately, itself included."""
        return 1 if self._parts.peers is None else self._parts.peers.count()

    @property
    def subscriptions(self) -> list[Subscription]:
        """What it hears requests on now."""
        return [] if self._parts.seats is None else self._parts.seats.subscriptions

    @property
    def client(self) -> Client:
        """Calls as this service; :class:`ConfigError` before the start."""
        if self._parts.client is None:
            raise ConfigError(f"{self.service.name} is not running")
        return self._parts.client

    @property
    def transport(self) -> Transport:
        """The connection; :class:`ConfigError` before the start."""
        if self._parts.transport is None:
            raise ConfigError(f"{self.service.name} is not running")
        return self._parts.transport

    @property
    def dispatcher(self) -> Dispatcher:
        """The data path of this instance; :class:`ConfigError` before the start."""
        if self._parts.dispatcher is None:
            raise ConfigError(f"{self.service.name} is not running")
        return self._parts.dispatcher

    def on_disconnect(self, reason: str) -> None:
        """Handlers go on: what they answer is lost, and their callers know already."""

    def on_reconnect(self) -> None:
        """Observers may have missed anything: say everything again."""
        self._follower.acknowledge()
        if self._parts.announcer is None:
            return
        if self._leaving.withdrawn:
            self._parts.announcer.leave()
        else:
            self._parts.announcer.again()

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
        """Leave without losing a call, see :meth:`Leaving.drain`."""
        return await self._leaving.drain(timeout_s)

    async def halt(self) -> None:
        """Leave without waiting, see :meth:`Leaving.halt`."""
        await self._leaving.halt()

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """What leaving ends with, see :meth:`Leaving.close`."""
        try:
            await self._follower.close()
            if self._parts.config is not None:
                await self._parts.config.close()
            if self._step_aside is not None:
                await self._step_aside.close()
        finally:
            try:
                await self._leaving.close(timeout_s)
            finally:
                exposing.leave(self, self._parts.client)

    def _lifespan_failed(self) -> None:
        """Without its lifespan every call would fail: others shall serve them."""
        try:
            self._leaving.withdraw()
        finally:
            if self.on_failure is not None:
                self.on_failure()

    def __repr__(self) -> str:
        return f"<Instance {self.service.name} {self.id} {self.state}>"

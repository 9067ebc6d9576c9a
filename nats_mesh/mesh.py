"""The caller's face of the mesh: connect as somebody, call services."""

from __future__ import annotations

import logging
import random
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import anyio
from msgspec import UNSET

from nats_mesh import plugins
from nats_mesh.blocking import BlockingMesh
from nats_mesh.calling.call_log import ClientLog
from nats_mesh.calling.client import Client
from nats_mesh.calling.condition import condition_of, display_name
from nats_mesh.calling.gathering import Gathered, Want
from nats_mesh.calling.tracing import MemberTracing
from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.core.presence import Standing, State, check_labels
from nats_mesh.discovery.client_responder import ClientResponder
from nats_mesh.errors import ConfigError, PermissionDeniedError
from nats_mesh.following import Follower, Policies, check_policies
from nats_mesh.model import CallOptions, HeadersLike, Interceptor, Reply, check_interceptors, check_name
from nats_mesh.policy import PolicySet
from nats_mesh.serving import exposing
from nats_mesh.settings import Settings
from nats_mesh.telemetry.access_log import AccessLog
from nats_mesh.telemetry.events import Events
from nats_mesh.telemetry.publisher import StatsPublisher
from nats_mesh.telemetry.stats import Stats
from nats_mesh.telemetry.stats_messages import encode_stats
from nats_mesh.telemetry.wants import Wants
from nats_mesh.wire.nats_transport import connect
from nats_mesh.wire.transport import Connector, Transport

__all__ = ["Mesh"]

log = logging.getLogger("nats_mesh.mesh")

T = TypeVar("T")

#: What a pure client's statistics say in place of a version.
_NO_VERSION = "0.0.0"
#: How long closing may take, for the calls in flight and for the connection each, cancelled or not (seconds).
_CLOSE_S = 4.0


class Mesh:
    """A client of the mesh: ``async with Mesh("web") as mesh: await mesh.call("orders.place", order)``.

    ``name`` is the identity that calls carry (a service name, or any name of a pure client). ``servers``,
    ``namespace``, ``credentials`` and ``tls`` win over the environment. ``interceptors`` run around every
    call, the first outermost. ``policies`` is a folder of policy files, which is watched; a label ``zone`` says
    where this client is, for policies that prefer what is near. Entering raises :class:`PolicyError` where a
    policy has a mistake, :class:`DisconnectedError` where no server can be reached within ``connect_timeout`` seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        servers: str | Sequence[str] | None = None,
        namespace: str | None = None,
        credentials: str | None = None,
        tls: Any = None,
        policies: Policies | None = None,
        interceptors: Sequence[Interceptor] = (),
        labels: Mapping[str, str] | None = None,
        connect_timeout: float = 5.0,
        settings: Settings | None = None,
        connector: Connector = connect,
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
    ) -> None:
        self.name = check_name("caller", name)
        self.settings = settings or Settings.resolve(
            servers=servers, namespace=namespace, credentials=credentials, tls=tls
        )
        self._policies = check_policies(f"mesh {name!r}", policies)
        self._follower: Follower | None = None
        self._labels = check_labels(dict(labels or {}))
        self.stats = Stats(clock=clock)
        self.events = Events(name, self.settings.namespace, clock=clock)
        self._interceptors = check_interceptors(name, interceptors)
        self._connect_timeout_s = connect_timeout
        self._connector = connector
        self._clock = clock
        self._rng = rng or random.Random()
        self._client: Client | None = None
        self._transport: Transport | None = None
        self._wants: Wants | None = None
        self._publisher: StatsPublisher | None = None
        self._responder: ClientResponder | None = None
        self._tracing: MemberTracing | None = None
        self._log: ClientLog | None = None
        #: What its statistics say of it: the last ones say that it leaves.
        self._state = State.READY

    async def __aenter__(self) -> Self:
        if self._client is not None:
            raise ConfigError(f"mesh {self.name!r} is open already; make another Mesh for another connection")
        self._state = State.READY
        options = self.settings.options(self.name, connect_timeout_s=self._connect_timeout_s)
        interceptors = plugins.interceptors(plugins.OUTBOUND, self._interceptors, on=self.settings.plugins)
        follower = Follower(self._policies, self.settings, self.events.emit)
        policies = await follower.open()
        transport = await self._connector(options)
        try:
            client = Client(
                name=self.name,
                namespace=self.settings.namespace,
                transport=transport,
                clock=self._clock,
                rng=self._rng,
                stats=self.stats,
                interceptors=interceptors,
                enforced=self.settings.enforced,
                policies=policies,
                zone=self._labels.get("zone", ""),
                tell=self.events.emit,
            )
            await transport.fence()
            client.begin(
                await follower.connect(
                    name=self.name,
                    instance=transport.connection,
                    kind="client",
                    transport=transport,
                    mux=client.mux,
                    clock=self._clock,
                    rng=self._rng,
                )
            )
            self._responder = ClientResponder(
                name=self.name,
                connection=transport.connection,
                namespace=self.settings.namespace,
                labels=self._labels,
                transport=transport,
                started_wall_s=self._clock.time(),
                standing=lambda: follower.standing,
                called=self.stats.called,
            )
            try:
                await transport.fence()
            except PermissionDeniedError as error:  # nobody waits for who does not answer a roll call
                log.warning("%s answers no roll call: %s", self.name, error.message)
                self._responder.close()
                self._responder = None
            self._wants = wants = Wants(
                member=self.name,
                subjects=client.subjects,
                transport=transport,
                clock=self._clock,
                enforced=self.settings.enforced,
            )
            self._publisher = StatsPublisher(
                member=self.name,
                instance=transport.connection,
                subjects=client.subjects,
                transport=transport,
                mux=client.mux,
                wants=wants,
                snapshot=partial(self._snapshot, client),
            )
            self.events.connect(
                instance=transport.connection,
                subjects=client.subjects,
                transport=transport,
                mux=client.mux,
                wants=wants,
            )
            try:
                await transport.fence()
            except PermissionDeniedError as error:  # calls work without it: whoever may only look around, may
                log.warning("%s will not be part of the statistics: %s", self.name, error.message)
                self._fall_silent()
            if self._wants is not None:
                self._tracing = MemberTracing(
                    client,
                    instance=transport.connection,
                    version=_NO_VERSION,
                    clock=self._clock,
                    rng=self._rng,
                    wants=self._wants,
                    policies=follower.current,
                    otlp=self.settings.otlp,
                )

            self._log = written = ClientLog(
                AccessLog(self.settings.access_log or "logger"), client, transport.connection, self._clock
            )

            def apply(policies: PolicySet) -> None:
                client.apply(policies)
                written.apply(policies)
                if self._tracing is not None:
                    self._tracing.apply(policies)

            apply(follower.current)
            follower.follow(apply, client.hold)
        except BaseException:
            with anyio.move_on_after(_CLOSE_S, shield=True):
                await follower.close()
            await _close(transport)
            raise
        self._transport, self._client, self._follower = transport, client, follower
        exposing.join(self, self.settings.metrics, self.settings.metrics_hosts)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._publisher is not None:  # while all that it tells of is still there
            self._state = State.DRAINING
            self._publisher.leave()
        client, transport = self._client, self._transport
        self._client = self._transport = None
        follower, self._follower = self._follower, None
        self._fall_silent()
        try:
            with anyio.move_on_after(_CLOSE_S, shield=True):
                if follower is not None:
                    await follower.close()
                if client is not None:
                    await client.close()
            if self._log is not None:
                self._log.close()
                self._log = None
        finally:
            exposing.leave(self, client)
            if transport is not None:
                await _close(transport)

    def _fall_silent(self) -> None:
        """Tell observers nothing any more."""
        if self._tracing is not None:
            self._tracing.close()
        if self._publisher is not None:
            self._publisher.close()
        self.events.close()
        if self._wants is not None:
            self._wants.close()
        if self._responder is not None:
            self._responder.close()
        self._publisher = self._wants = self._responder = self._tracing = None

    def _snapshot(self, client: Client, whole: bool, max_bytes: int) -> list[bytes]:
        condition = condition_of(client, kind="client", name=display_name(), standing=self.standing)
        return encode_stats(
            self.stats.snapshot(
                instance=client.transport.connection,
                service=self.name,
                version=_NO_VERSION,
                namespace=self.settings.namespace,
                state=self._state,
                condition=condition,
                whole=whole,
            ),
            max_bytes,
        )

    @property
    def standing(self) -> Standing:
        """Where it stands with the policies it follows."""
        return Standing() if self._follower is None else self._follower.standing

    @property
    def client(self) -> Client:
        """The engine underneath; :class:`ConfigError` where the mesh is not open."""
        if self._client is None:
            raise ConfigError(
                f"mesh {self.name!r} is not open; use 'async with Mesh({self.name!r}) as mesh:'"
            )
        return self._client

    @property
    def namespace(self) -> str:
        """The namespace that calls go to."""
        return self.settings.namespace

    @overload
    def call(
        self, target: Any, value: Any = None, *, returns: type[T], **options: Unpack[CallOptions]
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def call(
        self, target: Any, value: Any = None, *, returns: Any = ..., **options: Unpack[CallOptions]
    ) -> Coroutine[Any, Any, Any]: ...

    def call(
        self, target: Any, value: Any = None, *, returns: Any = UNSET, **options: Unpack[CallOptions]
    ) -> Coroutine[Any, Any, Any]:
        """Call ``"service.endpoint"``, a decorated function, or ``"nats://plain.subject"``; returns the value.

        ``returns`` is the type to decode to (plain Python values without it), ``timeout`` seconds for the
        whole call (within a handler never more than what its own caller left), ``raises`` the application
        errors to get back as themselves, ``headers`` go along. Raises a :class:`CallError`.
        """
        # Not async itself: a coroutine around the coroutine would cost every call and every reply.
        return self.client.call(target, value, returns, options)

    async def request(
        self, target: Any, value: Any = None, *, returns: Any = UNSET, **options: Unpack[CallOptions]
    ) -> Reply[Any]:
        """As :meth:`call`, but the whole :class:`Reply`: value, headers, status, instance, attempts, duration."""
        return await self.client.request(target, value, returns=returns, **options)

    @overload
    def gather(
        self,
        target: Any,
        value: Any = None,
        *,
        returns: type[T],
        want: Want = ...,
        timeout: float | None = ...,
        headers: HeadersLike | None = ...,
        codec: str | None = ...,
    ) -> Coroutine[Any, Any, Gathered[T]]: ...

    @overload
    def gather(
        self,
        target: Any,
        value: Any = None,
        *,
        returns: Any = ...,
        want: Want = ...,
        timeout: float | None = ...,
        headers: HeadersLike | None = ...,
        codec: str | None = ...,
    ) -> Coroutine[Any, Any, Gathered[Any]]: ...

    def gather(
        self,
        target: Any,
        value: Any = None,
        *,
        returns: Any = UNSET,
        want: Want = "all",
        timeout: float | None = None,
        headers: HeadersLike | None = None,
        codec: str | None = None,
    ) -> Coroutine[Any, Any, Gathered[Any]]:
        """Ask every instance of ``target``'s service, and return what comes back as a :class:`Gathered`.

        Ends as soon as ``want`` have answered (``"all"``, ``"quorum"``: more than half of those asked, or a number) and
        stops the others; where the time is up it returns what there is. A failure of single instances is no
        exception. ``returns`` is the type of each answer; ``timeout`` seconds for all of it. Raises
        :class:`NoInstancesError` where nobody is there, a :class:`CallError` for more than 1,000 instances.
        """
        return self.client.gather(
            target, value, returns=returns, want=want, timeout=timeout, headers=headers, codec=codec
        )

    def blocking(self) -> BlockingMesh:
        """The same client for code without ``async``: ``with Mesh("script").blocking() as mesh: …``."""
        return BlockingMesh(self)

    def __repr__(self) -> str:
        return f"<Mesh {self.name} of {self.settings.namespace}, {'open' if self._client else 'closed'}>"


async def _close(transport: Transport) -> None:
    """Close the connection, also where whoever asks for it is cancelled."""
    with anyio.move_on_after(_CLOSE_S, shield=True):
        await transport.close()

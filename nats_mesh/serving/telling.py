"""What an instance tells of itself (presence, the Services API, statistics, events), and whom it listens to."""

from __future__ import annotations

import random
from collections.abc import Callable

from msgspec import UNSET, UnsetType

from nats_mesh import plugins
from nats_mesh.audit import signs
from nats_mesh.audit.signs import SignKeeper
from nats_mesh.calling.client import Client
from nats_mesh.calling.condition import condition_of
from nats_mesh.clock import Clock
from nats_mesh.core.presence import EndpointInfo, Load, Standing, State
from nats_mesh.discovery.announcer import Announcer
from nats_mesh.discovery.overdue import called_metadata, overdue_metadata
from nats_mesh.discovery.peers import Peers
from nats_mesh.discovery.responder import Responder
from nats_mesh.discovery.services_api import EndpointCounters, EndpointDoc, mesh_endpoint
from nats_mesh.endpoint import Endpoint
from nats_mesh.layers.tap import CallTap
from nats_mesh.service import Service
from nats_mesh.serving import exposing
from nats_mesh.serving.crediting import Crediting
from nats_mesh.serving.dispatch import Dispatcher
from nats_mesh.serving.leaving import Parts
from nats_mesh.serving.operating import Operating
from nats_mesh.serving.seats import Seats
from nats_mesh.serving.tapping import Witness
from nats_mesh.settings import Settings
from nats_mesh.telemetry.events import Events
from nats_mesh.telemetry.publisher import StatsPublisher
from nats_mesh.telemetry.stats import Stats
from nats_mesh.telemetry.stats_messages import Condition, encode_stats
from nats_mesh.telemetry.taps import Taps
from nats_mesh.telemetry.wants import Wants
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["Telling"]


class Telling:
    """Makes whatever speaks and listens for one instance, and says to each what it asks for."""

    def __init__(
        self,
        *,
        service: Service,
        instance: str,
        display_name: str,
        settings: Settings,
        subjects: Subjects,
        stats: Stats,
        events: Events,
        clock: Clock,
        rng: random.Random,
        parts: Parts,
        standing: Callable[[], Standing],
    ) -> None:
        self._service = service
        self._instance = instance
        self._name = display_name
        self._settings = settings
        self._subjects = subjects
        self._stats = stats
        self._events = events
        self._clock = clock
        self._rng = rng
        self._parts = parts
        self._standing = standing
        self._plugged = {
            side: ",".join(plugins.names(group, on=settings.plugins))
            for side, group in (("inbound", plugins.INBOUND), ("outbound", plugins.OUTBOUND))
        }

    def begin(self, client: Client, transport: Transport, on_room: Callable[[], None]) -> None:
        """Listen to whoever asks; announced is the instance once it joins."""
        service, parts, subjects, enforced = (
            self._service, self._parts, self._subjects, self._settings.enforced,
        )  # fmt: skip
        parts.peers = peers = Peers(
            service=service.name,
            instance=self._instance,
            subjects=subjects,
            transport=transport,
            clock=self._clock,
            enforced=enforced,
            on_room=on_room,
        )
        parts.announcer = announcer = Announcer(
            service=service.name,
            instance=self._instance,
            display_name=self._name,
            version=service.version,
            labels=service.labels,
            endpoints=self._infos(),
            subjects=subjects,
            transport=transport,
            mux=client.mux,
            rng=self._rng,
            started_wall_s=self._clock.time(),
            load=self._load,
            peers=peers.count,
            standing=self._standing,
            signs=SignKeeper(
                subjects=subjects,
                service=service.name,
                instance=self._instance,
                transport=transport,
                mux=client.mux,
                clock=self._clock,
                peers=peers.count,
                sign_s=signs.SIGN_S,
            ),
        )
        parts.responder = Responder(
            service=service.name,
            instance=self._instance,
            version=service.version,
            description=service.description,
            labels=service.labels,
            endpoints=self._documents(),
            announcer=announcer,
            namespace=self._settings.namespace,
            transport=transport,
            load=self._load,
            counters=self._counters,
            more=self._metadata,
            in_info=lambda: {
                **overdue_metadata(peers.overdue()),
                **called_metadata(self._stats.called()),
            },
        )
        parts.wants = wants = Wants(
            member=service.name,
            subjects=subjects,
            transport=transport,
            clock=self._clock,
            enforced=enforced,
        )
        parts.publisher = StatsPublisher(
            member=service.name,
            instance=self._instance,
            subjects=subjects,
            transport=transport,
            mux=client.mux,
            wants=wants,
            snapshot=self._snapshot,
        )
        parts.events = self._events
        self._events.connect(
            instance=self._instance, subjects=subjects, transport=transport, mux=client.mux, wants=wants
        )

    def listen(self, transport: Transport, dispatcher: Dispatcher) -> None:
        """Take the seats from which calls are heard, and obey operators."""
        name, parts = self._service.name, self._parts
        assert parts.peers is not None, "it has begun"
        assert parts.announcer is not None, "it has begun"
        parts.seats = seats = Seats(
            service=name,
            instance=self._instance,
            subjects=self._subjects,
            transport=transport,
            dispatcher=dispatcher,
        )
        transport.subscribe(self._subjects.cancel_of(name), dispatcher.on_cancel)
        parts.crediting = crediting = Crediting(
            service=name,
            clock=self._clock,
            peers=parts.peers,
            seats=seats,
            events=self._events,
            report=parts.announcer.report,
        )
        dispatcher.on_credit = crediting.signal
        self._tap(transport, dispatcher)
        parts.operating = Operating(
            service=name,
            instance=self._instance,
            display_name=self._name,
            subjects=self._subjects,
            transport=transport,
            clock=self._clock,
            enforced=self._settings.enforced,
            dispatcher=dispatcher,
            seats=seats,
            announcer=parts.announcer,
            events=self._events,
            config=parts.config,
        )

    def _tap(self, transport: Transport, dispatcher: Dispatcher) -> None:
        """Tell of calls while somebody records them."""
        parts = self._parts
        assert parts.wants is not None, "it has begun"
        assert parts.client is not None, "it has begun"

        def record(wanted: bool) -> None:
            dispatcher.watching.set("tap", CallTap(taps, self._clock) if wanted else None)

        parts.taps = taps = Taps(
            service=self._service.name,
            instance=self._instance,
            version=self._service.version,
            subjects=self._subjects,
            transport=transport,
            mux=parts.client.mux,
            wants=parts.wants,
            clock=self._clock,
            concurrency={name: each.concurrency for name, each in self._service.endpoints.items()},
            record=record,
            witness=Witness(
                service=self._service.name,
                instance=self._instance,
                subjects=self._subjects,
                transport=transport,
                mux=parts.client.mux,
                clock=self._clock,
                events=self._events,
            ),
        )

    def limits_changed(self, *, announce: bool) -> None:
        """The endpoints take another number of calls now: say so."""
        if self._parts.responder is not None:
            self._parts.responder.describe(self._documents())
        if announce and self._parts.announcer is not None:
            self._parts.announcer.describe(self._infos())

    def _limit(self, endpoint: Endpoint) -> int:
        dispatcher = self._parts.dispatcher
        return (
            endpoint.concurrency if dispatcher is None else dispatcher.served[endpoint.name].concurrency.limit
        )

    def _infos(self) -> tuple[EndpointInfo, ...]:
        return tuple(
            _endpoint_info(endpoint, self._limit(endpoint)) for endpoint in self._service.endpoints.values()
        )

    def _documents(self) -> tuple[EndpointDoc, ...]:
        return tuple(self._document(endpoint) for endpoint in self._service.endpoints.values())

    def _document(self, endpoint: Endpoint) -> EndpointDoc:
        limit = self._limit(endpoint)
        return mesh_endpoint(
            self._subjects,
            self._service.name,
            endpoint.name,
            subject=endpoint.subject,
            queue=endpoint.queue,
            timeout_s=endpoint.contract.timeout_s,
            idempotent=endpoint.contract.idempotent,
            duplicates=endpoint.duplicates,
            concurrency=limit,
            limited=limit != endpoint.concurrency,
            schema_hash=endpoint.schema_hash,
            request_schema=endpoint.request_schema,
            response_schema=endpoint.response_schema,
        )

    def _metadata(self) -> dict[str, str]:
        """What ``$SRV.INFO`` says beside state and load: faults that are set, plug-ins that run."""
        operating = self._parts.operating
        plugged = {f"mesh.plugins.{side}": names for side, names in self._plugged.items() if names}
        config = self._parts.config
        configured = {} if config is None else {**config.metadata(), "mesh.config.schema": config.schema}
        port = exposing.exposed_port()
        exposed = {"mesh.metrics.port": str(port)} if port else {}
        return {**({} if operating is None else operating.metadata()), **plugged, **configured, **exposed}

    def _counters(self) -> dict[str, EndpointCounters]:
        return {
            name: EndpointCounters(
                requests=total.requests, errors=total.errors, busy_s=total.busy_s, last_error=total.last_error
            )
            for name, total in self._stats.by_endpoint("in").items()
        }

    def _load(self) -> Load:
        dispatcher, crediting = self._parts.dispatcher, self._parts.crediting
        if dispatcher is None:
            return Load()
        requests, errors = self._stats.totals("in")
        return Load(
            in_flight=dispatcher.in_flight,
            limit=dispatcher.limits.total,
            requests=requests,
            errors=errors,
            full=crediting is not None and crediting.full,
        )

    def _snapshot(self, whole: bool, max_bytes: int) -> list[bytes]:
        client, dispatcher = self._parts.client, self._parts.dispatcher
        condition: Condition | UnsetType = UNSET
        if client is not None:
            condition = condition_of(
                client,
                kind="instance",
                name=self._name,
                standing=self._standing(),
                endpoints={} if dispatcher is None else dispatcher.loads(),
            )
        return encode_stats(
            self._stats.snapshot(
                condition=condition,
                whole=whole,
                instance=self._instance,
                service=self._service.name,
                version=self._service.version,
                namespace=self._settings.namespace,
                state=State.JOINING if self._parts.announcer is None else self._parts.announcer.state,
            ),
            max_bytes,
        )


def _endpoint_info(endpoint: Endpoint, limit: int) -> EndpointInfo:
    timeout_s = endpoint.contract.timeout_s
    return EndpointInfo(
        name=endpoint.name,
        subject=endpoint.subject or "",
        timeout_ms=None if timeout_s is None else max(1, round(timeout_s * 1000)),
        idempotent=endpoint.contract.idempotent,
        concurrency=limit,
        schema=endpoint.schema_hash,
    )

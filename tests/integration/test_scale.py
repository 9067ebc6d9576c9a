"""Much of everything works as little does.

200 instances and 100 endpoints in ``make test``, 2,000 and 1,000 in ``make verify``. What that costs is measured by
``make scale``; here no clock is looked at.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest

from nats_mesh import ConfigError, Mesh, RemoteError, Service, Status
from nats_mesh.clock import SYSTEM_CLOCK
from nats_mesh.core.members import Change, ChangeKind, Health, Reason
from nats_mesh.core.presence import MAX_ENDPOINTS, Kind
from nats_mesh.discovery.observer import Observer
from nats_mesh.discovery.services_api import parse_info, parse_ping, parse_stats
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing.server import NatsServer
from tests.bench.scale_presence import Crowd
from tests.bench.scale_worker import Order, Receipt, endpoints_service
from tests.harness import eventually
from tests.rawnats import raw_nats
from tests.tools import scaled

pytestmark = pytest.mark.anyio

SERVICES = 20
EACH = scaled(10, 100)
ENDPOINTS = scaled(100, 1_000)


@asynccontextmanager
async def observing(mesh: Mesh, *, service: str = "*") -> AsyncIterator[tuple[Observer, list[Change]]]:
    """An observer, and everything it reports."""
    changes: list[Change] = []
    client = mesh.client
    observer = Observer(
        subjects=client.subjects,
        transport=client.transport,
        mux=client.mux,
        clock=SYSTEM_CLOCK,
        service=service,
        enforced=True,
        on_change=changes.append,
    )
    try:
        await client.transport.fence()
        yield observer, changes
    finally:
        observer.close()


def crowd_of(mesh: Mesh, *, interval_s: float | None = None) -> Crowd:
    """The simulated instances; each call makes new ones."""
    client = mesh.client
    return Crowd(
        client.transport,
        client.subjects,
        random.Random("crowd"),
        services=SERVICES,
        each=EACH,
        interval_s=interval_s,
    )


def reported(changes: list[Change]) -> Counter[tuple[ChangeKind, Reason | None]]:
    """How often what was reported."""
    return Counter((change.kind, change.reason) for change in changes)


async def test_a_crowd_joins_and_leaves(nats_server: NatsServer, mesh_namespace: str) -> None:
    """Everybody is known by service and id once they have joined, and nobody once they have left."""
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    async with (
        Mesh("watcher", settings=settings) as watcher,
        Mesh("crowd", settings=settings) as talker,
        observing(watcher) as (observer, changes),
        observing(watcher, service="crowd-7") as (of_one, _),
    ):
        crowd = crowd_of(talker)
        await crowd.say(Kind.JOIN)
        everybody = SERVICES * EACH
        await eventually(lambda: len(observer.registry) == everybody, lambda: len(observer.registry))
        known = observer.registry.instances()
        assert {(each.service, each.id) for each in known} == {(m.service, m.id) for m in crowd.members}
        assert {len(each.endpoints) for each in known} == {5}
        assert [each.instances for each in observer.registry.services()] == [EACH] * SERVICES
        assert len(of_one.registry) == EACH
        await crowd.say(Kind.BEAT)  # a beat leaves the endpoints out, and takes nothing away
        await watcher.client.transport.fence()
        assert {len(each.endpoints) for each in observer.registry.instances()} == {5}
        await crowd.say(Kind.LEAVE)
        await eventually(lambda: len(observer.registry) == 0, lambda: len(observer.registry))
        assert reported(changes) == {
            (ChangeKind.JOINED, None): everybody,
            (ChangeKind.GONE, Reason.LEFT): everybody,
        }
        assert (observer.ignored, observer.registry.overflowed) == (0, 0)
        assert len(of_one.registry) == 0
        await crowd.say(Kind.BEAT)  # who has left is not brought back by what was underway
        await watcher.client.transport.fence()
        assert len(observer.registry) == 0


async def test_a_crowd_that_beats_is_met_late_and_missed_when_it_falls_silent(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """Who comes late learns of everybody by their beats alone; when the beats end, everybody is dropped."""
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    async with Mesh("watcher", settings=settings) as watcher, Mesh("crowd", settings=settings) as talker:
        # Long enough for a busy machine; what matters is that it is announced, and judged by that.
        crowd = crowd_of(talker, interval_s=scaled(1, 5))
        await crowd.say(Kind.JOIN)
        everybody = SERVICES * EACH
        async with observing(watcher) as (observer, changes), anyio.create_task_group() as tasks:
            tasks.start_soon(crowd.beat)
            await eventually(lambda: len(observer.registry) == everybody, lambda: len(observer.registry))
            assert {each.health for each in observer.registry.instances()} == {Health.ALIVE}
            tasks.cancel_scope.cancel()
        async with observing(watcher) as (observer, changes):
            await crowd.say(Kind.BEAT)
            await eventually(lambda: len(observer.registry) == everybody, lambda: len(observer.registry))
            while len(observer.registry):  # three intervals of silence; the test's own time limit ends it
                await anyio.sleep(0.05)
        counted = reported(changes)
        assert counted[ChangeKind.JOINED, None] == counted[ChangeKind.GONE, Reason.MISSED] == everybody
        assert counted[ChangeKind.SUSPECT, None] == everybody


async def test_a_process_of_many_endpoints(nats_server: NatsServer, mesh_namespace: str) -> None:
    """It starts, answers on the first and the last, tells of every endpoint, and drains."""
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    async with (
        Mesh("web", settings=settings) as mesh,
        observing(mesh) as (observer, _),
        raw_nats(nats_server.url) as raw,
    ):
        service = endpoints_service(ENDPOINTS, name=f"many-{mesh_namespace[-12:]}")
        async with Instance(service, settings=settings) as instance:
            for number in (0, ENDPOINTS - 1, ENDPOINTS // 2):
                answer = await mesh.call(f"{service.name}.e{number}", Order("b-17"), returns=Receipt)
                assert answer == Receipt("b-17", float(number))
            with pytest.raises(RemoteError) as caught:
                await mesh.call(f"{service.name}.e{ENDPOINTS}", Order("b-17"))
            assert caught.value.status is Status.UNIMPLEMENTED
            assert len(caught.value.message) < 1_000  # a thousand names do not help whoever mistyped one
            names = {f"e{number}" for number in range(ENDPOINTS)}
            info = parse_info((await raw.request(f"$SRV.INFO.{service.name}")).payload)
            assert {endpoint.name for endpoint in info.endpoints} == names
            assert {endpoint.subject for endpoint in info.endpoints} == {
                f"mesh.{mesh_namespace}.rpc.{service.name}.all.{name}.anonymous" for name in names
            }
            stats = parse_stats((await raw.request(f"$SRV.STATS.{service.name}")).payload)
            assert {endpoint.name: endpoint.requests for endpoint in stats.endpoints} == {
                name: int(name in {"e0", f"e{ENDPOINTS - 1}", f"e{ENDPOINTS // 2}"}) for name in names
            }
            assert (info.omitted, stats.omitted) == (0, 0)
            await eventually(lambda: len(observer.registry) == 1)
            assert {each.name for each in observer.registry.instances()[0].endpoints} == names
            assert instance.dispatcher.in_flight == 0
        await eventually(lambda: len(observer.registry) == 0)


class Wide(msgspec.Struct):
    """A value whose JSON Schema is long."""

    a_field_with_a_rather_long_name: list[dict[str, tuple[int, float, str, bool]]]
    another_field_with_a_rather_long_name: list[dict[str, tuple[int, float, str, bool]]]
    yet_another_field_with_a_rather_long_name: dict[str, dict[str, tuple[int, float, str, bool]]]


async def test_schemas_give_way_where_info_would_not_fit(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """INFO over ``max_payload`` leaves the schemas out and says so; every endpoint is still there."""
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    service = Service(f"wide-{mesh_namespace[-12:]}", version="1.0.0")
    for number in range(700):
        _add_wide(service, number)
    async with (
        Mesh("web", settings=settings) as mesh,
        raw_nats(nats_server.url) as raw,
        Instance(service, settings=settings),
    ):
        message = await raw.request(f"$SRV.INFO.{service.name}")
        assert len(message.payload) <= mesh.client.transport.max_payload
        info = parse_info(message.payload)
        assert len(info.endpoints) == 700
        assert all("mesh.schema.omitted" in endpoint.metadata for endpoint in info.endpoints)
        assert not any("mesh.schema.request" in endpoint.metadata for endpoint in info.endpoints)
        parse_ping((await raw.request(f"$SRV.PING.{service.name}")).payload)
        value = Wide([], [], {"x": {"y": (1, 2.0, "z", True)}})
        assert await mesh.call(f"{service.name}.e699", value, returns=Wide) == value


def _add_wide(service: Service, number: int) -> None:
    @service.endpoint(name=f"e{number}")
    async def handle(value: Wide) -> Wide:
        return value


async def test_presence_holds_as_many_endpoints_as_a_service_may_have(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """A service at the bound is announced with every endpoint; one more is refused where it is declared."""
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    service = endpoints_service(MAX_ENDPOINTS, name=f"most-{mesh_namespace[-12:]}")
    async with (
        Mesh("web", settings=settings) as mesh,
        observing(mesh) as (observer, _),
        Instance(service, settings=settings),
    ):
        await eventually(lambda: len(observer.registry) == 1)
        assert len(observer.registry.instances()[0].endpoints) == MAX_ENDPOINTS
    with pytest.raises(ConfigError, match=str(MAX_ENDPOINTS)):
        endpoints_service(MAX_ENDPOINTS + 1)

"""The bus goes away and comes back: everyone returns soon, in no herd, whatever happened meanwhile."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from urllib.parse import urlparse

import anyio
import pytest
from nats.aio.client import Server

from nats_mesh import CallError, DisconnectedError, Executed, Mesh, NoInstancesError, Service
from nats_mesh.clock import SYSTEM_CLOCK
from nats_mesh.core.members import Change, ChangeKind, Reason
from nats_mesh.discovery.observer import Observer
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing.cluster import NatsCluster
from nats_mesh.testing.plugin import NatsServerFactory
from nats_mesh.wire.nats_transport import NatsTransport, connect
from nats_mesh.wire.transport import ConnectOptions
from tests.faults.workers import WorkerFactory
from tests.harness import PATIENCE_S, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

BACK_S, SLACK = 5.0, 2.0

Record = Callable[[str, object], None]


def pair_of_endpoints(name: str = "work") -> Service:
    """A service that answers at once, or holds a call."""
    service = Service(name, version="1.0.0")

    @service.endpoint()
    async def ping() -> str:
        return "pong"

    @service.endpoint(concurrency=4096)
    async def hold(seconds: float) -> str:
        await anyio.sleep(seconds)
        return "held"

    return service


async def test_everyone_is_back_after_a_server_was_killed_and_restarted(
    nats_server_factory: NatsServerFactory, record_property: Record
) -> None:
    """After seconds without a server, twenty clients are back within 5 s of its return, and calls work."""
    server = nats_server_factory(jetstream=False)
    settings = Settings(servers=(server.url,))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Instance(pair_of_endpoints(), settings=settings))
        callers = [
            await stack.enter_async_context(Mesh(f"web-{number}", settings=settings)) for number in range(20)
        ]
        await server.kill()
        await eventually(lambda: not any(mesh.client.transport.connected for mesh in callers))
        await anyio.sleep(3.0)  # long enough for several attempts of each

        async def told(mesh: Mesh) -> None:
            with pytest.raises(DisconnectedError) as caught:
                await mesh.call("work.ping", timeout=PATIENCE_S)
            assert caught.value.executed is Executed.NO

        async with anyio.create_task_group() as tasks:
            for mesh in callers:
                tasks.start_soon(told, mesh)
        await server.restart()
        start = time.monotonic()
        await eventually(lambda: all(mesh.client.transport.connected for mesh in callers))
        back_s = time.monotonic() - start
        record_property("back_s", round(back_s, 2))
        assert back_s <= BACK_S * SLACK
        for mesh in callers:
            with anyio.fail_after(PATIENCE_S):
                while True:
                    try:
                        assert await mesh.call("work.ping") == "pong"
                        break
                    except NoInstancesError:  # the instance may be the last to return
                        await anyio.sleep(0.05)
        assert [mesh.client.transport.stats.reconnects for mesh in callers] == [1] * 20


async def test_the_absence_of_the_bus_makes_nobody_suspect(nats_server_factory: NatsServerFactory) -> None:
    """Observers judge silence by their own connection: after an outage everyone is still there."""
    server = nats_server_factory(jetstream=False)
    settings = Settings(servers=(server.url,))
    changes: list[Change] = []
    async with Mesh("cli", settings=settings) as mesh:
        client = mesh.client
        observer = Observer(
            subjects=client.subjects,
            transport=client.transport,
            mux=client.mux,
            clock=SYSTEM_CLOCK,
            on_change=changes.append,
        )
        await client.transport.fence()
        async with Instance(pair_of_endpoints(), settings=settings) as instance:
            await eventually(lambda: changes)
            await server.restart()
            await eventually(lambda: client.transport.connected and instance.transport.connected)
            await mesh.client.transport.fence()
            assert observer.registry.get(instance.id).described
        await eventually(lambda: len(changes) == 2)
        assert [change.kind for change in changes] == [ChangeKind.JOINED, ChangeKind.GONE]
        assert changes[1].reason is Reason.LEFT
        observer.close()


def test_a_herd_of_clients_does_not_arrive_together() -> None:
    """Of 500 clients of one server at most a fifth tries within any 100 ms; delays never exceed 2 s."""
    server = Server(uri=urlparse("nats://127.0.0.1:4222"), reconnects=0)
    first: list[float] = []
    for seed in range(500):
        transport = NatsTransport(ConnectOptions(name="web"), random.Random(seed))
        delays = [transport._choose_server([server], {})[1] for _ in range(30)]
        assert max(delays) <= 2.0
        assert len({round(delay, 6) for delay in delays}) > 25
        first.append(delays[0])
    arrivals = Counter(int(delay * 10) for delay in first)
    assert max(arrivals.values()) <= 100, arrivals
    for delay in first:
        assert sum(delay <= other < delay + 0.1 for other in first) <= 100


def test_another_server_is_tried_before_the_one_that_was_lost() -> None:
    """Each of the others once, then any: a dead server does not cost a client of a cluster an attempt."""
    pool = [Server(uri=urlparse(f"nats://127.0.0.1:{port}"), reconnects=0) for port in (1, 2, 3)]
    for seed in range(50):
        transport = NatsTransport(ConnectOptions(name="web"), random.Random(seed))
        transport._client._setup_server_pool([server.uri.geturl() for server in pool])
        transport._client._current_server = transport._client._server_pool[0]
        chosen, delay = transport._choose_server(pool, {})
        assert chosen in pool[1:]
        assert delay <= 0.6


async def test_one_of_three_servers_dies_and_only_its_calls_fail(
    nats_cluster: NatsCluster, mesh_namespace: str, record_property: Record
) -> None:
    """Calls in flight on the dead server's connections fail, unknown; the next ones wait for the grace and succeed."""
    at = [Settings(servers=(server.url,), namespace=mesh_namespace) for server in nats_cluster.servers]
    failed: list[tuple[int, Executed]] = []
    held: list[int] = []
    async with AsyncExitStack() as stack:
        # The instance is on a server that stays: what dies is the callers' way to it.
        await stack.enter_async_context(Instance(pair_of_endpoints(), settings=at[2]))
        callers = [await stack.enter_async_context(Mesh(f"web-{n}", settings=at[n])) for n in range(3)]
        with anyio.fail_after(PATIENCE_S):
            for mesh in callers:  # interest spreads through the cluster in its own time
                while True:
                    try:
                        await mesh.call("work.ping")
                        break
                    except CallError:
                        await anyio.sleep(0.05)

        async def hold(number: int) -> None:
            try:
                await callers[number].call("work.hold", 2.0, timeout=30.0)
                held.append(number)
            except DisconnectedError as error:
                failed.append((number, error.executed))

        async with anyio.create_task_group() as calls:
            for number in range(3):
                for _ in range(10):
                    calls.start_soon(hold, number)
            await eventually(lambda: all(mesh.client.mux.pending == 10 for mesh in callers))
            await nats_cluster.servers[0].kill()
            await eventually(lambda: not callers[0].client.transport.connected)
            start = time.monotonic()
            for number in range(3):
                async with anyio.create_task_group() as more:
                    for _ in range(20):
                        more.start_soon(callers[number].call, "work.ping")
            record_property("calls_succeed_after_s", round(time.monotonic() - start, 2))
        assert failed == [(0, Executed.MAYBE)] * 10
        assert sorted(held) == [1] * 10 + [2] * 10
        assert [mesh.client.transport.stats.reconnects for mesh in callers] == [1, 0, 0]


@pytest.mark.parametrize(
    ("authorization", "credentials"),
    [('{user: "ann", password: "p%q"}', "ann:p%25q@"), ('{token: "t0ken"}', "t0ken@")],
    ids=["user and password", "token"],
)
async def test_credentials_in_an_address_hold_for_servers_learned_later(
    authorization: str, credentials: str
) -> None:
    """One address with credentials is enough for a cluster: its other servers, learned from it, are not refused."""
    async with NatsCluster(config=f"authorization {authorization}") as cluster:
        url = cluster.servers[0].url.replace("nats://", f"nats://{credentials}")
        transport = await connect(ConnectOptions(name="web", servers=(url,)))
        try:
            await cluster.servers[0].kill()
            await eventually(lambda: transport.stats.reconnects == 1)
            await transport.fence()
            assert transport.server in {server.url for server in cluster.servers[1:]}
        finally:
            await transport.close()


async def test_kill_9_of_an_instance_costs_the_calls_in_flight_alone(
    nats_server_factory: NatsServerFactory, worker_factory: WorkerFactory
) -> None:
    """Callers of two instances lose at most what the killed one held; no call runs twice."""
    server = nats_server_factory(jetstream=False)
    workers = [worker_factory(server.url, "default") for _ in range(2)]
    failures: list[CallError] = []
    done: list[str] = []
    in_flight = 8
    async with Mesh("web", settings=Settings(servers=(server.url,))) as mesh:

        async def caller(number: int) -> None:
            for call in range(100):
                name = f"{number}-{call}"
                try:
                    done.append(await mesh.call("work.do", name, timeout=0.5))
                except CallError as error:
                    failures.append(error)
                if number == 0 and call == 20:
                    workers[0].kill()

        async with anyio.create_task_group() as callers:
            for number in range(in_flight):
                callers.start_soon(caller, number)
        await eventually(lambda: mesh.client.mux.pending == 0, lambda: mesh.client.mux)
    assert len(failures) <= in_flight
    assert len(done) + len(failures) == in_flight * 100
    executed = Counter(workers[0].ledger + workers[1].ledger)
    assert max(executed.values()) == 1
    assert set(done) <= set(executed)

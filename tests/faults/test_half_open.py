"""Connections that look alive and are not: both ends hold their sockets, nothing moves between them."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable

import anyio
import pytest

from nats_mesh import DeadlineExceededError, DisconnectedError, Executed, Mesh, Service
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing.proxy import TcpProxy
from nats_mesh.testing.server import NatsServer
from nats_mesh.wire.nats_transport import connect
from nats_mesh.wire.transport import ConnectOptions
from tests.harness import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

LOOPS = ["asyncio", "uvloop"] if importlib.util.find_spec("uvloop") else ["asyncio"]
#: What the design promises, and what is asserted on a shared machine.
NOTICED_S, SLACK = 6.0, 2.0

Record = Callable[[str, object], None]


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Aborting a socket differs between the loops."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


def ledger_service(ledger: list[str]) -> Service:
    """A service that writes down what it executes."""
    service = Service("work", version="1.0.0")

    @service.endpoint()
    async def do(call: str) -> str:
        ledger.append(call)
        return call

    return service


@pytest.mark.parametrize(
    ("anyio_backend", "fault"),
    [
        (("asyncio", {"use_uvloop": False}), "pause"),
        (("asyncio", {"use_uvloop": LOOPS[-1] == "uvloop"}), "blackhole"),
    ],
    ids=["pause", "blackhole"],
)
async def test_a_half_open_connection_of_a_caller_is_noticed(
    nats_server: NatsServer, mesh_namespace: str, fault: str, record_property: Record
) -> None:
    """Within 6 s calls in flight fail with an unknown outcome and new ones are refused unsent; healed, all is well."""
    ledger: list[str] = []
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    async with (
        TcpProxy("127.0.0.1", nats_server.port) as proxy,
        Instance(ledger_service(ledger), settings=settings),
        Mesh("web", settings=Settings(servers=(proxy.url,), namespace=mesh_namespace)) as mesh,
    ):
        await mesh.call("work.do", "before")
        await getattr(proxy, fault)()
        start = time.monotonic()
        with pytest.raises(DisconnectedError) as caught:
            await mesh.call("work.do", "lost", timeout=3600.0)
        noticed_s = time.monotonic() - start
        record_property("noticed_s", round(noticed_s, 2))
        assert noticed_s <= NOTICED_S * SLACK
        assert caught.value.executed is Executed.MAYBE
        with pytest.raises(DisconnectedError) as caught:
            await mesh.call("work.do", "unsent")
        assert caught.value.executed is Executed.NO
        await proxy.resume()
        await eventually(lambda: mesh.client.transport.connected)
        assert await mesh.call("work.do", "after") == "after"
        await eventually(
            lambda: mesh.client.mux.pending == 0, lambda: mesh.client.mux
        )  # whoever reads policies, too
    # A paused network may still deliver what was written; the error said that nobody knows.
    assert [call for call in ledger if call != "lost"] == ["before", "after"]


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"])
async def test_a_half_open_connection_of_an_instance_is_noticed(
    nats_server: NatsServer, mesh_namespace: str, record_property: Record
) -> None:
    """The instance, too, notices within 6 s, comes back with its subscriptions, and serves again."""
    ledger: list[str] = []
    async with (
        TcpProxy("127.0.0.1", nats_server.port) as proxy,
        Instance(
            ledger_service(ledger), settings=Settings(servers=(proxy.url,), namespace=mesh_namespace)
        ) as instance,
        Mesh("web", settings=Settings(servers=(nats_server.url,), namespace=mesh_namespace)) as mesh,
    ):
        await proxy.blackhole()
        start = time.monotonic()
        await eventually(lambda: not instance.transport.connected)
        noticed_s = time.monotonic() - start
        record_property("noticed_s", round(noticed_s, 2))
        assert noticed_s <= NOTICED_S * SLACK
        await proxy.resume()
        await eventually(lambda: instance.transport.stats.reconnects == 1)
        assert await mesh.call("work.do", "after") == "after"
    assert ledger == ["after"]


async def test_a_healed_partition_does_not_execute_expired_calls(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """Requests that sat in the network longer than their time are refused on arrival; younger ones run once."""
    ledger: list[str] = []
    results: dict[str, object] = {}
    async with (
        TcpProxy("127.0.0.1", nats_server.port) as proxy,
        Instance(
            ledger_service(ledger), settings=Settings(servers=(proxy.url,), namespace=mesh_namespace)
        ) as instance,
        Mesh("web", settings=Settings(servers=(nats_server.url,), namespace=mesh_namespace)) as mesh,
    ):
        await mesh.call("work.do", "before")

        async def call(name: str, timeout: float) -> None:
            try:
                results[name] = await mesh.call("work.do", name, timeout=timeout)
            except DeadlineExceededError as error:
                results[name] = error.executed

        await proxy.pause()
        async with anyio.create_task_group() as calls:
            for number in range(20):
                calls.start_soon(call, f"short-{number}", 0.3)
                calls.start_soon(call, f"long-{number}", 30.0)
            await eventually(lambda: len(results) == 20)
            await anyio.sleep(0.5)  # the partition itself
            await proxy.resume()
        await eventually(lambda: mesh.client.mux.late == 20, lambda: mesh.client.mux.late)
        assert instance.transport.stats.reconnects == 0
    assert {name for name, result in results.items() if result is Executed.MAYBE} == {
        f"short-{number}" for number in range(20)
    }
    assert sorted(ledger) == sorted(["before", *(f"long-{number}" for number in range(20))])


@pytest.mark.parametrize("unsent_bytes", [0, 8_000_000], ids=["idle", "with 8 MB unsent"])
async def test_closing_a_dead_connection_does_not_hang(
    nats_server: NatsServer, unsent_bytes: int, record_property: Record
) -> None:
    """Whatever is still to be written, a socket that nobody reads is aborted: closing takes about a second."""
    async with TcpProxy("127.0.0.1", nats_server.port) as proxy:
        transport = await connect(ConnectOptions(name="web", servers=(proxy.url,)))
        await proxy.pause()
        for _ in range(unsent_bytes // 500_000):
            transport.publish("x", bytes(500_000))
        start = time.monotonic()
        await transport.close()
        took_s = time.monotonic() - start
        record_property("closing_s", round(took_s, 2))
        assert took_s <= 1.5 * SLACK
        await proxy.resume()
        await eventually(lambda: proxy.connections == 0)


async def test_a_dead_socket_is_aborted_when_the_loss_is_noticed(nats_server: NatsServer) -> None:
    """With linger 0 nothing of a lost connection survives it: no socket that tries to deliver old bytes for minutes."""
    async with TcpProxy("127.0.0.1", nats_server.port) as proxy:
        transport = await connect(ConnectOptions(name="web", servers=(proxy.url,), ping_interval_s=0.2))
        try:
            await proxy.pause()
            for _ in range(16):
                transport.publish("x", bytes(500_000))
            await eventually(lambda: not transport.connected)
            await proxy.resume()
            await eventually(lambda: transport.connected and transport.stats.reconnects == 1)
            await eventually(lambda: proxy.connections == 1, lambda: proxy.connections)
            await transport.fence()
        finally:
            await transport.close()

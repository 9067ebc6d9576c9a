"""The embedded cluster of the testing kit: it forms, survives a death, and leaves nothing behind."""

import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import nats
import pytest
from nats.errors import Error as NatsError
from nats.js.api import StreamConfig

from nats_mesh.errors import ConfigError
from nats_mesh.testing import _loopback
from nats_mesh.testing import cluster as cluster_module
from nats_mesh.testing.cluster import NatsCluster

pytestmark = pytest.mark.anyio

T = TypeVar("T")

DEADLINE_S = 60.0
STREAM = StreamConfig(name="s", subjects=["s"], num_replicas=3)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's temporary folders go, so that it can see what is left of them."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@contextlib.asynccontextmanager
async def client(url: str) -> AsyncIterator[Any]:
    """A nats-py client that closes at the end."""
    connection = await nats.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def eventually(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer: a stream elects a leader of its own after the cluster has one."""
    with anyio.fail_after(DEADLINE_S):
        while True:
            try:
                return await ask()
            except NatsError:
                await anyio.sleep(0.01)


async def test_a_replicated_stream_survives_the_death_of_the_leader(nats_cluster: NatsCluster) -> None:
    """Three servers form a cluster; without its leader it goes on, and the leader can come back."""
    leader = await nats_cluster.wait_ready()
    survivors = [server for server in nats_cluster.servers if server is not leader]
    urls = nats_cluster.urls
    async with client(survivors[0].url) as connection:
        jetstream = connection.jetstream(timeout=1)
        await connection.jetstream(timeout=DEADLINE_S).add_stream(STREAM)
        await eventually(lambda: jetstream.publish("s", b"before", headers={"Nats-Msg-Id": "before"}))
        await leader.kill()
        assert await nats_cluster.wait_ready(DEADLINE_S) in survivors
        await eventually(lambda: jetstream.publish("s", b"after", headers={"Nats-Msg-Id": "after"}))
        await leader.restart()
        assert await nats_cluster.wait_ready(DEADLINE_S) in nats_cluster.servers
        assert nats_cluster.urls == urls
        assert (await eventually(lambda: jetstream.stream_info("s"))).state.messages == 2


async def test_no_majority_is_an_error_and_stop_leaves_nothing(scratch: Path) -> None:
    """Without a majority `wait_ready` ends in an error that shows every server; then all of it goes away."""
    cluster = NatsCluster()
    with pytest.raises(ConfigError, match="start it first"):
        await cluster.wait_ready()
    async with cluster:
        first, second, third = cluster.servers
        await first.kill()
        await second.freeze()
        assert third.running
        with pytest.raises(ConfigError, match=r"no JetStream leader.*1 down.*2 frozen.*3 running"):
            await cluster.wait_ready(timeout_s=1.0)
        with pytest.raises(ConfigError, match="already runs"):
            await cluster.start()
    assert list(scratch.iterdir()) == []
    assert cluster.servers == ()
    assert not any(server.running for server in (first, second, third))


async def test_the_store_outlives_the_cluster(tmp_path: Path, scratch: Path) -> None:
    """A cluster of the same name on the same `store_dir` has the streams of the one before."""
    store = tmp_path / "store"
    async with NatsCluster(name="kept", store_dir=store) as cluster, client(cluster.urls[0]) as connection:
        await connection.jetstream(timeout=DEADLINE_S).add_stream(STREAM)
    async with NatsCluster(name="kept", store_dir=store) as cluster, client(cluster.urls[0]) as connection:
        jetstream = connection.jetstream(timeout=1)
        assert (await eventually(lambda: jetstream.stream_info("s"))).config.num_replicas == 3
    assert list(scratch.iterdir()) == []


async def test_a_route_port_that_was_taken_is_replaced(
    monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    """Where ports cannot be kept, a cluster whose route port was taken meanwhile starts with other ones."""
    monkeypatch.setattr(_loopback, "_CAN_HOLD", False)
    thief = _loopback.PortReservation("127.0.0.1").listen()
    given: list[int] = []

    class Unlucky(_loopback.PortReservation):
        """Hands out the thief's port first."""

        def __init__(self, host: str, port: int = 0) -> None:
            super().__init__(host, port)
            if not given:
                self.port = thief.getsockname()[1]
            given.append(self.port)

    monkeypatch.setattr(cluster_module, "PortReservation", Unlucky)
    with thief:
        async with NatsCluster(size=3) as cluster:
            assert await cluster.wait_ready() in cluster.servers
    assert len(given) == 6
    assert list(scratch.iterdir()) == []


async def test_a_refused_configuration_ends_the_start(scratch: Path) -> None:
    """A configuration that the servers refuse is an error with their words; no server stays."""
    with pytest.raises(ConfigError, match="no_such_setting"):
        await NatsCluster(config="no_such_setting: 1").start()
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "ports"), [(1, None), (10, None), (3, [4222, 4223]), (3, [4222, 4222, 4223])]
)
def test_impossible_sizes_and_ports_are_refused(size: int, ports: list[int] | None) -> None:
    """One server is no cluster, and every server needs a port of its own."""
    with pytest.raises(ConfigError, match="cluster"):
        NatsCluster(size, ports=ports)

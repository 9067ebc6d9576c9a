"""The fault proxy of the testing kit: what it does to connections, on both event loops."""

import asyncio
import contextlib
import importlib.util
import time
from collections.abc import AsyncIterator

import anyio
import nats
import pytest

from nats_mesh.errors import ConfigError
from nats_mesh.testing.proxy import TcpProxy
from nats_mesh.testing.server import NatsServer

pytestmark = pytest.mark.anyio

DEADLINE_S = 30.0
SILENCE_S = 0.1
LOOPS = ["asyncio", "uvloop"] if importlib.util.find_spec("uvloop") else ["asyncio"]

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The proxy touches transports, so it is tested with those of both event loops."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class Target:
    """A server under the test's control: every connection to it can be taken and used."""

    def __init__(self) -> None:
        self.port = 0
        self._arrived: asyncio.Queue[Stream] = asyncio.Queue()
        self._open: list[asyncio.StreamWriter] = []

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.append(writer)
        self._arrived.put_nowait((reader, writer))

    async def connection(self) -> Stream:
        """The next connection that arrived."""
        return await asyncio.wait_for(self._arrived.get(), DEADLINE_S)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen for the length of the block."""
        server = await asyncio.start_server(self._on_connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for writer in self._open:
                if not writer.is_closing():
                    writer.transport.abort()


class Wire:
    """One connection through the proxy, with both its ends."""

    def __init__(self, client: Stream, server: Stream) -> None:
        self.reader, self.writer = client
        self.far_reader, self.far_writer = server

    async def carries(self, up: bytes = b"to the server", down: bytes = b"to the client") -> None:
        """Bytes arrive unchanged in both directions."""
        self.writer.write(up)
        self.far_writer.write(down)
        with anyio.fail_after(DEADLINE_S):
            assert await self.far_reader.readexactly(len(up)) == up
            assert await self.reader.readexactly(len(down)) == down


class Bench:
    """Target, proxy, and connections through both."""

    def __init__(self, target: Target, proxy: TcpProxy) -> None:
        self.target = target
        self.proxy = proxy
        self._clients: list[asyncio.StreamWriter] = []

    async def dial(self) -> Stream:
        """A client's connection to the proxy."""
        client = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        self._clients.append(client[1])
        return client

    async def wire(self) -> Wire:
        """A connection through the proxy."""
        client = await self.dial()
        return Wire(client, await self.target.connection())

    def close(self) -> None:
        """Abort what the test opened."""
        for writer in self._clients:
            if not writer.is_closing():
                writer.transport.abort()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A running proxy in front of a running target."""
    target = Target()
    async with target.listening(), TcpProxy("127.0.0.1", target.port) as proxy:
        bench = Bench(target, proxy)
        yield bench
        bench.close()


async def silent(reader: asyncio.StreamReader) -> bool:
    """Whether nothing arrives, neither bytes nor an end, for a moment."""
    with anyio.move_on_after(SILENCE_S) as scope:
        await reader.read(1)
    return scope.cancelled_caught


async def reset(reader: asyncio.StreamReader) -> bool:
    """Whether the connection ends with a reset."""
    with anyio.fail_after(DEADLINE_S):
        try:
            await reader.read()
        except ConnectionResetError:
            return True
    return False


async def test_bytes_pass_and_are_counted(bench: Bench) -> None:
    """Without a fault everything passes unchanged, and is counted by direction."""
    wire = await bench.wire()
    await wire.carries(b"12345", b"123")
    assert (bench.proxy.bytes_to_server, bench.proxy.bytes_to_client) == (5, 3)
    assert (bench.proxy.accepted, bench.proxy.connections, bench.proxy.bytes_dropped) == (1, 1, 0)


async def test_a_close_reaches_the_other_side_after_the_bytes(bench: Bench) -> None:
    """Who closes is seen to close, by either side, after everything that was sent before."""
    bench.proxy.latency_s = 0.01
    wire = await bench.wire()
    wire.writer.write(b"last words")
    wire.writer.close()
    with anyio.fail_after(DEADLINE_S):
        assert await wire.far_reader.read() == b"last words"
    other = await bench.wire()
    other.far_writer.write(b"farewell")
    other.far_writer.close()
    with anyio.fail_after(DEADLINE_S):
        assert await other.reader.read() == b"farewell"


async def test_latency_delays_and_keeps_the_order(bench: Bench) -> None:
    """Every byte takes at least the latency, each way; what is sent later overtakes nothing."""
    wire = await bench.wire()
    bench.proxy.latency_s = 0.1
    began = time.monotonic()
    await wire.carries()
    # A lower bound, less the millisecond that event loops round their timers to.
    assert time.monotonic() - began > 0.098
    wire.writer.write(b"slow ")
    with anyio.fail_after(DEADLINE_S):
        while bench.proxy.bytes_underway < 5:
            await anyio.sleep(0)
    bench.proxy.latency_s = 0.0
    wire.writer.write(b"fast")
    with anyio.fail_after(DEADLINE_S):
        assert await wire.far_reader.readexactly(9) == b"slow fast"


@pytest.mark.parametrize("latency_s", [-1.0, float("nan"), float("inf")])
async def test_impossible_latencies_are_refused(bench: Bench, latency_s: float) -> None:
    """A latency that is no duration is an error where it is set."""
    with pytest.raises(ConfigError, match="latency_s"):
        bench.proxy.latency_s = latency_s


async def test_pause_moves_nothing_and_loses_nothing(bench: Bench) -> None:
    """Paused, sockets stay open and silent, new ones too; resumed, every byte arrives."""
    wire = await bench.wire()
    await bench.proxy.pause()
    wire.writer.write(b"up")
    wire.far_writer.write(b"down")
    late_client = await bench.dial()
    late_client[1].write(b"late")
    assert await silent(wire.far_reader)
    assert await silent(wire.reader)
    assert bench.proxy.bytes_to_server == bench.proxy.bytes_to_client == 0
    await bench.proxy.resume()
    await wire.carries(b"", b"")
    with anyio.fail_after(DEADLINE_S):
        assert await wire.far_reader.readexactly(2) == b"up"
        assert await wire.reader.readexactly(4) == b"down"
        late_reader, _ = await bench.target.connection()
        assert await late_reader.readexactly(4) == b"late"


async def test_a_close_while_paused_is_heard_on_resume(bench: Bench) -> None:
    """Half-open: the server does not hear of a client that went away until the network is back."""
    wire = await bench.wire()
    await bench.proxy.pause()
    wire.writer.close()
    assert await silent(wire.far_reader)
    await bench.proxy.resume()
    with anyio.fail_after(DEADLINE_S):
        assert await wire.far_reader.read() == b""


async def test_a_black_hole_swallows_and_resume_resets(bench: Bench) -> None:
    """Bytes vanish without a sign; the streams with a gap are reset on resume, the others go on."""
    harmed, whole = await bench.wire(), await bench.wire()
    await bench.proxy.blackhole()
    harmed.writer.write(b"lost")
    assert await silent(harmed.far_reader)
    with anyio.fail_after(DEADLINE_S):
        while bench.proxy.bytes_dropped < 4:
            await anyio.sleep(0)
    assert await silent(harmed.reader)
    await bench.proxy.resume()
    assert await reset(harmed.reader)
    assert await reset(harmed.far_reader)
    await whole.carries()
    assert bench.proxy.connections == 1


async def test_a_black_hole_hides_that_a_side_closed(bench: Bench) -> None:
    """In a black hole the far side does not learn that the near one is gone, until resume."""
    wire = await bench.wire()
    await bench.proxy.blackhole()
    wire.writer.close()
    assert await silent(wire.far_reader)
    await bench.proxy.resume()
    assert await reset(wire.far_reader)


async def test_cut_resets_both_sides_and_welcomes_new_ones(bench: Bench) -> None:
    """A cut is a reset at both ends, done when it returns; the next connection works."""
    wire = await bench.wire()
    await wire.carries()
    await bench.proxy.cut()
    assert bench.proxy.connections == 0
    assert await reset(wire.reader)
    assert await reset(wire.far_reader)
    await (await bench.wire()).carries()


async def test_a_reset_passes_through(bench: Bench) -> None:
    """A side that dies with a reset is a reset for the other side, not an orderly end."""
    wire = await bench.wire()
    await wire.carries()
    before = bench.proxy.bytes_to_server
    wire.far_writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's transport of a socket has it
    wire.writer.write(b"unread")
    with anyio.fail_after(DEADLINE_S):
        while bench.proxy.bytes_to_server == before:
            await anyio.sleep(0)
    wire.far_writer.transport.abort()  # the system answers a close with unread bytes by a reset
    assert await reset(wire.reader)


async def test_refuse_is_a_closed_port_until_resume(bench: Bench) -> None:
    """Refused connections are refused by the system; open ones go on; resume opens the same port."""
    wire = await bench.wire()
    port = bench.proxy.port
    await bench.proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await bench.dial()
    await wire.carries()
    await bench.proxy.resume()
    assert bench.proxy.port == port
    await (await bench.wire()).carries()


async def test_a_slow_reader_slows_the_sender(bench: Bench) -> None:
    """The proxy holds little: a sender is stopped when nobody reads, and nothing is lost."""
    wire = await bench.wire()
    block = b"x" * 65536
    sent = 0
    stuck = False
    while sent < 4096 * len(block) and not stuck:
        wire.writer.write(block)
        sent += len(block)
        with anyio.move_on_after(0.3) as drained:
            await wire.writer.drain()
        stuck = drained.cancelled_caught
    assert stuck, "256 MiB went into a proxy whose server reads nothing"
    assert bench.proxy.bytes_underway < 2 * 1024 * 1024
    wire.writer.close()
    with anyio.fail_after(DEADLINE_S):
        received = 0
        while chunk := await wire.far_reader.read(1 << 20):
            received += len(chunk)
    assert received == sent


async def test_latency_does_not_make_room_for_everything(bench: Bench) -> None:
    """What is underway because of the latency is bounded too: a sender is stopped, not buffered."""
    wire = await bench.wire()
    bench.proxy.latency_s = 3600.0
    wire.writer.write(b"x" * 64 * 1024 * 1024)
    with anyio.fail_after(DEADLINE_S):
        while bench.proxy.bytes_underway < 1024 * 1024:
            await anyio.sleep(0)
    assert await silent(wire.far_reader)
    assert bench.proxy.bytes_underway < 2 * 1024 * 1024
    wire.writer.transport.abort()


async def test_a_target_that_is_not_there_resets_the_client(bench: Bench) -> None:
    """The target need not be up; a client then sees its connection reset, and the proxy goes on."""
    async with TcpProxy("127.0.0.1", bench.proxy.port) as outer:
        await bench.proxy.refuse()
        reader, writer = await asyncio.open_connection("127.0.0.1", outer.port)
        assert await reset(reader)
        writer.close()
        await bench.proxy.resume()
        again = await asyncio.open_connection("127.0.0.1", outer.port)
        await Wire(again, await bench.target.connection()).carries()
        again[1].close()


async def test_connections_above_the_limit_are_reset(bench: Bench) -> None:
    """The number of connections is bounded; those there are not harmed by those above."""
    async with TcpProxy("127.0.0.1", bench.target.port, max_connections=1) as narrow:
        one = await asyncio.open_connection("127.0.0.1", narrow.port)
        wire = Wire(one, await bench.target.connection())
        reader, writer = await asyncio.open_connection("127.0.0.1", narrow.port)
        assert await reset(reader)
        writer.close()
        await wire.carries()
        assert (narrow.accepted, narrow.connections) == (2, 1)
        one[1].close()


async def test_stop_leaves_no_port_and_no_task(bench: Bench) -> None:
    """After stop nobody listens, connections are reset, and no task is left; so it is when stopped twice."""
    before = asyncio.all_tasks()
    proxy = TcpProxy("127.0.0.1", bench.target.port)
    with pytest.raises(ConfigError, match="start it first"):
        await proxy.pause()
    async with proxy:
        port = proxy.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await proxy.blackhole()
        with pytest.raises(ConfigError, match="already listens"):
            await proxy.start()
    await proxy.stop()
    assert await reset(reader)
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    assert proxy.connections == 0
    assert {task for task in asyncio.all_tasks() - before if "Link._dial" in repr(task)} == set()


async def test_a_nats_client_reconnects_after_a_cut(nats_server: NatsServer, mesh_namespace: str) -> None:
    """A real client behind the proxy loses its connection and gets it back."""
    lost, found = asyncio.Event(), asyncio.Event()

    async def on_lost() -> None:
        lost.set()

    async def on_found() -> None:
        found.set()

    async with TcpProxy(nats_server.host, nats_server.port) as proxy:
        connection = await nats.connect(
            proxy.url, reconnect_time_wait=0.01, disconnected_cb=on_lost, reconnected_cb=on_found
        )
        with anyio.fail_after(DEADLINE_S):
            await proxy.cut()
            await lost.wait()
            await found.wait()
            subscription = await connection.subscribe(mesh_namespace)
            await connection.publish(mesh_namespace, b"x")
            assert (await subscription.next_msg(timeout=DEADLINE_S)).data == b"x"
        await connection.close()

"""Streams that are cut, mixed with rubbish, or not read: whoever is connected survives, and tells the truth."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import resource
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest

from nats_mesh import CallError, DeadlineExceededError, DisconnectedError, Executed, Mesh, Service
from nats_mesh.policy import PolicySet, parse
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing.proxy import TcpProxy
from nats_mesh.testing.server import NatsServer
from nats_mesh.wire.nats_transport import connect
from nats_mesh.wire.parser import MAX_LINE, Parser, ProtocolError
from nats_mesh.wire.transport import ConnectOptions, Connector, Transport
from tests.faults.front import Front, byte_by_byte, cut_inside, random_pieces
from tests.faults.workers import WorkerFactory
from tests.harness import eventually
from tests.tools import scaled
from tests.unit.test_parser_fuzz import fuzzed

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

LOOPS = ["asyncio", "uvloop"] if importlib.util.find_spec("uvloop") else ["asyncio"]
MIB = 1 << 20


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Each loop has its own transports underneath."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class Job(msgspec.Struct):
    """What is sent and comes back: a number, and as much text as a test wants."""

    number: int
    text: str = ""


def echo_service(ledger: list[int], name: str = "work") -> Service:
    """A service that writes down the numbers it saw and answers with what came."""
    service = Service(name, version="1.0.0")

    @service.endpoint(concurrency=4096)
    async def echo(job: Job) -> Job:
        ledger.append(job.number)
        return job

    return service


_NO_BREAKER = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: no-breaker}
spec: {breaker: off}
"""


@asynccontextmanager
async def meshed(
    url_of_caller: str, url_of_instance: str, namespace: str, connector: Connector = connect
) -> AsyncIterator[tuple[Mesh, Instance, list[int]]]:
    """A caller and an instance, each by its own way to the server, and the instance's ledger."""
    ledger: list[int] = []
    theirs = Settings(servers=(url_of_instance,), namespace=namespace)
    ours = Settings(servers=(url_of_caller,), namespace=namespace)
    async with (
        Instance(echo_service(ledger), settings=theirs, connector=connector) as instance,
        # No breaker: it would end after some failures what these tests go on with.
        Mesh("web", settings=ours, connector=connector, policies=PolicySet.of(parse(_NO_BREAKER))) as mesh,
    ):
        yield mesh, instance, ledger


async def patient(options: ConnectOptions) -> Transport:
    """Connect without a watchdog: where each byte travels alone, a pong behind a thousand others is late."""
    return await connect(msgspec.structs.replace(options, ping_interval_s=3_600.0))


async def echoed(mesh: Mesh, number: int, text: str = "", *, timeout: float = 60.0) -> bool:
    """Whether a call of this very number and text came back as it was."""
    reply: Job = await mesh.call("work.echo", Job(number, text), returns=Job, timeout=timeout)
    return reply.number == number and reply.text == text


def reconnected(mesh: Mesh, times: int = 1) -> bool:
    """Whether the caller is connected again after so many losses."""
    transport = mesh.client.transport
    return transport.connected and transport.stats.reconnects >= times


# -- connections that end in the middle of a message ------------------------------------------------

PLACES = ["line", "end of line", "headers", "end of headers", "payload", "end of payload", "last byte"]


@pytest.mark.parametrize("place", PLACES)
async def test_half_a_reply_is_no_reply(nats_server: NatsServer, mesh_namespace: str, place: str) -> None:
    """Cut anywhere in a reply: the call ends at once with an unknown outcome, the next connection starts clean."""
    async with (
        Front(nats_server) as front,
        meshed(front.url, nats_server.url, mesh_namespace) as (mesh, _, ledger),
    ):
        assert await echoed(mesh, 1)
        front.to_client = cut_inside(place)
        with anyio.fail_after(20), pytest.raises(DisconnectedError) as caught:
            await mesh.call("work.echo", Job(2, "half"), returns=Job, timeout=3600.0)
        assert caught.value.executed is Executed.MAYBE
        assert (mesh.client.mux.pending, mesh.client.mux.late) == (0, 0)
        await eventually(lambda: reconnected(mesh))
        for number in range(3, 20):
            assert await echoed(mesh, number, "x" * number * 100)
        assert (mesh.client.mux.pending, mesh.client.mux.late) == (0, 0)
        assert mesh.client.transport.stats.dropped_handler_errors == 0
    assert ledger == list(range(1, 20))  # the half one ran, as "maybe" allows; nothing ran twice


@pytest.mark.parametrize("place", PLACES)
async def test_half_a_request_is_never_executed(
    nats_server: NatsServer, mesh_namespace: str, place: str
) -> None:
    """Cut anywhere in a request on its way to the instance: no handler sees it, the caller's time ends it."""
    async with (
        Front(nats_server) as front,
        meshed(nats_server.url, front.url, mesh_namespace) as (mesh, instance, ledger),
    ):
        assert await echoed(mesh, 1)
        front.to_client = cut_inside(place)
        with pytest.raises(DeadlineExceededError) as caught:
            await mesh.call("work.echo", Job(2, "half"), returns=Job, timeout=0.3)
        assert caught.value.executed is Executed.MAYBE
        await eventually(lambda: instance.transport.connected and instance.transport.stats.reconnects >= 1)
        await instance.transport.fence()
        for number in range(3, 20):
            assert await echoed(mesh, number, "x" * number * 100)
        assert instance.dispatcher.in_flight == 0
        assert not instance.dispatcher.dropped
        assert instance.transport.stats.dropped_handler_errors == 0
    assert ledger == [1, *range(3, 20)]


async def test_many_calls_lose_a_connection_in_mid_message(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """However often the stream is cut under load, each call ends once, with its own answer or as unknown."""
    rng = random.Random("cuts")
    outcomes: Counter[str] = Counter()
    async with (
        Front(nats_server) as front,
        meshed(front.url, nats_server.url, mesh_namespace) as (mesh, _, ledger),
    ):

        async def calls(first: int) -> None:
            for number in range(first, first + 10):
                try:
                    assert await echoed(mesh, number, "x" * rng.randrange(4_000))
                    outcomes["answered"] += 1
                except DisconnectedError as error:
                    outcomes[error.executed] += 1

        for round_number in range(scaled(4, 40)):
            async with anyio.create_task_group() as group:
                for worker in range(20):
                    group.start_soon(calls, 1_000 * round_number + 10 * worker)
                await anyio.sleep(0)
                front.to_client = cut_inside(rng.choice(PLACES))
                await eventually(lambda seen=round_number: reconnected(mesh, seen + 1))  # type: ignore[misc]  # a default holds what the loop's variable is now
            assert await echoed(mesh, -1)
        await eventually(
            lambda: mesh.client.mux.pending == 0
        )  # a question to the service may last two seconds
    assert sum(outcomes.values()) == scaled(4, 40) * 200
    assert outcomes[Executed.MAYBE] > 0
    ran = Counter(number for number in ledger if number >= 0)
    assert max(ran.values()) == 1
    assert outcomes["answered"] <= len(ran) <= outcomes["answered"] + outcomes[Executed.MAYBE]


# -- fragments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["bytes", "random"])
async def test_a_network_of_fragments_mixes_nothing_up(
    nats_server: NatsServer, mesh_namespace: str, how: str
) -> None:
    """200 calls at a time, on both sides through a network that cuts anywhere: everyone gets his own answer."""
    rng = random.Random("fragments")
    pieces = byte_by_byte if how == "bytes" else random_pieces(rng, 60)
    async with (
        Front(nats_server, pieces) as ours,
        Front(nats_server, pieces) as theirs,
        meshed(ours.url, theirs.url, mesh_namespace, patient) as (mesh, instance, ledger),
    ):
        for round_number in range(scaled(1, 4)):
            right: list[bool] = []

            async def call(number: int, right: list[bool] = right) -> None:
                right.append(await echoed(mesh, number, f"text {number}\r\nMSG a 1 3\r\n" * (number % 5)))

            async with anyio.create_task_group() as group:
                for number in range(200):
                    group.start_soon(call, 200 * round_number + number)
            assert right == [True] * 200
        assert ours.pieces > 200 * 5
        assert mesh.client.transport.stats.reconnects == instance.transport.stats.reconnects == 0
        # What a caller asks of the service beside its first call may be answered after it stopped waiting for that.
        assert mesh.client.mux.late <= 1
    assert sorted(ledger) == list(range(200 * scaled(1, 4)))


@pytest.mark.parametrize("most", [1_460, 300_000], ids=["segments", "buffers"])
async def test_large_payloads_among_small_ones(
    nats_server: NatsServer, mesh_namespace: str, most: int
) -> None:
    """Half a megabyte each way, in pieces, between small calls: all whole, none mixed up."""
    rng = random.Random("large")
    async with (
        Front(nats_server, random_pieces(rng, most)) as ours,
        Front(nats_server, random_pieces(rng, most)) as theirs,
        meshed(ours.url, theirs.url, mesh_namespace, patient) as (mesh, instance, _),
    ):
        right: list[bool] = []

        async def call(number: int) -> None:
            text = f"{number:07}x" * (65_536 - 8 if number % 8 == 0 else number)
            right.append(await echoed(mesh, number, text))

        async with anyio.create_task_group() as group:
            for number in range(scaled(64, 160)):
                group.start_soon(call, number)
        assert right == [True] * scaled(64, 160)
        assert mesh.client.transport.stats.reconnects == instance.transport.stats.reconnects == 0


# -- rubbish ----------------------------------------------------------------------------------------

RUBBISH: dict[str, bytes] = {
    "random bytes": random.Random("rubbish").randbytes(5_000) + b"\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "a line without end": b"x" * (2 * MAX_LINE),
    "an INFO without end": b"INFO {" + b'"x",' * MAX_LINE,
    "a size that is none": b"MSG a 1 many\r\n",
    "a size below zero": b"MSG a 1 -1\r\n",
    "a size of 400 digits": b"MSG a 1 " + b"9" * 400 + b"x\r\n",
    "headers longer than the whole": b"HMSG a 1 90 12\r\n" + b"x" * 100,
    "a message for a subscription that is no number": b"MSG a one 1\r\nx\r\n",
    "a payload with a byte too many": b"MSG a 1 3\r\nabcd\r\n",
    "a size that no server sends": b"MSG a 1 99999999999999\r\n",
    "an INFO that is a number": b"INFO 5\r\n",
    "an INFO that is half": b'INFO {"server_id":\r\n',
    "an empty line": b"\r\n",
    "an unknown word": b"HELLO\r\n",
}


@pytest.mark.parametrize("kind", RUBBISH)
async def test_rubbish_ends_that_connection_alone(
    nats_server: NatsServer, mesh_namespace: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls in flight end at once as unknown, the log says what came, the next connection works."""
    async with (
        Front(nats_server) as front,
        meshed(front.url, nats_server.url, mesh_namespace) as (mesh, _, _ledger),
    ):
        assert await echoed(mesh, 1)
        front.to_client = lambda data: ()  # the answer is withheld, so that the call is in flight
        async with anyio.create_task_group() as group:

            async def call() -> None:
                with pytest.raises(DisconnectedError) as caught:
                    await echoed(mesh, 2, timeout=3600.0)
                assert caught.value.executed is Executed.MAYBE

            group.start_soon(call)
            await eventually(lambda: mesh.client.mux.pending == 1)
            front.to_client = lambda data: (data,)
            with anyio.fail_after(5.0):  # less than the watchdog of half-open connections takes
                front.say(RUBBISH[kind])
                await eventually(lambda: reconnected(mesh))
        assert await echoed(mesh, 3)
        assert front.connections == 2
        assert mesh.client.transport.stats.reconnects == 1
    said = [record.getMessage() for record in caplog.records if record.name.startswith("nats")]
    assert any("lost the connection" in text for text in said)
    assert max(map(len, said)) < 1_500  # megabytes of rubbish are not copied into the log


async def test_rubbish_towards_an_instance_costs_it_one_connection(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """An instance comes back with its subscriptions after each kind of rubbish and serves again."""
    async with (
        Front(nats_server) as front,
        meshed(nats_server.url, front.url, mesh_namespace) as (mesh, instance, ledger),
    ):
        kinds = list(RUBBISH.values())[:: scaled(4, 1)]
        for number, rubbish in enumerate(kinds, 1):
            front.say(rubbish)
            await eventually(lambda times=number: instance.transport.stats.reconnects >= times)  # type: ignore[misc]  # a default holds what the loop's variable is now
            await instance.transport.fence()
            assert await echoed(mesh, number)
        assert front.connections == len(kinds) + 1
    assert ledger == list(range(1, len(kinds) + 1))


async def test_fuzzed_streams_lead_to_a_new_connection(nats_server: NatsServer, mesh_namespace: str) -> None:
    """Whatever a fuzzer says in the server's name and the parser refuses: a reconnect, and then calls."""
    rng = random.Random("fuzz")
    async with (
        Front(nats_server) as front,
        meshed(front.url, nats_server.url, mesh_namespace) as (mesh, _, _ledger),
    ):
        for number in range(1, 1 + scaled(5, 100)):
            front.say(_refused(rng))
            await eventually(lambda times=number: reconnected(mesh, times))  # type: ignore[misc]  # a default holds what the loop's variable is now
            assert await echoed(mesh, number)
        await eventually(
            lambda: mesh.client.mux.pending == 0
        )  # a question to the service may last two seconds


def _refused(rng: random.Random) -> bytes:
    """A fuzzed stream that cannot be read to its end, and without an -ERR, which would end the connection too."""
    while True:
        stream = fuzzed(rng)
        try:
            Parser(lambda *message: None, lambda line: None).feed(stream)
        except ProtocolError:
            if b"-ERR" not in stream:
                return stream


# -- who does not read ------------------------------------------------------------------------------


async def test_a_server_that_does_not_read_is_not_written_to_for_ever(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """Against a stalled connection calls wait for room, and end unsent when their time is up; memory is bounded."""
    size, callers, each = 64 * 1024, 48, scaled(16, 64)
    ended: Counter[Executed] = Counter()
    async with (
        TcpProxy("127.0.0.1", nats_server.port) as proxy,
        meshed(proxy.url, nats_server.url, mesh_namespace) as (mesh, _, ledger),
    ):
        assert await echoed(mesh, -1)
        text = "x" * size

        async def flood() -> None:
            for number in range(each):
                try:
                    await mesh.call("work.echo", Job(number, text), returns=Job, timeout=0.06)
                except DeadlineExceededError as error:
                    ended[error.executed] += 1
                except DisconnectedError as error:  # the watchdog, where this takes longer than it waits
                    ended[error.executed] += 1
                    await anyio.sleep(0.01)

        await proxy.pause()
        before = _peak_rss()
        async with anyio.create_task_group() as group:
            for _ in range(callers):
                group.start_soon(flood)
        assert sum(ended.values()) == callers * each
        # What one turn of all callers writes, twice, and what buffers of the system take beside it.
        assert ended[Executed.MAYBE] * size <= 2 * callers * size + 16 * MIB, ended
        assert ended[Executed.NO] > callers * each // 2
        assert _peak_rss() - before <= 64 * MIB
        await eventually(
            lambda: mesh.client.mux.pending == 0
        )  # a question to the service may last two seconds
        await proxy.resume()
        await eventually(lambda: mesh.client.transport.connected)
        await mesh.client.transport.fence(20.0)
        assert await echoed(mesh, -2, "after")
    assert ledger[0] == -1
    assert ledger[-1] == -2


def _peak_rss() -> int:
    """The most memory this process has ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_an_instance_that_does_not_read_costs_its_own_callers_alone(
    nats_server: NatsServer, mesh_namespace: str, worker_factory: WorkerFactory
) -> None:
    """A frozen process is flooded: its calls end in time, others go on, and it serves again when it wakes."""
    worker = worker_factory(nats_server.url, mesh_namespace, "frozen")
    ended: Counter[str] = Counter()
    async with meshed(nats_server.url, nats_server.url, mesh_namespace) as (mesh, _, _ledger):
        assert await mesh.call("frozen.do", "before") == "before"
        worker.freeze()
        text = "x" * 8_192

        async def flood() -> None:
            for _ in range(scaled(8, 80)):
                try:
                    await mesh.call("frozen.do", text, timeout=0.05)
                except CallError as error:
                    ended[f"{error.status} {error.executed}"] += 1

        async def others() -> None:
            for number in range(scaled(100, 1_000)):
                assert await echoed(mesh, number)

        before = _peak_rss()
        async with anyio.create_task_group() as group:
            for _ in range(128):
                group.start_soon(flood)
            group.start_soon(others)
        # On a busy machine the time of some is up before they are written.
        assert (
            {"DEADLINE_EXCEEDED maybe"} <= set(ended) <= {"DEADLINE_EXCEEDED maybe", "DEADLINE_EXCEEDED no"}
        )
        assert sum(ended.values()) == 128 * scaled(8, 80)
        await eventually(
            lambda: mesh.client.mux.pending == 0
        )  # a question to the service may last two seconds
        assert _peak_rss() - before <= 48 * MIB
        worker.thaw()
        assert await mesh.call("frozen.do", "after", timeout=20.0) == "after"
        assert mesh.client.transport.stats.reconnects == 0
    assert worker.ledger == ["before", "after"]  # what waited had expired


async def test_a_caller_that_does_not_read_costs_the_instance_nothing(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """Thousands of answers for somebody who reads none: no call is held, others are served meanwhile."""
    asked = scaled(1_000, 5_000)
    async with meshed(nats_server.url, nats_server.url, mesh_namespace) as (mesh, instance, ledger):
        reader, writer = await asyncio.open_connection("127.0.0.1", nats_server.port)
        try:
            reader._transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's StreamReader has it
            writer.write(b'CONNECT {"verbose":false,"headers":true,"protocol":1}\r\nSUB _INBOX.mute.> 1\r\n')
            subject = f"mesh.{mesh_namespace}.rpc.work.all.echo.mute".encode()
            for number in range(asked):
                body = msgspec.json.encode(Job(number + 1, "x" * 8_192))
                writer.write(b"PUB %b _INBOX.mute.%d %d\r\n%b\r\n" % (subject, number, len(body), body))
                await writer.drain()
                if number % 50 == 0:
                    assert await echoed(mesh, -number - 1)
            await eventually(lambda: sum(number > 0 for number in ledger) == asked, lambda: len(ledger))
            await eventually(lambda: instance.dispatcher.in_flight == 0)
            assert await echoed(mesh, -asked - 1)
            assert instance.transport.stats.reconnects == 0
            assert instance.transport.connected
        finally:
            writer.transport.abort()

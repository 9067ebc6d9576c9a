"""The connection to a real server: each trap of a NATS client, under the rule that keeps us out of it.

What takes seconds (half-open sockets, frozen processes, clusters) stands in ``tests/faults``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from nats_mesh import (
    CallError,
    Context,
    DeadlineExceededError,
    DisconnectedError,
    Executed,
    Mesh,
    NoInstancesError,
    PermissionDeniedError,
    Service,
    Status,
)
from nats_mesh.core.members import Change, ChangeKind
from nats_mesh.discovery.observer import Observer
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing.plugin import NatsServerFactory
from nats_mesh.testing.proxy import TcpProxy
from nats_mesh.testing.server import NatsServer
from nats_mesh.wire.nats_transport import NatsTransport, connect
from nats_mesh.wire.transport import ConnectOptions
from tests.harness import PATIENCE_S, Bus, eventually, open_bus
from tests.rawnats import raw_nats

pytestmark = pytest.mark.anyio

LOOPS = ["asyncio", "uvloop"] if importlib.util.find_spec("uvloop") else ["asyncio"]


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Sockets and transports differ between the loops, so everything here runs on both."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
async def bus(request: pytest.FixtureRequest, mesh_namespace: str) -> AsyncIterator[Bus]:
    """A namespace of the shared server; at the end nothing may be left of any call."""
    async with open_bus(request, "nats", mesh_namespace) as bus:
        yield bus
        await bus.at_rest()


@asynccontextmanager
async def opened(url: str, name: str = "web", **options: Any) -> AsyncIterator[NatsTransport]:
    """A transport, closed at the end."""
    transport = await connect(ConnectOptions(name=name, servers=(url,), **options))
    assert isinstance(transport, NatsTransport), "this nats-py is not the one that the fast way stands on"
    try:
        yield transport
    finally:
        await transport.close()


class Inbox:
    """A handler that keeps what it gets."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def __call__(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        self.payloads.append(payload)


class Witness:
    """A listener that keeps what it is told, and raises each time if asked to."""

    def __init__(self, fails: bool = False) -> None:
        self.told: list[tuple[str, ...]] = []
        self._fails = fails

    def _note(self, *what: str) -> None:
        self.told.append(what)
        if self._fails:
            raise RuntimeError("a listener that breaks the rule")

    def on_disconnect(self, reason: str) -> None:
        self._note("lost", reason)

    def on_reconnect(self) -> None:
        self._note("back")

    def on_denied(self, operation: str, subject: str) -> None:
        self._note("denied", operation, subject)


async def back_again(transport: NatsTransport, reconnects: int = 1) -> None:
    """Return when the connection was lost and stands again."""
    await eventually(lambda: transport.connected and transport.stats.reconnects >= reconnects)


# -- messages ---------------------------------------------------------------------------------------


async def test_calls_of_one_service_run_concurrently(bus: Bus) -> None:
    """A handler that waits holds up no other: eight calls that wait for each other all come through."""
    together = anyio.Event()
    inside = 0
    service = Service("crowd", version="1.0.0")

    @service.endpoint()
    async def meet() -> int:
        nonlocal inside
        inside += 1
        if inside == 8:
            together.set()
        await together.wait()
        return inside

    await bus.serve(service)
    async with anyio.create_task_group() as calls:
        for _ in range(8):
            calls.start_soon(bus.mesh.call, "crowd.meet")
    assert inside == 8


async def test_a_fence_is_a_barrier(nats_server: NatsServer, mesh_namespace: str) -> None:
    """What was written before a fence has reached the server when it returns, however much it was."""
    inbox = Inbox()
    async with opened(nats_server.url) as reader, opened(nats_server.url) as writer:
        reader.subscribe(f"{mesh_namespace}.*", inbox)
        await reader.fence()
        for size, count in ((16, 3000), (900_000, 5)):
            inbox.payloads.clear()
            for number in range(count):
                writer.publish(f"{mesh_namespace}.x", b"%d " % number + bytes(size))
            await writer.fence()
            await reader.fence()
            assert [int(payload.split(b" ")[0]) for payload in inbox.payloads] == list(range(count))


async def test_a_subscription_stands_once_a_fence_returned(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """After subscribe and fence, whatever anybody publishes arrives: fifty times over."""
    async with opened(nats_server.url) as reader, opened(nats_server.url) as writer:
        for number in range(50):
            inbox = Inbox()
            reader.subscribe(f"{mesh_namespace}.{number}", inbox)
            await reader.fence()
            writer.publish(f"{mesh_namespace}.{number}", b"once")
            await writer.fence()
            await reader.fence()
            assert inbox.payloads == [b"once"]


async def test_what_was_on_its_way_is_handled_after_an_unsubscribe(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """A message that the server sent before it saw the UNSUB is not lost; after the fence the table is empty again."""
    async with opened(nats_server.url) as transport:
        before = len(transport._client.handlers)
        for _ in range(20):
            inbox = Inbox()
            subscription = transport.subscribe(mesh_namespace, inbox)
            transport.publish(mesh_namespace, b"1")
            transport.unsubscribe(subscription)
            transport.publish(mesh_namespace, b"2")
            await transport.fence()
            assert inbox.payloads == [b"1"]
        assert len(transport._client.handlers) == before
        assert len(transport._client._subs) == 0


async def test_a_burst_loses_no_message(nats_server: NatsServer, mesh_namespace: str) -> None:
    """No queue stands between the socket and a handler that could overflow and drop."""
    inbox = Inbox()
    async with opened(nats_server.url) as reader, opened(nats_server.url) as writer:
        reader.subscribe(mesh_namespace, inbox)
        await reader.fence()
        for number in range(20_000):
            writer.publish(mesh_namespace, b"%d" % number)
        await writer.fence()
        await reader.fence()
        assert inbox.payloads == [b"%d" % number for number in range(20_000)]


async def test_closing_flushes_what_is_written(nats_server: NatsServer, mesh_namespace: str) -> None:
    """Publish and close in one breath: the message arrives. Closing again changes nothing."""
    inbox = Inbox()
    async with opened(nats_server.url) as reader:
        reader.subscribe(mesh_namespace, inbox)
        await reader.fence()
        writer = await connect(ConnectOptions(name="w", servers=(nats_server.url,)))
        writer.publish(mesh_namespace, b"last words")
        await writer.close()
        await asyncio.gather(writer.close(), writer.close())
        await reader.fence()
        assert inbox.payloads == [b"last words"]
        with pytest.raises(DisconnectedError, match="closed") as caught:
            writer.publish(mesh_namespace, b"too late")
        assert caught.value.executed is Executed.NO


async def test_every_value_of_a_header_is_kept(bus: Bus) -> None:
    """Several values of one name arrive all, in order, in the request and in the reply."""
    service = Service("echo", version="1.0.0")
    seen: list[Any] = []

    @service.endpoint()
    async def say(ctx: Context) -> None:
        seen.extend(ctx.headers.get_all("x-many"))
        for value in ("c", "d", "c"):
            ctx.reply_headers.add("x-back", value)

    await bus.serve(service)
    reply = await bus.mesh.request("echo.say", headers=[("x-many", "a"), ("X-Many", "b"), ("x-many", "a")])
    assert seen == ["a", "b", "a"]
    assert reply.headers.get_all("x-back") == ["c", "d", "c"]


async def test_request_headers_are_not_echoed_into_replies(bus: Bus) -> None:
    """A reply carries what the handler set, nothing of what the caller sent; a failure neither."""
    service = Service("quiet", version="1.0.0")

    @service.endpoint()
    async def say(value: str) -> str:
        return value

    await bus.serve(service)
    headers = b"x-secret: s3cret\r\ntraceparent: 00-%b-%b-01\r\n" % (b"a" * 32, b"b" * 16)
    async with raw_nats(bus.url) as raw:
        subject = f"mesh.{bus.namespace}.rpc.quiet.all.say.anonymous"
        for payload in (b'"x"', b"not json"):
            answer = await raw.request(subject, payload, headers)
            assert b"x-secret" not in answer.headers
            assert b"s3cret" not in answer.headers + answer.payload
            assert b"traceparent" not in answer.headers


# -- the reader never dies --------------------------------------------------------------------------


async def test_an_exception_in_a_message_handler_does_not_kill_the_reader(
    nats_server: NatsServer, mesh_namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a handler raises is logged and counted; the connection stands *and* still answers."""

    def broken(subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        raise RuntimeError("a handler that breaks the rule")

    inbox = Inbox()
    async with opened(nats_server.url) as transport:
        transport.subscribe(mesh_namespace, broken)
        transport.subscribe(mesh_namespace, inbox)
        for _ in range(3):
            transport.publish(mesh_namespace, b"x")
        await transport.fence()
        assert transport.connected
        assert transport.stats.dropped_handler_errors == 3
        assert inbox.payloads == [b"x"] * 3
        assert transport.stats.reconnects == 0
    assert "a handler that breaks the rule" in caplog.text


async def test_an_exception_in_a_listener_does_not_end_the_connection(
    nats_server_factory: NatsServerFactory,
) -> None:
    """Listeners must not raise; one that does hinders neither the reader, nor the reconnecting, nor other listeners."""
    config = 'authorization { users: [{user: u, password: p, permissions: {publish: {deny: ["no"]}}}] }'
    server = nats_server_factory(jetstream=False, config=config)
    async with opened(server.url, user="u", password="p") as transport:
        bad, good = Witness(fails=True), Witness()
        for witness in (bad, good):
            transport.add_listener(witness)
        transport.publish("no", b"")
        await transport.fence()
        await server.restart()
        await back_again(transport)
        await eventually(lambda: len(good.told) == 3)
        await transport.fence()
    assert [what[0] for what in good.told] == ["denied", "lost", "back"]
    assert bad.told == good.told
    assert transport.stats.dropped_handler_errors == 3


class FakeServer:
    """Speaks just enough of the protocol to be connected to, and says whatever a test wants said."""

    def __init__(self) -> None:
        self.connections = 0
        self.said: list[bytes] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        info = b'{"server_id":"F","version":"2.12.0","headers":true,"max_payload":1048576,"proto":1}'
        writer.write(b"INFO " + info + b"\r\n")
        try:
            while line := await reader.readline():
                self.said.append(line)
                if line == b"PING\r\n":
                    writer.write(b"PONG\r\n")
        except ConnectionError:
            pass
        finally:
            writer.close()

    def say(self, data: bytes) -> None:
        """To the latest connection."""
        self._writers[-1].write(data)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """The address, for the length of the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for writer in self._writers:
                writer.close()
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    "poison",
    [
        b"-ERR \r\n",
        b"INFO {broken\r\n",
        b"MSG a b 1\r\nx\r\n",
        b"WHAT IS THIS\r\n",
        b"-ERR 'Some New Error'\r\n",
    ],
)
async def test_whatever_the_server_says_the_client_reads_on(poison: bytes) -> None:
    """Bytes that no parser knows lead to a new connection, never to a reader that is silently dead."""
    fake = FakeServer()
    # Without pings, so that the watchdog of half-open connections cannot be what notices.
    async with fake.listening() as url, opened(url, ping_interval_s=3600.0) as transport:
        witness = Witness()
        transport.add_listener(witness)
        transport.subscribe("a.b", Inbox())
        await transport.fence()
        fake.say(poison)
        await back_again(transport)
        await transport.fence()
        assert fake.connections == 2
        assert [what[0] for what in witness.told] == ["lost", "back"]
        assert [line.split() for line in fake.said if line.startswith(b"SUB")] == [[b"SUB", b"a.b", b"1"]] * 2


async def test_what_is_read_after_a_stall_is_known_to_have_waited(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """A loop that stood still for 400 ms says so with every message read before the next PONG, and no longer."""
    seen: list[float] = []
    address = urlsplit(nats_server.url)
    async with opened(nats_server.url) as transport:
        transport.subscribe(mesh_namespace, lambda *message: seen.append(transport.stats.stall_s))
        await transport.fence()
        for payload in (b"1", b"2"):
            transport.publish(mesh_namespace, payload)
        await eventually(lambda: len(seen) == 2)
        with socket.create_connection((address.hostname, address.port)) as other:
            other.sendall(
                b'CONNECT {"verbose":false}\r\n' + b"PUB %b 1\r\n3\r\n" % mesh_namespace.encode() * 2
            )
            time.sleep(0.4)  # noqa: ASYNC251 - the loop stands still: they wait in the socket meanwhile
        await eventually(lambda: len(seen) == 4)
        await eventually(lambda: transport.stats.stall_s == 0.0)
        assert seen[:2] == [0.0, 0.0]
        assert all(0.25 < stall < PATIENCE_S for stall in seen[2:])
        seen.clear()
        transport.publish(mesh_namespace, b"5")
        await transport.fence()
        transport.publish(mesh_namespace, b"5")
        transport._client.outbox.flush()
        time.sleep(0.4)  # noqa: ASYNC251 - somebody else's code blocks the loop, the message waits in the socket
        await eventually(lambda: len(seen) == 2)
        assert seen[0] == 0.0
        assert 0.25 < seen[1] < PATIENCE_S
        now = time.monotonic()
        assert len(transport.stats.stalls) == 2
        assert all(
            0.25 < until - since < PATIENCE_S and until < now for since, until in transport.stats.stalls
        )
        await eventually(lambda: transport.stats.stall_s == 0.0)
        assert transport.stats.reconnects == 0


# -- errors of the server ---------------------------------------------------------------------------


async def test_a_maximum_payload_violation_leads_to_a_reconnect(
    nats_server_factory: NatsServerFactory,
) -> None:
    """Where too much was written past our own check, the server hangs up; we come back with every subscription."""
    server = nats_server_factory(jetstream=False, config="max_payload: 1024")
    inbox = Inbox()
    async with opened(server.url) as transport:
        transport.subscribe("s", inbox)
        await transport.fence()
        transport._client.put(b"PUB s 5000\r\n" + bytes(5000) + b"\r\n")
        await back_again(transport)
        transport.publish("s", b"here again")
        await transport.fence()
    assert inbox.payloads == [b"here again"]


async def test_header_and_payload_together_are_checked_against_max_payload(
    nats_server_factory: NatsServerFactory,
) -> None:
    """Exactly max_payload passes, one byte more of either is refused before it is written, the connection stays."""
    server = nats_server_factory(jetstream=False, config="max_payload: 4096")
    inbox = Inbox()
    block = b"NATS/1.0\r\nx: " + b"y" * 80 + b"\r\n\r\n"
    async with opened(server.url) as transport:
        transport.subscribe("s", inbox)
        fits = bytes(4096 - len(block))
        transport.publish("s", fits, headers=block)
        transport.publish("s", bytes(4096))
        for payload, headers in ((fits + b"!", block), (bytes(4097), b"")):
            with pytest.raises(CallError) as caught:
                transport.publish("s", payload, headers=headers)
            assert caught.value.status is Status.RESOURCE_EXHAUSTED
            assert caught.value.executed is Executed.NO
        await transport.fence()
        assert [len(payload) for payload in inbox.payloads] == [len(fits), 4096]
        assert transport.stats.reconnects == 0


async def test_a_command_line_too_long_for_the_server_is_refused_here(nats_server: NatsServer) -> None:
    """A subject of 4,096 bytes would close the connection with everything in flight on it."""
    async with opened(nats_server.url) as transport:
        with pytest.raises(CallError) as caught:
            transport.publish("s" * 4096, b"x")
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        with pytest.raises(CallError):
            transport.publish("s", b"x", reply="r" * 4096)
        await transport.fence()
        assert transport.stats.reconnects == 0


async def test_a_hostile_reply_subject_cannot_close_the_instances_connection(
    nats_server: NatsServer, bus: Bus
) -> None:
    """The longest reply that a caller can name makes a longer command of ours: it is dropped, nothing else suffers."""
    service = Service("plain", version="1.0.0")
    ran: list[str] = []

    @service.endpoint(subject="p")
    async def run(value: str) -> str:
        ran.append(value)
        return value

    instance = await bus.serve(service)
    async with raw_nats(nats_server.url) as raw:
        raw.publish("p", b'"x"', "_INBOX." + "r" * 4070)
        await raw.flush()
        await eventually(lambda: ran)
        assert (await raw.request("p", b'"y"')).payload == b'"y"'
    assert instance.transport.stats.reconnects == 0


async def test_a_plain_subject_answers_to_inboxes_alone(bus: Bus) -> None:
    """A caller that names another subject for the answer would make the instance publish there: dropped undecoded."""
    service = Service("deputy", version="1.0.0")
    ran: list[str] = []
    subject = f"{bus.namespace}-plain"

    @service.endpoint(subject=subject)
    async def run(value: str) -> str:
        ran.append(value)
        return value

    instance = await bus.serve(service)
    target = f"mesh.{bus.namespace}.control.command.deputy.all.deputy"
    async with raw_nats(bus.url, target) as raw:
        raw.publish(subject, b'"forged"', target)
        assert (await raw.request(subject, b'"asked"')).payload == b'"asked"'
        assert [m for m in raw.messages if m.subject == target] == []
    assert ran == ["asked"]
    assert instance.dispatcher.dropped["forged"] == 1


async def test_what_jetstream_delivers_to_a_plain_subject_runs_unanswered(bus: Bus) -> None:
    """A push consumer asks for an acknowledgement: the endpoint runs, and its result is not sent as one."""
    service = Service("stored", version="1.0.0")
    ran: list[str] = []
    deliver, source = f"{bus.namespace}-deliver", f"{bus.namespace}-source"

    @service.endpoint(subject=deliver)
    async def run(value: str) -> str:
        ran.append(value)
        return value

    await bus.serve(service)
    async with raw_nats(bus.url) as raw:
        stream = {"name": bus.namespace, "subjects": [source], "storage": "memory"}
        consumer = {
            "durable_name": "c",
            "deliver_subject": deliver,
            "deliver_group": "q",
            "ack_policy": "explicit",
        }
        for subject, body in (
            (f"$JS.API.STREAM.CREATE.{bus.namespace}", stream),
            (
                f"$JS.API.CONSUMER.DURABLE.CREATE.{bus.namespace}.c",
                {"stream_name": bus.namespace, "config": consumer},
            ),
        ):
            assert b"error" not in (await raw.request(subject, json.dumps(body).encode())).payload
        raw.publish(source, b'"stored"')
        await eventually(lambda: ran)
        await bus.at_rest()
        info = json.loads((await raw.request(f"$JS.API.CONSUMER.INFO.{bus.namespace}.c")).payload)
        assert (info["delivered"]["consumer_seq"], info["num_ack_pending"]) == (1, 1)
        await raw.request(f"$JS.API.STREAM.DELETE.{bus.namespace}")
    assert ran == ["stored"]


# -- permissions ------------------------------------------------------------------------------------

PERMISSIONS = """
authorization { users: [
  {user: admin, password: p}
  {user: web, password: p, permissions: {
    publish: {allow: ["mesh.default.rpc.open.>", "mesh.default.cancel.>", "mesh.default.rpc.Case.>", "$SRV.>"]}
    subscribe: ["_INBOX.web.>", "mesh.default.telemetry.want.>"] }}
  {user: mute, password: p, permissions: {
    subscribe: ["_INBOX.mute.>", "mesh.default.telemetry.want.>", "mesh.default.presence.>", "$SRV.>"] }}
  {user: deaf, password: p, permissions: {subscribe: {deny: ["_INBOX.>"]}}}
]}
"""


@pytest.fixture
def guarded(nats_server_factory: NatsServerFactory) -> Callable[[str], Settings]:
    """Settings of a user of a server with permissions."""
    server = nats_server_factory(jetstream=False, config=PERMISSIONS)
    return lambda user: Settings(servers=(server.url,), user=user, password="p")


def named(name: str, **options: Any) -> Service:
    """A service that answers with its name, and waits for ``gate`` if it is given one."""
    service = Service(name, version="1.0.0", **options)

    @service.endpoint()
    async def hello() -> str:
        return name

    return service


async def test_a_denied_call_fails_at_once_and_alone(guarded: Callable[[str], Settings]) -> None:
    """The server's refusal reaches the call it is about, long before its timeout, and no other call."""
    release = anyio.Event()
    service = named("open")

    @service.endpoint()
    async def wait() -> str:
        await release.wait()
        return "waited"

    results: list[Any] = []
    async with (
        Instance(service, settings=guarded("admin")),
        Instance(named("shut"), settings=guarded("admin")),
        Mesh("web", settings=guarded("web")) as mesh,
        anyio.create_task_group() as calls,
    ):

        async def other() -> None:
            results.append(await mesh.call("open.wait", timeout=60.0))

        calls.start_soon(other)
        with anyio.fail_after(PATIENCE_S):
            with pytest.raises(
                PermissionDeniedError, match=r"mesh\.default\.rpc\.shut\.all\.hello\.web"
            ) as caught:
                await mesh.call("shut.hello", timeout=3600.0)
        assert caught.value.executed is Executed.NO
        assert caught.value.status is Status.PERMISSION_DENIED
        assert caught.value.service == "shut"
        assert await mesh.call("open.hello") == "open"
        release.set()
    assert results == ["waited"]


async def test_a_denial_is_mapped_with_the_case_of_its_subject(guarded: Callable[[str], Settings]) -> None:
    """Two services that differ in case alone: the refusal of one call is not taken for the other's."""
    release = anyio.Event()
    service = named("Case")

    @service.endpoint()
    async def wait() -> str:
        await release.wait()
        return "waited"

    results: list[Any] = []
    async with (
        Instance(service, settings=guarded("admin")),
        Mesh("web", settings=guarded("web")) as mesh,
        anyio.create_task_group() as calls,
    ):

        async def allowed() -> None:
            results.append(await mesh.call("Case.wait", timeout=60.0))

        calls.start_soon(allowed)
        await eventually(lambda: mesh.client.mux.pending)
        with pytest.raises(PermissionDeniedError):
            await mesh.call("case.wait", timeout=60.0)
        release.set()
    assert results == ["waited"]


async def test_a_service_that_may_not_listen_does_not_start(guarded: Callable[[str], Settings]) -> None:
    """A denied subscription is the error of the start, and says which subject it is about."""
    with pytest.raises(PermissionDeniedError, match=r"subscribe to mesh\.default\.rpc\.mute\.all\.\*\.\*"):
        async with Instance(named("mute"), settings=guarded("mute")):
            pytest.fail("it started without being able to hear anything")


async def test_a_denial_that_came_before_the_fence_still_counts(guarded: Callable[[str], Settings]) -> None:
    """A start-up that waits for something else in between learns of an early denial all the same."""

    @asynccontextmanager
    async def slow(service: Service) -> AsyncIterator[None]:
        await anyio.sleep(0.1)
        yield

    with pytest.raises(PermissionDeniedError, match="_INBOX"):
        async with Instance(named("deaf", lifespan=slow), settings=guarded("deaf")):
            pytest.fail("it started without an inbox for replies")
    with pytest.raises(PermissionDeniedError, match="_INBOX"):
        async with Mesh("deaf", settings=guarded("deaf")):
            pytest.fail("it opened without an inbox for replies")


async def test_an_old_denial_does_not_spoil_a_later_fence(guarded: Callable[[str], Settings]) -> None:
    """A fence speaks of what was subscribed since the last one: leaving in order still works after a denial."""
    settings = guarded("web")
    async with opened(settings.servers[0], user="web", password="p") as transport:
        transport.subscribe("not.for.us", Inbox())
        with pytest.raises(PermissionDeniedError):
            await transport.fence()
        transport.subscribe("_INBOX.web.x", Inbox())
        await transport.fence()


# -- losing the connection --------------------------------------------------------------------------


async def test_calls_in_flight_fail_at_once_when_the_server_dies(
    nats_server_factory: NatsServerFactory,
) -> None:
    """In flight: outcome unknown, said at once. Unsent: surely not executed."""
    server = nats_server_factory(jetstream=False)
    settings = Settings(servers=(server.url,))
    arrived = anyio.Event()
    service = Service("slow", version="1.0.0")

    @service.endpoint()
    async def work() -> None:
        arrived.set()
        await anyio.sleep(0.2)

    failed: list[CallError] = []
    async with Instance(service, settings=settings), Mesh("web", settings=settings) as mesh:

        async def call() -> None:
            with pytest.raises(DisconnectedError) as caught:
                await mesh.call("slow.work", timeout=3600.0)
            failed.append(caught.value)

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as calls:
                for _ in range(5):
                    calls.start_soon(call)
                await arrived.wait()
                await server.kill()
        assert [(error.executed, error.attempts) for error in failed] == [(Executed.MAYBE, 1)] * 5
        assert mesh.client.mux.pending == 0
        await call()
        assert (failed[-1].executed, failed[-1].attempts) == (Executed.NO, 0)
        await server.restart()  # so that the instance can leave in order


async def test_nothing_stale_is_sent_after_a_reconnect(nats_server_factory: NatsServerFactory) -> None:
    """What was published while the bus was away was refused, and does not turn up later."""
    server = nats_server_factory(jetstream=False)
    inbox = Inbox()
    async with opened(server.url, "reader") as reader, opened(server.url, "writer") as writer:
        reader.subscribe("orders", inbox)
        await reader.fence()
        await server.freeze()
        writer.publish("orders", b"into a socket that nobody reads any more")
        await server.kill()
        await eventually(lambda: not writer.connected)
        for number in range(100):
            with pytest.raises(DisconnectedError) as caught:
                writer.publish("orders", b"stale %d" % number)
            assert caught.value.executed is Executed.NO
        await server.restart()
        await back_again(writer)
        await back_again(reader)
        writer.publish("orders", b"fresh")
        await writer.fence()
        await reader.fence()
    assert inbox.payloads == [b"fresh"]


async def test_what_was_written_in_the_turn_of_the_loss_is_not_sent_later(
    nats_server_factory: NatsServerFactory,
) -> None:
    """Commands that wait for the end of the loop's turn are thrown away with the connection they were meant for."""
    server = nats_server_factory(jetstream=False)
    inbox = Inbox()
    async with opened(server.url, "reader") as reader, opened(server.url, "writer") as writer:
        reader.subscribe("orders", inbox)
        await reader.fence()
        writer.publish("orders", b"written, not yet flushed")
        await writer._client._process_op_err(ConnectionError("lost in this very turn"))
        await back_again(writer)
        writer.publish("orders", b"fresh")
        await writer.fence()
        await reader.fence()
    assert inbox.payloads == [b"fresh"]


async def test_a_fence_fails_when_the_connection_is_lost(nats_server_factory: NatsServerFactory) -> None:
    """Whoever waits at a fence learns of the loss at once, as an error and not as a cancellation."""
    server = nats_server_factory(jetstream=False)
    async with opened(server.url) as transport:
        await server.freeze()
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:

                async def wait() -> None:
                    with pytest.raises(DisconnectedError, match="lost"):
                        await transport.fence(timeout_s=3600.0)

                tasks.start_soon(wait)
                await eventually(lambda: transport._client._pongs)
                await server.kill()
        with pytest.raises(DisconnectedError, match="reconnecting"):
            await transport.fence()


async def test_waiting_for_the_connection_ends_when_it_is_back(
    nats_server_factory: NatsServerFactory,
) -> None:
    """Whoever waits goes on at that moment, not at the end of his patience; a closed one is not waited for."""
    server = nats_server_factory(jetstream=False)
    async with opened(server.url) as transport:
        await server.kill()
        await eventually(lambda: not transport.connected)
        assert not await transport.wait_connected(0.01)
        await server.restart()
        with anyio.fail_after(PATIENCE_S):
            assert await transport.wait_connected(3600.0)
        await transport.fence()
    assert not await transport.wait_connected(3600.0)


async def test_subscriptions_made_and_left_while_away_are_so_afterwards(
    nats_server_factory: NatsServerFactory,
) -> None:
    """The bus being away changes when a subscription stands, not whether."""
    server = nats_server_factory(jetstream=False)
    kept, left, made = Inbox(), Inbox(), Inbox()
    async with opened(server.url) as transport:
        transport.subscribe("kept", kept)
        leaving = transport.subscribe("left", left)
        crossed = transport.subscribe("left", left)
        await transport.fence()
        await server.freeze()
        transport.unsubscribe(crossed)  # nobody will ever confirm that
        await server.kill()
        await eventually(lambda: not transport.connected)
        transport.unsubscribe(leaving)
        transport.subscribe("made", made)
        await server.restart()
        await back_again(transport)
        for subject in ("kept", "left", "made"):
            transport.publish(subject, subject.encode())
        await transport.fence()
        assert (kept.payloads, left.payloads, made.payloads) == ([b"kept"], [], [b"made"])
        assert len(transport._client.handlers) == 2


@pytest.mark.parametrize("stage", [0, 2, 4])
async def test_a_half_finished_reconnect_leaves_no_second_reader(nats_server: NatsServer, stage: int) -> None:
    """A socket that dies in any stage of a reconnect leaves one reader, one ping task, and a connection that works."""
    async with (
        TcpProxy("127.0.0.1", nats_server.port, latency_s=0.01) as proxy,
        opened(proxy.url) as transport,
    ):
        transport.subscribe("a", Inbox())
        await transport.fence()
        for _ in range(2):
            accepted = proxy.accepted
            await proxy.cut()
            await eventually(lambda: proxy.accepted > accepted)  # noqa: B023
            for _ in range(stage):  # INFO, CONNECT and PING, PONG, subscriptions and PING, PONG
                seen = proxy.bytes_to_client + proxy.bytes_to_server
                await eventually(lambda: proxy.bytes_to_client + proxy.bytes_to_server > seen)  # noqa: B023
        await proxy.cut()

        def running() -> list[str]:
            names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
            return sorted(name for name in names if "Client." in name)

        wanted = ["Client._flusher", "Client._ping_interval", "NatsClient._read_loop"]
        await eventually(lambda: transport.connected and running() == wanted, running)
        await transport.fence()


# -- leaving, and what comes late -------------------------------------------------------------------


async def test_calls_made_while_draining_still_get_their_replies(bus: Bus) -> None:
    """A handler that is held through a drain can call on: the reply mux goes last."""
    drained = anyio.Event()
    front, back = Service("front", version="1.0.0"), Service("back", version="1.0.0")
    entered = anyio.Event()

    @front.endpoint()
    async def pass_on(value: int, ctx: Context) -> int:
        entered.set()
        await drained.wait()
        return int(await ctx.call("back.double", await ctx.call("back.double", value)))

    @back.endpoint()
    async def double(value: int) -> int:
        return 2 * value

    await bus.serve(back)
    results: list[int] = []
    async with Instance(front, settings=bus.settings) as instance, anyio.create_task_group() as tasks:

        async def call() -> None:
            results.append(await bus.mesh.call("front.pass_on", 21))

        tasks.start_soon(call)
        await entered.wait()
        tasks.start_soon(instance.drain)
        await eventually(lambda: instance.dispatcher.draining.shut)
        with pytest.raises(NoInstancesError):
            await bus.mesh.call("front.pass_on", 1)
        drained.set()
    assert results == [84]


async def test_a_call_has_one_outcome_whatever_is_answered(bus: Bus) -> None:
    """The first reply counts, its duplicates and replies after the deadline are counted as late, no table grows."""
    late: list[tuple[str, bytes]] = []
    async with raw_nats(bus.url) as responder:
        await responder.subscribe(f"mesh.{bus.namespace}.rpc.twice.all.*.*", "q")

        async def respond() -> None:
            for number in range(60):
                await responder.until(lambda: len(responder.messages) > number)  # noqa: B023
                request = responder.messages[number]
                if ".answer." in request.subject:
                    for word in (b'"first"', b'"second"', b'"third"'):
                        responder.publish(request.reply, word)
                else:
                    late.append((request.reply, b'"too late"'))

        mux = bus.mesh.client.mux
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(respond)
            for _ in range(30):
                assert await bus.mesh.call("twice.answer") == "first"
            # Of several endpoints: none of them fails often enough to open a circuit.
            for number in range(30):
                with pytest.raises(DeadlineExceededError) as caught:
                    await bus.mesh.call(f"twice.never{number % 3}", timeout=0.02)
                assert caught.value.executed is Executed.MAYBE
        for reply, word in late:
            responder.publish(reply, word)
        # What nobody ever asked for: another number, another secret, another connection of the same name.
        prefix, secret, _ = late[0][0].rsplit(".", 2)
        for hostile in (f"{prefix}.{secret}.999999", f"{prefix}.{'0' * 32}.1"):
            responder.publish(hostile, b'"forged"')
        await responder.flush()
        await bus.mesh.client.transport.fence()
        # A duplicate that is read together with its first finds the call still there: ignored, and not counted.
        assert 30 + 2 <= mux.late <= 30 + 2 + 60
        assert mux.pending == 0
        assert bus.mesh.client.transport.stats.dropped_handler_errors == 0


class JumpingClock:
    """The machine's monotonic clock, and a wall clock that an administrator plays with."""

    def __init__(self) -> None:
        self.jump_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time() + self.jump_s


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
async def test_a_jump_of_the_wall_clock_changes_nothing(bus: Bus, jump_s: float) -> None:
    """Deadlines, ages and presence live on monotonic clocks: an hour forth or back on either side is not felt."""
    ours, theirs = JumpingClock(), JumpingClock()
    service = Service("clocked", version="1.0.0")
    left: list[float] = []

    @service.endpoint()
    async def work(seconds: float, ctx: Context) -> None:
        await anyio.sleep(seconds)
        left.append(ctx.remaining())

    changes: list[Change] = []
    mesh = await bus.caller("clock-watcher", clock=ours)
    observer = Observer(
        subjects=mesh.client.subjects,
        transport=mesh.client.transport,
        mux=mesh.client.mux,
        clock=ours,
        on_change=changes.append,
    )
    await mesh.client.transport.fence()
    instance = await bus.serve(service, clock=theirs)
    await mesh.call("clocked.work", 0.0)
    for clocks in ((ours,), (theirs,), (ours, theirs)):
        async with anyio.create_task_group() as calls:
            calls.start_soon(lambda: mesh.call("clocked.work", 0.1, timeout=5.0))
            await eventually(lambda: instance.dispatcher.in_flight == 1)
            for clock in clocks:
                clock.jump_s += jump_s
        with pytest.raises(DeadlineExceededError):
            await mesh.call("clocked.work", 60.0, timeout=0.05)
    assert all(4.0 < seconds < 5.0 for seconds in left), left
    assert len(left) == 4
    assert [change.kind for change in changes] == [ChangeKind.JOINED]
    observer.close()

"""The unary cases that gRPC's interop suite and the connect conformance suite hold their systems to.

Every case runs on every transport. Names of tests are those of the published cases where there is one.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator
from typing import Any

import anyio
import msgspec
import pytest

from nats_mesh import (
    ApplicationError,
    CallError,
    CancelledByPeerError,
    Context,
    DeadlineExceededError,
    Executed,
    NoInstancesError,
    Refused,
    RemoteError,
    Service,
    Status,
)
from nats_mesh.calling.sending import Sender
from nats_mesh.layers.base import Arrival
from nats_mesh.wire.subjects import INBOX, Subjects
from nats_mesh.wire.transport import Transport
from tests.harness import PATIENCE_S, Bus, eventually

pytestmark = pytest.mark.anyio

REQUEST_BYTES, REPLY_BYTES = 271_828, 314_159
ERRORS = [status for status in Status if status is not Status.OK]
SPECIAL_MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP \U0001f608\t\n"


class Empty(msgspec.Struct):
    """A message without fields."""


class Blob(msgspec.Struct):
    """A request for ``size`` bytes back."""

    size: int
    body: bytes


class Failure(msgspec.Struct):
    """The outcome that the service shall produce."""

    status: str
    message: str


class Hop(msgspec.Struct):
    """What each hop of a chain saw: the time on the wire (ms) and what its handler had left (s)."""

    wire_ms: list[int]
    left_s: list[float]


class Probe:
    """What a handler that never ends went through."""

    def __init__(self) -> None:
        self.started = anyio.Event()
        self.cancelled = anyio.Event()
        self.runs = 0

    async def forever(self) -> None:
        """Never return; remember having been cancelled."""
        self.runs += 1
        self.started.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.cancelled.set()
            raise


def _test_service(probe: Probe | None = None) -> Service:
    service = Service("TestService", version="1.0.0")

    @service.endpoint()
    async def empty(value: Empty) -> Empty:
        return value

    @service.endpoint()
    async def nothing() -> None:
        return None

    @service.endpoint()
    async def raw(body: bytes) -> bytes:
        assert len(body) == REQUEST_BYTES
        return bytes(REPLY_BYTES)

    @service.endpoint()
    async def blob(request: Blob) -> Blob:
        return Blob(len(request.body), bytes(request.size))

    @service.endpoint()
    async def metadata(ctx: Context) -> None:
        for name in ctx.headers:
            if name.startswith("x-"):
                ctx.reply_headers[name] = ctx.headers.get_all(name)

    @service.endpoint()
    async def fail(failure: Failure) -> None:
        raise ApplicationError(failure.message, status=failure.status)

    @service.endpoint()
    async def fail_plainly(failure: Failure) -> None:
        raise CallError(failure.message, status=failure.status)

    @service.endpoint()
    async def fail_at_length(size: int) -> None:
        raise ApplicationError("m" * size, status=Status.DATA_LOSS)

    @service.endpoint(timeout=60.0)
    async def sleep() -> None:
        assert probe is not None
        await probe.forever()

    @service.endpoint()
    async def sized(size: int) -> bytes:
        return bytes(size)

    @service.endpoint()
    async def length(body: bytes) -> int:
        return len(body)

    return service


async def test_empty_unary(bus: Bus) -> None:
    """An empty request is answered OK, and there is a reply also where it holds nothing."""
    await bus.serve(_test_service())
    assert await bus.mesh.call("TestService.empty", Empty(), returns=Empty) == Empty()
    reply = await bus.mesh.request("TestService.nothing")
    assert (reply.status, reply.value, reply.attempts) == (Status.OK, None, 1)
    assert reply.instance == bus.instances[0].id


async def test_large_unary_raw(bus: Bus) -> None:
    """271,828 bytes in, exactly 314,159 bytes out, raw."""
    await bus.serve(_test_service())
    reply = await bus.mesh.call("TestService.raw", bytes(REQUEST_BYTES), returns=bytes)
    assert reply == bytes(REPLY_BYTES)


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_large_unary_typed(bus: Bus, codec: str) -> None:
    """The same sizes inside a typed message, in each codec."""
    await bus.serve(_test_service())
    request = Blob(REPLY_BYTES, bytes(REQUEST_BYTES))
    reply = await bus.mesh.call("TestService.blob", request, returns=Blob, codec=codec)
    assert (reply.size, reply.body) == (REQUEST_BYTES, bytes(REPLY_BYTES))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("x-grpc-test-echo-initial", ["test_initial_metadata_value"]),
        ("x-grpc-test-echo-trailing-bin", [b"\xab\xab\xab"]),
        ("x-bytes-bin", [bytes(range(256)), b"", b"\r\n"]),
        ("x-several", ["one", "two", "two", "three, four"]),
        ("x-empty", [""]),
        ("x-blanks", [" before", "after ", " ", "in  side", "\ttab\t"]),
        ("x-colon", ["a: b", ":", "http://host:1/"]),
        ("x-unicode", ["zażółć ☺ \U0001f608"]),
        ("x-long", ["v" * 8192]),
    ],
)
async def test_custom_metadata(bus: Bus, name: str, values: list[Any]) -> None:
    """Values, ASCII and binary, several of one name too, come back exactly and in order."""
    await bus.serve(_test_service())
    reply = await bus.mesh.request("TestService.metadata", headers={name: values, "y-not-echoed": "1"})
    assert reply.headers.get_all(name) == values
    assert reply.headers.get_all(name.upper()) == values, "names compare without regard to case"
    assert list(reply.headers) == [name]


@pytest.mark.parametrize("endpoint", ["fail", "fail_plainly"])
@pytest.mark.parametrize("status", ERRORS)
async def test_status_code_and_message(bus: Bus, status: Status, endpoint: str) -> None:
    """Each of the sixteen statuses arrives as itself, with its text to the letter."""
    await bus.serve(_test_service())
    with pytest.raises(CallError) as caught:
        await bus.mesh.call(f"TestService.{endpoint}", Failure(status, "test status message"))
    error = caught.value
    assert (error.status, error.message) == (status, "test status message")
    assert (error.service, error.endpoint, error.attempts) == ("TestService", endpoint, 1)
    assert (error.executed, error.refused) == (Executed.YES, None), "the handler ran"
    expected = {Status.CANCELLED: CancelledByPeerError, Status.DEADLINE_EXCEEDED: DeadlineExceededError}
    assert type(error) is expected.get(status, RemoteError)


@pytest.mark.parametrize(
    "message",
    [
        SPECIAL_MESSAGE,
        "line\nbreaks\rof\r\nall kinds\r\n\r\n",
        'quotes " and \\ and \x00 and \x1b[31m and \u2028',
        "x" * 100_000,
        " ",
    ],
    ids=["special", "breaks", "control", "long", "blank"],
)
async def test_special_status_message(bus: Bus, message: str) -> None:
    """Tabs, line breaks, emoji and control characters in a message are identical at the caller."""
    await bus.serve(_test_service())
    with pytest.raises(RemoteError) as caught:
        await bus.mesh.call("TestService.fail", Failure(Status.UNKNOWN, message))
    assert caught.value.message == message


async def test_unimplemented_method(bus: Bus) -> None:
    """An endpoint that does not exist is UNIMPLEMENTED at once, says what there is, and surely did not run."""
    await bus.serve(_test_service())
    with anyio.fail_after(PATIENCE_S), pytest.raises(RemoteError) as caught:
        await bus.mesh.call("TestService.UnimplementedCall", timeout=1000.0)
    assert caught.value.status is Status.UNIMPLEMENTED
    assert (caught.value.executed, caught.value.refused) == (Executed.NO, Refused.UNIMPLEMENTED)
    assert "empty" in caught.value.message


async def test_unimplemented_service(bus: Bus) -> None:
    """A service that does not exist is known to be missing at once, and surely nothing ran."""
    await bus.serve(_test_service())
    with anyio.fail_after(PATIENCE_S), pytest.raises(NoInstancesError) as caught:
        await bus.mesh.call("UnimplementedService.UnimplementedCall", timeout=1000.0)
    assert (caught.value.status, caught.value.executed) == (Status.UNAVAILABLE, Executed.NO)
    assert "UnimplementedService" in caught.value.message


async def test_cancel_after_begin(bus: Bus) -> None:
    """A caller that gives up cancels the handler; both sides count the call as CANCELLED, nothing is left."""
    probe = Probe()
    instance = await bus.serve(_test_service(probe))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bus.mesh.call, "TestService.sleep")
        with anyio.fail_after(PATIENCE_S):
            await probe.started.wait()
            tasks.cancel_scope.cancel()
    with anyio.fail_after(PATIENCE_S):
        await probe.cancelled.wait()
    await bus.at_rest()
    await eventually(lambda: instance.stats.totals("in")[0] == 1)
    assert _statuses(bus.mesh.stats, "out") == {"CANCELLED": 1}
    assert _statuses(instance.stats, "in") == {"CANCELLED": 1}


async def test_client_cancellation(bus: Bus) -> None:
    """A call that is cancelled in the turn in which it is made leaves no handler running."""
    probe = Probe()
    instance = await bus.serve(_test_service(probe))
    for _ in range(20):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bus.mesh.call, "TestService.sleep")
                await anyio.sleep(0)
                scope.cancel()
        assert scope.cancelled_caught
    await bus.at_rest()
    await eventually(lambda: instance.stats.totals("in")[0] == 20)
    assert _statuses(instance.stats, "in") == {"CANCELLED": 20}


async def test_a_cancellation_may_overtake_its_call(bus: Bus) -> None:
    """Where the client below keeps no order between subscriptions, the handler is stopped all the same."""
    probe = Probe()
    instance = await bus.serve(_test_service(probe))
    subjects, dispatcher = Subjects(bus.namespace), instance.dispatcher
    dispatcher._transport.ordered = False
    inbox = f"{INBOX}web.{'c' * 22}.{'5' * 32}."
    dispatcher.on_cancel(subjects.cancel("TestService", "web"), f"{inbox}0", b"", f"{inbox}1".encode())
    dispatcher.on_request(subjects.rpc("TestService", "sleep", "web"), f"{inbox}1", b"", b"")
    await eventually(lambda: instance.stats.totals("in")[0] == 1)
    assert _statuses(instance.stats, "in") == {"CANCELLED": 1}
    await bus.at_rest()


class _Queue(collections.deque[Arrival]):
    """A queue that knows how often it was gone through."""

    looks = 0

    def __iter__(self) -> Iterator[Arrival]:
        self.looks += 1
        return super().__iter__()


async def test_a_cancellation_of_nobody_here_looks_once(bus: Bus) -> None:
    """Every instance hears every cancellation, and one names up to 256 attempts: what waits to begin is gone through
    once for all of them, and once more where a cancellation may have overtaken its call."""
    instance = await bus.serve(_test_service(Probe()))
    subjects, dispatcher = Subjects(bus.namespace), instance.dispatcher
    dispatcher._pool.queue = queue = _Queue()
    inbox = f"{INBOX}web.{'c' * 22}.{'5' * 32}."
    named = "\n".join(f"{inbox}{number}" for number in range(1, 257)).encode()
    cancel = subjects.cancel("TestService", "web")
    for ordered, looks in ((True, 1), (False, 2)):
        queue.looks = 0
        dispatcher._transport.ordered = ordered
        dispatcher.on_cancel(cancel, f"{inbox}0", b"", named)
        await eventually(lambda: queue.looks == looks)  # noqa: B023
    await bus.at_rest()


async def test_timeout_on_sleeping_server(bus: Bus) -> None:
    """One millisecond against a handler that sleeps is DEADLINE_EXCEEDED, and the handler does not go on."""
    probe = Probe()
    await bus.serve(_test_service(probe))
    with anyio.fail_after(PATIENCE_S), pytest.raises(DeadlineExceededError) as caught:
        await bus.mesh.call("TestService.sleep", timeout=0.001)
    assert caught.value.status is Status.DEADLINE_EXCEEDED
    await bus.at_rest()
    assert probe.cancelled.is_set() == bool(probe.runs)


async def test_a_handler_that_outlives_its_deadline_is_stopped(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The instance itself ends a handler at the deadline, also where no cancellation reaches it."""
    monkeypatch.setattr(Sender, "cancel", lambda *_: None)
    probe = Probe()
    instance = await bus.serve(_test_service(probe))
    with pytest.raises(DeadlineExceededError) as caught:
        await bus.mesh.call("TestService.sleep", timeout=0.3)
    assert caught.value.executed is not Executed.NO
    with anyio.fail_after(PATIENCE_S):
        await probe.cancelled.wait()
    await bus.at_rest()
    assert _statuses(instance.stats, "in") == {"DEADLINE_EXCEEDED": 1}


async def test_deadline_propagation(bus: Bus) -> None:
    """2,000 ms over three hops: each sees less than its caller, on the wire and in its handler."""

    def hop(name: str, following: str | None) -> Service:
        service = Service(name, version="1.0.0")

        @service.endpoint()
        async def go(ctx: Context) -> Hop:
            own = int(_wire_header(ctx, "Mesh-Timeout-Ms"))
            left = ctx.remaining()
            rest = Hop([], []) if following is None else await ctx.call(f"{following}.go", returns=Hop)
            return Hop([own, *rest.wire_ms], [left, *rest.left_s])

        return service

    for name, following in (("a", "b"), ("b", "c"), ("c", None)):
        await bus.serve(hop(name, following))
    seen = await bus.mesh.call("a.go", timeout=2.0, returns=Hop)
    assert len(seen.wire_ms) == 3
    for values, first in ((seen.wire_ms, 2000), (seen.left_s, 2.0)):
        steps = [first, *values]
        assert all(later < sooner for sooner, later in itertools.pairwise(steps)), steps
        assert values[-1] > 0


async def test_a_nested_call_cannot_buy_more_time(bus: Bus) -> None:
    """A nested call that asks for an hour gets what its parent has left."""
    seen: list[float] = []
    outer, inner = Service("outer", version="1.0.0"), Service("inner", version="1.0.0")

    @inner.endpoint()
    async def look(ctx: Context) -> None:
        seen.append(ctx.remaining())

    @outer.endpoint()
    async def go(ctx: Context) -> None:
        await ctx.call("inner.look", timeout=3600.0)
        await ctx.call("inner.look", timeout=0.5)

    await bus.serve(inner)
    await bus.serve(outer)
    await bus.mesh.call("outer.go", timeout=5.0)
    assert 0.5 < seen[0] < 5.0
    assert 0.0 < seen[1] < 0.5


async def test_request_equal_to_and_over_the_servers_limit(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Header and payload of exactly max_payload pass; one byte more is RESOURCE_EXHAUSTED and costs no connection."""
    await bus.serve(_test_service())
    room = await _room(bus, bus.mesh.client.transport, monkeypatch, ".rpc.")
    assert await bus.mesh.call("TestService.length", bytes(room), timeout=60.0) == room
    with pytest.raises(CallError) as caught:
        await bus.mesh.call("TestService.length", bytes(room + 1), timeout=60.0)
    error = caught.value
    assert (error.status, error.executed, error.attempts) == (Status.RESOURCE_EXHAUSTED, Executed.NO, 0)
    assert str(bus.mesh.client.transport.max_payload) in error.message
    await _still_connected(bus)


async def test_reply_equal_to_and_over_the_servers_limit(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for what a handler returns: the caller learns that it ran and that its reply is too large."""
    instance = await bus.serve(_test_service())
    room = await _room(bus, instance.transport, monkeypatch, "_INBOX.")
    assert len(await bus.mesh.call("TestService.sized", room, returns=bytes, timeout=60.0)) == room
    with pytest.raises(RemoteError) as caught:
        await bus.mesh.call("TestService.sized", room + 1, returns=bytes, timeout=60.0)
    assert (caught.value.status, caught.value.executed) == (Status.RESOURCE_EXHAUSTED, Executed.YES)
    assert "max_payload" in caught.value.message
    await _still_connected(bus)


async def test_an_error_over_the_servers_limit_still_arrives(bus: Bus) -> None:
    """A message too large for a reply is cut, and says so; the status arrives nevertheless."""
    await bus.serve(_test_service())
    with pytest.raises(RemoteError) as caught:
        await bus.mesh.call("TestService.fail_at_length", bus.mesh.client.transport.max_payload)
    assert caught.value.status is Status.DATA_LOSS
    assert caught.value.message.startswith("mmmm")
    assert "cut" in caught.value.message
    await _still_connected(bus)


async def _room(bus: Bus, transport: Transport, monkeypatch: pytest.MonkeyPatch, where: str) -> int:
    """How many bytes of payload fit beside the header block that ``transport`` writes on such subjects."""
    blocks: list[int] = []
    publish, send = transport.publish, transport.send

    def spy(subject: str, payload: bytes = b"", reply: str = "", headers: bytes = b"") -> None:
        if where in subject:
            blocks.append(len(headers))
        publish(subject, payload, reply, headers)

    def spy_on_commands(head: str, payload: bytes) -> None:
        line, _, block = head.partition("\r\n")
        if where in line.split(" ")[1]:
            blocks.append(len(block))
        assert send is not None
        send(head, payload)

    monkeypatch.setattr(transport, "publish", spy)
    if send is not None:
        monkeypatch.setattr(transport, "send", spy_on_commands)
    await bus.mesh.call("TestService.length", b"", timeout=60.0)
    request = blocks[-1]
    await bus.mesh.call("TestService.sized", 1, returns=bytes, timeout=60.0)
    monkeypatch.undo()
    return transport.max_payload - (request if where == ".rpc." else blocks[-1])


async def _still_connected(bus: Bus) -> None:
    assert await bus.mesh.call("TestService.empty", Empty(), returns=Empty) == Empty()
    for transport in [mesh.client.transport for mesh in bus.callers] + [i.transport for i in bus.instances]:
        assert transport.connected
        assert transport.stats.reconnects == 0


def _statuses(stats: Any, side: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for series in stats:
        if series.side == side:
            for status, count in series.by_status.items():
                total[str(status)] = total.get(str(status), 0) + count
    return total


def _wire_header(ctx: Context, name: str) -> str:
    for line in ctx.raw_headers.decode().split("\r\n"):
        if line.startswith(f"{name}: "):
            return line.partition(": ")[2]
    raise AssertionError(f"no {name} in {ctx.raw_headers!r}")

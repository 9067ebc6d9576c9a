"""How handlers run, on every transport: codecs, inheritance, threads, limits, interceptors, lifespan."""

from __future__ import annotations

import datetime
import decimal
import enum
import logging
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

from nats_mesh import (
    Context,
    Executed,
    Mesh,
    Next,
    OverloadedError,
    Refused,
    RemoteError,
    Reply,
    Request,
    Service,
    Status,
)
from tests.harness import PATIENCE_S, Bus, eventually

pytestmark = pytest.mark.anyio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Colour(enum.Enum):
    """A closed set of values."""

    RED = "red"
    BLACK = "black"


class Everything(msgspec.Struct):
    """A value of every kind that travels."""

    text: str
    count: int
    share: float
    flag: bool
    data: bytes
    when: datetime.datetime
    price: decimal.Decimal
    id: uuid.UUID
    colour: Colour
    tags: frozenset[str]
    pair: tuple[int, str]
    nested: dict[str, list[int | None]]
    missing: str | None = None


EVERYTHING = Everything(
    text="zażółć\r\n\x00",
    count=-(2**63),
    share=0.1,
    flag=True,
    data=bytes(range(256)),
    when=datetime.datetime(2025, 1, 31, 12, 0, 0, 123456, tzinfo=datetime.UTC),
    price=decimal.Decimal("19.90"),
    id=uuid.UUID(int=7),
    colour=Colour.RED,
    tags=frozenset({"a", "b"}),
    pair=(1, "x"),
    nested={"a": [1, None], "": []},
)


def _service(name: str = "work", **options: Any) -> Service:
    return Service(name, version="1.0.0", **options)


# -- codecs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_every_kind_of_value_travels(bus: Bus, codec: str) -> None:
    """A typed value is the same on both sides, in each codec, and the reply is in the request's codec."""
    service, seen = _service(), []

    @service.endpoint()
    async def echo(value: Everything) -> Everything:
        seen.append(value)
        return value

    await bus.serve(service)
    reply = await bus.mesh.request("work.echo", EVERYTHING, returns=Everything, codec=codec)
    assert reply.value == EVERYTHING
    assert seen == [EVERYTHING]
    assert reply.headers.get("content-type") == {"json": None, "msgpack": "application/msgpack"}[codec]


async def test_a_call_by_the_function_is_typed(bus: Bus) -> None:
    """The function is the contract: its codec, its types and nothing to repeat at the call."""
    service = _service(codec="msgpack")

    @service.endpoint()
    async def echo(value: Everything) -> Everything:
        return value

    await bus.serve(service)
    reply = await bus.mesh.request(echo, EVERYTHING)
    assert reply.value == EVERYTHING
    assert reply.headers["content-type"] == "application/msgpack"
    assert await echo(EVERYTHING) is EVERYTHING, "it stays an ordinary function"


async def test_without_returns_plain_values_come_back(bus: Bus) -> None:
    """A caller that names no type gets dictionaries, lists, text and numbers."""
    service = _service()

    @service.endpoint()
    async def give() -> Everything:
        return EVERYTHING

    await bus.serve(service)
    value = await bus.mesh.call("work.give")
    assert (value["text"], value["pair"], value["colour"]) == (EVERYTHING.text, [1, "x"], "red")


@pytest.mark.parametrize("body", [b"", b"null", b"\x00\xff\r\n", bytes(range(256)) * 16], ids=len)
async def test_raw_bytes_go_through_untouched(bus: Bus, body: bytes) -> None:
    """Bytes in, the same bytes out, marked as raw; nothing looks into them."""
    service = _service()

    @service.endpoint()
    async def echo(value: bytes) -> bytes:
        return value

    await bus.serve(service)
    reply = await bus.mesh.request("work.echo", body, returns=bytes)
    assert reply.value == body
    assert reply.headers["content-type"] == "application/octet-stream"


async def test_bytes_that_are_json_already(bus: Bus) -> None:
    """Who has encoded the value already sends bytes and names their content type."""
    service = _service()

    @service.endpoint()
    async def double(n: int) -> int:
        return 2 * n

    await bus.serve(service)
    for name, body in (("content-type", b"21"), ("Content-Type", b" 21 ")):
        headers = {name: "application/json; charset=utf-8"}
        assert await bus.mesh.call("work.double", body, headers=headers) == 42
    assert await bus.mesh.call("work.double", b"\x15", headers={"Content-Type": "application/msgpack"}) == 42


async def test_headers_handed_on_do_not_relabel_the_value(bus: Bus) -> None:
    """A handler may pass its caller's headers along: the content type stays that of its own value."""
    service = _service()

    @service.endpoint()
    async def inner(n: int) -> int:
        return n + 1

    @service.endpoint()
    async def outer(n: int, ctx: Context) -> int:
        return await ctx.call("work.inner", n, headers=ctx.headers, returns=int)

    await bus.serve(service)
    assert await bus.mesh.call("work.outer", 1, codec="msgpack", returns=int) == 2


# -- inheritance --------------------------------------------------------------------------------------


async def test_a_nested_call_inherits_trace_baggage_and_priority(bus: Bus) -> None:
    """Trace, trace state, baggage and priority travel on, as the handler's service, without being handed over."""
    seen: dict[str, Any] = {}
    front, back = _service("front"), _service("back")

    @back.endpoint()
    async def look(ctx: Context) -> None:
        seen.update(
            caller=ctx.caller,
            trace=ctx.trace_id,
            sampled=ctx.trace.sampled,
            state=ctx.headers["tracestate"],
            baggage=dict(ctx.baggage),
            priority=ctx.priority,
        )

    @front.endpoint()
    async def go(ctx: Context) -> None:
        assert ctx.trace_id == TRACE
        ctx.baggage["added"] = "a=b, c;d%\r\nx ☺"
        await ctx.call("back.look")

    await bus.serve(front)
    await bus.serve(back)
    headers = {"traceparent": PARENT, "tracestate": "vendor=1", "baggage": "user=ann%20b;prop=1,plain=1"}
    await bus.mesh.call("front.go", headers=headers, priority="critical")
    assert seen == {
        "caller": "front",
        "trace": TRACE,
        "sampled": True,
        "state": "vendor=1",
        "baggage": {"user": "ann b", "plain": "1", "added": "a=b, c;d%\r\nx ☺"},
        "priority": "critical",
    }


async def test_another_mesh_in_the_handler_inherits_as_well(bus: Bus) -> None:
    """The parent is found by context: a Mesh used inside a handler gets deadline and trace without being told."""
    seen: list[tuple[str, str, bool]] = []
    front, back = _service("front"), _service("back")
    other = await bus.caller("other")

    @back.endpoint()
    async def look(ctx: Context) -> None:
        seen.append((ctx.caller, ctx.trace_id, ctx.remaining() < 3.0))

    @front.endpoint()
    async def go() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other.call, "back.look")

    await bus.serve(front)
    await bus.serve(back)
    await bus.mesh.call("front.go", headers={"traceparent": PARENT}, timeout=3.0)
    assert seen == [("other", TRACE, True)]


async def test_requests_do_not_share_their_context(bus: Bus) -> None:
    """What one call puts into its baggage is not seen by the next, nor does a caller's task leak into handlers."""
    service = _service()

    @service.endpoint()
    async def mark(name: str, ctx: Context) -> dict[str, str]:
        ctx.baggage[name] = "1"
        await anyio.sleep(0)
        return ctx.baggage

    await bus.serve(service)
    assert await bus.mesh.call("work.mark", "a") == {"a": "1"}
    assert await bus.mesh.call("work.mark", "b") == {"b": "1"}


# -- threads and limits -------------------------------------------------------------------------------


async def test_plain_functions_run_in_threads(bus: Bus) -> None:
    """A def handler runs in a worker thread: the loop goes on, several run at once, and they see their context."""
    service = _service()
    meeting = threading.Barrier(3)

    @service.endpoint(concurrency=3)
    def meet(ctx: Context) -> list[Any]:
        meeting.wait(PATIENCE_S)  # passes only where all three run at the same time
        return [threading.get_ident(), ctx.caller]

    await bus.serve(service)
    results: list[list[Any]] = []

    async def call() -> None:
        results.append(await bus.mesh.call("work.meet", timeout=PATIENCE_S))

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(call)
    assert len({thread for thread, _ in results} - {threading.get_ident()}) == 3
    assert {caller for _, caller in results} == {"web"}


async def test_a_cancelled_thread_keeps_its_slot(bus: Bus) -> None:
    """Nobody can stop a thread: until it is done its slot stays taken, so that threads cannot pile up."""
    service = _service()
    started, go_on = threading.Event(), threading.Event()

    @service.endpoint(concurrency=1)
    def block() -> str:
        started.set()
        go_on.wait(PATIENCE_S)
        return "done"

    instance = await bus.serve(service)
    try:
        with anyio.move_on_after(0.2):
            await bus.mesh.call("work.block", timeout=60.0)
        await anyio.to_thread.run_sync(started.wait, PATIENCE_S)
        for _ in range(3):
            await instance.transport.fence()
        with pytest.raises(OverloadedError):
            await bus.mesh.call("work.block")
        assert instance.dispatcher.in_flight == 1
    finally:
        go_on.set()
    await bus.at_rest()
    assert await bus.mesh.call("work.block") == "done"


async def test_over_the_concurrency_limit_calls_are_refused_at_once(bus: Bus) -> None:
    """The call after the last slot is RESOURCE_EXHAUSTED with advice when to come back; a free slot admits again."""
    service = _service()
    release = anyio.Event()
    running = 0

    @service.endpoint(concurrency=2)
    async def hold() -> None:
        nonlocal running
        running += 1
        await release.wait()

    @service.endpoint()
    async def other() -> str:
        return "not affected"

    instance = await bus.serve(service)
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(bus.mesh.call, "work.hold")
            await eventually(lambda: running == 2)
            for _ in range(3):
                with pytest.raises(OverloadedError) as caught:
                    await bus.mesh.call("work.hold", timeout=1000.0)
                error = caught.value
                assert (error.status, error.refused) == (Status.RESOURCE_EXHAUSTED, Refused.CONCURRENCY)
                assert error.executed is Executed.NO
                assert error.retry_after_s is not None
                assert 0.0 < error.retry_after_s <= 1.0
            assert running == 2, "a refused call does not reach the handler"
            assert await bus.mesh.call("work.other") == "not affected"
            release.set()
    await bus.at_rest()
    await bus.mesh.call("work.hold")
    assert instance.dispatcher.served["hold"].concurrency.refused == 6  # each was tried twice


# -- interceptors -------------------------------------------------------------------------------------


async def test_interceptors_wrap_both_sides_in_order(bus: Bus) -> None:
    """The first named is the outermost; inside an instance they see the typed value, and may change the reply."""
    seen: list[str] = []

    def noting(name: str) -> Any:
        async def interceptor(request: Request, proceed: Next) -> Reply[Any]:
            seen.append(f"> {name} {request.caller} {request.service}.{request.endpoint} {request.value!r}")
            reply = await proceed(request)
            seen.append(f"< {name} {reply.value!r}")
            return reply

        return interceptor

    async def changing(request: Request, proceed: Next) -> Reply[Any]:
        request.value += 1
        reply = await proceed(request)
        return Reply(reply.value * 10, headers=reply.headers)

    service = _service(interceptors=(noting("in1"), noting("in2"), changing))

    @service.endpoint()
    async def work(n: int) -> int:
        seen.append(f"handler {n}")
        return n

    await bus.serve(service)
    caller = await bus.caller("api", interceptors=(noting("out1"), noting("out2")))
    assert await caller.call("work.work", 1, returns=int) == 20
    assert seen == [
        "> out1 api work.work 1",
        "> out2 api work.work 1",
        "> in1 api work.work 1",
        "> in2 api work.work 1",
        "handler 2",
        "< in2 20",
        "< in1 20",
        "< out2 20",
        "< out1 20",
    ]


async def test_interceptors_may_answer_themselves(bus: Bus) -> None:
    """One that does not proceed answers in the handler's place, or in the service's at the caller; headers travel."""
    ran: list[str] = []

    async def answering(request: Request, proceed: Next) -> Reply[Any]:
        return Reply("instead", headers=request.headers)

    service = _service(interceptors=(answering,))

    @service.endpoint()
    async def work() -> str:
        ran.append("handler")
        return "handler"

    await bus.serve(service)
    reply = await bus.mesh.request("work.work", headers={"x-a": ["1", "2"]})
    assert (reply.value, reply.headers.get_all("x-a")) == ("instead", ["1", "2"])
    caller = await bus.caller("api", interceptors=(answering,))
    assert await caller.call("nobody.there") == "instead"
    assert ran == []


async def test_interceptors_may_refuse_and_add_headers(bus: Bus) -> None:
    """An error raised in one is the call's error on either side; headers set at the caller reach the handler."""
    seen: list[Any] = []

    async def guard(request: Request, proceed: Next) -> Reply[Any]:
        if "x-token" not in request.headers:
            raise RemoteError("no token", status=Status.UNAUTHENTICATED)
        return await proceed(request)

    async def token(request: Request, proceed: Next) -> Reply[Any]:
        request.headers["x-token"] = "t"
        try:
            return await proceed(request)
        except RemoteError as error:
            seen.append(error.status)
            raise

    service = _service(interceptors=(guard,))

    @service.endpoint()
    async def work(ctx: Context) -> str:
        return str(ctx.headers["x-token"])

    await bus.serve(service)
    with pytest.raises(RemoteError, match="no token") as caught:
        await bus.mesh.call("work.work")
    assert caught.value.status is Status.UNAUTHENTICATED
    caller = await bus.caller("api", interceptors=(token,))
    assert await caller.call("work.work") == "t"
    with pytest.raises(RemoteError):
        await caller.call("work.missing")
    assert seen == [Status.UNIMPLEMENTED]


# -- lifespan and several of everything ---------------------------------------------------------------


async def test_the_lifespan_surrounds_every_call(bus: Bus) -> None:
    """It is entered before the first call, its state reaches handlers, and it ends after the last of them."""
    events: list[str] = []
    release = anyio.Event()

    @asynccontextmanager
    async def lifespan(service: Service) -> AsyncIterator[dict[str, str]]:
        events.append(f"open {service.name}")
        try:
            yield {"db": "ready"}
        finally:
            await anyio.sleep(0)
            events.append("close")

    service = _service(lifespan=lifespan)

    @service.endpoint()
    async def work(ctx: Context) -> str:
        events.append("begin")
        await release.wait()
        events.append("end")
        return str(ctx.state["db"])

    results: list[str] = []

    async def call() -> None:
        results.append(await bus.mesh.call("work.work"))

    instance = await bus.serve(service)
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await eventually(lambda: "begin" in events)
            tasks.start_soon(instance.__aexit__, None, None, None)
            await eventually(lambda: instance.dispatcher.draining.shut)
            release.set()
    bus.instances.remove(instance)
    assert events == ["open work", "begin", "end", "close"]
    assert results == ["ready"], "what a leaving instance holds is still answered"


async def test_a_lifespan_that_fails_stops_the_start(bus: Bus) -> None:
    """Its error is the error of the start, and no half of the instance stays behind."""

    @asynccontextmanager
    async def lifespan(service: Service) -> AsyncIterator[None]:
        if service.endpoints:
            raise OSError("no database")
        yield

    service = _service(lifespan=lifespan)

    @service.endpoint()
    async def work() -> None:
        return None

    with pytest.raises(OSError, match="no database"):
        await bus.serve(service)
    with pytest.raises(Exception, match="nobody serves 'work'"):
        await bus.mesh.call("work.work")


async def test_several_services_and_meshes_in_one_process(bus: Bus) -> None:
    """Each has its own connection and speaks under its own name; instances of one service share its calls."""
    names = ("alpha", "beta", "gamma")
    for name in names:
        service = _service(name)

        @service.endpoint()
        async def who(ctx: Context) -> str:
            return f"{ctx.service} called by {ctx.caller}"

        await bus.serve(service)
        await bus.serve(service)
    callers: list[Mesh] = [await bus.caller(name) for name in ("one", "two", "three")]
    instances: set[str] = set()
    for caller in callers:
        for name in names:
            for _ in range(16):
                reply = await caller.request(f"{name}.who", returns=str)
                assert reply.value == f"{name} called by {caller.name}"
                instances.add(reply.instance)
    assert instances == {instance.id for instance in bus.instances}
    connections = {mesh.client.transport.connection for mesh in bus.callers}
    connections |= {instance.transport.connection for instance in bus.instances}
    assert len(connections) == len(bus.callers) + len(bus.instances)


async def test_nothing_is_logged_for_calls_that_succeed(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    """A quiet mesh writes no warning."""
    service = _service()

    @service.endpoint()
    async def work() -> None:
        return None

    await bus.serve(service)
    for _ in range(10):
        await bus.mesh.call("work.work")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

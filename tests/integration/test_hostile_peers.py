"""What one member can do to another: nothing but what its own call deserves."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

import anyio
import msgspec
import pytest

from nats_mesh import (
    CallError,
    ConfigError,
    Context,
    NoInstancesError,
    RemoteError,
    Reply,
    Request,
    Service,
    Status,
)
from nats_mesh.core.trace import TraceContext
from nats_mesh.model import Next
from tests.harness import Bus
from tests.integration.victim import rpc, settled, victim_on
from tests.rawnats import RawNats, header_pairs

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("odd", [b"\x0b", b"\x0c", b"\x01", b"\x1f", b"\x85", b"\xff"])
async def test_odd_bytes_in_subjects_end_nobodys_connection(bus: Bus, raw: RawNats, odd: bytes) -> None:
    """Control bytes and bytes that are no text, in a subject or an inbox, cost their sender's message alone."""
    victim = await victim_on(bus)
    own = bus.mesh.client.transport.connection.encode()
    prefix = f"mesh.{bus.namespace}.".encode()
    for subject, reply in (
        (prefix + b"cancel.victim.e" + odd + b"vil", b"_INBOX.evil.a"),
        (prefix + b"cancel.victim.evil", b"_INBOX.evil.a" + odd + b"b"),
        (prefix + b"rpc.victim.all.place.e" + odd, b"_INBOX.evil.a"),
        (b"_INBOX.test." + own + b".a" + odd + b"b.c", b"x"),
        (prefix + b"presence.victim.a" + odd + b"b", b"_INBOX.victim.a.b.0"),
    ):
        for size in (0, 5000):
            raw.send(b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, size, b"x" * size))
    await settled(bus, raw)
    assert await bus.mesh.call("victim.still_there") is True
    assert victim.instance.transport.stats.reconnects == 0


async def test_an_inbox_that_cannot_be_written_to_costs_no_slot(bus: Bus, raw: RawNats) -> None:
    """However long or odd the inbox: the call ends, its slot and its bookkeeping with it."""
    victim = await victim_on(bus)
    for size in (1500, 3900):
        raw.send(
            b"HPUB %b _INBOX.evil.%b 34 34\r\nNATS/1.0\r\nMesh-Timeout-Ms: 100\r\n\r\n\r\n"
            % (rpc(bus, "wait", "evil").encode(), b"y" * size)
        )
    await settled(bus, raw)
    dispatcher = victim.instance.dispatcher
    with anyio.fail_after(10):
        while dispatcher.in_flight:
            await anyio.sleep(0.02)
    assert dispatcher.served["wait"].concurrency.in_flight == 0


async def test_sys_exit_in_a_worker_thread_ends_its_call_alone(bus: Bus) -> None:
    """A plain function that calls sys.exit() is an undeclared exception like any other."""
    service = Service("leaver", version="1.0.0")

    @service.endpoint()
    def bye(code: int) -> int:
        sys.exit(code)

    @service.endpoint()
    async def still_there() -> bool:
        return True

    await bus.serve(service)
    for _ in range(2):
        with pytest.raises(RemoteError) as caught:
            await bus.mesh.call("leaver.bye", 7)
        assert caught.value.status is Status.INTERNAL
    assert await bus.mesh.call("leaver.still_there") is True


@pytest.mark.parametrize(
    "ending", [GeneratorExit, BaseExceptionGroup("g", [KeyError("x")]), StopAsyncIteration]
)
async def test_whatever_a_handler_ends_in_is_internal(bus: Bus, ending: Any) -> None:
    """Exceptions beside Exception, and a cancelled task that was awaited, are the handler's own failures."""
    service = Service("odd", version="1.0.0")

    @service.endpoint()
    async def raises() -> None:
        raise ending

    @service.endpoint()
    async def awaits_cancelled() -> None:
        task = asyncio.get_running_loop().create_task(asyncio.sleep(10))
        task.cancel()
        await task

    @service.endpoint()
    async def still_there() -> bool:
        return True

    await bus.serve(service)
    for endpoint in ("raises", "awaits_cancelled"):
        with pytest.raises(RemoteError) as caught:
            await bus.mesh.call(f"odd.{endpoint}")
        assert caught.value.status is Status.INTERNAL


async def test_a_silent_directory_costs_no_more_than_the_deadline(bus: Bus, raw: RawNats) -> None:
    """Somebody listens where services are asked and never answers: every call still ends in its own time."""
    await raw.subscribe("$SRV.INFO.ghost")
    took: list[float] = []

    async def call(timeout: float) -> None:
        start = anyio.current_time()
        with pytest.raises(CallError):
            await bus.mesh.call("ghost.x", 1, timeout=timeout)
        took.append(anyio.current_time() - start - timeout)

    async with anyio.create_task_group() as calls:
        for timeout in (1.0, 1.0, 1.0, 0.1, 0.1, 0.3):
            calls.start_soon(call, timeout)
    assert max(took) < 0.9, "a call outlived its deadline behind the question of another"


@pytest.mark.parametrize("said", ["0", "999999999999999999", "²", "-1", "1e9", "9" * 5000, ""])
async def test_a_declared_timeout_that_cannot_be_is_ignored(bus: Bus, raw: RawNats, said: str) -> None:
    """What a service declares is a wish within bounds, not a way to break its callers."""
    await victim_on(bus)
    inbox: list[str] = []
    await raw.subscribe("$SRV.INFO.victim")
    document = {
        "type": "io.nats.micro.v1.info_response", "name": "victim", "id": "x", "version": "1.0.0",
        "metadata": {"mesh.namespace": bus.namespace}, "description": "",
        "endpoints": [{"name": "still_there", "subject": "x", "metadata": {"mesh.timeout_ms": said}}],
    }  # fmt: skip
    call = asyncio.ensure_future(bus.mesh.call("victim.still_there"))
    question = await raw.next("$SRV.INFO.victim")
    inbox.append(question.reply)
    raw.publish(question.reply, msgspec.json.encode(document))
    await raw.flush()
    assert await call is True
    with anyio.fail_after(5):
        while bus.mesh.client.directory._asking:
            await anyio.sleep(0.01)
    assert await bus.mesh.call("victim.still_there") is True


async def test_an_error_cannot_be_ok() -> None:
    """Nobody can raise success."""
    with pytest.raises(ConfigError, match="status OK"):
        CallError("x", status=Status.OK)


async def test_a_task_left_behind_calls_without_the_dead_deadline(bus: Bus) -> None:
    """What a handler started in the background goes on calling after its call and its deadline are over."""
    service = Service("starter", version="1.0.0")
    done: list[Any] = []
    go = anyio.Event()

    async def later(ctx: Context) -> None:
        await go.wait()
        done.append(await ctx.call("starter.still_there"))

    @service.endpoint()
    async def start(ctx: Context) -> None:
        done.append(asyncio.get_running_loop().create_task(later(ctx)))

    @service.endpoint()
    async def still_there() -> bool:
        return True

    await bus.serve(service)
    await bus.mesh.call("starter.start", timeout=0.2)
    await anyio.sleep(0.3)  # the deadline of the call that started it is over
    go.set()
    with anyio.fail_after(5):
        await done[0]
    assert done[1] is True


async def test_interceptors_may_use_the_state_of_a_request(bus: Bus) -> None:
    """The documented place for interceptors to hand things on is theirs alone."""
    seen: list[Any] = []

    async def mark(request: Request, proceed: Next) -> Reply[Any]:
        request.state = {"mine": 1}
        reply = await proceed(request)
        seen.append(request.state)
        return reply

    await victim_on(bus)
    mesh = await bus.caller("marker", interceptors=[mark])
    assert await mesh.call("victim.still_there") is True
    assert seen == [{"mine": 1}]


async def test_a_handler_cannot_forge_lines_through_its_context(bus: Bus, tap: RawNats) -> None:
    """Whatever a handler puts into the trace of its context, nested calls carry one clean header."""
    service = Service("forger", version="1.0.0")

    @service.endpoint()
    async def forge(ctx: Context) -> None:
        ctx.tracestate = "a=b\r\nMesh-Evil: 1"
        await ctx.call("forger.still_there")
        ctx.trace = TraceContext("0" * 32 + "\r\nMesh-Evil: 1", "1" * 16, False)
        await ctx.call("forger.still_there")

    @service.endpoint()
    async def still_there() -> bool:
        return True

    await bus.serve(service)
    await bus.mesh.call("forger.forge")
    await tap.flush()
    names = {name for m in tap.messages if ".rpc." in m.subject for name, _ in header_pairs(m.headers)}
    assert "Mesh-Evil" not in names
    assert all(b"\nMesh-Evil" not in m.headers for m in tap.messages)


async def test_a_closed_mesh_starts_no_call(bus: Bus) -> None:
    """A call that is on its way to the wire when its mesh closes ends at once."""
    await victim_on(bus)
    gate = anyio.Event()

    async def hold(request: Request, proceed: Next) -> Reply[Any]:
        await gate.wait()
        return await proceed(request)

    mesh = await bus.caller("late", interceptors=[hold])
    call = asyncio.ensure_future(mesh.call("victim.still_there"))
    await anyio.sleep(0)
    client = mesh.client
    await client.close()
    gate.set()
    with anyio.fail_after(3), pytest.raises(CallError):
        await call


async def test_a_subject_of_half_a_character_is_refused(bus: Bus) -> None:
    """A lone surrogate cannot be written anywhere."""
    with pytest.raises(ConfigError):
        await bus.mesh.call("nats://\ud800")
    with contextlib.suppress(NoInstancesError):
        await bus.mesh.call("nats://nobody.here")

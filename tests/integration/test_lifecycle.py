"""However an instance, a client or a process is left, nothing of it stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from nats_mesh import CallError, ConfigError, Executed, Mesh, RemoteError, Service, Status, serve
from nats_mesh.core.presence import Kind
from nats_mesh.discovery.messages import decode
from nats_mesh.layers.breaker import is_failure
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing import MemoryMesh
from nats_mesh.testing.server import NatsServer
from nats_mesh.wire.memory import MemoryBus, MemoryTransport
from tests.harness import PATIENCE_S, eventually
from tests.tools import ROOT

pytestmark = pytest.mark.anyio

SETTINGS = Settings(servers=("nats://memory",), namespace="leaving")


class Shop:
    """A service whose handler holds a call until told, and whose lifespan says when it has ended."""

    def __init__(self, name: str = "shop", failure: Exception | None = None) -> None:
        self.entered, self.release, self.stopped = anyio.Event(), anyio.Event(), anyio.Event()
        self.ended = False
        self.service = Service(name, version="1.0.0", lifespan=self._lifespan)
        self.service.endpoint(timeout=60.0)(self.hold)
        self._failure = failure

    @asynccontextmanager
    async def _lifespan(self, service: Service) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:  # what real ones do
            try:
                yield
            finally:
                await anyio.sleep(0)  # a clean-up that is cancelled does not get past this
                self.ended = True
                tasks.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def hold(self) -> str:
        """The handler."""
        self.entered.set()
        try:
            await self.release.wait()
        except BaseException:
            self.stopped.set()
            raise
        return "done"


@pytest.fixture
async def bus() -> MemoryBus:
    """A bus that writes down what passes."""
    bus = MemoryBus()
    bus.recorded = []
    return bus


def instance_of(shop: Shop, bus: MemoryBus) -> Instance:
    """An instance that is not started yet."""
    return Instance(shop.service, settings=SETTINGS, connector=bus.connect)


def said(bus: MemoryBus, service: str = "shop") -> list[Kind]:
    """What was announced, in order."""
    assert bus.recorded is not None
    return [
        decode(payload).type
        for subject, _, _, payload in bus.recorded
        if f".presence.{service}." in subject and ".audit." not in subject
    ]


async def held_call(stack: anyio.abc.TaskGroup, bus: MemoryBus, shop: Shop, got: list[Any]) -> None:
    """Have a call held by the shop's handler; its outcome comes to ``got``."""

    async def call() -> None:
        async with Mesh("web", settings=SETTINGS, connector=bus.connect) as mesh:
            try:
                got.append(await mesh.call("shop.hold", returns=str, timeout=30.0))
            except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
                got.append(error)

    stack.start_soon(call)
    with anyio.fail_after(PATIENCE_S):
        await shop.entered.wait()


@pytest.mark.parametrize("how", ["scope", "task"])
async def test_a_cancelled_context_leaves_nothing(bus: MemoryBus, how: str) -> None:
    """Cancelled, an instance says goodbye, ends its lifespan and closes its connection."""
    shop = Shop()
    instance = instance_of(shop, bus)
    ready = anyio.Event()

    async def body() -> None:
        async with instance:
            ready.set()
            await anyio.sleep(60)

    if how == "scope":
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(body)
            await ready.wait()
            tasks.cancel_scope.cancel()
    else:
        task = asyncio.create_task(body())
        await ready.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert said(bus) == [Kind.JOIN, Kind.LEAVE]
    assert shop.ended
    assert bus.clients == []


@pytest.mark.parametrize("how", ["scope", "task"])
async def test_a_cancelled_drain_stops_what_it_waited_for(bus: MemoryBus, how: str) -> None:
    """A drain that is cancelled waits no longer: the held call is stopped and answered, the rest is cleaned up."""
    shop = Shop()
    instance = await instance_of(shop, bus).__aenter__()
    got: list[Any] = []
    async with anyio.create_task_group() as calls:
        await held_call(calls, bus, shop, got)
        if how == "scope":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(instance.__aexit__, None, None, None)
                await eventually(lambda: instance.dispatcher.draining.shut)
                tasks.cancel_scope.cancel()
        else:
            task = asyncio.create_task(instance.__aexit__(None, None, None))
            await eventually(lambda: instance.dispatcher.draining.shut)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        with anyio.fail_after(PATIENCE_S):
            await shop.stopped.wait()
    assert "shutting down" in str(got[0])
    assert (got[0].status, got[0].executed) == (Status.UNAVAILABLE, Executed.MAYBE)
    assert shop.ended
    assert said(bus) == [Kind.JOIN, Kind.LEAVE]
    assert bus.clients == []


async def test_what_a_leaving_instance_stops_runs_elsewhere(mesh: MemoryMesh) -> None:
    """Stopped before it was done, a handler may have done anything: as after kill -9, a call that may run twice is
    tried at another instance, any other ends as UNAVAILABLE, executed maybe; and both count against the endpoint."""
    entered: list[str] = []

    def holding(release: bool) -> Service:
        service = Service("shop", version="1.0.0")

        async def hold(name: str) -> str:
            entered.append(name)
            if not release:
                await anyio.sleep(60.0)
            return "done"

        service.endpoint("twice", timeout=60.0, idempotent=True)(hold)
        service.endpoint("once", timeout=60.0)(hold)
        return service

    first = await mesh.serve(holding(False))
    outcomes: dict[str, Any] = {}

    async def call(name: str) -> None:
        try:
            outcomes[name] = await mesh.mesh.request(f"shop.{name}", name, idempotent=name == "twice")
        except CallError as error:
            outcomes[name] = error

    async with anyio.create_task_group() as tasks:
        for name in ("twice", "once"):
            tasks.start_soon(call, name)
        await eventually(lambda: len(entered) == 2)
        second = await mesh.serve(holding(True))
        assert await first.drain(0.0) == 2
    assert (outcomes["twice"].value, outcomes["twice"].instance) == ("done", second.id)
    assert outcomes["twice"].attempts == 2
    assert isinstance(outcomes["once"], RemoteError)
    assert (outcomes["once"].status, outcomes["once"].executed) == (Status.UNAVAILABLE, Executed.MAYBE)
    assert outcomes["once"].attempts == 1
    assert [is_failure(outcomes["once"])] == [True]
    assert sorted(entered) == ["once", "twice", "twice"]


async def test_a_cancelled_drain_can_be_taken_up_again(bus: MemoryBus) -> None:
    """Only a drain that was finished is finished: the next one waits for what is still held."""
    shop = Shop()
    got: list[Any] = []
    async with instance_of(shop, bus) as instance, anyio.create_task_group() as calls:
        await held_call(calls, bus, shop, got)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(instance.drain)
            await eventually(lambda: instance.dispatcher.draining.shut)
            tasks.cancel_scope.cancel()
        assert not shop.stopped.is_set()
        assert await instance.drain(0.0) == 1
        assert shop.stopped.is_set()
    assert said(bus) == [Kind.JOIN, Kind.LEAVE]


async def test_whoever_leaves_second_waits_for_the_first(bus: MemoryBus) -> None:
    """Leaving the context while another task drains loses no call that is held."""
    shop = Shop()
    got: list[Any] = []
    async with anyio.create_task_group() as tasks, instance_of(shop, bus) as instance:
        await held_call(tasks, bus, shop, got)
        tasks.start_soon(instance.drain)
        await eventually(lambda: instance.dispatcher.draining.shut)
        asyncio.get_running_loop().call_later(0.05, shop.release.set)
    assert got == ["done"]
    assert shop.ended


async def test_a_cancelled_client_closes_its_connection(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Mesh that is left by a cancellation keeps no connection, also where closing takes a while."""
    real = MemoryTransport.close

    async def slow(self: MemoryTransport) -> None:
        await asyncio.sleep(0.01)
        await real(self)

    monkeypatch.setattr(MemoryTransport, "close", slow)
    async with anyio.create_task_group() as tasks, Mesh("web", settings=SETTINGS, connector=bus.connect):
        tasks.cancel_scope.cancel()
    assert bus.clients == []


async def test_a_client_whose_closing_is_cut_short_closes_its_connection(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection closes, whatever becomes of the wait for what is in flight."""
    mesh = await Mesh("web", settings=SETTINGS, connector=bus.connect).__aenter__()

    async def cut_short() -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(mesh.client, "close", cut_short)
    with pytest.raises(asyncio.CancelledError):
        await mesh.__aexit__(None, None, None)
    assert bus.clients == []


async def test_a_start_that_fails_late_beats_no_more(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that fails after the instance has joined takes that back, and leaves no timer."""
    shop = Shop()
    instance = instance_of(shop, bus)

    def fail(self: MemoryTransport, listener: object) -> None:
        if listener is instance:
            raise RuntimeError("too late")

    monkeypatch.setattr(MemoryTransport, "add_listener", fail)
    with pytest.raises(RuntimeError, match="too late"):
        await instance.__aenter__()
    assert said(bus) == [Kind.JOIN, Kind.LEAVE]
    assert instance._parts.announcer is not None
    assert instance._parts.announcer._timer is None
    assert shop.ended
    assert bus.clients == []


async def test_an_instance_starts_once(bus: MemoryBus) -> None:
    """Entering an instance that runs, or that has run, is a ConfigError and harms nothing."""
    instance = instance_of(Shop(), bus)
    async with instance:
        with pytest.raises(ConfigError, match="make another one"):
            await instance.__aenter__()
        assert instance.transport.connected
    with pytest.raises(ConfigError, match="make another one"):
        await instance.__aenter__()


async def test_a_drain_without_the_bus_says_goodbye_when_it_is_back(mesh: MemoryMesh) -> None:
    """What could not be announced while cut off is announced after the reconnect, and not as a change."""
    shop = Shop()
    mesh.bus.recorded = []
    instance = await mesh.serve(shop.service)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(mesh.call, "shop.hold")
        await shop.entered.wait()
        mesh.cut("shop")
        tasks.start_soon(instance.drain)
        await eventually(lambda: instance.dispatcher.draining.shut)
        assert Kind.LEAVE not in said(mesh.bus)
        mesh.mend("shop")
        assert said(mesh.bus)[-1] is Kind.LEAVE
        tasks.cancel_scope.cancel()


async def test_a_lifespan_that_ends_takes_the_instance_away(bus: MemoryBus) -> None:
    """When a background task of the lifespan fails, no more calls are asked for, and leaving raises the error."""
    crash = anyio.Event()

    @asynccontextmanager
    async def lifespan(service: Service) -> AsyncIterator[None]:
        async def background() -> None:
            await crash.wait()
            raise ValueError("background")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(background)
            yield

    service = Service("shop", version="1.0.0", lifespan=lifespan)
    service.endpoint()(Shop().hold)
    with pytest.raises(ExceptionGroup) as caught, anyio.fail_after(PATIENCE_S):  # noqa: PT012 - a whole life
        async with Instance(service, settings=SETTINGS, connector=bus.connect) as instance:
            failed = anyio.Event()
            instance.on_failure = failed.set
            crash.set()
            await failed.wait()
            assert said(bus) == [Kind.JOIN, Kind.LEAVE]
    assert caught.group_contains(ValueError, match="background")
    assert bus.clients == []


async def test_a_lifespan_that_ends_before_the_instance_is_ready_is_no_start(bus: MemoryBus) -> None:
    """It raises what its lifespan ended with, takes back what it may have announced, and is gone."""

    @asynccontextmanager
    async def lifespan(service: Service) -> AsyncIterator[None]:
        async def background() -> None:
            raise ValueError("background")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(background)
            yield

    service = Service("shop", version="1.0.0", lifespan=lifespan)
    service.endpoint()(Shop().hold)
    instance = Instance(service, settings=SETTINGS, connector=bus.connect)
    with pytest.raises(ExceptionGroup) as caught, anyio.fail_after(PATIENCE_S):
        await instance.__aenter__()
    assert caught.group_contains(ValueError, match="background")
    assert said(bus) in ([], [Kind.JOIN, Kind.LEAVE])
    assert bus.clients == []


async def test_an_instance_is_ready_while_calls_reach_it(mesh: MemoryMesh) -> None:
    """Not before its start, not while the bus is away, not while it drains, and not after."""
    shop = Shop()
    instance = Instance(shop.service, settings=SETTINGS, connector=mesh.bus.connect)
    ready: list[bool] = []

    def look() -> None:
        ready.append(instance.ready)

    look()
    async with instance:
        look()
        mesh.cut("shop")
        look()
        mesh.mend("shop")
        look()
        await instance.stand_aside("by the test")
        look()
        await instance.come_back("by the test")
        look()
        await instance.drain()
        look()
    assert ready == [False, True, False, True, False, True, False]


async def test_one_failing_clean_up_leaves_no_other_service(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """Every service of the process is left, and then the first error is raised as itself."""
    shops = [Shop("one"), Shop("two"), Shop("three", ValueError("three"))]
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    running: list[Instance] = []
    stop = anyio.Event()

    def ready(instances: list[Instance]) -> None:
        running.extend(instances)
        stop.set()

    with pytest.raises(ValueError, match="three"), anyio.fail_after(PATIENCE_S):
        await serve(
            *(shop.service for shop in shops), stop=stop, on_ready=ready, settings_of=lambda _: settings
        )
    assert [shop.ended for shop in shops] == [True] * 3
    assert len(running) == 3
    assert not any(instance.transport.connected for instance in running)


STUBBORN = """
import asyncio, sys, time
from nats_mesh import Service, run

first, second = Service("first", version="1.0.0"), Service("second", version="1.0.0")

@first.endpoint(timeout=120.0)
async def swallow() -> None:
    print("held", flush=True)
    while True:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            pass

@first.endpoint(timeout=120.0)
def thread() -> None:
    print("held", flush=True)
    time.sleep(100)

@second.endpoint(timeout=120.0)
async def wait() -> None:
    print("held", flush=True)
    await asyncio.sleep(100)

run(first, second)
"""


async def test_a_second_signal_ends_the_process(
    nats_server: NatsServer, mesh_namespace: str, tmp_path: Path
) -> None:
    """Told twice, every service leaves in order and the process ends, whatever its handlers do about it."""
    script = tmp_path / "stubborn.py"
    script.write_text(STUBBORN, encoding="utf-8")
    environ = {
        **os.environ,
        "NATS_URL": nats_server.url,
        "MESH_NAMESPACE": mesh_namespace,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    left: set[str] = set()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        with anyio.fail_after(PATIENCE_S):
            while b"second 1.0.0 is ready" not in await process.stderr.readline():
                pass
            async with Mesh("web", settings=settings) as mesh, anyio.create_task_group() as tasks:

                def on_presence(subject: str, reply: str, headers: bytes, payload: bytes) -> None:
                    if decode(payload).type is Kind.LEAVE:
                        left.add(decode(payload).service)

                async def call(target: str) -> None:
                    try:
                        await mesh.call(target, timeout=60.0)
                    except Exception:  # noqa: BLE001 - how the calls end is not what is tested
                        pass

                for service in ("first", "second"):
                    mesh.client.transport.subscribe(mesh.client.subjects.presence_of(service), on_presence)
                await mesh.client.transport.fence()
                for target in ("first.swallow", "first.thread", "second.wait"):
                    tasks.start_soon(call, target)
                for _ in range(3):
                    assert (await process.stdout.readline()).strip() == b"held"
                process.send_signal(signal.SIGTERM)
                while b"draining" not in await process.stderr.readline():
                    pass
                process.send_signal(signal.SIGTERM)
                _, rest = await process.communicate()
                await mesh.client.transport.fence()
                tasks.cancel_scope.cancel()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert left == {"first", "second"}
    assert process.returncode == 0
    assert b"Traceback" not in rest
    assert b"end with the process" in rest

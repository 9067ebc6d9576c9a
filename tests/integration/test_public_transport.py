"""The fallback to nats-py's public API: when it is taken, and what it keeps of the fast way's promises."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from nats.aio.client import Client

from nats_mesh import CallError, DisconnectedError, Executed, Mesh, PermissionDeniedError, Service
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing.plugin import NatsServerFactory
from nats_mesh.testing.proxy import TcpProxy
from nats_mesh.testing.server import NatsServer
from nats_mesh.wire import nats_transport, public_transport
from nats_mesh.wire.nats_client import missing_surface
from nats_mesh.wire.public_transport import PublicTransport
from nats_mesh.wire.transport import ConnectOptions
from tests.harness import PATIENCE_S, eventually

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[PublicTransport]:
    """A connection by the public API, closed at the end."""
    transport = PublicTransport(ConnectOptions(name="web", servers=(url,), **options))
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


def test_this_nats_py_has_all_that_the_fast_way_stands_on() -> None:
    """The pinned version is the one that the fast way was written for."""
    assert missing_surface() == []


@pytest.mark.parametrize("gone", ["_process_op_err", "_flush_pending", "_ps"])
async def test_without_the_inside_the_public_api_is_used_with_one_warning(
    gone: str,
    nats_server: NatsServer,
    mesh_namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Calls work; the warning says what is missing, what it costs and what to install, once for all connections."""
    monkeypatch.setattr(nats_transport, "missing_surface", lambda: [gone])
    monkeypatch.setattr(public_transport, "_warned", False)
    service = Service("greeter", version="1.0.0")

    @service.endpoint()
    async def greet(name: str) -> str:
        return f"Hello {name}"

    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    with caplog.at_level(logging.WARNING, "nats_mesh.bus"):
        async with Instance(service, settings=settings) as instance, Mesh("web", settings=settings) as mesh:
            assert isinstance(instance.transport, PublicTransport)
            assert isinstance(mesh.client.transport, PublicTransport)
            assert await mesh.call("greeter.greet", "Ada") == "Hello Ada"
    [warning] = [record.getMessage() for record in caplog.records if "public API" in record.getMessage()]
    assert gone in warning
    assert "nats-py >=2.16,<2.17" in warning


def test_a_changed_parameter_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of the same name that takes something else is not the one that is stood on."""

    async def other(self: Client, message: object) -> None: ...

    monkeypatch.setattr(Client, "_process_msg", other)
    monkeypatch.delattr(Client, "_send_ping")
    assert missing_surface() == ["_send_ping", "_process_msg(sid, subject, reply, data, headers)"]


async def test_a_fence_is_a_barrier(nats_server: NatsServer, mesh_namespace: str) -> None:
    """Interest that was registered before a fence gets every message that is published after it, in order."""
    heard: list[bytes] = []

    def take(subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        heard.append(payload)

    async with opened(nats_server.url) as hearing, opened(nats_server.url) as speaking:
        for number in range(100):
            heard.clear()
            subscription = hearing.subscribe(f"{mesh_namespace}.{number}", take)
            await hearing.fence()
            for each in range(5):
                speaking.publish(f"{mesh_namespace}.{number}", b"%d" % each)
            await speaking.fence()
            await eventually(lambda: len(heard) == 5)
            assert heard == [b"0", b"1", b"2", b"3", b"4"]
            hearing.unsubscribe(subscription)


async def test_who_leaves_a_queue_group_loses_nothing(nats_server: NatsServer, mesh_namespace: str) -> None:
    """While members come and go every message reaches one of them."""
    heard: list[bytes] = []

    def take(subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        heard.append(payload)

    async with (
        opened(nats_server.url) as stays,
        opened(nats_server.url) as goes,
        opened(nats_server.url) as says,
    ):
        stays.subscribe(mesh_namespace, take, "q")
        await stays.fence()
        for round_ in range(10):
            subscription = goes.subscribe(mesh_namespace, take, "q")
            await goes.fence()
            for number in range(100):
                says.publish(mesh_namespace, b"%d" % (round_ * 100 + number))
                if number == 50:
                    goes.unsubscribe(subscription)
                    await says.fence()
            await goes.fence()
        await says.fence()
        await eventually(lambda: len(heard) == 1000, lambda: str(len(heard)))
        assert sorted(map(int, heard)) == list(range(1000))


async def test_a_header_of_the_users_is_no_status_line(nats_server: NatsServer, mesh_namespace: str) -> None:
    """Only what the server says inline becomes a status; nobody listening is one."""
    heard: list[bytes] = []
    async with opened(nats_server.url) as transport:
        transport.subscribe(f"{mesh_namespace}.>", lambda s, r, headers, p: heard.append(headers))
        await transport.fence()
        transport.publish(f"{mesh_namespace}.a", b"", "", b"NATS/1.0\r\nStatus: active\r\n\r\n")
        transport.publish("nobody.listens", b"", f"{mesh_namespace}.b")
        await eventually(lambda: len(heard) == 2)
    assert heard[0] == b"NATS/1.0\r\nStatus: active\r\n\r\n"
    assert heard[1].startswith(b"NATS/1.0 503\r\n")


async def test_the_queue_is_bounded(nats_server: NatsServer, mesh_namespace: str) -> None:
    """Beyond the first mark it counts as congested, beyond the last nothing is taken; afterwards it goes on."""
    async with opened(nats_server.url) as transport:
        taken = 0

        def fill() -> None:
            nonlocal taken
            while True:
                transport.publish(mesh_namespace, bytes(500_000))
                taken += 1

        with pytest.raises(CallError) as caught:
            fill()
        assert caught.value.executed is Executed.NO
        marks = [transport.congested, transport.ready]
        assert 32 <= taken <= 35
        with anyio.fail_after(PATIENCE_S):
            await transport.writable()
        assert [*marks, transport.ready] == [True, False, True]
        await transport.fence()


async def test_losing_the_connection_is_told_and_nothing_is_sent_later(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """Calls in flight end, publishing is refused meanwhile, interest stands again, old requests do not run."""
    runs: list[str] = []
    service = Service("counter", version="1.0.0")

    @service.endpoint()
    async def count(what: str) -> str:
        runs.append(what)
        if what == "stay":
            await anyio.sleep(PATIENCE_S)
        return what

    async with TcpProxy("127.0.0.1", nats_server.port) as proxy:
        here = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
        there = Settings(servers=(proxy.url,), namespace=mesh_namespace)
        async with (
            Instance(service, settings=here),
            Mesh("web", settings=there, connector=_publicly) as mesh,
        ):
            async with anyio.create_task_group() as group:

                async def lost() -> None:
                    with pytest.raises(DisconnectedError) as caught:
                        await mesh.call("counter.count", "stay")
                    assert caught.value.executed is Executed.MAYBE

                group.start_soon(lost)
                await eventually(lambda: runs == ["stay"])
                await proxy.cut()
            with pytest.raises(DisconnectedError):
                mesh.client.transport.publish(mesh_namespace, b"late")
            await eventually(lambda: mesh.client.transport.ready)
            assert await mesh.call("counter.count", "again") == "again"
        assert runs == ["stay", "again"]


async def _publicly(options: ConnectOptions) -> PublicTransport:
    transport = PublicTransport(options)
    await transport.open()
    return transport


async def test_a_refused_publish_ends_its_call(nats_server_factory: NatsServerFactory) -> None:
    """In the subject's own spelling, though nats-py reports it in lower case."""
    config = 'authorization { users: [{user: u, password: p, permissions: {publish: {deny: ["mesh.>"]}}}] }'
    server = nats_server_factory(config=config)
    settings = Settings(servers=(server.url.replace("://", "://u:p@"),))
    async with Mesh("web", settings=settings, connector=_publicly) as mesh:
        with anyio.fail_after(PATIENCE_S), pytest.raises(PermissionDeniedError):
            await mesh.call("Orders.Place", timeout=PATIENCE_S)


async def test_closing_leaves_no_task(nats_server: NatsServer) -> None:
    """Neither the writer nor anything of nats-py's goes on."""
    before = asyncio.all_tasks()
    async with opened(nats_server.url) as transport:
        transport.subscribe("a.b", lambda *message: None)
        await transport.fence()
        assert len(asyncio.all_tasks()) > len(before)
    await eventually(lambda: asyncio.all_tasks() <= before)

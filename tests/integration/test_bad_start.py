"""What cannot start or connect, and what a call is told that nobody can serve: a clear line each, in time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys

import anyio
import pytest

from nats_mesh import (
    CallError,
    ConfigError,
    DisconnectedError,
    Executed,
    Mesh,
    NoInstancesError,
    PermissionDeniedError,
    Refused,
    RemoteError,
    Service,
    Status,
)
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing import NatsServer
from nats_mesh.testing.plugin import NatsServerFactory
from tests.harness import PATIENCE_S, Bus
from tests.integration.victim import Order, victim_on

pytestmark = pytest.mark.anyio


async def test_a_server_that_is_not_there(unused_tcp_port: int) -> None:
    """Connecting to nothing fails in its time with the address and what to do, for callers and for services."""
    settings = Settings(servers=(f"nats://user:hunter2@127.0.0.1:{unused_tcp_port}",))
    service = Service("s", version="1.0.0")
    service.endpoint(name="e")(_nothing)
    for member in (
        Mesh("web", settings=settings, connect_timeout=0.5),
        Instance(service, settings=settings, connect_timeout=0.5),
    ):
        with anyio.fail_after(PATIENCE_S), pytest.raises(DisconnectedError) as caught:
            await member.__aenter__()
        assert caught.value.executed is Executed.NO
        assert f"cannot reach nats://127.0.0.1:{unused_tcp_port} within 0.5 s" in caught.value.message
        assert "is a nats-server running there?" in caught.value.message
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"INFO {\r\n", b"INFO {}\r\n", b"\x00" * 100]
)
async def test_something_else_listens_there(greeting: bytes) -> None:
    """A port where no nats-server answers is said to be unreachable in time, not waited for."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        mesh = Mesh("web", settings=Settings(servers=(f"nats://127.0.0.1:{port}",)), connect_timeout=0.5)
        with anyio.fail_after(PATIENCE_S), pytest.raises((DisconnectedError, ConfigError), match=str(port)):
            await mesh.__aenter__()
    finally:
        server.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nats://",
        "http://x",
        "nats://a b",
        "x\r\ny",
        "ftp:4222",
        "nats:/x",
        "nats://h:99999",
        "nats://h:x",
    ],
)
async def test_addresses_that_are_none(url: str) -> None:
    """An address that cannot be one is refused with what it should look like."""
    with anyio.fail_after(PATIENCE_S), pytest.raises((ConfigError, DisconnectedError)) as caught:
        async with Mesh("web", servers=[url], connect_timeout=0.5):
            pass
    assert str(caught.value).isprintable()
    assert "hunter2" not in str(caught.value)


async def test_wrong_credentials(nats_server_factory: NatsServerFactory) -> None:
    """A server that does not let us in is UNAUTHENTICATED at once, and nothing is tried for ever."""
    server = nats_server_factory(jetstream=False, config='authorization { user: "a", password: "b" }')
    settings = Settings(servers=(server.url,), user="a", password="wrong")
    with anyio.fail_after(PATIENCE_S), pytest.raises(PermissionDeniedError) as caught:
        await Mesh("web", settings=settings, connect_timeout=5.0).__aenter__()
    assert caught.value.status is Status.UNAUTHENTICATED
    assert "wrong" not in str(caught.value)


async def test_a_second_instance_with_a_used_id(bus: Bus) -> None:
    """An id that is taken is refused with what to do; the first instance goes on, and the id is free once it left."""
    service = Service("victim", version="1.0.0", instance="fixed")

    @service.endpoint()
    async def still_there() -> bool:
        return True

    first = await bus.serve(service)
    with pytest.raises(
        ConfigError, match=r"victim: an instance with the id 'fixed' is running already; stop it"
    ):
        await bus.serve(service)
    reply = await bus.mesh.request("victim.still_there")
    assert reply.instance == first.id == "fixed"
    bus.instances.remove(first)
    await first.__aexit__(None, None, None)
    assert (await bus.serve(service)).id == "fixed"


async def test_a_namespace_that_differs(bus: Bus) -> None:
    """A service in another namespace is not reached, and the error names both."""
    await victim_on(bus)
    stranger = await bus.caller("web", namespace="elsewhere")
    with anyio.fail_after(PATIENCE_S), pytest.raises(NoInstancesError) as caught:
        await stranger.call("victim.place", Order("x"), timeout=1000.0)
    assert (
        f"'victim' runs in namespace '{bus.namespace}', this caller is in 'elsewhere'" in caught.value.message
    )
    assert caught.value.executed is Executed.NO


async def test_a_request_that_is_too_large(bus: Bus) -> None:
    """What the server would close the connection for is refused before it is written; headers count."""
    victim = await victim_on(bus)
    limit = bus.mesh.client.transport.max_payload
    for value, headers in (
        (bytes(limit), {}),
        (b"", {"x-a": "x" * limit}),
        (b"", {"x-a": ["x" * 65_536] * 17}),
    ):
        with pytest.raises(CallError) as caught:
            await bus.mesh.call("victim.anything", value, headers=headers)
        error = caught.value
        assert (error.status, error.executed, error.refused) == (Status.RESOURCE_EXHAUSTED, Executed.NO, None)
        assert "max_payload" in error.message
    assert victim.seen == []


async def test_a_refusal_tells_the_caller_that_nothing_ran(bus: Bus) -> None:
    """An unknown endpoint, an unknown service and an expired call all say executed: no."""
    await victim_on(bus)
    with pytest.raises(RemoteError) as unknown:
        await bus.mesh.call("victim.nothing_like_it")
    assert (unknown.value.refused, unknown.value.executed) == (Refused.UNIMPLEMENTED, Executed.NO)
    with pytest.raises(NoInstancesError) as missing:
        await bus.mesh.call("nobody.there")
    assert missing.value.executed is Executed.NO


async def test_a_mesh_that_is_not_open(nats_server: NatsServer) -> None:
    """Using a Mesh before or after its time, or opening it twice, is a mistake with a remedy in its message."""
    mesh = Mesh("web", servers=nats_server.url)
    with pytest.raises(ConfigError, match="use 'async with Mesh"):
        await mesh.call("a.b")
    async with mesh:
        with pytest.raises(ConfigError, match="open already"):
            await mesh.__aenter__()
    with pytest.raises(ConfigError, match="is not open"):
        await mesh.call("a.b")


@pytest.mark.parametrize(
    ("name", "said", "remedy"),
    [
        ("MESH_METRICS_PORT", "abc", "use a port such as 9464"),
        ("MESH_METRICS_PORT", "-1", "use a port such as 9464"),
        ("MESH_METRICS_PORT", "99999", "use a port such as 9464"),
        ("MESH_METRICS_HOSTS", "orders:9464", "use names without port"),
        ("MESH_MODE", "strict", "use one of: open, enforced"),
        ("MESH_NAMESPACE", "a b", "use letters, digits"),
        ("MESH_LOG", "loud", "use debug, info"),
        ("MESH_ACCESS_LOG", "/nowhere/at/all.log", "use stdout, stderr, logger"),
        ("MESH_PLUGINS", "perhaps", "use on or off"),
        ("MESH_POLICIES", "/nowhere", "off: follow none"),
        ("MESH_JS_DOMAIN", "a.b", "use letters, digits"),
        ("NATS_URL", "http://x", "use nats://host:port"),
    ],
)
async def test_a_bad_variable_ends_a_service_with_a_line(name: str, said: str, remedy: str) -> None:
    """Whatever is wrong in the environment, `run()` ends with exit code 2 and one line that names the variable and what
    would do, without a traceback."""
    script = "from nats_mesh import Service; Service('s', version='1.0.0').run()"
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("MESH_", "NATS_"))}
    done = await anyio.run_process(
        [sys.executable, "-c", script], env={**environ, "MESH_CACHE_DIR": "off", name: said}, check=False
    )
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, len(lines)) == (2, 1), lines
    assert lines[0].startswith("error: ")
    assert name in lines[0]
    assert remedy in lines[0]


async def _nothing() -> None: ...


@pytest.fixture
def unused_tcp_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])

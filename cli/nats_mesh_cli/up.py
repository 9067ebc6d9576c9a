"""``up``: an embedded nats-server with JetStream in the foreground, one or a cluster."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import anyio

from nats_mesh.errors import CallError, ConfigError
from nats_mesh.settings import DEFAULT_SERVER
from nats_mesh.telemetry.span_store import SpanStore
from nats_mesh.testing import NatsCluster, NatsServer
from nats_mesh.wire.kv import KvError
from nats_mesh_cli.bus import connected
from nats_mesh_cli.errors import FAILED, USAGE, CliError
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Out, dump

__all__ = ["ports_for", "up"]

_HIGHEST_PORT = 65_535
_LOG_LINES = 10
#: The name of server and cluster: fixed, because a cluster finds its old data under its old name alone.
_NAME = "nats-mesh"


def ports_for(port: int, size: int) -> list[int]:
    """The client ports of ``size`` servers: ``port`` and the following ones, or free ones where it is 0."""
    if port == 0:
        return [0] * size
    if port + size - 1 > _HIGHEST_PORT:
        raise CliError(f"--port {port}: {size} servers would need ports above {_HIGHEST_PORT}")
    return list(range(port, port + size))


async def up(options: Options, out: Out, *, port: int, cluster: int | None, store: Path | None) -> None:
    """Start, say where, and serve until SIGINT or SIGTERM; a server that dies on its own is exit code 1."""
    folder = None if store is None else _folder(store)
    started: NatsServer | NatsCluster
    if cluster is None:
        started = NatsServer(port=port, name=_NAME, store_dir=folder)
    else:
        started = NatsCluster(cluster, ports=_cluster_ports(port, cluster), name=_NAME, store_dir=folder)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_end_on_signal, tasks.cancel_scope)
        try:
            await started.start()
        except ConfigError as error:
            raise _not_started(error) from None
        try:
            servers = started.servers if isinstance(started, NatsCluster) else (started,)
            await _keep_spans(options, servers[0].url, out)
            _announce(options, out, servers, folder)
            await _last_death(servers, out)
        finally:
            await started.stop()
    out.note("stopped; its data went with it" if folder is None else f"stopped; its data is in {folder}")


async def _keep_spans(options: Options, url: str, out: Out) -> None:
    """Have the namespace's spans kept for minutes, so that `trace` knows what was before anybody looked."""
    try:
        async with connected(replace(options, server=url, context=None, creds=None)) as mesh:
            client = mesh.client
            await SpanStore(client.subjects, transport=client.transport, mux=client.mux).make()
    except (CallError, KvError) as error:  # everything else works without it
        out.note(f"spans will not be kept: {error}", "warn")


def _cluster_ports(port: int, size: int) -> list[int] | None:
    return ports_for(port, size) if port else None


def _folder(store: Path) -> Path:
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CliError(f"--store {store}: {error.strerror}") from None
    return store.absolute()


def _not_started(error: ConfigError) -> CliError:
    port_taken = "port" in str(error) and "in use" in str(error)
    hint = (
        "--port N names another, --port 0 takes a free one; use -s to talk to what runs there"
        if port_taken
        else ""
    )
    return CliError(str(error), hint=hint, code=USAGE)


async def _end_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def _last_death(servers: tuple[NatsServer, ...], out: Out) -> None:
    """Wait until no server is left, and raise what there is to say; a cluster goes on without those that end."""
    left = len(servers)
    async with anyio.create_task_group() as tasks:

        async def watch(server: NatsServer) -> None:
            nonlocal left
            status = await server.wait()
            left -= 1
            if left:
                out.note(
                    f"{server.name} ({server.url}) ended with status {status}; {left} of {len(servers)} go on"
                )
                return
            log = "\n".join(server.logs(_LOG_LINES))
            raise CliError(
                f"{server.name} ended with status {status}; the end of its log:\n{log}", code=FAILED
            )

        for server in servers:
            tasks.start_soon(watch, server)


def _announce(options: Options, out: Out, servers: tuple[NatsServer, ...], folder: Path | None) -> None:
    urls = [server.url for server in servers]
    if options.format.structured:
        document = {
            "urls": urls,
            "monitor_urls": [server.monitor_url for server in servers],
            "pids": [server.pid for server in servers],
            "store": None if folder is None else str(folder),
        }
        out.data(dump(document, options.format, pretty=out.tty))
    else:
        for url in urls:
            out.data(url)
    where = "a temporary folder that goes with the server; --store DIR keeps it" if folder is None else folder
    out.note(f"JetStream data: {where}", "dim")
    if urls != [DEFAULT_SERVER]:
        out.note(f"for other terminals: export NATS_URL={','.join(urls)}", "dim")
    out.note("try: nats-mesh run MOD:APP · nats-mesh get services · nats-mesh check    (Ctrl-C ends)", "dim")

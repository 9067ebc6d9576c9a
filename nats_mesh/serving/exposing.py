"""The metrics of this process under one port: opened by the first that asks for it, closed after the last.

Every Service and Mesh of a process whose settings name a port (``MESH_METRICS_PORT``) reports there, and what has left
goes on being counted. prometheus-client is imported here alone, so nobody waits for it who has no port.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from time import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from nats_mesh.calling.client import Client
from nats_mesh.errors import ConfigError
from nats_mesh.layers.arrived import trace_of
from nats_mesh.layers.base import Arrival
from nats_mesh.telemetry.stats import Stats

if TYPE_CHECKING:
    from nats_mesh.telemetry.collector import MeshCollector
    from nats_mesh.telemetry.http import MetricsServer
    from nats_mesh.telemetry.workers import WorkerReport

__all__ = ["Exposed", "exposed_port", "join", "leave", "report_to"]

log = logging.getLogger("nats_mesh.telemetry")

#: How long the event loop may take to say that it runs (seconds).
_PULSE_S: Final = 1.0
#: From how long on a call is an example of a slow one, whether its trace is recorded or not (seconds).
_SLOW_S: Final = 0.1


class Exposed(Protocol):
    """What reports: a Mesh or an Instance, open."""

    @property
    def stats(self) -> Stats: ...

    @property
    def client(self) -> Client: ...


class Examples:
    """A trace for each bucket of each kind of call, of late: by whoever answered it, the route of metrics to traces."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, ...], dict[int, tuple[str, float, float]]] = {}

    def of(self, service: str) -> Any:
        """What takes the calls that ``service`` answered."""
        from bisect import bisect_left

        from nats_mesh.telemetry.metrics import BUCKETS_S, MAX_EXAMPLES

        def take(call: Arrival, took_s: float) -> None:
            trace = trace_of(call.headers)
            if not trace:
                return
            series = call.series
            key = ("destination", series.peer, service, series.endpoint)
            buckets = self.found.get(key)
            if buckets is None:
                if len(self.found) >= MAX_EXAMPLES:
                    return
                buckets = self.found[key] = {}
            buckets[bisect_left(BUCKETS_S, took_s)] = trace, took_s, time()

        return take


class _Process:
    """What this process exposes."""

    def __init__(self) -> None:
        self.sources: list[Exposed] = []
        self.collector: MeshCollector | None = None
        self.server: MetricsServer | None = None
        self.report: WorkerReport | None = None
        self.examples = Examples()
        self.loop: asyncio.AbstractEventLoop | None = None
        #: The address that could not be had; said once.
        self.refused: tuple[str, int] | None = None
        #: Where the supervisor of this process tells what it and others count.
        self.port_elsewhere = 0

    def collect(self) -> MeshCollector:
        if self.collector is None:
            from nats_mesh.telemetry.collector import MeshCollector

            self.collector = MeshCollector()
            self.collector.exemplars = self.examples.found
        return self.collector

    def healthy(self) -> tuple[bool, dict[str, Any]]:
        """Whether the event loop runs."""
        loop, alive = self.loop, threading.Event()
        if loop is None or loop.is_closed():
            return False, {"event_loop": "closed"}
        try:
            loop.call_soon_threadsafe(alive.set)
        except RuntimeError:  # it was closed meanwhile
            return False, {"event_loop": "closed"}
        if alive.wait(_PULSE_S):
            return True, {"event_loop": "runs"}
        return False, {"event_loop": f"has not run for {_PULSE_S:g} s"}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether everything that reports here may be called, or can call."""
        found = {_name(source): _ready(source) for source in list(self.sources)}
        return bool(found) and all(found.values()), {"ready": found}


_process = _Process()


def join(source: Exposed, address: tuple[str, int] | None, hosts: Sequence[str] = ()) -> None:
    """Have ``source`` report under ``address``, asked by the names ``hosts``; nothing where there is none. Never fails:
    a service without metrics serves, and the log says what is wrong."""
    process = _process
    if address is None and process.report is None:
        return
    collector = process.collect()
    collector.add(source)
    process.sources.append(source)
    process.loop = asyncio.get_running_loop()
    dispatcher = getattr(source, "dispatcher", None)
    if dispatcher is not None:
        dispatcher.watching.set("examples", process.examples.of(_name(source)), every=False, slow_s=_SLOW_S)
    if process.report is not None or address is None or process.server is not None:
        return
    from nats_mesh.telemetry.http import MetricsServer

    try:
        process.server = MetricsServer(
            collector, *address, healthy=process.healthy, ready=process.ready, hosts=hosts
        )
    except ConfigError as error:
        if process.refused != address:
            process.refused = address
            log.error("%s: there will be no metrics: %s", _name(source), error)
        return
    log.info("metrics of this process are on http://%s:%d/metrics", _host(address[0]), process.server.port)


def leave(source: Exposed, client: Client | None) -> None:
    """``source`` is left, whose calls went by ``client``: what it counted stays, as long as the process lives."""
    process = _process
    if process.collector is None or not any(each is source for each in process.sources):
        return
    process.sources = [each for each in process.sources if each is not source]
    process.collector.remove(source, client)
    if not process.sources and process.server is not None:
        server, process.server = process.server, None
        # It may be answering; whoever leaves does not wait for that.
        threading.Thread(target=server.close, daemon=True, name="mesh-metrics-end").start()


def exposed_port() -> int:
    """The port under which this process's metrics are; 0 where there is none."""
    return _process.port_elsewhere or (0 if _process.server is None else _process.server.port)


def report_to(fd: int, port: int) -> WorkerReport:
    """This is a worker: whoever supervises it asks on the socket ``fd``, and tells everybody on ``port``."""
    from nats_mesh.telemetry.workers import WorkerReport

    process = _process
    process.port_elsewhere = port
    collector = process.collect()
    process.report = WorkerReport(fd, collector.tables, lambda: process.ready()[0], collector.examples)
    return process.report


def _name(source: Any) -> str:
    service = getattr(source, "service", None)
    return str(source.name if service is None else service.name)


def _ready(source: Any) -> bool:
    ready = getattr(source, "ready", None)
    if ready is not None:
        return bool(ready)
    try:
        return bool(source.client.transport.connected)
    except ConfigError:  # it has been left
        return False


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host

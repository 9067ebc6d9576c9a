"""``python -m tests.bench.scale``: what it costs to be there, and what happens when there is much of something.

An idle service, an observer of thousands of instances, a process with a thousand endpoints, and starting up;
each beside its budget. The ratio of starting up comes from interleaved runs, so that a busy machine weighs on both.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from nats_mesh import Mesh
from nats_mesh.discovery.services_api import parse_info, parse_stats
from nats_mesh.runner import loop_factory
from nats_mesh.testing import NatsServer
from tests.bench.scale_probe import cpu_s, rss_mib
from tests.bench.scale_worker import EndpointsReady, Order, Ready, Receipt, Seen
from tests.rawnats import raw_nats

__all__ = ["Figure", "Worker", "document_of", "main", "table_of"]

T = TypeVar("T")

#: How long a process may take to answer before the bench gives up, seconds.
_PATIENCE_S = 60.0
#: How long a process is left alone after its start, before it counts as idle, seconds.
_SETTLE_S = 2.0


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. ``budget`` is the most it may be (``at_least``: the least); ``None``: for information."""

    part: str
    name: str
    value: float
    unit: str
    budget: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the budget holds; ``None`` where there is none."""
        if self.budget is None:
            return None
        return self.value >= self.budget if self.at_least else self.value <= self.budget


class Worker:
    """A process of ``scale_worker``, asked by lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def read(self, kind: type[T]) -> T:
        """Its next line."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), _PATIENCE_S)
        if not line:
            raise SystemExit("a process of the bench ended early; what it said stands above")
        return msgspec.json.decode(line, type=kind)

    async def ask(self, question: str, kind: type[T]) -> T:
        """Send a line and read the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(question.encode() + b"\n")
        return await self.read(kind)

    async def load(self, seconds: float) -> float:
        """Its share of a core over the next ``seconds``, in percent."""
        start, used = time.perf_counter(), cpu_s(self.pid)
        await asyncio.sleep(seconds)
        return 100.0 * (cpu_s(self.pid) - used) / (time.perf_counter() - start)


@asynccontextmanager
async def _worker(role: str, url: str, *numbers: int) -> AsyncIterator[Worker]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.scale_worker", role, url, *map(str, numbers),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Worker(process)
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), _PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def measure_idle(options: argparse.Namespace) -> list[Figure]:
    """A service that nobody calls and nobody watches."""
    with NatsServer(jetstream=False) as server:
        async with _worker("idle", server.url) as worker:
            ready = await worker.read(Ready)
            await asyncio.sleep(_SETTLE_S)
            load, rss = await worker.load(options.seconds), rss_mib(worker.pid)
    figure = partial(Figure, part=f"idle service, 5 endpoints, {ready.loop}")
    return [
        figure(name=f"CPU over {options.seconds:g} s", value=load, unit="% of a core", budget=0.5),
        figure(name="RSS", value=rss, unit="MiB", budget=60.0),
    ]


async def measure_observer(options: argparse.Namespace) -> list[Figure]:
    """An observer that is there when everybody joins, and one that comes later and hears beats alone."""
    services, each = 20, options.instances // 20
    count = services * each
    with NatsServer(jetstream=False) as server:
        async with (
            _worker("observer", server.url, count) as early,
            _worker("crowd", server.url, services, each) as crowd,
        ):
            await early.read(Ready)
            await crowd.read(Ready)
            rss_before = rss_mib(early.pid)
            await early.ask("start", Seen)
            await crowd.ask("join", int)
            await asyncio.sleep(_SETTLE_S)
            at_join = await early.ask("report", Seen)
            sent, start = await crowd.ask("report", int), time.perf_counter()
            load = await early.load(options.seconds)
            rate = (await crowd.ask("report", int) - sent) / (time.perf_counter() - start)
            later = await early.ask("report", Seen)
            rss = rss_mib(early.pid)
            async with _worker("observer", server.url, count) as late:
                await late.read(Ready)
                await asyncio.sleep(
                    1.5 * 5.0
                )  # everybody has beaten once: 5 s + 20 %, and what a busy machine adds
                found = await late.ask("report", Seen)
            await crowd.ask("leave", int)
            await asyncio.sleep(_SETTLE_S)
            left = await early.ask("report", Seen)
    figure = partial(Figure, part=f"observer of {count} instances of {services} services, {rate:.0f} beats/s")
    least = partial(figure, at_least=True)
    never = float("inf")
    return [
        least(name="known after all joined", value=at_join.known, unit="instances", budget=count),
        figure(name="first join to all known", value=at_join.all_s or never, unit="s", budget=2.0),
        least(name="alive while they beat", value=later.alive, unit="instances", budget=count),
        figure(name="not believed, or gone too early", value=later.ignored + later.gone, unit="", budget=0),
        figure(name=f"CPU over {options.seconds:g} s", value=load, unit="% of a core", budget=10.0),
        figure(name="RSS", value=rss, unit="MiB", budget=100.0),
        figure(name="RSS of one instance known", value=(rss - rss_before) * 1024 / count, unit="KiB"),
        least(name="one that came later: known", value=found.known, unit="instances", budget=count),
        figure(name="one that came later: all known after", value=found.all_s or never, unit="s", budget=7.5),
        figure(name="known after all left", value=left.known, unit="instances", budget=0),
    ]  # fmt: skip


async def measure_endpoints(options: argparse.Namespace) -> list[Figure]:
    """One process with very many endpoints."""
    count = options.endpoints
    with NatsServer(jetstream=False) as server:
        async with _worker("endpoints", server.url, count) as worker:
            ready = await worker.read(EndpointsReady)
            rss = rss_mib(worker.pid)
            async with Mesh("web", servers=server.url) as mesh, raw_nats(server.url) as raw:
                right = 0
                for number in (0, count - 1):
                    receipt = await mesh.call(f"many.e{number}", Order("b-17"), returns=Receipt)
                    right += receipt == Receipt("b-17", float(number))
                info = await raw.request("$SRV.INFO.many")
                stats = await raw.request("$SRV.STATS.many")
                told = parse_info(info.payload)
                counted = parse_stats(stats.payload)
                limit = mesh.client.transport.max_payload
                subscriptions = await _subscriptions(server, told.name)
    figure = partial(Figure, part=f"{count} endpoints in one process")
    least = partial(figure, at_least=True)
    schemas = sum("mesh.schema.request" in each.metadata for each in told.endpoints)
    return [
        figure(name="CPU of declaring them", value=ready.declare_s, unit="s", budget=2.0),
        figure(name="connect to ready", value=ready.start_s, unit="s", budget=2.0),
        figure(name="RSS", value=rss, unit="MiB", budget=120.0),
        figure(name="subscriptions", value=subscriptions, unit="", budget=10),
        least(name="right answers of the first and the last", value=right, unit="", budget=2),
        least(name="$SRV.INFO: endpoints", value=len(told.endpoints), unit="", budget=count),
        figure(name="$SRV.INFO: size", value=len(info.payload), unit="bytes", budget=limit),
        figure(name="$SRV.INFO: of them with schemas", value=schemas, unit=""),
        least(name="$SRV.STATS: endpoints", value=len(counted.endpoints), unit="", budget=count),
        figure(name="$SRV.STATS: size", value=len(stats.payload), unit="bytes", budget=limit),
    ]  # fmt: skip


async def _subscriptions(server: NatsServer, name: str) -> int:
    """How many subscriptions the server holds for the connection of that name."""
    host, _, port = server.monitor_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /connz HTTP/1.0\r\n\r\n")
    _, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    connections = msgspec.json.decode(body)["connections"]
    return sum(int(each["subscriptions"]) for each in connections if each.get("name") == name)


async def measure_startup(options: argparse.Namespace) -> list[Figure]:
    """The library and the command line, against what the command line cannot do without."""
    program = Path(sysconfig.get_path("scripts")) / "nats-mesh"
    runs = {
        "typer and rich": [sys.executable, "-c", "import typer, rich"],
        "import nats_mesh": [sys.executable, "-c", "import nats_mesh"],
        "nats-mesh --help": [sys.executable, str(program), "--help"],
    }
    walls: dict[str, list[float]] = {name: [] for name in runs}
    cpus: dict[str, list[float]] = {name: [] for name in runs}
    with tempfile.TemporaryDirectory() as cache:
        # As where a package is used, whatever this process was told: compiled once, and kept.
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": cache}
        for number in range(options.rounds + 1):
            for name, command in runs.items():
                wall, cpu = _run(command, environment)
                if number:  # the first round compiles and fills the page cache
                    walls[name].append(wall)
                    cpus[name].append(cpu)
    figure = partial(Figure, part=f"start-up, medians of {options.rounds} interleaved runs")
    base, *others = runs
    figures = [
        figure(name=f"{name}: wall time", value=1e3 * statistics.median(walls[name]), unit="ms")
        for name in runs
    ]
    for name in others:
        wall = statistics.median(a / b for a, b in zip(walls[name], walls[base], strict=True))
        cpu = statistics.median(a / b for a, b in zip(cpus[name], cpus[base], strict=True))
        # What a person waits for has a budget; a service pays for the library once in its life.
        budget = 1.5 if name.endswith("--help") else None
        figures.append(figure(name=f"{name}: wall time over {base}", value=wall, unit="×", budget=budget))
        figures.append(figure(name=f"{name}: CPU over {base}", value=cpu, unit="×"))
    return figures


def _run(command: list[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of one run."""
    start = time.perf_counter()
    pid = os.posix_spawn(
        command[0], command, environment, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    )
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return wall, usage.ru_utime + usage.ru_stime


#: What can be measured, by the name that ``--only`` takes.
PARTS: dict[str, Callable[[argparse.Namespace], Coroutine[None, None, list[Figure]]]] = {
    "idle": measure_idle,
    "observer": measure_observer,
    "endpoints": measure_endpoints,
    "startup": measure_startup,
}


def table_of(figures: Sequence[Figure]) -> str:
    """The figures for people, part by part."""
    lines: list[str] = []
    part = ""
    for figure in figures:
        if figure.part != part:
            part = figure.part
            lines += ["" if lines else f"Python {platform.python_version()}, {platform.machine()}", part]
        budget = ""
        if figure.budget is not None:
            sign, verdict = "≥" if figure.at_least else "≤", "met" if figure.met else "NOT MET"
            budget = f"{sign} {figure.budget:<12g}{verdict}"
        lines.append(f"  {figure.name:42}{figure.value:>12.6g} {figure.unit:12}{budget}".rstrip())
    return "\n".join(lines)


def document_of(figures: Sequence[Figure]) -> bytes:
    """Version 1: the machine, and each figure with its verdict."""
    document = {
        "version": 1,
        "machine": {
            "python": platform.python_version(),
            "architecture": platform.machine(),
            "kernel": platform.release(),
            "cores": os.cpu_count(),
        },
        "figures": [{**msgspec.structs.asdict(figure), "met": figure.met} for figure in figures],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def main() -> None:
    """Measure, print the table, and end with 1 where a budget is not met."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part alone (repeatable)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long CPU is watched (default 20)")
    parser.add_argument(
        "--instances", type=int, default=2_000, help="of the crowd, a multiple of 20 (default 2,000)"
    )
    parser.add_argument("--endpoints", type=int, default=1_000, help="of one process (default 1,000)")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved runs of starting up (default 9)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there as well")
    options = parser.parse_args()
    if options.instances < 20 or options.instances % 20:
        parser.error("--instances: a multiple of 20")
    if options.endpoints < 1 or options.rounds < 1 or not options.seconds > 0:
        parser.error("--endpoints, --rounds and --seconds must be above 0")
    if not sys.platform.startswith("linux"):
        parser.error("only Linux tells what is measured here")
    figures: list[Figure] = []
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        for name in options.only or PARTS:
            sys.stderr.write(f"measuring: {name}\n")
            figures += runner.run(PARTS[name](options))
    sys.stdout.write(table_of(figures) + "\n")
    if options.json is not None:
        options.json.write_bytes(document_of(figures))
    if any(figure.met is False for figure in figures):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

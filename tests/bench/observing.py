"""What it costs to be seen: ``python -m tests.bench.observing``, CPU of a call with and without, in turns.

Each way is a process of its own with a service, its caller and a real server between them; all of them make the same
calls at the same rate, each in turns with the one at which nobody looks, and the CPU time of a turn is divided by its
calls. At that rate every call finds room for its spans: with more calls a member samples fewer traces by itself. The
first line is the plain way against itself: budgets below its quartiles are beyond what the measurement can tell.

Status 0: within the budgets, 1: beyond one, 2: it could not be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import sys
import time
import urllib.request
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import msgspec
import uvloop

from nats_mesh import Mesh, Service
from nats_mesh.policy import PolicySet, parse
from nats_mesh.serving.exposing import exposed_port
from nats_mesh.serving.instance import Instance
from nats_mesh.telemetry.span_store import SpanStore
from nats_mesh.telemetry.watching import MeshView
from nats_mesh.testing import NatsServer

__all__ = ["main", "plain_cost"]

#: What is measured, and by how much it may be dearer than ``plain`` (share).
_PLAIN: Final = "plain"
WAYS = {_PLAIN: 0.0, "plain again": 0.0, "traced": 0.10, "metrics": 0.03, "statistics": 0.02}
_WHAT = {
    "plain again": "nobody looks, against itself: what the measurement is good for",
    "traced": "every trace sampled, and a stream that keeps the spans",
    "metrics": "a port for metrics, scraped once a turn (5 s, as compose/ has it)",
    "statistics": "somebody listens to the statistics on the bus",
}
_TICK_S = 0.01
_POLICIES = """
apiVersion: mesh/v1
kind: Telemetry
metadata: {name: traced}
spec: {tracing: 100%}
"""


class Text(msgspec.Struct):
    """What every call takes and returns, 128 bytes of JSON."""

    text: str


def service(address: str, namespace: str, policies: PolicySet) -> Service:
    """What is called."""
    made = Service("bench", version="1.0.0", servers=address, namespace=namespace, policies=policies)

    @made.endpoint()
    async def echo(value: Text) -> Text:
        return value

    return made


async def work(way: str, address: str, namespace: str, rate: float) -> None:
    """One way: a turn of so many seconds for each line of the standard input, then its calls and CPU seconds."""
    policies = PolicySet.of(parse(_POLICIES if way == "traced" else ""))
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    value = Text("x" * 117)
    async with (
        Instance(service(address, namespace, policies)),
        Mesh("bench-caller", servers=address, namespace=namespace, policies=policies) as mesh,
    ):
        for _ in range(200):
            await mesh.call("bench.echo", value, returns=Text)
        print("ready", exposed_port(), flush=True)
        while line := await lines.readline():
            seconds = float(line)
            before = resource.getrusage(resource.RUSAGE_SELF)
            calls = await _turn(mesh, value, rate, seconds)
            after = resource.getrusage(resource.RUSAGE_SELF)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(calls, spent, flush=True)


async def _turn(mesh: Mesh, value: Text, rate: float, seconds: float) -> int:
    start = time.monotonic()
    each = max(1, round(rate * _TICK_S))
    ticks = round(seconds / _TICK_S)
    for tick in range(ticks):
        await asyncio.sleep(max(0.0, start + tick * _TICK_S - time.monotonic()))
        await asyncio.gather(*(mesh.call("bench.echo", value, returns=Text) for _ in range(each)))
    return ticks * each


@asynccontextmanager
async def _opened(way: str, address: str, rate: float) -> AsyncIterator[tuple[Process, int]]:
    namespace = f"bench-{way.replace(' ', '-')}"
    async with AsyncExitStack() as stack:
        if way == "traced":
            keeper = await stack.enter_async_context(Mesh("keeper", servers=address, namespace=namespace))
            client = keeper.client
            await SpanStore(client.subjects, transport=client.transport, mux=client.mux).make()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.observing", "--work", way, address, namespace, str(rate),
            stdin=PIPE, stdout=PIPE, env={**_environment(way)},
        )  # fmt: skip
        stack.push_async_callback(_ended, process)
        assert process.stdout is not None
        ready = (await process.stdout.readline()).split()
        if ready[:1] != [b"ready"]:
            raise RuntimeError(f"{way}: it did not start")
        if way == "statistics":
            watcher = await stack.enter_async_context(Mesh("watcher", servers=address, namespace=namespace))
            await stack.enter_async_context(MeshView(watcher))
        yield process, int(ready[1])


def _environment(way: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESH_", "OTEL_"))}
    return {**kept, "MESH_POLICIES": "off", **({"MESH_METRICS_PORT": "0"} if way == "metrics" else {})}


async def _ended(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()


def _read(url: str) -> None:
    with urllib.request.urlopen(url, timeout=5) as answer:
        answer.read()


async def _take_turn(process: Process, port: int, seconds: float) -> float:
    """CPU seconds of a call; where there is a ``port``, its metrics are read once meanwhile."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{seconds}\n".encode())
    if port:
        await asyncio.sleep(seconds / 2)
        await asyncio.to_thread(_read, f"http://127.0.0.1:{port}/metrics")
    calls, spent = (await process.stdout.readline()).split()
    return float(spent) / int(calls)


async def measure(rate: float, seconds: float, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """CPU seconds of a call in each turn of a way, and in the plain turn beside it."""
    ways = [way for way in WAYS if way != _PLAIN]
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    async with NatsServer() as server, AsyncExitStack() as stack:
        processes = {way: await stack.enter_async_context(_opened(way, server.url, rate)) for way in WAYS}
        for number in range(rounds):
            for way in ways:
                # Neither always comes first.
                turns = {
                    each: await _take_turn(*processes[each], seconds)
                    for each in ((_PLAIN, way) if number % 2 else (way, _PLAIN))
                }
                found[way].append((turns[way], turns[_PLAIN]))
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return found


async def plain_cost(rate: float, seconds: float, rounds: int) -> float:
    """CPU seconds of a call while nobody looks, both ends together: the median of some turns."""
    async with NatsServer() as server, _opened(_PLAIN, server.url, rate) as (process, port):
        return statistics.median([await _take_turn(process, port, seconds) for _ in range(rounds)])


def report(found: dict[str, list[tuple[float, float]]]) -> bool:
    """Print what was found; whether everything is within its budget."""
    well = True
    print(f"{'':66} {'µs of CPU':>10} {'plain':>8} {'dearer by':>10} {'quartiles':>16} {'at most':>8}")
    for way, pairs in found.items():
        budget = WAYS[way]
        ratios = [cost / plain - 1.0 for cost, plain in pairs]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        met = not budget or middle <= budget
        well = well and met
        cost, plain = (statistics.median(each) * 1e6 for each in zip(*pairs, strict=True))
        line = f"{_WHAT[way]:66} {cost:10.1f} {plain:8.1f} {middle:+10.1%} {f'{low:+.1%} … {high:+.1%}':>16}"
        if budget:
            line += f" {budget:8.0%} {'met' if met else 'NOT MET'}"
        print(line)
    return well


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.observing", description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second (default 200)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one turn (default 5)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each way (default 9)")
    parser.add_argument(
        "--work", nargs=4, metavar=("WAY", "ADDRESS", "NAMESPACE", "RATE"), help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    if args.work:
        way, address, namespace, rate = args.work
        uvloop.run(work(way, address, namespace, float(rate)))
        return 0
    try:
        found = uvloop.run(measure(args.rate, args.seconds, args.rounds))
    except (OSError, RuntimeError, ValueError) as error:
        print(f"observing: {error}", file=sys.stderr)
        return 2
    return 0 if report(found) else 1


if __name__ == "__main__":
    sys.exit(main())

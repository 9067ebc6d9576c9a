"""``python -m tests.bench.policies``: how fast a change of policies reaches everybody, and what ten thousand of
them cost.

**change**: an operator stores one document; the time runs from before it is published until the last of the
members has acknowledged it. Members are clients with a connection each, in a few processes. **many**: ten
thousand policies, stored while a member follows: how long until they are in effect there, what its memory grows
by, how long its loop is held up, and what one more change costs then. **idle**: what following costs while
nothing changes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from nats_mesh import Mesh
from nats_mesh.discovery.acks import Acks
from nats_mesh.policy.bus.store import Change, PolicyStore
from nats_mesh.runner import loop_factory
from nats_mesh.settings import Settings
from nats_mesh.testing import NatsServer
from tests.bench.scale import Figure, Worker, document_of, table_of
from tests.bench.scale_probe import cpu_s, rss_mib

__all__ = ["main"]

_NAMESPACE = "bench"
_SETTLE_S = 2.0


class Came(msgspec.Struct):
    """What a member has to say: how many policies are in effect, and for how long its loop was held up at most."""

    policies: int
    stall_s: float


def _destination(number: int, timeout: str = "2s") -> Change:
    name = f"d{number}"
    spec = {
        "target": {"service": name},
        "timeout": timeout,
        "retry": {"attempts": 3, "perTryTimeout": "500ms"},
    }
    body = {"apiVersion": "mesh/v1", "kind": "Destination", "metadata": {"name": name}, "spec": spec}
    return Change(f"Destination.{name}", json.dumps(body).encode())


@asynccontextmanager
async def _operator(url: str) -> AsyncIterator[tuple[PolicyStore, Acks]]:
    settings = Settings(servers=(url,), namespace=_NAMESPACE)
    async with Mesh("ops", settings=settings, policies=False) as mesh:
        client = mesh.client
        store = PolicyStore(_NAMESPACE, transport=client.transport, mux=client.mux)
        await store.open()
        acks = Acks(subjects=client.subjects, transport=client.transport, mux=client.mux)
        await acks.open()
        yield store, acks
        acks.close()


@asynccontextmanager
async def _members(url: str, count: int, how: str = "unwatched") -> AsyncIterator[Worker]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.policies", "--be-members", url, str(count), how,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Worker(process)
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 60.0)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def measure_change(options: argparse.Namespace) -> list[Figure]:
    """One document at a time, to everybody."""
    each = options.members // options.processes
    took: list[float] = []
    with NatsServer() as server:
        async with _operator(server.url) as (store, acks), AsyncExitStack() as stack:
            for _ in range(options.processes):
                worker = await stack.enter_async_context(_members(server.url, each))
                await worker.read(Came)
            members = await acks.roll_call()
            expected = 0
            for number in range(options.changes + 10):
                change = msgspec.structs.replace(_destination(0, f"{number + 1}s"), expected=expected)
                start = time.perf_counter()
                applied = await store.apply([change])
                report = await acks.wait(applied.epoch, applied.sequences, timeout_s=10.0)
                if number >= 10:
                    took.append(time.perf_counter() - start)
                if not report.done or report.rejected:
                    raise SystemExit(f"{len(report.silent)} silent, {len(report.rejected)} rejected")
                expected = applied.sequence
                await asyncio.sleep(1.1)  # acknowledgements are at most one a second in the long run
    part = f"one change to {len(members)} members in {options.processes} processes, {len(took)} times"
    figures = [Figure(part=part, name="p50", value=1000 * _quantile(took, 0.5), unit="ms")]
    figures.append(Figure(part=part, name="p99", value=1000 * _quantile(took, 0.99), unit="ms", budget=200.0))
    figures.append(Figure(part=part, name="slowest", value=1000 * max(took), unit="ms"))
    return figures


async def measure_many(options: argparse.Namespace) -> list[Figure]:
    """Ten thousand policies, and one more."""
    count = options.policies
    changes = [_destination(number) for number in range(count)]
    with NatsServer() as server:
        async with _operator(server.url) as (store, acks), _members(server.url, 1, "watched") as worker:
            await worker.read(Came)
            await asyncio.sleep(_SETTLE_S)
            before = rss_mib(worker.pid)
            start, used = time.perf_counter(), cpu_s(worker.pid)
            for at in range(0, count, 1000):
                applied = await store.apply(changes[at : at + 1000])
            stored_s = time.perf_counter() - start
            await acks.wait(applied.epoch, applied.sequences, timeout_s=60.0)
            took_s, cpu = time.perf_counter() - start, cpu_s(worker.pid) - used
            await asyncio.sleep(_SETTLE_S)
            came = await worker.ask("report", Came)
            grown = rss_mib(worker.pid) - before
            change = msgspec.structs.replace(
                _destination(0, "9s"), expected=(await store.snapshot()).expected["Destination.d0"]
            )
            start, used = time.perf_counter(), cpu_s(worker.pid)
            applied = await store.apply([change])
            await acks.wait(applied.epoch, applied.sequences, timeout_s=60.0)
            one_s, one_cpu = time.perf_counter() - start, cpu_s(worker.pid) - used
            one = await worker.ask("report", Came)
    part = f"{came.policies} policies at one member"
    return [
        Figure(part=part, name="stored by the operator", value=stored_s, unit="s"),
        Figure(part=part, name="in effect and acknowledged", value=took_s, unit="s", budget=10.0),
        Figure(part=part, name="CPU of the member", value=cpu, unit="s"),
        Figure(part=part, name="memory more", value=grown, unit="MiB", budget=30.0),
        Figure(part=part, name="longest hold of its loop", value=1000 * came.stall_s, unit="ms"),
        Figure(part=part, name="one more change, acknowledged", value=one_s, unit="s"),
        Figure(part=part, name="CPU of the member for it", value=one_cpu, unit="s"),
        Figure(part=part, name="longest hold of its loop for it", value=1000 * one.stall_s, unit="ms"),
    ]


async def measure_idle(options: argparse.Namespace) -> list[Figure]:
    """A member that follows a store in which nothing happens."""
    with NatsServer() as server:
        async with _operator(server.url) as (store, _), _members(server.url, 1) as worker:
            await store.apply([_destination(number) for number in range(100)])
            await worker.read(Came)
            await asyncio.sleep(_SETTLE_S)
            load = await worker.load(options.seconds)
    part = "a client that follows 100 policies"
    return [
        Figure(part=part, name=f"CPU over {options.seconds:g} s", value=load, unit="% of a core", budget=0.5)
    ]


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


class _Watch:
    """For how long the loop was held up at most; costs a timer, so it runs only where that is asked."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def run(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            self.longest_s = max(self.longest_s, now - last - 0.005)
            last = now


async def _be_members(url: str, count: int, *, watched: bool) -> None:
    """Follow, and answer each line of input with how far one is."""
    settings = Settings(servers=(url,), namespace=_NAMESPACE)
    async with AsyncExitStack() as stack:
        meshes = [
            await stack.enter_async_context(Mesh(f"m{number}", settings=settings)) for number in range(count)
        ]
        gc.collect()
        watch = _Watch()
        task = asyncio.create_task(watch.run()) if watched else None
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        _say(Came(0, 0.0))
        while await reader.readline():
            follower = meshes[0]._follower
            assert follower is not None
            _say(Came(len(follower.current), watch.longest_s))
            watch.longest_s = 0.0
        if task is not None:
            task.cancel()


def _say(what: object) -> None:
    sys.stdout.write(msgspec.json.encode(what).decode() + "\n")
    sys.stdout.flush()


#: What can be measured, by the name that ``--only`` takes.
PARTS: dict[str, Callable[[argparse.Namespace], Coroutine[None, None, list[Figure]]]] = {
    "change": measure_change,
    "many": measure_many,
    "idle": measure_idle,
}


def main() -> None:
    """Measure, print the table, and end with 1 where a budget is not met."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.policies", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part alone (repeatable)")
    parser.add_argument("--members", type=int, default=100, help="who follow (default 100)")
    parser.add_argument("--processes", type=int, default=4, help="that they are in (default 4)")
    parser.add_argument("--changes", type=int, default=100, help="one after the other (default 100)")
    parser.add_argument("--policies", type=int, default=10_000, help="of the part many (default 10,000)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long CPU is watched (default 20)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there as well")
    options = parser.parse_args()
    if min(options.members, options.processes, options.changes, options.policies) < 1:
        parser.error("--members, --processes, --changes and --policies must be above 0")
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


def _member(arguments: Sequence[str]) -> None:
    """What the processes of the members run: where, how many, and whether their loop is watched."""
    url, count, watched = arguments
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_be_members(url, int(count), watched=watched == "watched"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--be-members"]:
        _member(sys.argv[2:])
    else:
        main()

"""The pieces of what it costs to be seen, for :mod:`tests.bench.observing_count`: run in a loop without sockets."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import ALLOWUTF8, generate_latest

from nats_mesh.errors import Status
from nats_mesh.telemetry.collector import MeshCollector
from nats_mesh.telemetry.series import FOLD_MASK, Side
from nats_mesh.telemetry.stats import Stats
from nats_mesh.telemetry.stats_messages import WHOLE_EVERY
from tests.bench.guard_cases import CASES, Bench, opened
from tests.bench.observing_count import CALLS

__all__ = ["Pieces", "counted", "timed"]

#: Calls in the two runs whose difference counts.
_FEW, _MANY = 64, 192
#: How often the time of each piece is taken.
_TURNS: Final = 40

#: How often in, how often it was done out.
_Run: TypeAlias = Callable[[int], Awaitable[int]]
_Label: TypeAlias = tuple[str, str, str, int]


class Pieces:
    """What is measured, each as often as is said; the calls come first."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._chance = chance = random.Random(7)
        self._durations = [0.002 * chance.lognormvariate(0.0, 0.5) for _ in range(512)]
        stats = Stats()
        sides: tuple[Side, Side] = ("out", "in")
        self._series = [stats.series(side, "guarded", "echo", "guard") for side in sides]
        self._registry = CollectorRegistry()
        self._registry.register(MeshCollector(bench.mesh, bench.serving))

    async def count(self, many: int) -> int:
        """Count 512 calls at both ends, in the statements that stand on their paths (calling/sending.py and
        serving/dispatch.py): only of those that wait an instance counts what is in flight."""
        ok = status = Status.OK  # looking it up costs as much as counting
        made, answered = self._series
        for _ in range(many):
            for took_s in self._durations:
                made.in_flight += 1
                made.in_flight -= 1
                if status is ok:
                    made.ok = count = made.ok + 1
                    made.took.append(took_s)
                    if not count & FOLD_MASK:
                        made.fold()
                if status is ok:
                    answered.ok = count = answered.ok + 1
                    answered.took.append(took_s)
                    if not count & FOLD_MASK:
                        answered.fold()
        return many * len(self._durations)

    async def tell(self, many: int) -> int:
        """Publish the statistics of both ends, eight times."""
        bench, ok = self._bench, Status.OK
        for _ in range(many):
            for number in range(WHOLE_EVERY):
                for stats in (bench.mesh.stats, bench.serving.stats):
                    for each in stats:
                        each.record(self._chance.choice(self._durations), ok)
                for publisher in (bench.mesh._publisher, bench.serving._parts.publisher):
                    assert publisher is not None
                    publisher.publish_once(whole=not number)
                await asyncio.sleep(0)
        return many * WHOLE_EVERY

    async def scrape(self, many: int) -> int:
        """Make the text for a scraper."""
        for _ in range(many):
            generate_latest(self._registry, ALLOWUTF8)  # type: ignore[no-untyped-call]
        return many

    @property
    def all(self) -> dict[str, tuple[_Run, tuple[int, int]]]:
        """By name: how to do it, and the sizes of the two runs whose difference counts."""
        return {
            "counting": (self.count, (2, 6)),
            "message": (self.tell, (2, 6)),
            "scrape": (self.scrape, (3, 9)),
        }


async def counted() -> list[_Label]:
    """Each piece between marks, which callgrind counts between."""
    labels: list[_Label] = []

    async def measure(case: str, part: str, run: _Run, sizes: tuple[int, int]) -> None:
        await run(sizes[0])
        for size in sizes:
            gc.collect()
            os.getppid()
            labels.append(("", "", "", 0))
            done = await run(size)
            os.getppid()
            labels.append((case, "", part, done))

    async with opened() as bench:
        gc.disable()
        for case in CASES:
            if case.name in CALLS:
                await bench.prepare(case)
                rounds = (_FEW // case.in_flight, _MANY // case.in_flight)
                await measure(case.name, "all", partial(bench.run, case, "round trip"), rounds)
                await measure(case.name, "server", partial(bench.run_server, case, "round trip"), rounds)
        for name, (run, sizes) in Pieces(bench).all.items():
            await measure(name, "all", run, sizes)
        gc.enable()
    return labels


async def timed() -> dict[str, float]:
    """Seconds of CPU of each piece: medians."""
    found: dict[str, float] = {}
    async with opened() as bench:
        (case,) = [case for case in CASES if case.name == CALLS[-1]]
        await bench.prepare(case)
        await bench.run(case, "round trip", 4)
        for name, (run, (few, _)) in Pieces(bench).all.items():
            each = []
            for _ in range(_TURNS):
                start = time.process_time()
                done = await run(few)
                each.append((time.process_time() - start) / done)
            found[name] = statistics.median(each)
    return found

"""Load: so many calls at a time, or so many a second, and what they came to. Bounded memory however long it runs.

Closed loop: each of ``concurrency`` workers calls again when its call is over. That measures what the
service can do, and hides how callers fare who do not wait for each other (coordinated omission).
Open loop (``rate``): every call has an instant at which it should start, and its latency counts from
there, also where all workers were busy and it started late (Gil Tene, "How NOT to Measure Latency").
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from nats_mesh.core.histogram import BOUNDS, Histogram

__all__ = ["Plan", "Tally", "bars", "run_load"]

_MAX_INSTANCES = 1000
#: The event loop's timers fire up to this late; for a worker that waited for its instant that is our own
#: imprecision and no latency (seconds).
_TIMER_S = 0.002
#: Four buckets make an octave; the third is the first whose bound is 0.25 ms times a power of two.
_PER_ROW, _FIRST_ROW = 4, 2
OK = "OK"

#: One call: its status, what went wrong in words, and who answered.
Call = Callable[[], Awaitable[tuple[str, str, str]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to load: at least one of ``count`` and ``duration_s`` ends it; ``rate`` (per second) makes it open loop."""

    concurrency: int
    rate: float | None = None
    count: int | None = None
    duration_s: float | None = None


@dataclass(slots=True)
class Tally:
    """What came of it so far. ``latency`` holds the calls that succeeded; ``missed`` would have had to start
    before the end and did not."""

    latency: Histogram = field(default_factory=Histogram)
    by_status: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)
    instances: Counter[str] = field(default_factory=Counter)
    shortest_s: float = math.inf
    longest_s: float = 0.0
    elapsed_s: float = 0.0
    missed: int = 0

    @property
    def calls(self) -> int:
        """How many calls ended."""
        return self.by_status.total()

    def add(self, duration_s: float, status: str, message: str, instance: str) -> None:
        """Count one call."""
        self.by_status[status] += 1
        if status != OK:
            self.messages.setdefault(status, message)
            return
        self.latency.record(duration_s)
        self.shortest_s = min(self.shortest_s, duration_s)
        self.longest_s = max(self.longest_s, duration_s)
        if instance in self.instances or len(self.instances) < _MAX_INSTANCES:
            self.instances[instance] += 1

    def quantile_s(self, share: float) -> float | None:
        """The latency that ``share`` of the successful calls did not exceed, within 9.1 %; ``None`` without any."""
        found = self.latency.quantile(share)
        return None if found is None else min(max(found, self.shortest_s), self.longest_s)


async def run_load(call: Call, plan: Plan, tally: Tally, now: Callable[[], float]) -> None:
    """Call as planned and count into ``tally``, which is true at every moment; ``now`` is a monotonic clock."""
    run = _Run(call, plan, tally, now)
    try:
        async with anyio.create_task_group() as workers:
            for _ in range(plan.concurrency if plan.count is None else min(plan.concurrency, plan.count)):
                workers.start_soon(run.work)
    finally:
        run.end()


class _Run:
    def __init__(self, call: Call, plan: Plan, tally: Tally, now: Callable[[], float]) -> None:
        self._call = call
        self._plan = plan
        self._tally = tally
        self._now = now
        self._taken = 0
        self._start = now()
        self._until = math.inf if plan.duration_s is None else self._start + plan.duration_s

    async def work(self) -> None:
        while (begun := await self._next()) is not None:
            status, message, instance = await self._call()
            ended = self._now()
            self._tally.add(ended - begun, status, message, instance)
            self._tally.elapsed_s = ended - self._start

    async def _next(self) -> float | None:
        """Wait for the next call's turn; returns the instant from which it counts, or ``None`` at the end."""
        plan = self._plan
        now = self._now()
        if now >= self._until or (plan.count is not None and self._taken >= plan.count):
            return None
        number = self._taken
        if plan.rate is None:
            self._taken += 1
            return now
        intended = self._start + number / plan.rate
        if intended >= self._until:
            return None
        self._taken += 1
        if intended <= now:
            return intended
        await anyio.sleep(intended - now)
        woken = self._now()
        return woken if woken - intended <= _TIMER_S else intended

    def end(self) -> None:
        """What should have started by now and did not, because every worker was busy."""
        plan = self._plan
        if plan.rate is not None:
            passed_s = min(self._now(), self._until) - self._start
            due = math.ceil(passed_s * plan.rate)
            self._tally.missed = max(0, min(due, plan.count or due) - self._taken)


def bars(latency: Histogram) -> list[tuple[float, int]]:
    """The histogram in rows of one octave each: upper bound in seconds (infinite for the last) and count.

    From the first row that holds something to the last. The bounds are 0.25 ms times powers of two.
    """
    rows: list[tuple[float, int]] = []
    begin = 0
    for end in [*range(_FIRST_ROW, len(BOUNDS), _PER_ROW), len(latency.counts) - 1]:
        bound = BOUNDS[end] if end < len(BOUNDS) else math.inf
        rows.append((bound, sum(latency.counts[begin : end + 1])))
        begin = end + 1
    filled = [at for at, (_, count) in enumerate(rows) if count]
    return rows[filled[0] : filled[-1] + 1] if filled else []

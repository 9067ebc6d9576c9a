"""Open-loop load: calls start at a steady rate whether or not those before have been answered, and each is booked."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from nats_mesh import CallError
from tests.harness import PATIENCE_S

__all__ = ["Load", "steady"]

#: How often calls are started that are due (seconds): more often would cost more than the calls.
_TICK_S = 0.01
#: More calls under way than this are no load any more but a heap.
_MOST = 20_000


class Load:
    """The caller's ledger: when each call was ``sent`` and ``ended``, by name, and how those ``failed`` that did."""

    def __init__(self, call: Callable[[str], Awaitable[object]], per_s: float, name: str = "call") -> None:
        self.sent: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.failed: dict[str, CallError] = {}
        self.per_s = per_s
        self._call = call
        self._name = name
        self._start = time.monotonic()
        self._stopped = False

    @property
    def succeeded(self) -> list[str]:
        """The names of the calls that came to a value."""
        return [name for name in self.ended if name not in self.failed]

    @property
    def under_way(self) -> int:
        """How many calls have no outcome yet."""
        return len(self.sent) - len(self.ended)

    def rate(self) -> float:
        """Calls a second from the start until now."""
        return len(self.sent) / (time.monotonic() - self._start)

    def between(self, start: float, end: float) -> list[str]:
        """The names of the calls that were sent from ``start`` until ``end`` (monotonic seconds)."""
        return [name for name, at in self.sent.items() if start <= at < end]

    def stop(self) -> None:
        """Start no more calls."""
        self._stopped = True

    async def run(self) -> None:
        """Make calls until :meth:`stop`; returns when all of them have ended."""
        self._start = time.monotonic()
        async with anyio.create_task_group() as tasks:
            while not self._stopped:
                due = int((time.monotonic() - self._start) * self.per_s) + 1
                while len(self.sent) < due:
                    assert self.under_way < _MOST, f"{self.under_way} calls under way: nobody keeps up"
                    name = f"{self._name}-{len(self.sent)}"
                    self.sent[name] = time.monotonic()
                    tasks.start_soon(self._one, name)
                await anyio.sleep(_TICK_S)

    async def _one(self, name: str) -> None:
        failed: CallError | None = None
        try:
            await self._call(name)
        except CallError as error:
            failed = error
        assert name not in self.ended, f"{name} has two outcomes"
        self.ended[name] = time.monotonic()
        if failed is not None:
            self.failed[name] = failed


@asynccontextmanager
async def steady(
    call: Callable[[str], Awaitable[object]], per_s: float, name: str = "call"
) -> AsyncIterator[Load]:
    """Load as long as the block lasts, and until every call has ended; each then has exactly one outcome."""
    load = Load(call, per_s, name)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(load.run)
        yield load
        load.stop()
        with anyio.fail_after(10 * PATIENCE_S):
            while load.under_way:
                await anyio.sleep(_TICK_S)
    assert load.ended.keys() == load.sent.keys()

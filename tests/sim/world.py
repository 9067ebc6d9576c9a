"""A service and its callers on a bus in memory, in virtual time, under a load that waits for nobody.

Nothing of the mesh is modelled: callers, policies, instances and presence are the real ones. What is simulated is what
stands around them: the moments at which calls are made, how long work takes, and what goes wrong. All of it is drawn
from the seed, so that two runs are the same, message for message.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self, TypeAlias

import msgspec

from nats_mesh import CallError, Context, Mesh, Service
from nats_mesh.policy import PolicySet, parse
from nats_mesh.testing import MemoryMesh
from tests.sim.trace import Trace

__all__ = ["SERVICE", "Attempt", "Call", "Machine", "Run", "Verdict", "Work", "World", "destination"]

#: What every simulation calls.
SERVICE, ENDPOINT = "pool", "work"
#: From the first call of a caller until it surely knows the instances, where it needs to (seconds).
_SETTLE_S = 3.0

Work: TypeAlias = Callable[[Context], Awaitable[None]]
"""What an instance does for one attempt: it takes its time, or raises."""


class Call(msgspec.Struct, frozen=True):
    """One call as its ``caller`` saw it: seconds since the load began, and its status (``OK`` and others)."""

    began: float
    ended: float
    status: str
    caller: str

    @property
    def ok(self) -> bool:
        """Whether it was answered, and well."""
        return self.status == "OK"

    @property
    def took(self) -> float:
        """From the call to its end, however it ended, seconds."""
        return self.ended - self.began


class Attempt(msgspec.Struct, frozen=True):
    """One attempt that was written to the bus: when, whose, and to which instance (empty: to the queue group)."""

    at: float
    caller: str
    instance: str


class Verdict(msgspec.Struct, frozen=True):
    """A caller told the others what it thinks of an instance; the first time that is nothing good."""

    at: float
    caller: str
    instance: str


class Run(msgspec.Struct, frozen=True):
    """One attempt that reached a handler: when, and at which instance."""

    at: float
    instance: str


class World:
    """One mesh. ``calls``, ``attempts``, ``runs`` and ``verdicts`` are all there were since the load began.

    ``trace`` takes in every message and every outcome.
    """

    def __init__(self, seed: int, policies: str = "", *, trace: Trace | None = None) -> None:
        self.calls: list[Call] = []
        self.attempts: list[Attempt] = []
        self.runs: list[Run] = []
        self.verdicts: list[Verdict] = []
        #: What work and outages are drawn from; the moments of calls have another, so that they are the same whatever
        #: the policies do.
        self.chance = random.Random(f"work {seed}")
        self._served = 0
        self._trace = trace
        self._arrivals = random.Random(f"arrivals {seed}")
        self._policies = compiled(policies)
        self._mesh = MemoryMesh(seed=seed)
        self._stack = AsyncExitStack()
        self._callers: list[Mesh] = []
        self._began = math.inf
        self._rpc = f"mesh.default.rpc.{SERVICE}."
        self._direct = f"mesh.default.direct.{SERVICE}."
        self._verdict = f"mesh.default.verdict.{SERVICE}."

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._mesh)
        self._mesh.bus.fault = self._passing
        if self._trace is not None:
            self._mesh.bus.recorded = []
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def now(self) -> float:
        """Seconds since the load began; before that, minus infinity."""
        return asyncio.get_running_loop().time() - self._began

    async def serve(self, work: Work, count: int, *, concurrency: int = 256) -> None:
        """Start ``count`` instances, called ``i1``, ``i2`` and so on."""
        for _ in range(count):
            self._served += 1
            await self._mesh.serve(self._service(f"i{self._served}", work, concurrency))

    def _service(self, name: str, work: Work, concurrency: int) -> Service:
        service = Service(SERVICE, version="1.0.0", instance=name, policies=self._policies)

        @service.endpoint(name=ENDPOINT, concurrency=concurrency)
        async def run(ctx: Context) -> None:
            if self.now >= 0.0:
                self.runs.append(Run(self.now, name))
            await work(ctx)

        return service

    async def load(
        self, calls_per_s: float, for_s: float, *, callers: int = 1, by_chance: bool = False
    ) -> None:
        """Call at random moments (a Poisson process), ``calls_per_s`` in the mean, whatever becomes of the calls.

        ``callers`` take turns, or call ``by_chance``; they are called ``web1``, ``web2`` and so on. Before that each
        makes one call, so that it knows the service. Returns when the last call is over.
        """
        for number in range(callers):
            name = f"web{number + 1}"
            caller = self._mesh.client(name, policies=self._policies)
            self._callers.append(await self._stack.enter_async_context(caller))
            await self._one(caller)
        await asyncio.sleep(_SETTLE_S)
        self.calls.clear()
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        async with asyncio.TaskGroup() as group:
            at = self._arrivals.expovariate(calls_per_s)
            number = 0
            while at < for_s:
                await asyncio.sleep(self._began + at - loop.time())
                whose = self._arrivals.randrange(callers) if by_chance else number % callers
                group.create_task(self._one(self._callers[whose]))
                number += 1
                at += self._arrivals.expovariate(calls_per_s)

    async def _one(self, caller: Mesh) -> None:
        began = self.now
        try:
            await caller.call(f"{SERVICE}.{ENDPOINT}")
        except CallError as error:
            status = error.status.name
        else:
            status = "OK"
        self.calls.append(Call(began, self.now, status, caller.name))
        if self._trace is not None:
            self._trace.note(asyncio.get_running_loop().time(), f"{caller.name} {status}")

    def _passing(self, subject: str, publisher: str) -> None:
        """Every message of the bus comes by here, before it is delivered."""
        if self._trace is not None:
            self._trace.messages(asyncio.get_running_loop().time(), publisher, self._mesh.bus.recorded or [])
        if self.now < 0.0:
            return
        if subject.startswith(self._rpc):
            self.attempts.append(Attempt(self.now, publisher, ""))
        elif subject.startswith(self._direct):
            instance = subject[len(self._direct) :].partition(".")[0]
            self.attempts.append(Attempt(self.now, publisher, instance))
        elif subject.startswith(self._verdict):
            instance = subject[len(self._verdict) :].partition(".")[0]
            self.verdicts.append(Verdict(self.now, publisher, instance))


class Machine:
    """What one instance runs on: so many pieces of work at a time, the others wait in line."""

    def __init__(self, slots: int) -> None:
        self._slots = asyncio.Semaphore(slots)

    async def work(self, seconds: float) -> None:
        """Have a slot for so long. Whoever is cancelled meanwhile leaves the line, or the slot."""
        async with self._slots:
            await asyncio.sleep(seconds)


def destination(spec: str) -> str:
    """A policy for the service that is called; ``spec`` is what stands below its target, one field a line."""
    lines = "\n".join(f"  {line}" for line in spec.strip().splitlines())
    return (
        f"apiVersion: mesh/v1\nkind: Destination\nmetadata: {{name: {SERVICE}}}\n"
        f"spec:\n  target: {{service: {SERVICE}}}\n{lines}\n"
    )


def compiled(policies: str) -> PolicySet:
    """What a folder with these documents in a file would come to."""
    return PolicySet.of(parse(policies)) if policies else PolicySet.empty()

"""A service for fault tests: ``python worker.py LEDGER SERVICE [SLOTS]`` serves until SIGTERM.

Every executed call of ``do`` becomes a line of the ledger before it is answered; of ``toil`` one when it begins and
one when it ends; of ``flaky`` one for every attempt, with its time by the monotonic clock, which all processes share.
While a file ``LEDGER.sick`` is there, ``flaky`` refuses. ``sleepy`` has so many SLOTS, and no line before them.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import Any

import anyio

from nats_mesh import ApplicationError, Service, Status
from nats_mesh.runner import loop_factory, serve
from nats_mesh.serving.instance import Instance

#: How many calls of ``flaky`` run at a time, and how long each takes (seconds): its capacity, whatever the machine.
FLAKY_SLOTS, FLAKY_S = 25, 0.1
#: How long a call of ``sleepy`` takes (seconds), ± 50 %.
SLEEPY_S = 0.2


def main(ledger: Path, name: str, slots: int) -> None:
    """Serve, and print the instance's id once ready."""
    chance = random.Random(slots)
    service = Service(name, version="1.0.0")
    running: list[Instance] = []
    sick = ledger.with_suffix(".sick")
    ledger.touch()

    def note(what: str) -> None:
        with ledger.open("a", encoding="utf-8") as book:
            book.write(f"{what}\n")

    @service.endpoint(concurrency=4096)
    async def do(call: str) -> str:
        note(call)
        return call

    @service.endpoint()
    async def hold(seconds: float) -> str:
        await anyio.sleep(seconds)
        return running[0].id

    @service.endpoint(concurrency=4096)
    async def toil(job: tuple[str, float]) -> str:
        call, seconds = job
        note(f"began:{call}")
        await anyio.sleep(seconds)
        note(f"ended:{call}")
        return running[0].id

    @service.endpoint(concurrency=FLAKY_SLOTS)
    async def flaky(call: str) -> str:
        note(f"{call}@{time.monotonic():.6f}")
        if sick.exists():
            raise ApplicationError("sick", status=Status.UNAVAILABLE)
        await anyio.sleep(FLAKY_S)
        return call

    @service.endpoint(concurrency=slots)
    async def sleepy(call: str) -> None:
        note(call)
        await anyio.sleep(SLEEPY_S * chance.uniform(0.5, 1.5))

    @service.endpoint()
    async def stall(seconds: float) -> None:
        note("stalled")
        time.sleep(seconds)  # noqa: ASYNC251 - a handler that blocks the loop is what is being tested

    @service.endpoint()
    async def status() -> dict[str, Any]:
        instance = running[0]
        return {"id": instance.id, "reconnects": instance.transport.stats.reconnects}

    def ready(instances: list[Instance]) -> None:
        running.extend(instances)
        sys.stdout.write(f"{instances[0].id}\n")
        sys.stdout.flush()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(service, on_ready=ready))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1)

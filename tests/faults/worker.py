"""A service for fault tests: ``python worker.py LEDGER SERVICE`` serves until SIGTERM.

Every executed call of ``do`` becomes a line of the ledger before it is answered.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import anyio

from nats_mesh import Service
from nats_mesh.instance import Instance
from nats_mesh.runner import loop_factory, serve


def main(ledger: Path, name: str) -> None:
    """Serve, and print the instance's id once ready."""
    service = Service(name, version="1.0.0")
    running: list[Instance] = []
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
    main(Path(sys.argv[1]), sys.argv[2])

"""A service for tests of duplicates: ``python keyed_worker.py LEDGER`` serves until it is killed.

Every run of a handler becomes a line of the ledger, which all workers share, when it begins.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import anyio

from nats_mesh import Context, Service
from nats_mesh.runner import loop_factory, serve
from nats_mesh.serving.instance import Instance
from tests.processes import Served

__all__ = ["KeyedWorker"]


class KeyedWorker(Served):
    """One instance of the service ``bank`` in a process of its own."""

    def __init__(self, url: str, namespace: str, ledger: Path) -> None:
        super().__init__([__file__, str(ledger)], url, namespace)

    @property
    def where(self) -> tuple[str, str]:
        """Its service and its id."""
        return "bank", self.id


def main(ledger: Path) -> None:
    """Serve, and print the instance's id once ready."""
    bank = Service("bank", version="1.0.0")

    def note(what: str) -> None:
        with ledger.open("a", encoding="utf-8") as book:
            book.write(f"{what}\n")

    @bank.endpoint(timeout=60.0)
    async def charge(seconds: float, ctx: Context) -> str:
        note(f"charge {ctx.idempotency_key}")
        await anyio.sleep(seconds)
        return ctx.instance

    @bank.endpoint(timeout=60.0, idempotent=True)
    async def refresh(seconds: float, ctx: Context) -> str:
        note(f"refresh {ctx.idempotency_key}")
        await anyio.sleep(seconds)
        return ctx.instance

    def ready(instances: list[Instance]) -> None:
        sys.stdout.write(f"{instances[0].id}\n")
        sys.stdout.flush()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(bank, on_ready=ready))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

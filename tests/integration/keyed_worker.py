"""A service for tests of duplicates: ``python keyed_worker.py LEDGER`` serves until it is killed.

Every run of a handler becomes a line of the ledger, which all workers share, when it begins.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio

from nats_mesh import Context, Service
from nats_mesh.runner import loop_factory, serve
from nats_mesh.serving.instance import Instance
from tests.tools import ROOT

__all__ = ["KeyedWorker"]


class KeyedWorker:
    """One instance of the service ``bank`` in a process of its own."""

    def __init__(self, url: str, namespace: str, ledger: Path) -> None:
        environ = {**os.environ, "NATS_URL": url, "MESH_NAMESPACE": namespace, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(ledger)], env=environ, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.id = self._process.stdout.readline().strip()
        assert self.id, f"the worker ended with {self._process.wait()}"

    @property
    def where(self) -> tuple[str, str]:
        """Its service and its id."""
        return "bank", self.id

    def freeze(self) -> None:
        """SIGSTOP; returns when it has taken effect."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it whatever state it is in."""
        self.thaw()
        self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()


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

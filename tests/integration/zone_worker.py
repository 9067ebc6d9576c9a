"""A service in one zone, for tests of failover: ``python zone_worker.py SERVICE ZONE`` serves until it is killed.

It beats often, so that it is missed soon.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

from nats_mesh import Context, Service
from nats_mesh.discovery import messages
from nats_mesh.runner import loop_factory, serve
from nats_mesh.serving.instance import Instance
from tests.tools import ROOT

__all__ = ["ZoneWorker"]

_INTERVAL_S = 0.5


class ZoneWorker:
    """One instance in a process of its own. Beginning does not wait; ``id`` does, until it serves."""

    def __init__(self, url: str, namespace: str, service: str, zone: str) -> None:
        environ = {**os.environ, "NATS_URL": url, "MESH_NAMESPACE": namespace, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, __file__, service, zone], env=environ, stdout=subprocess.PIPE, text=True
        )
        self._id = ""

    @property
    def id(self) -> str:
        """The instance's id."""
        assert self._process.stdout is not None
        self._id = self._id or self._process.stdout.readline().strip()
        assert self._id, f"the worker ended with {self._process.wait()}"
        return self._id

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it, running or not."""
        self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()


def main(name: str, zone: str) -> None:
    """Serve, and print the instance's id once ready."""
    messages.BASE_INTERVAL_S = _INTERVAL_S  # type: ignore[misc]  # a constant, made shorter for this process
    service = Service(name, version="1.0.0", labels={"zone": zone})

    @service.endpoint(idempotent=True)
    async def who(ctx: Context) -> str:
        return ctx.instance

    def ready(instances: list[Instance]) -> None:
        sys.stdout.write(f"{instances[0].id}\n")
        sys.stdout.flush()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(service, on_ready=ready))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The whole view of the demo's mesh, ``nats-mesh top``, in the demo's own terminal while everything goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import anyio

from nats_mesh.testing._process import Guard, exited_steps, reap
from nats_mesh.testing._steps import drive
from nats_mesh_cli.demo.fleet import child_environment
from nats_mesh_cli.demo.screen import Screen

__all__ = ["look_closer"]

_POLL_S: Final = 0.05
#: How long it may take to give the terminal back when it is told to end (seconds).
_GRACE_S: Final = 5.0


async def look_closer(screen: Screen, stop: anyio.Event, *, url: str, namespace: str, colorless: bool) -> int:
    """Lend the terminal to ``top`` until that ends or ``stop`` is set; its exit code.

    A process of its own, as it obeys signals of its own. Ctrl-C reaches both: it ends the view and the demo.
    """
    command = [sys.executable, "-P", "-m", "nats_mesh_cli", "-s", url, "-n", namespace]
    command += ["--no-color", "top"] if colorless else ["top"]
    path = os.environ.get("PYTHONPATH", "")
    environ = child_environment(os.environ, url=url, namespace=namespace, python_path=path)
    with screen.lent():
        guard = Guard()
        try:
            child = _started(command, environ, guard)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_end_with, stop, tasks.cancel_scope)
                    await drive(exited_steps(child), _POLL_S)
                    tasks.cancel_scope.cancel()
            finally:
                with anyio.CancelScope(shield=True):
                    await _end(child)
                guard.unwatch()
        finally:
            guard.release()
    return child.returncode


def _started(command: list[str], environ: dict[str, str], guard: Guard) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(command, env=environ)
    guard.watch(child)
    return child


async def _end_with(stop: anyio.Event, waiting: anyio.CancelScope) -> None:
    await stop.wait()
    waiting.cancel()


async def _end(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM, on which it gives the terminal back, then SIGKILL."""
    if child.poll() is None:
        child.terminate()
        with anyio.move_on_after(_GRACE_S):
            await drive(exited_steps(child), _POLL_S)
    reap(child)

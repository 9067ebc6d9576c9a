"""Instances in processes of their own, which can be frozen, killed and drained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from tests.tools import ROOT

__all__ = ["Worker", "WorkerFactory"]

SCRIPT = Path(__file__).with_name("worker.py")


class Worker:
    """One instance of the service ``work`` in a process of its own. ``ledger`` names what its handler executed.

    ``policies`` is the folder that it follows, and ``slots`` how many calls of ``sleepy`` it takes at a time.
    """

    def __init__(
        self,
        url: str,
        namespace: str,
        ledger: Path,
        service: str,
        *,
        slots: int = 1,
        policies: Path | None = None,
    ) -> None:
        self._ledger = ledger
        environ = {**os.environ, "NATS_URL": url, "MESH_NAMESPACE": namespace, "PYTHONPATH": str(ROOT)}
        if policies is not None:
            environ["MESH_POLICIES"] = str(policies)
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(ledger), service, str(slots)],
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.id = self._process.stdout.readline().strip()
        assert self.id, f"the worker ended with {self._process.wait()}"

    @property
    def ledger(self) -> list[str]:
        """The name of every call that was executed, in order."""
        return self._ledger.read_text(encoding="utf-8").split()

    def lines(self, prefix: str) -> set[str]:
        """The names in the ledger that stand after ``prefix``, each of which stands there once."""
        found = [line.removeprefix(prefix) for line in self.ledger if line.startswith(prefix)]
        assert len(set(found)) == len(found), f"twice in one ledger: {found}"
        return set(found)

    def sicken(self) -> None:
        """``flaky`` refuses everything from now on."""
        self._ledger.with_suffix(".sick").touch()

    def heal(self) -> None:
        """``flaky`` works again."""
        self._ledger.with_suffix(".sick").unlink()

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

    def drain(self) -> None:
        """SIGTERM: leave in order."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """The exit status, once it has ended."""
        return self._process.wait(timeout=30)

    def stop(self) -> None:
        """End it whatever state it is in."""
        self.thaw()
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class WorkerFactory(Protocol):
    """Starts an instance of ``service`` that ends with the test."""

    def __call__(
        self,
        url: str,
        namespace: str,
        service: str = "work",
        *,
        slots: int = 1,
        policies: Path | None = None,
    ) -> Worker:
        """A worker that serves."""

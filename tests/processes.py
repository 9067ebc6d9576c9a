"""Programs of tests in processes of their own, which can be frozen and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tests.tools import ROOT

__all__ = ["Served"]


class Served:
    """A Python program that serves in a process of its own. ``id`` is what its first line says: its instance."""

    def __init__(
        self, arguments: Sequence[str], url: str, namespace: str, environ: Mapping[str, str] | None = None
    ) -> None:
        said = {"NATS_URL": url, "MESH_NAMESPACE": namespace, "PYTHONPATH": str(ROOT), **(environ or {})}
        self._process = subprocess.Popen(
            [sys.executable, *arguments], env={**os.environ, **said}, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.id = self._process.stdout.readline().strip()
        assert self.id, f"the worker ended with {self._process.wait()}"

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
        self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()

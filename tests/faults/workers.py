"""Instances in processes of their own, which can be frozen, killed and drained."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tests.processes import Served

__all__ = ["Worker", "WorkerFactory"]

SCRIPT = Path(__file__).with_name("worker.py")


class Worker(Served):
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
        environ = {} if policies is None else {"MESH_POLICIES": str(policies)}
        super().__init__([str(SCRIPT), str(ledger), service, str(slots)], url, namespace, environ)

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

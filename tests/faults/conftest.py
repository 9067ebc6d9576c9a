"""Fixtures of the fault tests.

Bounds of a second and more are asserted here with twice the slack, because the machine is shared; the
measured value goes into the test report (``record_property``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.workers import Worker, WorkerFactory


def pytest_configure(config: pytest.Config) -> None:
    """Tests that take seconds of real time, because what they break needs them."""
    config.addinivalue_line(
        "markers", "faults: breaks processes, sockets or servers, and takes seconds of real time"
    )


@pytest.fixture
def worker_factory(tmp_path: Path) -> Iterator[WorkerFactory]:
    """``worker_factory(url, namespace)``: one more instance in a process of its own."""
    started: list[Worker] = []

    def start(
        url: str, namespace: str, service: str = "work", *, slots: int = 1, policies: Path | None = None
    ) -> Worker:
        ledger = tmp_path / f"ledger-{len(started)}"
        started.append(Worker(url, namespace, ledger, service, slots=slots, policies=policies))
        return started[-1]

    yield start
    for worker in started:
        worker.stop()

"""Instances of uneven size behind one queue group: refusing what is too much, against leaving the group while full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from nats_mesh import CallError, Mesh
from nats_mesh.settings import Settings
from nats_mesh.testing.server import NatsServer
from tests.faults.load import Load, steady
from tests.faults.results import Figure, write_results
from tests.faults.worker import SLEEPY_S
from tests.faults.workers import Worker, WorkerFactory
from tests.harness import policies
from tests.tools import is_full_run, scaled

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

Record = Callable[[str, object], None]

#: How many calls each instance takes at a time; an even share of the load is more than the first two can do.
SLOTS = (1, 2, 8)
CAPACITY_PER_S = sum(SLOTS) / SLEEPY_S
FOR_S = float(scaled(8, 60))
#: Of what all of them can do together.
LOADS = (0.5, 0.75) if is_full_run() else (0.5,)
#: The name of the service that follows it, and whether a full instance leaves.
SERVICES = {"refuse": "false", "leave": "true"}

CALLERS = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: callers}
spec:
  balancer: queue
  retry: {attempts: 4}
  timeout: 4s
  breaker: off
"""
INSTANCES = """
apiVersion: mesh/v1
kind: Limit
metadata: {name: SERVICE}
spec:
  target: {service: SERVICE}
  concurrency: {leaveQueue: LEAVES}
"""


class Trial:
    """One load on the instances of one service. ``attempts`` is how many were sent for all its calls."""

    def __init__(self, mesh: Mesh, service: str, part: float) -> None:
        self.mesh = mesh
        self.name = f"{service} at {part:.0%}"
        self.attempts = 0
        self._target = f"{service}.sleepy"
        self._per_s = part * CAPACITY_PER_S
        self.load: Load

    async def run(self) -> None:
        """For so many seconds, and until all calls have ended."""
        async with steady(self._call, self._per_s, self.name.replace(" ", "-")) as self.load:
            await anyio.sleep(FOR_S)

    async def _call(self, name: str) -> None:
        try:
            reply = await self.mesh.request(self._target, name)
        except CallError as error:
            self.attempts += error.attempts
            raise
        self.attempts += reply.attempts

    def refusals(self, workers: list[Worker]) -> int:
        """Attempts that reached no handler."""
        executed = [line for each in workers for line in each.ledger if line in self.load.sent]
        assert len(set(executed)) == len(executed), "a call ran twice"
        assert set(self.load.succeeded) <= set(executed)
        return self.attempts - len(executed)

    def took_ms(self, part: float) -> int:
        """So many of the calls that came to a value took no longer, in milliseconds, attempts and pauses together."""
        took = sorted(self.load.ended[name] - self.load.sent[name] for name in self.load.succeeded)
        return round(1000 * took[int(part * (len(took) - 1))])


async def test_who_leaves_the_queue_is_asked_less_in_vain(
    nats_server: NatsServer,
    mesh_namespace: str,
    worker_factory: WorkerFactory,
    tmp_path: Path,
    record_property: Record,
) -> None:
    """Fewer refusals where full instances leave their queue group. Reduced count: 8 s at half of their capacity; in
    full runs a minute each at half and at three quarters of it."""
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    limits = [
        INSTANCES.replace("SERVICE", name).replace("LEAVES", leaves) for name, leaves in SERVICES.items()
    ]
    (tmp_path / "instances").mkdir()
    folder = policies(tmp_path / "instances", *limits)
    workers = {
        name: [
            worker_factory(nats_server.url, mesh_namespace, name, slots=slots, policies=folder)
            for slots in SLOTS
        ]
        for name in SERVICES
    }
    figures: dict[str, Figure] = {"slots": [float(each) for each in SLOTS], "work ms ± 50 %": 1000 * SLEEPY_S}
    figures["seconds"] = FOR_S
    refusals: dict[tuple[str, float], int] = {}
    async with Mesh("web", settings=settings, policies=policies(tmp_path, CALLERS)) as mesh:
        for part in LOADS:
            trials = {name: Trial(mesh, name, part) for name in SERVICES}
            async with (
                anyio.create_task_group() as tasks
            ):  # both at once: whatever the machine does, it does to both
                for trial in trials.values():
                    tasks.start_soon(trial.run)
            for name, trial in trials.items():
                refusals[name, part] = trial.refusals(workers[name])
                figures[f"{trial.name}: calls"] = len(trial.load.sent)
                figures[f"{trial.name}: refusals"] = refusals[name, part]
                figures[f"{trial.name}: failed"] = len(trial.load.failed)
                figures[f"{trial.name}: p50 ms"] = trial.took_ms(0.5)
                figures[f"{trial.name}: p99 ms"] = trial.took_ms(0.99)
    for name, figure in figures.items():
        record_property(name, figure)
    assert refusals["refuse", 0.5] > 0, "nobody was full: this shows nothing"
    for part in LOADS:
        assert refusals["leave", part] < refusals["refuse", part], f"at {part:.0%}"
    write_results("uneven", figures)

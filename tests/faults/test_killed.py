"""An instance is killed in the middle of its work: what must not run twice does not, what may is done elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nats_mesh import CallError, Executed, Mesh
from nats_mesh.settings import Settings
from nats_mesh.testing.server import NatsServer
from tests.faults.load import Load, steady
from tests.faults.results import Figure, write_results
from tests.faults.workers import Worker, WorkerFactory
from tests.harness import eventually, policies
from tests.tools import scaled

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

Record = Callable[[str, object], None]

PER_S = 40.0
WORK_S = 0.5
KILLED = scaled(1, 4)
#: Long enough for a second attempt on a busy machine: the first one has half of it.
TIMEOUT_S = 8.0
#: How soon the bus knows of a death (seconds), with twice the slack.
KNOWN_S = 2.0


def destination(balancer: str) -> str:
    """A budget with room for every call that the killed instance holds."""
    return f"""
apiVersion: mesh/v1
kind: Destination
metadata: {{name: work}}
spec:
  target: {{service: work}}
  balancer: {balancer}
  retry: {{attempts: 2, budget: {{ratio: 100%, floor: 100/s}}}}
"""


def may_run_twice(name: str) -> bool:
    """Every other call of the load."""
    return int(name.rpartition("-")[2]) % 2 == 0


def executions(workers: list[Worker]) -> dict[str, list[Worker]]:
    """Where each call began to run, by its name."""
    found: dict[str, list[Worker]] = {}
    for worker in workers:
        for name in worker.lines("began:"):
            found.setdefault(name, []).append(worker)
    return found


@pytest.mark.parametrize("balancer", ["queue", "least_request"])
async def test_work_that_a_killed_instance_held(
    nats_server: NatsServer,
    mesh_namespace: str,
    worker_factory: WorkerFactory,
    tmp_path: Path,
    record_property: Record,
    balancer: str,
) -> None:
    """Non-idempotent work runs at most once, idempotent work succeeds elsewhere, errors ≤ calls in flight.

    Reduced count: one of three instances is killed; with full counts four of six, one after another.
    """
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    workers = [worker_factory(nats_server.url, mesh_namespace) for _ in range(KILLED + 2)]
    killed = workers[:KILLED]
    folder = policies(tmp_path, destination(balancer))
    async with Mesh("web", settings=settings, policies=folder) as mesh:
        await mesh.call("work.do", "before")
        if balancer != "queue":
            await eventually(lambda: len(mesh.client.fleets.fleet("work").instances()) == len(workers))

        async def call(name: str) -> None:
            await mesh.call(
                "work.toil",
                (name, WORK_S),
                timeout=TIMEOUT_S,
                idempotent=True if may_run_twice(name) else None,
            )

        kills: list[float] = []
        async with steady(call, PER_S) as load:
            for worker in killed:
                await eventually(lambda each=worker: len(under_way(each)) >= 4)  # type: ignore[misc]  # a default holds what the loop's variable is now
                worker.kill()
                kills.append(time.monotonic())
                # What it held has ended before the next one dies, so that one retry is enough.
                held = load.sent.keys() - load.ended.keys()
                await eventually(lambda held=held: held <= load.ended.keys())  # type: ignore[misc]  # a default holds what the loop's variable is now
        await eventually(lambda: mesh.client.mux.pending == 0, lambda: mesh.client.mux)
    judge(load, workers, killed, kills)
    figures: dict[str, Figure] = {
        "killed": len(killed),
        "calls": len(load.sent),
        "in flight on the killed": sum(len(under_way(worker)) for worker in killed),
        "failed": len(load.failed),
    }
    for name, figure in figures.items():
        record_property(name, figure)
    write_results(f"killed_{balancer}", figures)


def under_way(worker: Worker) -> set[str]:
    """What it has begun and not ended."""
    return worker.lines("began:") - worker.lines("ended:")


def judge(load: Load, workers: list[Worker], killed: list[Worker], kills: list[float]) -> None:
    """Compare the caller's ledger with those of all instances."""
    ran = executions(workers)
    assert ran.keys() <= load.sent.keys()
    # What was sent to an instance that was dead already, and the bus did not know yet, has begun nowhere.
    unheard = load.sent.keys() - ran.keys()
    for name in unheard:
        assert any(-KNOWN_S <= load.sent[name] - at <= KNOWN_S for at in kills), f"{name} ran nowhere"
    lost = {name for worker in killed for name in under_way(worker)} | unheard
    # What it had ended, and no answer came of.
    lost |= {name for worker in killed for name in worker.lines("ended:") if name in load.failed}
    assert lost, "nothing was in flight on who was killed"
    assert load.failed.keys() <= lost
    for name, where in ran.items():
        if may_run_twice(name):
            assert name not in load.failed, load.failed.get(name)
            assert len(where) == 1 or (len(where) == 2 and where[0] in killed), name
        else:
            assert len(where) == 1, f"{name} ran {len(where)} times"
    for error in load.failed.values():
        assert isinstance(error, CallError)
        assert error.executed is Executed.MAYBE
    done = {name for worker in workers for name in worker.lines("ended:")}
    assert set(load.succeeded) <= done

"""Processes that stop for a while: frozen by a signal, or by a handler that blocks their event loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from nats_mesh import DeadlineExceededError, Executed, Mesh
from nats_mesh.settings import Settings
from nats_mesh.testing.server import NatsServer
from tests.faults.workers import WorkerFactory
from tests.harness import PATIENCE_S, eventually, policies

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

FROZEN_S = 2.5
#: So many calls run out of time here that a circuit would open, and that is not what is asked.
NO_BREAKER = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: work}
spec:
  target: {service: work}
  breaker: off
"""


async def outcomes(mesh: Mesh, calls: dict[str, float]) -> dict[str, Any]:
    """Make all ``calls`` (name → timeout) at once; what each came to, once all are over."""
    results: dict[str, Any] = {}

    async def one(name: str, timeout: float) -> None:
        try:
            results[name] = await mesh.call("work.do", name, timeout=timeout)
        except DeadlineExceededError as error:
            results[name] = error

    async with anyio.create_task_group() as tasks:
        for name, timeout in calls.items():
            tasks.start_soon(one, name, timeout)
    return results


@pytest.mark.parametrize("known", [True, False], ids=["known caller", "caller never heard before"])
async def test_a_frozen_instance_does_not_execute_expired_calls_when_it_wakes(
    nats_server: NatsServer, mesh_namespace: str, worker_factory: WorkerFactory, tmp_path: Path, known: bool
) -> None:
    """Calls whose time ran out while the instance was stopped are refused on SIGCONT; those with time left run once."""
    worker = worker_factory(nats_server.url, mesh_namespace)
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    folder = policies(tmp_path, NO_BREAKER)
    async with Mesh("web", settings=settings, policies=folder) as mesh:
        if known:
            for number in range(5):
                await mesh.call("work.do", f"before-{number}")
        else:
            await mesh.client.directory.find("work", timeout_s=PATIENCE_S)
        worker.freeze()
        short = {f"short-{number}": 0.2 + 0.02 * number for number in range(50)}
        long = {f"long-{number}": 30.0 for number in range(50)}
        results: dict[str, Any] = {}

        async def call() -> None:
            results.update(await outcomes(mesh, short | long))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await anyio.sleep(FROZEN_S)  # being frozen for a while is the fault itself
            worker.thaw()
        assert {name for name in long if results[name] == name} == set(long)
        late = [results[name] for name in short]
        assert all(isinstance(error, DeadlineExceededError) for error in late)
        assert {error.executed for error in late} == {Executed.MAYBE}
        await eventually(lambda: mesh.client.mux.late >= len(short), lambda: mesh.client.mux.late)
        assert mesh.client.mux.late == len(short)
        assert await mesh.call("work.do", "after") == "after"
        await eventually(lambda: mesh.client.mux.pending == 0, lambda: mesh.client.mux)
    executed = [name for name in worker.ledger if not name.startswith("before")]
    assert sorted(executed) == sorted([*long, "after"])


async def test_whoever_first_speaks_to_a_frozen_instance_is_not_held_for_old_afterwards(
    nats_server: NatsServer, mesh_namespace: str, worker_factory: WorkerFactory
) -> None:
    """A caller heard for the first time in the last moment of a stall: its later calls are fresh, even short ones."""
    worker = worker_factory(nats_server.url, mesh_namespace)
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    async with Mesh("web", settings=settings) as mesh:
        worker.freeze()
        await anyio.sleep(FROZEN_S)  # being frozen for a while is the fault itself
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: mesh.call("work.do", "first", timeout=30.0))
            await eventually(lambda: mesh.client.mux.pending)
            await mesh.client.transport.fence()
            worker.thaw()
        for number in range(5):
            assert await mesh.call("work.do", f"later-{number}", timeout=FROZEN_S / 2) == f"later-{number}"
    assert worker.ledger == ["first", *(f"later-{number}" for number in range(5))]


async def test_a_stalled_event_loop_is_not_declared_dead_and_ages_what_waited(
    nats_server: NatsServer, mesh_namespace: str, worker_factory: WorkerFactory
) -> None:
    """A handler that blocks its loop for 500 ms loses no connection; what expired is refused, the rest runs."""
    worker = worker_factory(nats_server.url, mesh_namespace)
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    async with Mesh("web", settings=settings) as mesh, Mesh("other", settings=settings) as other:
        await mesh.call("work.do", "before")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other.call, "work.stall", 0.5)
            await eventually(lambda: "stalled" in worker.ledger)
            short = {f"short-{number}": 0.1 for number in range(20)}
            results = await outcomes(mesh, short | {f"long-{number}": 10.0 for number in range(20)})
        assert all(isinstance(results[name], DeadlineExceededError) for name in short)
        await eventually(lambda: mesh.client.mux.late == len(short), lambda: mesh.client.mux.late)
        assert (await mesh.call("work.status"))["reconnects"] == 0
    assert sorted(worker.ledger) == sorted(["before", "stalled", *(f"long-{number}" for number in range(20))])

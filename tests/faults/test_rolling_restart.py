"""Every instance of a service is replaced under load, and nobody notices."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

from nats_mesh import CallError, Mesh
from nats_mesh.core.presence import Kind, State
from nats_mesh.discovery.messages import decode
from nats_mesh.settings import Settings
from nats_mesh.testing.server import NatsServer
from tests.faults.workers import WorkerFactory
from tests.harness import eventually
from tests.rawnats import raw_nats
from tests.tools import scaled

pytestmark = [pytest.mark.anyio, pytest.mark.faults]


async def test_a_rolling_restart_under_load_fails_no_call(
    nats_server: NatsServer, mesh_namespace: str, worker_factory: WorkerFactory
) -> None:
    """Every instance of three is replaced while callers go on: not one call fails, each ran exactly once.

    Reduced count: 3,000 calls; with full counts 300,000.
    """
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    wanted, made = scaled(3_000, 300_000), 0
    answers: list[str] = []
    failures: list[CallError] = []
    restarted = anyio.Event()
    workers = [worker_factory(nats_server.url, mesh_namespace) for _ in range(3)]
    async with Mesh("web", settings=settings) as mesh, raw_nats(nats_server.url) as raw:
        await raw.subscribe(f"mesh.{mesh_namespace}.presence.work.*")

        async def caller() -> None:
            nonlocal made
            while made < wanted or not restarted.is_set():
                made += 1
                try:
                    answers.append(await mesh.call("work.do", f"call-{made}", timeout=30.0))
                except CallError as error:
                    failures.append(error)

        async with anyio.create_task_group() as tasks:
            for _ in range(16):
                tasks.start_soon(caller)
            for number, worker in enumerate(list(workers)):
                workers.append(
                    await anyio.to_thread.run_sync(worker_factory, nats_server.url, mesh_namespace)
                )
                worker.drain()
                assert await anyio.to_thread.run_sync(worker.wait) == 0
                last = [decode(m.payload) for m in raw.messages if m.subject.endswith(worker.id)][-1]
                assert (last.type, last.state) == (Kind.LEAVE, State.DRAINING)
                await eventually(lambda: made >= (number + 1) * wanted // 3)  # noqa: B023
            restarted.set()
        assert mesh.client.mux.pending == 0
    assert failures == []
    assert made == len(answers) >= wanted
    executed = [call for worker in workers for call in worker.ledger]
    assert sorted(executed) == sorted(answers)
    assert all(worker.ledger for worker in workers)

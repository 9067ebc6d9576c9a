"""Every instance of a service is replaced under load, and nobody notices."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from nats_mesh import Mesh
from nats_mesh.core.presence import Kind, State
from nats_mesh.discovery.messages import decode
from nats_mesh.settings import Settings
from nats_mesh.testing.server import NatsServer
from tests.faults.load import Load, steady
from tests.faults.results import Figure, write_results
from tests.faults.workers import Worker, WorkerFactory
from tests.harness import eventually, policies
from tests.rawnats import RawNats, raw_nats
from tests.tools import is_full_run, scaled

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

Record = Callable[[str, object], None]

INSTANCES = 4
PER_S = float(scaled(500, 1_000))
#: Of all calls, those to the service under one policy.
CALLS = scaled(20_000, 300_000) // 2

LEAST_REQUEST = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: work}
spec:
  target: {service: work}
  balancer: least_request
"""


@pytest.mark.parametrize("policy", ["", LEAST_REQUEST], ids=["default", "least_request"])
async def test_a_rolling_restart_under_load_fails_no_call(
    nats_server: NatsServer,
    mesh_namespace: str,
    worker_factory: WorkerFactory,
    tmp_path: Path,
    record_property: Record,
    policy: str,
) -> None:
    """Each of four instances is replaced while calls come in steadily: not one fails, each runs exactly once.

    Reduced count: 20,000 calls, half of them to chosen instances; with full counts 300,000.
    """
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    folder = policies(tmp_path, policy) if policy else None
    workers = [worker_factory(nats_server.url, mesh_namespace) for _ in range(INSTANCES)]
    async with Mesh("web", settings=settings, policies=folder) as mesh, raw_nats(nats_server.url) as raw:
        await raw.subscribe(f"mesh.{mesh_namespace}.presence.work.*")

        async def call(name: str) -> None:
            await mesh.call("work.do", name, timeout=30.0)

        async with steady(call, PER_S) as load:
            await sent(load, CALLS // (INSTANCES + 1))
            rate = load.rate()
            restarts = [
                await replace(
                    worker,
                    lambda: worker_factory(nats_server.url, mesh_namespace),
                    workers,
                    raw,
                    load,
                    number,
                )
                for number, worker in enumerate(list(workers), 1)
            ]
        await eventually(lambda: mesh.client.mux.pending == 0, lambda: mesh.client.mux)
        tries_again = mesh.client._targets["work.do"].retries
        assert tries_again is not None
    took = sorted(load.ended[name] - load.sent[name] for name in load.sent)
    figures: dict[str, Figure] = {
        "calls": len(load.sent),
        "failed": len(load.failed),
        "calls a second wanted": PER_S,
        "calls a second before the first restart": round(rate),
        "restarts": len(restarts),
        "restart s": [round(each, 2) for each in restarts],
        "retries": tries_again.made,
        "p50 ms": round(1e3 * took[len(took) // 2], 2),
        "p99.9 ms": round(1e3 * took[len(took) * 999 // 1000], 2),
        "slowest ms": round(1e3 * took[-1], 2),
    }
    for name, figure in figures.items():
        record_property(name, figure)
    assert load.failed == {}
    assert len(load.sent) >= CALLS
    executed = [name for worker in workers for name in worker.ledger]
    assert sorted(executed) == sorted(load.sent)
    assert all(worker.ledger for worker in workers)
    if is_full_run():
        assert rate >= 0.9 * PER_S, f"void: {rate:.0f} calls a second instead of {PER_S:.0f}"
    write_results(f"rolling_restart_{'least_request' if policy else 'default'}", figures)


async def replace(
    worker: Worker,
    start: Callable[[], Worker],
    workers: list[Worker],
    raw: RawNats,
    load: Load,
    number: int,
) -> float:
    """Start a new instance, let an old one leave in order, and go on until its part of the calls is made; seconds."""
    begun = time.monotonic()
    workers.append(await anyio.to_thread.run_sync(start))
    worker.drain()
    assert await anyio.to_thread.run_sync(worker.wait) == 0
    took_s = time.monotonic() - begun
    last = [decode(m.payload) for m in raw.messages if m.subject.endswith(worker.id)][-1]
    assert (last.type, last.state) == (Kind.LEAVE, State.DRAINING)
    await sent(load, CALLS * (number + 1) // (INSTANCES + 1))
    return took_s


async def sent(load: Load, calls: int) -> None:
    """Return once so many calls have been made, however long that takes on a busy machine."""
    while len(load.sent) < calls:
        await anyio.sleep(0.02)

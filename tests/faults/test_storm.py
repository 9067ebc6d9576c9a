"""A whole service fails for a while: its callers do not make it worse, and are well again soon after it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from nats_mesh import CircuitOpenError, Mesh, Status
from nats_mesh.settings import Settings
from nats_mesh.testing.server import NatsServer
from tests.faults.load import Load, steady
from tests.faults.results import Figure, write_results
from tests.faults.worker import FLAKY_S, FLAKY_SLOTS
from tests.faults.workers import Worker, WorkerFactory
from tests.harness import eventually, policies
from tests.tools import is_full_run, scaled

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

Record = Callable[[str, object], None]

#: 80 % of what the instance can do.
PER_S = 0.8 * FLAKY_SLOTS / FLAKY_S
OUTAGE_S = float(scaled(3, 10))
GOOD = 0.95
WELL_AFTER_S, SLACK = 10.0, 2.0
#: What retries may come to: this part of the calls, and so many a second.
RATIO, FLOOR_PER_S = 0.1, 5.0

NO_BREAKER = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: work}
spec:
  target: {service: work}
  breaker: off
"""
DEFAULT = NO_BREAKER.replace("breaker: off", "balancer: queue")


@pytest.mark.parametrize("policy", [DEFAULT, NO_BREAKER], ids=["default", "no breaker"])
async def test_retries_do_not_feed_an_outage(
    nats_server: NatsServer,
    mesh_namespace: str,
    worker_factory: WorkerFactory,
    tmp_path: Path,
    record_property: Record,
    policy: str,
) -> None:
    """Attempts ≤ 1.1 × calls + 5 a second while everything is refused; 95 % of a second succeed within 10 s of healing.

    Reduced count: an outage of 3 s; with full counts 10 s.
    """
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    worker = worker_factory(nats_server.url, mesh_namespace)
    async with Mesh("web", settings=settings, policies=policies(tmp_path, policy)) as mesh:

        async def call(name: str) -> None:
            await mesh.call("work.flaky", name, idempotent=True, timeout=2.0)

        async with steady(call, PER_S) as load:
            await anyio.sleep(2.0)  # calls of before the outage are what the first retries are earned by
            rate = load.rate()
            if is_full_run():
                assert rate >= 0.9 * PER_S, f"void: {rate:.0f} calls a second instead of {PER_S:.0f}"
            worker.sicken()
            sick = time.monotonic()
            await anyio.sleep(OUTAGE_S)
            worker.heal()
            healed = time.monotonic()
            well_s = await well_again(load, healed)
        await eventually(lambda: mesh.client.mux.pending == 0, lambda: mesh.client.mux)
    outage = set(load.between(sick, sick + OUTAGE_S))
    calls, attempts = len(outage), attempts_for(worker, outage, sick + OUTAGE_S)
    figures: dict[str, Figure] = {
        "outage s": OUTAGE_S,
        "calls a second before it": round(rate),
        "calls": calls,
        "attempts": attempts,
        "well again after s": round(well_s, 1),
    }
    for name, figure in figures.items():
        record_property(name, figure)
    assert calls > PER_S  # the load went on
    assert attempts <= (1.0 + RATIO) * calls + FLOOR_PER_S * OUTAGE_S
    if policy == NO_BREAKER:
        assert attempts > calls, "nothing was tried again: this shows nothing of retries"
    else:
        assert any(isinstance(error, CircuitOpenError) for error in load.failed.values())
    assert well_s <= WELL_AFTER_S * SLACK
    during = load.between(sick + 2 * FLAKY_S, healed - 2 * FLAKY_S)
    refused = [name for name in during if name in load.failed and load.ended[name] < healed]
    assert {load.failed[name].status for name in refused} <= {Status.UNAVAILABLE}
    assert set(load.succeeded) <= {line.partition("@")[0] for line in worker.ledger} <= load.sent.keys()
    write_results(f"storm_{'no_breaker' if policy == NO_BREAKER else 'default'}", figures)


def attempts_for(worker: Worker, calls: set[str], until: float) -> int:
    """How many attempts reached the instance for these calls, before ``until``: what is over by then, to the moment."""
    found = [line.partition("@") for line in worker.ledger]
    return sum(name in calls and float(at) < until for name, _, at in found)


async def well_again(load: Load, healed: float) -> float:
    """How long after ``healed`` the first second begins of whose calls 95 % succeed; it has patience for twice that."""
    second = 0
    while True:
        start = healed + second
        await anyio.sleep(max(0.0, start + 1.0 - time.monotonic()))
        sent = load.between(start, start + 1.0)
        with anyio.fail_after(10.0):
            while not all(name in load.ended for name in sent):
                await anyio.sleep(0.02)
        if sent and sum(name not in load.failed for name in sent) >= GOOD * len(sent):
            return float(second)
        second += 1
        assert second <= WELL_AFTER_S * SLACK, f"not well {second} s after it was healed"

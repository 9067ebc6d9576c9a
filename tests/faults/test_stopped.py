"""One of several instances stops for a while, by a signal or by a handler: what balancing makes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from nats_mesh import DeadlineExceededError, Executed, Mesh
from nats_mesh.settings import Settings
from nats_mesh.testing.server import NatsServer
from tests.faults.load import Load, steady
from tests.faults.results import write_results
from tests.faults.workers import Worker, WorkerFactory
from tests.harness import eventually, policies
from tests.rawnats import RawNats, raw_nats
from tests.tools import scaled

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

Record = Callable[[str, object], None]

PER_S = 100.0
PER_TRY_S = 0.5
#: From when on after the stop the instance may have the share of :data:`MOST` at most (seconds).
LOST_AFTER_S = 3.0
MOST = 0.01


def destination(balancer: str) -> str:
    """Half a second a try, for calls to ``work.do``, and a budget that lets each be tried again."""
    return f"""
apiVersion: mesh/v1
kind: Destination
metadata: {{name: work}}
spec:
  target: {{service: work}}
  balancer: {balancer}
  breaker: off
  retry: {{attempts: 3, perTryTimeout: 500ms, budget: {{ratio: 100%, floor: 100/s}}}}
"""


async def ready(mesh: Mesh, workers: list[Worker]) -> None:
    """Return once ``mesh`` knows all instances, and every one of them has executed calls of it."""
    number = 0
    while not all(worker.ledger for worker in workers):
        await mesh.call("work.do", f"before-{number}")
        number += 1
        assert number < 10_000, "an instance gets no calls"
    if mesh.client._targets["work.do"].balance is not None:
        await eventually(lambda: len(mesh.client.fleets.fleet("work").instances()) == len(workers))


async def everything_has_arrived(mesh: Mesh, workers: list[Worker]) -> None:
    """Return once every instance has executed a call to it that was sent after all others."""

    async def known() -> bool:
        found = await mesh.gather("work.do", "after", returns=str, timeout=20.0)
        return found.complete and found.asked == len(workers)

    with anyio.fail_after(60.0):
        while not await known():
            await anyio.sleep(0.05)


def first_attempts(bus: RawNats, instance: str, names: set[str]) -> list[str]:
    """Those of ``names`` whose first attempt was addressed to ``instance``, as the bus has seen it."""
    seen: dict[str, str] = {}
    for message in bus.messages:
        seen.setdefault(message.payload.decode().strip('"'), message.subject)
    return [name for name, subject in seen.items() if name in names and f".{instance}." in subject]


def booked(load: Load, workers: list[Worker]) -> None:
    """The ledgers agree: what succeeded was executed, and nothing was that nobody sent."""
    executed = {name for worker in workers for name in worker.ledger if name.startswith("call-")}
    assert set(load.succeeded) <= executed <= load.sent.keys()


def not_after_its_time(load: Load, worker: Worker, stopped: float, woken: float) -> None:
    """The instance executed no call that was sent while it was stopped and was over before it woke."""
    over = {name for name in load.sent if load.sent[name] >= stopped and load.ended[name] < woken}
    assert len(over) > PER_S, "too little load to show anything"
    assert over.isdisjoint(worker.ledger)


async def test_a_stopped_instance_loses_its_share(
    nats_server: NatsServer,
    mesh_namespace: str,
    worker_factory: WorkerFactory,
    tmp_path: Path,
    record_property: Record,
) -> None:
    """Of three, at most 1 % of first attempts from 3 s after SIGSTOP; on SIGCONT nothing expired runs.

    Reduced count: the share is that of 4 s; with full counts that of 30 s, in which the instance is tried anew.
    """
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    workers = [worker_factory(nats_server.url, mesh_namespace) for _ in range(3)]
    folder = policies(tmp_path, destination("least_request"))
    async with Mesh("web", settings=settings, policies=folder) as mesh, raw_nats(nats_server.url) as bus:
        await ready(mesh, workers)
        for way in ("rpc", "direct"):
            await bus.subscribe(f"mesh.{mesh_namespace}.{way}.work.>")

        async def call(name: str) -> None:
            await mesh.call("work.do", name, idempotent=True)

        async with steady(call, PER_S) as load:
            await eventually(lambda: len(load.ended) >= PER_S)
            workers[0].freeze()
            stopped = time.monotonic()
            await anyio.sleep(LOST_AFTER_S)  # what must hold is said of the time after
            measured = time.monotonic()
            await anyio.sleep(scaled(4, 30))
            measured_until = time.monotonic()
            await anyio.sleep(2 * PER_TRY_S)  # attempts of the last moment have expired, too
            workers[0].thaw()
            woken = time.monotonic()
            await eventually(lambda: len(load.ended) > len(load.between(0.0, woken)))
        await everything_has_arrived(mesh, workers)
        await eventually(
            lambda: mesh.client.mux.pending == 0
        )  # a question to the service may last two seconds
        await bus.flush()
        before = set(load.between(0.0, stopped))
        assert len(first_attempts(bus, workers[0].id, before)) > len(before) / 10
        during = set(load.between(measured, measured_until))
        assert len(during) > PER_S
        share = len(first_attempts(bus, workers[0].id, during)) / len(during)
        record_property("share", round(share, 4))
        assert share <= MOST
    record_property("failed", len(load.failed))
    assert load.failed == {}
    booked(load, workers)
    not_after_its_time(load, workers[0], stopped, woken)
    write_results("stopped", {"calls": len(during), "share of first attempts": round(share, 4), "failed": 0})


@pytest.mark.parametrize("balancer", ["round_robin", "queue"])
async def test_nothing_expired_is_executed_on_waking(
    nats_server: NatsServer,
    mesh_namespace: str,
    worker_factory: WorkerFactory,
    tmp_path: Path,
    record_property: Record,
    balancer: str,
) -> None:
    """Whoever chooses: what expired while an instance was stopped is refused on SIGCONT; each call ends once."""
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    workers = [worker_factory(nats_server.url, mesh_namespace) for _ in range(3)]
    folder = policies(tmp_path, destination(balancer))
    async with Mesh("web", settings=settings, policies=folder) as mesh:
        await ready(mesh, workers)

        async def call(name: str) -> None:
            await mesh.call("work.do", name, idempotent=True)

        async with steady(call, PER_S) as load:
            await eventually(lambda: len(load.ended) >= PER_S)
            workers[0].freeze()
            stopped = time.monotonic()
            await anyio.sleep(scaled(3, 10))  # being stopped for a while is the fault itself
            workers[0].thaw()
            woken = time.monotonic()
            await eventually(lambda: len(load.ended) > len(load.between(0.0, woken)))
        await everything_has_arrived(mesh, workers)
        await eventually(
            lambda: mesh.client.mux.pending == 0
        )  # a question to the service may last two seconds
    record_property("failed", len(load.failed))
    for error in load.failed.values():
        assert isinstance(error, DeadlineExceededError), error
        assert error.executed is Executed.MAYBE
    booked(load, workers)
    not_after_its_time(load, workers[0], stopped, woken)


async def test_a_stalled_loop_costs_an_instance_nothing(
    nats_server: NatsServer, mesh_namespace: str, worker_factory: WorkerFactory, tmp_path: Path
) -> None:
    """A handler blocks its loop for 500 ms: with the default rules nobody ejects or suspects it, and no call fails."""
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    workers = [worker_factory(nats_server.url, mesh_namespace) for _ in range(2)]
    text = destination("round_robin").split("  breaker")[0]
    folder = policies(tmp_path, text)
    async with (
        Mesh("web", settings=settings, policies=folder) as mesh,
        Mesh("other", settings=settings) as other,
    ):
        await ready(mesh, workers)
        fleet = mesh.client.fleets.fleet("work")
        before = fleet.version

        async def call(name: str) -> None:
            await mesh.call("work.do", name, idempotent=int(name.rpartition("-")[2]) % 2 == 0)

        async with steady(call, PER_S) as load:
            for times in range(1, scaled(3, 10) + 1):
                await other.call("work.stall", 0.5)
                assert sum(worker.ledger.count("stalled") for worker in workers) == times
        balance = mesh.client._targets["work.do"].balance
        assert balance is not None
        assert balance.group.ejector.ejected(time.monotonic()) == []
        assert [event.kind for event in mesh.events.recent if event.kind.startswith("ejection")] == []
        assert fleet.version == before  # nobody went, came, or was suspected
        assert not any(each.suspect for each in fleet.instances())
        found = await mesh.gather("work.status", timeout=20.0)
        assert {each["id"]: each["reconnects"] for each in found.values} == {w.id: 0 for w in workers}
    assert load.failed == {}
    executed = [name for worker in workers for name in worker.ledger if name.startswith("call-")]
    assert sorted(executed) == sorted(load.sent)

"""The observer that all views stand on, on a real bus."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nats_mesh import CallError, Mesh, Service
from nats_mesh.core.presence import Standing
from nats_mesh.errors import ConfigError
from nats_mesh.serving.instance import Instance
from nats_mesh.telemetry import watching
from nats_mesh.telemetry.watching import MeshView, Snapshot
from nats_mesh.telemetry.watching import Service as Shown
from tests.harness import Bus, eventually

pytestmark = pytest.mark.anyio


def orders() -> Service:
    """A service with one endpoint that may fail."""
    service = Service("orders", version="1.2.0", labels={"zone": "eu-1"})

    @service.endpoint(idempotent=True, concurrency=7)
    async def place(number: int) -> int:
        if number < 0:
            raise ValueError("secret")
        return number

    return service


def service_of(snapshot: Snapshot, name: str = "orders") -> Shown | None:
    """One of the services that are shown, if it is."""
    return next((each for each in snapshot.services if each.name == name), None)


async def test_it_sees_what_is_there_and_what_is_called(bus: Bus) -> None:
    """Services, instances, clients, edges, events, and the totals exactly once calls rest."""
    instance = await bus.serve(orders())
    watcher = await bus.caller("viewer")
    async with MeshView(watcher) as view:
        for number in range(-3, 30):
            try:
                await bus.mesh.call("orders.place", number)
            except CallError:
                pass
        await eventually(lambda: instance.stats.totals("in")[0] == 33)
        assert await view.settled(10.0)
        await eventually(lambda: (found := service_of(view.snapshot())) is not None and found.ready == 1)
        shown = view.snapshot()
        row = service_of(shown)
        assert row is not None
        assert (row.red.total.requests, row.red.total.errors, row.capacity.limit) == (33, 3, 7)
        assert row.red.last_error.startswith("ValueError")
        (edge,) = [each for each in shown.edges if each.source == "web"]
        assert (edge.reporter, edge.service, edge.red.total.requests) == ("out", "orders", 33)
        kinds = {each.service: each.kind for each in shown.members}
        assert kinds == {"orders": "instance", "web": "client", "viewer": "client"}
        (member,) = [each for each in shown.members if each.kind == "instance"]
        assert (member.id, member.labels, member.version) == (instance.id, {"zone": "eu-1"}, "1.2.0")
        assert (shown.connected, shown.ignored, shown.overflowed, view.silent) == (True, 0, 0, [])

        await instance.stand_aside("a test")
        await eventually(lambda: [e.kind for e in view.snapshot().events] == ["instance.draining"])
        await eventually(lambda: (found := service_of(view.snapshot())) is not None and found.draining == 1)
        await instance.come_back("it is over")


async def test_what_happened_before_is_known(bus: Bus) -> None:
    """Members remember their events: a view that comes later shows them, once."""
    instance = await bus.serve(orders())
    await instance.stand_aside("before")
    watcher = await bus.caller("viewer")
    async with MeshView(watcher) as view:
        await eventually(lambda: len(view.snapshot().events) == 1)
        await instance.come_back("now")
        await eventually(lambda: [e.seq for e in view.snapshot().events] == [1, 2])


async def test_who_leaves_is_gone_and_stays_counted(bus: Bus) -> None:
    """An instance that has left is no longer shown, and its calls are in the totals."""
    watcher = await bus.caller("viewer")
    async with (
        Instance(orders(), settings=bus.settings, connector=bus.connector) as instance,
        MeshView(watcher, services=["orders"]) as view,
    ):
        await bus.mesh.call("orders.place", 1)
        await eventually(
            lambda: (found := service_of(view.snapshot())) is not None and found.red.total.requests == 1
        )
        assert {each.service for each in view.snapshot().members} == {"orders"}, "others were not asked for"
        await instance.drain()
        await eventually(lambda: not view.snapshot().members)
        row = service_of(view.snapshot())
        assert row is not None
        assert (row.instances, row.red.total.requests) == (0, 1)


async def test_what_is_no_ones_word_is_counted_and_left_out(bus: Bus) -> None:
    """Statistics that are none, or another's, change nothing that is shown."""
    await bus.serve(orders())
    watcher = await bus.caller("viewer")
    async with MeshView(watcher) as view:
        await eventually(lambda: service_of(view.snapshot()) is not None)
        forged = {
            "instance": "x",
            "service": "orders",
            "version": "1.0.0",
            "namespace": "other",
            "seq": 1,
            "since_s": 1,
        }
        subject = bus.mesh.client.subjects.telemetry("stats", "orders", "x")
        for body in (b"{", msgspec.json.encode(forged)):
            bus.mesh.client.transport.publish(subject, body, bus.mesh.client.mux.one_way("telemetry"))
        await eventually(lambda: view.snapshot().ignored == 2)
        assert "x" not in {each.id for each in view.snapshot().members}
        with pytest.raises(ConfigError):
            await view.__aenter__()


async def test_a_large_mesh_is_put_together_bit_by_bit(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it takes longer than a moment, the snapshot before comes until the next one is there; the loop goes on."""
    monkeypatch.setattr(watching, "_AT_ONCE_S", -1.0)
    monkeypatch.setattr(watching, "_BIT_S", 0.0)
    async with MeshView(bus.mesh) as view:
        first = view.snapshot()
        await bus.serve(orders())
        await eventually(lambda: (found := service_of(view.snapshot())) is not None and found.ready == 1)
        assert view.snapshot() is not first
        assert await view.settled(10.0)
        assert view.snapshot().at > first.at, "what is settled is shown at once"
        view._made = msgspec.structs.replace(view.snapshot(), at=-1e9)
        assert view.snapshot().at == -1e9, "it is not there yet"
    assert view._making is None


POLICY = """apiVersion: mesh/v1
kind: Destination
metadata: {name: a}
spec: {target: {service: orders}, timeout: 9s}
"""


async def test_a_caller_that_has_left_is_not_waited_for(bus: Bus, tmp_path: Path) -> None:
    """It tells its last figures as it leaves, so that the calls of a short command count, and none are missing; where
    it stands with policies is what it was."""
    await bus.serve(orders())
    watcher = await bus.caller("viewer")
    (tmp_path / "a.yaml").write_text(POLICY, encoding="utf-8")

    def source(view: MeshView) -> list[str]:
        return [each.policy_source for each in view.snapshot().members if each.service == "short"]

    async with MeshView(watcher) as view:
        made = Mesh("short", settings=watcher.settings, connector=bus.connector, policies=str(tmp_path))
        async with made as short:
            await eventually(lambda: source(view))
            before = source(view)
            assert await short.call("orders.place", 3, returns=int) == 3
        assert await view.settled(10.0), view.late
        (edge,) = [each for each in view.snapshot().edges if each.source == "short"]
        assert (edge.reporter, edge.red.total.requests) == ("out", 1)
        assert source(view) == before != [Standing().source]


async def test_other_observers_are_not_waited_for(bus: Bus) -> None:
    """Whoever looks on under the same name and makes no calls has nothing to tell; of who makes some it is missed."""
    await bus.serve(orders())
    watcher, idle, calling = [await bus.caller("viewer") for _ in range(3)]
    async with MeshView(watcher) as view:

        async def falls_silent(mesh: Mesh) -> None:
            await eventually(lambda: ("viewer", mesh.client.transport.connection) in view.told)
            assert mesh._wants is not None
            mesh._wants.close()  # it hears of no lease any more

        await falls_silent(idle)
        assert await view.settled(5.0), view.late
        assert await calling.call("orders.place", 3, returns=int) == 3
        await eventually(lambda: [each for each in view.snapshot().edges if each.source == "viewer"])
        await falls_silent(calling)
        assert not await view.settled(3.5)
        assert view.late == [("viewer", calling.client.transport.connection)]

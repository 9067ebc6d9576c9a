"""Limits that change while calls run, and dispatch by credit."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable

import anyio
import pytest

from nats_mesh import CallError, OverloadedError, Service
from nats_mesh.core.presence import Announcement, Kind
from nats_mesh.core.rules import ConcurrencyRules
from nats_mesh.discovery.messages import decode
from nats_mesh.serving.instance import Instance
from tests.harness import Bus, eventually
from tests.rawnats import RawNats

pytestmark = pytest.mark.anyio


def everywhere(limit: int, *, leave_queue: bool = False) -> Callable[[str], ConcurrencyRules | None]:
    """One rule for every endpoint."""
    rules = ConcurrencyRules(limit=limit, leave_queue=leave_queue)
    return lambda endpoint: rules


class Pool:
    """Services whose handler holds its calls until told, and how many it holds."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.release = anyio.Event()

    def service(self, concurrency: int = 500) -> Service:
        """One more."""
        service = Service("pool", version="1.0.0")

        @service.endpoint(concurrency=concurrency, timeout=60.0)
        async def hold() -> str:
            name = service.name
            self.running[name] += 1
            self.most[name] = max(self.most[name], self.running[name])
            try:
                await self.release.wait()
            finally:
                self.running[name] -= 1
            return "done"

        @service.endpoint()
        async def other() -> int:
            return 1

        return service


class Crowd:
    """Calls that are under way, and how they ended."""

    def __init__(self, bus: Bus, tasks: anyio.abc.TaskGroup, target: str = "pool.hold") -> None:
        self.done = 0
        self.refused = 0
        self._bus, self._tasks, self._target = bus, tasks, target

    def call(self, count: int) -> None:
        """So many more."""
        for _ in range(count):
            self._tasks.start_soon(self._one)

    async def _one(self) -> None:
        try:
            await self._bus.mesh.call(self._target, timeout=60.0)
            self.done += 1
        except OverloadedError:
            self.refused += 1


async def test_circuit_breaking_with_a_live_change(bus: Bus) -> None:
    """500 of 1000 calls run, the rest is refused; at 800 three hundred more get in, at 100 nobody until enough end."""
    pool = Pool()
    instance = await bus.serve(pool.service())
    slots = instance.dispatcher.served["hold"].concurrency
    async with anyio.create_task_group() as tasks:
        crowd = Crowd(bus, tasks)
        crowd.call(1000)
        await eventually(lambda: crowd.refused == 500, lambda: (crowd.refused, slots.in_flight))
        assert (pool.running["pool"], slots.in_flight) == (500, 500)
        instance.apply_limits(everywhere(800))
        crowd.call(500)
        await eventually(lambda: crowd.refused == 700)
        assert (pool.running["pool"], slots.in_flight) == (800, 800)
        instance.apply_limits(everywhere(100))
        assert pool.running["pool"] == 800, "nobody is stopped"
        crowd.call(10)
        await eventually(lambda: crowd.refused == 710)
        pool.release.set()
    assert crowd.done == 800
    assert pool.most["pool"] == 800
    assert slots.in_flight == 0
    instance.apply_limits(lambda endpoint: None)
    assert slots.limit == 500


async def test_a_chain_that_does_not_change_stays_the_object_it_is(bus: Bus) -> None:
    """Neither another limit nor the same rules again make a chain anew; leave_queue does, for its endpoint alone."""
    instance = await bus.serve(Pool().service())
    hold, other = (instance.dispatcher.served[name] for name in ("hold", "other"))
    before = (hold.enter, hold.leave, other.enter)
    instance.apply_limits(everywhere(9))
    instance.apply_limits(everywhere(9))
    assert (hold.enter is before[0], hold.leave is before[1], other.enter is before[2]) == (True, True, True)
    asking = ConcurrencyRules(limit=9, leave_queue=True)
    instance.apply_limits(lambda endpoint: asking if endpoint == "hold" else None)
    assert (hold.enter is before[0], other.enter is before[2]) == (False, True)
    assert [gate.name for gate in hold.present] == ["deadline", "concurrency", "credit"]


async def test_a_changed_limit_is_seen_by_whoever_looks(bus: Bus, raw: RawNats) -> None:
    """Presence, the Services API and an event say what is in effect; what did not change says nothing."""
    await raw.subscribe(f"mesh.{bus.namespace}.presence.pool.*")
    instance = await bus.serve(Pool().service())
    instance.apply_limits(lambda name: ConcurrencyRules(limit=8) if name == "hold" else None)
    await raw.until(lambda: len(raw.messages) == 2)
    change = decode(raw.messages[1].payload)
    assert change.type is Kind.CHANGE
    assert {e.name: e.concurrency for e in change.endpoints} == {"hold": 8, "other": 256}
    assert change.load.limit == 8 + 256
    info = json.loads((await raw.request(f"$SRV.INFO.pool.{instance.id}")).payload)
    shown = {each["name"]: each["metadata"] for each in info["endpoints"]}
    assert (shown["hold"]["mesh.concurrency"], shown["hold"]["mesh.concurrency.source"]) == ("8", "policy")
    assert "mesh.concurrency.source" not in shown["other"]
    (event,) = instance.events.recent
    assert (event.kind, event.target, event.numbers) == ("limit.changed", "pool.hold", {"limit": 8.0})
    instance.apply_limits(lambda name: ConcurrencyRules(limit=8) if name == "hold" else None)
    assert len(instance.events.recent) == 1


async def test_plain_functions_get_as_many_threads_as_slots(bus: Bus) -> None:
    """A limit that is raised while they run is no promise that threads break."""
    service, gate, most = Service("pool", version="1.0.0"), threading.Event(), [0, 0]
    lock = threading.Lock()

    @service.endpoint(concurrency=2, timeout=60.0)
    def hold() -> str:
        with lock:
            most[0] += 1
            most[1] = max(most)
        gate.wait(60.0)
        with lock:
            most[0] -= 1
        return "done"

    instance = await bus.serve(service)
    try:
        async with anyio.create_task_group() as tasks:
            crowd = Crowd(bus, tasks)
            crowd.call(2)
            await eventually(lambda: most[0] == 2)
            instance.apply_limits(everywhere(6))
            crowd.call(4)
            await eventually(lambda: most[0] == 6, lambda: most)
            gate.set()
    finally:
        gate.set()
    assert crowd.done == 6


# -- credit -------------------------------------------------------------------------------------------


class Fleet:
    """Instances of one service, each with a pool of its own."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.instances: list[Instance] = []
        self.pools: list[Pool] = []

    async def add(self, limit: int, *, leave_queue: bool = True) -> Instance:
        """Start one more."""
        pool = Pool()
        instance = await self._bus.serve(pool.service())
        instance.apply_limits(
            lambda name: ConcurrencyRules(limit=limit, leave_queue=leave_queue) if name == "hold" else None
        )
        self.instances.append(instance)
        self.pools.append(pool)
        return instance

    async def acquainted(self) -> None:
        """Return when everybody has said how it is, and everybody has heard it."""
        for instance in self.instances:
            assert instance._parts.announcer is not None
            instance._parts.announcer.report()
            await instance.transport.fence()
        for instance in self.instances:
            await instance.transport.fence()

    def taken(self) -> list[bool]:
        """Who sits in the queue group."""
        return [instance.subscriptions[0].queue == "q" for instance in self.instances]

    def running(self) -> list[int]:
        """How many calls each holds."""
        return [pool.running["pool"] for pool in self.pools]


def kinds(instance: Instance) -> list[str]:
    """What happened to its seat."""
    return [event.kind for event in instance.events.recent if event.kind.startswith("queue.")]


async def test_a_full_instance_leaves_the_queue_to_who_has_room(bus: Bus, raw: RawNats) -> None:
    """With one slot against a hundred: once it is taken, no call is refused any more, and it is back with its room."""
    fleet = Fleet(bus)
    small, large = await fleet.add(1), await fleet.add(100)
    await fleet.acquainted()
    async with anyio.create_task_group() as tasks:
        crowd = Crowd(bus, tasks)
        while fleet.running()[0] == 0:
            before = sum(fleet.running())
            crowd.call(1)
            await eventually(lambda: sum(fleet.running()) > before or crowd.refused)  # noqa: B023
        await eventually(lambda: fleet.taken() == [False, True], fleet.taken)
        await small.transport.fence()
        refused = crowd.refused
        before = fleet.running()[1]
        crowd.call(40)
        await eventually(lambda: fleet.running() == [1, before + 40], fleet.running)
        assert crowd.refused == refused, "nobody was refused after it had left"
        direct = f"mesh.{bus.namespace}.direct.pool.{small.id}.other.raw"
        assert (await raw.request(direct)).payload == b"1", "who is asked for by name is there"
        fleet.pools[0].release.set()
        await eventually(lambda: fleet.taken() == [True, True], fleet.taken)
        fleet.pools[1].release.set()
    assert kinds(small) == ["queue.left", "queue.back"]
    assert kinds(large) == []
    left, back = (event for event in small.events.recent if event.kind.startswith("queue."))
    assert "1 others have room" in left.detail
    assert "room again" in back.detail


async def test_nobody_leaves_where_nobody_else_has_room(bus: Bus) -> None:
    """Alone, or beside others that are full as well: full instances refuse, and somebody always does."""
    fleet = Fleet(bus)
    await fleet.add(1)
    await fleet.add(1)
    await fleet.acquainted()
    async with anyio.create_task_group() as tasks:
        crowd = Crowd(bus, tasks)
        while fleet.running() != [1, 1]:
            crowd.call(1)
            await anyio.sleep(0.01)
        # Whoever left before the other had filled up is back by then.
        await eventually(lambda: fleet.taken() == [True, True], fleet.taken)
        with pytest.raises(OverloadedError):
            await bus.mesh.call("pool.hold", timeout=5.0)
        for pool in fleet.pools:
            pool.release.set()


async def test_it_is_back_at_once_where_the_others_vanish(bus: Bus) -> None:
    """Full as it is: a refusal is better than nobody."""
    fleet = Fleet(bus)
    small = await fleet.add(1)
    other = Instance(Pool().service(), settings=bus.settings, connector=bus.connector)
    async with anyio.create_task_group() as tasks:
        crowd = Crowd(bus, tasks)
        crowd.call(1)
        await eventually(lambda: fleet.running() == [1])
        async with other:
            assert other._parts.announcer is not None
            other._parts.announcer.report()
            await eventually(lambda: fleet.taken() == [False], fleet.taken)
        await eventually(lambda: fleet.taken() == [True])
        with pytest.raises(OverloadedError):
            await bus.mesh.call("pool.hold", timeout=5.0)
        fleet.pools[0].release.set()
    assert kinds(small) == ["queue.left", "queue.back"]


async def test_a_full_instance_says_so(bus: Bus, raw: RawNats) -> None:
    """In presence, out of turn, before it leaves; and that it is not full any more."""
    presence = f"mesh.{bus.namespace}.presence.pool."
    await raw.subscribe(f"{presence}*")

    def said() -> list[Announcement]:
        return [decode(m.payload) for m in raw.messages if m.subject.startswith(presence)]

    fleet = Fleet(bus)
    small = await fleet.add(1)
    async with anyio.create_task_group() as tasks:
        crowd = Crowd(bus, tasks)
        crowd.call(1)
        await eventually(lambda: any(each.load.full for each in said()))
        info = json.loads((await raw.request(f"$SRV.INFO.pool.{small.id}")).payload)
        assert info["metadata"]["mesh.full"] == "true"
        fleet.pools[0].release.set()
        await eventually(lambda: not said()[-1].load.full)
    assert [each.type for each in said()[-2:]] == [Kind.BEAT, Kind.BEAT]
    assert kinds(small) == []


async def test_when_the_rules_end_it_is_back(bus: Bus) -> None:
    """A policy that goes takes its pause with it."""
    fleet = Fleet(bus)
    small, _ = await fleet.add(1), await fleet.add(100)
    await fleet.acquainted()
    async with anyio.create_task_group() as tasks:
        crowd = Crowd(bus, tasks)
        while fleet.running()[0] == 0:
            crowd.call(1)
            await anyio.sleep(0.01)
        await eventually(lambda: fleet.taken() == [False, True], fleet.taken)
        small.apply_limits(lambda endpoint: None)
        assert fleet.taken() == [True, True]
        for pool in fleet.pools:
            pool.release.set()


async def test_leaving_while_away_is_leaving(bus: Bus) -> None:
    """An instance that ends while it is out of the queue neither comes back nor leaves anything behind."""
    pool = Pool()
    large = Fleet(bus)
    await large.add(100)
    async with anyio.create_task_group() as tasks:
        crowd = Crowd(bus, tasks)
        async with Instance(pool.service(), settings=bus.settings, connector=bus.connector) as instance:
            instance.apply_limits(everywhere(1, leave_queue=True))
            assert large.instances[0]._parts.announcer is not None
            large.instances[0]._parts.announcer.report()
            while pool.running["pool"] == 0:
                crowd.call(1)
                await anyio.sleep(0.01)
            await eventually(lambda: instance._parts.seats is not None and not instance._parts.seats.taken)
            pool.release.set()
        assert instance.subscriptions == []
        large.pools[0].release.set()
    with pytest.raises(CallError):
        await bus.mesh.call(f"nats://mesh.{bus.namespace}.direct.pool.{instance.id}.other.web", timeout=1.0)

"""Asking every instance of a service, on each transport: partial results, first k, quorum, and nothing left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.from_thread
import pytest

from nats_mesh import (
    ApplicationError,
    CallError,
    CancelledByPeerError,
    Context,
    DeadlineExceededError,
    Executed,
    Gathered,
    Mesh,
    NoInstancesError,
    OverloadedError,
    Refused,
    RemoteError,
    Service,
    Status,
)
from nats_mesh.core.presence import Announcement, Kind
from nats_mesh.discovery.messages import encode, rfc3339
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing import NatsServer
from tests.harness import PATIENCE_S, TRANSPORTS, Bus, eventually, open_bus
from tests.rawnats import header_pairs, raw_nats

pytestmark = pytest.mark.anyio


@pytest.fixture(params=sorted(TRANSPORTS))
async def bus(
    request: pytest.FixtureRequest, mesh_namespace: str, anyio_backend: object
) -> AsyncIterator[Bus]:
    """A bus in a namespace of its own, on each transport; at the end of a test nothing may be left of its calls."""
    async with open_bus(request, request.param, mesh_namespace) as bus:
        yield bus
        await rest(bus)


async def rest(bus: Bus) -> None:
    """Return when nothing is left of any call. Fleets are closed before: for a second they listen for late answers."""
    for client in [mesh.client for mesh in bus.callers] + [instance.client for instance in bus.instances]:
        await client.fleets.close()
    await bus.at_rest()


class Empty(ApplicationError, status="FAILED_PRECONDITION"):
    """A shelf with nothing on it."""

    shelf: str


class Pool:
    """Instances of ``pool``, each of which behaves as it is told; and what their handlers went through."""

    def __init__(self) -> None:
        #: By instance id: ``slow`` until ``release``, ``broken``, ``empty``, ``odd``; else it answers with its id.
        self.behaviour: dict[str, str] = {}
        self.release = anyio.Event()
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.seen: list[tuple[str, float]] = []
        self.ids: list[str] = []
        self.service = service = Service("pool", version="1.0.0")

        @service.endpoint(raises=(Empty,), concurrency=1, timeout=60.0)
        async def stock(ctx: Context) -> str | int:
            self.started.append(ctx.instance)
            self.seen.append((ctx.caller, ctx.remaining()))
            does = self.behaviour.get(ctx.instance)
            if does == "broken":
                raise RuntimeError("broken")
            if does == "empty":
                raise Empty("nothing left", shelf="7")
            if does == "odd":
                return 17
            if does == "slow":
                try:
                    await self.release.wait()
                except anyio.get_cancelled_exc_class():
                    self.stopped.append(ctx.instance)
                    raise
            return ctx.instance

        self.stock = stock

    async def start(self, bus: Bus, count: int = 4) -> list[str]:
        """Start instances; the ids of all there are."""
        for _ in range(count):
            self.ids.append((await bus.serve(self.service)).id)
        return self.ids

    async def until_known(self, mesh: Mesh) -> None:
        """Return when the caller knows of exactly these instances."""
        fleet = mesh.client.fleets.visit("pool")
        assert fleet is not None
        await eventually(lambda: [each.id for each in fleet.instances()] == sorted(self.ids))


@pytest.fixture
def pool(anyio_backend: object) -> Pool:
    """A pool without instances."""
    return Pool()


def statuses(bus: Bus) -> dict[str, int]:
    """The caller's calls by status."""
    counts: dict[str, int] = {}
    for series in bus.mesh.stats:
        if series.side == "out":
            for status, count in series.by_status.items():
                counts[status] = counts.get(status, 0) + count
    return counts


async def test_everybody_answers(bus: Bus, pool: Pool) -> None:
    """Each instance runs it once and answers under its id; all of it is one call of the caller's statistics."""
    ids = await pool.start(bus)
    gathered: Gathered[str] = await bus.mesh.gather("pool.stock", returns=str, timeout=PATIENCE_S)
    assert gathered.answers == {each: each for each in ids}
    assert sorted(gathered.values) == sorted(ids)
    assert (gathered.errors, gathered.missing, gathered.asked) == ({}, (), 4)
    assert (gathered.complete, gathered.why) == (True, "")
    assert sorted(pool.started) == sorted(ids)
    assert {caller for caller, _ in pool.seen} == {"web"}
    assert statuses(bus) == {"OK": 1}


async def test_one_fails_one_refuses_one_answers_what_does_not_fit(bus: Bus, pool: Pool) -> None:
    """Whatever goes wrong at an instance is that instance's error, of the class that a call would raise."""
    broken, empty, odd, full = ids = await pool.start(bus)
    pool.ids = ids
    pool.behaviour = {broken: "broken", empty: "empty", odd: "odd", full: "slow"}
    fine = (await bus.serve(pool.service)).id
    holding = (await bus.caller("holding")).client
    subject = holding.subjects.direct("pool", full, "stock", "holding")
    holding.transport.publish(subject, b"", holding.mux.one_way("pool"))  # takes its only slot
    await eventually(lambda: pool.started == [full])
    gathered = await bus.mesh.gather(pool.stock, returns=str, timeout=PATIENCE_S)
    pool.release.set()
    assert gathered.answers == {fine: fine}
    assert set(gathered.errors) == set(ids)
    internal, shelf, misfit, refused = (gathered.errors[each] for each in ids)
    assert (type(internal), internal.status, internal.message) == (
        RemoteError,
        Status.INTERNAL,
        "internal error",
    )
    assert isinstance(shelf, Empty)
    assert shelf.shelf == "7"
    assert (misfit.status, misfit.executed) == (Status.INTERNAL, Executed.YES)
    assert (type(refused), refused.refused, refused.executed) == (
        OverloadedError,
        Refused.CONCURRENCY,
        Executed.NO,
    )
    assert all((each.service, each.endpoint) == ("pool", "stock") for each in gathered.errors.values())
    assert (gathered.complete, gathered.missing) == (False, ())
    await eventually(lambda: all(not instance.dispatcher.in_flight for instance in bus.instances))


async def test_the_first_are_enough_and_the_others_are_stopped(bus: Bus, pool: Pool) -> None:
    """As soon as two have answered it returns with these two; the handlers of the others are cancelled."""
    ids = await pool.start(bus)
    await pool.until_known(bus.mesh)
    pool.behaviour = dict.fromkeys(ids[2:], "slow")
    gathered = await bus.mesh.gather("pool.stock", returns=str, want=2, timeout=PATIENCE_S)
    assert set(gathered.answers) == set(ids[:2])
    assert (set(gathered.missing), gathered.errors) == (set(ids[2:]), {})
    assert (gathered.asked, gathered.wanted, gathered.complete) == (4, 2, True)
    # One that was told to stop before its first step never began.
    await eventually(lambda: not any(instance.dispatcher.in_flight for instance in bus.instances))
    await eventually(lambda: sum(i.stats.totals("in")[0] for i in bus.instances) == 4)
    by_status: dict[str, int] = {}
    for instance in bus.instances:
        for status, count in next(iter(instance.stats)).by_status.items():
            by_status[status] = by_status.get(status, 0) + count
    assert by_status == {"OK": 2, "CANCELLED": 2}
    assert set(pool.stopped) == set(pool.started) - set(ids[:2])


async def test_a_quorum_does_without_the_slow_and_the_broken(bus: Bus, pool: Pool) -> None:
    """Three of five: one raises, one does not answer, and it is complete; with two that raise it is not."""
    ids = await pool.start(bus, 5)
    pool.behaviour = {ids[0]: "slow", ids[1]: "broken"}
    gathered = await bus.mesh.gather("pool.stock", returns=str, want="quorum", timeout=PATIENCE_S)
    assert (gathered.wanted, gathered.complete) == (3, True)
    assert set(gathered.answers) == set(ids[2:])
    pool.behaviour = dict.fromkeys(ids[:3], "broken")
    await eventually(lambda: not any(instance.dispatcher.in_flight for instance in bus.instances))
    gathered = await bus.mesh.gather("pool.stock", returns=str, want="quorum", timeout=PATIENCE_S)
    assert (set(gathered.answers), set(gathered.errors)) == (set(ids[3:]), set(ids[:3]))
    assert not gathered.complete
    assert gathered.why.startswith("2 of 3 wanted answers; failed: ")
    assert statuses(bus) == {"OK": 1, "INTERNAL": 1}


async def test_at_the_deadline_there_is_what_there_is(bus: Bus, pool: Pool) -> None:
    """The slow ones are named and stopped, nothing is raised, and the instances were given the time there was."""
    ids = await pool.start(bus)
    await pool.until_known(bus.mesh)
    pool.behaviour = {ids[3]: "slow"}
    gathered = await bus.mesh.gather("pool.stock", returns=str, timeout=1.0)
    assert set(gathered.answers) == set(ids[:3])
    assert (gathered.missing, gathered.errors, gathered.complete) == ((ids[3],), {}, False)
    assert "no answer in " in gathered.why
    assert ids[3] in gathered.why
    assert all(0.0 < left <= 1.0 for _, left in pool.seen)
    await eventually(lambda: pool.stopped == [ids[3]])
    assert statuses(bus) == {"DEADLINE_EXCEEDED": 1}


async def test_one_leaves_while_it_is_asked(bus: Bus, pool: Pool) -> None:
    """An instance that drains answers what it holds; the next gather does not ask it any more."""
    ids = await pool.start(bus)
    await pool.until_known(bus.mesh)
    pool.behaviour = {ids[0]: "slow"}
    found: list[Gathered[str]] = []

    async def ask() -> None:
        found.append(await bus.mesh.gather("pool.stock", returns=str, timeout=PATIENCE_S))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await eventually(lambda: len(pool.started) == 4)
        leaving = bus.instances.pop(0)
        tasks.start_soon(leaving.drain)
        pool.ids = ids = ids[1:]
        await pool.until_known(bus.mesh)
        pool.release.set()
    assert found[0].complete
    assert set(found[0].answers) == {leaving.id, *ids}
    gathered = await bus.mesh.gather("pool.stock", returns=str, timeout=PATIENCE_S)
    assert (set(gathered.answers), gathered.asked, gathered.complete) == (set(ids), 3, True)


async def test_one_is_stopped_while_it_is_asked(bus: Bus, pool: Pool) -> None:
    """An instance that stops what it holds says so, and that is its error; the others answer."""
    ids = await pool.start(bus)
    await pool.until_known(bus.mesh)
    pool.behaviour = {ids[0]: "slow"}
    found: list[Gathered[str]] = []

    async def ask() -> None:
        found.append(await bus.mesh.gather("pool.stock", returns=str, timeout=PATIENCE_S))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await eventually(lambda: len(pool.started) == 4)
        await bus.instances.pop(0).close()
    [gathered] = found
    assert set(gathered.answers) == set(ids[1:])
    error = gathered.errors[ids[0]]
    assert (type(error), error.status, error.executed) == (RemoteError, Status.UNAVAILABLE, Executed.MAYBE)


async def test_one_has_gone_without_a_word(bus: Bus, pool: Pool) -> None:
    """Presence does not know it yet: nobody listens there, which is known at once and is that instance's error."""
    ids = await pool.start(bus)
    await pool.until_known(bus.mesh)
    ghost = await bus.caller("pool")  # it may speak for the service, and serves nothing
    said = Announcement(
        type=Kind.JOIN,
        service="pool",
        instance="ghost",
        name="host-1",
        version="1.0.0",
        namespace=bus.namespace,
        seq=1,
        started=rfc3339(1_700_000_000.0),
        interval_s=60.0,
    )
    subject = ghost.client.subjects.presence("pool", "ghost")
    ghost.client.transport.publish(subject, encode(said), ghost.client.mux.one_way("presence"))
    pool.ids = [*ids, "ghost"]
    await pool.until_known(bus.mesh)
    gathered = await bus.mesh.gather("pool.stock", returns=str, timeout=PATIENCE_S)
    assert set(gathered.answers) == set(ids)
    error = gathered.errors["ghost"]
    assert (type(error), error.executed) == (NoInstancesError, Executed.NO)
    assert (gathered.asked, gathered.complete, gathered.missing) == (5, False, ())
    assert statuses(bus) == {"UNAVAILABLE": 1}


async def test_more_are_wanted_than_there_are(bus: Bus, pool: Pool) -> None:
    """It returns when all have answered, and says that there are no more."""
    ids = await pool.start(bus, 2)
    gathered = await bus.mesh.gather("pool.stock", returns=str, want=3, timeout=1000.0)
    assert set(gathered.answers) == set(ids)
    assert (gathered.complete, gathered.why) == (False, "2 of 3 wanted answers; only 2 instances are there")


async def test_nobody_is_there(bus: Bus) -> None:
    """A service without an instance is an error, at once, as of a call."""
    with anyio.fail_after(PATIENCE_S), pytest.raises(NoInstancesError, match="nobody serves 'pool'"):
        await bus.mesh.gather("pool.stock", returns=str, timeout=1000.0)


async def test_other_namespaces_are_not_asked(bus: Bus, pool: Pool) -> None:
    """Instances of the same service in another namespace are other instances."""
    await pool.start(bus, 1)
    elsewhere = await bus.caller("web", namespace=f"{bus.namespace[:50]}-x")
    with pytest.raises(NoInstancesError):
        await elsewhere.gather("pool.stock", returns=str)


async def test_a_handler_gathers_within_its_own_time(bus: Bus, pool: Pool) -> None:
    """From inside a handler it ends with the call it is made from, and what it set in motion is stopped with it."""
    ids = await pool.start(bus)
    pool.behaviour = {ids[0]: "slow"}
    front = Service("front", version="1.0.0")

    @front.endpoint()
    async def ask(wanted: int, ctx: Context) -> list[str]:
        gathered = await ctx.gather(pool.stock, want=wanted, timeout=1000.0)
        return sorted(gathered.answers)

    await bus.serve(front)
    assert await bus.mesh.call("front.ask", 3, timeout=PATIENCE_S) == sorted(ids[1:])
    await eventually(lambda: not any(i.dispatcher.in_flight for i in bus.instances))
    pool.seen.clear()
    with pytest.raises(DeadlineExceededError):
        await bus.mesh.call("front.ask", 4, timeout=0.5)
    assert {caller for caller, _ in pool.seen} == {"front"}
    assert all(left <= 0.5 for _, left in pool.seen)
    await eventually(lambda: not any(i.dispatcher.in_flight for i in bus.instances))


async def test_a_gather_that_is_cancelled_leaves_no_handler_running(bus: Bus, pool: Pool) -> None:
    """Whoever gives up a gather stops everybody who works on it."""
    ids = await pool.start(bus)
    await pool.until_known(bus.mesh)
    pool.behaviour = dict.fromkeys(ids, "slow")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bus.mesh.gather, "pool.stock")
        await eventually(lambda: len(pool.started) == 4)
        tasks.cancel_scope.cancel()
    await eventually(lambda: sorted(pool.stopped) == sorted(ids))
    assert statuses(bus) == {"CANCELLED": 1}


async def test_one_cancellation_names_up_to_256_attempts(bus: Bus, pool: Pool) -> None:
    """Each line is an attempt that nobody waits for; what stands beyond the bound is not read."""
    [instance] = await pool.start(bus, 1)
    pool.behaviour = {instance: "slow"}
    client = bus.mesh.client

    async def call() -> None:
        with pytest.raises(CancelledByPeerError):
            await bus.mesh.call(pool.stock)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await eventually(lambda: pool.started == [instance])
        [reply] = client.mux.calls
        subject, inbox = client.subjects.cancel("pool", "web"), client.mux.one_way("pool")
        others = [f"{reply}{number}" for number in range(256)]
        client.transport.publish(subject, "\n".join([*others, reply]).encode(), inbox)
        await client.transport.fence()
        await bus.instances[0].transport.fence()
        assert pool.stopped == []
        client.transport.publish(subject, "\n".join([*others[:255], reply]).encode(), inbox)
    assert pool.stopped == [instance]


async def test_many_gathers_at_once(bus: Bus, pool: Pool) -> None:
    """Gathers share the fleet and nothing else: each gets its own answers."""
    service = Service("echo", version="1.0.0")

    @service.endpoint()
    async def say(number: int, ctx: Context) -> list[Any]:
        return [number, ctx.instance]

    for _ in range(4):
        await bus.serve(service)
    found: dict[int, Gathered[Any]] = {}

    async def ask(number: int) -> None:
        found[number] = await bus.mesh.gather("echo.say", number, timeout=PATIENCE_S)

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(ask, number)
    ids = {instance.id for instance in bus.instances}
    for number, gathered in found.items():
        assert gathered.answers == {each: [number, each] for each in ids}
    assert statuses(bus) == {"OK": 50}


# -- on a real server alone -------------------------------------------------------------------------


@pytest.fixture
async def server_bus(
    request: pytest.FixtureRequest, mesh_namespace: str, anyio_backend: object
) -> AsyncIterator[Bus]:
    """A bus on a real server where every message must name its publisher's inbox."""
    async with open_bus(request, "nats", mesh_namespace, mode="enforced") as bus:
        yield bus
        await rest(bus)


async def test_a_gather_on_the_wire(server_bus: Bus, pool: Pool) -> None:
    """A request to each instance on its direct subject, one cancellation for all that are given up, nothing else."""
    bus = server_bus
    ids = await pool.start(bus)
    await pool.until_known(bus.mesh)
    pool.behaviour = dict.fromkeys(ids[1:], "slow")
    prefix = f"mesh.{bus.namespace}"
    async with raw_nats(bus.url, f"{prefix}.rpc.>", f"{prefix}.direct.>", f"{prefix}.cancel.>") as tap:
        gathered = await bus.mesh.gather("pool.stock", returns=str, want=1, headers={"x-shelf": "7"})
        assert gathered.complete
        await bus.mesh.client.transport.fence()
        await tap.flush()
        *requests, cancellation = tap.messages
    assert {each.subject for each in requests} == {f"{prefix}.direct.pool.{each}.stock.web" for each in ids}
    assert len(requests) == len({each.reply for each in requests}) == 4
    for each in requests:
        headers = dict(header_pairs(each.headers))
        assert set(headers) == {"Mesh-Timeout-Ms", "Mesh-Sent-Ms", "traceparent", "x-shelf"}
        assert 0 < int(headers["Mesh-Timeout-Ms"]) <= 60_000
    slow = {each.reply for each in requests if ids[0] not in each.subject}
    assert cancellation.subject == f"{prefix}.cancel.pool.web"
    assert set(cancellation.payload.decode().split("\n")) == slow
    await eventually(lambda: not any(i.dispatcher.in_flight for i in bus.instances))


def test_a_script_gathers(nats_server: NatsServer, mesh_namespace: str) -> None:
    """The blocking client asks everybody, too, and refuses where it is not open."""
    service = Service("sums", version="1.0.0")

    @service.endpoint()
    async def double(n: int) -> int:
        return n * 2

    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    with anyio.from_thread.start_blocking_portal() as portal:
        instances = [Instance(service, settings=settings) for _ in range(2)]
        with (
            portal.wrap_async_context_manager(instances[0]),
            portal.wrap_async_context_manager(instances[1]),
            Mesh("script", settings=settings).blocking() as mesh,
        ):
            gathered = mesh.gather("sums.double", 21, returns=int)
            assert gathered.answers == {each.id: 42 for each in instances}
            with pytest.raises(CallError):
                mesh.gather("nobody.there", returns=int, timeout=1.0)

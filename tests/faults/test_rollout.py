"""Rollouts when things go wrong: a bad version of Bookinfo, a runner or an instance that dies, a store that is away."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from examples.bookinfo import load, reviews
from examples.bookinfo.model import Page, ProductId
from nats_mesh import CallError, Mesh, MeshError, Service
from nats_mesh.core.rollout import Phase
from nats_mesh.rollout import Runner, Starting
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing.cluster import NatsCluster
from nats_mesh.testing.plugin import NatsServerFactory
from nats_mesh.testing.server import NatsServer
from tests.cli.program import Background
from tests.faults.load import steady
from tests.faults.results import Figure, write_results
from tests.faults.workers import WorkerFactory
from tests.rollouts import rollout, staged, until
from tests.stored import document, operator
from tests.tools import is_full_run, scaled

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

Record = Callable[[str, object], None]

#: Pages a second, and for how long they are asked for before a rollout starts (seconds).
PER_S = 60.0
BEFORE_S = float(scaled(5, 20))
ALL_S = float(scaled(25, 60))
#: A page that takes longer is one that somebody waits for (seconds); usually it takes a few milliseconds.
LATE_S = 0.5
AFFECTED = 0.02
#: How long a runner may be dead before another one goes on: its lease, a look, and twice the slack.
TAKEN_S, SLACK = 7.0, 2.0


class Pages:
    """What readers of Bookinfo got: how long each page took, and which came without its reviews."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.took: dict[str, float] = {}
        self.bare: set[str] = set()
        self.red: list[str] = []

    async def read(self, name: str) -> None:
        """Ask for a page."""
        start = time.monotonic()
        page = await self.mesh.call("productpage.page", ProductId(), returns=Page, timeout=8.0)
        self.took[name] = time.monotonic() - start
        if page.reviews is None:
            self.bare.add(name)
        elif page.reviews.reviews[0].rating is not None:
            self.red.append(name)

    def affected(self, names: list[str], failed: dict[str, CallError]) -> list[str]:
        """Those whose readers saw that something is wrong."""
        return [
            name for name in names if name in failed or name in self.bare or self.took.get(name, 0.0) > LATE_S
        ]


@pytest.mark.parametrize("wrong", ["errors", "slow", "nothing"])
async def test_a_bad_version_of_bookinfo_goes_back_by_itself(
    nats_server: NatsServer, mesh_namespace: str, record_property: Record, wrong: str
) -> None:
    """reviews v3 in steps of 5, 25 and 100 %: where it fails or is slow all calls go back to v1 in the first step, and
    less than 2 % of the pages are affected; where nothing is wrong with it, it is promoted and none is.

    Counted are the pages of 25 s (full: 60 s), of which 5 (20) are before the start. What the step itself sends to v3
    is 5 %, so the share within it is recorded, too; the page asks for reviews a second time where they fail.
    """
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace, plugins=False)
    subsets = {version: {"labels": {"version": version}} for version in ("v1", "v3")}
    v1 = [{"split": [{"subset": "v1"}]}]
    said = rollout(
        "reviews",
        "reviews",
        to="v3",
        steps=[{"weight": 5, "for": "5s"}, {"weight": 25, "for": "3s"}, {"weight": 100}],
        gates={
            "errorRate": {"max": "5%", "minCalls": 10},
            "latency": {"quantile": "90%", "max": "300ms", "minCalls": 10},
        },
    )
    trouble = None if wrong == "nothing" else reviews.trouble(wrong)
    async with AsyncExitStack() as stack:
        op = await stack.enter_async_context(operator(nats_server.url, mesh_namespace))
        await op.put(
            document("Destination", "reviews", {"target": {"service": "reviews"}, "subsets": subsets}),
            document("Route", "reviews", {"target": {"service": "reviews"}, "rules": v1}),
        )
        for service in (
            load("ratings:v1"),
            load("details:v1"),
            reviews.make(1, None),
            reviews.make(3, "red", trouble),
            load("productpage:v1"),
        ):
            await stack.enter_async_context(Instance(service, settings=settings))
        web = await stack.enter_async_context(Mesh("web", settings=settings))
        runner = Runner(await stack.enter_async_context(Mesh("ci", settings=settings)))
        starting = Starting(op.mesh, by="ops")
        pages = Pages(web)
        marks: dict[str, float] = {}
        async with steady(pages.read, PER_S, "page") as asked, anyio.create_task_group() as tasks:
            begin = time.monotonic()
            await anyio.sleep(BEFORE_S)
            await starting.start(said)
            tasks.start_soon(runner.run)

            async def phase() -> Phase:
                entry = await starting.book.read("reviews")
                assert entry is not None
                now = entry.record.progress.phase
                marks.setdefault(str(now), time.monotonic())
                return now

            ended = await until(phase, lambda now: now.ended)
            await anyio.sleep(max(2.0, begin + ALL_S - time.monotonic()))
            rate = asked.rate()
            tasks.cancel_scope.cancel()
    stop = marks[str(ended)]
    names = asked.between(begin, begin + ALL_S)
    step = asked.between(marks["step"], stop)
    after = asked.between(stop + 1.5, begin + ALL_S)
    affected = pages.affected(names, asked.failed)
    figures: dict[str, Figure] = {
        "pages a second": round(rate, 1),
        "pages": len(names),
        "affected": len(affected),
        "affected share": round(len(affected) / len(names), 5),
        "pages from the first step to its end": len(step),
        "affected share of those": round(len(pages.affected(step, asked.failed)) / max(1, len(step)), 5),
        "seconds from the first step to the end": round(stop - marks["step"], 1),
    }
    for name, figure in figures.items():
        record_property(name, figure)
    if is_full_run():
        assert rate >= 0.9 * PER_S, f"void: {rate:.0f} pages a second instead of {PER_S:.0f}"
    assert len(affected) < AFFECTED * len(names)
    assert not pages.affected(after, asked.failed), "something is still wrong after it has ended"
    if wrong == "nothing":
        assert ended is Phase.PROMOTED
        assert not affected
        assert set(after) <= set(pages.red)
    else:
        assert ended is Phase.ROLLED_BACK
        assert not set(after) & set(pages.red)
    write_results(f"rollout_{wrong}", figures)


async def test_a_runner_that_is_killed_is_taken_over(
    nats_server: NatsServer, mesh_namespace: str, record_property: Record
) -> None:
    """`kill -9` in the middle of a step: another runner goes on in that step and finishes; not one call fails."""
    env = {"NATS_URL": nats_server.url, "MESH_NAMESPACE": mesh_namespace}
    steps = [{"weight": weight, "for": "4s"} for weight in (10, 50)]
    async with staged(nats_server.url, mesh_namespace) as stage, anyio.create_task_group() as tasks:
        web = await stage.caller()
        tasks.start_soon(stage.load, web, 100.0)
        with (
            Background(["rollout", "run", "--as", "first"], env) as first,
            Background(["rollout", "run", "--as", "second"], env) as second,
        ):
            for runner in (first, second):
                await anyio.to_thread.run_sync(runner.wait_for, "carries out rollouts")
            await stage.start(rollout(steps=steps))
            await stage.phase(Phase.STEP)
            await anyio.sleep(1.5)
            entry = await stage.entry()
            name = entry.record.holder.partition("/")[0]
            victim = {"first": first, "second": second}[name]
            victim.process.kill()
            killed = time.monotonic()
            taken = await until(stage.entry, lambda entry: not entry.record.holder.startswith(name))
            taken_s = time.monotonic() - killed
            before, after = entry.record.progress, taken.record.progress
            assert (after.phase, after.step, after.weight) == (Phase.STEP, before.step, before.weight)
            assert after.spent_s >= before.spent_s
            await stage.phase(Phase.PROMOTED)
        writers = await stage.writers()
        tasks.cancel_scope.cancel()
    figures: dict[str, Figure] = {
        "taken over after s": round(taken_s, 1),
        "calls": stage.calls,
        "failed": len(stage.failures),
    }
    for label, figure in figures.items():
        record_property(label, figure)
    assert taken_s <= TAKEN_S * SLACK
    assert stage.failures == []
    assert [message for _, message in writers] == [
        f"rollout shop: {share}% to v2" for share in (0, 10, 50, 100)
    ]
    assert len({operator for operator, _ in writers}) == 2
    write_results("rollout_runner_killed", figures)


async def test_a_runner_that_was_frozen_writes_nothing_when_it_wakes(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """SIGSTOP for longer than its lease: another runner goes on, and does what an operator wants. What the first one
    finds when it goes on is left as it is, in the record and in the route; it lives, and says what has become of it."""
    env = {"NATS_URL": nats_server.url, "MESH_NAMESPACE": mesh_namespace, "MESH_LOG": "warning"}
    steps = [{"weight": weight, "for": "1s"} for weight in range(1, 60)]
    async with staged(nats_server.url, mesh_namespace) as stage, anyio.create_task_group() as tasks:
        tasks.start_soon(stage.load, await stage.caller(), 100.0)
        with (
            Background(["rollout", "run", "--as", "first"], env) as first,
            Background(["rollout", "run", "--as", "second"], env) as second,
        ):
            for runner in (first, second):
                await anyio.to_thread.run_sync(runner.wait_for, "carries out rollouts")
            await stage.start(rollout(steps=steps, gates=None, interval=None))
            await until(stage.at, lambda at: at.step > 1)
            name = (await stage.entry()).record.holder.partition("/")[0]
            victim, other = (first, second) if name == "first" else (second, first)
            victim.process.send_signal(signal.SIGSTOP)
            try:
                await until(stage.entry, lambda entry: not entry.record.holder.startswith(name))
                await stage.starting.book.wish("shop", "abort", "ops", "enough")
                await stage.phase(Phase.ABORTED)
                ended = await until(stage.entry, lambda entry: not entry.record.holder)
                writers = await stage.writers()
            finally:
                victim.process.send_signal(signal.SIGCONT)
            await anyio.to_thread.run_sync(victim.wait_for, "somebody else carries it out now")
            await anyio.sleep(2.0)
            assert await stage.entry() == ended
            assert await stage.writers() == writers
            assert (await stage.route()) == [{"split": [{"subset": "v1"}]}]
            assert (victim.process.poll(), other.process.poll()) == (None, None)
        tasks.cancel_scope.cancel()
    assert stage.failures == []


async def test_a_new_version_that_dies_is_gone_back_from(
    nats_server: NatsServer, mesh_namespace: str, worker_factory: WorkerFactory, record_property: Record
) -> None:
    """`kill -9` of its only instance: no instance counts those calls, but their callers do; presence, which takes a
    quarter of a minute, is not waited for."""
    failed: list[float] = []
    async with AsyncExitStack() as stack:
        op = await stack.enter_async_context(operator(nats_server.url, mesh_namespace))
        settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace, plugins=False)
        subsets = {"v1": {"labels": {"version": "v1"}}, "v2": {"version": "1.0.0"}}
        spec = {"target": {"service": "work"}, "subsets": subsets, "retry": {"attempts": 1}}
        await op.put(document("Destination", "work", spec))
        await stack.enter_async_context(Instance(_old_work(), settings=settings))
        new = worker_factory(nats_server.url, mesh_namespace)
        web = await stack.enter_async_context(Mesh("web", settings=settings))
        runner = Runner(await stack.enter_async_context(Mesh("ci", settings=settings)))
        starting = Starting(op.mesh, by="ops")

        async def call(name: str) -> None:
            try:
                await web.call("work.do", name, returns=str)
            except CallError:
                failed.append(time.monotonic())
                raise

        async def phase() -> Phase:
            entry = await starting.book.read("work")
            assert entry is not None
            return entry.record.progress.phase

        async with steady(call, 100.0) as asked, anyio.create_task_group() as tasks:
            await starting.start(rollout("work", "work", steps=[{"weight": 10, "for": "1h"}]))
            tasks.start_soon(runner.run)
            await until(phase, lambda now: now is Phase.STEP)
            await anyio.sleep(2.5)
            assert not failed
            new.kill()
            killed = time.monotonic()
            assert await until(phase, lambda now: now.ended) is Phase.ROLLED_BACK
            back_s = time.monotonic() - killed
            await anyio.sleep(1.0)
            tasks.cancel_scope.cancel()
    figures: dict[str, Figure] = {
        "back after s": round(back_s, 1),
        "calls": len(asked.sent),
        "failed": len(failed),
    }
    for label, figure in figures.items():
        record_property(label, figure)
    assert back_s <= 5.0 * SLACK
    assert failed
    assert max(failed) < killed + back_s + 0.5
    write_results("rollout_instance_killed", figures)


def _old_work() -> Service:
    """What `work` was before: its instances are the other subset."""
    service = Service("work", version="0.9.0", labels={"version": "v1"})

    @service.endpoint(concurrency=4096)
    async def do(call: str) -> str:
        return call

    return service


async def test_while_the_store_is_away_nothing_changes(
    nats_cluster: NatsCluster, mesh_namespace: str, record_property: Record
) -> None:
    """Two of three servers die, and with them every write: calls go on as they are routed, and the rollout waits; it
    goes on in its step when the store is back."""
    leader = await nats_cluster.wait_ready()
    others = [server for server in nats_cluster.servers if server is not leader]
    steps = [{"weight": 20, "for": "6s"}, {"weight": 60, "for": "1s"}]
    async with staged(leader.url, mesh_namespace) as stage:
        web = await stage.caller()
        runner = await stage.runner("ci", lease_s=5.0, renew_s=0.5)
        async with anyio.create_task_group() as tasks:
            await stage.start(rollout(steps=steps))
            tasks.start_soon(runner.run)
            tasks.start_soon(stage.load, web, 100.0)
            await stage.phase(Phase.STEP)
            await anyio.sleep(1.0)
            spent_s = (await stage.at()).spent_s
            stage.failures.clear()
            for server in others:
                await server.kill()
            (carrier,) = runner.carried.values()
            with anyio.fail_after(30):
                while not carrier._waits:
                    await anyio.sleep(0.05)
            calls, away = stage.calls, time.monotonic()
            await anyio.sleep(float(scaled(8, 20)))
            assert carrier.course.progress.step == 0
            assert carrier.course.progress.spent_s < spent_s + 5.0  # a lease at most, and not the time away
            made, harmed = stage.calls - calls, len(stage.failures)
            for server in others:
                await server.restart()
            await nats_cluster.wait_ready()
            await stage.phase(Phase.PROMOTED)
            waited_s = time.monotonic() - away
            tasks.cancel_scope.cancel()
    figures: dict[str, Figure] = {
        "calls while it was away": made,
        "failed of those": harmed,
        "away and finished after s": round(waited_s, 1),
    }
    for label, figure in figures.items():
        record_property(label, figure)
    assert made > 300
    assert harmed == 0
    write_results("rollout_store_away", figures)


async def test_a_server_that_is_killed_and_restarted_holds_it_up(
    nats_server_factory: NatsServerFactory, mesh_namespace: str, tmp_path: Path
) -> None:
    """The whole bus is away for three seconds: whoever carries it out is still there afterwards, and finishes."""
    server = nats_server_factory(store_dir=tmp_path / "store")
    steps = [{"weight": 20, "for": "3s"}, {"weight": 60, "for": "1s"}]
    async with staged(server.url, mesh_namespace) as stage:
        runner = await stage.runner("ci", lease_s=5.0, renew_s=0.5)
        async with anyio.create_task_group() as tasks:
            await stage.start(rollout(steps=steps, gates=None, interval=None))
            tasks.start_soon(runner.run)
            await stage.phase(Phase.STEP)
            await server.kill()
            await anyio.sleep(3.0)
            await server.restart()

            async def read() -> Phase | None:
                with contextlib.suppress(MeshError):
                    return (await stage.at()).phase
                return None

            assert await until(read, lambda phase: phase is not None and phase.ended) is Phase.PROMOTED
            tasks.cancel_scope.cancel()
        messages = [message for _, message in await stage.writers()]
    assert messages == [f"rollout shop: {share}% to v2" for share in (0, 20, 60, 100)]

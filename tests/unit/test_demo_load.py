"""The demo's load generator and its ear on the bus, in virtual time on a bus in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from nats_mesh import Context, Service
from nats_mesh.core.registry import Change, ChangeKind
from nats_mesh.testing import LoopClock, MemoryMesh, run_virtual
from nats_mesh.wire.subjects import Subjects
from nats_mesh_cli.demo.load import Load
from nats_mesh_cli.demo.rows import service_rows
from nats_mesh_cli.demo.watch import BusWatch

Handler = Callable[[Context], Awaitable[Any]]
WHOLE = {"reviews": {"podname": "r1"}}


def productpage(answer: Handler) -> Service:
    """A page that `answer` makes."""
    service = Service("productpage", version="1.0.0")

    @service.endpoint(timeout=8.0)
    async def page(ctx: Context) -> Any:
        return await answer(ctx)

    return service


def load_on(
    *services: Service,
    rate_per_s: float,
    duration_s: float | None = 3.0,
    stop_after_s: float = 60.0,
    max_in_flight: int = 128,
) -> tuple[Load, list[str], float]:
    """Run a load against `services`; the load, the troubles it told, and how long it took."""

    async def scenario() -> tuple[Load, list[str], float]:
        troubles: list[str] = []
        async with MemoryMesh(*services, caller="web") as mesh:
            load = Load(
                mesh.mesh, rate_per_s=rate_per_s, on_trouble=troubles.append, max_in_flight=max_in_flight
            )
            stop = anyio.Event()
            start = anyio.current_time()
            async with anyio.create_task_group() as tasks:

                async def stop_later() -> None:
                    await anyio.sleep(stop_after_s)
                    stop.set()

                tasks.start_soon(stop_later)
                await load.run(stop, duration_s)
                tasks.cancel_scope.cancel()
            return load, troubles, anyio.current_time() - start

    return run_virtual(scenario)


async def whole(ctx: Context) -> Any:
    """A page with everything."""
    return WHOLE


def test_pages_are_asked_for_at_the_rate() -> None:
    """Ten a second for three seconds are thirty, all of them answered."""
    load, troubles, took_s = load_on(productpage(whole), rate_per_s=10.0)
    assert (load.calls, load.failed, load.degraded, load.skipped, load.in_flight) == (30, 0, 0, 0, 0)
    assert (troubles, load.reviewers) == ([], {"r1"})
    assert load.asked_s == took_s == pytest.approx(3.0)


def test_slow_answers_do_not_slow_the_load() -> None:
    """An open loop: what takes two seconds is asked for no less often, and waited for at the end."""

    async def slow(ctx: Context) -> Any:
        await anyio.sleep(2.0)
        return WHOLE

    load, _, took_s = load_on(productpage(slow), rate_per_s=10.0)
    assert (load.calls, load.skipped) == (30, 0)
    assert load.asked_s == pytest.approx(3.0)
    assert took_s == pytest.approx(4.9, abs=0.05)


def test_what_is_in_flight_is_bounded() -> None:
    """Beyond the bound pages are skipped and counted, never queued."""

    async def stuck(ctx: Context) -> Any:
        await anyio.sleep(5.0)
        return WHOLE

    load, _, _ = load_on(productpage(stuck), rate_per_s=100.0, duration_s=1.0, max_in_flight=5)
    assert (load.calls, load.skipped, load.failed) == (5, 95, 0)


def test_the_load_ends_when_it_is_told_to() -> None:
    """Without a duration it goes on until somebody stops it."""
    load, _, took_s = load_on(productpage(whole), rate_per_s=10.0, duration_s=None, stop_after_s=2.05)
    assert load.calls == 21
    assert took_s == pytest.approx(2.05)


def test_failures_are_counted_by_status() -> None:
    """A failed page is told, and as its handler ran there is no doubt that it arrived."""

    async def broken(ctx: Context) -> Any:
        raise ValueError("no")

    load, troubles, _ = load_on(productpage(broken), rate_per_s=10.0, duration_s=0.5)
    assert (load.calls, dict(load.statuses), load.unsent, load.unknown) == (5, {"INTERNAL": 5}, 0, 0)
    assert set(troubles) == {"a page failed: productpage.page: internal error (INTERNAL)"}


def test_what_reached_nobody_is_told_apart() -> None:
    """Without a productpage nothing was executed; with one that never answers nobody can say."""
    load, _, _ = load_on(rate_per_s=10.0, duration_s=0.5)
    assert (load.calls, load.unsent, load.unknown) == (5, 5, 0)

    async def silent(ctx: Context) -> Any:
        await anyio.sleep(60.0)

    load, _, _ = load_on(productpage(silent), rate_per_s=10.0, duration_s=0.5)
    assert (load.calls, load.unsent, load.unknown) == (5, 0, 5)
    assert dict(load.statuses) == {"DEADLINE_EXCEEDED": 5}


def test_a_page_that_lacks_a_part_is_no_success() -> None:
    """It is counted as degraded and told with what it lacks."""

    async def half(ctx: Context) -> Any:
        return {"errors": {"reviews": "sorry", "details": "sorry"}}

    load, troubles, _ = load_on(productpage(half), rate_per_s=10.0, duration_s=0.5)
    assert (load.degraded, load.failed, load.reviewers) == (5, 0, set())
    assert set(troubles) == {"a page came without its details and reviews"}


def test_every_fourth_page_has_a_user() -> None:
    """So that routes by `end-user` have something to match, and something not to."""
    users: list[str | None] = []

    async def note(ctx: Context) -> Any:
        users.append(ctx.headers.get("end-user"))
        return WHOLE

    load_on(productpage(note), rate_per_s=10.0, duration_s=0.8)
    assert users == [None, None, None, "jason"] * 2


# -- what the bus says -------------------------------------------------------------------------------------


async def watching(mesh: MemoryMesh, changes: list[Change]) -> BusWatch:
    """An observer on a bus."""
    watch = BusWatch(mesh.mesh, changes.append, LoopClock())
    await mesh.mesh.client.transport.fence()
    return watch


def test_settled_means_that_the_figures_are_of_now() -> None:
    """After it, the sums hold every call made before; leases are renewed for as long as it takes."""

    async def scenario() -> tuple[list[int], list[int]]:
        before, after = [], []
        async with MemoryMesh(caller="web") as mesh:
            watch = await watching(mesh, [])
            instance = await mesh.serve(productpage(whole))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch.run)
                for _ in range(4):
                    await anyio.sleep(3.0)
                    await mesh.call("productpage.page")
                    before.append(sum(row.served.requests for row in service_rows(watch.snapshot(), {})))
                    await watch.settled([("productpage", instance.id)])
                    after.append(sum(row.served.requests for row in service_rows(watch.snapshot(), {})))
                tasks.cancel_scope.cancel()
            watch.close()
        return before, after

    before, after = run_virtual(scenario)
    assert before == [0, 1, 2, 3]
    assert after == [1, 2, 3, 4]


def test_what_happens_right_after_a_join_is_told() -> None:
    """Who comes hears of the leases at once, not at their next renewal, until when it would tell nobody."""

    async def scenario() -> list[str]:
        told: list[str] = []
        async with MemoryMesh(caller="web") as mesh:
            watch = BusWatch(
                mesh.mesh, lambda _: None, LoopClock(), on_event=lambda event: told.append(event.kind)
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch.run)
                await anyio.sleep(0.5)
                instance = await mesh.serve(productpage(whole))
                await anyio.sleep(0.1)
                instance.events.emit("fault.set", "productpage", "by ann")
                await anyio.sleep(0.1)
                tasks.cancel_scope.cancel()
            watch.close()
        return told

    assert run_virtual(scenario) == ["fault.set"]


def test_joins_and_leaves_are_heard() -> None:
    """The registry follows, and who waits for news is woken."""

    async def scenario() -> list[str]:
        changes: list[Change] = []
        async with MemoryMesh(caller="web") as mesh:
            watch = await watching(mesh, changes)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(mesh.serve, productpage(whole))
                await watch.news()
            assert [each.service for each in watch.registry.instances()] == ["productpage"]
            await mesh.instances[0].drain()
            await mesh.mesh.client.transport.fence()
            watch.close()
        return [str(change.kind) for change in changes]

    kinds = run_virtual(scenario)
    assert (kinds[0], kinds[-1]) == (ChangeKind.JOINED, ChangeKind.GONE)


@pytest.mark.parametrize(
    ("reply", "payload"),
    [
        ("", b"{}"),
        ("_INBOX.someoneelse.c." + "0" * 32 + ".0", b"{}"),
        ("_INBOX.web.c." + "0" * 32 + ".0", b"not statistics"),
        ("_INBOX.web.c." + "0" * 32 + ".0", b"{}"),
    ],
)
def test_what_cannot_be_believed_is_ignored(reply: str, payload: bytes) -> None:
    """Statistics without their publisher's inbox, or that are none, change nothing and are counted."""

    async def scenario() -> tuple[int, int]:
        async with MemoryMesh(caller="web") as mesh:
            watch = await watching(mesh, [])
            transport = mesh.mesh.client.transport
            transport.publish(Subjects("default").telemetry("stats", "web", "x"), payload, reply)
            await transport.fence()
            watch.close()
            return watch.ignored, len(watch.heard())

    assert run_virtual(scenario) == (1, 0)

"""How handlers are run: at once and in order, until one waits; then alone in its task, to its end."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from nats_mesh.wire.eager import EagerPool, Held

pytestmark = pytest.mark.anyio

seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="")


class Kind:
    """What calls have in common."""

    def __init__(self) -> None:
        self.waits = False


class Call:
    """One piece of work: a coroutine function, and what became of it."""

    def __init__(self, kind: Kind, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.kind = kind
        self.work = work
        self.stop: Callable[[], object] | None = None
        self.outcome: Any = None


class Desk:
    """Does the work as the dispatcher does, and notes the order in which it ends."""

    def __init__(self) -> None:
        self.ended: list[Call] = []
        self.open = False

    def opened(self) -> None:
        self.open = True

    def rested(self) -> None:
        self.open = False

    def first(self, item: Call) -> Held | None:
        coroutine = item.work()
        try:
            return coroutine, coroutine.send(None)
        except StopIteration as end:
            self.done(item, end.value)
        except BaseException as error:  # noqa: BLE001 - as the dispatcher does
            self.failed(item, error)
        return None

    def held(self, item: Call, stop: Callable[[], object]) -> None:
        item.stop = stop

    def done(self, item: Call, result: Any) -> None:
        item.outcome = result
        self.ended.append(item)

    def failed(self, item: Call, error: BaseException) -> None:
        item.outcome = error
        self.ended.append(item)


@pytest.fixture
def desk() -> Desk:
    """Where the work is done."""
    return Desk()


@pytest.fixture
def broken() -> list[BaseException]:
    """What tasks died of."""
    return []


@pytest.fixture
async def pool(desk: Desk, broken: list[BaseException]) -> EagerPool[Call]:
    """What is tested."""
    return EagerPool(desk, broken.append)


async def at_once(value: str = "") -> str:
    """Work that need not wait."""
    return value


async def turns(count: int = 5) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_need_not_wait_ends_in_order_in_one_turn(pool: EagerPool[Call], desk: Desk) -> None:
    """A hundred calls that never wait are done together, in the order in which they came, by one task."""
    kind, tasks = Kind(), set[Any]()

    async def work() -> None:
        tasks.add(asyncio.current_task())

    calls = [Call(kind, work) for _ in range(100)]
    for call in calls:
        pool.push(call)
    assert len(pool) == 100
    await turns(2)
    assert desk.ended == calls
    assert len(tasks) == 1
    assert len(pool) == 0


async def test_the_task_that_took_calls_is_used_again(pool: EagerPool[Call], desk: Desk) -> None:
    """No task is made for a call that comes later and need not wait either."""
    tasks = set[Any]()

    async def work() -> None:
        tasks.add(asyncio.current_task())

    for _ in range(10):
        pool.push(Call(Kind(), work))
        await turns()
    assert len(desk.ended) == 10
    assert len(tasks) == 1


async def test_who_waits_keeps_its_task_to_itself(pool: EagerPool[Call], desk: Desk) -> None:
    """Before and after it waited, a call has one and the same current task, and nobody else has it from then on."""
    release, tasks = asyncio.Event(), dict[str, list[Any]]()

    def work(name: str) -> Callable[[], Coroutine[Any, Any, None]]:
        async def run() -> None:
            tasks[name] = [asyncio.current_task()]
            await release.wait()
            tasks[name].append(asyncio.current_task())

        return run

    names = ["a", "b", "c"]
    for name in names:
        pool.push(Call(Kind(), work(name)))
    await turns(10)
    assert sorted(tasks) == names
    assert len(pool) == 3
    release.set()
    await turns()
    assert all(before is after for before, after in tasks.values())
    assert len({id(task[0]) for task in tasks.values()}) == 3
    assert len(desk.ended) == 3


async def test_one_that_waits_holds_nobody_up(pool: EagerPool[Call], desk: Desk) -> None:
    """Those behind it in the queue run while it waits, and so do those that come later."""
    release = asyncio.Event()
    slow = Call(Kind(), release.wait)
    quick = [Call(Kind(), at_once) for _ in range(3)]
    pool.push(slow)
    for call in quick:
        pool.push(call)
    await turns(10)
    assert desk.ended == quick
    pool.push(late := Call(Kind(), at_once))
    await turns()
    assert desk.ended == [*quick, late]
    release.set()
    await turns()
    assert desk.ended == [*quick, late, slow]


async def test_a_burst_of_what_waits_begins_in_few_turns(pool: EagerPool[Call]) -> None:
    """Once a kind is known to wait, all of its queued calls get their tasks in one turn of the loop."""
    kind, begun = Kind(), []

    async def work() -> None:
        begun.append(1)
        await asyncio.Event().wait()

    for _ in range(200):
        pool.push(Call(kind, work))
    await turns(6)
    assert len(begun) == 200
    for task in pool.tasks:
        task.cancel()
    await turns()


async def test_a_kind_that_stops_waiting_is_run_at_once_again(pool: EagerPool[Call], desk: Desk) -> None:
    """What is known of a kind is what its last call did."""
    kind = Kind()
    pool.push(Call(kind, lambda: asyncio.sleep(0)))
    await turns(10)
    known = [kind.waits]
    pool.push(Call(kind, at_once))
    await turns(10)
    assert [*known, kind.waits] == [True, False]
    assert len(desk.ended) == 2


async def test_no_call_sees_the_variables_of_another(pool: EagerPool[Call], desk: Desk) -> None:
    """Each has a context of its own, the first step and all later ones, whoever runs it."""

    def work(name: str, wait: bool) -> Callable[[], Coroutine[Any, Any, list[str]]]:
        async def run() -> list[str]:
            found = [seen.get()]
            seen.set(name)
            if wait:
                await asyncio.sleep(0)
                found.append(seen.get())
                await asyncio.sleep(0)
                found.append(seen.get())
            return found

        return run

    calls = [Call(Kind(), work(str(n), wait=n % 3 == 0)) for n in range(12)]
    for call in calls:
        pool.push(call)
    await turns(20)
    assert [call.outcome for call in calls] == [
        ["", str(n), str(n)] if n % 3 == 0 else [""] for n in range(12)
    ]
    assert seen.get() == ""


async def test_stopping_one_stops_no_other(pool: EagerPool[Call], desk: Desk) -> None:
    """A call is cancelled where it waits; those that shared its task before, or run beside it, are untouched."""
    release = asyncio.Event()
    before = Call(Kind(), at_once)
    victim = Call(Kind(), release.wait)
    other = Call(Kind(), release.wait)
    for call in (before, victim, other):
        pool.push(call)
    await turns(10)
    assert victim.stop is not None
    victim.stop()
    await turns()
    assert isinstance(victim.outcome, asyncio.CancelledError)
    pool.push(after := Call(Kind(), lambda: at_once("after")))
    release.set()
    await turns()
    assert (other.outcome, after.outcome) == (True, "after")


async def test_who_shields_itself_from_being_stopped_ends_as_it_likes(pool: EagerPool[Call]) -> None:
    """The cancellation is raised inside the handler, which may answer with something else."""

    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return "cleaned up"
        return "never"

    call = Call(Kind(), stubborn)
    pool.push(call)
    await turns()
    assert call.stop is not None
    call.stop()
    await turns()
    assert call.outcome == "cleaned up"


@pytest.mark.parametrize("wait", [False, True])
async def test_scopes_timeouts_and_groups_work_from_the_first_step_on(
    pool: EagerPool[Call], wait: bool
) -> None:
    """asyncio's and anyio's structures bind to the current task at once; it is the right one before and after."""

    async def work() -> list[str]:
        done = []
        async with asyncio.timeout(5):
            if wait:
                await asyncio.sleep(0)
            done.append("timeout")
        with anyio.move_on_after(0.001 if wait else 5) as scope:
            if wait:
                await anyio.sleep_forever()
        done.append("cancelled" if scope.cancelled_caught else "scope")
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(0))
        done.append("groups")
        return done

    call = Call(Kind(), work)
    pool.push(call)
    with anyio.fail_after(5):
        await pool.join(5)
    assert call.outcome == ["timeout", "cancelled" if wait else "scope", "groups"]


async def test_what_a_call_raises_is_its_own_affair(
    pool: EagerPool[Call], desk: Desk, broken: list[BaseException]
) -> None:
    """At the first step or later: the others go on, and no task dies."""

    def work(error: BaseException, wait: bool) -> Callable[[], Coroutine[Any, Any, None]]:
        async def run() -> None:
            if wait:
                await asyncio.sleep(0)
            raise error

        return run

    errors = [ValueError("1"), SystemExit(2), asyncio.CancelledError(), ValueError("4"), SystemExit(5)]
    calls = [Call(Kind(), work(error, wait=n > 2)) for n, error in enumerate(errors)]
    for call in [*calls, Call(Kind(), at_once)]:
        pool.push(call)
    await turns(20)
    assert [call.outcome for call in calls] == errors
    assert len(desk.ended) == 6
    assert broken == []


async def test_joining_waits_for_what_runs_and_for_what_has_not_begun(pool: EagerPool[Call]) -> None:
    """It returns when the last call is over, and says so where one is not in time."""
    release = asyncio.Event()
    assert await pool.join(0)
    pool.push(Call(Kind(), release.wait))
    pool.push(Call(Kind(), at_once))
    assert not await pool.join(0.01)
    asyncio.get_running_loop().call_soon(release.set)
    assert await pool.join(5)
    assert len(pool) == 0
    pool.push(Call(Kind(), at_once))
    assert await pool.join(5)


async def test_closing_leaves_no_task_and_a_later_call_still_runs(pool: EagerPool[Call], desk: Desk) -> None:
    """The task that waits for calls ends; whoever comes after all is served by another."""
    before = len(asyncio.all_tasks())
    pool.push(Call(Kind(), at_once))
    await turns()
    assert len(asyncio.all_tasks()) == before + 1
    pool.close()
    await turns()
    assert len(asyncio.all_tasks()) == before
    pool.push(Call(Kind(), at_once))
    await turns()
    assert len(desk.ended) == 2
    pool.close()
    pool.push(Call(Kind(), at_once))  # before the task that was told to end has ended
    await turns()
    assert len(desk.ended) == 3


async def test_a_broken_desk_stops_nothing(desk: Desk, broken: list[BaseException]) -> None:
    """Where what must not raise raises all the same, that is reported, and the queue goes on."""

    class Faulty(Desk):
        def first(self, item: Call) -> Held | None:
            if item.outcome == "fault":
                raise RuntimeError("this should not be")
            return super().first(item)

    faulty = Faulty()
    pool: EagerPool[Call] = EagerPool(faulty, broken.append)
    bad, good = Call(Kind(), at_once), Call(Kind(), at_once)
    bad.outcome = "fault"
    pool.push(bad)
    pool.push(good)
    await turns(10)
    assert [str(error) for error in broken] == ["this should not be"]
    assert faulty.ended == [good]


async def test_those_that_have_not_begun_are_known(pool: EagerPool[Call]) -> None:
    """In the queue, or with a task that has not made its first step: a cancellation must find them."""
    waiting = Kind()
    waiting.waits = True
    first, second = Call(waiting, at_once), Call(Kind(), at_once)
    pool.push(first)
    pool.push(second)
    assert list(pool.unstarted()) == [first, second]
    await asyncio.sleep(0)
    assert list(pool.unstarted()) == [first]
    await turns()
    assert list(pool.unstarted()) == []


async def test_a_pool_that_is_dropped_closes_its_handlers(pool: EagerPool[Call]) -> None:
    """A coroutine that waits when its task is thrown away is closed: its cleaning up runs."""
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    pool.push(Call(Kind(), work))
    await turns()
    [task] = pool.tasks
    task.cancel()
    await turns()
    del task
    gc.collect()
    assert cleaned == [True]

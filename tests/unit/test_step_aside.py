"""Instances that step aside where callers agree: only while others serve, never too many, and back in time."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import pytest

from nats_mesh import ApplicationError, CallError, CircuitOpenError, Context, Mesh, Service, Status
from nats_mesh.calling.verdicts import Verdict
from nats_mesh.core.presence import State
from nats_mesh.policy import PolicySet, parse
from nats_mesh.serving.instance import Instance
from nats_mesh.testing import MemoryMesh, run_virtual

BASE_S = 10.0
#: Until an instance has surely heard all the others beat, seconds.
KNOWN_S = 7.0


def policies(ejection: str = "verdicts: {callers: 3, window: 30s, drain: true}", rest: str = "") -> PolicySet:
    """As `policies/fleet-wide-ejection.yaml` has it."""
    return PolicySet.of(
        parse(
            "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: pool}\n"
            f"spec: {{target: {{service: pool}}, balancer: least_request, ejection: {{{ejection}}}{rest}}}\n"
        )
    )


def pool(name: str, rules: PolicySet, broken: set[str]) -> Service:
    """An instance with this name, which fails while it is in ``broken``."""
    service = Service("pool", version="1.0.0", instance=name, policies=rules)

    @service.endpoint()
    async def work(ctx: Context) -> str:
        if ctx.instance in broken:
            raise ApplicationError("the database is gone", status=Status.INTERNAL)
        return ctx.instance

    return service


async def served(
    mesh: MemoryMesh, names: str, rules: PolicySet, broken: set[str] | None = None
) -> list[Instance]:
    """These instances, once they know each other."""
    instances = [await mesh.serve(pool(each, rules, broken or set())) for each in names]
    await asyncio.sleep(KNOWN_S)
    return instances


def call_bad(callers: Sequence[Mesh], names: str) -> None:
    """Each of the callers says so of each of the instances, at once."""
    for name in names:
        for caller in callers:
            caller.client.opinions._post.say("pool", name, Verdict(verdict="bad", reason="test"))


def kinds(instance: Instance) -> list[str]:
    """What it told about stepping aside."""
    return [each.kind for each in instance.events.recent if each.kind.startswith("verdict.")]


def ready(instances: Sequence[Instance]) -> str:
    """The names of those that take calls."""
    return "".join(each.id for each in instances if each.state is State.READY)


async def least_ready(instances: Sequence[Instance], for_s: float, every_s: float = 0.001) -> int:
    """How many took calls when the fewest did."""
    least = len(instances)
    for _ in range(round(for_s / every_s)):
        await asyncio.sleep(every_s)
        least = min(least, len(ready(instances)))
    return least


def in_mesh(main: Callable[[MemoryMesh, list[Mesh]], Awaitable[None]], callers: str = "xyz") -> None:
    """Run ``main`` with so many callers."""

    async def run() -> None:
        async with MemoryMesh() as mesh:
            made = [mesh.client(name) for name in callers]
            for each in made:
                await each.__aenter__()
            try:
                await main(mesh, made)
            finally:
                for each in made:
                    await each.__aexit__(None, None, None)

    run_virtual(run)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_broken_database_takes_nobody_away(count: int) -> None:
    """All instances fail: callers agree about one after the other, and the service is there all the time, to say
    what is wrong. No call meets an empty queue group."""

    async def run() -> None:
        rules = policies()
        names = "abc"[:count]
        async with MemoryMesh() as mesh:
            instances = await served(mesh, names, rules, set(names))
            found: Counter[str] = Counter()

            async def call(name: str) -> None:
                async with mesh.client(name, policies=rules) as caller:
                    for _ in range(600):
                        try:
                            await caller.call("pool.work")
                        except CallError as error:
                            found["open" if isinstance(error, CircuitOpenError) else error.status] += 1
                        await asyncio.sleep(0.1)

            async with asyncio.TaskGroup() as tasks:
                for number in range(6):
                    tasks.create_task(call(f"web{number}"))
                least = await tasks.create_task(least_ready(instances, 60.0, 0.01))
            assert least >= 1
            assert found.keys() <= {"open", Status.INTERNAL}
            if count == 1:
                assert kinds(instances[0]) == [], "callers that know one instance alone say nothing"

    run_virtual(run)


def test_the_only_instance_stays_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever callers agree about: an event and the log tell why, and calls are answered."""
    caplog.set_level(logging.WARNING, "nats_mesh.verdicts")

    async def main(mesh: MemoryMesh, callers: list[Mesh]) -> None:
        (instance,) = await served(mesh, "a", policies())
        for _ in range(8):
            call_bad(callers, "a")
            await asyncio.sleep(1.0)
            assert instance.state is State.READY
            assert await callers[0].call("pool.work", returns=str) == "a"
        events = [each for each in instance.events.recent if each.kind == "verdict.stays"]
        assert len(events) == 8
        assert (
            events[0].detail == "stays: nobody else serves, though 3 callers (x, y, z) agree that it is bad"
        )
        assert kinds(instance) == ["verdict.stays"] * 8
        said = [each.getMessage() for each in caplog.records]
        assert len(said) == 4, "the first time, the second, the fourth, the eighth"
        assert "pool stays: nobody else serves" in said[0]

    in_mesh(main)


def test_of_two_that_are_called_bad_at_once_one_goes() -> None:
    """And not one moment passes in which nobody serves. After its time it is back."""

    async def main(mesh: MemoryMesh, callers: list[Mesh]) -> None:
        instances = await served(mesh, "ab", policies())
        call_bad(callers, "ab")
        assert await least_ready(instances, 5.0) == 1
        assert ready(instances) == "b", "who comes first by id goes first"
        await asyncio.sleep(BASE_S)
        assert ready(instances) == "ab"
        assert kinds(instances[0]) == ["verdict.aside", "verdict.back"]
        assert kinds(instances[1]) == ["verdict.stays"]

    in_mesh(main)


def test_two_that_went_before_they_heard_of_each_other_return() -> None:
    """On a bus so slow that turns do not help, it lasts no longer than the news is on its way."""

    async def main(mesh: MemoryMesh, callers: list[Mesh]) -> None:
        instances = await served(mesh, "ab", policies())
        mesh.bus.fault = lambda subject, publisher: 0.3 if ".presence." in subject else None
        call_bad(callers, "ab")
        await asyncio.sleep(0.2)
        assert ready(instances) == ""
        await asyncio.sleep(0.2)
        assert ready(instances) != ""
        await asyncio.sleep(1.0)
        assert await least_ready(instances, 5.0) >= 1

    in_mesh(main)


@pytest.mark.parametrize(("ratio", "most"), [("0%", 1), ("50%", 2), ("60%", 3), ("100%", 4)])
def test_no_more_than_the_share_go(ratio: str, most: int) -> None:
    """Of five that are all called bad: as many as ``maxRatio`` says, one at least, and never all."""

    async def main(mesh: MemoryMesh, callers: list[Mesh]) -> None:
        rules = policies(f"maxRatio: {ratio}, verdicts: {{callers: 3, drain: true}}")
        instances = await served(mesh, "abcde", rules)
        call_bad(callers, "edcba")
        assert await least_ready(instances, 5.0) == 5 - most
        assert len(ready(instances)) == 5 - most

    in_mesh(main)


def test_it_returns_before_its_time_when_the_others_stop_to_serve() -> None:
    """Who steps aside does so only as long as others serve, however they stop."""

    async def main(mesh: MemoryMesh, callers: list[Mesh]) -> None:
        instances = await served(mesh, "abc", policies())
        call_bad(callers, "a")
        await asyncio.sleep(1.0)
        assert ready(instances) == "bc"
        await instances[1].stand_aside("an operator wants it")
        await asyncio.sleep(0.1)
        assert ready(instances) == "c"
        await instances[2].drain()
        await asyncio.sleep(0.1)
        assert ready(instances) == "a"
        back = [each for each in instances[0].events.recent if each.kind == "verdict.back"]
        assert [each.detail for each in back] == ["no longer aside: nobody else serves"]

    in_mesh(main)


def test_who_is_silent_does_not_serve() -> None:
    """An instance that is frozen or cut off is nobody to rely on once two beats are missed."""

    async def main(mesh: MemoryMesh, callers: list[Mesh]) -> None:
        (first, _) = await served(mesh, "ab", policies())
        mesh.bus.fault = lambda subject, publisher: "drop" if subject.endswith(".presence.pool.b") else None
        await asyncio.sleep(14.0)
        call_bad(callers, "a")
        await asyncio.sleep(1.0)
        assert (first.state, kinds(first)) == (State.READY, ["verdict.stays"])

    in_mesh(main)


def test_a_policy_that_ends_it_counts_at_once() -> None:
    """Who waits for its turn does not go any more; who is aside comes back in its time."""

    async def main(mesh: MemoryMesh, callers: list[Mesh]) -> None:
        instances = await served(mesh, "abc", policies("maxRatio: 100%, verdicts: {callers: 3, drain: true}"))
        call_bad(callers, "ac")
        await asyncio.sleep(0.01)
        assert ready(instances) == "bc"
        for each in instances:
            each._follow(policies("verdicts: off"))
        assert await least_ready(instances, 5.0) == 2
        await asyncio.sleep(BASE_S)
        assert ready(instances) == "abc"
        assert kinds(instances[2]) == []
        assert all(each._parts.peers is not None and not each._parts.peers.watching for each in instances)
        call_bad(callers, "a")
        await asyncio.sleep(1.0)
        assert ready(instances) == "abc"

    in_mesh(main)


def test_one_replica_does_not_take_back_what_another_said() -> None:
    """Two of a caller's replicas found it bad, one finds it well again: with two more callers that makes three."""

    async def main(mesh: MemoryMesh, callers: list[Mesh]) -> None:
        instances = await served(mesh, "ab", policies())
        first, second, y, z = callers
        call_bad([first, second, y], "b")
        first.client.opinions._post.say("pool", "b", Verdict(verdict="well"))
        await asyncio.sleep(0.1)
        assert ready(instances) == "ab", "two callers"
        call_bad([z], "b")
        await asyncio.sleep(0.1)
        assert ready(instances) == "a"
        await asyncio.sleep(BASE_S)
        call_bad([first, y], "b")
        first.client.opinions._post.say("pool", "b", Verdict(verdict="well"))
        call_bad([z], "b")
        await asyncio.sleep(1.0)
        assert ready(instances) == "ab", "nobody of that name says so any more"

    in_mesh(main, "xxyz")

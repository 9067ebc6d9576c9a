"""Fleet-wide ejection: callers that agree take an instance out for everybody; fewer never do."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Literal

import anyio
import pytest

from nats_mesh import ApplicationError, CallError, Context, Mesh, Service, Status
from nats_mesh.calling.saying import Verdict, _encode
from nats_mesh.core.presence import State
from nats_mesh.serving.instance import Instance
from tests.harness import Bus, eventually, policies
from tests.tools import ROOT

pytestmark = pytest.mark.anyio

POLICY = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: pool}
spec:
  target: {service: pool}
  balancer: round_robin
  breaker: off
  retry: {attempts: 1}
  ejection: {consecutive: 2, base: 60s, verdicts: {callers: 3, window: 30s}}
"""


def pool(failing: set[str]) -> Service:
    """A service whose named instances fail every call."""
    service = Service("pool", version="1.0.0")

    @service.endpoint()
    async def who(ctx: Context) -> str:
        if ctx.instance in failing:
            raise ApplicationError("broken", status=Status.INTERNAL)
        return ctx.instance

    return service


async def fail_twice(caller: Mesh, instance: str) -> None:
    """Call until this caller has ejected ``instance`` by its own judgement."""
    while not caller.client._targets["pool.who"].balance.group.ejector.is_ejected(  # type: ignore[union-attr]  # there is one here
        instance, caller._clock.monotonic()
    ):
        try:
            await caller.call("pool.who")
        except CallError:
            pass


def ejected(caller: Mesh, instance: str) -> bool:
    """Whether ``caller`` leaves it out now."""
    group = caller.client._targets["pool.who"].balance
    assert group is not None
    return group.group.ejector.is_ejected(instance, caller._clock.monotonic())


async def opened(bus: Bus, tmp_path: Path, names: list[str], count: int, text: str = POLICY) -> list[Mesh]:
    """Callers that know all the instances, and have each other's ear."""
    folder = policies(tmp_path, text)
    callers = [await bus.caller(name, policies=folder) for name in names]
    for caller in callers:
        await caller.call("pool.who")
        await eventually(lambda c=caller: len(c.client.fleets.fleet("pool").instances()) == count)  # type: ignore[misc]  # a default holds what the loop's variable is now
    for caller in callers:
        await caller.client.transport.fence()
    return callers


async def test_callers_that_agree_eject_for_all(bus: Bus, tmp_path: Path) -> None:
    """Three of four have seen it fail: the fourth, who never did, leaves it out as well; two are not enough."""
    failing: set[str] = set()
    instances = [await bus.serve(pool(failing)) for _ in range(4)]
    bad = instances[1].id
    *witnesses, bystander = await opened(bus, tmp_path, ["a", "b", "c", "d"], 4)
    failing.add(bad)
    for witness in witnesses[:2]:
        await fail_twice(witness, bad)
    for caller in (*witnesses, bystander):
        await caller.client.transport.fence()
    assert not ejected(bystander, bad)
    assert not ejected(witnesses[2], bad)
    await fail_twice(witnesses[2], bad)
    await eventually(lambda: ejected(bystander, bad))
    found = collections.Counter([await bystander.call("pool.who", returns=str) for _ in range(30)])
    assert bad not in found


async def test_one_caller_counts_once(bus: Bus, tmp_path: Path) -> None:
    """However often it repeats itself, and whatever name stands in the body: identity is the subject's last token."""
    instances = [await bus.serve(pool(set())) for _ in range(3)]
    bad = instances[0].id
    (bystander, loud) = await opened(bus, tmp_path, ["a", "loud"], 3)
    for _ in range(10):
        loud.client.opinions._post.say("pool", bad, Verdict(verdict="bad", reason="because"))
    await loud.client.transport.fence()
    await bystander.client.transport.fence()
    assert not ejected(bystander, bad)


async def test_a_forged_verdict_is_dropped(bus: Bus, tmp_path: Path) -> None:
    """What has not its publisher's own inbox, is malformed, or names nobody counts for nothing."""
    instances = [await bus.serve(pool(set())) for _ in range(3)]
    bad = instances[0].id
    (bystander, loud) = await opened(bus, tmp_path, ["a", "loud"], 3)
    transport, subjects = loud.client.transport, loud.client.subjects
    body = _encode(Verdict(verdict="bad"))
    inbox = loud.client.mux.one_way("x")
    for number in range(5):
        transport.publish(subjects.verdict("pool", bad, f"other{number}"), body, inbox)
        transport.publish(subjects.verdict("pool", bad, f"other{number}"), body, "")
    for junk in (b"", b"{", b"[]", b'{"verdict": "awful"}', b"x" * 5000):
        transport.publish(subjects.verdict("pool", bad, "loud"), junk, inbox)
    await transport.fence()
    await eventually(lambda: bystander.client.opinions.dropped == 15)
    assert not ejected(bystander, bad)


async def test_an_instance_steps_aside(bus: Bus, tmp_path: Path) -> None:
    """Where the policy says drain, an instance that callers agree about leaves its queue group, and comes back."""
    text = POLICY.replace("base: 60s", "base: 300ms").replace("window: 30s", "window: 30s, drain: true")
    failing: set[str] = set()
    folder = policies(tmp_path, text)
    service = pool(failing)
    service.policies = folder
    first = await bus.serve(service)
    others = [await bus.serve(pool(failing)) for _ in range(2)]
    callers = await opened(bus, tmp_path, ["a", "b", "c"], 3, text)
    states: list[State] = []
    for caller in callers:
        caller.client.opinions._post.say("pool", first.id, Verdict(verdict="bad", reason="test"))
        await caller.client.transport.fence()
    await eventually(lambda: states.append(first.state) or first.state is not State.READY)  # type: ignore[func-returns-value]  # it returns nothing, and so goes on
    await eventually(lambda: first.state is State.READY)
    assert all(each.state is State.READY for each in others)
    with anyio.fail_after(5):
        while first.id not in {await callers[0].call("pool.who", returns=str) for _ in range(9)}:
            await anyio.sleep(0.02)


SHIPPED = (ROOT / "policies" / "fleet-wide-ejection.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("count", [1, 2])
async def test_as_shipped_a_broken_database_ends_no_service(bus: Bus, tmp_path: Path, count: int) -> None:
    """Every instance fails every call, and three callers see it: all the same somebody always answers."""
    text = SHIPPED.replace("service: shipping", "service: pool") + "  breaker: off\n"
    failing: set[str] = set()
    folder = policies(tmp_path, text)
    instances: list[Instance] = []
    for _ in range(count):
        service = pool(failing)
        service.policies = folder
        instances.append(await bus.serve(service))
    for each in instances:
        await eventually(lambda i=each: sum(map(len, i._parts.peers.others())) == count - 1)  # type: ignore[misc]  # a default holds what the loop's variable is now
    callers = await opened(bus, tmp_path, ["a", "b", "c", "d"], count, text)
    failing |= {each.id for each in instances}
    for _ in range(40):
        for caller in callers:
            with pytest.raises(CallError) as caught:
                await caller.call("pool.who")
            assert caught.value.status is Status.INTERNAL
        assert any(each.state is State.READY for each in instances)
    told = {event.kind for each in instances for event in each.events.recent}
    assert told <= ({"verdict.aside", "verdict.stays", "instance.draining"} if count > 1 else set())
    assert any(event.kind == "ejection.began" for each in callers for event in each.events.recent)


async def test_a_replica_takes_back_only_its_own_word(bus: Bus, tmp_path: Path) -> None:
    """Of two replicas of one caller one ejects an instance and the other finds it well again: with two more callers
    the fleet agrees."""
    instances = [await bus.serve(pool(set())) for _ in range(3)]
    bad = instances[0].id
    bystander, first, second, b, c = await opened(bus, tmp_path, ["d", "a", "a", "b", "c"], 3)

    async def say(caller: Mesh, verdict: Literal["bad", "well"]) -> None:
        caller.client.opinions._post.say("pool", bad, Verdict(verdict=verdict))
        await caller.client.transport.fence()
        await bystander.client.transport.fence()

    for caller in (first, second, b):
        await say(caller, "bad")
    assert not ejected(bystander, bad), "they are two callers"
    await say(second, "well")
    await say(c, "bad")
    await eventually(lambda: ejected(bystander, bad))


async def test_without_the_policy_nobody_is_told(bus: Bus, tmp_path: Path) -> None:
    """A caller whose policy asks for no verdicts neither speaks nor listens."""
    failing: set[str] = set()
    instances: list[Instance] = [await bus.serve(pool(failing)) for _ in range(3)]
    bad = instances[0].id
    quiet = POLICY.replace(", verdicts: {callers: 3, window: 30s}", "")
    (caller,) = await opened(bus, tmp_path, ["a"], 3, quiet)
    group = caller.client._targets["pool.who"].balance
    assert group is not None
    assert group.group.on_own_ejection is None
    failing.add(bad)
    await fail_twice(caller, bad)
    assert ejected(caller, bad)

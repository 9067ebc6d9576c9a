"""Calls to chosen instances: balanced, ejected, hedged, and never worse off than with the queue group."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import anyio
import pytest

from nats_mesh import ApplicationError, CallError, Context, Mesh, Service, Status
from nats_mesh.serving.instance import Instance
from nats_mesh.wire.transport import Subscription
from tests.harness import PATIENCE_S, Bus, eventually, policies

pytestmark = pytest.mark.anyio


class Fleet:
    """Instances of one service, each of which can be told to fail or to hang."""

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.failing: set[str] = set()
        self.hanging: set[str] = set()
        self.stopped = 0

    def service(self, labels: dict[str, str] | None = None) -> Service:
        """One more of them."""
        service = Service("pool", version="1.0.0", labels=labels or {})

        @service.endpoint(idempotent=True)
        async def who(ctx: Context) -> str:
            if ctx.instance in self.failing:
                raise ApplicationError("broken", status=Status.INTERNAL)
            if ctx.instance in self.hanging:
                try:
                    await anyio.sleep_forever()
                finally:
                    self.stopped += 1
            return ctx.instance

        return service

    async def start(self, bus: Bus, count: int, labels: dict[str, str] | None = None) -> list[str]:
        """``count`` more of them; their ids."""
        started = [await bus.serve(self.service(labels)) for _ in range(count)]
        self.instances |= {each.id: each for each in started}
        return [each.id for each in started]


def destination(**spec: str) -> str:
    """A policy for the pool."""
    lines = "\n".join(f"  {name}: {text}" for name, text in spec.items())
    head = (
        "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: pool}\nspec:\n  target: {service: pool}\n"
    )
    return f"{head}{lines}\n"


async def ready(caller: Mesh, count: int) -> None:
    """Return once ``caller`` knows so many instances of the pool."""
    await caller.call("pool.who")
    await eventually(lambda: len(caller.client.fleets.fleet("pool").instances()) == count)
    await caller.call("pool.who")


async def spread(caller: Mesh, calls: int) -> collections.Counter[str]:
    """Who answered how many of so many calls, one after another."""
    return collections.Counter([await caller.call("pool.who", returns=str) for _ in range(calls)])


async def test_round_robin(bus: Bus, tmp_path: Path) -> None:
    """Two instances, a hundred calls: the same number each."""
    fleet = Fleet()
    ids = await fleet.start(bus, 2)
    caller = await bus.caller("cart", policies=policies(tmp_path, destination(balancer="round_robin")))
    await ready(caller, 2)
    found = await spread(caller, 100)
    assert abs(found[ids[0]] - found[ids[1]]) <= 1


@pytest.mark.parametrize(
    "balancer", ["round_robin", "random", "least_request", "{name: peak_ewma, ewmaDecay: 1ms}"]
)
async def test_everybody_gets_calls(bus: Bus, tmp_path: Path, balancer: str) -> None:
    """Four instances: each of them answers, whoever chooses."""
    fleet = Fleet()
    ids = await fleet.start(bus, 4)
    caller = await bus.caller("cart", policies=policies(tmp_path, destination(balancer=balancer)))
    await ready(caller, 4)
    assert (await spread(caller, 200)).keys() == set(ids)


@pytest.mark.parametrize(
    "balancer", ["round_robin", "random", "least_request", "{name: consistent_hash, header: X-User}"]
)
async def test_shares_go_by_the_label_weight(bus: Bus, tmp_path: Path, balancer: str) -> None:
    """Of two instances with 1 and 4 the second gets four fifths of the calls, and it is the caller who says so."""
    fleet = Fleet()
    (light,) = await fleet.start(bus, 1)
    (heavy,) = await fleet.start(bus, 1, {"weight": "4"})
    caller = await bus.caller("cart", policies=policies(tmp_path, destination(balancer=balancer)))
    await ready(caller, 2)
    calls = 1_000
    found = collections.Counter(
        [
            await caller.call("pool.who", returns=str, headers={"X-User": f"user {number}"})
            for number in range(calls)
        ]
    )
    assert found.keys() == {light, heavy}
    assert found[heavy] / calls == pytest.approx(0.8, abs=0.08)


async def test_the_first_call_waits_for_nobody(bus: Bus, tmp_path: Path) -> None:
    """While nothing is known of the instances, the queue group takes the calls."""
    fleet = Fleet()
    await fleet.start(bus, 2)
    caller = await bus.caller("cart", policies=policies(tmp_path, destination(balancer="least_request")))
    assert await caller.call("pool.who", returns=str) in fleet.instances


async def test_the_same_key_goes_to_the_same_instance(bus: Bus, tmp_path: Path) -> None:
    """Hashed by a header: one instance a key, and several keys use several instances."""
    fleet = Fleet()
    await fleet.start(bus, 4)
    text = destination(balancer="{name: consistent_hash, header: X-User}")
    caller = await bus.caller("cart", policies=policies(tmp_path, text))
    await ready(caller, 4)
    found: dict[str, set[str]] = {}
    for _ in range(5):
        for user in "abcdefghijkl":
            answered = await caller.call("pool.who", returns=str, headers={"X-User": user})
            found.setdefault(user, set()).add(answered)
    assert all(len(instances) == 1 for instances in found.values())
    assert len({next(iter(instances)) for instances in found.values()}) > 1


async def test_a_failing_instance_is_ejected_and_comes_back(bus: Bus, tmp_path: Path) -> None:
    """Of five, one fails: the other four take the calls; once it is well and its time is over, all five do."""
    fleet = Fleet()
    ids = await fleet.start(bus, 5)
    text = destination(
        balancer="round_robin",
        ejection="{consecutive: 2, base: 300ms, max: 300ms}",
        retry="{attempts: 1}",
        breaker="off",
    )
    caller = await bus.caller("cart", policies=policies(tmp_path, text))
    await ready(caller, 5)
    fleet.failing = {ids[2]}
    errors = 0
    for _ in range(20):
        try:
            await caller.call("pool.who")
        except CallError:
            errors += 1
    assert errors == 2
    assert (await spread(caller, 40)).keys() == set(ids) - {ids[2]}
    fleet.failing = set()
    await eventually_all(caller, set(ids))


async def eventually_all(caller: Mesh, ids: set[str]) -> None:
    """Return once every one of them has answered a round of calls."""
    with anyio.fail_after(PATIENCE_S):
        while (await spread(caller, 3 * len(ids))).keys() != ids:
            await anyio.sleep(0.05)


async def test_a_silent_instance_loses_its_share(bus: Bus, tmp_path: Path) -> None:
    """An instance that answers nothing while others do is left out after a few attempts; the calls go elsewhere."""
    fleet = Fleet()
    ids = await fleet.start(bus, 3)
    text = destination(
        balancer="least_request", retry="{attempts: 3, perTryTimeout: 50ms, budget: {floor: 100/s}}"
    )
    caller = await bus.caller("cart", policies=policies(tmp_path, text))
    await ready(caller, 3)
    fleet.hanging = {ids[0]}
    found: collections.Counter[str] = collections.Counter()
    for _ in range(200):
        found[await caller.call("pool.who", returns=str, idempotent=True)] += 1
    assert found.keys() == set(ids[1:])
    group = caller.client._targets["pool.who"].balance
    assert group is not None
    assert group.group.ejector.is_ejected(ids[0], caller._clock.monotonic())


async def test_an_instance_that_dies_unheard_fails_no_call(bus: Bus, tmp_path: Path) -> None:
    """Presence still lists it, nobody listens there: the queue group takes the call, in the same attempt."""
    fleet = Fleet()
    ids = await fleet.start(bus, 3)
    caller = await bus.caller(
        "cart", policies=policies(tmp_path, destination(balancer="round_robin", retry="{attempts: 1}"))
    )
    await ready(caller, 3)
    gone = fleet.instances[ids[1]]
    transport: Any = gone.transport
    for sid, subscription in list(transport._client._subs.items()):
        if ".rpc." in subscription._subject or ".direct." in subscription._subject:
            transport.unsubscribe(Subscription(sid, subscription._subject, "", lambda *message: None))
    await transport.fence()
    found = await spread(caller, 60)
    assert found.keys() == {ids[0], ids[2]}


async def test_a_draining_instance_gets_nothing_new(bus: Bus, tmp_path: Path) -> None:
    """Who leaves in order is left alone at once, and not one call fails."""
    fleet = Fleet()
    ids = await fleet.start(bus, 2)
    caller = await bus.caller(
        "cart", policies=policies(tmp_path, destination(balancer="round_robin", retry="{attempts: 1}"))
    )
    await ready(caller, 2)
    async with Instance(fleet.service(), settings=bus.settings, connector=bus.connector) as leaving:
        await eventually(lambda: len(caller.client.fleets.fleet("pool").instances()) == 3)
        await eventually_all(caller, {*ids, leaving.id})
    assert (await spread(caller, 60)).keys() == set(ids)


async def test_the_near_zone_is_preferred(bus: Bus, tmp_path: Path) -> None:
    """A caller with a zone calls its own zone while that is healthy, and the others when it is gone."""
    fleet = Fleet()
    near = await fleet.start(bus, 2, {"zone": "eu-1"})
    far = await fleet.start(bus, 2, {"zone": "eu-2"})
    text = destination(
        balancer="{name: round_robin, locality: true}",
        ejection="{consecutive: 1, base: 60s, maxRatio: 100%, panicRatio: 0%}",
        retry="{attempts: 3, retryOn: [refused, unavailable, internal], backoff: {initial: 0ms, max: 0ms}}",
        breaker="off",
    )
    caller = await bus.caller("cart", policies=policies(tmp_path, text), labels={"zone": "eu-1"})
    await ready(caller, 4)
    assert (await spread(caller, 40)).keys() == set(near)
    fleet.failing = set(near)
    for _ in range(10):
        await caller.call("pool.who", idempotent=True)
    assert (await spread(caller, 40)).keys() <= set(far)


async def test_a_hedge_answers_for_who_is_slow(bus: Bus, tmp_path: Path) -> None:
    """The second instance answers where the first does not; the first is told to stop, and nothing is left behind."""
    fleet = Fleet()
    ids = await fleet.start(bus, 2)
    text = destination(balancer="round_robin", hedge="{delay: 30ms, maxRatio: 100%}", retry="{attempts: 1}")
    caller = await bus.caller("cart", policies=policies(tmp_path, text))
    await ready(caller, 2)
    fleet.hanging = {ids[0]}
    found = collections.Counter(
        [await caller.call("pool.who", returns=str, idempotent=True, timeout=PATIENCE_S) for _ in range(4)]
    )
    assert found == {ids[1]: 4}
    await eventually(lambda: fleet.stopped > 0)
    await bus.at_rest()
    assert caller.client._targets["pool.who"].hedges >= 1


async def test_what_must_not_run_twice_is_not_hedged(bus: Bus, tmp_path: Path) -> None:
    """However slow: one attempt."""
    fleet = Fleet()
    await fleet.start(bus, 2)
    text = destination(balancer="round_robin", hedge="{delay: 1ms, maxRatio: 100%}")
    caller = await bus.caller("cart", policies=policies(tmp_path, text))
    await ready(caller, 2)
    for _ in range(20):
        await caller.call("pool.who", idempotent=False)
    assert caller.client._targets["pool.who"].hedges == 0

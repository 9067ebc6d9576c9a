"""What a caller keeps for its targets: shared while somebody needs it, and given back with the last who does."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from nats_mesh import Context, DisconnectedError, Executed, NoInstancesError, RemoteError, Service
from nats_mesh.calling import client as client_module
from nats_mesh.core.breaker import BreakerState
from nats_mesh.following import Follower
from nats_mesh.mesh import Mesh
from nats_mesh.policy import PolicySet, parse
from nats_mesh.settings import Settings
from nats_mesh.testing import MemoryMesh, run_virtual


def policies(spec: str) -> PolicySet:
    """One `Destination` for everybody."""
    return PolicySet.of(
        parse(f"apiVersion: mesh/v1\nkind: Destination\nmetadata: {{name: a}}\nspec: {{{spec}}}\n")
    )


BALANCED = "balancer: round_robin, ejection: {verdicts: {callers: 2}}"


def shop() -> Service:
    """Two endpoints."""
    made = Service("shop", version="1.0.0")

    @made.endpoint()
    async def get() -> int:
        return 1

    @made.endpoint()
    async def put() -> int:
        return 2

    return made


def kept(caller: Mesh) -> tuple[int, int, int]:
    """Groups, fleets that somebody holds, and subscriptions for verdicts."""
    client = caller.client
    held = sum(place.holds > 0 for place in client.fleets._places.values())
    return len(client.outbound._groups), held, len(client.opinions._heard)


def test_a_group_goes_with_the_last_target_that_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets that make room for others take what only they used along; what others use stays."""
    monkeypatch.setattr(client_module, "_MAX_TARGETS", 2)

    async def work() -> None:
        async with MemoryMesh(shop()) as mesh, mesh.client("web", policies=policies(BALANCED)) as caller:
            await caller.call("shop.get")
            await caller.call("shop.put")
            assert kept(caller) == (1, 1, 1)
            caller.client._known("other.x")
            assert kept(caller) == (2, 2, 2)
            caller.client._known("other.y")  # now nobody knows the shop any more
            assert kept(caller) == (1, 1, 1)
            for number in range(20):
                caller.client._known(f"service-{number}.x")
            assert kept(caller) == (2, 2, 2)
            assert await caller.call("shop.get") == 1

    run_virtual(work)


def test_a_change_of_policies_gives_back_what_nobody_uses() -> None:
    """Another balancer makes another group; the queue group needs none."""

    async def work() -> None:
        async with MemoryMesh(shop()) as mesh, mesh.client("web", policies=policies(BALANCED)) as caller:
            await caller.call("shop.get")
            await caller.call("shop.put")
            first = caller.client._targets["shop.get"].balance
            caller.client.apply(policies("balancer: random"))
            assert kept(caller) == (1, 1, 0)
            assert caller.client._targets["shop.get"].balance is not first
            caller.client.apply(PolicySet.empty())
            assert kept(caller) == (0, 0, 0)
            assert await caller.call("shop.get") == 1

    run_virtual(work)


QUICK = "target: {service: shop}, retry: {attempts: 1}, breaker: {minCalls: 2}"
ROUTED = (
    f"apiVersion: mesh/v1\nkind: Destination\nmetadata: {{name: a}}\nspec: {{{QUICK}, SUBSETS}}\n---\n".replace(
        "SUBSETS", "subsets: {v1: {version: 1.0.0}}"
    )
    + "apiVersion: mesh/v1\nkind: Route\nmetadata: {name: r}\n"
    "spec: {target: {service: shop}, rules: [{match: {headers: {x: a}}, split: [{subset: v1}]}, RULE]}\n"
)


def test_the_circuit_of_a_way_that_no_call_takes_any_more_is_let_go_of() -> None:
    """No trial would ever close it. While some call may still take that way, it stays as it is."""
    service = Service("shop", version="1.0.0")

    @service.endpoint()
    async def get() -> int:
        raise RuntimeError("on purpose")

    async def work() -> None:
        async with MemoryMesh(service) as mesh, mesh.client("web", policies=policies(QUICK)) as caller:
            outbound, state = caller.client.outbound, caller.client.outbound.circuits

            async def follow(text: str) -> None:
                caller.client.apply(PolicySet.of(parse(text)))
                await anyio.sleep(2.0)  # what leads to a subset is held for a second

            for _ in range(2):
                with pytest.raises(RemoteError):
                    await caller.call("shop.get")
            assert state() == [("shop", "get", "", BreakerState.OPEN)]
            await follow(ROUTED.replace("RULE", "{match: {headers: {x: b}}, split: [{subset: v1}]}"))
            assert state() == [("shop", "get", "", BreakerState.OPEN)]
            await follow(ROUTED.replace("RULE", "{split: [{subset: v1}]}"))
            assert (state(), outbound.broken(caller.client.now())) == ([], [])
            last = list(caller.events.recent)[-1]
            assert (last.kind, last.detail) == ("breaker.closed", "a route sends no call this way any more")
            with pytest.raises(NoInstancesError):  # the instance follows no policies, and is in no subset
                await caller.call("shop.get")
            assert state() == [("shop", "get", "v1", BreakerState.CLOSED)]
            caller.client.apply(policies(QUICK))
            assert state() == [("shop", "get", "", BreakerState.CLOSED)]

    run_virtual(work)


def test_a_set_that_cannot_be_applied_leaves_the_last_good_one_in_effect() -> None:
    """Also where the failure came half-way: what was applied of it is taken back."""
    good, bad = policies("timeout: 1s"), policies("timeout: 2s")
    applied: list[PolicySet] = []

    def apply(which: PolicySet) -> None:
        applied.append(which)
        if which is bad:
            raise RuntimeError("on purpose")

    told: list[Any] = []
    follower = Follower(good, Settings(), lambda *event, **numbers: told.append(event))
    follower.follow(apply)
    with pytest.raises(RuntimeError, match="on purpose"):
        follower._changed(bad)
    assert applied == [bad, good]
    assert follower.current is good
    assert told == []


@pytest.mark.parametrize("duplicates", ["shared", "local", "off"])
def test_a_call_with_a_key_is_sent_again_where_every_instance_knows_it(duplicates: str) -> None:
    """The second attempt gets the reply of the first, and the handler runs once; else nobody may try again."""
    runs: list[int] = []
    service = Service("shop", version="1.0.0")

    @service.endpoint(duplicates=duplicates)
    async def pay(amount: int) -> int:
        runs.append(amount)
        await anyio.sleep(0.2)
        return amount

    async def work() -> None:
        async with MemoryMesh(service) as mesh, mesh.client("web") as caller:
            await caller.call("shop.pay", 0)
            await anyio.sleep(1.0)  # by now it is known what the endpoint declares
            runs.clear()
            meanwhile = asyncio.ensure_future(cut(caller))
            if duplicates == "shared":
                reply = await caller.request("shop.pay", 7, idempotency_key="k")
                assert (reply.value, reply.attempts) == (7, 2)
            else:
                with pytest.raises(DisconnectedError) as caught:
                    await caller.call("shop.pay", 7, idempotency_key="k")
                assert (caught.value.attempts, caught.value.executed) == (1, Executed.MAYBE)
            await meanwhile
            assert runs == [7]
            with pytest.raises(DisconnectedError):  # without a key it is as it ever was
                await asyncio.gather(cut(caller), caller.call("shop.pay", 8))

    async def cut(caller: Mesh) -> None:
        await anyio.sleep(0.1)
        caller.client.mux.on_disconnect("on purpose")

    run_virtual(work)


def test_an_attempt_is_not_cut_short_for_a_retry_that_the_budget_has_not_got() -> None:
    """An endpoint that has become slow still answers within the time of the call, once retries are used up."""
    service = Service("shop", version="1.0.0")

    @service.endpoint(idempotent=True)
    async def get() -> int:
        await anyio.sleep(0.6)
        return 1

    async def work() -> None:
        spec = "idempotent: true, timeout: 1s, breaker: off, retry: {budget: {ratio: 0%, floor: 0/s}}"
        async with MemoryMesh(service) as mesh, mesh.client("web", policies=policies(spec)) as caller:
            reply = await caller.request("shop.get")
            assert (reply.value, reply.attempts) == (1, 1)

    run_virtual(work)


def test_a_draining_instance_costs_the_call_no_attempt() -> None:
    """Who was chosen and drains, before presence is heard: the queue group takes the call within the same attempt."""
    services = [Service("shop", version="1.0.0", instance=f"i{number}") for number in (1, 2)]
    for each in services:

        @each.endpoint()
        async def get(ctx: Context) -> str:
            return ctx.instance

    async def work() -> None:
        spec = "balancer: round_robin, retry: {attempts: 1}"
        async with MemoryMesh(*services) as mesh, mesh.client("web", policies=policies(spec)) as caller:
            await caller.call("shop.get")
            await anyio.sleep(2.0)
            first = mesh.instances[0]
            first.dispatcher.shut()
            for _ in range(10):
                reply = await caller.request("shop.get")
                assert (reply.value, reply.attempts) == ("i2", 1)
            first.dispatcher.shut(False)

    run_virtual(work)

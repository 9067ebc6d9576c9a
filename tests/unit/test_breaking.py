"""What callers say of endpoints whose circuits they had to open, and what they do about what others say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
import pytest

from nats_mesh import ApplicationError, CallError, CircuitOpenError, Context, Mesh, Service, Status
from nats_mesh.calling import breaking as breaking_module
from nats_mesh.calling.saying import Verdict, _encode
from nats_mesh.core.breaker import BreakerState
from nats_mesh.layers.breaker import Circuit
from nats_mesh.policy import PolicySet, parse
from nats_mesh.testing import MemoryMesh, run_virtual

CLOSED, OPEN = BreakerState.CLOSED, BreakerState.OPEN
SPEC = (
    "retry: {attempts: 1}, breaker: {minCalls: 2, open: 5s, jitter: 0%, successes: 1, verdicts: {callers: 3}}"
)


def policies(spec: str = SPEC) -> PolicySet:
    """One `Destination` for the service."""
    return PolicySet.of(
        parse(
            "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: a}\n"
            f"spec: {{target: {{service: shop}}, {spec}}}\n"
        )
    )


class Shop:
    """A service that fails those who are named."""

    def __init__(self) -> None:
        self.fails: set[str] = set()
        self.runs: list[str] = []
        self.service = Service("shop", version="1.0.0")

        @self.service.endpoint()
        async def get(ctx: Context) -> None:
            self.runs.append(ctx.caller)
            if ctx.caller in self.fails:
                raise ApplicationError("broken", status=Status.INTERNAL)


async def once(caller: Mesh) -> str:
    """How one call ends, once what it made callers say has been heard."""
    try:
        await caller.call("shop.get")
    except CallError as error:
        return type(error).__name__
    finally:
        await asyncio.sleep(0.1)
    return "OK"


def circuit(caller: Mesh) -> Circuit:
    """The one that a caller has for the endpoint."""
    found = caller.client._known("shop.get").circuit
    assert found is not None
    return found


async def say(caller: Mesh, word: Literal["bad", "well"] = "bad", endpoint: str = "get") -> None:
    """What a caller says, rightly or not."""
    caller.client.opinions._post.say("shop", "all", Verdict(verdict=word, endpoint=endpoint))
    await asyncio.sleep(0.1)


def words(mesh: MemoryMesh) -> list[str]:
    """All that was said on the bus: who of which endpoint, and what."""
    assert mesh.bus.recorded is not None
    found = []
    for subject, _, _, payload in mesh.bus.recorded:
        if ".verdict." in subject:
            body = json.loads(payload)
            _, _, _, service, instance, caller = subject.split(".")
            found.append(f"{caller}: {service}.{instance} {body.get('endpoint')} {body['verdict']}")
    return found


def test_so_many_callers_open_it_for_all() -> None:
    """One less does not; who was never failed itself is refused at once, and told who agreed."""
    shop = Shop()

    async def main() -> None:
        async with MemoryMesh(shop.service) as mesh:
            every = [mesh.client(name, policies=policies()) for name in "abcd"]
            a, b, c, d = [await each.__aenter__() for each in every]
            for each in (a, b, c, d):
                assert await once(each) == "OK"
            shop.fails = {"a", "b", "c"}
            for each in (a, b):
                for _ in range(3):
                    await once(each)
            assert (circuit(a).breaker.state, circuit(b).breaker.state) == (OPEN, OPEN)
            assert (circuit(c).breaker.state, circuit(d).breaker.state) == (CLOSED, CLOSED)
            for _ in range(3):
                await once(c)
            before = len(shop.runs)
            assert circuit(d).breaker.state is OPEN
            with pytest.raises(CircuitOpenError, match=r"3 callers \(a, b, c\) agree that it is broken"):
                await d.call("shop.get")
            assert len(shop.runs) == before
            (event,) = [each for each in d.events.recent if each.kind == "breaker.open"]
            assert (event.target, event.detail) == ("shop.get", "3 callers (a, b, c) agree that it is broken")
            for each in every:
                await each.__aexit__(None, None, None)

    run_virtual(main)


def test_only_what_began_by_own_counting_is_said() -> None:
    """Opened by others it says nothing, not even when its own probe fails; by its own calls it does, each time."""
    shop = Shop()

    async def main() -> None:
        async with (
            MemoryMesh(shop.service) as mesh,
            mesh.client("d", policies=policies()) as d,
            mesh.client("x") as x,
            mesh.client("y") as y,
            mesh.client("z") as z,
        ):
            assert await once(d) == "OK"
            for each in (x, y, z):
                await say(each)
            mesh.bus.recorded = []
            assert await once(d) == "CircuitOpenError"
            shop.fails = {"d"}
            await asyncio.sleep(5.0)
            await once(d)
            assert circuit(d).breaker.state is OPEN
            shop.fails = set()
            await asyncio.sleep(5.0)
            assert await once(d) == "OK"
            assert words(mesh) == []
            shop.fails = {"d"}
            for _ in range(4):
                await once(d)
            assert words(mesh) == ["d: shop.all get bad"]
            with pytest.raises(CircuitOpenError, match="too many of the last calls failed"):
                await d.call("shop.get")
            await asyncio.sleep(5.0)
            await once(d)
            assert words(mesh) == ["d: shop.all get bad"] * 2
            shop.fails = set()
            await asyncio.sleep(10.0)
            assert await once(d) == "OK"
            assert words(mesh) == ["d: shop.all get bad"] * 2 + ["d: shop.all get well"]

    run_virtual(main)


def with_others(check: Callable[[MemoryMesh, Mesh, list[Mesh]], Awaitable[None]], spec: str = SPEC) -> Shop:
    """``check`` what a caller that has called once makes of what four others say."""
    shop = Shop()

    async def main() -> None:
        async with (
            MemoryMesh(shop.service) as mesh,
            mesh.client("d", policies=policies(spec)) as d,
            mesh.client("w") as w,
            mesh.client("x") as x,
            mesh.client("x") as replica,
            mesh.client("z") as z,
        ):
            assert await once(d) == "OK"
            await check(mesh, d, [w, x, replica, z])

    run_virtual(main)
    return shop


def test_replicas_are_one_caller() -> None:
    """And each takes back its own word alone; what was taken back does not count."""

    async def check(mesh: MemoryMesh, d: Mesh, others: list[Mesh]) -> None:
        w, x, replica, z = others
        for each in (w, x, replica, x, w):
            await say(each)
        assert circuit(d).breaker.closed
        await say(replica, "well")
        await say(w, "well")
        await say(z)
        assert circuit(d).breaker.closed, "x and z"
        await say(w)
        assert circuit(d).breaker.state is OPEN

    with_others(check)


def test_a_word_is_worth_nothing_after_its_window() -> None:
    """Three callers, but not within 30 s."""

    async def check(mesh: MemoryMesh, d: Mesh, others: list[Mesh]) -> None:
        w, x, _, z = others
        await say(w)
        await say(x)
        await asyncio.sleep(30.0)
        await say(z)
        assert circuit(d).breaker.closed

    with_others(check)


def test_own_probes_bound_what_a_crowd_can_do() -> None:
    """Callers that agree all the time cost who finds the endpoint well one open time in each window."""

    async def check(mesh: MemoryMesh, d: Mesh, others: list[Mesh]) -> None:
        ends = []
        for _ in range(70):
            for each in others:
                await say(each)
            ends.append(await once(d))
            await asyncio.sleep(0.5)
        assert ends.count("CircuitOpenError") <= 2 * 6
        assert ends.count("OK") >= 58
        assert d.client.opinions.breakers.unheeded > 20

    with_others(check)


def test_words_of_endpoints_that_it_does_not_call_are_counted_and_forgotten() -> None:
    """However many there are, nothing is kept of them; nor of what is said of an instance."""

    async def check(mesh: MemoryMesh, d: Mesh, others: list[Mesh]) -> None:
        breakers = d.client.opinions.breakers
        post = others[0].client.opinions._post
        for number in range(5000):
            post.say("shop", "all", Verdict(verdict="bad", endpoint=f"e{number}"))
        for each in others:
            each.client.opinions._post.say("shop", "i1", Verdict(verdict="bad"))
            each.client.opinions._post.say("shop", "get", Verdict(verdict="bad"))
        await asyncio.sleep(0.1)
        assert (breakers.unknown, len(breakers), d.client.opinions.dropped) == (5000, 1, 0)
        ((key, known),) = breakers._endpoints.items()
        assert key == ("shop", "get")
        assert len(known.verdicts) == 0
        assert circuit(d).breaker.closed

    with_others(check)


def test_an_endpoint_is_no_instance_and_no_instance_an_endpoint() -> None:
    """Who listens for both keeps them apart, also where the names are the same; a body that says both is dropped."""
    spec = f"{SPEC}, balancer: round_robin, ejection: {{verdicts: {{callers: 2}}}}"

    async def check(mesh: MemoryMesh, d: Mesh, others: list[Mesh]) -> None:
        balance = d.client._known("shop.get").balance
        assert balance is not None
        await asyncio.sleep(1.0)  # by now it knows the instances
        assert await once(d) == "OK"
        (instance,) = balance.group.members
        for each in others:
            await say(each, endpoint="other")
            await say(each, endpoint=instance)
            post = each.client.opinions._post
            post.say("shop", instance, Verdict(verdict="bad", endpoint="get"))
            post.say("shop", "all", Verdict(verdict="bad"))
        await asyncio.sleep(0.1)
        assert circuit(d).breaker.closed
        assert not balance.group.ejector.is_ejected(instance, d._clock.monotonic())
        assert (
            d.client.opinions.dropped == 12
        )  # four that name an instance; four of nobody, by both subscriptions

    with_others(check, spec)


def test_a_change_of_policy_ends_it() -> None:
    """What this caller said is taken back with the circuit that it said it for, and nobody listens any more."""

    async def check(mesh: MemoryMesh, d: Mesh, others: list[Mesh]) -> None:
        mesh.bus.recorded = []
        for _ in range(2):
            circuit(d).ended(d._clock.monotonic(), 0, 0.0, failed=True)
        assert words(mesh) == ["d: shop.all get bad"]
        d.client.apply(policies("breaker: {minCalls: 3, verdicts: {callers: 2}}"))
        assert words(mesh) == ["d: shop.all get bad", "d: shop.all get well"]
        breakers = d.client.opinions.breakers
        assert (len(breakers), list(breakers._heard)) == (1, ["shop"])
        d.client.apply(policies("breaker: {verdicts: off}"))
        assert (len(breakers), breakers._heard) == (0, {})
        for each in others:
            await say(each)
        assert circuit(d).breaker.closed
        assert breakers.unknown == 0

    with_others(check)


def test_it_listens_for_so_many_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one listened for longest goes, and its service's subscription with the last of them."""
    monkeypatch.setattr(breaking_module, "MAX_ENDPOINTS", 3)
    everywhere = PolicySet.of(
        parse(
            "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: a}\n"
            "spec: {breaker: {verdicts: {callers: 2}}}\n"
        )
    )

    async def main() -> None:
        async with MemoryMesh() as mesh, mesh.client("d", policies=everywhere) as d:
            for name in ("one.a", "one.b", "two.a", "three.a", "four.a"):
                d.client._known(name)
            breakers = d.client.opinions.breakers
            assert (len(breakers), sorted(breakers._heard)) == (3, ["four", "three", "two"])

    run_virtual(main)


def test_a_subset_neither_says_nor_heeds_it() -> None:
    """What fails in one subset of the instances says nothing of the endpoint, and the other way round."""

    async def check(mesh: MemoryMesh, d: Mesh, others: list[Mesh]) -> None:
        target = d.client.outbound._make("shop", "get", None, "v2")
        d.client.outbound.compose(target)
        assert target.circuit is not None
        assert target.circuit is not circuit(d)
        mesh.bus.recorded = []
        for _ in range(4):
            target.circuit.ended(d._clock.monotonic(), 0, 0.0, failed=True)
        assert target.circuit.breaker.state is OPEN
        assert words(mesh) == []
        assert circuit(d).breaker.closed
        assert circuit(d).on_change is not None

    with_others(check)


def test_without_the_policy_nothing_is_said_or_heard() -> None:
    """It is off by default."""

    async def check(mesh: MemoryMesh, d: Mesh, others: list[Mesh]) -> None:
        mesh.bus.recorded = []
        for _ in range(30):
            circuit(d).ended(d._clock.monotonic(), 0, 0.0, failed=True)
        assert circuit(d).breaker.state is OPEN
        assert words(mesh) == []
        assert len(d.client.opinions.breakers) == 0

    with_others(check, "retry: {attempts: 1}")


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict as it was read before there were any of endpoints."""

    verdict: Literal["bad", "well"]
    reason: str = ""
    wire: Literal[1] = 1


def test_who_knows_no_endpoints_can_read_it() -> None:
    """And one of an instance is what it always was, byte for byte."""
    body = _encode(Verdict(verdict="bad", endpoint="get", reason="r"))
    assert msgspec.json.decode(body, type=Before) == Before(verdict="bad", reason="r")
    assert _encode(Verdict(verdict="bad", reason="r")) == b'{"verdict":"bad","reason":"r","wire":1}'

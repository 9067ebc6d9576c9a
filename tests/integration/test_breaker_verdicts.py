"""Circuits that callers open for each other: those that agree open it for everybody; fewer never do."""

from __future__ import annotations

from pathlib import Path

import pytest

from nats_mesh import ApplicationError, CallError, CircuitOpenError, Context, Mesh, Service, Status
from nats_mesh.calling.saying import Verdict, _encode
from nats_mesh.core.breaker import BreakerState
from tests.harness import Bus, eventually, policies

pytestmark = pytest.mark.anyio

POLICY = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: shop}
spec:
  target: {service: shop}
  retry: {attempts: 1}
  breaker: {minCalls: 3, open: 60s, successes: 1, verdicts: {callers: 3, window: 30s}}
"""


def shop(fails: set[str], runs: list[str]) -> Service:
    """A service of two endpoints, of which one fails the callers that are named."""
    service = Service("shop", version="1.0.0")

    @service.endpoint()
    async def get(ctx: Context) -> None:
        runs.append(ctx.caller)
        if ctx.caller in fails:
            raise ApplicationError("broken", status=Status.INTERNAL)

    @service.endpoint()
    async def put(ctx: Context) -> None:
        runs.append(f"put {ctx.caller}")

    return service


def state(caller: Mesh, target: str = "shop.get") -> BreakerState:
    """Of the caller's own circuit."""
    circuit = caller.client._targets[target].circuit
    assert circuit is not None
    return circuit.breaker.state


async def opened(bus: Bus, tmp_path: Path, names: str, text: str = POLICY) -> list[Mesh]:
    """Callers that have called both endpoints once, and have each other's ear."""
    folder = policies(tmp_path, text)
    callers = [await bus.caller(name, policies=folder) for name in names]
    for caller in callers:
        await caller.call("shop.get")
        await caller.call("shop.put")
    await settle(callers)
    return callers


async def settle(callers: list[Mesh]) -> None:
    """What was written has been heard: one round to send it, one to receive it."""
    for _ in range(2):
        for caller in callers:
            await caller.client.transport.fence()


async def fail(caller: Mesh) -> None:
    """Call until this caller's circuit is open by its own judgement."""
    for _ in range(10):
        if state(caller) is BreakerState.OPEN:
            return
        with pytest.raises(CallError):
            await caller.call("shop.get")
    raise AssertionError("it does not open")


async def test_callers_that_agree_open_it_for_all(bus: Bus, tmp_path: Path) -> None:
    """Two of four are not enough. With a third the fourth, whom nothing failed, is refused without a message, and by
    name of who agreed; the other endpoint of the service is left alone."""
    fails, runs = set[str](), list[str]()
    await bus.serve(shop(fails, runs))
    callers = await opened(bus, tmp_path, "abcd")
    a, b, c, bystander = callers
    fails |= {"a", "b", "c"}
    await fail(a)
    await fail(b)
    await settle(callers)
    assert {state(c), state(bystander)} == {BreakerState.CLOSED}
    await fail(c)
    await eventually(lambda: state(bystander) is BreakerState.OPEN)
    before = len(runs)
    with pytest.raises(CircuitOpenError, match=r"3 callers \(a, b, c\) agree that it is broken"):
        await bystander.call("shop.get")
    assert len(runs) == before
    await bystander.call("shop.put")
    told = [event for event in bystander.events.recent if event.kind == "breaker.open"]
    assert [(event.target, event.detail) for event in told] == [
        ("shop.get", "3 callers (a, b, c) agree that it is broken")
    ]


async def test_who_was_opened_for_passes_nothing_on(bus: Bus, tmp_path: Path) -> None:
    """Two callers whose circuits others opened are no third voice for a fifth, who asks for four."""
    fails, runs = set[str](), list[str]()
    await bus.serve(shop(fails, runs))
    (tmp_path / "stern").mkdir()
    (stern,) = await opened(bus, tmp_path / "stern", "e", POLICY.replace("callers: 3", "callers: 4"))
    callers = await opened(bus, tmp_path, "abcd")
    fails |= {"a", "b", "c"}
    for each in callers[:3]:
        await fail(each)
    await eventually(lambda: state(callers[3]) is BreakerState.OPEN)
    await settle([*callers, stern])
    assert state(stern) is BreakerState.CLOSED


async def test_a_circuit_that_closes_takes_its_word_back(bus: Bus, tmp_path: Path) -> None:
    """Three callers found it broken one after the other, but never at the same time."""
    text = POLICY.replace("open: 60s", "open: 20ms, jitter: 0%")
    fails, runs = set[str](), list[str]()
    await bus.serve(shop(fails, runs))
    callers = await opened(bus, tmp_path, "abcd", text)
    *witnesses, bystander = callers
    for each in witnesses:
        fails.add(each.name)
        await fail(each)
        fails.clear()

        async def closed(caller: Mesh = each) -> bool:
            try:
                await caller.call("shop.get")
            except CircuitOpenError:
                pass
            return state(caller) is BreakerState.CLOSED

        while not await closed():
            pass
        await settle(callers)
    assert state(bystander) is BreakerState.CLOSED
    assert not [event for event in bystander.events.recent if event.kind == "breaker.open"]


async def test_hostile_verdicts_change_nothing(bus: Bus, tmp_path: Path) -> None:
    """What has not its publisher's own inbox, is malformed, or is about endpoints that nobody calls is counted."""
    await bus.serve(shop(set(), []))
    bystander, loud = await opened(bus, tmp_path, "dx")
    transport, subjects = loud.client.transport, loud.client.subjects
    inbox = loud.client.mux.one_way("x")
    for number in range(10):
        body = _encode(Verdict(verdict="bad", endpoint="get"))
        transport.publish(subjects.verdict("shop", "all", f"other{number}"), body, inbox)
        transport.publish(subjects.verdict("shop", "all", f"other{number}"), body, "")
    junk: tuple[bytes, ...] = (
        b"",
        b"{",
        b"[]",
        b'{"verdict": "bad"}',
        b'{"verdict": "bad", "endpoint": 7}',
        b'{"verdict": "bad", "endpoint": "a.b"}',
        b'{"verdict": "bad", "endpoint": ""}',
        b'{"verdict": "worse", "endpoint": "get"}',
        b'{"verdict": "bad", "endpoint": "get", "wire": 2}',
        b'{"verdict": "bad", "endpoint": "get", "reason": "' + b"x" * 2000 + b'"}',
    )
    for body in junk:
        transport.publish(subjects.verdict("shop", "all", "x"), body, inbox)
    for number in range(3000):
        body = _encode(Verdict(verdict="bad", endpoint=f"none{number}"))
        transport.publish(subjects.verdict("shop", "all", "x"), body, inbox)
    for _ in range(50):
        transport.publish(
            subjects.verdict("shop", "all", "x"), _encode(Verdict(verdict="bad", endpoint="get")), inbox
        )
    await transport.fence()
    breakers = bystander.client.opinions.breakers
    await eventually(lambda: (bystander.client.opinions.dropped, breakers.unknown) == (30, 3000))
    assert state(bystander) is BreakerState.CLOSED
    assert len(breakers) == 2
    assert sum(len(each.verdicts) for each in breakers._endpoints.values()) == 1

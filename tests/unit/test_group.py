"""The instances of one service as one caller has them: who may be chosen, and what others hear of its judgement."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import cast

import pytest

from nats_mesh import ApplicationError, CallError, OverloadedError, Refused, Service, Status
from nats_mesh.core.balancer.base import FULL, FULL_S, REPORT_S
from nats_mesh.core.balancer.locality import GONE_S
from nats_mesh.core.presence import State
from nats_mesh.core.rules import BalancerName, BalancerRules, EjectionRules
from nats_mesh.discovery.fleet import Fleet, FleetMember
from nats_mesh.layers.balance import Group, Way
from nats_mesh.policy import PolicySet, parse
from nats_mesh.testing import MemoryMesh, run_virtual

FAILURE = ApplicationError("broken", status=Status.INTERNAL)


class Known:
    """What presence says: the instances with these names, those that begin with ``h`` in the caller's zone."""

    def __init__(self, names: Sequence[str]) -> None:
        self.version = 0
        self.names = names
        self.weights: dict[str, float] = {}

    def are(self, *names: str) -> None:
        """From now on it is these."""
        self.version += 1
        self.names = names

    def instances(self) -> list[FleetMember]:
        """All of them take calls."""
        return [
            FleetMember(
                id=name,
                version="1.0.0",
                labels={},
                zone="here" if name.startswith("h") else "there",
                state=State.READY,
                suspect=False,
                in_flight=0,
                limit=0,
                first_seen=-math.inf,
                weight=self.weights.get(name, 1.0),
            )
            for name in self.names
        ]


class Caller:
    """A group with its fleet; ``told`` are its events, ``said`` what others hear of."""

    def __init__(
        self,
        *names: str,
        ejection: EjectionRules | None = None,
        locality: bool = False,
        name: BalancerName = "round_robin",
    ) -> None:
        self.fleet = Known(names)
        self.told: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.group = Group(
            "pool",
            cast(Fleet, self.fleet),
            BalancerRules(name=name, locality=locality),
            ejection or EjectionRules(),
            zone="here",
            chance=lambda: 0.0,
            tell=lambda kind, target, detail: self.told.append((kind, detail)),
        )
        self.group.on_own_ejection = lambda instance, reason: self.said.append(f"bad {instance}")
        self.group.on_return = lambda instance: self.said.append(f"well {instance}")
        self.spread(0.0)

    def spread(self, now: float, calls: int = 60) -> Counter[str]:
        """Who gets how many of so many calls; ``""`` is the queue group."""
        picked = [self.group.pick(now, None, ()) for _ in range(calls)]
        return Counter("" if each is None else each.id for each in picked)

    def way(self, name: str) -> Way:
        """To one instance, with a call under way."""
        member = self.group.members[name]
        member.began(0.0)
        return Way(self.group, member, "", "")

    def fail(self, name: str, now: float, times: int = 5, error: CallError = FAILURE) -> None:
        """So many calls there fail."""
        for _ in range(times):
            self.way(name).failed(now, 0.01, b"", error, silent=False)

    def events(self, kind: str) -> list[str]:
        """What was told of this kind."""
        return [detail for each, detail in self.told if each == kind]


# -- what others hear -------------------------------------------------------------------------------


def test_others_hear_of_an_ejection_and_of_its_end() -> None:
    """Where the caller can compare: one of two fails."""
    caller = Caller("a", "b")
    caller.fail("a", 1.0)
    assert caller.said == ["bad a"]
    caller.spread(20.0)
    assert caller.said == ["bad a", "well a"]


@pytest.mark.parametrize("panic_ratio", [0.0, 0.5])
def test_the_only_instance_is_not_called_bad(panic_ratio: float) -> None:
    """A caller that knows one alone cannot tell whether it is the instance; it goes on calling it."""
    caller = Caller("a", ejection=EjectionRules(panic_ratio=panic_ratio))
    caller.fail("a", 1.0)
    assert caller.events("ejection.began")
    assert caller.spread(1.0) == {"a": 60}
    assert caller.said == []


def test_one_that_nobody_listens_at_is_no_other_instance() -> None:
    """What presence says is known to be wrong for the moment."""
    caller = Caller("a", "b")
    caller.group.absent(caller.group.members["b"], 1.0)
    caller.fail("a", 1.5)
    assert caller.events("ejection.began")
    assert caller.said == []


def test_a_caller_that_panics_calls_nobody_bad() -> None:
    """Where most are out it is no matter of instances: the first is told, the one that makes it panic is not."""
    caller = Caller("a", "b", "c", "d", ejection=EjectionRules(max_ratio=1.0))
    for name in ("a", "b", "c", "d"):
        caller.fail(name, 1.0)
    assert caller.said == ["bad a", "bad b"]
    assert caller.events("ejection.panic") == [
        "too few instances are healthy: ejections are ignored (out: a, b, c)"
    ]


def test_who_is_gone_is_no_member_when_that_is_told() -> None:
    """Whoever hears of it can ask."""
    caller = Caller("a", "b")
    found: list[bool] = []
    caller.group.on_return = lambda instance: found.append(instance in caller.group)
    caller.fleet.are("b")
    caller.spread(1.0)
    assert found == [False]


# -- how many may be out ----------------------------------------------------------------------------


def test_ejections_that_the_bound_prevents_are_told_ever_more_rarely() -> None:
    """Who stays in, and why; again from the beginning once somebody is back."""
    caller = Caller("a", "b")
    caller.fail("a", 1.0)
    caller.fail("b", 2.0, 4 + 100)
    told = caller.events("ejection.capped")
    assert told[0] == "b stays in: as many as may be are out already (a); 1 so far"
    assert [detail.split("; ")[-1] for detail in told[1:]] == [f"{2**power} so far" for power in range(1, 7)]
    caller.spread(20.0)
    caller.fail("a", 20.0)
    caller.fail("b", 20.0, 4)
    assert len(caller.events("ejection.capped")) == 7 + 3


def test_others_that_agree_cannot_eject_more_either() -> None:
    """That is told as well."""
    caller = Caller("a", "b")
    caller.group.eject("a", 1.0, "3 callers agree")
    caller.group.eject("a", 1.0, "3 callers agree")
    assert caller.events("ejection.capped") == []
    caller.group.eject("b", 1.0, "3 callers agree")
    assert caller.events("ejection.capped") == ["b stays in: as many as may be are out already (a); 1 so far"]


# -- weights ----------------------------------------------------------------------------------------


def test_a_changed_weight_takes_effect_and_forgets_nothing() -> None:
    """As soon as presence says so; the member keeps its calls."""
    caller = Caller("a", "b")
    assert caller.spread(1.0) == {"a": 30, "b": 30}
    caller.way("a")
    member = caller.group.members["a"]
    caller.fleet.weights["a"] = 4.0
    caller.fleet.are("a", "b")
    assert caller.spread(1.0) == {"a": 48, "b": 12}
    assert caller.group.members["a"] is member
    assert member.in_flight == 1
    caller.fleet.weights.clear()
    caller.fleet.are("a", "b")
    found = caller.spread(1.0)
    assert abs(found["a"] - found["b"]) <= 2


# -- zones ------------------------------------------------------------------------------------------


def own_share(caller: Caller, now: float) -> float:
    """The part of the calls that the own zone gets."""
    found = caller.spread(now)
    return sum(count for name, count in found.items() if name.startswith("h")) / 60


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_zone_that_lost_most_of_its_instances_gives_calls_away(one_by_one: bool) -> None:
    """Two of three are gone: the last gets what it can carry, half of what two would, for some minutes; then what is
    there is the zone."""
    caller = Caller("h1", "h2", "h3", "t1", "t2", "t3", locality=True)
    assert own_share(caller, 1.0) == 1.0
    if one_by_one:
        caller.fleet.are("h1", "h3", "t1", "t2", "t3")
        assert own_share(caller, 2.0) == 1.0
    caller.fleet.are("h1", "t1", "t2", "t3")
    for now in (3.0, 60.0, 1.9 + GONE_S):
        assert own_share(caller, now) == pytest.approx(0.5, abs=0.05)
    assert own_share(caller, 3.0 + GONE_S) == 1.0


def test_a_zone_that_lost_all_is_served_by_the_others_until_it_is_back() -> None:
    """3 primary + secondary: 1 gone → primary; 2 → mixed; 3 → secondary; and back, whoever comes."""
    caller = Caller("h1", "h2", "h3", "t1", "t2", locality=True)
    shares = []
    for now, here in enumerate((["h2", "h3"], ["h3"], [], ["h4"], ["h4", "h5"], ["h4", "h5", "h6"])):
        caller.fleet.are(*here, "t1", "t2")
        shares.append(own_share(caller, 1.0 + now))
    assert shares == pytest.approx([1.0, 0.5, 0.0, 0.5, 1.0, 1.0], abs=0.05)
    caller.fleet.are("h4", "h5", "t1", "t2")
    assert own_share(caller, 10.0) == 1.0, "a zone of three, whatever the names"


def test_where_nobody_listens_the_queue_group_takes_the_call() -> None:
    """With locality as without."""
    for locality in (False, True):
        caller = Caller("h1", "t1", locality=locality)
        for member in list(caller.group.members.values()):
            caller.group.absent(member, 1.0)
        assert caller.spread(1.0) == {"": 60}
        assert "" not in caller.spread(5.0)


# -- who is full ------------------------------------------------------------------------------------


def refusal(retry_after_s: float | None = None) -> OverloadedError:
    """No slot of an endpoint was free."""
    return OverloadedError("all slots are taken", refused=Refused.CONCURRENCY, retry_after_s=retry_after_s)


@pytest.mark.parametrize(
    ("advice_s", "for_s"), [(None, FULL_S), (0.0, FULL_S), (0.02, 0.02), (1.0, 1.0), (3600.0, REPORT_S)]
)
def test_an_instance_that_refused_is_full_for_a_while(advice_s: float | None, for_s: float) -> None:
    """Though the load of all its endpoints together is far from its limit. It is no failure."""
    caller = Caller("a", "b", name="least_request")
    caller.group.members["a"].said(10.0, 1, 1000)
    caller.fail("a", 10.0, 20, refusal(advice_s))
    assert caller.group.members["a"].load(10.0) >= FULL
    assert caller.spread(10.0) == {"b": 60}
    assert caller.group.members["a"].load(10.0 + for_s * 0.99) >= FULL
    assert caller.group.members["a"].load(10.0 + for_s * 1.01) < FULL
    assert caller.events("ejection.began") == []


def test_an_answer_ends_it() -> None:
    """Also an application's no: it took the call. Another refusal, or a call that was broken off, does not."""
    caller = Caller("a", "b")
    member = caller.group.members["a"]
    for error in (None, ApplicationError("not found", status=Status.NOT_FOUND)):
        way, other, third = caller.way("a"), caller.way("a"), caller.way("a")
        caller.fail("a", 10.0, 1, refusal())
        other.dropped(10.0)
        third.failed(10.0, 0.1, b"", refusal(), silent=False)
        assert member.load(10.0) >= FULL
        if error is None:
            way.succeeded(10.0, 0.1, b"")
        else:
            way.failed(10.0, 0.1, b"", error, silent=False)
        assert member.load(10.0) < FULL


@pytest.mark.parametrize("name", ["least_request", "peak_ewma"])
def test_where_all_are_full_the_least_loaded_is_taken(name: BalancerName) -> None:
    """Full is full, by whatever it is known."""
    caller = Caller("a", "b", name=name)
    a, b = caller.group.members["a"], caller.group.members["b"]
    for member in (a, b):
        member.began(0.0)
        member.ended(0.0, 0.01, True)
    caller.fail("a", 10.0, 1, refusal())
    a.said(10.0, 2, 2)
    b.said(10.0, 3, 3)
    assert caller.spread(10.0) == {"a": 60}


def test_one_full_endpoint_of_many_is_left_alone() -> None:
    """Its instance has room for hundreds of other calls, and fewer under way than the other: without the mark nearly
    every call would go there first, to be refused."""

    async def main() -> None:
        rules = PolicySet.of(
            parse(
                "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: pool}\n"
                "spec: {target: {service: pool}, balancer: least_request, retry: {attempts: 1}}\n"
            )
        )
        held = asyncio.Event()

        def pool(name: str, slots: int) -> Service:
            service = Service("pool", version="1.0.0", instance=name)

            @service.endpoint(concurrency=slots)
            async def work(hold: bool) -> None:
                if hold:
                    await held.wait()

            @service.endpoint()
            async def other() -> None:
                return None

            return service

        async with MemoryMesh() as mesh, mesh.client("web", policies=rules) as caller:
            small = await mesh.serve(pool("a", 1))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(mesh.call("pool.work", True, timeout=60.0))
                await asyncio.sleep(0.1)
                large = await mesh.serve(pool("b", 100))
                while large.dispatcher.in_flight < 5:
                    tasks.create_task(mesh.call("pool.work", True, timeout=60.0, idempotent=True))
                    await asyncio.sleep(0.1)
                await caller.call("pool.other")
                await asyncio.sleep(5.0)
                gate = small.dispatcher.served["work"].concurrency
                before = gate.refused
                for _ in range(1000):
                    with contextlib.suppress(OverloadedError):
                        await caller.call("pool.work", False)
                    await asyncio.sleep(0.001)
                refused = gate.refused - before
                held.set()
        # One each 25 ms, which is what a full endpoint advises that knows nothing of itself.
        assert 20 <= refused <= 60

    run_virtual(main)

"""Routes on every transport: which calls go where, what is done to them on the way, and that no change costs one."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest

from nats_mesh import (
    CallError,
    Context,
    DeadlineExceededError,
    Executed,
    Mesh,
    NoInstancesError,
    PolicyError,
    Reply,
    Request,
    Service,
    Status,
)
from nats_mesh.policy import PolicySet
from nats_mesh.policy.decode import parse
from nats_mesh.serving.instance import Instance
from tests.harness import Bus, eventually

pytestmark = pytest.mark.anyio

SUBSETS = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: reviews}
spec:
  target: {service: reviews}
  subsets:
    v1: {labels: {version: v1}}
    v2: {labels: {version: v2}}
    v3: {version: 3.0.0}
"""


def route(rules: str, target: str = "{service: reviews}", name: str = "reviews") -> str:
    """A route with these rules."""
    return f"""
apiVersion: mesh/v1
kind: Route
metadata: {{name: {name}}}
spec:
  target: {target}
  rules:
{rules}
"""


def policies(*documents: str) -> PolicySet:
    """The set of these documents."""
    return PolicySet.of(parse("\n---\n".join(documents)))


class Calls:
    """What instances were called with, by the subset that answers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None, str | None]] = []
        self.mirrored: list[str] = []

    def service(self, name: str, subset: str, **options: Any) -> Service:
        """A service whose every answer is its subset's name."""
        version = "3.0.0" if subset == "v3" else "1.0.0"
        service = Service(name, version=version, labels={"version": subset}, **options)

        @service.endpoint(idempotent=True)
        async def which(ctx: Context) -> str:
            self.seen.append((subset, ctx.headers.get("end-user"), ctx.idempotency_key))
            return subset

        @service.endpoint()
        async def slow(wait_s: float) -> str:
            await anyio.sleep(wait_s)
            return subset

        return service


async def serve(bus: Bus, policies: PolicySet, *subsets: str, name: str = "reviews") -> Calls:
    """An instance of each subset."""
    calls = Calls()
    for subset in subsets:
        await bus.serve(calls.service(name, subset, policies=policies))
    return calls


async def found(mesh: Mesh, count: int, headers: dict[str, str] | None = None) -> collections.Counter[str]:
    """Who answers so many calls."""
    return collections.Counter(
        [await mesh.call("reviews.which", returns=str, headers=headers) for _ in range(count)]
    )


@pytest.mark.parametrize(
    ("condition", "meets", "misses"),
    [
        ("jason", ["jason"], ["Jason", "jason ", "", None]),
        ("{exact: jason}", ["jason"], ["jas", None]),
        ("{prefix: ja}", ["jason", "ja"], ["aja", None]),
        ("{suffix: son}", ["jason", "son"], ["sonja", None]),
        ("{regex: 'j.*n'}", ["jason", "jn"], ["jasons", "a jn", None]),
        ("{present: true}", ["", "x"], [None]),
        ("{absent: true}", [None], ["", "x"]),
        ("{range: {start: 3, end: 5}}", ["3", "4"], ["2", "5", "4.0", "x", "", None]),
        ("{range: {end: 0}}", ["-1"], ["0", "1", None]),
        ("{prefix: ja, invert: true}", ["x", None], ["jason"]),
    ],
)
async def test_headers_are_matched(
    bus: Bus, condition: str, meets: Sequence[str | None], misses: Sequence[str | None]
) -> None:
    """exact, prefix, suffix, regex, present, absent, range, and each of them turned round."""
    rules = f"""
  - match: {{headers: {{End-User: {condition}}}}}
    split: [{{subset: v2}}]
  - split: [{{subset: v1}}]
"""
    followed = policies(SUBSETS, route(rules))
    await serve(bus, followed, "v1", "v2")
    caller = await bus.caller("web", policies=followed)
    for value in meets:
        headers = {} if value is None else {"end-user": value}
        assert await caller.call("reviews.which", returns=str, headers=headers) == "v2", value
    for value in misses:
        headers = {} if value is None else {"end-user": value}
        assert await caller.call("reviews.which", returns=str, headers=headers) == "v1", value


async def test_rules_are_met_in_their_order_by_caller_and_endpoint(bus: Bus) -> None:
    """The first rule that a call meets counts; one that meets none goes as if there were no route."""
    rules = """
  - match: [{callers: [mobile], endpoints: [wh*]}, {callers: [kiosk-*]}]
    split: [{subset: v2}]
  - match: {callers: [mobile]}
    split: [{subset: v3}]
"""
    followed = policies(SUBSETS, route(rules))
    calls = await serve(bus, followed, "v2", "v3")
    mobile = await bus.caller("mobile", policies=followed)
    kiosk = await bus.caller("kiosk-7", policies=followed)
    web = await bus.caller("web", policies=followed)
    assert await found(mobile, 20) == {"v2": 20}
    assert await mobile.call("reviews.slow", 0.0, returns=str) == "v3"
    assert await found(kiosk, 20) == {"v2": 20}
    assert set(await found(web, 60)) == {"v2", "v3"}
    assert len(calls.seen) == 100


async def test_traffic_is_split_by_weight(bus: Bus) -> None:
    """20/80 over 1,000 calls → within 5 points; a weight of 0 gets nothing."""
    rules = "  - split: [{subset: v1, weight: 20}, {subset: v2, weight: 80}, {subset: v3, weight: 0}]"
    followed = policies(SUBSETS, route(rules))
    await serve(bus, followed, "v1", "v2", "v3")
    caller = await bus.caller("web", policies=followed)
    answers = await found(caller, 1000)
    assert answers["v1"] == pytest.approx(200, abs=50)
    assert answers["v2"] == 1000 - answers["v1"]


async def test_a_split_over_services(bus: Bus) -> None:
    """70/30 between a service and another one that takes its place; both see the same endpoint."""
    rules = "  - split: [{subset: v1, weight: 70}, {service: critics, weight: 30}]"
    followed = policies(SUBSETS, route(rules))
    await serve(bus, followed, "v1")
    await serve(bus, followed, "other", name="critics")
    caller = await bus.caller("web", policies=followed)
    answers = await found(caller, 500)
    assert answers["v1"] == pytest.approx(350, abs=50)
    assert answers["other"] == 500 - answers["v1"]


async def test_who_is_sticky_stays_while_a_canary_grows(bus: Bus) -> None:
    """Each user has one version; from 5 to 10 to 50 % nobody goes back, and about as many are there as should be."""

    def at(weight: int) -> PolicySet:
        legs = f"[{{subset: v1, weight: {100 - weight}}}, {{subset: v2, weight: {weight}}}]"
        return policies(SUBSETS, route(f"  - {{split: {legs}, sticky: {{header: end-user}}}}"))

    users = [f"user-{number}" for number in range(400)]
    await serve(bus, at(5), "v1", "v2")
    caller = await bus.caller("web", policies=at(5))
    before: set[str] = set()
    for weight in (5, 10, 50):
        caller.client.apply(at(weight))
        now = {
            user
            for user in users
            if await caller.call("reviews.which", returns=str, headers={"end-user": user}) == "v2"
        }
        again = {
            user
            for user in users[:50]
            if await caller.call("reviews.which", returns=str, headers={"end-user": user}) == "v2"
        }
        assert again == now & set(users[:50])
        assert before <= now
        assert len(now) == pytest.approx(4 * weight, abs=4 + weight)
        before = now


async def test_an_empty_subset_is_unavailable(bus: Bus) -> None:
    """Calls to a subset that nobody is in fail at once and say so; they never go to everybody."""
    followed = policies(SUBSETS, route("  - {split: [{subset: v3}], retry: {attempts: 1}}"))
    calls = await serve(bus, followed, "v1", "v2")
    caller = await bus.caller("web", policies=followed)
    with pytest.raises(NoInstancesError) as caught:
        await caller.call("reviews.which", returns=str, timeout=5)
    assert caught.value.status is Status.UNAVAILABLE
    assert caught.value.executed is Executed.NO
    assert "'v3'" in caught.value.message
    assert calls.seen == []


async def test_a_chosen_instance_is_one_of_the_subset(bus: Bus) -> None:
    """A balancer chooses among the subset's instances alone, and falls back to the queue of the same subset."""
    balanced = SUBSETS.replace("  subsets:", "  balancer: round_robin\n  subsets:")
    followed = policies(balanced, route("  - split: [{subset: v2}]"))
    await serve(bus, followed, "v1", "v1", "v2", "v2")
    caller = await bus.caller("web", policies=followed)
    await caller.call("reviews.which")
    fleet = caller.client.fleets.visit("reviews")
    assert fleet is not None
    await eventually(lambda: len(fleet.instances()) == 4, fleet.instances)
    replies = [await caller.request("reviews.which", returns=str) for _ in range(40)]
    assert {reply.value for reply in replies} == {"v2"}
    shares = collections.Counter([reply.instance for reply in replies])
    assert sorted(shares.values()) == [pytest.approx(20, abs=1), pytest.approx(20, abs=1)]
    for instance in bus.instances:
        if instance.service.labels["version"] == "v2" and instance.id == replies[-1].instance:
            fleet.on_change = None
            await instance.drain()
    assert {await caller.call("reviews.which", returns=str) for _ in range(10)} == {"v2"}


async def test_a_destination_about_a_subset_holds_there_alone(bus: Bus) -> None:
    """Values for one subset go above those for the service, and below those for an endpoint."""
    subset = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: reviews-v2}
spec:
  target: {service: reviews, subset: v2}
  timeout: 150ms
"""
    rules = """
  - match: {headers: {to: v2}}
    split: [{subset: v2}]
  - split: [{subset: v1}]
"""
    followed = policies(SUBSETS, subset, route(rules))
    await serve(bus, followed, "v1", "v2")
    caller = await bus.caller("web", policies=followed)
    assert await caller.call("reviews.slow", 0.3, returns=str) == "v1"
    with pytest.raises(DeadlineExceededError):
        await caller.call("reviews.slow", 0.3, returns=str, headers={"to": "v2"})


async def test_mirrors_get_copies_and_nobody_waits_for_them(bus: Bus) -> None:
    """A copy reaches the mirror with a mark and without the idempotency key; that it is slow, fails, or is not there
    changes nothing for the caller."""
    rules = """
  - match: {headers: {to: nobody}}
    split: [{subset: v1}]
    mirror: {subset: v3}
  - split: [{subset: v1}]
    mirror: {subset: v2}
"""
    followed = policies(SUBSETS, route(rules))
    calls = await serve(bus, followed, "v1")
    shadow = Service("reviews", version="1.0.0", labels={"version": "v2"}, policies=followed)
    copies: list[tuple[str, str | None, bool]] = []

    @shadow.endpoint()
    async def which(ctx: Context) -> str:
        copies.append((ctx.headers.get("end-user", ""), ctx.idempotency_key, ctx.mirror))
        raise RuntimeError("what a mirror says is no affair of the caller's")

    await bus.serve(shadow)
    caller = await bus.caller("web", policies=followed)
    answer = await caller.request(
        "reviews.which", returns=str, headers={"end-user": "ann"}, idempotency_key="k-1"
    )
    assert (answer.value, answer.attempts) == ("v1", 1)
    assert await caller.call("reviews.which", returns=str, headers={"to": "nobody"}) == "v1"
    await eventually(lambda: bool(copies), lambda: copies)
    assert copies == [("ann", None, True)]
    assert calls.seen == [("v1", "ann", "k-1"), ("v1", None, None)]


async def test_a_share_of_calls_is_mirrored(bus: Bus) -> None:
    """30 % of 400."""
    rules = "  - {split: [{subset: v1}], mirror: {subset: v2, share: 30%}}"
    followed = policies(SUBSETS, route(rules))
    calls = await serve(bus, followed, "v1", "v2")
    caller = await bus.caller("web", policies=followed)
    await found(caller, 400)
    await caller.client.transport.fence()
    await eventually(lambda: sum(each[0] == "v2" for each in calls.seen) > 60, lambda: calls.seen[-5:])
    assert sum(each[0] == "v2" for each in calls.seen) == pytest.approx(120, abs=40)
    assert sum(each[0] == "v1" for each in calls.seen) == 400


async def test_injected_aborts(bus: Bus) -> None:
    """0 % → none, 100 % → all, another rule → none affected; that status, tried once, and no handler ran."""
    rules = """
  - match: {headers: {end-user: jason}}
    fault: {abort: {status: RESOURCE_EXHAUSTED}}
  - match: {headers: {end-user: ann}}
    fault: {abort: {status: UNAVAILABLE, share: 0%}}
"""
    followed = policies(SUBSETS, route(rules))
    calls = await serve(bus, followed, "v1")
    caller = await bus.caller("web", policies=followed)
    for _ in range(5):
        with pytest.raises(CallError) as caught:
            await caller.call("reviews.which", headers={"end-user": "jason"})
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert (caught.value.attempts, caught.value.executed) == (0, Executed.NO)
        assert (caught.value.service, caught.value.endpoint) == ("reviews", "which")
    assert calls.seen == []
    assert await found(caller, 5, {"end-user": "ann"}) == {"v1": 5}
    assert await found(caller, 5) == {"v1": 5}


async def test_injected_delays_count_against_the_time_of_the_call(bus: Bus) -> None:
    """A delay is waited for; one that is longer than the call has left ends it at its deadline, unsent."""
    rules = """
  - match: {headers: {end-user: jason}}
    fault: {delay: {duration: 7s}}
  - fault: {delay: {duration: 200ms}}
"""
    followed = policies(SUBSETS, route(rules))
    calls = await serve(bus, followed, "v1")
    caller = await bus.caller("web", policies=followed)
    reply = await caller.request("reviews.which", returns=str)
    assert reply.value == "v1"
    assert reply.duration_s >= 0.2
    with pytest.raises(DeadlineExceededError) as caught:
        await caller.call("reviews.which", headers={"end-user": "jason"}, timeout=0.2)
    assert caught.value.executed is Executed.NO
    assert len(calls.seen) == 1


async def test_redirects(bus: Bus) -> None:
    """Another endpoint, another service, or both are called in place of what was asked for."""
    rules = """
  - match: {endpoints: [which]}
    redirect: {service: critics}
  - match: {endpoints: [old]}
    redirect: {endpoint: which}
"""
    followed = policies(SUBSETS, route(rules))
    await serve(bus, followed, "v1")
    await serve(bus, followed, "other", name="critics")
    caller = await bus.caller("web", policies=followed)
    assert await caller.call("reviews.which", returns=str) == "other"
    assert await caller.call("reviews.old", returns=str) == "v1"


async def test_timeouts_and_retries_by_rule(bus: Bus) -> None:
    """Route 3 s (here 150 ms), handler longer → DEADLINE_EXCEEDED; another rule stays OK; an argument wins."""
    rules = """
  - match: {headers: {hurry: {present: true}}}
    timeout: 150ms
"""
    followed = policies(SUBSETS, route(rules))
    await serve(bus, followed, "v1")
    caller = await bus.caller("web", policies=followed)
    with pytest.raises(DeadlineExceededError):
        await caller.call("reviews.slow", 0.4, headers={"hurry": "yes"})
    assert await caller.call("reviews.slow", 0.3, returns=str) == "v1"
    assert await caller.call("reviews.slow", 0.3, returns=str, headers={"hurry": "yes"}, timeout=4) == "v1"


async def test_what_interceptors_set_is_matched(bus: Bus) -> None:
    """Calls are routed when the interceptors are done with them: by the headers they leave, with the rule's time."""
    rules = """
  - match: {headers: {tenant: gold}}
    split: [{subset: v2}]
    timeout: 1s
  - split: [{subset: v1}]
"""
    followed = policies(SUBSETS, route(rules))
    await serve(bus, followed, "v1", "v2")

    async def sign(request: Request, proceed: Callable[..., Any]) -> Reply[Any]:
        if request.headers.get("end-user") == "ann":
            request.headers["tenant"] = "gold"
        reply: Reply[Any] = await proceed(request)
        return reply

    caller = await bus.caller("web", policies=followed, interceptors=[sign])
    assert await caller.call("reviews.which", returns=str, headers={"end-user": "ann"}) == "v2"
    assert await caller.call("reviews.which", returns=str) == "v1"
    with pytest.raises(DeadlineExceededError):
        await caller.call("reviews.slow", 2.0, headers={"end-user": "ann"})
    assert await caller.call("reviews.slow", 1.2, returns=str, headers={"end-user": "ann"}, timeout=6) == "v2"


async def test_nested_calls_are_routed_by_their_own_headers(bus: Bus) -> None:
    """A handler's calls meet the routes of its service; what it does not hand on is not there to be matched."""
    rules = """
  - match: {headers: {end-user: jason}, callers: [front]}
    split: [{subset: v2}]
  - split: [{subset: v1}]
"""
    followed = policies(SUBSETS, route(rules))
    await serve(bus, followed, "v1", "v2")
    front = Service("front", version="1.0.0", policies=followed)

    @front.endpoint()
    async def page(hand_on: bool, ctx: Context) -> str:
        headers = {"end-user": ctx.headers["end-user"]} if hand_on else {}
        return await ctx.call("reviews.which", returns=str, headers=headers)

    await bus.serve(front)
    assert await bus.mesh.call("front.page", True, returns=str, headers={"end-user": "jason"}) == "v2"
    assert await bus.mesh.call("front.page", False, returns=str, headers={"end-user": "jason"}) == "v1"


async def test_a_change_of_routes_costs_no_call(bus: Bus) -> None:
    """While routes change under calls, to and fro, every call gets an answer from a version that some route names."""
    to_v1 = policies(SUBSETS, route("  - split: [{subset: v1}]"))
    to_v2 = policies(SUBSETS, route("  - split: [{subset: v2}]"))
    bare = PolicySet.empty()
    await serve(bus, to_v1, "v1", "v2")
    caller = await bus.caller("web", policies=to_v1)
    answers: collections.Counter[str] = collections.Counter()

    async def load() -> None:
        for _ in range(100):
            answers[await caller.call("reviews.which", returns=str)] += 1

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(load)
        for _ in range(20):
            for followed in (to_v2, bare, to_v1):
                caller.client.apply(followed)
                await anyio.sleep(0)
    assert sum(answers.values()) == 800
    assert len(caller.client.outbound._groups) == 0


async def test_a_route_to_a_new_subset_is_held(bus: Bus) -> None:
    """A caller that hears of subset and route in one moment sends nothing to the subset for a second: its instances
    may not know of it yet. Meanwhile calls go as they did, and a change of the rest is in effect at once."""
    calls = Calls()
    instance = await bus.serve(calls.service("reviews", "v2"))
    caller = await bus.caller("web")
    await caller.call("reviews.which")
    both = policies(
        SUBSETS.replace("  subsets:", "  timeout: 3s\n  subsets:"), route("  - split: [{subset: v2}]")
    )
    caller.client.apply(both)
    known = caller.client._targets["reviews.which"]

    def taken() -> list[str] | None:
        return None if known.routing is None else [each.subset for each in known.routing.targets()]

    assert taken() is None
    assert known.timeout_s == 3.0
    # By the queue of all: nobody is in the subset.
    assert await caller.call("reviews.which", returns=str) == "v2"
    instance._follow(both)
    await eventually(lambda: taken() == [], taken)
    assert await caller.call("reviews.which", returns=str) == "v2"
    assert taken() == ["v2"]


async def test_an_instance_learns_and_leaves_its_subsets(bus: Bus) -> None:
    """A subset that comes later reaches the instances it selects; one that goes is served for a while longer."""
    calls = Calls()
    instance = await bus.serve(calls.service("reviews", "v2"))
    assert subjects(instance) == ["all"]
    instance._follow(policies(SUBSETS))
    assert subjects(instance) == ["all", "v2"]
    instance._follow(PolicySet.empty())
    assert subjects(instance) == ["all", "v2"]
    seats = instance._parts.seats
    assert seats is not None
    seats._give_up("v2")
    assert subjects(instance) == ["all"]


def subjects(instance: Instance) -> list[str]:
    """The routes on which an instance has seats."""
    assert instance._parts.seats is not None
    return sorted(instance._parts.seats._queues)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ("  - split: [{subset: v9}]", "reviews has no subset v9"),
        ("  - split: [{service: critics, subset: v1}]", "no Destination names subsets of critics"),
        ("  - mirror: {subset: v9}\n    timeout: 1s", "reviews has no subset v9"),
    ],
)
async def test_a_route_to_nowhere_is_refused(rules: str, says: str) -> None:
    """A route names only subsets that a Destination defines."""
    with pytest.raises(PolicyError, match=says):
        policies(SUBSETS, route(rules))


@pytest.mark.parametrize("intercepted", [False, True])
async def test_a_gather_is_redirected_with_and_without_interceptors(bus: Bus, intercepted: bool) -> None:
    """By the headers as the interceptors leave them."""
    rules = """
  - match: {headers: {end-user: jason}}
    redirect: {service: critics}
"""
    followed = policies(SUBSETS, route(rules))
    await serve(bus, followed, "v1")
    await serve(bus, followed, "v2", name="critics")

    async def as_jason(request: Request, proceed: Callable[[Request], Any]) -> Reply[Any]:
        request.headers["end-user"] = "jason"
        reply: Reply[Any] = await proceed(request)
        return reply

    options: dict[str, Any] = {"interceptors": [as_jason]} if intercepted else {}
    caller = await bus.caller("web", policies=followed, **options)
    headers = {} if intercepted else {"end-user": "jason"}
    gathered = await caller.gather("reviews.which", returns=str, timeout=5, headers=headers)
    assert list(gathered.answers.values()) == ["v2"]

"""What an explanation says of calls on a real server is what a real caller's targets have, and where its calls go."""

from __future__ import annotations

import collections
import math
from typing import Any

import pytest

from nats_mesh import CallError, Context, Mesh, Service
from nats_mesh.calling.exchange import Target
from nats_mesh.calling.routing import Routing
from nats_mesh.discovery.services_api import InfoReply, Verb, request_subject
from nats_mesh.explaining.calls import Explanation, Question, Way, explain_call
from nats_mesh.model import OwnHeaders
from nats_mesh.policy import PolicySet, parse
from nats_mesh.testing import NatsServer
from nats_mesh_cli.bus import ask
from nats_mesh_cli.catalog import read_infos
from nats_mesh_cli.why_heard import listening
from tests.harness import Bus, eventually

pytestmark = pytest.mark.anyio

COUNT = 600
POLICIES = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: reviews}
spec:
  target: {service: reviews}
  retry: {attempts: 3}
  subsets: {v1: {labels: {color: blue}}, v2: {labels: {color: red}}, v3: {version: 9.0.0}}
---
apiVersion: mesh/v1
kind: Destination
metadata: {name: two}
spec:
  target: {service: reviews, subset: v2}
  timeout: 700ms
  breaker: {minCalls: 500}
  balancer: round_robin
---
apiVersion: mesh/v1
kind: Route
metadata: {name: everybody}
spec:
  rules:
    - match: {headers: {x-slow: {present: true}}}
      timeout: 10s
      idempotent: false
---
apiVersion: mesh/v1
kind: Route
metadata: {name: reviews}
spec:
  target: {service: reviews}
  rules:
    - match: {headers: {end-user: {prefix: ann}}}
      split: [{subset: v2}]
      fault: {abort: {status: FAILED_PRECONDITION, share: 25%}}
    - match: {headers: {end-user: nobody}}
      split: [{subset: v3}]
    - match: {share: 40%}
      split: [{subset: v1}, {subset: v2}]
      sticky: {header: end-user}
    - split: [{subset: v1, weight: 70}, {service: critics, weight: 30}]
"""
CALLS: tuple[dict[str, str], ...] = (
    {},
    {"x-slow": "1"},
    {"end-user": "ann-1"},
    {"end-user": "bob"},
    {"end-user": "eve", "x-slow": "1"},
    {"end-user": "joe"},
)


def service(name: str, color: str, followed: PolicySet) -> Service:
    """One whose every answer says which it is."""
    made = Service(name, version="1.0.0", labels={"color": color}, policies=followed)

    @made.endpoint(timeout=1.5, idempotent=True)
    async def which(ctx: Context) -> str:
        return f"{ctx.service} {color}"

    return made


async def answers(mesh: Mesh) -> list[InfoReply]:
    """What everybody says that is there."""
    return read_infos((await ask(mesh, request_subject(Verb.INFO))).payloads)[0]


def explained(bus: Bus, followed: PolicySet, infos: list[InfoReply], sent: dict[str, str]) -> Explanation:
    """What becomes of a call with these headers."""
    question = Question(service="reviews", endpoint="which", caller="web", headers=OwnHeaders(sent))
    return explain_call(question, followed, infos)


def facts(target: Target) -> dict[str, Any]:
    """What a target's layers go by."""
    return {
        "timeout_s": target.timeout_s,
        "idempotent": target.usual.idempotent,
        "keyed": target.keyed,
        "subject": target.subject,
        "retries": None if target.retries is None else target.retries.rules,
        "circuit": None if target.circuit is None else target.circuit.breaker._rules,
        "hedger": None if target.hedger is None else target.hedger.rules,
        "balancer": None if target.balance is None else target.balance.group.rules,
        "fault": None if target.effects is None else target.effects.fault,
    }


def answer(way: Way) -> str:
    """Who answers the calls of a way."""
    colors = {"v1": "blue", "v2": "red"}
    return f"{way.target.service} {colors.get(way.target.subset, 'any')}"


async def test_real_calls_go_where_it_says_and_get_what_it_says(bus: Bus) -> None:
    """For calls with and without a key, by weight, through two routes at a time: the shares of the answers are those
    that were said, and every target that a call took has the layers that were told of."""
    followed = PolicySet.of(parse(POLICIES), namespace=bus.namespace)
    for name, color in (("reviews", "blue"), ("reviews", "red"), ("critics", "any")):
        await bus.serve(service(name, color, followed))
    caller = await bus.caller("web", policies=followed)
    infos = await answers(bus.mesh)
    said = [explained(bus, followed, infos, sent) for sent in CALLS]
    ways = {
        (way.target.service, way.target.subset, way.target.via): way for each in said for way in each.ways
    }
    for sent, each in zip(CALLS, said, strict=True):
        expected: collections.defaultdict[str, float] = collections.defaultdict(float)
        for way in each.ways:
            expected[answer(way)] += way.share * (1.0 - way.fails)
        met: collections.Counter[str] = collections.Counter()
        for _ in range(COUNT):
            try:
                met[await caller.call("reviews.which", returns=str, headers=sent)] += 1
            except CallError as error:
                met[str(error.status)] += 1
        assert each.fails == pytest.approx(0.25 if sent.get("end-user") == "ann-1" else 0.0)
        assert met.pop("FAILED_PRECONDITION", 0) == pytest.approx(COUNT * each.fails, abs=60)
        assert met.keys() == expected.keys()
        for who, share in expected.items():
            spread = 5.0 * math.sqrt(COUNT * share * (1.0 - share)) + 1.0
            assert abs(met[who] - COUNT * share) <= spread, (sent, who, share, met)
    known = caller.client._targets["reviews.which"]
    assert isinstance(known.routing, Routing)
    taken = list(known.routing.targets())
    assert len(taken) == len(ways)
    for target in taken:
        await eventually(lambda target=target: target.declared.timeout_s is not None)  # type: ignore[misc]  # a default holds what the loop's variable is now
        way = ways[target.service, target.subset, target.via]
        assert facts(target) == facts(way.target)
        if target.balance is not None:
            assert tuple(target.balance.group.members) == way.chosen
    lost = explained(bus, followed, infos, {"end-user": "nobody"})
    assert lost.fails == 1.0
    with pytest.raises(CallError, match="no instance of 'reviews' is in its subset 'v3'"):
        await caller.call("reviews.which", headers={"end-user": "nobody"})


async def test_who_may_not_listen_to_statistics_is_told_why_circuits_are_unknown() -> None:
    """Everything else is answered: that one right is missing is no reason to say nothing."""
    config = 'authorization { users: [{user: u, password: p, permissions: {subscribe: {deny: ["*.*.telemetry.>"]}}}] }'
    with NatsServer(config=config, jetstream=False) as server:
        url = server.url.replace("nats://", "nats://u:p@")
        async with Mesh("observer", servers=url) as mesh, listening(mesh, ["web"]) as heard:
            told = (await heard.told({"web": ["a"]}))["web"]
            assert not told.asked
            assert told.reason.startswith("this credential may not listen to statistics (")
            assert mesh.client.transport.connected


async def test_nobody_listens_where_nobody_is_asked_about(bus: Bus) -> None:
    """Without a caller there is nothing to hear, and no member is asked to tell."""
    instance = await bus.serve(service("reviews", "blue", PolicySet.empty()))
    async with listening(bus.mesh, []) as heard:
        assert await heard.told({}) == {}
        await bus.mesh.client.transport.fence()
    assert instance._parts.publisher is not None
    assert not instance._parts.publisher.wanted

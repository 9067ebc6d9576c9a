"""What `why` says of a call is what the data path does with such calls: its routes, its shares, its attempts."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, cast

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh import CallError, Context, PolicyError, Service
from nats_mesh.calling.exchange import Target
from nats_mesh.calling.routing import Routing
from nats_mesh.core.conditions import examined
from nats_mesh.core.matcher import HeaderTest
from nats_mesh.core.router import Leg, Match, Path, Rule, Sticky, draw, position, relevant
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.errors import Status
from nats_mesh.explaining.calls import Explanation, Question, explain_call
from nats_mesh.explaining.hypothetical import Hypothetical
from nats_mesh.model import Interceptor, Next, OwnHeaders, Reply, Request
from nats_mesh.policy import PolicySet, parse
from nats_mesh.testing import MemoryMesh, run_virtual
from tests.cli.infos import foreign_info, mesh_info

COUNT = 1500
SUBSETS = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: shop}
spec:
  target: {service: shop}
  subsets: {v1: {version: 1.0.0}, v2: {version: 2.0.0}, v3: {labels: {color: red}}}
"""
ELSEWHERE = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: other}
spec: {target: {service: other}, timeout: 700ms, subsets: {v1: {version: 1.0.0}}}
"""


def policies(*documents: str) -> PolicySet:
    """The set of these documents."""
    return PolicySet.of(parse("\n---\n".join(documents), file="p.yaml"))


def route(rules: str, target: str = "{service: shop}", name: str = "shop") -> str:
    """A route with these rules, in YAML's flow style."""
    return f"apiVersion: mesh/v1\nkind: Route\nmetadata: {{name: {name}}}\nspec: {{target: {target}, rules: {rules}}}\n"


def explained(
    followed: PolicySet, *infos: InfoReply, endpoint: str = "get", nobody: bool = False, **question: Any
) -> Explanation:
    """What becomes of a call of `web` to `shop.get`; nobody was asked without ``infos``, unless there is ``nobody``."""
    asked = Question(service="shop", endpoint=endpoint, caller=question.pop("caller", "web"), **question)
    return explain_call(asked, followed, infos if infos or nobody else None)


def headers(**values: str | list[str]) -> OwnHeaders:
    """Headers of a call, underscores for hyphens."""
    return OwnHeaders({name.replace("_", "-"): value for name, value in values.items()})


# -- the same as calls ---------------------------------------------------------------------------------

_values = st.sampled_from(["a", "b", "7", "12"])
_conditions = st.one_of(
    _values,
    st.builds(lambda v: {"prefix": v[:1]}, _values),
    st.just({"present": True}),
    st.just({"absent": True}),
    st.just({"range": {"start": 5, "end": 10}}),
    st.builds(lambda v: {"exact": v, "invert": True}, _values),
    st.just({"regex": "[0-9]+"}),
)
_percent = st.integers(0, 100).map(lambda share: f"{share}%")
_match = st.fixed_dictionaries(
    {},
    optional={
        "callers": st.lists(st.sampled_from(["web", "we*", "*-b", "mobile"]), min_size=1, max_size=2),
        "endpoints": st.lists(st.sampled_from(["get", "g*", "put"]), min_size=1, max_size=2),
        "headers": st.dictionaries(st.sampled_from(["x-user", "x-kind"]), _conditions, min_size=1),
        "share": _percent,
    },
).filter(bool)
_leg = st.fixed_dictionaries(
    {"weight": st.integers(0, 100)},
    optional={"subset": st.sampled_from(["v1", "v2"]), "service": st.just("other")},
).filter(lambda leg: leg.get("subset") != "v2" or "service" not in leg)


def _aim(leg: dict[str, Any]) -> object:
    return leg.get("service"), leg.get("subset")


_sticky = st.sampled_from([{"header": "x-user"}, {"identity": True}])
_rule = st.fixed_dictionaries(
    {"match": st.lists(_match, min_size=1, max_size=2)},
    optional={
        "split": st.lists(_leg, min_size=1, max_size=4, unique_by=_aim).filter(
            lambda legs: any(leg["weight"] for leg in legs)
        ),
        "sticky": _sticky,
        "timeout": st.sampled_from(["1s", "200ms"]),
    },
).filter(lambda rule: "split" in rule or "timeout" in rule)
_routes = st.dictionaries(
    st.sampled_from(["", "service: shop", "service: shop, endpoints: [get]"]),
    st.lists(_rule, min_size=1, max_size=4),
    min_size=1,
    max_size=3,
)
_headers = st.fixed_dictionaries({}, optional={"x-user": _values, "x-kind": _values})


def _set(routes: dict[str, Any]) -> PolicySet | None:
    """The policies, where they can be: what nobody can reach is refused, as is a subset of no service."""
    documents = [SUBSETS, ELSEWHERE]
    for number, (target, rules) in enumerate(routes.items()):
        if not target:  # a subset of which service?
            rules = [
                {
                    **rule,
                    "split": [
                        {"weight": 1, **leg, "service": leg.get("service", "shop")} for leg in rule["split"]
                    ],
                }
                if "split" in rule
                else rule
                for rule in rules
            ]
        text = msgspec.json.encode(rules).decode()
        documents.append(route(text, f"{{{target}}}", f"r{number}"))
    try:
        return policies(*documents)
    except PolicyError:
        return None


def _way(path: Path, leg: Leg) -> object:
    """What tells the ways of calls apart."""
    return tuple((rule.scope, rule.index) for rule in path.rules), leg


@given(routes=_routes, sent=_headers, seed=st.integers(0, 2**32))
def test_the_shares_are_those_of_calls(routes: dict[str, Any], sent: dict[str, str], seed: int) -> None:
    """Of many calls through the routing of the data path, as many meet each combination of rules and go to each
    destination as was said; and what was not said happens to none."""
    followed = _set(routes)
    if followed is None:
        return
    said = explained(followed, headers=OwnHeaders(sent))
    assert math.isclose(sum(way.share for way in said.ways), 1.0, abs_tol=1e-9)
    expected: defaultdict[object, float] = defaultdict(float)
    for way in said.ways:
        expected[_way(way.path, way.leg)] += way.share
    rules = followed.outbound("shop", "get", "web").routing
    rng = random.Random(seed)
    taken: Counter[object] = Counter()

    def make(path: Path, leg: Leg) -> Target:
        return cast(Target, _way(path, leg))

    routing = Routing("shop", rules, caller="web", chance=rng.random, make=make, forget=lambda target: None)
    if rules:
        values = OwnHeaders(sent)
        for _ in range(COUNT):
            taken[routing.choose(values)] += 1
        assert taken.keys() <= expected.keys()
        for key, share in expected.items():
            spread = 6.0 * math.sqrt(COUNT * max(0.0, share * (1.0 - share))) + 1.0
            assert abs(taken[key] - COUNT * share) <= spread, (key, share, taken[key])
    else:
        assert [way.share for way in said.ways] == [1.0]


@given(routes=_routes, sent=_headers)
def test_each_rule_is_told_as_the_whole_is(routes: dict[str, Any], sent: dict[str, str]) -> None:
    """How many calls meet each rule, and none of a route, is what the ways that name the rule come to; a condition that
    does not hold explains every rule that nobody meets, and none that somebody does."""
    followed = _set(routes)
    if followed is None:
        return
    said = explained(followed, headers=OwnHeaders(sent))
    if not followed.outbound("shop", "get", "web").routing:
        return
    for asked in said.routes:
        for each in asked.rules:
            met = sum(
                way.share
                for way in said.ways
                if (each.rule.scope, each.rule.index) in [(r.scope, r.index) for r in way.path.rules]
            )
            assert math.isclose(met, each.met, abs_tol=1e-9), each
            for match in each.matches:
                failing = [c for c in match.conditions if c.holds is False]
                assert (match.share == 0.0) is bool(failing or match.match.share == 0.0)


# -- conditions ----------------------------------------------------------------------------------------


def test_every_condition_is_told_with_what_the_call_has() -> None:
    """Caller, endpoint, each header with all of its values, and a share that is drawn for each call."""
    rule = Rule(
        scope=("shop", ""),
        index=0,
        matches=(
            Match(
                callers=("mobile", "web-*"),
                endpoints=("get",),
                headers=(HeaderTest(name="x-user", exact="ann"), HeaderTest(name="x-beta", present=True)),
                share=0.25,
            ),
        ),
    )
    sent = headers(x_user=["ann", "bob"])
    (found,) = examined([rule], sent.get_all, "web", "get", "shop")
    (match,) = found.matches
    assert [(each.about, each.found, each.holds) for each in match.conditions] == [
        ("caller", ("web",), False),
        ("endpoint", ("get",), True),
        ("header", ("ann", "bob"), True),
        ("header", (), False),
        ("share", (), None),
    ]
    assert (found.share, found.asked, found.met) == (0.0, 1.0, 0.0)
    (found,) = examined([rule], headers(x_user="ann", x_beta="1").get_all, "web-7", "get", "shop")
    assert found.share == 0.25


def test_a_sticky_share_says_where_the_key_stands() -> None:
    """The very place that decides: among every larger share, and in no smaller one."""
    place = position("ann", "shop?")
    for share in (place - 0.01, place + 0.01):
        rule = Rule(
            scope=("shop", ""), index=0, matches=(Match(share=share),), sticky=Sticky(header="x-user")
        )
        values = headers(x_user="ann").get_all
        (found,) = examined([rule], values, "web", "get", "shop")
        condition = found.matches[0].conditions[0]
        assert condition.found == (f"'ann' is at {place * 100:.4g}%",)
        met = draw(relevant([rule], "web", "get"), values, "web", "shop", lambda: 0.0) is not None
        assert (condition.holds, found.share) == (met, float(met))


def test_what_stands_below_a_rule_that_all_meet_is_out_of_reach() -> None:
    """No call is asked there; of those that a share lets through, the rest is."""
    rules = [
        Rule(scope=("", ""), index=0, matches=(Match(share=0.25),)),
        Rule(scope=("", ""), index=1, matches=(Match(share=0.5), Match(share=0.5))),
        Rule(scope=("", ""), index=2),
        Rule(scope=("", ""), index=3),
    ]
    found = examined(rules, headers().get_all, "web", "get", "shop")
    assert [each.asked for each in found] == [1.0, 0.75, 0.1875, 0.0]
    assert [each.share for each in found] == [0.25, 0.75, 1.0, 1.0]


# -- what it gets there --------------------------------------------------------------------------------


def test_the_way_of_a_sticky_call_is_the_one_of_its_calls() -> None:
    """The exact leg for a key, with the reason; by weight without the header."""
    followed = policies(
        SUBSETS,
        route("[{split: [{subset: v1, weight: 50}, {subset: v2, weight: 50}], sticky: {header: x-user}}]"),
    )
    target = Hypothetical("web", followed, None).target("shop", "get")
    routing = target.routing
    assert isinstance(routing, Routing)
    for user in ("ann", "bob", "eve", "joe", "kim"):
        (way,) = explained(followed, headers=headers(x_user=user)).ways
        assert way.leg.subset == routing.choose(headers(x_user=user)).subset
        assert way.why == f"header x-user = {user!r} always goes there"
    assert [(way.share, way.why) for way in explained(followed).ways] == [(0.5, "weight 50 of 100")] * 2


def test_what_a_call_gets_is_what_its_target_has() -> None:
    """Of an argument, a rule, a subset's destination, the service's, the endpoint's declaration and the default the
    first that says anything counts."""
    subset = (
        "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: two}\n"
        "spec: {target: {service: shop, subset: v2}, timeout: 3s}\n"
    )
    rules = (
        "[{match: {headers: {x: a}}, split: [{subset: v2}], timeout: 1s}, "
        "{match: {headers: {x: b}}, split: [{subset: v2}]}]"
    )
    followed = policies(SUBSETS, subset, route(rules))
    infos = mesh_info("shop", "A", "2.0.0", endpoints=("get",))  # it declares 2 s

    def timeout(**question: Any) -> float:
        (way,) = explained(followed, infos, **question).ways
        return way.timeout_s

    assert timeout(headers=headers(x="a"), timeout_s=0.5) == 0.5
    assert timeout(headers=headers(x="a")) == 1.0
    assert timeout(headers=headers(x="b")) == 3.0
    assert timeout() == 2.0
    (way,) = explained(followed).ways
    assert way.timeout_s == 5.0


def test_attempts_have_the_times_that_calls_give_them() -> None:
    """Half of what is left while another may follow; all of it where none may."""
    (way,) = explained(policies(SUBSETS), idempotent=True, timeout_s=4.0).ways
    assert way.attempt_s == pytest.approx((2.0, 1.975))
    assert way.most_attempts == 2
    (way,) = explained(policies(SUBSETS), idempotent=True, timeout_s=0.02).ways
    assert (way.attempt_s, way.most_attempts) == ((0.02,), 1)  # no other has time after the wait
    (way,) = explained(policies(SUBSETS), idempotent=False, timeout_s=4.0).ways
    assert way.attempt_s == (4.0,)
    assert way.most_attempts == 2  # where it surely did not run
    assert {each.failure for each in way.retries if each.again} == {
        "nobody listens, or who does drains or is full"
    }
    once = "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: a}\nspec: {retry: {attempts: 1}}\n"
    (way,) = explained(policies(once), idempotent=True).ways
    assert (way.attempt_s, way.retries, way.most_attempts) == ((5.0,), (), 1)
    tight = (
        "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: a}\n"
        "spec: {timeout: 1s, retry: {attempts: 4, perTryTimeout: 100ms, retryOn: [refused, internal]}}\n"
    )
    (way,) = explained(policies(tight), idempotent=True).ways
    assert way.attempt_s == (0.1,)  # a time-out is none of its conditions
    reasons = {each.failure: each.reason for each in way.retries}
    assert reasons["INTERNAL or UNKNOWN"] == "internal"
    assert reasons["its time is over"] == "not retryable"


def test_a_key_makes_what_all_instances_share_repeatable() -> None:
    """As at calls: UNAVAILABLE is tried again with a key that every instance knows, and not without one."""
    info = mesh_info("shop", "A", endpoints=("get",))
    shared = msgspec.structs.replace(
        info,
        endpoints=tuple(
            msgspec.structs.replace(each, metadata={**each.metadata, "mesh.duplicates": "shared"})
            for each in info.endpoints
        ),
    )

    def again(*infos: InfoReply, keyed: bool) -> bool:
        (way,) = explained(policies(SUBSETS), *infos, keyed=keyed, idempotent=False).ways
        return next(each.again for each in way.retries if each.failure.startswith("UNAVAILABLE"))

    assert again(shared, keyed=True)
    assert not again(shared, keyed=False)
    assert not again(info, keyed=True)


def test_who_would_take_it_is_who_presence_says() -> None:
    """Ready ones of the subset alone; a zone of its own first, by the balancer's own choice."""
    followed = policies(
        SUBSETS,
        route("[{split: [{subset: v2}]}]"),
        "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: b}\n"
        "spec: {balancer: {name: round_robin, locality: true}}\n",
    )
    infos = [
        mesh_info("shop", "A", "2.0.0", endpoints=("get",), labels={"zone": "east"}),
        mesh_info("shop", "B", "2.0.0", endpoints=("get",), labels={"zone": "west"}),
        mesh_info("shop", "C", "1.0.0", endpoints=("get",), labels={"zone": "east"}),
        mesh_info("shop", "D", "2.0.0", endpoints=("get",), state="draining"),
        mesh_info("shop", "E", "2.0.0", endpoints=("get",), namespace="another"),
        mesh_info("web", "W", labels={"zone": "west"}),
    ]
    said = explained(followed, *infos)
    (way,) = said.ways
    assert [each.id for each in way.instances or ()] == ["A", "B"]
    assert (said.zones, way.chosen) == (("west",), ("B",))
    (way,) = explained(followed, *infos[:-1]).ways
    assert way.chosen == ("A", "B")


def test_a_hashed_call_goes_to_the_instance_that_the_ring_says() -> None:
    """Always the same for one key, and known beforehand."""
    followed = policies(
        "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: b}\n"
        "spec: {balancer: {name: consistent_hash, header: x-user}}\n"
    )
    infos = [mesh_info("shop", name, endpoints=("get",)) for name in "ABCDEF"]

    def taken(*infos: InfoReply) -> dict[str, str]:
        return {
            user: explained(followed, *infos, headers=headers(x_user=user)).ways[0].only
            for user in map(str, range(30))
        }

    found = taken(*infos)
    assert len(set(found.values())) > 2
    assert taken(*reversed(infos)) == found
    assert {user: one for user, one in taken(*infos[1:]).items() if found[user] != "A"} == {
        user: one for user, one in found.items() if one != "A"
    }
    assert explained(followed, *infos).ways[0].only == ""


# -- what fails for sure --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "timeout_s", "fails"),
    [
        ("abort: {status: INTERNAL}", 1.0, {"INTERNAL": 1.0}),
        ("abort: {status: INTERNAL, share: 25%}", 1.0, {"INTERNAL": 0.25}),
        ("delay: {duration: 2s}", 1.0, {"DEADLINE_EXCEEDED": 1.0}),
        ("delay: {duration: 2s}", 3.0, {}),
        (
            "delay: {duration: 2s, share: 50%}, abort: {status: INTERNAL, share: 50%}",
            1.0,
            {"DEADLINE_EXCEEDED": 0.5, "INTERNAL": 0.25},
        ),
        (
            "delay: {duration: 2s, share: 50%}, abort: {status: INTERNAL, share: 50%}",
            3.0,
            {"INTERNAL": 0.5},
        ),
    ],
)
def test_what_a_route_fails_is_what_calls_meet(fault: str, timeout_s: float, fails: dict[str, float]) -> None:
    """As many of a thousand real calls fail, and with what was said."""
    followed = policies(route(f"[{{fault: {{{fault}}}}}]"))
    said = explained(followed, mesh_info("shop", "A", endpoints=("get",)), timeout_s=timeout_s)
    assert {str(each.status): each.share for each in said.ways[0].endings} == pytest.approx(fails)
    assert said.fails == pytest.approx(sum(fails.values()))
    service = Service("shop", version="1.0.0")

    @service.endpoint()
    async def get() -> int:
        return 1

    met: Counter[str] = Counter()

    async def work() -> None:
        async with MemoryMesh(service) as mesh, mesh.client("web", policies=followed) as caller:

            async def one() -> None:
                try:
                    await caller.call("shop.get", timeout=timeout_s)
                except CallError as error:
                    met[str(error.status)] += 1

            for _ in range(10):
                async with anyio.create_task_group() as group:
                    for _ in range(100):
                        group.start_soon(one)

    run_virtual(work)
    for status, share in fails.items():
        assert abs(met[status] - 1000 * share) <= 5.0 * math.sqrt(1000 * share * (1.0 - share))
    assert met.keys() <= fails.keys()


def test_where_nobody_is_it_fails() -> None:
    """An empty subset, a service that nobody serves, an endpoint that none has; not where nobody was asked."""
    followed = policies(SUBSETS, route("[{match: {headers: {x: a}}, split: [{subset: v3}]}]"))
    there = mesh_info("shop", "A", endpoints=("get",))
    empty = explained(followed, there, headers=headers(x="a"))
    (ending,) = empty.ways[0].endings
    assert ending.reason.startswith("no instance of subset v3 of shop that answers takes calls")
    assert not ending.sure
    assert explained(followed, nobody=True).ways[0].endings[0].status is Status.UNAVAILABLE
    assert explained(followed, there, endpoint="gat").ways[0].endings[0].status is Status.UNIMPLEMENTED
    assert explained(followed, there).fails == 0.0
    assert explained(followed, headers=headers(x="a")).fails == 0.0


def test_a_service_outside_the_mesh_is_called_on_its_own_subject() -> None:
    """As calls do where no instance of the mesh answers under that name."""
    question = Question(service="legacy", endpoint="do", caller="web")
    (way,) = explain_call(question, policies(SUBSETS), [foreign_info()]).ways
    assert (way.foreign, way.fails) == ("legacy.do", 0.0)


def test_mirrors_are_told_with_who_takes_them() -> None:
    """Share, destination, and the instances that would get the copy."""
    followed = policies(SUBSETS, route("[{mirror: [{subset: v2, share: 20%}, {service: other}]}]"))
    (way,) = explained(followed, mesh_info("shop", "A", "2.0.0", endpoints=("get",))).ways
    assert [
        (copy.target.service, copy.target.subset, copy.share, [i.id for i in copy.instances or ()])
        for copy in way.copies
    ] == [("shop", "v2", 0.2, ["A"]), ("other", "", 1.0, [])]


def test_a_redirect_gets_what_holds_where_it_goes() -> None:
    """The rules of the other destination, with those of the route above them; it is not routed once more."""
    followed = policies(
        SUBSETS,
        ELSEWHERE,
        route("[{redirect: {service: other, endpoint: put}, retry: {attempts: 3}}]"),
        route("[{redirect: {service: shop}}]", "{service: other}", "back"),
    )
    (way,) = explained(followed).ways
    assert way.target.label == "other.put"
    assert way.timeout_s == pytest.approx(0.7)
    assert way.target.retries is not None
    assert way.target.retries.rules.attempts == 3


async def pass_on(request: Request, proceed: Next) -> Reply[Any]:
    """An interceptor that does nothing."""
    return await proceed(request)


@pytest.mark.parametrize("interceptors", [(), (pass_on,)])
def test_what_a_routed_call_declares_is_learned_as_for_any_other(interceptors: Sequence[Interceptor]) -> None:
    """Whoever serves the destination says how long it may take, also where interceptors see the call first: that is
    what the explanation counts on."""
    followed = policies(SUBSETS, route("[{split: [{subset: v2}]}]"))
    service = Service("shop", version="2.0.0", policies=followed)

    @service.endpoint(timeout=1.5, idempotent=True)
    async def get(ctx: Context) -> float:
        return ctx.remaining()

    async def work() -> None:
        async with (
            MemoryMesh(service) as mesh,
            mesh.client("web", policies=followed, interceptors=interceptors) as caller,
        ):
            await caller.call("shop.get")
            await anyio.sleep(3.0)
            assert await caller.call("shop.get", returns=float) == pytest.approx(0.75, abs=0.01)

    run_virtual(work)
    (way,) = explained(followed, mesh_info("shop", "A", "2.0.0", endpoints=("get",)), timeout_s=1.5).ways
    assert way.attempt_s[0] == 0.75

"""What policies come to: the most specific wins, field by field, and what did not change stays the same object."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from nats_mesh.core.rules import (
    BackoffRules,
    BalancerRules,
    BreakerRules,
    BreakerVerdictRules,
    ConcurrencyRules,
    EjectionRules,
    HedgeRules,
    RetryRules,
    SubsetRules,
    VerdictRules,
)
from nats_mesh.errors import PolicyError
from nats_mesh.policy import InboundRules, OutboundRules, Policy, PolicySet, answers, parse
from nats_mesh.policy.layering import Layers
from nats_mesh.policy.parts import Part
from nats_mesh.policy.schema import Destination


def policy(
    name: str, spec: str, kind: str = "Destination", *, namespace: str = "", file: str = ""
) -> tuple[Policy, ...]:
    """One policy, its spec in one line (line 4)."""
    metadata = f"name: {name}{f', namespace: {namespace}' if namespace else ''}"
    text = f"apiVersion: mesh/v1\nkind: {kind}\nmetadata: {{{metadata}}}\nspec: {{{spec}}}\n"
    return parse(text, file=file or f"{name}.yaml")


def outbound(*policies: tuple[Policy, ...], target: str = "orders.get") -> OutboundRules:
    """What callers of ``target`` do under these policies."""
    service, endpoint = target.split(".")
    return PolicySet.of(sum(policies, ())).outbound(service, endpoint, "web")


def complaints(*policies: tuple[Policy, ...]) -> list[str]:
    """Everything that is wrong with these policies together."""
    with pytest.raises(PolicyError) as caught:
        PolicySet.of(sum(policies, ()))
    return [str(problem) for problem in caught.value.problems]


WIDE = policy("wide", "timeout: 1s, retry: {attempts: 3, backoff: {initial: 50ms}}, balancer: random")
SERVICE = policy(
    "service", "target: {service: orders}, timeout: 2s, retry: {attempts: 4}, breaker: {open: 9s}"
)
ENDPOINT = policy(
    "endpoint", "target: {service: orders, endpoints: [get]}, timeout: 3s, breaker: {permits: 1}"
)


def test_without_policies_the_defaults_hold() -> None:
    """An empty set says what the design says, and that nobody said it."""
    empty = PolicySet.empty()
    rules = empty.outbound("orders", "get", "web")
    assert rules == OutboundRules(sources=rules.sources)
    assert (rules.timeout_s, rules.idempotent, rules.hedge) == (None, None, None)
    assert (rules.retry, rules.breaker) == (RetryRules(), BreakerRules())
    assert (rules.ejection, rules.balancer) == (EjectionRules(), BalancerRules())
    assert set(rules.sources.values()) == {"default"}
    inbound = empty.inbound("orders", "get")
    assert inbound == InboundRules(sources=inbound.sources)
    assert set(inbound.sources.values()) == {"default"}
    assert len(empty) == 0


@given(order=st.permutations([WIDE, SERVICE, ENDPOINT]))
def test_the_most_specific_wins_field_by_field(order: list[tuple[Policy, ...]]) -> None:
    """Endpoint, then service, then namespace, each field by itself, whatever order the policies came in."""
    rules = outbound(*order)
    assert rules.timeout_s == 3.0
    assert rules.retry == RetryRules(attempts=4, backoff=BackoffRules(initial_s=0.05))
    assert rules.breaker == BreakerRules(open_s=9.0, permits=1)
    assert rules.balancer.name == "random"
    assert {path: source for path, source in rules.sources.items() if source != "default"} == {
        "timeout": "Destination/endpoint (endpoint.yaml:4)",
        "retry.attempts": "Destination/service (service.yaml:4)",
        "retry.backoff.initial": "Destination/wide (wide.yaml:4)",
        "breaker": "Destination/endpoint (endpoint.yaml:4)",
        "breaker.open": "Destination/service (service.yaml:4)",
        "breaker.permits": "Destination/endpoint (endpoint.yaml:4)",
        "balancer.name": "Destination/wide (wide.yaml:4)",
    }
    assert outbound(*order, target="orders.list").timeout_s == 2.0
    assert outbound(*order, target="else.get").timeout_s == 1.0


def test_a_route_goes_above_every_destination() -> None:
    """Even a namespace-wide Route wins over an endpoint's Destination; between Routes the most specific wins."""
    wide = policy("r", "rules: [{timeout: 9s, retry: {perTryTimeout: 1s}}]", "Route")
    narrow = policy(
        "n", "target: {service: orders, endpoints: [get]}, rules: [{timeout: 8s, idempotent: true}]", "Route"
    )
    assert outbound(ENDPOINT, wide).timeout_s == 9.0
    rules = outbound(ENDPOINT, SERVICE, wide, narrow)
    assert (rules.timeout_s, rules.idempotent) == (8.0, True)
    assert (rules.retry.attempts, rules.retry.per_try_timeout_s) == (4, 1.0)
    assert rules.sources["timeout"] == "Route/n (n.yaml:4)"


TO_GET = "target: {service: orders, endpoints: [get]}, breaker: {permits: 1}"


@pytest.mark.parametrize(
    ("specs", "breaker"),
    [
        (["breaker: off"], None),
        (["breaker: off", "target: {service: orders}, breaker: {}"], BreakerRules()),
        (["breaker: {open: 9s}", "target: {service: orders}, breaker: off"], None),
        (["breaker: {open: 9s}", "target: {service: orders}, breaker: off", TO_GET], BreakerRules(permits=1)),
        (["breaker: off", "target: {service: orders}, timeout: 1s"], None),
    ],
)  # fmt: skip
def test_off_clears_what_wider_policies_said(specs: list[str], breaker: BreakerRules | None) -> None:
    """Off takes what is below it along; whoever says anything inside turns it on again, from the defaults."""
    rules = outbound(*(policy(f"p{index}", spec) for index, spec in enumerate(specs)))
    assert rules.breaker == breaker
    assert ("breaker.open" in rules.sources) is (breaker is not None)


def test_what_is_off_by_default_is_turned_on_by_being_named() -> None:
    """Hedging and verdicts begin where a policy names them, and end where a narrower one says off."""
    on = policy("on", "hedge: {}, ejection: {verdicts: {callers: 2}}, breaker: {verdicts: {}}")
    rules = outbound(on)
    assert rules.hedge == HedgeRules()
    assert rules.ejection.verdicts == VerdictRules(callers=2)
    assert rules.breaker == BreakerRules(verdicts=BreakerVerdictRules())
    both = "ejection: {verdicts: off}, breaker: {verdicts: off}"
    off = policy("off", f"target: {{service: orders}}, hedge: off, {both}")
    assert outbound(on, off) == OutboundRules(sources=outbound(on, off).sources)
    assert outbound(on, off).sources["hedge"] == "Destination/off (off.yaml:4)"


def test_a_single_value_can_be_off_again() -> None:
    """A value that is off by default can be turned off by a narrower policy."""
    wide = policy("wide", "breaker: {consecutive: 5, slowCall: 1s}, retry: {perTryTimeout: 1s}")
    narrow = policy(
        "n", "target: {service: orders}, breaker: {consecutive: off}, retry: {perTryTimeout: off}"
    )
    rules = outbound(wide, narrow)
    assert rules.breaker == BreakerRules(slow_call_s=1.0)
    assert rules.retry == RetryRules()


def test_another_balancer_drops_what_belonged_to_the_first() -> None:
    """A header of consistent_hash goes when a narrower policy names another balancer, and stays otherwise."""
    wide = policy("wide", "balancer: {name: consistent_hash, header: tenant, slowStart: 5s}")
    other = policy("other", "target: {service: orders}, balancer: random")
    same = policy("same", "target: {service: orders}, balancer: {name: consistent_hash, bound: 2}")
    assert outbound(wide, other).balancer == BalancerRules(name="random", slow_start_s=5.0)
    expected = BalancerRules(name="consistent_hash", header="tenant", slow_start_s=5.0, bound=2.0)
    assert outbound(wide, same).balancer == expected


def test_two_about_the_same_are_refused_with_both_places() -> None:
    """Two Destinations, or two Routes, of one scope for one target: which one would win?"""
    other = policy("other", "target: {service: orders}, balancer: random")
    overlap = policy("overlap", "target: {service: orders, endpoints: [list, get]}")
    routes = [policy(name, "rules: [{timeout: 1s}]", "Route") for name in ("r1", "r2")]
    assert complaints(SERVICE, other, ENDPOINT, overlap, *routes) == [
        "other.yaml:1: spec.target: Destination/other and Destination/service (service.yaml:1) are both about orders: "
        "put them into one",
        "overlap.yaml:1: spec.target: Destination/overlap and Destination/endpoint (endpoint.yaml:1) are both about "
        "orders.get: put them into one",
        "r2.yaml:1: spec.target: Route/r2 and Route/r1 (r1.yaml:1) are both about the whole namespace: "
        "put them into one",
    ]


def test_a_name_stands_once() -> None:
    """Two policies of a kind with one name are refused; another kind or namespace may have it, too."""
    twin = policy("service", "target: {service: x}", file="twin.yaml")
    assert complaints(SERVICE, twin) == [
        "twin.yaml:3: metadata.name: Destination/service stands at service.yaml:1, too: give one of them another name"
    ]
    route = policy("service", "rules: [{timeout: 1s}]", "Route", file="route.yaml")
    elsewhere = policy("service", "target: {service: x}", namespace="prod", file="elsewhere.yaml")
    assert len(PolicySet.of((*SERVICE, *route, *elsewhere))) == 2


def test_what_only_goes_wrong_together_is_found() -> None:
    """Values that are fine alone and not in company are refused where the company is, before they hold anywhere."""
    wide = policy("wide", "breaker: {open: 2s, maxOpen: 3s}")
    alone = policy("alone", "target: {service: orders}, breaker: {open: 4s}")
    assert complaints(wide, alone) == ["wide.yaml:4: spec.breaker.maxOpen: must be at least 4s, got 3s"]
    assert outbound(alone).breaker == BreakerRules(open_s=4.0)
    assert complaints(policy("p", "breaker: {open: 2m}")) == [
        "p.yaml:4: spec.breaker.maxOpen: must be at least 2m, which its default is not: set it, too"
    ]


INVALID = {
    "breaker: {failureRatio: 0%}": "spec.breaker.failureRatio: must be above 0% to 100%, got 0%",
    "breaker: {window: 0s}": "spec.breaker.window: must be above 0s, got 0s",
    "breaker: {minCalls: 0}": "spec.breaker.minCalls: must be at least 1, got 0",
    "breaker: {consecutive: 0}": "spec.breaker.consecutive: must be at least 1, got 0",
    "breaker: {slowCall: 0ms}": "spec.breaker.slowCall: must be above 0s, got 0s",
    "breaker: {slowRatio: 0%}": "spec.breaker.slowRatio: must be above 0% to 100%, got 0%",
    "breaker: {open: 0s}": "spec.breaker.open: must be above 0s, got 0s",
    "breaker: {maxOpen: 1s}": "spec.breaker.maxOpen: must be at least 5s, got 1s",
    "breaker: {permits: 0}": "spec.breaker.permits: must be at least 1, got 0",
    "breaker: {successes: 0}": "spec.breaker.successes: must be at least 1, got 0",
    "breaker: {verdicts: {callers: 1}}": "spec.breaker.verdicts.callers: must be from 2 to 1,000, got 1",
    "breaker: {verdicts: {window: 0s}}": "spec.breaker.verdicts.window: must be above 0s, got 0s",
    "retry: {attempts: 0}": "spec.retry.attempts: must be from 1 to 10, got 0",
    "retry: {attempts: 11}": "spec.retry.attempts: must be from 1 to 10, got 11",
    "retry: {perTryTimeout: 0s}": "spec.retry.perTryTimeout: must be above 0s, got 0s",
    "retry: {backoff: {multiplier: 0.5}}": "spec.retry.backoff.multiplier: must be at least 1, got 0.5",
    "retry: {backoff: {initial: 2s, max: 1s}}": "spec.retry.backoff.max: must be at least 2s, got 1s",
    "retry: {budget: {window: 0s}}": "spec.retry.budget.window: must be above 0s, got 0s",
    "hedge: {quantile: 40%}": "spec.hedge.quantile: must be from 50% to below 100%, got 40%",
    "hedge: {quantile: 100%}": "spec.hedge.quantile: must be from 50% to below 100%, got 100%",
    "hedge: {delay: 0s}": "spec.hedge.delay: must be above 0s, got 0s",
    "hedge: {maxExtra: 6}": "spec.hedge.maxExtra: must be from 1 to 5, got 6",
    "hedge: {maxRatio: 0%}": "spec.hedge.maxRatio: must be above 0% to 100%, got 0%",
    "ejection: {max: 1s}": "spec.ejection.max: must be at least 10s, got 1s",
    "ejection: {silent: 0}": "spec.ejection.silent: must be at least 1, got 0",
    "ejection: {verdicts: {callers: 1}}": "spec.ejection.verdicts.callers: must be at least 2, got 1",
    "balancer: {bound: 0.9}": "spec.balancer.bound: must be at least 1, got 0.9",
    "balancer: {header: x}": "spec.balancer.header: only consistent_hash hashes one, not queue",
    "balancer: {ewmaDecay: 0s}": "spec.balancer.ewmaDecay: must be above 0s, got 0s",
}


@pytest.mark.parametrize(("spec", "message"), INVALID.items())
def test_invalid_parameters_are_refused_where_they_are_written(spec: str, message: str) -> None:
    """Each with the field's path and line, in the units of whoever wrote it."""
    assert complaints(policy("p", spec)) == [f"p.yaml:4: {message}"]


def test_all_invalid_parameters_are_reported_at_once() -> None:
    """Rules stop at the first mistake; the set does not, and a mistake that several targets share counts once."""
    wide = policy(
        "wide", "breaker: {permits: 0, successes: 0, open: 0s}, retry: {attempts: 0, backoff: {jitter: 100%}}"
    )
    limit = policy("l", "concurrency: {limit: 0}", "Limit")
    route = policy("r", "rules: [{retry: {attempts: 99}}]", "Route")
    assert complaints(wide, SERVICE, ENDPOINT, limit, route) == [
        "l.yaml:4: spec.concurrency.limit: must be at least 1, got 0",
        "r.yaml:4: spec.rules[0].retry.attempts: must be from 1 to 10, got 99",
        "wide.yaml:4: spec.breaker.open: must be above 0s, got 0s",
        "wide.yaml:4: spec.breaker.permits: must be at least 1, got 0",
        "wide.yaml:4: spec.breaker.successes: must be at least 1, got 0",
        "wide.yaml:4: spec.retry.attempts: must be from 1 to 10, got 0",
    ]


def test_all_limits_must_admit() -> None:
    """The smallest of all limits that match counts, however specific; leaving the queue goes by the most specific. What
    is said of more than the endpoint only lowers the number that the endpoint declares."""
    wide = policy("wide", "concurrency: {limit: 100, leaveQueue: true}", "Limit")
    service = policy("service", "target: {service: orders}, concurrency: {limit: 10}", "Limit")
    more = policy(
        "more",
        "target: {service: orders, endpoints: [get]}, concurrency: {limit: 50, leaveQueue: false}",
        "Limit",
    )
    again = policy("again", "target: {service: orders, endpoints: [get]}, concurrency: {limit: 60}", "Limit")
    policies = PolicySet.of((*wide, *service, *more, *again))
    rules = policies.inbound("orders", "get")
    assert rules.concurrency == ConcurrencyRules(limit=10, leave_queue=False)
    assert rules.sources == {
        "concurrency.limit": "Limit/service (service.yaml:4)",
        "concurrency.leaveQueue": "Limit/more (more.yaml:4)",
    }
    lowered = ConcurrencyRules(limit=10, leave_queue=True, lowers=True)
    assert policies.inbound("orders", "list").concurrency == lowered
    assert [lowered.of(declared) for declared in (4, 10, 256)] == [4, 10, 10]
    assert policies.inbound("else", "list").concurrency == ConcurrencyRules(
        limit=100, leave_queue=True, lowers=True
    )


def test_a_limit_that_names_the_endpoint_sets_it() -> None:
    """Higher or lower than what the endpoint declares; but never above what a wider one allows."""
    named = policy("named", "target: {service: orders, endpoints: [get]}, concurrency: {limit: 50}", "Limit")
    wide = policy("wide", "concurrency: {limit: 40}", "Limit")
    for policies, limits in (((*named,), [50, 50]), ((*named, *wide), [40, 40]), (wide, [8, 40])):
        rules = PolicySet.of(policies).inbound("orders", "get").concurrency
        assert rules is not None
        assert [rules.of(declared) for declared in (8, 256)] == limits


def test_of_limits_that_say_the_same_the_order_decides_nothing() -> None:
    """Files and revisions come in any order: members that hear of the same limits name the same one, and agree on what
    two of them contradict each other in."""
    one = policy("one", "target: {service: orders}, concurrency: {limit: 5, leaveQueue: true}", "Limit")
    two = policy("two", "target: {service: orders}, concurrency: {limit: 5, leaveQueue: false}", "Limit")
    found = [PolicySet.of(order).inbound("orders", "get") for order in ((*one, *two), (*two, *one))]
    assert found[0] == found[1]
    assert found[0].sources["concurrency.limit"].startswith("Limit/one")
    assert found[0].concurrency == ConcurrencyRules(limit=5, leave_queue=False, lowers=True)


def test_leaving_the_queue_needs_no_limit() -> None:
    """Each instance keeps its own number then, also where it is turned off again; a limit may come from elsewhere."""
    leave = policy("leave", "concurrency: {leaveQueue: true}", "Limit")
    stay = policy("stay", "target: {service: orders}, concurrency: {leaveQueue: false}", "Limit")
    for policies, expected in (
        (leave, ConcurrencyRules(leave_queue=True)),
        ((*leave, *stay), ConcurrencyRules(leave_queue=False)),
    ):
        rules = PolicySet.of(policies).inbound("orders", "get")
        assert rules.concurrency == expected
        assert [expected.of(declared) for declared in (2, 12)] == [2, 12]
        assert rules.sources["concurrency.limit"] == "default"
    limit = policy("limit", "target: {service: orders}, concurrency: {limit: 4}", "Limit")
    both = PolicySet.of((*leave, *limit)).inbound("orders", "get").concurrency
    assert both == ConcurrencyRules(limit=4, leave_queue=True, lowers=True)


VERSIONS = policy(
    "versions", "target: {service: orders}, subsets: {v1: {version: 1.0.0}, v2: {labels: {b: x, a: y}}}"
)


def test_subsets_are_known_by_name() -> None:
    """A set knows the subsets of a service, and which of them anybody routes to."""
    split = "target: {service: orders}, rules: [{split: [{subset: v1}]}]"
    policies = PolicySet.of((*VERSIONS, *policy("r", split, "Route")))
    assert policies.subsets("orders") == {
        "v1": SubsetRules(name="v1", version="1.0.0"),
        "v2": SubsetRules(name="v2", labels=(("a", "y"), ("b", "x"))),
    }
    assert policies.subsets("other") == {}
    assert policies.routed_subsets() == {("orders", "v1")}


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        (
            "Route",
            "target: {service: orders}, rules: [{split: [{subset: v3}]}]",
            "rules[0].split[0].subset: orders has no subset v3",
        ),
        (
            "Route",
            "target: {service: orders}, rules: [{mirror: {subset: v}}]",
            "rules[0].mirror.subset: orders has no subset v",
        ),
        ("Route", "rules: [{split: [{subset: v1}]}]", "split[0].subset: subset v1 of which service?"),
        (
            "Route",
            "rules: [{split: [{service: b, subset: v1}]}]",
            "split[0].subset: no Destination names subsets of b",
        ),
        (
            "Destination",
            "target: {service: orders, subset: v9}, timeout: 1s",
            "spec.target.subset: orders has no subset v9",
        ),
    ],
)
def test_a_subset_that_is_none_is_refused(kind: str, spec: str, message: str) -> None:
    """Whatever leads to a subset, or is about one, must name one that a Destination has."""
    (complaint,) = complaints(VERSIONS, policy("p", spec, kind))
    assert complaint.startswith("p.yaml:4: spec.")
    assert message in complaint


IDLE = {
    "balancer: {slowStart: 5s}": ("spec.balancer.slowStart", "the balancer queue (default)"),
    "balancer: {name: queue, slowStart: 5s}": (
        "spec.balancer.slowStart",
        "the balancer queue (Destination/p (p.yaml:4))",
    ),
    "balancer: {name: queue, bound: 2}": ("spec.balancer.bound", "where the server chooses"),
    "balancer: {name: queue, locality: true}": ("spec.balancer.locality", "name a balancer that addresses"),
    "balancer: {localityHealthy: 50%}": ("spec.balancer.localityHealthy", "such as least_request"),
    "balancer: {ewmaDecay: 5s}": ("spec.balancer.ewmaDecay", "the balancer queue (default)"),
    "target: {service: orders}, ejection: {base: 5s, silent: 2}": (
        "spec.ejection",
        "the balancer queue (default), which cannot avoid an instance: name a balancer",
    ),
    "target: {service: orders}, ejection: {verdicts: {}}": ("spec.ejection", "cannot avoid an instance"),
    "target: {service: orders, endpoints: [get]}, balancer: queue, ejection: {silent: 2}": (
        "spec.ejection",
        "the balancer queue (Destination/p (p.yaml:4))",
    ),
    "breaker: {slowRatio: 50%}": ("spec.breaker.slowRatio", "without slowCall"),
    "breaker: {slowRatio: 50%, slowCall: off}": ("spec.breaker.slowRatio", "say beside it from when on"),
    "hedge: {delay: 20ms, quantile: 90%}": (
        "spec.hedge.quantile",
        "beside delay (Destination/p (p.yaml:4)): remove it, or write delay: off",
    ),
    "hedge: {delay: 20ms, minDelay: 2ms}": ("spec.hedge.minDelay", "beside delay"),
}


@pytest.mark.parametrize(("spec", "said"), IDLE.items())
def test_what_can_have_no_effect_is_refused(spec: str, said: tuple[str, str]) -> None:
    """Where it is written, with why, and what to do instead of it."""
    (complaint,) = complaints(policy("p", spec))
    assert complaint.startswith(f"p.yaml:4: {said[0]}: has no effect ")
    assert said[1] in complaint


USED = [
    # Company from a narrower policy: the wide value waits for it.
    ["balancer: {slowStart: 5s, locality: true}", "target: {service: orders}, balancer: random"],
    ["breaker: {slowRatio: 50%}", "target: {service: orders, endpoints: [get]}, breaker: {slowCall: 1s}"],
    [
        "target: {service: orders}, ejection: {base: 5s}",
        TO_GET.replace("breaker: {permits: 1}", "balancer: random"),
    ],
    # From a wider one.
    ["balancer: random", "target: {service: orders}, balancer: {slowStart: 5s}, ejection: {base: 5s}"],
    ["breaker: {slowCall: 1s}", "target: {service: orders}, breaker: {slowRatio: 50%}"],
    # Replaced for some of its targets, and of use for the others.
    ["balancer: {name: random, slowStart: 5s}", "target: {service: orders}, balancer: queue"],
    ["hedge: {quantile: 90%, minDelay: 2ms}", "target: {service: orders}, hedge: {delay: 20ms}"],
    ["target: {service: orders}, hedge: {delay: off, quantile: 90%}", "hedge: {delay: 20ms}"],
    # The namespace's ejection waits for services that choose a balancer.
    ["ejection: {base: 5s, verdicts: {callers: 2}}"],
    ["balancer: queue, ejection: {base: 5s}"],
    # What is turned off is not idle, nor is what the instances do by themselves.
    ["target: {service: orders}, balancer: {name: queue, locality: false, slowStart: 0s}"],
    ["target: {service: orders}, ejection: {verdicts: off}"],
    ["target: {service: orders}, ejection: {base: 5s, verdicts: {drain: true}}"],
]


@pytest.mark.parametrize("specs", USED, ids=range(len(USED)))
def test_what_has_an_effect_for_any_of_its_targets_is_not(specs: list[str]) -> None:
    """Values are laid over each other field by field, and one may be there for another policy's sake."""
    outbound(*(policy(f"p{index}", spec) for index, spec in enumerate(specs)))


def test_what_has_no_effect_in_any_of_its_targets_is_refused_though_others_are_in_company() -> None:
    """A value is judged by what its own policy reaches: company elsewhere is none. A wider policy is named."""
    wide = policy("wide", "hedge: {delay: 20ms}")
    narrow = policy("narrow", "target: {service: orders}, hedge: {quantile: 90%}")
    other = policy("other", "target: {service: stock}, hedge: {delay: off}")
    (complaint,) = complaints(wide, narrow, other)
    assert complaint == (
        "narrow.yaml:4: spec.hedge.quantile: has no effect beside delay (Destination/wide (wide.yaml:4)): "
        "remove it, or write delay: off"
    )


def test_the_line_of_what_has_no_effect_is_its_own() -> None:
    """Of a block that of the block, of a value that of the value."""
    text = (
        "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: p}\nspec:\n  target: {service: orders}\n"
        "  ejection:\n    base: 5s\n  breaker:\n    open: 9s\n    slowRatio: 50%\n"
    )
    found = complaints(parse(text, file="p.yaml"))
    assert [each.partition(" has")[0] for each in found] == [
        "p.yaml:6: spec.ejection:",
        "p.yaml:10: spec.breaker.slowRatio:",
    ]


def test_policies_of_another_namespace_do_not_hold_here() -> None:
    """A policy with a namespace holds there alone; one without holds wherever it is read. Mistakes count everywhere."""
    here = policy("here", "timeout: 1s", namespace="default")
    there = policy("there", "timeout: 2s", namespace="prod")
    free = policy("free", "target: {service: orders}, balancer: random")
    default, prod = (PolicySet.of((*here, *there, *free), namespace=name) for name in ("default", "prod"))
    assert [s.outbound("orders", "get", "web").timeout_s for s in (default, prod)] == [1.0, 2.0]
    assert [s.outbound("orders", "get", "web").balancer.name for s in (default, prod)] == ["random", "random"]
    wrong = policy("wrong", "target: {service: orders}, retry: {attempts: 0}", namespace="prod")
    assert complaints(here, wrong) == ["wrong.yaml:4: spec.retry.attempts: must be from 1 to 10, got 0"]


def test_the_same_question_has_the_same_answer() -> None:
    """Within a set every question is answered once; callers that no policy tells apart share the answer."""
    policies = PolicySet.of((*WIDE, *SERVICE))
    assert policies.outbound("orders", "get", "web") is policies.outbound("orders", "get", "cron")
    assert policies.inbound("orders", "get") is policies.inbound("orders", "get")


def test_what_did_not_change_stays_the_same_object() -> None:
    """A target whose policies did not change gets the object of the set before, and the others a new one."""
    first = PolicySet.of((*SERVICE, *policy("b", "target: {service: b}, timeout: 1s")))
    before = {name: first.outbound(name, "get", "web") for name in ("orders", "b", "c")}
    inbound = first.inbound("orders", "get")
    second = PolicySet.of((*SERVICE, *policy("b", "target: {service: b}, timeout: 2s")), before=first)
    assert second.outbound("orders", "get", "web") is before["orders"]
    assert second.outbound("c", "get", "web") is before["c"]
    assert second.inbound("orders", "get") is inbound
    assert second.outbound("b", "get", "web").timeout_s == 2.0
    third = PolicySet.of(SERVICE, before=PolicySet.of(WIDE, before=second))
    assert third.outbound("orders", "get", "web") is before["orders"], "a set nobody asked forgets nothing"


def test_a_moved_line_changes_nothing_but_where_it_stands() -> None:
    """A comment above a policy moves its lines: the rules stay the same object, and the lines of now are to be had."""
    first = PolicySet.of(SERVICE)
    rules = first.outbound("orders", "get", "web")
    moved = parse(f"# a comment\n{SOURCE}", file="service.yaml")
    second = PolicySet.of(moved, before=first)
    assert second.outbound("orders", "get", "web") is rules
    assert second.revision == first.revision
    assert rules.sources["timeout"] == "Destination/service (service.yaml:4)"
    assert (
        second.outbound_sources("orders", "get", "web")["timeout"] == "Destination/service (service.yaml:5)"
    )
    renamed = parse(SOURCE.replace("name: service", "name: other"), file="service.yaml")
    assert PolicySet.of(renamed, before=first).outbound("orders", "get", "web") is not rules


SOURCE = """apiVersion: mesh/v1
kind: Destination
metadata: {name: service}
spec: {target: {service: orders}, timeout: 2s, retry: {attempts: 4}, breaker: {open: 9s}}
"""


def test_the_revision_names_the_content() -> None:
    """Order, files and spelling do not matter to it, every value does."""
    one = PolicySet.of((*WIDE, *SERVICE)).revision
    spelled = parse(
        SOURCE.replace("2s", "2000ms").replace("9s", '"9s"') + "# the end\n", file="elsewhere/x.yml"
    )
    assert PolicySet.of((*spelled, *WIDE)).revision == one
    assert PolicySet.of(WIDE).revision != one
    assert PolicySet.of((*WIDE, *parse(SOURCE.replace("2s", "3s")))).revision != one
    assert len({PolicySet.empty().revision, one}) == 2


def test_ten_thousand_others_do_not_slow_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question looks at the policies of its target and at no others, however many there are."""
    (template,) = policy("p", "target: {service: s}, timeout: 2s")
    others = []
    for index in range(10_000):
        document = template.document
        assert isinstance(document, Destination)
        assert document.spec.target is not UNSET
        spec = replace(document.spec, target=replace(document.spec.target, service=f"s{index}"))
        metadata = replace(document.metadata, name=f"p{index}")
        others.append(replace(template, document=replace(document, metadata=metadata, spec=spec)))
    looked_at: list[str] = []
    add = Layers.add

    def watched(self: Layers, policy: Policy, spec: Part, prefix: str) -> None:
        looked_at.append(policy.name)
        add(self, policy, spec, prefix)

    few, many = PolicySet.of((*WIDE, *SERVICE)), PolicySet.of((*WIDE, *SERVICE, *others))
    monkeypatch.setattr(Layers, "add", watched)
    assert few.outbound("orders", "get", "web") == many.outbound("orders", "get", "web")
    assert looked_at == ["Destination/wide", "Destination/service"] * 2
    assert PolicySet.of((*WIDE, *SERVICE, *others), before=few).outbound(
        "orders", "get", "web"
    ) is few.outbound("orders", "get", "web")


def test_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set keeps so many answers and no more, whatever it is asked; the oldest goes first."""
    monkeypatch.setattr(answers, "MAX_ANSWERS", 3)
    policies = PolicySet.of(WIDE)
    first = policies.outbound("s0", "get", "web")
    kept = [policies.outbound(f"s{index}", "get", "web") for index in range(1, 4)]
    assert [policies.outbound(f"s{index}", "get", "web") for index in range(1, 4)] == kept
    assert all(policies.outbound(f"s{i}", "get", "web") is kept[i - 1] for i in range(1, 4))
    assert policies.outbound("s0", "get", "web") is not first
    for generation in range(3):
        policies = PolicySet.of(WIDE, before=policies)
        policies.outbound(f"t{generation}", "get", "web")
    assert len(policies._outbound._before) <= 3


def test_two_routes_of_different_length_about_one_target_are_refused() -> None:
    """Which of them has more rules does not matter: both are named."""
    one = policy("one", "target: {service: orders}, rules: [{timeout: 1s}]", "Route")
    two = policy(
        "two",
        "target: {service: orders}, rules: [{match: {callers: [web]}, timeout: 2s}, {timeout: 3s}]",
        "Route",
    )
    for pair in ((one, two), (two, one)):
        (said,) = complaints(*pair)
        assert "are both about orders: put them into one" in said

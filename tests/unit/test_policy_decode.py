"""From a file's text to policies: every mistake with file, line, field and what to do; nothing taken in silence."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from nats_mesh.errors import PolicyError
from nats_mesh.policy import parse
from nats_mesh.policy.fields import fields_of
from nats_mesh.policy.parts import Part
from nats_mesh.policy.problems import MAX_PROBLEMS
from nats_mesh.policy.schema import KINDS, Destination, Limit, Route


def document(spec: str, kind: str = "Destination", name: str = "x") -> str:
    """A policy whose spec (from line 5 on) is ``spec``."""
    text = textwrap.indent(textwrap.dedent(spec).strip(), "  ")
    return f"apiVersion: mesh/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{text}\n"


def complaints(text: str, file: str = "x.yaml") -> list[str]:
    """Everything that is wrong with ``text``, one by one."""
    with pytest.raises(PolicyError) as caught:
        parse(text, file=file)
    return [str(problem) for problem in caught.value.problems]


def test_a_destination_in_full() -> None:
    """Every field of a Destination can be written, and is kept as the mesh counts: seconds, shares up to 1."""
    (policy,) = parse(
        document(
            """
            target: {service: orders, endpoints: [get, list, get]}
            timeout: 1.5s
            idempotent: true
            retry:
              attempts: 3
              perTryTimeout: 400ms
              retryOn: [refused, internal]
              backoff: {initial: 10ms, max: 1s, multiplier: 3, jitter: 0%}
              budget: {ratio: 20%, floor: 30/m, window: 1m}
            hedge: {delay: off, quantile: 99%, minDelay: 2ms, maxExtra: 2, maxRatio: 5%}
            breaker:
              failureRatio: 25%
              window: 20s
              minCalls: 5
              consecutive: 7
              slowCall: 1s
              slowRatio: 50%
              open: 1s
              maxOpen: 1m
              jitter: 10%
              permits: 1
              successes: 2
              verdicts: {callers: 5, window: 1m}
            ejection:
              consecutive: 4
              successRatio: 90%
              window: 5s
              minCalls: 10
              silent: 2
              base: 5s
              max: 1m
              maxRatio: 30%
              panicRatio: 40%
              verdicts: {callers: 2, window: 10s, drain: true}
            balancer:
              name: consistent_hash
              header: X-Tenant
              bound: 1.5
              slowStart: 10s
              locality: true
              localityHealthy: 60%
              ewmaDecay: 5s
            """
        )
    )
    assert isinstance(policy.document, Destination)
    spec = policy.document.spec
    assert spec.target is not UNSET
    assert (spec.target.service, spec.target.endpoints) == ("orders", ["get", "list"])
    assert (spec.timeout, spec.idempotent) == (1.5, True)
    assert spec.retry is not UNSET
    assert spec.retry.budget is not UNSET
    assert (spec.retry.retry_on, spec.retry.budget.floor) == (["refused", "internal"], 0.5)
    assert spec.hedge not in (UNSET, "off")
    assert list(_unset(spec)) == ["subset", "subsets", "throttle"]


def _unset(part: Part) -> Iterator[str]:
    """The fields below ``part`` that nobody wrote."""
    for field in fields_of(type(part)).values():
        value = getattr(part, field.attribute)
        if isinstance(value, Part):
            yield from _unset(value)
        elif value is UNSET:
            yield field.name


def test_subsets_a_route_and_a_limit() -> None:
    """The other kinds, several documents in a file, each with the line where it begins."""
    first, second, third = parse(
        "---\n".join(
            [
                document("target: {service: a}\nsubsets: {v2: {version: 2.0.0}, eu: {labels: {zone: eu}}}"),
                document("rules:\n  - {timeout: 3s, retry: {attempts: 1}, idempotent: false}", "Route"),
                document("concurrency: {limit: 8, leaveQueue: true}", "Limit"),
            ]
        ),
        file="three.yaml",
    )
    assert isinstance(first.document, Destination)
    assert isinstance(second.document, Route)
    assert isinstance(third.document, Limit)
    assert [(p.name, p.place) for p in (first, second, third)] == [
        ("Destination/x", "three.yaml:1"), ("Route/x", "three.yaml:8"), ("Limit/x", "three.yaml:15"),
    ]  # fmt: skip
    assert second.lines["spec.rules[0].retry.attempts"] == 13


def test_json_is_accepted() -> None:
    """A `.json` file means the same as YAML, and its mistakes have lines, too."""
    text = '{"apiVersion": "mesh/v1", "kind": "Destination", "metadata": {"name": "x"},\n "spec": {"timeout": "%s"}}'
    (policy,) = parse(text % "2s", file="x.json")
    assert isinstance(policy.document, Destination)
    assert policy.document.spec.timeout == 2.0
    assert complaints(text % "2", "x.json") == [
        "x.json:2: spec.timeout: must be a duration with its unit, such as 250ms, 2s or 5m, got '2'"
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timeout: 5", "5: spec.timeout: must be a duration with its unit, such as 250ms, 2s or 5m, got 5"),
        ("timeout: 0s", "5: spec.timeout: must be above 0s"),
        (
            "timeout: {}",
            "5: spec.timeout: must be a duration with its unit, such as 250ms, 2s or 5m, got a mapping",
        ),
        ("timeout:", "5: spec.timeout: has no value: give it one, or leave the line out"),
        ("timout: 5s", "5: spec.timout: is no field here; did you mean timeout?"),
        (
            "retry: {pertrytimeout: 5s}",
            "5: spec.retry.pertrytimeout: is no field here; did you mean perTryTimeout?",
        ),
        ("xyz: 5s", "5: spec.xyz: is no field here; there are: target, timeout, idempotent, retry"),
        ('"a.b\\n": 5s', r"5: spec.'a.b\n': is no field here; there are: target"),
        ("retry: 3", "5: spec.retry: must be a mapping with attempts, perTryTimeout, retryOn"),
        (
            "retry: {retryOn: refused}",
            "5: spec.retry.retryOn: must be a list of up to 1000, such as [a, b]; got 'refused'",
        ),
        (
            "retry:\n  retryOn:\n    - refused\n    - sometimes",
            "8: spec.retry.retryOn[1]: must be one of refused, unavailable",
        ),
        ("retry: {perTryTimeout: never}", "5: spec.retry.perTryTimeout: must be a duration with its unit"),
        ("retry: {perTryTimeout: never}", "got 'never', or off"),
        ("retry: off", "5: spec.retry: must be a mapping"),
        ("hedge: on", "5: spec.hedge: must be off, or a mapping with delay, quantile"),
        ("balancer: roundrobin", "5: spec.balancer: must be one of queue, round_robin, random"),
        ("balancer: [queue]", "5: spec.balancer: must be a mapping with name, header"),
        ("idempotent: yes", "5: spec.idempotent: must be true or false, got 'yes'"),
        (
            "throttle: {}",
            "5: spec.throttle: says nothing: give it rate or concurrency, or both",
        ),
        ("target: {subset: v2}", "5: spec.target.subset: needs a service beside it: whose subset?"),
        ("target: {service: a b}", "5: spec.target.service: 'a b': ' ' cannot stand in it"),
        ("target: {service: all}", "5: spec.target.service: 'all' is reserved by the mesh; choose another"),
        (
            "target:\n  endpoints: [a]",
            "6: spec.target.endpoints: needs a service beside it: whose endpoints?",
        ),
        (
            "target: {service: a, endpoints: []}",
            "5: spec.target.endpoints: names none: leave it out to mean all",
        ),
        (
            "subsets: {v1: {version: 1.0.0}}",
            "5: spec.subsets: need a target with a service, and no endpoints or subset",
        ),
        ("target: {service: a}\nsubsets:\n  v1: {}", "7: spec.subsets.v1: selects nothing in particular"),
        (
            "target: {service: a}\nsubsets:\n  all: {version: 1.0.0}",
            "7: spec.subsets.all: 'all' is reserved by the mesh; choose another",
        ),
        (
            "target: {service: a}\nsubsets: {v1: {version: v1}}",
            "6: spec.subsets.v1.version: 'v1' is not SemVer",
        ),
        (
            "target: {service: a}\nsubsets: {v1: {version: 2}}",
            "6: spec.subsets.v1.version: must be text, got 2: put it in quotes",
        ),
        (
            "target: {service: a}\nsubsets: {v1: {labels: {zone: 1}}}",
            "6: spec.subsets.v1.labels.zone: must be text, got 1",
        ),
        ("target: {service: a}\nsubsets: {v1: {labels: {mesh.x: y}}}", "'mesh.' is reserved"),
        (
            "target: {service: a}\nsubsets: [v1]",
            "6: spec.subsets: must be a mapping of up to 64 names, got a list",
        ),
    ],
)
def test_a_mistake_in_a_destination(spec: str, message: str) -> None:
    """Each has one complaint, with the line, the path, and what to write instead."""
    (complaint,) = complaints(document(spec))
    assert complaint.startswith("x.yaml:")
    assert message in complaint


@pytest.mark.parametrize(
    ("kind", "spec", "messages"),
    [
        (
            "Route",
            "rules:\n  - match: {}",
            ["6: spec.rules[0]: does nothing: say where its calls go, or what they get"],
        ),
        (
            "Route",
            "rules:\n  - {split: [], mirror: {}}",
            [
                "6: spec.rules[0].mirror: would call the same twice",
                "6: spec.rules[0].split: must be a list of 1",
            ],
        ),
        (
            "Route",
            "rules:\n  - {fault: {}, redirect: a, sticky: b}",
            [
                "fault: does nothing",
                "redirect: must be a mapping with service",
                "sticky: must be a mapping with header",
            ],
        ),
        (
            "Route",
            "rules:\n  - match: {callers: [a b]}\n    timeout: 5\n  - timeout: 2s",
            [
                "6: spec.rules[0].match.callers[0]: must be a name",
                "7: spec.rules[0].timeout: must be a duration",
            ],
        ),
        (
            "Route",
            "rules:\n  - match: {callers: [], headers: {}}\n    split: [{weight: 0}, {subset: v2, weight: 0}]",
            [
                "6: spec.rules[0].match.callers: names none",
                "6: spec.rules[0].match.headers: names none",
                "7: spec.rules[0].split: sends nobody anywhere",
            ],
        ),
        (
            "Route",
            "rules:\n  - split: [{subset: a}, {subset: a}]\n    redirect: {}",
            [
                "7: spec.rules[0].redirect: cannot stand beside split",
                "7: spec.rules[0].redirect: leads nowhere else",
                "6: spec.rules[0].split[1]: stands above already",
            ],
        ),
        (
            "Route",
            "rules:\n  - match: [{callers: [a]}, {}]\n    fault: {delay: {duration: 0s}}\n  - timeout: 1s",
            [
                "7: spec.rules[0].fault.delay.duration: must be above 0s",
                "8: spec.rules[1]: is never reached: spec.rules[0] above",
            ],
        ),
        (
            "Route",
            "rules:\n  - timeout: 1s\n  - timeout: 2s",
            ["7: spec.rules[1]: is never reached: spec.rules[0] above applies to every call"],
        ),
        ("Route", "rules:\n  - timeout: 0s", ["6: spec.rules[0].timeout: must be above 0s"]),
        ("Route", "rules: []", ["5: spec.rules: must be a list of 1 to 1000 mappings"]),
        ("Route", "rules: {timeout: 1s}", ["5: spec.rules: must be a list of 1 to 1000 mappings"]),
        (
            "Route",
            "rules: [1s]",
            ["5: spec.rules[0]: must be a mapping with match, split, redirect"],
        ),
        ("Route", "target: {service: a}", ["5: spec.rules: is missing: The rules in order"]),
        (
            "Limit",
            "concurrency: {}",
            ["5: spec.concurrency: limits nothing: give it a limit, leaveQueue, or both"],
        ),
        (
            "Limit",
            "concurrency: 5",
            ["5: spec.concurrency: must be a mapping with limit, leaveQueue, adaptive, got 5"],
        ),
        (
            "Limit",
            "concurrency: {limit: 5}\nquota: 1\nqueue: x\npriority: 1\nkeys: []",
            [
                "9: spec.keys: is no field here",
                "8: spec.priority: must be a mapping with critical",
                "7: spec.queue: must be a whole number",
                "6: spec.quota: must be a mapping with amount",
            ],
        ),
    ],
)
def test_a_mistake_in_a_route_or_a_limit(kind: str, spec: str, messages: list[str]) -> None:
    """Each has its complaint, with line and path; what was refused for itself is not blamed twice."""
    found = sorted(complaints(document(spec, kind)))
    assert len(found) == len(messages)
    for complaint, message in zip(
        sorted(found, key=lambda text: text.partition(" spec.")[2]), messages, strict=True
    ):
        assert message in complaint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "1: a policy is a mapping with apiVersion, kind, metadata and spec, not a list"),
        ("kind: Destination\n", "1: apiVersion: is missing: write mesh/v1"),
        (
            "apiVersion: mesh/v2\nkind: Route\n",
            "1: apiVersion: 'mesh/v2' is unknown: this version reads mesh/v1",
        ),
        ("apiVersion: 1\nkind: Route\n", "1: apiVersion: must be text, got 1: write mesh/v1"),
        ("apiVersion: security.istio.io/v1\nkind: X\n", "nats-mesh policy convert translates Istio's"),
        ("apiVersion: mesh/v1\n", "1: kind: is missing: one of Destination, Route, Limit"),
        (
            "apiVersion: mesh/v1\nkind: Destinations\n",
            "2: kind: 'Destinations' is no kind of mesh/v1; did you mean Destination?",
        ),
        (
            "apiVersion: mesh/v1\nkind: Foo\n",
            "2: kind: 'Foo' is no kind of mesh/v1; there are: Destination, Route, Limit, Access",
        ),
        (
            "apiVersion: mesh/v1\nkind: Limit\nspec: {concurrency: {limit: 1}}\n",
            "1: metadata: is missing: What it is called.",
        ),
        ("apiVersion: mesh/v1\nkind: Route\nmetadata: {name: a}\n", "1: spec: is missing: What it says."),
        (
            "apiVersion: mesh/v1\nkind: Destination\nmetadata: {}\nspec: {}\n",
            "3: metadata.name: is missing: The policy's name",
        ),
        (
            "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: a, nmespace: b}\nspec: {}\n",
            "did you mean namespace?",
        ),
        (
            "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: a}\nspec: {}\nstatus: {}\n",
            "5: status: is no field here",
        ),
        (
            "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: a, labels: {x: 1}}\nspec: {}\n",
            "3: metadata.labels.x: must be text",
        ),
    ],
)
def test_a_mistake_around_the_spec(text: str, message: str) -> None:
    """Version, kind and metadata are held to the contract, and what comes near is proposed."""
    (complaint,) = complaints(text)
    assert message in complaint


def test_all_mistakes_are_reported_at_once() -> None:
    """Ten documents with three mistakes: all complaints by line, and nothing of the file is taken."""
    good = [document("timeout: 1s", name=f"n{index}") for index in range(7)]
    bad = [document("timeout: 1"), document("timout: 1s\nbalancer: x"), "- 1\n"]
    with pytest.raises(PolicyError) as caught:
        parse("---\n".join([*good[:4], *bad, *good[4:]]), file="ten.yaml")
    error = caught.value
    assert str(error).startswith("4 problems:\n  ten.yaml:29: spec.timeout: must be a duration")
    assert [problem.line for problem in error.problems] == [29, 35, 36, 38]
    assert (error.file, error.line, error.path) == ("ten.yaml", 29, "spec.timeout")


def test_a_single_mistake_is_the_error_itself() -> None:
    """One mistake needs no list; its place is on the error."""
    with pytest.raises(PolicyError) as caught:
        parse(document("timeout: 1"), file="x.yaml")
    assert caught.value.problems == (caught.value,)
    assert (caught.value.file, caught.value.line, caught.value.path) == ("x.yaml", 5, "spec.timeout")


def test_mistakes_without_end_are_counted() -> None:
    """More problems than are kept are still counted, and the text says how many it leaves out."""
    text = document("\n".join(f"f{index}: 1" for index in range(MAX_PROBLEMS + 5)))
    with pytest.raises(PolicyError) as caught:
        parse(text)
    assert len(caught.value.problems) == MAX_PROBLEMS
    assert str(caught.value).startswith(f"{MAX_PROBLEMS + 5} problems:")
    assert str(caught.value).endswith(f"and {MAX_PROBLEMS + 5 - 50} more")


def test_off_is_off_however_a_tool_writes_it() -> None:
    """`off` that passed a YAML 1.1 tool arrives as false, and means the same."""
    for text in ("off", "false"):
        (policy,) = parse(document(f"breaker: {text}\nretry: {{perTryTimeout: {text}}}"))
        assert isinstance(policy.document, Destination)
        assert policy.document.spec.breaker == "off"
        assert policy.document.spec.retry is not UNSET
        assert policy.document.spec.retry.per_try_timeout == "off"


def test_an_alias_serves_in_a_policy() -> None:
    """Anchors spare repetition within a document, and mistakes behind them have the line of the anchor."""
    spec = "ejection: {window: &w 5s, base: *w}\nretry: {backoff: &b {initial: 1}, budget: *b}"
    found = complaints(document(spec))
    assert [text.partition(": must")[0].partition(": is no")[0] for text in found] == [
        "x.yaml:6: spec.retry.backoff.initial", "x.yaml:6: spec.retry.budget.initial",
    ]  # fmt: skip


NAMES = sorted({name for kind in KINDS.values() for name in fields_of(kind)} | {
    "service", "endpoints", "timeout", "attempts", "open", "rules", "limit", "concurrency", "version", "labels",
    "name", "a b",
})  # fmt: skip
WORDS = st.sampled_from(["off", "5s", "10%", "5/s", "mesh/v1", "queue", "a", "1.0.0", ""])
VALUES = st.recursive(
    WORDS | st.integers(0, 9) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(kind=st.sampled_from(sorted(KINDS)), metadata=VALUES, spec=VALUES)
def test_nothing_but_a_policy_error_comes_of_any_document(kind: str, metadata: object, spec: object) -> None:
    """Whatever shape a document has, it is a policy or a PolicyError, and never another exception."""
    text = json.dumps({"apiVersion": "mesh/v1", "kind": kind, "metadata": metadata, "spec": spec})
    try:
        (policy,) = parse(text, file="x.json")
    except PolicyError as error:
        places = [str(problem) for problem in error.problems]
    else:
        places = [f"x.json:{policy.line}: "]
        assert policy.kind == kind
    assert all(place.startswith("x.json:1: ") for place in places)

"""Tests of policies: read with every mistake at its line, and held against what policies do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nats_mesh.errors import PolicyError
from nats_mesh.policy import PolicySet, parse
from nats_mesh.policy.files import load_folder, read_files
from nats_mesh.policy.trials.expectations import parse_trials
from nats_mesh.policy.trials.judging import Failure, Result, run
from nats_mesh.policy.trials.predict import Oracle, TrialCall
from tests.expectation_docs import PAGE, brought_up_to_date
from tests.tools import ROOT

POLICIES = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: orders}
spec:
  target: {service: orders}
  timeout: 2s
  idempotent: true
  subsets:
    v1: {version: 1.0.0}
    v2: {version: 2.0.0}
---
apiVersion: mesh/v1
kind: Destination
metadata: {name: orders-v2}
spec: {target: {service: orders, subset: v2}, timeout: 4s, balancer: least_request}
---
apiVersion: mesh/v1
kind: Route
metadata: {name: orders}
spec:
  target: {service: orders}
  rules:
    - match: {headers: {user: jason}}
      split: [{subset: v2}]
      fault: {delay: {duration: 1s, share: 50%}}
    - split: [{subset: v1, weight: 80}, {subset: v2, weight: 20}]
      sticky: {header: user}
      mirror: {service: shadow, share: 50%}
---
apiVersion: mesh/v1
kind: Limit
metadata: {name: orders}
spec: {target: {service: orders}, concurrency: {limit: 9}}
---
apiVersion: mesh/v1
kind: Access
metadata: {name: orders}
spec:
  target: {service: orders}
  rules:
    - {action: ALLOW, callers: [web, batch]}
    - {action: DENY, name: no-batch, callers: [batch]}
    - {action: DENY, claims: {role: guest}}
    - {action: DENY, claims: {vip: 'no'}}
---
apiVersion: mesh/v1
kind: Authentication
metadata: {name: users}
spec:
  target: {service: orders}
  issuers:
    - {issuer: https://id.example.com, jwks: https://id.example.com/keys, audiences: [shop], claims: [role]}
---
apiVersion: mesh/v1
kind: Access
metadata: {name: trial}
spec:
  target: {service: orders, endpoints: [get]}
  mode: dry-run
  rules:
    - {action: DENY, callers: [web]}
---
apiVersion: mesh/v1
kind: Authentication
metadata: {name: private}
spec:
  target: {service: vault}
  required: true
  issuers:
    - {issuer: https://id.example.com, jwks: https://id.example.com/keys}
"""

HEAD = """apiVersion: mesh/v1
kind: PolicyTest
metadata: {name: t}
spec:
  cases:
"""


def case(call: str, expect: str) -> str:
    """A file with one case: its call in line 7, what is expected in line 8."""
    return f"{HEAD}    - name: one\n      call: {call}\n      expect: {expect}\n"


def result(call: str, expect: str, policies: str = POLICIES) -> Result:
    """What comes of one case."""
    (trial,) = parse_trials(case(call, expect), file="t.yaml")
    (found,) = run(trial, Oracle(parse(policies, file="p.yaml")))
    return found


def failure(call: str, expect: str) -> Failure:
    """The one thing that fails."""
    (found,) = result(call, expect).failures
    return found


GET = "{to: orders.get, from: web}"
SPLIT = "orders.get/v1: 80%, orders.get/v2: 20%"
JASON = "{to: orders.get, from: web, headers: {user: jason}}"


@pytest.mark.parametrize(
    ("call", "expect"),
    [
        (GET, "allowed"),
        (GET, "{access: allowed}"),
        (GET, "{allowed: Access/orders}"),
        (GET, "{allowed: {by: Access/orders, rule: 'rules[0]'}}"),
        (GET, "{dryRun: denied}"),
        ("{to: orders.get, from: batch}", "denied"),
        ("{to: orders.get, from: batch}", "{denied: Access/orders}"),
        ("{to: orders.get, from: batch}", "{denied: {rule: no-batch}}"),
        ("orders.get", "denied"),
        (
            "{to: orders.get, from: web, claims: {role: guest}}",
            "{denied: {by: Access/orders, rule: 'rules[2]'}}",
        ),
        ("{to: orders.get, from: web, claims: {role: staff}}", "allowed"),
        ("{to: orders.get, from: web, claims: {role: [staff, guest]}}", "denied"),
        ("{to: orders.get, from: web, claims: {vip: 'no'}}", "allowed"),  # a claim that is not handed on
        (
            "{to: orders.get, from: web, claims: {iss: 'https://evil.example.com'}}",
            "{denied: Authentication/users}",
        ),
        ("{to: orders.get, from: web, claims: {aud: other}}", "{denied: Authentication/users}"),
        ("{to: vault.open, from: web}", "{denied: Authentication/private}"),
        ("{to: vault.open, from: web, claims: {}}", "allowed"),
        ("{to: other.get, from: web}", "allowed"),
        (GET, "{route: [{subset: v1, share: 80%}, {subset: v2, share: 20%}]}"),
        (GET, "{route: [{subset: v1, share: 79% ± 1.5%}, {subset: v2, share: 21% +- 1.5%}]}"),
        (GET, "{route: {service: orders}}"),
        (GET, "{route: {service: orders, endpoint: get, share: 100%}}"),
        (GET, "{route: {subset: all, share: 0%}}"),
        (JASON, "{route: {subset: v2}}"),
        ("{to: orders.get, headers: {USER: jason}}", "{route: {subset: v2}}"),
        ("{to: orders.get, headers: {user: [eve, jason]}}", "{route: {subset: v2}}"),
        ("{to: other.get}", "{route: {service: other, endpoint: get, subset: all}}"),
        (GET, "{mirror: {service: shadow, share: 50%}}"),
        (GET, "{mirror: {service: shadow, subset: all, share: 45% ± 5%}}"),
        (JASON, "{mirror: off}"),
        (GET, "{fault: off}"),
        (JASON, "{fault: {delay: {duration: 1s, share: 50%}}}"),
        (JASON, "{timeout: 4s}"),
        ("{to: orders.get, headers: {user: alice}}", "{timeout: 2s}"),
        (GET, "{idempotent: true, attempts: 2, perTryTimeout: off, hedge: false, breaker: true, limit: 9}"),
        (JASON, "{balancer: least_request}"),
        (
            "{to: other.get}",
            "{limit: off, balancer: queue, retryOn: [attempt-timeout, refused, unavailable]}",
        ),
        (JASON, "{values: {timeout: 4s, balancer.name: least_request, breaker: on, hedge: off}}"),
        (GET, "{values: {retry.backoff.max: 250ms, retry.budget.ratio: 10%, breaker.slowCall: off}}"),
        (GET, "{values: {concurrency.limit: 9, concurrency.leaveQueue: false, breaker.minCalls: 20}}"),
        (GET, "{values: {retry.retryOn: [refused, unavailable, attempt-timeout], idempotent: true}}"),
        ("{to: other.get}", "{values: {timeout: off, concurrency.limit: off, ejection.verdicts: off}}"),
    ],
)
def test_what_holds_passes(call: str, expect: str) -> None:
    """Every field of an expectation, in its long and its short form."""
    assert result(call, expect).failures == ()


@pytest.mark.parametrize(
    ("call", "expect", "field", "found", "by"),
    [
        (GET, "denied", "access", "allowed (ALLOW by Access/orders rules[0])", "Access/orders rules[0] (p.yaml:42)"),
        (GET, "{denied: Access/orders}", "denied", "allowed (ALLOW by Access/orders rules[0])", "Access/orders"),
        (
            "{to: orders.get, from: batch}", "{denied: {rule: other}}", "denied",
            "denied (DENY by Access/orders no-batch)", "Access/orders no-batch (p.yaml:43)",
        ),
        ("orders.get", "allowed", "access", "denied (no rule of Access/orders allows it)", "Access/orders (p.yaml:36)"),
        (GET, "{dryRun: allowed}", "dryRun", "denied", "Access/orders"),
        ("other.get", "{dryRun: allowed}", "dryRun", "no dry run is about it", None),
        (GET, "{route: {subset: v2}}", "route", SPLIT, "Route/orders rules[1] (p.yaml:27)"),
        (GET, "{route: {subset: v2, share: 10% ± 2%}}", "route", SPLIT, "Route/orders"),
        (JASON, "{route: {subset: all}}", "route", "orders.get/v2", "Route/orders rules[0] (p.yaml:24)"),
        (GET, "{mirror: off}", "mirror", "shadow: 50%", "Route/orders rules[1]"),
        (JASON, "{mirror: {service: shadow}}", "mirror", "nobody", "Route/orders rules[0]"),
        (JASON, "{fault: off}", "fault", "delay 1s for 50%", "Route/orders rules[0]"),
        (JASON, "{fault: {delay: {duration: 1s}}}", "fault.delay", "delay 1s for 50%", "Route/orders rules[0]"),
        (GET, "{fault: {abort: {status: UNAVAILABLE}}}", "fault.abort", "nothing", "Route/orders rules[1]"),
        (GET, "{timeout: 2s}", "timeout", "2s: 80%, 4s: 20%", "Destination/orders-v2 (p.yaml:16)"),
        ("other.get", "{timeout: 2s}", "timeout", "said by no policy", "default"),
        (GET, "{limit: 8}", "limit", "9", "Limit/orders (p.yaml:34)"),
        (GET, "{attempts: 3}", "attempts", "2", "default"),
        (GET, "{breaker: false}", "breaker", "on", "default"),
        (GET, "{retryOn: [refused]}", "retryOn", "attempt-timeout, refused, unavailable", "default"),
        (JASON, "{balancer: queue}", "balancer", "least_request", "Destination/orders-v2 (p.yaml:16)"),
        (GET, "{values: {timeout: 2s}}", "values.timeout", "2s: 80%, 4s: 20%", "Destination/orders-v2 (p.yaml:16)"),
        (GET, "{values: {breaker: off}}", "values.breaker", "on", "default"),
        (GET, "{values: {hedge.delay: 5ms}}", "values.hedge.delay", "off", "default"),
        (GET, "{values: {concurrency.limit: off}}", "values.concurrency.limit", "9", "Limit/orders (p.yaml:34)"),
        (GET, "{values: {retry.retryOn: refused}}", "values.retry.retryOn", "attempt-timeout, refused, unavailable",
         "default"),
    ],
)  # fmt: skip
def test_what_does_not_hold_names_who_makes_it_so(
    call: str, expect: str, field: str, found: str, by: str | None
) -> None:
    """A failure says what was found, and the policy and rule behind it with file and line."""
    failed = failure(call, expect)
    assert (failed.field, failed.found, failed.line) == (field, found, 8)
    assert any(each.startswith(by) for each in failed.by) if by is not None else not any(failed.by)


def test_a_sticky_call_goes_exactly_one_way() -> None:
    """For a given value of the header the way is certain, the one that callers take."""
    ways = [
        Oracle(parse(POLICIES, file="p.yaml")).ways(
            TrialCall(service="orders", endpoint="get", caller="web", headers={"user": [f"u{number}"]})
        )
        for number in range(200)
    ]
    assert {len(way) for way in ways} == {1}
    assert 20 <= sum(way[0].subset == "v2" for way in ways) <= 60


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (case("{to: orders}", "allowed"), 7, "must be service.endpoint, got 'orders'"),
        (case("{from: web}", "allowed"), 7, "spec.cases[0].call.to: is missing"),
        (case("{to: orders.get, form: web}", "allowed"), 7, "did you mean from?"),
        (case(GET, "refused"), 8, "must be one of allowed, denied, got 'refused'"),
        (case(GET, "{rout: {subset: v2}}"), 8, "did you mean route?"),
        (case(GET, "{}"), 8, "expects nothing"),
        (case(GET, "{route: {share: 10}}"), 8, "must be a share such as 10%, or 10% ± 2%, got 10"),
        (case(GET, "{route: {share: 110%}}"), 8, "must be a share"),
        (case(GET, "{route: [{subset: v1}, {subset: v2, share: 1%}]}"), 8, "needs a share beside the others"),
        (case(GET, "{denied: orders}"), 8, "must be Kind/name, such as Access/orders"),
        (case(GET, "{access: allowed, denied: Access/a}"), 8, "says access and denied"),
        (case(GET, "{timeout: 5}"), 8, "a duration with its unit"),
        (case(GET, "{fault: {}}"), 8, "expects nothing: say delay, abort, or both"),
        (case(GET, "{rate: 5/s}"), 8, "rate limits: not in this version yet"),
        (case(GET, "{quota: 5/d}"), 8, "quotas: not in this version yet"),
        (case(GET, "{values: {rate.limit: 5}}"), 8, "rate.limit: rate limits: not in this version yet"),
        (case(GET, "{values: {throttle: on}}"), 8, "not in this version yet, so nothing comes of it"),
        (case(GET, "{values: {retry.attempt: 5}}"), 8, "did you mean retry.attempts?"),
        (case(GET, "{values: {retry: 5}}"), 8, "say which of it: retry.attempts, "),
        (case(GET, "{values: {retry.attempts: many}}"), 8, "retry.attempts: must be a whole number"),
        (case(GET, "{values: {breaker: 5}}"), 8, "breaker: must be on or off, got 5"),
        (case(GET, "{values: [a]}"), 8, "must be a mapping such as {retry.attempts: 3}"),
        (case(GET, "{values: {}}"), 8, "expects nothing"),
        (case("{to: orders.get, headers: {Mesh-X: a}}", "allowed"), 7, "belong to the mesh"),
        (case("{to: orders.get, headers: {a: 1}}", "allowed"), 7, "put it in quotes"),
        (case("{to: orders.get, headers: [a]}", "allowed"), 7, "must be a mapping of headers"),
        (case("{to: orders.get, claims: x}", "allowed"), 7, "must be a mapping of claims"),
        (f"{HEAD}    - name: one\n      call: a.b\n", 6, "expect: is missing"),
        (f"{HEAD[:-9]}  policies: [a]\n", 5, "spec.cases: is missing"),
        (f"{case(GET, 'allowed')}    - {{name: one, call: a.b, expect: denied}}\n", 9, "name of spec.cases[0], too"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_at_its_line(text: str, line: int, said: str) -> None:
    """As of policies: what, where, and the nearest name."""
    with pytest.raises(PolicyError) as caught:
        parse_trials(text, file="t.yaml")
    problem = next(each for each in caught.value.problems if said in str(each))
    assert (problem.line, problem.file) == (line, "t.yaml")


def test_tests_are_no_policies() -> None:
    """They may stand in one file with policies: each reader takes its own, and leaves the others alone."""
    text = f"{POLICIES}---\n{case(GET, 'allowed')}"
    assert [each.name for each in parse_trials(text)] == ["t"]
    assert len(parse(text)) == len(parse(POLICIES))


def test_a_test_of_another_version_is_no_test() -> None:
    """A document of an unknown version is refused by whoever reads policies, and is none of the tests."""
    text = case(GET, "allowed").replace("mesh/v1", "mesh/v9")
    assert parse_trials(text) == ()
    with pytest.raises(PolicyError, match="mesh/v9"):
        parse(text)


def test_a_set_that_contradicts_itself_is_held_against_nothing() -> None:
    """What `apply` would refuse is told as that, and no test passes by it."""
    text = POLICIES.replace("weight: 80}", "weight: 80}, {subset: v9}")
    with pytest.raises(PolicyError, match="no subset v9"):
        Oracle(parse(text, file="p.yaml"))


def test_another_namespace_s_policies_do_not_count() -> None:
    """A test is about one namespace."""
    text = POLICIES.replace(
        "metadata: {name: orders-v2}", "metadata: {name: orders-v2, namespace: other}"
    ).replace("{service: orders, subset: v2}", "{service: elsewhere}")
    assert result(JASON, "{timeout: 2s}", text).failures == ()


READY = ROOT / "policies" / "expectations"


@pytest.mark.parametrize("path", sorted(READY.glob("*.yaml")), ids=lambda path: path.name)
def test_the_ready_policies_do_what_is_expected_of_them(path: Path) -> None:
    """Every case in policies/expectations holds; each names the policies that it is about."""
    content = read_files(path)[str(path)]
    assert isinstance(content, bytes)
    for trial in parse_trials(content, file=str(path)):
        named = trial.document.spec.policies
        assert named
        files = [read_files(READY / name) for name in named]
        policies = [
            policy
            for found in files
            for name, held in found.items()
            if isinstance(held, bytes)
            for policy in parse(held, file=name)
        ]
        results = run(trial, Oracle(policies))
        assert results
        assert [each for each in results if not each.good] == []


def test_a_folder_of_policies_may_have_its_tests_below_it() -> None:
    """Whoever follows policies/ takes no test for a policy."""
    policies = load_folder(ROOT / "policies")
    assert isinstance(policies, PolicySet)
    assert not any("expectations" in each.file for each in policies.policies)


def test_the_documentation_has_every_field() -> None:
    """docs/testing-policies.md is what `python -m tests.expectation_docs` writes, and its example is a test."""
    page = PAGE.read_text(encoding="utf-8")
    assert brought_up_to_date(page) == page
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.S | re.M)
    (trial,) = parse_trials(block)
    assert len(trial.document.spec.cases) == 4

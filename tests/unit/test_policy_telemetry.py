"""`Telemetry` policies: what they come to for each endpoint, and what stays as it is when they change."""

from __future__ import annotations

import pytest

from nats_mesh.core.telemetry_rules import (
    DEFAULT_SAMPLING,
    AccessLogRules,
    LatencyGoal,
    ObjectiveRules,
    SlowRules,
    TapRules,
    TelemetryRules,
)
from nats_mesh.errors import PolicyError
from nats_mesh.policy import Policy, PolicySet, parse
from nats_mesh.policy.analysis import analyze


def telemetry(name: str, spec: str, target: str = "", *, file: str = "") -> Policy:
    """One policy about ``target``, such as `service: orders`."""
    target = f"target: {{{target}}}, " if target else ""
    text = f"apiVersion: mesh/v1\nkind: Telemetry\nmetadata: {{name: {name}}}\nspec: {{{target}{spec}}}\n"
    (policy,) = parse(text, file=file)
    return policy


ORDERS = "service: orders"
PLACE = "service: orders, endpoints: [place]"


def rules(*policies: Policy, service: str = "orders", endpoint: str = "place") -> TelemetryRules:
    """What ``policies`` come to."""
    return PolicySet.of(policies).telemetry(service, endpoint)


def test_without_a_policy_the_defaults_hold() -> None:
    """No log, nothing is slow, taps without payloads, one trace of a hundred; and nobody needs to ask."""
    found = rules()
    assert (found.access_log, found.slow, found.tap, found.sampling) == (
        None, None, TapRules(), DEFAULT_SAMPLING,
    )  # fmt: skip
    assert (found.labels, found.objectives) == ((), ())
    assert set(found.sources.values()) == {"default"}
    assert not PolicySet.of(()).telling
    assert PolicySet.of([telemetry("a", "tracing: 1%")]).telling


def test_each_field_comes_from_the_most_specific_that_says_it() -> None:
    """Namespace, service, endpoint: every field by itself, with its source."""
    found = rules(
        telemetry("wide", "accessLog: errors, tracing: 5%, slow: 1s, labels: {team: a, tier: b}", file="f"),
        telemetry("orders", "tracing: 10%, labels: {team: shop}", ORDERS, file="f"),
        telemetry("place", "slow: {timesP99: 3}", PLACE, file="f"),
    )
    assert found.access_log == AccessLogRules(mode="errors")
    assert found.sampling == 0.1
    assert found.slow == SlowRules(times_p99=3.0)
    assert found.labels == (("team", "shop"), ("tier", "b"))
    said = {path: source.partition(" ")[0] for path, source in found.sources.items() if source != "default"}
    assert said == {
        "accessLog.mode": "Telemetry/wide", "tracing.sampling": "Telemetry/orders", "slow": "Telemetry/place",
        "slow.timesP99": "Telemetry/place", "labels.team": "Telemetry/orders", "labels.tier": "Telemetry/wide",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wide", "narrow", "mode", "share"),
    [
        ("off", "{share: 10%}", "on", 0.1),
        ("errors", "{share: 10%}", "on", 0.1),
        ("{share: 10%}", "errors", "errors", 1.0),
        ("{share: 10%}", "on", "on", 0.1),
        ("on", "off", None, None),
        ("errors", None, "errors", 1.0),
    ],
)
def test_what_a_narrower_policy_says_of_the_access_log_counts(
    wide: str, narrow: str | None, mode: str | None, share: float | None
) -> None:
    """A share alone means a line for that share, whatever a wider policy said; off is off."""
    policies = [telemetry("wide", f"accessLog: {wide}")]
    if narrow is not None:
        policies.append(telemetry("orders", f"accessLog: {narrow}", ORDERS))
    found = rules(*policies).access_log
    assert (found and found.mode, found and found.share) == (mode, share)


def test_of_two_ways_to_be_slow_the_narrower_one_holds_alone() -> None:
    """A time and a multiple of the p99 exclude each other, also in different policies; off clears both."""
    wide, narrow = telemetry("wide", "slow: {timesP99: 2}"), telemetry("orders", "slow: 300ms", ORDERS)
    assert rules(wide, narrow).slow == SlowRules(threshold_s=0.3)
    assert rules(wide, telemetry("orders", "slow: off", ORDERS)).slow is None
    assert rules(
        wide, telemetry("o", "slow: off", ORDERS), telemetry("p", "slow: 1s", PLACE)
    ).slow == SlowRules(threshold_s=1.0)


def test_taps_are_turned_off_and_on_again() -> None:
    """Off is nothing at all; whoever says anything inside turns it on, without what was said before."""
    wide = telemetry("wide", "tap: {payloads: true, redact: [X-Card]}")
    assert rules(wide).tap == TapRules(payloads=True, redact=frozenset({"x-card"}))
    off = telemetry("orders", "tap: off", ORDERS)
    assert rules(wide, off).tap is None
    again = rules(wide, off, telemetry("place", "tap: {rate: 10/s}", PLACE)).tap
    assert again == TapRules(rate_per_s=10.0)


def test_objectives_are_those_of_the_most_specific_policy() -> None:
    """They are one field: a service that promises something itself promises that alone."""
    policies = PolicySet.of(
        [
            telemetry("wide", "objectives: {availability: 99%}"),
            telemetry(
                "orders",
                "objectives: [{name: fast, latency: {threshold: 300ms, share: 99%}, window: 7d}]",
                ORDERS,
            ),
        ]
    )
    everywhere = ObjectiveRules(name="wide", policy="Telemetry/wide", availability=0.99)
    fast = ObjectiveRules(
        name="fast",
        policy="Telemetry/orders",
        service="orders",
        latency=LatencyGoal(threshold_s=0.3, share=0.99),
        window_s=7 * 86_400.0,
    )
    assert policies.telemetry("orders", "").objectives == (fast,)
    assert policies.telemetry("other", "").objectives == (everywhere,)


def test_two_about_the_same_target_are_refused() -> None:
    """Nobody could say which of them holds; the analysis says it in its own words."""
    twins = [telemetry("a", "slow: 1s", ORDERS, file="f"), telemetry("b", "tracing: 1%", ORDERS, file="f")]
    with pytest.raises(PolicyError, match="both about orders"):
        PolicySet.of(twins)
    assert [each.code for each in analyze(twins, mode="open")] == ["NM0401"]


def test_endpoints_that_it_names_are_named() -> None:
    """So that a service says in its log which of them it has not."""
    assert PolicySet.of([telemetry("a", "slow: 1s", PLACE)]).endpoints("orders") == {"place"}


def test_an_answer_stays_the_same_object_while_it_holds() -> None:
    """What is built from it can stay: through a change elsewhere, and through one of another kind."""
    own, other = telemetry("orders", "slow: 1s", ORDERS), telemetry("other", "slow: 2s", "service: other")
    before = PolicySet.of([own])
    found = before.telemetry("orders", "place")
    after = PolicySet.of([own, other], before=before)
    assert after.telemetry("orders", "place") is found
    everywhere = PolicySet.of([own, other, telemetry("wide", "tracing: 3%")], before=after)
    assert everywhere.telemetry("orders", "place").sampling == 0.03
    gone = PolicySet.of([other], before=everywhere)
    assert gone.telemetry("orders", "place").slow is None


def test_a_rule_that_follows_another_set_is_what_it_would_be_alone() -> None:
    """A set that takes over from the one before comes to exactly the same."""
    one, two = telemetry("wide", "accessLog: on"), telemetry("orders", "accessLog: {share: 1%}", ORDERS)
    followed = PolicySet.of([one, two], before=PolicySet.of([one], before=PolicySet.of([two])))
    alone = PolicySet.of([one, two])
    assert followed.telemetry("orders", "x") == alone.telemetry("orders", "x")
    assert followed.telling

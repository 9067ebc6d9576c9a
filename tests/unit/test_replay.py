"""Policies tried on recorded calls: what would be different, how much of it, and what nobody can tell."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nats_mesh.core.envelope import HIDDEN, RecordedCall
from nats_mesh.core.likely import outcomes
from nats_mesh.core.router import choose, key_of
from nats_mesh.policy import parse
from nats_mesh.policy.whatif.recording import Header, Recording
from nats_mesh.policy.whatif.replay import Candidate, replay
from nats_mesh.policy.whatif.replay_report import Group, Replay

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"

SUBSETS = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: reviews}
spec:
  target: {service: reviews}
  subsets: {v1: {version: 1.0.0}, v2: {version: 2.0.0}}
"""


def route(rules: str, service: str = "reviews") -> str:
    """A route of a service with these rules."""
    return f"""
apiVersion: mesh/v1
kind: Route
metadata: {{name: {service}}}
spec:
  target: {{service: {service}}}
  rules: {rules}
"""


def split(v1: int, v2: int, more: str = "") -> str:
    """A route that splits reviews by weight."""
    return route(f"[{{split: [{{subset: v1, weight: {v1}}}, {{subset: v2, weight: {v2}}}]{more}}}]")


def document(kind: str, spec: str, name: str = "x", service: str = "reviews") -> str:
    """Any policy about a service."""
    return (
        f"apiVersion: mesh/v1\nkind: {kind}\nmetadata: {{name: {name}}}\n"
        f"spec: {{target: {{service: {service}}}, {spec}}}\n"
    )


@functools.cache
def candidate(*documents: str) -> Candidate:
    """These documents as one side."""
    return Candidate.of(parse("\n---\n".join(documents), file="p.yaml")) if documents else Candidate.of([])


def call(at_s: float = 0.0, **fields: Any) -> RecordedCall:
    """A recorded call of web to reviews.list."""
    given: dict[str, Any] = {
        "at": (START + datetime.timedelta(seconds=at_s)).isoformat().replace("+00:00", "Z"),
        "service": "reviews", "instance": "a", "version": "1.0.0", "endpoint": "list", "caller": "web",
        "route": "all", "status": "OK", "duration_s": 0.01, "trace": TRACE,
    }  # fmt: skip
    return RecordedCall(**{**given, **fields})


def recording(calls: Sequence[RecordedCall], **header: Any) -> Recording:
    """A recording that kept all headers, unless said otherwise."""
    given: dict[str, Any] = {
        "format": 1, "namespace": "default", "started": "2026-01-01T00:00:00.000000Z", "headers": None,
    }  # fmt: skip
    return Recording(header=Header(**{**given, **header}), calls=tuple(calls))


def tried(calls: Sequence[RecordedCall], old: Sequence[str], new: Sequence[str], **header: Any) -> Replay:
    """Try ``new`` in the place of ``old``."""
    return replay(recording(calls, **header), candidate(*old), candidate(*new))


def only(found: Replay, facet: str) -> Group:
    """The one group of a facet."""
    groups = [group for group in found.groups if group.facet == facet]
    assert len(groups) == 1, found.groups
    return groups[0]


# -- routes -------------------------------------------------------------------------------------------


def test_weights_differ_by_their_exact_shares() -> None:
    """100 calls at 90/10 that would go 80/20: ten of them would go elsewhere, whoever they are."""
    found = tried([call(n) for n in range(100)], [SUBSETS, split(90, 10)], [SUBSETS, split(80, 20)])
    group = only(found, "route")
    assert (group.before, group.after) == ("reviews.list/v1", "reviews.list/v2")
    assert group.calls == pytest.approx(10.0)
    assert group.share == pytest.approx(0.1)
    assert not group.exact
    assert found.affected == pytest.approx(10.0)
    assert group.policies[0] == "Route/reviews rules[0] (p.yaml:16)"
    assert [example.trace for example in group.examples] == [TRACE] * 5
    assert not found.same


def test_sticky_calls_are_counted_one_by_one() -> None:
    """By the very leg that each user's key falls to: growing a canary moves only those that it wins."""
    users = [f"user-{n}" for n in range(200)]
    old, new = split(90, 10, ", sticky: {header: user}"), split(75, 25, ", sticky: {header: user}")
    found = tried([call(headers=(("user", user),)) for user in users], [SUBSETS, old], [SUBSETS, new])

    def leg(text: str, user: str) -> int:
        rules = candidate(SUBSETS, text).applied.outbound("reviews", "list", "web").routing
        (way,) = outcomes(rules, lambda name: [user], "web", "reviews")
        legs = way.path.legs
        return choose(legs, key_of(way.path.sticky, lambda name: [user], "web"), "reviews", lambda: 0.0)

    moved = [user for user in users if leg(old, user) != leg(new, user)]
    group = only(found, "route")
    assert (group.before, group.after) == ("reviews.list/v1", "reviews.list/v2")
    assert (group.calls, group.exact) == (len(moved), True)
    assert 10 < len(moved) < 60


def test_calls_that_stick_by_what_was_hidden_go_by_chance() -> None:
    """All of them together do as their weights say."""
    old = split(90, 10, ", sticky: {header: session-token}")
    new = split(80, 20, ", sticky: {header: session-token}")
    calls = [call(headers=(("session-token", HIDDEN),)) for _ in range(10)]
    group = only(tried(calls, [SUBSETS, old], [SUBSETS, new]), "route")
    assert group.calls == pytest.approx(1.0)
    assert not group.exact


def test_a_rule_by_header_moves_those_that_have_it() -> None:
    """Exactly, and to the destination it names."""
    new = route("[{match: {headers: {tester: yes-please}}, split: [{subset: v2}]}]")
    calls = [call(headers=(("tester", "yes-please"),)), call(headers=(("tester", "no"),)), call()]
    found = tried(calls, [SUBSETS], [SUBSETS, new])
    group = only(found, "route")
    assert (group.before, group.after, group.calls, group.exact) == (
        "reviews.list", "reviews.list/v2", 1.0, True,
    )  # fmt: skip
    assert (found.calls, found.affected, found.unknown) == (3, 1.0, 0)


@pytest.mark.parametrize(
    ("headers", "kept", "cut"),
    [
        ((), ("other",), False),
        ((), None, True),
        ((("tester", HIDDEN),), None, False),
        ((("tester", "x" * 255 + "…"),), None, False),
    ],
    ids=["not kept", "no room", "hidden", "cut"],
)
def test_what_the_recording_does_not_tell_is_not_guessed(
    headers: tuple[tuple[str, str], ...], kept: tuple[str, ...] | None, cut: bool
) -> None:
    """A header that decides and was not kept makes a call one of which nobody can tell."""
    new = route("[{match: {headers: {tester: yes-please}}, split: [{subset: v2}]}]")
    calls = [call(headers=headers, cut=cut)]
    found = tried(calls, [SUBSETS], [SUBSETS, new], headers=kept)
    group = only(found, "unknown")
    assert "the header tester" in group.before
    assert (found.unknown, found.affected, found.same) == (1, 0.0, False)
    again = tried(calls, [SUBSETS, new], [SUBSETS, new], headers=kept)
    assert again.same


def test_presence_is_known_of_what_is_hidden() -> None:
    """A secret's value is gone; that it was there is not."""
    new = route("[{match: {headers: {authorization: {present: true}}}, split: [{subset: v2}]}]")
    calls = [call(headers=(("authorization", HIDDEN),)), call()]
    found = tried(calls, [SUBSETS], [SUBSETS, new])
    assert (only(found, "route").calls, found.unknown) == (1.0, 0)


def test_faults_and_copies_count_by_their_shares() -> None:
    """Aborts affect callers, copies do not, and each is said with what it was before."""
    new = route(
        "[{fault: {abort: {status: UNAVAILABLE, share: 25%}, delay: {duration: 2s, share: 50%}},"
        " mirror: {subset: v2, share: 10%}}]"
    )
    found = tried([call() for _ in range(20)], [SUBSETS], [SUBSETS, new])
    abort, delay, mirror = only(found, "abort"), only(found, "delay"), only(found, "mirror")
    assert abort.after == "25% aborted with UNAVAILABLE"
    assert (delay.before, delay.after) == ("not delayed", "50% delayed by 2s")
    assert mirror.after == "10% copied to reviews/v2"
    assert [group.calls for group in (abort, delay, mirror)] == pytest.approx([5.0, 10.0, 2.0])
    assert found.affected == pytest.approx(10.0)


def test_calls_that_may_have_been_led_there_are_named() -> None:
    """What a call was named before a route sent it to another service is not in a recording."""
    old = route("[{split: [{service: reviews, weight: 1}, {service: ratings, weight: 1}]}]", service="stars")
    found = tried([call(), call()], [old], [old])
    assert found.notes[0].startswith("2 calls may have come there by Route/stars")
    assert found.same


# -- time, settings -----------------------------------------------------------------------------------


def test_calls_longer_than_the_new_timeout_are_cut_short() -> None:
    """Those that took longer than it, and none that took longer than the old one anyway."""
    calls = [call(duration_s=each) for each in (0.1, 0.6, 0.9, 3.0)]
    found = tried(
        calls, [document("Destination", "timeout: 2s")], [document("Destination", "timeout: 500ms")]
    )
    group = only(found, "timeout")
    assert (group.before, group.after, group.calls) == ("2s", "500ms", 2.0)
    assert group.policies == ("Destination/x (p.yaml:4)",)
    assert found.affected == 2.0


def test_attempts_that_would_be_given_up() -> None:
    """A bound for each attempt, within the call's time."""
    calls = [call(duration_s=0.3), call(duration_s=0.1)]
    found = tried(calls, [], [document("Destination", "timeout: 2s, retry: {perTryTimeout: 200ms}")])
    assert only(found, "attempt-timeout").calls == 1.0


def test_other_values_are_named() -> None:
    """A value that no recorded call would have met otherwise is no affected call, and is said."""
    found = tried([call(), call()], [], [document("Destination", "retry: {attempts: 5}")])
    group = only(found, "setting")
    assert (group.before, group.after, group.calls) == ("retry.attempts 2", "retry.attempts 5", 2.0)
    assert (found.affected, found.same) == (0.0, False)


# -- the instance's side ------------------------------------------------------------------------------


def test_overlapping_calls_find_no_slot() -> None:
    """Three at a time where two may be: the third is refused, at its own instance alone."""
    calls = [call(n * 0.01, duration_s=1.0) for n in range(3)] + [call(0.005, duration_s=1.0, instance="b")]
    found = tried(calls, [], [document("Limit", "concurrency: {limit: 2}")])
    group = only(found, "limit")
    assert (group.before, group.after, group.calls) == (
        "at most any number at a time", "at most 2 at a time: refused", 1.0,
    )  # fmt: skip
    assert group.examples[0].at == calls[2].at


def test_one_after_the_other_they_do() -> None:
    """Calls that do not overlap need one slot; time in the queue is none."""
    calls = [call(n * 1.0, duration_s=1.0) for n in range(5)]
    assert not [
        g
        for g in tried(calls, [], [document("Limit", "concurrency: {limit: 1}")]).groups
        if g.facet == "limit"
    ]
    calls = [call(0.0, duration_s=1.0), call(0.5, duration_s=1.0, queue_s=0.6)]
    assert not [
        g
        for g in tried(calls, [], [document("Limit", "concurrency: {limit: 1}")]).groups
        if g.facet == "limit"
    ]


def test_a_wider_limit_lets_in_who_was_refused() -> None:
    """A call that found no slot takes as long as the others did."""
    calls = [
        call(duration_s=1.0, concurrency=8),
        call(0.1, duration_s=0.0, refused="concurrency", concurrency=8),
    ]
    old, new = document("Limit", "concurrency: {limit: 1}"), document("Limit", "concurrency: {limit: 2}")
    group = only(tried(calls, [old], [new]), "limit")
    assert (group.before, group.after) == ("at most 1 at a time: refused", "at most 2 at a time")


def test_a_service_wide_limit_never_allows_more_than_declared() -> None:
    """As at the instance: a limit of 100 changes nothing for an endpoint that declares 2."""
    calls = [call(n * 0.01, duration_s=1.0, concurrency=2) for n in range(4)]
    assert tried(calls, [], [document("Limit", "concurrency: {limit: 100}")]).same


def test_a_sample_too_small_says_so() -> None:
    """Ten percent of the calls say nothing about a limit of four."""
    calls = [call(n * 0.01, duration_s=1.0) for n in range(3)]
    found = tried(calls, [], [document("Limit", "concurrency: {limit: 4}")], sample=0.1)
    assert "its limit changes, and a sample of 10% is too small" in only(found, "unknown").before
    assert not [group for group in found.groups if group.facet == "limit"]
    assert not found.same


def test_access_is_decided_as_at_the_instance() -> None:
    """With the rule that refuses; what depends on claims is not guessed."""
    calls = [call(), call(caller="batch"), call(caller="admin")]
    new = document("Access", "default: deny, rules: [{action: ALLOW, callers: [web]},"
                   " {name: admins, action: ALLOW, callers: [admin], claims: {role: boss}}]")  # fmt: skip
    found = tried(calls, [], [new])
    group = only(found, "access")
    assert (group.before, group.calls) == ("allowed: no access policy is about it", 1.0)
    assert group.after == "denied: no rule of Access/x allows it"
    assert re.match(r"Access/x .*admins asks for claims", only(found, "unknown").before)
    assert (found.affected, found.unknown) == (1.0, 1)
    sure = document("Access", "rules: [{action: DENY, callers: [admin]},"
                    " {action: ALLOW, callers: [admin], claims: {role: boss}}]")  # fmt: skip
    denied = [group for group in tried(calls, [], [sure]).groups if "DENY by Access/x" in group.after]
    assert [group.calls for group in denied] == [1.0]


def test_what_has_no_layer_is_named_where_it_differs() -> None:
    """A rate that nothing evaluates yet is no silence."""
    new = document("Limit", "rate: 100/s")
    found = tried([call()], [], [new])
    assert [(each.policy, each.path) for each in found.not_evaluated] == [("Limit/x", "spec.rate")]
    assert not found.same
    assert tried([call()], [new], [new]).same


def test_attempts_copies_and_plain_subjects_are_counted_apart() -> None:
    """A retry is no call of its own, nor is a copy; on a plain subject no route leads."""
    calls = [call(), call(attempt=2), call(mirror=True), call(route="plain", caller="anonymous")]
    found = tried(calls, [SUBSETS], [SUBSETS, route("[{split: [{subset: v2}]}]")])
    assert (found.calls, found.retries, found.mirrors, found.plain) == (2, 1, 1, 1)
    assert only(found, "route").calls == 1.0


# -- whatever was recorded ----------------------------------------------------------------------------

POLICIES = [
    SUBSETS,
    split(90, 10),
    split(1, 1, ", sticky: {header: user}"),
    split(3, 1, ", sticky: {identity: true}, timeout: 300ms"),
    route("[{match: {headers: {user: {prefix: a}}, share: 30%}, split: [{subset: v2}]}, {mirror: {subset: v1}}]"),
    route("[{match: {headers: {cookie: {present: true}}}, fault: {abort: {status: INTERNAL, share: 10%}}}]"),
    document("Destination", "timeout: 100ms, retry: {attempts: 3, perTryTimeout: 20ms}", service="orders"),
    document("Limit", "concurrency: {limit: 2}"),
    document("Limit", "concurrency: {limit: 1}, rate: 5/s", name="y", service="orders"),
    document("Access", "default: deny, rules: [{action: ALLOW, callers: [web], headers: {user: a}}]"),
    document("Access", "rules: [{action: DENY, claims: {sub: x}}, {action: ALLOW}]", name="z"),
]  # fmt: skip
_HEADERS = st.lists(
    st.tuples(st.sampled_from(["user", "cookie", "other"]), st.sampled_from(["a", "ab", "b", HIDDEN])),
    max_size=3,
)
_CALLS = st.lists(
    st.builds(
        call,
        at_s=st.floats(0.0, 2.0),
        service=st.sampled_from(["reviews", "orders", "ratings"]),
        endpoint=st.sampled_from(["list", "get", "_OTHER"]),
        instance=st.sampled_from(["a", "b"]),
        caller=st.sampled_from(["web", "batch", "anonymous"]),
        route=st.sampled_from(["all", "v1", "direct", "plain"]),
        duration_s=st.floats(0.0, 1.0),
        attempt=st.integers(1, 3),
        mirror=st.booleans(),
        refused=st.sampled_from(["", "", "concurrency", "draining"]),
        concurrency=st.sampled_from([None, 1, 3]),
        headers=_HEADERS.map(tuple),
        cut=st.booleans(),
    ),
    max_size=12,
)


def _set(numbers: list[int]) -> list[str] | None:
    """Some of the policies that can stand beside each other."""
    chosen = [POLICIES[0], *[POLICIES[n] for n in numbers]]
    try:
        candidate(*chosen)
    except Exception:  # noqa: BLE001 - two of them are about one thing: no set
        return None
    return chosen


_SETS = st.lists(st.integers(1, len(POLICIES) - 1), unique=True, max_size=4).map(_set)


@given(_CALLS, _SETS, st.sampled_from([1.0, 0.1]), st.sampled_from([None, (), ("user",)]))
@settings(max_examples=200)
def test_the_same_policies_change_nothing(
    calls: list[RecordedCall], chosen: list[str] | None, sample: float, kept: tuple[str, ...] | None
) -> None:
    """Whatever was recorded, however little of it is known."""
    if chosen is None:
        return
    found = tried(calls, chosen, chosen, sample=sample, headers=kept)
    assert found.same, found.groups
    assert (found.affected, found.unknown) == (0.0, 0)


@given(_CALLS, _SETS, _SETS)
@settings(max_examples=200)
def test_there_and_back_is_as_far(
    calls: list[RecordedCall], one: list[str] | None, other: list[str] | None
) -> None:
    """What changes from one set to another changes as much on the way back, and never more than there were calls."""
    if one is None or other is None:
        return
    there, back = tried(calls, one, other), tried(calls, other, one)
    assert there.affected == pytest.approx(back.affected)
    assert there.unknown == back.unknown
    assert there.affected <= there.calls + there.retries + there.mirrors + 1e-6
    assert {g.facet for g in there.groups} == {g.facet for g in back.groups}


def test_the_answer_is_plain_data() -> None:
    """It can be printed as JSON."""
    found = tried([call()], [SUBSETS], [SUBSETS, split(1, 1)])
    assert msgspec.json.decode(msgspec.json.encode(found))["groups"][0]["facet"] == "route"

"""The steps of a change of policies: each leaves a set that holds, and together they come to what was wanted."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.policy.bus.documents import key_of
from nats_mesh.policy.bus.plan import Document, Step, longest_timeout_s, steps_of
from nats_mesh.policy.decode import parse
from nats_mesh.policy.policy_set import PolicySet

SERVICES = ("orders", "stock")
NAMES = ("v1", "v2", "v3")


def document(kind: str, name: str, spec: dict[str, Any]) -> tuple[str, Document]:
    """A document by its key."""
    plain = {"apiVersion": "mesh/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    value = msgspec.json.encode(plain)
    (policy,) = parse(value)
    return key_of(policy), Document(policy=policy, value=value)


def destination(
    service: str, subsets: dict[str, str], *, name: str = "", **spec: Any
) -> tuple[str, Document]:
    """What defines the subsets of a service, each by the label `version`."""
    said = {"target": {"service": service}, **spec}
    if subsets:
        said["subsets"] = {each: {"labels": {"version": label}} for each, label in subsets.items()}
    return document("Destination", name or service, said)


def route(service: str, *subsets: str, name: str = "") -> tuple[str, Document]:
    """What sends calls to subsets."""
    split = [{"subset": each} for each in subsets] or [{}]
    return document("Route", name or service, {"target": {"service": service}, "rules": [{"split": split}]})


def after(current: dict[str, Document], steps: list[Step]) -> list[PolicySet]:
    """The set that each step leaves; that it holds by itself is seen to by building it."""
    values = {key: each.value for key, each in current.items()}
    found = []
    for step in steps:
        for key, value in step.values.items():
            if value is None:
                del values[key]
            else:
                values[key] = value
        found.append(PolicySet.of([policy for value in values.values() for policy in parse(value)]))
    return found


def kinds(steps: list[Step]) -> list[list[str]]:
    """The keys of each step."""
    return [sorted(step.values) for step in steps]


def test_nothing_new_needs_no_step() -> None:
    """The same bytes again change nothing; a deletion of what is not there neither."""
    current = dict([destination("orders", {"v1": "a"}), route("orders", "v1")])
    assert steps_of(current, dict(current)) == []
    assert steps_of(current, {"Route.other": None}) == []


def test_what_leads_to_nothing_new_is_one_step() -> None:
    """A route between subsets that are there, a limit, another timeout: all of it at once."""
    current = dict([destination("orders", {"v1": "a", "v2": "b"}), route("orders", "v1")])
    wanted = dict([destination("orders", {"v1": "a", "v2": "b"}, timeout="2s"), route("orders", "v2")])
    assert kinds(steps_of(current, dict(wanted))) == [["Destination.orders", "Route.orders"]]


def test_a_new_subset_is_known_before_anything_leads_there() -> None:
    """Destination, then Route; a subset that selects others than before is a new one."""
    wanted = dict([destination("orders", {"v1": "a", "v2": "b"}), route("orders", "v2")])
    assert kinds(steps_of({}, dict(wanted))) == [["Destination.orders"], ["Route.orders"]]
    other = dict([destination("orders", {"v1": "a", "v2": "c"}), route("orders", "v2", "v1")])
    assert kinds(steps_of(wanted, dict(other))) == [["Destination.orders"], ["Route.orders"]]


def test_a_subset_goes_after_what_led_there() -> None:
    """Deletes in reverse: Route, the longest time that a call may take, Destination."""
    current = dict([destination("orders", {"v1": "a"}, timeout="7s"), route("orders", "v1")])
    steps = steps_of(current, dict.fromkeys(current))
    assert kinds(steps) == [["Route.orders"], ["Destination.orders"]]
    assert [step.pause_s for step in steps] == [0.0, 7.0]


def test_a_subset_is_renamed_in_three_steps() -> None:
    """Both are there while routes change from one to the other."""
    current = dict([destination("orders", {"v1": "a"}), route("orders", "v1")])
    wanted = dict([destination("orders", {"v2": "a"}), route("orders", "v2")])
    steps = steps_of(current, dict(wanted))
    assert kinds(steps) == [["Destination.orders"], ["Route.orders"], ["Destination.orders"]]
    sets = after(current, steps)
    assert sorted(sets[0].subsets("orders")) == ["v1", "v2"]
    assert sorted(sets[2].subsets("orders")) == ["v2"]
    assert steps[2].values["Destination.orders"] == wanted["Destination.orders"].value


def test_where_only_the_subsets_may_go_ahead_they_do() -> None:
    """Narrow: new subsets are added to what stands there, everything else comes with the routes, the subsets that go
    stay behind alone."""
    current = dict([destination("orders", {"v1": "a"}, timeout="7s"), route("orders", "v1")])
    wanted = dict([destination("orders", {"v2": "b"}, timeout="1s"), route("orders", "v2")])
    steps = steps_of(current, dict(wanted), narrow=True)
    assert kinds(steps) == [
        ["Destination.orders"],
        ["Destination.orders", "Route.orders"],
        ["Destination.orders"],
    ]
    specs = [msgspec.json.decode(each.values["Destination.orders"] or b"{}")["spec"] for each in steps]
    assert [(each["timeout"], sorted(each["subsets"])) for each in specs] == [
        ("7s", ["v1", "v2"]),
        ("1s", ["v1", "v2"]),
        ("1s", ["v2"]),
    ]
    gone = steps_of(current, dict.fromkeys(current), narrow=True)
    assert kinds(gone) == [["Destination.orders", "Route.orders"], ["Destination.orders"]]
    left = msgspec.json.decode(gone[0].values["Destination.orders"] or b"{}")["spec"]
    assert sorted(left) == ["subsets", "target"]


def test_a_pause_is_bounded() -> None:
    """Nobody waits an hour because a timeout says so."""
    current = dict([destination("orders", {"v1": "a"}, timeout="1h")])
    assert longest_timeout_s(current.values()) == 60.0
    assert longest_timeout_s([]) == 5.0


@st.composite
def sets(draw: st.DrawFn) -> dict[str, Document]:
    """Documents that hold together."""
    found: dict[str, Document] = {}
    for service in SERVICES:
        subsets = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from("abc"), max_size=3))
        bare: bool = draw(st.booleans())
        if subsets or bare:
            name = draw(st.sampled_from((service, f"{service}-2")))
            found |= dict([destination(service, subsets, name=name)])
        if draw(st.booleans()):
            names = draw(st.lists(st.sampled_from(sorted(subsets)), unique=True)) if subsets else []
            found |= dict([route(service, *names, name=draw(st.sampled_from((service, f"{service}-2"))))])
    return found


@given(current=sets(), wanted=sets(), narrow=st.booleans())
def test_every_step_holds_and_the_last_is_what_was_wanted(
    current: dict[str, Document], wanted: dict[str, Document], narrow: bool
) -> None:
    """From any set to any other: each step leaves a set that is valid, in which no route leads to a subset that was
    unknown before the step or is gone after it, and in the end the stored bytes are those that were wanted."""
    changes: dict[str, Document | None] = {**dict.fromkeys(current), **wanted}
    steps = steps_of(current, changes, narrow=narrow)
    before = PolicySet.of([each.policy for each in current.values()])
    for made in after(current, steps):
        for service, name in made.routed_subsets():
            assert name in before.subsets(service)
        for service, name in before.routed_subsets():
            assert name in made.subsets(service)
        before = made
    final: dict[str, bytes | None] = {key: each.value for key, each in current.items()}
    for step in steps:
        final |= step.values
    assert {key: value for key, value in final.items() if value is not None} == {
        key: each.value for key, each in wanted.items()
    }

"""What the demo tells line by line where nobody looks at its view: bounded, each thing once, what matters always."""

from __future__ import annotations

from typing import Any

import pytest

from nats_mesh.core.members import Change, ChangeKind
from nats_mesh.telemetry.events import Event as Told
from nats_mesh_cli.demo.events import Events
from nats_mesh_cli.demo.policies import GATHER_S, MAX_REVISIONS, Gathering
from nats_mesh_cli.demo.run import MAX_TOLD, Teller
from nats_mesh_cli.demo.state import Mark
from tests.unit.test_demo_summary import instance


def applied(member: str, revision: int = 4, what: str = "new Route/a") -> Told:
    """One instance of `shop` has applied policies."""
    return Told(
        kind="policy.applied",
        at="2026-01-01T00:00:00.000000Z",
        service="shop",
        instance=member,
        namespace="default",
        seq=1,
        target=f"revision {revision}",
        detail=what,
    )


MEMBERS = {("shop", "a"), ("shop", "b"), ("shop", "c")}


def test_a_revision_is_told_once_when_all_have_applied_it() -> None:
    """Not a line of each member, however often each says it."""
    gathering = Gathering()
    assert gathering.wait_s(0.0) == float("inf")
    for member in ("a", "b", "a"):
        gathering.heard(applied(member), 1.0)
    assert gathering.due(MEMBERS, 1.5) == []
    assert gathering.wait_s(1.5) == GATHER_S - 0.5
    gathering.heard(applied("c"), 1.6)
    assert gathering.due(MEMBERS, 1.6) == [
        "policies of revision 4 are in effect at 3 of 3 members: new Route/a"
    ]
    assert gathering.due(MEMBERS, 100.0) == []
    assert gathering.wait_s(100.0) == float("inf")


def test_who_has_not_applied_it_in_time_is_missing_in_the_line_and_comes_in_a_later_one() -> None:
    """Nobody waits for a frozen instance for ever; each revision has its own line."""
    gathering = Gathering()
    gathering.heard(applied("a"), 1.0)
    gathering.heard(applied("a", 5, "changed Route/a"), 1.5)
    assert gathering.due(MEMBERS, 1.0 + GATHER_S) == [
        "policies of revision 4 are in effect at 1 of 3 members: new Route/a"
    ]
    assert gathering.due(MEMBERS, 1.5 + GATHER_S) == [
        "policies of revision 5 are in effect at 1 of 3 members: changed Route/a"
    ]
    gathering.heard(applied("b", 5), 60.0)
    gathering.heard(applied("c", 5), 60.1)
    assert gathering.due(MEMBERS, 60.1) == [
        "policies of revision 5 are in effect at 3 of 3 members: changed Route/a"
    ]


def test_revisions_that_are_remembered_are_bounded() -> None:
    """Of more than that the oldest are forgotten."""
    gathering = Gathering()
    for revision in range(MAX_REVISIONS + 5):
        gathering.heard(applied("a", revision), 1.0)
    assert len(gathering.due((), 1.0)) == MAX_REVISIONS


def test_an_instance_that_has_applied_a_revision_is_no_event_of_its_own() -> None:
    """Policies have their line; whatever else changed with the revision is told."""
    events = Events()
    one = instance("ratings", 5)
    events.presence(Change(kind=ChangeKind.CHANGED, instance=one, fields=("revision",)))
    events.presence(Change(kind=ChangeKind.CHANGED, instance=one, fields=("revision", "rejections")))
    assert [each.text for each in events.all] == ["ratings 1.0.0 (pid 5): revision, rejections; now ready"]


def floods(events: Events) -> None:
    """Everything that may come often."""
    for number in range(3 * MAX_TOLD):
        events.add(Mark.ERROR, f"a page failed: {number}", "page")
        events.add(Mark.WARN, f"a warning {number}", "log")
        events.add(Mark.CHANGE, f"policies {number}", "policy")
        events.told(told("shop.own", number))


def told(kind: str, number: int = 0) -> Told:
    """Something that a member tells."""
    return Told(
        kind=kind,
        at="2026-01-01T00:00:00.000000Z",
        service="shop",
        instance="a",
        namespace="default",
        seq=1,
        target=f"target {number}",
    )


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (lambda events: events.told(told("breaker.open")), "breaker.open"),
        (lambda events: events.told(told("fault.set")), "fault.set"),
        (lambda events: events.add(Mark.WARN, "reviews was stopped by a signal", "process"), "was stopped"),
        (
            lambda events: events.presence(Change(kind=ChangeKind.SUSPECT, instance=instance("ratings", 5))),
            "is suspect",
        ),
        (
            lambda events: events.presence(Change(kind=ChangeKind.GONE, instance=instance("ratings", 5))),
            "left: ratings",
        ),
    ],
)
def test_what_comes_often_takes_no_room_from_what_matters(what: Any, words: str) -> None:
    """After a flood of each of them a breaker, a fault, a frozen or lost instance is told still."""
    lines: list[str] = []
    events = Events(Teller(lines.append))
    floods(events)
    what(events)
    assert words in lines[-1]


def test_each_topic_is_bounded_and_what_was_left_out_counted() -> None:
    """It says so where it stops, and at the end how many there were; kinds that applications made up share one room."""
    lines: list[str] = []
    teller = Teller(lines.append)
    events = Events(teller)
    floods(events)
    for number in range(MAX_TOLD):
        events.told(told(f"own{number}.kind"))
    assert len(lines) == 4 * (MAX_TOLD + 1)
    assert any(
        line.endswith("further events of the kind 'page' are not listed, but counted") for line in lines
    )
    teller.close()
    assert lines[-4:] == [
        "not listed: 200 further events of the kind 'page'",
        "not listed: 200 further events of the kind 'log'",
        "not listed: 200 further events of the kind 'policy'",
        "not listed: 300 further events",
    ]

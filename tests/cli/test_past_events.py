"""`events`: by kind and from an instant on, and what the audit tells of those who have gone."""

from __future__ import annotations

from typing import Any

import pytest

from nats_mesh.audit.reading import Entry
from nats_mesh.audit.records import (
    ChangeRecord,
    DocumentChange,
    PresenceRecord,
    Record,
    RolloutRecord,
    Stood,
)
from nats_mesh.core.presence import State
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh_cli.past_events import KINDS, event_of, merged
from tests.cli.conftest import Shop

AT = "2026-01-01T12:00:00.000000Z"
POLICY = """apiVersion: mesh/v1
kind: Destination
metadata: {name: orders}
spec: {target: {service: orders}, timeout: 2s}
"""


def entry(record: Record | None, kind: str, writer: str = "orders") -> Entry:
    """A message of the stream."""
    return Entry(sequence=7, time=AT, kind=kind, writer=writer, instance="i1", record=record)


def sign(event: Any) -> PresenceRecord:
    """An instance says so."""
    return PresenceRecord(
        namespace="default", at=AT, event=event, service="orders", instance="i1", name="host-1", version="1.2.0",
        started=AT, within_s=60.0, state=State.READY,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("event", "kind"), [("join", "instance.joined"), ("leave", "instance.gone"), ("sign", ""), ("change", "")]
)
def test_who_came_and_went(event: str, kind: str) -> None:
    """As an observer that was there would have seen it; a sign of life is no event."""
    found = event_of(entry(sign(event), "presence"))
    assert [(each["kind"], each["service"], each["instance"], each["at"]) for each in found] == (
        [(kind, "orders", "i1", AT)] if kind else []
    )


def test_what_was_changed_and_by_whom() -> None:
    """Each document of a change; by the operator's own words."""
    record = ChangeRecord(
        namespace="default", at=AT, who="ann", why="ticket 7",
        documents=(DocumentChange(key="Route.orders", after=Stood(revision=4, text="x")),),
    )  # fmt: skip
    (found,) = event_of(entry(record, "policy", "nats-mesh"))
    assert (found["kind"], found["service"], found["target"]) == (
        "policy.changed",
        "nats-mesh",
        "Route/orders",
    )
    assert found["detail"] == "created by ann: ticket 7"
    (found,) = event_of(entry(record, "config", "nats-mesh"))
    assert (found["kind"], found["target"]) == ("config.changed", "Route")


def rollout() -> RolloutRecord:
    """A step of a rollout."""
    return RolloutRecord(
        namespace="default", at=AT, kind="rollout.step", runner="nats-mesh", instance="i1", service="orders",
        detail="to 5%",
    )  # fmt: skip


def test_a_rollout_outlives_who_carried_it_out() -> None:
    """What its runner told of stands here, too; once, where the runner remembers it still."""
    past = event_of(entry(rollout(), "rollout", "nats-mesh"))
    assert [(each["kind"], each["target"], each["detail"]) for each in past] == [
        ("rollout.step", "orders", "to 5%")
    ]
    remembered = [{**past[0], "at": "2026-01-01T12:00:01.5Z", "seq": 3}]
    assert merged(remembered, past) == remembered
    later = [{**past[0], "at": "2026-01-01T12:00:09Z", "seq": 3}]
    assert [each["seq"] for each in merged(later, past)] == [None, 3]


def test_what_is_not_believed_tells_nothing() -> None:
    """Nor a kind that nobody knows here."""
    assert event_of(entry(None, "presence")) == []
    assert set(KINDS) <= set(EventKind)


def test_events_of_before_and_by_kind(place: Shop) -> None:
    """Of an instance that is no more the audit tells; without one that is said, where somebody asks for the past."""
    done = place("events", "--since", "-1h", "--timeout", "300ms")
    assert (done.code, done.out) == (0, "")
    assert "is not known: there is no audit stream" in done.err
    path = place.folder / "policy.yaml"
    path.write_text(POLICY, encoding="utf-8")
    assert place("policy", "apply", "-f", str(path), "-m", "ticket 7").code == 0
    with place.background("run", "shopapp:orders") as running:
        running.wait_for("orders 1.2.0 is ready")
        assert running.interrupt() == 0
    every, members, none, typo = place.many(
        ["events", "--since", "-1h", "-o", "json", "--timeout", "300ms"],
        ["events", "orders", "--since", "-1h", "--kind", "instance", "-o", "json", "--timeout", "300ms"],
        ["events", "--since", "-1ms", "-o", "json", "--timeout", "300ms"],
        ["events", "--kind", "instnce", "-o", "json", "--timeout", "300ms"],
    )
    assert [each["kind"] for each in every.json] == ["policy.changed", "instance.joined", "instance.gone"]
    assert every.json[0]["detail"].endswith("ticket 7")
    assert [each["kind"] for each in members.json] == ["instance.joined", "instance.gone"]
    assert members.json[1]["detail"].endswith("version 1.2.0: it left")
    assert (none.code, none.json) == (0, [])
    assert (typo.code, typo.json) == (0, [])
    assert "the mesh itself tells of no 'instnce'; did you mean 'instance'?" in typo.err

"""Who hangs, in a view: a row of its own, whatever presence says."""

from __future__ import annotations

import msgspec

from nats_mesh.telemetry.snapshots import NOTHING, Member, Service, Snapshot
from nats_mesh_cli.event_records import not_heard
from nats_mesh_cli.silent import Silent, Unheard
from nats_mesh_cli.silent_view import silent_now, with_silent
from nats_mesh_cli.trouble import member_level


def member(instance: str, state: str = "ready", service: str = "stock", kind: str = "instance") -> Member:
    """Somebody whom a view shows."""
    return Member(service=service, id=instance, name=f"host-{instance}", kind=kind, state=state, red=NOTHING)


def shown(*members: Member) -> Snapshot:
    """A view of them, all of one service."""
    states = [each.state for each in members]
    service = Service(
        name="stock", instances=len(members), ready=states.count("ready"), suspect=states.count("suspect"),
        red=NOTHING,
    )  # fmt: skip
    return Snapshot(red=NOTHING, members=members, services=(service,) if members else ())


def test_who_is_heard_is_not_silent() -> None:
    """What was found a while ago gives way to what is heard now; of a service, where anybody of it is."""
    view = shown(member("A"), member("B", "suspect"))
    found = [
        Silent("stock", "A"),
        Silent("stock", "B"),
        Silent("stock", "C"),
        Silent("stock"),
        Silent("legacy"),
    ]
    assert silent_now(view, found) == (found[1], found[2], found[4])
    assert silent_now(shown(member("B", "suspect")), [Silent("stock")]) == (Silent("stock"),)


def test_who_hangs_has_a_row_and_counts() -> None:
    """Its member says `silent` in place of `suspect`; where presence knows of it no more there is one again, and its
    service counts it. Of a service of which nobody is known there is one."""
    view = shown(member("A"), member("B", "suspect"))
    told = with_silent(view, [Silent("stock", "B"), Silent("stock", "C", "host-C", 60.0), Silent("legacy")])
    assert [(each.service, each.id, each.state) for each in told.members] == [
        ("stock", "A", "ready"), ("stock", "B", "silent"), ("stock", "C", "silent"),
    ]  # fmt: skip
    assert (told.members[2].name, told.members[2].heard_s) == ("host-C", 60.0)
    assert [member_level(each) for each in told.members] == ["", "bad", "bad"]
    legacy, stock = told.services
    assert (legacy.name, legacy.instances, legacy.ready, legacy.suspect) == ("legacy", 1, 0, 1)
    assert (stock.instances, stock.ready, stock.suspect) == (3, 1, 2)
    assert with_silent(view, []) is view
    every = shown(member("B", "suspect"))
    assert with_silent(every, [Silent("stock")]).services == every.services


def test_when_it_was_heard_last_is_an_event() -> None:
    """Of instances, as far as their peers say; who hangs is suspect, who has ended is gone."""
    found = Unheard(
        [Silent("stock", "A", "host-A", 10.0), Silent("stock", "B", "host-B"), Silent("stock")],
        [Silent("orders", "C", "host-C", 70.5)],
    )
    told = not_heard(found, 1_000_000.0, "default")
    assert [(each["at"], each["kind"], each["service"], each["instance"]) for each in told] == [
        ("1970-01-12T13:46:30.000000Z", "instance.suspect", "stock", "A"),
        ("1970-01-12T13:45:29.500000Z", "instance.gone", "orders", "C"),
    ]
    assert told[0]["detail"] == "host-A: connected, and not heard since: it hangs, or was stopped"
    assert msgspec.json.decode(msgspec.json.encode(told)) == told

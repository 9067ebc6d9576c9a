"""What `top` makes of what it is told and what it asks: membership as events, policies and calls as lines."""

from __future__ import annotations

import msgspec
import pytest

from nats_mesh.core.envelope import RecordedCall
from nats_mesh.policy.bus.revisions import Revision
from nats_mesh_cli.options import Format
from nats_mesh_cli.top.asking import call_line, policy_lines
from nats_mesh_cli.top.comings import MAX_EVENTS, Comings
from nats_mesh_cli.top.following import followers
from nats_mesh_cli.top.model import Data
from nats_mesh_cli.top.once import document, report
from nats_mesh_cli.top.picture import draw
from tests.cli.top_data import DATA, EMPTY, MESH

AT = "2026-01-01T12:00:00.000000Z"
#: The same instant in seconds.
AT_S = 1_767_268_800.0
MEMBERS = MESH.members


def told(comings: Comings) -> list[tuple[str, str]]:
    """The events so far, as kind and instance."""
    return [(event.kind, event.instance) for event in comings.events]


def test_whoever_is_there_at_first_has_not_come() -> None:
    """Nor those that are found out while everybody is being asked."""
    comings = Comings("default")
    comings.take(MEMBERS[:2], AT_S, sure=False)
    comings.take(MEMBERS[:4], AT_S, sure=False)
    comings.take(MEMBERS[:4], AT_S)
    assert told(comings) == []


def test_who_comes_goes_and_falls_silent_is_an_event() -> None:
    """Each once; other states are told by the instances themselves."""
    comings = Comings("default")
    comings.take(MEMBERS[:2], AT_S)
    comings.take(MEMBERS[:3], AT_S)
    silent = msgspec.structs.replace(MEMBERS[0], state="suspect")
    comings.take([silent, *MEMBERS[1:3]], AT_S)
    comings.take(MEMBERS[:3], AT_S)
    comings.take(MEMBERS[1:3], AT_S)
    comings.take([MEMBERS[1], msgspec.structs.replace(MEMBERS[2], state="draining")], AT_S)
    assert told(comings) == [
        ("instance.joined", MEMBERS[2].id),
        ("instance.suspect", MEMBERS[0].id),
        ("instance.alive", MEMBERS[0].id),
        ("instance.gone", MEMBERS[0].id),
    ]


def test_who_was_there_has_come_when_it_says() -> None:
    """At the first look that is sure: in the order of their starts, before whatever comes; no audit is asked."""
    comings = Comings("default")
    late, early = (
        msgspec.structs.replace(each, started=f"2026-01-01T1{n}:00:00Z")
        for n, each in ((2, MEMBERS[0]), (1, MEMBERS[1]))
    )
    comings.take([late], AT_S, sure=False)
    comings.take([late, early, MEMBERS[2]], AT_S)
    comings.take([late, early, MEMBERS[2]], AT_S)
    assert told(comings) == [("instance.joined", early.id), ("instance.joined", late.id)]
    assert [event.at for event in comings.events] == ["2026-01-01T11:00:00Z", "2026-01-01T12:00:00Z"]


def test_comings_are_bounded() -> None:
    """However often somebody comes and goes."""
    comings = Comings("default")
    for _ in range(MAX_EVENTS):
        comings.take(MEMBERS[:1], AT_S)
        comings.take((), AT_S)
    assert len(comings.events) == MAX_EVENTS


def test_who_is_back_is_told_after_it_was_gone() -> None:
    """When it started is before it went, so that its newest event would say that it is gone; and that it is, says when
    it was heard last."""
    comings = Comings("default")
    member = msgspec.structs.replace(MEMBERS[0], started="2026-01-01T11:00:00Z", heard_s=1.0)
    comings.take([member], AT_S)
    comings.take([msgspec.structs.replace(member, state="suspect", heard_s=11.0)], AT_S + 10)
    comings.take((), AT_S + 20)
    comings.take([member], AT_S + 50)
    suspect, gone, back = comings.events[-3:]
    assert suspect.detail == "host-4101, version 1.4.0, it has fallen silent, last heard at 11:59:59 UTC"
    assert (gone.kind, gone.detail) == (
        "instance.gone",
        "host-4101, version 1.4.0, last heard at 11:59:59 UTC",
    )
    assert (back.kind, back.at[:19]) == ("instance.alive", "2026-01-01T12:00:50")
    assert back.detail == "host-4101, version 1.4.0, is back: it was not heard for 51s"
    comings.take((), AT_S + 60)
    comings.take([member], AT_S + 61)
    assert comings.events[-1].kind == "instance.alive"


def test_who_starts_takes_no_room_from_who_died() -> None:
    """A fleet that is started anew, again and again, leaves what happened to others."""
    comings = Comings("default")
    comings.take(MEMBERS[:1], AT_S)
    comings.take((), AT_S + 1)
    for number in range(3 * MAX_EVENTS):
        comings.take([msgspec.structs.replace(MEMBERS[1], id=f"N{at}") for at in range(number)], AT_S + 2)
    assert ("instance.gone", MEMBERS[0].id) in told(comings)
    assert len(comings.events) <= 2 * MAX_EVENTS


def test_instances_that_are_made_up_hide_nothing_of_those_of_others() -> None:
    """A service whose instances come and go all the time has half of the places at most where others have some."""
    comings, member = Comings("default"), MEMBERS[0]
    others = next(each for each in MEMBERS if each.service != member.service and each.kind == "instance")
    comings.take([member, others], AT_S)
    comings.take([others], AT_S + 1)
    for number in range(MAX_EVENTS):
        comings.take([others, msgspec.structs.replace(others, id=f"N{number}")], AT_S + 2)
        comings.take([others], AT_S + 3)
    assert ("instance.gone", member.id) in told(comings)


def test_how_far_each_follows() -> None:
    """The worst first, with the reason; whoever follows files or nothing is told apart."""
    files = msgspec.structs.replace(MEMBERS[1], id="F", policy_source="files", revision=(0, 0))
    cached = msgspec.structs.replace(MEMBERS[1], id="C", policy_source="cache")
    data = Data(mesh=msgspec.structs.replace(MESH, members=(files, *MEMBERS[:3], cached)), head=(1, 42))
    found = followers(data)
    assert [each.state for each in found] == ["REJECTED", "STALE", "STALE", "SYNCED", "ELSEWHERE"]
    assert found[0].reason == "Route/cart: subset 'v3' is not defined"
    assert {each.reason for each in found[1:3]} == {
        "it is at 41, the policies are at 42",
        "it reads from its cache: the store has not answered it",
    }
    assert found[4].revision is None


@pytest.mark.parametrize(
    "value", [b"{", b"\xff\xfe", b'["\xff"]', b'{"spec": ' + b"[" * 2000, b"x" * 100_000, b"null", None]
)
def test_any_policy_is_a_line(value: bytes | None) -> None:
    """What anybody with the right to may have written there is shown as far as it can be, and breaks nothing."""
    (line,) = policy_lines([Revision(key="Route.r", sequence=7, value=value or b"", time=AT)])
    assert (line.name, line.revision) == ("Route/r", 7)
    assert len(line.document) < 70_000


def test_a_call_is_a_line_with_its_facts() -> None:
    """What says nothing is left out."""
    call = RecordedCall(
        service="orders", instance="A1", version="1.0.0", at=AT, endpoint="place", caller="web", route="v2",
        status="UNAVAILABLE", duration_s=0.25, queue_s=0.01, attempt=2, refused="concurrency", bytes_in=10,
    )  # fmt: skip
    line = call_line(call, 5)
    assert (line.key, line.target, line.status) == ("5", "orders.place", "UNAVAILABLE")
    facts = dict(line.facts)
    assert facts["attempt"] == "2"
    assert facts["queued"] == "10.0ms"
    assert "mirror" not in facts
    assert "trace" not in facts


def test_once_holds_everything_in_every_form() -> None:
    """One object for programs; tables with the worst first for people; names for shells."""
    found = document(DATA)
    assert [each["service"] for each in found["services"]] == ["cart", "details", "ghost", "reviews"]
    assert found["policies"]["revision"] == 42
    assert [each["sync"] for each in found["policies"]["members"]][:2] == ["REJECTED", "STALE"]
    assert msgspec.json.decode(report(DATA, Format.JSON))["policies"] == found["policies"]
    assert msgspec.json.decode(report(EMPTY, Format.JSONL))["services"] == []
    assert "services:" in report(DATA, Format.YAML)
    table = report(DATA, Format.TABLE)
    assert table.index("cart") < table.index("reviews") < table.index("details")
    assert "users → cart" in table
    assert "TRIES/S" not in table
    assert "TRIES/S" in report(DATA, Format.WIDE)
    assert report(DATA, Format.NAME).split() == ["cart", "details", "ghost", "reviews"]
    assert report(EMPTY, Format.TABLE) == ""


def test_the_picture_is_what_the_view_shows_and_loads_nothing() -> None:
    """The SVG holds the view's texts and refers to no other address."""
    svg = draw(DATA)
    assert "reviews" in svg
    assert svg.count("://") == svg.count("http://www.w3.org/2000/svg") + svg.count("nats://127.0.0.1")

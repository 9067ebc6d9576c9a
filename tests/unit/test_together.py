"""What several members tell alike, or one again and again, is one row for people."""

from __future__ import annotations

from typing import Any

import msgspec

from nats_mesh.telemetry.events import Event
from nats_mesh_cli.event_records import record_of
from nats_mesh_cli.together import STORM_S, Alike, Repeated, events_together, records_together
from nats_mesh_cli.top.pages import event_page
from nats_mesh_cli.top.present import EVENTS


def applied(instance: str, second: int, **changes: Any) -> Event:
    """A member of `shop` has applied a revision, in this second."""
    said = {
        "kind": "policy.applied",
        "at": f"2026-01-01T00:00:{second:02}.000000Z",
        "service": "shop",
        "instance": instance,
        "namespace": "default",
        "seq": 1,
        "target": "revision 4",
        "detail": "new Route/a",
    }
    return Event(**{**said, **changes})


OPENED = {"kind": "breaker.open", "target": "ratings.get", "detail": "9 of 12 calls failed"}
TOLD = (
    applied("a", 1),
    applied("x", 1, **OPENED),
    applied("b", 2, service="cart"),
    applied("y", 2, **OPENED),
    applied("a", 3, target="revision 5"),
    applied("c", 6),
    applied("d", 7),
    applied("e", 8, at="2026-13-41T00:00:08Z"),
)


def test_a_revision_that_several_apply_is_one_event() -> None:
    """In the place of the first, for some seconds. Another revision, whoever comes later, a time that there is not, and
    whatever is no policy have rows of their own."""
    found = events_together(TOLD)
    first = found[0]
    assert isinstance(first, Alike)
    assert first.members == (("shop", "a"), ("cart", "b"), ("shop", "c"))
    assert found[1:] == [TOLD[1], TOLD[3], TOLD[4], TOLD[6], TOLD[7]]
    assert events_together([TOLD[0], TOLD[0]]) == [TOLD[0]]


def test_as_records_the_same() -> None:
    """The table has how many members there were in the place of a service."""
    found = records_together([record_of(each) for each in TOLD])
    assert [(each["service"], each["instance"]) for each in found] == [
        ("3 members", ""), ("shop", "x"), ("shop", "y"), ("shop", "a"), ("shop", "d"), ("shop", "e"),
    ]  # fmt: skip
    assert found[0]["detail"] == "new Route/a"


def test_the_row_of_several_is_found_by_each_of_them() -> None:
    """It shows how many there are; a filter for any of their services finds it; its page says that there are more, and
    asks for no description of a revision."""
    event = events_together(TOLD)[0]
    cells = EVENTS.cells(event, None)  # type: ignore[arg-type]  # events need no facts
    assert (cells["service"].text, cells["instance"].text) == ("3 members", "")
    assert {"cart", "shop"} <= set(EVENTS.text(event).split())
    page = event_page(event)
    assert page.about == ("shop", "")
    assert any("3 members, this one first" in line for line in page.lines)


def denied(count: int, second: int, **changes: Any) -> Event:
    """A caller's budget for retries is empty, the ``count``-th time."""
    said = {
        "kind": "retry.denied",
        "target": "reviews.get",
        "detail": f"the retry budget is empty ({count} so far)",
        "seq": count,
    }
    return msgspec.structs.replace(applied("a", second, **said), **changes)


STORM = (
    denied(1, 1),
    applied("x", 1, **OPENED),
    denied(1, 2, instance="b"),
    denied(2, 2, missed=3),
    denied(4, 5),
    denied(1, 5, target="ratings.get"),
    denied(8, 9),
    applied("a", 10, kind="log.level", detail="debug"),
)


def test_what_one_member_tells_again_and_again_is_one_event() -> None:
    """In the place of the last, with how often and since when: what stands between, another member and another target
    have rows of their own, and nothing that was left out is forgotten."""
    found = events_together(STORM)
    assert [each.seq for each in found] == [1, 1, 1, 1, 1]
    assert [(each.kind, each.instance, each.target) for each in found] == [
        ("breaker.open", "x", "ratings.get"),
        ("retry.denied", "b", "reviews.get"),
        ("retry.denied", "a", "ratings.get"),
        ("retry.denied", "a", "reviews.get"),
        ("log.level", "a", "revision 4"),
    ]
    storm = found[3]
    assert isinstance(storm, Repeated)
    assert (storm.times, storm.since, storm.at, storm.missed) == (4, STORM[0].at, STORM[6].at, 3)
    assert storm.detail == "the retry budget is empty (8 so far); told 4 times since 00:00:01"
    assert EVENTS.key(storm) == EVENTS.key(events_together(STORM[:6])[-2]), "it is the same row as it grows"
    rows = records_together([record_of(each) for each in STORM])
    assert (rows[3]["at"], rows[3]["detail"], rows[3]["missed"]) == (STORM[6].at, storm.detail, 3)


def test_a_later_storm_is_another_one() -> None:
    """What is told after a long pause does not belong to what was before."""
    assert STORM_S == 60.0
    later = denied(2, 1, at="2026-01-01T00:01:02.000000Z")
    found = events_together([denied(1, 1), later])
    assert [type(each) for each in found] == [Event, Event]
    assert len(events_together([denied(1, 2), later])) == 1


def test_a_server_that_several_lose_is_one_event() -> None:
    """So is that it is back, though each was without it for another time; who loses it again has another row."""
    lost = {"kind": "bus.lost", "target": "nats://a:4222", "detail": "unexpected EOF"}
    back = {"kind": "bus.back", "target": "nats://a:4222"}
    told = [
        applied("a", 1, **lost),
        applied("b", 1, **lost, service="cart"),
        applied("a", 2, **back, detail="it was away for 1.0 s"),
        applied("b", 3, **back, detail="it was away for 2.1 s", service="cart"),
        applied("a", 4, **lost),
        applied("c", 4, **{**lost, "detail": "stale connection"}),
    ]
    found = events_together(told)
    assert found[2:] == told[4:]
    assert [each.members for each in found[:2] if isinstance(each, Alike)] == [
        (("shop", "a"), ("cart", "b")),
        (("shop", "a"), ("cart", "b")),
    ]
    assert [each["service"] for each in records_together([record_of(each) for each in told])] == [
        "2 members", "2 members", "shop", "shop",
    ]  # fmt: skip

"""Whose wishes an instance keeps: names share its places, whatever inboxes they make up."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh import Service
from nats_mesh.core.tap_filter import Filter
from nats_mesh.telemetry.tap_feed import TapFeed
from nats_mesh.telemetry.tap_messages import MAX_OBSERVER, MAX_PLACES, Wish
from nats_mesh.telemetry.tap_places import MAX_OF_A_NAME, Places
from nats_mesh.testing import MemoryMesh, run_virtual
from nats_mesh.wire.ids import new_id
from nats_mesh_cli.tap_text import crowded_text

RARE = Wish(only=Filter(failed=True), rate=7.0)


def names(places: Places) -> Counter[str]:
    """How many places each name has."""
    return Counter(held.name for held in places)


def flood(places: Places, name: str = "mallory", count: int = 1000) -> None:
    """An observer that makes up an inbox for each of its leases."""
    for n in range(count):
        places.put(f"{name}.c.{n:032x}", Wish(rate=2000.0), 5.0, 0.0)


def test_made_up_inboxes_take_no_more_places_than_a_name_has() -> None:
    """Whatever is beyond is put together in one wish of that name, and honest observers have places of their own."""
    places = Places()
    flood(places)
    assert names(places) == {"mallory": MAX_OF_A_NAME}
    places.put("ann.c.1", RARE, 5.0, 0.0)
    (ann,) = [held for held in places if held.name == "ann"]
    assert ann.wish == RARE
    assert places.crowded == {}


def test_a_full_table_makes_room_for_a_name_that_has_less() -> None:
    """The name that has the most gives up its latest ones, and all it asked for is still asked for, together."""
    places = Places()
    for name in ("a", "b", "c", "d"):
        flood(places, name, MAX_OF_A_NAME)
    assert len(places) == MAX_PLACES
    for n in range(MAX_OF_A_NAME):
        places.put(f"ann.c.{n}", RARE, 5.0, 0.0)
    held = names(places)
    assert sum(held.values()) == MAX_PLACES
    assert held["ann"] >= 6, "no name has two more than another that asks"
    assert max(held.values()) - held["ann"] <= 1
    assert places.crowded == {}
    first = {each.key for each in places if each.name == "a"}
    assert f"a.c.{0:032x}" in first, "who was there first stays"


def test_who_has_a_place_keeps_it() -> None:
    """A renewed lease changes nobody's place, also where its name has more than others."""
    places = Places()
    for n in range(MAX_OF_A_NAME):
        places.put(f"ann.c.{n}", RARE, 5.0, 0.0)
    flood(places)
    for n in range(MAX_OF_A_NAME):
        places.put(f"ann.c.{n}", RARE, 9.0, 1.0)
    places.forget(6.0)
    assert [(held.name, held.wish) for held in places] == [("ann", RARE)] * MAX_OF_A_NAME


def test_beyond_as_many_names_as_places_all_others_are_heard_together() -> None:
    """Who holds the places can be told; no bodies are shown to whom nobody can name."""
    places = Places()
    for n in range(MAX_PLACES):
        places.put(f"o{n}.c.1", Wish(body=100, why="x"), 5.0, 0.0)
    assert places.crowded == {}
    places.put("ann.c.1", Wish(body=100, why="ticket 7", rate=50.0), 5.0, 0.0)
    places.put("bob.c.1", RARE, 5.0, 0.0)
    assert places.crowded == {f"o{n}": 1 for n in range(MAX_PLACES)}
    (others,) = [held for held in places if not held.name]
    assert (others.wish.rate, others.wish.body, others.wish.only) == (50.0, 0, Filter())
    places.forget(5.0)
    assert len(places) == 0


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12), st.floats(0.0, 9.0)), max_size=300))
def test_whoever_asks_the_table_is_bounded_and_fair(asked: list[tuple[int, int, float]]) -> None:
    """And every name that asked is there, by itself or with all others."""
    places, now = Places(), 0.0
    for name, n, later in asked:
        now = max(now, later)
        places.forget(now)
        places.put(f"o{name}.c.{n}", Wish(), now + 5.0, now)
        held = names(places)
        assert sum(held.values()) - held[""] <= MAX_PLACES
        assert max(held.values()) <= MAX_OF_A_NAME
        assert held[f"o{name}"] or (held[""] and max(held.values()) == 1)
        assert bool(places.crowded) is bool(held[""])


def shop() -> Service:
    """Something to call."""
    service = Service("shop", version="1.0.0")

    @service.endpoint()
    async def buy() -> str:
        return "tea"

    return service


def test_one_client_with_many_inboxes_shuts_out_nobody() -> None:
    """A flood of leases over one connection, and an observer that comes after it: it has its own wish and rate."""

    async def main() -> None:
        async with MemoryMesh(shop()) as mesh, mesh.client("mallory") as mallory, mesh.client("ann") as ann:
            (instance,) = mesh.instances
            client = mallory.client
            want = client.subjects.want("tap", "shop", "mallory")
            for n in range(200):
                client.transport.publish(want, b'{"rate":2000}', f"_INBOX.mallory.{new_id()}.{n:032x}.0")
            await client.transport.fence()
            async with TapFeed(ann, rate_per_s=50.0) as feed:
                await asyncio.sleep(0.1)
                taps = instance._parts.taps
                assert taps is not None
                assert [held.wish.rate for held in taps._wishes if held.name == "ann"] == [50.0]
                await mesh.call("shop.buy")
                await asyncio.sleep(0.5)
                assert len(feed.taken()) == 1
                assert feed.crowded is None

    run_virtual(main)


def test_who_has_no_place_is_told_who_has_them(caplog: pytest.LogCaptureFixture) -> None:
    """In what the instance tells, and once in its log, with names of whatever form on one line."""

    async def main() -> None:
        async with MemoryMesh(shop()) as mesh:
            client, (instance,) = mesh.mesh.client, mesh.instances
            for n in range(MAX_PLACES):
                name = f"o{n}" if n else "x" * 200
                client.transport.publish(
                    client.subjects.want("tap", "shop", name), b"", f"_INBOX.{name}.c.{n:032x}.0"
                )
            await client.transport.fence()
            async with mesh.client("ann") as ann, TapFeed(ann) as feed:
                await asyncio.sleep(0.1)
                await mesh.call("shop.buy")
                await asyncio.sleep(0.5)
                assert len(feed.taken()) == 1
                assert feed.crowded is not None
                where, who = feed.crowded
                assert where == f"shop/{instance.id}"
                assert (len(who), set(who.values())) == (MAX_PLACES, {1})
                assert max(map(len, who)) == MAX_OBSERVER
                assert "o1 1" in crowded_text(feed.crowded)

    with caplog.at_level(logging.WARNING, "nats_mesh.instance"):
        run_virtual(main)
    (said,) = [record.getMessage() for record in caplog.records if "told apart" in record.getMessage()]
    assert "o5 1" in said

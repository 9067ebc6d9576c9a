"""Who makes up names, instances or events takes what observers see of others away from nobody."""

from __future__ import annotations

from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.folding import Fold
from nats_mesh.telemetry.series import OTHER
from tests.unit.test_folding import Clock, Teller, instance


def event(service: str, seq: int, at: str) -> Event:
    """Something that happened to a member of a service."""
    return Event(kind="breaker.open", at=at, service=service, instance="i1", namespace="default", seq=seq)


def told(fold: Fold, service: str) -> int:
    """How many members of a service are shown."""
    return sum(known == service for known, _ in fold.members)


def test_instances_that_are_made_up_take_places_of_their_own_service_alone() -> None:
    """A service with all places gives one back for each member of another one, as long as it has more than that."""
    clock, fold = Clock(), Fold(max_members=8)
    for number in range(20):
        fold.apply(Teller(clock, "made-up", f"m{number}").word(), clock.now)
    assert told(fold, "made-up") == 8, "while nobody else is there"
    for number in range(6):
        clock.now += 1.0
        orders = Teller(clock, "orders", f"o{number}")
        orders.answer("web", 5)
        fold.apply(orders.word(), clock.now)
        fold.apply(Teller(clock, "made-up", f"n{number}").word(), clock.now)
    assert (told(fold, "orders"), told(fold, "made-up")) == (4, 4)
    assert fold.apply(instance("stock", "s1"), clock.now), "whoever presence tells of has a place, too"
    assert (told(fold, "orders") + told(fold, "made-up"), told(fold, "stock")) == (7, 1)
    (row,) = [each for each in fold.snapshot(clock.now).services if each.name == "orders"]
    assert row.served.total.requests == 20


def test_who_gave_its_place_back_comes_back_where_there_is_room() -> None:
    """It takes no other's meanwhile, and what it has counted is counted once."""
    clock, fold = Clock(), Fold(max_members=3)
    several = [Teller(clock, "orders", f"o{number}") for number in range(3)]
    for teller in several:
        teller.answer("web", 5)
        fold.apply(teller.word(), clock.now)
    fold.apply(Teller(clock, "stock", "s1").word(), clock.now)
    assert ("orders", "o2") not in fold.members
    assert not fold.apply(several[2].word(), clock.now)
    for _ in range(25):
        clock.now += 1.0
        for teller in several[1:]:
            fold.apply(teller.word(), clock.now)
    assert ("orders", "o2") in fold.members
    (row,) = [each for each in fold.snapshot(clock.now).services if each.name == "orders"]
    assert row.served.total.requests == 15


def test_many_events_of_one_service_hide_none_of_others() -> None:
    """Whoever tells a thousand of them, of days to come, has half of the places; all, where nobody else tells."""
    fold = Fold()
    fold.apply(event("orders", 1, "2026-01-01T00:00:00Z"), 0.0)
    for number in range(1000):
        fold.apply(event("made-up", number + 1, "9999-01-01T00:00:00Z"), 0.0)
    assert [each.service for each in fold.events].count("orders") == 1
    assert len(fold.events) == 500
    for number in range(300):
        at = f"2026-01-02T00:{number // 60:02}:{number % 60:02}Z"
        assert fold.apply(event("orders", number + 2, at), 0.0)
    kept = [each.seq for each in fold.events if each.service == "orders"]
    assert (len(fold.events), kept[-1]) == (500, 301)
    assert kept == list(range(52, 302)), "of its own the oldest made room"
    assert [each.at for each in fold.events] == sorted(each.at for each in fold.events)


def test_services_that_are_made_up_take_no_rows_from_those_that_are_there() -> None:
    """Who calls what is not there names half of all rows at most; what is beyond is put together."""
    clock, fold = Clock(), Fold(max_services=8)
    made_up = Teller(clock, "made-up", "m1")
    for number in range(20):
        made_up.call(f"nowhere-{number}", 1)
    for word in made_up.words():
        fold.apply(word, clock.now)
    for service in ("orders", "stock", "nowhere-0"):
        teller = Teller(clock, service, "i1")
        teller.answer("made-up", 5)
        fold.apply(teller.word(), clock.now)
    shown = {each.name: each.served.total.requests for each in fold.snapshot(clock.now).services}
    assert (shown["orders"], shown["stock"], shown["nowhere-0"], shown[OTHER]) == (5, 5, 5, 0)
    assert sum(name.startswith("nowhere") for name in shown) == 4
    made_up.call("one-more", 1)
    for word in made_up.words():
        fold.apply(word, clock.now)
    names = {each.name for each in fold.snapshot(clock.now).services}
    assert "one-more" in names, "what is there itself is no longer one of those that somebody named"


def test_what_instances_tell_of_a_caller_counts_again_once_its_own_word_is_forgotten() -> None:
    """No edge stands at nothing while its calls are answered, and none has a rate below zero when nobody tells."""
    clock, fold = Clock(), Fold(max_members=2, max_services=4)
    orders, web = Teller(clock, "orders", "o1"), Teller(clock, "web", "w1")

    def edge() -> tuple[str, int, int, int]:
        """Who tells of the calls of web to orders: how many there were, how many a second, how many run."""
        (found,) = [
            each
            for each in fold.snapshot(clock.now).edges
            if (each.source, each.service) == ("web", "orders")
        ]
        red = found.red
        return found.reporter, red.total.requests, round(red.rate_per_s), red.in_flight

    orders.stats.series("in", "orders", "place", "web").in_flight = 3
    for _ in range(3):
        orders.answer("web", 5)
        web.call("orders", 5)
        fold.apply(orders.word(), clock.now)
        fold.apply(web.word(), clock.now)
        clock.now += 1.0
    assert edge()[0] == "out"
    for number in range(3):  # others come and go; of web nothing is known any more
        for _ in range(25):
            clock.now += 1.0
            orders.answer("web", 5)
            fold.apply(orders.word(), clock.now)
            fold.snapshot(clock.now)
        gone = Teller(clock, f"gone-{number}", "g1")
        gone.answer("web", 1)
        fold.apply(gone.word(), clock.now)
        fold.snapshot(clock.now)
    assert edge() == ("in", 0, 5, 3), "from when it is forgotten"
    clock.now += 1.0
    orders.stats.series("in", "orders", "other", "web").record(0.01, "OK")
    orders.answer("web", 5)
    fold.apply(orders.word(), clock.now)
    assert edge()[1:] == (6, 6, 3)
    clock.now += 8.0
    assert edge() == ("in", 6, 0, 0), "who is silent has nothing under way"

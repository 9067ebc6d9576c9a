"""What a view knows: words of members in, snapshots out, by a clock that the test holds."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from nats_mesh.core.breaker import BreakerState
from nats_mesh.core.histogram import Histogram, quantile_of
from nats_mesh.core.members import Health, Instance
from nats_mesh.core.presence import Load, State
from nats_mesh.errors import ConfigError
from nats_mesh.telemetry import folding
from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.folding import SILENT_S, Bus, Fold, Gone, Word, replay
from nats_mesh.telemetry.series import OTHER
from nats_mesh.telemetry.snapshots import NOTHING, Member, Service, Snapshot
from nats_mesh.telemetry.stats import Stats
from nats_mesh.telemetry.stats_messages import (
    Condition,
    Ejected,
    EndpointLoad,
    OpenBreaker,
    StatsMessage,
    decode_stats,
    encode_stats,
)
from tests.snapshots import snapshot as made_up


class Clock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class Teller:
    """A member that counts and tells."""

    def __init__(self, clock: Clock, service: str, instance: str, version: str = "1.0.0") -> None:
        self.stats = Stats(clock=clock)
        self.service, self.instance, self.version = service, instance, version

    def word(self, condition: Condition | None = None, *, whole: bool = True) -> StatsMessage:
        (message,) = self.words(condition, whole=whole)
        return message

    def words(self, condition: Condition | None = None, *, whole: bool = True) -> list[StatsMessage]:
        """Of how many parts one is."""
        message = self.stats.snapshot(
            instance=self.instance,
            service=self.service,
            version=self.version,
            namespace="default",
            condition=msgspec.UNSET if condition is None else condition,
            whole=whole,
        )
        return [
            decode_stats(body, service=self.service, instance=self.instance, namespace="default")
            for body in encode_stats(message)
        ]

    def answer(self, caller: str, count: int, took_s: float = 0.01, status: str = "OK") -> None:
        series = self.stats.series("in", self.service, "place", caller)
        for _ in range(count):
            series.record(took_s, status)

    def call(self, service: str, count: int, status: str = "OK", *, extra: int = 0, flags: str = "") -> None:
        series = self.stats.series("out", service, "place", self.service)
        series.extra += extra
        for _ in range(count):
            series.end(0.02, status, flags)


def instance(service: str = "orders", id: str = "i1", **changes: Any) -> Instance:
    """An instance as presence knows it."""
    made = Instance(
        service=service, id=id, name="host-1", version="1.0.0", namespace="default", labels={}, state=State.READY,
        health=Health.ALIVE, started="2026-01-01T00:00:00Z", interval_s=5.0, endpoints=(), described=True,
        load=Load(), revision=(0, 0), rejections=(), seen=1000.0,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def service_of(snapshot: Snapshot, name: str = "orders") -> Service:
    """One of the services that are shown."""
    return next(each for each in snapshot.services if each.name == name)


def member_of(snapshot: Snapshot, id: str) -> Member:
    """One of the members that are shown."""
    return next(each for each in snapshot.members if each.id == id)


def test_rates_are_those_of_the_window_and_totals_of_all() -> None:
    """100 calls a second are 100/s, whatever was counted before the view was opened."""
    clock, fold = Clock(), Fold()
    orders = Teller(clock, "orders", "i1")
    orders.answer("web", 5000, 0.5)
    clock.now += 100
    for _ in range(8):
        fold.apply(orders.word(), clock.now)
        clock.now += 1
        orders.answer("web", 100)
    fold.apply(orders.word(), clock.now)
    row = service_of(fold.snapshot(clock.now)).red
    assert row.rate_per_s == pytest.approx(100)
    assert row.attempts_per_s == pytest.approx(100)
    assert (row.recent.requests, row.total.requests) == (800, 5800)
    assert row.p99_s is not None
    assert row.p99_s < 0.012, "what was slow was before the window"
    clock.now += 30
    fold.apply(orders.word(), clock.now)
    row = service_of(fold.snapshot(clock.now)).red
    assert (row.rate_per_s, row.recent.requests, row.total.requests) == (0, 0, 5800)


def test_calls_and_attempts_stand_side_by_side() -> None:
    """What callers made is the rate, what it took are the attempts; a caller that tells nothing counts as answered."""
    clock, fold = Clock(), Fold()
    orders, web = Teller(clock, "orders", "i1"), Teller(clock, "web", "c1")
    for teller in (orders, web):
        fold.apply(teller.word(), clock.now)
    clock.now += 1
    web.call("orders", 100, extra=20)
    orders.answer("web", 120)
    orders.answer("foreign", 30)
    for teller in (orders, web):
        fold.apply(teller.word(), clock.now)
    shown = fold.snapshot(clock.now)
    row = service_of(shown).red
    assert row.rate_per_s == pytest.approx(130)
    assert row.attempts_per_s == pytest.approx(150)
    assert row.retry_share == pytest.approx(20 / 150)
    told = {(each.source, each.reporter): each.red for each in shown.edges}
    assert told["web", "out"].total.requests == 100
    assert told["web", "out"].attempts == 120
    assert told["foreign", "in"].total.requests == 30
    assert shown.red.rate_per_s == pytest.approx(130)
    assert shown.red.total.requests == 130


def test_calls_that_reached_nobody_are_shown() -> None:
    """A service that only exists in what its callers tell has their figures, and why they failed."""
    clock, fold = Clock(), Fold()
    web = Teller(clock, "web", "c1")
    web.call("nobody", 5, "UNAVAILABLE", flags="UH")
    fold.apply(web.word(), clock.now)
    row = service_of(fold.snapshot(clock.now), "nobody")
    assert (row.instances, row.red.success, row.red.flags) == (0, 0.0, {"UH": 5})


def test_series_left_out_have_not_changed() -> None:
    """A message without a series says that nothing happened there: the rate falls, the totals stay."""
    clock, fold = Clock(), Fold(window_s=4.0)
    orders = Teller(clock, "orders", "i1")
    fold.apply(orders.word(), clock.now)
    clock.now += 1
    orders.answer("web", 40)
    fold.apply(orders.word(whole=False), clock.now)
    for _ in range(3):
        clock.now += 1
        word = orders.word(whole=False)
        assert word.series == ()
        fold.apply(word, clock.now)
    row = service_of(fold.snapshot(clock.now)).red
    assert row.rate_per_s == pytest.approx(10)
    assert row.total.requests == 40


def test_a_word_twice_or_out_of_order_changes_nothing() -> None:
    """Messages are cumulative: repeats add nothing, an overtaken one takes nothing away."""
    clock, fold = Clock(), Fold()
    orders = Teller(clock, "orders", "i1")
    orders.answer("web", 10)
    first = orders.word()
    clock.now += 1
    orders.answer("web", 10)
    second = orders.word()
    for word in (first, second, second, first):
        fold.apply(word, clock.now)
    assert service_of(fold.snapshot(clock.now)).red.total.requests == 20


def test_who_left_counts_on_in_the_totals() -> None:
    """An instance that is gone is no longer shown; what it counted is, also once it comes back."""
    clock, fold = Clock(), Fold()
    orders = Teller(clock, "orders", "i1")
    orders.answer("web", 10)
    fold.apply(instance(), clock.now)
    fold.apply(orders.word(), clock.now)
    fold.apply(Gone("orders", "i1"), clock.now)
    shown = fold.snapshot(clock.now)
    assert shown.members == ()
    assert service_of(shown).instances == 0
    assert service_of(shown).red.total.requests == 10
    orders.answer("web", 1)
    clock.now += 1
    fold.apply(orders.word(), clock.now)
    assert service_of(fold.snapshot(clock.now)).red.total.requests == 11


def test_a_silent_client_is_shown_no_longer() -> None:
    """Who has no presence is there as long as its statistics come, unless it is the bus that is away."""
    clock, fold = Clock(), Fold()
    fold.apply(Teller(clock, "web", "c1").word(Condition(kind="client", name="host-2")), clock.now)
    fold.apply(Bus(False), clock.now)
    assert len(fold.snapshot(clock.now + SILENT_S).members) == 1
    fold.apply(Bus(True, "nats://a:1", 0.001), clock.now + SILENT_S)
    assert len(fold.snapshot(clock.now + SILENT_S).members) == 1, "it may not be back yet"
    assert fold.snapshot(clock.now + 2 * SILENT_S).members == ()


def test_who_misses_telling_is_suspect_while_others_are_heard() -> None:
    """Three seconds after its last word, long before its beats say so; not where nobody else was heard, nor right after
    a time in which nobody was: then the observer was away. Its next word, or its next beat, ends it."""
    clock, fold = Clock(), Fold()
    tellers = [Teller(clock, "orders", each) for each in ("i1", "i2")]

    def tell(*which: Teller, seconds: int = 1) -> dict[str, str]:
        shown = Snapshot(red=NOTHING)
        for _ in range(seconds):
            clock.now += 1.0
            for each in which:
                fold.apply(each.word(), clock.now)
            shown = fold.snapshot(clock.now)
        return {each.id: each.state for each in shown.members}

    for each in tellers:
        fold.apply(instance(id=each.instance, seen=clock.now), clock.now)
    hung, well = tellers
    assert tell(hung, well, seconds=5) == {"i1": "ready", "i2": "ready"}
    assert tell(well, seconds=3) == {"i1": "ready", "i2": "ready"}
    assert tell(well) == {"i1": "suspect", "i2": "ready"}
    orders = service_of(fold.snapshot(clock.now))
    assert (orders.ready, orders.suspect, orders.instances) == (1, 1, 2)
    assert tell(well, seconds=30)["i1"] == "suspect"
    assert tell(hung, well)["i1"] == "ready"
    tell(well, seconds=4)
    fold.apply(instance(id="i1", seen=clock.now), clock.now)
    assert tell(well, seconds=20)["i1"] == "ready"  # it beats, and tells nothing: presence decides
    assert tell(hung, well)["i1"] == "ready"
    assert tell(seconds=10) == {"i1": "ready", "i2": "ready"}
    clock.now += 30.0
    assert tell(well, seconds=1)["i1"] == "ready"  # the first word after a stall of the observer
    assert tell(hung, well, seconds=2)["i1"] == "ready"
    fold.apply(Bus(False), clock.now)
    assert tell(seconds=4) == {"i1": "ready", "i2": "ready"}


def test_numbers_that_another_one_made_up_make_nobody_suspect() -> None:
    """Where the bus does not check who publishes, one message of a high number has all others refused for a while: who
    told it is not to be added up with who tells now, but both are somebody who tells."""
    clock, fold = Clock(), Fold()
    victim, other = Teller(clock, "orders", "i1"), Teller(clock, "orders", "i2")
    fold.apply(instance(seen=clock.now), clock.now)
    shown = set()
    for second in range(10):
        clock.now += 1.0
        for each in (victim, other):
            fold.apply(each.word(), clock.now)
        if second == 4:
            fold.apply(msgspec.structs.replace(victim.word(), seq=900), clock.now)
        shown.add(member_of(fold.snapshot(clock.now), "i1").state)
    assert shown == {"ready"}


def test_an_instance_that_drains_is_draining_and_then_gone() -> None:
    """It leaves presence first, and tells of its last calls as long as they run: presence says no second time that it
    is gone, and nobody is suspect who has left."""
    clock, fold = Clock(), Fold()
    orders, other = Teller(clock, "orders", "i1"), Teller(clock, "web", "w1")

    def after(seconds: int, *which: Teller, state: State) -> dict[str, str]:
        for _ in range(seconds):
            clock.now += 1.0
            for each in which:
                fold.apply(msgspec.structs.replace(each.word(), state=state), clock.now)
            fold.snapshot(clock.now)
        return {each.id: each.state for each in fold.snapshot(clock.now).members if each.service == "orders"}

    fold.apply(instance(seen=clock.now), clock.now)
    assert after(5, orders, other, state=State.READY) == {"i1": "ready"}
    fold.apply(Gone("orders", "i1"), clock.now)
    assert after(2, orders, other, state=State.DRAINING) == {"i1": "draining"}
    assert after(4, other, state=State.READY) == {"i1": "draining"}
    assert after(1, other, state=State.READY) == {}


def test_conditions_become_rows() -> None:
    """Limits and queues add up; open circuits, ejections and policies stand at whoever has them, and in sums."""
    clock, fold = Clock(), Fold()
    for number, revision in ((1, 42), (2, 41)):
        orders = Teller(clock, "orders", f"i{number}")
        loads = {"place": EndpointLoad(limit=64, in_flight=number, queue=1)}
        said = Condition(source="bus", revision=(1, revision), endpoints=loads, rejected=number - 1)
        fold.apply(instance(id=f"i{number}"), clock.now)
        fold.apply(orders.word(said), clock.now)
    web = Teller(clock, "web", "c1")
    said = Condition(
        kind="client",
        source="files",
        rtt_s=0.002,
        breakers=(
            OpenBreaker(service="orders", endpoint="place", state="OPEN", retry_after_s=3.0),
            OpenBreaker(service="orders", endpoint="place", subset="v2", state="HALF_OPEN"),
        ),
        ejected=(Ejected(service="orders", instance="i2"),),
    )
    fold.apply(web.word(said), clock.now)
    shown = fold.snapshot(clock.now)
    row = service_of(shown)
    assert (row.capacity.limit, row.capacity.in_flight, row.capacity.queue) == (128, 3, 2)
    assert (row.breakers, row.ejected, row.instances) == ({"OPEN": 1, "HALF_OPEN": 1}, 1, 2)
    assert shown.policies.head == (1, 42)
    assert (shown.policies.synced, shown.policies.stale) == (1, 0)
    assert (shown.policies.rejecting, shown.policies.others) == (1, 1)
    assert member_of(shown, "c1").rtt_s == 0.002
    states = [(each.state, each.retry_after_s) for each in member_of(shown, "c1").breakers]
    assert states == [(BreakerState.OPEN, 3.0), (BreakerState.HALF_OPEN, None)]
    assert member_of(shown, "c1").kind == "client"
    assert member_of(shown, "i1").kind == "instance"
    for later_s, left_s in ((2.0, 1.0), (2.0, 0.0)):
        clock.now += later_s
        assert fold.snapshot(clock.now).breakers[0].retry_after_s == left_s, "it was said a while ago"
    clock.now += 2
    assert fold.snapshot(clock.now).breakers == (), "what a silent member said of now is no longer so"


def test_headroom_by_littles_law() -> None:
    """50 calls a second of 20 ms each hold one slot of ten: 450 more a second fit."""
    clock, fold = Clock(), Fold()
    orders = Teller(clock, "orders", "i1")
    said = Condition(endpoints={"place": EndpointLoad(limit=10)})
    fold.apply(orders.word(said), clock.now)
    for _ in range(4):
        clock.now += 1
        orders.answer("web", 50, 0.02)
        fold.apply(orders.word(said), clock.now)
    capacity = service_of(fold.snapshot(clock.now)).capacity
    assert capacity.busy == pytest.approx(1.0)
    assert capacity.utilisation == pytest.approx(0.1)
    assert capacity.headroom_per_s == pytest.approx(450)


def test_a_trend_is_a_value_a_second() -> None:
    """Oldest first, up to the last second that is over, with the quiet ones in between."""
    clock, fold = Clock(), Fold()
    orders = Teller(clock, "orders", "i1")
    fold.apply(orders.word(), clock.now)
    for count in (5, 7, 0, 9):
        clock.now += 1
        orders.answer("web", count)
        fold.apply(orders.word(), clock.now)
    clock.now += 1
    trend = service_of(fold.snapshot(clock.now)).trend
    assert list(trend.rates) == [5, 7, 0, 9]
    assert list(trend.success) == [1.0, 1.0, None, 1.0]
    for _ in range(100):
        clock.now += 1
        orders.answer("web", 1)
        fold.apply(orders.word(), clock.now)
    assert len(service_of(fold.snapshot(clock.now)).trend.rates) <= 60


def test_events_come_once_and_in_order() -> None:
    """However often an event is told, and whenever it is heard."""
    fold = Fold()

    def event(seq: int, at: str, namespace: str = "default") -> Event:
        return Event(
            kind="breaker.open",
            at=at,
            service="web",
            instance="c1",
            namespace=namespace,
            seq=seq,
            target="orders",
        )

    late, early = event(2, "2026-01-01T00:00:02Z"), event(1, "2026-01-01T00:00:01Z")
    assert [fold.apply(each, 0.0) for each in (late, early, late, event(3, "2026-01-01T00:00:00Z", "other"))] == [
        True, True, False, False,
    ]  # fmt: skip
    assert [each.seq for each in fold.snapshot(0.0).events] == [1, 2]


def test_who_came_and_went_leaves_nothing_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members with endpoints, versions and callers of their own come and go; whoever is there is still counted."""
    monkeypatch.setattr(folding, "_MAX_LINES", 50)
    clock, fold = Clock(), Fold(max_members=3)
    stays = Teller(clock, "stays", "s1")
    for number in range(300):
        teller = Teller(clock, "orders", f"i{number}", version=f"1.0.{number}")
        for caller in (f"a{number % 7}", "b"):
            teller.stats.series("in", "orders", f"endpoint{number}", caller).record(0.01, "OK")
        stays.answer("web", 1)
        fold.apply(stays.word(), clock.now)
        fold.apply(teller.word(), clock.now)
        fold.apply(Gone("orders", teller.instance), clock.now)
        clock.now += 1
    assert len(fold.groups.all()) < 4 * 50
    found = fold.snapshot(clock.now)
    assert service_of(found, "stays").red.total.requests == 300
    assert service_of(found, "stays").red.rate_per_s == pytest.approx(1.0, rel=0.2)


def test_who_begins_anew_leaves_nothing_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that sink after a silence, said in one member's name again and again, each time with other calls."""
    monkeypatch.setattr(folding, "_MAX_LINES", 50)
    clock, fold = Clock(), Fold()
    for number in range(300):
        teller = Teller(clock, "orders", "i1")
        for endpoint in ("a", "b"):
            teller.stats.series("in", "orders", f"{endpoint}{number}", "web").record(0.01, "OK")
        assert fold.apply(msgspec.structs.replace(teller.word(), seq=1000 - number), clock.now)
        clock.now += 6
    assert len(fold.groups.all()) < 4 * 50
    assert service_of(fold.snapshot(clock.now - 6)).served.total.requests == 600
    assert service_of(fold.snapshot(clock.now - 6)).instances == 1


def test_words_that_are_made_up_are_not_remembered() -> None:
    """A status that is none counts as UNKNOWN, flags that are none as nothing, however many there are of them."""
    clock, fold = Clock(), Fold()
    hostile = Teller(clock, "orders", "i1")
    hostile.answer("web", 1)
    for number in range(40):
        statuses = {f"MADE_UP_{number}": 1, "OK": number + 1}
        (one,) = hostile.word().series
        series = msgspec.structs.replace(
            one, age_s=float(number), statuses=statuses, flags={f"Z{number}": 1, "UH,URX": 1}
        )
        message = msgspec.structs.replace(hostile.word(), series=(series,), seq=number + 1)
        fold.apply(message, clock.now)
        clock.now += 1
    red = service_of(fold.snapshot(clock.now)).red
    assert set(red.total.statuses) == {"OK", "UNKNOWN"}
    assert set(red.flags) <= {"UH,URX"}


def test_one_service_takes_not_all_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes up endpoints fills half of it; who comes after is shown all the same."""
    monkeypatch.setattr(folding, "_MAX_LINES", 50)
    clock, fold = Clock(), Fold()
    flood, orders = Teller(clock, "flood", "f1"), Teller(clock, "orders", "i1")
    for number in range(60):
        flood.stats.series("in", "flood", f"endpoint{number}", "x").record(0.01, "OK")
    orders.answer("web", 5)
    for word in (*flood.words(), orders.word()):
        fold.apply(word, clock.now)
    assert fold.overflowed == 35
    assert service_of(fold.snapshot(clock.now)).red.total.requests == 5


def test_many_series_travel_in_parts_and_count_once() -> None:
    """What a member tells in several messages of one number is what it would have told in one, in any window, and a
    part that comes twice adds nothing."""
    clock, parted, at_once = Clock(), Fold(), Fold()
    orders = Teller(clock, "orders", "i1")
    parts = 0
    for second in range(14):
        for number in range(50):
            if (number + second) % 3:
                orders.answer(f"c{number}", 1, 0.001 * (number + 1), "INTERNAL" if number == 7 else "OK")
        words = orders.words(whole=second % 4 == 0)
        for word in (*words, words[-1]):
            parted.apply(word, clock.now)
        parts = max(parts, len(words))
        at_once.apply(
            msgspec.structs.replace(
                words[0],
                series=tuple(each for word in words for each in word.series),
                rows=tuple(each for word in words for each in word.rows),
                part=msgspec.UNSET,
            ),
            clock.now,
        )
        if second % 5 == 0:
            parted.snapshot(clock.now)
        clock.now += 1.0
    assert parts == 13, "4 of 50 series in each"
    shown = parted.snapshot(clock.now)
    assert shown == at_once.snapshot(clock.now)
    assert service_of(shown).red.total.requests == sum(
        1 for second in range(14) for number in range(50) if (number + second) % 3
    )


@pytest.mark.parametrize("lost", [0, 1, 12])
def test_a_part_that_was_lost_is_known_of_until_everything_was_told(lost: int) -> None:
    """Whoever waits for what a member had counted is not told that it is there while a part of it is missing."""
    clock, fold = Clock(), Fold()
    orders = Teller(clock, "orders", "i1")
    for number in range(50):
        orders.answer(f"c{number}", 1)
    words = orders.words()
    known = None
    for at, word in enumerate(words):
        if at == lost:
            continue
        fold.apply(word, clock.now)
        known = fold.members["orders", "i1"]
        assert not known.has_told(1)
    assert known is not None
    for whole in (False, True):
        clock.now += 1.0
        orders.answer("c1", 1)
        said = orders.words(whole=whole)
        for at, word in enumerate(said, 1):
            fold.apply(word, clock.now)
            assert known.has_told(word.seq) == (whole and at == len(said))
    assert service_of(fold.snapshot(clock.now)).red.total.requests == 52


def test_who_begins_anew_in_the_middle_is_behind_until_it_has_told_everything() -> None:
    """Rows of somebody whose series nobody knows are nothing to have heard."""
    clock, fold = Clock(), Fold()
    orders = Teller(clock, "orders", "i1")
    orders.answer("web", 1)
    fold.apply(msgspec.structs.replace(orders.word(), seq=500), clock.now)
    clock.now += 10.0
    orders.answer("web", 1)
    for whole in (False, True):
        word = orders.word(whole=whole)
        assert fold.apply(word, clock.now)
        assert fold.members["orders", "i1"].has_told(word.seq) == whole
        clock.now += 1.0


def test_it_is_bounded() -> None:
    """More members than there is room for are left out and counted; services beyond the bound are one."""
    clock, fold = Clock(), Fold(max_members=3, max_services=2)
    for number in range(5):
        orders = Teller(clock, f"s{number}", f"i{number}")
        orders.answer(f"s{number}", 1)
        fold.apply(orders.word(), clock.now)
    shown = fold.snapshot(clock.now)
    assert len(shown.members) == 3
    assert {each.name for each in shown.services} <= {"s0", "s1", "s2", OTHER}
    assert OTHER in {each.name for each in shown.services}
    assert shown.overflowed > 0
    clock.now += SILENT_S
    assert fold.apply(Teller(clock, "s0", "i9").word(), clock.now), "who is silent makes room"
    with pytest.raises(ConfigError):
        Fold(window_s=1.0)


def test_members_of_before_are_understood() -> None:
    """A word without attempts, flags and condition, as older members send it: as many attempts as calls."""
    clock, fold = Clock(), Fold()
    orders = Teller(clock, "orders", "i1")
    orders.answer("web", 3)
    word = orders.word()
    assert word.condition is msgspec.UNSET
    assert word.series[0].attempts is msgspec.UNSET
    fold.apply(word, clock.now)
    row = service_of(fold.snapshot(clock.now))
    assert (row.instances, row.red.attempts, row.capacity.limit) == (1, 3, 0)


def test_a_replay_is_what_was_seen() -> None:
    """The same words make the same snapshot, and a moment before the last word does not know it."""
    clock = Clock()
    orders = Teller(clock, "orders", "i1")
    words: list[tuple[float, Word]] = []
    fold = Fold()
    for _ in range(5):
        words.append((clock.now, orders.word()))
        fold.apply(words[-1][1], clock.now)
        clock.now += 1
        orders.answer("web", 10)
    assert replay(words, clock.now) == fold.snapshot(clock.now)
    assert service_of(replay(words, 1002.5)).red.total.requests == 20


def test_what_a_silent_member_did_a_moment_ago_is_no_longer_so() -> None:
    """Five seconds without a word, and its rate and what it had in flight are gone; with the next one they are back."""
    clock, fold = Clock(), Fold()
    orders = Teller(clock, "orders", "i1")
    fold.apply(orders.word(), clock.now)
    for _ in range(3):
        clock.now += 1
        orders.answer("web", 20)
        orders.stats.series("in", "orders", "place", "web").in_flight = 3
        fold.apply(orders.word(), clock.now)
    row = service_of(fold.snapshot(clock.now)).red
    assert row.in_flight == 3
    assert row.rate_per_s == pytest.approx(20)
    clock.now += 6
    shown = fold.snapshot(clock.now)
    row = service_of(shown).red
    assert (row.in_flight, row.rate_per_s, row.total.requests) == (0, 0, 60)
    assert [each.instances for each in shown.versions] == [0]
    fold.apply(orders.word(), clock.now)
    shown = fold.snapshot(clock.now)
    assert service_of(shown).red.in_flight == 3
    assert [each.instances for each in shown.versions] == [1]


@pytest.mark.parametrize("rested", [1, 5, 9, 10, 11, 60])
@pytest.mark.parametrize("whole_every", [1, 3, 8])
@pytest.mark.parametrize("window_s", [4.0, 10.0])
def test_a_rate_is_of_the_window_however_long_it_rested_before(
    rested: int, whole_every: int, window_s: float
) -> None:
    """Calls after a rest count over the window, and not over the time in which there were none."""
    clock, fold, member = Clock(), Fold(window_s=window_s), Teller(Clock(), "orders", "i1")
    member.stats = Stats(clock=clock)
    calls = [50] * 20 + [0] * rested + [100] * 12 + [0] * rested + [7] * 3
    for second, count in enumerate(calls):
        clock.now += 1.0
        member.answer("web", count)
        fold.apply(member.word(whole=second % whole_every == 0), clock.now)
        shown = service_of(fold.snapshot(clock.now + 0.5))
        in_window = calls[max(0, second + 1 - int(window_s)) : second + 1]
        if second >= window_s:
            assert shown.red.rate_per_s == pytest.approx(sum(in_window) / window_s, rel=1e-3), second


def test_groups_are_exact_over_members_and_seconds() -> None:
    """Sums of a window and of a total are those of all its series, however often somebody looks in between."""
    clock, seen, unseen = Clock(), Fold(window_s=4.0), Fold(window_s=4.0)
    members = [Teller(clock, "orders", f"i{number}", f"{number % 2}.0.0") for number in range(4)]
    for second in range(12):
        for number, member in enumerate(members):
            member.answer(f"c{number % 3}", second + number, 0.001 * (number + 1))
            member.answer("c1", 1, 0.5, "INTERNAL")
            word = member.word(whole=second % 4 == 0)
            for fold in (seen, unseen):
                fold.apply(word, clock.now)
            seen.snapshot(clock.now + 0.05 * number)
            clock.now += 0.23  # they do not all tell in the same second
    shown = unseen.snapshot(clock.now)
    assert seen.snapshot(clock.now) == shown
    made = sum(series.requests for member in members for series in member.stats)
    assert service_of(shown).red.total.requests == made == shown.red.total.requests
    assert sum(each.red.total.requests for each in shown.edges) == made
    assert sum(each.red.total.requests for each in shown.versions) == made
    assert sum(each.red.total.requests for each in shown.members) == made
    recent = service_of(shown).red.recent
    assert sum(each.red.recent.requests for each in shown.edges) == recent.requests
    assert sum(count for _, count in recent.buckets) == recent.requests


def test_a_snapshot_comes_bit_by_bit() -> None:
    """Whoever makes one may hear more in between; nothing breaks, and what was heard before is in it."""
    clock, fold = Clock(), Fold()
    members = [Teller(clock, f"s{number}", f"i{number}") for number in range(120)]
    for number, member in enumerate(members):
        member.answer(f"s{number - 1}", 5)
        fold.apply(member.word(), clock.now)
    bits = 0
    made: Snapshot | None = None
    for made in fold.snapshot_by_bits(clock.now):
        if made is None:
            new = Teller(clock, f"new-{bits}", f"n{bits}")
            new.answer("web", 1)
            fold.apply(new.word(), clock.now)
            fold.apply(Gone(f"s{bits}", f"i{bits}"), clock.now)
            bits += 1
    assert bits > 5, "there were moments in between"
    assert made is not None
    assert {f"s{number}" for number in range(120)} <= {each.name for each in made.services}


def test_quantiles_of_filled_buckets_are_those_of_the_histogram() -> None:
    """One way to ask for several quantiles at once, and the same answers."""
    histogram = Histogram()
    histogram.record_all([0.0001 * 1.7**n for n in range(30)] * 3)
    pairs = list(histogram.snapshot().buckets)
    shares = (0.0, 0.5, 0.9, 0.95, 0.99, 1.0)
    assert quantile_of(pairs, shares) == [histogram.quantile(share) for share in shares]
    assert quantile_of([], (0.5,)) == [None]


@pytest.mark.parametrize("services", [0, 1, 500])
def test_made_up_meshes_are_of_any_size(services: int) -> None:
    """What views are tested with is a snapshot like any other."""
    shown = made_up(services)
    assert len(shown.services) == services
    assert msgspec.json.decode(msgspec.json.encode(shown), type=Snapshot) == shown


def test_behind_an_open_circuit_nothing_contradicts_itself() -> None:
    """Callers are refused at their own side: rate, success, errors and trend of the service are theirs, second by
    second, whether a probe reached an instance or not; what the instances saw stands beside it."""
    clock, fold = Clock(), Fold(window_s=4.0)
    orders, web = Teller(clock, "orders", "i1"), Teller(clock, "web", "c1")
    for second in range(14):
        for teller in (orders, web):
            fold.apply(teller.word(), clock.now)
        clock.now += 1
        web.call("orders", 50, "UNAVAILABLE", flags="UO")
        if second % 7 == 0:
            orders.answer("web", 1, status="INTERNAL")
        for teller in (orders, web):
            fold.apply(teller.word(), clock.now)
        row = service_of(fold.snapshot(clock.now))
        assert row.red.success == 0.0
        assert row.red.errors_per_s == row.red.rate_per_s == pytest.approx(50, rel=0.05)
        assert row.red.flags.keys() == {"UO"}
    assert set(row.trend.success) == {0.0}
    assert row.served.total.requests == 2
    assert row.red.total.requests == 700


def test_names_of_services_that_are_gone_make_room_for_new_ones() -> None:
    """Whoever makes names up fills the table for as long as they beat; who comes when they are silent has a row."""
    clock, fold = Clock(), Fold(max_services=4)

    def call(service: str) -> None:
        teller = Teller(clock, service, "i1")
        teller.stats.series("in", service, "place", "web").record(0.01, "OK")
        fold.apply(teller.word(), clock.now)

    def counted() -> dict[str, int]:
        """The services of which calls are shown, and how many."""
        return {
            each.name: each.served.total.requests
            for each in fold.snapshot(clock.now).services
            if each.served.total.requests
        }

    for number in range(6):
        call(f"made-up-{number}")
    assert OTHER in counted(), "there is no room while all of them are there"
    before = fold.overflowed
    call("orders")
    assert "orders" not in counted()
    assert fold.overflowed > before
    clock.now += SILENT_S + 1.0
    assert fold.snapshot(clock.now).members == ()
    call("stock")
    assert counted() == {"stock": 1}
    # Who is called by somebody who is there keeps its name, too.
    clock.now += 5.0
    web = Teller(clock, "web", "w1")
    web.stats.series("out", "stock", "place", "web").record(0.01, "OK")
    fold.apply(web.word(), clock.now)
    for number in range(6):
        clock.now += 5.0
        fold.snapshot(clock.now)
        fold.apply(web.word(), clock.now)
        call(f"made-up-{number}")
    (edge,) = [
        each for each in fold.snapshot(clock.now).edges if each.source == "web" and each.reporter == "out"
    ]
    assert edge.service == "stock"
    assert counted()["stock"] == 1


def test_plain_subjects_are_nobodys_service() -> None:
    """Who calls them is shown as an edge; a service that is not ready they are not."""
    clock, fold = Clock(), Fold()
    web = Teller(clock, "web", "w1")
    web.stats.series("out", "_PLAIN", OTHER, "web").record(0.01, "OK")
    web.stats.series("out", "orders", "place", "web").record(0.01, "OK")
    fold.apply(web.word(), clock.now)
    shown = fold.snapshot(clock.now)
    assert [each.name for each in shown.services] == ["orders"]
    assert [(each.service, each.name) for each in shown.endpoints] == [("orders", "place")]
    assert [(each.source, each.service) for each in shown.edges] == [("web", "_PLAIN"), ("web", "orders")]


def test_the_totals_of_several_callers_have_their_durations_where_those_are_wanted() -> None:
    """A service that two call has quantiles of all calls, and not of one caller alone."""
    for durations in (True, False):
        clock = Clock()
        fold = Fold(durations=durations)
        for caller in ("web", "shop"):
            teller = Teller(clock, caller, caller)
            teller.call("orders", 5)
            assert fold.apply(teller.word(), clock.now)
        (service,) = [each for each in fold.snapshot(clock.now).services if each.name == "orders"]
        assert service.red.total.requests == 10
        assert sum(count for _, count in service.red.total.buckets) == (10 if durations else 0)
        assert (service.red.total.p99_s is not None) is durations


def test_who_called_is_told_of_whoever_answered_also_when_he_is_gone() -> None:
    """Each instance and caller, in the words of the instance; calls that it made itself are none."""
    clock = Clock()
    fold = Fold()
    teller = Teller(clock, "orders", "i1")
    teller.answer("web", 3)
    teller.answer("shop", 2, status="UNAVAILABLE")
    teller.call("stock", 9)
    fold.apply(instance(), clock.now)
    fold.apply(teller.word(), clock.now)
    fold.apply(Gone("orders", "i1"), clock.now)
    found = {(service, peer): (line.ok, line.others) for service, peer, line in fold.answered()}
    assert found == {("orders", "web"): (3, {}), ("orders", "shop"): (0, {"UNAVAILABLE": 2})}


def test_no_more_figures_are_due_of_who_has_left() -> None:
    """A client says so with its last statistics, of an instance presence does; one that drains may still count on, and
    who comes back has not left."""
    clock, fold = Clock(), Fold()
    client, orders = Teller(clock, "web", "w1"), Teller(clock, "orders", "i1")

    def left(teller: Teller, state: State, kind: Literal["client", "instance"]) -> bool:
        word = msgspec.structs.replace(teller.word(Condition(kind=kind)), state=state)
        fold.apply(word, clock.now)
        return fold.members[teller.service, teller.instance].left

    assert not left(client, State.READY, "client")
    assert left(client, State.DRAINING, "client")
    fold.apply(instance(), clock.now)
    assert not left(orders, State.DRAINING, "instance")
    fold.apply(Gone("orders", "i1"), clock.now)
    assert left(orders, State.DRAINING, "instance"), "what it still tells is of its last calls"
    fold.apply(instance(), clock.now)
    assert not left(orders, State.READY, "instance")

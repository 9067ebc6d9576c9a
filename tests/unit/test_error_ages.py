"""When an error was, from who counted it to whoever looks: an old one must not look like news."""

from __future__ import annotations

import random

import msgspec
import pytest

from nats_mesh.clock import ManualClock
from nats_mesh.telemetry.folding import Fold
from nats_mesh.telemetry.snapshots import Red
from nats_mesh.telemetry.stats import Stats
from nats_mesh.telemetry.stats_messages import StatsMessage, decode_stats, encode_stats

INTERNAL, TIMED_OUT = "INTERNAL: it broke", "DEADLINE_EXCEEDED: too late"


class Member:
    """An instance of orders that tells; its clock is another than the observer's."""

    def __init__(self, instance: str, clock: ManualClock) -> None:
        self.instance, self.clock = instance, clock
        self.stats = Stats(clock=clock)

    def fails(self, text: str, *, peer: str = "web") -> None:
        """A call ends so."""
        series = self.stats.series("in", "orders", "place", peer)
        series.record(0.01, "INTERNAL")
        series.last_error = text

    def says(self, *, whole: bool = True, aged: bool = True) -> StatsMessage:
        """What it publishes; ``aged``: with ages, as members of before have none."""
        (body,) = encode_stats(
            self.stats.snapshot(
                instance=self.instance, service="orders", version="1.0.0", namespace="default", whole=whole
            )
        )
        message = decode_stats(body)
        if aged:
            return message
        series = [msgspec.structs.replace(each, error_age_s=msgspec.UNSET) for each in message.series]
        return msgspec.structs.replace(message, series=tuple(series))


def orders(fold: Fold, now: float) -> Red:
    """What an observer shows of the service."""
    (service,) = fold.snapshot(now).services
    return service.red


def test_who_looks_later_knows_how_old_an_error_is() -> None:
    """It happened before the observer came: what it hears first is old, and it is told so."""
    member = Member("i1", ManualClock(5_000.0))
    member.fails(INTERNAL)
    member.clock.advance(600.0)
    fold = Fold()
    fold.apply(member.says(), 40.0)
    red = orders(fold, 41.0)
    assert (red.last_error, red.last_error_at) == (INTERNAL, 40.0 - 600.0)
    (shown,) = fold.snapshot(41.0).members
    assert shown.red.last_error_at == 40.0 - 600.0
    (edge,) = fold.snapshot(41.0).edges
    assert edge.endpoints["place"].last_error_at == 40.0 - 600.0


def test_the_same_error_again_is_new() -> None:
    """Its text is the one that is known; its age is not."""
    member, fold = Member("i1", ManualClock(5_000.0)), Fold()
    member.fails(INTERNAL)
    fold.apply(member.says(), 100.0)
    member.clock.advance(50.0)
    fold.apply(member.says(), 150.0)
    assert orders(fold, 150.0).last_error_at == 100.0, "it was told again, and did not happen again"
    member.fails(INTERNAL)
    member.clock.advance(1.0)
    fold.apply(member.says(whole=False), 151.0)
    assert orders(fold, 151.0).last_error_at == 150.0


@pytest.mark.parametrize("seed", range(5))
def test_the_latest_of_several_members_has_the_word(seed: int) -> None:
    """Whatever order their messages come in."""
    clock, rng = ManualClock(), random.Random(seed)
    members = [Member(f"i{number}", clock) for number in range(4)]
    rng.shuffle(members)
    for number, member in enumerate(members):
        member.fails(f"INTERNAL: {number}")
        clock.advance(10.0)
    fold, words = Fold(), [member.says() for member in members]
    rng.shuffle(words)
    for word in words:
        fold.apply(word, 1000.0)
    red = orders(fold, 1000.0)
    assert (red.last_error, red.last_error_at) == ("INTERNAL: 3", 990.0)


def test_messages_of_any_delay_make_no_news_of_one_error() -> None:
    """An age is counted back from when it is heard, which is up to half a second late: the error stays where it was."""
    member, fold, rng = Member("i1", ManualClock()), Fold(), random.Random(3)
    member.fails(INTERNAL)
    seen = set()
    for second in range(20):
        fold.apply(member.says(), 1000.0 + second + rng.uniform(0.0, 0.45))
        seen.add(orders(fold, 1001.0 + second).last_error_at)
        member.clock.advance(1.0)
    assert len(seen) == 1


def test_members_that_say_no_age_have_none() -> None:
    """Nobody makes one up, and what has a time goes before what has none."""
    clock = ManualClock()
    before, now = Member("i1", clock), Member("i2", clock)
    fold = Fold()
    before.fails(TIMED_OUT)
    fold.apply(before.says(aged=False), 10.0)
    red = orders(fold, 10.0)
    assert (red.last_error, red.last_error_at) == (TIMED_OUT, None)
    now.fails(INTERNAL)
    fold.apply(now.says(), 11.0)
    fold.apply(before.says(aged=False), 12.0)
    red = orders(fold, 12.0)
    assert (red.last_error, red.last_error_at) == (INTERNAL, 11.0)


def test_what_an_observer_hears_late_makes_no_news_of_one_error() -> None:
    """It stood still for a minute, and hears what was told meanwhile at once: no error is younger than it was."""
    member, fold = Member("i1", ManualClock()), Fold()
    member.fails(INTERNAL)
    fold.apply(member.says(), 1000.0)
    late = []
    for _ in range(60):
        member.clock.advance(1.0)
        late.append(member.says())
    for message in late:
        fold.apply(message, 1060.0)
    assert orders(fold, 1060.0).last_error_at == 1000.0
    member.clock.advance(0.2)
    member.fails(INTERNAL)
    fold.apply(member.says(), 1060.3)
    assert orders(fold, 1061.0).last_error_at == pytest.approx(1060.3), "the next one is news"

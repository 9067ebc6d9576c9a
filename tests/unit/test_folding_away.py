"""While the bus is away an observer's time stands still: what was known stays, and goes on when the bus is back."""

from __future__ import annotations

from nats_mesh.telemetry.folding import Bus, Fold
from tests.unit.test_folding import Clock, Teller, instance, member_of, service_of


def _told(fold: Fold, clock: Clock, orders: Teller, seconds: int) -> None:
    for _ in range(seconds):
        clock.now += 1.0
        orders.answer("web", 100)
        fold.apply(orders.word(), clock.now)
        fold.snapshot(clock.now)


def test_what_was_known_stays_while_the_bus_is_away() -> None:
    """Window, rates, trends and members are those of the moment it went, however long it is away; only that grows."""
    clock, fold = Clock(), Fold()
    orders = Teller(clock, "orders", "i1")
    fold.apply(instance(seen=clock.now), clock.now)
    _told(fold, clock, orders, 12)
    before = fold.snapshot(clock.now)
    assert service_of(before).red.rate_per_s > 90
    fold.apply(Bus(False, "nats://a:1"), clock.now)
    for away_s in (1.0, 30.0, 600.0):
        shown = fold.snapshot(clock.now + away_s)
        assert (shown.away_s, shown.at) == (away_s, clock.now + away_s)
        assert service_of(shown) == service_of(before)
        assert (shown.red, shown.trend, shown.edges) == (before.red, before.trend, before.edges)
        assert member_of(shown, "i1").reports


def test_figures_go_on_when_the_bus_is_back() -> None:
    """Nobody is late because of the time in between, the curve has no hole, and a rate is of the member's own time."""
    clock, fold = Clock(), Fold()
    orders = Teller(clock, "orders", "i1")
    fold.apply(instance(seen=clock.now), clock.now)
    _told(fold, clock, orders, 12)
    fold.apply(Bus(False), clock.now)
    clock.now += 40.0
    fold.apply(Bus(True), clock.now)
    back = fold.snapshot(clock.now + 0.5)
    assert service_of(back).red.rate_per_s > 90, "nobody has told yet: these are the last figures"
    assert member_of(back, "i1").state == "ready"
    orders.stats.series("in", "orders", "cancel", "web").record(0.01, "OK")  # new, within the time in between
    _told(fold, clock, orders, 1)
    found = fold.snapshot(clock.now)
    cancelled = next(each for each in found.endpoints if each.name == "cancel")
    assert cancelled.red.rate_per_s <= 0.2, "one call within 40 s"
    _told(fold, clock, orders, 12)
    after = fold.snapshot(clock.now)
    assert 95 < service_of(after).red.rate_per_s < 105
    assert min(service_of(after).trend.rates) > 0
    assert member_of(after, "i1").heard_s == 0.0


def test_errors_grow_old_while_the_bus_is_away() -> None:
    """How long ago an error was is a fact of the clock."""
    clock, fold = Clock(), Fold()
    orders = Teller(clock, "orders", "i1")
    orders.stats.series("in", "orders", "place", "web").last_error = "INTERNAL: it broke"
    fold.apply(orders.word(), clock.now)
    fold.apply(Bus(False), clock.now)
    shown = fold.snapshot(clock.now + 90.0)
    happened = service_of(shown).red.last_error_at
    assert happened is not None
    assert shown.at - happened == 90.0

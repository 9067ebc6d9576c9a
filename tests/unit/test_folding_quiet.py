"""An edge of a caller that has left goes once nothing was heard of it for a while; what it called stays counted."""

from __future__ import annotations

from nats_mesh.telemetry.folding import Bus, Fold, Gone
from nats_mesh.telemetry.showing_calls import QUIET_S
from nats_mesh.telemetry.snapshots import Snapshot
from nats_mesh.telemetry.stats_messages import Condition
from tests.unit.test_folding import Clock, Teller, instance, service_of

CLIENT = Condition(kind="client")
WINDOW_S = 10.0


def _edges(shown: Snapshot) -> set[tuple[str, str]]:
    return {(each.source, each.service) for each in shown.edges}


def _passes(fold: Fold, clock: Clock, seconds: int, *tellers: Teller) -> Snapshot:
    shown = fold.snapshot(clock.now)
    for _ in range(seconds):
        clock.now += 1.0
        for each in tellers:
            fold.apply(each.word(CLIENT if each.service != "stock" else None), clock.now)
        shown = fold.snapshot(clock.now)
    return shown


def test_an_edge_of_a_client_that_has_left_goes() -> None:
    """A while after its last call left the window, though others of its name look on; one that idles stays."""
    clock, fold = Clock(), Fold(window_s=WINDOW_S)
    stock, idle, other = Teller(clock, "stock", "s1"), Teller(clock, "web", "w1"), Teller(clock, "ops", "o2")
    short = Teller(clock, "ops", "o1")
    fold.apply(instance("stock", "s1", seen=clock.now), clock.now)
    for each in (idle, short):
        each.call("stock", 1)
        stock.answer(each.service, 1)
    stock.answer("mute", 1)  # who tells nothing of itself
    _passes(fold, clock, 2, stock, idle, short, other)
    everybody = {("web", "stock"), ("ops", "stock"), ("mute", "stock")}
    assert _edges(_passes(fold, clock, int(QUIET_S), stock, idle, other)) == everybody
    shown = _passes(fold, clock, int(WINDOW_S) + 6, stock, idle, other)
    assert _edges(shown) == {("web", "stock")}
    assert service_of(shown, "stock").red.total.requests == 3
    assert not fold.quiet.keys() - {("out", "ops", "stock"), ("in", "mute", "stock")}
    stock.answer("mute", 1)
    assert _edges(_passes(fold, clock, 1, stock, idle, other)) == {("web", "stock"), ("mute", "stock")}


def test_an_edge_of_a_service_stays_as_long_as_it_is_there() -> None:
    """Also of one that is silent: presence decides."""
    clock, fold = Clock(), Fold(window_s=WINDOW_S)
    orders = Teller(clock, "orders", "i1")
    orders.call("stock", 1)
    fold.apply(instance("orders", "i1", seen=clock.now), clock.now)
    fold.apply(orders.word(), clock.now)
    assert _edges(_passes(fold, clock, 200)) == {("orders", "stock")}
    fold.apply(Gone("orders", "i1"), clock.now)
    assert _edges(_passes(fold, clock, int(QUIET_S) - 1)) == {("orders", "stock")}
    assert _edges(_passes(fold, clock, 2)) == set()


def test_no_edge_goes_while_the_bus_is_away() -> None:
    """Nobody knows who has left."""
    clock, fold = Clock(), Fold(window_s=WINDOW_S)
    web = Teller(clock, "web", "w1")
    web.call("stock", 1)
    fold.apply(web.word(CLIENT), clock.now)
    _passes(fold, clock, 3, web)
    fold.apply(Bus(False), clock.now)
    assert _edges(_passes(fold, clock, 300)) == {("web", "stock")}

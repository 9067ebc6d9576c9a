"""Calls that their callers gave up show at the service that was called, though its instances count none of them."""

from __future__ import annotations

import msgspec

from nats_mesh.clock import ManualClock
from nats_mesh.telemetry.folding import Fold
from nats_mesh.telemetry.group import Group
from nats_mesh.telemetry.stats import Stats
from nats_mesh.telemetry.stats_messages import decode_stats, encode_stats
from nats_mesh.telemetry.summed import Summed
from nats_mesh.telemetry.tallies import Tally


class Member:
    """A member whose counts a fold is told."""

    def __init__(self, clock: ManualClock, fold: Fold, service: str) -> None:
        self.stats = Stats(clock=clock)
        self._clock, self._fold, self._service = clock, fold, service

    def tell(self) -> None:
        """All that it has counted."""
        message = self.stats.snapshot(
            instance="i1",
            service=self._service,
            version="1.0.0",
            namespace="default",
            condition=msgspec.UNSET,
            whole=True,
        )
        (body,) = encode_stats(message)
        word = decode_stats(body, service=self._service, instance="i1", namespace="default")
        self._fold.apply(word, self._clock.monotonic())


def test_a_service_whose_callers_give_up_says_so() -> None:
    """Of the window, by service and endpoint; hedges that an instance was told to stop are no calls that were given
    up, and of who is well nothing is said."""
    clock, fold = ManualClock(), Fold()
    web, orders = Member(clock, fold, "web"), Member(clock, fold, "orders")
    frozen = web.stats.series("out", "orders", "place", "web")
    well = web.stats.series("out", "stock", "count", "web")
    stopped = orders.stats.series("in", "orders", "show", "web")
    for _ in range(3):
        web.tell()
        orders.tell()
        clock.advance(1.0)
        frozen.record(0.5, "CANCELLED")
        frozen.record(0.01, "OK")
        well.record(0.01, "OK")
        stopped.record(0.01, "CANCELLED")
    web.tell()
    orders.tell()
    shown = fold.snapshot(clock.monotonic())
    assert {each.name: each.red.gave_up for each in shown.services} == {"orders": 0.5, "stock": 0.0}
    assert {(each.service, each.name): each.red.gave_up for each in shown.endpoints} == {
        ("orders", "place"): 0.5,
        ("orders", "show"): 0.0,
        ("stock", "count"): 0.0,
    }
    (edge, _) = shown.edges
    assert edge.red.gave_up == 0.5


def test_calls_that_were_given_up_are_no_success() -> None:
    """Success is of the calls that came to an answer; where none did, nobody knows it. Counts stay what they are."""
    tally = Tally()
    tally.ok, tally.others = 3, {"CANCELLED": 6, "UNAVAILABLE": 1}
    figures = tally.figures()
    assert (figures.requests, figures.errors, figures.success) == (10, 1, 0.75)
    nobody = Tally()
    nobody.others = {"CANCELLED": 6}
    assert (nobody.figures().requests, nobody.figures().success) == (6, None)


def test_a_trend_leaves_out_seconds_without_an_answer() -> None:
    """The share of a second in which some callers gave up is that of all the others."""
    given_up, well = Group(history=True), Group(history=True)
    for group, others in ((given_up, {"CANCELLED": 10}), (well, {"UNAVAILABLE": 1})):
        tally = Tally()
        tally.ok, tally.others = (9 if group is well else 0), others
        group.add(tally, 100)
        group.tick(101.0, 10.0)
    summed = Summed()
    assert summed.trend([given_up, well], 101.5).success == (0.9,)
    assert Summed().trend([given_up], 101.5).success == (None,)

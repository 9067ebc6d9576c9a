"""Calls that their callers gave up show at the service that was called, though its instances count none of them."""

from __future__ import annotations

import msgspec

from nats_mesh.clock import ManualClock
from nats_mesh.telemetry.folding import Fold
from nats_mesh.telemetry.stats import Stats
from nats_mesh.telemetry.stats_messages import decode_stats, encode_stats


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

"""A view that is looked at seldom, or hears more while it is being looked at; and what members can make it keep."""

from __future__ import annotations

import pytest

from nats_mesh.telemetry.folding import Fold
from nats_mesh.telemetry.snapshots import Snapshot
from nats_mesh.telemetry.stats_messages import SeriesSnapshot, StatsMessage


def word(
    seq: int,
    since_s: float,
    ok: int | None,
    *,
    service: str = "orders",
    instance: str = "i1",
    peer: str = "web",
) -> StatsMessage:
    """What an instance tells that is so old and has answered so many calls; ``None``: of no series."""
    series = SeriesSnapshot(
        side="in", service=service, endpoint="place", peer=peer, age_s=since_s, statuses={"OK": ok or 0}
    )
    return StatsMessage(
        instance=instance,
        service=service,
        version="1.0.0",
        namespace="default",
        seq=seq,
        since_s=since_s,
        series=() if ok is None else (series,),
    )


def test_a_second_that_ends_while_it_is_looked_at_is_of_the_next_look() -> None:
    """A snapshot that is made bit by bit hears words in between: they change no trend of it, and break none."""
    fold = Fold()
    fold.apply(word(1, 1.0, 5), 100.5)
    fold.snapshot(101.2)
    fold.apply(word(2, 6.0, 9), 105.5)  # seconds without calls lie before
    bits = fold.snapshot_by_bits(105.9)
    assert next(bits) is None
    assert next(bits) is None  # groups have been looked at
    fold.apply(word(3, 7.0, 12), 106.1)
    *_, made = bits
    assert isinstance(made, Snapshot)
    (service,), (endpoint,) = made.services, made.endpoints
    assert service.trend.rates == endpoint.trend.rates == (5.0, 0.0, 0.0, 0.0, 0.0)
    (service,) = fold.snapshot(107.0).services
    assert service.trend.rates == (5.0, 0.0, 0.0, 0.0, 0.0, 4.0, 3.0)


@pytest.mark.parametrize("bit", range(8))
def test_what_is_forgotten_while_it_is_looked_at_has_no_row(bit: int) -> None:
    """Groups in which nobody has calls any more may be forgotten between two rows of one snapshot."""
    fold = Fold()
    for at in range(80):
        fold.apply(word(1, 1.0, 5, service=f"s{at}"), 100.5)
    bits = fold.snapshot_by_bits(101.5)
    for _ in range(bit + 1):
        assert next(bits) is None
    fold.groups.keep(set())
    *_, made = bits
    assert isinstance(made, Snapshot)


def test_what_nobody_looks_at_does_not_grow() -> None:
    """A view that is kept open and asked for nothing keeps of each group of calls no more than one that is."""
    fold = Fold(window_s=10.0)
    for at in range(500):
        fold.apply(word(at + 1, 1.0 + at, at), 100.0 + at)
    assert max(len(group._cells) for group in fold.groups.all()) <= 22
    (service,) = fold.snapshot(600.0).services
    assert service.red.total.requests == 499
    assert service.red.recent.requests <= 11


def test_ages_that_stand_still_do_not_grow() -> None:
    """A member that says of a series that it has more calls, then nothing of it, and is no older, is kept in no more
    points than any other; so is one that grows older by next to nothing."""
    for step_s in (0.0, 1e-3):
        fold = Fold(window_s=10.0)
        for at in range(500):
            fold.apply(word(2 * at + 1, 5.0 + 2 * at * step_s, at), 100.0)
            fold.apply(word(2 * at + 2, 5.0 + (2 * at + 1) * step_s, None), 100.0)
        assert len(fold.members["orders", "i1"].pace) < 80


def test_what_came_in_one_second_is_shown_in_it_whenever_somebody_looks() -> None:
    """Callers whose words come at different times of a second; a look that comes late moves none to another one."""
    fold = Fold()
    fold.apply(word(1, 1.0, 0, instance="i1", peer="a"), 100.05)
    fold.apply(word(1, 1.0, 0, instance="i2", peer="b"), 100.45)
    fold.snapshot(100.5)
    fold.apply(word(2, 2.0, 10, instance="i1", peer="a"), 101.05)
    fold.apply(word(2, 2.0, 20, instance="i2", peer="b"), 101.45)
    fold.apply(word(3, 3.0, 11, instance="i1", peer="a"), 102.05)
    fold.snapshot(102.2)
    made = fold.snapshot(103.0)
    assert made.endpoints[0].trend.rates == made.services[0].trend.rates == (30.0, 1.0)

"""Which zones get calls, and how many each."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.balancer import STRATEGIES, Member, ZoneSize, choose_zone, make
from nats_mesh.core.balancer.locality import GONE_S
from nats_mesh.core.rules import BalancerName, BalancerRules

RULES = BalancerRules(name="random", locality=True)


def zones(here: int, there: int) -> tuple[Member, ...]:
    """Members of the own zone and of another."""
    return (
        *(Member(f"h{number}", zone="here") for number in range(here)),
        *(Member(f"t{number}", zone="there") for number in range(there)),
    )


def share_of_own(chosen: Sequence[Member], name: BalancerName = "random", calls: int = 4_000) -> float:
    """The part of the calls that the own zone gets."""
    strategy = make(BalancerRules(name=name), random.Random(5).random)
    assert strategy is not None
    got = Counter(strategy.pick(chosen, 0.0, f"k{number}").zone for number in range(calls))
    return got["here"] / calls


@pytest.mark.parametrize(
    ("size", "healthy", "share"),
    [
        (10, 10, 1.0),
        (10, 7, 1.0),
        (10, 6, 6 / 7),
        (10, 1, 1 / 7),
        (10, 0, 0.0),
        (3, 2, 1.0),
        (3, 1, 0.5),
        (2, 1, 1.0),
    ],
)
@pytest.mark.parametrize("others", [1, 3, 30])
def test_the_own_zone_gets_what_it_can_carry(size: int, healthy: int, share: float, others: int) -> None:
    """All while 70 % of it, in whole instances, are healthy; below that its part, whatever the others' number."""
    members = zones(size, others)
    well = [*members[:healthy], *members[size:]]
    assert share_of_own(choose_zone(members, "here", RULES, well)) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_keeps_the_proportion(name: BalancerName) -> None:
    """The proportion is one of weights, so whoever honours weights keeps it."""
    members = zones(10, 4)
    chosen = choose_zone(members, "here", RULES, [*members[:4], *members[10:]])
    # A ring with 128 points for the heaviest is even within some percent.
    assert share_of_own(chosen, name) == pytest.approx(4 / 7, abs=0.12 if name == "consistent_hash" else 0.03)


def test_members_that_are_down_get_nothing() -> None:
    """Whatever the zones, only the healthy are chosen from."""
    members = zones(3, 3)
    well = {members[0], members[4]}
    assert set(choose_zone(members, "here", RULES, well)) == well
    assert set(choose_zone(members, "", RULES, well)) == well


def test_without_locality_zones_do_not_matter() -> None:
    """The rule switches it on; a caller without a zone has none to prefer."""
    members = zones(2, 2)
    assert list(choose_zone(members, "here", BalancerRules(name="random"), members)) == list(members)
    assert list(choose_zone(members, "", RULES, members)) == list(members)


def test_a_zone_without_instances_is_served_by_the_others() -> None:
    """A caller where the service does not run is served from elsewhere, evenly."""
    members = zones(0, 3)
    assert list(choose_zone(members, "here", RULES, members)) == list(members)


def test_with_nobody_elsewhere_the_own_zone_serves_all() -> None:
    """The healthy rest of the own zone is better than nobody."""
    members = zones(3, 1)
    assert list(choose_zone(members, "here", RULES, [members[0]])) == [members[0]]


def test_with_nobody_healthy_nobody_is_chosen() -> None:
    """Then the queue group knows better who is there."""
    members = zones(2, 2)
    assert list(choose_zone(members, "here", RULES, [])) == []
    assert list(choose_zone(members, "", RULES, [])) == []
    assert list(choose_zone((), "here", RULES, [])) == []


# -- who is gone ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "left", "share"),
    [(3, 3, 1.0), (3, 2, 1.0), (3, 1, 0.5), (10, 6, 6 / 7), (10, 1, 1 / 7), (3, 0, 0.0)],
)
def test_a_zone_is_as_large_as_it_was(size: int, left: int, share: float) -> None:
    """Those that died are unhealthy members like those that are known to be down."""
    members = zones(left, 3)
    chosen = choose_zone(members, "here", RULES, members, gone=size - left)
    assert share_of_own(chosen) == pytest.approx(share, abs=0.03)


def test_who_is_gone_counts_for_some_minutes() -> None:
    """Each from when it was missed, and no longer; then the zone is a smaller one."""
    size = ZoneSize()
    assert size.observe(3, 0.0) == 0
    assert size.next_end == math.inf
    assert size.observe(2, 10.0) == 1
    assert size.observe(1, 20.0) == 2
    assert size.next_end == 10.0 + GONE_S
    assert size.observe(1, 9.0 + GONE_S) == 2
    assert size.observe(1, 10.0 + GONE_S) == 1
    assert size.observe(1, 20.0 + GONE_S) == 0
    assert size.next_end == math.inf


def test_who_comes_takes_the_place_of_who_went() -> None:
    """A zone of three that is restarted one by one, the new one first or the old one, is never one of six."""
    for steps in ([2, 3] * 3, [4, 3] * 3):
        size = ZoneSize()
        size.observe(3, 0.0)
        sizes = [present + size.observe(present, float(now)) for now, present in enumerate(steps)]
        assert max(sizes) == max(steps[0], 3)


def test_the_largest_number_counts_from_when_it_was_last_there() -> None:
    """Whoever comes takes the place of the last who went, and the first who went is forgotten in its time."""
    size = ZoneSize()
    for present, now in ((3, 0.0), (2, 100.0), (1, 200.0), (2, 250.0)):
        size.observe(present, now)
    assert size.observe(2, 99.0 + GONE_S) == 1, "they were three until second 100"
    assert size.observe(2, 100.0 + GONE_S) == 0
    assert repr(size) == "<ZoneSize 2 there, 0 gone>"


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.sampled_from([0.0, 1.0, 100.0, 200.0, 299.0, 300.0])), min_size=1
    )
)
def test_a_zone_is_as_large_as_it_ever_was_within_the_minutes(steps: list[tuple[int, float]]) -> None:
    """The largest number that was there at a time; a number ends when the next is seen."""
    size, now = ZoneSize(), 0.0
    seen: list[tuple[int, float]] = []
    for present, later in steps:
        now += later
        seen = [(count, ended if ended < math.inf else now) for count, ended in seen] + [(present, math.inf)]
        largest = max(count for count, ended in seen if now < ended + GONE_S)
        assert present + size.observe(present, now) == largest
        assert len(size._gone) <= max(count for count, _ in seen)


def test_weights_are_kept_within_zones() -> None:
    """In a mixture a heavy member elsewhere still gets more than a light one."""
    members = zones(4, 2)
    members[4].weight, members[5].weight = 3.0, 1.0
    chosen = choose_zone(members, "here", RULES, [members[0], *members[4:]])
    strategy = make(RULES, random.Random(5).random)
    assert strategy is not None
    got = Counter(strategy.pick(chosen, 0.0, None).id for _ in range(4_000))
    assert got["t0"] / got["t1"] == pytest.approx(3.0, abs=0.5)
    assert got["h0"] / 4_000 == pytest.approx(1 / 3, abs=0.03)


@given(
    st.lists(st.tuples(st.sampled_from(["here", "there", ""]), st.booleans()), min_size=1, max_size=12),
    st.floats(0.05, 1.0),
    st.integers(0, 12),
)
def test_the_choice_is_never_a_stranger_nor_empty_without_need(
    known: list[tuple[str, bool]], healthy_share: float, gone: int
) -> None:
    """Whatever is up, down or gone, somebody healthy is chosen where there is one, nobody else ever is, and shares that
    no mixture needs are whole."""
    members = tuple(Member(f"i{number}", zone=zone) for number, (zone, _) in enumerate(known))
    for member in members:
        member.share = 0.3  # what an earlier choice left
    well = [member for member, (_, up) in zip(members, known, strict=True) if up]
    rules = BalancerRules(name="random", locality=True, locality_healthy=healthy_share)
    chosen = choose_zone(members, "here", rules, well, gone)
    assert bool(chosen) == bool(well)
    assert set(chosen) <= set(well)
    assert len(set(chosen)) == len(chosen)
    assert all(member.share > 0.0 for member in chosen)
    if len({member.zone == "here" for member in chosen}) == 1:
        assert {member.share for member in chosen} == {1.0}

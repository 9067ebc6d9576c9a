"""What each strategy promises beyond the contract of all: smoothness, few on the fullest, stability, bounds."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from nats_mesh.core.balancer import Balancer, Member, make
from nats_mesh.core.balancer.consistent_hash import ConsistentHash
from nats_mesh.core.balancer.lots import Lots
from nats_mesh.core.rules import BalancerName, BalancerRules


def balancer(name: BalancerName, seed: int = 1, **changes: Any) -> Balancer:
    """A seeded balancer of one strategy."""
    found = make(BalancerRules(name=name, **changes), random.Random(seed).random)
    assert found is not None
    return found


def group(count: int) -> tuple[Member, ...]:
    """So many equal members."""
    return tuple(Member(f"i{number}") for number in range(count))


def answer(member: Member, now: float, took_s: float, ok: bool = True) -> None:
    """One call, from its beginning to its end."""
    member.began(now)
    member.ended(now, took_s, ok)


# -- round robin ------------------------------------------------------------------------------------


def nginx(weights: Sequence[int], calls: int) -> list[int]:
    """nginx's smooth weighted round robin (I. Sysoev, M. Dounin, 2012), the yardstick: credit grows by the weight,
    the highest credit is chosen and pays the total."""
    credit = [0] * len(weights)
    chosen = []
    for _ in range(calls):
        credit = [has + weight for has, weight in zip(credit, weights, strict=True)]
        best = credit.index(max(credit))
        credit[best] -= sum(weights)
        chosen.append(best)
    return chosen


def turns(weights: Sequence[int], calls: int, seed: int) -> list[int]:
    """What round_robin chooses."""
    members = tuple(Member(str(number), weight=weight) for number, weight in enumerate(weights))
    strategy = balancer("round_robin", seed)
    return [int(strategy.pick(members, 0.0, None).id) for _ in range(calls)]


def longest_run(chosen: Sequence[int]) -> int:
    """How often in a row the same member was chosen at most."""
    longest = run = 1
    for before, after in pairwise(chosen):
        run = run + 1 if before == after else 1
        longest = max(longest, run)
    return longest


def unevenness(chosen: Sequence[int], weights: Sequence[int]) -> float:
    """By how many calls any member got more or less than its share, over any stretch of the calls."""
    worst = 0.0
    for member, weight in enumerate(weights):
        ahead, low, high = 0.0, 0.0, 0.0
        for each in chosen:
            ahead += (each == member) - weight / sum(weights)
            low, high = min(low, ahead), max(high, ahead)
        worst = max(worst, high - low)
    return worst


@pytest.mark.parametrize("count", [2, 3, 7, 50])
@pytest.mark.parametrize("seed", range(5))
def test_equal_members_take_turns(count: int, seed: int) -> None:
    """In every stretch of n choices each of n equal members is chosen exactly once."""
    chosen = turns([1] * count, 5 * count, seed)
    assert all(len(set(chosen[at : at + count])) == count for at in range(4 * count))


@pytest.mark.parametrize(
    "weights",
    [(5, 1, 1), (3, 1), (10, 1), (7, 3, 2, 1), (20, *[1] * 20), (100, 50, 25, 10, 5, 1), tuple(range(1, 13))],
)
@pytest.mark.parametrize("seed", range(3))
def test_weighted_turns_are_as_smooth_as_nginxs(weights: tuple[int, ...], seed: int) -> None:
    """No heavy member is chosen in a burst: runs are at most one longer than nginx's, stretches at most 1.5 calls
    less even, and over a whole cycle each gets its weight."""
    calls = 4 * sum(weights)
    chosen, yardstick = turns(weights, calls, seed), nginx(weights, calls)
    assert longest_run(chosen) <= longest_run(yardstick) + 1
    assert unevenness(chosen, weights) <= unevenness(yardstick, weights) + 1.5
    got = Counter(chosen)
    assert all(abs(got[member] - 4 * weight) <= 1 for member, weight in enumerate(weights))


def test_turns_go_on_through_changes() -> None:
    """An ejection that comes and goes, or a look that finds nothing new, starts no round anew: over 300 calls the
    members that stay are equal ± 2."""
    members = group(5)
    strategy = balancer("round_robin")
    got: Counter[str] = Counter()
    for number in range(300):
        usable = members if number % 7 else members[:4]
        if number % 3 == 0:
            strategy.update(usable)
        got[strategy.pick(usable, 0.0, None).id] += 1
    steady = [got[member.id] for member in members[:4]]
    assert max(steady) - min(steady) <= 2, got


def test_a_grown_weight_waits_for_no_old_turn() -> None:
    """A member whose weight was tiny and is whole again is due within one round, not when the old weight was."""
    members = group(3)
    members[2].share = 0.001
    strategy = balancer("round_robin")
    for _ in range(50_000):
        if strategy.pick(members, 0.0, None) is members[2]:
            break
    members[2].share = 1.0
    strategy.update(members)
    assert members[2] in [strategy.pick(members, 0.0, None) for _ in range(4)]


def test_callers_begin_at_different_members() -> None:
    """A thousand callers that make one call each do not all make it to the same member."""
    first = Counter(turns([1] * 4, 1, seed)[0] for seed in range(1000))
    assert min(first[member] for member in range(4)) > 150, first


# -- two choices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_two_choices_fill_evenly_and_one_does_not(seed: int) -> None:
    """100 members, 1,000 calls that do not end: with two choices the fullest has at most 4 above the mean of 10,
    with one at random at least 6 (Mitzenmacher)."""
    fullest = {}
    names: tuple[BalancerName, ...] = ("least_request", "random")
    for name in names:
        members, strategy = group(100), balancer(name, seed)
        for _ in range(1_000):
            strategy.pick(members, 0.0, None).began(0.0)
        fullest[name] = max(member.in_flight for member in members)
    assert fullest["least_request"] <= 14
    assert fullest["random"] >= 16


@pytest.mark.parametrize("weights", [(1.0, 1.1, 1.2, 1.3), (1.0, 2.5, 4.0), (1.0, 3.0), (0.5, 0.95, 0.95)])
@pytest.mark.parametrize("busy", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("name", ["least_request", "peak_ewma"])
def test_two_choices_keep_to_weights_at_any_load(
    name: BalancerName, busy: int, weights: tuple[float, ...]
) -> None:
    """Each gets its share within a tenth of it, however many calls are under way and in whatever order they end."""
    members = tuple(Member(str(number), weight=weight) for number, weight in enumerate(weights))
    strategy, ends = balancer(name), random.Random(9)
    under_way: list[Member] = []
    got: Counter[str] = Counter()
    for _ in range(8_000):
        if len(under_way) >= busy:
            under_way.pop(ends.randrange(len(under_way))).ended(0.0, 0.01, True)
        member = strategy.pick(members, 0.0, None)
        member.began(0.0)
        under_way.append(member)
        got[member.id] += 1
    for member in members:
        assert got[member.id] / 8_000 == pytest.approx(member.weight / sum(weights), rel=0.1), got


def pairs(members: Sequence[Member], now: float, slow_start_s: float = 0.0) -> Counter[tuple[int, int]]:
    """How often each two are drawn, of 10,000 draws."""
    lots = Lots(slow_start_s, random.Random(3).random)
    lots.update(members)
    drawn: Counter[tuple[int, int]] = Counter()
    for _ in range(10_000):
        first = lots.first(now)
        drawn[first, lots.second(first)] += 1
    return drawn


def test_equal_members_are_drawn_as_two_different_ones() -> None:
    """Each of the six pairs of three as often as the other."""
    drawn = pairs(group(3), 0.0)
    assert set(drawn) == {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}
    assert min(drawn.values()) > 1_400


def test_a_heavy_member_is_drawn_like_several_equal_ones() -> None:
    """Of weights 1 and 3 the light one is never drawn twice, the heavy one in half of the draws (¾ × ⅔)."""
    drawn = pairs((Member("light"), Member("heavy", weight=3.0)), 0.0)
    assert set(drawn) == {(0, 1), (1, 0), (1, 1)}
    assert drawn[1, 1] / 10_000 == pytest.approx(0.5, abs=0.02)
    assert drawn[0, 1] / 10_000 == pytest.approx(0.25, abs=0.02)


def test_a_member_that_warms_up_makes_nobody_heavy() -> None:
    """While one of three equal members is new the others are still drawn as whole ones, and never twice."""
    drawn = pairs((*group(2), Member("new", joined=0.0)), 0.0, slow_start_s=10.0)
    assert not {(0, 0), (1, 1), (2, 2)} & set(drawn)


def test_a_frozen_member_is_passed_over() -> None:
    """One of five never answers; with others that do it gathers a few calls and gets hardly any more."""
    members, strategy = group(5), balancer("least_request")
    got: Counter[str] = Counter()
    for _ in range(2_000):
        member = strategy.pick(members, 0.0, None)
        got[member.id] += 1
        member.began(0.0)
        if member is not members[0]:
            member.ended(0.0, 0.01, True)
    assert got["i0"] <= 2, got


def test_who_said_that_others_load_it_is_passed_over() -> None:
    """Load that comes from other callers counts as long as it is fresh."""
    members, strategy = group(2), balancer("least_request")
    members[0].said(0.0, 50, 256)
    assert {strategy.pick(members, 0.1, None).id for _ in range(50)} == {"i1"}
    assert {strategy.pick(members, 9.0, None).id for _ in range(50)} == {"i0", "i1"}


# -- peak EWMA --------------------------------------------------------------------------------------


def test_the_fast_one_is_preferred_whatever_the_counts() -> None:
    """Of two idle members the one that took 10 ms is chosen before the one that took 100 ms."""
    members, strategy = group(2), balancer("peak_ewma")
    strategy.update(members)
    answer(members[0], 0.0, 0.1)
    answer(members[1], 0.0, 0.01)
    assert {strategy.pick(members, 0.0, None).id for _ in range(50)} == {"i1"}


def test_ten_calls_at_a_fast_one_are_as_much_as_one_at_a_slow_one() -> None:
    """Cost is time × (calls + 1): the slow one gets a call when the fast one holds enough."""
    members, strategy = group(2), balancer("peak_ewma")
    strategy.update(members)
    answer(members[0], 0.0, 0.1)
    answer(members[1], 0.0, 0.01)
    for _ in range(50):
        strategy.pick(members, 0.0, None).began(0.0)
    assert members[0].in_flight == pytest.approx(50 / 11, abs=1.5)


def test_what_nobody_has_measured_gets_one_call_at_a_time() -> None:
    """A new member is tried at once, and not flooded before its first answer."""
    members, strategy = group(3), balancer("peak_ewma")
    strategy.update(members)
    for member in members[:2]:
        answer(member, 0.0, 0.01)
    for _ in range(60):
        strategy.pick(members, 0.0, None).began(0.0)
    assert members[2].in_flight == 1


def test_failing_at_once_attracts_nobody() -> None:
    """A member that fails in a millisecond loses its share; by the plain average it would win nearly all."""
    members, strategy = group(4), balancer("peak_ewma")
    got: Counter[str] = Counter()
    for number in range(1_000):
        member, now = strategy.pick(members, number * 0.001, None), number * 0.001
        got[member.id] += 1
        answer(member, now, 0.001 if member is members[0] else 0.02, ok=member is not members[0])
    assert got["i0"] < 100, got


def test_a_peak_is_forgotten_slowly() -> None:
    """Who was slow once is avoided for a while and then gets calls again."""
    members, strategy = group(2), balancer("peak_ewma")
    strategy.update(members)
    now, back_at = 0.0, math.inf
    answer(members[0], now, 1.0)
    while back_at == math.inf and now < 200.0:
        now += 0.1
        member = strategy.pick(members, now, None)
        answer(member, now, 0.01)
        if member is members[0]:
            back_at = now
    assert 10.0 < back_at < 100.0


# -- consistent hash --------------------------------------------------------------------------------

KEYS = [f"user-{number}" for number in range(2_000)]


def owners(members: Sequence[Member], keys: Sequence[str] = KEYS) -> dict[str, str]:
    """Whose each key is while nothing is under way."""
    strategy = balancer("consistent_hash")
    return {key: strategy.pick(members, 0.0, key).id for key in keys}


@pytest.mark.parametrize("count", [2, 5, 20])
def test_when_a_member_goes_only_its_keys_move(count: int) -> None:
    """The keys of one of n, about 1/n of all, go to others; each other key stays where it is; back again as well."""
    members = group(count)
    before = owners(members)
    for gone in (0, count - 1):
        rest = tuple(member for place, member in enumerate(members) if place != gone)
        after = owners(rest)
        moved = [key for key in KEYS if before[key] != after[key]]
        assert all(before[key] == members[gone].id for key in moved)
        assert len(moved) / len(KEYS) <= 1 / count * 1.4
        if count > 2:
            assert len({after[key] for key in moved}) > 1, (
                "they are spread, and do not fall upon one neighbour"
            )
    strategy = balancer("consistent_hash")
    for usable in (members, members[1:], members):
        strategy.update(usable)
    assert {key: strategy.pick(members, 0.0, key).id for key in KEYS} == before


def test_when_a_member_comes_keys_move_to_it_alone() -> None:
    """No key moves between members that were there before."""
    members = group(10)
    before, after = owners(members[:9]), owners(members)
    moved = [key for key in KEYS if before[key] != after[key]]
    assert {after[key] for key in moved} == {"i9"}
    assert len(moved) / len(KEYS) == pytest.approx(0.1, abs=0.04)


@given(st.permutations(range(8)), st.text(max_size=5))
def test_callers_agree_whatever_order_they_know_members_in(order: list[int], key: str) -> None:
    """The order in which a caller heard of the members, and its chance, change no key's owner."""
    members = group(8)
    shuffled = tuple(members[place] for place in order)
    known = balancer("consistent_hash", 1).pick(members, 0.0, key)
    assert balancer("consistent_hash", 2).pick(shuffled, 0.0, key) is known


def test_owners_are_the_same_in_every_process() -> None:
    """Callers in other processes and of other versions send a key to the same member: these owners stay."""
    assert owners(group(5), ["", "a", "user-1", "ключ", "\udc80"]) == {
        "": "i4",
        "a": "i3",
        "user-1": "i4",
        "ключ": "i3",
        "\udc80": "i1",
    }


def test_without_a_key_anybody_is_chosen() -> None:
    """A call that has no key is spread like any other."""
    members, strategy = group(4), balancer("consistent_hash")
    got = Counter(strategy.pick(members, 0.0, None).id for _ in range(1_000))
    assert min(got.values()) > 150


class BoundMachine(RuleBasedStateMachine):
    """Calls of few keys, one of them hot, begin and end; members of several weights come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.bound = 1.25
        self.strategy = balancer("consistent_hash", bound=self.bound)
        self.all = tuple(Member(f"i{number}", weight=1.0 + number % 3) for number in range(6))
        self.usable = self.all
        self.under_way: list[Member] = []

    @rule(key=st.sampled_from(["hot", "hot", "hot", "a", "b"]), calls=st.integers(1, 30))
    def call(self, key: str, calls: int) -> None:
        for _ in range(calls):
            member = self.strategy.pick(self.usable, 0.0, key)
            member.began(0.0)
            self.under_way.append(member)
            total = sum(each.in_flight for each in self.usable)
            part = member.weight / sum(each.weight for each in self.usable)
            assert member.in_flight <= self.bound * total * part + 1.0

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), calls=st.integers(1, 30))
    def end(self, data: st.DataObject, calls: int) -> None:
        for _ in range(min(calls, len(self.under_way))):
            self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1))).ended(0.0, 0.1, True)

    @rule(count=st.integers(1, 6))
    def change(self, count: int) -> None:
        self.usable = self.all[:count]

    @rule()
    def another_takes_over(self) -> None:
        """A second balancer of the same members counts their calls from here on."""
        balancer("consistent_hash").update(self.all[::2])


TestBound = BoundMachine.TestCase
"""However hot a key, no member is given more than bound × its part of the calls under way, + 1."""


def test_a_hot_key_stays_on_few_members() -> None:
    """The bound spills over to the next on the ring and not to everybody: 20 calls of one key at ten members that
    hold 8 others each."""
    members, strategy = group(10), balancer("consistent_hash")
    for member in members:
        for _ in range(8):
            member.began(0.0)
    strategy.update(members)
    got = Counter[str]()
    for _ in range(20):
        member = strategy.pick(members, 0.0, "hot")
        member.began(0.0)
        got[member.id] += 1
    assert 2 <= len(got) <= 8, got


def test_whom_to_avoid_is_passed_over_on_the_ring() -> None:
    """A second attempt goes where the key would go if the first one's member were gone, and spreads over all others."""
    members = group(6)
    strategy = balancer("consistent_hash")
    others = Counter[str]()
    for key in KEYS:
        first = strategy.pick(members, 0.0, key)
        second = strategy.pick(members, 0.0, key, [first.id])
        rest = tuple(member for member in members if member is not first)
        assert second is balancer("consistent_hash").pick(rest, 0.0, key) if len(others) < 20 else True
        assert second is not first
        if first is members[0]:
            others[second.id] += 1
    assert len(others) == 5
    assert strategy.pick(members[:1], 0.0, "k", ["i0"]) is members[0]


def test_whom_to_avoid_gets_nothing_though_all_others_are_full() -> None:
    """One call too many at another one is better than the instance that has just failed."""
    members, strategy = group(3), balancer("consistent_hash")
    for member in members[1:]:
        for _ in range(50):
            member.began(0.0)
    strategy.update(members)
    for key in KEYS[:50]:
        assert strategy.pick(members, 0.0, key, ["i0"]) is not members[0]


@given(st.lists(st.sets(st.integers(0, 11), min_size=1), min_size=1, max_size=8))
def test_a_ring_that_was_changed_is_the_ring_that_is_made_anew(changes: list[set[int]]) -> None:
    """Whoever came and went before, and in which order, decides nothing."""
    everybody = tuple(Member(f"i{number}", weight=1.0 + number % 3) for number in range(12))
    strategy = ConsistentHash(BalancerRules(name="consistent_hash"), random.Random(1).random)
    for change in changes:
        members = tuple(everybody[number] for number in sorted(change))
        fresh = ConsistentHash(BalancerRules(name="consistent_hash"), random.Random(2).random)
        for key in KEYS[:40]:
            assert strategy.pick(members, 0.0, key) is fresh.pick(members, 0.0, key)
        assert len(strategy._points) == len(fresh._points)


def test_many_members_have_fewer_points_each() -> None:
    """A thousand members make a ring that is still quick to build, and every key has an owner."""
    members, strategy = group(1_000), balancer("consistent_hash")
    got = Counter(strategy.pick(members, 0.0, key).id for key in KEYS)
    assert repr(strategy) == "<ConsistentHash 1000 members, 65000 points>"
    assert len(got) > 600
    assert max(got.values()) < 20


def test_more_members_than_the_ring_can_name_are_refused() -> None:
    """Said clearly, and not answered with a wrong member."""
    with pytest.raises(ValueError, match="at most 65535 members, got 65536"):
        balancer("consistent_hash").update([Member("i")] * 65_536)

"""What every balancer must do, whatever its strategy: one contract over the registry."""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Sequence
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nats_mesh.core.balancer import STRATEGIES, Balancer, Member, make
from nats_mesh.core.balancer.base import FULL, REPORT_S, SLOW_START_FLOOR, Tally
from nats_mesh.core.rules import BALANCERS, BalancerName, BalancerRules
from nats_mesh.errors import ConfigError
from tests.tools import scaled

every_strategy = pytest.mark.parametrize("name", sorted(STRATEGIES))

CALLS = 6_000


def balancer(
    name: BalancerName, seed: int = 1, *, slow_start_s: float = 0.0, bound: float = 1.25
) -> Balancer:
    """A seeded balancer of one strategy."""
    rules = BalancerRules(name=name, slow_start_s=slow_start_s, bound=bound)
    found = make(rules, random.Random(seed).random)
    assert found is not None
    return found


def group(count: int) -> tuple[Member, ...]:
    """So many equal members."""
    return tuple(Member(f"i{number}") for number in range(count))


def drive(
    strategy: Balancer,
    members: Sequence[Member],
    calls: int,
    *,
    busy: int,
    now: float = 0.0,
    took_s: float = 0.01,
) -> Counter[str]:
    """Who got how many of ``calls`` of as many keys, with ``busy`` of them under way at any time."""
    under_way: deque[Member] = deque()
    got: Counter[str] = Counter()
    for number in range(calls):
        if len(under_way) >= busy:
            under_way.popleft().ended(now, took_s, True)
        member = strategy.pick(members, now, f"key{number}")
        member.began(now)
        under_way.append(member)
        got[member.id] += 1
    while under_way:
        under_way.popleft().ended(now, took_s, True)
    return got


# -- the registry -----------------------------------------------------------------------------------


def test_every_balancer_of_the_rules_is_in_the_registry() -> None:
    """Whatever a policy may name can be made; ``queue`` alone has nothing to choose with."""
    assert {*STRATEGIES, "queue"} == set(BALANCERS)
    assert make(BalancerRules(name="queue"), random.random) is None


@every_strategy
def test_a_balancer_says_the_name_it_is_registered_by(name: BalancerName) -> None:
    """What is printed is what was written."""
    assert balancer(name).name == name


# -- the contract -----------------------------------------------------------------------------------


class BalancerMachine(RuleBasedStateMachine):
    """Members come and go, are ejected and return, calls begin and end, time passes."""

    name: ClassVar[BalancerName]

    def __init__(self) -> None:
        super().__init__()
        self.strategy = balancer(self.name, slow_start_s=5.0)
        self.now = 0.0
        self.born = 0
        self.members: list[Member] = []
        self.usable: tuple[Member, ...] = ()
        self.under_way: list[Member] = []

    @initialize(count=st.integers(1, 5))
    def begin(self, count: int) -> None:
        for _ in range(count):
            self._add(1.0, -math.inf)
        self.usable = tuple(self.members)

    def _add(self, weight: float, joined: float) -> None:
        self.members.append(Member(f"i{self.born}", weight=weight, joined=joined))
        self.born += 1

    @rule(weight=st.sampled_from([0.01, 1.0, 2.5, 100.0]))
    def join(self, weight: float) -> None:
        self._add(weight, self.now)
        self.usable = tuple(self.members)

    @precondition(lambda self: len(self.members) > 1)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.members.remove(data.draw(st.sampled_from(self.members)))
        self.usable = tuple(self.members)

    @rule(data=st.data())
    def narrow(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.members), min_size=1, unique=True))
        self.usable = tuple(chosen)

    @rule()
    def tell_again(self) -> None:
        self.strategy.update(self.usable)

    @rule(data=st.data(), share=st.sampled_from([0.05, 1.0]))
    def reweigh(self, data: st.DataObject, share: float) -> None:
        data.draw(st.sampled_from(self.members)).share = share
        self.strategy.update(self.usable)

    @rule(key=st.none() | st.text(max_size=3), calls=st.integers(1, 8))
    def call(self, key: str | None, calls: int) -> None:
        for _ in range(calls):
            member = self.strategy.pick(self.usable, self.now, key)
            assert any(member is each for each in self.usable)
            member.began(self.now)
            self.under_way.append(member)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), took_s=st.floats(0.0, 10.0), ok=st.sampled_from([True, False, None]))
    def end(self, data: st.DataObject, took_s: float, ok: bool | None) -> None:
        member = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        member.said(self.now, data.draw(st.integers(0, 300)), data.draw(st.sampled_from([0, 64])))
        member.ended(self.now, took_s, ok)

    @rule(data=st.data())
    def end_what_never_began(self, data: st.DataObject) -> None:
        idle = [member for member in self.members if member.in_flight == 0]
        if idle:
            data.draw(st.sampled_from(idle)).ended(self.now, 0.0, True)

    @rule(seconds=st.floats(0.0, 20.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def counts_are_those_of_the_calls(self) -> None:
        held = Counter(member.id for member in self.under_way)
        for member in self.members:
            assert member.in_flight == held[member.id] >= 0
            assert member.load(self.now) >= member.in_flight


@every_strategy
def test_every_choice_is_a_current_member(name: BalancerName) -> None:
    """Through any churn a choice is one of those that may be chosen, and loads are the calls under way."""
    machine = type(f"{name} machine", (BalancerMachine,), {"name": name})
    run_state_machine_as_test(machine, settings=settings(max_examples=scaled(30, 400)))


@every_strategy
def test_the_only_member_gets_every_call(name: BalancerName) -> None:
    """One member needs no strategy; a key, no key and load change nothing."""
    (only,) = members = group(1)
    strategy = balancer(name)
    for key in (None, "", "a"):
        strategy.pick(members, 0.0, key).began(0.0)
    assert only.in_flight == 3


@every_strategy
@pytest.mark.parametrize("busy", [1, 20])
def test_equal_members_share_evenly(name: BalancerName, busy: int) -> None:
    """Nobody is preferred for its place in the list: each of four gets a quarter, within a quarter of that."""
    got = drive(balancer(name), group(4), CALLS, busy=busy)
    assert all(abs(count - CALLS / 4) < CALLS / 16 for count in got.values()), got


@every_strategy
@pytest.mark.parametrize("busy", [1, 2, 40])
def test_weights_are_respected(name: BalancerName, busy: int) -> None:
    """Three times the weight is three times the calls, with one call under way as with forty (± 5 points)."""
    members = (Member("light", weight=0.5), Member("heavy", weight=1.5), Member("other", weight=0.5))
    got = drive(balancer(name), members, CALLS, busy=busy)
    assert got["heavy"] / CALLS == pytest.approx(0.6, abs=0.05), got


@every_strategy
def test_a_weight_that_was_set_takes_effect_when_told(name: BalancerName) -> None:
    """A weight may change while the members stay; ``update`` says so."""
    members = group(3)
    strategy = balancer(name)
    drive(strategy, members, 100, busy=1)
    members[0].weight = 4.0
    strategy.update(members)
    got = drive(strategy, members, CALLS, busy=1)
    assert got["i0"] / CALLS == pytest.approx(4 / 6, abs=0.05), got


@every_strategy
def test_a_new_member_warms_up(name: BalancerName) -> None:
    """Where many calls are under way a new member begins with few, has half of its share half-way, then all."""
    members = (*group(3), Member("new", joined=100.0))
    strategy, shares = balancer(name, slow_start_s=10.0), []
    for age in (0.0, 5.0, 10.0):
        got = drive(strategy, members, CALLS, busy=60, now=100.0 + age)
        shares.append(got["new"] / CALLS)
    assert shares[0] <= 0.05, shares
    assert shares[0] < shares[1] < shares[2], shares
    assert shares[2] == pytest.approx(0.25, abs=0.05), shares


@every_strategy
def test_who_was_there_at_first_sight_is_not_new(name: BalancerName) -> None:
    """A caller that starts does not treat a running service as new."""
    got = drive(balancer(name, slow_start_s=1e6), group(4), CALLS, busy=20)
    assert min(got.values()) > CALLS / 6, got


@every_strategy
def test_a_changed_set_is_noticed(name: BalancerName) -> None:
    """Another sequence is enough: nobody has to say that the members changed."""
    members = group(4)
    strategy = balancer(name)
    drive(strategy, members, 100, busy=1)
    assert set(drive(strategy, members[:2], 100, busy=1)) == {"i0", "i1"}
    assert set(drive(strategy, members, 200, busy=1)) == {"i0", "i1", "i2", "i3"}


@every_strategy
def test_a_list_that_changed_in_place_is_noticed_when_told(name: BalancerName) -> None:
    """The same list with another content takes effect with ``update``."""
    members = list(group(4))
    strategy = balancer(name)
    drive(strategy, members, 100, busy=1)
    del members[2:]
    strategy.update(members)
    assert set(drive(strategy, members, 100, busy=1)) == {"i0", "i1"}


@every_strategy
def test_an_empty_set_may_be_told(name: BalancerName) -> None:
    """Nobody there is a state like any other; the next members find a balancer that works."""
    strategy = balancer(name)
    strategy.update(())
    assert set(drive(strategy, group(2), 100, busy=1)) == {"i0", "i1"}


@every_strategy
def test_the_same_seed_makes_the_same_choices(name: BalancerName) -> None:
    """All chance is passed in: a simulation can be repeated."""

    def trace() -> list[str]:
        strategy, members = balancer(name, seed=7), group(5)
        return [strategy.pick(members, 0.0, None).id for _ in range(200)]

    assert trace() == trace()


@every_strategy
def test_the_highest_number_that_chance_gives_is_no_accident(name: BalancerName) -> None:
    """The largest float below 1 still draws a member, with equal and with unequal weights."""
    strategy = make(BalancerRules(name=name), lambda: math.nextafter(1.0, 0.0))
    assert strategy is not None
    for members in (group(3), (Member("a", weight=0.1), Member("b", weight=0.7), Member("c", weight=0.1))):
        for _ in range(20):
            assert strategy.pick(members, 0.0, None) in members


# -- members ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, math.nan])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    """No weight means no calls, and that is said by leaving the instance out."""
    with pytest.raises(ConfigError, match="instance i1: its weight must be a number above 0"):
        Member("i1", weight=weight)


def test_load_is_our_own_calls_and_what_was_said_of_others() -> None:
    """Of what an instance says, our own calls are known already; the rest is added."""
    member = Member("a")
    for _ in range(3):
        member.began(0.0)
    assert member.load(0.0) == 3.0
    member.said(0.0, 10, 64)
    member.ended(0.0, 0.1, True)
    assert member.load(0.0) == 2.0 + 7.0
    assert (member.reported, member.limit, member.reported_at) == (10, 64, 0.0)


def test_what_was_said_fades_and_is_ignored_then() -> None:
    """Half of it counts after half of the time, nothing after all of it."""
    member = Member("a")
    member.said(10.0, 8, 64)
    assert member.load(10.0 + REPORT_S / 2) == pytest.approx(4.0)
    assert member.load(10.0 + REPORT_S) == 0.0


def test_a_full_member_is_loaded_beyond_all_others() -> None:
    """Who said that it takes no more is taken only where the others are full as well; until that is old news."""
    full, busy = Member("full"), Member("busy")
    full.said(0.0, 4, 4)
    busy.said(0.0, 100, 256)
    assert full.load(0.0) > FULL > busy.load(0.0)
    assert full.load(REPORT_S) == 0.0
    unlimited = Member("unlimited")
    unlimited.said(0.0, 4, 0)
    assert unlimited.load(0.0) == 4.0


def test_what_was_said_is_never_less_than_nothing() -> None:
    """An instance that has not yet seen all our calls says fewer than we have under way."""
    member = Member("a")
    for _ in range(5):
        member.began(0.0)
    member.said(0.0, 2, 64)
    assert member.load(0.0) == 5.0


def test_worth_climbs_from_a_tenth() -> None:
    """A straight line from 10 % to 100 %, and never more or less than that."""
    member = Member("a", weight=2.0, joined=100.0)
    assert member.worth(90.0, 10.0) == pytest.approx(2.0 * SLOW_START_FLOOR)
    assert member.worth(100.0, 10.0) == pytest.approx(0.2)
    assert member.worth(105.0, 10.0) == pytest.approx(1.1)
    assert member.worth(110.0, 10.0) == 2.0
    assert member.worth(100.0, 0.0) == 2.0
    member.share = 0.5
    assert member.worth(110.0, 10.0) == 1.0


def test_a_failure_never_makes_a_member_look_fast() -> None:
    """A member that fails at once costs twice what it did, up to a bound; a call broken off says nothing."""
    member = Member("a")
    member.measure()
    assert member.cost is not None
    for took_s, ok in ((0.1, True), (0.001, False)):
        member.began(0.0)
        member.ended(0.0, took_s, ok)
    assert member.cost.value(0.0) == pytest.approx(0.2)
    member.began(0.0)
    member.ended(0.0, 5.0, None)
    assert member.cost.value(0.0) == pytest.approx(0.2)
    for _ in range(50):
        member.began(0.0)
        member.ended(0.0, 0.001, False)
    assert member.cost.value(0.0) == pytest.approx(10.0)


def test_a_tally_counts_one_balancers_members() -> None:
    """It holds what its members hold, and knows when another one took a member over."""
    one, other = Member("a"), Member("b")
    one.began(0.0)
    first = Tally()
    one.count_in(first)
    other.count_in(first)
    other.began(0.0)
    assert (first.in_flight, first.whole) == (2, True)
    one.ended(0.0, 0.0, True)
    assert first.in_flight == 1
    other.count_in(second := Tally())
    assert not first.whole
    assert (second.in_flight, second.whole) == (1, True)


def test_a_member_shows_itself() -> None:
    """What a log or a failing test prints says who, where and how loaded."""
    assert repr(Member("a", zone="z1", weight=2.0)) == "<Member a z1 weight 2 in flight 0>"

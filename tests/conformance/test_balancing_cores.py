"""The cases of the gRPC xDS interop tests and of Envoy that concern balancing, held to the cores with a fake clock.

The same cases with real processes and a server stand beside this file; here every strategy is put to them, and
times of minutes cost nothing.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import pytest

from nats_mesh.clock import ManualClock
from nats_mesh.core.balancer import STRATEGIES, Member, choose_zone, make
from nats_mesh.core.ejection import Ejection, Ejector
from nats_mesh.core.rules import BalancerName, BalancerRules, EjectionRules

every_strategy = pytest.mark.parametrize("name", sorted(STRATEGIES))

TIMEOUT_S = 0.5
"""How long an attempt waits."""


class Fleet:
    """One caller and its instances: calls at a steady rate, each answered after a while, refused, or not at all."""

    def __init__(
        self,
        members: Sequence[Member],
        balancer: BalancerRules,
        ejection: EjectionRules | None = None,
        *,
        zone: str = "",
        seed: int = 1,
    ) -> None:
        self.clock = ManualClock()
        self.members = tuple(members)
        self.rules = balancer
        self.zone = zone
        chance = random.Random(seed).random
        strategy = make(balancer, chance)
        assert strategy is not None
        self.strategy = strategy
        self.ejector = Ejector(ejection or EjectionRules(), chance)
        self.failing: set[str] = set()
        self.frozen: set[str] = set()
        self.down: set[str] = set()
        self.ejections: list[Ejection] = []
        self._ids = tuple(member.id for member in self.members)
        self._usable: Sequence[Member] = ()
        self._because: tuple[Sequence[str], frozenset[str]] | None = None
        self._ends: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0

    def run(self, calls: int, *, per_s: float = 100.0) -> Counter[str]:
        """Who got how many of so many calls, and what is due meanwhile."""
        got: Counter[str] = Counter()
        for _ in range(calls):
            self._number += 1
            self.clock.advance(1.0 / per_s)
            now = self.clock.monotonic()
            while self._ends and self._ends[0][0] <= now:
                at, _, end = heapq.heappop(self._ends)
                end(at)
            member = self._pick(now)
            got[member.id] += 1
            self._call(member, now)
        return got

    def _pick(self, now: float) -> Member:
        available = self.ejector.available(self._ids, now)
        because = (available, frozenset(self.down))
        if self._because is None or because[0] is not self._because[0] or because[1] != self._because[1]:
            self._because = because
            allowed = set(available) - self.down
            self._usable = self._choose([member for member in self.members if member.id in allowed])
        return self.strategy.pick(self._usable, now, f"user{self._number}")

    def _choose(self, healthy: Collection[Member]) -> Sequence[Member]:
        return choose_zone(self.members, self.zone, self.rules, healthy)

    def _call(self, member: Member, now: float) -> None:
        member.began(now)
        frozen, failed = member.id in self.frozen, member.id in self.failing
        took_s = TIMEOUT_S if frozen else 0.001

        def end(at: float) -> None:
            member.ended(at, took_s, not (frozen or failed))
            if frozen:
                self._note(self.ejector.silence(member.id, at, took_s))
            elif failed:
                self._note(self.ejector.failure(member.id, at))
            else:
                self.ejector.success(member.id, at)

        heapq.heappush(self._ends, (now + took_s, self._number, end))

    def _note(self, ejection: Ejection | None) -> None:
        if ejection is not None:
            self.ejections.append(ejection)


def group(count: int, zone: str = "") -> list[Member]:
    """So many instances."""
    return [Member(f"{zone}i{number}", zone=zone) for number in range(count)]


@every_strategy
def test_ping_pong(name: BalancerName) -> None:
    """ping_pong: 4 instances, 100 calls → each at least one."""
    got = Fleet(group(4), BalancerRules(name=name)).run(100)
    assert len(got) == 4


@pytest.mark.parametrize("seed", range(10))
def test_round_robin(seed: int) -> None:
    """round_robin: 2 instances, 100 calls → equal ± 1."""
    got = Fleet(group(2), BalancerRules(name="round_robin"), seed=seed).run(100)
    assert abs(got["i0"] - got["i1"]) <= 1


@every_strategy
def test_outlier_detection(name: BalancerName) -> None:
    """outlier_detection: 5 instances, one fails → the other 4 only; healed → all 5 again."""
    fleet = Fleet(group(5), BalancerRules(name=name))
    assert len(fleet.run(200)) == 5
    fleet.failing = {"i2"}
    fleet.run(200)
    got = fleet.run(200)
    if (
        name == "peak_ewma"
    ):  # avoids who fails by itself, and so seldom tries it that nothing is left to eject
        assert got["i2"] <= 2
    else:
        assert [ejection.id for ejection in fleet.ejections] == ["i2"]
        assert set(got) == {"i0", "i1", "i3", "i4"}
    fleet.failing = set()
    fleet.clock.advance(60.0)
    got = fleet.run(2_000)
    assert len(got) == 5
    assert got["i2"] > 200, "it has its share again"


@every_strategy
def test_outlier_that_stays_bad_is_tried_ever_less_often(name: BalancerName) -> None:
    """Envoy's growing times: within ten minutes a bad instance costs few calls, and is still tried now and then."""
    fleet = Fleet(group(5), BalancerRules(name=name))
    fleet.failing = {"i2"}
    got = fleet.run(12_000, per_s=20.0)
    assert 5 <= len(fleet.ejections) <= 20
    assert 10 < got["i2"] < 120
    if name != "peak_ewma":  # between its few attempts there a time as long as an ejection passes
        assert [ejection.times for ejection in fleet.ejections] == list(range(1, len(fleet.ejections) + 1))


@pytest.mark.parametrize("size", [2, 3, 4, 5, 10, 20])
def test_max_ejection_percent(size: int) -> None:
    """max_ejection_percent: cap reached → no more ejections, but never "nobody" for lack of ten hosts."""
    fleet = Fleet(group(size), BalancerRules(name="round_robin"))
    fleet.failing = {member.id for member in fleet.members}
    fleet.run(50 * size, per_s=1000.0)
    out = fleet.ejector.ejected(fleet.clock.monotonic())
    assert len(out) == max(1, size // 2)
    assert len(fleet.run(10 * size, per_s=1000.0)) == size - len(out)


@pytest.mark.parametrize("percent", [0.0, 0.1, 0.3])
def test_max_ejection_percent_of_ten(percent: float) -> None:
    """max_ejection_percent: 10 instances, 5 of them bad → as many out as the percentage says, at least one."""
    fleet = Fleet(group(10), BalancerRules(name="round_robin"), EjectionRules(max_ratio=percent))
    fleet.failing = {f"i{number}" for number in range(5)}
    fleet.run(500)
    out = {ejection.id for ejection in fleet.ejector.ejected(fleet.clock.monotonic())}
    assert len(out) == max(1, round(10 * percent))
    assert out <= fleet.failing


def test_panic() -> None:
    """Envoy's panic threshold: with fewer than half healthy all of them get calls, and with half again only these."""
    rules = EjectionRules(max_ratio=1.0)
    fleet = Fleet(group(4), BalancerRules(name="round_robin"), rules)
    fleet.failing = {"i0", "i1", "i2"}
    fleet.run(200)
    assert len(fleet.run(100)) == 4
    assert fleet.ejector.panicking
    fleet.failing = {"i0"}
    fleet.clock.advance(11.0)
    fleet.run(200)
    assert set(fleet.run(100)) == {"i1", "i2", "i3"}
    assert not fleet.ejector.panicking


@every_strategy
def test_failover(name: BalancerName) -> None:
    """failover: 3 primary + secondary zone: 1 down → primary; 2 → mixed; 3 → secondary; back again."""
    rules = BalancerRules(name=name, locality=True)
    fleet = Fleet([*group(3, "p"), *group(2, "s")], rules, zone="p")
    expected = [({"p"}, 0), ({"p"}, 1), ({"p", "s"}, 2), ({"s"}, 3), ({"p", "s"}, 2), ({"p"}, 1), ({"p"}, 0)]
    for zones, down in expected:
        fleet.down = {f"pi{number}" for number in range(down)}
        got = fleet.run(400)
        assert {id[0] for id in got} == zones, (down, got)
        assert not fleet.down & set(got)


@pytest.mark.parametrize(
    "name", sorted({*STRATEGIES} - {"peak_ewma"})
)  # which ejects hardly anybody: see above
def test_failover_by_ejection(name: BalancerName) -> None:
    """failover, by what calls tell: a zone whose instances fail gives up what it cannot carry, and gets it back."""
    rules = BalancerRules(name=name, locality=True)
    fleet = Fleet([*group(3, "p"), *group(3, "s")], rules, zone="p")
    fleet.failing = {"pi0", "pi1"}
    fleet.run(400)
    got = fleet.run(400)
    assert {id[0] for id in got} == {"p", "s"}
    assert not fleet.failing & set(got)
    fleet.failing = set()
    fleet.clock.advance(11.0)
    assert {id[0] for id in fleet.run(200)} == {"p"}


@pytest.mark.parametrize("name", ["least_request", "peak_ewma"])
def test_frozen_instance_loses_its_share(name: BalancerName) -> None:
    """SIGSTOP: with 500 ms attempts the share of a frozen instance is at most 1 % after 3 s; awake, it has it back."""
    fleet = Fleet(group(5), BalancerRules(name=name))
    fleet.run(600, per_s=200.0)
    fleet.frozen = {"i3"}
    fleet.run(600, per_s=200.0)
    got = fleet.run(8_000, per_s=200.0)
    assert got["i3"] / 8_000 <= 0.01, got
    assert {ejection.reason for ejection in fleet.ejections} <= {"silent"}
    fleet.frozen = set()
    fleet.clock.advance(60.0)
    got = fleet.run(8_000, per_s=200.0)
    assert got["i3"] > 800, got


def test_frozen_fleet_ejects_nobody() -> None:
    """Where nobody answers any more, silence says nothing about anybody."""
    fleet = Fleet(group(4), BalancerRules(name="least_request"))
    fleet.run(400)
    fleet.frozen = {member.id for member in fleet.members}
    assert len(fleet.run(1_000)) == 4
    assert fleet.ejections == []

"""When an instance leaves its queue group, and when it is back."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nats_mesh.core.credit import Credit, Seat, is_full, is_roomy

FULL, ROOMY = [(2, 2)], [(0, 2)]


def spent(credit: Credit, now: float = 100.0) -> Credit:
    """``credit`` after it has filled up at ``now``."""
    assert credit.look(now, FULL, True) is Seat.SPENT
    return credit


def test_who_asks_for_no_credit_keeps_the_seat() -> None:
    """Without an endpoint that asks for it nothing is ever left."""
    assert Credit().look(0.0, [], True) is Seat.OPEN


def test_who_is_full_says_so_first_and_leaves_a_moment_later() -> None:
    """Two that fill up together hear of each other before either leaves."""
    credit = spent(Credit(), 0.0)  # as 100.05 - 100.0 is a little less than 0.05
    assert credit.look(0.04, FULL, True) is Seat.SPENT
    assert credit.look(0.05, FULL, True) is Seat.LEFT


def test_nobody_leaves_while_no_other_has_room() -> None:
    """A full instance that is the only one with a seat keeps it, however long that lasts."""
    credit = spent(Credit())
    assert {credit.look(100.0 + n, FULL, False) for n in range(100)} == {Seat.SPENT}
    assert credit.look(200.0, FULL, True) is Seat.LEFT


def test_who_left_stays_away_for_a_second() -> None:
    """Room that comes back sooner does not make subscriptions come and go."""
    credit = spent(Credit())
    credit.look(101.0, FULL, True)
    assert credit.look(101.99, ROOMY, True) is Seat.LEFT
    assert credit.look(102.0, ROOMY, True) is Seat.OPEN


def test_who_has_no_room_stays_away() -> None:
    """Away it is until there is room, and a little more of it than one slot of many."""
    credit = spent(Credit())
    credit.look(101.0, [(100, 100)], True)
    for in_flight in (100, 99, 76):
        assert credit.look(150.0, [(in_flight, 100)], True) is Seat.LEFT
    assert credit.look(150.0, [(75, 100)], True) is Seat.OPEN


@pytest.mark.parametrize(("loads", "seat"), [(FULL, Seat.SPENT), (ROOMY, Seat.OPEN)])
def test_where_all_others_vanish_it_is_back_at_once(loads: list[tuple[int, int]], seat: Seat) -> None:
    """Full or not, before its second is over: somebody must sit there."""
    credit = spent(Credit())
    credit.look(101.0, FULL, True)
    assert credit.look(101.001, loads, False) is seat


def test_it_leaves_at_most_once_a_second() -> None:
    """Also where it had to come back at once, and others appear again."""
    credit = spent(Credit())
    credit.look(101.0, FULL, True)
    credit.look(101.1, FULL, False)
    assert credit.look(101.9, FULL, True) is Seat.SPENT
    assert credit.look(102.0, FULL, True) is Seat.LEFT


@pytest.mark.parametrize("loads", [FULL, ROOMY])
def test_rounding_does_not_shorten_the_second(loads: list[tuple[int, int]]) -> None:
    """An instant a little less than a second later is not a second later, though its sum would be rounded to it."""
    left_at, now = 127.00000000000001, 128.0
    assert (now - left_at < 1.0, left_at + 1.0 <= now) == (True, True)
    credit = spent(Credit())
    assert credit.look(left_at, FULL, True) is Seat.LEFT
    if loads is FULL:
        assert credit.look(left_at, FULL, False) is Seat.SPENT
        assert credit.look(now, FULL, True) is Seat.SPENT
        assert credit.look(128.1, FULL, True) is Seat.LEFT
    else:
        assert credit.look(now, ROOMY, True) is Seat.LEFT
        assert credit.look(128.1, ROOMY, True) is Seat.OPEN


def test_when_the_rules_end_the_seat_is_open() -> None:
    """A policy that is taken away takes the pause with it."""
    credit = spent(Credit())
    credit.look(101.0, FULL, True)
    assert credit.look(101.1, [], True) is Seat.OPEN


def test_one_full_endpoint_makes_the_instance_full() -> None:
    """The seat serves all endpoints: one that is full would have to refuse."""
    assert is_full([(0, 8), (4, 4)])
    assert not is_full([(7, 8), (3, 4)])
    assert is_roomy([(6, 8), (3, 4)])
    assert not is_roomy([(0, 8), (4, 4)])
    assert is_roomy([(0, 1)])
    assert not is_roomy([(1, 1)])
    assert not is_roomy([(900, 500)]), "a limit that was lowered while calls ran"


class CreditMachine(RuleBasedStateMachine):
    """Whatever comes in whatever order: the promises of the module hold."""

    def __init__(self) -> None:
        super().__init__()
        self.credit = Credit()
        self.now = 100.0
        self.loads: list[tuple[int, int]] = [(0, 4)]
        self.others = True
        self.left_at: list[float] = []

    def look(self) -> None:
        """Look, and note what it led to."""
        before = self.credit.seat
        seat = self.credit.look(self.now, self.loads, self.others)
        if seat is Seat.LEFT and before is not Seat.LEFT:
            assert before is Seat.SPENT, "it said so first"
            assert self.others
            assert is_full(self.loads)
            self.left_at.append(self.now)
        if before is Seat.LEFT and seat is not Seat.LEFT and self.others and self.loads:
            assert self.now - self.left_at[-1] >= 1.0
            assert is_roomy(self.loads)

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.05, 0.3, 1.0, 5.0]))
    def pass_time(self, seconds: float) -> None:
        """Time goes on."""
        self.now += seconds
        self.look()

    @rule(in_flight=st.integers(0, 6), limit=st.integers(1, 5))
    def call(self, in_flight: int, limit: int) -> None:
        """Calls come and go, limits change."""
        self.loads = [(in_flight, limit)]
        self.look()

    @rule(others=st.booleans())
    def hear(self, others: bool) -> None:
        """Others appear and vanish."""
        self.others = others
        self.look()

    @precondition(lambda self: self.loads)
    @rule()
    def end_rules(self) -> None:
        """The policy goes."""
        self.loads = []
        self.look()

    @invariant()
    def somebody_sits_there(self) -> None:
        """It is away only while another has room."""
        assert self.credit.seat is not Seat.LEFT or (self.others and self.loads)

    @invariant()
    def leaves_are_apart(self) -> None:
        """At most one a second."""
        assert all(b - a >= 1.0 for a, b in zip(self.left_at, self.left_at[1:], strict=False))


TestCreditMachine = CreditMachine.TestCase

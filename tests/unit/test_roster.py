"""Who ought to be there, by the newest sign of each instance (`nats_mesh.core.roster`)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.past import Sign
from nats_mesh.core.roster import Roster

WITHIN_S = 75.0
PATIENCE_S = 20.0
KEY = ("shop", "i1")


def due(roster: Roster[int], now: float) -> list[tuple[tuple[str, str], int, float]]:
    """Who ought to be there."""
    return [tuple(each) for each in roster.due(now, {"shop": PATIENCE_S})]  # type: ignore[misc]  # each is those three


def test_the_newest_sign_speaks_for_an_instance_until_observers_would_have_dropped_it() -> None:
    """Its promise, and then as long as silence is put up with; not a second more."""
    roster: Roster[int] = Roster()
    roster.take(KEY, Sign(at=0.0, within_s=WITHIN_S, start=True), 1)
    roster.take(KEY, Sign(at=60.0, within_s=WITHIN_S), 2)
    assert due(roster, 61.0) == [(KEY, 2, 1.0)]
    assert due(roster, 60.0 + WITHIN_S + PATIENCE_S) == [(KEY, 2, WITHIN_S + PATIENCE_S)]
    assert due(roster, 60.1 + WITHIN_S + PATIENCE_S) == []


def test_who_said_goodbye_is_not_there_until_he_is_heard_again() -> None:
    """Also at once, and a new start counts."""
    roster: Roster[int] = Roster()
    roster.take(KEY, Sign(at=0.0, within_s=WITHIN_S, start=True), 1)
    roster.take(KEY, Sign(at=1.0, within_s=WITHIN_S, end=True), 2)
    assert due(roster, 1.0) == []
    roster.take(KEY, Sign(at=2.0, within_s=WITHIN_S, start=True), 3)
    assert due(roster, 2.0) == [(KEY, 3, 0.0)]


def test_more_instances_than_are_told_apart_are_told() -> None:
    """Those who are known stay known."""
    roster: Roster[int] = Roster(most=2)
    for number in range(3):
        roster.take(("shop", f"i{number}"), Sign(at=0.0, within_s=WITHIN_S), number)
    assert roster.more
    assert roster.sizes() == {"shop": 2}
    roster.take(("shop", "i1"), Sign(at=5.0, within_s=2 * WITHIN_S), 9)
    assert [value for _, value, _ in due(roster, 5.0)] == [0, 9]
    assert roster.longest_s == 2 * WITHIN_S


@given(
    gaps=st.lists(st.floats(1.0, WITHIN_S), min_size=1, max_size=8),
    asked=st.floats(0.0, WITHIN_S + PATIENCE_S),
    left=st.booleans(),
)
def test_nobody_who_keeps_his_promises_is_missing_and_nobody_who_left_is_there(
    gaps: list[float], asked: float, left: bool
) -> None:
    """Whatever the signs' rhythm."""
    roster: Roster[int] = Roster()
    at = 0.0
    for number, gap in enumerate(gaps):
        at += gap
        roster.take(KEY, Sign(at=at, within_s=WITHIN_S), number)
    if left:
        roster.take(KEY, Sign(at=at, within_s=WITHIN_S, end=True), -1)
    assert bool(due(roster, at + asked)) is not left

"""Burn rates held against a computation over every single second, and the levels that follow from them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.burn import (
    CALM_S,
    PAIRS,
    SLOTS,
    Alarm,
    Ledger,
    Level,
    Pair,
    Seen,
    pairs_for,
)

DAY = 86_400.0
SHARE = 0.999
BUDGET = 1.0 - SHARE

Second = tuple[float, int, int, float]

steps = st.lists(
    st.tuples(
        st.integers(1, 20_000).map(float),
        st.integers(0, 1000),
        st.floats(0.0, 1.0),
        st.sampled_from([0.0, 0.5, 1.0, 2.5]),
    ),
    min_size=1,
    max_size=60,
)


def _seconds(drawn: list[tuple[float, int, float, float]]) -> list[Second]:
    """Instants that only grow, each with its calls, how many of them were bad, and how long was looked."""
    now, found = 0.0, []
    for gap, calls, share, seen_s in drawn:
        now += gap
        found.append((now, calls, int(calls * share), seen_s))
    return found


@given(drawn=steps, wait=st.integers(0, 40_000).map(float))
def test_window_is_the_sum_of_its_seconds(drawn: list[tuple[float, int, float, float]], wait: float) -> None:
    """A window holds exactly the seconds of its last sixty buckets: all of 59/60 of its span, none older than it."""
    ledger = Ledger(PAIRS)
    seconds = _seconds(drawn)
    for second in seconds:
        ledger.add(*second)
    now = seconds[-1][0] + wait
    for seen in ledger.all(now):
        width = seen.window_s / SLOTS
        first = math.floor(now / width) - SLOTS + 1
        inside = [second for second in seconds if math.floor(second[0] / width) >= first]
        assert (seen.calls, seen.bad) == (sum(s[1] for s in inside), sum(s[2] for s in inside))
        assert seen.seen_s == pytest.approx(min(seen.window_s, sum(s[3] for s in inside)))
        surely = [second for second in seconds if second[0] > now - seen.window_s + width]
        at_most = [second for second in seconds if second[0] > now - seen.window_s]
        assert sum(s[1] for s in surely) <= seen.calls <= sum(s[1] for s in at_most)


@given(drawn=steps)
def test_level_is_what_the_definition_says_of_the_seconds(
    drawn: list[tuple[float, int, float, float]],
) -> None:
    """Whatever came, the level is that of the most urgent pair whose two windows both surely burn fast enough."""
    ledger, seconds, alarm = Ledger(PAIRS), _seconds(drawn), Alarm(SHARE, PAIRS)
    for at, second in enumerate(seconds):
        ledger.add(*second)
        now = second[0]

        def sure(window_s: float, now: float = now, at: int = at) -> float:
            width = window_s / SLOTS
            first = math.floor(now / width) - SLOTS + 1
            inside = [s for s in seconds[: at + 1] if math.floor(s[0] / width) >= first]
            calls, bad = sum(s[1] for s in inside), sum(s[2] for s in inside)
            seen_s = min(window_s, math.fsum(s[3] for s in inside))
            return bad / calls / BUDGET * min(1.0, seen_s / window_s) if calls else 0.0

        expected = max(
            (
                pair.level
                for pair in PAIRS
                if sure(pair.long_s) >= pair.factor and sure(pair.short_s) >= pair.factor
            ),
            default=Level.OK,
        )
        reading, _ = alarm.update(ledger, now)
        assert reading.level == expected
        assert alarm.level >= expected


@given(drawn=steps)
def test_unseen_time_never_raises_a_level(drawn: list[tuple[float, int, float, float]]) -> None:
    """Who has seen less of the same calls says no more than who has seen all of it."""
    some, all_of_it = Ledger(PAIRS), Ledger(PAIRS)
    alarm = Alarm(SHARE, PAIRS)
    for now, calls, bad, seen_s in _seconds(drawn):
        some.add(now, calls, bad, seen_s / 2.0)
        all_of_it.add(now, calls, bad, seen_s)
        assert alarm.read(some, now).level <= alarm.read(all_of_it, now).level
        assert alarm.read(some, now).possible >= alarm.read(some, now).level


class _Watched:
    """A promise watched once a second."""

    def __init__(self, share: float = SHARE, window_s: float = 30 * DAY) -> None:
        self.now = 0.0
        pairs = pairs_for(share, window_s)
        self.ledger, self.alarm = Ledger(pairs), Alarm(share, pairs)
        self.changes: list[tuple[float, Level]] = []

    def run(self, seconds: int, *, calls: int = 100, bad: int = 0, seen: float = 1.0) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.ledger.add(self.now, calls, bad, seen)
            if self.alarm.update(self.ledger, self.now)[1]:
                self.changes.append((self.now, self.alarm.level))


def test_outage_pages_within_a_minute_of_a_fresh_look() -> None:
    """Where everything fails, who has just begun to look is sure after 52 s: 1000 times the budget, of an hour."""
    watched = _Watched()
    watched.run(120, bad=100)
    assert watched.changes == [(52.0, Level.PAGE)]


def test_page_is_left_two_minutes_after_the_short_window_is_clean() -> None:
    """Down only after what raised it has not held for two minutes, so that it does not flutter."""
    watched = _Watched()
    watched.run(3600)
    watched.run(60, bad=100)
    assert watched.alarm.level is Level.PAGE
    watched.run(700)
    last, level = watched.changes[-1]
    assert level is not Level.PAGE
    assert 3660 + 240 + CALM_S <= last <= 3660 + 300 + CALM_S + 1


def test_blip_wakes_nobody() -> None:
    """Ten seconds of failures in an hour do not page: the long window does not burn."""
    watched = _Watched()
    watched.run(3000)
    watched.run(5, bad=100)
    watched.run(600)
    assert watched.changes == []


def test_slow_leak_is_a_ticket() -> None:
    """Twice the budget for two thirds of three days is a ticket, and never a page."""
    watched = _Watched()
    for _ in range(3 * 24 * 60):
        watched.now += 60.0
        watched.ledger.add(watched.now, 10_000, 20, 60.0)
        if watched.alarm.update(watched.ledger, watched.now)[1]:
            watched.changes.append((watched.now, watched.alarm.level))
    assert [level for _, level in watched.changes] == [Level.TICKET]
    assert 1.4 * DAY < watched.changes[0][0] < 1.6 * DAY


def test_adopted_level_is_not_taken_back_unseen() -> None:
    """What another watcher said stays until one's own look is long enough to say otherwise; one's own word does not."""
    watched = _Watched()
    watched.alarm.adopt(Level.PAGE, 0.0)
    watched.run(1500)
    assert (
        watched.alarm.level is Level.PAGE
    )  # the windows of 5 min are clean, those of 30 min were not seen yet
    watched.run(400)
    ((at, level),) = watched.changes
    assert level is Level.OK
    assert at == pytest.approx(0.9 * 1800 + CALM_S, abs=32.0)


def test_adopting_less_changes_nothing() -> None:
    """Somebody else's milder word does not lower a level."""
    watched = _Watched()
    watched.run(60, bad=100)
    watched.alarm.adopt(Level.TICKET, watched.now)
    assert watched.alarm.level is Level.PAGE


def test_no_calls_burn_nothing() -> None:
    """Without a call nothing fails."""
    watched = _Watched()
    watched.run(100, calls=0)
    assert all(seen.burn(BUDGET) == 0.0 for seen in watched.ledger.all(watched.now))
    assert watched.alarm.level is Level.OK


@pytest.mark.parametrize(
    ("share", "window_s", "expected"),
    [
        (0.999, 30 * DAY, PAIRS),
        (0.999, 90 * DAY, PAIRS),
        # Ten times as many failures as allowed is all there can be.
        (0.9, 30 * DAY, PAIRS[1:]),
        (0.5, 30 * DAY, (PAIRS[3],)),
        (
            0.999,
            DAY,
            (
                PAIRS[0],
                Pair(6 * 3600.0, 1800.0, 4.0, Level.PAGE),
                Pair(DAY, 7200.0, 1.0, Level.TICKET),
            ),
        ),
        (0.999, 3600.0, (Pair(3600.0, 300.0, 1.0, Level.PAGE),)),
        (0.0, 30 * DAY, ()),
    ],
)
def test_pairs_are_those_that_can_hold(share: float, window_s: float, expected: tuple[Pair, ...]) -> None:
    """No pair looks further back than the promise, none asks for more than the whole budget or for more failures than
    there can be calls."""
    assert pairs_for(share, window_s) == expected


def test_seen_says_what_is_known() -> None:
    """Of twelve minutes of six hours, the rate is that of the twelve; what is sure is spread over the six hours."""
    seen = Seen(6 * 3600.0, 1000, 30, 12 * 60.0)
    assert seen.burn(BUDGET) == pytest.approx(30.0)
    assert seen.sure(BUDGET) == pytest.approx(1.0)
    assert seen.part == pytest.approx(1 / 30)

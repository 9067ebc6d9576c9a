"""Numbers of messages: what comes twice is left out, gaps are counted, and nobody is muted by who says his numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.numbering import (
    AHEAD,
    AHEAD_PER_S,
    ANEW_S,
    KEPT,
    SILENT_S,
    Numbering,
    Step,
    Succession,
)

TOP = 2**53 - 1

#: Numbers of those who say what they like: anywhere, and near those of the sender.
FORGED = st.lists(
    st.one_of(st.integers(1, 100), st.integers(1, TOP), st.integers(1, 30).map(lambda n: n * AHEAD)),
    max_size=40,
)


def said(number: int, part: int = 0) -> bytes:
    """What a message says."""
    return b"%d.%d" % (number, part)


def take(numbers: Numbering, number: int, now: float = 0.0, *, sender: str = "a", part: int = 0) -> bool:
    """One message of a sender."""
    return numbers.is_news(sender, number, said(number, part), now)


# -- messages that each say something -----------------------------------------------------------------


def test_what_was_said_already_is_no_news_and_gaps_are_counted() -> None:
    """Another part of the same number is news, and the same part is none; one that comes late was not heard yet."""
    numbers = Numbering(10)
    assert [take(numbers, number) for number in (5, 6, 9, 6, 9, 10, 8)] == [
        True, True, True, False, False, True, True,
    ]  # fmt: skip
    assert (numbers.lost, len(numbers)) == (2, 1)
    assert [take(numbers, 11, part=part) for part in (0, 1, 1, 2)] == [True, True, False, True]
    assert numbers.lost == 2


@given(st.lists(FORGED, min_size=1, max_size=30), st.integers(1, TOP - 100))
def test_nobody_is_muted_whatever_others_say_in_his_name(forged: list[list[int]], first: int) -> None:
    """Each message of the sender is taken once, and not again when it comes twice in a row."""
    numbers = Numbering(10)
    for at, numbers_said in enumerate(forged):
        for turn, number in enumerate(numbers_said):
            numbers.is_news("a", number, b"forged %d %d" % (at, turn), float(at))
        assert take(numbers, first + at, float(at))
        assert not take(numbers, first + at, float(at))


@given(st.lists(st.integers(1, AHEAD), min_size=1, max_size=50), st.integers(1, TOP // 2))
def test_what_is_missing_is_what_never_came(steps: list[int], first: int) -> None:
    """While nobody else speaks, exactly."""
    numbers = Numbering(10)
    number = first
    take(numbers, number)
    for step in steps:
        number += step
        assert take(numbers, number)
    assert numbers.lost == sum(steps) - len(steps)


@given(st.lists(st.integers(10 * AHEAD, TOP), max_size=40))
def test_a_number_that_nobody_can_have_come_to_is_no_gap(forged: list[int]) -> None:
    """However far ahead it is, what lies between is not said to be missing."""
    numbers = Numbering(10)
    take(numbers, 1)
    for at, number in enumerate(forged):
        before = numbers.lost
        numbers.is_news("a", number, b"forged %d" % at, 0.0)
        assert numbers.lost - before < AHEAD
    take(numbers, 2)


def test_what_a_sender_can_have_said_meanwhile_is_a_gap() -> None:
    """Who was away for an hour finds it an hour further on."""
    numbers = Numbering(10)
    take(numbers, 1)
    far = int(AHEAD + 3600 * AHEAD_PER_S)
    assert take(numbers, far, 3600.0)
    assert numbers.lost == far - 2


def test_what_is_known_again_is_bounded() -> None:
    """Of the messages of one sender the latest are; a number of them that others make up takes no memory."""
    numbers = Numbering(10)
    for number in range(10 * KEPT):
        take(numbers, number + 1)
    found, _ = numbers._senders["a"]
    assert len(found.said) == KEPT
    assert [take(numbers, 10 * KEPT - back) for back in range(KEPT)] == [False] * KEPT


def test_senders_are_bounded() -> None:
    """Who comes beyond that is not taken, and those that are known are."""
    numbers = Numbering(2)
    taken = [take(numbers, number, sender=each) for number, each in enumerate("abcab", 1)]
    assert taken == [True, True, False, True, True]
    assert len(numbers) == 2


def test_who_is_silent_makes_room() -> None:
    """Instances come and go: of those that are gone none keeps another one out for ever."""
    numbers = Numbering(2)
    assert take(numbers, 1, 0.0, sender="a")
    assert take(numbers, 1, 1.0, sender="b")
    assert take(numbers, 2, SILENT_S, sender="a")
    assert not take(numbers, 1, SILENT_S, sender="c")
    assert take(numbers, 1, SILENT_S + 1.0, sender="c"), "b was silent for long enough"
    assert not take(numbers, 1, SILENT_S + 1.0, sender="b"), "and a is known"
    assert len(numbers) == 2


# -- messages that are sums ---------------------------------------------------------------------------


def test_sums_are_taken_in_their_order() -> None:
    """A large message comes in several of one number; what is late is not added once more."""
    order = Succession()
    assert [order.take(number, 0.0) for number in (7, 7, 8, 20, 8, 21)] == [
        Step.NEXT, Step.SAME, Step.NEXT, Step.NEXT, Step.REFUSED, Step.NEXT,
    ]  # fmt: skip


def test_a_number_that_no_sender_can_have_come_to_is_refused() -> None:
    """It changes nothing for what comes afterwards."""
    order = Succession()
    order.take(1, 0.0)
    assert order.take(TOP, 1.0) is Step.REFUSED
    assert order.take(2, 1.0) is Step.NEXT
    assert order.take(2 + AHEAD + int(AHEAD_PER_S), 2.0) is Step.NEXT


@given(st.integers(2, TOP), st.integers(1, 1000), st.lists(st.floats(0.1, 2.0), min_size=1, max_size=60))
def test_whoever_said_high_numbers_and_falls_silent_mutes_nobody_for_long(
    forged: int, first: int, gaps: list[float]
) -> None:
    """From :data:`ANEW_S` after the forged one on, each message of the sender is taken; it begins anew at most once."""
    order = Succession()
    order.take(forged, 0.0)
    now, number, anew = 0.0, first, 0
    for gap in gaps:
        now, number = now + gap, number + 1
        step = order.take(number, now)
        anew += step is Step.ANEW
        if now >= ANEW_S:
            assert step is not Step.REFUSED or number - forged > AHEAD
    assert anew <= 1


@given(st.lists(st.tuples(st.integers(1, TOP), st.floats(0.0, 4.0)), max_size=60))
def test_within_an_era_numbers_never_fall(words: list[tuple[int, float]]) -> None:
    """Whatever comes: what is taken is not lower than what was, unless it is said to begin anew."""
    order, now = Succession(), 0.0
    for number, gap in words:
        now, before = now + gap, order.last
        step = order.take(number, now)
        assert order.last == (before if step is Step.REFUSED else number)
        assert (number < before) == (step is Step.ANEW) or step is Step.REFUSED

"""Numbers of messages: what comes twice is left out, gaps are counted, and nobody is muted by who says his numbers."""

from __future__ import annotations

import random

from nats_mesh.core.numbering import AHEAD, AHEAD_PER_S, SILENT_S, TRACKS, Numbering

TOP = 2**53 - 1


def test_news_are_taken_once_and_gaps_counted() -> None:
    """A number may come several times in a row; an older one is none any more."""
    numbers = Numbering(10)
    taken = [numbers.is_news("a", number, 0.0) for number in (5, 5, 6, 9, 6, 9, 10)]
    assert taken == [True, True, True, True, False, True, True]
    assert numbers.lost == 2
    assert len(numbers) == 1


def test_a_sender_is_not_muted_by_a_number_far_ahead() -> None:
    """Whoever says the last number there is in its name changes nothing for what comes after, and is no gap of 10¹⁶."""
    numbers = Numbering(10)
    for number in range(1, 50):
        assert numbers.is_news("a", number, float(number))
        numbers.is_news("a", TOP, float(number))
    assert numbers.lost == 0


def test_what_a_sender_can_have_said_meanwhile_is_no_other_track() -> None:
    """Who was away for an hour finds it an hour further on."""
    numbers = Numbering(10)
    numbers.is_news("a", 1, 0.0)
    far = int(AHEAD + 3600 * AHEAD_PER_S)
    assert numbers.is_news("a", far, 3600.0)
    assert numbers.lost == far - 2


def test_whoever_comes_first_has_no_say_over_who_comes_later() -> None:
    """A forged first message, low or high, costs the sender's own at most one."""
    for forged in (1, TOP):
        numbers = Numbering(10)
        numbers.is_news("a", forged, 0.0)
        taken = [numbers.is_news("a", number, 1.0) for number in range(500_000, 500_005)]
        assert taken[1:] == [True] * 4


def test_between_two_of_a_senders_own_there_is_room_for_some_made_up_ones() -> None:
    """However far they are from each other; as many as there are tracks, less two."""
    rng = random.Random(7)
    numbers = Numbering(10)
    numbers.is_news("a", 1, 0.0)
    for number in range(2, 100):
        for _ in range(TRACKS - 2):
            numbers.is_news("a", rng.randrange(1, TOP), 0.0)
        assert numbers.is_news("a", number, 0.0)


def test_senders_are_bounded() -> None:
    """Who comes beyond that is not taken, and those that are known are."""
    numbers = Numbering(2)
    assert [numbers.is_news(each, 1, 0.0) for each in "abcab"] == [True, True, False, True, True]
    assert len(numbers) == 2


def test_who_is_silent_makes_room() -> None:
    """Instances come and go: of those that are gone none keeps another one out for ever."""
    numbers = Numbering(2)
    assert numbers.is_news("a", 1, 0.0)
    assert numbers.is_news("b", 1, 1.0)
    assert numbers.is_news("a", 2, SILENT_S)
    assert not numbers.is_news("c", 1, SILENT_S)
    assert numbers.is_news("c", 1, SILENT_S + 1.0), "b was silent for long enough"
    assert not numbers.is_news("a", 1, SILENT_S + 1.0), "and a is known"
    assert len(numbers) == 2

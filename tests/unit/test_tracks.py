"""What has ended in each series since it was looked at: whatever is said in a member's name, no call counts twice."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET

from nats_mesh.core.buckets import HistogramSnapshot
from nats_mesh.core.histogram import Histogram
from nats_mesh.core.numbering import AHEAD, ANEW_S
from nats_mesh.telemetry.ended import EndedCalls
from nats_mesh.telemetry.stats_messages import SeriesRow, SeriesSnapshot, StatsMessage
from nats_mesh.telemetry.tracks import MAX_SILENT, Kind, Tracks

KIND = Kind("shop", "i1", "in", "shop", "buy", "web", "")
START = 1000.0


def word(seq: int, calls: int, age_s: float, *, endpoint: str = "buy", instance: str = "i1") -> StatsMessage:
    """All that an instance has counted: so many calls that went well, in a series of that age."""
    took = Histogram()
    for _ in range(calls):
        took.record(0.01)
    series = SeriesSnapshot(
        side="in",
        service="shop",
        endpoint=endpoint,
        peer="web",
        age_s=age_s,
        statuses={"OK": calls},
        histogram=took.snapshot(),
        subset=UNSET,
    )
    return StatsMessage(
        instance=instance, service="shop", version="1.0.0", namespace="default", seq=seq, since_s=age_s,
        series=(series,),
    )  # fmt: skip


def ended(tracks: Tracks) -> int:
    """How many calls have ended since this was asked last."""
    return sum(news[0] for _, track in tracks if (news := track.take()) is not None)


@pytest.fixture
def tracks() -> Tracks:
    """Somebody looks from now on."""
    return Tracks(START, room=lambda key: True)


def test_messages_count_once_and_in_their_order(tracks: Tracks) -> None:
    """One that comes again or late changes nothing, and is counted as stale."""
    assert tracks.hear(word(1, 3, 1.0), START + 1.0)
    assert tracks.hear(word(3, 9, 3.0), START + 3.0)
    assert not tracks.hear(word(2, 5, 2.0), START + 3.0)
    assert tracks.hear(word(3, 9, 3.0), START + 3.0), "the same once more may be another part"
    assert (ended(tracks), tracks.stale) == (9, 1)


def test_a_number_far_ahead_is_not_followed(tracks: Tracks) -> None:
    """Nor what is said under it."""
    tracks.hear(word(1, 3, 1.0), START + 1.0)
    assert not tracks.hear(word(10 * AHEAD, 5000, 1.5), START + 1.5)
    assert tracks.hear(word(2, 4, 2.0), START + 2.0)
    assert (ended(tracks), tracks.stale) == (4, 1)


def test_whoever_told_first_and_falls_silent_is_not_gone_on_from(tracks: Tracks) -> None:
    """What he told stays told; the instance's own count from where they are once it is heard again."""
    tracks.hear(word(AHEAD, 7, 0.5), START + 0.5)
    assert ended(tracks) == 7
    taken = [tracks.hear(word(seq, 100 * seq, float(seq)), START + seq) for seq in range(1, 9)]
    assert taken == [False] * 5 + [True] * 3
    assert ended(tracks) == 200, "of the sixth, seventh and eighth the difference"
    assert len(tracks) == 1


def test_beginning_anew_keeps_what_had_ended(tracks: Tracks) -> None:
    """Calls of before that nobody has looked at are not lost with what they were counted by."""
    tracks.hear(word(50, 7, 1.0), START + 1.0)
    tracks.hear(word(2, 900, 9.0), START + 1.0 + ANEW_S)
    tracks.hear(word(3, 905, 10.0), START + 2.0 + ANEW_S)
    assert ended(tracks) == 12


def test_who_was_frozen_for_long_does_not_count_anew(tracks: Tracks) -> None:
    """A series that was forgotten because its member fell silent goes on from where it is when that comes back: what
    it had counted by then has counted, and nobody knows when the rest of it was. One that began meanwhile is new."""
    tracks.hear(word(1, 50, 1.0), START + 1.0)
    assert ended(tracks) == 50
    tracks.forget(KIND)
    assert len(tracks) == 0
    tracks.hear(word(2, 60, 200.0), START + 200.0)
    assert ended(tracks) == 0
    tracks.hear(word(3, 63, 201.0), START + 201.0)
    assert ended(tracks) == 3
    tracks.hear(word(4, 5, 10.0, endpoint="sell"), START + 202.0)
    assert ended(tracks) == 5


def test_more_who_fell_silent_than_are_remembered_count_from_now_on() -> None:
    """What is known of the silent is bounded; for whoever was put out of it, as for everybody who has not been heard
    since, the time of before counts for nothing."""
    tracks = Tracks(START, room=lambda key: True)
    for number in range(MAX_SILENT + 1):
        instance = f"i{number}"
        tracks.hear(word(1, 50, 1.0, instance=instance), START + 1.0)
        tracks.forget(KIND._replace(instance=instance))
    tracks.hear(word(2, 60, 200.0, instance="i0"), START + 200.0)
    tracks.hear(word(2, 60, 200.0, instance="i1"), START + 200.0)
    tracks.hear(word(1, 4, 2.0, instance="new"), START + 200.0)
    assert ended(tracks) == 4


def test_nothing_is_kept_of_who_told_nothing_that_is_kept() -> None:
    """Names that are made up cost no room beyond that of their series, and that goes with them."""
    tracks = Tracks(START, room=lambda key: key.endpoint == "buy")
    for number in range(50):
        tracks.hear(word(1, 1, 1.0, endpoint="other", instance=f"i{number}"), START)
    assert (len(tracks), tracks.overflowed, tracks._members) == (0, 50, {})
    tracks.hear(word(1, 1, 1.0), START)
    assert len(tracks._members) == 1
    tracks.forget(KIND)
    assert (len(tracks), tracks._members) == (0, {})


def test_an_alert_does_not_hear_of_callers_from_what_is_refused() -> None:
    """Who tells of his own calls is not learned from a number that nobody can have come to."""
    calls = EndedCalls(START)
    calls.hear(word(1, 1, 1.0), START + 1.0)
    calls.hear(word(10 * AHEAD, 9, 2.0), START + 2.0)
    assert calls.stale == 1
    assert {key: each.calls for key, each in calls.take(START + 2.0).items()} == {("shop", "buy"): 1}


@pytest.mark.parametrize("age_s", [0.0, 10.0, 1e9])
def test_who_says_less_in_an_instance_s_name_makes_no_call_count_twice(tracks: Tracks, age_s: float) -> None:
    """A lower number after a silence is believed, with however few calls and of whatever age; what the instance says
    then goes on from what it had said before."""
    added = []
    for told, at in (
        (word(2, 7, 1.0), 1.0),
        (word(1, 0, age_s), 10.0),
        (word(3, 7, 10.5), 10.5),
        (word(4, 9, 12.0), 12.0),
    ):
        assert tracks.hear(told, START + at)
        added.append(ended(tracks))
    assert added == [7, 0, 0, 2]


def test_who_said_more_than_an_instance_had_hides_one_word_of_it_in_part(tracks: Tracks) -> None:
    """Which of two was made up nobody can know: where the instance comes as far as was made up, the word counts from
    there; all others count wholly."""
    tracks.hear(word(50, 7, 1.0), START + 1.0)
    assert ended(tracks) == 7
    added = []
    for seq, calls in ((1, 1), (2, 4), (3, 6), (4, 9), (5, 12)):
        tracks.hear(word(seq, calls, 9.0 + seq), START + 10.0 + seq)
        added.append(ended(tracks))
    assert added == [0, 3, 2, 2, 3]


def test_who_made_an_instance_old_mutes_it_no_longer_than_until_it_is_begun_anew(tracks: Tracks) -> None:
    """An age that was made up goes with who made it up."""
    added = []
    for told, at in (
        (word(2, 7, 1.0), 1.0), (word(3, 7, 1e9), 1.5),
        (word(1, 0, 7.0), 7.0), (word(4, 9, 8.0), 8.0), (word(5, 10, 9.0), 9.0),
    ):  # fmt: skip
        assert tracks.hear(told, START + at)
        added.append(ended(tracks))
    assert added == [7, 0, 0, 2, 1]


def test_what_nobody_has_looked_at_yet_stays_where_it_goes_on_from_before(tracks: Tracks) -> None:
    """What came before, between, and after."""
    for told, at in (
        (word(9, 7, 1.0), 1.0),
        (word(1, 2, 7.0), 7.0),
        (word(2, 4, 8.0), 8.0),
        (word(10, 10, 9.0), 9.0),
    ):
        assert tracks.hear(told, START + at)
    assert ended(tracks) == 7 + 2 + 3


def _whole(seq: int, calls: int, age_s: float, number: int = 0) -> StatsMessage:
    told = word(seq, calls, age_s)
    return msgspec.structs.replace(told, series=(msgspec.structs.replace(told.series[0], number=number),))


def _row(seq: int, calls: int, age_s: float, base: int) -> StatsMessage:
    more = SeriesRow(0, calls, 0, HistogramSnapshot(((9, calls),), calls))
    return msgspec.structs.replace(word(seq, 0, age_s), series=(), rows=(more,), base=base)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        # Less was said in its name, under the number of its own latest word that told all.
        (
            [_whole(2, 7, 1.0), _row(3, 8, 2.0, 2), _whole(2, 0, 8.0), _row(4, 9, 8.5, 2), _row(5, 9, 9.0, 2),
             _whole(6, 11, 10.0), _row(7, 12, 11.0, 6)],
            [7, 1, 0, 0, 0, 3, 1],
        ),
        # More was said, and rows called it otherwise.
        (
            [_whole(9, 7, 1.0, number=5), _whole(1, 2, 8.0), _row(2, 4, 9.0, 1), _row(3, 8, 10.0, 1),
             _whole(4, 9, 11.0), _row(5, 10, 12.0, 4)],
            [7, 0, 2, 0, 2, 1],
        ),
    ],
    ids=["less", "more"],
)  # fmt: skip
def test_rows_make_no_call_count_twice(
    tracks: Tracks, words: list[StatsMessage], expected: list[int]
) -> None:
    """A row that comes as far as what was told before waits for a word that tells all; below that it counts."""
    added = []
    for told in words:
        assert tracks.hear(told, START + told.since_s)
        added.append(ended(tracks))
    assert added == expected


@example([(True, 1, 1, 0.0)] * 2 + [(False, 1, 1, gap) for gap in (1.0, 1.0, 3.0)] + [(True, 1, 1, 0.0)])
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(1, AHEAD), st.integers(1, 50), st.floats(0.0, 6.0)),
        max_size=40,
    )
)
def test_no_call_of_an_instance_counts_twice(words: list[tuple[bool, int, int, float]]) -> None:
    """Whatever numbers others say in its name, with no calls of their own: of the instance's never more are counted
    than it had."""
    tracks = Tracks(START, room=lambda key: True)
    now, seq, calls, total = START, 0, 0, 0
    for own, number, count, gap in words:
        now += gap
        if own:
            seq, calls = seq + 1, calls + count
            tracks.hear(word(seq, calls, now - START), now)
        else:
            tracks.hear(word(number, 0, now - START), now)
        total += ended(tracks)
        assert 0 <= total <= calls

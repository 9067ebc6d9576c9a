"""What has ended in each series since it was looked at: whatever is said in a member's name, no call counts twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from nats_mesh.core.histogram import Histogram
from nats_mesh.core.numbering import AHEAD, ANEW_S
from nats_mesh.telemetry.ended import EndedCalls
from nats_mesh.telemetry.stats_messages import SeriesSnapshot, StatsMessage
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

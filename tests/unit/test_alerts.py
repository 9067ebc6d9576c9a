"""What is promised held against what is seen: which calls count, what is said, and what is not invented."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.clock import ManualClock
from nats_mesh.core.burn import CALM_S
from nats_mesh.core.histogram import Histogram
from nats_mesh.errors import CodecError, Status
from nats_mesh.telemetry.alert_messages import (
    MAX_BYTES,
    Burn,
    Standing,
    burn_text,
    coming_of,
    decode_standing,
    encode_standing,
    limit_text,
    seen_text,
    span_text,
)
from nats_mesh.telemetry.alerts import MAX_WATCHED, AlertBook, Turn
from nats_mesh.telemetry.ended import MAX_OF_ONE, MAX_TRACKS, SILENT_S, Ended, EndedCalls
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.telemetry.series import Side
from nats_mesh.telemetry.slo import Indicator, Promise
from nats_mesh.telemetry.stats import Stats
from nats_mesh.telemetry.stats_messages import SeriesSnapshot, StatsMessage, decode_stats, encode_stats

DAY = 86_400.0


def promise(service: str = "orders", **more: Any) -> Promise:
    """99.9% of the calls of a service do not fail."""
    said: dict[str, Any] = {
        "name": "up",
        "policy": "Telemetry/p",
        "indicator": Indicator.AVAILABILITY,
        "share": 0.999,
        "window_s": 30 * DAY,
        "service": service,
    }
    return Promise(**{**said, **more})


def ended(calls: int, failures: int = 0, took_s: float = 0.01) -> Ended:
    """Calls that ended, all after the same time."""
    found = Ended()
    found.calls, found.failures = calls, failures
    found.took.record_all([took_s] * calls)
    return found


def told(
    service: str,
    side: Side,
    peer: str,
    ok: int,
    failed: int = 0,
    *,
    of: str = "orders",
    age_s: float = 1000.0,
    instance: str = "i",
    seq: int = 1,
) -> StatsMessage:
    """A member's word of one kind of call, counted from its start."""
    histogram = Histogram()
    histogram.record_all([0.01] * (ok + failed))
    series = SeriesSnapshot(
        side=side,
        service=of,
        endpoint="place",
        peer=peer,
        age_s=age_s,
        statuses={"OK": ok, "INTERNAL": failed} if failed else {"OK": ok},
        histogram=histogram.snapshot(),
    )
    return StatsMessage(
        instance=instance,
        service=service,
        version="1.0.0",
        namespace="default",
        seq=seq,
        since_s=age_s,
        series=(series,),
    )


PLACE = ("orders", "place")

# -- which calls ended ---------------------------------------------------------------------------------


def test_what_was_before_does_not_count() -> None:
    """A series that is older than the look counts from its first message on, one that began since then as a whole."""
    counts = EndedCalls(0.0)
    counts.hear(told("orders", "in", "web", 100, 7, age_s=500.0), 10.0)
    counts.hear(told("orders", "in", "app", 5, 1, age_s=3.0), 10.0)
    found = counts.take(10.0)[PLACE]
    assert (found.calls, found.failures, found.took.count) == (6, 1, 6)
    counts.hear(told("orders", "in", "web", 110, 8, age_s=501.0, seq=2), 11.0)
    found = counts.take(11.0)[PLACE]
    assert (found.calls, found.failures, found.took.count) == (11, 1, 11)
    assert counts.take(12.0) == {}


def test_what_comes_as_rows_counts_like_everything_else() -> None:
    """Short messages that go on from a whole one end calls as well; one that goes on from what was lost waits."""
    clock, counts = ManualClock(), EndedCalls(0.0)
    stats = Stats(clock=clock)
    series = stats.series("in", "orders", "place", "web")

    def hear(calls: int, *, whole: bool, lost: bool = False) -> tuple[int, int]:
        for _ in range(calls):
            series.record(0.01, Status.OK)
        clock.advance(1.0)
        told = stats.snapshot(
            instance="i", service="orders", version="1.0.0", namespace="default", whole=whole
        )
        message = decode_stats(encode_stats(told)[0])
        if not lost:
            counts.hear(message, clock.monotonic())
        found = counts.take(clock.monotonic()).get(PLACE, Ended())
        return found.calls, found.took.count

    assert hear(3, whole=True) == (3, 3)
    assert hear(2, whole=False) == (2, 2)
    assert hear(4, whole=False, lost=True) == (0, 0)
    assert hear(1, whole=False) == (5, 5)
    assert hear(6, whole=True, lost=True) == (0, 0)
    assert hear(1, whole=False) == (0, 0)
    assert hear(0, whole=True) == (7, 7)
    assert counts.stale == 0


def test_a_caller_speaks_for_his_own_calls() -> None:
    """What a caller tells of counts once, as he counts it; a caller that tells nothing is counted by the instances."""
    counts = EndedCalls(0.0)
    counts.hear(told("web", "out", "web", 10, 4, age_s=5.0), 10.0)
    counts.hear(told("orders", "in", "web", 12, 6, age_s=5.0), 10.0)
    counts.hear(told("orders", "in", "quiet", 3, 1, age_s=5.0), 10.0)
    found = counts.take(10.0)[PLACE]
    assert (found.calls, found.failures) == (14 + 4, 4 + 1)


def test_what_callers_gave_up_breaks_no_promise_but_of_latency() -> None:
    """A call that ended CANCELLED counts as one, and never as a failure: who calls decides how long it waits. How
    long it had lasted by then counts as any duration does."""
    clock, counts = ManualClock(), EndedCalls(0.0)
    stats = Stats(clock=clock)
    series = stats.series("out", "orders", "place", "web")
    series.record(0.1, Status.OK)
    series.end(3.0, Status.CANCELLED, "DC")
    series.end(3.0, Status.DEADLINE_EXCEEDED, "UT")
    told = stats.snapshot(instance="i", service="web", version="1.0.0", namespace="default", whole=True)
    counts.hear(decode_stats(encode_stats(told)[0]), clock.monotonic())
    (found,) = counts.take(clock.monotonic()).values()
    assert (found.calls, found.failures) == (3, 1)
    assert (found.took.count, found.took.at_most(1.0)) == (3, 1)


def test_late_and_repeated_messages_change_nothing() -> None:
    """Numbers that go back, or come again, count as nothing."""
    counts = EndedCalls(0.0)
    counts.hear(told("orders", "in", "web", 10, age_s=5.0), 10.0)
    counts.take(10.0)
    counts.hear(told("orders", "in", "web", 8, age_s=4.0), 11.0)
    counts.hear(told("orders", "in", "web", 10, age_s=5.0), 11.0)
    assert {key: each.calls for key, each in counts.take(11.0).items()} in ({}, {PLACE: 0})
    assert counts.stale == 1


def test_a_gap_is_not_counted() -> None:
    """What ended while nobody listened is not taken for what ends now."""
    counts = EndedCalls(0.0)
    counts.hear(told("orders", "in", "web", 10, age_s=5.0), 10.0)
    counts.hear(told("orders", "in", "web", 500, 400, age_s=95.0), 100.0)
    counts.skip(100.0)
    assert counts.take(100.0) == {}
    counts.hear(told("orders", "in", "web", 501, 400, age_s=96.0), 101.0)
    assert counts.take(101.0)[PLACE].calls == 1


def test_the_table_is_bounded_and_forgets_the_silent() -> None:
    """Beyond its bound new kinds of calls are left out and counted; silent ones make room."""
    counts = EndedCalls(0.0)
    for number in range(MAX_OF_ONE + 10):
        counts.hear(told("orders", "in", f"c{number}", 1, age_s=1.0), 1.0)
    assert (len(counts), counts.overflowed) == (MAX_OF_ONE, 10)
    for number in range(MAX_OF_ONE + 10):
        counts.hear(told("stock", "in", f"c{number}", 1, age_s=1.0), 1.0)
    assert (len(counts), counts.overflowed) == (MAX_TRACKS, 20)
    counts.take(1.0)
    counts.take(2.0 + SILENT_S)
    assert len(counts) == 0
    counts.hear(told("orders", "in", "web", 1, age_s=1.0), 200.0)
    assert len(counts) == 1


def test_who_makes_up_names_leaves_room_for_others() -> None:
    """A member that tells of calls without end silences no alert of anybody else."""
    counts = EndedCalls(0.0)
    for number in range(MAX_TRACKS + 10):
        counts.hear(told("loud", "in", f"c{number}", 1, age_s=1.0), 1.0)
    counts.hear(told("orders", "in", "web", 0, 5, age_s=1.0), 2.0)
    assert [each.failures for (service, _), each in counts.take(3.0).items() if service == "orders"] == [5]


@given(parts=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans()), max_size=30))
def test_every_call_counts_once_however_messages_are_lost(parts: list[tuple[int, int, bool]]) -> None:
    """Numbers are cumulative: whatever messages are lost, the sum of what was taken is what the last one says."""
    counts = EndedCalls(0.0)
    ok = failed = heard_ok = heard_failed = 0
    calls = failures = 0
    for at, (more_ok, more_failed, lost) in enumerate(parts):
        ok, failed = ok + more_ok, failed + more_failed
        now = 1.0 + at
        if not lost:
            counts.hear(told("orders", "in", "web", ok, failed, age_s=now, seq=at + 1), now)
            heard_ok, heard_failed = ok, failed
        for each in counts.take(now).values():
            calls, failures = calls + each.calls, failures + each.failures
    assert (calls, failures) == (heard_ok + heard_failed, heard_failed)


# -- alerts --------------------------------------------------------------------------------------------


class Watched:
    """A book that is looked at once a second."""

    def __init__(self, *promises: Promise) -> None:
        self.book = AlertBook()
        self.now = 0.0
        self.turns: list[Turn] = list(self.book.follow(promises, 0.0))

    def run(self, seconds: int, calls: dict[tuple[str, str], Ended], seen_s: float = 1.0) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.turns += self.book.take(calls, self.now, seen_s)

    def levels(self) -> dict[str, str]:
        return {alert.service: alert.level for alert in self.book.alerts(self.now)}


def test_outage_fires_and_is_resolved() -> None:
    """Where all calls fail a page fires within a minute, says what it saw of its windows, and is over after it is."""
    watched = Watched(promise())
    watched.run(60, {PLACE: ended(10, 10)})
    (turn,) = watched.turns
    assert (turn.kind, turn.before, turn.alert.level) == (EventKind.ALERT_FIRING, "ok", "page")
    assert "page: up 99.9% of orders burns its budget 1000 times over 1h (seen 52s of it)" in turn.detail
    assert (turn.numbers["calls"], turn.numbers["bad"]) == (520.0, 520.0)
    assert len(turn.numbers) <= 8
    watched.run(3000, {PLACE: ended(10)})
    assert [each.kind for each in watched.turns[-1:]] == [EventKind.ALERT_RESOLVED]
    assert watched.levels() == {"orders": "ok"}


def test_a_promise_for_everybody_is_one_for_each() -> None:
    """Each service has an alarm of its own, known once it was called; one that is promised something by name is known
    at once."""
    watched = Watched(promise("", name="all"), promise("stock"))
    assert watched.levels() == {"stock": "ok"}
    watched.run(60, {PLACE: ended(10, 10), ("web", "page"): ended(10)})
    assert watched.levels() == {"orders": "page", "web": "ok", "stock": "ok"}


def test_latency_counts_those_that_came_in_time() -> None:
    """A call that took longer than the bound below the threshold is bad, whether it failed or not."""
    fast = promise(name="fast", indicator=Indicator.LATENCY, threshold_s=0.3, share=0.99)
    watched = Watched(fast)
    watched.run(10, {PLACE: ended(10, 10, took_s=0.2)})
    assert watched.book.alerts(watched.now)[0].burns[0].bad == 0
    watched.run(10, {PLACE: ended(10, took_s=0.4)})
    found = watched.book.alerts(watched.now)[0].burns[0]
    assert (found.calls, found.bad) == (200, 100)


def test_only_its_endpoints_count() -> None:
    """A promise about some endpoints does not hear of others."""
    watched = Watched(promise(endpoints=("place",)))
    watched.run(120, {("orders", "show"): ended(10, 10)})
    assert watched.turns == []
    assert watched.book.alerts(watched.now)[0].burns[0].calls == 0


def test_what_is_not_promised_any_more_is_over() -> None:
    """An alert on a promise that was taken back is resolved; one that stays keeps what was seen."""
    stays = promise("stock")
    watched = Watched(promise(), stays)
    watched.run(60, {PLACE: ended(10, 10), ("stock", "count"): ended(5)})
    (turn,) = watched.book.follow((stays,), watched.now)
    assert (turn.kind, turn.before) == (EventKind.ALERT_RESOLVED, "page")
    (left,) = watched.book.alerts(watched.now)
    assert (left.service, left.burns[0].calls) == ("stock", 300)
    assert watched.book.follow((stays,), watched.now) == []


def test_who_takes_over_does_not_take_back_what_he_did_not_see() -> None:
    """What fired before stays so for a new watcher until it has seen enough, also of a service it has not heard of."""
    before = Watched(promise(""))
    before.run(60, {PLACE: ended(10, 10)})
    after = Watched(promise(""))
    after.book.adopt(before.book.alerts(before.now), 0.0)
    after.run(600, {PLACE: ended(10)})
    assert after.levels() == {"orders": "page"}
    after.run(1800 + int(CALM_S), {PLACE: ended(10)})
    assert after.levels() == {"orders": "ok"}


def test_what_nobody_promises_is_not_adopted() -> None:
    """An alert of somebody who followed other policies is not taken over."""
    before = Watched(promise())
    before.run(60, {PLACE: ended(10, 10)})
    after = Watched(promise(name="other"))
    after.book.adopt(before.book.alerts(before.now), 0.0)
    assert after.levels() == {"orders": "ok"}


def test_unseen_time_is_said_and_not_invented() -> None:
    """Twelve minutes of six hours are twelve minutes; a time in which nobody listened adds nothing."""
    watched = Watched(promise())
    watched.run(720, {PLACE: ended(1)})
    watched.run(600, {}, seen_s=0.0)
    seen = {burn.window_s: burn.seen_s for burn in watched.book.alerts(watched.now)[0].burns}
    assert seen[6 * 3600.0] == 720.0
    assert seen[300.0] < 10.0


def test_alerts_are_bounded() -> None:
    """However many services are called, so many promises are watched and the others counted."""
    watched = Watched(promise(""))
    watched.run(1, {(f"s{number}", "e"): ended(1) for number in range(MAX_WATCHED + 5)})
    assert (len(watched.book), watched.book.overflowed) == (MAX_WATCHED, 5)
    standing = Standing(holder="w/1", at="2026-01-31T12:00:00Z", alerts=watched.book.alerts(1.0))
    body = encode_standing(standing)
    found = decode_standing(body)
    assert len(body) <= MAX_BYTES
    assert found.left_out + len(found.alerts) == MAX_WATCHED
    assert found.alerts == standing.alerts[: len(found.alerts)]


@pytest.mark.parametrize("body", [b"", b"{}", b"x" * (MAX_BYTES + 1), b'{"holder": "a", "at": 5}'])
def test_a_standing_that_is_none_is_refused(body: bytes) -> None:
    """What stands in the store is read strictly."""
    with pytest.raises(CodecError):
        decode_standing(body)


@pytest.mark.parametrize("field", ["objective", "policy", "holder"])
def test_nobody_writes_control_characters_there(field: str) -> None:
    """Whoever may write the key could drive the terminals of all who look at it."""
    watched = Watched(promise("orders"))
    watched.run(1, {("orders", "e"): ended(1)})
    standing = Standing(holder="w/1", at="2026-01-31T12:00:00Z", alerts=watched.book.alerts(1.0))
    document = msgspec.to_builtins(standing)
    assert decode_standing(msgspec.json.encode(document)) == standing
    (document if field == "holder" else document["alerts"][0])[field] = "\x1b[2J"
    with pytest.raises(CodecError):
        decode_standing(msgspec.json.encode(document))


def test_words_for_burn_rates() -> None:
    """Three digits, and never an exponent."""
    assert [burn_text(each) for each in (0.0, 0.00001, 0.25, 14.44, 999.9, 99_999.0)] == [
        "0",
        "<0.001",
        "0.25",
        "14.4",
        "1000",
        "99999",
    ]


def test_what_counts_stands_before_what_was_seen() -> None:
    """Of a window that was seen in part: how fast it burns as levels count it, and how fast what was seen does."""
    whole = Burn(window_s=300.0, seen_s=300.0, calls=100, bad=1, burn=14.4)
    assert seen_text(whole) == "14.4"
    part = Burn(window_s=3600.0, seen_s=720.0, calls=100, bad=1, burn=14.4)
    assert seen_text(part, "×") == "×2.88 (seen 12m of 1h: ×14.4)"
    unseen = Burn(window_s=3600.0, seen_s=0.0, calls=0, bad=0, burn=0.0)
    assert seen_text(unseen) == "0 (seen 0s of 1h: 0)"


def test_a_window_that_was_seen_for_as_long_as_its_buckets_hold_is_whole() -> None:
    """The oldest of the sixty is given up as a whole when the next begins: that is no part that was not seen."""
    kept = Burn(window_s=300.0, seen_s=295.2, calls=100, bad=1, burn=14.4)
    assert seen_text(kept) == "14.4"
    watched = Watched(promise())
    watched.run(400, {PLACE: ended(10)})
    assert seen_text(watched.book.alerts(watched.now)[0].burns[0]) == "0"


def test_a_level_names_the_pair_of_windows_that_holds_it() -> None:
    """After the short window of the fast pair is over, the slow one goes on, and then nothing does: whoever looks at a
    page is told why it is still one."""
    watched = Watched(promise())
    watched.run(200, {PLACE: ended(10, 10)})

    def shown() -> tuple[str, str]:
        (alert,) = watched.book.alerts(watched.now)
        return alert.level, limit_text(alert)

    assert shown() == ("page", "14.4 over 1h and 5m")
    watched.run(400, {PLACE: ended(10)})
    assert shown() == ("page", "6 over 6h and 30m")
    watched.run(1450, {PLACE: ended(10)})
    assert shown() == ("page", "none any more")
    watched.run(600, {PLACE: ended(10)})
    assert shown()[0] != "page"
    assert limit_text(msgspec.structs.replace(watched.book.alerts(watched.now)[0], level="ok")) == ""


def test_what_is_coming_is_told_before_it_fires() -> None:
    """While the short window burns above its limit and the long one was not seen for long enough, it is said which
    level comes and when, and at this rate it comes then; nothing is said of what is well, or stands already."""
    watched = Watched(promise())
    watched.run(20, {PLACE: ended(100, 10)})
    (alert,) = watched.book.alerts(watched.now)
    coming = coming_of(alert)
    assert alert.level == "ok"
    assert coming is not None
    assert coming.level == "page"
    assert limit_text(alert) == f"page in {span_text(coming.in_s)} at this rate"
    most_s = int(coming.in_s) + 1
    watched.run(most_s - 15, {PLACE: ended(100, 10)})
    assert watched.book.alerts(watched.now)[0].level != "page"
    watched.run(20, {PLACE: ended(100, 10)})
    (fires,) = watched.book.alerts(watched.now)
    assert (fires.level, coming_of(fires)) == ("page", None)
    well = Watched(promise())
    well.run(20, {PLACE: ended(100, 10)})
    well.run(400, {PLACE: ended(100)})
    assert coming_of(well.book.alerts(well.now)[0]) is None, "it is over"


def test_words_for_spans() -> None:
    """Rounded down: nobody has seen more than he has."""
    assert [span_text(each) for each in (5.9, 60.0, 719.0, 3600.0, 5399.0, 259_200.0)] == [
        "5s",
        "1m",
        "11.9m",
        "1h",
        "1.4h",
        "3d",
    ]

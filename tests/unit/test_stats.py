"""Statistics: plain counters in each process, how they travel, exact totals and rates at the observer."""

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.clock import ManualClock
from nats_mesh.core.histogram import BOUNDS, Histogram, HistogramSnapshot
from nats_mesh.core.presence import State
from nats_mesh.errors import CodecError, ConfigError, Status
from nats_mesh.telemetry.folding import Fold
from nats_mesh.telemetry.series import FAILURES, OTHER
from nats_mesh.telemetry.snapshots import Figures
from nats_mesh.telemetry.stats import Stats
from nats_mesh.telemetry.stats_messages import (
    MAX_BYTES,
    SeriesRow,
    SeriesSnapshot,
    StatsMessage,
    decode_stats,
    encode_stats,
)


class Process:
    """One instance with its counters, for an observer to hear."""

    def __init__(self, service: str, instance: str, clock: ManualClock, version: str = "1.0.0") -> None:
        self.service, self.instance, self.version = service, instance, version
        self.stats = Stats(clock=clock)

    def served(
        self, endpoint: str = "place", *, peer: str = "web", status: str = "OK", took: float = 0.01
    ) -> None:
        """Answer a call."""
        self.stats.series("in", self.service, endpoint, peer).record(took, status)

    def called(
        self, service: str, endpoint: str = "place", *, status: str = "OK", took: float = 0.02
    ) -> None:
        """Make a call."""
        self.stats.series("out", service, endpoint, self.service).record(took, status)

    def say(self, *, whole: bool = True) -> StatsMessage:
        """What it publishes now, as it is read."""
        return decode_stats(self.bodies(whole=whole)[0])

    def bodies(self, *, whole: bool = True) -> list[bytes]:
        """What it publishes now."""
        return encode_stats(
            self.stats.snapshot(
                instance=self.instance,
                service=self.service,
                version=self.version,
                namespace="default",
                whole=whole,
            )
        )


@pytest.fixture
def clock() -> ManualClock:
    """The clock of every process and of the observer."""
    return ManualClock()


def answered(fold: Fold, clock: ManualClock) -> Figures:
    """All calls that an observer knows to be answered."""
    (service,) = fold.snapshot(clock.monotonic()).services
    return service.red.total


# -- counting ---------------------------------------------------------------------------------------


def test_a_series_counts_by_status_and_knows_failures() -> None:
    """Statuses from 500 on are the service's failures; the caller's mistakes and refusals are not."""
    series = Stats().series("in", "orders", "place", "web")
    for status in Status:
        series.record(0.5, status)
    assert series.requests == len(Status)
    assert series.errors == len([s for s in Status if s.code >= 500]) == len(FAILURES)
    assert "RESOURCE_EXHAUSTED" not in FAILURES
    assert series.busy_s == pytest.approx(0.5 * len(Status))
    assert all(type(name) is str for name in series.by_status)


def test_names_that_are_no_status_count_as_unknown() -> None:
    """The table of statuses cannot grow by what somebody else sends."""
    series = Stats().series("in", "orders", "place", "web")
    for number in range(100):
        series.record(0.0, f"MADE_UP_{number}")
    assert series.by_status == {"UNKNOWN": 100}


def test_the_same_call_has_the_same_series() -> None:
    """A series can be kept; asking again gives the same one, another peer another."""
    stats = Stats()
    series = stats.series("out", "orders", "place", "web")
    assert stats.series("out", "orders", "place", "web") is series
    assert stats.series("in", "orders", "place", "web") is not series


def test_beyond_the_bound_everything_goes_to_other() -> None:
    """The table is bounded, nothing is lost, and the overflow is counted."""
    stats = Stats(max_series=2)
    for number in range(10):
        stats.series("in", "orders", "place", f"caller{number}").record(0.1, "OK")
    stats.series("out", "cart", "add", "orders").record(0.1, "OK")
    assert len(stats) == 4
    assert stats.overflowed == 9
    other = stats.series("in", "orders", "place", "yet-another")
    assert (other.service, other.endpoint, other.peer, other.requests) == (OTHER, OTHER, OTHER, 8)
    assert stats.totals("in") == (10, 0)
    with pytest.raises(ConfigError):
        Stats(max_series=0)


def test_the_last_error_is_one_bounded_line() -> None:
    """Whatever text a failure brings, it fits a table and a terminal."""
    series = Stats().series("in", "orders", "place", "web")
    series.last_error = "boom\n\x1b[31m" + "x" * 1000
    assert series.last_error.startswith("boom [31mxxx")
    assert len(series.last_error) <= 256


def test_endpoints_are_summed_over_their_callers() -> None:
    """For `$SRV.STATS`: one line per endpoint, with the error that happened last whoever met it."""
    stats = Stats()
    first = stats.series("in", "orders", "place", "web")
    second = stats.series("in", "orders", "place", "app")
    first.record(0.25, "OK")
    second.record(0.5, "INTERNAL")
    second.last_error = "older"
    first.last_error = "newest"
    second.in_flight = 2
    stats.series("out", "cart", "place", "orders").record(9.0, "OK")
    total = stats.by_endpoint("in")["place"]
    assert (total.requests, total.errors, total.busy_s, total.in_flight) == (2, 1, 0.75, 2)
    assert total.last_error == "newest"
    assert stats.in_flight == 2


# -- on the way -------------------------------------------------------------------------------------


def test_what_is_sent_is_what_is_read(clock: ManualClock) -> None:
    """Counts, histogram and ages survive the way; the numbers are cumulative and snapshots numbered."""
    process = Process("orders", "A1", clock)
    process.served(took=0.003)
    process.called("cart", status="UNAVAILABLE")
    clock.advance(2.0)
    message = process.say()
    (body,) = encode_stats(message)
    assert decode_stats(body, service="orders", instance="A1", namespace="default") == message
    assert (message.seq, message.since_s, message.state) == (1, 2.0, State.READY)
    assert process.say().seq == 2


@given(st.data())
def test_whatever_was_told_before_the_numbers_are_those_of_now(data: st.DataObject) -> None:
    """A message is made of what has changed since the one before; it says what the series counts all the same."""
    clock = ManualClock()
    stats = Stats(clock=clock)
    series = stats.series("out", "orders", "place", "web", "v2")
    known: dict[int, int] = {}  # what was said when all was, and by rows since
    for _ in range(data.draw(st.integers(1, 8))):
        for _ in range(data.draw(st.integers(0, 6))):
            status = data.draw(st.sampled_from([Status.OK, Status.OK, Status.UNAVAILABLE]))
            went_well = status is Status.OK
            series.end(data.draw(st.floats(1e-4, 10.0)), status, "" if went_well else "UT")
            if not went_well:
                series.last_error = data.draw(st.sampled_from(["one", "two"]))
                series.extra += 1
                series.retried_failed += 1
        series.in_flight = data.draw(st.integers(0, 2))
        clock.advance(1.0)
        outgoing = stats.snapshot(
            instance="c1", service="web", version="0.0.0", namespace="default", whole=data.draw(st.booleans())
        )
        (body,) = encode_stats(outgoing)
        message = decode_stats(body, service="web", instance="c1", namespace="default")
        for row in message.rows:
            assert (row.number, row.ok, row.in_flight) == (0, series.succeeded, series.in_flight)
            known |= dict(row.histogram.buckets)
            assert (known, row.histogram.sum_ns) == (
                dict(series.histogram.snapshot().buckets),
                series.histogram.sum_ns,
            )
        for told in message.series:
            if message.base is msgspec.UNSET:
                known = dict(told.histogram.buckets)
            assert told.statuses == series.by_status
            assert told.histogram == series.histogram.snapshot()
            assert told.tried == series.attempts
            assert (told.in_flight, told.last_error) == (series.in_flight, series.last_error)
            assert sum((told.flags or {}).values()) == sum(series.flagged.values())
            assert (told.retries or {}).get("failure", 0) == series.retried_failed
            assert told.subset == "v2"
    (body,) = encode_stats(stats.snapshot(instance="c1", service="web", version="0.0.0", namespace="default"))
    (told,) = decode_stats(body).series
    assert told.histogram == series.histogram.snapshot()


def test_another_thread_reads_durations_without_a_lock() -> None:
    """A scrape has those that are in the histogram and those that are not yet, and changes neither."""
    series = Stats().series("in", "orders", "place", "web")
    for _ in range(700):
        series.record(0.01, Status.OK)
    copied = series.durations()
    assert (copied.count, copied.sum_ns) == (700, 700 * 10_000_000)
    series.record(0.01, Status.OK)
    assert (copied.count, series.histogram.count) == (700, 701)
    series._folds += 1  # the event loop is at it, and stays there
    with pytest.raises(RuntimeError, match="changed during each"):
        series.durations()


def test_a_large_snapshot_travels_in_parts_that_add_up(clock: ManualClock) -> None:
    """No body exceeds the bound; an observer that hears all parts, in any order and twice, knows it all."""
    process = Process("orders", "A1", clock)
    process.stats = Stats(max_series=2500, clock=clock)
    rng = random.Random(7)
    for caller in range(2500):
        for _ in range(20):
            process.served(peer=f"caller-{caller:050d}", took=10 ** rng.uniform(-4.3, 2))
    bodies = process.bodies()
    assert len(bodies) > 1
    assert all(len(body) <= MAX_BYTES for body in bodies)
    fold = Fold()
    rng.shuffle(bodies)
    for body in bodies + bodies:
        fold.apply(decode_stats(body), clock.monotonic())
    assert answered(fold, clock).requests == 2500 * 20


def test_rows_travel_in_parts_too(clock: ManualClock) -> None:
    """A message that goes on from another one is bounded like it; all parts together are all of it."""
    process = Process("orders", "A1", clock)
    process.stats = Stats(max_series=2000, clock=clock)
    fold = Fold()
    for turn in range(2):
        for caller in range(2000):
            for bucket in range(0, 80, 2):
                process.served(peer=f"caller-{caller}", status=Status.OK, took=BOUNDS[bucket])
        clock.advance(1.0)
        bodies = process.bodies(whole=not turn)
        assert len(bodies) > 1
        assert all(len(body) <= MAX_BYTES for body in bodies)
        for body in bodies:
            message = decode_stats(body)
            assert bool(message.rows) is bool(turn)
            fold.apply(message, clock.monotonic())
    assert answered(fold, clock).requests == 2 * 2000 * 40


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"instance": "a.b"}, "instance"),
        ({"service": ""}, "service"),
        ({"version": "x"}, "version"),
        ({"seq": 0}, "seq"),
        ({"since_s": -1}, "since_s"),
        ({"layout": 2}, "layout"),
        ({"wire": 2}, "wire"),
        ({"state": "odd"}, "state"),
        ({"series": [{"side": "up"}]}, "side"),
        ({"series": [{"statuses": {"ok": 1}}]}, "statuses"),
        ({"series": [{"statuses": {"OK": -1}}]}, "statuses"),
        ({"series": [{"histogram": [[[999, 1]], 0]}]}, "histogram"),
        ({"series": [{"histogram": [[[0, 0]], 0]}]}, "histogram"),
        ({"series": [{"histogram": [[], -5]}]}, "histogram"),
        ({"series": [{"last_error": "\x1b"}]}, "last_error"),
        ({"series": [{"peer": "a b"}]}, "peer"),
        ({"series": [{"endpoint": "x" * 64}]}, "endpoint"),
        ({"series": [{"statuses": {"O" * 41: 1}}]}, "statuses"),
        ({"series": [{"last_error": "x" * 257}]}, "last_error"),
        ({"series": [{"service": "cart"}]}, "reports a call of 'cart'"),
        ({"series": [{"side": "out", "peer": "cart"}]}, "reports a call of 'cart'"),
        ({"series": [{"number": -1}]}, "number"),
        ({"base": 0}, "base"),
        ({"rows": [[0, 1, 0]]}, "rows"),
        ({"rows": [[-1, 1, 0, [[], 0]]]}, "rows"),
        ({"rows": [[0, -1, 0, [[], 0]]]}, "rows"),
        ({"rows": [[0, 1, -1, [[], 0]]]}, "rows"),
        ({"rows": [[0, 1, 0, [[[88, 1]], 0]]]}, "rows"),
        ({"rows": [[0, 1, 0, [[[1, 0]], 0]]]}, "rows"),
        ({"rows": [[0, 1, 0, [[], 0]]] * 4097}, "rows"),
    ],
)
def test_a_hostile_body_is_an_error_that_names_the_fault(
    change: dict[str, Any], where: str, clock: ManualClock
) -> None:
    """Bounds hold for every field, and an instance speaks of its own calls alone."""
    process = Process("orders", "A1", clock)
    process.served()
    fields = json.loads(encode_stats(process.say())[0])
    series = fields["series"][0]
    fields |= change
    fields["series"] = [series | each for each in change.get("series", [{}])]
    with pytest.raises(CodecError, match=where):
        decode_stats(json.dumps(fields).encode())


def test_nobody_reports_for_another(clock: ManualClock) -> None:
    """The body must name the service, instance and namespace of its subject."""
    (body,) = encode_stats(Process("orders", "A1", clock).say())
    for claim in ({"service": "cart"}, {"instance": "B2"}, {"namespace": "other"}):
        with pytest.raises(CodecError, match="its subject says"):
            decode_stats(body, **claim)
    with pytest.raises(CodecError, match="at most"):
        decode_stats(b" " * (MAX_BYTES + 1))
    with pytest.raises(CodecError):
        decode_stats(b"[" * 100_000)


# -- put together -----------------------------------------------------------------------------------


@given(st.data())
def test_totals_are_exact_whatever_is_lost_repeated_or_late(data: st.DataObject) -> None:
    """After each instance's last message that tells everything is heard, the totals are the calls that were made;
    until then they are never more."""
    clock = ManualClock()
    processes = [Process("orders", f"A{n}", clock, version=f"{n % 2 + 1}.0.0") for n in range(3)]
    fold = Fold(durations=True)
    made: dict[str, int] = {}
    merged = Histogram()
    held: list[StatsMessage] = []
    for _ in range(data.draw(st.integers(1, 12))):
        for process in processes:
            for _ in range(data.draw(st.integers(0, 5))):
                status = data.draw(st.sampled_from([Status.OK, Status.OK, Status.INTERNAL, Status.NOT_FOUND]))
                took = data.draw(st.floats(1e-4, 10))
                process.served(status=status, took=took)
                made[str(status)] = made.get(str(status), 0) + 1
                merged.record(took)
            message = process.say(whole=data.draw(st.booleans()))
            fate = data.draw(st.sampled_from(["heard", "heard", "lost", "late", "twice"]))
            if fate == "late":
                held.append(message)
            elif fate != "lost":
                for _ in range(2 if fate == "twice" else 1):
                    fold.apply(message, clock.monotonic())
        clock.advance(1.0)
        for service in fold.snapshot(clock.monotonic()).services:
            assert service.red.total.requests <= sum(made.values())
    for message in [process.say() for process in processes] + held:
        fold.apply(message, clock.monotonic())
    snapshot = fold.snapshot(clock.monotonic())
    if made:
        (service,) = snapshot.services
        total = service.red.total
        assert total.statuses == dict(sorted(made.items()))
        assert (total.p50_s, total.p90_s, total.p99_s) == tuple(merged.quantile(q) for q in (0.5, 0.9, 0.99))
        assert total.sum_s == pytest.approx(merged.sum_s, rel=0, abs=1e-9 * total.requests)
        assert sum(each.red.total.requests for each in snapshot.versions) == total.requests


@given(st.data())
def test_rows_say_what_series_say(data: st.DataObject) -> None:
    """An observer who hears short messages knows what one knows who hears everything: calls, rates, quantiles."""
    clock = ManualClock()
    short, long = Process("orders", "A1", clock), Process("orders", "A1", clock)
    hears, knows = Fold(), Fold()
    for turn in range(data.draw(st.integers(2, 14))):
        for caller in ("web", "app"):
            for _ in range(data.draw(st.integers(0, 3))):
                status = data.draw(st.sampled_from([Status.OK] * 4 + [Status.INTERNAL]))
                took = data.draw(st.floats(1e-4, 10))
                for process in (short, long):
                    process.served(peer=caller, status=status, took=took)
            in_flight = data.draw(st.integers(0, 2))
            for process in (short, long):
                process.stats.series("in", "orders", "place", caller).in_flight = in_flight
        clock.advance(1.0)
        hears.apply(short.say(whole=turn % 5 == 0), clock.monotonic())
        knows.apply(long.say(), clock.monotonic())
        assert hears.snapshot(clock.monotonic()) == knows.snapshot(clock.monotonic())


def test_a_row_that_goes_on_from_what_was_not_heard_waits(clock: ManualClock) -> None:
    """The observer takes no part for all of it: what is known stays, is called behind, and is mended by the next
    message that tells everything."""
    process, fold = Process("orders", "A1", clock), Fold()

    def hear(*, whole: bool, lost: bool = False) -> tuple[int, bool]:
        process.served(status=Status.OK, took=0.01)
        process.served(status=Status.OK, took=1.0)
        clock.advance(1.0)
        message = process.say(whole=whole)
        if not lost:
            fold.apply(message, clock.monotonic())
        return answered(fold, clock).requests, fold.members["orders", "A1"].behind

    assert hear(whole=True) == (2, False)
    assert hear(whole=False) == (4, False)
    assert hear(whole=True, lost=True) == (4, False)
    assert hear(whole=False) == (4, True)
    assert hear(whole=False) == (4, True)
    assert hear(whole=True) == (12, False)
    assert hear(whole=False, lost=True) == (12, False)
    assert hear(whole=False) == (16, True), "a row has what the lost one of the same series had"


def test_a_lost_message_bends_no_rate(clock: ManualClock) -> None:
    """With messages missing, the difference is spread over the time it took."""
    process, fold = Process("orders", "A1", clock), Fold()
    for second in range(12):
        for _ in range(10):
            process.served(status=Status.OK)
        clock.advance(1.0)
        message = process.say(whole=second % 4 == 0)
        if second not in (3, 6, 10):
            fold.apply(message, clock.monotonic())
    (service,) = fold.snapshot(clock.monotonic()).services
    assert service.red.rate_per_s == pytest.approx(10.0, rel=0.02)


def test_an_observer_that_comes_late_sees_no_rush(clock: ManualClock) -> None:
    """Calls made long before the first message heard are in the totals, not in the rate."""
    process, fold = Process("orders", "A1", clock), Fold()
    for _ in range(1000):
        process.served()
    clock.advance(3600.0)
    fold.apply(process.say(), clock.monotonic())
    (service,) = fold.snapshot(clock.monotonic()).services
    assert (service.red.total.requests, service.red.recent.requests, service.red.rate_per_s) == (1000, 0, 0.0)
    process.served()
    clock.advance(1.0)
    fold.apply(process.say(), clock.monotonic())
    (service,) = fold.snapshot(clock.monotonic()).services
    assert service.red.rate_per_s == pytest.approx(1.0)


def test_success_is_without_the_services_failures(clock: ManualClock) -> None:
    """A caller's mistake is no failure; no call at all is no ratio."""
    process, fold = Process("orders", "A1", clock), Fold()
    for status in ("OK", "OK", "INVALID_ARGUMENT", "INTERNAL"):
        process.served(status=status)
    clock.advance(1.0)
    fold.apply(process.say(), clock.monotonic())
    (service,) = fold.snapshot(clock.monotonic()).services
    red = service.red
    assert (red.total.errors, red.total.success, red.recent.success) == (1, 0.75, 0.75)
    clock.advance(15.0)
    (service,) = fold.snapshot(clock.monotonic()).services
    assert (service.red.recent.requests, service.red.success, service.red.p99_s) == (0, None, None)
    assert service.red.total == red.total


def test_edges_are_what_the_caller_saw_or_else_what_it_was_told(clock: ManualClock) -> None:
    """A caller's own report wins, so no call counts twice; who reports nothing appears by the other end."""
    web, orders, fold = Process("web", "W1", clock), Process("orders", "A1", clock), Fold()
    for _ in range(3):
        web.called("orders")
        orders.served(peer="web")
    web.called("orders", status="UNAVAILABLE")  # never arrived
    orders.served("cancel", peer="anonymous")
    for process in (web, orders):
        fold.apply(process.say(), clock.monotonic())
    shown = fold.snapshot(clock.monotonic())
    assert [
        (e.source, e.service, e.reporter, e.red.total.requests, e.red.total.errors) for e in shown.edges
    ] == [("anonymous", "orders", "in", 1, 0), ("web", "orders", "out", 4, 1)]
    assert [list(e.endpoints) for e in shown.edges] == [["cancel"], ["place"]]
    assert [(e.service, e.name) for e in shown.endpoints] == [("orders", "cancel"), ("orders", "place")]


def test_counting_backwards_is_not_believed(clock: ManualClock) -> None:
    """Cumulative numbers that sink, or an age that does, are no news, in a series and in a row."""
    process, fold = Process("orders", "A1", clock), Fold()
    for _ in range(5):
        process.served(status=Status.OK)
    clock.advance(5.0)
    message = process.say()
    fold.apply(message, clock.monotonic())
    (series,) = message.series
    for change in ({"statuses": {"OK": 1}}, {"age_s": 1.0}):
        lie = msgspec.structs.replace(series, **change)
        fold.apply(msgspec.structs.replace(message, seq=9, series=(lie,)), clock.monotonic())
    row = SeriesRow(0, 1, 0, HistogramSnapshot())
    for lying in (
        msgspec.structs.replace(message, seq=10, base=1, series=(), rows=(row,), since_s=6.0),
        msgspec.structs.replace(
            message, seq=11, base=1, series=(), rows=(msgspec.structs.replace(row, ok=9),), since_s=1.0
        ),
    ):
        fold.apply(lying, clock.monotonic())
    assert answered(fold, clock).requests == 5


def test_whoever_makes_up_a_high_number_mutes_nobody(clock: ManualClock) -> None:
    """Where anybody may say anything, a message in a member's name with a number that it cannot have come to is not
    believed, however often it comes."""
    process, fold = Process("orders", "A1", clock), Fold()
    process.served()
    message = process.say()
    fold.apply(message, clock.monotonic())
    for _ in range(7):
        clock.advance(1.0)
        process.served()
        assert not fold.apply(msgspec.structs.replace(message, seq=2**53 - 1), clock.monotonic())
        assert fold.apply(process.say(), clock.monotonic())
    assert answered(fold, clock).requests == 8


def test_whoever_spoke_first_in_a_members_name_mutes_it_for_seconds(clock: ManualClock) -> None:
    """Of two who say different numbers the first is believed until nothing more comes of him; then the member's own
    are begun with anew."""
    process, fold = Process("orders", "A1", clock), Fold()
    fold.apply(msgspec.structs.replace(process.say(), seq=2**53 - 1), clock.monotonic())
    heard = []
    for _ in range(7):
        clock.advance(1.0)
        process.served()
        heard.append(fold.apply(process.say(), clock.monotonic()))
    assert heard == [False] * 4 + [True] * 3
    (service,) = fold.snapshot(clock.monotonic()).services
    assert service.red.rate_per_s > 0.0
    assert service.red.total.requests == 7


def test_a_flood_of_messages_keeps_few_points(clock: ManualClock) -> None:
    """The memory of a series is bounded by the window, however often its sender speaks."""
    process, fold = Process("orders", "A1", clock), Fold(window_s=10.0)
    for turn in range(5000):
        process.served(status=Status.OK)
        clock.advance(0.01)
        fold.apply(process.say(whole=turn % 8 == 0), clock.monotonic())
    assert max(len(known.pace) for known in fold.members.values()) <= 40
    (service,) = fold.snapshot(clock.monotonic()).services
    assert service.red.rate_per_s == pytest.approx(100.0, rel=0.05)


@pytest.mark.parametrize("age_s", [5e-324, 1e-300, 1e-9])
def test_many_calls_in_no_time_are_no_rate(clock: ManualClock, age_s: float) -> None:
    """Whatever ages a body says, its calls are counted; what is divided by next to nothing breaks no observer."""
    process, fold = Process("orders", "A1", clock), Fold()
    process.served()
    message = process.say()
    (series,) = message.series
    for seq, age in ((1, 0.0), (2, age_s)):
        told = msgspec.structs.replace(series, age_s=age, statuses={"OK": seq * 2**52})
        assert fold.apply(
            msgspec.structs.replace(message, seq=seq, since_s=age, series=(told,)), clock.monotonic()
        )
    (service,) = fold.snapshot(clock.monotonic()).services
    assert (service.red.total.requests, service.red.rate_per_s) == (2**53, 0.0)


def test_an_empty_snapshot_is_a_sign_of_life(clock: ManualClock) -> None:
    """An idle instance is heard, and counted nowhere."""
    fold = Fold()
    assert fold.apply(Process("orders", "A1", clock).say(), clock.monotonic())
    shown = fold.snapshot(clock.monotonic())
    assert (len(shown.members), shown.services, shown.edges) == (1, (), ())
    assert SeriesSnapshot(side="in", service="s", endpoint="e", peer="p", age_s=0).requests == 0


@given(st.integers(0, 4), st.integers(0, 4))
def test_what_is_too_large_is_parted_down_to_one_series_or_row(series: int, rows: int) -> None:
    """However little a server takes, a snapshot travels: where nothing fits, each series and each row by itself."""
    told = SeriesSnapshot(side="in", service="orders", endpoint="place", peer="web", age_s=1.0)
    message = StatsMessage(
        instance="i1",
        service="orders",
        version="1.0.0",
        namespace="default",
        seq=2,
        since_s=1.0,
        base=1,
        series=(told,) * series,
        rows=tuple([SeriesRow(at, 1, 0, HistogramSnapshot()) for at in range(rows)]),
    )
    parts = [decode_stats(body) for body in encode_stats(message, 1)]
    assert len(parts) == max(1, series + rows)
    assert all(len(part.series) + len(part.rows) <= 1 for part in parts)
    assert [row.number for part in parts for row in part.rows] == list(range(rows))

"""Statistics: plain counters in each process, exact totals and recent figures at the observer."""

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.clock import ManualClock
from nats_mesh.core.histogram import Histogram
from nats_mesh.core.presence import State
from nats_mesh.errors import CodecError, ConfigError, Status
from nats_mesh.telemetry.aggregate import Aggregate, Row
from nats_mesh.telemetry.stats import (
    FAILURES,
    MAX_BYTES,
    OTHER,
    SeriesSnapshot,
    Stats,
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

    def say(self) -> StatsMessage:
        """What it publishes now, as it is read."""
        return decode_stats(self.bodies()[0])

    def bodies(self) -> list[bytes]:
        """What it publishes now."""
        return encode_stats(
            self.stats.snapshot(
                instance=self.instance, service=self.service, version=self.version, namespace="default"
            )
        )


@pytest.fixture
def clock() -> ManualClock:
    """The clock of every process and of the observer."""
    return ManualClock()


def only(rows: list[Row]) -> Row:
    """The one row there is."""
    (row,) = rows
    return row


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
    for _ in range(data.draw(st.integers(1, 8))):
        for _ in range(data.draw(st.integers(0, 6))):
            status = data.draw(st.sampled_from([Status.OK, Status.OK, Status.UNAVAILABLE]))
            series.record(data.draw(st.floats(1e-4, 10.0)), status)
            if status is not Status.OK:
                series.flag(status, "UT")
                series.last_error = data.draw(st.sampled_from(["one", "two"]))
                series.extra += 1
                series.retried_failed += 1
        series.in_flight = data.draw(st.integers(0, 2))
        clock.advance(1.0)
        outgoing = stats.snapshot(
            instance="c1", service="web", version="0.0.0", namespace="default", whole=data.draw(st.booleans())
        )
        (body,) = encode_stats(outgoing)
        for told in decode_stats(body, service="web", instance="c1", namespace="default").series:
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
    aggregate = Aggregate()
    rng.shuffle(bodies)
    for body in bodies + bodies:
        aggregate.apply(decode_stats(body), clock.monotonic())
    assert aggregate.total("in").requests == 2500 * 20
    assert aggregate.stale == len(bodies)


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
def test_totals_are_exact_whatever_is_lost_repeated_or_reordered(data: st.DataObject) -> None:
    """After each instance's last message is heard, the totals are the calls that were made."""
    clock = ManualClock()
    processes = [Process("orders", f"A{n}", clock, version=f"{n % 2 + 1}.0.0") for n in range(3)]
    aggregate = Aggregate()
    made: dict[str, int] = {}
    merged = Histogram()
    held: list[StatsMessage] = []
    for _ in range(data.draw(st.integers(1, 12))):
        for process in processes:
            for _ in range(data.draw(st.integers(0, 5))):
                status = data.draw(st.sampled_from(["OK", "INTERNAL", "NOT_FOUND"]))
                took = data.draw(st.floats(1e-4, 10))
                process.served(status=status, took=took)
                made[status] = made.get(status, 0) + 1
                merged.record(took)
            message = process.say()
            fate = data.draw(st.sampled_from(["heard", "lost", "late", "twice"]))
            if fate == "late":
                held.append(message)
            elif fate != "lost":
                for _ in range(2 if fate == "twice" else 1):
                    aggregate.apply(message, clock.monotonic())
        clock.advance(1.0)
    for message in [process.say() for process in processes] + held:
        aggregate.apply(message, clock.monotonic())
    total = aggregate.total("in")
    assert total.statuses == made
    assert total.requests == sum(made.values())
    assert (total.p50_s, total.p90_s, total.p99_s) == tuple(merged.quantile(q) for q in (0.5, 0.9, 0.99))
    if made:
        row = only(aggregate.services(clock.monotonic()))
        assert row.total == total
        assert sum(row.versions.values()) == total.requests


def test_rates_and_quantiles_of_the_last_window(clock: ManualClock) -> None:
    """The rate is that of the last ten seconds, by the sender's time; quantiles follow what is recent."""
    process, aggregate = Process("orders", "A1", clock), Aggregate(window_s=10.0)
    for second in range(30):
        for _ in range(20 if second < 15 else 40):
            process.served(took=0.001 if second < 15 else 0.1)
        clock.advance(1.0)
        aggregate.apply(process.say(), clock.monotonic())
    row = only(aggregate.services(clock.monotonic()))
    assert row.rate_per_s == pytest.approx(40.0)
    assert row.recent.requests == 400
    assert row.total.requests == 15 * 60
    assert row.recent.p50_s == pytest.approx(0.1, rel=0.1)
    assert row.total.p50_s == pytest.approx(0.1, rel=0.1)
    assert row.total.p90_s == pytest.approx(0.1, rel=0.1)


def test_success_is_without_the_services_failures(clock: ManualClock) -> None:
    """A caller's mistake is no failure; no call at all is no ratio."""
    process, aggregate = Process("orders", "A1", clock), Aggregate()
    for status in ("OK", "OK", "INVALID_ARGUMENT", "INTERNAL"):
        process.served(status=status)
    clock.advance(1.0)
    aggregate.apply(process.say(), clock.monotonic())
    row = only(aggregate.services(clock.monotonic()))
    assert (row.total.errors, row.total.success, row.recent.success) == (1, 0.75, 0.75)
    clock.advance(60.0)
    later = only(aggregate.services(clock.monotonic()))
    assert (later.recent.requests, later.recent.success, later.recent.p99_s) == (0, None, None)
    assert later.total == row.total


def test_an_observer_that_comes_late_sees_no_rush(clock: ManualClock) -> None:
    """Calls made long before the first message heard are in the totals, not in the rate."""
    process, aggregate = Process("orders", "A1", clock), Aggregate()
    for _ in range(1000):
        process.served()
    clock.advance(3600.0)
    aggregate.apply(process.say(), clock.monotonic())
    row = only(aggregate.services(clock.monotonic()))
    assert (row.total.requests, row.recent.requests, row.rate_per_s) == (1000, 0, 0.0)
    process.served()
    clock.advance(1.0)
    aggregate.apply(process.say(), clock.monotonic())
    assert only(aggregate.services(clock.monotonic())).rate_per_s == pytest.approx(1.0)


def test_a_lost_message_bends_no_rate(clock: ManualClock) -> None:
    """With messages missing, the difference is spread over the time it took."""
    process, aggregate = Process("orders", "A1", clock), Aggregate()
    for second in range(12):
        for _ in range(10):
            process.served()
        clock.advance(1.0)
        message = process.say()
        if second not in (3, 6, 10):
            aggregate.apply(message, clock.monotonic())
    assert only(aggregate.services(clock.monotonic())).rate_per_s == pytest.approx(10.0, rel=0.02)


def test_who_fell_silent_fades_out_and_stays_in_the_totals(clock: ManualClock) -> None:
    """The rate of a dead instance sinks to nothing within the window, its in-flight calls vanish."""
    process, aggregate = Process("orders", "A1", clock), Aggregate(window_s=10.0)
    for _ in range(10):
        for _ in range(10):
            process.served()
        clock.advance(1.0)
        process.stats.series("in", "orders", "place", "web").in_flight = 3
        aggregate.apply(process.say(), clock.monotonic())
    rates = []
    for _ in range(12):
        row = only(aggregate.services(clock.monotonic()))
        rates.append(row.rate_per_s)
        clock.advance(1.0)
    assert rates[0] == pytest.approx(10.0)
    assert rates == sorted(rates, reverse=True)
    assert rates[5] < 6.0
    assert rates[-1] == 0.0
    assert (row.instances, row.in_flight, row.total.requests) == (0, 0, 100)


def test_a_restart_is_a_new_instance_and_adds_to_the_totals(clock: ManualClock) -> None:
    """A new id starts from zero; what the old life did still counts."""
    aggregate = Aggregate()
    for life in ("A1", "A2"):
        process = Process("orders", life, clock, version="1.0.0" if life == "A1" else "2.0.0")
        for _ in range(5):
            process.served()
        clock.advance(1.0)
        aggregate.apply(process.say(), clock.monotonic())
        clock.advance(30.0)
    row = only(aggregate.services(clock.monotonic()))
    assert row.total.requests == 10
    assert row.versions == {"1.0.0": 5, "2.0.0": 5}
    assert [(r.version, r.total.requests) for r in aggregate.versions(clock.monotonic())] == [
        ("1.0.0", 5),
        ("2.0.0", 5),
    ]


def test_edges_are_what_the_caller_saw_or_else_what_it_was_told(clock: ManualClock) -> None:
    """A caller's own report wins, so no call counts twice; who reports nothing appears by the other end."""
    web, orders, aggregate = Process("web", "W1", clock), Process("orders", "A1", clock), Aggregate()
    for _ in range(3):
        web.called("orders")
        orders.served(peer="web")
    web.called("orders", status="UNAVAILABLE")  # never arrived
    orders.served("cancel", peer="anonymous")
    for process in (web, orders):
        aggregate.apply(process.say(), clock.monotonic())
    edges = aggregate.edges(clock.monotonic())
    assert [(e.source, e.service, e.reporter, e.total.requests, e.total.errors) for e in edges] == [
        ("anonymous", "orders", "in", 1, 0),
        ("web", "orders", "out", 4, 1),
    ]
    by_endpoint = aggregate.edges(clock.monotonic(), by_endpoint=True)
    assert [(e.source, e.endpoint) for e in by_endpoint] == [("anonymous", "cancel"), ("web", "place")]
    assert [(e.service, e.endpoint) for e in aggregate.endpoints(clock.monotonic())] == [
        ("orders", "cancel"),
        ("orders", "place"),
    ]


def test_a_full_observer_folds_the_silent_and_keeps_the_totals(clock: ManualClock) -> None:
    """The longest silent instance makes room; its calls stay counted, and its ghost adds nothing."""
    aggregate = Aggregate(max_instances=2, max_series=2)
    processes = [Process("orders", f"A{n}", clock) for n in range(3)]
    for process in processes:
        process.served()
    old, second, third = (process.say() for process in processes)
    assert aggregate.apply(old, clock.monotonic())
    clock.advance(61.0)
    assert aggregate.apply(second, clock.monotonic())
    assert aggregate.apply(third, clock.monotonic())
    assert (len(aggregate), aggregate.total("in").requests) == (2, 3)
    assert not aggregate.apply(processes[0].say(), clock.monotonic())
    assert (aggregate.late, aggregate.total("in").requests) == (1, 3)
    row = only(aggregate.services(clock.monotonic()))
    assert (row.total.requests, row.versions) == (3, {"1.0.0": 3})


def test_a_full_observer_without_silent_instances_leaves_newcomers_out(clock: ManualClock) -> None:
    """No live instance is dropped for another; what is left out is counted."""
    aggregate = Aggregate(max_instances=1, max_series=1)
    busy = Process("orders", "A1", clock)
    busy.served("place")
    busy.served("cancel")
    aggregate.apply(busy.say(), clock.monotonic())
    assert aggregate.overflowed == 1
    assert not aggregate.apply(Process("orders", "A2", clock).say(), clock.monotonic())
    assert (aggregate.overflowed, len(aggregate)) == (2, 1)
    with pytest.raises(ConfigError):
        Aggregate(window_s=0)


def test_counting_backwards_is_not_believed(clock: ManualClock) -> None:
    """Cumulative numbers that sink, or an age that does, are no news."""
    process, aggregate = Process("orders", "A1", clock), Aggregate()
    for _ in range(5):
        process.served()
    clock.advance(5.0)
    message = process.say()
    aggregate.apply(message, clock.monotonic())
    (series,) = message.series
    for change in ({"statuses": {"OK": 1}}, {"age_s": 1.0}):
        lie = msgspec.structs.replace(series, **change)
        aggregate.apply(msgspec.structs.replace(message, seq=9, series=(lie,)), clock.monotonic())
    assert aggregate.total("in").requests == 5


def test_a_flood_of_messages_keeps_few_points(clock: ManualClock) -> None:
    """The memory of a series is bounded by the window, however often its sender speaks."""
    process, aggregate = Process("orders", "A1", clock), Aggregate(window_s=10.0)
    for _ in range(5000):
        process.served()
        clock.advance(0.01)
        aggregate.apply(process.say(), clock.monotonic())
    points = [len(track.points) for source in aggregate._sources.values() for track in source.tracks.values()]
    assert max(points) <= 40
    assert only(aggregate.services(clock.monotonic())).rate_per_s == pytest.approx(100.0, rel=0.05)


def test_an_empty_snapshot_is_a_sign_of_life(clock: ManualClock) -> None:
    """An idle instance is heard, counted nowhere, and its repeats are stale."""
    aggregate = Aggregate()
    message = Process("orders", "A1", clock).say()
    assert aggregate.apply(message, clock.monotonic())
    assert not aggregate.apply(message, clock.monotonic())
    assert (len(aggregate), aggregate.stale, aggregate.services(clock.monotonic())) == (1, 1, [])
    assert SeriesSnapshot(side="in", service="s", endpoint="e", peer="p", age_s=0).requests == 0

"""Metrics: plain numbers read at a scrape, under the names and labels that dashboards are built on."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest as generate_classic
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.parser import text_string_to_metric_families as parse_classic
from prometheus_client.registry import Collector

from nats_mesh import Mesh, Service
from nats_mesh.core.breaker import BreakerState
from nats_mesh.core.histogram import BOUNDS
from nats_mesh.core.presence import Standing, State
from nats_mesh.errors import CodecError, ConfigError, Status
from nats_mesh.telemetry.collector import BUCKETS_S, MeshCollector
from nats_mesh.telemetry.metrics import (
    MAX_EXAMPLES,
    Exemplars,
    decode_tables,
    empty,
    encode_tables,
    latest,
    merge,
)
from nats_mesh.telemetry.series import OTHER, Series
from nats_mesh.telemetry.stats import Stats
from nats_mesh.telemetry.stats_messages import EndpointLoad
from nats_mesh.telemetry.workers import WorkerReport, WorkersCollector
from nats_mesh.wire.transport import TransportStats

#: These two bear no types.
generate_latest: Any = exposition.generate_latest
text_string_to_metric_families: Any = parser.text_string_to_metric_families

EDGE = {"reporter", "source_service", "destination_service", "endpoint"}
LABELS = {
    "mesh_requests_total": EDGE | {"destination_version", "status", "flags"},
    "mesh_request_duration_seconds_bucket": EDGE | {"le"},
    "mesh_request_duration_seconds_count": EDGE,
    "mesh_request_duration_seconds_sum": EDGE,
    "mesh_requests_in_flight": EDGE,
    "mesh_concurrency_limit": {"destination_service", "endpoint"},
    "mesh_queue_depth": {"destination_service", "endpoint"},
    "mesh_retries_total": EDGE - {"reporter"} | {"outcome"},
    "mesh_circuit_breaker_state": EDGE - {"reporter"} | {"state"},
    "mesh_ejections_total": {"source_service", "destination_service"},
    "mesh_limited_total": {"destination_service", "endpoint", "policy", "reason"},
    "mesh_policy_revision": {"service"},
    "mesh_policy_rejected_total": {"service"},
    "mesh_bus_rtt_seconds": {"service"},
    "mesh_bus_reconnects_total": {"service"},
    "mesh_bus_messages_total": {"service", "direction"},
    "mesh_bus_dropped_total": {"service", "reason"},
    "mesh_build_info": {"version", "python_version"},
}


def caller(name: str = "web", **options: Any) -> Any:
    """A mesh with counters and a connection that came back three times."""
    bus = TransportStats()
    bus.reconnects, bus.in_messages, bus.out_messages, bus.dropped_not_text = 3, 50, 40, 1
    client = SimpleNamespace(
        transport=SimpleNamespace(stats=bus),
        mux=SimpleNamespace(late=2),
        opinions=SimpleNamespace(dropped=4, breakers=SimpleNamespace(unknown=5, unheeded=6)),
    )
    return SimpleNamespace(name=name, stats=Stats(**options), client=client)


def instance(name: str = "orders", version: str = "1.0.0", limit: int = 64, **options: Any) -> Any:
    """A ready instance with counters and one endpoint, ``place``."""
    made = caller(name, **options)
    made.service = SimpleNamespace(name=name, version=version)
    made.state = State.READY
    made.dispatcher = SimpleNamespace(
        loads=lambda: {"place": EndpointLoad(limit=limit, queue=3)},
        limits=SimpleNamespace(refused=lambda: {("place", ""): 1, ("place", "Limit.tight"): 4}),
        dropped=Counter({"forged": 7}),
        replier=SimpleNamespace(lost=8),
    )
    return made


def families(collector: Collector) -> dict[str, Metric]:
    """What a Prometheus server reads, after the way over the wire."""
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        text = generate_latest(registry).decode()
    finally:
        registry.unregister(collector)
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(collector: Collector, name: str) -> dict[tuple[str, ...], float]:
    """The values of one metric by their labels' values in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in families(collector).values()
        for sample in family.samples
        if sample.name == name
    }


def total(collector: Collector, name: str, **labels: str) -> float:
    """The sum of one metric over all label sets that have ``labels``."""
    return sum(
        sample.value
        for family in families(collector).values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


# -- what is exported ---------------------------------------------------------------------------------


def test_names_and_labels_are_those_of_the_contract() -> None:
    """Dashboards and alerts are written against these names; nothing else is exported."""
    web, orders = caller(), instance()
    series = web.stats.series("out", "orders", "place", "web")
    series.record(0.01, "OK")
    series.retried_ok = 1
    orders.stats.series("in", "orders", "place", "web").record(0.01, "OK")
    web.standing = Standing(source="bus", revision=(1, 42))
    web.client.transport.stats.rtt_s = 0.001
    web.client.outbound = outbound(("orders", "place", "", BreakerState.CLOSED), orders=1)
    found: dict[str, set[str]] = {}
    for family in families(MeshCollector(web, orders)).values():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    assert found == LABELS


def test_both_formats_say_the_same() -> None:
    """The OpenMetrics and the classic text format both parse, with equal samples."""
    orders = instance()
    orders.stats.series("in", "orders", "place", "web").record(0.01, "OK")
    registry = CollectorRegistry()
    registry.register(MeshCollector(orders))

    def read(parsed: Iterable[Metric]) -> set[tuple[Any, ...]]:
        return {(s.name, tuple(sorted(s.labels.items())), s.value) for m in parsed for s in m.samples}

    modern = read(text_string_to_metric_families(generate_latest(registry).decode()))
    assert modern == read(parse_classic(generate_classic(registry).decode()))


def test_each_side_reports_its_own_calls() -> None:
    """Calls made have the source's name and no version, calls answered the version of who answered."""
    web, orders = caller(), instance(version="2.1.0")
    web.stats.series("out", "orders", "place", "web").record(0.01, "OK")
    orders.stats.series("in", "orders", "place", "web").record(0.01, "OK")
    assert samples(MeshCollector(web, orders), "mesh_requests_total") == {
        # destination_service, destination_version, endpoint, flags, reporter, source_service, status
        ("orders", "", "place", "", "source", "web", "OK"): 1,
        ("orders", "2.1.0", "place", "", "destination", "web", "OK"): 1,
    }


def test_flags_say_why_the_mesh_ended_a_call() -> None:
    """A call is counted once, under the flags that it ended with; what the application answered has none."""
    web, orders = caller(), instance()
    made = web.stats.series("out", "orders", "place", "web")
    for status, flags in (
        ("UNAVAILABLE", "UH"),
        ("UNAVAILABLE", "UO"),
        ("DEADLINE_EXCEEDED", "UT,URX"),
        ("OK", "DI"),
    ):
        made.end(0.01, status, flags)
    made.record(0.01, "OK")
    made.record(0.01, "UNAVAILABLE")
    orders.stats.series("in", "orders", "place", "web").record(0.01, "RESOURCE_EXHAUSTED")
    collector = MeshCollector(web, orders)
    found = {
        (key[6], key[3]): value
        for key, value in samples(collector, "mesh_requests_total").items()
        if key[4] == "source"
    }
    assert found == {
        ("UNAVAILABLE", "UH"): 1, ("UNAVAILABLE", "UO"): 1, ("DEADLINE_EXCEEDED", "UT,URX"): 1, ("OK", "DI"): 1,
        ("OK", ""): 1, ("UNAVAILABLE", ""): 1,
    }  # fmt: skip
    assert total(collector, "mesh_requests_total", reporter="destination", flags="") == 1


def test_retries_are_told_by_what_came_of_them() -> None:
    """Attempts beyond the first, and those that the budget had no room for; nothing where there were none."""
    web = caller()
    series = web.stats.series("out", "orders", "place", "web")
    series.record(0.01, "OK")
    assert samples(MeshCollector(web), "mesh_retries_total") == {}
    series.retried_ok, series.retried_failed, series.retries_denied = 3, 2, 1
    assert samples(MeshCollector(web), "mesh_retries_total") == {
        # destination_service, endpoint, outcome, source_service
        ("orders", "place", "denied", "web"): 1,
        ("orders", "place", "failure", "web"): 2,
        ("orders", "place", "success", "web"): 3,
    }


def outbound(*circuits: tuple[str, str, str, BreakerState], **ejections: int) -> Any:
    """The layers of a caller, as far as they are counted."""
    return SimpleNamespace(circuits=lambda: list(circuits), ejections=ejections)


def test_circuits_are_one_hot_and_add_up() -> None:
    """Of each circuit one state is 1; of two callers in one process the sum says how many are in each."""
    first, second = caller(), caller()
    for mesh in (first, second):
        mesh.stats.series("out", "orders", "place", "web").record(0.01, "OK")
    first.client.outbound = outbound(("orders", "place", "", BreakerState.OPEN), orders=2)
    second.client.outbound = outbound(("orders", "place", "v2", BreakerState.CLOSED))
    collector = MeshCollector(first, second)
    assert {key[3]: v for key, v in samples(collector, "mesh_circuit_breaker_state").items()} == {
        "OPEN": 1,
        "HALF_OPEN": 0,
        "CLOSED": 1,
    }
    assert samples(collector, "mesh_ejections_total") == {("orders", "web"): 2}


def test_where_members_stand_with_policies() -> None:
    """The revision in effect, of members that follow the bus, and what was rejected; of two the lower revision."""
    web, orders, files = caller(), instance(), caller("batch")
    web.standing = Standing(source="bus", revision=(1, 42), rejected=2)
    orders.standing = Standing(source="bus", revision=(1, 40))
    files.standing = Standing(source="files", rejected=1)
    other = caller()
    other.standing = Standing(source="bus", revision=(1, 41))
    collector = MeshCollector(web, orders, files, other)
    assert samples(collector, "mesh_policy_revision") == {("orders",): 40, ("web",): 41}
    assert samples(collector, "mesh_policy_rejected_total") == {("batch",): 1, ("orders",): 0, ("web",): 2}


def test_limits_say_which_policy_refused() -> None:
    """A refusal counts for the policy that set the limit, or for none where the endpoint declared it."""
    collector = MeshCollector(instance())
    assert samples(collector, "mesh_limited_total") == {
        # destination_service, endpoint, policy, reason
        ("orders", "place", "", "concurrency"): 1,
        ("orders", "place", "Limit.tight", "concurrency"): 4,
    }
    assert samples(collector, "mesh_queue_depth") == {("orders", "place"): 3}


def test_what_left_goes_on_counting() -> None:
    """A source that is removed takes its gauges along and nothing that counts; a second life adds to it."""
    web = caller()
    series = web.stats.series("out", "orders", "place", "web")
    series.record(0.01, "OK")
    series.in_flight = 1
    collector = MeshCollector(web)
    collector.remove(web, web.client)
    assert total(collector, "mesh_requests_total") == 1
    assert total(collector, "mesh_bus_reconnects_total") == 3
    assert samples(collector, "mesh_requests_in_flight") == {}
    again = caller()
    again.stats.series("out", "orders", "place", "web").record(0.02, "OK")
    collector.add(again)
    assert total(collector, "mesh_requests_total") == 2
    assert total(collector, "mesh_request_duration_seconds_count") == 2


def test_an_example_stands_at_its_bucket() -> None:
    """OpenMetrics carries the trace of a call in the bucket that its duration falls in, and in no other."""
    orders = instance()
    orders.stats.series("in", "orders", "place", "web").record(0.0015, "OK")
    collector = MeshCollector(orders)
    at = next(n for n, bound in enumerate(BUCKETS_S) if bound >= 0.0015)
    collector.exemplars = {("destination", "web", "orders", "place"): {at: ("ab" * 16, 0.0015, 1e9)}}
    found = {
        float(sample.labels["le"]): sample.exemplar
        for sample in families(collector)["mesh_request_duration_seconds"].samples
        if sample.name.endswith("_bucket") and sample.exemplar is not None
    }
    assert list(found) == [BUCKETS_S[at]]
    assert found[BUCKETS_S[at]].labels == {"trace_id": "ab" * 16}
    assert found[BUCKETS_S[at]].value == 0.0015


def test_tables_travel_and_add_up() -> None:
    """What workers send is what they have, and the sum of two is exact, histograms included."""
    orders = instance()
    series = orders.stats.series("in", "orders", "place", "web")
    for n in range(1000):
        series.record(0.0001 * n, "OK")
    tables = MeshCollector(orders).tables()
    examples: Exemplars = {("destination", "web", "orders", "place"): {3: ("ab" * 16, 0.002, 5.0)}}
    assert decode_tables(encode_tables(tables, examples)) == (tables, examples)
    both = empty()
    merge(both, tables)
    merge(both, decode_tables(encode_tables(tables))[0])
    (value,) = both["mesh_request_duration_seconds"].values()
    assert (value.count, value.sum_ns) == (2000, 2 * series.histogram.sum_ns)
    with pytest.raises(CodecError):
        decode_tables(b"\xc1")


def test_buckets_are_exact() -> None:
    """Each exported bound is one that calls are counted by: what lies on it is below, what is longer is not."""
    orders = instance()
    series = orders.stats.series("in", "orders", "place", "web")
    durations = [0.0, 0.00001, 1000.0, *(s for b in BOUNDS for s in (b, b * 1.0001))]
    for seconds in durations:
        series.record(seconds, "OK")
    collector = MeshCollector(orders)
    buckets = {
        float(labels[2]): count
        for labels, count in samples(collector, "mesh_request_duration_seconds_bucket").items()
    }
    assert buckets == {bound: sum(s <= bound for s in durations) for bound in (*BUCKETS_S, float("inf"))}
    assert BUCKETS_S[0] == 0.00025
    assert all(later == 2 * earlier for earlier, later in pairwise(BUCKETS_S))
    assert total(collector, "mesh_request_duration_seconds_count") == len(durations)
    assert total(collector, "mesh_request_duration_seconds_sum") == series.histogram.sum_s


def test_a_refused_call_counts_without_a_duration() -> None:
    """A refusal takes no time and would flatter the quantiles."""
    orders = instance()
    series = orders.stats.series("in", "orders", "place", "web")
    series.end(None, "RESOURCE_EXHAUSTED", "UO")
    collector = MeshCollector(orders)
    assert total(collector, "mesh_requests_total", flags="UO") == 1
    assert families(collector)["mesh_request_duration_seconds"].samples == []


def test_what_has_no_numbers_has_no_samples() -> None:
    """An idle mesh that is not open exports its version and nothing that could be taken for a measurement."""
    collector = MeshCollector(Mesh("web", servers="nats://127.0.0.1:1"))
    assert [name for name, family in families(collector).items() if family.samples] == ["mesh_build"]


def test_limits_stand_while_calls_are_taken() -> None:
    """Limits of instances of one service add up as their calls do; who drains offers no slots."""
    first, second = instance(limit=64), instance(limit=16)
    collector = MeshCollector(first, second)
    assert samples(collector, "mesh_concurrency_limit") == {("orders", "place"): 80}
    first.state = State.DRAINING
    assert samples(collector, "mesh_concurrency_limit") == {("orders", "place"): 16}


def test_what_did_not_serve_is_told_by_its_reason() -> None:
    """Everything that a connection and an instance count and do not use, and what passed in all; a pure caller has no
    requests that it could refuse to believe."""
    collector = MeshCollector(caller(), instance())
    assert samples(collector, "mesh_bus_messages_total") == {
        ("in", "orders"): 50, ("in", "web"): 50, ("out", "orders"): 40, ("out", "web"): 40,
    }  # fmt: skip
    dropped = samples(collector, "mesh_bus_dropped_total")
    of_caller = {
        "not-text": 1, "handler-error": 0, "late-reply": 2,
        "forged-verdict": 4, "unknown-verdict": 5, "unheeded-verdict": 6,
    }  # fmt: skip
    of_instance = of_caller | {"malformed": 0, "forged": 7, "unsent-reply": 8}
    assert {reason: value for (reason, who), value in dropped.items() if who == "web"} == of_caller
    assert {reason: value for (reason, who), value in dropped.items() if who == "orders"} == of_instance


def test_sources_of_one_name_add_up() -> None:
    """Two meshes of one name in one process are one set of labels, with all their numbers summed."""
    first, second = caller(), caller()
    for mesh, seconds in ((first, 0.001), (second, 1.0)):
        series = mesh.stats.series("out", "orders", "place", "web")
        series.record(seconds, "OK")
        series.in_flight = 2
    collector = MeshCollector(first)
    collector.add(second)
    collector.add(first)
    assert list(samples(collector, "mesh_requests_total").values()) == [2]
    assert list(samples(collector, "mesh_requests_in_flight").values()) == [4]
    assert list(samples(collector, "mesh_bus_reconnects_total").values()) == [6]
    assert total(collector, "mesh_request_duration_seconds_sum") == 1.001


# -- bounds -------------------------------------------------------------------------------------------


def test_series_are_bounded_and_nothing_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    """Beyond the bound what is new adds to _OTHER; each metric says so once, however often it is scraped."""
    orders = instance()
    for number in range(50):
        orders.stats.series("in", "orders", "place", f"caller{number}").record(0.01, "OK")
    collector = MeshCollector(orders, max_series=10)
    with caplog.at_level(logging.WARNING, "nats_mesh.telemetry"):
        for _ in range(3):
            found = samples(collector, "mesh_requests_total")
    assert len(found) == 11
    assert found[(OTHER, OTHER, OTHER, "", "destination", OTHER, "OK")] == 40
    assert sum(found.values()) == 50
    assert total(collector, "mesh_request_duration_seconds_count") == 50
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert {text.split()[1] for text in said} == {
        "mesh_requests",
        "mesh_request_duration_seconds",
        "mesh_requests_in_flight",
    }


def test_a_series_keeps_its_name() -> None:
    """A full metric never moves what it showed under a name to _OTHER: that counter would jump."""
    orders = instance()
    first = orders.stats.series("in", "orders", "place", "first")
    orders.stats.series("in", "orders", "place", "last").record(0.01, "OK")
    collector = MeshCollector(orders, max_series=1)
    assert total(collector, "mesh_requests_total", source_service="last") == 1
    first.record(0.01, "OK")  # stands before it in the table
    assert total(collector, "mesh_requests_total", source_service="last") == 1
    assert total(collector, "mesh_requests_total", source_service=OTHER) == 1


def test_a_full_table_of_calls_still_names_its_own_service() -> None:
    """Where the counters themselves lumped callers together, the service is known all the same."""
    orders = instance(max_series=1)
    for number in range(3):
        orders.stats.series("in", "orders", "place", f"caller{number}").record(0.01, "OK")
    collector = MeshCollector(orders)
    assert total(collector, "mesh_requests_total", destination_service="orders") == 3
    assert total(collector, "mesh_requests_total", source_service=OTHER, endpoint=OTHER) == 2


def test_endpoints_that_do_not_exist_are_other() -> None:
    """A name that was only ever answered with UNIMPLEMENTED is no label; one that answers otherwise is."""
    web = caller()
    for number in range(20):
        web.stats.series("out", "orders", f"made-up-{number}", "web").record(0.01, "UNIMPLEMENTED")
    real = web.stats.series("out", "orders", "place", "web")
    real.record(0.01, "UNIMPLEMENTED")
    real.record(0.01, "OK")
    collector = MeshCollector(web)
    for name in ("mesh_requests_total", "mesh_request_duration_seconds_count"):
        assert total(collector, name, endpoint=OTHER) == 20
        assert total(collector, name, endpoint="place") == 2


class Growing(Stats):
    """A table of calls to which another thread adds one while it is first read."""

    grown = False

    def __iter__(self) -> Iterator[Series]:
        for series in super().__iter__():
            if not self.grown:
                self.grown = True
                self.series("in", "orders", "place", "late").record(0.01, "OK")
            yield series


def test_a_table_that_grows_is_read_again() -> None:
    """A scrape that meets a new series neither fails nor counts anything twice."""
    orders = instance()
    orders.stats = Growing()
    orders.stats.series("in", "orders", "place", "web").record(0.01, "OK")
    assert total(MeshCollector(orders), "mesh_requests_total") == 2


class Busy:
    """A series in which a call is refused, and flagged, while it is first read."""

    def __init__(self, series: Series) -> None:
        self.series = series
        self.read = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.series, name)

    @property
    def by_status(self) -> dict[str, int]:
        if not self.read:
            self.read = True
            self.series.end(None, "UNAVAILABLE", "UO")
        return self.series.by_status


class Refusing(Stats):
    """A table of calls, each of which are refused while they are read."""

    def __iter__(self) -> Iterator[Any]:
        return iter([Busy(series) for series in super().__iter__()])


def test_what_is_flagged_while_it_is_read_is_never_told_without() -> None:
    """A call that ends between two looks at one series stands under its flags, or not yet: counters never go back."""
    orders = instance()
    orders.stats = Refusing()
    orders.stats.series("in", "orders", "place", "web").record(0.01, "UNAVAILABLE")
    for ended in (1, 2, 3):
        found = samples(MeshCollector(orders), "mesh_requests_total")
        assert {key[3]: value for key, value in found.items()} == {"": 1, "UO": ended}


# -- registering --------------------------------------------------------------------------------------


def test_registering_reads_nothing() -> None:
    """A registry learns the names from descriptions; numbers are read at a scrape and at no other time."""
    orders = instance()
    del orders.stats
    orders.stats = type("Unread", (Stats,), {"__iter__": lambda self: pytest.fail("read")})()
    CollectorRegistry(auto_describe=True).register(MeshCollector(orders))


def test_unregistering_leaves_nothing_behind() -> None:
    """After it the registry exports nothing and nothing keeps the mesh alive; another collector takes its place."""
    web = Mesh("web", servers="nats://127.0.0.1:1")
    registry, collector, gone = CollectorRegistry(), MeshCollector(web), weakref.ref(web)
    registry.register(collector)
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(MeshCollector(web))
    assert generate_latest(registry) != b"# EOF\n"
    registry.unregister(collector)
    assert generate_latest(registry) == b"# EOF\n"
    registry.register(MeshCollector())
    del web, collector
    gc.collect()
    assert gone() is None


def test_what_cannot_be_reported_on_is_refused() -> None:
    """A Service is a description: its numbers are those of its instances, and the message says so."""
    with pytest.raises(ConfigError, match="Instance"):
        MeshCollector(Service("orders", version="1.0.0"))  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(ConfigError, match="max_series"):
        MeshCollector(max_series=0)


def test_the_library_does_not_load_prometheus() -> None:
    """Who wants no metrics does not wait for them at the start."""
    code = "import sys, nats_mesh, nats_mesh.serving.instance; print('prometheus_client' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "False"


# -- where calls went ---------------------------------------------------------------------------------


def test_a_caller_names_the_version_where_there_is_one_alone() -> None:
    """Between two readings with the same single version all calls went there; during a rollout they have none; and no
    number ever goes back."""
    web, there = caller(), {"orders": {"1.0.0"}}
    web.client.fleets = SimpleNamespace(versions=lambda service: there.get(service, set()))
    series, collector = web.stats.series("out", "orders", "place", "web"), MeshCollector(web)

    def went() -> dict[str, float]:
        return {
            version: total(collector, "mesh_requests_total", reporter="source", destination_version=version)
            for version in ("1.0.0", "2.0.0", "")
        }

    def call(count: int) -> None:
        for _ in range(count):
            series.record(0.01, Status.OK)

    call(3)
    assert went() == {"1.0.0": 3, "2.0.0": 0, "": 0}
    call(1)
    there["orders"] = {"1.0.0", "2.0.0"}
    assert went() == {"1.0.0": 3, "2.0.0": 0, "": 1}
    call(2)
    there["orders"] = {"2.0.0"}
    assert went() == {"1.0.0": 3, "2.0.0": 0, "": 3}, "some of these may have gone to the version before"
    call(4)
    series.end(None, Status.UNAVAILABLE, "UH")
    assert went() == {"1.0.0": 3, "2.0.0": 5, "": 3}
    collector.remove(web)
    assert went() == {"1.0.0": 3, "2.0.0": 5, "": 3}


def test_examples_of_several_workers_are_the_latest() -> None:
    """Of each bucket one, from whichever worker; beyond the bound new label sets are left out."""
    labels: tuple[str, ...] = ("destination", "web", "orders", "place")
    kept: dict[tuple[str, ...], dict[int, tuple[str, float, float]]] = {}
    latest(kept, {labels: {1: ("a" * 32, 0.1, 10.0), 2: ("b" * 32, 0.2, 10.0)}})
    latest(kept, {labels: {1: ("c" * 32, 0.1, 9.0), 2: ("d" * 32, 0.2, 11.0)}})
    assert {bucket: trace[0] for bucket, (trace, _, _) in kept[labels].items()} == {1: "a", 2: "d"}
    latest(kept, {(str(n),): {1: ("e" * 32, 0.1, 1.0)} for n in range(2 * MAX_EXAMPLES)})
    assert len(kept) == MAX_EXAMPLES


def test_a_supervisor_shows_the_examples_of_its_workers() -> None:
    """One metrics port for all of them loses no exemplar, also once the worker has ended."""
    orders = instance()
    orders.stats.series("in", "orders", "place", "web").record(0.0015, "OK")
    collector, workers = MeshCollector(orders), WorkersCollector()
    at = next(n for n, bound in enumerate(BUCKETS_S) if bound >= 0.0015)
    collector.exemplars = {("destination", "web", "orders", "place"): {at: ("ab" * 16, 0.0015, 1e9)}}
    its = workers.begin(1)
    report = WorkerReport(its.detach(), collector.tables, lambda: True, collector.examples)

    def shown() -> list[Any]:
        found = families(workers)["mesh_request_duration_seconds"].samples
        return [sample.exemplar.labels for sample in found if sample.exemplar is not None]

    assert shown() == [{"trace_id": "ab" * 16}]
    report.finish()
    workers.ended(1)
    assert shown() == [{"trace_id": "ab" * 16}]
    report._socket.close()

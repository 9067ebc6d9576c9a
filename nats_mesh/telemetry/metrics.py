"""The metrics there are: names, labels, texts; and tables of their values, which add up.

A table is what a process has to say of one metric: values by label sets. Tables travel from workers to the process that
supervises them (:mod:`nats_mesh.telemetry.workers`), and those of who has left are kept, so that no counter ever
goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, Final, TypeAlias

import msgspec
from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from nats_mesh.core.histogram import BOUNDS, Histogram, HistogramSnapshot
from nats_mesh.errors import CodecError

__all__ = [
    "BUCKETS_S",
    "EDGE",
    "MAX_EXAMPLES",
    "METRICS",
    "Exemplars",
    "Labels",
    "Tables",
    "decode_tables",
    "empty",
    "encode_tables",
    "families",
    "family",
    "lasting",
    "latest",
    "merge",
]

Labels: TypeAlias = tuple[str, ...]
#: By metric and label set: a number, or a histogram.
Tables: TypeAlias = dict[str, dict[Labels, Any]]
#: By label set of the durations, and by exported bucket: a trace, how long its call took (seconds), when (wall time).
Exemplars: TypeAlias = Mapping[Labels, Mapping[int, tuple[str, float, float]]]

#: Of how many label sets there are exemplars.
MAX_EXAMPLES: Final = 1000
_NO_EXEMPLARS: Final[Exemplars] = {}
_FIRST: Final = BOUNDS.index(0.00025)
_STEP: Final = 4
#: Upper bounds of the exported buckets in seconds, inclusive: 0.25 ms, doubling, to 131 s. Each is a bound
#: of the histograms that calls are counted in, so no count is interpolated.
BUCKETS_S: Final = BOUNDS[_FIRST::_STEP]
_LE: Final = (*map(repr, BUCKETS_S), "+Inf")

EDGE: Final = ("reporter", "source_service", "destination_service", "endpoint")
#: Every metric by the name of its family: labels, and what it says.
METRICS: Final[Mapping[str, tuple[Callable[..., Metric], Labels, str]]] = {
    "mesh_requests": (
        CounterMetricFamily,
        (*EDGE[:3], "destination_version", "endpoint", "status", "flags"),
        "Calls that ended, refused ones too; flags say why where the mesh itself ended them, as in Envoy.",
    ),
    "mesh_request_duration_seconds": (
        HistogramMetricFamily,
        EDGE,
        "Time from the start of a call to its end, as its reporter saw it; refused calls have none.",
    ),
    "mesh_requests_in_flight": (GaugeMetricFamily, EDGE, "Calls that have begun and not ended."),
    "mesh_concurrency_limit": (
        GaugeMetricFamily,
        ("destination_service", "endpoint"),
        "Calls that the instances in this process run at a time before they refuse.",
    ),
    "mesh_queue_depth": (
        GaugeMetricFamily,
        ("destination_service", "endpoint"),
        "Calls that have come and wait to begin.",
    ),
    "mesh_retries": (
        CounterMetricFamily,
        (*EDGE[1:], "outcome"),
        "Attempts beyond the first, by what came of them; denied: the budget had no room for it.",
    ),
    "mesh_circuit_breaker_state": (
        GaugeMetricFamily,
        (*EDGE[1:], "state"),
        "Circuits of callers in this process that are in this state.",
    ),
    "mesh_ejections": (
        CounterMetricFamily,
        ("source_service", "destination_service"),
        "Times that a caller took an instance out of balancing for a while.",
    ),
    # Without samples until there are access rules, which will count here.
    "mesh_access_decisions": (
        CounterMetricFamily,
        ("destination_service", "endpoint", "policy", "decision"),
        "Calls that access rules allowed or denied, by the policy that decided; counted from when access rules hold.",
    ),
    "mesh_limited": (
        CounterMetricFamily,
        ("destination_service", "endpoint", "policy", "reason"),
        "Calls that a limit refused; the policy is empty where the endpoint's own declaration did.",
    ),
    "mesh_policy_revision": (
        GaugeMetricFamily,
        ("service",),
        "The highest revision of the policies on the bus that is in effect.",
    ),
    "mesh_policy_rejected": (
        CounterMetricFamily,
        ("service",),
        "Policies that were not taken, and are not in effect.",
    ),
    "mesh_bus_rtt_seconds": (GaugeMetricFamily, ("service",), "From a ping to the server to its answer."),
    "mesh_bus_reconnects": (
        CounterMetricFamily,
        ("service",),
        "Times that a connection to the bus was lost and came back.",
    ),
    "mesh_bus_messages": (
        CounterMetricFamily,
        ("service", "direction"),
        "Messages that came from the bus (in) and went there (out), of every kind.",
    ),
    "mesh_bus_dropped": (
        CounterMetricFamily,
        ("service", "reason"),
        "Messages that came and were not used, or should have gone and did not, by the reason.",
    ),
}

#: What no longer is once its process has ended; all others are kept.
_NOW: Final = frozenset(name for name, (make, _, _) in METRICS.items() if make is GaugeMetricFamily)
#: Gauges of which several processes have one each, and not a share: the lowest revision is what surely is in effect,
#: the longest way is what somebody waits for.
_TOGETHER: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "mesh_policy_revision": min,
    "mesh_bus_rtt_seconds": max,
}


def empty() -> Tables:
    """A table of each metric, without values."""
    return {name: {} for name in METRICS}


def merge(into: Tables, more: Tables) -> None:
    """Add ``more``: counts and histograms add up."""
    for name, values in more.items():
        table, together = into[name], _TOGETHER.get(name)
        for labels, value in values.items():
            known = table.get(labels)
            if isinstance(value, Histogram):
                if known is None:
                    known = table[labels] = Histogram()
                known.merge(value)
            elif known is None:
                table[labels] = value
            else:
                table[labels] = known + value if together is None else together(known, value)


def lasting(tables: Tables) -> Tables:
    """What is still true once whoever counted it has gone: everything that only grows."""
    return {name: values for name, values in tables.items() if name not in _NOW}


def families(tables: Tables, exemplars: Exemplars = _NO_EXEMPLARS) -> Iterator[Metric]:
    """Every metric there may be; what has no values is named and described all the same, and has no samples."""
    for name, values in tables.items():
        yield family(name, values, exemplars)


def family(name: str, values: Mapping[Labels, Any], exemplars: Exemplars = _NO_EXEMPLARS) -> Metric:
    """One metric."""
    make, labels, text = METRICS[name]
    made: Any = make(name, text, labels=labels)
    for key, value in values.items():
        if isinstance(value, Histogram):
            reached = list(accumulate(value.counts))
            counts = (*reached[_FIRST : _FIRST + _STEP * len(BUCKETS_S) : _STEP], reached[-1])
            made.add_metric(key, list(_buckets(counts, exemplars.get(key, {}))), value.sum_s)
        else:
            made.add_metric(key, value)
    return made  # type: ignore[no-any-return]  # prometheus_client has no types for what it makes


def _buckets(
    counts: Iterable[int], exemplars: Mapping[int, tuple[str, float, float]]
) -> Iterator[tuple[Any, ...]]:
    for at, (le, count) in enumerate(zip(_LE, counts, strict=True)):
        found = exemplars.get(at)
        if found is None:
            yield le, count
        else:
            trace_id, took_s, wall_s = found
            yield le, count, Exemplar({"trace_id": trace_id}, took_s, wall_s)


# -- between processes ------------------------------------------------------------------------------

_Value = int | float | HistogramSnapshot
_Example = tuple[str, float, float]


class _Report(msgspec.Struct, array_like=True):
    tables: dict[str, list[tuple[tuple[str, ...], _Value]]]
    exemplars: list[tuple[tuple[str, ...], dict[int, _Example]]] = []


_decoder = msgspec.msgpack.Decoder(_Report)


def encode_tables(tables: Tables, exemplars: Exemplars = _NO_EXEMPLARS) -> bytes:
    """The bytes that :func:`decode_tables` reads."""
    return msgspec.msgpack.encode(
        _Report(
            {
                name: [
                    (labels, value.snapshot() if isinstance(value, Histogram) else value)
                    for labels, value in values.items()
                ]
                for name, values in tables.items()
                if values
            },
            [(labels, dict(found)) for labels, found in exemplars.items()],
        )
    )


def decode_tables(data: bytes) -> tuple[Tables, Exemplars]:
    """Read tables and exemplars; :class:`CodecError` where they are none. Metrics of another version are left out."""
    tables = empty()
    try:
        read = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CodecError(f"metrics: {error}") from None
    for name, values in read.tables.items():
        if name in tables:
            for labels, value in values:
                found = Histogram.from_snapshot(value) if isinstance(value, HistogramSnapshot) else value
                tables[name][labels] = found
    return tables, dict(read.exemplars[:MAX_EXAMPLES])


def latest(into: dict[Labels, dict[int, tuple[str, float, float]]], more: Exemplars) -> None:
    """Put in what is later than what is there; beyond :data:`MAX_EXAMPLES` label sets what is new is left out."""
    for labels, found in more.items():
        known = into.get(labels)
        if known is None:
            if len(into) >= MAX_EXAMPLES:
                continue
            known = into[labels] = {}
        for bucket, example in found.items():
            if bucket not in known or known[bucket][2] <= example[2]:
                known[bucket] = example

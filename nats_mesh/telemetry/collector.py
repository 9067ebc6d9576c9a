"""The numbers of this process for Prometheus, made at the moment of a scrape and at no other time.

Calls count in plain integers (:mod:`nats_mesh.telemetry.stats`); this module reads them. It is the only
one that imports prometheus-client, so nobody pays for it who does not ask for metrics.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from threading import Lock
from typing import Any, Final, Protocol, TypeAlias

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from nats_mesh.core.histogram import BOUNDS, Histogram
from nats_mesh.core.presence import State
from nats_mesh.errors import ConfigError, Status
from nats_mesh.telemetry.stats import OTHER, SeriesSnapshot, Stats, snapshot_of
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.transport import Transport

__all__ = ["BUCKETS_S", "MAX_SERIES", "MeshCollector", "Source"]

log = logging.getLogger("nats_mesh.telemetry")

#: Label sets that each metric may have before what is new is counted under ``_OTHER``.
MAX_SERIES: Final = 2000

_Labels: TypeAlias = tuple[str, ...]

_FIRST: Final = BOUNDS.index(0.00025)
_STEP: Final = 4
#: Upper bounds of the exported buckets in seconds, inclusive: 0.25 ms, doubling, to 131 s. Each is a bound
#: of the histograms that calls are counted in, so no count is interpolated.
BUCKETS_S: Final = BOUNDS[_FIRST::_STEP]
_LE: Final = (*map(repr, BUCKETS_S), "+Inf")

_EDGE: Final = ("reporter", "source_service", "destination_service", "endpoint")
#: Every metric by the name of its family: labels, and what it says.
_METRICS: Final[Mapping[str, tuple[Callable[..., Metric], _Labels, str]]] = {
    "mesh_requests": (
        CounterMetricFamily,
        (*_EDGE[:3], "destination_version", "endpoint", "status", "flags"),
        "Calls that ended, refused ones too; flags as in Envoy, by the status.",
    ),
    "mesh_request_duration_seconds": (
        HistogramMetricFamily,
        _EDGE,
        "Time from the start of a call to its end, as its reporter saw it; refused calls have none.",
    ),
    "mesh_requests_in_flight": (GaugeMetricFamily, _EDGE, "Calls that have begun and not ended."),
    "mesh_concurrency_limit": (
        GaugeMetricFamily,
        ("destination_service", "endpoint"),
        "Calls that the instances in this process run at a time before they refuse.",
    ),
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
_BUILD: Final = "mesh_build"
_BUILD_HELP: Final = "The version of nats-mesh in this process, and of its Python."
#: What a label set that finds no room keeps: these say nothing about who called whom.
_KEPT: Final = frozenset({"reporter", "status", "flags"})

#: Envoy's flag for what the mesh itself ends calls with, by the status it uses for that.
_FLAGS: Final[Mapping[tuple[str, str], str]] = {
    ("source", Status.UNAVAILABLE): "UH",
    ("source", Status.RESOURCE_EXHAUSTED): "UO",
    ("destination", Status.RESOURCE_EXHAUSTED): "UO",
    ("source", Status.DEADLINE_EXCEEDED): "UT",
    ("destination", Status.DEADLINE_EXCEEDED): "UT",
    ("source", Status.CANCELLED): "DC",
    ("destination", Status.CANCELLED): "DC",
}
#: A table may grow under a reader in another thread; it is bounded, so that soon one reading comes through.
_TRIES: Final = 1000


class _Breakers(Protocol):
    @property
    def unknown(self) -> int: ...

    @property
    def unheeded(self) -> int: ...


class _Opinions(Protocol):
    @property
    def dropped(self) -> int: ...

    @property
    def breakers(self) -> _Breakers: ...


class _Connected(Protocol):
    @property
    def transport(self) -> Transport: ...

    @property
    def mux(self) -> ReplyMux: ...

    @property
    def opinions(self) -> _Opinions: ...


class Source(Protocol):
    """What has numbers: a :class:`~nats_mesh.Mesh` or an :class:`~nats_mesh.serving.instance.Instance`, open or not."""

    @property
    def stats(self) -> Stats: ...

    @property
    def client(self) -> _Connected: ...


class MeshCollector(Collector):
    """Prometheus metrics of some meshes and instances: ``REGISTRY.register(MeshCollector(mesh, instance))``.

    One collector stands for the whole process: a registry takes no second one, as both would export the
    same metrics; :meth:`add` takes in what starts later. Sources with the same labels add up, as two
    instances of one service do. Any thread may scrape; a scrape while calls run sees each of them or not yet,
    with the counters of one call perhaps a moment apart.

    Exact once calls rest: ``mesh_requests_total``, buckets, count and sum of ``mesh_request_duration_seconds``
    (per call whole nanoseconds; a refused call never began and has no duration, hence ``_count`` may be below
    the requests). ``reporter="source"`` are calls made, whose destination's version is not known and empty;
    ``reporter="destination"`` are calls answered.

    ``flags`` is what the mesh itself ends calls with under that status (UH, UO, UT, DC), empty for all others.
    The counters hold statuses, not reasons: UH is every UNAVAILABLE of a caller, also of a bus that is away,
    and an application error with one of these statuses bears the flag as well.

    Bounded: beyond ``max_series`` label sets of one metric the new ones are counted with ``_OTHER`` for
    every name (at most one such set for each reporter and status more), which the log says once per metric.
    A called endpoint is ``_OTHER`` as long as every answer was UNIMPLEMENTED, and moves to its own name with
    the first other one. Histograms have no ``status``: durations are counted over all outcomes.
    """

    def __init__(self, *sources: Source, max_series: int = MAX_SERIES) -> None:
        if max_series < 1:
            raise ConfigError(f"MeshCollector: max_series must be at least 1, got {max_series}")
        self._max_series = max_series
        self._sources: list[Source] = []
        # What once stood under its own name stays there: a counter that changed its name would seem to jump.
        self._admitted: dict[str, set[_Labels]] = {}
        self._full: set[str] = set()
        self._lock = Lock()
        self._build = {"version": _own_version(), "python_version": platform.python_version()}
        for source in sources:
            self.add(source)

    def add(self, source: Source) -> None:
        """Report on one more mesh or instance; nothing where it is reported on already."""
        if not isinstance(getattr(source, "stats", None), Stats):
            raise ConfigError(
                f"MeshCollector: {source!r:.80} has no numbers; pass a Mesh or an Instance (serve(on_ready=…) "
                "hands out those of a Service)"
            )
        with self._lock:
            if not any(known is source for known in self._sources):
                self._sources.append(source)

    def describe(self) -> Iterable[Metric]:
        """Every metric there may be, without values: what a registry checks for clashes."""
        return [*(_family(name, {}) for name in _METRICS), InfoMetricFamily(_BUILD, _BUILD_HELP)]

    def collect(self) -> Iterator[Metric]:
        """Every metric that has a value now."""
        with self._lock:
            tables = self._read()
        yield from (_family(name, values) for name, values in tables.items() if values)
        yield InfoMetricFamily(_BUILD, _BUILD_HELP, value=self._build)

    def _read(self) -> dict[str, dict[_Labels, Any]]:
        tables: dict[str, dict[_Labels, Any]] = {name: {} for name in _METRICS}
        for source in self._sources:
            name, its_version = _identity(source)
            for series in _consistent(source.stats):
                self._read_series(tables, series, _edge(name, series), its_version)
            for endpoint, limit in _limits(source).items():
                self._add(tables, "mesh_concurrency_limit", (name, endpoint), limit)
            try:
                bus = source.client.transport.stats
            except ConfigError:  # not open: it has no connection to speak of
                continue
            self._add(tables, "mesh_bus_reconnects", (name,), bus.reconnects)
            self._add(tables, "mesh_bus_messages", (name, "in"), bus.in_messages)
            self._add(tables, "mesh_bus_messages", (name, "out"), bus.out_messages)
            for reason, count in _dropped(source).items():
                self._add(tables, "mesh_bus_dropped", (name, reason), count)
        return tables

    def _read_series(
        self, tables: dict[str, dict[_Labels, Any]], series: SeriesSnapshot, edge: _Labels, its_version: str
    ) -> None:
        reporter, *_, endpoint = edge
        destination_version = its_version if reporter == "destination" else ""
        for status, count in series.statuses.items():
            flags = _FLAGS.get((reporter, status), "")
            labels = (*edge[:3], destination_version, endpoint, status, flags)
            self._add(tables, "mesh_requests", labels, count)
        if series.histogram.buckets:
            key = self._room("mesh_request_duration_seconds", edge)
            tables["mesh_request_duration_seconds"].setdefault(key, Histogram()).add(series.histogram)
        if series.statuses or series.in_flight:
            self._add(tables, "mesh_requests_in_flight", edge, series.in_flight)

    def _add(self, tables: dict[str, dict[_Labels, Any]], metric: str, labels: _Labels, count: int) -> None:
        table, key = tables[metric], self._room(metric, labels)
        table[key] = table.get(key, 0) + count

    def _room(self, metric: str, labels: _Labels) -> _Labels:
        """``labels``, or where the metric is full those of everything that found no room."""
        admitted = self._admitted.setdefault(metric, set())
        if labels in admitted:
            return labels
        if len(admitted) < self._max_series:
            admitted.add(labels)
            return labels
        if metric not in self._full:
            self._full.add(metric)
            log.warning(
                "metrics: %s has %d label sets, as many as max_series allows; what is new counts as %s",
                metric, self._max_series, OTHER,
            )  # fmt: skip
        names = _METRICS[metric][1]
        return tuple(value if name in _KEPT else OTHER for name, value in zip(names, labels, strict=True))

    def __repr__(self) -> str:
        return f"<MeshCollector {len(self._sources)} sources>"


def _identity(source: Any) -> tuple[str, str]:
    """Whose numbers these are, and the version of what answers (a pure caller has none)."""
    service = getattr(source, "service", None)
    return (source.name, "") if service is None else (service.name, service.version)


def _consistent(stats: Stats) -> list[SeriesSnapshot]:
    """All series, also while the event loop adds some in another thread."""
    for _ in range(_TRIES):
        try:
            return [snapshot_of(series, series.since) for series in list(stats)]
        except RuntimeError:  # "changed size during iteration"
            continue
    raise RuntimeError(f"metrics: the table of calls changed during each of {_TRIES} readings")


def _edge(name: str, series: SeriesSnapshot) -> _Labels:
    """The labels of who called whom. One's own name is known even where the table of calls was full."""
    if series.side == "in":
        return ("destination", series.peer, name, series.endpoint)
    unknown = bool(series.statuses) and series.statuses.keys() <= {Status.UNIMPLEMENTED}
    return ("source", name, series.service, OTHER if unknown else series.endpoint)


def _limits(source: Any) -> dict[str, int]:
    """How many calls of each endpoint may run at a time; nothing where none is taken."""
    if getattr(source, "state", None) is not State.READY:
        return {}
    return {name: served.concurrency.limit for name, served in source.dispatcher.served.items()}


def _dropped(source: Source) -> dict[str, int]:
    """What did not serve, by the reason. ``forged``: it does not name its publisher's inbox; ``late-reply``: nobody
    waits for it any more; ``unsent-reply``: there was no connection; ``unknown-verdict``: on what is not followed."""
    client = source.client
    bus, breakers = client.transport.stats, client.opinions.breakers
    found = {
        "not-text": bus.dropped_not_text,
        "handler-error": bus.dropped_handler_errors,
        "late-reply": client.mux.late,
        "forged-verdict": client.opinions.dropped,
        "unknown-verdict": breakers.unknown,
        "unheeded-verdict": breakers.unheeded,
    }
    dispatcher = _dispatcher(source)
    if dispatcher is not None:
        found |= {reason: dispatcher.dropped[reason] for reason in ("malformed", "forged")}
        found["unsent-reply"] = dispatcher.replier.lost
    return found


def _dispatcher(source: Any) -> Any:
    try:
        return getattr(source, "dispatcher", None)
    except ConfigError:  # not started
        return None


def _family(name: str, values: Mapping[_Labels, Any]) -> Metric:
    make, labels, text = _METRICS[name]
    family: Any = make(name, text, labels=labels)
    for key, value in values.items():
        if isinstance(value, Histogram):
            reached = list(accumulate(value.counts))
            counts = (*reached[_FIRST : _FIRST + _STEP * len(BUCKETS_S) : _STEP], reached[-1])
            family.add_metric(key, list(zip(_LE, counts, strict=True)), value.sum_s)
        else:
            family.add_metric(key, value)
    return family  # type: ignore[no-any-return]  # prometheus_client has no types for what it makes


def _own_version() -> str:
    try:
        return version("nats-mesh")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"

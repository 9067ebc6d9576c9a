"""The numbers of this process for Prometheus, made at the moment of a scrape and at no other time.

Calls count in plain integers (:mod:`nats_mesh.telemetry.stats`); this module reads them. It is the only
one that imports prometheus-client, so nobody pays for it who does not ask for metrics.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from threading import Lock
from typing import Any, Final, Protocol

from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from nats_mesh.core.breaker import BreakerState
from nats_mesh.core.histogram import Histogram
from nats_mesh.core.presence import State
from nats_mesh.errors import ConfigError, Status
from nats_mesh.telemetry.metrics import (
    BUCKETS_S,
    METRICS,
    Exemplars,
    Labels,
    Tables,
    empty,
    families,
    family,
    lasting,
    merge,
)
from nats_mesh.telemetry.series import Series
from nats_mesh.telemetry.stats import OTHER, Stats, retries_of
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.transport import Transport

__all__ = ["BUCKETS_S", "BUILD", "BUILD_HELP", "MAX_SERIES", "MeshCollector", "Source", "own_version"]

log = logging.getLogger("nats_mesh.telemetry")

#: Label sets that each metric may have before what is new is counted under ``_OTHER``.
MAX_SERIES: Final = 2000

BUILD: Final = "mesh_build"
BUILD_HELP: Final = "The version of nats-mesh in this process, and of its Python."
#: What a label set that finds no room keeps: these say nothing about who called whom.
_KEPT: Final = frozenset({"reporter", "status", "flags", "outcome", "state", "reason", "direction"})

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

    ``flags`` say why the mesh itself ended a call (:mod:`nats_mesh.telemetry.flags`), and are empty for all others: an
    application error bears none, whatever its status.

    What left (:meth:`remove`) goes on counting under what it counted: a counter never goes back while the process
    lives.

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
        self._admitted: dict[str, set[Labels]] = {}
        self._full: set[str] = set()
        self._lock = Lock()
        #: What sources counted that have left.
        self._left: Tables = empty()
        #: Traces of calls that took as long as a bucket says, where somebody looks for some.
        self.exemplars: Exemplars = {}
        self._build = {"version": own_version(), "python_version": platform.python_version()}
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

    def remove(self, source: Source, client: _Connected | None = None) -> None:
        """A mesh or instance has been left: what it counted stays, what it was does not. ``client`` is what it called
        by, where it no longer says so itself."""
        with self._lock:
            if any(known is source for known in self._sources):
                self._sources = [known for known in self._sources if known is not source]
                tables = empty()
                self._read_source(tables, source, client)
                merge(self._left, lasting(tables))

    def tables(self) -> Tables:
        """All numbers there are now."""
        with self._lock:
            return self._read()

    def describe(self) -> Iterable[Metric]:
        """Every metric there may be, without values: what a registry checks for clashes."""
        return [*(family(name, {}) for name in METRICS), InfoMetricFamily(BUILD, BUILD_HELP)]

    def collect(self) -> Iterator[Metric]:
        """Every metric that has a value now."""
        yield from families(self.tables(), self.exemplars)
        yield InfoMetricFamily(BUILD, BUILD_HELP, value=self._build)

    def _read(self) -> Tables:
        tables = empty()
        merge(tables, self._left)
        for source in self._sources:
            self._read_source(tables, source)
        return tables

    def _read_source(self, tables: Tables, source: Source, client: _Connected | None = None) -> None:
        name, its_version = _identity(source)
        #: The endpoints that are called and do exist.
        real: set[tuple[str, str]] = set()
        for series in _consistent(source.stats):
            self._read_series(tables, series, name, its_version)
            if series.side == "out" and not series.by_status.keys() <= {Status.UNIMPLEMENTED}:
                real.add((series.service, series.endpoint))
        self._read_instance(tables, source, name)
        standing = getattr(source, "standing", None)
        if standing is not None and standing.source != "off":
            self._add(tables, "mesh_policy_rejected", (name,), standing.rejected)
        try:
            client = source.client if client is None else client
        except ConfigError:  # not open: it has no connection to speak of
            return
        bus = client.transport.stats
        if standing is not None and standing.source in ("bus", "cache"):
            self._add(tables, "mesh_policy_revision", (name,), standing.revision[1])
        self._add(tables, "mesh_bus_reconnects", (name,), bus.reconnects)
        self._add(tables, "mesh_bus_messages", (name, "in"), bus.in_messages)
        self._add(tables, "mesh_bus_messages", (name, "out"), bus.out_messages)
        if bus.rtt_s is not None:
            self._add(tables, "mesh_bus_rtt_seconds", (name,), bus.rtt_s)
        for reason, count in _dropped(source, client).items():
            self._add(tables, "mesh_bus_dropped", (name, reason), count)
        outbound = getattr(client, "outbound", None)
        if outbound is not None:
            self._read_outbound(tables, outbound, name, real)

    def _read_series(self, tables: Tables, series: Series, name: str, its_version: str) -> None:
        # In this order: whatever is flagged has been counted before.
        flagged, statuses = series.flagged, series.by_status
        edge = _edge(name, series, statuses)
        reporter, *_, endpoint = edge
        begins = (*edge[:3], its_version if reporter == "destination" else "", endpoint)
        for (status, flags), count in flagged.items():
            statuses[status] = statuses.get(status, 0) - count
            self._add(tables, "mesh_requests", (*begins, status, flags), count)
        for status, count in statuses.items():
            if count > 0:
                self._add(tables, "mesh_requests", (*begins, status, ""), count)
        histogram = series.histogram
        if histogram.count:
            key = self._room("mesh_request_duration_seconds", edge)
            tables["mesh_request_duration_seconds"].setdefault(key, Histogram()).merge(histogram)
        if statuses or flagged or series.in_flight:
            self._add(tables, "mesh_requests_in_flight", edge, max(0, series.in_flight))
        if series.retried_ok or series.retried_failed or series.retries_denied:
            for outcome, count in retries_of(series).items():
                self._add(tables, "mesh_retries", (*edge[1:], outcome), count)

    def _read_instance(self, tables: Tables, source: Source, name: str) -> None:
        """What an instance says of its slots; who drains offers none."""
        dispatcher = _dispatcher(source)
        if dispatcher is None:
            return
        ready = getattr(source, "state", None) is State.READY
        for endpoint, load in _calm(dispatcher.loads).items():
            if ready:
                self._add(tables, "mesh_concurrency_limit", (name, endpoint), load.limit)
            self._add(tables, "mesh_queue_depth", (name, endpoint), load.queue)
        for (endpoint, policy), count in _calm(dispatcher.limited).items():
            self._add(tables, "mesh_limited", (name, endpoint, policy, "concurrency"), count)

    def _read_outbound(self, tables: Tables, outbound: Any, name: str, real: set[tuple[str, str]]) -> None:
        """The circuits of a caller (those to subsets together with the endpoint's own), and whom it ejected."""
        for service, endpoint, _, now in outbound.circuits():
            for state in BreakerState:
                shown = endpoint if (service, endpoint) in real else OTHER
                labels = (name, service, shown, state.value)
                self._add(tables, "mesh_circuit_breaker_state", labels, int(state is now))
        for service, count in list(outbound.ejections.items()):
            self._add(tables, "mesh_ejections", (name, service), count)

    def _add(self, tables: Tables, metric: str, labels: Labels, count: float) -> None:
        merge(tables, {metric: {self._room(metric, labels): count}})

    def _room(self, metric: str, labels: Labels) -> Labels:
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
        names = METRICS[metric][1]
        return tuple(value if name in _KEPT else OTHER for name, value in zip(names, labels, strict=True))

    def __repr__(self) -> str:
        return f"<MeshCollector {len(self._sources)} sources>"


def _identity(source: Any) -> tuple[str, str]:
    """Whose numbers these are, and the version of what answers (a pure caller has none)."""
    service = getattr(source, "service", None)
    return (source.name, "") if service is None else (service.name, service.version)


def _consistent(stats: Stats) -> list[Series]:
    """All series, also while the event loop adds some in another thread."""
    found: list[Series] = _calm(lambda: list(stats))
    return found


def _calm(read: Callable[[], Any]) -> Any:
    """What ``read`` returns, once nothing changes under it."""
    for _ in range(_TRIES):
        try:
            return read()
        except RuntimeError:  # "changed size during iteration"
            continue
    raise RuntimeError(f"metrics: a table changed during each of {_TRIES} readings")


def _edge(name: str, series: Series, statuses: dict[str, int]) -> Labels:
    """The labels of who called whom. One's own name is known even where the table of calls was full."""
    if series.side == "in":
        return ("destination", series.peer, name, series.endpoint)
    unknown = bool(statuses) and statuses.keys() <= {Status.UNIMPLEMENTED}
    return ("source", name, series.service, OTHER if unknown else series.endpoint)


def _dropped(source: Source, client: _Connected) -> dict[str, int]:
    """What did not serve, by the reason. ``forged``: it does not name its publisher's inbox; ``late-reply``: nobody
    waits for it any more; ``unsent-reply``: there was no connection; ``unknown-verdict``: on what is not followed."""
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


def own_version() -> str:
    """The version of nats-mesh in this process."""
    try:
        return version("nats-mesh")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"

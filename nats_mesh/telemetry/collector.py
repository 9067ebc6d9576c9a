"""The numbers of this process for Prometheus, made at the moment of a scrape and at no other time.

Calls count in plain integers (:mod:`nats_mesh.telemetry.stats`); this module reads them. Nothing but
what serves metrics imports it, and prometheus-client with it: nobody pays for that who does not ask for them.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from threading import Lock
from typing import Final

from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from nats_mesh.errors import ConfigError
from nats_mesh.telemetry.destinations import Destinations
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
from nats_mesh.telemetry.series import OTHER
from nats_mesh.telemetry.source_reading import Connected, Source, SourceReading, calm
from nats_mesh.telemetry.stats import Stats

__all__ = ["BUCKETS_S", "BUILD", "BUILD_HELP", "MAX_SERIES", "MeshCollector", "Source", "own_version"]

log = logging.getLogger("nats_mesh.telemetry")

#: Label sets that each metric may have before what is new is counted under ``_OTHER``.
MAX_SERIES: Final = 2000

BUILD: Final = "mesh_build"
BUILD_HELP: Final = "The version of nats-mesh in this process, and of its Python."
#: What a label set that finds no room keeps: these say nothing about who called whom.
_KEPT: Final = frozenset(
    {"reporter", "status", "flags", "outcome", "state", "reason", "direction", "decision"}
)


class MeshCollector(Collector):
    """Prometheus metrics of some meshes and instances: ``REGISTRY.register(MeshCollector(mesh, instance))``.

    One collector stands for the whole process: a registry takes no second one, as both would export the
    same metrics; :meth:`add` takes in what starts later. Sources with the same labels add up, as two
    instances of one service do. Any thread may scrape; a scrape while calls run sees each of them or not yet,
    with the counters of one call perhaps a moment apart.

    Exact once calls rest: ``mesh_requests_total``, buckets, count and sum of ``mesh_request_duration_seconds``
    (whole nanoseconds; a refused call never began and has no duration, hence ``_count`` may be below
    the requests). ``reporter="source"`` are calls made, whose destination's version is empty where it is not known
    (:mod:`nats_mesh.telemetry.destinations`); ``reporter="destination"`` are calls answered.

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
        #: Of each source: which versions its calls went to.
        self._destinations: dict[int, Destinations] = {}
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

    def remove(self, source: Source, client: Connected | None = None) -> None:
        """A mesh or instance has been left: what it counted stays, what it was does not. ``client`` is what it called
        by, where it no longer says so itself."""
        with self._lock:
            if any(known is source for known in self._sources):
                self._sources = [known for known in self._sources if known is not source]
                tables = empty()
                self._read_source(tables, source, client)
                merge(self._left, lasting(tables))
                self._destinations.pop(id(source), None)

    def tables(self) -> Tables:
        """All numbers there are now."""
        with self._lock:
            return self._read()

    def examples(self) -> Exemplars:
        """The exemplars there are now, for whoever passes them on."""
        found: Exemplars = calm(lambda: {labels: dict(each) for labels, each in list(self.exemplars.items())})
        return found

    def describe(self) -> Iterable[Metric]:
        """Every metric there may be, without values: what a registry checks for clashes."""
        return [*(family(name, {}) for name in METRICS), InfoMetricFamily(BUILD, BUILD_HELP)]

    def collect(self) -> Iterator[Metric]:
        """Every metric, with the values that there are now."""
        yield from families(self.tables(), self.exemplars)
        yield InfoMetricFamily(BUILD, BUILD_HELP, value=self._build)

    def _read(self) -> Tables:
        tables = empty()
        merge(tables, self._left)
        for source in self._sources:
            self._read_source(tables, source)
        return tables

    def _read_source(self, tables: Tables, source: Source, client: Connected | None = None) -> None:
        went = self._destinations.setdefault(id(source), Destinations())
        SourceReading(tables, self._room, went).read(source, client)

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


def own_version() -> str:
    """The version of nats-mesh in this process."""
    try:
        return version("nats-mesh")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"

"""What one Mesh or Instance has to say of each metric, read from its counters while calls go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol

from nats_mesh.core.breaker import BreakerState
from nats_mesh.core.histogram import Histogram
from nats_mesh.core.presence import State
from nats_mesh.errors import ConfigError, Status
from nats_mesh.telemetry.destinations import Destinations
from nats_mesh.telemetry.metrics import Labels, Tables, merge
from nats_mesh.telemetry.series import OTHER, Series
from nats_mesh.telemetry.stats import Stats
from nats_mesh.telemetry.telling_series import retries_of
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.transport import Transport

__all__ = ["Connected", "Source", "SourceReading", "calm"]

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


class Connected(Protocol):
    """What calls: the client of a source that is open."""

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
    def client(self) -> Connected: ...


class SourceReading:
    """Reads sources into ``tables``. ``room`` says under which labels a metric has room, ``went`` which versions the
    calls of the source went to."""

    def __init__(self, tables: Tables, room: Callable[[str, Labels], Labels], went: Destinations) -> None:
        self._tables = tables
        self._room = room
        self._went = went

    def read(self, source: Source, client: Connected | None = None) -> None:
        """Everything of ``source``, which called by ``client`` where it no longer says so itself."""
        name, its_version = _identity(source)
        try:
            client = source.client if client is None else client
        except ConfigError:
            client = None  # not open: it has no connection to speak of
        #: The endpoints that are called and do exist.
        real: set[tuple[str, str]] = set()
        found = _consistent(source.stats)
        went = self._went
        called = {series.service for series in found if series.side == "out"}
        versions = went.look(called, _versions(client))
        for series in found:
            if series.side == "in":
                self._read_series(series, name, lambda _, count: [(its_version, count)])
                continue
            of, version = id(series), versions[series.service]
            self._read_series(series, name, partial(went.split, of, version=version))
            if not series.by_status.keys() <= {Status.UNIMPLEMENTED}:
                real.add((series.service, series.endpoint))
        self._read_instance(source, name)
        standing = getattr(source, "standing", None)
        if standing is not None and standing.source != "off":
            self._add("mesh_policy_rejected", (name,), standing.rejected)
        if client is None:
            return
        bus = client.transport.stats
        if standing is not None and standing.source in ("bus", "cache"):
            self._add("mesh_policy_revision", (name,), standing.revision[1])
        self._add("mesh_bus_reconnects", (name,), bus.reconnects)
        self._add("mesh_bus_messages", (name, "in"), bus.in_messages)
        self._add("mesh_bus_messages", (name, "out"), bus.out_messages)
        if bus.rtt_s is not None:
            self._add("mesh_bus_rtt_seconds", (name,), bus.rtt_s)
        for reason, count in _dropped(source, client).items():
            self._add("mesh_bus_dropped", (name, reason), count)
        outbound = getattr(client, "outbound", None)
        if outbound is not None:
            self._read_outbound(outbound, name, real)

    def _read_series(
        self,
        series: Series,
        name: str,
        split: Callable[[tuple[str, str], int], Iterable[tuple[str, int]]],
    ) -> None:
        """The numbers of one series; ``split`` says of those that ended in one way which version they went to."""
        flagged, statuses = _endings(series)
        edge = _edge(name, series, statuses)
        ended = dict(flagged)
        for (status, _), count in flagged.items():
            statuses[status] = statuses.get(status, 0) - count
        ended.update({(status, ""): count for status, count in statuses.items() if count > 0})
        for ending, count in ended.items():
            for went_to, part in split(ending, count):
                self._add("mesh_requests", (*edge[:3], went_to, edge[3], *ending), part)
        histogram = series.durations()
        if histogram.count:
            key = self._room("mesh_request_duration_seconds", edge)
            self._tables["mesh_request_duration_seconds"].setdefault(key, Histogram()).merge(histogram)
        if statuses or flagged or series.in_flight:
            self._add("mesh_requests_in_flight", edge, max(0, series.in_flight))
        if series.retried_ok or series.retried_failed or series.retries_denied:
            for outcome, count in retries_of(series).items():
                self._add("mesh_retries", (*edge[1:], outcome), count)

    def _read_instance(self, source: Source, name: str) -> None:
        """What an instance says of its slots; who drains offers none."""
        dispatcher = _dispatcher(source)
        if dispatcher is None:
            return
        ready = getattr(source, "state", None) is State.READY
        for endpoint, load in calm(dispatcher.loads).items():
            if ready:
                self._add("mesh_concurrency_limit", (name, endpoint), load.limit)
            self._add("mesh_queue_depth", (name, endpoint), load.queue)
        for (endpoint, policy), count in calm(dispatcher.limits.refused).items():
            self._add("mesh_limited", (name, endpoint, policy, "concurrency"), count)

    def _read_outbound(self, outbound: Any, name: str, real: set[tuple[str, str]]) -> None:
        """The circuits of a caller (those to subsets together with the endpoint's own), and whom it ejected."""
        for service, endpoint, _, now in outbound.circuits():
            for state in BreakerState:
                shown = endpoint if (service, endpoint) in real else OTHER
                labels = (name, service, shown, state.value)
                self._add("mesh_circuit_breaker_state", labels, int(state is now))
        for service, count in list(outbound.ejections.items()):
            self._add("mesh_ejections", (name, service), count)

    def _add(self, metric: str, labels: Labels, count: float) -> None:
        merge(self._tables, {metric: {self._room(metric, labels): count}})


def _versions(client: Connected | None) -> Callable[[str], set[str]]:
    """Which versions of a service are there, as far as a caller knows."""
    fleets = getattr(client, "fleets", None)
    if fleets is None:
        return lambda service: set()
    return lambda service: calm(lambda: fleets.versions(service))


def _identity(source: Any) -> tuple[str, str]:
    """Whose numbers these are, and the version of what answers (a pure caller has none)."""
    service = getattr(source, "service", None)
    return (source.name, "") if service is None else (service.name, service.version)


def _consistent(stats: Stats) -> list[Series]:
    """All series, also while the event loop adds some in another thread."""
    found: list[Series] = calm(lambda: list(stats))
    return found


def calm(read: Callable[[], Any]) -> Any:
    """What ``read`` returns, once nothing changes under it."""
    for _ in range(_TRIES):
        try:
            return read()
        except RuntimeError:  # "changed size during iteration"
            continue
    raise RuntimeError(f"metrics: a table changed during each of {_TRIES} readings")


def _endings(series: Series) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """How many calls ended with each status and flags, and with each status, of one moment: else those that were
    flagged in between would be told as calls without flags once, and not the next time."""
    for _ in range(_TRIES):
        endings = series.endings
        flagged, statuses = series.flagged, series.by_status
        if endings == series.endings and not endings % 2:
            return flagged, statuses
        time.sleep(0)  # the other thread is at it
    raise RuntimeError(f"metrics: calls of {series!r} ended during each of {_TRIES} readings")


def _edge(name: str, series: Series, statuses: dict[str, int]) -> Labels:
    """The labels of who called whom. One's own name is known even where the table of calls was full."""
    if series.side == "in":
        return ("destination", series.peer, name, series.endpoint)
    unknown = bool(statuses) and statuses.keys() <= {Status.UNIMPLEMENTED}
    return ("source", name, series.service, OTHER if unknown else series.endpoint)


def _dropped(source: Source, client: Connected) -> dict[str, int]:
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

"""Rows of what was called: services, endpoints, versions, and who calls whom. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from nats_mesh.errors import Status
from nats_mesh.telemetry.capacity import capacity_of, plus
from nats_mesh.telemetry.group import Group
from nats_mesh.telemetry.known import LATE_S, Known
from nats_mesh.telemetry.reds import red_of
from nats_mesh.telemetry.snapshots import Breaker, Edge, Ejection, Endpoint, Service, Trend, VersionRow
from nats_mesh.telemetry.stats_messages import EndpointLoad
from nats_mesh.telemetry.tallies import MICRO

if TYPE_CHECKING:
    from nats_mesh.telemetry.folding import Fold

__all__ = ["CallsShown"]

_Name = tuple[str, ...]
_CANCELLED: Final = str(Status.CANCELLED)


class CallsShown:
    """What ``fold`` knows of calls at ``now``, with the circuits that are not closed and the instances ejected.

    Rows come one by one: between them the fold may hear more.
    """

    def __init__(
        self, fold: Fold, breakers: Iterable[Breaker], ejections: Iterable[Ejection], now: float
    ) -> None:
        self._fold = fold
        self._now = now
        self._to: Counter[_Name] = Counter()
        for each in breakers:
            state = each.state.value
            self._to[each.service, state] += 1
            self._to[each.service, each.endpoint, state] += 1
            self._to["", each.caller, each.service, state] += 1
        self._ejected = Counter(
            service for service, _ in {(each.service, each.ejected) for each in ejections}
        )
        #: Who tells of each edge: the caller, or where it tells nothing, the instances.
        self.reporters = _reporters(fold)
        #: Calls and attempts per second of each service and each endpoint, as their callers made them.
        self._rates: dict[_Name, int] = {}
        self._tried: dict[_Name, int] = {}
        #: How many of the window's calls there were, and how many of them their callers gave up, where they did any.
        self._recent: dict[_Name, int] = {}
        self._given_up: dict[_Name, int] = {}
        self._sum_up()
        self._loads = _loads(fold, now)

    def _sum_up(self) -> None:
        groups, rates, tried = self._fold.groups, self._rates, self._tried
        recent, given_up = self._recent, self._given_up
        for (source, service), side in self.reporters.items():
            edge = side, source, service
            name: _Name
            for name, group in (
                ((service,), groups.edges[edge]),
                *[((service, endpoint), place) for endpoint, place in groups.places[edge].items()],
            ):
                rates[name] = rates.get(name, 0) + group.total.rate
                tried[name] = tried.get(name, 0) + group.total.tried
                recent[name] = recent.get(name, 0) + group.window.requests
                others = group.window.others
                if others is not None and _CANCELLED in others:
                    given_up[name] = given_up.get(name, 0) + others[_CANCELLED]

    def edges(self) -> Iterator[Edge]:
        """One for each caller and service."""
        groups, now = self._fold.groups, self._now
        for (source, service), side in sorted(self.reporters.items()):
            edge = side, source, service
            group = groups.edges.get(edge)
            if group is None:
                continue  # forgotten since the row before
            yield Edge(
                source=source,
                service=service,
                reporter=side,
                red=red_of(group),
                trend=group.trend(now),
                endpoints={
                    name: red_of(place) for name, place in sorted(groups.places.get(edge, {}).items())
                },
                breakers=self._states("", source, service),
            )

    def services(self) -> Iterator[Service]:
        """One for each service that is there or was called."""
        groups = self._fold.groups.services
        present: dict[str, list[Known]] = {}
        for (service, _), known in self._fold.members.items():
            if known.serves:
                present.setdefault(service, []).append(known)
        called = {service for _, service in groups}
        for name in sorted(called | present.keys()):
            members = present.get(name, [])
            states = Counter([each.state for each in members])
            inner = groups.get(("in", name))
            group = inner or groups.get(("out", name))
            red = red_of(group, self._rate(name), self._tried_rate(name))
            yield Service(
                name=name,
                instances=len(members),
                ready=states["ready"],
                suspect=states["suspect"],
                draining=states["draining"],
                versions=dict(sorted(Counter([each.version for each in members]).items())),
                red=red,
                trend=Trend() if group is None else group.trend(self._now),
                capacity=capacity_of(self._loads.get((name,)), red.recent, _rate_of(inner)),
                breakers=self._states(name),
                ejected=self._ejected[name],
                gave_up=self._gave_up(name),
            )

    def endpoints(self) -> Iterator[Endpoint]:
        """One for each operation that is there or was called."""
        groups = self._fold.groups.endpoints
        serving: Counter[_Name] = Counter()
        for (service, _), known in self._fold.members.items():
            if known.condition is not None:
                serving.update([(service, endpoint) for endpoint in known.condition.endpoints])
        names = {key[1:] for key in groups} | {name for name in self._loads if len(name) == 2}
        for name in sorted(names):
            service, endpoint = name
            inner = groups.get(("in", service, endpoint))
            group = inner or groups.get(("out", service, endpoint))
            red = red_of(group, self._rate(*name), self._tried_rate(*name))
            yield Endpoint(
                service=service,
                name=endpoint,
                instances=serving[name] or (0 if inner is None else inner.instances),
                red=red,
                trend=Trend() if group is None else group.trend(self._now),
                capacity=capacity_of(self._loads.get(name), red.recent, _rate_of(inner)),
                breakers=self._states(*name),
                gave_up=self._gave_up(*name),
            )

    def versions(self) -> Iterator[VersionRow]:
        """One for each version of a service that has answered calls."""
        groups = self._fold.groups.versions
        for service, version in sorted(groups):
            group = groups.get((service, version))
            if group is not None:  # else it was forgotten since the row before
                yield VersionRow(
                    service=service, version=version, instances=group.instances, red=red_of(group)
                )

    def _rate(self, *name: str) -> float:
        return self._rates.get(name, 0) / MICRO

    def _tried_rate(self, *name: str) -> float:
        return self._tried.get(name, 0) / MICRO

    def _gave_up(self, *name: str) -> float:
        given_up = self._given_up.get(name)
        return given_up / self._recent[name] if given_up else 0.0

    def _states(self, *name: str) -> dict[str, int]:
        if not self._to:
            return {}
        found = {state: self._to[(*name, state)] for state in ("OPEN", "HALF_OPEN")}
        return {state: count for state, count in found.items() if count}


def _reporters(fold: Fold) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for side, source, service in fold.groups.edges:
        if side == "out" or (source, service) not in found:
            found[source, service] = side
    return found


def _rate_of(group: Group | None) -> float:
    return 0.0 if group is None else group.total.rate / MICRO


def _loads(fold: Fold, now: float) -> dict[_Name, EndpointLoad]:
    """How busy all instances of each service and each endpoint are together."""
    found: dict[_Name, EndpointLoad] = {}
    for (service, _), known in fold.members.items():
        if known.condition is None or now - known.told > LATE_S:
            continue
        for endpoint, load in known.condition.endpoints.items():
            name: _Name
            for name in ((service,), (service, endpoint)):
                before = found.get(name)
                found[name] = load if before is None else plus(before, load)
    return found

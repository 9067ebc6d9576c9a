"""Rows of what was called: services, endpoints, versions, and who calls whom. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from nats_mesh.telemetry.capacity import capacity_of, plus
from nats_mesh.telemetry.group import Group
from nats_mesh.telemetry.known import LATE_S, Known
from nats_mesh.telemetry.reds import goes_before, red_of
from nats_mesh.telemetry.series import PLAIN
from nats_mesh.telemetry.snapshots import (
    NOTHING,
    Breaker,
    Edge,
    Ejection,
    Endpoint,
    Red,
    Service,
    Trend,
    VersionRow,
)
from nats_mesh.telemetry.stats_messages import EndpointLoad
from nats_mesh.telemetry.summed import Summed

if TYPE_CHECKING:
    from nats_mesh.telemetry.folding import Fold

__all__ = ["QUIET_S", "CallsShown"]

#: So long (seconds) without calls in the window an edge stays of whose caller nobody is there that tells of it.
QUIET_S: Final = 60.0

_Name = tuple[str, ...]


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
        #: What is told of the calls to each service and each endpoint, by who calls.
        self._told: dict[_Name, list[Group]] = {}
        for (source, service), side in self.reporters.items():
            edge = side, source, service
            self._told.setdefault((service,), []).append(fold.groups.edges[edge])
            for endpoint, place in fold.groups.places[edge].items():
                self._told.setdefault((service, endpoint), []).append(place)
        self._loads = _loads(fold, now)

    def forget(self) -> None:
        """Let go of sums of what nobody is left to have calls to."""
        summed = self._fold.summed
        for name in [name for name in summed if name and name not in self._told]:
            del summed[name]

    def edges(self) -> Iterator[Edge]:
        """One for each caller and service; of callers that have left until there were no calls for :data:`QUIET_S`."""
        groups, now = self._fold.groups, self._now
        here = {service for (service, _), known in self._fold.members.items() if known.serves}
        quiet, self._fold.quiet = self._fold.quiet, {}
        for (source, service), side in sorted(self.reporters.items()):
            edge = side, source, service
            group = groups.edges.get(edge)
            if group is None:
                continue  # forgotten since the row before
            red = red_of(group)
            tells = side == "out" and group.instances
            if not tells and source not in here and not red.recent.requests and not red.in_flight:
                since = self._fold.quiet[edge] = quiet.get(edge, now)
                if now - since >= QUIET_S:
                    continue  # its calls stay in the totals of whoever was called
            yield Edge(
                source=source,
                service=service,
                reporter=side,
                red=red,
                trend=group.trend(now),
                endpoints={
                    name: red_of(place) for name, place in sorted(groups.places.get(edge, {}).items())
                },
                breakers=self._states("", source, service),
            )

    def services(self) -> Iterator[Service]:
        """One for each service that is there or was called. Plain subjects are nobody's: edges tell of them."""
        groups = self._fold.groups.services
        present: dict[str, list[Known]] = {}
        for (service, _), known in self._fold.members.items():
            if known.serves:
                present.setdefault(service, []).append(known)
        called = {service for service, *_ in (*groups, *self._told)}
        for name in sorted((called | present.keys()) - {PLAIN}):
            members = present.get(name, [])
            states = Counter([each.state for each in members])
            served = red_of(groups.get((name,)))
            red = self._red(served, name)
            yield Service(
                name=name,
                instances=len(members),
                ready=states["ready"],
                suspect=states["suspect"],
                draining=states["draining"],
                versions=dict(sorted(Counter([each.version for each in members]).items())),
                red=red,
                served=served,
                trend=self._trend(name),
                capacity=capacity_of(self._loads.get((name,)), served.recent, served.rate_per_s),
                breakers=self._states(name),
                ejected=self._ejected[name],
            )

    def endpoints(self) -> Iterator[Endpoint]:
        """One for each operation that is there or was called."""
        groups = self._fold.groups.endpoints
        serving: Counter[_Name] = Counter()
        for (service, _), known in self._fold.members.items():
            if known.condition is not None:
                serving.update([(service, endpoint) for endpoint in known.condition.endpoints])
        names = {name for name in (*groups, *self._told, *self._loads) if len(name) == 2}
        for service, endpoint in sorted(names):
            if service == PLAIN:
                continue
            name = service, endpoint
            inner = groups.get(name)
            served = red_of(inner)
            red = self._red(served, *name)
            yield Endpoint(
                service=service,
                name=endpoint,
                instances=serving[name] or (0 if inner is None else inner.instances),
                red=red,
                served=served,
                trend=self._trend(*name),
                capacity=capacity_of(self._loads.get(name), served.recent, served.rate_per_s),
                breakers=self._states(*name),
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

    def _red(self, served: Red, *name: str) -> Red:
        """What callers met; of each caller that tells nothing, what the instances tell of its calls. The last error is
        the instances' own word, unless callers have met a later one."""
        told = self._told.get(name)
        met = NOTHING if told is None else self._summed(name).red(told)
        if served.last_error in ("", met.last_error) or goes_before(met, served):
            return met
        return msgspec.structs.replace(met, last_error=served.last_error, last_error_at=served.last_error_at)

    def _trend(self, *name: str) -> Trend:
        told = self._told.get(name)
        return Trend() if told is None else self._summed(name).trend(told, self._now)

    def _summed(self, name: _Name) -> Summed:
        return self._fold.summed.get(name) or self._fold.summed.setdefault(name, Summed())

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

"""From what was folded to what is shown: a frozen snapshot of everything, made bit by bit. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

from nats_mesh.telemetry.showing_calls import CallsShown
from nats_mesh.telemetry.showing_members import members_of, sync_of, troubles_of
from nats_mesh.telemetry.snapshots import Edge, Endpoint, Member, Service, Snapshot, VersionRow
from nats_mesh.telemetry.summed import Summed

if TYPE_CHECKING:
    from nats_mesh.telemetry.folding import Fold

__all__ = ["show"]

_T = TypeVar("_T")
#: How many members and groups are looked at, and how many rows are made, in one go.
_MEMBERS: Final = 64
_GROUPS: Final = 256
_ROWS: Final = 32


def show(fold: Fold, at: float, now: float, wall_s: float) -> Iterator[Snapshot | None]:
    """Everything that ``fold`` holds at ``at``, which is ``now`` by the time of its windows: the snapshot comes last.
    Each ``None`` before it is a moment in which whoever makes it may do something else, and in which the fold may hear
    more."""
    for number, known in enumerate(list(fold.members.values())):
        known.settle()
        if number % _MEMBERS == _MEMBERS - 1:
            yield None
    fold.groups.order()
    for _ in range(0, fold.groups.waiting, _GROUPS):
        fold.groups.settle(_GROUPS)
        yield None
    for number, group in enumerate(fold.groups.all()):
        group.tick(now, fold.window_s)
        if number % _GROUPS == _GROUPS - 1:
            yield None
    breakers, ejections = troubles_of(fold, now)
    calls = CallsShown(fold, breakers, ejections, now)
    told = [
        fold.groups.edges[side, source, service]
        for (source, service), side in sorted(calls.reporters.items())
    ]
    calls.forget()
    summed = fold.summed.setdefault((), Summed())
    red, trend = summed.red(told), summed.trend(told, now)
    yield None
    services: list[Service] = []
    endpoints: list[Endpoint] = []
    versions: list[VersionRow] = []
    edges: list[Edge] = []
    members: list[Member] = []
    yield from _collect(calls.services(), services)
    yield from _collect(calls.endpoints(), endpoints)
    yield from _collect(calls.versions(), versions)
    yield from _collect(calls.edges(), edges)
    yield from _collect(members_of(fold, breakers, ejections, now), members)
    bus = fold.bus
    yield Snapshot(
        at=at,
        wall_s=wall_s,
        namespace=fold.namespace,
        window_s=fold.window_s,
        server=bus.server,
        connected=bus.connected,
        away_s=0.0 if fold.away_since is None else at - fold.away_since,
        rtt_s=bus.rtt_s,
        red=red,
        trend=trend,
        services=tuple(services),
        endpoints=tuple(endpoints),
        versions=tuple(versions),
        edges=tuple(edges),
        members=tuple(members),
        breakers=breakers,
        ejections=ejections,
        policies=sync_of(fold),
        events=tuple(fold.events),
        ignored=fold.ignored,
        overflowed=fold.overflowed,
    )


def _collect(rows: Iterable[_T], into: list[_T]) -> Iterator[None]:
    for row in rows:
        into.append(row)
        if len(into) % _ROWS == 0:
            yield None

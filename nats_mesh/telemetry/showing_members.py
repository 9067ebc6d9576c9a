"""Rows of members: instances and clients, their troubles, and where they stand with policies. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import UNSET

from nats_mesh.core.breaker import BreakerState
from nats_mesh.core.sync_state import ELSEWHERE, verdict_of
from nats_mesh.telemetry.capacity import capacity_of, plus
from nats_mesh.telemetry.known import LATE_S
from nats_mesh.telemetry.reds import red_of
from nats_mesh.telemetry.snapshots import Breaker, Capacity, Ejection, Member, PolicySync
from nats_mesh.telemetry.stats_messages import EndpointLoad

if TYPE_CHECKING:
    from nats_mesh.telemetry.folding import Fold

__all__ = ["members_of", "sync_of", "troubles_of"]


def members_of(
    fold: Fold, breakers: tuple[Breaker, ...], ejections: tuple[Ejection, ...], now: float
) -> Iterator[Member]:
    """One for each, row by row: between them the fold may hear more."""
    broken: dict[tuple[str, str], list[Breaker]] = {}
    for breaker in breakers:
        broken.setdefault((breaker.caller, breaker.instance), []).append(breaker)
    ejected: dict[tuple[str, str], list[Ejection]] = {}
    for ejection in ejections:
        ejected.setdefault((ejection.caller, ejection.instance), []).append(ejection)
    groups = fold.groups.members
    for key in sorted(fold.members):
        known = fold.members.get(key)
        if known is None:
            continue
        instance, condition = known.instance, known.condition
        serves = known.serves
        red = red_of(groups.get(("in" if serves or ("out", *key) not in groups else "out", *key)))
        loads = {} if condition is None else condition.endpoints
        total = EndpointLoad()
        for load in loads.values():
            total = plus(total, load)
        if not loads and instance is not None:
            total = EndpointLoad(limit=instance.load.limit, in_flight=instance.load.in_flight)
        yield Member(
            service=key[0],
            id=key[1],
            name=instance.name if instance is not None else "" if condition is None else condition.name,
            kind="instance" if serves else "client",
            version=known.version if serves else "",
            state=known.state,
            labels={} if instance is None else instance.labels,
            started="" if instance is None else instance.started,
            heard_s=max(0.0, now - known.heard),
            reports=known.message is not None and now - known.told <= LATE_S,
            red=red,
            capacity=capacity_of(total, red.recent, red.rate_per_s) if serves else Capacity(),
            endpoints={
                name: Capacity(limit=load.limit, in_flight=load.in_flight, queue=load.queue)
                for name, load in sorted(loads.items())
            },
            revision=known.revision,
            policy_source="" if condition is None else condition.source,
            rejected=known.rejected,
            rejections=() if instance is None else instance.rejections,
            rtt_s=None if condition is None else condition.rtt_s,
            reconnects=None if condition is None else condition.reconnects,
            breakers=tuple(broken.get(key, ())),
            ejections=tuple(ejected.get(key, ())),
        )


def troubles_of(fold: Fold, now: float) -> tuple[tuple[Breaker, ...], tuple[Ejection, ...]]:
    """The circuits that are not closed, and the instances that get no calls, at whoever told of it lately."""
    breakers, ejections = [], []
    for (caller, instance), known in sorted(fold.members.items()):
        condition = known.condition
        if condition is None or now - known.told > LATE_S:
            continue
        breakers += [
            Breaker(
                caller=caller,
                instance=instance,
                service=each.service,
                endpoint=each.endpoint,
                subset="" if each.subset is UNSET else each.subset,
                state=BreakerState(each.state),
                retry_after_s=None
                if each.retry_after_s is UNSET
                else max(0.0, each.retry_after_s - (now - known.told)),
            )
            for each in condition.breakers
        ]
        ejections += [
            Ejection(caller=caller, instance=instance, service=each.service, ejected=each.instance)
            for each in condition.ejected
        ]
    return tuple(breakers), tuple(ejections)


def sync_of(fold: Fold) -> PolicySync:
    """Where all of them stand with the policies."""
    members = [
        ("" if known.condition is None else known.condition.source, known.revision, known.rejected)
        for known in fold.members.values()
    ]
    head = max([revision for source, revision, _ in members if source not in ELSEWHERE], default=(0, 0))
    states = Counter(
        verdict_of(source, revision, head, rejected=rejected).state for source, revision, rejected in members
    )
    return PolicySync(
        head=head,
        synced=states["SYNCED"],
        stale=states["STALE"],
        rejecting=states["REJECTED"],
        others=states["ELSEWHERE"],
    )

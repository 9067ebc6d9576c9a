"""From what was folded to what is shown: rows with rates, figures and capacity. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from nats_mesh.core.breaker import BreakerState
from nats_mesh.core.members import Health
from nats_mesh.telemetry.aggregate import Figures
from nats_mesh.telemetry.snapshots import (
    Breaker,
    Capacity,
    Edge,
    Ejection,
    Endpoint,
    Member,
    PolicySync,
    Red,
    Service,
    Snapshot,
    Trend,
    VersionRow,
)
from nats_mesh.telemetry.stats import EndpointLoad
from nats_mesh.telemetry.tallies import HISTORY_S, Tally

if TYPE_CHECKING:
    from nats_mesh.telemetry.folding import Fold, Known

__all__ = ["NOTHING", "capacity_of", "show"]

#: A member whose statistics are older (seconds) is not counted in rates and in what is in flight.
_LATE_S: Final = 5.0
NOTHING: Final = Red(recent=Tally().figures(), total=Tally().figures())

_Key = tuple[str, ...]


class _Live:
    """What is summed up anew for each snapshot, by group: rates, calls in flight, the last error."""

    def __init__(self) -> None:
        self.rate: dict[_Key, float] = {}
        self.tried: dict[_Key, float] = {}
        self.in_flight: dict[_Key, int] = {}
        self.last_error: dict[_Key, str] = {}
        self.instances: Counter[_Key] = Counter()


def show(fold: Fold, now: float, wall_s: float) -> Snapshot:
    """Everything that ``fold`` holds at ``now``."""
    live = _sum_up(fold, now)
    breakers, ejections = _troubles(fold, now)
    to = Counter((each.service, each.state.value) for each in breakers)
    to_endpoint = Counter((each.service, each.endpoint, each.state.value) for each in breakers)
    by_caller = Counter((each.caller, each.service, each.state.value) for each in breakers)
    out = {(each.service, each.ejected) for each in ejections}
    loads = _loads(fold, now)
    edges = _edges(fold, live, by_caller, now)
    effective, tried = _by_destination(fold, edges)
    services = _services(fold, live, to, out, loads, effective, tried, now)
    red, trend = _all(fold, edges, now)
    bus = fold.bus
    return Snapshot(
        at=now,
        wall_s=wall_s,
        namespace=fold.namespace,
        window_s=fold.window_s,
        server=bus.server,
        connected=bus.connected,
        away_s=0.0 if fold.away_since is None else now - fold.away_since,
        rtt_s=bus.rtt_s,
        red=red,
        trend=trend,
        services=services,
        endpoints=_endpoints(fold, live, to_endpoint, loads, effective, tried, now),
        versions=_versions(fold, live),
        edges=edges,
        members=_members(fold, live, breakers, ejections, now),
        breakers=breakers,
        ejections=ejections,
        policies=_sync(fold),
        events=tuple(fold.events),
        ignored=fold.ignored,
        overflowed=fold.overflowed,
    )


def _sum_up(fold: Fold, now: float) -> _Live:
    live = _Live()
    for (service, instance), known in fold.members.items():
        if known.message is None or now - known.told > _LATE_S:
            continue
        counted: set[_Key] = set()
        for line in known.lines.values():
            side = line.side
            keys: list[_Key] = [
                ("service", side, line.service),
                ("endpoint", side, line.service, line.endpoint),
                ("edge", side, line.source, line.service),
                ("edge endpoint", side, line.source, line.service, line.endpoint),
                ("member", side, service, instance),
            ]
            if side == "in":
                keys.append(("version", line.service, known.message.version))
            latest = line.latest
            for key in keys:
                live.rate[key] = live.rate.get(key, 0.0) + line.rate
                live.tried[key] = live.tried.get(key, 0.0) + line.tried_rate
                live.in_flight[key] = live.in_flight.get(key, 0) + latest.in_flight
                if latest.last_error:
                    live.last_error[key] = latest.last_error
            counted.update(keys)
        live.instances.update(counted)
    return live


def _red(fold: Fold, live: _Live, key: _Key, rate: float | None = None, tried: float | None = None) -> Red:
    """The calls of a group; ``rate`` and ``tried`` where its callers know better."""
    group = fold.groups.get(key)
    if group is None and rate is None:
        return NOTHING
    window = group.window if group is not None else Tally()
    total = group.total if group is not None else Tally()
    own = live.rate.get(key, 0.0)
    return _red_of(
        window,
        total,
        own if rate is None else rate,
        live.tried.get(key, 0.0) if tried is None else tried,
        own,
        live.in_flight.get(key, 0),
        live.last_error.get(key, ""),
    )


def _red_of(
    window: Tally, total: Tally, rate: float, tried: float, own: float, in_flight: int, last_error: str
) -> Red:
    recent = window.figures()
    return Red(
        rate_per_s=rate,
        attempts_per_s=tried,
        errors_per_s=own * recent.errors / recent.requests if recent.requests else 0.0,
        success=recent.success,
        p50_s=recent.p50_s,
        p90_s=recent.p90_s,
        p95_s=recent.p95_s,
        p99_s=recent.p99_s,
        in_flight=in_flight,
        retry_share=max(0.0, 1.0 - rate / tried) if tried > 0.0 else 0.0,
        flags=dict(sorted(window.flags.items())),
        last_error=last_error,
        recent=recent,
        total=_total(total),
        attempts=total.attempts,
        retries=dict(sorted(total.retries.items())),
    )


def _total(tally: Tally) -> Figures:
    return tally.figures()


# -- what is between services -----------------------------------------------------------------------


def _edges(fold: Fold, live: _Live, breakers: Counter[tuple[str, str, str]], now: float) -> tuple[Edge, ...]:
    """As the caller tells, or where it tells nothing, as the instances do."""
    known: dict[tuple[str, str], str] = {}
    endpoints: dict[tuple[str, str, str], dict[str, _Key]] = {}
    for key in fold.groups:
        if key[0] == "edge":
            if key[1] == "out" or key[2:] not in known:
                known[key[2], key[3]] = key[1]
        elif key[0] == "edge endpoint":
            endpoints.setdefault((key[1], key[2], key[3]), {})[key[4]] = key
    return tuple(
        Edge(
            source=source,
            service=service,
            reporter=side,
            red=_red(fold, live, ("edge", side, source, service)),
            trend=fold.groups["edge", side, source, service].trend(now),
            endpoints={
                name: _red(fold, live, key)
                for name, key in sorted(endpoints.get((side, source, service), {}).items())
            },
            breakers=_states(breakers, source, service),
        )
        for (source, service), side in sorted(known.items())
    )


def _states(counts: Counter[tuple[str, ...]] | Counter[tuple[str, str, str]], *name: str) -> dict[str, int]:
    found = {state: counts[(*name, state)] for state in ("OPEN", "HALF_OPEN")}  # type: ignore[index]
    return {state: count for state, count in found.items() if count}


def _by_destination(
    fold: Fold, edges: tuple[Edge, ...]
) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float]]:
    """Calls and attempts per second of each service and each endpoint, as their callers made them."""
    rates: dict[tuple[str, ...], float] = {}
    tried: dict[tuple[str, ...], float] = {}
    for edge in edges:
        for name, red in (
            ((edge.service,), edge.red),
            *(((edge.service, e), r) for e, r in edge.endpoints.items()),
        ):
            rates[name] = rates.get(name, 0.0) + red.rate_per_s
            tried[name] = tried.get(name, 0.0) + red.attempts_per_s
    return rates, tried


def _all(fold: Fold, edges: tuple[Edge, ...], now: float) -> tuple[Red, Trend]:
    """All calls of the mesh together."""
    window, total = Tally(), Tally()
    last_error = ""
    for edge in edges:
        group = fold.groups["edge", edge.reporter, edge.source, edge.service]
        window.add(group.window)
        total.add(group.total)
        last_error = edge.red.last_error or last_error
    rate = sum(edge.red.rate_per_s for edge in edges)
    red = _red_of(
        window,
        total,
        rate,
        sum(edge.red.attempts_per_s for edge in edges),
        rate,
        sum(edge.red.in_flight for edge in edges),
        last_error,
    )
    return red, _together([edge.trend for edge in edges])


def _together(trends: Iterable[Trend]) -> Trend:
    """Rates add up, success is weighted by them, and of the slowest the worst is kept."""
    rates, good, slowest = [0.0] * HISTORY_S, [0.0] * HISTORY_S, [0.0] * HISTORY_S
    longest = 0
    for trend in trends:
        size = len(trend.rates)
        longest = max(longest, size)
        for back in range(1, size + 1):
            rate = trend.rates[-back]
            if rate:
                rates[-back] += rate
                good[-back] += rate * (trend.success[-back] or 0.0)
                slowest[-back] = max(slowest[-back], trend.p99_s[-back] or 0.0)
    return Trend(
        rates=tuple(rates[HISTORY_S - longest :]),
        success=tuple(
            [good[n] / rates[n] if rates[n] else None for n in range(HISTORY_S - longest, HISTORY_S)]
        ),
        p99_s=tuple([slowest[n] or None for n in range(HISTORY_S - longest, HISTORY_S)]),
    )


# -- services ---------------------------------------------------------------------------------------


def _key_of(fold: Fold, kind: str, *name: str) -> _Key:
    """The group of what the instances count; where they count nothing, of what the callers do."""
    inner = (kind, "in", *name)
    return inner if inner in fold.groups else (kind, "out", *name)


def _services(
    fold: Fold,
    live: _Live,
    breakers: Counter[tuple[str, str]],
    ejected: set[tuple[str, str]],
    loads: dict[tuple[str, ...], EndpointLoad],
    effective: dict[tuple[str, ...], float],
    tried: dict[tuple[str, ...], float],
    now: float,
) -> tuple[Service, ...]:
    present: dict[str, list[Known]] = {}
    for (service, _), known in fold.members.items():
        if _is_instance(known):
            present.setdefault(service, []).append(known)
    called = {key[2] for key in fold.groups if key[0] == "service"}
    rows = []
    for name in sorted(called | present.keys()):
        members = present.get(name, [])
        states = Counter(_state(each) for each in members)
        key = _key_of(fold, "service", name)
        red = _red(fold, live, key, effective.get((name,), 0.0), tried.get((name,), 0.0))
        group = fold.groups.get(key)
        rows.append(
            Service(
                name=name,
                instances=len(members),
                ready=states["ready"],
                suspect=states["suspect"],
                draining=states["draining"],
                versions=dict(sorted(Counter(_version(each) for each in members).items())),
                red=red,
                trend=Trend() if group is None else group.trend(now),
                capacity=capacity_of(
                    loads.get((name,)), red.recent, live.rate.get(("service", "in", name), 0.0)
                ),
                breakers=_states(breakers, name),  # type: ignore[arg-type]
                ejected=sum(1 for service, _ in ejected if service == name),
            )
        )
    return tuple(rows)


def _endpoints(
    fold: Fold,
    live: _Live,
    breakers: Counter[tuple[str, str, str]],
    loads: dict[tuple[str, ...], EndpointLoad],
    effective: dict[tuple[str, ...], float],
    tried: dict[tuple[str, ...], float],
    now: float,
) -> tuple[Endpoint, ...]:
    names = {key[2:] for key in fold.groups if key[0] == "endpoint"} | {n for n in loads if len(n) == 2}
    serving: Counter[tuple[str, ...]] = Counter()
    for (service, _), known in fold.members.items():
        if known.condition is not None:
            serving.update((service, endpoint) for endpoint in known.condition.endpoints)
    rows = []
    for name in sorted(names):
        key = _key_of(fold, "endpoint", *name)
        red = _red(fold, live, key, effective.get(name, 0.0), tried.get(name, 0.0))
        group = fold.groups.get(key)
        rate = live.rate.get(("endpoint", "in", *name), 0.0)
        rows.append(
            Endpoint(
                service=name[0],
                name=name[1],
                instances=serving[name] or live.instances[("endpoint", "in", *name)],
                red=red,
                trend=Trend() if group is None else group.trend(now),
                capacity=capacity_of(loads.get(name), red.recent, rate),
                breakers=_states(breakers, *name),
            )
        )
    return tuple(rows)


def _versions(fold: Fold, live: _Live) -> tuple[VersionRow, ...]:
    return tuple(
        VersionRow(service=key[1], version=key[2], instances=live.instances[key], red=_red(fold, live, key))
        for key in sorted(key for key in fold.groups if key[0] == "version")
    )


def _loads(fold: Fold, now: float) -> dict[tuple[str, ...], EndpointLoad]:
    """How busy all instances of each service and each endpoint are together."""
    found: dict[tuple[str, ...], EndpointLoad] = {}
    for (service, _), known in fold.members.items():
        if known.condition is None or now - known.told > _LATE_S:
            continue
        for endpoint, load in known.condition.endpoints.items():
            for name in ((service,), (service, endpoint)):
                found[name] = _plus(found.get(name, EndpointLoad()), load)
    return found


def _plus(one: EndpointLoad, other: EndpointLoad) -> EndpointLoad:
    return EndpointLoad(
        limit=one.limit + other.limit,
        in_flight=one.in_flight + other.in_flight,
        queue=one.queue + other.queue,
    )


def capacity_of(load: EndpointLoad | None, recent: Figures, rate_per_s: float) -> Capacity:
    """What is left of the slots, by Little's law: L = λ·W, with W the mean of the window's durations."""
    if load is None:
        return Capacity()
    durations = sum(count for _, count in recent.buckets)
    if not durations or not load.limit:
        return Capacity(limit=load.limit, in_flight=load.in_flight, queue=load.queue)
    mean_s = recent.sum_s / durations
    busy = rate_per_s * mean_s
    return Capacity(
        limit=load.limit,
        in_flight=load.in_flight,
        queue=load.queue,
        busy=busy,
        utilisation=busy / load.limit,
        headroom_per_s=max(0.0, load.limit / mean_s - rate_per_s) if mean_s > 0.0 else None,
    )


# -- members ----------------------------------------------------------------------------------------


def _is_instance(known: Known) -> bool:
    if known.instance is not None:
        return True
    if known.condition is not None:
        return known.condition.kind == "instance"
    return any(line.side == "in" for line in known.lines.values())


def _state(known: Known) -> str:
    if known.instance is not None:
        return "suspect" if known.instance.health is Health.SUSPECT else str(known.instance.state)
    return "ready" if known.message is None else str(known.message.state)


def _version(known: Known) -> str:
    if known.instance is not None:
        return known.instance.version
    return "" if known.message is None else known.message.version


def _members(
    fold: Fold, live: _Live, breakers: tuple[Breaker, ...], ejections: tuple[Ejection, ...], now: float
) -> tuple[Member, ...]:
    broken: dict[tuple[str, str], list[Breaker]] = {}
    for breaker in breakers:
        broken.setdefault((breaker.caller, breaker.instance), []).append(breaker)
    ejected: dict[tuple[str, str], list[Ejection]] = {}
    for ejection in ejections:
        ejected.setdefault((ejection.caller, ejection.instance), []).append(ejection)
    rows = []
    for key in sorted(fold.members):
        known = fold.members[key]
        instance, condition = known.instance, known.condition
        serves = _is_instance(known)
        side = "in" if serves or ("member", "out", *key) not in fold.groups else "out"
        red = _red(fold, live, ("member", side, *key))
        loads = {} if condition is None else condition.endpoints
        total = EndpointLoad()
        for load in loads.values():
            total = _plus(total, load)
        if not loads and instance is not None:
            total = EndpointLoad(limit=instance.load.limit, in_flight=instance.load.in_flight)
        rows.append(
            Member(
                service=key[0],
                id=key[1],
                name=instance.name if instance is not None else "" if condition is None else condition.name,
                kind="instance" if serves else "client",
                version=_version(known) if serves else "",
                state=_state(known),
                labels={} if instance is None else instance.labels,
                started="" if instance is None else instance.started,
                heard_s=max(0.0, now - known.heard),
                reports=known.message is not None and now - known.told <= _LATE_S,
                red=red,
                capacity=capacity_of(total, red.recent, red.rate_per_s) if serves else Capacity(),
                endpoints={
                    name: Capacity(limit=load.limit, in_flight=load.in_flight, queue=load.queue)
                    for name, load in sorted(loads.items())
                },
                revision=_revision(known),
                policy_source="" if condition is None else condition.source,
                rejected=condition.rejected if condition is not None else _rejections(known),
                rejections=() if instance is None else instance.rejections,
                rtt_s=None if condition is None else condition.rtt_s,
                reconnects=None if condition is None else condition.reconnects,
                breakers=tuple(broken.get(key, ())),
                ejections=tuple(ejected.get(key, ())),
            )
        )
    return tuple(rows)


def _revision(known: Known) -> tuple[int, int]:
    said = (0, 0) if known.condition is None else known.condition.revision
    return said if known.instance is None else max(said, known.instance.revision)


def _rejections(known: Known) -> int:
    return 0 if known.instance is None else len(known.instance.rejections)


def _troubles(fold: Fold, now: float) -> tuple[tuple[Breaker, ...], tuple[Ejection, ...]]:
    breakers, ejections = [], []
    for (caller, instance), known in sorted(fold.members.items()):
        condition = known.condition
        if condition is None or now - known.told > _LATE_S:
            continue
        breakers += [
            Breaker(
                caller=caller,
                instance=instance,
                service=each.service,
                endpoint=each.endpoint,
                subset="" if each.subset is UNSET else each.subset,
                state=BreakerState(each.state),
            )
            for each in condition.breakers
        ]
        ejections += [
            Ejection(caller=caller, instance=instance, service=each.service, ejected=each.instance)
            for each in condition.ejected
        ]
    return tuple(breakers), tuple(ejections)


def _sync(fold: Fold) -> PolicySync:
    follows = []
    others = rejecting = 0
    for known in fold.members.values():
        condition, revision = known.condition, _revision(known)
        rejected = _rejections(known) if condition is None else condition.rejected
        rejecting += rejected > 0
        on_bus = revision != (0, 0) if condition is None else condition.source in ("bus", "cache")
        if on_bus:
            follows.append(revision)
        else:
            others += 1
    head = max(follows, default=(0, 0))
    synced = sum(1 for revision in follows if revision == head)
    return PolicySync(
        head=head, synced=synced, stale=len(follows) - synced, rejecting=rejecting, others=others
    )

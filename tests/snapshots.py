"""Snapshots of meshes that never were, of any size: what views are tested and measured with."""

from __future__ import annotations

from nats_mesh.core.breaker import BreakerState
from nats_mesh.core.histogram import BOUNDS, Histogram
from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.snapshots import (
    Breaker,
    Capacity,
    Edge,
    Ejection,
    Endpoint,
    Figures,
    Member,
    PolicySync,
    Red,
    Service,
    Snapshot,
    Trend,
    VersionRow,
)

__all__ = ["figures", "red", "snapshot", "trend"]


def figures(calls: int = 1000, errors: int = 10, at_s: float = 0.004) -> Figures:
    """Calls that took about ``at_s`` seconds."""
    histogram = Histogram()
    histogram.record_all([at_s * (0.5 + (n % 100) / 60.0) for n in range(min(calls, 200))])
    ok = {"OK": calls - errors} if calls > errors else {}
    return Figures(
        requests=calls,
        errors=errors,
        statuses={"INTERNAL": errors, **ok} if errors else ok,
        success=1.0 - errors / calls if calls else None,
        p50_s=histogram.quantile(0.5),
        p90_s=histogram.quantile(0.9),
        p99_s=histogram.quantile(0.99),
        p95_s=histogram.quantile(0.95),
        buckets=tuple((BOUNDS[bucket], count) for bucket, count in histogram.snapshot().buckets),
        sum_s=histogram.sum_s,
    )


def red(calls: int = 1000, errors: int = 10, at_s: float = 0.004, last_error: str = "") -> Red:
    """Calls of a window of ten seconds, of which one in twenty was retried."""
    recent = figures(calls, errors, at_s)
    return Red(
        rate_per_s=calls / 10.0,
        attempts_per_s=calls * 1.05 / 10.0,
        errors_per_s=errors / 10.0,
        success=recent.success,
        p50_s=recent.p50_s,
        p90_s=recent.p90_s,
        p95_s=recent.p95_s,
        p99_s=recent.p99_s,
        in_flight=calls // 250,
        retry_share=0.05 / 1.05 if calls else 0.0,
        flags={"UT": errors} if errors else {},
        last_error=last_error or ("ValueError (its text is in the log of host-7)" if errors else ""),
        recent=recent,
        total=figures(calls * 10, errors * 10, at_s),
        attempts=round(calls * 10.5),
    )


def trend(level: float = 100.0) -> Trend:
    """A minute that goes up and down."""
    rates = tuple(level * (0.5 + (n % 13) / 13.0) for n in range(60))
    return Trend(rates=rates, success=(0.99,) * 60, p99_s=tuple(0.01 + (n % 7) / 700.0 for n in range(60)))


def snapshot(services: int = 4, *, instances: int = 2, endpoints: int = 2, events: int = 5) -> Snapshot:
    """A mesh of so many services, each of which is called by the one before it; every fourth has trouble."""
    named = [f"service-{n}" for n in range(services)]
    capacity = Capacity(
        limit=256, in_flight=4, queue=0, busy=3.5, utilisation=3.5 / 256, headroom_per_s=7200.0
    )
    trouble = {name for n, name in enumerate(named) if n % 4 == 3}
    breakers = tuple(
        Breaker(
            caller=named[n - 1],
            instance=f"i{n - 1}-0",
            service=name,
            endpoint="op-0",
            state=BreakerState.OPEN,
        )
        for n, name in enumerate(named)
        if name in trouble
    )
    ejections = tuple(
        Ejection(caller=named[n - 1], instance=f"i{n - 1}-0", service=name, ejected=f"i{n}-0")
        for n, name in enumerate(named)
        if name in trouble
    )

    def numbers(name: str) -> Red:
        return red(errors=120 if name in trouble else 0, at_s=0.004 + 0.001 * (named.index(name) % 9))

    reds = {name: numbers(name) for name in named}
    return Snapshot(
        at=100.0,
        wall_s=1_700_000_000.0,
        server="nats://127.0.0.1:4222",
        rtt_s=0.0008,
        red=red(calls=1000 * services, errors=120 * len(trouble)),
        trend=trend(100.0 * services),
        services=tuple(
            Service(
                name=name,
                instances=instances,
                ready=instances,
                versions={"1.0.0": instances},
                red=reds[name],
                trend=trend(),
                capacity=capacity,
                breakers={"OPEN": 1} if name in trouble else {},
                ejected=1 if name in trouble else 0,
            )
            for name in sorted(named)
        ),
        endpoints=tuple(
            Endpoint(
                service=name,
                name=f"op-{k}",
                instances=instances,
                red=reds[name],
                trend=trend(),
                capacity=capacity,
            )
            for name in sorted(named)
            for k in range(endpoints)
        ),
        versions=tuple(
            VersionRow(service=name, version="1.0.0", instances=instances, red=reds[name])
            for name in sorted(named)
        ),
        edges=tuple(
            Edge(
                source=named[n - 1] if n else "web",
                service=name,
                reporter="out",
                red=reds[name],
                trend=trend(),
                endpoints={f"op-{k}": reds[name] for k in range(endpoints)},
                breakers={"OPEN": 1} if name in trouble else {},
            )
            for n, name in enumerate(named)
        ),
        members=tuple(
            Member(
                service=name,
                id=f"i{n}-{k}",
                name=f"host-{1000 + k}",
                version="1.0.0",
                reports=True,
                red=reds[name],
                capacity=capacity,
                revision=(1, 42),
                policy_source="bus",
                rtt_s=0.0008,
                reconnects=0,
            )
            for n, name in enumerate(named)
            for k in range(instances)
        ),
        breakers=breakers,
        ejections=ejections,
        policies=PolicySync(head=(1, 42), synced=services * instances),
        events=tuple(
            Event(
                kind="breaker.open",
                at=f"2026-01-01T12:00:{n % 60:02d}Z",
                service=named[n % services],
                instance=f"i{n % services}-0",
                namespace="default",
                seq=n + 1,
                target=f"{named[n % services]}.op-0",
                detail="too many of the last calls failed",
            )
            for n in range(events if services else 0)
        ),
    )

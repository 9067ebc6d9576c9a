"""A mesh with trouble of every kind, for what `top` draws of it; and ones with names that nobody should have."""

from __future__ import annotations

import msgspec

from nats_mesh.core.breaker import BreakerState
from nats_mesh.core.presence import Rejection
from nats_mesh.telemetry.alert_messages import Alert, Burn, LevelName
from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.slo import Indicator
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
)
from nats_mesh_cli.promised import Promised
from nats_mesh_cli.top.model import CallLine, Data, PolicyLine

__all__ = ["ALERTED", "DATA", "EMPTY", "GIVEN_UP", "MESH", "burn", "hostile", "numbers"]

_TREND = Trend(rates=tuple(float(n % 9) for n in range(60)), success=(1.0,) * 60, p99_s=(0.04,) * 60)


def numbers(
    rate: float = 50.0,
    *,
    success: float | None = 1.0,
    p99_s: float | None = 0.041,
    error: str = "",
    retry: float = 0.0,
    failed_s: float | None = None,
) -> Red:
    """The last ten seconds of something that is called; ``failed_s``: how long ago its last error was."""
    calls = int(rate * 10)
    errors = 0 if success is None else round(calls * (1.0 - success))
    figures = Figures(
        requests=calls,
        errors=errors,
        statuses={**({"UNAVAILABLE": errors} if errors else {}), **({"OK": calls - errors} if calls else {})},
        success=success,
        p50_s=0.004,
        p90_s=0.02,
        p99_s=p99_s,
        buckets=((0.00089, calls // 2), (0.0042, calls // 4), (0.021, calls // 8), (0.4, calls // 16))
        if calls
        else (),
    )
    return Red(
        rate_per_s=rate,
        attempts_per_s=rate * (1.0 + retry),
        errors_per_s=errors / 10.0,
        success=success,
        p50_s=None if success is None else 0.004,
        p90_s=None if success is None else 0.02,
        p95_s=None if success is None else 0.022,
        p99_s=p99_s,
        in_flight=3,
        retry_share=retry,
        flags={"UO": errors} if errors else {},
        last_error=error,
        last_error_at=None if failed_s is None else -failed_s,
        recent=figures,
        total=figures,
    )


_GOOD = numbers()
_BAD = numbers(310.0, success=0.971, error="CartError: the cart is a swamp", retry=0.081, failed_s=312.0)
_CAPACITY = Capacity(limit=256, in_flight=3, busy=1.2, utilisation=0.3, headroom_per_s=700.0)


def _member(
    service: str, number: int, *, state: str = "ready", revision: int = 42, bad: bool = False
) -> Member:
    return Member(
        service=service,
        id=f"{service[:2].upper()}{number}XYZ0123456789",
        name=f"host-{4100 + number}",
        version="1.4.0",
        state=state,
        reports=True,
        red=_BAD if bad else _GOOD,
        capacity=_CAPACITY,
        revision=(1, revision),
        policy_source="bus",
        rejected=int(bad),
        rejections=(Rejection(policy="Route.cart", reason="subset 'v3' is not defined"),) if bad else (),
        rtt_s=0.0008,
        reconnects=0,
    )


MESH = Snapshot(
    at=100.0,
    wall_s=1_700_000_000.0,
    server="nats://127.0.0.1:4222",
    rtt_s=0.0008,
    red=numbers(1200.0, success=0.9982),
    trend=_TREND,
    services=(
        Service(
            name="cart",
            instances=3,
            ready=3,
            versions={"1.4.0": 3},
            red=_BAD,
            served=_BAD,
            trend=_TREND,
            capacity=_CAPACITY,
            breakers={"OPEN": 1},
            ejected=1,
        ),
        Service(
            name="details",
            instances=1,
            ready=1,
            versions={"1.0.0": 1},
            red=_GOOD,
            served=_GOOD,
            trend=_TREND,
            capacity=_CAPACITY,
        ),
        Service(name="ghost", red=numbers(0.0, success=None, p99_s=None)),
        Service(
            name="reviews",
            instances=3,
            ready=2,
            suspect=1,
            versions={"1.0.0": 1, "2.0.0": 1, "3.0.0": 1},
            red=numbers(success=0.9999),
            trend=_TREND,
            capacity=_CAPACITY,
            breakers={"HALF_OPEN": 1},
        ),
    ),
    endpoints=(
        Endpoint(
            service="cart", name="add", instances=3, red=_BAD, served=_BAD, trend=_TREND, breakers={"OPEN": 1}
        ),
        Endpoint(service="cart", name="show", instances=3, red=_GOOD, served=_GOOD, trend=_TREND),
    ),
    edges=(
        Edge(
            source="users",
            service="cart",
            reporter="out",
            red=_BAD,
            trend=_TREND,
            endpoints={"add": _BAD},
            breakers={"OPEN": 1},
        ),
        Edge(source="users", service="details", reporter="out", red=_GOOD, trend=_TREND),
        Edge(source="users", service="reviews", reporter="out", red=numbers(success=0.9999), trend=_TREND),
        Edge(source="web", service="users", reporter="out", red=_GOOD, trend=_TREND),
        Edge(source="cart", service="details", reporter="in", red=_GOOD, trend=_TREND),
    ),
    members=(
        _member("cart", 1, bad=True),
        _member("cart", 2),
        _member("cart", 3, revision=41),
        _member("details", 1),
        _member("reviews", 1, state="suspect"),
        _member("reviews", 2, state="draining"),
    ),
    breakers=(
        Breaker(caller="users", instance="US1", service="cart", endpoint="add", state=BreakerState.OPEN),
        Breaker(
            caller="users", instance="US1", service="reviews", endpoint="get", state=BreakerState.HALF_OPEN
        ),
    ),
    ejections=(Ejection(caller="users", instance="US1", service="cart", ejected="CA1XYZ0123456789"),),
    policies=PolicySync(head=(1, 42), synced=4, stale=1, rejecting=1),
    events=(
        Event(
            kind="instance.joined",
            at="2026-01-01T12:03:00Z",
            service="cart",
            instance="CA1",
            namespace="default",
            seq=1,
        ),
        Event(
            kind="breaker.open",
            at="2026-01-01T12:04:00Z",
            service="users",
            instance="US1",
            namespace="default",
            seq=2,
            target="cart.add",
            detail="9 of the last 12 calls failed",
            numbers={"failures": 9.0},
            missed=2,
        ),
    ),
)
DATA = Data(
    mesh=MESH,
    head=(1, 42),
    policies=(
        PolicyLine(
            name="Destination/cart",
            target="cart",
            revision=41,
            at="2026-01-01T11:00:00.123456Z",
            operator="ada",
            message="three versions",
            document="kind: Destination\nmetadata:\n  name: cart",
        ),
        PolicyLine(
            name="Route/cart", target="cart", revision=42, at="2026-01-01T12:00:00.123456Z", operator="ada"
        ),
    ),
    calls=(
        CallLine(
            key="1",
            at="2026-01-01T12:04:01.500000Z",
            caller="users",
            target="cart.add",
            status="UNAVAILABLE",
            duration_s=0.25,
            instance="CA1XYZ0123456789",
            facts=(("route", "all"), ("trace", "0af7651916cd43dd8448eb211c80319c")),
        ),
        CallLine(
            key="2",
            at="2026-01-01T12:04:02.250000Z",
            caller="users",
            target="cart.show",
            status="OK",
            duration_s=0.0042,
            instance="CA2XYZ0123456789",
        ),
    ),
    tapped="2 calls at 2 instances",
)


def alert(
    service: str, objective: str, level: LevelName, *burns: Burn, threshold_s: float | None = None
) -> Alert:
    """How one objective stands."""
    return Alert(
        objective=objective,
        policy="Telemetry/promise",
        indicator=Indicator.AVAILABILITY if threshold_s is None else Indicator.LATENCY,
        service=service,
        share=0.999 if threshold_s is None else 0.99,
        window_s=30 * 86_400.0,
        threshold_s=threshold_s,
        level=level,
        for_s=52.0,
        burns=burns,
    )


def burn(window_s: float, rate: float, seen_s: float | None = None) -> Burn:
    """How fast one window burns."""
    seen = window_s if seen_s is None else seen_s
    return Burn(window_s=window_s, seen_s=seen, calls=1000, bad=int(rate), burn=rate)


_BURNS = (burn(300.0, 29.0), burn(3600.0, 72.5, 720.0), burn(21_600.0, 6.1, 720.0))
#: The same with somebody who watches what is promised.
ALERTED = msgspec.structs.replace(
    DATA,
    promised=Promised(
        alerts=(
            alert(
                "cart",
                "available",
                "page",
                burn(300.0, 29.0),
                burn(3600.0, 72.5, 720.0),
                burn(21_600.0, 6.1, 720.0),
            ),
            alert("reviews", "fast", "ticket", burn(300.0, 2.0), burn(86_400.0, 3.1), threshold_s=0.256),
            alert("cart", "fast", "ok", burn(300.0, 0.25), threshold_s=0.256),
            alert("details", "available", "ok", burn(300.0, 0.0)),
        ),
        at="2026-01-01T12:04:02.250000Z",
        live=True,
    ),
)
_LEFT = msgspec.structs.replace(
    _GOOD, recent=msgspec.structs.replace(_GOOD.recent, statuses={"OK": 250, "CANCELLED": 250})
)
#: The same where an instance hangs: its callers give up, and it counts nothing.
GIVEN_UP = msgspec.structs.replace(
    DATA,
    mesh=msgspec.structs.replace(
        MESH,
        services=tuple(
            [
                msgspec.structs.replace(each, red=_LEFT) if each.name == "details" else each
                for each in MESH.services
            ]
        ),
        edges=tuple(
            [
                msgspec.structs.replace(each, red=_LEFT) if each.service == "details" else each
                for each in MESH.edges
            ]
        ),
    ),
)
EMPTY = Data(
    mesh=Snapshot(server="nats://127.0.0.1:4222", rtt_s=0.0004, red=numbers(0.0, success=None, p99_s=None))
)


def hostile(text: str) -> Data:
    """The same mesh where everything that is a text is ``text``."""
    mesh = msgspec.structs.replace(
        MESH,
        namespace=text,
        server=text,
        services=tuple(
            msgspec.structs.replace(
                each, name=text, versions={text: 1}, red=msgspec.structs.replace(each.red, last_error=text)
            )
            for each in MESH.services
        ),
        edges=tuple(msgspec.structs.replace(each, source=text, service=text) for each in MESH.edges),
        endpoints=tuple(msgspec.structs.replace(each, service=text, name=text) for each in MESH.endpoints),
        members=tuple(
            msgspec.structs.replace(
                each,
                service=text,
                id=text,
                name=text,
                version=text,
                state=text,
                rejections=tuple(Rejection(policy=text, reason=text) for _ in each.rejections),
            )
            for each in MESH.members
        ),
        events=tuple(
            msgspec.structs.replace(
                each, kind=text, at=text, service=text, target=text, instance=text, detail=text
            )
            for each in MESH.events
        ),
    )
    return Data(
        mesh=mesh,
        away=text,
        store=text,
        policies=(
            PolicyLine(
                name=text, target=text, at=text, operator=text, message=text, document=f"{text}\n{text}"
            ),
        ),
        calls=(
            CallLine(
                key="1",
                at=text,
                caller=text,
                target=text,
                status=text,
                duration_s=1.0,
                instance=text,
                facts=((text, text),),
            ),
        ),
    )

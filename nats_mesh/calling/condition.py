"""How a member is, for its statistics: policies, connection, circuits, ejections, and how busy its endpoints are."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from msgspec import UNSET

from nats_mesh.calling.client import Client
from nats_mesh.core.breaker import BreakerState
from nats_mesh.core.presence import Standing
from nats_mesh.telemetry.stats_messages import MAX_LISTED, Condition, Ejected, EndpointLoad, OpenBreaker

__all__ = ["condition_of", "display_name"]


def display_name() -> str:
    """``host-pid``: what people read in place of an instance id."""
    return f"{_host()}-{os.getpid()}"


@lru_cache(maxsize=1)
def _host() -> str:
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in platform.node())
    return (name or "host")[:100]


def condition_of(
    client: Client,
    *,
    kind: Literal["instance", "client"],
    name: str,
    standing: Standing,
    endpoints: Mapping[str, EndpointLoad] = {},
) -> Condition:
    """What the member on ``client`` says of itself beside its calls; long lists are cut."""
    outbound, bus, now = client.outbound, client.transport.stats, client.now()
    breakers = [
        OpenBreaker(
            service=service,
            endpoint=endpoint,
            subset=subset or UNSET,
            state="OPEN" if state is BreakerState.OPEN else "HALF_OPEN",
            # Of a half-open one nobody knows when a permit comes back.
            retry_after_s=round(wait_s, 3) if state is BreakerState.OPEN else UNSET,
        )
        for service, endpoint, subset, state, wait_s in outbound.broken(now)
    ]
    ejected = [Ejected(service=service, instance=each) for service, each in outbound.ejected(now)]
    return Condition(
        kind=kind,
        name=name,
        source=standing.source,
        revision=standing.revision,
        rejected=standing.rejected,
        rtt_s=bus.rtt_s,
        reconnects=bus.reconnects,
        endpoints=dict(endpoints),
        breakers=tuple(breakers[:MAX_LISTED]),
        ejected=tuple(ejected[:MAX_LISTED]),
    )

"""What policies come to for one target, as the data path uses it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nats_mesh.core.router import Rule
from nats_mesh.core.rules import (
    BalancerRules,
    BreakerRules,
    ConcurrencyRules,
    EjectionRules,
    HedgeRules,
    RetryRules,
    SubsetRules,
)
from nats_mesh.core.telemetry_rules import TelemetryRules

__all__ = ["DEFAULT", "InboundRules", "OutboundRules", "policy_in", "same_rules"]

#: The source of what no policy says.
DEFAULT = "default"


class OutboundRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller does on its way to one endpoint.

    ``timeout_s`` and ``idempotent`` are ``None`` where no policy says anything: then the endpoint's own declaration
    counts. ``breaker`` and ``hedge`` are ``None`` where they are off. ``subset`` selects the instances, ``None``: all
    of them. ``routing`` has, for each route that calls may meet, its rules in their order; where there are any, what a
    call gets is known once it has met some of them. ``sources`` says for every field, by its
    path in a policy (`retry.attempts`), where its value comes from: `default`, or `Destination/orders (file:line)`
    as it was when these rules came into effect.
    """

    timeout_s: float | None = None
    idempotent: bool | None = None
    retry: RetryRules = RetryRules()
    hedge: HedgeRules | None = None
    breaker: BreakerRules | None = BreakerRules()
    ejection: EjectionRules = EjectionRules()
    balancer: BalancerRules = BalancerRules()
    subset: SubsetRules | None = None
    routing: tuple[tuple[Rule, ...], ...] = ()
    sources: Mapping[str, str] = {}


class InboundRules(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance does with calls of one endpoint. ``concurrency`` is ``None`` where no policy is about it: then
    the endpoint's own option counts. ``sources`` as in :class:`OutboundRules`."""

    concurrency: ConcurrencyRules | None = None
    sources: Mapping[str, str] = {}


def same_rules(
    one: OutboundRules | InboundRules | TelemetryRules, other: OutboundRules | InboundRules | TelemetryRules
) -> bool:
    """Whether both say the same, by the same policies; on which line of a file these stand does not matter."""
    for name in one.__struct_fields__:
        mine, others = getattr(one, name), getattr(other, name)
        if name == "sources":
            mine, others = _policies(mine), _policies(others)
        if mine != others:
            return False
    return True


def _policies(sources: Mapping[str, str]) -> dict[str, str]:
    return {path: policy_in(source) for path, source in sources.items()}


def policy_in(source: str) -> str:
    """The policy that a source names; empty where none says it."""
    return "" if source == DEFAULT else source.partition(" (")[0]

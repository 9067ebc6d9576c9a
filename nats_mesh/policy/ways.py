"""The ways of a call that nobody makes, under one set of policies: where it may go, how likely, and what holds there.

Tests of policies and replays of recorded calls both ask here, so that they cannot come to say different things. Where a
call goes is asked of :mod:`nats_mesh.core.likely`, and so of the router that calls meet; what holds there of
:class:`~nats_mesh.policy.PolicySet`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from nats_mesh.core.likely import outcomes
from nats_mesh.core.router import Leg, Mirror, Path, Values, laid
from nats_mesh.policy.policy_set import PolicySet
from nats_mesh.policy.rules import OutboundRules
from nats_mesh.policy.scopes import Via

__all__ = ["PolicyWay", "PolicyWays", "keep"]

_MAX_KEPT = 10_000


class PolicyWay(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One way that ``share`` of such calls go. ``path`` is what the rules of routes that they met come to; an empty
    ``subset`` is every instance. Each of ``mirrors`` names its service. ``sources`` says where ``outbound`` is from."""

    share: float
    service: str
    endpoint: str
    subset: str
    path: Path
    mirrors: tuple[Mirror, ...]
    outbound: OutboundRules
    sources: Mapping[str, str]


class PolicyWays:
    """Asks one set. What holds on a way is found once for all calls that take it; the oldest is forgotten first."""

    def __init__(self, policies: PolicySet) -> None:
        self._policies = policies
        self._made: dict[Any, PolicyWay] = {}

    def of(self, service: str, endpoint: str, caller: str, values: Values) -> Iterator[PolicyWay]:
        """Every way of a call that has these headers; the shares come to 1."""
        routing = self._policies.outbound(service, endpoint, caller).routing
        if not routing:
            yield self._way(service, endpoint, caller, laid(()), Leg(), None)
            return
        for each in outcomes(routing, values, caller, service):
            yield self.along(service, endpoint, caller, each.path, each.leg, share=each.share)

    def along(
        self, service: str, endpoint: str, caller: str, path: Path, leg: Leg, *, share: float = 1.0
    ) -> PolicyWay:
        """The way of calls that have met the rules of ``path`` and go to ``leg``."""
        via = tuple([(rule.scope, rule.index) for rule in path.rules])
        found = self._way(service, endpoint, caller, path, leg, via)
        return found if share == 1.0 else msgspec.structs.replace(found, share=share)

    def _way(
        self, service: str, endpoint: str, caller: str, path: Path, leg: Leg, via: Via | None
    ) -> PolicyWay:
        key = (service, endpoint, caller, via, leg.service, leg.endpoint, leg.subset)
        found = self._made.get(key)
        if found is None:
            where = (leg.service or service, leg.endpoint or endpoint)
            mirrors = [
                each if each.service else msgspec.structs.replace(each, service=service)
                for each in path.mirrors
            ]
            found = PolicyWay(
                share=1.0,
                service=where[0],
                endpoint=where[1],
                subset=leg.subset,
                path=path,
                mirrors=tuple(mirrors),
                outbound=self._policies.outbound(*where, caller, subset=leg.subset, via=via),
                sources=self._policies.outbound_sources(*where, caller, subset=leg.subset, via=via),
            )
            keep(self._made, key, found)
        return found


def keep(table: dict[Any, Any], key: Any, value: Any) -> None:
    """Put into a table that is bounded: what was there first goes. Only for what can be found again."""
    if len(table) >= _MAX_KEPT:
        del table[next(iter(table))]
    table[key] = value

"""What is promised of whom: the objectives of all `Telemetry` policies as single promises, each with its scope.

A promise is about one number, the share of calls that did not fail or of answers that came in time, and an objective
may make both. It holds for one service, for some of its endpoints, or for every service by itself; what a narrower
policy promises something of, too, is left to that one.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import UNSET

from nats_mesh.core.burn import Pair, pairs_for
from nats_mesh.core.histogram import BOUNDS
from nats_mesh.core.telemetry_rules import ObjectiveRules
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.policy_set import PolicySet
from nats_mesh.policy.telemetry import objectives_of
from nats_mesh.policy.telemetry_parts import Telemetry, TelemetrySpec

__all__ = ["EVERY", "Indicator", "Promise", "promises", "within_bound"]

#: In the place of an endpoint: every one of its service.
EVERY: Final = ""
#: A threshold that comes out of a calculation may be a hair below the bound that it means.
_ROUNDED: Final = 1.0 + 1e-9


class Indicator(enum.StrEnum):
    """Which number is promised."""

    AVAILABILITY = "availability"
    LATENCY = "latency"


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """A ``share`` of the calls of its scope goes well over ``window_s``: does not fail, or is answered within
    ``threshold_s``.

    ``service`` is empty for every service, each by itself; without ``endpoints`` all of them count. ``but`` are
    services and endpoints (:data:`EVERY`: all of the service) for which a narrower policy speaks.
    """

    name: str
    policy: str
    indicator: Indicator
    share: float
    window_s: float
    threshold_s: float | None = None
    service: str = ""
    endpoints: tuple[str, ...] = ()
    but: tuple[tuple[str, str], ...] = ()

    @property
    def budget(self) -> float:
        """The share of the calls that may go wrong."""
        return 1.0 - self.share

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """What is looked at: see :func:`nats_mesh.core.burn.pairs_for`."""
        return pairs_for(self.share, self.window_s)

    def concerns(self, service: str, endpoint: str) -> bool:
        """Whether a call of ``service.endpoint`` counts."""
        if self.service and service != self.service:
            return False
        if self.endpoints and endpoint not in self.endpoints:
            return False
        return (service, endpoint) not in self.but and (service, EVERY) not in self.but


def promises(policies: PolicySet) -> tuple[Promise, ...]:
    """Every promise of a set of policies, in the order of their names."""
    told = [
        (_scopes(policy), objectives_of(policy))
        for policy in policies.policies
        if isinstance(policy.document, Telemetry) and policy.document.spec.objectives is not UNSET
    ]
    named = {scope for scopes, _ in told for scope in scopes if scope != (EVERY, EVERY)}
    found = []
    for scopes, objectives in told:
        service = scopes[0][0]
        but: list[tuple[str, str]] = []
        if scopes == ((EVERY, EVERY),):
            but = sorted(named)
        elif scopes == ((service, EVERY),):
            but = sorted(each for each in named if each[0] == service and each[1] != EVERY)
        for objective in objectives:
            found += _of(objective, tuple(but))
    return tuple(sorted(found, key=lambda each: (each.policy, each.name, each.indicator)))


def _scopes(policy: Policy) -> tuple[tuple[str, str], ...]:
    spec = policy.document.spec
    assert isinstance(spec, TelemetrySpec)
    target = spec.target
    if target is UNSET or target.service is UNSET:
        return ((EVERY, EVERY),)
    if target.endpoints is UNSET:
        return ((target.service, EVERY),)
    return tuple([(target.service, endpoint) for endpoint in target.endpoints])


def _of(said: ObjectiveRules, but: tuple[tuple[str, str], ...]) -> list[Promise]:
    found = []
    if said.availability is not None:
        found.append(_promise(said, but, Indicator.AVAILABILITY, said.availability, None))
    if said.latency is not None:
        found.append(_promise(said, but, Indicator.LATENCY, said.latency.share, said.latency.threshold_s))
    return found


def _promise(
    said: ObjectiveRules,
    but: tuple[tuple[str, str], ...],
    indicator: Indicator,
    share: float,
    threshold_s: float | None,
) -> Promise:
    return Promise(
        name=said.name,
        policy=said.policy,
        indicator=indicator,
        share=share,
        window_s=said.window_s,
        threshold_s=threshold_s,
        service=said.service,
        endpoints=said.endpoints,
        but=but,
    )


def within_bound(threshold_s: float, bounds: Sequence[float] = BOUNDS) -> float | None:
    """The bound of a histogram that stands for ``threshold_s``: the largest that is not above it, so that no call that
    was too slow counts as in time. ``None`` where even the smallest is above."""
    at = bisect_right(bounds, threshold_s * _ROUNDED)
    return bounds[at - 1] if at else None

"""A caller that makes no calls: its targets are put together by the very code of one that does, and then looked at.

What it sees of the bus is what it was given: the answers of those who are there, and no connection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

from nats_mesh.calling.exchange import Declared, Target
from nats_mesh.calling.outbound import Outbound
from nats_mesh.calling.verdicts import Opinions
from nats_mesh.core.presence import State, weight_of
from nats_mesh.core.rules import SubsetRules
from nats_mesh.discovery.directory import ServiceFacts, facts_of
from nats_mesh.discovery.fleet import Fleet, FleetMember
from nats_mesh.discovery.fleets import FleetDirectory
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.endpoint import Contract
from nats_mesh.model import NO_HEADERS, Request
from nats_mesh.policy import PolicySet
from nats_mesh.telemetry.stats import Stats
from nats_mesh.wire.subjects import ALL, Subjects

__all__ = ["Hypothetical", "labels_of", "selected", "state_of", "zones_of"]

#: Of what is drawn, the middle.
_MIDDLE = 0.5


class Hypothetical:
    """The caller called ``caller`` under ``policies``. ``infos`` are the answers of all who are there, of any namespace
    (``None``: nobody was asked)."""

    def __init__(
        self, caller: str, policies: PolicySet, infos: Sequence[InfoReply] | None, *, zone: str = ""
    ) -> None:
        self.policies = policies
        self.subjects = Subjects(policies.namespace)
        self._caller = caller
        self._infos = infos
        self._stats = Stats()
        self._outbound = Outbound(
            caller=caller,
            subjects=self.subjects,
            # What stands in for a connection has all that is asked of it here.
            fleets=cast(FleetDirectory, _Fleets(self.instances)),
            opinions=cast(Opinions, _NoOpinions()),
            chance=lambda: _MIDDLE,
            tell=lambda kind, target, detail: None,
            make=self._make,
            zone=zone,
            policies=policies,
        )

    def target(self, service: str, endpoint: str) -> Target:
        """What is called, as a caller resolves it."""
        made = self._make(service, endpoint, None, "")
        self._outbound.compose(made)
        return self.settle(made)

    def settle(self, target: Target) -> Target:
        """``target``, once its caller has learned what the endpoint declares."""
        facts = self.facts(target.service)
        if facts is not None:
            target.declared = Declared(
                facts.timeout_s(target.endpoint),
                facts.idempotent(target.endpoint),
                facts.keyed(target.endpoint),
            )
        self._outbound.settle(target)
        return target

    def facts(self, service: str) -> ServiceFacts | None:
        """What the service says of itself."""
        return facts_of(self._infos or (), service, self.policies.namespace)

    def subset(self, service: str, name: str) -> SubsetRules | None:
        """The subset called ``name``; ``None`` for every instance."""
        return self.policies.subsets(service).get(name) if name else None

    def instances(self, service: str) -> tuple[InfoReply, ...]:
        """The instances of ``service`` in this namespace, in any state; those outside any mesh are none."""
        return tuple(
            [
                each
                for each in self._infos or ()
                if each.name == service and each.metadata.get("mesh.namespace") == self.policies.namespace
            ]
        )

    def _make(self, service: str, endpoint: str, contract: Contract | None, subset: str) -> Target:
        subject = self.subjects.rpc(service, endpoint, self._caller, subset or ALL)
        cancel = self.subjects.cancel(service, self._caller)
        series = self._stats.series("out", service, endpoint, self._caller, subset)
        made = Target(service, endpoint, subject, cancel, series, contract, "", subset=subset)
        made.usual = Request(
            service,
            endpoint,
            self._caller,
            self.policies.namespace,
            None,
            NO_HEADERS,
            0.0,
            subject=subject,
            route=subset or ALL,
        )
        return made


def state_of(info: InfoReply) -> str:
    """What an instance says that it wants: `joining`, `ready` or `draining`."""
    return info.metadata.get("mesh.state", State.READY.value)


def labels_of(info: InfoReply) -> dict[str, str]:
    """The labels of an instance."""
    return {key: value for key, value in info.metadata.items() if not key.startswith("mesh.")}


def selected(instances: Sequence[InfoReply], subset: SubsetRules | None) -> tuple[InfoReply, ...]:
    """Those who take calls, of a ``subset`` or of all."""
    return tuple(
        [
            each
            for each in instances
            if state_of(each) == State.READY.value
            and (subset is None or subset.selects(each.version, labels_of(each)))
        ]
    )


def zones_of(instances: Sequence[InfoReply]) -> tuple[str, ...]:
    """The zones that the instances are in."""
    return tuple(sorted({each.metadata.get("zone", "") for each in instances}))


class _Fleet:
    """A :class:`~nats_mesh.discovery.fleet.Fleet` that changes no more."""

    version = 0

    def __init__(self, service: str, instances: Sequence[InfoReply]) -> None:
        self.service = service
        self._members = [_member(each) for each in selected(instances, None)]

    def instances(self) -> Sequence[FleetMember]:
        return self._members


def _member(info: InfoReply) -> FleetMember:
    labels = labels_of(info)
    return FleetMember(
        id=info.id,
        version=info.version,
        labels=labels,
        zone=labels.get("zone", ""),
        state=State.READY,
        suspect=False,
        in_flight=0,
        limit=0,
        first_seen=-math.inf,
        weight=weight_of(labels) or 1.0,
    )


class _Fleets:
    def __init__(self, instances: Callable[[str], Sequence[InfoReply]]) -> None:
        self._instances = instances

    def fleet(self, service: str) -> Fleet:
        return cast(Fleet, _Fleet(service, self._instances(service)))

    def release(self, fleet: Fleet) -> None:
        """Nobody watches anything."""


class _NoBreakers:
    def follow(self, service: str, endpoint: str, circuit: object, rules: object) -> None:
        """Nobody tells anybody."""


class _NoOpinions:
    breakers = _NoBreakers()

    def attach(self, group: object, rules: object) -> None:
        """Nobody tells anybody."""

    def detach(self, group: object) -> None:
        """Nobody listens."""

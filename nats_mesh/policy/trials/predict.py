"""What policies make of a call that nobody makes: where it goes, how likely, what it gets there, and whether it may in.

It asks the very code of the data path: :class:`~nats_mesh.policy.PolicySet` for values and rules,
:mod:`nats_mesh.policy.ways` for where it goes, :mod:`nats_mesh.core.access` for the decision. What has no layer yet has
no effect on where calls go; access is decided as its layer will.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from nats_mesh.core.access import Claims, Decision, decide
from nats_mesh.core.router import Fault, Mirror
from nats_mesh.policy.access import access_rules, authentications
from nats_mesh.policy.access_parts import Issuer
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.layerless import without_layerless
from nats_mesh.policy.policy_set import PolicySet
from nats_mesh.policy.problems import place
from nats_mesh.policy.rules import InboundRules, OutboundRules
from nats_mesh.policy.scopes import namespace_of
from nats_mesh.policy.ways import PolicyWay, PolicyWays

__all__ = ["Oracle", "TrialCall", "Verdict", "Way"]


class TrialCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call: ``caller`` asks ``service.endpoint``. ``headers`` by their names in lower case; ``claims`` is what a
    token says, ``None`` without one."""

    service: str
    endpoint: str
    caller: str = "anonymous"
    headers: Mapping[str, Sequence[str]] = {}
    claims: Mapping[str, Any] | None = None

    def values(self, name: str) -> Sequence[str]:
        """The values of a header."""
        return self.headers.get(name.lower(), ())


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an instance lets a call in. ``by`` is the policy that decides, empty where none does; ``rule`` its
    rule, by name or place; ``where`` its file and line."""

    allowed: bool
    by: str = ""
    rule: str = ""
    where: str = ""
    reason: str = ""
    dry_run: bool | None = None


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One way that ``share`` of such calls go, with what holds there. ``rules`` are the rules of routes that they met,
    each with its place. An empty ``subset`` is every instance."""

    share: float
    service: str
    endpoint: str
    subset: str
    rules: tuple[str, ...]
    fault: Fault | None
    mirrors: tuple[Mirror, ...]
    outbound: OutboundRules
    sources: Mapping[str, str]
    inbound: InboundRules
    inbound_sources: Mapping[str, str]
    access: Verdict


class Oracle:
    """Answers for one set of policies. Everything wrong with the set is one :class:`~nats_mesh.errors.PolicyError`."""

    def __init__(self, policies: Iterable[Policy], *, namespace: str = "default") -> None:
        every = tuple(policies)
        self.policies = tuple(each for each in every if namespace_of(each, namespace) == namespace)
        self.applied = PolicySet.of(without_layerless(every), namespace=namespace)
        self._ways = PolicyWays(self.applied)

    def ways(self, call: TrialCall) -> list[Way]:
        """Every way of a call; their shares come to 1."""
        found = self._ways.of(call.service, call.endpoint, call.caller, call.values)
        return [self._way(call, way) for way in found]

    def _way(self, call: TrialCall, way: PolicyWay) -> Way:
        asked = msgspec.structs.replace(call, service=way.service, endpoint=way.endpoint)
        return Way(
            share=way.share,
            service=way.service,
            endpoint=way.endpoint,
            subset=way.subset,
            rules=tuple([self.applied.rule_source(rule) for rule in way.path.rules]),
            fault=way.path.fault,
            mirrors=way.mirrors,
            outbound=way.outbound,
            sources=way.sources,
            inbound=self.applied.inbound(way.service, way.endpoint),
            inbound_sources=self.applied.inbound_sources(way.service, way.endpoint),
            access=self.access(asked),
        )

    def access(self, call: TrialCall) -> Verdict:
        """Whether an instance lets a call in that has come to it."""
        claims, refused = self._authenticated(call)
        if refused is not None:
            return refused
        found = decide(
            access_rules(self.policies, call.service, call.endpoint),
            caller=call.caller,
            endpoint=call.endpoint,
            values=call.values,
            claims=claims,
        )
        return self._verdict(found)

    def _verdict(self, found: Decision) -> Verdict:
        dry_run = None if found.dry_run is None else found.dry_run.allowed
        by, rule, path = "", "", ""
        if found.rule is not None:
            by, path = found.rule.policy, f"spec.{found.rule.place}"
            rule = found.rule.name or found.rule.place
        elif found.policies:
            by, path = found.policies[0], "spec.default"
        policy = next((each for each in self.policies if each.name == by), None)
        where = "" if policy is None else place(policy.file, policy.lines.get(path, policy.line))
        return Verdict(
            allowed=found.allowed, by=by, rule=rule, where=where, reason=found.reason, dry_run=dry_run
        )

    def _authenticated(self, call: TrialCall) -> tuple[Claims, Verdict | None]:
        """What is known of the end user: the claims that are handed on, or who refuses the token, or its absence."""
        found = authentications(self.policies, call.service, call.endpoint)
        if not found:
            return None, None
        if call.claims is None:
            for policy, spec in found:
                if spec.required is True:
                    return {}, _unauthenticated(
                        policy, "spec.required", "a token is required, and there is none"
                    )
            return {}, None
        issuers = [issuer for _, spec in found for issuer in spec.issuers]
        fit = [issuer for issuer in issuers if _issued(issuer, call.claims)]
        if not fit:
            return {}, _unauthenticated(found[0][0], "spec.issuers", "no issuer gives such tokens (iss, aud)")
        if any(issuer.claims is UNSET for issuer in fit):
            return call.claims, None
        named = {name for issuer in fit for name in issuer.claims or ()}
        return {name: value for name, value in call.claims.items() if name in named}, None


def _unauthenticated(policy: Policy, path: str, reason: str) -> Verdict:
    where = place(policy.file, policy.lines.get(path, policy.line))
    return Verdict(allowed=False, by=policy.name, where=where, reason=f"{policy.name}: {reason}")


def _issued(issuer: Issuer, claims: Mapping[str, Any]) -> bool:
    """Whether a token with these claims may be one of this issuer's; what they leave out is taken to fit."""
    if claims.get("iss", issuer.issuer) != issuer.issuer:
        return False
    if issuer.audiences is UNSET or "aud" not in claims:
        return True
    said = claims["aud"]
    return any(each in issuer.audiences for each in (said if isinstance(said, list) else [said]))

"""From `Access` and `Authentication` policies to what the core decides by, for one endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import UNSET

from nats_mesh.core.access import AccessRule, AccessRules
from nats_mesh.policy.access_parts import Access, AccessSpec, Authentication, AuthenticationSpec
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.routing import header_test
from nats_mesh.policy.scopes import concerns

__all__ = ["access_rules", "authentications", "rules_of_policy"]


def access_rules(policies: Iterable[Policy], service: str, endpoint: str) -> AccessRules:
    """What the access policies among ``policies`` come to for ``service.endpoint``; all are of one namespace."""
    rules: list[AccessRule] = []
    denying: list[str] = []
    denying_dry: list[str] = []
    for policy in policies:
        spec = policy.document.spec
        if not isinstance(spec, AccessSpec) or not concerns(policy, service, endpoint):
            continue
        rules += rules_of_policy(policy)
        if spec.default == "deny":
            (denying_dry if spec.mode == "dry-run" else denying).append(policy.name)
    return AccessRules(rules=tuple(rules), denying=tuple(denying), denying_dry=tuple(denying_dry))


def rules_of_policy(policy: Policy) -> Sequence[AccessRule]:
    """The rules of one access policy, in their order."""
    assert isinstance(policy.document, Access)
    spec = policy.document.spec
    return [
        AccessRule(
            policy=policy.name,
            index=index,
            action=rule.action,
            name=rule.name or "",
            callers=_names(rule.callers),
            not_callers=_names(rule.not_callers),
            endpoints=_names(rule.endpoints),
            not_endpoints=_names(rule.not_endpoints),
            headers=tuple(header_test(name, said) for name, said in (rule.headers or {}).items()),
            claims=tuple(header_test(name, said) for name, said in (rule.claims or {}).items()),
            dry_run=spec.mode == "dry-run",
        )
        for index, rule in enumerate([] if spec.rules is UNSET else spec.rules)
    ]


def _names(said: list[str] | msgspec.UnsetType) -> tuple[str, ...]:
    return () if said is UNSET else tuple(said)


def authentications(
    policies: Iterable[Policy], service: str, endpoint: str
) -> list[tuple[Policy, AuthenticationSpec]]:
    """Those among ``policies`` that say whose tokens count for calls of ``service.endpoint``, each with its spec."""
    return [
        (policy, policy.document.spec)
        for policy in policies
        if isinstance(policy.document, Authentication) and concerns(policy, service, endpoint)
    ]

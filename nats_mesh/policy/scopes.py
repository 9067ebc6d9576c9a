"""What policies are about: the words in which sets, checks and callers say it."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import UNSET

from nats_mesh.policy.decode import Policy

__all__ = [
    "Place",
    "Scope",
    "Via",
    "around",
    "around_subset",
    "concerns",
    "namespace_of",
    "scopes_of",
    "subset_of",
]

#: ("", "") the namespace, (service, "") a service, (service, endpoint) one endpoint.
Scope: TypeAlias = tuple[str, str]
#: A rule of a route, by the scope of the route and where it stands there.
Place: TypeAlias = tuple[Scope, int]
#: The rules that a call has met.
Via: TypeAlias = tuple[Place, ...]


def namespace_of(policy: Policy, otherwise: str) -> str:
    """The namespace that a policy says it holds in, else ``otherwise``."""
    said = policy.document.metadata.namespace
    return otherwise if said is UNSET else said


def scopes_of(policy: Policy) -> list[Scope]:
    """What a policy is about."""
    target = policy.target
    if target is UNSET or target.service is UNSET:
        return [("", "")]
    return [(target.service, name) for name in ([""] if target.endpoints is UNSET else target.endpoints)]


def subset_of(policy: Policy) -> str:
    """The subset that a destination is about, if it is about one."""
    target = policy.target
    return "" if target is UNSET or target.subset is UNSET else target.subset


def around(service: str, endpoint: str) -> tuple[Scope, ...]:
    """The scopes a target lies in, from the least to the most specific, each once."""
    if not service:
        return (("", ""),)
    return (("", ""), (service, ""), (service, endpoint)) if endpoint else (("", ""), (service, ""))


def around_subset(service: str, endpoint: str, subset: str) -> tuple[tuple[str, str, str], ...]:
    """As :func:`around`, with those of a subset right above what is said of all instances."""
    if not subset:
        return tuple([(*scope, "") for scope in around(service, endpoint)])
    found: list[tuple[str, str, str]] = []
    for scope in around(service, endpoint):
        found.append((*scope, ""))
        if scope[0]:
            found.append((*scope, subset))
    return tuple(found)


def concerns(policy: Policy, service: str, endpoint: str) -> bool:
    """Whether a policy is about all calls of ``service.endpoint``."""
    scopes = around(service, endpoint)
    return any(scope in scopes for scope in scopes_of(policy))

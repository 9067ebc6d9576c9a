"""The kinds of `mesh/v1` that this version applies: what may stand in them, and what each field says.

Every field is said once, here and in :mod:`nats_mesh.policy.parts`: reading, `explain`, JSON Schema and
docs/policies.md come from these structs. A field or kind of the contract that nothing applies yet is named as
such, so that it is refused with a plain word and never taken in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypeAlias

from msgspec import UNSET, UnsetType

from nats_mesh.policy import kinds
from nats_mesh.policy.kinds import about
from nats_mesh.policy.parts import (
    Balancer,
    Breaker,
    Ejection,
    Hedge,
    Metadata,
    Off,
    Part,
    Retry,
    Subset,
    Target,
)  # fmt: skip

__all__ = [
    "API_VERSION",
    "KINDS",
    "LATER_KINDS",
    "Concurrency",
    "Destination",
    "DestinationSpec",
    "Document",
    "Limit",
    "LimitSpec",
    "Route",
    "RouteSpec",
    "Rule",
]

API_VERSION = "mesh/v1"


class DestinationSpec(Part, frozen=True, kw_only=True):
    """How callers treat a destination."""

    later: ClassVar[Mapping[str, str]] = {"throttle": "a limit on the caller's side"}

    target: Annotated[Target | UnsetType, about("What it is about.")] = UNSET
    timeout: Annotated[
        float | UnsetType,
        about("How long a call may take.", kinds.DURATION, default="the endpoint's own, else 5s"),
    ] = UNSET
    idempotent: Annotated[
        bool | UnsetType,
        about(
            "Running it twice does no harm, so it may be repeated.", kinds.FLAG, default="the endpoint's own"
        ),
    ] = UNSET
    retry: Annotated[Retry | UnsetType, about("When a call is tried again.")] = UNSET
    hedge: Annotated[Hedge | Off | UnsetType, about("Asking a second instance.", off=True, default="off")] = (
        UNSET
    )
    breaker: Annotated[Breaker | Off | UnsetType, about("Refusing calls that would fail.", off=True)] = UNSET
    ejection: Annotated[Ejection | UnsetType, about("Avoiding bad instances.")] = UNSET
    balancer: Annotated[Balancer | UnsetType, about("Who chooses the instance.")] = UNSET
    subsets: Annotated[
        dict[str, Subset] | UnsetType,
        about(
            "Named selections of the service's instances. Not in this version yet: refused until a `Route` can "
            "send calls to one.",
            default="none",
        ),
    ] = UNSET


class Destination(Part, frozen=True, kw_only=True, tag_field="kind", tag="Destination"):
    """How callers treat a service: timeout, retries, hedging, breaker, ejection, balancing."""

    api_version: Annotated[Literal["mesh/v1"], about("Always `mesh/v1`.", required=True)]
    metadata: Annotated[Metadata, about("What it is called.", required=True)]
    spec: Annotated[DestinationSpec, about("What it says.", required=True)]


class Rule(Part, frozen=True, kw_only=True):
    """One rule. Rules that match, split, mirror, redirect or fail calls come with routing."""

    later: ClassVar[Mapping[str, str]] = {
        "match": "rules for some calls only", "split": "splitting calls over subsets and services",
        "mirror": "mirroring", "fault": "injected faults", "redirect": "redirecting", "sticky": "sticky splits",
    }  # fmt: skip

    timeout: Annotated[
        float | UnsetType,
        about("How long a call may take.", kinds.DURATION, default="that of the `Destination`"),
    ] = UNSET
    retry: Annotated[
        Retry | UnsetType, about("When a call is tried again.", default="that of the `Destination`")
    ] = UNSET
    idempotent: Annotated[
        bool | UnsetType,
        about(
            "Running it twice does no harm, so it may be repeated.",
            kinds.FLAG,
            default="that of the `Destination`",
        ),
    ] = UNSET


class RouteSpec(Part, frozen=True, kw_only=True):
    """Which calls go where, and how."""

    target: Annotated[Target | UnsetType, about("What it is about.")] = UNSET
    rules: Annotated[
        list[Rule],
        about(
            "The rules in order. One that applies to every call is the last; today each does.", required=True
        ),
    ]


class Route(Part, frozen=True, kw_only=True, tag_field="kind", tag="Route"):
    """What single calls get: their timeout, their retries. It goes above a `Destination`."""

    api_version: Annotated[Literal["mesh/v1"], about("Always `mesh/v1`.", required=True)]
    metadata: Annotated[Metadata, about("What it is called.", required=True)]
    spec: Annotated[RouteSpec, about("What it says.", required=True)]


class Concurrency(Part, frozen=True, kw_only=True):
    """How many calls an instance takes at a time, per endpoint; the next is refused at once. Say one or both."""

    later: ClassVar[Mapping[str, str]] = {"adaptive": "limits that find themselves"}

    limit: Annotated[
        int | UnsetType,
        about(
            "Calls at a time, per endpoint and instance; 1 or more. With a target that names the endpoint it "
            "replaces the number that the endpoint declares; a wider one only lowers it.",
            kinds.COUNT,
            default="the endpoint's own, else 256",
        ),
    ] = UNSET
    leave_queue: Annotated[
        bool | UnsetType,
        about(
            "A full instance leaves its queue group while another has room. Without `limit` each instance keeps "
            "its own number.",
            kinds.FLAG,
        ),
    ] = UNSET


class LimitSpec(Part, frozen=True, kw_only=True):
    """What an instance takes."""

    later: ClassVar[Mapping[str, str]] = {
        "rate": "rate limits", "quota": "quotas", "queue": "queues in front of a limit",
        "priority": "priorities", "keys": "limits by key",
    }  # fmt: skip

    target: Annotated[Target | UnsetType, about("What it is about.")] = UNSET
    concurrency: Annotated[Concurrency, about("Calls at a time.", required=True)]


class Limit(Part, frozen=True, kw_only=True, tag_field="kind", tag="Limit"):
    """What instances take. Of the limits that match the smallest counts; a wide one allows no more than is declared."""

    api_version: Annotated[Literal["mesh/v1"], about("Always `mesh/v1`.", required=True)]
    metadata: Annotated[Metadata, about("What it is called.", required=True)]
    spec: Annotated[LimitSpec, about("What it says.", required=True)]


Document: TypeAlias = Destination | Route | Limit

KINDS: Mapping[str, type[Destination] | type[Route] | type[Limit]] = {
    "Destination": Destination, "Route": Route, "Limit": Limit,
}  # fmt: skip
#: Kinds of the contract that nothing in this version applies.
LATER_KINDS = ("Access", "Authentication", "Telemetry", "Gateway", "Rollout")

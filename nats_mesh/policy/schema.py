"""The kinds of `mesh/v1`: what may stand in them, and what each field says.

Every field is said once, here and in :mod:`nats_mesh.policy.parts`: reading, `explain`, JSON Schema and
docs/policies.md come from these structs. A field or kind that nothing applies yet is read and checked like any other,
and named as such: no member follows a policy that has one, and none is ever taken in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypeAlias

from msgspec import UNSET, UnsetType

from nats_mesh.policy import kinds
from nats_mesh.policy.access_parts import Access, Authentication
from nats_mesh.policy.gateway_parts import Gateway
from nats_mesh.policy.kinds import about
from nats_mesh.policy.limit_parts import Adaptive, Priority, Queue, Quota, Rate, Throttle
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
from nats_mesh.policy.rollout_parts import Rollout
from nats_mesh.policy.routing_parts import Fault, Match, Mirror, Redirect, Split, Sticky
from nats_mesh.policy.telemetry_parts import Telemetry

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
            "Named selections of the service's instances, for a `Route` to send calls to.",
            default="none",
            key=kinds.NAME,
        ),
    ] = UNSET
    throttle: Annotated[
        Throttle | Off | UnsetType, about("How much a caller sends.", off=True, default="off")
    ] = UNSET


class Destination(Part, frozen=True, kw_only=True, tag_field="kind", tag="Destination"):
    """How callers treat a service: timeout, retries, hedging, breaker, ejection, balancing."""

    api_version: Annotated[Literal["mesh/v1"], about("Always `mesh/v1`.", required=True)]
    metadata: Annotated[Metadata, about("What it is called.", required=True)]
    spec: Annotated[DestinationSpec, about("What it says.", required=True)]


class Rule(Part, frozen=True, kw_only=True):
    """One rule: for which calls, where they go, and how. Without a `match` it is about every call."""

    match: Annotated[
        list[Match] | UnsetType,
        about("Calls that meet one of these; one alone may be written without a list.", default="every call"),
    ] = UNSET
    split: Annotated[
        list[Split] | UnsetType,
        about("Where they go, each call to one of these.", default="the service that is called"),
    ] = UNSET
    redirect: Annotated[
        Redirect | UnsetType, about("What is called in its place; not beside `split`.", default="none")
    ] = UNSET
    mirror: Annotated[
        list[Mirror] | UnsetType,
        about("Who gets copies; one alone may be written without a list.", default="nobody"),
    ] = UNSET
    fault: Annotated[Fault | UnsetType, about("What is done to them on purpose.", default="nothing")] = UNSET
    sticky: Annotated[
        Sticky | UnsetType, about("Which of them go the same way.", default="each by chance")
    ] = UNSET
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
            "The rules in order: the first that a call meets counts. A call that meets none goes as if there were no "
            "`Route`.",
            required=True,
        ),
    ]


class Route(Part, frozen=True, kw_only=True, tag_field="kind", tag="Route"):
    """Which calls go where, and what they get: it goes above a `Destination`."""

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
    adaptive: Annotated[
        Adaptive | Off | UnsetType, about("A limit that finds itself.", off=True, default="off")
    ] = UNSET


class LimitSpec(Part, frozen=True, kw_only=True):
    """What an instance takes. Say at least one limit."""

    later: ClassVar[Mapping[str, str]] = {
        "rate": "rate limits", "quota": "quotas", "queue": "queues in front of a limit", "priority": "priorities",
    }  # fmt: skip

    target: Annotated[Target | UnsetType, about("What it is about.")] = UNSET
    concurrency: Annotated[
        Concurrency | UnsetType, about("Calls at a time.", default="the endpoint's own number")
    ] = UNSET
    rate: Annotated[Rate | UnsetType, about("Calls in a time.", default="no limit")] = UNSET
    quota: Annotated[Quota | UnsetType, about("Calls in a long time.", default="no limit")] = UNSET
    queue: Annotated[Queue | UnsetType, about("Calls that wait.", default="none waits")] = UNSET
    priority: Annotated[Priority | UnsetType, about("Who comes first.", default="whoever comes first")] = (
        UNSET
    )


class Limit(Part, frozen=True, kw_only=True, tag_field="kind", tag="Limit"):
    """What instances take. Of the limits that match the smallest counts; a wide one allows no more than is declared."""

    api_version: Annotated[Literal["mesh/v1"], about("Always `mesh/v1`.", required=True)]
    metadata: Annotated[Metadata, about("What it is called.", required=True)]
    spec: Annotated[LimitSpec, about("What it says.", required=True)]


Document: TypeAlias = (
    Destination | Route | Limit | Access | Authentication | Telemetry | Gateway | Rollout
)  # fmt: skip

KINDS: Mapping[str, type[Document]] = {
    "Destination": Destination, "Route": Route, "Limit": Limit, "Access": Access, "Authentication": Authentication,
    "Telemetry": Telemetry, "Gateway": Gateway, "Rollout": Rollout,
}  # fmt: skip
#: Those of them that nothing in this version applies.
LATER_KINDS = ("Access", "Authentication", "Gateway")

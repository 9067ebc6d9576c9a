"""What a `PolicyTest` is made of: calls that nobody makes, and what policies shall make of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType

from nats_mesh.core.shares import read_share, share_text
from nats_mesh.model import is_name
from nats_mesh.policy import formats, kinds
from nats_mesh.policy.kinds import Kind, Scalar, about, shown
from nats_mesh.policy.parts import Metadata, Off, Part
from nats_mesh.policy.routing_parts import Fault
from nats_mesh.policy.schema import LimitSpec
from nats_mesh.policy.trials.effective import VALUES

__all__ = [
    "ALL",
    "Call",
    "Case",
    "Decided",
    "Destined",
    "Expect",
    "Mirrored",
    "PolicyTest",
    "PolicyTestSpec",
    "Share",
]

#: What an expectation calls every instance of a service, of whatever subset.
ALL = "all"

_MAX_DEPTH = 8
_SHARE = re.compile(r"\s*([^\s±+]+)(?:\s*(?:±|\+-|\+/-)\s*(\S+))?\s*")


class Share(msgspec.Struct, frozen=True):
    """A share of the calls, and how far off it may be; both from 0 to 1."""

    share: float
    within: float = 0.0

    def holds(self, found: float) -> bool:
        """Whether ``found`` is such a share."""
        return abs(found - self.share) <= self.within + 1e-9

    def __str__(self) -> str:
        text = share_text(self.share, 6)
        return f"{text} ± {share_text(self.within, 6)}" if self.within else text


def _share(value: Scalar) -> Share:
    match = _SHARE.fullmatch(value) if isinstance(value, str) else None
    share, within = (None, None) if match is None else (read_share(match[1]), read_share(match[2] or "0%"))
    if share is None or within is None or share > 1.0:
        raise ValueError(f"must be a share such as 10%, or 10% ± 2%, got {shown(value)}")
    return Share(share, within)


def _target(value: Scalar) -> str:
    service, dot, endpoint = value.partition(".") if isinstance(value, str) else ("", "", "")
    if not (dot and is_name(service) and is_name(endpoint)):
        raise ValueError(f"must be service.endpoint, got {shown(value)}")
    return f"{service}.{endpoint}"


def _subset(value: Scalar) -> str:
    return ALL if value == ALL else str(kinds.NAME.parse(value))


def _policy(value: Scalar) -> str:
    kind, slash, name = value.partition("/") if isinstance(value, str) else ("", "", "")
    if not (slash and kind.isidentifier() and is_name(name)):
        raise ValueError(f"must be Kind/name, such as Access/orders, got {shown(value)}")
    return f"{kind}/{name}"


def _headers(value: Any) -> dict[str, list[str]]:
    if not isinstance(value, dict):
        raise ValueError(f"must be a mapping of headers, got {shown(value)}")
    found: dict[str, list[str]] = {}
    for name, node in value.items():
        values = node.value if isinstance(node.value, list) else [node]
        try:
            texts = [kinds.TEXT.parse(each.value) for each in values]
            found.setdefault(kinds.HEADER.parse(name), []).extend(texts)
        except ValueError as error:
            raise ValueError(f"{shown(name)}: {error}") from None
    return found


def _claims(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"must be a mapping of claims, got {shown(value)}")
    return {name: node.plain() for name, node in value.items()}


TARGET = Kind(name="service.endpoint", parse=_target, write=str, schema={"type": "string"})
SHARE = Kind(
    name="share, which may say how far off it may be", parse=_share, write=str, schema={"type": "string"}
)
SUBSET = Kind(name="name of a subset, or all", parse=_subset, write=str, schema=kinds.NAME.schema)
POLICY = Kind(name="Kind/name", parse=_policy, write=str, schema={"type": "string"})
HEADERS = Kind(name="text, or a list of texts, by name", parse=_headers, write=str, schema={"type": "object"})
CLAIMS = Kind(name="values by name", parse=_claims, write=str, schema={"type": "object"})
PATHS = Kind(name="list of texts", parse=kinds.TEXT.parse, write=str, schema=kinds.TEXT.schema, several=True)


class Call(Part, frozen=True, kw_only=True):
    """A call. The target alone may be written in its place: `call: orders.get`."""

    short: ClassVar[str] = "to"

    to: Annotated[str, about("What is called: `orders.get`.", TARGET, required=True)]
    # What the file calls `from`.
    from_: Annotated[
        str | UnsetType, about("Who calls.", kinds.NAME, default="a caller without a name, `anonymous`")
    ] = msgspec.field(name="from", default=UNSET)
    headers: Annotated[
        object | UnsetType,
        about("Its headers; a list where one stands several times.", HEADERS, default="none"),
    ] = UNSET
    claims: Annotated[
        object | UnsetType,
        about("What the end user's valid token says.", CLAIMS, default="none: it has no token"),
    ] = UNSET


class Decided(Part, frozen=True, kw_only=True):
    """Who decides. The policy alone may be written in its place: `denied: Access/orders`."""

    short: ClassVar[str] = "by"

    by: Annotated[str | UnsetType, about("The policy.", POLICY, default="whichever")] = UNSET
    rule: Annotated[
        str | UnsetType,
        about("Its rule: the rule's name, or its place: `rules[0]`.", kinds.TEXT, default="whichever"),
    ] = UNSET


class Destined(Part, frozen=True, kw_only=True):
    """Where calls go. What is not said here may be anything."""

    alone: ClassVar[bool] = True

    service: Annotated[str | UnsetType, about("To this service.", kinds.NAME, default="any")] = UNSET
    endpoint: Annotated[str | UnsetType, about("To this endpoint.", kinds.NAME, default="any")] = UNSET
    subset: Annotated[
        str | UnsetType, about("To this subset; `all` where none is chosen.", SUBSET, default="any")
    ] = UNSET
    share: Annotated[
        Share | UnsetType, about("So many of such calls: `10%`, or `10% ± 2%`.", SHARE, default="100%")
    ] = UNSET


class Mirrored(Part, frozen=True, kw_only=True):
    """Who gets copies."""

    alone: ClassVar[bool] = True

    service: Annotated[str | UnsetType, about("This service.", kinds.NAME, default="any")] = UNSET
    subset: Annotated[
        str | UnsetType, about("This subset; `all` where none is chosen.", SUBSET, default="any")
    ] = UNSET
    share: Annotated[Share | UnsetType, about("Of so many of such calls.", SHARE, default="100%")] = UNSET


class Expect(Part, frozen=True, kw_only=True):
    """What shall come of a call; what is not said is not looked at. `allowed` and `denied` alone may be written in its
    place: `expect: denied`."""

    short: ClassVar[str] = "access"
    later: ClassVar[Mapping[str, str]] = LimitSpec.later

    access: Annotated[
        Literal["allowed", "denied"] | UnsetType,
        about(
            "Whether it is let in.", formats.word("allowed or denied", "allowed", "denied"), default="either"
        ),
    ] = UNSET
    allowed: Annotated[Decided | UnsetType, about("It is let in, by this.", default="either")] = UNSET
    denied: Annotated[Decided | UnsetType, about("It is refused, by this.", default="either")] = UNSET
    dry_run: Annotated[
        Literal["allowed", "denied"] | UnsetType,
        about(
            "What would become of it if the dry runs were in force.",
            formats.word("allowed or denied", "allowed", "denied"),
            default="either",
        ),
    ] = UNSET
    route: Annotated[
        list[Destined] | UnsetType,
        about("Where it goes; one alone may be written without a list.", default="anywhere"),
    ] = UNSET
    mirror: Annotated[
        list[Mirrored] | Off | UnsetType,
        about("Who gets copies; `off` for nobody.", off=True, default="anybody"),
    ] = UNSET
    fault: Annotated[
        Fault | Off | UnsetType,
        about("What is done to it on purpose; `off` for nothing.", off=True, default="anything"),
    ] = UNSET
    timeout: Annotated[
        float | UnsetType,
        about("How long it may take, by what policies say.", kinds.DURATION, default="any"),
    ] = UNSET
    attempts: Annotated[int | UnsetType, about("Attempts in all.", kinds.COUNT, default="any")] = UNSET
    per_try_timeout: Annotated[
        float | Off | UnsetType, about("How long one may take.", kinds.DURATION, off=True, default="any")
    ] = UNSET
    retry_on: Annotated[
        list[str] | UnsetType, about("What is worth another one.", kinds.CONDITION, default="any")
    ] = UNSET
    idempotent: Annotated[
        bool | UnsetType, about("Policies say that it may run twice.", kinds.FLAG, default="either")
    ] = UNSET
    balancer: Annotated[
        str | UnsetType, about("Who chooses the instance.", kinds.BALANCER, default="any")
    ] = UNSET
    hedge: Annotated[bool | UnsetType, about("A second instance is asked.", kinds.FLAG, default="either")] = (
        UNSET
    )
    breaker: Annotated[
        bool | UnsetType, about("A breaker stands before it.", kinds.FLAG, default="either")
    ] = UNSET
    limit: Annotated[
        int | Off | UnsetType,
        about(
            "Calls at a time, by what policies say; `off` where they say nothing.",
            kinds.COUNT,
            off=True,
            default="any",
        ),
    ] = UNSET
    values: Annotated[
        object | UnsetType,
        about(
            "Any other value that policies decide, by its path in `Destination`, or in the `concurrency` of `Limit`: "
            "`{retry.backoff.max: 1s, ejection.verdicts: off}`. `off`: it is off, or no policy says it.",
            VALUES,
            default="any",
        ),
    ] = UNSET


class Case(Part, frozen=True, kw_only=True):
    """One call, and what shall come of it."""

    name: Annotated[str, about("What a failure calls it.", kinds.TEXT, required=True)]
    call: Annotated[Call, about("The call.", required=True)]
    expect: Annotated[Expect, about("What shall come of it.", required=True)]


class PolicyTestSpec(Part, frozen=True, kw_only=True):
    """The calls, and which policies they meet."""

    policies: Annotated[
        list[str] | UnsetType,
        about(
            "Files and folders of policies, from where this file is.",
            PATHS,
            default="those that the command is given",
        ),
    ] = UNSET
    cases: Annotated[list[Case], about("The calls.", required=True)]


class PolicyTest(Part, frozen=True, kw_only=True, tag_field="kind", tag="PolicyTest"):
    """What policies shall do, for `nats-mesh policy test`. It is no policy: whoever reads policies leaves it alone."""

    api_version: Annotated[Literal["mesh/v1"], about("Always `mesh/v1`.", required=True)]
    metadata: Annotated[Metadata, about("What it is called.", required=True)]
    spec: Annotated[PolicyTestSpec, about("What it says.", required=True)]

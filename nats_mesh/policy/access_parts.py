"""Who may call what: `Access`, and who the end user is: `Authentication`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import UNSET, UnsetType

from nats_mesh.policy import formats, kinds
from nats_mesh.policy.kinds import about
from nats_mesh.policy.parts import Metadata, Part, Target
from nats_mesh.policy.routing_parts import HeaderMatch

__all__ = [
    "Access",
    "AccessRule",
    "AccessSpec",
    "Authentication",
    "AuthenticationSpec",
    "Issuer",
    "KeySet",
]


class AccessRule(Part, frozen=True, kw_only=True):
    """One rule: what happens to calls that meet everything that is said here. What is not said is met by every call."""

    action: Annotated[
        Literal["ALLOW", "DENY", "AUDIT"],
        about(
            "`ALLOW` lets them in, `DENY` refuses them, whatever else allows them; `AUDIT` only writes them down.",
            formats.word("ALLOW, DENY or AUDIT", "ALLOW", "DENY", "AUDIT"),
            required=True,
        ),
    ]
    name: Annotated[
        str | UnsetType, about("What decisions call it.", kinds.NAME, default="its place: `rules[0]`")
    ] = UNSET
    callers: Annotated[
        list[str] | UnsetType, about("Of these callers.", kinds.PATTERNS, default="every caller")
    ] = UNSET
    not_callers: Annotated[
        list[str] | UnsetType, about("But of none of these.", kinds.PATTERNS, default="nobody")
    ] = UNSET
    endpoints: Annotated[
        list[str] | UnsetType, about("To these endpoints.", kinds.PATTERNS, default="every endpoint")
    ] = UNSET
    not_endpoints: Annotated[
        list[str] | UnsetType, about("But to none of these.", kinds.PATTERNS, default="none")
    ] = UNSET
    headers: Annotated[
        dict[str, HeaderMatch] | UnsetType, about("With these headers.", default="any", key=kinds.HEADER)
    ] = UNSET
    claims: Annotated[
        dict[str, HeaderMatch] | UnsetType,
        about(
            "With these claims of a valid token of the end user, each under a condition as a header has it. A claim "
            "that is a list has each of its items as a value. `a.b` is a claim of that name, else `b` inside the "
            "claim `a`.",
            default="any, also without a token",
            key=formats.CLAIM,
        ),
    ] = UNSET


class AccessSpec(Part, frozen=True, kw_only=True):
    """Who may call. Say rules, a default, or both."""

    target: Annotated[Target | UnsetType, about("What it is about.")] = UNSET
    mode: Annotated[
        Literal["enforce", "dry-run"] | UnsetType,
        about(
            "`dry-run` refuses nobody: what it would do is only counted and written down.",
            formats.word("enforce or dry-run", "enforce", "dry-run"),
            default="enforce",
        ),
    ] = UNSET
    default: Annotated[
        Literal["deny"] | UnsetType,
        about(
            "`deny` refuses calls that no rule allows.",
            formats.word("deny", "deny"),
            default="they are refused where any rule says ALLOW",
        ),
    ] = UNSET
    rules: Annotated[
        list[AccessRule] | UnsetType,
        about("The rules; their order does not matter.", default="none"),
    ] = UNSET


class Access(Part, frozen=True, kw_only=True, tag_field="kind", tag="Access"):
    """Who may call what, decided by the instance. The rules of all that match count together, and `DENY` comes before
    `ALLOW`; what cannot be evaluated is met by a `DENY`, and by no `ALLOW`."""

    api_version: Annotated[Literal["mesh/v1"], about("Always `mesh/v1`.", required=True)]
    metadata: Annotated[Metadata, about("What it is called.", required=True)]
    spec: Annotated[AccessSpec, about("What it says.", required=True)]


class KeySet(Part, frozen=True, kw_only=True):
    """Where the issuer's public keys are (a JSON Web Key Set, RFC 7517): exactly one of `url`, `file` and `inline`. The
    address alone may be written in its place."""

    short: ClassVar[str] = "url"

    url: Annotated[str | UnsetType, about("At this address.", formats.URL, default="none")] = UNSET
    file: Annotated[
        str | UnsetType,
        about(
            "In this file of every instance, which is read again when it changes.",
            formats.FILE,
            default="none",
        ),
    ] = UNSET
    inline: Annotated[str | UnsetType, about("Here, as JSON text.", formats.JWKS, default="none")] = UNSET
    refresh: Annotated[
        float | UnsetType,
        about("With `url`: fetched again after this; 1s or more.", kinds.DURATION, default="5m"),
    ] = UNSET


class Issuer(Part, frozen=True, kw_only=True):
    """One whose tokens (JWT, RFC 7519) count."""

    issuer: Annotated[str, about("Who it is: the claim `iss` of its tokens.", kinds.TEXT, required=True)]
    audiences: Annotated[
        list[str] | UnsetType,
        about("The token must be for one of these (`aud`).", formats.TEXTS, default="for whomever it is"),
    ] = UNSET
    jwks: Annotated[
        KeySet | UnsetType,
        about(
            "Its public keys.", default="where OpenID Connect discovery at the issuer's address finds them"
        ),
    ] = UNSET
    algorithms: Annotated[
        list[str] | UnsetType,
        about(
            "Signatures that count. None with a shared secret does.",
            formats.ALGORITHMS,
            default="all of them",
        ),
    ] = UNSET
    leeway: Annotated[
        float | UnsetType,
        about("How far its clock may be off; up to 5m.", kinds.DURATION, default="30s"),
    ] = UNSET
    header: Annotated[
        str | UnsetType, about("The header that carries the token.", kinds.HEADER, default="authorization")
    ] = UNSET
    prefix: Annotated[
        str | UnsetType,
        about(
            "What stands before the token.", kinds.TEXT, default="`Bearer ` in `authorization`, else nothing"
        ),
    ] = UNSET
    claims: Annotated[
        list[str] | UnsetType,
        about(
            "The claims that handlers get (`ctx.claims`) and `Access` can ask for.",
            formats.CLAIMS,
            default="all of them",
        ),
    ] = UNSET
    forward: Annotated[
        bool | UnsetType,
        about("The token goes along with the calls that a handler makes.", kinds.FLAG, default="false"),
    ] = UNSET


class AuthenticationSpec(Part, frozen=True, kw_only=True):
    """Whose tokens count."""

    target: Annotated[Target | UnsetType, about("What it is about.")] = UNSET
    issuers: Annotated[list[Issuer], about("Those whose tokens count.", required=True)]
    required: Annotated[
        bool | UnsetType,
        about(
            "A call without a token is refused. A token that is there must be valid in any case.",
            kinds.FLAG,
            default="false",
        ),
    ] = UNSET


class Authentication(Part, frozen=True, kw_only=True, tag_field="kind", tag="Authentication"):
    """How the end user is known, by a token, checked by the instance. The issuers of all that match count together, and
    a token is required where any of them requires it."""

    api_version: Annotated[Literal["mesh/v1"], about("Always `mesh/v1`.", required=True)]
    metadata: Annotated[Metadata, about("What it is called.", required=True)]
    spec: Annotated[AuthenticationSpec, about("What it says.", required=True)]

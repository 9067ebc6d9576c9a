"""What the rules of a `Route` are made of: which calls, where they go, and what is done to them on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from msgspec import UNSET, UnsetType

from nats_mesh.policy import kinds
from nats_mesh.policy.kinds import about
from nats_mesh.policy.parts import Part

__all__ = [
    "Abort",
    "Delay",
    "Fault",
    "HeaderMatch",
    "Match",
    "Mirror",
    "Range",
    "Redirect",
    "Split",
    "Sticky",
]


class Range(Part, frozen=True, kw_only=True):
    """Whole numbers. Say one or both ends."""

    start: Annotated[int | UnsetType, about("From this one on.", kinds.INTEGER, default="any")] = UNSET
    end: Annotated[int | UnsetType, about("Below this one.", kinds.INTEGER, default="any")] = UNSET


class HeaderMatch(Part, frozen=True, kw_only=True):
    """A condition on a header: exactly one of these, and `invert` beside it where it shall not hold. The text alone may
    be written for `exact`. Where a header stands several times, one value that fits suffices."""

    short: ClassVar[str] = "exact"

    exact: Annotated[str | UnsetType, about("The value is this text.", kinds.TEXT, default="any")] = UNSET
    prefix: Annotated[
        str | UnsetType, about("The value begins with this text.", kinds.TEXT, default="any")
    ] = UNSET
    suffix: Annotated[str | UnsetType, about("The value ends with this text.", kinds.TEXT, default="any")] = (
        UNSET
    )
    regex: Annotated[
        str | UnsetType,
        about("The whole value, of at most 4096 characters, matches this.", kinds.REGEX, default="any"),
    ] = UNSET
    present: Annotated[
        bool | UnsetType, about("The header is there; with `false` it is not.", kinds.FLAG, default="any")
    ] = UNSET
    absent: Annotated[
        bool | UnsetType, about("The header is not there; with `false` it is.", kinds.FLAG, default="any")
    ] = UNSET
    range: Annotated[
        Range | UnsetType, about("The value is a whole number within these bounds.", default="any")
    ] = UNSET
    invert: Annotated[
        bool | UnsetType, about("The condition must not hold.", kinds.FLAG, default="false")
    ] = UNSET


class Match(Part, frozen=True, kw_only=True):
    """Some of the calls: those that meet everything that is said here."""

    alone: ClassVar[bool] = True

    callers: Annotated[
        list[str] | UnsetType, about("Of these callers.", kinds.PATTERNS, default="every caller")
    ] = UNSET
    endpoints: Annotated[
        list[str] | UnsetType, about("To these endpoints.", kinds.PATTERNS, default="every endpoint")
    ] = UNSET
    headers: Annotated[
        dict[str, HeaderMatch] | UnsetType,
        about("With these headers.", default="any", key=kinds.HEADER),
    ] = UNSET
    share: Annotated[
        float | UnsetType,
        about("So many of those, by chance, or by `sticky`.", kinds.SHARE, default="100%"),
    ] = UNSET


class Split(Part, frozen=True, kw_only=True):
    """One of several destinations."""

    service: Annotated[
        str | UnsetType, about("Instances of this service.", kinds.NAME, default="the one that is called")
    ] = UNSET
    subset: Annotated[
        str | UnsetType,
        about(
            "This subset of them, which the service's `Destination` names.", kinds.NAME, default="all of them"
        ),
    ] = UNSET
    weight: Annotated[
        int | UnsetType, about("Its part of the sum of all weights.", kinds.COUNT, default="1")
    ] = UNSET


class Mirror(Part, frozen=True, kw_only=True):
    """A second destination that gets copies of calls. Nobody waits for its answers, and nothing it does reaches the
    caller. Say a service, a subset, or both."""

    alone: ClassVar[bool] = True

    service: Annotated[
        str | UnsetType, about("Instances of this service.", kinds.NAME, default="the one that is called")
    ] = UNSET
    subset: Annotated[str | UnsetType, about("This subset of them.", kinds.NAME, default="all of them")] = (
        UNSET
    )
    share: Annotated[float | UnsetType, about("So many of the calls.", kinds.SHARE, default="100%")] = UNSET


class Delay(Part, frozen=True, kw_only=True):
    """Calls that wait first. Their time runs meanwhile."""

    duration: Annotated[float, about("How long.", kinds.DURATION, required=True)]
    share: Annotated[float | UnsetType, about("So many of the calls.", kinds.SHARE, default="100%")] = UNSET


class Abort(Part, frozen=True, kw_only=True):
    """Calls that fail without being sent; they are not tried again."""

    status: Annotated[str, about("What they fail with.", kinds.STATUS, required=True)]
    share: Annotated[float | UnsetType, about("So many of the calls.", kinds.SHARE, default="100%")] = UNSET


class Fault(Part, frozen=True, kw_only=True):
    """What is done to calls on purpose, at the caller."""

    delay: Annotated[Delay | UnsetType, about("Calls wait first.", default="none")] = UNSET
    abort: Annotated[Abort | UnsetType, about("Calls fail.", default="none")] = UNSET


class Redirect(Part, frozen=True, kw_only=True):
    """Another service, another endpoint, or both, in place of what was called."""

    service: Annotated[
        str | UnsetType, about("This service.", kinds.NAME, default="the one that is called")
    ] = UNSET
    endpoint: Annotated[
        str | UnsetType, about("This endpoint.", kinds.NAME, default="the one that is called")
    ] = UNSET


class Sticky(Part, frozen=True, kw_only=True):
    """Calls that have this in common go the same way of a `split`, and count alike for a `share`. Growing a weight
    never takes anybody away from where it grows. Exactly one of these."""

    later: ClassVar[Mapping[str, str]] = {"claim": "what a token says, which nothing reads"}

    header: Annotated[
        str | UnsetType,
        about("The value of this header; calls without it go by chance.", kinds.HEADER, default="none"),
    ] = UNSET
    claim: Annotated[
        str | UnsetType, about("The value of this claim of the end user's token.", kinds.TEXT, default="none")
    ] = UNSET
    identity: Annotated[
        bool | UnsetType,
        about("The caller: each goes one way with all its calls.", kinds.FLAG, default="false"),
    ] = UNSET

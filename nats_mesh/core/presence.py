"""What an instance says of itself on the bus: plain data, with its bounds written beside each field.

The bounds hold where an announcement is decoded (``discovery/messages.py``): whatever passed there fits
a table and can be printed on a terminal. Patterns end in ``\\Z``, because ``$`` would admit a line feed.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from nats_mesh.errors import ConfigError

__all__ = [
    "BEAT_REJECTIONS",
    "MAX_ENDPOINTS",
    "MAX_INTERVAL_S",
    "MAX_LABELS",
    "MAX_REJECTIONS",
    "MAX_WEIGHT",
    "MIN_INTERVAL_S",
    "POLICY_SCHEMA",
    "SEMVER",
    "Announcement",
    "Count",
    "EndpointInfo",
    "InstanceName",
    "Instant",
    "Kind",
    "Labels",
    "Load",
    "Name",
    "PolicySource",
    "Rejection",
    "Standing",
    "State",
    "Version",
    "check_labels",
    "check_version",
    "check_weight",
    "incarnation",
    "weight_of",
]

MAX_LABELS: Final = 32
MAX_ENDPOINTS: Final = 1024
MAX_WEIGHT: Final = 1000.0
MAX_REJECTIONS: Final = 64
#: How many of them a beat carries; whoever wants more listens to acknowledgements.
BEAT_REJECTIONS: Final = 8
MIN_INTERVAL_S: Final = 0.01
MAX_INTERVAL_S: Final = 600.0
_MAX_INT: Final = 2**53 - 1  # what JavaScript reads exactly

#: The official pattern of semver.org: three numbers without leading zeros, pre-release, build.
SEMVER: Final = (
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(-(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?"
)
_MAX_VERSION: Final = 128
_NO_CONTROLS: Final = r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z"
_LABEL_NAME: Final = r"(?!mesh\.)[A-Za-z0-9_./-]{1,63}"
_LABEL_VALUE: Final = 255
#: The label that says how many calls an instance gets beside the others of its service.
_WEIGHT: Final = "weight"
#: Plain decimals: what every language reads the same way.
_NUMBER: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,9})?")

Name: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,63}\Z")]
#: What people call an instance: ``host-pid``.
InstanceName: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,160}\Z")]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=_MAX_INT)]
Version: TypeAlias = Annotated[str, msgspec.Meta(pattern=rf"\A{SEMVER}\Z", max_length=_MAX_VERSION)]
Instant: TypeAlias = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z\Z", max_length=30
    ),
]
Labels: TypeAlias = Annotated[
    dict[
        Annotated[str, msgspec.Meta(pattern=rf"\A{_LABEL_NAME}\Z")],
        Annotated[str, msgspec.Meta(pattern=_NO_CONTROLS, max_length=_LABEL_VALUE)],
    ],
    msgspec.Meta(max_length=MAX_LABELS),
]


class Kind(enum.StrEnum):
    """Why an announcement is sent."""

    JOIN = "join"
    BEAT = "beat"
    CHANGE = "change"
    LEAVE = "leave"


class State(enum.StrEnum):
    """What an instance wants: nothing yet, calls, or no more calls."""

    JOINING = "joining"
    READY = "ready"
    DRAINING = "draining"


class EndpointInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of an instance. ``subject`` is set where it serves a plain subject of its own;
    ``schema`` is the hash of its request and response types."""

    name: Name
    subject: Annotated[str, msgspec.Meta(pattern=r"\A[^\s\x00-\x1f\x7f-\x9f]*\Z", max_length=1024)] = ""
    timeout_ms: Count | None = None
    idempotent: bool = False
    concurrency: Count = 0
    schema: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_:-]*\Z", max_length=80)] = ""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How busy an instance is: calls it holds, how many it takes, and its totals since it started.

    ``full``: it asks for no more calls from the queue group for now (credit-based dispatch).
    """

    in_flight: Count = 0
    limit: Count = 0
    requests: Count = 0
    errors: Count = 0
    full: bool = False


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """A policy (``Kind.name``) this instance did not take, and why."""

    policy: Annotated[str, msgspec.Meta(pattern=_NO_CONTROLS, min_length=1, max_length=160)]
    reason: Annotated[str, msgspec.Meta(pattern=_NO_CONTROLS, max_length=512)]
    revision: tuple[Count, Count] = (0, 0)


#: The version of the policies' schema that this version reads; it grows with a field or a kind that older ones refuse.
POLICY_SCHEMA: Final = 1


#: Where a member's policies come from: ``given`` are those in its code, ``cache`` holds while the store has not
#: answered. Members of another version may say other words.
PolicySource: TypeAlias = Literal["bus", "cache", "files", "given", "off"]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a member stands with the policies it follows.

    ``source`` is where they come from. ``revision`` is that of the bus (epoch, sequence). ``rejected`` counts what was
    refused, of which ``rejections`` has the newest.
    """

    source: PolicySource = "off"
    revision: tuple[int, int] = (0, 0)
    rejections: tuple[Rejection, ...] = ()
    rejected: int = 0


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every presence message.

    ``instance`` is a NUID that no other start uses, ``name`` its display name ``host-pid``. ``seq`` grows by
    one with each announcement; ``started`` is the wall time of the start and orders incarnations of
    one id. ``interval_s`` promises that the next beat comes within ``interval_s`` ± 20 %. ``revision``
    is the highest applied policy revision (epoch, sequence). ``endpoints`` is filled in a join or a
    change alone.
    """

    type: Kind
    service: Name
    instance: Name
    name: InstanceName
    version: Version
    namespace: Name
    seq: Annotated[int, msgspec.Meta(ge=1, le=_MAX_INT)]
    started: Instant
    interval_s: Annotated[float, msgspec.Meta(ge=MIN_INTERVAL_S, le=MAX_INTERVAL_S)]
    state: State = State.READY
    labels: Labels = {}
    endpoints: Annotated[tuple[EndpointInfo, ...], msgspec.Meta(max_length=MAX_ENDPOINTS)] = ()
    load: Load = Load()
    revision: tuple[Count, Count] = (0, 0)
    rejections: Annotated[tuple[Rejection, ...], msgspec.Meta(max_length=MAX_REJECTIONS)] = ()
    wire: Literal[1] = 1


def incarnation(started: str) -> str:
    """A text that sorts as the instants do, whatever the number of digits after the point."""
    return started[:19] + started[20:-1].ljust(9, "0")


_VERSION = re.compile(SEMVER)
_LABEL = re.compile(_LABEL_NAME)
_VALUE = re.compile(_NO_CONTROLS)


def check_version(version: object) -> str:
    """Return a SemVer string, or raise :class:`ConfigError` with an example."""
    if not isinstance(version, str) or len(version) > _MAX_VERSION or _VERSION.fullmatch(version) is None:
        raise ConfigError(
            f"version {str(version)[:80]!r} is not SemVer: write major.minor.patch, such as '1.2.0' or "
            f"'1.2.0-rc.1' (at most {_MAX_VERSION} characters)"
        )
    return version


def check_labels(labels: dict[str, str]) -> dict[str, str]:
    """Return the labels of a service if they can be announced, else raise :class:`ConfigError`."""
    if len(labels) > MAX_LABELS:
        raise ConfigError(f"{len(labels)} labels are too many: at most {MAX_LABELS}")
    for name, value in labels.items():
        if not isinstance(name, str) or _LABEL.fullmatch(name) is None:
            raise ConfigError(
                f"label name {name!r}: use 1 to 63 letters, digits and '_./-'; 'mesh.' is reserved"
            )
        if not isinstance(value, str) or len(value) > _LABEL_VALUE or _VALUE.match(value) is None:
            raise ConfigError(
                f"label {name!r}: the value must be text without control characters, at most "
                f"{_LABEL_VALUE} characters, got {str(value)[:80]!r}"
            )
    return labels


def weight_of(labels: Mapping[str, str]) -> float | None:
    """The weight that an instance's label ``weight`` says, 1 where it has none; ``None`` where that cannot be read."""
    text = labels.get(_WEIGHT)
    if text is None:
        return 1.0
    if _NUMBER.fullmatch(text) is None:
        return None
    weight = float(text)
    return weight if 0.0 < weight <= MAX_WEIGHT else None


def check_weight(labels: Mapping[str, str]) -> None:
    """:class:`ConfigError` where the label ``weight`` of a service says none."""
    if weight_of(labels) is None:
        raise ConfigError(
            f"label {_WEIGHT!r}: must be a number above 0 up to {MAX_WEIGHT:g}, such as '2' or '0.5', "
            f"got {labels[_WEIGHT]!r}"
        )

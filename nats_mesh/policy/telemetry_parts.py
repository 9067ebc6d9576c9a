"""What is told of calls: `Telemetry`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import UNSET, UnsetType

from nats_mesh.policy import formats, kinds
from nats_mesh.policy.kinds import about
from nats_mesh.policy.parts import Metadata, Off, Part, Target

__all__ = [
    "AccessLog",
    "LatencyObjective",
    "Objective",
    "Slow",
    "Tap",
    "Telemetry",
    "TelemetrySpec",
    "Tracing",
]


class Tracing(Part, frozen=True, kw_only=True):
    """Which traces are kept. The share alone may be written in its place: `tracing: 10%`."""

    short: ClassVar[str] = "sampling"

    sampling: Annotated[
        float | UnsetType,
        about(
            "Of the traces that begin here; one that comes in stays as it was decided.",
            kinds.SHARE,
            default="1%",
        ),
    ] = UNSET


class AccessLog(Part, frozen=True, kw_only=True):
    """A line for each call. The mode alone may be written in its place: `accessLog: errors`."""

    short: ClassVar[str] = "mode"

    mode: Annotated[
        Literal["off", "on", "errors"] | UnsetType,
        about(
            "`errors`: of calls that failed alone.",
            formats.word("off, on or errors", "off", "on", "errors"),
            default="on, where `accessLog` is said at all, else off",
        ),
    ] = UNSET
    share: Annotated[
        float | UnsetType,
        about(
            "Of the calls that went well; those that failed are always written.", kinds.SHARE, default="100%"
        ),
    ] = UNSET


class Slow(Part, frozen=True, kw_only=True):
    """When a call is slow, and so is told of with its steps: from a time on, or from a multiple of what the slowest of
    a hundred take. Exactly one of these. The time alone may be written in its place: `slow: 500ms`."""

    short: ClassVar[str] = "threshold"

    threshold: Annotated[float | UnsetType, about("From this on.", kinds.DURATION, default="none")] = UNSET
    times_p99: Annotated[
        float | UnsetType,
        about(
            "From so many times the 99th percentile of the endpoint on; 1 or more.",
            kinds.NUMBER,
            default="none",
        ),
    ] = UNSET


class Tap(Part, frozen=True, kw_only=True):
    """What may be seen of live calls by whoever has the right to look."""

    payloads: Annotated[
        bool | UnsetType, about("What is sent and answered, too.", kinds.FLAG, default="false")
    ] = UNSET
    redact: Annotated[
        list[str] | UnsetType,
        about(
            "Headers whose values are never shown; `authorization` and `cookie` never are.",
            formats.HEADERS,
            default="no others",
        ),
    ] = UNSET
    redact_fields: Annotated[
        list[str] | UnsetType,
        about(
            "Values in what is sent and answered that are never shown, as paths: `card.number`. `*` is any name, `**` "
            "any number of them; lists need no step. What looks like a secret never is.",
            formats.FIELDS,
            default="no others",
        ),
    ] = UNSET
    rate: Annotated[
        float | UnsetType,
        about("At most so many calls, per instance.", kinds.RATE, default="as observers ask, up to 2000/s"),
    ] = UNSET


class LatencyObjective(Part, frozen=True, kw_only=True):
    """How fast calls are to be answered."""

    threshold: Annotated[float, about("Within this.", kinds.DURATION, required=True)]
    share: Annotated[float, about("So many of them; below 100%.", kinds.SHARE, required=True)]


class Objective(Part, frozen=True, kw_only=True):
    """What is promised of the target (an SLO); alerts and budgets follow from it. Say an availability, a latency, or
    both."""

    alone: ClassVar[bool] = True

    name: Annotated[
        str | UnsetType, about("What alerts call it.", kinds.NAME, default="the policy's name")
    ] = UNSET
    availability: Annotated[
        float | UnsetType,
        about(
            "So many calls do not fail; below 100%. Errors below 500 are no failures.",
            kinds.SHARE,
            default="none",
        ),
    ] = UNSET
    latency: Annotated[LatencyObjective | UnsetType, about("How fast they are answered.", default="none")] = (
        UNSET
    )
    window: Annotated[
        float | UnsetType, about("Over this time; from 1h to 90d.", formats.PERIOD, default="30d")
    ] = UNSET


class TelemetrySpec(Part, frozen=True, kw_only=True):
    """What is told of calls."""

    target: Annotated[Target | UnsetType, about("What it is about.")] = UNSET
    tracing: Annotated[Tracing | UnsetType, about("Which traces are kept.")] = UNSET
    access_log: Annotated[AccessLog | UnsetType, about("A line for each call.", default="off")] = UNSET
    slow: Annotated[Slow | Off | UnsetType, about("When a call is slow.", off=True, default="off")] = UNSET
    tap: Annotated[
        Tap | Off | UnsetType,
        about("What may be seen of live calls.", off=True, default="on, without payloads"),
    ] = UNSET
    labels: Annotated[
        dict[str, str] | UnsetType,
        about(
            "Words that go with the lines of its access log, with its slow calls and with its spans (of more than 32, "
            "the first by name).",
            kinds.TEXT,
            default="none",
        ),
    ] = UNSET
    objectives: Annotated[
        list[Objective] | UnsetType,
        about("What is promised; one alone may be written without a list.", default="nothing"),
    ] = UNSET


class Telemetry(Part, frozen=True, kw_only=True, tag_field="kind", tag="Telemetry"):
    """What is told of calls, on both sides: traces, access logs, slow calls, taps, and what is promised of them."""

    api_version: Annotated[Literal["mesh/v1"], about("Always `mesh/v1`.", required=True)]
    metadata: Annotated[Metadata, about("What it is called.", required=True)]
    spec: Annotated[TelemetrySpec, about("What it says.", required=True)]

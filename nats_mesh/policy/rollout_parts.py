"""From one version to the next, step by step: `Rollout`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType

from nats_mesh.policy import formats, kinds
from nats_mesh.policy.kinds import about
from nats_mesh.policy.parts import Metadata, Part, Target
from nats_mesh.policy.routing_parts import Sticky

__all__ = ["ErrorRateGate", "Gates", "LatencyGate", "Rollout", "RolloutSpec", "Step"]

_MIN_CALLS = "Looks only at a subset with so many calls in the step; a step does not end before."


class Step(Part, frozen=True, kw_only=True):
    """One step: how many calls go to the new subset, and for how long. Say `for`, or `pause: true`; a last step with
    all calls needs neither."""

    weight: Annotated[
        int, about("So many of 100 calls go to the new subset.", formats.PERCENT, required=True)
    ]
    # What the file calls `for`.
    for_: Annotated[
        float | UnsetType, about("For this long, and then the next step.", formats.PERIOD, default="none")
    ] = msgspec.field(name="for", default=UNSET)
    pause: Annotated[
        bool | UnsetType,
        about(
            "Until somebody says `rollout resume`; the gates count meanwhile.", kinds.FLAG, default="false"
        ),
    ] = UNSET


class ErrorRateGate(Part, frozen=True, kw_only=True):
    """How many calls of the new subset may fail; errors below 500 are no failures. Say `max`, `increase`, or both. The
    share alone may be written in its place: `errorRate: 1%`."""

    short: ClassVar[str] = "max"

    max: Annotated[float | UnsetType, about("At most so many.", kinds.SHARE, default="any")] = UNSET
    increase: Annotated[
        float | UnsetType,
        about(
            "At most so much above the old subset's: with `0.5%`, at most 1.5% where the old one has 1%.",
            kinds.SHARE,
            default="any",
        ),
    ] = UNSET
    min_calls: Annotated[int | UnsetType, about(_MIN_CALLS, kinds.COUNT, default="50")] = UNSET


class LatencyGate(Part, frozen=True, kw_only=True):
    """How long answers of the new subset may take. Say `max`, `ratio`, or both. The time alone may be written in its
    place: `latency: 300ms`."""

    short: ClassVar[str] = "max"

    quantile: Annotated[
        float | UnsetType, about("So many of them; above 0%, below 100%.", kinds.SHARE, default="99%")
    ] = UNSET
    max: Annotated[float | UnsetType, about("At most this long.", kinds.DURATION, default="any")] = UNSET
    ratio: Annotated[
        float | UnsetType,
        about(
            "At most so many times as long as those of the old subset; 1 or more.",
            kinds.NUMBER,
            default="any",
        ),
    ] = UNSET
    min_calls: Annotated[int | UnsetType, about(_MIN_CALLS, kinds.COUNT, default="50")] = UNSET


class Gates(Part, frozen=True, kw_only=True):
    """What the new subset must hold to in every step. Say one or both."""

    error_rate: Annotated[ErrorRateGate | UnsetType, about("How many calls may fail.", default="any")] = UNSET
    latency: Annotated[LatencyGate | UnsetType, about("How long answers may take.", default="any")] = UNSET


class RolloutSpec(Part, frozen=True, kw_only=True):
    """Which service goes from which subset to which, and how."""

    target: Annotated[
        Target, about("The service, without endpoints: a version comes with all of them.", required=True)
    ]
    # What the file calls `from`.
    from_: Annotated[
        str, about("The old subset, which the service's `Destination` names.", kinds.NAME, required=True)
    ] = msgspec.field(name="from")
    to: Annotated[str, about("The new one.", kinds.NAME, required=True)]
    steps: Annotated[
        list[Step],
        about(
            "The steps, each with a larger weight. After the last one all calls go to the new subset.",
            required=True,
        ),
    ]
    gates: Annotated[
        Gates | UnsetType, about("What the new subset must hold to.", default="nothing: time alone decides")
    ] = UNSET
    interval: Annotated[
        float | UnsetType,
        about("How often the gates are checked; 1s or more.", kinds.DURATION, default="10s"),
    ] = UNSET
    consecutive: Annotated[
        int | UnsetType,
        about(
            "It has failed after so many checks in a row that a gate did not hold; 1 or more.",
            kinds.COUNT,
            default="1",
        ),
    ] = UNSET
    on_failure: Annotated[
        Literal["rollback", "pause"] | UnsetType,
        about(
            "`rollback`: all calls go to the old subset at once. `pause`: it stays at its step until somebody decides.",
            formats.word("rollback or pause", "rollback", "pause"),
            default="rollback",
        ),
    ] = UNSET
    deadline: Annotated[
        float | UnsetType,
        about(
            "It has failed, too, where it has not ended after this; pauses do not count.",
            formats.PERIOD,
            default="none",
        ),
    ] = UNSET
    sticky: Annotated[
        Sticky | UnsetType,
        about(
            "Which calls go the same way; a growing weight never moves anybody back.",
            default="each by chance",
        ),
    ] = UNSET


class Rollout(Part, frozen=True, kw_only=True, tag_field="kind", tag="Rollout"):
    """From one subset of a service to another, step by step, back by itself where the new one is worse. A service has
    one at a time, and no other `Route` may split its calls meanwhile."""

    api_version: Annotated[Literal["mesh/v1"], about("Always `mesh/v1`.", required=True)]
    metadata: Annotated[Metadata, about("What it is called.", required=True)]
    spec: Annotated[RolloutSpec, about("What it says.", required=True)]

"""The words of a rollout: what it is told to do, how far it is, why it stands, and what happens."""

from __future__ import annotations

import enum
from typing import Annotated, Final, TypeAlias

import msgspec

from nats_mesh.core.gates import Gates

__all__ = ["Happened", "Hold", "Phase", "Progress", "RolloutRules", "StepRules", "What"]

#: Each step has a larger weight than the one before, so there are no more than these.
_MAX_STEPS: Final = 101
# The bounds hold where a record is decoded.
_Weight: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=100)]
_Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0.0, le=1e10)]
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class StepRules(msgspec.Struct, frozen=True, kw_only=True):
    """So many of 100 calls, for so long; without a time until somebody says so."""

    weight: _Weight
    for_s: _Seconds | None = None


class RolloutRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a `Rollout` says, in seconds and shares. ``sudden``: the last step has all calls, and needs no time."""

    old: str
    new: str
    steps: Annotated[tuple[StepRules, ...], msgspec.Meta(min_length=1, max_length=_MAX_STEPS)]
    gates: Gates = Gates()
    interval_s: _Seconds = 10.0
    consecutive: Annotated[int, msgspec.Meta(ge=1)] = 1
    rollback: bool = True
    deadline_s: _Seconds | None = None
    sudden: bool = False


class Phase(enum.StrEnum):
    """Where a rollout is. The last three are its ends."""

    WAITING = "waiting"  # for the first instance of the new subset; all calls go to the old one
    STEP = "step"
    PAUSED = "paused"
    PROMOTING = "promoting"  # all calls go to the new one as soon as that is written
    RETURNING = "returning"  # all calls go to the old one as soon as that is written
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled-back"
    ABORTED = "aborted"

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self in (Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ABORTED)


class Hold(enum.StrEnum):
    """Why it is paused."""

    NONE = ""
    STEP = "step"  # the policy says so
    OPERATOR = "operator"
    FAILURE = "failure"  # a gate did not hold, and the policy says pause
    CALLS = "calls"  # too few calls to tell
    ROUTE = "route"  # somebody else changed the route


class What(enum.StrEnum):
    """What happened, in the words of the events."""

    STEP = "step"
    WAITING = "waiting"
    FAILING = "failing"
    PAUSED = "paused"
    RESUMED = "resumed"
    RETURNING = "returning"
    ENDED = "ended"


class Happened(msgspec.Struct, frozen=True):
    """One thing that happened, in words and figures."""

    what: What
    detail: str
    numbers: dict[str, float] = {}


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a rollout is: what its successor goes on from.

    ``step`` counts from 0, and is -1 before the first. ``weight`` is what shall be routed to the new subset.
    ``spent_s`` has passed of the step, ``ran_s`` of all, pauses excluded. ``failed`` checks in a row did not hold.
    ``before`` is what a pause goes back to. ``returning`` says why calls go back: by an operator's word, or not.
    """

    phase: Phase = Phase.WAITING
    step: Annotated[int, msgspec.Meta(ge=-1)] = -1
    weight: _Weight = 0
    spent_s: _Seconds = 0.0
    ran_s: _Seconds = 0.0
    failed: _Count = 0
    hold: Hold = Hold.NONE
    before: Phase = Phase.WAITING
    aborted: bool = False
    reason: str = ""

"""One series of one member, as a view follows it: how it goes, and where it counts. Pure."""

from __future__ import annotations

from nats_mesh.telemetry.counts import Counts
from nats_mesh.telemetry.intake import Intake

__all__ = ["Line"]


class Line(Counts):
    """The latest word of a series, how it went in the last window, and the groups it counts in."""

    __slots__ = (
        "error_at",
        "error_s",
        "from_s",
        "groups",
        "intake",
        "last_error",
        "rate",
        "recent",
        "recent_extra",
        "side",
        "tried",
    )

    def __init__(self, side: str, intake: Intake) -> None:
        super().__init__()
        self.side = side
        #: Where its calls count, beside where all calls of its member's side do.
        self.intake = intake
        self.groups = intake.groups
        self.last_error = ""
        #: When that was (seconds of the observer's clock); ``None`` where nobody says.
        self.error_at: float | None = None
        #: How old its member was then (seconds), by its own clock: the same in every word, however long that took.
        self.error_s = 0.0
        #: How old its member was (seconds) when its first call can have ended, or was heard of at the earliest.
        self.from_s = 0.0
        #: Its calls in the member's last window, and its attempts beyond one a call.
        self.recent = 0
        self.recent_extra = 0
        #: What its groups have of it now: calls and attempts (:data:`~nats_mesh.telemetry.tallies.MICRO` per second).
        self.rate = 0
        self.tried = 0

"""Members as an observer knows them. Pure."""

from __future__ import annotations

from typing import Final

from nats_mesh.core.members import Health, Instance
from nats_mesh.telemetry.groups import Group
from nats_mesh.telemetry.lines import Line
from nats_mesh.telemetry.stats_messages import Condition, StatsMessage

__all__ = ["LATE_S", "Known"]

#: A member whose statistics are older (seconds) is not counted in rates and in what is in flight.
LATE_S: Final = 5.0


class Known:
    """A member: what presence says of it, what its statistics say, and its series."""

    __slots__ = (
        "condition",
        "groups",
        "heard",
        "instance",
        "lines",
        "live",
        "message",
        "seq",
        "sides",
        "told",
    )

    def __init__(self, now: float) -> None:
        self.instance: Instance | None = None
        self.message: StatsMessage | None = None
        self.condition: Condition | None = None
        self.lines: dict[tuple[str, ...], Line] = {}
        #: What all its calls of a side count in, and every group that any of its calls counts in.
        self.sides: dict[str, tuple[Group, ...]] = {}
        self.groups: set[Group] = set()
        #: Whether it tells of now.
        self.live = False
        self.seq = 0
        #: When it was heard last at all, and when its statistics were.
        self.heard = now
        self.told = 0.0

    @property
    def serves(self) -> bool:
        """Whether it is an instance of a service, and no client."""
        if self.instance is not None:
            return True
        if self.condition is not None:
            return self.condition.kind == "instance"
        return any(line.side == "in" for line in self.lines.values())

    @property
    def state(self) -> str:
        """``joining``, ``ready``, ``draining``, or ``suspect``."""
        if self.instance is not None:
            return "suspect" if self.instance.health is Health.SUSPECT else str(self.instance.state)
        return "ready" if self.message is None else str(self.message.state)

    @property
    def version(self) -> str:
        """What version it is of; empty where nobody says."""
        if self.instance is not None:
            return self.instance.version
        return "" if self.message is None else self.message.version

    @property
    def revision(self) -> tuple[int, int]:
        """The policies that it has applied."""
        said = (0, 0) if self.condition is None else self.condition.revision
        return said if self.instance is None else max(said, self.instance.revision)

    @property
    def rejected(self) -> int:
        """How many policies it did not take."""
        if self.condition is not None:
            return self.condition.rejected
        return 0 if self.instance is None else len(self.instance.rejections)

    def join(self, groups: tuple[Group, ...]) -> None:
        """Some of its calls count there."""
        for group in groups:
            if group not in self.groups:
                self.groups.add(group)
                group.instances += self.live

    def wake(self) -> None:
        """It tells of now, from now on."""
        if not self.live:
            self.live = True
            for group in self.groups:
                group.instances += 1

    def fall_silent(self) -> None:
        """It tells of now no more: nothing of it is under way that is known of."""
        if not self.live:
            return
        self.live = False
        for group in self.groups:
            group.instances -= 1
        for line in self.lines.values():
            tally = line.leave()
            if tally is not None:
                for group in (*line.groups, *self.sides[line.side]):
                    group.before(tally)

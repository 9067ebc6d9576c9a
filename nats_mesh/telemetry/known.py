"""Members as an observer knows them. Pure."""

from __future__ import annotations

import math
from typing import Final

from msgspec import UNSET

from nats_mesh.core.members import Health, Instance
from nats_mesh.telemetry.groups import Group
from nats_mesh.telemetry.lines import Line
from nats_mesh.telemetry.stats_messages import Condition, StatsMessage
from nats_mesh.telemetry.tallies import Tally

__all__ = ["LATE_S", "Known"]

#: A member whose statistics are older (seconds) is not counted in rates and in what is in flight.
LATE_S: Final = 5.0


class Known:
    """A member: what presence says of it, what its statistics say, and its series."""

    __slots__ = (
        "_age_s",
        "before_s",
        "behind",
        "condition",
        "groups",
        "heard",
        "instance",
        "lines",
        "live",
        "message",
        "numbered",
        "seq",
        "sides",
        "told",
    )

    def __init__(self, now: float) -> None:
        self.instance: Instance | None = None
        self.message: StatsMessage | None = None
        self.condition: Condition | None = None
        self.lines: dict[tuple[str, ...], Line] = {}
        #: The same by the numbers that rows call them.
        self.numbered: dict[int, Line] = {}
        #: What all its calls of a side count in, and every group that any of its calls counts in.
        self.sides: dict[str, tuple[Group, ...]] = {}
        self.groups: set[Group] = set()
        #: Whether it tells of now.
        self.live = False
        self.seq = 0
        #: Whether a message of it was lost: until the next one that tells everything, what is known may be of before.
        self.behind = False
        #: How old it was (seconds) in its latest message, and in the one before.
        self._age_s = self.before_s = -math.inf
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

    def number(self, line: Line) -> None:
        """Rows may mean this line."""
        if line.number >= 0:
            self.numbered[line.number] = line

    def follows(self, message: StatsMessage) -> None:
        """Take note of the number of a message, and whether one before it was lost."""
        if message.base is UNSET:
            self.behind = False
        elif message.seq > self.seq + 1:
            self.behind = True
        if message.seq != self.seq:
            self.before_s, self._age_s = self._age_s, message.since_s
        self.seq = message.seq

    def begin_again(self) -> None:
        """Of what its statistics said nothing holds any more; it counts in the same service, whatever its calls are."""
        self.lines, self.numbered, self.message, self.seq = {}, {}, None, 0
        self.groups = {group for groups in self.sides.values() for group in groups}
        self.behind = False
        self._age_s = self.before_s = -math.inf

    def take_rows(self, message: StatsMessage, second: int, window_s: float, sums: dict[str, Tally]) -> None:
        """What the rows of a message add."""
        seq, before_s, numbered = message.seq, self.before_s, self.numbered
        for row in message.rows:
            line = numbered.get(row.number)
            if line is not None:
                line.seq = seq
                tally = line.go_on(row, message)
                if tally is not None and line.moved(tally, before_s, window_s):
                    line.count(tally, second, sums)

    def rest(self, message: StatsMessage, second: int, window_s: float, sums: dict[str, Tally]) -> None:
        """Nothing has happened in the series of which a message does not tell."""
        seq = message.seq
        for line in self.lines.values():
            if line.seq != seq:
                tally = line.rest(window_s)
                if tally is not None:
                    line.count(tally, second, sums)

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

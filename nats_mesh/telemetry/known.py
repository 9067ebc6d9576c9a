"""Members as an observer knows them. Pure."""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from nats_mesh.core.buckets import HistogramSnapshot
from nats_mesh.core.members import Health, Instance
from nats_mesh.core.numbering import Step, Succession
from nats_mesh.telemetry.group import Group
from nats_mesh.telemetry.intake import Intake
from nats_mesh.telemetry.lines import Line
from nats_mesh.telemetry.pace import Moment, Pace
from nats_mesh.telemetry.stats_messages import Condition, StatsMessage
from nats_mesh.telemetry.tallies import Tally

__all__ = ["LATE_S", "MISSED_S", "Known"]

#: A member whose statistics are older (seconds) is not counted in rates and in what is in flight.
LATE_S: Final = 5.0
#: An instance tells every second: where it has not for so long (seconds) it is suspect, before its beats say so.
MISSED_S: Final = 3.0


class Known:
    """A member: what presence says of it, what its statistics say, and its series."""

    __slots__ = (
        "_order",
        "_parts",
        "_since_s",
        "_sound",
        "_window_s",
        "behind",
        "condition",
        "groups",
        "heard",
        "instance",
        "late",
        "left",
        "lines",
        "live",
        "message",
        "numbered",
        "pace",
        "sides",
        "told",
    )

    def __init__(self, now: float, window_s: float) -> None:
        self.instance: Instance | None = None
        self.message: StatsMessage | None = None
        self.condition: Condition | None = None
        self.lines: dict[tuple[str, ...], Line] = {}
        #: The same by the numbers that rows call them.
        self.numbered: dict[int, Line] = {}
        #: Where all its calls of a side count, and every group that any of its calls counts in.
        self.sides: dict[str, Intake] = {}
        self.groups: set[Group] = set()
        #: Whether it tells of now, and whether it is an instance that has missed telling, though others were heard.
        self.live = False
        self.late = False
        #: Whether it has said that it leaves, or presence has: no more figures of it are to be waited for.
        self.left = False
        self._order = Succession()
        #: Which part of its latest message was heard last and how many there are, and whether all before were.
        self._parts = (1, 1)
        self._sound = True
        #: Whether a message of it was lost: until the next one that tells everything, what is known may be of before.
        self.behind = False
        #: How old it was (seconds) in its latest message.
        self._since_s = 0.0
        self._window_s = window_s
        #: How its calls came in the last window.
        self.pace = Pace(window_s)
        #: When it was heard last at all, and when its statistics were.
        self.heard = now
        self.told = 0.0

    @property
    def seq(self) -> int:
        """The number of its latest message; 0: there was none."""
        return self._order.last

    def has_told(self, seq: int) -> bool:
        """Whether all of the message of this number, or a later one, was heard, and nothing before it was lost."""
        last = self._order.last
        if self.behind or last < seq:
            return False
        return last > seq or self._parts[0] == self._parts[1]

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
            overdue = self.late or self.instance.health is Health.SUSPECT
            return "suspect" if overdue else str(self.instance.state)
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

    def take_number(self, message: StatsMessage, now: float) -> Step:
        """Take note of the number of a message, and whether one before it, or a part of it, was lost."""
        last, (part, parts) = self._order.last, self._parts
        step = self._order.take(message.seq, now)
        if step is Step.REFUSED:
            return step
        this = (1, 1) if message.part is UNSET else message.part
        if step is Step.SAME:
            if this[0] <= part and this[1] == parts:
                return step  # it came already
            self._sound = self._sound and this == (part + 1, parts)
        else:
            # Whoever tells everything at once leaves nothing to be missed.
            if message.base is not UNSET and (step is Step.ANEW or message.seq > last + 1 or part != parts):
                self.behind = True
            self._sound = this[0] == 1
        self._parts = this
        if not self._sound:
            self.behind = True
        elif this[0] == this[1] and message.base is UNSET:
            self.behind = False
        return step

    def begin_again(self) -> None:
        """Of what its statistics said nothing holds any more; it counts in the same service, whatever its calls are."""
        self.lines, self.numbered, self.message = {}, {}, None
        self.groups = {group for intake in self.sides.values() for group in intake.groups}
        self.pace = Pace(self._window_s)
        self._since_s = 0.0

    def moment(self, message: StatsMessage) -> Moment:
        """Where what a message adds stands among those before it."""
        return self.pace.moment(message.since_s)

    def take_rows(self, message: StatsMessage, moment: Moment, second: int) -> None:
        """What the rows of a message add."""
        since_s, base, numbered = message.since_s, message.base, self.numbered
        if since_s < self._since_s:
            return  # nobody grows younger
        self._since_s = since_s
        side, total = "", None
        for row in message.rows:
            line = numbered.get(row.number)
            if line is not None and line.base == base and row.ok >= line.ok:
                if total is None or line.side != side:
                    side = line.side
                    total = self.sides[side].open(second)
                self.went_well(line, row.ok, row.in_flight, row.histogram, moment, second, total)

    def went_well(
        self,
        line: Line,
        ok: int,
        in_flight: int,
        histogram: HistogramSnapshot,
        moment: Moment,
        second: int,
        total: Tally,
    ) -> None:
        """So many calls of a series have gone well by now, nothing else has happened, and so many run; ``total`` is of
        its side."""
        more, begun = ok - line.ok, in_flight - line.in_flight
        if not more and not begun:
            return
        tally = line.intake.open(second)
        if begun:
            line.in_flight = in_flight
            tally.in_flight += begun
            total.in_flight += begun
        if more:
            line.add_well(ok, histogram, tally, total)
            self.pace.add(moment, line, more)

    def count(self, line: Line, tally: Tally, moment: Moment, second: int) -> None:
        """Whatever has happened in a series."""
        line.intake.open(second).add(tally)
        self.sides[line.side].open(second).add(tally)
        calls = tally.requests
        extra = tally.attempts - calls
        if calls:
            self.pace.add(moment, line, calls)
        if extra:
            self.pace.add_extra(moment, line, extra)

    def settle(self) -> None:
        """Say wherever its calls count by how much their rates have changed since this was asked last."""
        self.pace.settle(int(self.told), self.sides)

    def wake(self) -> None:
        """It tells of now, from now on."""
        self.late = False
        if not self.live:
            self.live = True
            for group in self.groups:
                group.instances += 1

    def say_again(self, groups: set[Group]) -> None:
        """These of its groups count again: tell them what goes on now."""
        for line in self.lines.values():
            if line.rate or line.tried or line.in_flight:
                tally = Tally()
                tally.rate, tally.tried, tally.in_flight = line.rate, line.tried, line.in_flight
                for group in line.groups:
                    if group in groups:
                        group.before(tally)

    def fall_silent(self) -> None:
        """It tells of now no more: nothing of it is under way that is known of."""
        if not self.live:
            return
        self.live = False
        for group in self.groups:
            group.instances -= 1
        self.pace.stop()
        for line in self.lines.values():
            if line.rate or line.tried or line.in_flight:
                tally = Tally()
                tally.rate, tally.tried, tally.in_flight = -line.rate, -line.tried, -line.in_flight
                line.rate = line.tried = line.in_flight = 0
                for group in (*line.groups, *self.sides[line.side].groups):
                    group.before(tally)

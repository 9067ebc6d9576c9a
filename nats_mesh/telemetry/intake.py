"""Where series of one kind count: what comes of them is added up once, and then in all of their groups. Pure."""

from __future__ import annotations

from collections import deque

from nats_mesh.telemetry.group import Group
from nats_mesh.telemetry.tallies import Tally

__all__ = ["Fresh", "Intake"]


class Fresh(Tally):
    """What has come of one kind of calls in about one ``second``, and does not count yet."""

    __slots__ = ("_intake", "second")

    def __init__(self, intake: Intake, second: int) -> None:
        super().__init__()
        self._intake = intake
        self.second = second

    def settle(self) -> None:
        """Add it wherever it counts; nothing is added to it any more."""
        intake = self._intake
        if intake.fresh is self:
            intake.fresh = None
        for group in intake.groups:
            group.add(self, self.second)


class Intake:
    """Where series of one kind count: an endpoint that instances of a service answer, or that one caller calls; or all
    series of one side of a member.

    What comes of any of them between two looks is added up here once for each second, and then wherever it counts: a
    word of a series costs the same in how many groups that is, and so do the words of a hundred instances when somebody
    looks.
    """

    __slots__ = ("_waiting", "fresh", "groups")

    def __init__(self, groups: tuple[Group, ...], waiting: deque[Fresh]) -> None:
        self.groups = groups
        self._waiting = waiting
        #: Of the latest second, until it counts.
        self.fresh: Fresh | None = None

    def open(self, second: int) -> Tally:
        """What to add calls to that ended in about this second; to be asked for each time."""
        fresh = self.fresh
        if fresh is None or fresh.second != second:
            self.fresh = fresh = Fresh(self, second)
            self._waiting.append(fresh)
        return fresh

    def of_now(self, second: int) -> Tally:
        """As :meth:`open` for what is true of now and of no second: what waits to be counted keeps its own."""
        fresh = self.fresh
        return self.open(second) if fresh is None else fresh

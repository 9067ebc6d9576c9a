"""Calls that are shown together: all there ever were, those of the last window, and a minute of history. Pure."""

from __future__ import annotations

from collections import deque
from operator import attrgetter
from typing import Any, Final, TypeAlias, TypeVar

from nats_mesh.core.histogram import quantile_of
from nats_mesh.telemetry.snapshots import Red, Trend
from nats_mesh.telemetry.stats_messages import StatsMessage
from nats_mesh.telemetry.tallies import Tally

__all__ = ["HISTORY_S", "Group", "Groups", "Intake"]

#: How far back a trend goes (seconds).
HISTORY_S: Final = 60

_K = TypeVar("_K", bound=tuple[str, ...])
#: A second that had calls: when, how many, success, 99th percentile.
_Second: TypeAlias = tuple[int, float, float | None, float | None]


class Group:
    """Some series together. With ``history`` it keeps a minute of it.

    What comes between two looks is added up first, and then put into the window and the total at once: a group of many
    series hears of each of them once a second, and is looked at about as often.

    Its times are whole seconds, and those of what is added only rise: what comes late counts in the latest.
    """

    __slots__ = (
        "_began",
        "_cells",
        "_fresh",
        "_history",
        "_open",
        "_own",
        "_own_fresh",
        "_second",
        "_trend",
        "_trend_at",
        "_when",
        "durations",
        "history",
        "instances",
        "last_error",
        "muted",
        "row",
        "row_of",
        "total",
        "window",
    )

    def __init__(self, *, history: bool = False, durations: bool = False) -> None:
        self.history = history
        #: Whether ``total`` has the durations, too.
        self.durations = durations
        #: Nobody looks at it any more: somebody else tells of the same calls better.
        self.muted = False
        #: Calls that ended, by how.
        self.total = Tally()
        self.window = Tally()
        #: How many members that tell have calls here, and the last error of any.
        self.instances = 0
        self.last_error = ""
        #: What is shown of it, until it changes, and with which rates that was.
        self.row: Red | None = None
        self.row_of = (0.0, 0.0)
        #: What has come since the last look.
        self._fresh: Tally | None = None
        self._own_fresh = False
        #: The seconds that are in the window, and what came in each. The last may be open yet. (Pairs of both would be
        #: a third of all objects that the garbage collector goes through.)
        self._when: deque[int] = deque()
        self._cells: deque[Tally] = deque()
        self._open: Tally | None = None
        self._second = 0
        #: Whether ``_open`` is this group's own: what came alone in its second is one object for all of its groups.
        self._own = False
        #: The first second that had calls, and those of the last minute.
        self._began = -1
        self._history: deque[_Second] = deque(maxlen=HISTORY_S + 2)
        self._trend = Trend()
        self._trend_at = -1

    def mute(self) -> None:
        """Count nothing any more, and forget what was counted."""
        self.muted = True
        self.total, self.window, self._fresh, self._open = Tally(), Tally(), None, None
        self._cells.clear()
        self._when.clear()
        self._history.clear()

    def before(self, tally: Tally) -> None:
        """Calls of before the observer came: they count in the total alone."""
        if self.durations:
            self.total.add(tally)
        else:
            self.total.count(tally)
        self.row = None

    def add(self, tally: Tally, second: int) -> None:
        """Calls that ended in about this second; the tally may be shared, and changes no more."""
        if self.muted:
            return
        if second > self._second:
            self._close()
            self._second = second
        fresh = self._fresh
        if fresh is None:
            self._fresh, self._own_fresh = tally, False
            return
        if not self._own_fresh:
            self._fresh, self._own_fresh = fresh.copy(), True
            fresh = self._fresh
        fresh.add(tally)

    def _settle(self) -> None:
        """Put what has come where it belongs."""
        fresh = self._fresh
        if fresh is None:
            return
        self._fresh = None
        self.row = None
        if self.durations:
            self.total.add(fresh)
        else:
            self.total.count(fresh)
        if not fresh.ok and fresh.others is None:
            return
        self.window.add(fresh)
        if self._open is None:
            self._open, self._own = fresh, self._own_fresh
            self._cells.append(fresh)
            self._when.append(self._second)
            return
        if not self._own:
            self._open, self._own = self._open.copy(), True
            self._cells[-1] = self._open
        self._open.add(fresh)

    def _close(self) -> None:
        """The second is over."""
        self._settle()
        cell = self._open
        if cell is not None and self.history:
            requests = cell.requests
            success = 1.0 - cell.errors / requests if requests else None
            (p99,) = quantile_of(sorted(cell.buckets.items()), (0.99,))
            if self._began < 0:
                self._began = self._second
            self._history.append((self._second, float(requests), success, p99))
        self._open = None

    def tick(self, now: float, window_s: float) -> None:
        """Take in what has come, let go of what is no longer in the window, and close the second that is over."""
        if self.muted:
            return
        if int(now) > self._second:
            self._close()
            self._second = int(now)
        elif self._fresh is not None:
            self._settle()
        when, cells = self._when, self._cells
        while when and when[0] < now - window_s - 1.0:
            when.popleft()
            self.window.take_away(cells.popleft())
            self.row = None

    def seconds(self, first: int) -> list[_Second]:
        """The seconds from ``first`` on that had calls: when, how many, success, 99th percentile; the latest first."""
        found = []
        for each in reversed(self._history):
            if each[0] < first:
                break
            found.append(each)
        return found

    def trend(self, now: float) -> Trend:
        """The last minute by seconds, up to the last one that is over."""
        last = int(now) - 1
        if self._began < 0 or last == self._trend_at:
            return self._trend
        history, first = self._history, max(last - HISTORY_S + 1, self._began)
        while history and history[0][0] < first:
            history.popleft()
        # Words come in between the rows of a snapshot: a second may be over that was not when it began.
        told = [each for each in history if each[0] <= last]
        filled, size = told, last - first + 1
        if len(told) < size:  # there were quiet ones
            filled = [(first + at, 0.0, None, None) for at in range(size)]
            for each in told:
                filled[each[0] - first] = each
        if filled:
            _, rates, success, p99 = zip(*filled, strict=True)
            self._trend = Trend(rates=rates, success=success, p99_s=p99)
        self._trend_at = last
        return self._trend


class Intake:
    """Where series of one kind count: an endpoint that instances of a service answer, or that one caller calls.

    What comes of any of them between two looks is added up here once, and then wherever it counts: a word of a series
    costs the same in how many groups that is, and so do the words of a hundred instances when somebody looks.
    """

    __slots__ = ("_fresh", "_waiting", "groups", "listed", "second")

    def __init__(self, groups: tuple[Group, ...], waiting: deque[Intake]) -> None:
        self.groups = groups
        self._waiting = waiting
        #: Whether it stands in there.
        self.listed = False
        self._fresh: Tally | None = None
        #: In which it came.
        self.second = 0

    def add(self, tally: Tally, second: int) -> None:
        """Calls that ended in about this second; the tally is given away."""
        fresh = self._fresh
        if fresh is not None:
            if second == self.second:
                fresh.add(tally)
                return
            self.settle()
        self._fresh, self.second = tally, second
        if not self.listed:
            self.listed = True
            self._waiting.append(self)

    def settle(self) -> None:
        """Add what has come wherever it counts."""
        fresh = self._fresh
        if fresh is not None:
            self._fresh = None
            for group in self.groups:
                group.add(fresh, self.second)


_SECOND: Final = attrgetter("second")


class Groups:
    """All groups of calls, by kind. The first part of a key is the side that told of them.

    Of a service and an endpoint what the instances tell is shown, of an edge what the caller does; what the other side
    tells of the same is not even counted, from when the better word is there.

    ``places`` are the endpoints of edges: what one service calls of another one. With ``durations`` the totals have
    them, too; else only the window has.
    """

    __slots__ = (
        "_intakes",
        "_waiting",
        "durations",
        "edges",
        "endpoints",
        "members",
        "places",
        "services",
        "versions",
    )

    def __init__(self, *, durations: bool = False) -> None:
        self.durations = durations
        #: By side and service.
        self.services: dict[tuple[str, str], Group] = {}
        #: By side, service and endpoint.
        self.endpoints: dict[tuple[str, str, str], Group] = {}
        #: By side, caller and service, and each of these by endpoint.
        self.edges: dict[tuple[str, str, str], Group] = {}
        self.places: dict[tuple[str, str, str], dict[str, Group]] = {}
        #: By side, service and instance.
        self.members: dict[tuple[str, str, str], Group] = {}
        #: By service and version, as the instances tell.
        self.versions: dict[tuple[str, str], Group] = {}
        #: By what they count in, and those of which something has come since the last look.
        self._intakes: dict[tuple[Group, ...], Intake] = {}
        self._waiting: deque[Intake] = deque()

    @property
    def waiting(self) -> int:
        """Of how many kinds of calls something has come that does not count yet."""
        return len(self._waiting)

    def order(self) -> None:
        """Have what came first count first: a group that has come to one second puts nothing in the one before."""
        ordered = sorted(self._waiting, key=_SECOND)
        self._waiting.clear()
        self._waiting.extend(ordered)

    def settle(self, most: int) -> None:
        """Have what has come of ``most`` of them count wherever it does."""
        waiting = self._waiting
        for _ in range(min(most, len(waiting))):
            intake = waiting.popleft()
            intake.listed = False
            intake.settle()

    def intake(self, groups: tuple[Group, ...]) -> Intake:
        """Where a series that counts in ``groups`` does so."""
        found = self._intakes.get(groups)
        if found is None:
            found = self._intakes[groups] = Intake(groups, self._waiting)
        return found

    def of_line(self, side: str, source: str, service: str, endpoint: str) -> tuple[Group, ...]:
        """What a series counts in, beside what all of its member's side do."""
        edge, here = (side, source, service), (side, service, endpoint)
        if side == "in":
            if here not in self.endpoints:
                _mute(self.endpoints.get(("out", service, endpoint)))
            inner = self._of(self.endpoints, here)
            return (
                (inner,) if ("out", source, service) in self.edges else (inner, *self._edge(edge, endpoint))
            )
        if edge not in self.edges:
            told = "in", source, service
            _mute(self.edges.get(told))
            for place in self.places.get(told, {}).values():
                _mute(place)
        found = self._edge(edge, endpoint)
        if ("in", service) not in self.services:
            found = (*found, self._of(self.services, (side, service)))
        if ("in", service, endpoint) not in self.endpoints:
            found = (*found, self._of(self.endpoints, here))
        return found

    def _edge(self, edge: tuple[str, str, str], endpoint: str) -> tuple[Group, ...]:
        places = self.places.setdefault(edge, {})
        place = places.get(endpoint) or places.setdefault(
            endpoint, Group(history=True, durations=self.durations)
        )
        return self._of(self.edges, edge), place

    def of_side(self, side: str, message: StatsMessage, service: str) -> tuple[Group, ...]:
        """What all calls of one side of a member count in; ``service`` is what its own is shown as."""
        member = self._of(self.members, (side, message.service, message.instance), history=False)
        if side == "out":
            return (member,)
        if ("in", service) not in self.services:
            _mute(self.services.get(("out", service)))
        return (
            self._of(self.services, (side, service)),
            self._of(self.versions, (service, message.version), history=False),
            member,
        )

    def _of(self, table: dict[_K, Group], key: _K, *, history: bool = True) -> Group:
        return table.get(key) or table.setdefault(key, Group(history=history, durations=self.durations))

    def keep(self, used: set[Group]) -> None:
        """Forget every group that is not one of ``used``: nobody is left who has calls there."""
        tables: list[dict[Any, Group]] = [
            self.services, self.endpoints, self.edges, self.members, self.versions, *self.places.values(),
        ]  # fmt: skip
        for table in tables:
            for key in [key for key, group in table.items() if group not in used]:
                del table[key]
        for edge in [edge for edge, places in self.places.items() if not places]:
            del self.places[edge]
        for groups in [groups for groups in self._intakes if not used.issuperset(groups)]:
            del self._intakes[groups]

    def all(self) -> list[Group]:
        """Every one there is."""
        found: list[Group] = []
        found.extend(self.services.values())
        found.extend(self.endpoints.values())
        found.extend(self.edges.values())
        found.extend(self.members.values())
        found.extend(self.versions.values())
        for places in self.places.values():
            found.extend(places.values())
        return found


def _mute(group: Group | None) -> None:
    if group is not None:
        group.mute()

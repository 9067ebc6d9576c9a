"""What an observer knows of a mesh: words of members go in, :class:`Snapshot` comes out.

Pure: the time comes with each word. :func:`replay` makes a snapshot of words that were written down, so a view can be
tested, and a moment of the past looked at, without a bus.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from msgspec import UNSET

from nats_mesh.core.members import Instance
from nats_mesh.errors import ConfigError
from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.showing import show
from nats_mesh.telemetry.snapshots import Snapshot
from nats_mesh.telemetry.stats import OTHER, Condition, SeriesSnapshot, Side, StatsMessage
from nats_mesh.telemetry.tallies import Group, difference

__all__ = ["SILENT_S", "Bus", "Fold", "Gone", "Known", "Line", "Word", "replay"]

#: Silent for so long (seconds), a member is no longer shown; what it counted stays in the totals.
SILENT_S: Final = 20.0
_MAX_EVENTS: Final = 500
_MAX_LINES: Final = 20_000
_POINTS: Final = 32

_Key: TypeAlias = tuple[str, str]


class Bus(NamedTuple):
    """Whether the observer's own connection stands, to which server, and its way there and back (seconds)."""

    connected: bool
    server: str = ""
    rtt_s: float | None = None


class Gone(NamedTuple):
    """An instance that has left, or that presence gave up."""

    service: str
    instance: str


#: Whatever an observer hears: statistics, an instance as presence knows it, that it is gone, an event, the connection.
Word: TypeAlias = StatsMessage | Instance | Gone | Event | Bus


class Line:
    """One series of one member: its latest word, and those of up to a window before."""

    __slots__ = ("endpoint", "latest", "points", "rate", "service", "side", "source", "tried_rate")

    def __init__(self, side: Side, source: str, service: str, endpoint: str, latest: SeriesSnapshot) -> None:
        self.side = side
        self.source = source
        self.service = service
        self.endpoint = endpoint
        self.latest = latest
        #: Its age (seconds), its calls and its attempts then.
        self.points: deque[tuple[float, int, int]] = deque()
        #: Calls and attempts per second over the window.
        self.rate = 0.0
        self.tried_rate = 0.0

    def note(self, age_s: float, window_s: float) -> None:
        """Its latest word is of this age now."""
        points = self.points
        if len(points) > 1 and age_s - points[-2][0] < window_s / _POINTS:
            points.pop()
        points.append((age_s, self.latest.requests, self.latest.tried))
        while len(points) > 2 and points[1][0] <= age_s - window_s:
            points.popleft()
        begun, calls, tried = points[0]
        span = age_s - begun
        self.rate = (self.latest.requests - calls) / span if span > 0.0 else 0.0
        self.tried_rate = (self.latest.tried - tried) / span if span > 0.0 else 0.0


class Known:
    """A member: what presence says of it, what its statistics say, and its series."""

    __slots__ = ("condition", "heard", "instance", "lines", "message", "seq", "told")

    def __init__(self, now: float) -> None:
        self.instance: Instance | None = None
        self.message: StatsMessage | None = None
        self.condition: Condition | None = None
        self.lines: dict[tuple[str, ...], Line] = {}
        self.seq = 0
        #: When it was heard last at all, and when its statistics were.
        self.heard = now
        self.told = 0.0


class Fold:
    """All that was heard. Beyond ``max_members`` new ones are left out while nobody is silent; services beyond
    ``max_services`` are put together as :data:`OTHER`.

    ``overflowed`` counts words that found no room; ``ignored`` is for whoever hears them to count.
    """

    def __init__(
        self,
        *,
        namespace: str = "default",
        window_s: float = 10.0,
        max_members: int = 2000,
        max_services: int = 500,
    ) -> None:
        if min(max_members, max_services) < 1 or not window_s >= 2.0:
            raise ConfigError("a view: every bound must be at least 1 and the window at least 2 s")
        self.namespace = namespace
        self.window_s = window_s
        self.ignored = 0
        self.overflowed = 0
        self.members: dict[_Key, Known] = {}
        self.groups: dict[tuple[str, ...], Group] = {}
        self.events: deque[Event] = deque(maxlen=_MAX_EVENTS)
        self.bus = Bus(True)
        self.away_since: float | None = None
        self._max_members = max_members
        self._max_services = max_services
        self._services: set[str] = set()
        self._lines = 0
        self._dropped: OrderedDict[_Key, Known] = OrderedDict()
        self._seen: OrderedDict[tuple[str, str, int], None] = OrderedDict()

    def apply(self, word: Word, now: float) -> bool:
        """Take in one word, heard at ``now``; false where it brought nothing new or found no room."""
        if isinstance(word, StatsMessage):
            return self._stats(word, now)
        if isinstance(word, Instance):
            return self._instance(word, now)
        if isinstance(word, Event):
            return self._event(word)
        if isinstance(word, Bus):
            if word.connected:
                self.away_since = None
            elif self.away_since is None:
                self.away_since = now
            self.bus = word
            return True
        known = self.members.get((word.service, word.instance))
        if known is None:
            return False
        self._drop((word.service, word.instance))
        return True

    def snapshot(self, now: float, wall_s: float = 0.0) -> Snapshot:
        """All of it at ``now``."""
        self._sweep(now)
        for group in self.groups.values():
            group.tick(now, self.window_s)
        return show(self, now, wall_s)

    # -- statistics ---------------------------------------------------------------------------------

    def _stats(self, message: StatsMessage, now: float) -> bool:
        key = (message.service, message.instance)
        if message.namespace != self.namespace:
            return False
        known = self._known(key, now)
        if known is None or message.seq < known.seq:
            return False
        # How long a series that is new in this word was not there: since the word before, or the member's start.
        gap_s = min(self.window_s, now - known.told if known.seq else message.since_s)
        again = message.seq == known.seq  # a large one comes in several messages of one number
        known.heard = known.told = now
        known.seq = message.seq
        if not again or known.message is None:
            known.message = message
        if message.condition is not UNSET:
            known.condition = message.condition
        touched = {id(self._series(known, message, each, now, gap_s)) for each in message.series}
        if not again:
            for line in known.lines.values():
                if id(line) not in touched and line.rate:
                    # Nothing has happened there since its last word.
                    line.note(line.points[-1][0] + 1.0, self.window_s)
        return True

    def _series(
        self, known: Known, message: StatsMessage, new: SeriesSnapshot, now: float, gap_s: float
    ) -> Line | None:
        name = (new.side, new.service, new.endpoint, new.peer, new.subset or "")
        line = known.lines.get(name)
        if line is None:
            if self._lines >= _MAX_LINES:
                self.overflowed += 1
                return None
            # Whose calls these are is what the subject says, not the body.
            own, other = message.service, new.peer if new.side == "in" else new.service
            ends = (other, own) if new.side == "in" else (own, other)
            line = Line(new.side, self._place(ends[0]), self._place(ends[1]), new.endpoint, new)
            known.lines[name] = line
            self._lines += 1
            tally = difference(new, None)
            young = new.age_s <= self.window_s
            if young:
                line.points.append((new.age_s - max(new.age_s, gap_s), 0, 0))
            for group in self._groups_of(line, message):
                if young:
                    group.add(tally, now)
                else:
                    group.before(tally)
        else:
            old = line.latest
            if new.requests < old.requests or new.age_s < old.age_s:
                return line  # it counts backwards: whatever this is, it is no later word
            line.latest = new
            if new.requests != old.requests or new.tried != old.tried:
                tally = difference(new, old)
                for group in self._groups_of(line, message):
                    group.add(tally, now)
        line.note(new.age_s, self.window_s)
        return line

    def _groups_of(self, line: Line, message: StatsMessage) -> list[Group]:
        side, source, service, endpoint = line.side, line.source, line.service, line.endpoint
        keys: list[tuple[str, ...]] = [
            ("service", side, service),
            ("endpoint", side, service, endpoint),
            ("edge", side, source, service),
            ("edge endpoint", side, source, service, endpoint),
            ("member", side, message.service, message.instance),
        ]
        if side == "in":
            keys.append(("version", service, message.version))
        groups = self.groups
        return [groups.get(key) or groups.setdefault(key, Group()) for key in keys]

    def _place(self, service: str) -> str:
        if service in self._services:
            return service
        if len(self._services) >= self._max_services:
            self.overflowed += 1
            return OTHER
        self._services.add(service)
        return service

    # -- members ------------------------------------------------------------------------------------

    def _known(self, key: _Key, now: float) -> Known | None:
        known = self.members.get(key)
        if known is None:
            if len(self.members) >= self._max_members and not self._make_room(now):
                self.overflowed += 1
                return None
            # Who was silent and is back has counted on: what is known of him is counted already.
            known = self._dropped.pop(key) if key in self._dropped else Known(now)
            self.members[key] = known
        return known

    def _instance(self, instance: Instance, now: float) -> bool:
        key = (instance.service, instance.id)
        if instance.namespace != self.namespace:
            return False
        known = self._known(key, now)
        if known is None:
            return False
        self._place(instance.service)
        known.instance = instance
        known.heard = max(known.heard, instance.seen)
        return True

    def _make_room(self, now: float) -> bool:
        key = min(self.members, key=lambda each: self.members[each].heard)
        if now - self.members[key].heard < SILENT_S:
            return False
        self._drop(key)
        return True

    def _sweep(self, now: float) -> None:
        if not self.bus.connected:
            return  # silence says nothing while the bus is away
        for key in [k for k, each in self.members.items() if now - each.heard >= SILENT_S]:
            if self.members[key].instance is None:  # of instances presence decides
                self._drop(key)

    def _drop(self, key: _Key) -> None:
        """Show a member no longer, and know what it has counted for the case that it comes back."""
        self._dropped[key] = self.members.pop(key)
        if len(self._dropped) <= self._max_members:
            return
        key, known = self._dropped.popitem(last=False)
        self._lines -= len(known.lines)
        for side in ("in", "out"):
            self.groups.pop(("member", side, *key), None)

    # -- events -------------------------------------------------------------------------------------

    def _event(self, event: Event) -> bool:
        key = (event.service, event.instance, event.seq)
        if key in self._seen or event.namespace != self.namespace:
            return False
        self._seen[key] = None
        if len(self._seen) > 4 * _MAX_EVENTS:
            self._seen.popitem(last=False)
        self.events.append(event)
        if len(self.events) > 1 and event.at < self.events[-2].at:
            self.events = deque(sorted(self.events, key=lambda each: each.at), maxlen=_MAX_EVENTS)
        return True


def replay(
    words: Iterable[tuple[float, Word]], until: float, *, window_s: float = 10.0, namespace: str = "default"
) -> Snapshot:
    """What a view would have shown at ``until`` (seconds, as the instants of ``words``), had it heard these."""
    fold = Fold(window_s=window_s, namespace=namespace)
    for now, word in words:
        if now <= until:
            fold.apply(word, now)
    return fold.snapshot(until)

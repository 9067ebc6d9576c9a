"""What an observer knows of a mesh: words of members go in, :class:`Snapshot` comes out.

Pure: the time comes with each word. :func:`replay` makes a snapshot of words that were written down, so a view can be
tested, and a moment of the past looked at, without a bus.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET

from nats_mesh.core.members import Instance
from nats_mesh.core.numbering import Step
from nats_mesh.core.presence import State
from nats_mesh.errors import ConfigError
from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.group import Group
from nats_mesh.telemetry.groups import Groups
from nats_mesh.telemetry.happened import Happened
from nats_mesh.telemetry.known import LATE_S, MISSED_S, Known
from nats_mesh.telemetry.lines import Line
from nats_mesh.telemetry.pace import Moment
from nats_mesh.telemetry.placed import Placed
from nats_mesh.telemetry.series import OTHER
from nats_mesh.telemetry.showing import show
from nats_mesh.telemetry.snapshots import Snapshot
from nats_mesh.telemetry.stats_messages import SeriesSnapshot, StatsMessage
from nats_mesh.telemetry.summed import Summed

__all__ = ["SILENT_S", "Bus", "Fold", "Gone", "Word", "replay"]

#: Silent for so long (seconds), a member is no longer shown; what it counted stays in the totals.
SILENT_S: Final = 20.0
_MAX_EVENTS: Final = 500
_MAX_LINES: Final = 20_000
#: Whoever has heard no statistics at all for longer (seconds) was away, or alone.
_GAP_S: Final = 1.5
#: Errors of one text and one member that are no further apart by its own clock (seconds) are one.
_SAME_ERROR_S: Final = 0.01

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


class Fold:
    """All that was heard. Beyond ``max_members`` new ones are left out while nobody is silent, unless their service has
    fewer places than another one; services beyond ``max_services`` are put together as :data:`OTHER`, unless others are
    gone meanwhile.

    While the bus is away time stands still here, and goes on when it is back: windows and trends keep what was known.

    ``overflowed`` counts words that found no room; ``ignored`` is for whoever hears them to count. ``durations``: the
    totals of rows have quantiles and buckets, too.
    """

    def __init__(
        self,
        *,
        namespace: str = "default",
        window_s: float = 10.0,
        max_members: int = 2000,
        max_services: int = 500,
        durations: bool = False,
    ) -> None:
        if min(max_members, max_services) < 1 or not window_s >= 2.0:
            raise ConfigError("a view: every bound must be at least 1 and the window at least 2 s")
        self.namespace = namespace
        self.window_s = window_s
        self.ignored = 0
        self.overflowed = 0
        self.members: dict[_Key, Known] = {}
        #: How many of them are of each service.
        self._sizes: Counter[str] = Counter()
        self.groups = Groups(durations=durations)
        #: Calls of several edges together: to a service, to an endpoint, and (by no name) all of them.
        self.summed: dict[tuple[str, ...], Summed] = {}
        #: Edges without calls of callers that have left, and since when they are.
        self.quiet: dict[tuple[str, str, str], float] = {}
        self.events = Happened(_MAX_EVENTS)
        self.bus = Bus(True)
        self.away_since: float | None = None
        #: How long the bus was away before (seconds); of the last time alone until when, by the time of here, and how
        #: long.
        self._away_s = 0.0
        self._away_last = (-math.inf, 0.0)
        self._max_members = max_members
        self._services = Placed(max_services)
        #: When some of these were let go last, as ``_looked``.
        self._placed = -1.0
        self._lines = 0
        #: How many of them are of the members of one service: whoever makes names up takes no room from all others.
        self._of_one: Counter[str] = Counter()
        #: How many were made since groups were last forgotten.
        self._made = 0
        #: When anybody's statistics came last, and since when they have come without a gap: an observer that was away,
        #: or nobody else who tells, says nothing about who is not heard.
        self._heard = self._hears_since = -math.inf
        #: When groups were looked at last.
        self._looked = 0.0
        self._dropped: OrderedDict[_Key, Known] = OrderedDict()

    def apply(self, word: Word, now: float) -> bool:
        """Take in one word, heard at ``now``; false where it brought nothing new or found no room."""
        if isinstance(word, StatsMessage):
            return self._stats(word, now)
        if isinstance(word, Instance):
            return self._instance(word, now)
        if isinstance(word, Event):
            return word.namespace == self.namespace and self.events.take(word)
        if isinstance(word, Bus):
            self._bus(word, now)
            return True
        known = self.members.get((word.service, word.instance))
        if known is None:
            return False
        known.left = True
        # One that drains tells on, and presence will say no second time that it is gone.
        known.instance = None
        self._drop((word.service, word.instance))
        return True

    def _bus(self, word: Bus, now: float) -> None:
        since = self.away_since
        if not word.connected and since is None:
            self.away_since = now
        elif word.connected and since is not None:
            self._away_last = self._here(now), now - since
            self.away_since = None
            self._away_s += now - since
            self._heard = -math.inf  # whoever was away says nothing about who is not heard
        self.bus = word

    def _here(self, now: float) -> float:
        """The time of windows and of who was heard when: it stands still while the bus is away."""
        return (now if self.away_since is None else min(now, self.away_since)) - self._away_s

    def snapshot(self, now: float, wall_s: float = 0.0) -> Snapshot:
        """All of it at ``now``."""
        *_, made = self.snapshot_by_bits(now, wall_s)
        assert made is not None  # it comes last
        return made

    def snapshot_by_bits(self, now: float, wall_s: float = 0.0) -> Iterator[Snapshot | None]:
        """As :meth:`snapshot`, with moments in between (:func:`nats_mesh.telemetry.showing.show`)."""
        here = self._looked = self._here(now)
        self._sweep(here)
        hears = self.bus.connected and here - self._heard <= _GAP_S and here - self._hears_since > MISSED_S
        for known in self.members.values():
            if hears and known.live and here - known.heard > MISSED_S:
                known.late = True
            if known.live and here - known.told > LATE_S:
                known.fall_silent()
        return show(self, now, here, wall_s)

    def answered(self) -> Iterator[tuple[str, str, Line]]:
        """Whatever instances told of calls they answered: their service, who called, and the series; of instances that
        are gone, too, and of one caller there may be several."""
        for (service, _), known in (*self.members.items(), *self._dropped.items()):
            for (side, _, _, peer, _), line in known.lines.items():
                if side == "in":
                    yield service, peer, line

    # -- statistics ---------------------------------------------------------------------------------

    def _stats(self, message: StatsMessage, now: float) -> bool:
        key = (message.service, message.instance)
        if message.namespace != self.namespace:
            return False
        here = self._here(now)
        known = self._known(key, here)
        if known is None:
            return False
        told, last = known.told, known.seq
        step = known.take_number(message, here)
        if step is Step.REFUSED:
            # Nothing of it counts, but somebody tells: a number that another one made up makes nobody suspect.
            known.heard, known.late = now, False
            return False
        if step is Step.ANEW:
            # Messages of one member come in order: who goes on with lower numbers for so long is somebody else than who
            # told the high ones.
            self._begin_again(key, known)
        known.heard = known.told = here
        if here - self._heard > _GAP_S:
            self._hears_since = here
        self._heard = here
        if step is not Step.SAME or known.message is None:
            known.message = msgspec.structs.replace(message, series=(), rows=())  # these are in its lines
        if message.condition is not UNSET:
            known.condition = message.condition
        if not known.serves:  # a client has no presence: its last statistics say that it leaves
            known.left = message.state is State.DRAINING
        known.wake()
        second, moment = int(here), known.moment(message)
        if message.series:
            # How long a series that is new in this word was not there: since the word before, or the member's start.
            gap_s = message.since_s
            if last and step is not Step.ANEW:
                until, away_s = self._away_last
                gap_s = here - told + (away_s if told <= until else 0.0)
            gap_s = min(self.window_s, gap_s)
            for each in message.series:
                self._series(known, message, each, moment, second, gap_s, now)
        if message.rows:
            known.take_rows(message, moment, second)
        if here - self._looked >= self.window_s:
            self._let_out(here)
        return True

    def _let_out(self, now: float) -> None:
        """Nobody looks: what is no longer in the window goes all the same."""
        self._looked = now
        for known in self.members.values():
            known.settle()
        self.groups.order()
        self.groups.settle(self.groups.waiting)
        for group in self.groups.all():
            group.tick(now, self.window_s)

    def _series(
        self,
        known: Known,
        message: StatsMessage,
        new: SeriesSnapshot,
        moment: Moment,
        second: int,
        gap_s: float,
        now: float,
    ) -> None:
        name = (new.side, new.service, new.endpoint, new.peer, new.subset or "")
        line = known.lines.get(name)
        if line is None:
            line = self._line(known, message, new)
            if line is None:
                return
            known.lines[name] = line
            self._note_error(known, line, message, new, now)
            if new.age_s > self.window_s:
                # Most of its calls are of before.
                line.from_s = message.since_s
                tally = line.hear(new, message)
                if tally is not None:
                    for group in (*line.groups, *known.sides[line.side].groups):
                        group.before(tally)
                known.number(line)
                return
            line.from_s = message.since_s - max(new.age_s, gap_s)
        ok = line.only_ok(new)
        if ok < 0:
            tally = line.hear(new, message)
            if tally is not None:
                known.count(line, tally, moment, second)
                self._note_error(known, line, message, new, now)
        elif ok >= line.ok and new.age_s >= line.age_s:
            line.told(new, message)
            total = known.sides[line.side].open(second)
            known.went_well(line, ok, new.in_flight, new.histogram, moment, second, total)
        known.number(line)

    def _note_error(
        self, known: Known, line: Line, message: StatsMessage, new: SeriesSnapshot, now: float
    ) -> None:
        age_s = new.error_age_s
        at = None if age_s is UNSET else now - age_s
        error_s = 0.0 if age_s is UNSET else message.since_s - age_s
        if new.last_error == line.last_error and (
            at is None or (line.error_at is not None and error_s - line.error_s < _SAME_ERROR_S)
        ):
            return  # the one that is known, in a word that may have been slower on its way, or late
        line.last_error, line.error_at, line.error_s = new.last_error, at, error_s
        if new.last_error:
            for group in (*line.groups, *known.sides[line.side].groups):
                group.fail(new.last_error, at)

    def _line(self, known: Known, message: StatsMessage, new: SeriesSnapshot) -> Line | None:
        """A series that was not heard of yet, where there is room for it."""
        if self._lines >= _MAX_LINES or self._of_one[message.service] >= _MAX_LINES // 2:
            self.overflowed += 1
            return None
        self._lines += 1
        self._of_one[message.service] += 1
        self._made += 1
        if self._made > _MAX_LINES:  # of those that came and went, groups are left
            self._made = 0
            self._forget()
        # Whose calls these are is what the subject says, not the body.
        by, side = message.service, new.side
        own = self._place(by, by)
        if side not in known.sides:
            known.sides[side] = self.groups.of_side(side, message, own)
            known.join(known.sides[side].groups)
        if side == "in":
            groups = self.groups.of_line(side, self._place(new.peer, by), own, new.endpoint)
        else:
            groups = self.groups.of_line(side, own, self._place(new.service, by), new.endpoint)
        known.join(groups)
        return Line(side, self.groups.intake(groups))

    def _place(self, service: str, by: str) -> str:
        """What a service that members of ``by`` tell of is shown as."""
        services = self._services
        if services.take(service, by) or (
            services.full and self._make_place() and services.take(service, by)
        ):
            return service
        self.overflowed += 1
        return OTHER

    def _make_place(self) -> bool:
        """Forget who is gone, for the sake of who is here: services that nobody who is there is of or calls. False
        where there are none. What was counted of them is no longer shown."""
        if self._placed == self._looked:
            return (
                False  # it costs a look at all lines: once between two looks, however many names are made up
            )
        self._placed = self._looked
        used = {service for service, _ in self.members}
        for known in self.members.values():
            for _, service, _, peer, _ in known.lines:
                used |= {service, peer}
        for key in [key for key in self._dropped if key[0] not in used]:
            self._lose(key, self._dropped.pop(key))
        self._services.keep(used)
        self._forget()
        return not self._services.full

    # -- members ------------------------------------------------------------------------------------

    def _known(self, key: _Key, now: float) -> Known | None:
        known = self.members.get(key)
        if known is None:
            if len(self.members) >= self._max_members and not self._make_room(key[0], now):
                self.overflowed += 1
                return None
            # Who was silent and is back has counted on: what is known of him is counted already.
            known = self._dropped.pop(key) if key in self._dropped else Known(now, self.window_s)
            self.members[key] = known
            self._sizes[key[0]] += 1
        return known

    def _instance(self, instance: Instance, now: float) -> bool:
        key = (instance.service, instance.id)
        if instance.namespace != self.namespace:
            return False
        known = self._known(key, self._here(now))
        if known is None:
            return False
        self._place(instance.service, instance.service)
        known.instance = instance
        known.left = False
        seen = self._here(instance.seen)
        if seen > known.heard:
            known.heard, known.late = seen, False
        return True

    def _begin_again(self, key: _Key, known: Known) -> None:
        """What it has told is no longer believed to be of whoever tells now; what was counted stays counted."""
        known.fall_silent()
        self._let_go(key, known)
        known.begin_again()

    def _let_go(self, key: _Key, known: Known) -> None:
        """Its lines take no room any more."""
        self._lines -= len(known.lines)
        self._of_one[key[0]] -= len(known.lines)
        if not self._of_one[key[0]]:
            del self._of_one[key[0]]

    def _make_room(self, service: str, now: float) -> bool:
        """Drop somebody, for the sake of a new member of a service."""
        key = min(self.members, key=lambda each: self.members[each].heard)
        if now - self.members[key].heard < SILENT_S:
            # Who makes up instances of its own takes no place from others: the service that has the most gives one
            # back, the one that came last.
            crowd, count = self._sizes.most_common(1)[0]
            if count < self._sizes[service] + 2:
                return False
            key = next(each for each in reversed(self.members) if each[0] == crowd)
        self._drop(key)
        return True

    def _sweep(self, now: float) -> None:
        if not self.bus.connected:
            return  # silence says nothing while the bus is away
        for key, each in list(self.members.items()):
            # Of instances presence decides; who has said that it leaves, and tells no more, has left.
            patience_s = LATE_S if each.left else SILENT_S
            if each.instance is None and now - each.heard >= patience_s:
                self._drop(key)

    def _drop(self, key: _Key) -> None:
        """Show a member no longer, and know what it has counted for the case that it comes back."""
        self._dropped[key] = self.members.pop(key)
        self._sizes[key[0]] -= 1
        if not self._sizes[key[0]]:
            del self._sizes[key[0]]
        self._dropped[key].fall_silent()
        if len(self._dropped) <= self._max_members:
            return
        self._lose(*self._dropped.popitem(last=False))

    def _lose(self, key: _Key, known: Known) -> None:
        """Who comes back under this name is somebody new."""
        self._let_go(key, known)
        for side in ("in", "out"):
            self.groups.members.pop((side, *key), None)

    def _forget(self) -> None:
        """Let go of the groups of members that are known no more."""
        used: set[Group] = set()
        for known in (*self.members.values(), *self._dropped.values()):
            used |= known.groups
        # What waits to be counted is of before.
        self.groups.order()
        self.groups.settle(self.groups.waiting)
        again = self.groups.keep(used)
        if again:
            for known in self.members.values():
                known.say_again(again)


def replay(
    words: Iterable[tuple[float, Word]], until: float, *, window_s: float = 10.0, namespace: str = "default"
) -> Snapshot:
    """What a view would have shown at ``until`` (seconds, as the instants of ``words``), had it heard these."""
    fold = Fold(window_s=window_s, namespace=namespace)
    for now, word in words:
        if now <= until:
            fold.apply(word, now)
    return fold.snapshot(until)

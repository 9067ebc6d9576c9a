"""The last things that happened: joins, leaves, errors, warnings. A bounded list that both views read."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from nats_mesh.core.registry import Change, ChangeKind, Reason
from nats_mesh.telemetry.events import Event as Told
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.wire.headers import one_line
from nats_mesh_cli.demo.silences import who
from nats_mesh_cli.demo.state import Event, Mark
from nats_mesh_cli.trouble import is_bad

__all__ = ["Events", "LogEvents", "describe"]

_KEPT = 200
_MAX_TEXT = 400
_OTHER: Final = "other"
#: What the mesh itself tells of: applications may make up as many words as they like.
_TOPICS: Final = frozenset(kind.partition(".")[0] for kind in EventKind)
#: What a change in presence is called that says no more than that policies came, of which members tell themselves.
_REVISION: Final = frozenset({"revision"})


class Events:
    """What happened lately, oldest first. ``say`` gets each new one as well, for whoever has no view."""

    def __init__(self, say: Callable[[Event], None] | None = None) -> None:
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._say = say

    def add(self, mark: Mark, text: str, topic: str = _OTHER) -> None:
        """Note something that happened now; the same again right after only counts up. ``topic`` as in
        :class:`~nats_mesh_cli.demo.state.Event`."""
        text = one_line(text, _MAX_TEXT)  # also what logs say: nothing that a terminal would obey
        last = self._events[-1] if self._events else None
        if last is not None and (last.mark, last.text) == (mark, text):
            self._events[-1] = msgspec.structs.replace(last, count=last.count + 1)
            return
        event = Event(time=f"{datetime.now(UTC).astimezone():%H:%M:%S}", mark=mark, text=text, topic=topic)
        self._events.append(event)
        if self._say is not None:
            self._say(event)

    def presence(self, change: Change) -> None:
        """Note what happened to an instance, but that it has applied a revision: of that one line tells for all."""
        if change.kind is ChangeKind.CHANGED and _REVISION.issuperset(change.fields):
            return
        mark, text = describe(change)
        self.add(mark, text, str(change.kind))

    def told(self, event: Told) -> None:
        """Note what a member tells of itself: why something goes wrong, or that it is well again."""
        more = f": {event.detail}" if event.detail else ""
        text = f"{event.service} tells: {event.kind} {event.target or event.instance}{more}"
        word = event.kind.partition(".")[0]
        self.add(Mark.WARN if is_bad(event.kind) else Mark.INFO, text, word if word in _TOPICS else _OTHER)

    @property
    def all(self) -> tuple[Event, ...]:
        """Everything that is remembered."""
        return tuple(self._events)


def describe(change: Change) -> tuple[Mark, str]:
    """A membership change in words."""
    instance = change.instance
    named = who(instance)
    if change.kind is ChangeKind.JOINED:
        return Mark.JOIN, named
    if change.kind is ChangeKind.GONE:
        return Mark.LEAVE, named if change.reason is Reason.LEFT else f"{named} without a word"
    if change.kind is ChangeKind.SUSPECT:
        return Mark.WARN, f"{named} is suspect: its beats are missing"
    if change.kind is ChangeKind.ALIVE:
        return Mark.CHANGE, f"{named} is alive again"
    return Mark.CHANGE, f"{named}: {', '.join(change.fields)}; now {instance.state}"


class LogEvents(logging.Handler):
    """Turns warnings of the libraries into events: a line on stderr would tear the view apart."""

    def __init__(self, events: Events) -> None:
        super().__init__(logging.WARNING)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        """Note the record."""
        mark = Mark.ERROR if record.levelno >= logging.ERROR else Mark.WARN
        self._events.add(mark, record.getMessage(), "log")

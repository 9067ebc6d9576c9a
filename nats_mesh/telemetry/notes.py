"""Calls that have ended and shall leave spans: noted on their path, told later.

Of most of them little is to say: a call that went well at the first attempt is a row among those with which it has
everything else in common (:meth:`Notes.add_row`); that costs a fraction of what a span of its own costs. Whatever is
special about the others is kept whole (:meth:`Notes.add`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

__all__ = ["MAX_NOTES", "ROW", "Notes", "Row", "trace_of"]

#: How many calls of each kind one side notes between two batches.
MAX_NOTES: Final = 2048

#: What a call has for itself: trace and span as its request said them, 49 characters (as text where they are a member's
#: own, else as they came), one more span id (at the caller that of the call it was made from, if any, and at the
#: instance its own), its route (empty: any), which instance answered (the caller's word alone), when it began
#: (monotonic seconds), how long it took and, at the instance, how long it waited of that (seconds).
Row: TypeAlias = tuple[str | bytes, str, str, str, float, float, float]
#: How many places of a list a row has.
ROW: Final = 7


def trace_of(ids: str | bytes) -> str:
    """The trace of a row and what follows it, as text."""
    return ids if isinstance(ids, str) else ids.decode("latin-1")


class Notes:
    """The notes of one side of calls, of an instance where it is the ``server``. ``begin`` is called with the first of
    a batch, ``read`` makes spans of a note, once it is its turn: it gets the note, and what the wall clock says more
    than the monotonic one (seconds). ``alike`` says what rows of one key have in common, as JSON."""

    __slots__ = ("_begin", "_room", "alike", "below", "dropped", "notes", "read", "rows", "server")

    def __init__(
        self,
        begin: Callable[[], None],
        read: Callable[[Any, float], Any],
        alike: Callable[[Any], bytes],
        *,
        server: bool,
    ) -> None:
        self.read = read
        self.alike = alike
        self.server = server
        #: Tuples that begin with whether they may be left out easily, and the trace.
        self.notes: list[Any] = []
        #: Rows by what they have in common, one behind the other in one list: tuples cost more to keep and to take
        #: apart; and for how many more there is room.
        self.rows: dict[Any, list[Any]] = {}
        self._room = MAX_NOTES
        #: Calls that were not noted, or found no room.
        self.dropped = 0
        #: Where there were more than fit lately: of what may be left out, only traces below these digits are noted.
        self.below = ""
        self._begin = begin

    @property
    def count(self) -> int:
        """How many rows there are."""
        return MAX_NOTES - self._room

    def add(self, note: tuple[Any, ...]) -> None:
        """One more call, on its own path."""
        notes = self.notes
        if not notes and not self.rows:
            self._begin()
        elif len(notes) >= MAX_NOTES:
            self.dropped += 1
            return
        notes.append(note)

    def add_row(self, key: Any, row: Row) -> None:
        """One more call that went well and is sampled; with others of this ``key`` it has all else in common."""
        rows = self.rows.get(key)
        room = self._room
        if rows is None or not room or self.below:
            if not room or (self.below and trace_of(row[0]) >= self.below):
                self.dropped += 1
                return
            if rows is None:
                if not self.rows and not self.notes:
                    self._begin()
                self.rows[key] = rows = []
        self._room = room - 1
        rows.extend(row)

    def taken(self) -> tuple[list[Any], dict[Any, list[Any]], int]:
        """The notes, the rows and how many those are; there are none any more."""
        taken = self.notes, self.rows, self.count
        self.notes, self.rows, self._room = [], {}, MAX_NOTES
        return taken

"""Calls that have ended and shall leave spans: noted on their path, told later.

Of most of them little is to say: a call that went well at the first attempt is a row among those with which it has
everything else in common (:meth:`Notes.add_row`); that costs a fraction of what a span of its own costs. Whatever is
special about the others is kept whole (:meth:`Notes.add`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

__all__ = ["MAX_NOTES", "Notes", "Row"]

#: How many calls of each kind one side notes between two batches.
MAX_NOTES: Final = 2048

#: What a call has for itself: trace and span as its request said them, one more span id (at the caller that of the call
#: it was made from, if any, and at the instance its own), its route, which instance answered (the caller's word alone),
#: when it began, was served and ended (monotonic seconds).
Row: TypeAlias = tuple[str, str, str, str, float, float, float]


class Notes:
    """The notes of one side of calls. ``begin`` is called with the first of a batch, ``read`` makes spans of a note,
    once it is its turn: it gets the note, and what the wall clock says more than the monotonic one (seconds). ``alike``
    says what rows of one key have in common, as JSON."""

    __slots__ = ("_begin", "alike", "below", "count", "dropped", "notes", "read", "rows")

    def __init__(
        self,
        begin: Callable[[], None],
        read: Callable[[Any, float], Any],
        alike: Callable[[Any], str],
    ) -> None:
        self.read = read
        self.alike = alike
        #: Tuples that begin with whether they may be left out easily, and the trace.
        self.notes: list[Any] = []
        #: Rows by what they have in common, and how many they are.
        self.rows: dict[Any, list[Row]] = {}
        self.count = 0
        #: Calls that were not noted, or found no room.
        self.dropped = 0
        #: Where there were more than fit lately: of what may be left out, only traces below these digits are noted.
        self.below = ""
        self._begin = begin

    def add(self, note: tuple[Any, ...]) -> None:
        """One more call, on its own path."""
        notes = self.notes
        if not notes and not self.count:
            self._begin()
        elif len(notes) >= MAX_NOTES:
            self.dropped += 1
            return
        notes.append(note)

    def add_row(self, key: Any, row: Row) -> None:
        """One more call that went well and is sampled; with others of this ``key`` it has all else in common."""
        count = self.count
        if count >= MAX_NOTES or (self.below and row[0] >= self.below):
            self.dropped += 1
            return
        if not count and not self.notes:
            self._begin()
        self.count = count + 1
        rows = self.rows.get(key)
        if rows is None:
            self.rows[key] = rows = []
        rows.append(row)

"""What a member has of a store that it reads as a log, and what to do with each thing it reads. Pure.

The log is read from the last message that was taken, that one included: where the same message stands there, with the
time the server gave it, the log is the one that was read before, and what follows continues it. Where it does not,
the newest message of every key is read anew, and that is the whole truth: the store was made again, restored or
emptied. What looks like a log that lost its end may also be one server of a cluster that is a little behind; so a
shorter log of the same epoch is believed only after several looks.

Of a batch that was stored as one nothing counts before its last message was read.

Rejected: to take what is published when something changes as the change itself. Such a message can be forged,
and it shows neither what is missing before it nor what was lost behind it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

__all__ = [
    "DOUBTS",
    "EPOCH_KEY",
    "MAX_EPOCH_DIGITS",
    "MAX_KEYS",
    "MAX_TOTAL_BYTES",
    "OWN_PREFIX",
    "Question",
    "Record",
    "Replica",
    "Step",
    "Want",
]

#: The key whose value is the store's epoch, a whole number above 0. Keys that begin so are the store's own.
EPOCH_KEY: Final = "meta.epoch"
OWN_PREFIX: Final = "meta."
#: How many keys, and bytes of values, a replica holds; deletions count as keys.
MAX_KEYS: Final = 50_000
MAX_TOTAL_BYTES: Final = 64 << 20
#: How often a log that seems to have lost its end is looked at again before it is believed.
DOUBTS: Final = 5
#: Pauses before the next look: at the rest of a batch that is being stored, and at a log that seems to have lost
#: its end.
_BATCH_PAUSE_S: Final = 0.02
_DOUBT_PAUSE_S: Final = 0.5
#: Of the epoch's number, so that every reader of JSON has it exactly.
MAX_EPOCH_DIGITS: Final = 15


class Record(NamedTuple):
    """One message of the log, as far as a replica cares. ``value`` is ``None`` where the key was deleted.

    ``time`` is the server's text. ``batch`` is the id of the batch it was stored with, ``commit`` whether it is
    the last of it; ``change`` the id of the change it belongs to, in the operator's words. ``size`` is the
    value's, which is not kept where it is too large.
    """

    sequence: int
    key: str
    value: bytes | None
    time: str
    batch: str
    commit: bool
    change: str
    size: int


class Want(enum.Enum):
    """What to read."""

    FROM = 1  # messages in order, from a sequence on
    LATEST = 2  # the newest message of every key


class Question(NamedTuple):
    """The next read; ``sequence`` counts for :attr:`Want.FROM` alone."""

    want: Want
    sequence: int


class Step(enum.Enum):
    """What follows from an answer."""

    MORE = 1  # ask on, at once
    SAME = 2  # read to the end: nothing is new
    CHANGED = 3  # read to the end: the entries are others
    LATER = 4  # not certain yet: ask again after ``pause_s``
    NO_EPOCH = 5  # there is a log, but no store: what is known stays
    TOO_MUCH = 6  # more than is held: what is known stays


class Replica:
    """``entries`` has the newest record of every key that was read completely, deletions included.

    ``(epoch, applied)`` is the revision they are at; ``stamp`` the server's time of the message ``applied``. Ask
    :meth:`question`, read, and give what came to :meth:`answer`, until it says something else than :attr:`Step.MORE`.
    Without an answer: :meth:`abandon`.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.applied = 0
        self.stamp = ""
        self.entries: Mapping[str, Record] = {}
        #: Before the next question, where the answer was :attr:`Step.LATER` (seconds).
        self.pause_s = 0.0
        #: Whether a batch was met whose end was not there yet: look again soon.
        self.waiting = False
        self._doubts = 0
        self._work: _Work | None = None
        self._anew = False

    def restore(self, epoch: int, applied: int, stamp: str, entries: Iterable[Record]) -> None:
        """Begin with what was kept of an earlier time."""
        self.epoch, self.applied, self.stamp = epoch, applied, stamp
        self.entries = {record.key: record for record in entries}
        self.abandon()

    def abandon(self) -> None:
        """Forget what was read of an answer that did not come to its end."""
        self._work = None
        self._anew = False

    def forget(self) -> None:
        """Read everything anew at the next question."""
        self.abandon()
        self._anew = True

    def question(self) -> Question:
        """What to read next."""
        if self._work is not None:
            return Question(Want.FROM, self._work.position + 1)
        if self._anew or self.applied == 0:
            return Question(Want.LATEST, 0)
        return Question(Want.FROM, self.applied)

    def too_many(self) -> None:
        """The newest messages are too many for one answer: read all of the log instead."""
        self._work = _Work({}, whole=True)

    def answer(self, question: Question, records: list[Record], *, more: bool, head: int) -> Step:
        """Go on with what ``question`` brought: in order, ``more`` behind it. ``head`` is up to where the store
        looked."""
        if question.want is Want.LATEST:
            return self._latest(records, head)
        work = self._work
        more = more and bool(records)
        if work is None:
            if not records:
                return self._doubt()
            if records[0].sequence != self.applied or records[0].time != self.stamp:
                self._anew = True
                return Step.MORE
            self._doubts = 0
            records = records[1:]
            work = self._work = _Work(self.entries, whole=False)
            work.last = (self.applied, self.stamp)
            work.position = self.applied
        for record in records:
            work.take(record)
        if work.keys_or_bytes_beyond():
            self.abandon()
            return Step.TOO_MUCH
        return Step.MORE if more else self._end(work)

    def _latest(self, records: list[Record], head: int) -> Step:
        work = _Work({}, whole=True)
        for record in records:
            work.take(record)
        if work.keys_or_bytes_beyond():
            self.abandon()
            return Step.TOO_MUCH
        if work.open and work.open[-1].sequence >= head:
            # What the open batch replaces is not in the answer, so nothing of the answer is of use.
            self.abandon()
            self._anew = True
            self.pause_s = _BATCH_PAUSE_S
            return Step.LATER
        work.close()
        return self._end(work)

    def _end(self, work: _Work) -> Step:
        """The log was read to its end."""
        self.waiting = waiting = bool(work.open)
        self.abandon()
        self.pause_s = _BATCH_PAUSE_S
        if not work.whole:
            if work.renewed:
                self._anew = True
                return Step.MORE
            if not work.changed:
                return Step.LATER if waiting else Step.SAME
            self.entries = work.entries
            self.applied, self.stamp = work.last
            return Step.CHANGED
        if work.epoch == 0:
            return Step.LATER if waiting else Step.NO_EPOCH
        if work.epoch == self.epoch and work.last[0] < self.applied and self._doubts <= DOUBTS:
            return self._doubt()
        same = (work.epoch, *work.last) == (self.epoch, self.applied, self.stamp)
        self._doubts = 0
        self.epoch = work.epoch
        self.applied, self.stamp = work.last
        self.entries = work.entries
        return Step.SAME if same else Step.CHANGED

    def _doubt(self) -> Step:
        """The log ends before what was read of it."""
        self.abandon()
        self._doubts += 1
        self._anew = self._doubts > DOUBTS
        self.pause_s = _DOUBT_PAUSE_S
        return Step.LATER

    def __repr__(self) -> str:
        return f"<Replica {len(self.entries)} keys at {self.epoch}.{self.applied}>"


class _Work:
    """A read that goes on. ``last`` is the message up to which it is complete, ``position`` the last one that
    was seen."""

    def __init__(self, entries: Mapping[str, Record], *, whole: bool) -> None:
        self.before = entries
        #: A copy, as soon as something is new.
        self.entries: dict[str, Record] = {}
        self.whole = whole
        self.changed = False
        #: Whether the store's epoch was written since.
        self.renewed = False
        self.epoch = 0
        self.last = (0, "")
        self.position = 0
        #: Messages of a batch whose last one was not seen yet.
        self.open: list[Record] = []
        self._bytes = 0

    def take(self, record: Record) -> None:
        """The next message."""
        self.position = record.sequence
        if self.open and record.batch != self.open[0].batch:
            # A batch is stored without a gap: where something follows it, its last message is superseded.
            self.close()
        if record.batch and not record.commit:
            self.open.append(record)
            return
        self.close()
        self._fold(record)

    def close(self) -> None:
        """The batch is complete."""
        for record in self.open:
            self._fold(record)
        self.open.clear()

    def _fold(self, record: Record) -> None:
        if not self.changed:
            self.changed = True
            self.entries = dict(self.before)
            self._bytes = sum(each.size for each in self.before.values())
        self.last = (record.sequence, record.time)
        if record.key == EPOCH_KEY:
            self.renewed = True
            self.epoch = _epoch(record.value)
        if record.key.startswith(OWN_PREFIX):
            return
        before = self.entries.get(record.key)
        self._bytes += record.size - (0 if before is None else before.size)
        self.entries[record.key] = record

    def keys_or_bytes_beyond(self) -> bool:
        """Whether it is more than a replica holds."""
        held = self._bytes + sum(record.size for record in self.open)
        return len(self.entries) > MAX_KEYS or held > MAX_TOTAL_BYTES


def _epoch(value: bytes | None) -> int:
    """The epoch that a value says; 0 where it says none."""
    if value is None or not value.isdigit() or len(value) > MAX_EPOCH_DIGITS:
        return 0
    return int(value)

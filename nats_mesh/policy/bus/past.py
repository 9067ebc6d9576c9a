"""The documents of a store as they stood at a past moment, beyond what the store itself keeps. Pure.

Every change has what stood before it, with the store's own instant of that: so a moment is rebuilt backwards, from what
stands now. Of a key that changed since, what stood there then is the ``before`` of the first change after the moment;
of any other key it is what stands there now. Nothing is guessed: where a change was not written down (its author was
killed in between, or used another program), the instants do not fit, and the key is named.

Whoever may publish on the audit may write down a change that was never made. So what the records say of a key must fit
together, and with the store: no two of them are about the same revisions, none is about one that the store has not come
to, and one alone says what stood there at the moment. Where that is not so, the key is named, too.

Rejected: adding up changes from the beginning of the stream. The beginning is dropped sooner or later, and a change
that is missing would go unseen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final

from nats_mesh.audit.records import ChangeRecord, DocumentChange, Stood
from nats_mesh.core.presence import incarnation
from nats_mesh.policy.bus.revisions import Revision, Snapshot, UnknownPastError

__all__ = ["DocumentsAt", "DocumentsThen"]

_SHOWN: Final = 10


class _Seen:
    """What is known of one key."""

    __slots__ = ("before", "change", "claims", "epoch", "high", "last", "last_epoch", "low", "span")

    def __init__(self) -> None:
        #: What stood before the first change after the moment; ``known`` even where that is nothing.
        self.before: Stood | None = None
        self.change = False
        #: What was written last at or before the moment, with who wrote it.
        self.last: Revision | None = None
        self.last_epoch = 0
        #: The changes after the moment, in the epoch of the first of them: from which revision to which, and how many
        #: revisions each of them passes, added up.
        self.epoch = 0
        self.low = self.high = self.span = 0
        #: How many changes say that what was before them stood there at the moment.
        self.claims = 0

    def later(self, change: DocumentChange, epoch: int, moment: str) -> None:
        """A change after the moment."""
        before, number = change.before, change.after.revision
        low = 0 if before is None else before.revision
        if before is not None and before.time and incarnation(before.time) <= moment:
            self.claims += 1
        if not self.change:
            self.change, self.before, self.epoch = True, before, epoch
            self.low, self.high, self.span = low, number, number - low
        elif epoch == self.epoch:  # in another one numbers begin anew
            if low < self.low:  # two operators: the stream may have the later change first
                self.before = before
            self.low, self.high = min(low, self.low), max(number, self.high)
            self.span += number - low

    def fits(self, last: int | None) -> bool:
        """Whether the changes after the moment can all have been made; ``last`` is the store's newest revision, if
        it is of the same epoch."""
        return (
            self.claims <= 1 and 0 < self.span <= self.high - self.low and (last is None or self.high <= last)
        )

    def agrees(self) -> bool:
        """Whether two records that are about what stood at the moment say the same of it."""
        last, before = self.last, self.before
        return (
            last is None
            or before is None
            or self.last_epoch != self.epoch
            or last.sequence != before.revision
            or _same(last.value, before)
        )


class DocumentsThen:
    """Takes in the changes around the instant ``time`` (RFC 3339, UTC), in order, and says what stood there then."""

    def __init__(self, time: str) -> None:
        self._moment = incarnation(time)
        self._seen: dict[str, _Seen] = {}

    def take(self, record: ChangeRecord, time: str) -> None:
        """The next change; ``time`` is when the stream took it."""
        for each in record.documents:
            at = incarnation(each.after.time or time)
            seen = self._seen.get(each.key)
            if seen is None:
                seen = self._seen[each.key] = _Seen()
            if at <= self._moment:
                seen.last, seen.last_epoch = _revision(each.key, each.after, record), record.epoch
            else:
                seen.later(each, record.epoch, self._moment)

    def found(self, now: Snapshot, times: Mapping[str, str]) -> Snapshot:
        """The documents of the moment. ``now`` is what stands now, ``times`` the store's instant of each key's newest
        revision, a deletion's too. :class:`UnknownPastError` names the keys of which it cannot be said."""
        policies: dict[str, Revision] = {}
        lost: list[str] = []
        doubtful: list[str] = []
        for key in sorted({*self._seen, *times, *now.policies}):
            seen = self._seen.get(key)
            if key in times and incarnation(times[key]) <= self._moment:  # the store's own word
                if key in now.policies:
                    policies[key] = now.policies[key]
            elif seen is not None and seen.change:
                last = now.expected.get(key) if seen.epoch == now.epoch else None
                if seen.fits(last) and seen.agrees():
                    self._by_change(key, seen, policies, lost)
                else:
                    doubtful.append(key)  # some of it was never made
            elif key in times:
                lost.append(key)  # it changed since, and that was not written down
            elif seen is not None and seen.last is not None and seen.last.value is not None:
                if seen.last_epoch == now.epoch:
                    doubtful.append(key)  # this very store has never had it
                else:
                    policies[key] = seen.last  # the store knows nothing of it any more: it was made anew
        if lost or doubtful:
            raise _unknown(lost, doubtful)
        sequence = max((each.sequence for each in policies.values()), default=0)
        expected = {key: each.sequence for key, each in policies.items()}
        return Snapshot(epoch=now.epoch, sequence=sequence, policies=policies, expected=expected)

    def _by_change(self, key: str, seen: _Seen, policies: dict[str, Revision], lost: list[str]) -> None:
        before = seen.before
        if before is None:
            return  # nothing had ever stood there
        known = seen.last is not None and seen.last.sequence == before.revision
        if not known and (not before.time or incarnation(before.time) > self._moment):
            lost.append(key)  # what stood before was itself written after the moment, by nobody knows whom
            return
        if before.deleted:
            return
        if known and seen.last is not None and seen.last.value is not None:
            policies[key] = seen.last
        elif before.value is not None:
            policies[key] = Revision(key=key, sequence=before.revision, value=before.value, time=before.time)
        else:
            lost.append(key)  # too large for a record


class _Claim:
    """What records say of one key: ``held`` are the revisions that stood, the one that replaced each, and what it was;
    ``written`` what each revision is said to be."""

    __slots__ = ("held", "written")

    def __init__(self) -> None:
        self.held: list[tuple[int, int, Stood | None]] = []
        self.written: dict[int, list[Revision]] = {}


class DocumentsAt:
    """Takes in the changes of a store that is there, and says what stood under ``keys`` at its revision ``sequence``.

    In one epoch revisions have one order, whatever clocks say: what stood there is what the one change replaced that
    went over the revision. As with moments, records that cannot all be true are not believed.
    """

    def __init__(self, sequence: int, epoch: int, keys: Iterable[str]) -> None:
        self._sequence = sequence
        self._epoch = epoch
        self._claims = {key: _Claim() for key in keys}

    def take(self, record: ChangeRecord) -> None:
        """The next change."""
        if record.epoch != self._epoch:
            return
        for each in record.documents:
            claim = self._claims.get(each.key)
            if claim is None:
                continue
            low = 0 if each.before is None else each.before.revision
            held = (low, each.after.revision, each.before)
            if held not in claim.held:
                claim.held.append(held)
            claim.written.setdefault(each.after.revision, []).append(_revision(each.key, each.after, record))

    def found(self, expected: Mapping[str, int]) -> dict[str, Revision]:
        """What stood there, without what did not; ``expected`` has the store's newest revision of each key.
        :class:`UnknownPastError` names the keys of which it cannot be said."""
        policies: dict[str, Revision] = {}
        lost: list[str] = []
        doubtful: list[str] = []
        for key, claim in sorted(self._claims.items()):
            spans = sorted((low, high) for low, high, _ in claim.held)
            true = all(low < high for low, high in spans)
            true = true and all(one[1] <= other[0] for one, other in pairwise(spans))
            over = [
                (low, before) for low, high, before in claim.held if low <= self._sequence < high and true
            ]
            if not true or (spans and spans[-1][1] > expected.get(key, 0)):
                doubtful.append(key)
            elif not over:
                lost.append(key)
            else:
                ((low, before),) = over
                self._stood(key, before, claim.written.get(low, []), policies, lost, doubtful)
        if lost or doubtful:
            raise _unknown(lost, doubtful)
        return policies

    def _stood(
        self,
        key: str,
        before: Stood | None,
        written: list[Revision],
        policies: dict[str, Revision],
        lost: list[str],
        doubtful: list[str],
    ) -> None:
        if before is None:
            return  # nothing had ever stood there
        if not all(_same(each.value, before) for each in written):
            doubtful.append(key)
        elif before.deleted:
            return
        elif whole := [each for each in written if each.value is not None]:
            policies[key] = whole[0]
        elif before.value is not None:
            policies[key] = Revision(key=key, sequence=before.revision, value=before.value, time=before.time)
        else:
            lost.append(key)  # too large for a record


def _unknown(lost: list[str], doubtful: list[str]) -> UnknownPastError:
    problems = (
        ("changes since then are not in the audit, of: ", lost),
        ("what the audit says cannot all be true, of: ", doubtful),
    )
    text = "; ".join([f"{what}{_listed(keys)}" for what, keys in problems if keys])
    return UnknownPastError(text, sorted([*lost, *doubtful]))


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{', '.join(keys[:_SHOWN])}{more}"


def _same(value: bytes | None, stood: Stood) -> bool:
    """Whether two records can be about the same bytes."""
    if value is None or not stood.omitted:
        return stood.omitted > 0 or value == stood.value
    return len(value) == stood.omitted and hashlib.sha256(value).hexdigest() == stood.sha256


def _revision(key: str, stood: Stood, record: ChangeRecord) -> Revision:
    return Revision(
        key=key,
        sequence=stood.revision,
        value=stood.value,
        time=stood.time,
        operator=record.who,
        message=record.why,
        said_time=record.at,
        change=record.change,
    )

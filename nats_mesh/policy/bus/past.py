"""The documents of a store as they stood at a past moment, beyond what the store itself keeps. Pure.

Every change has what stood before it, with the store's own instant of that: so a moment is rebuilt backwards, from what
stands now. Of a key that changed since, what stood there then is the ``before`` of the first change after the moment;
of any other key it is what stands there now. Nothing is guessed: where a change was not written down (its author was
killed in between, or used another program), the instants do not fit, and the key is named.

Whoever may publish on the audit may write down a change that was never made. So what the records say of a key must fit
together (:mod:`nats_mesh.policy.bus.lines`): no two of them are about the same revisions, and what stood there at the
moment is one thing. Where that is not so, the key is named, too. The store itself is above any record. So of one that
was restored from a backup the past is that of the backup: what came after it, and was lost, is no part of that.

Rejected: adding up changes from the beginning of the stream. The beginning is dropped sooner or later, and a change
that is missing would go unseen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final

from nats_mesh.audit.records import ChangeRecord, Stood
from nats_mesh.core.presence import incarnation
from nats_mesh.policy.bus.lines import Step, of_line, settled, step_of
from nats_mesh.policy.bus.revisions import Revision, Snapshot, UnknownPastError

__all__ = ["DocumentsAt", "DocumentsThen"]

_SHOWN: Final = 10


class _Seen:
    """What is known of one key."""

    __slots__ = ("last", "steps")

    def __init__(self) -> None:
        #: The changes after the moment, in the stream's order, each once.
        self.steps: dict[Step, None] = {}
        #: By epoch, what was written last at or before the moment, with who wrote it.
        self.last: dict[int, Revision] = {}

    def newest(self) -> Revision | None:
        """What the stream has as written last, in whichever epoch."""
        return next(reversed(self.last.values()), None)


class _Then:
    """What is found of the keys: what stood there, what nobody knows any more, and what is not believed."""

    __slots__ = ("doubtful", "lost", "policies")

    def __init__(self) -> None:
        self.policies: dict[str, Revision] = {}
        self.lost: list[str] = []
        self.doubtful: list[str] = []

    def check(self) -> None:
        """:class:`UnknownPastError` where there are keys of which it cannot be said."""
        problems = (
            ("changes since then are not in the audit, of: ", self.lost),
            ("what the audit says cannot all be true, of: ", self.doubtful),
        )
        text = "; ".join([f"{what}{_listed(keys)}" for what, keys in problems if keys])
        if text:
            raise UnknownPastError(text, sorted([*self.lost, *self.doubtful]))


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
                seen.last.pop(record.epoch, None)  # the newest comes last
                seen.last[record.epoch] = _revision(each.key, each.after, record)
            else:
                seen.steps[step_of(each, record.epoch, self._moment)] = None

    def found(self, now: Snapshot, times: Mapping[str, str]) -> Snapshot:
        """The documents of the moment. ``now`` is what stands now, ``times`` the store's instant of each key's newest
        revision, a deletion's too. :class:`UnknownPastError` names the keys of which it cannot be said."""
        then = _Then()
        for key in sorted({*self._seen, *times, *now.policies}):
            seen = self._seen.get(key)
            if key in times and incarnation(times[key]) <= self._moment:  # the store's own word
                if key in now.policies:
                    then.policies[key] = now.policies[key]
            elif seen is not None and seen.steps:
                self._by_steps(key, seen, now, times.get(key), then)
            elif key in times:
                then.lost.append(key)  # it changed since, and that was not written down
            elif seen is not None:
                last = seen.newest()
                if last is not None and last.value is not None:
                    if now.epoch in seen.last:
                        then.doubtful.append(key)  # this very store has never had it
                    else:
                        then.policies[key] = last  # the store knows nothing of it any more: it was made anew
        then.check()
        sequence = max((each.sequence for each in then.policies.values()), default=0)
        expected = {key: each.sequence for key, each in then.policies.items()}
        return Snapshot(epoch=now.epoch, sequence=sequence, policies=then.policies, expected=expected)

    def _by_steps(self, key: str, seen: _Seen, now: Snapshot, time: str | None, then: _Then) -> None:
        """Of a key that changed after the moment; ``time`` is when the store has it from, where it has it."""
        first = next(iter(seen.steps)).epoch
        line = [] if time is None else of_line(seen.steps, key, time, now)
        # Where this epoch began after the moment, the store may have been made anew in between. Then it has no past of
        # its own, but the one before it had.
        anew = not now.began_time or incarnation(now.began_time) > self._moment
        if anew and first != now.epoch and (time is None or (line and all(each.low == 0 for each in line))):
            line = [each for each in seen.steps if each.epoch == first]
        elif time is None:
            then.doubtful.append(key)  # this very store has never had it
            return
        elif not line:
            then.lost.append(key)  # what was written down is not how the store came to what it is
            return
        step = settled(line)
        if step is None:
            then.doubtful.append(key)  # some of it was never made
            return
        last = seen.last.get(step.epoch)
        if last is not None and time is not None and last.sequence > now.expected.get(key, 0):
            last = None  # lost when the store was restored
        if last is not None and last.sequence > step.low:
            then.doubtful.append(key)  # it had been replaced by then
        elif step.low == 0 and anew and any(each.value is not None for each in seen.last.values()):
            then.doubtful.append(key)  # in the store before this one something stood there
        elif step.low:
            self._by_change(key, step, last, then)

    def _by_change(self, key: str, step: Step, last: Revision | None, then: _Then) -> None:
        before = step.before
        known = last is not None and last.sequence == step.low
        if before is None or not (known or step.stood):
            then.lost.append(key)  # it was itself written after the moment, by nobody knows whom
        elif known and last is not None and not _same(last.value, before):
            then.doubtful.append(key)
        elif before.deleted:
            return
        elif known and last is not None and last.value is not None:
            then.policies[key] = last
        elif before.value is not None:
            then.policies[key] = _untold(key, before)
        else:
            then.lost.append(key)  # too large for a record


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
        then = _Then()
        for key, claim in sorted(self._claims.items()):
            spans = sorted((low, high) for low, high, _ in claim.held)
            true = all(low < high for low, high in spans)
            true = true and all(one[1] <= other[0] for one, other in pairwise(spans))
            over = [
                (low, before) for low, high, before in claim.held if low <= self._sequence < high and true
            ]
            if not true or (spans and spans[-1][1] > expected.get(key, 0)):
                then.doubtful.append(key)
            elif not over:
                then.lost.append(key)
            else:
                ((low, before),) = over
                self._stood(key, before, claim.written.get(low, []), then)
        then.check()
        return then.policies

    def _stood(self, key: str, before: Stood | None, written: list[Revision], then: _Then) -> None:
        if before is None:
            return  # nothing had ever stood there
        if not all(_same(each.value, before) for each in written):
            then.doubtful.append(key)
        elif before.deleted:
            return
        elif whole := [each for each in written if each.value is not None]:
            then.policies[key] = whole[0]
        elif before.value is not None:
            then.policies[key] = _untold(key, before)
        else:
            then.lost.append(key)  # too large for a record


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{', '.join(keys[:_SHOWN])}{more}"


def _same(value: bytes | None, stood: Stood) -> bool:
    """Whether two records can be about the same bytes."""
    if value is None or not stood.omitted:
        return stood.omitted > 0 or value == stood.value
    return len(value) == stood.omitted and hashlib.sha256(value).hexdigest() == stood.sha256


def _untold(key: str, stood: Stood) -> Revision:
    """What stood there, by whom is not known."""
    return Revision(key=key, sequence=stood.revision, value=stood.value, time=stood.time)


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

"""The documents of a store as they stood at a past moment, beyond what the store itself keeps. Pure.

Every change has what stood before it, with the store's own instant of that: so a moment is rebuilt backwards, from what
stands now. Of a key that changed since, what stood there then is the ``before`` of the first change after the moment;
of any other key it is what stands there now. Nothing is guessed: where a change was not written down (its author was
killed in between, or used another program), the instants do not fit, and the key is named.

Rejected: adding up changes from the beginning of the stream. The beginning is dropped sooner or later, and a change
that is missing would go unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from nats_mesh.audit.records import ChangeRecord, Stood
from nats_mesh.core.presence import incarnation
from nats_mesh.policy.bus.revisions import Revision, Snapshot, UnknownPastError

__all__ = ["DocumentsThen"]

_SHOWN: Final = 10


class _Seen:
    """What is known of one key."""

    __slots__ = ("before", "change", "last")

    def __init__(self) -> None:
        #: What stood before the first change after the moment; ``known`` even where that is nothing.
        self.before: Stood | None = None
        self.change = False
        #: What was written last at or before the moment, with who wrote it.
        self.last: Revision | None = None


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
                seen.last = _revision(each.key, each.after, record)
            elif not seen.change:
                seen.change = True
                seen.before = each.before

    def found(self, now: Snapshot, times: Mapping[str, str]) -> Snapshot:
        """The documents of the moment. ``now`` is what stands now, ``times`` the store's instant of each key's newest
        revision, a deletion's too. :class:`UnknownPastError` names the keys of which it cannot be said."""
        policies: dict[str, Revision] = {}
        lost: list[str] = []
        for key in sorted({*self._seen, *times, *now.policies}):
            seen = self._seen.get(key)
            if seen is not None and seen.change:
                self._by_change(key, seen, policies, lost)
            elif key in times and incarnation(times[key]) <= self._moment:
                if key in now.policies:
                    policies[key] = now.policies[key]
            elif key in times:
                lost.append(key)  # it changed since, and that was not written down
            elif seen is not None and seen.last is not None and seen.last.value is not None:
                policies[key] = seen.last  # the store knows nothing of it any more: it was made anew
        if lost:
            more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
            raise UnknownPastError(
                f"changes since then are not in the audit, of: {', '.join(lost[:_SHOWN])}{more}", lost
            )
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

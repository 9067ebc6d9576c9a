"""Who was there at a past moment, out of the signs of life that were recorded.

Each instance leaves a sign when it joins, changes and leaves, and now and then in between; each sign promises within
what time the next one comes. All times are one clock's, that of whoever kept the signs, so they can be compared.

Whoever looks back knows more than an observer of that moment did: the signs that came afterwards. An instance that
gave one later was there, even if a few were lost in between; one that never did is known to have ended. Hence the
words: ``THERE`` is what a later sign confirms (or what no sign is overdue for), ``SUSPECT`` what kept its last
promise but was never heard again, or is overdue with too little heard since to tell. What ended is not listed.

Rejected: replaying the live registry over the signs. It judges by what an observer can know at the time, so it would
list a killed instance as ready for minutes; and it would need every sign from the beginning, where this needs those
around the moment alone: each sign stands for itself.
"""

from __future__ import annotations

import enum
from typing import Final, Generic, TypeVar

import msgspec

__all__ = ["LOST", "Found", "Past", "Presence", "Sign"]

#: How many signs in a row may be lost before silence means an end; as many beats as observers allow for.
LOST: Final = 2
_ALLOWED: Final = LOST + 1.0

Value = TypeVar("Value")


class Presence(enum.StrEnum):
    """How sure it is that an instance was there."""

    THERE = "there"
    SUSPECT = "suspect"


class Sign(msgspec.Struct, frozen=True, kw_only=True):
    """One sign of an instance, given ``at``. ``start``: it joined; ``end``: it left; else it was there all the same.

    ``within_s``: the next one comes no later than that. ``incarnation`` tells one start of an id from another.
    """

    at: float
    within_s: float
    incarnation: str = ""
    start: bool = False
    end: bool = False


class Found(msgspec.Struct, Generic[Value], frozen=True, kw_only=True):
    """An instance that was there. ``value`` came with the sign that speaks for it, which was given at ``heard``: before
    the moment, or after it where nothing older is kept."""

    key: tuple[str, str]
    value: Value
    heard: float
    presence: Presence


class _Seen(msgspec.Struct, Generic[Value]):
    last: Sign | None = None
    value: Value | None = None
    next: Sign | None = None
    next_value: Value | None = None


class Past(Generic[Value]):
    """Collects the signs around ``moment``, and says who was there then.

    Give it, in order, every sign from :data:`LOST` + 1 promises before the moment on; ``since`` is since when signs
    are kept at all. It keeps two of each instance.
    """

    def __init__(self, moment: float, since: float) -> None:
        if moment < since:
            raise ValueError("nothing is kept of that moment")
        self._moment = moment
        self._since = since
        self._seen: dict[tuple[str, str], _Seen[Value]] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def take(self, key: tuple[str, str], sign: Sign, value: Value) -> None:
        """The next sign: that of the instance ``key`` (its service and its id)."""
        seen = self._seen.get(key)
        if seen is None:
            self._seen[key] = seen = _Seen()
        if sign.at <= self._moment:
            seen.last, seen.value = sign, value
        elif seen.next is None:
            seen.next, seen.next_value = sign, value

    def found(self, horizon: float) -> list[Found[Value]]:
        """Who was there, ordered by key. ``horizon`` is until when signs were taken: none is missing before it."""
        found: list[Found[Value]] = []
        for key in sorted(self._seen):
            seen = self._seen[key]
            judged = self._judge(seen, horizon)
            if judged is None:
                continue
            sign, value, presence = judged
            found.append(Found(key=key, value=value, heard=sign.at, presence=presence))
        return found

    def _judge(self, seen: _Seen[Value], horizon: float) -> tuple[Sign, Value, Presence] | None:
        last, following = seen.last, seen.next
        if last is None or seen.value is None:
            return self._judge_later(seen)
        if last.end:
            return None
        silent = self._moment - last.at
        allowed = _ALLOWED * last.within_s
        heard_again = (
            following is not None and not following.start and following.incarnation == last.incarnation
        )
        if heard_again and following is not None:
            if silent <= last.within_s or following.at - last.at <= allowed:
                return last, seen.value, Presence.THERE
            return (last, seen.value, Presence.SUSPECT) if silent <= allowed else None
        # Nothing came from it any more, or another start of the same id: it is known since when it is overdue.
        known = (horizon if following is None else following.at) - last.at
        if known <= last.within_s:
            return last, seen.value, Presence.THERE
        if silent <= last.within_s or (following is None and known <= allowed):
            return last, seen.value, Presence.SUSPECT
        return None

    def _judge_later(self, seen: _Seen[Value]) -> tuple[Sign, Value, Presence] | None:
        """Of an instance without an earlier sign: had it not been there, it would have joined first."""
        following, value = seen.next, seen.next_value
        if following is None or value is None or following.start:
            return None
        if self._moment < max(self._since, following.at - _ALLOWED * following.within_s):
            return None
        return following, value, Presence.THERE

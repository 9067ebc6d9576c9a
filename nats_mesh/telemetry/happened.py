"""The last events of a mesh, as an observer keeps them: each once, in order, and of no service at the cost of others.

Pure. Rejected: to keep the latest by when they were said to be. That is what members say: one whose clock is a year
ahead would be all that is seen.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Final

from nats_mesh.telemetry.events import Event

__all__ = ["Happened", "lately"]

_AT: Final = attrgetter("at")


class Happened:
    """At most ``most`` events by when they were, the oldest first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._events: list[Event] = []
        #: How many of them are of each service.
        self._of: Counter[str] = Counter()
        self._seen: OrderedDict[tuple[str, str, int, str, str], None] = OrderedDict()

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    def __len__(self) -> int:
        return len(self._events)

    def take(self, event: Event) -> bool:
        """Keep an event; false where it came already."""
        # What happened is in it, too: a number that was made up hides nothing.
        key = (event.service, event.instance, event.seq, event.at, event.kind)
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > 4 * self._most:
            self._seen.popitem(last=False)
        insort(self._events, event, key=_AT)
        self._of[event.service] += 1
        if len(self._events) > self._most:
            self._forget()
        return True

    def _forget(self) -> None:
        """The oldest goes; but where one service has told of more than half of all, the oldest of these: who tells of
        much, or of what is yet to come, hides nothing of others."""
        service, count = self._of.most_common(1)[0]
        at = 0
        if count > self._most // 2:
            at = next(at for at, each in enumerate(self._events) if each.service == service)
        gone = self._events.pop(at)
        self._of[gone.service] -= 1
        if not self._of[gone.service]:
            del self._of[gone.service]


def lately(events: Sequence[Event], most: int) -> Sequence[Event]:
    """The last ``most`` of some, with the same shares."""
    if len(events) <= most:
        return events
    kept = Happened(most)
    for each in events:
        kept.take(each)
    return list(kept)

"""Whether the fleet thinks that an instance is bad: so many different callers said so, lately.

One caller's word may be about itself, its network, or its own mistakes; it never suffices, and repeating it
changes nothing. When enough callers agree, that is said once and their words are used up: what follows
from it (an ejection, a drain) has its own time, and another agreement needs new words.

Rejected: a vote among a known number of callers (a majority). Nobody knows how many callers there are, and those
that do not call the instance have nothing to say about it.
"""

from __future__ import annotations

from collections import OrderedDict

from nats_mesh.core.rules import VerdictRules

__all__ = ["Verdicts"]


class Verdicts:
    """What callers said about instances within the last ``window_s``; instants are monotonic seconds of the hearer.

    Of one instance there are never more words than an agreement needs, as it uses them up. Beyond ``limit``
    instances the one not heard of for longest is forgotten; ``evicted`` counts those of which a word was still valid.
    """

    __slots__ = ("_heard", "_limit", "_needed", "_window_s", "evicted")

    def __init__(self, rules: VerdictRules, *, limit: int = 1024) -> None:
        self._needed = rules.callers
        self._window_s = rules.window_s
        self._limit = limit
        #: By instance: when each caller last spoke, the oldest first.
        self._heard: OrderedDict[str, OrderedDict[str, float]] = OrderedDict()
        self.evicted = 0

    def hear(self, instance: str, caller: str, now: float) -> bool:
        """``caller`` says that ``instance`` is bad. True at the moment when enough of them agree."""
        words = self._heard.get(instance)
        if words is None:
            words = self._heard[instance] = OrderedDict()
            self._make_room(now)
        else:
            self._heard.move_to_end(instance)
        words[caller] = now
        words.move_to_end(caller)
        self._expire(words, now)
        if len(words) < self._needed:
            return False
        del self._heard[instance]
        return True

    def withdraw(self, instance: str, caller: str) -> None:
        """``caller`` takes back what it said; nothing happens where it said nothing."""
        words = self._heard.get(instance)
        if words is not None and words.pop(caller, None) is not None and not words:
            del self._heard[instance]

    def forget(self, instance: str) -> None:
        """It is gone for good."""
        self._heard.pop(instance, None)

    def callers(self, instance: str, now: float) -> list[str]:
        """Who said lately that it is bad, and was not used up; the oldest word first."""
        words = self._heard.get(instance)
        if words is None:
            return []
        return [caller for caller, at in words.items() if now - at <= self._window_s]

    def __len__(self) -> int:
        return len(self._heard)

    def _expire(self, words: OrderedDict[str, float], now: float) -> None:
        while now - next(iter(words.values())) > self._window_s:
            words.popitem(last=False)

    def _make_room(self, now: float) -> None:
        """Forget instances of which the last word is too old, then the one not heard of for longest."""
        while True:
            words = next(iter(self._heard.values()))
            valid = not words or now - next(reversed(words.values())) <= self._window_s
            if valid and len(self._heard) <= self._limit:
                return
            self._heard.popitem(last=False)
            self.evicted += valid

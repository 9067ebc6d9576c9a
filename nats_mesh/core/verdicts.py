"""Whether the fleet thinks that an instance, or an endpoint, is bad: so many different callers said so, lately. And
whether an instance that is thought bad may go.

One caller's word may be about itself, its network, or its own mistakes; it never suffices, and repeating it
changes nothing. A caller may have many replicas: each connection keeps and takes back its own word, and what is
counted are the callers' different names. When enough callers agree, that is said once and their words are used up:
what follows from it (an ejection, a drain, an open circuit) has its own time, and another agreement needs new words.

An agreement is about one instance, and may be about each of them: a database that is down makes all look bad. So
an instance steps aside only where others serve, and no more of them at a time than ejection takes out, which
is the bound that one caller keeps by itself (Envoy's ``max_ejection_percent``).

Rejected: a vote among a known number of callers (a majority). Nobody knows how many callers there are, and those
that do not call the instance have nothing to say about it. Also rejected: to have the instances agree on who may go.
It needs rounds of messages where presence already says who is there, and two that go at the same moment see it, too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final

from nats_mesh.core.rules import BreakerVerdictRules, VerdictRules

__all__ = ["MAX_CONNECTIONS", "Verdicts", "must_return", "why_stay"]

#: Connections of one caller whose words about one instance are kept; beyond that its oldest word goes. It counts once
#: all the same: only where all these take theirs back the caller is not counted, though another had not.
MAX_CONNECTIONS: Final = 16
#: 0.29 × 100 is a little less than 29.
_ROUNDING: Final = 1e-9


class _Words:
    """What is said of one instance: when each connection last said it, the oldest first, and how many speak for
    each caller."""

    __slots__ = ("at", "by")

    def __init__(self) -> None:
        self.at: OrderedDict[tuple[str, str], float] = OrderedDict()
        self.by: dict[str, int] = {}

    def add(self, caller: str, connection: str, now: float) -> None:
        key = (caller, connection)
        if key not in self.at:
            count = self.by.get(caller, 0)
            if count >= MAX_CONNECTIONS:
                self.drop(next(each for each in self.at if each[0] == caller))
                count -= 1
            self.by[caller] = count + 1
        self.at[key] = now
        self.at.move_to_end(key)

    def drop(self, key: tuple[str, str]) -> None:
        if self.at.pop(key, None) is None:
            return
        caller = key[0]
        if self.by[caller] > 1:
            self.by[caller] -= 1
        else:
            del self.by[caller]

    def expire(self, before: float) -> None:
        """Drop what was said earlier than that."""
        while self.at:
            key, at = next(iter(self.at.items()))
            if at >= before:
                return
            self.drop(key)


class Verdicts:
    """What callers said about instances within the last ``window_s``; instants are monotonic seconds of the hearer.
    Of an endpoint it is the same, by its name.

    Of one instance there are never words of more callers than an agreement needs, as it uses them up, and of each no
    more than :data:`MAX_CONNECTIONS`. Beyond ``limit`` instances the one not heard of for longest is forgotten: who
    asks about those it knows alone, and forgets those that are gone, never gets there.
    """

    __slots__ = ("_heard", "_limit", "_needed", "_window_s")

    def __init__(self, rules: VerdictRules | BreakerVerdictRules, *, limit: int = 1024) -> None:
        self._needed = rules.callers
        self._window_s = rules.window_s
        self._limit = limit
        #: By instance, the one not heard of for longest first.
        self._heard: OrderedDict[str, _Words] = OrderedDict()

    def hear(self, instance: str, caller: str, connection: str, now: float) -> Sequence[str]:
        """``caller`` says on ``connection`` that ``instance`` is bad.

        At the moment when enough callers agree the answer is their names, the oldest word first; else it is empty.
        """
        words = self._heard.get(instance)
        if words is None:
            words = self._heard[instance] = _Words()
        else:
            self._heard.move_to_end(instance)
        words.add(caller, connection, now)
        words.expire(now - self._window_s)
        self._make_room(now)
        if len(words.by) < self._needed:
            return ()
        del self._heard[instance]
        return list(dict.fromkeys([caller for caller, _ in words.at]))

    def withdraw(self, instance: str, caller: str, connection: str) -> None:
        """``caller`` takes back what it said on ``connection``; nothing happens where it said nothing there."""
        words = self._heard.get(instance)
        if words is not None:
            words.drop((caller, connection))
            if not words.at:
                del self._heard[instance]

    def forget(self, instance: str) -> None:
        """It is gone for good."""
        self._heard.pop(instance, None)

    def __len__(self) -> int:
        return len(self._heard)

    def _make_room(self, now: float) -> None:
        """Forget instances of which the last word is too old, then the one not heard of for longest."""
        while True:
            words = next(iter(self._heard.values()))
            words.expire(now - self._window_s)
            if words.at and len(self._heard) <= self._limit:
                return
            self._heard.popitem(last=False)


def _most_aside(count: int, max_ratio: float) -> int:
    """How many of ``count`` instances may stand aside: their share, at least one, but never all."""
    return min(count - 1, max(1, int(count * max_ratio + _ROUNDING)))


def why_stay(serving: int, aside: int, max_ratio: float) -> str:
    """Why an instance must not step aside; empty where it may.

    Beside it ``serving`` other instances take calls and ``aside`` others do not, as far as it has heard.
    """
    if serving == 0:
        return "nobody else serves"
    count = serving + aside + 1
    most = _most_aside(count, max_ratio)
    if aside >= most:
        return f"{aside} of {count} stand aside already, and no more than {most} may"
    return ""


def must_return(instance: str, serving: int, aside: Collection[str], max_ratio: float) -> str:
    """Why ``instance``, which stands aside, must serve again before its time; empty where it need not.

    The arguments are as for :func:`why_stay`, ``aside`` the others' ids. Where several went at the same moment and
    are too many now, the last by id are those that return: all of them see the same.
    """
    if serving == 0:
        return "nobody else serves"
    most = _most_aside(serving + len(aside) + 1, max_ratio)
    before = sum([each < instance for each in aside])
    return "" if before < most else f"no more than {most} may stand aside, and {len(aside)} others do"

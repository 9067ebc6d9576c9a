"""Who is told of an instance's calls: what each observer asks for, in a bounded number of places.

An observer is known by its name, which the server vouches for where credentials are enforced, and by the inbox it
makes up. Names therefore share the places, not inboxes: whoever makes up many gets no more of them than
:data:`MAX_OF_A_NAME`, gives some back where a name with fewer asks, and has what is beyond put together in one wish of
its own. Where every place has another name, whoever comes beyond is put together with all like it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from nats_mesh.core.envelope import sampled
from nats_mesh.core.tap_filter import Tappable
from nats_mesh.telemetry.tap_messages import MAX_PLACES, Wish, together

__all__ = ["BURST_S", "MAX_OF_A_NAME", "Held", "Places"]

#: How many of them have one name: people with the same credentials, and the terminals of each.
MAX_OF_A_NAME: Final = 8
#: A burst may be this long at the full rate (seconds).
BURST_S: Final = 0.5
#: Whose wish all those beyond the table are; no observer is called so.
_OTHERS: Final = ""
#: Behind a name: all of that name that have no place of their own. No subject has a blank.
_REST: Final = " "


class Held:
    """An observer's wish, for as long as its lease runs (``until``, monotonic seconds)."""

    __slots__ = ("_filled", "_left", "key", "name", "shared", "until", "wish", "written")

    def __init__(
        self, key: str, name: str, wish: Wish, until: float, now: float, *, shared: bool = False
    ) -> None:
        self.key = key
        self.name = name
        #: Whether it is that of several, put together: all of a name that have no place of their own, or all others.
        self.shared = shared
        self.wish = wish
        self.until = until
        #: Whether it is written down that this observer sees bodies.
        self.written = False
        self._left = max(1.0, wish.rate * BURST_S)
        self._filled = now

    def renew(self, wish: Wish, until: float) -> None:
        """The lease goes on, maybe with another wish."""
        if wish != self.wish:
            self.written = False
            self.wish = wish
        self.until = until

    def wants(self, call: Tappable, trace: str) -> bool:
        """Whether the observer has asked for this call."""
        return sampled(trace, self.wish.sample) and self.wish.only.admits(call)

    def take(self, now: float) -> bool:
        """Whether there is room for one more call in what it asked for a second."""
        rate = self.wish.rate
        self._left = min(max(1.0, rate * BURST_S), self._left + max(0.0, now - self._filled) * rate)
        self._filled = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Places:
    """The wishes of at most :data:`MAX_PLACES` observers, and of all others together."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held.values())

    @property
    def crowded(self) -> dict[str, int]:
        """How many places each name has, where one more name has none for itself; else empty."""
        return dict(self._by_name()) if _OTHERS in self._held else {}

    def put(self, observer: str, wish: Wish, until: float, now: float) -> None:
        """An observer asks for this until then: its name, and behind a point what tells it from others of that name."""
        name = observer.partition(".")[0]
        key = observer if observer in self._held else self._place(observer, name, now)
        held = self._held.get(key)
        if held is None:
            shared = key != observer
            self._held[key] = Held(
                key,
                _OTHERS if key == _OTHERS else name,
                together([wish]) if shared else wish,
                until,
                now,
                shared=shared,
            )
        else:
            held.renew(together([held.wish, wish]) if held.shared else wish, until)

    def _place(self, observer: str, name: str, now: float) -> str:
        """The key under which there is room for an observer that has no place yet."""
        mine, rest = self._of(name), name + _REST
        count = len(mine) + (rest in self._held)
        full = len(self._held) - (_OTHERS in self._held) >= MAX_PLACES
        if count < MAX_OF_A_NAME and not full:
            return observer
        if rest in self._held:
            return rest
        if count < MAX_OF_A_NAME and self._make_room(count, now):
            return observer
        if not mine:
            return _OTHERS
        # One place of this name becomes that of all its others: there are no more of them than before.
        self._join(mine[-1:], rest, now)
        return rest

    def _make_room(self, mine: int, now: float) -> bool:
        """Take a place from the name that has the most, if it keeps no fewer than whoever asks then has."""
        name, count = self._by_name().most_common(1)[0]
        if count < mine + 2:
            return False
        rest = name + _REST
        # The latest ones: who makes up observers to take all places came after those who are there.
        self._join(self._of(name)[-1 if rest in self._held else -2 :], rest, now)
        return True

    def _join(self, several: list[Held], rest: str, now: float) -> None:
        """Put wishes together in the one of all of that name that have no place of their own."""
        there = self._held.get(rest)
        wishes = [held.wish for held in several] + ([] if there is None else [there.wish])
        until = max(held.until for held in several)
        for held in several:
            del self._held[held.key]
        if there is None:
            self._held[rest] = Held(rest, several[0].name, together(wishes), until, now, shared=True)
        else:
            there.renew(together(wishes), max(until, there.until))

    def _of(self, name: str) -> list[Held]:
        """The observers of a name that have a place of their own, as they came."""
        return [held for held in self if held.name == name and not held.shared]

    def _by_name(self) -> Counter[str]:
        """How many places each name has."""
        return Counter(held.name for held in self if held.key != _OTHERS)

    def forget(self, now: float) -> None:
        """Whose lease is over is gone."""
        self._held = {key: held for key, held in self._held.items() if held.until > now}

    def clear(self) -> None:
        """Nobody wants anything any more."""
        self._held.clear()

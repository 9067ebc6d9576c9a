"""Who is told of calls that have ended, by name: the same list at who makes calls and at who answers them."""

from __future__ import annotations

import math
from typing import Generic, TypeVar

from nats_mesh.telemetry.notes import Notes

__all__ = ["Watchers"]

W = TypeVar("W")


class Watchers(Generic[W]):
    """The watchers of one side; what a watcher is told, and when a call is notable, the side itself knows.

    Rejected: one class for both sides. What they ask of a call is asked on its path, and would cost another call there.
    """

    __slots__ = ("_every", "_notable", "_readers", "_rest", "notes", "slow_s")

    def __init__(self) -> None:
        self._every: dict[str, W] = {}
        self._notable: dict[str, tuple[W, float, Notes | None]] = {}
        self._readers: set[str] = set()
        #: Who is told of notable calls besides the one who gave ``notes``.
        self._rest: dict[str, W] = {}
        #: Where sampled calls of which there is nothing else to say leave their spans; ``None``: they are told.
        self.notes: Notes | None = None
        #: From how many seconds on a call is notable for its time alone.
        self.slow_s = math.inf

    def set(
        self,
        name: str,
        watcher: W | None,
        *,
        every: bool = True,
        slow_s: float = math.inf,
        notes: Notes | None = None,
        own_calls: bool = False,
    ) -> None:
        """Have ``watcher`` told from now on, in the place of who was called ``name``; ``None``: nobody any more.

        Unless it is to hear of ``every`` call: of those whose trace is sampled, that did not end well, or that took
        ``slow_s`` seconds and more. It costs the others next to nothing. Where several ask, each hears what any asked
        for. Who gives ``notes`` finds the spans of sampled calls there of which there is nothing else to say, and is
        not told of them, as long as nobody else gives some. ``own_calls``: whether it reads which calls a handler made,
        of every call. A call that is being told is told to who was there before.
        """
        # New tables, in the place of those that somebody may be going through: a watcher may set others while it is
        # told.
        self._every = {each: told for each, told in self._every.items() if each != name}
        self._notable = {each: told for each, told in self._notable.items() if each != name}
        if watcher is not None and every:
            self._every[name] = watcher
        elif watcher is not None:
            self._notable[name] = (watcher, slow_s, notes)
        self.slow_s = min((each for _, each, _ in self._notable.values()), default=math.inf)
        takers = [each for _, _, each in self._notable.values() if each is not None]
        self.notes = takers[0] if len(takers) == 1 else None
        self._rest = {name: each for name, (each, _, notes) in self._notable.items() if notes is None}
        self._readers.discard(name)
        if watcher is not None and own_calls:
            self._readers.add(name)
        self._settle()

    def _settle(self) -> None:
        """Others are told from now on: a side draws from it what it asks of calls on their path."""

    @property
    def names(self) -> frozenset[str]:
        """Who is told of any calls."""
        return frozenset((*self._every, *self._notable))

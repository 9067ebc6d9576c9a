"""What one instance remembers of calls with a key: in bounded space, for a bounded time.

A plain cache would drop what is oldest. Here that would let a handler run twice within the time that was promised,
so whatever nobody else knows stays, and a new key is refused where there is no room for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

from nats_mesh.core.duplicates import Kept, State

__all__ = ["REMEMBERED", "REMEMBERED_BYTES", "REMEMBERED_S", "Entry", "Memory"]

#: So many keys, so many bytes of replies, for so many seconds.
REMEMBERED = 65_536
REMEMBERED_BYTES = 16 << 20
REMEMBERED_S = 120.0


class Entry:
    """One key in the memory of an instance.

    ``spare``: forgetting it early does no harm, because the store knows it too or running again is harmless.
    """

    __slots__ = ("kept", "name", "request", "spare", "state", "until")

    def __init__(self, name: str, request: str, *, spare: bool) -> None:
        self.name = name
        self.request = request
        self.spare = spare
        self.state = State.RUNNING
        self.kept: Kept | None = None
        #: When it is forgotten (monotonic seconds), once it no longer runs.
        self.until = 0.0


E = TypeVar("E", bound=Entry)


class Memory(Generic[E]):
    """The keys an instance remembers, in bounded space and time.

    What runs is never forgotten, and what is over for ``ttl_s`` seconds. Where there is no room, the oldest of
    those that are ``spare`` goes; where none is, the new key is refused, because forgetting would let a handler
    run twice within the time that was promised. Beyond ``limit_bytes`` the oldest replies go and the fact stays.
    """

    def __init__(
        self,
        *,
        limit: int = REMEMBERED,
        limit_bytes: int = REMEMBERED_BYTES,
        ttl_s: float = REMEMBERED_S,
    ) -> None:
        #: How many bytes of replies are kept; how many keys and replies went before their time.
        self.bytes = 0
        self.forgotten = 0
        self.stripped = 0
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._ttl_s = ttl_s
        self._entries: dict[str, E] = {}
        #: Of those that are over, by name, oldest first: all, the spare ones, those with a reply.
        self._over: OrderedDict[str, E] = OrderedDict()
        self._spare: OrderedDict[str, E] = OrderedDict()
        self._bodies: OrderedDict[str, E] = OrderedDict()

    def find(self, name: str, now: float) -> E | None:
        """What is remembered under ``name``."""
        self._expire(now)
        return self._entries.get(name)

    def add(self, entry: E, now: float) -> float | None:
        """Remember ``entry``, which runs from now on; where there is no room, the seconds until there may be."""
        self._expire(now)
        if len(self._entries) >= self._limit:
            if not self._spare:
                first = next(iter(self._over.values()), None)
                if first is None:
                    return 1.0
                # The difference is rounded, and nothing is remembered for longer than was promised.
                return min(self._ttl_s, max(0.0, first.until - now))
            self.drop(next(iter(self._spare.values())))
            self.forgotten += 1
        self._entries[entry.name] = entry
        return None

    def settle(self, entry: E, state: State, kept: Kept | None, now: float) -> None:
        """It is over, with the reply ``kept`` where there is one: remembered for the time that was promised."""
        if self._entries.get(entry.name) is not entry or entry.state is not State.RUNNING:
            return
        entry.state, entry.kept, entry.until = state, kept, now + self._ttl_s
        self._over[entry.name] = entry
        if entry.spare:
            self._spare[entry.name] = entry
        if kept is not None:
            self._bodies[entry.name] = entry
            self.bytes += kept.size
            while self.bytes > self._limit_bytes:
                self._strip(next(iter(self._bodies.values())))

    def _strip(self, entry: E) -> None:
        if entry.spare:
            self.drop(entry)
            self.forgotten += 1
            return
        self._without_body(entry)
        entry.kept = None
        self.stripped += 1

    def _without_body(self, entry: E) -> None:
        if self._bodies.pop(entry.name, None) is not None and entry.kept is not None:
            self.bytes -= entry.kept.size

    def drop(self, entry: E) -> None:
        """Forget it: it never ran, or it may run again."""
        if self._entries.get(entry.name) is not entry:
            return
        del self._entries[entry.name]
        self._over.pop(entry.name, None)
        self._spare.pop(entry.name, None)
        self._without_body(entry)

    def _expire(self, now: float) -> None:
        while self._over:
            first = next(iter(self._over.values()))
            if first.until > now:
                return
            self.drop(first)

    def __iter__(self) -> Iterator[E]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return (
            f"<Memory {len(self)} keys, {self.bytes} bytes of replies; "
            f"{self.forgotten} keys and {self.stripped} replies forgotten before their time>"
        )

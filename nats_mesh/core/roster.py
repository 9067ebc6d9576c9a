"""Who ought to be there, out of the signs of life that were recorded: the newest of each instance speaks for it.

A sign promises within what time the next one comes. An instance whose promise still holds is there, as far as anybody
can know who did not listen; one that said goodbye is not. One whose promise is over may have lost that sign alone, so
it counts for as long again as an observer of beats would wait for it in silence, and no longer: whoever goes by beats
has dropped it by then, too.

Rejected: the allowance of :mod:`nats_mesh.core.past` (three promises), which looks back and can wait for later signs
to tell. Here somebody waits for the answer, and an instance that was killed would be waited for during minutes.
"""

from __future__ import annotations

from typing import Final, Generic, NamedTuple, TypeVar

from nats_mesh.core.past import Sign

__all__ = ["MAX_ENTRIES", "Due", "Roster"]

#: Instances that are told apart; where there are more, ``more`` says so.
MAX_ENTRIES: Final = 20_000

Value = TypeVar("Value")
Key = tuple[str, str]


class Due(NamedTuple, Generic[Value]):
    """An instance that ought to be there: its service and id, what came with its last sign, and how old that is
    (seconds)."""

    key: Key
    value: Value
    silent_s: float


class Roster(Generic[Value]):
    """Takes signs in the order in which they were given. ``longest_s`` is the longest promise that was met."""

    def __init__(self, most: int = MAX_ENTRIES) -> None:
        self.longest_s = 0.0
        self.more = False
        self._most = most
        self._last: dict[Key, tuple[Sign, Value]] = {}

    def __len__(self) -> int:
        return len(self._last)

    def take(self, key: Key, sign: Sign, value: Value) -> None:
        """The next sign: that of the instance ``key`` (its service and its id)."""
        self.longest_s = max(self.longest_s, sign.within_s)
        if sign.end:
            self._last.pop(key, None)
        elif key in self._last or len(self._last) < self._most:
            self._last[key] = sign, value
        else:
            self.more = True

    def sizes(self) -> dict[str, int]:
        """How many instances each service has, by its name."""
        found: dict[str, int] = {}
        for service, _ in self._last:
            found[service] = found.get(service, 0) + 1
        return found

    def due(self, now: float, patience_s: dict[str, float]) -> list[Due[Value]]:
        """Who ought to be there at ``now`` (on the clock of the signs), by key. ``patience_s``: for how long observers
        of a service keep an instance that is silent."""
        found = []
        for key in sorted(self._last):
            sign, value = self._last[key]
            if now - sign.at <= sign.within_s + patience_s.get(key[0], 0.0):
                found.append(Due(key, value, max(0.0, now - sign.at)))
        return found

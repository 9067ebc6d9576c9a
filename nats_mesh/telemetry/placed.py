"""Which services have rows of their own in a view: a bounded number, of which nobody names too many. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

__all__ = ["Placed"]


class Placed:
    """At most ``most`` names. The members of one service name half as many beside their own: whoever calls what is not
    there, or is called by it, as it says, takes no row from a service that is."""

    def __init__(self, most: int) -> None:
        self._most = most
        #: By the service whose members named it first, or which is its own.
        self._by: dict[str, str] = {}
        self._named: Counter[str] = Counter()

    @property
    def full(self) -> bool:
        """Whether there is no room for one more."""
        return len(self._by) >= self._most

    def take(self, name: str, by: str) -> bool:
        """Whether ``name`` has a row, where members of the service ``by`` tell of it."""
        before = self._by.get(name)
        if before is None:
            if self.full or (by != name and self._named[by] >= self._most // 2):
                return False
        elif before == by or by != name:
            return True
        else:  # it is there itself, whoever named it before
            self._let_go(before)
        self._by[name] = by
        if by != name:
            self._named[by] += 1
        return True

    def keep(self, used: Collection[str]) -> None:
        """Forget every name that is not one of ``used``."""
        for name in [name for name in self._by if name not in used]:
            by = self._by.pop(name)
            if by != name:
                self._let_go(by)

    def _let_go(self, by: str) -> None:
        self._named[by] -= 1
        if not self._named[by]:
            del self._named[by]

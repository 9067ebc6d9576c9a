"""Which version answered the calls that a caller counts: known when its numbers are read, and at no cost before.

A caller counts by service and endpoint. Who was there when the numbers were read, and when they were read before, says
which version all calls between went to, where that was one and the same both times. During a rollout nobody can tell:
those calls have no version.

Rejected: to count by the version that the reply names. It is exact, and costs every call the reading of a header and a
table of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

__all__ = ["Destinations"]

_UNKNOWN: Final = ""
#: How many versions the calls of one series may have in a process's life; those of more have none.
_MAX_VERSIONS: Final = 32
#: Whatever tells the calls of one series apart: its status and its flags.
_Ending: TypeAlias = tuple[str, str]


class Destinations:
    """The calls that one source made, by version. A number that was once given to a version stays there."""

    __slots__ = ("_counts", "_only")

    def __init__(self) -> None:
        #: The version that all instances of a service were of, when numbers were read last.
        self._only: dict[str, str] = {}
        self._counts: dict[tuple[int, _Ending], dict[str, int]] = {}

    def look(self, services: set[str], versions: Callable[[str], set[str]]) -> dict[str, str]:
        """Numbers are about to be read: the version that their new calls went to, by service."""
        found = {}
        for service in services:
            there = versions(service)
            only = next(iter(there)) if len(there) == 1 else _UNKNOWN
            found[service] = only if self._only.get(service, only) == only else _UNKNOWN
            self._only[service] = only
        return found

    def split(self, series: int, ending: _Ending, count: int, version: str) -> Iterator[tuple[str, int]]:
        """All calls of a series (by its identity) that ended so, by version; those that are new are of ``version``."""
        known = self._counts.setdefault((series, ending), {})
        new = count - sum(known.values())
        if new > 0:
            if version not in known and len(known) >= _MAX_VERSIONS:
                version = _UNKNOWN
            known[version] = known.get(version, 0) + new
        yield from known.items()

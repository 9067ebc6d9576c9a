"""What members tell of policies that they apply, put together: one line a revision, and not one of each member."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Final

import anyio

from nats_mesh.telemetry.events import Event
from nats_mesh_cli.demo.events import Events
from nats_mesh_cli.demo.state import Mark
from nats_mesh_cli.output import counted

__all__ = ["GATHER_S", "MAX_REVISIONS", "AppliedNews", "Gathering"]

#: How long the others are waited for once the first member has told (seconds).
GATHER_S: Final = 2.0
#: Of how many revisions it is known who has told; of an older one whoever comes late counts alone.
MAX_REVISIONS: Final = 64
_MAX_MEMBERS: Final = 1000

_Member = tuple[str, str]


class _Told:
    __slots__ = ("due", "members", "what")

    def __init__(self, what: str) -> None:
        self.what = what
        self.members: set[_Member] = set()
        #: When it is to be told; ``None`` where it is told already.
        self.due: float | None = None


class Gathering:
    """Gathers, by revision, which members have applied it. Pure; instants are seconds of one clock."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}

    def heard(self, event: Event, now: float) -> None:
        """A member (service and instance of ``event``) has applied policies."""
        told = self._told.get(event.target)
        if told is None:
            if len(self._told) >= MAX_REVISIONS:
                del self._told[next(iter(self._told))]
            told = self._told[event.target] = _Told(event.detail)
        if len(told.members) < _MAX_MEMBERS:
            told.members.add((event.service, event.instance))
        if told.due is None:
            told.due = now + GATHER_S

    def wait_s(self, now: float) -> float:
        """In how many seconds there is something to tell, whoever has not been heard by then; infinite: never."""
        dues = [told.due for told in self._told.values() if told.due is not None]
        return max(0.0, min(dues) - now) if dues else math.inf

    def due(self, members: Collection[_Member], now: float) -> list[str]:
        """What is to be told now: of what all ``members`` have applied at once, of the rest when its time has come."""
        found = []
        for revision, told in self._told.items():
            if told.due is None or (now < told.due and not told.members.issuperset(members)):
                continue
            told.due = None
            every = told.members.union(members)
            what = f": {told.what}" if told.what else ""
            found.append(
                f"policies of {revision} are in effect at {len(told.members)} of {counted(len(every), 'member')}{what}"
            )
        return found


class AppliedNews:
    """Notes each revision among the ``events`` once, as long as :meth:`run` runs: when all of ``members()`` have
    applied it, or whoever has not takes too long."""

    def __init__(
        self, events: Events, members: Callable[[], Collection[_Member]], now: Callable[[], float]
    ) -> None:
        self._events = events
        self._members = members
        self._now = now
        self._gathering = Gathering()
        self._news = anyio.Event()

    def heard(self, event: Event) -> None:
        """A member has applied policies."""
        self._gathering.heard(event, self._now())
        self._news.set()

    def tell(self, now: float) -> None:
        """Note what is due at ``now``."""
        for text in self._gathering.due(self._members(), now):
            self._events.add(Mark.CHANGE, text, "policy")

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            self.tell(self._now())
            with anyio.move_on_after(self._gathering.wait_s(self._now())):
                await self._news.wait()
            self._news = anyio.Event()

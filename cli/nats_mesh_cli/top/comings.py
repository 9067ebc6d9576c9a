"""Who came, went or fell silent, as events: nobody tells of these, so they are seen by comparing. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from nats_mesh.core.presence import incarnation
from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.telemetry.snapshots import Member

__all__ = ["MAX_EVENTS", "Comings"]

#: How many such events are remembered.
MAX_EVENTS: Final = 200


class Comings:
    """Compares members with those seen before. Whoever is there at the first look has come when it says it started."""

    def __init__(self, namespace: str) -> None:
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._namespace = namespace
        self._before: dict[tuple[str, str], Member] | None = None
        self._introduced = False
        self._seq = 0

    def take(self, members: Sequence[Member], at: str, *, sure: bool = True) -> None:
        """The members now, at an instant of wall time. Not ``sure``: it is not known yet who was there before."""
        now = {(each.service, each.id): each for each in members if each.kind == "instance"}
        before, self._before = self._before, now
        if not sure:
            return
        if not self._introduced:
            self._introduced = True
            began = sorted(now.values(), key=lambda each: incarnation(each.started or " "))
            for member in began:
                if member.started:
                    self._tell(EventKind.INSTANCE_JOINED, member, member.started)
            return
        assert before is not None
        for key, member in now.items():
            old = before.get(key)
            if old is None:
                self._tell(EventKind.INSTANCE_JOINED, member, member.started or at)
            elif old.state != member.state and "suspect" in (old.state, member.state):
                silent = member.state == "suspect"
                self._tell(EventKind.INSTANCE_SUSPECT if silent else EventKind.INSTANCE_ALIVE, member, at)
        for key, member in before.items():
            if key not in now:
                self._tell(EventKind.INSTANCE_GONE, member, at)

    def _tell(self, kind: EventKind, member: Member, at: str) -> None:
        self._seq += 1
        self.events.append(
            Event(
                kind=kind.value,
                at=at,
                service=member.service,
                instance=member.id,
                namespace=self._namespace,
                seq=self._seq,
                target=member.service,
                detail=f"{member.name}, version {member.version}",
            )
        )

"""Who came, went or fell silent, as events: nobody tells of these, so they are seen by comparing. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nats_mesh.clock import rfc3339
from nats_mesh.core.presence import incarnation
from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.happened import Happened
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.telemetry.snapshots import Member
from nats_mesh_cli.output import age
from nats_mesh_cli.silent import SILENT
from nats_mesh_cli.top.words import clock

__all__ = ["MAX_EVENTS", "Comings"]

#: How many such events are remembered of who came, and how many of who fell silent, went and is back: a fleet that
#: starts takes no room from one that dies. Nor do the instances that one service makes up, from those of others.
MAX_EVENTS: Final = 200
#: The states of those who are not heard as they promised.
_QUIET: Final = frozenset({"suspect", SILENT})


class Comings:
    """Compares members with those seen before. Whoever is there at the first look has come when it says it started."""

    def __init__(self, namespace: str) -> None:
        self._came = Happened(MAX_EVENTS)
        self._troubled = Happened(MAX_EVENTS)
        self._namespace = namespace
        self._before: dict[tuple[str, str], Member] | None = None
        #: When each of the last that went was heard last (wall time, seconds).
        self._gone: dict[tuple[str, str], float] = {}
        self._looked_s = 0.0
        self._introduced = False
        self._seq = 0

    @property
    def events(self) -> list[Event]:
        """Everything that is remembered, in the order in which it was noticed."""
        return sorted([*self._came, *self._troubled], key=lambda each: each.seq)

    def take(self, members: Sequence[Member], wall_s: float, *, sure: bool = True) -> None:
        """The members now, at an instant of wall time. Not ``sure``: it is not known yet who was there before."""
        now = {(each.service, each.id): each for each in members if each.kind == "instance"}
        before, self._before = self._before, now
        looked_s, self._looked_s = self._looked_s, wall_s
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
        at = rfc3339(wall_s)
        for key, member in now.items():
            old = before.get(key)
            if old is None:
                heard_s = self._gone.pop(key, None)
                if member.state == SILENT:
                    self._tell(EventKind.INSTANCE_SUSPECT, member, at, ": connected, and answers nothing")
                elif heard_s is None:
                    self._tell(EventKind.INSTANCE_JOINED, member, member.started or at)
                else:  # when it started says nothing: it went after that
                    silent = age(max(0.0, wall_s - heard_s))
                    self._tell(
                        EventKind.INSTANCE_ALIVE, member, at, f", is back: it was not heard for {silent}"
                    )
            elif (old.state in _QUIET) != (member.state in _QUIET):
                if member.state in _QUIET:
                    last = _last_heard(wall_s - member.heard_s)
                    self._tell(EventKind.INSTANCE_SUSPECT, member, at, f", it has fallen silent, {last}")
                else:
                    self._tell(EventKind.INSTANCE_ALIVE, member, at)
        for key, member in before.items():
            if key not in now:
                heard_s = looked_s - member.heard_s
                self._tell(EventKind.INSTANCE_GONE, member, at, f", {_last_heard(heard_s)}")
                if len(self._gone) >= MAX_EVENTS:
                    del self._gone[next(iter(self._gone))]
                self._gone[key] = heard_s

    def _tell(self, kind: EventKind, member: Member, at: str, more: str = "") -> None:
        self._seq += 1
        (self._came if kind is EventKind.INSTANCE_JOINED else self._troubled).take(
            Event(
                kind=kind.value,
                at=at,
                service=member.service,
                instance=member.id,
                namespace=self._namespace,
                seq=self._seq,
                target=member.service,
                detail=f"{member.name}, version {member.version}{more}",
            )
        )


def _last_heard(wall_s: float) -> str:
    return f"last heard at {clock(rfc3339(wall_s))} UTC"

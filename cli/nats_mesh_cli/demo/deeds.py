"""What was done to the demo's mesh while it ran, by whoever tries it: that is no problem of the mesh, nor is what comes
of it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

import msgspec

from nats_mesh.core.members import Change, Instance
from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh_cli.demo.fleet import ServiceProcess
from nats_mesh_cli.demo.silences import Silences, silence_text

__all__ = ["Before", "Deeds", "ended_from_outside", "how_it_ended"]

#: Further ones are counted.
_MAX_TOLD: Final = 50
#: As many as the watch knows.
_MAX_MEMBERS: Final = 1000
#: Who sends SIGKILL.
_OTHERS: Final = "by somebody else: a person, or the kernel for want of memory"
_SIGNALS: Final = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
#: What changes who is counted where: an instance that drains refuses, a route copies and repeats.
_MOVES_CALLS: Final = frozenset(
    (
        EventKind.INSTANCE_DRAINING,
        EventKind.INSTANCE_UNDRAINED,
        EventKind.POLICY_APPLIED,
        EventKind.CONFIG_APPLIED,
    )
)
_DEEDS: Final = _MOVES_CALLS | {EventKind.FAULT_SET, EventKind.LIMIT_CHANGED}


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """What had gone wrong before anything was done: pages, and the services that had failed calls."""

    failed: int = 0
    degraded: int = 0
    services: frozenset[str] = frozenset()


def ended_from_outside(status: int | None) -> bool:
    """Whether a process that ended with ``status`` was told to, or killed by a signal that people send; a service that
    obeys SIGTERM ends with 0."""
    return status is not None and (status == 0 or -status in _SIGNALS)


class Deeds:
    """Takes note of what was done, each once. ``look`` is asked, at the first, what had gone wrong by then."""

    def __init__(self, look: Callable[[], Before]) -> None:
        self.before: Before | None = None
        #: Whether callers and instances still count the same calls.
        self.comparable = True
        self.silences = Silences()
        self._look = look
        #: Words, and which members told of it (service and id); a number stands for the silence of this place.
        self._told: dict[str | int, set[tuple[str, str]]] = {}
        self._more = 0

    def heard(self, event: Event) -> bool:
        """A member tells of something; whether somebody did that."""
        if event.kind not in _DEEDS:
            return False
        kind = EventKind(event.kind)
        if kind is EventKind.POLICY_APPLIED:
            # Who comes later applies all of a revision at once, and tells that: it is the same one.
            what = f"policies were applied: {event.target}"
            text = next((each for each in self._told if isinstance(each, str) and _is_of(each, what)), what)
            if text == what and event.detail:
                text = f"{what}, {event.detail}"
        elif kind is EventKind.CONFIG_APPLIED:
            text = f"{event.service} was configured: {event.detail}"
        elif kind is EventKind.FAULT_SET:
            text = f"a fault was injected into {event.target} {event.detail}"
        elif kind is EventKind.LIMIT_CHANGED:
            text = f"a limit of {event.target} was changed: {event.detail}"
        else:
            word = "drained" if kind is EventKind.INSTANCE_DRAINING else "told to take calls again"
            text = f"{event.service} {event.instance[:8]} was {word}: {event.detail}"
        self._note(text, (event.service, event.instance))
        self.comparable = self.comparable and kind not in _MOVES_CALLS
        return True

    def ended(self, process: ServiceProcess, now: float) -> None:
        """A process has ended: that is a deed where somebody ended it."""
        self.silences.ended(str(process.child.pid), now)
        if ended_from_outside(process.child.returncode):
            self._note(how_it_ended(process))

    def stopped(self, instance: Instance, now: float) -> None:
        """The process of an instance was stopped by a signal."""
        if self.silences.stopped(instance, now):
            self._silent(deed=True)

    def presence(self, change: Change, now: float, *, stopped: bool | None) -> None:
        """Presence tells of an instance; ``stopped`` as in :class:`Silence`. The silence of one that nobody had stopped
        is no deed."""
        if self.silences.presence(change, now, stopped=stopped):
            self._silent(deed=stopped is not False)

    def _silent(self, *, deed: bool) -> None:
        self.comparable = False  # what it was sent meanwhile may never have been read
        if deed:
            self._note(len(self.silences.all) - 1)

    def _note(self, text: str | int, member: tuple[str, str] | None = None) -> None:
        if self.before is None:
            self.before = self._look()
        known = self._told.get(text)
        if known is None:
            if len(self._told) >= _MAX_TOLD:
                self._more += 1
                return
            known = self._told[text] = set()
        if member is not None and len(known) < _MAX_MEMBERS:
            known.add(member)

    @property
    def all(self) -> tuple[str, ...]:
        """All of it in words, in the order in which it was done."""
        silences = self.silences.all
        texts = [silence_text(silences[key]) if isinstance(key, int) else key for key in self._told]
        more = self._more + self.silences.more
        return (
            *[
                f"{text}{_members_text(len(members))}"
                for text, members in zip(texts, self._told.values(), strict=True)
            ],
            *((f"and {more} more",) if more else ()),
        )

    @property
    def hangs(self) -> tuple[str, ...]:
        """Silences that were nobody's deed, in words."""
        return tuple(silence_text(each) for each in self.silences.all if each.stopped is False)


def _is_of(told: str, what: str) -> bool:
    """Whether this was told of the same, with whatever words behind it."""
    return told == what or told.startswith(f"{what}, ")


def _members_text(count: int) -> str:
    if count < 2:
        return ""
    return f" (at {'at least ' if count >= _MAX_MEMBERS else ''}{count} members)"


def how_it_ended(process: ServiceProcess) -> str:
    """What happened to a process that somebody ended, who was not the demo."""
    return f"{process.name} (pid {process.child.pid}) was {_how(process.child.returncode)}"


def _how(status: int | None) -> str:
    if not status:
        return "told to stop"
    killed = f"killed by signal {-status}"
    # No command of the mesh sends signals; which of the two it was nobody can tell by the status.
    return f"{killed} ({_OTHERS})" if -status == signal.SIGKILL else killed

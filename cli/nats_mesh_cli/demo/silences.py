"""Which instances were silent while the demo ran, for how long, and whether they came back. Pure.

Two tell of it. The system knows at once when a process of the demo is stopped by a signal, and when it goes on, to a
tenth of a second. Presence knows of everybody, but only after two missed beats, and no cause: what it tells of an
instance that nobody had stopped is a hang, and no deed.
"""

from __future__ import annotations

from typing import Final

import msgspec

from nats_mesh.core.members import Change, ChangeKind, Instance, Reason
from nats_mesh_cli.output import millis

__all__ = ["MAX_SILENCES", "Silence", "Silences", "pid_of", "silence_text", "who"]

#: Further ones are counted in :attr:`Silences.more`.
MAX_SILENCES: Final = 50


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """One time for which an instance did not answer, in seconds.

    ``stopped``: its process was stopped by a signal (SIGSTOP); ``None`` where nobody can say. ``back``: it answers
    again; where it does not, ``ended`` says whether its process ended meanwhile.
    """

    service: str
    version: str
    instance: str
    host_pid: str
    silent_s: float
    stopped: bool | None
    back: bool = False
    ended: bool = False


class _Silent:
    __slots__ = ("back", "began", "ended", "instance", "stopped", "until")

    def __init__(self, instance: Instance, began: float, stopped: bool | None) -> None:
        self.instance = instance
        self.began = began
        self.stopped = stopped
        #: When it was over; ``None`` while it lasts.
        self.until: float | None = None
        self.back = self.ended = False

    def over(self, now: float, *, back: bool = False, ended: bool = False) -> None:
        self.until, self.back, self.ended = now, back, ended

    def told(self) -> Silence:
        until = self.began if self.until is None else self.until
        return Silence(
            service=self.instance.service,
            version=self.instance.version,
            instance=self.instance.id,
            host_pid=self.instance.name,
            silent_s=round(max(0.0, until - self.began), 3),
            stopped=self.stopped,
            back=self.back,
            ended=self.ended,
        )


class Silences:
    """Takes note of silences. All instants are seconds of one monotonic clock, the registry's."""

    def __init__(self) -> None:
        self.more = 0
        self._all: list[_Silent] = []
        self._last: dict[tuple[str, str], _Silent] = {}

    def stopped(self, instance: Instance, now: float) -> bool:
        """The process of an instance was stopped by a signal; whether that begins a silence."""
        last = self._last.get((instance.service, instance.id))
        if last is not None and last.until is None:
            return False
        return self._begin(instance, now, stopped=True)

    def goes_on(self, pid: str, now: float) -> None:
        """The process of this id goes on."""
        self._over(pid, now, back=True)

    def ended(self, pid: str, now: float) -> None:
        """The process of this id has ended."""
        self._over(pid, now, ended=True)

    def presence(self, change: Change, now: float, *, stopped: bool | None) -> bool:
        """What presence tells of an instance that is not known to have ended; whether that begins a silence.

        ``stopped``: as in :class:`Silence`, at this moment.
        """
        instance = change.instance
        last = self._last.get((instance.service, instance.id))
        lasting = last is not None and last.until is None
        if change.kind is ChangeKind.SUSPECT or (
            change.kind is ChangeKind.GONE and change.reason is Reason.MISSED
        ):
            # The beat that tells that it is back may come after the system has said so.
            if lasting or (last is not None and last.until is not None and last.until >= instance.seen):
                return False
            return self._begin(instance, instance.seen, stopped=stopped)
        if lasting and last is not None and not last.stopped:  # else the system says when it goes on
            if change.kind is ChangeKind.GONE and change.reason is Reason.REPLACED:
                last.over(now, ended=True)
            else:  # it was heard
                last.over(now, back=True)
        return False

    def over(self, now: float) -> None:
        """The demo ends: whoever is silent was so until now."""
        for each in self._all:
            if each.until is None:
                each.over(now)

    @property
    def all(self) -> tuple[Silence, ...]:
        """All of them, in the order in which they were noticed; see :meth:`over`."""
        return tuple(each.told() for each in self._all)

    @property
    def lasting(self) -> frozenset[tuple[str, str]]:
        """Who is silent now: service and id."""
        return frozenset(key for key, each in self._last.items() if each.until is None)

    def _begin(self, instance: Instance, began: float, *, stopped: bool | None) -> bool:
        if len(self._all) >= MAX_SILENCES:
            self.more += 1
            return False
        silent = self._last[instance.service, instance.id] = _Silent(instance, began, stopped)
        self._all.append(silent)
        return True

    def _over(self, pid: str, now: float, *, back: bool = False, ended: bool = False) -> None:
        for each in self._last.values():
            if each.until is None and pid_of(each.instance) == pid:
                each.over(now, back=back, ended=ended)


def pid_of(instance: Instance) -> str:
    """The process of an instance, by its display name."""
    return _pid(instance.name)


def _pid(host_pid: str) -> str:
    return host_pid.rpartition("-")[2]


def who(instance: Instance) -> str:
    """An instance in words; on one machine a process id says which it is."""
    return _who(instance.service, instance.version, instance.name)


def _who(service: str, version: str, host_pid: str) -> str:
    return f"{service} {version} (pid {_pid(host_pid)})"


def silence_text(silence: Silence) -> str:
    """One of them in words."""
    named = _who(silence.service, silence.version, silence.host_pid)
    lasted = millis(silence.silent_s)
    if silence.stopped:
        text = f"{named} was frozen (stopped by a signal): it did not answer for {lasted}"
    elif silence.stopped is None:
        text = f"{named} did not answer for {lasted}"
    else:
        text = f"{named} did not answer for {lasted}, though nothing had stopped it"
    end = (
        "then it came back"
        if silence.back
        else "until it ended"
        if silence.ended
        else "and did not come back"
    )
    return f"{text}, {end}"

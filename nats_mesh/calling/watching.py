"""Who is told of the calls that a client makes, once each has ended: logs, spans, and whatever else observes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from nats_mesh.context import Context
from nats_mesh.errors import Status
from nats_mesh.model import Request
from nats_mesh.telemetry.watchers import Watchers

__all__ = ["AttemptEnd", "CallEnd", "CallWatcher", "Watching"]

log = logging.getLogger("nats_mesh.client")


class AttemptEnd(NamedTuple):
    """One attempt of a call: the trace and the span that its request said (as in a ``traceparent``), when it was sent
    and when it was over (monotonic seconds), how, and which instance answered (empty: none did, or it is not known).

    Of a hedged call it is the attempt that decided; how many others there were is in :attr:`CallEnd.sent`.
    """

    ids: str
    start: float
    end: float
    status: Status
    instance: str
    #: Why it was never sent, where its caller's circuit refused it.
    refused: str = ""


class CallEnd(NamedTuple):
    """A call that is over, as its caller saw it. Instants are monotonic seconds.

    ``attempts`` are those that were written to the bus, in order, and one after them that a circuit refused; ``sent``
    counts hedges, too. ``error`` is what the caller gets, ``None`` where that is a value. ``bytes_out`` and
    ``bytes_in`` are those of the payloads.
    """

    #: The :class:`~nats_mesh.calling.exchange.Target`, which knows this module: compiled, its type is not there yet.
    known: Any
    request: Request
    parent: Context | None
    sampled: bool
    attempts: list[AttemptEnd]
    sent: int
    status: Status
    error: BaseException | None
    start: float
    end: float
    bytes_out: int
    bytes_in: int
    #: Why the mesh itself ended it (:mod:`nats_mesh.telemetry.flags`); mostly empty.
    flags: str = ""

    @property
    def delayed_s(self) -> float:
        """How long a route held it back on purpose (seconds)."""
        effects = self.known.effects
        if effects is None or effects.fault is None or "DI" not in self.flags:
            return 0.0
        return min(float(effects.fault.delay_s), self.end - self.start)


#: Is told of a call that has ended, in the caller's own task: must be quick, and does not raise.
CallWatcher: TypeAlias = Callable[[CallEnd], None]


class Watching(Watchers[CallWatcher]):
    """The watchers of one client, by name. While there is none, no call is asked anything."""

    __slots__ = ("notable", "rest", "tell")

    def __init__(self) -> None:
        super().__init__()
        #: What tells whoever wants to hear of every call, of the notable ones, and of those notable ones that were
        #: noted; ``None``: there is nobody.
        self.tell: CallWatcher | None = None
        self.notable: CallWatcher | None = None
        self.rest: CallWatcher | None = None

    def _settle(self) -> None:
        self.tell = self._tell_every if self._every else None
        self.notable = self._tell_notable if self._notable else None
        self.rest = self._tell_rest if self._rest else None

    def _tell_every(self, call: CallEnd) -> None:
        for name, watcher in self._every.items():
            _tell(name, watcher, call)

    def _tell_notable(self, call: CallEnd) -> None:
        for name, (watcher, _, _) in self._notable.items():
            _tell(name, watcher, call)

    def _tell_rest(self, call: CallEnd) -> None:
        for name, watcher in self._rest.items():
            _tell(name, watcher, call)


def _tell(name: str, watcher: CallWatcher, call: CallEnd) -> None:
    try:
        watcher(call)
    # Whoever observes must not change what a caller gets, whatever is wrong with it.
    except Exception:
        log.exception("a call could not be told to %s", name)

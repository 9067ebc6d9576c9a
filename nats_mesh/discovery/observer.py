"""Watching presence: for the command line, for views, for callers that depend on a service."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from nats_mesh.clock import Clock
from nats_mesh.core.presence import Announcement
from nats_mesh.core.registry import STALL_S, Change, Registry
from nats_mesh.discovery.messages import decode
from nats_mesh.errors import CodecError
from nats_mesh.wire.loop import Timer, call_later
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects, reply_allowed
from nats_mesh.wire.transport import Transport

__all__ = ["Observer"]

log = logging.getLogger("nats_mesh.presence")


class Observer:
    """Keeps a :class:`Registry` true while it is open. ``on_change`` gets every change, in order, and
    ``on_heard`` the id of whoever was heard, after the changes that this made.

    One timer serves all instances. It stands at the next instant at which the registry has something to do, so
    how often it fires is the registry's ``tick_s``; where it comes late, this process was away.
    ``ignored`` counts messages that were not believed: no inbox of their publisher, or no announcement.
    """

    def __init__(
        self,
        *,
        subjects: Subjects,
        transport: Transport,
        mux: ReplyMux,
        clock: Clock,
        service: str = "*",
        enforced: bool = False,
        on_change: Callable[[Change], None] | None = None,
        on_heard: Callable[[str], None] | None = None,
        registry: Registry | None = None,
    ) -> None:
        self.registry = registry if registry is not None else Registry()
        self.ignored = 0
        self._subjects = subjects
        self._transport = transport
        self._mux = mux
        self._now = clock.monotonic
        self._enforced = enforced
        self._on_change = on_change
        self._on_heard = on_heard
        self._timer: Timer | None = None
        self._due = 0.0
        self._subscription = transport.subscribe(subjects.presence_of(service), self._on_presence)
        self._service = service
        transport.add_listener(self)

    def _on_presence(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        parts = subject.split(".")
        if len(parts) != 5 or not reply_allowed(reply, parts[3], enforced=self._enforced):
            self.ignored += 1
            return
        try:
            announcement = decode(
                payload, service=parts[3], instance=parts[4], namespace=self._subjects.namespace
            )
        except CodecError as error:
            self.ignored += 1
            log.debug("%s: %s", subject, error)
            return
        self.take(announcement)

    def take(self, announcement: Announcement) -> None:
        """What an instance says of itself, under a name that is checked."""
        self._taken(self.registry.apply(announcement, self._now()), announcement)

    def hearsay(self, announcement: Announcement) -> None:
        """What answered a question of whoever opened the observer: anybody may have."""
        self._taken(self.registry.hearsay(announcement, self._now()), announcement)

    def _taken(self, changes: Sequence[Change], announcement: Announcement) -> None:
        self._report(changes)
        if self._on_heard is not None:
            self._on_heard(announcement.instance)
        self._schedule()

    def _report(self, changes: Sequence[Change]) -> None:
        if self._on_change is not None:
            for change in changes:
                self._on_change(change)

    def _schedule(self) -> None:
        now = self._now()
        due = self.registry.next_due(now)
        if due is None or (self._timer is not None and due >= self._due):
            return
        if self._timer is not None:  # somebody promised to be heard sooner
            self._timer.cancel()
        self._due = due
        self._timer = call_later(max(0.0, due - now), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._now()
        self._report(self.registry.tick(now, stalled=now - self._due > STALL_S))
        self._schedule()

    def on_disconnect(self, reason: str) -> None:
        """Silence says nothing while the bus is away."""
        self.registry.suspend()

    def on_reconnect(self) -> None:
        """Everyone gets one more interval to be heard."""
        self.registry.resume(self._now())
        self._schedule()

    def on_denied(self, operation: str, subject: str) -> None:
        """Whoever opened the observer learns it from the fence."""

    def close(self) -> None:
        """Stop watching; the registry stays as it is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.remove_listener(self)
        self._transport.unsubscribe(self._subscription)

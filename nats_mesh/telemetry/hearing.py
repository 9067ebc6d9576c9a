"""From messages to what an observer knows: read, believed or not, and folded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nats_mesh.core.members import Change, ChangeKind
from nats_mesh.core.presence import Kind
from nats_mesh.discovery.announced import announced
from nats_mesh.discovery.observer import Observer
from nats_mesh.discovery.services_replies import parse_ping
from nats_mesh.errors import CodecError
from nats_mesh.telemetry.events import Event, decode_event, decode_recent
from nats_mesh.telemetry.folding import Fold, Gone
from nats_mesh.telemetry.stats_messages import decode_stats
from nats_mesh.wire.vouching import member_of

__all__ = ["Hearing"]


class Hearing:
    """Takes what comes from the bus into ``fold``; of ``services`` alone, where some are named. ``on_news`` is called
    for what a snapshot would show, ``on_happened`` with each event, once, ``on_joined`` when an instance has come."""

    def __init__(
        self,
        fold: Fold,
        *,
        services: Sequence[str],
        enforced: bool,
        now: Callable[[], float],
        on_news: Callable[[], None],
        on_happened: Callable[[Event], None] = lambda _: None,
        on_joined: Callable[[], None] = lambda: None,
    ) -> None:
        self._fold = fold
        self._namespace = fold.namespace
        self._services = services
        self._enforced = enforced
        self._now = now
        self._on_news = on_news
        self._on_happened = on_happened
        self._on_joined = on_joined
        #: Who follows presence; ``None`` while nobody does.
        self.observer: Observer | None = None
        #: Of instances that presence knows, and that there is room for: their services by their ids.
        self._service_of: dict[str, str] = {}

    def on_stats(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """Statistics of a member."""
        named = self._named(subject, reply)
        if named is None:
            return
        try:
            message = decode_stats(payload, service=named[0], instance=named[1], namespace=self._namespace)
        except CodecError:
            self._fold.ignored += 1
            return
        if not self._services or named[0] in self._services:
            self._took(self._fold.apply(message, self._now()))

    def on_event(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """Something has happened to a member."""
        named = self._named(subject, reply)
        if named is None:
            return
        try:
            event = decode_event(payload, service=named[0], instance=named[1], namespace=self._namespace)
        except CodecError:
            self._fold.ignored += 1
            return
        self._happened(event)

    def _happened(self, event: Event) -> None:
        if self._fold.apply(event, self._now()):
            self._on_happened(event)
            self._on_news()

    def _named(self, subject: str, reply: str) -> tuple[str, str] | None:
        """Whose subject it is; ``None`` where the message is not its publisher's."""
        whose = member_of(subject, reply, enforced=self._enforced)
        if whose is None:
            self._fold.ignored += 1
        return whose

    def on_recent(self, payload: bytes) -> None:
        """What a member remembers of events."""
        try:
            events = decode_recent(payload, namespace=self._namespace)
        except CodecError:
            self._fold.ignored += 1
            return
        for event in events:
            self._happened(event)

    def on_ping(self, payload: bytes) -> None:
        """Who answers a question is there; foreign services have no presence, and are not shown."""
        try:
            announcement = announced(Kind.BEAT, parse_ping(payload))
        except CodecError:
            self._fold.ignored += 1
            return
        if announcement is not None and announcement.namespace == self._namespace and self.observer:
            self.observer.hearsay(announcement)

    def on_heard(self, instance: str) -> None:
        """Presence has a word of somebody: what the registry makes of it is taken with its change, or here."""
        observer, service = self.observer, self._service_of.get(instance)
        if observer is not None and service is not None:
            found = observer.registry.exactly(service, instance)
            if found is not None:
                self._took(self._fold.apply(found, self._now()))

    def on_change(self, change: Change) -> None:
        """Presence knows more of an instance, or that it is gone."""
        instance = change.instance
        if self._services and instance.service not in self._services:
            return
        if change.kind is ChangeKind.GONE:
            self._service_of.pop(instance.id, None)
            self._took(self._fold.apply(Gone(instance.service, instance.id), self._now()))
        elif self._fold.apply(instance, self._now()):
            self._service_of[instance.id] = instance.service
            self._took(True)
            if change.kind is ChangeKind.JOINED:
                self._on_joined()

    def _took(self, news: bool) -> None:
        if news:
            self._on_news()

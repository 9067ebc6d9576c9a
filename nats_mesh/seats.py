"""Where one instance hears its requests: its seats in queue groups, and the subject that addresses it alone."""

from __future__ import annotations

from functools import partial

from nats_mesh.dispatch import Dispatcher
from nats_mesh.wire.subjects import QUEUE, Subjects
from nats_mesh.wire.transport import Subscription, Transport

__all__ = ["Seats"]


class Seats:
    """The request subscriptions of one instance.

    It has seats in the queue groups unless it stands ``aside`` (an operator drains it); in that of the service
    also not while it keeps ``away`` (it is full, and others are not). The direct subject stays until it leaves.
    """

    def __init__(
        self, *, service: str, instance: str, subjects: Subjects, transport: Transport, dispatcher: Dispatcher
    ) -> None:
        self.aside = False
        self.away = False
        self.left = False
        self._rpc = subjects.rpc_of(service)
        self._transport = transport
        self._dispatcher = dispatcher
        self._queue: Subscription | None = None
        self._plain: list[Subscription] = []
        self._settle()
        self._direct = transport.subscribe(subjects.direct_of(service, instance), dispatcher.on_request)

    @property
    def taken(self) -> bool:
        """Whether the instance sits in the queue group of its service."""
        return self._queue is not None

    @property
    def subscriptions(self) -> list[Subscription]:
        """What requests are heard on now."""
        queue = [] if self._queue is None else [self._queue]
        return [*queue, *([] if self.left else [self._direct]), *self._plain]

    def stand_aside(self, aside: bool) -> None:
        """Leave every queue group, or come back."""
        self.aside = aside
        self._settle()

    def keep_away(self, away: bool) -> None:
        """Leave the queue group of the service alone, or come back."""
        self.away = away
        self._settle()

    def leave(self) -> None:
        """Leave all for good; what the server has sent already still arrives until the next fence."""
        if not self.left:
            self.left = True
            self._settle()
            self._transport.unsubscribe(self._direct)

    def _settle(self) -> None:
        """Make the subscriptions what they should be."""
        transport, dispatcher = self._transport, self._dispatcher
        stay = not (self.left or self.aside)
        if stay and not self.away:
            if self._queue is None:
                self._queue = transport.subscribe(self._rpc, dispatcher.on_request, QUEUE)
        elif self._queue is not None:
            transport.unsubscribe(self._queue)
            self._queue = None
        if stay and not self._plain:
            self._plain = [
                transport.subscribe(
                    served.endpoint.subject, partial(dispatcher.on_plain, served), served.endpoint.queue
                )
                for served in dispatcher.served.values()
                if served.endpoint.subject is not None
            ]
        elif not stay:
            for subscription in self._plain:
                transport.unsubscribe(subscription)
            self._plain = []

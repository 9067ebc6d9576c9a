"""Where one instance hears its requests: its seats in queue groups, and the subject that addresses it alone."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from nats_mesh.serving.dispatch import Dispatcher
from nats_mesh.wire.loop import Timer, call_later
from nats_mesh.wire.subjects import ALL, QUEUE, Subjects
from nats_mesh.wire.transport import Subscription, Transport

__all__ = ["LINGER_S", "Seats"]

#: How long an instance still takes the calls of a subset that it no longer belongs to (seconds).
LINGER_S = 5.0


class Seats:
    """The request subscriptions of one instance.

    It has seats in the queue groups unless it stands ``aside`` (an operator drains it); in those of the service and of
    its subsets also not while it keeps ``away`` (it is full, and others are not). The direct subject stays until it
    leaves. The seat of a subset that it no longer belongs to stays for ``linger_s``, as not every caller knows yet.
    """

    def __init__(
        self,
        *,
        service: str,
        instance: str,
        subjects: Subjects,
        transport: Transport,
        dispatcher: Dispatcher,
        linger_s: float = LINGER_S,
    ) -> None:
        self.aside = False
        self.away = False
        self.left = False
        self._service = service
        self._subjects = subjects
        self._linger_s = linger_s
        self._transport = transport
        self._dispatcher = dispatcher
        #: The routes by which calls reach it, and the seats it has for them.
        self._routes: tuple[str, ...] = (ALL,)
        self._queues: dict[str, Subscription] = {}
        self._lingering: dict[str, Timer] = {}
        self._plain: list[Subscription] = []
        self._settle()
        self._direct = transport.subscribe(subjects.direct_of(service, instance), dispatcher.on_request)

    @property
    def taken(self) -> bool:
        """Whether the instance sits in the queue group of its service."""
        return ALL in self._queues

    @property
    def subscriptions(self) -> list[Subscription]:
        """What requests are heard on now."""
        return [*self._queues.values(), *([] if self.left else [self._direct]), *self._plain]

    def belong(self, subsets: Collection[str]) -> None:
        """Be one of these subsets' instances from now on, and of no others."""
        for name in [name for name in self._lingering if name in subsets]:
            self._lingering.pop(name).cancel()
        for name in self._routes:
            if name != ALL and name not in subsets and name not in self._lingering:
                self._lingering[name] = call_later(self._linger_s, self._give_up, name)
        self._routes = (ALL, *sorted({*subsets, *self._lingering}))
        self._settle()

    def _give_up(self, name: str) -> None:
        """Nobody sends calls to that subset's instances here any more."""
        self._lingering.pop(name, None)
        self._routes = tuple([each for each in self._routes if each != name])
        self._settle()

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
            for timer in self._lingering.values():
                timer.cancel()
            self._lingering.clear()
            self._settle()
            self._transport.unsubscribe(self._direct)

    def _settle(self) -> None:
        """Make the subscriptions what they should be."""
        transport, dispatcher = self._transport, self._dispatcher
        stay = not (self.left or self.aside)
        wanted = self._routes if stay and not self.away else ()
        for route in [route for route in self._queues if route not in wanted]:
            transport.unsubscribe(self._queues.pop(route))
        for route in wanted:
            if route not in self._queues:
                subject = self._subjects.rpc_of(self._service, route)
                self._queues[route] = transport.subscribe(subject, dispatcher.on_request, QUEUE)
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

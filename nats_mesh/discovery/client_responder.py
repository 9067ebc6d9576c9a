"""A pure client answers the roll call, so that a change of policies can wait for it, too.

It hears ``$SRV.PING`` alone, the question to everybody: under the name of a service it would be taken for one of its
instances by other programs, and whoever asks for a service that nobody serves would not learn so at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from nats_mesh.core.presence import Standing
from nats_mesh.discovery.messages import rfc3339, standing_metadata
from nats_mesh.discovery.overdue import called_metadata
from nats_mesh.discovery.services_api import (
    ServiceDoc,
    Verb,
    ping_response,
    request_subject,
    service_metadata,
)
from nats_mesh.errors import CallError
from nats_mesh.wire.subjects import FOREIGN_INBOXES
from nats_mesh.wire.transport import Transport

__all__ = ["CLIENT_VERSION", "ClientResponder"]

log = logging.getLogger("nats_mesh.services_api")

#: What a pure client says in place of a version.
CLIENT_VERSION = "0.0.0"


class ClientResponder:
    """Answers for one connection of a pure client, which has ``called`` these services. ``unanswered`` counts questions
    whose answer was not sent."""

    def __init__(
        self,
        *,
        name: str,
        connection: str,
        namespace: str,
        labels: Mapping[str, str],
        transport: Transport,
        started_wall_s: float,
        standing: Callable[[], Standing],
        called: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.unanswered = 0
        self._name = name
        self._id = connection
        self._started = rfc3339(started_wall_s)
        self._metadata = service_metadata(namespace, labels, kind="client") | {"mesh.started": self._started}
        self._standing = standing
        self._called = called
        self._transport = transport
        self._subscription = transport.subscribe(request_subject(Verb.PING), self._on_question)

    def _on_question(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        if not reply.startswith(FOREIGN_INBOXES):
            self.unanswered += 1
            return
        document = ServiceDoc(
            name=self._name,
            id=self._id,
            version=CLIENT_VERSION,
            started=self._started,
            metadata={
                **self._metadata,
                **standing_metadata(self._standing()),
                **called_metadata(self._called()),
            },
        )
        try:
            self._transport.publish(reply, ping_response(document))
        except CallError as error:
            self.unanswered += 1
            log.debug("%s cannot answer %s: %s", self._name, subject, error.message)

    def close(self) -> None:
        """Answer no more."""
        self._transport.unsubscribe(self._subscription)

"""Answers ``$SRV.PING|INFO|STATS`` for one instance, so that any NATS Services API client finds and calls it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import msgspec

from nats_mesh.core.presence import Load
from nats_mesh.discovery.announcer import Announcer
from nats_mesh.discovery.services_api import (
    EndpointCounters,
    EndpointDoc,
    ServiceDoc,
    Verb,
    info_response,
    listen_subjects,
    parse_verb,
    ping_response,
    service_metadata,
    stats_response,
)
from nats_mesh.errors import CallError, DisconnectedError
from nats_mesh.wire.subjects import FOREIGN_INBOXES
from nats_mesh.wire.transport import Transport

__all__ = ["Responder"]

log = logging.getLogger("nats_mesh.services_api")

_SCHEMAS = ("mesh.schema.request", "mesh.schema.response")


class Responder:
    """The Services API of one instance; three wildcard subscriptions serve every verb.

    ``counters`` gives each endpoint's numbers by name, ``more`` what else stands in the metadata now, and ``in_info``
    what INFO alone says beside it.
    ``unanswered`` counts questions whose answer was not sent, because no inbox was given or the connection was away.
    """

    def __init__(
        self,
        *,
        service: str,
        instance: str,
        version: str,
        description: str,
        labels: Mapping[str, str],
        endpoints: tuple[EndpointDoc, ...],
        announcer: Announcer,
        namespace: str,
        transport: Transport,
        load: Callable[[], Load],
        counters: Callable[[], Mapping[str, EndpointCounters]],
        more: Callable[[], Mapping[str, str]] = dict,
        in_info: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.unanswered = 0
        self._name = service
        self._instance = instance
        self._announcer = announcer
        self._transport = transport
        self._load = load
        self._counters = counters
        self._more = more
        self._in_info = in_info
        self._metadata = service_metadata(namespace, labels)
        self._doc = ServiceDoc(
            name=service,
            id=instance,
            version=version,
            started=announcer.started,
            description=description,
            endpoints=endpoints,
        )
        self._subscriptions = [
            transport.subscribe(subject, self._on_question) for subject in listen_subjects(service, instance)
        ]

    def describe(self, endpoints: tuple[EndpointDoc, ...]) -> None:
        """The endpoints are others from now on."""
        self._doc = msgspec.structs.replace(self._doc, endpoints=endpoints)

    def document(self) -> ServiceDoc:
        """What the instance says of itself at this moment."""
        load = self._load()
        metadata = {
            **self._metadata,
            **self._announcer.metadata(),
            "mesh.in_flight": str(load.in_flight),
            "mesh.limit": str(load.limit),
            **({"mesh.full": "true"} if load.full else {}),
            **self._more(),
        }
        return msgspec.structs.replace(self._doc, metadata=metadata)

    def _on_question(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        verb = parse_verb(subject, self._name, self._instance)
        if verb is None:
            return
        if not reply.startswith(FOREIGN_INBOXES):
            self.unanswered += 1
            return
        try:
            self._transport.publish(reply, self._answer(verb))
        except DisconnectedError:
            self.unanswered += 1
        except CallError as error:
            self.unanswered += 1
            log.warning("%s cannot answer %s: %s", self._name, subject, error.message)

    def _answer(self, verb: Verb) -> bytes:
        document = self.document()
        if verb is Verb.PING:
            return ping_response(document)
        if verb is Verb.STATS:
            return stats_response(document, self._counters())
        document = msgspec.structs.replace(document, metadata={**document.metadata, **self._in_info()})
        answer = info_response(document)
        if len(answer) > self._transport.max_payload:
            answer = info_response(_without_schemas(document))
        return answer

    def close(self) -> None:
        """Answer no more."""
        for subscription in self._subscriptions:
            self._transport.unsubscribe(subscription)


def _without_schemas(document: ServiceDoc) -> ServiceDoc:
    """The same, small enough for a message: JSON schemas give way, and it says so."""
    endpoints = tuple(
        msgspec.structs.replace(
            endpoint,
            metadata={
                **{key: value for key, value in endpoint.metadata.items() if key not in _SCHEMAS},
                "mesh.schema.omitted": "the document would exceed max_payload",
            },
        )
        for endpoint in document.endpoints
    )
    return msgspec.structs.replace(document, endpoints=endpoints)

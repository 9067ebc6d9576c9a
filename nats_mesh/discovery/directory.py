"""What a service says of itself, asked on the bus when somebody needs to know (``$SRV.INFO.<service>``).

Callers need no registry for their calls; this serves the cases beside them: a service of the NATS
Services API that is not a mesh service, one that lives in another namespace, declared timeouts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple

import anyio
import msgspec

from nats_mesh.clock import Clock
from nats_mesh.core.deadline import MAX_TIMEOUT_S
from nats_mesh.discovery.services_api import InfoReply, parse_info
from nats_mesh.errors import CallError, CodecError
from nats_mesh.wire import headers as h
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.transport import Transport

__all__ = ["Collector", "Directory", "ServiceFacts", "facts_of"]

log = logging.getLogger("nats_mesh.directory")

_CACHE_S = 5.0
#: How long "nobody" is believed: long enough for a burst of calls, too short to miss who starts (seconds).
_NOBODY_S = 0.05
_MAX_CACHED = 1024
_MAX_TIMEOUT_DIGITS = 9
#: How long to listen for further instances once one has answered (seconds).
_LINGER_S = 0.03
_MAX_REPLIES = 256
#: All answers to one question together; whoever answers must not be able to stall who asked.
_MAX_REPLY_BYTES = 4 * 1024 * 1024
_NOT_FOREIGN = ("mesh.", "$", "_INBOX.", "_R_.")


class ServiceFacts(msgspec.Struct, frozen=True):
    """What the answers of a service's instances add up to."""

    #: Namespaces of the mesh instances among them.
    namespaces: frozenset[str]
    #: Endpoint name → subject, of the instances that are not of a mesh.
    endpoints: dict[str, str]
    #: Endpoint name → declared timeout in seconds, the longest that a mesh instance declares.
    timeouts: dict[str, float]
    #: Endpoint name → whether all the mesh instances that have it say that it may be run twice.
    idempotency: dict[str, bool] = {}
    #: Endpoint name → whether all the mesh instances that have it know each other's idempotency keys.
    shared: dict[str, bool] = {}

    def foreign_subject(self, endpoint: str) -> str | None:
        """Where a service outside the mesh listens for ``endpoint``."""
        return self.endpoints.get(endpoint)

    def timeout_s(self, endpoint: str) -> float | None:
        """The timeout that the endpoint's own declaration asks for."""
        return self.timeouts.get(endpoint)

    def idempotent(self, endpoint: str) -> bool | None:
        """Whether the endpoint declares that it may be run twice; ``None`` where nobody has it."""
        return self.idempotency.get(endpoint)

    def keyed(self, endpoint: str) -> bool:
        """Whether a call with an idempotency key may be sent again: whoever gets it knows what came of the first."""
        return self.shared.get(endpoint, False)


class _Answer(NamedTuple):
    """What was learned, when, and how long it is believed (monotonic seconds)."""

    answered: float
    expires: float
    facts: ServiceFacts | None


class Collector:
    """A sink for several replies: keeps up to a bound of them and wakes whoever waits for the first."""

    def __init__(self, subject: str, limit: int = _MAX_REPLIES) -> None:
        self.subject = subject
        self.replies: list[tuple[bytes, bytes]] = []
        self.none = False
        self.overflow = 0
        self.first = anyio.Event()
        self._limit = limit
        self._bytes = 0

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        if h.server_status(headers) == h.NO_RESPONDERS:
            self.none = True
        elif len(self.replies) < self._limit and self._bytes + len(payload) <= _MAX_REPLY_BYTES:
            self.replies.append((headers, payload))
            self._bytes += len(payload)
        else:
            self.overflow += 1
        self.first.set()

    def on_failure(self, error: CallError) -> None:
        self.none = True
        self.first.set()


class Directory:
    """Asks ``$SRV`` and remembers the answers for a few seconds."""

    def __init__(self, transport: Transport, mux: ReplyMux, clock: Clock, namespace: str = "default") -> None:
        #: Whose declarations count: a service of this name in another namespace is another service.
        self._namespace = namespace
        self._transport = transport
        self._mux = mux
        self._clock = clock
        self._cache: dict[str, _Answer] = {}
        self._asking: dict[str, anyio.Event] = {}

    async def find(self, service: str, *, timeout_s: float) -> ServiceFacts | None:
        """What is known of ``service``; ``None`` where nobody answers (at once where nobody listens)."""
        start = self._clock.monotonic()
        while (
            asked := self._asking.get(service)
        ) is not None:  # many calls that miss the same service ask once
            with anyio.move_on_after(start + timeout_s - self._clock.monotonic()) as waiting:
                await asked.wait()
            if waiting.cancelled_caught:
                return None
        cached = self._cache.get(service)
        if cached is not None and (cached.expires > start or cached.answered >= start):
            return cached.facts
        self._asking[service] = asked = anyio.Event()
        try:
            remaining = max(0.001, start + timeout_s - self._clock.monotonic())
            replies = await self.ask(f"$SRV.INFO.{service}", timeout_s=remaining)
        finally:
            del self._asking[service]
            asked.set()
        facts = _facts([payload for _, payload in replies], service, self._namespace)
        if len(self._cache) >= _MAX_CACHED:
            self._cache.pop(next(iter(self._cache)))
        now = self._clock.monotonic()
        self._cache[service] = _Answer(now, now + (_CACHE_S if facts is not None else _NOBODY_S), facts)
        return facts

    async def ask(
        self, subject: str, *, timeout_s: float, linger_s: float = _LINGER_S
    ) -> list[tuple[bytes, bytes]]:
        """Every reply to a question on ``subject``, until ``linger_s`` after the first; empty where nobody listens."""
        sink = Collector(subject)
        reply = self._mux.open(subject, sink)
        try:
            self._transport.publish(subject, b"", reply)
            with anyio.move_on_after(timeout_s):
                await sink.first.wait()
                if not sink.none:
                    await anyio.sleep(linger_s)
        except CallError:
            return []  # the connection is away: nobody can be asked, and the call itself says so
        finally:
            self._mux.close(reply)
        if sink.overflow:
            log.warning("%s: %d answers beyond the bounds were not read", subject, sink.overflow)
        return sink.replies


def _may_be_called(subject: str) -> bool:
    """Whether a subject that anybody may have claimed is a plain one.

    A pattern is nowhere to send to. The mesh's own subjects, the server's and inboxes are where a caller
    could be led to do, under its own name, what it never meant to.
    """
    return not subject.startswith(_NOT_FOREIGN) and "*" not in subject and ">" not in subject


def _facts(documents: list[bytes], service: str, own: str) -> ServiceFacts | None:
    infos: list[InfoReply] = []
    for document in documents:
        try:
            infos.append(parse_info(document))
        except CodecError:
            continue  # some other program's idea of an answer
    return facts_of(infos, service, own)


def facts_of(infos: Iterable[InfoReply], service: str, own: str) -> ServiceFacts | None:
    """What these answers add up to for ``service``, as callers of namespace ``own`` go by it; ``None`` where none is
    of that service."""
    namespaces: set[str] = set()
    endpoints: dict[str, str] = {}
    timeouts: dict[str, float] = {}
    idempotency: dict[str, bool] = {}
    shared: dict[str, bool] = {}
    known = False
    for info in infos:
        if info.name != service:
            continue
        known = True
        namespace = info.metadata.get("mesh.namespace")
        if namespace is not None:
            namespaces.add(namespace)
        for endpoint in info.endpoints:
            if namespace is None:
                if _may_be_called(endpoint.subject):
                    endpoints.setdefault(endpoint.name, endpoint.subject)
                continue
            if namespace != own:
                continue
            if (declared := _timeout_s(endpoint.metadata.get("mesh.timeout_ms", ""))) is not None:
                timeouts[endpoint.name] = max(declared, timeouts.get(endpoint.name, 0.0))
            says = endpoint.metadata.get("mesh.idempotent") == "true"
            idempotency[endpoint.name] = says and idempotency.get(endpoint.name, True)
            says = endpoint.metadata.get("mesh.duplicates") == "shared"
            shared[endpoint.name] = says and shared.get(endpoint.name, True)
    return ServiceFacts(frozenset(namespaces), endpoints, timeouts, idempotency, shared) if known else None


def _timeout_s(text: str) -> float | None:
    """A declared timeout, in the range that a call may ask for; anything else is as if nothing were declared."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_TIMEOUT_DIGITS):
        return None
    seconds = int(text) / 1000.0
    return seconds if 0.0 < seconds <= MAX_TIMEOUT_S else None

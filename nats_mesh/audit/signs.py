"""An instance's signs of life for the audit: join, change, leave, and one now and then in between.

They go along with what presence says anyway and have no timer of their own. Nothing waits for them: where the bus is
away, or nobody keeps records, the instance neither notices nor stops trying, at this rate.
"""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import Callable
from typing import Final

import msgspec

from nats_mesh.audit.records import MAX_WITHIN_S, Event, PresenceRecord, encode_record, endpoint_names
from nats_mesh.clock import Clock, rfc3339
from nats_mesh.core.presence import Announcement, Kind
from nats_mesh.errors import CallError
from nats_mesh.wire import headers as h
from nats_mesh.wire.jetstream import read_taken
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["SIGN_S", "SignKeeper", "sign_interval_s"]

log = logging.getLogger("nats_mesh.audit")

#: Seconds between two signs of an instance whose service is small, and how far one may be off.
SIGN_S: Final = 60.0
JITTER: Final = 0.2
#: Signs a second that all instances of one service together may leave, and the longest interval that this leads to.
_MAX_SIGNS_PER_S: Final = 2.0
_MAX_SIGN_S: Final = 600.0
#: Of how many signs one names the endpoints: half an hour's, in a small service.
_NAMES_EVERY: Final = 30
#: Changes that are written down at once; more within a sign's interval are told by the next sign.
_MAX_CHANGES: Final = 10
_DESTINATION: Final = "audit"
_EVENTS: Final[dict[Kind, Event]] = {
    Kind.JOIN: "join",
    Kind.BEAT: "sign",
    Kind.CHANGE: "change",
    Kind.LEAVE: "leave",
}


def sign_interval_s(instances_known: int, sign_s: float = SIGN_S) -> float:
    """Seconds between two signs, without jitter; it grows with the service, as that of beats does."""
    return min(max(sign_s, _MAX_SIGN_S), max(sign_s, instances_known / _MAX_SIGNS_PER_S))


class SignKeeper:
    """Leaves the signs of one instance. ``peers`` says how many instances its service has. ``failed`` counts signs
    that could not be sent."""

    def __init__(
        self,
        *,
        subjects: Subjects,
        service: str,
        instance: str,
        transport: Transport,
        mux: ReplyMux,
        clock: Clock,
        peers: Callable[[], int],
        sign_s: float = SIGN_S,
    ) -> None:
        self.failed = 0
        self._subject = subjects.audit("presence", service, instance)
        self._transport = transport
        self._mux = mux
        self._clock = clock
        self._peers = peers
        self._sign_s = sign_s
        self._due = 0.0
        self._changes = 0
        self._signs = 0
        self._endpoints: tuple[str, ...] = ()
        self._hash = ""
        self._complained = ""
        self._denied = False
        transport.add_listener(self)

    def say(self, announcement: Announcement) -> None:
        """What presence says now: written down where it is news, or where it is time for a sign."""
        kind = announcement.type
        now = self._clock.monotonic()
        if kind in (Kind.JOIN, Kind.CHANGE) and (announcement.endpoints or kind is Kind.JOIN):
            self._endpoints = endpoint_names(announcement.endpoints)
            self._hash = _hash(announcement)
        if self._denied or (kind is Kind.BEAT and now < self._due):
            return
        if kind is Kind.CHANGE:
            self._changes += 1
            if self._changes > _MAX_CHANGES:
                return
        elif kind is Kind.BEAT:
            self._changes = 0
        interval_s = sign_interval_s(self._peers(), self._sign_s)
        # A sign goes with the first beat after it is due, which may be one long beat late.
        longest_s = interval_s * (1.0 + JITTER) + announcement.interval_s * (1.0 + JITTER)
        named = kind is not Kind.BEAT or self._signs % _NAMES_EVERY == 0
        self._signs += 1
        record = PresenceRecord(
            namespace=announcement.namespace,
            at=rfc3339(self._clock.time()),
            seq=self._mux.number(self._subject),
            event=_EVENTS[kind],
            service=announcement.service,
            instance=announcement.instance,
            name=announcement.name,
            version=announcement.version,
            started=announcement.started,
            within_s=min(MAX_WITHIN_S, round(longest_s, 3)),
            state=announcement.state,
            labels=announcement.labels,
            endpoints=self._endpoints if named else None,
            endpoints_hash=self._hash,
            revision=announcement.revision,
        )
        if self._send(record):
            # By its own name and not by chance, so that signs change nothing in what else is drawn.
            spread = zlib.crc32(f"{self._subject} {self._signs}".encode()) / 2**32
            self._due = now + interval_s * (1.0 - JITTER + 2.0 * JITTER * spread)
        else:
            self._due = 0.0  # the next beat tries again

    def _send(self, record: PresenceRecord) -> bool:
        try:
            reply = self._mux.one_way(_DESTINATION, self._answered)
            self._transport.publish(self._subject, encode_record(record), reply)
        except CallError:  # away, or larger than this server takes: presence itself has said so
            self.failed += 1
            return False
        return True

    def on_disconnect(self, reason: str) -> None:
        """What was sent may be lost; after the reconnect presence says everything anew."""

    def on_reconnect(self) -> None:
        """Another server may allow it."""
        self._denied = False

    def on_denied(self, operation: str, subject: str) -> None:
        """The transport has logged it, once is enough: there are no signs until the next connection."""
        if operation == "publish" and subject.lower() == self._subject.lower():
            self._denied = True

    def _answered(self, headers: bytes, payload: bytes) -> None:
        """What the stream says to it: nothing is done about it, and what is wrong is said once.

        That there is no stream is not wrong: nobody has asked for a history yet, and whoever does (``audit``, ``--at``)
        hears it.
        """
        problem, level = "", logging.INFO
        if h.server_status(headers) == h.NO_RESPONDERS:
            problem = "there is no audit stream; operators make one ('policy apply', 'audit --make')"
            level = logging.DEBUG
        else:
            taken = read_taken(payload)
            if taken is None:
                return
            if taken.error is not None:
                problem = h.one_line(taken.error.description)
        if problem and problem != self._complained:
            log.log(level, "what this instance does is not kept: %s", problem)
        self._complained = problem or self._complained


def _hash(announcement: Announcement) -> str:
    """Tells whether the endpoints are the same ones, with the same types and settings."""
    listed = sorted(announcement.endpoints, key=lambda endpoint: endpoint.name)
    return hashlib.sha256(msgspec.json.encode(listed)).hexdigest()[:16]

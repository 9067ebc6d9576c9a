"""What operators change, written down: each change with the documents before and after it, byte for byte.

The store has the change already when it is written down here, and a record that cannot be kept never undoes it: the
operator is told instead. An operator waits until the stream has it, for a bounded time.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import anyio
import msgspec

from nats_mesh.audit.records import ChangeRecord, DocumentChange, Stood, encode_record
from nats_mesh.audit.stream import audit_log, make_stream
from nats_mesh.clock import Clock, rfc3339
from nats_mesh.errors import CallError, PermissionDeniedError
from nats_mesh.wire import headers as h
from nats_mesh.wire.jetstream import read_taken
from nats_mesh.wire.kv import KvError
from nats_mesh.wire.kv_log import KvLog
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["AuditWriter", "Origin"]

log = logging.getLogger("nats_mesh.audit")

#: How large a record gets before the rest of its change goes into another one (bytes of documents).
_PART_BYTES: Final = 128 << 10
#: What a message needs beside the record.
_ROOM: Final = 4 << 10
#: How long an operator waits for the stream (seconds).
_WAIT_S: Final = 2.0
_MAX_LINE: Final = 1024
_DESTINATION: Final = "audit"


class Origin(NamedTuple):
    """Who made a change, and why. ``kind`` is ``policy`` or ``config``."""

    kind: str
    who: str
    why: str
    change: str
    epoch: int = 0


class AuditWriter:
    """Writes down the changes that are made over one connection. Nothing it does raises: what cannot be written down
    is said in what it returns."""

    def __init__(self, subjects: Subjects, *, transport: Transport, mux: ReplyMux, clock: Clock) -> None:
        self.log: KvLog = audit_log(subjects, transport=transport, mux=mux)
        self._subjects = subjects
        self._transport = transport
        self._mux = mux
        self._clock = clock

    async def open(self, *, replicas: int, timeout_s: float) -> str:
        """Make the stream where there is none; returns why it cannot be, empty where all is well."""
        try:
            made = await make_stream(self.log, replicas=replicas, timeout_s=timeout_s)
        except KvError as error:
            log.warning("changes will not be kept in the audit: %s", error)
            return str(error)
        if made:
            log.info("made the audit stream %s", self.log.name)
        return ""

    async def record(self, origin: Origin, documents: Sequence[DocumentChange]) -> str:
        """Write a change down and wait until the stream has it; returns why it is not known to, else nothing."""
        if not documents:
            return ""
        try:
            problem = await self._send(origin, documents)
        except CallError as error:
            problem = error.message
        if problem:
            log.warning("the change %s is not in the audit: %s", origin.change, problem)
        return problem

    async def _send(self, origin: Origin, documents: Sequence[DocumentChange]) -> str:
        subject = self._subjects.audit(origin.kind, self._transport.name, self._transport.connection)
        parts = _parts(documents)
        sink = _Acks(subject, len(parts), self.log.stream)
        reply = self._mux.open(_DESTINATION, sink)
        try:
            with anyio.move_on_after(_WAIT_S):
                for number, part in enumerate(parts, 1):
                    if self._transport.congested:
                        await self._transport.writable()
                    body = self._fit(
                        ChangeRecord(
                            namespace=self._subjects.namespace,
                            at=rfc3339(self._clock.time()),
                            seq=self._mux.number(subject),
                            who=_line(origin.who),
                            why=_line(origin.why),
                            change=_line(origin.change),
                            epoch=origin.epoch,
                            part=number,
                            parts=len(parts),
                            documents=tuple(part),
                        )
                    )
                    self._transport.publish(subject, body, reply)
                await sink.done.wait()
        finally:
            self._mux.close(reply)
        if sink.problem or sink.left == 0:
            return sink.problem
        return f"the audit stream has not confirmed it in {_WAIT_S:g} s"

    def _fit(self, record: ChangeRecord) -> bytes:
        """The bytes of a record that the server takes: documents that are too large are left out, and said to be."""
        limit = self._transport.max_payload - _ROOM
        body = encode_record(record)
        strip: tuple[Callable[[DocumentChange], DocumentChange], ...] = (_without_before, _without_after)
        for less in strip:
            if len(body) <= limit:
                break
            record = msgspec.structs.replace(record, documents=tuple(less(each) for each in record.documents))
            body = encode_record(record)
        return body

    def __repr__(self) -> str:
        return f"<AuditWriter {self.log.name}>"


def _parts(documents: Sequence[DocumentChange]) -> list[list[DocumentChange]]:
    parts: list[list[DocumentChange]] = [[]]
    size = 0
    for each in documents:
        own = _size(each.after) + (_size(each.before) if each.before is not None else 0)
        if parts[-1] and (size + own > _PART_BYTES or len(parts[-1]) >= _MAX_IN_PART):
            parts.append([])
            size = 0
        parts[-1].append(each)
        size += own
    return parts


#: Documents in one record: what a record of documents without a value would else grow to.
_MAX_IN_PART: Final = 500


def _size(stood: Stood) -> int:
    return len(stood.text or "") + len(stood.data or b"")


def _without_before(change: DocumentChange) -> DocumentChange:
    if change.before is None:
        return change
    return msgspec.structs.replace(change, before=_omitted(change.before))


def _without_after(change: DocumentChange) -> DocumentChange:
    return msgspec.structs.replace(change, after=_omitted(change.after))


def _omitted(stood: Stood) -> Stood:
    value = stood.value
    if value is None:
        return stood
    digest = hashlib.sha256(value).hexdigest()
    return Stood(revision=stood.revision, time=stood.time, omitted=len(value), sha256=digest)


def _line(text: str) -> str:
    return h.one_line(text, _MAX_LINE) if text else ""


class _Acks:
    """Waits until a stream has taken a number of messages, or something says that it does not."""

    def __init__(self, subject: str, count: int, stream: str) -> None:
        self.subject = subject
        self.left = count
        self.problem = ""
        self.done = anyio.Event()
        self._stream = stream

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        if h.server_status(headers) == h.NO_RESPONDERS:
            self._fail(f"there is no stream {self._stream!r} that keeps it")
            return
        taken = read_taken(payload)
        if taken is None:
            return  # whatever answers here beside the stream
        if taken.error is not None:
            self._fail(h.one_line(taken.error.description))
        elif taken.stream == self._stream:
            self.left -= 1
            if self.left <= 0:
                self.done.set()

    def on_failure(self, error: CallError) -> None:
        if isinstance(error, PermissionDeniedError):
            self._fail(f"{error.message}: operators need it")
        else:
            self._fail(error.message)

    def _fail(self, problem: str) -> None:
        self.problem = self.problem or problem
        self.done.set()

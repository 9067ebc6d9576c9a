"""Key-value buckets of the bus in memory: what :mod:`nats_mesh.wire.kv` and :mod:`nats_mesh.wire.kv_log` ask of
JetStream, and no more: no subject but a bucket's, one server, nothing ever expires."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

import msgspec

from nats_mesh.wire import headers as h
from nats_mesh.wire.jetstream import NOT_FOUND, STORE_FAILED, WRONG_SEQUENCE

__all__ = ["MemoryKv"]

_EXPECTED = b"\r\nNats-Expected-Last-Subject-Sequence:"
_BATCH, _COMMIT = b"\r\nNats-Batch-Id:", b"\r\nNats-Batch-Commit:"
_ROLLUP = b"\r\nNats-Rollup:"
_API = re.compile(r"\$JS\.API\.STREAM\.(CREATE|INFO|UPDATE|DELETE|PURGE)\.KV_([A-Za-z0-9_-]+)")
_GET = re.compile(r"\$JS\.API\.DIRECT\.GET\.KV_([A-Za-z0-9_-]+)(?:\.(.+))?")
_PUT = re.compile(r"\$KV\.([A-Za-z0-9_-]+)\..+")
_NOT_FOUND = b"NATS/1.0 404 Message Not Found\r\n\r\n"
_MAX_LATEST = 1024

_Answer = tuple[bytes, bytes]


class _Message(NamedTuple):
    sequence: int
    headers: bytes
    value: bytes
    subject: str = ""
    time: str = ""


class _Bucket:
    def __init__(self, number: int, config: dict[str, Any]) -> None:
        self.number = number
        self.config = config
        self.sequence = 0
        self.last: dict[str, _Message] = {}
        self.log: list[_Message] = []
        self.batches: dict[bytes, list[tuple[str, bytes, bytes]]] = {}

    def keep(self, subject: str, headers: bytes, value: bytes) -> _Message:
        self.sequence += 1
        time = f"{2000 + self.number}-01-01T00:00:00.{self.sequence:09}Z"
        message = _Message(self.sequence, headers, value, subject, time)
        history = max(1, int(self.config.get("max_msgs_per_subject") or 1))
        own = [each for each in self.log if each.subject == subject]
        gone = own if h.field(headers, _ROLLUP) == b"sub" else own[: len(own) + 1 - history]
        if gone:
            self.log = [each for each in self.log if each not in gone]
        self.log.append(message)
        self.last[subject] = message
        return message


class MemoryKv:
    """Buckets that are made by asking, and last as long as the bus.

    ``full`` is what there is no room for: ``"more"`` than what stands there, as at a single server whose bucket is
    full, or for ``"anything"``, as in a cluster. ``told`` are messages that a bucket's ``republish`` sends on,
    for the bus to deliver: subject, header block, value.
    """

    def __init__(self) -> None:
        self.buckets: dict[str, _Bucket] = {}
        self.full: Literal["", "more", "anything"] = ""
        self.told: list[tuple[str, bytes, bytes]] = []
        self._made = 0

    def answer(self, subject: str, headers: bytes, payload: bytes) -> list[_Answer] | None:
        """Header blocks and bodies of what JetStream would say; ``None`` where nobody listens on ``subject``."""
        if (api := _API.fullmatch(subject)) is not None:
            return [(b"", self._manage(api[1], api[2], payload))]
        if (get := _GET.fullmatch(subject)) is not None:
            bucket = self.buckets.get(get[1])
            if bucket is None:
                return None
            question = {"last_by_subj": get[2]} if get[2] else msgspec.json.decode(payload)
            if "last_by_subj" in question:
                return [_found(bucket.last.get(question["last_by_subj"]))]
            return _read(bucket, question)
        if (put := _PUT.fullmatch(subject)) is not None:
            bucket = self.buckets.get(put[1])
            if bucket is None:
                return None
            before = bucket.last.get(subject)
            standing = 0 if before is None else len(before.headers) + len(before.value)
            if self.full == "anything" or (self.full and len(headers) + len(payload) > standing):
                return [(b"", _refusal(put[1], 503, STORE_FAILED, "maximum bytes exceeded"))]
            return [(b"", self._store(put[1], bucket, subject, headers, payload))]
        return None

    def _manage(self, what: str, name: str, payload: bytes) -> bytes:
        bucket = self.buckets.get(name)
        if what == "CREATE":
            config = msgspec.json.decode(payload) if payload else {}
            if bucket is None:
                self._made += 1
                bucket = self.buckets[name] = _Bucket(self._made, config)
        elif bucket is None:
            return _refusal(name, 404, NOT_FOUND, "stream not found")
        elif what == "UPDATE":
            bucket.config = msgspec.json.decode(payload)
        elif what == "DELETE":
            del self.buckets[name]
        elif what == "PURGE":
            bucket.last, bucket.log = {}, []
        kind = f"io.nats.jetstream.api.v1.stream_{what.lower()}_response"
        return msgspec.json.encode({"type": kind, "config": bucket.config})

    def _store(self, name: str, bucket: _Bucket, subject: str, headers: bytes, payload: bytes) -> bytes:
        batch = h.field(headers, _BATCH)
        if batch is not None and bucket.config.get("allow_atomic"):
            waiting = bucket.batches.setdefault(batch, [])
            waiting.append((subject, headers, payload))
            if h.field(headers, _COMMIT) is None:
                return b""
            del bucket.batches[batch]
        else:
            waiting, batch = [(subject, headers, payload)], None
        for where, block, _ in waiting:
            expected, before = h.int_field(block, _EXPECTED), bucket.last.get(where)
            standing = 0 if before is None else before.sequence
            if expected is not None and expected != standing:
                return _refusal(name, 400, WRONG_SEQUENCE, f"wrong last sequence: {standing}")
        for where, block, value in waiting:
            self._tell(bucket, bucket.keep(where, block, value))
        said: dict[str, Any] = {"stream": f"KV_{name}", "seq": bucket.sequence}
        if batch is not None:
            said |= {"batch": batch.decode(), "count": len(waiting)}
        return msgspec.json.encode(said)

    def _tell(self, bucket: _Bucket, message: _Message) -> None:
        target = (bucket.config.get("republish") or {}).get("dest", "")
        if target.endswith(".>"):
            key = message.subject.split(".", 2)[2]
            self.told.append((target[:-1] + key, _block(message, 0), message.value))


def _found(message: _Message | None) -> _Answer:
    if message is None:
        return _NOT_FOUND, b""
    lines = message.headers[len(h.PREAMBLE) : -len(h.END)]
    block = h.PREAMBLE + lines + f"Nats-Sequence: {message.sequence}\r\n".encode() + h.END
    return block, message.value


def _read(bucket: _Bucket, question: dict[str, Any]) -> list[_Answer]:
    """Several messages, and the word that these were all."""
    up_to = question.get("up_to_seq") or bucket.sequence
    start = question.get("seq", 0)
    if "multi_last" in question:
        newest = {each.subject: each for each in bucket.log if each.sequence <= up_to}
        found = sorted(each for each in newest.values() if each.sequence >= start)
        if len(found) > _MAX_LATEST:
            return [(b"NATS/1.0 413 Too Many Results\r\n\r\n", b"")]
    else:
        wanted = question["next_by_subj"]
        found = [
            each
            for each in bucket.log
            if each.sequence >= start
            and (each.subject == wanted or (wanted.endswith(">") and each.subject.startswith(wanted[:-1])))
        ]
    if not found:
        return [(_NOT_FOUND, b"")]
    page = found[: question.get("batch", len(found))]
    pending = len(found) - len(page)
    answers = [(_block(each, len(found) - at), each.value) for at, each in enumerate(page, 1)]
    end = f"NATS/1.0 204 EOB\r\nNats-Num-Pending: {pending}\r\nNats-Last-Sequence: {page[-1].sequence}\r\n"
    if "multi_last" in question:
        end += f"Nats-UpTo-Sequence: {up_to}\r\n"
    return [*answers, (end.encode() + h.END, b"")]


def _block(message: _Message, pending: int) -> bytes:
    lines = message.headers[len(h.PREAMBLE) : -len(h.END)] if message.headers else b""
    own = (
        f"Nats-Stream: KV_{message.subject.split('.')[1]}\r\nNats-Subject: {message.subject}\r\n"
        f"Nats-Sequence: {message.sequence}\r\nNats-Time-Stamp: {message.time}\r\nNats-Num-Pending: {pending}\r\n"
    )
    return h.PREAMBLE + lines + own.encode() + h.END


def _refusal(name: str, code: int, err_code: int, text: str) -> bytes:
    trouble = {"code": code, "err_code": err_code, "description": text}
    return msgspec.json.encode({"error": trouble, "stream": f"KV_{name}", "seq": 0})

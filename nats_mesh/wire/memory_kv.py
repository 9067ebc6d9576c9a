"""Key-value buckets of the bus in memory: what :mod:`nats_mesh.wire.kv` asks of JetStream, and no more."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import msgspec

from nats_mesh.wire import headers as h

__all__ = ["MemoryKv"]

_EXPECTED = b"\r\nNats-Expected-Last-Subject-Sequence:"
_CREATE = re.compile(r"\$JS\.API\.STREAM\.CREATE\.KV_([A-Za-z0-9_-]+)")
_GET = re.compile(r"\$JS\.API\.DIRECT\.GET\.KV_([A-Za-z0-9_-]+)(?:\.(.+))?")
_PUT = re.compile(r"\$KV\.([A-Za-z0-9_-]+)\..+")
_NOT_FOUND = b"NATS/1.0 404 Message Not Found\r\n\r\n"


class _Message(NamedTuple):
    sequence: int
    headers: bytes
    value: bytes


class _Bucket:
    def __init__(self) -> None:
        self.sequence = 0
        self.last: dict[str, _Message] = {}


class MemoryKv:
    """Buckets that are made by asking, and last as long as the bus. Nothing in them ever expires.

    ``full`` is what there is no room for: ``"more"`` than what stands there, as at a single server whose bucket is
    full, or for ``"anything"``, as in a cluster.
    """

    def __init__(self) -> None:
        self.buckets: dict[str, _Bucket] = {}
        self.full: Literal["", "more", "anything"] = ""

    def answer(self, subject: str, headers: bytes, payload: bytes) -> tuple[bytes, bytes] | None:
        """Header block and body of what JetStream would say; ``None`` where nobody listens on ``subject``."""
        if (create := _CREATE.fullmatch(subject)) is not None:
            self.buckets.setdefault(create[1], _Bucket())
            return b"", b'{"type":"io.nats.jetstream.api.v1.stream_create_response"}'
        if (get := _GET.fullmatch(subject)) is not None:
            bucket = self.buckets.get(get[1])
            wanted = get[2] or msgspec.json.decode(payload)["last_by_subj"]
            return None if bucket is None else _found(bucket.last.get(wanted))
        if (put := _PUT.fullmatch(subject)) is not None:
            bucket = self.buckets.get(put[1])
            if bucket is None:
                return None
            before = bucket.last.get(subject)
            standing = 0 if before is None else len(before.headers) + len(before.value)
            if self.full == "anything" or (self.full and len(headers) + len(payload) > standing):
                return b"", _refusal(put[1], 503, 10077, "maximum bytes exceeded")
            return b"", _store(put[1], bucket, subject, headers, payload)
        return None


def _found(message: _Message | None) -> tuple[bytes, bytes]:
    if message is None:
        return _NOT_FOUND, b""
    lines = message.headers[len(h.PREAMBLE) : -len(h.END)]
    block = h.PREAMBLE + lines + f"Nats-Sequence: {message.sequence}\r\n".encode() + h.END
    return block, message.value


def _store(name: str, bucket: _Bucket, subject: str, headers: bytes, payload: bytes) -> bytes:
    expected = h.int_field(headers, _EXPECTED)
    before = bucket.last.get(subject)
    standing = 0 if before is None else before.sequence
    if expected is not None and expected != standing:
        return _refusal(name, 400, 10071, f"wrong last sequence: {standing}")
    bucket.sequence += 1
    bucket.last[subject] = _Message(bucket.sequence, headers, payload)
    return msgspec.json.encode({"stream": f"KV_{name}", "seq": bucket.sequence})


def _refusal(name: str, code: int, err_code: int, text: str) -> bytes:
    trouble = {"code": code, "err_code": err_code, "description": text}
    return msgspec.json.encode({"error": trouble, "stream": f"KV_{name}", "seq": 0})

"""The stream of the audit: how it is made, and since when it knows anything.

Operators make it, with their rights; workloads publish to it whether it is there or not. It drops what is oldest where
it gets too old or too large; single records cannot be deleted, and all of them only together with the stream.
"""

from __future__ import annotations

from typing import Final

import msgspec

from nats_mesh.wire.jetstream import NAME_TAKEN, NOT_FOUND
from nats_mesh.wire.kv import KvAbsentError, trouble
from nats_mesh.wire.kv_log import KvLog
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.streams import ask_stream, create_stream
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["MAX_AGE_S", "TOTAL_BYTES", "StreamInfo", "audit_log", "make_stream", "stream_info"]

#: How long records are kept (seconds), and how much of them (bytes). The server may set that much aside at once, so
#: where it has not so much left, it is less.
MAX_AGE_S: Final = 30 * 86_400
TOTAL_BYTES: Final = (512 << 20, 128 << 20, 32 << 20, 16 << 20)
#: Records of one subject, that is of one writer's connection: more than twice what signs are in that time. Who floods
#: one pushes out his own.
_MAX_OF_ONE: Final = 100_000

_NS: Final = 1_000_000_000


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The stream as it is. Instants are the server's, RFC 3339: ``since`` is when what it knows begins, ``now`` its
    clock. ``whole``: nothing was dropped yet."""

    name: str
    since: str
    now: str
    whole: bool
    messages: int
    bytes: int
    last: int


def audit_log(subjects: Subjects, *, transport: Transport, mux: ReplyMux) -> KvLog:
    """The stream of a namespace as a log; a key is ``<kind>.<writer>.<instance>``."""
    name = subjects.audit_stream
    return KvLog(name, transport=transport, mux=mux, stream=name, prefix=subjects.audit_of.removesuffix(">"))


async def make_stream(log: KvLog, *, replicas: int, timeout_s: float) -> bool:
    """Make the stream where there is none, with as many copies as the policies have; whether it was made.

    One that is there stays as it is: how long it keeps what is its operator's to say.
    :class:`~nats_mesh.wire.kv.KvError` where it cannot be made.
    """
    found = await ask_stream(log, "INFO", None, timeout_s)
    if found.error is None:
        return False
    if found.error.err_code != NOT_FOUND:
        raise trouble(found.error.err_code, f"{log.name}: {found.error.description}")
    config = {
        "name": log.stream,
        "subjects": [f"{log.prefix}>"],
        "description": "audit of a mesh namespace",
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": MAX_AGE_S * _NS,
        "max_msgs_per_subject": _MAX_OF_ONE,
        "num_replicas": replicas,
        "allow_direct": True,
        "deny_delete": True,
        "deny_purge": True,
        "compression": "s2",
    }
    made = await create_stream(log, config, TOTAL_BYTES, timeout_s)
    if made.error is not None and made.error.err_code != NAME_TAKEN:  # taken: somebody else made it meanwhile
        raise trouble(made.error.err_code, f"{log.name}: {made.error.description}")
    return made.error is None


async def stream_info(log: KvLog, *, timeout_s: float) -> StreamInfo:
    """What the stream knows; :class:`~nats_mesh.wire.kv.KvAbsentError` where there is none."""
    found = await ask_stream(log, "INFO", None, timeout_s)
    if found.error is not None:
        if found.error.err_code == NOT_FOUND:
            raise KvAbsentError(f"there is no audit stream {log.stream!r}")
        raise trouble(found.error.err_code, f"{log.name}: {found.error.description}")
    state = found.state
    whole = state.first_seq <= 1 and (state.messages > 0 or state.last_seq == 0)
    since = found.created if whole else state.first_ts if state.messages else found.ts
    return StreamInfo(
        name=log.stream,
        since=since,
        now=found.ts,
        whole=whole,
        messages=state.messages,
        bytes=state.bytes,
        last=state.last_seq,
    )

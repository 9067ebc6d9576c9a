"""What JetStream's API says of a stream, and making one where the server may not have room for as much as is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nats_mesh.errors import UNREADABLE
from nats_mesh.wire.kv import KvError, sets_too_much_aside
from nats_mesh.wire.kv_log import KvLog

__all__ = ["NAME_TAKEN", "NOT_FOUND", "NO_CLUSTER", "NO_PEERS", "StreamAnswer", "ask_stream", "create_stream"]

#: Codes of JetStream's errors: there is no such stream; one of that name is there and is another; the server is no
#: cluster; no server of the cluster is fit for it.
NOT_FOUND, NAME_TAKEN, NO_CLUSTER, NO_PEERS = 10059, 10058, 10074, 10005


class _Trouble(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _State(msgspec.Struct, frozen=True):
    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0
    first_ts: str = ""
    last_ts: str = ""


class StreamAnswer(msgspec.Struct):
    """The stream as it is, or ``error``. Instants are the server's, RFC 3339."""

    config: dict[str, Any] | None = None
    created: str = ""
    ts: str = ""
    state: _State = _State()
    error: _Trouble | None = None


_decode = msgspec.json.Decoder(StreamAnswer).decode


async def ask_stream(log: KvLog, verb: str, question: object, timeout_s: float) -> StreamAnswer:
    """What the API answers about the stream of ``log``: ``verb`` is `INFO`, `CREATE` or `UPDATE`.

    :class:`~nats_mesh.wire.kv.KvError` where it does not answer, or says what nobody can read.
    """
    body = await log.api(f"STREAM.{verb}.{log.stream}", question, timeout_s=timeout_s)
    try:
        return _decode(body)
    except UNREADABLE as error:
        raise KvError(f"{log.name}: JetStream's answer cannot be read: {error}", maybe=True) from None


async def create_stream(
    log: KvLog, config: Mapping[str, Any], sizes: Sequence[int], timeout_s: float
) -> StreamAnswer:
    """Make the stream with the first of ``sizes`` (bytes, the largest first) that the server has room for: it may set
    all of it aside at once."""
    for max_bytes in sizes:
        said = await ask_stream(log, "CREATE", {**config, "max_bytes": max_bytes}, timeout_s)
        if said.error is None or not sets_too_much_aside(said.error.err_code, said.error.description):
            break
    return said

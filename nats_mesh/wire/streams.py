"""What JetStream's API says of a stream, and making one where the server may not have room for as much as is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nats_mesh.core.lazy import at_first_use
from nats_mesh.errors import UNREADABLE
from nats_mesh.wire.jetstream import Trouble, first_that_fits
from nats_mesh.wire.kv import KvError
from nats_mesh.wire.kv_log import KvLog

__all__ = ["StreamAnswer", "ask_stream", "create_stream"]


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
    error: Trouble | None = None


_decode = at_first_use(lambda: msgspec.json.Decoder(StreamAnswer).decode)


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
    """Make the stream with the first of ``sizes`` (bytes, the largest first) that the server has room for."""

    async def create(max_bytes: int) -> StreamAnswer:
        return await ask_stream(log, "CREATE", {**config, "max_bytes": max_bytes}, timeout_s)

    return await first_that_fits(sizes, create)

"""What a reply says: who answered and in which codec, and the value in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from nats_mesh.errors import CodecError
from nats_mesh.wire import headers as h
from nats_mesh.wire.codecs import JSON, RAW, Codec, by_content_type

__all__ = ["UsualReplies", "UsualReply", "decode_value", "raw_reply_decoder", "reply_decoder"]


class UsualReply(NamedTuple):
    """What the header block of a usual reply says: success, by whom, in which codec; nothing else."""

    instance: str
    codec: Codec


class UsualReplies:
    """Header blocks that were read once: an instance sends the same one with every usual reply, but for the line at
    its end that says how busy it is.

    Bounded; what says anything beyond :class:`UsualReply` is never kept.
    """

    __slots__ = ("_limit", "known")

    def __init__(self, limit: int = 1024) -> None:
        self.known: dict[bytes, UsualReply] = {}
        self._limit = limit

    def learn(self, block: bytes) -> None:
        """Keep ``block`` if it is a usual one, without what it says of the instance's load."""
        found = _USUAL.fullmatch(block)
        if found is None:
            return
        codec = JSON if found[3] is None else by_content_type(found[3])
        if codec is not None and (found[3] is None) == (codec is JSON):
            if len(self.known) >= self._limit:
                del self.known[next(iter(self.known))]
            self.known[found[1] + h.END] = UsualReply(found[2].decode(), codec)

    def of_busy(self, block: bytes) -> UsualReply | None:
        """What ``block`` says beside ``Mesh-Load`` in its last line; ``None`` where it was never read, or has none."""
        at = block.rfind(h.LOAD)
        if at < 0 or block.find(h.END, at + 2) != len(block) - 4:
            return None
        return self.known.get(block[:at] + _END_OF_BLOCK)


_USUAL = re.compile(
    rb"(NATS/1\.0\r\nMesh-Instance: ([A-Za-z0-9_-]{1,63})\r\n(?:content-type: ([a-z/-]{1,64})\r\n)?)"
    rb"(?:Mesh-Load: [0-9/]{1,31}\r\n)?\r\n"
)
_END_OF_BLOCK = b"\r\n\r\n"


def decode_value(headers: bytes, body: bytes, returns: Any) -> Any:
    """The value of a reply as ``returns``; :class:`CodecError` where it does not fit."""
    content_type = h.content_type(headers) if headers else None
    codec = by_content_type(content_type)
    if codec is None and returns not in (bytes, None, type(None), Any):
        raise CodecError(f"the reply is {content_type!r}, which is no codec of the mesh; use returns=bytes")
    return reply_decoder(codec, content_type is not None, returns)(body)


def reply_decoder(codec: Codec | None, named: bool, returns: Any) -> Callable[[bytes], Any]:
    """From the body of a reply to ``returns``. ``named``: whether the reply says which codec it is in."""
    if returns is bytes or codec is None:
        return _nothing if returns is None or returns is type(None) else bytes
    if returns is None or returns is type(None):
        return _nothing
    decode = codec.decoder(returns)

    def typed(body: bytes) -> Any:
        try:
            return decode(body)
        except CodecError as error:
            raise CodecError(f"the reply does not fit {returns!r}: {error}") from None

    def anything(body: bytes) -> Any:
        if not body and codec is not RAW:  # raw bytes may be none, and are bytes all the same
            return None
        try:
            return decode(body)
        except CodecError as error:
            if codec is JSON and not named:
                return body  # a foreign answer without a content type that is not JSON: handed on as it is
            raise CodecError(f"the reply does not fit {returns!r}: {error}") from None

    return anything if returns is Any else typed


def raw_reply_decoder(codec: Codec, returns: Any) -> Callable[[bytes], Any]:
    """As :func:`reply_decoder`, without its errors and without its care for what is empty."""
    if returns is bytes:
        return bytes
    if returns is None or returns is type(None):
        return _nothing
    return codec.raw_decoder(returns)


def _nothing(body: bytes) -> None:
    """What ``returns=None`` makes of any reply."""

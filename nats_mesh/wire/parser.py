"""The NATS client protocol, read in one scan per buffer: no regex, no queue, no task before the handler.

sans-IO: bytes go in, messages and control lines come out by two callbacks. A buffer may be cut anywhere;
what is incomplete waits, and a large payload that arrives in pieces is joined once.

The server separates the fields of a line by one space and hands on any other byte of a subject, so a line
is split at spaces alone: whoever puts a vertical tab into a subject must not be able to end the connection
of those who receive it. Protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

__all__ = ["MAX_LINE", "OnControl", "OnMessage", "Parser", "ProtocolError"]

#: The longest control line that is waited for, in bytes; INFO of a large cluster lists many servers.
MAX_LINE: Final = 65_536

#: ``(sid, subject, reply, header block, payload)``; reply and headers are empty where there are none.
OnMessage: TypeAlias = Callable[[bytes, bytes, bytes, bytes, bytes], None]
#: One line that is no message (INFO, PING, PONG, +OK, -ERR), without its end.
OnControl: TypeAlias = Callable[[bytes], None]

_MSG: Final = ord("M")
_HMSG: Final = ord("H")


class ProtocolError(Exception):
    """What came is not the NATS protocol; the connection cannot be read any further."""


class Parser:
    """Feed it what the socket gives. The callbacks must not raise."""

    __slots__ = ("_chunks", "_have", "_need", "_on_control", "_on_message")

    def __init__(self, on_message: OnMessage, on_control: OnControl) -> None:
        self._on_message = on_message
        self._on_control = on_control
        self.reset()

    def reset(self) -> None:
        """Forget what is incomplete, as for a new connection."""
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0

    @property
    def pending(self) -> int:
        """Bytes of an incomplete line or message that wait for the rest."""
        return self._have

    def feed(self, data: bytes) -> None:
        """Take in ``data`` and report everything that is complete. :class:`ProtocolError` on what is no protocol."""
        if self._chunks:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._chunks)
            self._chunks = []
        at = need = 0
        size = len(data)
        while at < size:
            end = data.find(b"\r\n", at)
            if end < 0:
                if size - at > MAX_LINE:
                    raise ProtocolError(f"a line of more than {MAX_LINE} bytes: {data[at : at + 80]!r}…")
                break
            kind = data[at]
            if kind != _MSG and kind != _HMSG:
                self._on_control(data[at:end])
                at = end + 2
                continue
            start = end + 2
            try:
                if kind == _MSG:
                    fields = data[at + 4 : end].split(b" ")
                    middle = start
                    stop = start + int(fields[-1])
                    sid, subject, reply = fields[1], fields[0], fields[2] if len(fields) == 4 else b""
                else:
                    fields = data[at + 5 : end].split(b" ")
                    middle = start + int(fields[-2])
                    stop = start + int(fields[-1])
                    sid, subject, reply = fields[1], fields[0], fields[2] if len(fields) == 5 else b""
            except (ValueError, IndexError):
                raise ProtocolError(f"a message line that cannot be read: {data[at:end][:200]!r}") from None
            if not start <= middle <= stop:
                raise ProtocolError(f"sizes that cannot be: {data[at:end][:200]!r}")
            if stop + 2 > size:
                need = stop + 2 - at
                break
            self._on_message(sid, subject, reply, data[start:middle], data[middle:stop])
            at = stop + 2
        if at < size:
            self._chunks = [data[at:] if at else data]
            self._have = size - at
            self._need = need or self._have + 1
        else:
            self._have = self._need = 0

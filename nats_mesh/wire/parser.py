"""The NATS client protocol, read in one scan per buffer: no regex, no queue, no task before the handler.

sans-IO: bytes go in, messages and control lines come out by two callbacks. A buffer may be cut anywhere;
what is incomplete waits, and a large payload that arrives in pieces is joined once.

The server separates the fields of a line by one space and hands on any other byte of a subject, so a line
is split at spaces alone: whoever puts a vertical tab into a subject must not be able to end the connection
of those who receive it. Protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

__all__ = [
    "MAX_LINE",
    "MAX_MESSAGE",
    "Handler",
    "NotTextError",
    "OnControl",
    "OnFailed",
    "OnMessage",
    "Parser",
    "ProtocolError",
]

#: The longest control line that is waited for, in bytes; INFO of a large cluster lists many servers.
MAX_LINE: Final = 65_536
#: The largest message that is waited for, header block and payload, in bytes: no server's ``max_payload`` is larger.
MAX_MESSAGE: Final = 64 * 1024 * 1024

#: ``(subject, reply, header block, payload)`` of a message of one subscription.
Handler: TypeAlias = Callable[[str, str, bytes, bytes], None]
#: ``(sid, subject, reply, header block, payload)`` of a message that no handler is known for.
OnMessage: TypeAlias = Callable[[bytes, bytes, bytes, bytes, bytes], None]
#: One line that is no message (INFO, PING, PONG, +OK, -ERR), without its end.
OnControl: TypeAlias = Callable[[bytes], None]
#: ``(subject, what a handler raised)``: called within the ``except`` that caught it.
OnFailed: TypeAlias = Callable[[str, Exception], None]

#: Where to look for the end of a line: what is longer has none.
_LONGEST: Final = MAX_LINE + 2
_CR: Final = ord("\r")
_LF: Final = ord("\n")
_MSG: Final = ord("M")
_HMSG: Final = ord("H")


class ProtocolError(Exception):
    """What came is not the NATS protocol; the connection cannot be read any further."""


class NotTextError(Exception):
    """A message was for a handler, but its subject or inbox is no text."""


class Parser:
    """Feed it what the socket gives.

    A message goes straight to the handler of its subscription id in ``handlers``, or to ``on_message``;
    fields that are empty or missing are empty there. A message whose subject or inbox
    is no UTF-8 reaches no handler. What one raises (and that, as :class:`NotTextError`) goes to ``on_failed`` and
    harms nobody else; the other callbacks must not raise.
    """

    __slots__ = (
        "_after", "_before", "_chunks", "_fixed", "_handlers", "_have", "_need", "_on_control", "_on_failed",
        "_on_message", "_part", "_sid", "_subject", "_total", "messages",
    )  # fmt: skip

    def __init__(
        self,
        on_message: OnMessage,
        on_control: OnControl,
        handlers: Mapping[str, Handler] | None = None,
        on_failed: OnFailed | None = None,
    ) -> None:
        self._on_message = on_message
        self._on_control = on_control
        self._handlers: Mapping[str, Handler] = {} if handlers is None else handlers
        self._on_failed = on_failed
        #: How many messages went to a handler so far.
        self.messages = 0
        #: What the last line with headers that was taken apart says, and its text before and after the one field in
        #: which its like differ: lines of a kind are nearly the same, and splitting is most of what reading one costs.
        self._before = self._after = self._subject = self._sid = ""
        self._part = self._total = 0
        #: The length of that text; no line is longer than the first value.
        self._fixed = _LONGEST
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
        at = need = messages = 0
        size = len(data)
        find, handlers = data.find, self._handlers
        before, after, fixed = self._before, self._after, self._fixed
        try:
            while at < size:
                end = find(b"\r\n", at, at + _LONGEST)
                if end < 0:
                    if size - at > MAX_LINE + 1:
                        raise ProtocolError(f"a line of more than {MAX_LINE} bytes: {data[at : at + 80]!r}…")
                    break
                start = end + 2
                try:
                    if data[at] == _HMSG:  # what the mesh sends: text, with a header block
                        line = data[at:end].decode("ascii")
                        field = " "
                        if len(line) > fixed and line.startswith(before) and line.endswith(after):
                            field = line[len(before) : len(line) - len(after)]
                        if " " in field:
                            self._learn(line)
                            before, after, fixed = self._before, self._after, self._fixed
                            field = line[len(before) : len(line) - len(after)]
                        sid = self._sid
                        if self._subject:
                            subject, reply = self._subject, field
                        else:
                            subject, reply = field, ""
                        middle, stop = start + self._part, start + self._total
                    elif data[at] == _MSG:
                        fields = data[at:end].decode("ascii").split(" ")
                        if not 4 <= len(fields) <= 5:
                            raise ValueError  # a size would be read as the subscription
                        subject, sid, reply = fields[1], fields[2], fields[3] if len(fields) == 5 else ""
                        middle, stop = start, start + int(fields[-1])
                    else:
                        self._on_control(data[at:end])
                        at = start
                        continue
                    handler = handlers.get(sid)
                except ValueError:
                    subject, sid, reply, middle, stop, handler = self._odd(data, at, end)
                if not start <= middle <= stop:
                    raise ProtocolError(f"sizes that cannot be: {data[at:end][:200]!r}")
                if stop + 2 > size:
                    if stop - start > MAX_MESSAGE:
                        raise ProtocolError(f"a message that is too large: {data[at:end][:200]!r}")
                    need = stop + 2 - at
                    break
                if data[stop] != _CR or data[stop + 1] != _LF:
                    raise ProtocolError(
                        f"a message that does not end where it should: {data[at:end][:200]!r}"
                    )
                at = stop + 2
                if handler is None:
                    self._foreign(subject, sid, reply, data[start:middle], data[middle:stop])
                    continue
                messages += 1
                try:
                    handler(subject, reply, data[start:middle], data[middle:stop])
                # Nothing that a handler does may end the reading: it is handed over, to be logged and counted.
                except Exception as error:
                    if self._on_failed is None:
                        raise
                    self._on_failed(subject, error)
        finally:
            self.messages += messages
        if at < size:
            self._chunks = [data[at:] if at else data]
            self._have = size - at
            self._need = need or self._have + 1
        else:
            self._have = self._need = 0

    def _learn(self, line: str) -> None:
        """Take apart a line with headers, and keep what its like will have before and after the field that differs: the
        inbox of a request, the subject of a reply. :class:`ValueError` where it is none."""
        fields = line.split(" ")
        if not 5 <= len(fields) <= 6 or not fields[1]:
            # A size would be read as the subscription, or one of them as the inbox; or the inbox as the subject.
            raise ValueError
        part, total = int(fields[-2]), int(fields[-1])
        self._part, self._total, self._sid = part, total, fields[2]
        if len(fields) == 6:
            self._subject = fields[1]
            self._before = line[: len(line) - len(fields[3]) - len(fields[4]) - len(fields[5]) - 2]
        else:
            self._subject = ""
            self._before = line[: len(fields[0]) + 1]
        field = len(fields[3]) if len(fields) == 6 else len(fields[1])
        self._after = line[len(self._before) + field :]
        self._fixed = len(line) - field

    def _odd(self, data: bytes, at: int, end: int) -> tuple[str, str, str, int, int, Handler | None]:
        """A message line that is not ASCII, or none at all: subject, subscription, inbox, where header block and
        payload end, and a handler where it is text."""
        with_headers = data[at] == _HMSG
        fields = data[at:end].split(b" ")
        count = len(fields) - 1 if with_headers else len(fields)
        try:
            if not 4 <= count <= 5:
                raise ValueError("not as many fields as a message has")
            middle = end + 2 + (int(fields[-2]) if with_headers else 0)
            stop = end + 2 + int(fields[-1])
            sid = fields[2].decode("utf-8", "surrogateescape")
        except ValueError:
            raise ProtocolError(f"a message line that cannot be read: {data[at:end][:200]!r}") from None
        handler: Handler | None = None
        try:
            words = [field.decode() for field in fields]
            handler = self._handlers.get(sid)
        except UnicodeDecodeError:
            words = [field.decode("utf-8", "surrogateescape") for field in fields]
        return words[1], words[2], words[3] if count == 5 else "", middle, stop, handler

    def _foreign(self, subject: str, sid: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A message that no handler gets: of a subscription unknown here, or to a subject that is no text."""
        if sid in self._handlers and self._on_failed is not None:
            self._on_failed(subject, NotTextError("its subject or inbox is no UTF-8"))
            return
        number, on, inbox = (text.encode("utf-8", "surrogateescape") for text in (sid, subject, reply))
        self._on_message(number, on, inbox, headers, payload)

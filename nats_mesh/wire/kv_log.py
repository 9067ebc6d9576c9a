"""A bucket as what it is underneath: a log of messages, read in order by direct gets and written by atomic batches.

Reading asks for no consumer and no stream information: one publish on ``$JS.API.DIRECT.GET.KV_<bucket>``, and the
answers come to the member's own inbox until the server says that this was all of them (204), or that there is
nothing (404). Writing several keys as one (ADR-50) needs a server from 2.12 on, and a stream that allows it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

import anyio
import msgspec

from nats_mesh.errors import CallError, Executed, PermissionDeniedError, Status
from nats_mesh.wire import headers as h
from nats_mesh.wire.kv import KvAbsentError, KvDeniedError, KvError, read_answer, trouble, writes_to
from nats_mesh.wire.loop import Future, future_maker
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.transport import Transport

__all__ = [
    "MAX_BATCH",
    "KvLog",
    "KvTooManyKeysError",
    "Message",
    "Page",
    "Write",
    "last_field",
    "last_int",
]

#: How many messages one atomic batch may have; the server's own bound.
MAX_BATCH: Final = 1000
#: What one question may bring: messages, and bytes of them.
PAGE: Final = 256
PAGE_BYTES: Final = 4 << 20
#: Of how many keys at most the server gives the newest message in one answer; beyond, it refuses with 413.
_MAX_LATEST: Final = 1024
_MAX_DIGITS: Final = 18

#: Whose answers come to the inbox of these questions, see :mod:`nats_mesh.wire.kv`.
_DESTINATION: Final = "$JS"
_SUBJECT, _SEQUENCE, _TIME = b"\r\nNats-Subject:", b"\r\nNats-Sequence:", b"\r\nNats-Time-Stamp:"
_PENDING, _UP_TO = b"\r\nNats-Num-Pending:", b"\r\nNats-UpTo-Sequence:"
_OPERATION = b"\r\nKV-Operation:"
_encode = msgspec.json.Encoder().encode


class KvTooManyKeysError(KvError):
    """The server does not give the newest messages of so many keys in one answer: read the log instead."""


class Message(NamedTuple):
    """One message of the log. ``value`` is ``None`` for the mark of a deletion, ``time`` the server's, RFC 3339.

    ``headers`` is the block as it was written, with what the server adds behind it.
    """

    sequence: int
    key: str
    value: bytes | None
    time: str
    headers: bytes


class Page(NamedTuple):
    """What one question brought; ``more``: there is more behind it. ``head``: up to where it was looked."""

    messages: list[Message]
    more: bool
    head: int


class Write(NamedTuple):
    """One key of a change: its new value (``None``: delete it) where revision ``expected`` stands (0: nothing)."""

    key: str
    value: bytes | None
    expected: int


class KvLog:
    """The log of one bucket. Every method raises :class:`~nats_mesh.wire.kv.KvError` where nobody answers in time."""

    def __init__(
        self, name: str, *, transport: Transport, mux: ReplyMux, stream: str = "", prefix: str = ""
    ) -> None:
        self.name = name
        #: The stream and what its subjects begin with: a bucket's, unless it is another kind of log.
        self.stream = stream or f"KV_{name}"
        self.prefix = prefix or f"$KV.{name}."
        #: Where keys are written: in a domain its server takes them from there to what :attr:`prefix` says.
        self._writes = writes_to(transport, self.prefix)
        self._get = f"{transport.jetstream}.DIRECT.GET.{self.stream}"
        self._transport = transport
        self._mux = mux
        self._new_future = future_maker()

    # -- reading ------------------------------------------------------------------------------------

    async def after(
        self, sequence: int, *, key: str = ">", count: int = PAGE, time: str = "", timeout_s: float
    ) -> Page:
        """The messages from ``sequence`` on, in order; of one ``key``, or of all; at most ``count`` of them.

        With a ``time`` (the server's, RFC 3339) in the place of ``sequence``: from then on.
        """
        question: dict[str, Any] = {
            "batch": count,
            "max_bytes": PAGE_BYTES,
            "next_by_subj": f"{self.prefix}{key}",
        }
        question |= {"start_time": time} if time else {"seq": max(1, sequence)}
        return await self._page(question, count, timeout_s)

    async def latest(self, *, up_to: int = 0, timeout_s: float) -> Page:
        """The newest message of every key, in the log's order; as of sequence ``up_to`` where that is given.

        :class:`KvTooManyKeysError` where there are more than about a thousand.
        """
        question: dict[str, Any] = {"multi_last": [f"{self.prefix}>"], "max_bytes": PAGE_BYTES}
        if up_to:
            question["up_to_seq"] = up_to
        found: list[Message] = []
        while True:
            page = await self._page(question, _MAX_LATEST, timeout_s)
            found += page.messages
            if not page.more or not page.messages:
                return Page(found, False, page.head)
            question |= {"seq": page.messages[-1].sequence + 1, "up_to_seq": page.head}

    async def _page(self, question: dict[str, Any], limit: int, timeout_s: float) -> Page:
        sink = _Sink(self._get, self._new_future(), limit)
        headers, _ = await self._ask(sink, self._publish(self._get, _encode(question)), timeout_s)
        status = h.server_status(headers)
        if status == 404:
            return Page([], False, 0)
        if status == 413:
            raise KvTooManyKeysError(f"{self.name}: too many keys for one answer")
        if status != 204:
            said = h.one_line(h.text(headers[:80]))
            raise KvError(f"{self.name}: the server answered a read with {said!r}")
        messages = [self._message(*each) for each in sink.answers]
        head = last_int(headers, _UP_TO) or (messages[-1].sequence if messages else 0)
        return Page(messages, bool(last_int(headers, _PENDING)), head)

    def _message(self, headers: bytes, value: bytes) -> Message:
        # Whoever wrote the message may have put headers of these names into it: the server's own come after those.
        subject = h.text(last_field(headers, _SUBJECT))
        sequence = last_int(headers, _SEQUENCE)
        if sequence < 1 or not subject.startswith(self.prefix):
            raise KvError(f"{self.name}: the server's answer to a read names no message of the bucket")
        gone = h.field(headers, _OPERATION) in (b"DEL", b"PURGE")
        time = h.text(last_field(headers, _TIME))[:64]
        return Message(sequence, subject[len(self.prefix) :], None if gone else value, time, headers)

    async def _ask(
        self, sink: _Sink, write: Callable[[str], Awaitable[None]], timeout_s: float
    ) -> tuple[bytes, bytes]:
        """Have ``write`` publish a question for ``sink``; returns what ends its answers."""
        reply = ""
        try:
            reply = self._mux.open(_DESTINATION, sink)
            with anyio.fail_after(timeout_s):
                await write(reply)
                headers, body = await sink.future
        except TimeoutError:
            raise KvError(f"{self.name} did not answer in {timeout_s:g} s", maybe=True) from None
        except PermissionDeniedError as error:
            raise KvDeniedError(error.message) from None
        except CallError as error:
            raise KvError(f"{self.name}: {error.message}", maybe=error.executed is not Executed.NO) from None
        finally:
            self._mux.close(reply)
        if h.server_status(headers) == h.NO_RESPONDERS:
            raise KvAbsentError(f"nobody answers for the bucket {self.name!r}")
        return headers, body

    def _publish(self, subject: str, payload: bytes) -> Callable[[str], Awaitable[None]]:
        async def write(reply: str) -> None:
            self._transport.publish(subject, payload, reply)

        return write

    # -- writing ------------------------------------------------------------------------------------

    async def write(self, writes: Sequence[Write], lines: str, *, batch: str, timeout_s: float) -> int:
        """Store all of ``writes`` or none of them, with header ``lines`` on each; returns the last one's revision,
        before which the others stand without a gap.

        ``batch`` is an id that no other batch has. The stream must allow atomic batches: a server that does not
        know them would store the messages one by one. :class:`~nats_mesh.wire.kv.KvConflictError` where one key
        has another revision than its write expects; which, the server does not say. Where no answer came the
        error is a ``maybe``: all of it stands there, or nothing.
        """
        if not 0 < len(writes) <= MAX_BATCH:
            raise ValueError(f"a batch has 1 to {MAX_BATCH} messages, not {len(writes)}")
        sink = _Sink(f"{self._writes}{writes[-1].key}", self._new_future(), 0)

        async def publish(reply: str) -> None:
            for number, each in enumerate(writes, 1):
                if self._transport.congested:
                    await self._transport.writable()
                block = self._block(each, lines, "" if len(writes) == 1 else batch, number, len(writes))
                self._transport.publish(f"{self._writes}{each.key}", each.value or b"", reply, block)

        _, body = await self._ask(sink, publish, timeout_s)
        answer = read_answer(self.name, body)
        if answer.error is not None:
            raise trouble(answer.error.err_code, f"{self.name}: {answer.error.description}")
        if answer.stream != self.stream or answer.seq < len(writes):
            text = f"{self.name}: another stream, {answer.stream[:80]!r}, takes what is written to {self.prefix}>"
            raise KvError(text, maybe=True)
        if len(writes) > 1 and (answer.batch != batch or answer.count != len(writes)):
            raise KvError(f"{self.name}: the server did not take the batch as one", maybe=True)
        return answer.seq

    @staticmethod
    def _block(write: Write, lines: str, batch: str, number: int, count: int) -> bytes:
        commit = "Nats-Batch-Commit: 1\r\n" if number == count else ""
        together = f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {number}\r\n{commit}" if batch else ""
        gone = "KV-Operation: DEL\r\n" if write.value is None else ""
        expected = f"Nats-Expected-Last-Subject-Sequence: {write.expected}\r\n"
        return f"NATS/1.0\r\n{expected}{gone}{together}{lines}\r\n".encode()

    # -- the server's API ---------------------------------------------------------------------------

    async def api(self, subject: str, question: object, *, timeout_s: float) -> bytes:
        """One question to JetStream's API (`$JS.API.<subject>`), and the body of its answer."""
        subject = f"{self._transport.jetstream}.{subject}"
        sink = _Sink(subject, self._new_future(), 0)
        payload = b"" if question is None else _encode(question)
        try:
            return (await self._ask(sink, self._publish(subject, payload), timeout_s))[1]
        except KvAbsentError:
            raise KvAbsentError("nobody answers for JetStream: it is off, or its leader is away") from None

    def __repr__(self) -> str:
        return f"<KvLog {self.name}>"


def last_field(block: bytes, key: bytes) -> bytes:
    """The last value of ``key``, empty where there is none: what the server adds comes after what was written."""
    at = block.rfind(key)
    return b"" if at < 0 else h.field(block[at:], key) or b""


def last_int(block: bytes, key: bytes) -> int:
    """As :func:`last_field`, as a number; 0 where it is none."""
    value = last_field(block, key)
    return int(value) if value.isdigit() and len(value) <= _MAX_DIGITS else 0


class _Sink:
    """A sink of the reply mux. Keeps at most ``limit`` messages until a status message ends them; with a limit
    of 0 it ends with the first answer that says something: the messages of a batch before its last are
    acknowledged by nothing.
    """

    def __init__(self, subject: str, future: Future, limit: int) -> None:
        self.subject = subject
        self.future = future
        self.answers: list[tuple[bytes, bytes]] = []
        self._limit = limit

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        if self.future.done():
            return
        if self._limit == 0:
            if headers or payload:
                self.future.set_result((headers, payload))
        elif h.server_status(headers) is not None:
            self.future.set_result((headers, payload))
        elif len(self.answers) < self._limit:
            self.answers.append((headers, payload))
        else:
            text = f"more than the {self._limit} messages that were asked for came in answer"
            self.future.set_exception(CallError(text, status=Status.INTERNAL))

    def on_failure(self, error: CallError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

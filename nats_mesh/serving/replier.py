"""Writes the one answer of each call: a value or an error, and what to do when it cannot be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from nats_mesh.core.duplicates import Kept
from nats_mesh.errors import CallError, DisconnectedError, Refused, Status
from nats_mesh.layers.base import Arrival
from nats_mesh.model import Headers, is_reserved_header
from nats_mesh.wire import headers as h
from nats_mesh.wire.codecs import CODECS, JSON, RAW, RAW_TYPES, Codec
from nats_mesh.wire.outcome import encode_error
from nats_mesh.wire.transport import Transport

__all__ = ["Replier", "merged"]

#: An attribute of an enumeration costs a call each time it is looked up.
_OK: Final = Status.OK
#: How much of a message survives where the whole error reply would be too large for the server.
_SHORT_TEXT = 200
_NO_LOAD = "0/0"
#: From this length on an inbox may make a longer line than a server takes: a character may be four bytes.
_LONG_INBOX: Final = 1000


class Replier:
    """Answers on one transport as one instance. ``lost`` counts answers that met no connection."""

    def __init__(self, *, instance: str, transport: Transport, codec: Codec) -> None:
        self.lost = 0
        #: What ``Mesh-Load`` says now.
        self.load: Callable[[], str] = lambda: _NO_LOAD
        self._instance = instance
        self._transport = transport
        #: The type of the last value that did not travel as it is.
        self._usual_type: Any = None
        #: What a value is written in when the request came as raw bytes.
        self._default = JSON if codec is RAW else codec
        self._raw = RAW
        head = f"NATS/1.0\r\nMesh-Instance: {instance}\r\n"
        self._heads = {
            each.name: (head if each is JSON else f"{head}content-type: {each.content_type}\r\n").encode()
            for each in CODECS.values()
        }
        #: The rest of the command after the sizes, for replies that have no headers of their own, and its length.
        self._blocks = {
            name: (f"\r\n{(head + h.END).decode()}", len(head + h.END)) for name, head in self._heads.items()
        }

    def answer(self, call: Arrival, codec: Codec, result: Any, extra: Headers | None) -> None:
        """Answer with a value, in the request's codec. :class:`CodecError` where it cannot be encoded."""
        if type(result) is not self._usual_type and isinstance(result, RAW_TYPES):
            codec, body = RAW, bytes(result)
        else:
            self._usual_type = type(result)
            if codec is self._raw:
                codec = self._default
            try:
                body = codec.raw_encode(result)
            # Whatever is wrong, the careful way says it.
            except Exception:  # noqa: BLE001
                body = codec.encode(result)
        reply, send = call.reply, self._transport.send
        try:
            if not reply:
                pass  # nobody waits for it
            elif send is not None and extra is None and len(reply) < _LONG_INBOX:
                block, length = self._blocks[codec.name]
                if call.noted:
                    notes = self._notes(call)
                    block, length = f"{block[:-2]}{notes}\r\n", length + len(notes)
                send(f"HPUB {reply} {length} {length + len(body)}{block}", body)
            else:
                lines = _lines(extra) + self._notes(call).encode()
                self._transport.publish(reply, body, "", self._heads[codec.name] + lines + h.END)
        except DisconnectedError:
            self.lost += 1
        except CallError as error:
            self.fail(call, Status.RESOURCE_EXHAUSTED, f"the reply is too large: {error.message}")
            return
        call.status = _OK
        if call.noted:
            call.sent, call.answered = len(body), body
            if call.keep is not None:
                call.keep(_OK, self._heads[codec.name] + _lines(extra) + h.END, body)

    def again(self, call: Arrival, kept: Kept) -> None:
        """Answer with a reply that was given before, as this instance."""
        call.status, call.sent, call.answered = kept.status, len(kept.body), kept.body
        if not call.reply:
            return
        block = (
            f"NATS/1.0\r\nMesh-Instance: {self._instance}\r\n{kept.headers}{self._notes(call)}\r\n".encode()
        )
        try:
            self._transport.publish(call.reply, kept.body, "", block)
        except DisconnectedError:
            self.lost += 1
        except CallError as error:
            self.fail(call, Status.RESOURCE_EXHAUSTED, f"the reply is too large: {error.message}")

    def fail(
        self,
        call: Arrival,
        status: Status,
        message: str,
        *,
        kind: str = "",
        details: dict[str, Any] | None = None,
        refused: Refused | None = None,
        retry_after_s: float | None = None,
        maybe: bool = False,
    ) -> None:
        """Answer with an error; a text too large for a message is cut, the status always arrives.

        ``maybe``: nobody knows whether the handler ran.
        """
        call.status, call.refused, call.problem = status, refused, message
        if not call.reply and call.keep is None:
            return
        reply, keep = call.reply, call.keep
        try:
            try:
                block, body = encode_error(
                    status,
                    message,
                    instance=self._instance,
                    kind=kind,
                    details=details,
                    refused=refused,
                    retry_after_s=retry_after_s,
                    maybe=maybe,
                )
                if reply:
                    self._transport.publish(reply, body, "", self._noted(call, block))
            except DisconnectedError:
                raise
            except CallError:
                text = f"{message[:_SHORT_TEXT]}… (cut: too large for a message)"
                block, body = encode_error(
                    status, text, instance=self._instance, kind=kind, refused=refused, maybe=maybe
                )
                self._transport.publish(reply, body, "", self._noted(call, block))
        except CallError:  # away, or an inbox so long that nothing can be written to it
            self.lost += 1
        else:
            call.sent, call.answered = (len(body), body) if reply else (0, b"")
        if keep is not None:
            keep(status, block, body)

    def _notes(self, call: Arrival) -> str:
        """The lines that a usual reply has not; last in the block, so that what stands before them is a usual one's."""
        if not call.noted:
            return ""
        lines = f"Mesh-Fault: {call.injected}\r\n" if call.injected else ""
        return f"{lines}Mesh-Load: {self.load()}\r\n" if call.instance_addressed else lines

    def _noted(self, call: Arrival, block: bytes) -> bytes:
        notes = self._notes(call)
        return block[: -len(h.END)] + notes.encode() + h.END if notes else block


def merged(first: Headers | None, second: Headers | None) -> Headers | None:
    """Both sets of headers, or the one there is."""
    if first is None or not len(first):
        return second
    if second is None:
        return first
    both = Headers(first)
    for name, value in second.pairs():
        both.add(name, value)
    return both


def _lines(extra: Headers | None) -> bytes:
    """An application's reply headers; the content type is the codec's business."""
    if extra is None:
        return b""
    kept = [(n, v) for n, v in extra.pairs() if n.lower() != "content-type" and not is_reserved_header(n)]
    return h.encode_lines(Headers.trusted(kept))

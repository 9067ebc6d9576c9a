"""From the reply to one attempt to a value, or to the error that it is."""

from __future__ import annotations

from typing import Any

from nats_mesh.calling.exchange import Target
from nats_mesh.calling.replies import UsualReplies, decode_value
from nats_mesh.errors import CodecError, Executed, NoInstancesError, RemoteError, Status
from nats_mesh.model import Request, is_name
from nats_mesh.wire import headers as h
from nats_mesh.wire.outcome import decode_error, is_error

__all__ = ["Reading"]


class Reading:
    """Reads the replies that come to one identity: what most of them say was read before."""

    __slots__ = ("_usual",)

    def __init__(self) -> None:
        self._usual = UsualReplies()

    def read(self, known: Target, request: Request, headers: bytes, body: bytes) -> tuple[bytes, str, Any]:
        """The reply's header block, who answered, and the value; or the error that the reply is."""
        usual = self._usual.known.get(headers) or self._usual.of_busy(headers)
        if usual is None:
            return self._read_any(known, request, headers, body)
        try:
            return headers, usual.instance, known.usual_value(usual.codec, body, request.returns)
        except CodecError as error:
            raise CodecError(f"{known.label}: {error}", executed=Executed.YES) from None

    def _read_any(
        self, known: Target, request: Request, headers: bytes, body: bytes
    ) -> tuple[bytes, str, Any]:
        """Any reply: a refusal of the server, an error, or a value in whatever it says."""
        if headers:
            code = h.server_status(headers)
            if code == h.NO_RESPONDERS:
                raise NoInstancesError("nobody listens there")
            if code is not None and code >= 400:  # JetStream's way to say no, without a body
                text = h.one_line(headers.partition(b"\r\n")[0][9:].decode("utf-8", "replace"))
                raise RemoteError(
                    f"answered {text}",
                    status=Status.from_code(code),
                    executed=Executed.MAYBE,
                    attempts=request.attempt,
                )
            if is_error(headers):
                raise decode_error(
                    headers,
                    body,
                    service=known.service,
                    endpoint=known.endpoint,
                    attempts=request.attempt,
                    raises=request.raises,
                )
            self._usual.learn(headers)
        try:
            value = decode_value(headers, body, request.returns)
        except CodecError as error:
            raise CodecError(f"{known.label}: {error}", executed=Executed.YES) from None
        instance = h.text_field(headers, h.INSTANCE)
        return headers, instance if is_name(instance) else "", value

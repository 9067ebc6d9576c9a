"""Errors on the wire: how a failed call is written into a reply, and read out of one.

The body ``{"status", "message", "type", "details"}`` is authoritative; ``Nats-Service-Error`` and its
code are a sanitised copy for foreign clients. Only ``Mesh-Refused``, the server's no-responders and an
injected error (``Mesh-Fault: abort``) mean that the handler surely did not run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from nats_mesh.errors import (
    UNREADABLE,
    ApplicationError,
    CallError,
    CancelledByPeerError,
    DeadlineExceededError,
    Executed,
    OverloadedError,
    PermissionDeniedError,
    RateLimitedError,
    Refused,
    RemoteError,
    Status,
)
from nats_mesh.wire import headers as h

__all__ = ["ErrorBody", "decode_error", "encode_error", "failed_with", "is_error"]


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """The body of every error reply, always JSON. ``type`` names an application error's class."""

    status: str
    message: str = ""
    type: str = ""
    details: dict[str, Any] = {}


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ErrorBody).decode

#: ``Mesh-Fault`` of an error that was injected in the handler's place.
_ABORT = b"abort"
#: ``Mesh-Executed`` where nobody knows whether the handler ran.
_MAYBE = b"maybe"
_REFUSED: dict[Refused, type[CallError]] = {
    Refused.DRAINING: OverloadedError,
    Refused.CONCURRENCY: OverloadedError,
    Refused.RATE: RateLimitedError,
    Refused.QUOTA: RateLimitedError,
    Refused.ACCESS: PermissionDeniedError,
    Refused.AUTHN: PermissionDeniedError,
    Refused.DEADLINE: DeadlineExceededError,
}
_STATUS: dict[Status, type[CallError]] = {
    Status.CANCELLED: CancelledByPeerError,
    Status.DEADLINE_EXCEEDED: DeadlineExceededError,
}


def encode_error(
    status: Status,
    message: str,
    *,
    instance: str,
    kind: str = "",
    details: dict[str, Any] | None = None,
    refused: Refused | None = None,
    retry_after_s: float | None = None,
    maybe: bool = False,
) -> tuple[bytes, bytes]:
    """Header block and body of an error reply. ``maybe``: nobody knows whether the handler ran."""
    lines = [
        f"Nats-Service-Error: {h.one_line(message or status)}\r\n",
        f"Nats-Service-Error-Code: {status.code}\r\n",
        f"Mesh-Status: {status}\r\n",
        f"Mesh-Instance: {instance}\r\n",
    ]
    if refused is not None:
        lines.append(f"Mesh-Refused: {refused}\r\n")
    elif maybe:
        lines.append("Mesh-Executed: maybe\r\n")
    if retry_after_s is not None:
        lines.append(f"Mesh-Retry-After-Ms: {max(0, round(retry_after_s * 1000))}\r\n")
    body = _encode(ErrorBody(status, _clean(message), kind, details or {}))
    return h.PREAMBLE + "".join(lines).encode() + h.END, body


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # lone surrogates cannot be encoded


def is_error(block: bytes) -> bool:
    """Whether a reply's header block says that the call failed."""
    return bool(block) and (
        h.field(block, h.STATUS) or h.field(block, h.ERROR_CODE) or h.field(block, h.ERROR)
    ) not in (
        None,
        b"OK",
    )


def decode_error(
    block: bytes,
    payload: bytes,
    *,
    service: str,
    endpoint: str,
    attempts: int,
    raises: Iterable[type[Exception]] = (),
) -> CallError:
    """The error that a reply carries, as the class the caller expects. Never raises, whatever the peer sent."""
    named = h.field(block, h.STATUS)
    foreign = named is None
    status = _status_of(block, named)
    body = _body_of(payload) if not foreign else None
    if body is not None:
        message, kind, details = body.message, body.type, body.details
    else:
        message = (h.field(block, h.ERROR) or b"").decode("utf-8", "replace")
        kind, details = "", {}
    refused = _refused_of(block)
    injected = h.field(block, h.FAULT) == _ABORT
    executed = Executed.NO if refused is not None or injected else Executed.YES
    unknown = h.field(block, h.EXECUTED) == _MAYBE or (foreign and status is Status.UNAVAILABLE)
    if unknown and executed is Executed.YES:
        executed = Executed.MAYBE
    common: dict[str, Any] = {
        "service": service,
        "endpoint": endpoint,
        "attempts": attempts,
        "executed": executed,
        "refused": refused,
        "retry_after_s": _retry_after_of(block),
        "type": kind,
    }
    if kind and refused is None:
        for expected in raises:
            if expected.__name__ == kind and issubclass(expected, ApplicationError):
                error = expected.from_details(message, details, status=status, **common)
                if error is not None:
                    return error
    cls = _REFUSED.get(refused, RemoteError) if refused is not None else _STATUS.get(status, RemoteError)
    failure = cls(message, status=status, details=details, **common)
    if injected:
        failure.fault = "abort"
    return failure


def failed_with(status: Status, message: str, *, fault: str = "") -> CallError:
    """The error for a call that is failed on purpose and was never sent."""
    failure = _STATUS.get(status, RemoteError)(message, status=status, executed=Executed.NO)
    failure.fault = fault
    return failure


def _status_of(block: bytes, named: bytes | None) -> Status:
    if named is not None:
        try:
            status = Status(named.decode("ascii", "replace"))
        except ValueError:
            return Status.UNKNOWN
        return Status.UNKNOWN if status is Status.OK else status
    try:
        return Status.from_code(h.int_field(block, h.ERROR_CODE) or 500)
    except ValueError:
        return Status.UNKNOWN


def _body_of(payload: bytes) -> ErrorBody | None:
    try:
        return _decode(payload)
    except UNREADABLE:
        return None


def _refused_of(block: bytes) -> Refused | None:
    value = h.field(block, h.REFUSED)
    if value is None:
        return None
    try:
        return Refused(value.decode("ascii", "replace"))
    except ValueError:
        return None


def _retry_after_of(block: bytes) -> float | None:
    try:
        value = h.int_field(block, h.RETRY_AFTER_MS)
    except ValueError:
        return None
    return None if value is None or value < 0 else value / 1000.0

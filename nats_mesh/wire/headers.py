"""Header blocks as bytes: written in one go, read only where asked.

A block is ``NATS/1.0[ status[ text]]\\r\\n`` and ``name: value\\r\\n`` lines, closed by an empty line.
Lookups of the mesh's own fields scan the raw block; a dictionary is built for users alone, on demand.
"""

from __future__ import annotations

import re
from typing import Final

from nats_mesh.core.trace import TraceContext, checked_tracestate, parse_traceparent
from nats_mesh.model import CONTROL, Headers, is_header_name, is_reserved_header

__all__ = [
    "ATTEMPT",
    "BAGGAGE",
    "CONTENT_TYPE",
    "ERROR",
    "ERROR_CODE",
    "EXECUTED",
    "FAULT",
    "IDEMPOTENCY_KEY",
    "INSTANCE",
    "LOAD",
    "MIRROR",
    "NO_RESPONDERS",
    "PREAMBLE",
    "PRIORITY",
    "REFUSED",
    "RETRY_AFTER_MS",
    "SENT_MS",
    "STATUS",
    "TIMEOUT_MS",
    "TRACEPARENT",
    "TRACESTATE",
    "content_type",
    "encode",
    "encode_lines",
    "field",
    "int_field",
    "is_sampled",
    "load_field",
    "one_line",
    "parse",
    "server_status",
    "text",
    "text_field",
    "trace_parent",
    "trace_state",
    "user_headers",
    "usual_beginning",
    "usual_request",
]

PREAMBLE = b"NATS/1.0\r\n"
END = b"\r\n"
#: The inline status that answers a request which nobody hears.
NO_RESPONDERS: Final = 503


def _key(name: str) -> bytes:
    return b"\r\n" + name.encode() + b":"


TIMEOUT_MS = _key("Mesh-Timeout-Ms")
SENT_MS = _key("Mesh-Sent-Ms")
ATTEMPT = _key("Mesh-Attempt")
IDEMPOTENCY_KEY = _key("Mesh-Idempotency-Key")
PRIORITY = _key("Mesh-Priority")
MIRROR = _key("Mesh-Mirror")
STATUS = _key("Mesh-Status")
REFUSED = _key("Mesh-Refused")
EXECUTED = _key("Mesh-Executed")
INSTANCE = _key("Mesh-Instance")
LOAD = _key("Mesh-Load")
FAULT = _key("Mesh-Fault")
RETRY_AFTER_MS = _key("Mesh-Retry-After-Ms")
ERROR = _key("Nats-Service-Error")
ERROR_CODE = _key("Nats-Service-Error-Code")
CONTENT_TYPE = _key("content-type")
_FOREIGN_CONTENT_TYPE = _key("Content-Type")
TRACEPARENT = _key("traceparent")
TRACESTATE = _key("tracestate")
BAGGAGE = _key("baggage")

_MAX_INT_DIGITS = 15
#: The last digit of the flags of a sampled trace.
_ODD_DIGITS = frozenset({b"1", b"3", b"5", b"7", b"9", b"b", b"d", b"f"})
#: The header block of most requests: time left, the caller's clock, a trace, perhaps a codec; nothing else.
usual_request = re.compile(
    rb"NATS/1\.0\r\nMesh-Timeout-Ms: ([0-9]{1,15})\r\nMesh-Sent-Ms: ([0-9]{1,15})\r\n"
    rb"traceparent: [0-9a-f-]{55}\r\n(?:content-type: ([a-z/-]{1,64})\r\n)?\r\n"
).fullmatch

#: How the block of a request begins that says more than that, in the order in which callers write it.
usual_beginning = re.compile(
    rb"NATS/1\.0\r\nMesh-Timeout-Ms: ([0-9]{1,15})\r\nMesh-Sent-Ms: ([0-9]{1,15})\r\n"
).match


def field(block: bytes, key: bytes) -> bytes | None:
    """The first value of ``key`` (one of the constants above) without blanks around it, or ``None``."""
    at = block.find(key)
    if at < 0:
        return None
    start = at + len(key)
    end = block.find(b"\r\n", start)
    return block[start : end if end >= 0 else None].strip()


def text(value: bytes) -> str:
    """A value as text. Control characters become blanks: a bare CR or LF handed on would forge a line elsewhere."""
    return CONTROL.sub(" ", value.decode("utf-8", "replace"))


def text_field(block: bytes, key: bytes) -> str:
    """As :func:`field`, as text; empty where the field is missing."""
    value = field(block, key)
    return "" if value is None else text(value)


def trace_parent(block: bytes) -> TraceContext | None:
    """Where in which trace a request is; ``None`` where it says nothing valid of that, or says it more than once."""
    at = block.find(TRACEPARENT)
    if at < 0 or block.find(TRACEPARENT, at + 1) >= 0:
        return None
    start = at + len(TRACEPARENT)
    end = block.find(b"\r\n", start)
    return parse_traceparent(block[start : end if end >= 0 else None].decode("ascii", "replace"))


def trace_state(block: bytes) -> str:
    """What to hand on of its ``tracestate``; empty where that breaks the rules."""
    if TRACESTATE not in block:
        return ""
    return checked_tracestate([value for name, value in parse(block) if name == "tracestate"])


def content_type(block: bytes) -> bytes | None:
    """The content type, also in the spelling of clients that come from HTTP."""
    value = field(block, CONTENT_TYPE)
    return field(block, _FOREIGN_CONTENT_TYPE) if value is None else value


def int_field(block: bytes, key: bytes) -> int | None:
    """A whole number; :class:`ValueError` where the field is there and is none (or has over 15 digits)."""
    value = field(block, key)
    if value is None:
        return None
    digits = value[1:] if value[:1] == b"-" else value
    if not digits.isdigit() or len(digits) > _MAX_INT_DIGITS:
        raise ValueError(f"{key[2:-1].decode()}: {value[:40]!r} is not a whole number")
    return int(value)


def load_field(block: bytes) -> tuple[int, int] | None:
    """What ``Mesh-Load`` says: calls in flight, and how many are taken; ``None`` where it is missing or malformed."""
    at = block.find(LOAD)
    if at < 0:
        return None
    at += len(LOAD)
    end = block.find(END, at)
    value = block[at : end if end >= 0 else len(block)].strip()
    in_flight, slash, limit = value.partition(b"/")
    if not (slash and in_flight.isdigit() and limit.isdigit()) or len(value) > 2 * _MAX_INT_DIGITS + 1:
        return None
    return int(in_flight), int(limit)


def encode_lines(headers: Headers) -> bytes:
    """The lines of ``headers``, without preamble and end."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.pairs()]).encode()


def encode(headers: Headers) -> bytes:
    """A whole block."""
    return PREAMBLE + encode_lines(headers) + END


def parse(block: bytes) -> list[tuple[str, str]]:
    """Every pair of a block, in order; lines without a colon and names that nobody could send are left out."""
    pairs: list[tuple[str, str]] = []
    for line in block.split(b"\r\n")[1:]:
        raw_name, colon, value = line.partition(b":")
        name = raw_name.strip().decode("latin-1")
        if not colon or not is_header_name(name):
            continue
        if value[:1] == b" ":
            value = value[1:]
        pairs.append((name, text(value)))
    return pairs


def user_headers(block: bytes) -> Headers:
    """What an application may see: everything but the ``Mesh-*`` and ``Nats-*`` fields."""
    if not block:
        return Headers()
    return Headers.trusted([pair for pair in parse(block) if not is_reserved_header(pair[0])])


def server_status(block: bytes) -> int | None:
    """The code of an inline status message (503: no responders), or ``None`` for an ordinary block."""
    if block[8:9] != b" ":
        return None
    code = block[9:12]
    return int(code) if code.isdigit() else None


def is_sampled(block: bytes, *, alone: bool = False) -> bool:
    """Whether the trace of a request is sampled. ``alone``: nothing but a codec stands behind its ``traceparent``."""
    if alone and block[-7:-6] == b"-" and block[-24:-23] == b"-":  # not even a codec
        return block[-5:-4] in _ODD_DIGITS
    value = field(block, TRACEPARENT)
    return value is not None and value[52:53] == b"-" and value[54:55] in _ODD_DIGITS


def one_line(text: str, limit: int = 256) -> str:
    """Free text made fit for one header line: control characters become blanks, long text is cut."""
    clean = " ".join("".join(c if c.isprintable() else " " for c in text[: limit * 2]).split())
    return (clean[: limit - 1] + "…" if len(clean) > limit else clean) or "error"

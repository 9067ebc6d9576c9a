"""W3C Trace Context and Baggage: parse, format, continue.

Rules of https://www.w3.org/TR/trace-context/ (version 00, later versions read as far as they are
known) and https://www.w3.org/TR/baggage/. A malformed parent starts a new trace; it never fails a call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote

__all__ = [
    "TraceContext",
    "checked_tracestate",
    "format_baggage",
    "format_traceparent",
    "parse_baggage",
    "parse_traceparent",
]

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16
_MAX_BAGGAGE_BYTES = 8192
_MAX_BAGGAGE_MEMBERS = 64
#: A member of a ``tracestate``: a key, perhaps with a tenant and a system, and a value of printable ASCII without comma
#: and equals sign that does not end in a blank.
_STATE = re.compile(
    r"((?:[a-z][a-z0-9_*/-]{0,255})|(?:[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}))"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MAX_STATE_MEMBERS = 32
#: How much of it is handed on, and the members that go first where there is more (characters).
_MAX_STATE, _LONG_STATE = 512, 128
_SAFE = "!#$&'()*+-./:<=>?@[]^_`{|}~"


class TraceContext(NamedTuple):
    """One position in a trace: 32 and 16 hexadecimal digits, and whether it is sampled."""

    trace_id: str
    span_id: str
    sampled: bool


def parse_traceparent(value: str | None) -> TraceContext | None:
    """The context a ``traceparent`` names, or ``None`` where it is missing or breaks the rules."""
    if value is None or (found := _PARENT.fullmatch(value.strip())) is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or trace_id == _NO_TRACE or span_id == _NO_SPAN or (version == "00" and rest):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1))


def format_traceparent(context: TraceContext) -> str:
    """Version 00 of the header."""
    return f"00-{context.trace_id}-{context.span_id}-{'01' if context.sampled else '00'}"


def checked_tracestate(values: Iterable[str]) -> str:
    """What to hand on of the ``tracestate`` headers of a request, in their order; empty where they break the rules.

    As the recommendation has it: several headers are one list, empty members are left out, more than 32 members, a
    malformed one or a key that stands twice spoil all of it, and of more than 512 characters the members longer than
    128 go first, and then those at the end, which are the oldest.
    """
    members: dict[str, str] = {}
    for value in values:
        for each in value.split(","):
            member = each.strip(" \t")
            if not member:
                continue
            found = _STATE.fullmatch(member)
            if found is None or found[1] in members or len(members) >= _MAX_STATE_MEMBERS:
                return ""
            members[found[1]] = member
    kept = list(members.values())
    size = sum(map(len, kept)) + len(kept) - 1
    for at in range(len(kept) - 1, -1, -1):
        if size > _MAX_STATE and len(kept[at]) > _LONG_STATE:
            size -= len(kept.pop(at)) + 1
    while size > _MAX_STATE:
        size -= len(kept.pop()) + 1
    return ",".join(kept)


def parse_baggage(value: str | None) -> dict[str, str]:
    """Members of a ``baggage`` header, percent-decoded; properties are dropped, what is malformed is skipped."""
    members: dict[str, str] = {}
    for member in (value or "")[:_MAX_BAGGAGE_BYTES].split(","):
        pair = member.split(";", 1)[0]
        name, equals, text = pair.partition("=")
        name = name.strip()
        if equals and _TOKEN.fullmatch(name) is not None and len(members) < _MAX_BAGGAGE_MEMBERS:
            members[name] = unquote(text.strip())
    return members


def format_baggage(members: Mapping[str, str]) -> str:
    """The header for ``members``; :class:`ValueError` for a name that is no token, over 64 members or 8,192 bytes.

    The limits are the W3C's.
    """
    for name in members:
        if _TOKEN.fullmatch(name) is None:
            raise ValueError(
                f"baggage name {name!r:.80}: use letters, digits and !#$%&'*+-.^_`|~, without spaces"
            )
    text = ",".join(f"{name}={quote(value, safe=_SAFE)}" for name, value in members.items())
    if len(members) > _MAX_BAGGAGE_MEMBERS or len(text) > _MAX_BAGGAGE_BYTES:
        raise ValueError(
            f"baggage has {len(members)} members and {len(text)} bytes; the limits are "
            f"{_MAX_BAGGAGE_MEMBERS} and {_MAX_BAGGAGE_BYTES}"
        )
    return text

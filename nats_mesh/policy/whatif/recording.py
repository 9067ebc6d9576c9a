"""Recordings: a file of calls, one JSON object a line, that a candidate policy can be tried on.

The first line says what was recorded, and how; the last one, where the recording came to its end, what was left out.
A line that cannot be read is left out and counted, with its number: a recording is evidence, and a hole in it is said.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from nats_mesh.core.envelope import HeaderNames, RecordedCall, Share
from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.presence import Count, Instant, Name
from nats_mesh.errors import UNREADABLE, ConfigError

__all__ = [
    "FORMAT",
    "MAX_CALLS",
    "MAX_LINE",
    "MAX_TOTAL",
    "Damaged",
    "End",
    "Header",
    "Recording",
    "encode_line",
    "read_recording",
]

#: The version of the format that is written, and the highest that is read.
FORMAT: Final = 1
MAX_CALLS: Final = 500_000
#: The longest line that is read (bytes).
MAX_LINE: Final = 64 * 1024
#: How much of a file is read in all (bytes): as many of the longest lines would be more than most machines have.
MAX_TOTAL: Final = 512 * 1024 * 1024
#: Of so many damaged lines the reason is kept.
_MAX_DAMAGED: Final = 20
_MAX_REASON: Final = 200


class Header(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="recording"):
    """The first line. ``service`` is empty for all of them. ``policies`` are the revisions of the policies that
    members followed at the start (`epoch.sequence`), in the order of their numbers; ``headers`` the names of what was
    kept of the calls' headers, ``None`` for all; ``rate_per_s`` how many calls a second at most."""

    format: Annotated[int, msgspec.Meta(ge=1)]
    namespace: Name
    started: Instant
    service: Annotated[str, msgspec.Meta(max_length=63)] = ""
    policies: tuple[str, ...] = ()
    sample: Share = 1.0
    headers: HeaderNames = ()
    rate_per_s: Annotated[float, msgspec.Meta(gt=0.0)] | None = None


class End(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="end"):
    """The last line. Of the ``seen`` calls ``recorded`` stand here; ``dropped`` belonged to the sample and found no
    room, at the instances or here; ``lost`` messages never came, ``ignored`` ones were not believed."""

    ended: Instant
    seen: Count = 0
    recorded: Count = 0
    dropped: Count = 0
    lost: Count = 0
    ignored: Count = 0


class Damaged(msgspec.Struct, frozen=True):
    """A line that could not be read, and why."""

    line: int
    reason: str


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a file. ``end`` is ``None`` where the recording was cut off. ``damaged_lines`` counts the lines that
    could not be read, of which ``damaged`` has the first."""

    header: Header
    calls: tuple[RecordedCall, ...]
    end: End | None = None
    damaged: tuple[Damaged, ...] = ()
    damaged_lines: int = 0


def encode_line(record: Header | RecordedCall | End) -> bytes:
    """A line, with its end."""
    return msgspec.json.encode(record) + b"\n"


class _Tag(msgspec.Struct):
    record: str = ""
    format: int = 0


_tag = at_first_use(lambda: msgspec.json.Decoder(_Tag).decode)
_header = at_first_use(lambda: msgspec.json.Decoder(Header).decode)
_end = at_first_use(lambda: msgspec.json.Decoder(End).decode)
_call = at_first_use(lambda: msgspec.json.Decoder(RecordedCall).decode)


def read_recording(lines: Iterable[bytes], *, file: str = "recording") -> Recording:
    """What ``lines`` hold. :class:`ConfigError` where they are no recording, one of a later format, or too long."""
    found = iter(lines)
    header = _read_header(next(found, b""), file)
    calls: list[RecordedCall] = []
    damaged: list[Damaged] = []
    count = 0
    end: End | None = None
    total = 0
    for number, line in enumerate(found, start=2):
        total += len(line)
        if total > MAX_TOTAL:
            raise ConfigError(
                f"{file}:{number}: more than {MAX_TOTAL >> 20} MiB; record fewer calls with --sample, or fewer headers "
                "with --headers"
            )
        if not line.strip():
            continue
        try:
            call = _read_line(line)
        except UNREADABLE as error:
            count += 1
            if len(damaged) < _MAX_DAMAGED:
                damaged.append(Damaged(number, _reason(error)))
            continue
        if isinstance(call, End):
            end = call
            continue
        if len(calls) >= MAX_CALLS:
            raise ConfigError(f"{file}:{number}: more than {MAX_CALLS:,} calls; record fewer with --sample")
        calls.append(call)
    return Recording(header=header, calls=tuple(calls), end=end, damaged=tuple(damaged), damaged_lines=count)


def _read_header(line: bytes, file: str) -> Header:
    try:
        tag = _tag(line[:MAX_LINE])
        if tag.record == "recording" and tag.format > FORMAT:
            raise ConfigError(
                f"{file}: is a recording of format {tag.format}, and this version reads up to {FORMAT}: "
                "use the version that made it, or a later one"
            )
        return _header(line[:MAX_LINE])
    except UNREADABLE as error:
        raise ConfigError(
            f"{file}:1: is no recording: {_reason(error)}; nats-mesh record makes one"
        ) from None


def _read_line(line: bytes) -> RecordedCall | End:
    if len(line) > MAX_LINE:
        raise ValueError(f"has {len(line)} bytes, at most {MAX_LINE} are read")
    if _tag(line).record == "end":
        return _end(line)
    call = _call(line)
    datetime.datetime.fromisoformat(call.at)  # digits alone are no instant: the order of calls is made of it
    return call


def _reason(error: Exception) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    return text[:_MAX_REASON] or type(error).__name__

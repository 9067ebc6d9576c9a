"""One span, as it travels and as whoever reads it has it. Plain data."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from nats_mesh.core.presence import Count, Name, Version
from nats_mesh.core.sampling import Reason
from nats_mesh.core.telemetry_rules import MAX_SPAN_LABELS

__all__ = ["MAX_ERROR", "MAX_SPANS", "RecordedSpan", "Span"]

#: How many spans one message has.
MAX_SPANS: Final = 512
#: The longest text of an error, characters.
MAX_ERROR: Final = 200
_LONGEST_US: Final = 10**13

_TraceId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
_SpanId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
_Parent = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{16})?\Z")]
_Word = Annotated[str, msgspec.Meta(pattern=r"\A[a-z-]{0,40}\Z")]
_Maybe = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{0,63}\Z")]
_Micros = Annotated[int, msgspec.Meta(ge=0, le=_LONGEST_US)]
_Number = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
_Line = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z", max_length=MAX_ERROR)]
#: As policies may say them.
_Label = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z", max_length=256)]


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of a trace: a call as its caller saw it (``client``), one of several attempts of it (``attempt``), or
    as the instance saw it (``server``).

    ``start_us`` is its wall time (microseconds since 1970, by the clock of whoever tells), ``took_us`` its length.
    ``why`` says why it was kept: the trace is sampled, the call failed, or it was slow. ``service`` and ``endpoint``
    are what was called, ``caller`` who called; ``instance`` is who answered, as the caller learned it. ``attempt``
    counts from 1; of a ``client`` span it is how many were made. ``queue_us`` is how long a call waited at the
    instance, ``fault_us`` how long a fault held it there, or at its caller, on purpose, ``refused`` why it was not let
    in there, or by which of its caller's layers it was not sent, ``injected`` what an operator did to it. ``flags``
    are those of the metrics. ``route`` is how it was sent (``all``, a subset, ``direct``, ``plain``), ``rules`` the
    policies' rules that sent it there, ``error`` what its caller was told. ``labels`` are what the teller's policies
    put on such calls.
    """

    trace: _TraceId
    id: _SpanId
    kind: Literal["client", "attempt", "server"]
    service: Name
    endpoint: Name
    caller: Name
    start_us: Count
    took_us: _Micros
    status: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z_]{1,40}\Z")] = "OK"
    parent: _Parent = ""
    why: Reason = "sampled"
    instance: _Maybe = ""
    attempt: _Number = 1
    queue_us: _Micros = 0
    fault_us: _Micros = 0
    route: _Maybe = "all"
    refused: _Word = ""
    injected: _Word = ""
    flags: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z,]{0,32}\Z")] = ""
    rules: Annotated[tuple[_Line, ...], msgspec.Meta(max_length=8)] = ()
    error: _Line = ""
    labels: Annotated[dict[_Label, _Label], msgspec.Meta(max_length=MAX_SPAN_LABELS)] = {}

    @property
    def name(self) -> str:
        """What tools call it."""
        return f"{self.service}/{self.endpoint}"

    @property
    def end_us(self) -> int:
        """When it was over, by the same clock."""
        return self.start_us + self.took_us


class RecordedSpan(Span, frozen=True, kw_only=True, omit_defaults=True):
    """A span, and who told it: a service's instance, or a client by its name and connection."""

    member: Name
    member_instance: Name
    version: Version = "0.0.0"

    @property
    def each_flag(self) -> tuple[str, ...]:
        """Its flags, one by one."""
        return tuple([flag for flag in self.flags.split(",") if flag])

    @property
    def clock(self) -> tuple[str, str]:
        """Whose clock its instants are of."""
        return self.member, self.member_instance

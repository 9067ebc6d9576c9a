"""Many spans in short: calls of which there is little to say, told together as what they have in common, and columns.

A row of its own costs a call more than all else that is done for its span: numbers with a fraction are dear to write
and to read as decimals, and texts are gone through for what to escape. Columns are put together whole. Rejected: whole
microseconds instead of fractions; to make them costs as much as it saves. Pure: rows to bytes and bytes to spans.
"""

from __future__ import annotations

from binascii import b2a_base64
from struct import Struct, pack
from typing import Annotated, Any, Final

import msgspec

from nats_mesh.core.lazy import at_first_use
from nats_mesh.errors import CodecError
from nats_mesh.telemetry.notes import ROW
from nats_mesh.telemetry.span_parts import MAX_SPANS, Span
from nats_mesh.wire.codecs import JSON

__all__ = ["SpanColumns", "encode_alike", "encode_columns", "read_columns", "spans_of_columns"]

#: What rows may have in common.
_COMMON: Final = ("kind", "service", "endpoint", "caller", "rules", "labels")
#: Trace and span as a ``traceparent`` says them, and how long that is; and what stands for those of nobody.
_IDS: Final = 49
_ID: Final = 16
_NO_ID: Final = "0" * _ID
_NO_IDS: Final = f"{'0' * 32}-{_NO_ID}"
_NO_RAW_IDS: Final = _NO_IDS.encode()
_ANY_ROUTE: Final = "all"
#: Bytes of a call's times.
_TIMES: Final = 16
#: By whatever clock, seconds: what is beyond is no instant.
_FARTHEST_S: Final = 1e12


class SpanColumns(msgspec.Struct, frozen=True, kw_only=True):
    """Sampled calls that went well at their first attempt, of which there is nothing else to say: what they have
    ``alike``, and in columns what each has for itself, as ``docs/wire.md`` says."""

    alike: dict[str, msgspec.Raw]
    ids: Annotated[str, msgspec.Meta(max_length=_IDS * MAX_SPANS)]
    times: Annotated[bytes, msgspec.Meta(max_length=_TIMES * MAX_SPANS)]
    spans: Annotated[str, msgspec.Meta(max_length=_ID * MAX_SPANS)] = ""
    route: str | Annotated[list[str], msgspec.Meta(max_length=MAX_SPANS)] = _ANY_ROUTE
    instance: str | Annotated[list[str], msgspec.Meta(max_length=MAX_SPANS)] = ""


_decode_group = at_first_use(lambda: JSON.decoder(SpanColumns))
#: What stands in an object as it is was not looked into when that was read.
_decode_any = JSON.decoder(Any)


def encode_alike(span: Span) -> bytes:
    """What rows have in common, as JSON: whatever ``span`` says that a row does not."""
    return JSON.encode({name: getattr(span, name) for name in _COMMON if getattr(span, name)})


def encode_columns(alike: bytes, rows: list[Any], *, server: bool) -> bytes:
    """Rows, one behind the other (:data:`~nats_mesh.telemetry.notes.Row`) and one at least, with what they have in
    common, as JSON. Of a ``server`` they say how long calls waited, too."""
    ids, others, routes, instances, begun, took, waited = [rows[at::ROW] for at in range(ROW)]
    count = len(ids)
    if server:
        times = pack(f"<{count}d{2 * count}f", *begun, *took, *waited)
    else:
        times = pack(f"<{count}d{count}f", *begun, *took)
    return b"".join(
        [
            b'{"alike":', alike,
            b',"ids":', _joined_ids(ids, count),
            b',"spans":"', _joined_spans(others, count),
            b'","route":', _each(routes, count, _ANY_ROUTE),
            b',"instance":', _each(instances, count, ""),
            b',"times":"', b2a_base64(times, newline=False), b'"}',
        ]
    )  # fmt: skip


def _joined_ids(ids: list[Any], count: int) -> bytes:
    """Ids as JSON. Those of a member's own are what they should be; those that came as bytes may be anything."""
    if isinstance(ids[0], str):
        return f'"{"".join(ids)}"'.encode()
    joined = b"".join(ids)
    if len(joined) != _IDS * count or not joined.isascii():
        joined = b"".join([each if len(each) == _IDS and each.isascii() else _NO_RAW_IDS for each in ids])
    return JSON.encode(joined.decode("ascii"))


def _joined_spans(others: list[str], count: int) -> bytes:
    joined = "".join(others)
    if joined and len(joined) != _ID * count:
        joined = "".join([each or _NO_ID for each in others])
    return joined.encode()


def _each(values: list[str], count: int, default: str) -> bytes:
    """What all rows have, or what each has."""
    first = values[0]
    if values.count(first) == count:
        return JSON.encode(first or default)
    return JSON.encode([each or default for each in values])


def read_columns(body: bytes, clock_s: float) -> list[Span]:
    """The spans of what :func:`encode_columns` wrote, or :class:`CodecError`; see :func:`spans_of_columns`."""
    return spans_of_columns(_decode_group(body), clock_s)


def spans_of_columns(group: SpanColumns, clock_s: float) -> list[Span]:
    """Its spans, by a clock that says ``clock_s`` less, or :class:`CodecError` where its columns do not fit each other.
    A row whose ids are none is that of a caller who sent no valid ``traceparent``: it has no trace."""
    common = {name: _decode_any(bytes(value)) for name, value in group.alike.items() if name in _COMMON}
    kind = common.get("kind")
    if kind not in ("client", "server"):
        raise CodecError(f"spans: rows of kind {repr(kind)[:40]}")
    ids, others, server = group.ids, group.spans, kind == "server"
    count = len(ids) // _IDS
    _fits("ids", len(ids), _IDS * count)
    _fits("spans", len(others), _ID * count if others or server else 0)
    routes, instances = _column("route", group.route, count), _column("instance", group.instance, count)
    form = Struct(f"<{count}d{2 * count if server else count}f")
    _fits("times", len(group.times), form.size)
    times = form.unpack(group.times)
    if not all(-_FARTHEST_S <= each <= _FARTHEST_S for each in times):
        raise CodecError("spans: rows with a time that is none")
    begun, took, waited = times[:count], times[count : 2 * count], times[2 * count :]
    spans: list[Span] = []
    for at in range(count):
        trace, dash, id_ = (ids[at * _IDS :][:_IDS]).partition("-")
        if not dash or trace == "0" * 32 or id_ == _NO_ID:
            continue
        other = others[at * _ID :][:_ID]
        told = {
            "trace": trace,
            "id": other if server else id_,
            "parent": id_ if server else "" if other == _NO_ID else other,
            "route": routes[at],
            "instance": instances[at],
            "start_us": max(0, round((begun[at] + clock_s) * 1e6)),
            "took_us": max(0, round(took[at] * 1e6)),
            "queue_us": max(0, round(waited[at] * 1e6)) if server else 0,
        }
        try:
            spans.append(msgspec.convert({**common, **told}, Span))
        except msgspec.ValidationError:
            continue
    return spans


def _column(what: str, said: str | list[str], count: int) -> list[str]:
    if isinstance(said, str):
        return [said] * count
    _fits(what, len(said), count)
    return said


def _fits(what: str, length: int, wanted: int) -> None:
    if length != wanted:
        raise CodecError(f"spans: rows whose {what!r} are {length} long, not {wanted}")

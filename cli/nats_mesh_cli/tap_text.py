"""Live calls as text: a line of a table, an object of JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from nats_mesh.telemetry.tap_feed import SeenCall
from nats_mesh.telemetry.tap_messages import Body
from nats_mesh.telemetry.tap_sink import Crowd, TapCounts
from nats_mesh_cli.errors import one_line
from nats_mesh_cli.hints import listed
from nats_mesh_cli.instants import shown_time
from nats_mesh_cli.output import Column, Record, counted, millis, paint
from nats_mesh_cli.trouble import status_level

__all__ = ["COLUMNS", "WIDTHS", "body_lines", "crowded_text", "left_out_text", "record_of", "unheard_text"]

_SHORT: Final = 8
#: How many of those who hold the places of an instance are named.
_NAMED: Final = 8
_WHY_NOT: Final = {
    "too-large": "too large to be looked at",
    "unreadable": "cannot be decoded, and fields of it must not be shown",
}

COLUMNS: Final = (
    Column("TIME", lambda r: shown_time(str(r["at"]))[11:], drop=5),
    Column("CALLER", lambda r: str(r["caller"]), drop=0),
    Column("TARGET", lambda r: f"{r['service']}.{r['endpoint']}", style=lambda r: "name", drop=0),
    Column("STATUS", lambda r: str(r["status"]), style=lambda r: status_level(r["status"]), drop=2),
    Column("TOOK", lambda r: millis(r["duration_s"]), right=True, drop=3),
    Column("ROUTE", lambda r: str(r["route"]), drop=20),
    Column("INSTANCE", lambda r: str(r["instance"])[:_SHORT], drop=15),
    Column("VERSION", lambda r: str(r["version"]), wide=True, drop=30),
    Column("QUEUED", lambda r: millis(r["queue_s"]), right=True, wide=True, drop=25),
    Column("HELD", lambda r: millis(r["fault_s"]) if r["fault_s"] else "-", right=True, wide=True, drop=26),
    Column("IN", lambda r: str(r["bytes_in"]), right=True, wide=True, drop=40),
    Column("OUT", lambda r: str(r["bytes_out"]), right=True, wide=True, drop=41),
    Column("TRACE", lambda r: str(r["trace"]), wide=True, drop=50),
    Column(
        "HEADERS",
        lambda r: " ".join(f"{name}={value}" for name, value in r["headers"]),
        wide=True,
        drop=45,
        short=12,
    ),
    Column("NOTE", lambda r: _note(r), style=lambda r: "warn", drop=4, short=8),
)
#: What a column takes at least: rows come one by one.
WIDTHS: Final = (13, 12, 22, 17, 8, 6, _SHORT, 7, 8, 8, 6, 6, 32, 12, 4)


def record_of(call: SeenCall) -> Record:
    """A call as ``-o json`` shows it: every field, whether it says something or not."""
    record: Record = {
        "at": call.at,
        "service": call.service,
        "endpoint": call.endpoint,
        "caller": call.caller,
        "instance": call.instance,
        "version": call.version,
        "route": call.route,
        "status": call.status,
        "duration_s": call.duration_s,
        "queue_s": call.queue_s,
        "fault_s": call.fault_s,
        "attempt": call.attempt,
        "mirror": call.mirror,
        "refused": call.refused,
        "injected": call.injected,
        "bytes_in": call.bytes_in,
        "bytes_out": call.bytes_out,
        "trace": call.trace,
        "key": call.key,
        "headers": [list(pair) for pair in call.headers],
        "headers_cut": call.cut,
    }
    for name, body in (("sent", call.sent), ("answered", call.answered)):
        record[name] = None if body is None else _body(body)
    return record


def _body(body: Body) -> Record:
    return {
        "text": body.text,
        "form": body.form,
        "cut": body.cut,
        "hidden": body.hidden,
        "withheld": body.withheld,
    }


def _note(record: Record) -> str:
    notes = [str(record["refused"])] if record["refused"] else []
    if record["injected"]:
        notes.append(f"injected {record['injected']}")
    if record["attempt"] > 1:
        notes.append(f"attempt {record['attempt']}")
    if record["mirror"]:
        notes.append("mirror")
    return ", ".join(notes)


def body_lines(record: Record, *, color: bool = False) -> list[str]:
    """What was sent and answered, each on a line of its own under the call; nothing where it was not told."""
    return [
        f"  {paint(arrow, 'dim', color)} {_shown(record[name])}"
        for name, arrow in (("sent", "→"), ("answered", "←"))
        if record[name] is not None
    ]


def _shown(body: Record) -> str:
    if body["withheld"]:
        return f"(not shown: {_WHY_NOT.get(body['withheld'], body['withheld'])})"
    text = one_line(body["text"]) or "(empty)"
    form = "" if body["form"] != "base64" else "base64: "
    return f"{form}{text}{'…' if body['cut'] else ''}"


def crowded_text(crowded: Crowd) -> str:
    """That an instance has no place for everybody who looks, and who has the places, the most first."""
    instance, places = crowded
    who = sorted(places.items(), key=lambda each: (-each[1], each[0]))
    more = f", and {len(who) - _NAMED} more" if len(who) > _NAMED else ""
    named = ", ".join(f"{one_line(name)} {count}" for name, count in who[:_NAMED])
    return (
        f"{instance} is asked by more observers than it tells apart: those beyond are told one rate together, which "
        f"may be too little for this one; who has how many places: {named}{more}"
    )


def unheard_text(asked: Mapping[str, int], namespace: str, elsewhere: str) -> str:
    """Why nobody told of a call: none of the instances had one that could be ``asked`` (how many of each service), or
    there were none. ``elsewhere`` says where to look."""
    if not asked:
        return f"no call was seen: no instance of the mesh answered in namespace {namespace!r}; {elsewhere}"
    return (
        f"no call was seen: {counted(sum(asked.values()), 'instance')} of {listed(asked)} could be asked, and no call "
        "ended there meanwhile; 'nats-mesh edges' shows who calls whom"
    )


def left_out_text(counts: TapCounts, dropped: int) -> str:
    """What is not shown although it was asked for, and why; empty where nothing is missing."""
    parts = [
        f"{count} {text}"
        for count, text in (
            (counts.capped, "above the rate at the instances"),
            (counts.over, "above the rate here"),
            (counts.slow + dropped, "because the output was too slow"),
            (counts.withheld, "because a policy shows them to nobody (Telemetry, tap: off)"),
        )
        if count
    ]
    return ", ".join(parts)

"""The tables of instances, policies, live calls and events. Pure."""

from __future__ import annotations

from itertools import chain
from typing import Any, Final

from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.snapshots import Member
from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.last_errors import last_error_of
from nats_mesh_cli.together import Alike, Repeated, events_together
from nats_mesh_cli.top import words
from nats_mesh_cli.top.columns import ERROR, SHORT, Order, Sheet, high, red_cells, share, trouble
from nats_mesh_cli.top.following import Facts
from nats_mesh_cli.top.grid import Field
from nats_mesh_cli.top.model import CallLine, PolicyLine
from nats_mesh_cli.trouble import is_bad, member_level, rank, status_level

__all__ = ["EVENTS", "INSTANCES", "POLICIES", "TAP"]


def _worst_member(member: Member) -> tuple[Any, ...]:
    return (
        -trouble(member_level(member)),
        share(member.red.success),
        high(member.red.p99_s),
        member.service,
        member.id,
    )


def _member_cells(member: Member, facts: Facts) -> dict[str, Cell]:
    limit = member.capacity.limit
    out = facts.ejected[member.id]
    return {
        "id": Cell(words.clean(member.id[:SHORT]), words.NAME),
        "service": Cell(words.clean(member.service)),
        "version": Cell(words.clean(member.version)),
        "state": words.state_cell(member.state),
        "flight": Cell(f"{member.red.in_flight}/{limit}" if limit else str(member.red.in_flight)),
        **red_cells(member.red),
        "ejected": Cell(f"▲ by {out}", words.WARN) if out else Cell("-", words.DIM),
        "sync": words.state_cell(member.verdict(facts.data.head).state),
        "rtt": Cell(words.duration_text(member.rtt_s)),
        "host": Cell(words.clean(member.name)),
        "error": words.error_cell(last_error_of(member.red), facts.at),
    }


INSTANCES: Final = Sheet(
    fields=(
        Field(key="id", head="INSTANCE", width=8, right=False),
        Field(key="service", head="SERVICE", width=10, most=30, need=18, right=False),
        Field(key="version", head="VER", width=5, most=14, right=False, drop=8),
        Field(key="state", head="STATE", width=10, right=False),
        Field(key="flight", head="IN FLT", width=6, most=9, drop=7),
        Field(key="success", head="SUCCESS", width=8, drop=4),
        Field(key="rate", head="RPS", width=5, drop=3),
        Field(key="p99", head="P99", width=6, drop=5),
        Field(key="sync", head="POLICIES", width=10, right=False, drop=6),
        Field(key="p50", head="P50", width=6, drop=12),
        Field(key="ejected", head="EJECTED", width=7, right=False, drop=9),
        Field(key="rtt", head="RTT", width=6, drop=10),
        Field(key="host", head="HOST-PID", width=12, most=30, right=False, drop=11),
        ERROR,
    ),
    orders=(
        Order("worst first", "", _worst_member),
        Order("service", "service", lambda m: (m.service, m.version, m.id)),
        Order("rps", "rate", lambda m: (-m.red.rate_per_s, m.id)),
        Order("p99", "p99", lambda m: (high(m.red.p99_s), m.id)),
        Order("in flight", "flight", lambda m: (-m.red.in_flight, m.id)),
        Order("state", "state", lambda m: (m.state, m.service, m.id)),
    ),
    items=lambda data: [each for each in data.mesh.members if each.kind == "instance"],
    key=lambda m: m.id,
    text=lambda m: f"{m.service} {m.id} {m.name} {m.version} {m.state}",
    cells=_member_cells,
    nothing="no instances yet: 'nats-mesh run MODULE:APP' starts one",
    unheard="no instance has been heard so far",
    left_out=lambda facts: frozenset() if facts.policed else frozenset({"sync"}),
)


def _policy_cells(policy: PolicyLine, facts: Facts) -> dict[str, Cell]:
    refusing, following = len(facts.refused(policy)), facts.following
    have = sum(1 for revision in following if revision >= policy.revision)
    if refusing:
        sync = Cell(f"✗ {refusing} refuse", words.BAD)
    elif have < len(following):
        sync = Cell(f"▲ {have}/{len(following)}", words.WARN)
    else:
        sync = Cell(f"✓ {have}/{len(following)}", words.GOOD)
    return {
        "name": Cell(words.clean(policy.name), words.NAME),
        "target": Cell(words.clean(policy.target) or "everything"),
        "revision": Cell(str(policy.revision)),
        "sync": sync,
        "at": Cell(words.clean(policy.at[:19].replace("T", " "))),
        "operator": Cell(words.clean(policy.operator)),
        "message": Cell(words.clean(policy.message), words.DIM),
    }


POLICIES: Final = Sheet(
    fields=(
        Field(key="name", head="POLICY", width=16, most=44, need=30, right=False),
        Field(key="sync", head="IN SYNC", width=11, right=False),
        Field(key="revision", head="REV", width=5, drop=1),
        Field(key="target", head="TARGET", width=12, most=40, right=False, drop=2),
        Field(key="at", head="CHANGED (UTC)", width=19, right=False, drop=3),
        Field(key="operator", head="BY", width=8, most=24, right=False, drop=4),
        Field(key="message", head="WHY", width=12, most=60, right=False, drop=5),
    ),
    orders=(
        Order("name", "name", lambda p: p.name),
        Order("newest first", "revision", lambda p: (-p.revision, p.name)),
        Order("target", "target", lambda p: (p.target, p.name)),
    ),
    items=lambda data: data.policies,
    key=lambda p: p.name,
    text=lambda p: f"{p.name} {p.target} {p.operator} {p.message}",
    cells=_policy_cells,
    nothing="no policies",
)


def _call_cells(call: CallLine, facts: Facts) -> dict[str, Cell]:
    return {
        "at": Cell(words.clean(call.at[11:23]), words.DIM),
        "caller": Cell(words.clean(call.caller)),
        "target": Cell(f"→ {words.clean(call.target)}", words.NAME),
        "status": words.status_cell(call.status),
        "took": Cell(words.duration_text(call.duration_s)),
        "instance": Cell(words.clean(call.instance[:SHORT])),
        "facts": Cell(" ".join(f"{name}={value}" for name, value in call.facts), words.DIM),
    }


TAP: Final = Sheet(
    fields=(
        Field(key="at", head="TIME (UTC)", width=12, right=False, drop=2),
        Field(key="caller", head="CALLER", width=8, most=24, right=False, drop=1),
        Field(key="target", head="→ ENDPOINT", width=14, most=44, need=24, right=False),
        Field(key="status", head="STATUS", width=10, most=22, right=False),
        Field(key="took", head="TOOK", width=6),
        Field(key="instance", head="INSTANCE", width=8, right=False, drop=3),
        Field(key="facts", head="MORE", width=10, most=200, right=False, drop=4),
    ),
    orders=(
        Order("newest first", "at", None),
        Order("slowest first", "took", lambda c: -c.duration_s),
        Order("failed first", "status", lambda c: -rank(status_level(c.status))),
    ),
    items=lambda data: data.calls[::-1],
    key=lambda c: c.key,
    text=lambda c: f"{c.caller} {c.target} {c.status} {c.instance} {' '.join(value for _, value in c.facts)}",
    cells=_call_cells,
    nothing="no calls yet: instances tell of theirs as long as this view shows",
)


def _event_key(event: Event) -> str:
    begun = event.since if isinstance(event, Repeated) else event.at  # a row that grows stays the same
    return f"{event.service} {event.instance} {event.seq} {begun}"


def _event_text(event: Event) -> str:
    """What a filter looks for words in."""
    members = event.members if isinstance(event, Alike) else ((event.service, event.instance),)
    return f"{event.kind} {event.target} {event.detail} {' '.join(chain.from_iterable(members))}"


def _event_cells(event: Event, facts: Facts) -> dict[str, Cell]:
    bad = is_bad(event.kind)
    alike = event.members if isinstance(event, Alike) else ()
    missed = f" ({event.missed} more before it)" if event.missed else ""
    return {
        "at": Cell(words.clock(event.at), words.DIM),
        "kind": Cell(f"{'✗' if bad else '·'} {words.clean(event.kind)}", words.BAD if bad else ""),
        "service": Cell(f"{len(alike)} members" if alike else words.clean(event.service)),
        "target": Cell(words.clean(event.target), words.NAME),
        "instance": Cell("" if alike else words.clean(event.instance[:SHORT]), words.DIM),
        "detail": Cell(f"{words.clean(event.detail)}{missed}"),
    }


EVENTS: Final = Sheet(
    fields=(
        Field(key="at", head="UTC", width=8, right=False, drop=1),
        Field(key="kind", head="KIND", width=18, most=24, right=False),
        Field(key="service", head="SERVICE", width=9, most=24, right=False, drop=3),
        Field(key="target", head="TARGET", width=12, most=36, right=False),
        Field(key="instance", head="INSTANCE", width=8, right=False, drop=4),
        Field(key="detail", head="DETAIL", width=20, most=300, right=False, drop=2),
    ),
    orders=(
        Order("newest first", "at", None),
        Order("worst first", "kind", lambda e: not is_bad(e.kind)),
        Order("service", "service", lambda e: e.service),
    ),
    items=lambda data: events_together(data.mesh.events)[::-1],
    key=_event_key,
    text=_event_text,
    cells=_event_cells,
    nothing="nothing has happened lately, as far as anybody here remembers",
    unheard="nobody has told of anything so far",
)

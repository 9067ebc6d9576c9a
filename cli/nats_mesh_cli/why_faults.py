"""What operators injected at the instances of a call, for ``why``: how its calls end, and what to know. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from nats_mesh.core.shares import share_text
from nats_mesh.errors import Status
from nats_mesh.explaining.calls import Way
from nats_mesh.explaining.foreseeing import Ending
from nats_mesh_cli.catalog import fault_effect
from nats_mesh_cli.hints import listed
from nats_mesh_cli.output import Record, counted
from nats_mesh_cli.why_words import ROUNDING, faults_at, short

__all__ = ["aborted_by_operators", "fault_problems"]


def aborted_by_operators(way: Way, record: Record, here: Sequence[Record]) -> list[Ending]:
    """Where operators have every instance fail every call that comes there."""
    left = 1.0 - way.fails
    faults = [[f for f in faults_at(record, each) if f["share"] >= 1.0] for each in here]
    if left <= ROUNDING or not faults or not all(faults):
        return []
    if all(fault[0]["delay_ms"] / 1000.0 >= way.timeout_s for fault in faults):
        reason = "operators delay every call at every instance by more than it has"
        return [Ending(share=left, status=Status.DEADLINE_EXCEEDED, reason=reason)]
    statuses = {fault[0]["abort"] for fault in faults}
    if None not in statuses:
        reason = "operators abort every call at every instance"
        try:
            status = Status(next(iter(statuses)))
        except ValueError:  # a status of another version
            status = Status.UNKNOWN
        return [Ending(share=left, status=status, reason=reason)]
    return []


def fault_problems(way: Way, made: Record) -> list[Record]:
    """What operators' faults do to the calls of a way, of which ``made`` is the record, and how to end each."""
    found: dict[tuple[str, str, float], list[str]] = {}
    here = made["instances"] or []
    for instance in here:
        for fault in faults_at({"name": way.target.endpoint}, instance):
            key = (fault["endpoint"], fault_effect(fault), fault["share"])
            found.setdefault(key, []).append(short(instance))
    service = way.target.service
    problems = []
    for (endpoint, effect, share), instances in found.items():
        where = f"{len(instances)} of {counted(len(here), 'instance')} of {service} ({listed(instances)})"
        message = f"an operator's fault is in force at {where}: {effect} for {share_text(share)} of the calls"
        aim = f"{service}.{endpoint}" if endpoint else service
        hint = f"'nats-mesh fault {aim} --clear' ends it"
        problems.append({"what": "fault", "message": message, "hint": hint})
    return problems

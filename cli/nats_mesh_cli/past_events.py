"""Events of before anybody looked, as the audit has them: who came and went, rollouts, changes of policies.

Members remember what happened to them, and take it along when they end. What the namespace's audit keeps outlives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nats_mesh import CallError, Mesh
from nats_mesh.audit.reading import AuditReader, Entry, seconds_of
from nats_mesh.audit.records import ChangeRecord, PresenceRecord, RolloutRecord
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.wire.kv import KvAbsentError, KvError
from nats_mesh_cli.audit_records import records_of
from nats_mesh_cli.event_records import record_made
from nats_mesh_cli.output import Record

__all__ = ["KINDS", "event_of", "merged", "past_events"]

#: How many are read at most: the oldest of more are left out.
_MAX: Final = 10_000
#: How far apart the same event may stand here and with the member that remembers it (seconds).
_SAME_S: Final = 2.0
_PRESENCE: Final = {"join": EventKind.INSTANCE_JOINED, "leave": EventKind.INSTANCE_GONE}
_CHANGES: Final = {"policy": EventKind.POLICY_CHANGED, "config": EventKind.CONFIG_CHANGED}
#: The kinds that the audit alone tells of, and those of membership.
KINDS: Final = (*_PRESENCE.values(), *_CHANGES.values())


def event_of(entry: Entry) -> list[Record]:
    """What a record of the audit tells, as events; most tell nothing (signs of life, what is not believed)."""
    record = entry.record
    if isinstance(record, PresenceRecord):
        kind = _PRESENCE.get(record.event)
        if kind is None:
            return []
        left = "" if record.event == "join" else ": it left"
        return [
            _event(
                entry, kind, record.service, record.instance, f"{record.name}, version {record.version}{left}"
            )
        ]
    if isinstance(record, RolloutRecord):
        return [_event(entry, record.kind, record.runner, record.service, " ".join(record.detail.split()))]
    if isinstance(record, ChangeRecord):
        return [
            _event(
                entry,
                _CHANGES[entry.kind],
                entry.writer,
                str(each["what"]),
                f"{each['action']} by {each['who']}{': ' if each['why'] else ''}{each['why']}",
            )
            for each in records_of(entry)
        ]
    return []


def _event(entry: Entry, kind: str, service: str, target: str, detail: str) -> Record:
    return record_made(
        kind,
        entry.time,
        service=service,
        instance=entry.instance,
        namespace="" if entry.record is None else entry.record.namespace,
        target=target,
        detail=detail,
    )


async def past_events(mesh: Mesh, since: str, *, timeout_s: float) -> tuple[list[Record], str]:
    """Everything that the audit tells from an instant on, and why it tells nothing (empty: it does)."""
    client = mesh.client
    reader = AuditReader(client.subjects, transport=client.transport, mux=client.mux, timeout_s=timeout_s)
    found: list[Record] = []
    try:
        info = await reader.info()
        async for entry in reader.entries(since=since, upto=info.last):
            found += event_of(entry)
            if len(found) > 2 * _MAX:
                del found[:_MAX]
    except KvAbsentError:
        return [], "there is no audit stream ('nats-mesh audit --make' makes one)"
    except (KvError, CallError) as error:
        return found, f"the audit cannot be read: {error}"
    return found[-_MAX:], ""


def merged(remembered: Sequence[Record], past: Sequence[Record]) -> list[Record]:
    """Both in the order of their instants; what is in both stands as whoever remembers it tells it."""
    at: dict[tuple[str, str], list[float]] = {}
    for record in remembered:
        at.setdefault((record["kind"], record["instance"]), []).append(seconds_of(record["at"]))
    more = [
        record
        for record in past
        if not any(
            abs(seconds_of(record["at"]) - seconds) <= _SAME_S
            for seconds in at.get((record["kind"], record["instance"]), ())
        )
    ]
    return sorted([*remembered, *more], key=lambda record: seconds_of(record["at"]))

"""Events as ``-o json`` shows them: what members tell, and who came and went by presence. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from nats_mesh.clock import rfc3339
from nats_mesh.core.members import Change, ChangeKind, Instance
from nats_mesh.core.presence import Announcement
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh_cli.catalog import announcement_of, visible
from nats_mesh_cli.output import Record
from nats_mesh_cli.silent import Unheard

__all__ = ["KINDS", "joins", "membership", "not_heard", "record_made", "record_of"]

#: What a change of membership is told as.
KINDS = {
    ChangeKind.JOINED: EventKind.INSTANCE_JOINED,
    ChangeKind.GONE: EventKind.INSTANCE_GONE,
    ChangeKind.SUSPECT: EventKind.INSTANCE_SUSPECT,
    ChangeKind.ALIVE: EventKind.INSTANCE_ALIVE,
}


def record_of(event: Event) -> Record:
    """An event as ``-o json`` shows it."""
    return {
        "at": event.at,
        "kind": event.kind,
        "service": event.service,
        "instance": event.instance,
        "namespace": event.namespace,
        "target": event.target,
        "detail": event.detail,
        "numbers": dict(event.numbers),
        "seq": event.seq,
        "missed": event.missed,
    }


def membership(change: Change, at: str) -> Record | None:
    """A change of membership as an event of the instance; ``None`` for what instances tell themselves."""
    kind, instance = KINDS.get(change.kind), change.instance
    if kind is None:
        return None
    detail = f"{instance.name}, version {instance.version}"
    if change.reason is not None:
        detail = f"{detail}: {change.reason}"
    return _membership(kind, at, instance, instance.id, detail)


def joins(infos: Iterable[InfoReply], namespace: str) -> list[Record]:
    """When each instance of the mesh that is there has come, as it says itself."""
    found = []
    for info in visible(infos, namespace):
        told = announcement_of(info)
        if told is not None:
            detail = f"{told.name}, version {told.version}"
            found.append(_membership(EventKind.INSTANCE_JOINED, told.started, told, told.instance, detail))
    return found


def not_heard(found: Unheard, now_s: float, namespace: str) -> list[Record]:
    """When those were heard last who do not answer, as their peers say; ``now_s`` is the wall time."""
    kinds = (
        (
            EventKind.INSTANCE_SUSPECT,
            found.silent,
            "connected, and not heard since: it hangs, or was stopped",
        ),
        (EventKind.INSTANCE_GONE, found.ended, "ended without leaving after this (killed, or crashed)"),
    )
    return [
        record_made(
            kind, rfc3339(now_s - each.heard_s), service=each.service, instance=each.instance,
            namespace=namespace, target=each.instance, detail=f"{each.name or each.instance}: {text}",
        )
        for kind, told, text in kinds
        for each in told
        if each.instance and each.heard_s is not None
    ]  # fmt: skip


def _membership(kind: EventKind, at: str, of: Announcement | Instance, instance: str, detail: str) -> Record:
    return record_made(
        kind,
        at,
        service=of.service,
        instance=instance,
        namespace=of.namespace,
        target=instance,
        detail=detail,
    )


def record_made(
    kind: str, at: str, *, service: str, instance: str, namespace: str, target: str, detail: str
) -> Record:
    """As :func:`record_of`, of what no member told as an event."""
    return {
        "at": at,
        "kind": str(kind),
        "service": service,
        "instance": instance,
        "namespace": namespace,
        "target": target,
        "detail": detail,
        "numbers": {},
        "seq": None,
        "missed": 0,
    }

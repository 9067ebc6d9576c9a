"""A view with those who are connected and answer nothing: presence lets go of them, and calls reach them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from nats_mesh.telemetry.snapshots import NOTHING, Member, Service, Snapshot
from nats_mesh_cli.silent import SILENT, Silent

__all__ = ["silent_now", "with_silent"]


def silent_now(snapshot: Snapshot, found: Iterable[Silent]) -> tuple[Silent, ...]:
    """Those of them who still are, as far as the view hears: who was found silent may have been heard since."""
    states = {(each.service, each.id): each.state for each in snapshot.members if each.kind == "instance"}
    heard = {service for (service, _), state in states.items() if state != "suspect"}
    return tuple(
        [
            each
            for each in found
            if (states.get(each.key, "suspect") == "suspect" if each.instance else each.service not in heard)
        ]
    )


def with_silent(snapshot: Snapshot, silent: Iterable[Silent]) -> Snapshot:
    """The same, in which each silent instance is a member of the state ``silent``, and its service counts it among
    those that are not heard; of a service of which no instance is known one is counted."""
    silent = list(silent)
    if not silent:
        return snapshot
    members = {(each.service, each.id): each for each in snapshot.members}
    services = {each.name: each for each in snapshot.services}
    for each in silent:
        known = members.get(each.key)
        if known is not None:
            members[each.key] = replace(known, state=SILENT)
            continue
        service = services.get(each.service, Service(name=each.service, red=NOTHING))
        if each.instance:
            members[each.key] = Member(
                service=each.service, id=each.instance, name=each.name, state=SILENT, heard_s=each.heard_s or 0.0,
                red=NOTHING,
            )  # fmt: skip
        elif service.instances:
            continue  # they are known: suspect, each by its name
        services[each.service] = replace(
            service, instances=service.instances + 1, suspect=service.suspect + 1
        )
    return replace(
        snapshot,
        members=tuple([members[key] for key in sorted(members)]),
        services=tuple([services[name] for name in sorted(services)]),
    )

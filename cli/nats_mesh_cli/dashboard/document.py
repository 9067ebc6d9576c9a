"""What the page is told: a snapshot of the mesh as plain keyed records. Pure.

Sections are tables by key, so that a second's difference is small (:mod:`nats_mesh_cli.dashboard.hub`). Numbers are
rounded to what a person can see: a service that does the same as a second before is then no news. Texts travel as
they are; the page shows them as text and never as markup.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from nats_mesh.clock import rfc3339
from nats_mesh.core.sync_state import Verdict
from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.happened import lately
from nats_mesh.telemetry.series import PLAIN
from nats_mesh.telemetry.snapshots import Edge, Member, Service, Snapshot
from nats_mesh_cli.dashboard.figures import capacity_of, millis, red_of
from nats_mesh_cli.dashboard.layout import Place, arrange
from nats_mesh_cli.measured import called_text
from nats_mesh_cli.output import Record
from nats_mesh_cli.policy_board import Board
from nats_mesh_cli.policy_history import policy_record
from nats_mesh_cli.silent import Silent, silent_text
from nats_mesh_cli.together import Alike, events_together
from nats_mesh_cli.trouble import Level, breakers_level, edge_level, is_bad, service_level

__all__ = ["MAX_EVENTS", "Picture", "document", "state_of", "trends"]

#: The newest events that the page has.
MAX_EVENTS: Final = 200
_OPEN, _HALF = "OPEN", "HALF_OPEN"
_WORDS: Final[dict[Level, str]] = {"bad": "failing", "warn": "degraded"}
_GUARD: Final = "Access/"


class Picture:
    """What is made anew only where it has changed: the places of the services, the records of policies."""

    def __init__(self) -> None:
        self._read: object = None
        self._policies: dict[str, Record] = {}
        self._nodes: frozenset[str] = frozenset()
        self._links: frozenset[tuple[str, str]] = frozenset()
        self._places: Mapping[str, Place] = {}

    def places(self, nodes: Iterable[str], links: Iterable[tuple[str, str]]) -> Mapping[str, Place]:
        """Where everybody stands."""
        wanted = frozenset(nodes), frozenset(links)
        if wanted != (self._nodes, self._links):
            self._nodes, self._links = wanted
            self._places = arrange(*wanted)
        return self._places

    def policies(self, board: Board) -> dict[str, Record]:
        """The policies of the store, by name."""
        if board.revisions is not self._read:
            self._read = board.revisions
            self._policies = {str(each["policy"]): each for each in map(policy_record, board.revisions)}
        return self._policies


def document(
    snapshot: Snapshot, picture: Picture, board: Board, *, tls: bool, silent: Sequence[Silent] = ()
) -> dict[str, dict[str, Record]]:
    """Everything the page shows at once, by section and key; ``tls``: the server takes nothing unencrypted;
    ``silent`` are connected and answer nothing, as others know, and the snapshot has them, too."""
    services = {service.name: service for service in snapshot.services}
    links = [(edge.source, called_text(edge.service)) for edge in snapshot.edges]
    places = picture.places({*services, *(name for link in links for name in link)}, links)
    others = sorted(places.keys() - services.keys())
    head = board.head_with(snapshot.policies.head)
    verdicts = [each.verdict(head) for each in snapshot.members]
    policies = picture.policies(board)
    guarded = _guarded(policies.values())
    return {
        "mesh": {"": _mesh(snapshot, board, head, verdicts, silent, tls=tls)},
        "services": {
            **{name: _service(each, places[name], snapshot.at) for name, each in services.items()},
            **{name: _other(name, places[name]) for name in others},
        },
        "edges": {
            f"{edge.source}>{called_text(edge.service)}": _edge(edge, snapshot.at, guarded, tls=tls)
            for edge in snapshot.edges
        },
        "policies": policies,
        "members": {
            f"{each.service}/{each.id}": _sync(each, said)
            for each, said in zip(snapshot.members, verdicts, strict=True)
        },
        "events": {
            _event_key(each): _event(each) for each in events_together(lately(snapshot.events, MAX_EVENTS))
        },
    }


def trends(snapshot: Snapshot) -> dict[str, list[float]]:
    """Calls a second over the last minute, by service; the key of all together is empty."""
    found = {service.name: _rates(service.trend.rates) for service in snapshot.services}
    return {"": _rates(snapshot.trend.rates), **found}


def state_of(service: Service) -> str:
    """One word for how a service does: ``down``, ``failing``, ``degraded``, ``ok`` or ``idle``."""
    if not service.ready:
        return "down"
    return _WORDS.get(service_level(service)) or ("idle" if service.red.success is None else "ok")


def _mesh(
    snapshot: Snapshot,
    board: Board,
    head: tuple[int, int],
    verdicts: Sequence[Verdict],
    silent: Sequence[Silent],
    *,
    tls: bool,
) -> Record:
    sync = Counter(each.state for each in verdicts)
    return {
        "at": rfc3339(snapshot.wall_s),
        "namespace": snapshot.namespace,
        "server": snapshot.server,
        "connected": snapshot.connected,
        "away_s": round(snapshot.away_s),
        "rtt_ms": millis(snapshot.rtt_s),
        "window_s": snapshot.window_s,
        "tls": tls,
        "services": len(snapshot.services),
        "instances": sum(service.instances for service in snapshot.services),
        "breakers_open": sum(each.state.value == _OPEN for each in snapshot.breakers),
        "ejected": len({(each.service, each.ejected) for each in snapshot.ejections}),
        "silent": silent_text(silent),
        "ignored": snapshot.ignored,
        "overflowed": snapshot.overflowed,
        "policies_known": board.known,
        "policies_problem": board.problem,
        "head": head[1],
        "synced": sync["SYNCED"],
        "stale": sync["STALE"],
        "rejecting": sync["REJECTED"],
        "others": sync["ELSEWHERE"],
        **red_of(snapshot.red, snapshot.at),
    }


def _service(service: Service, place: Place, at: float) -> Record:
    return {
        "name": service.name,
        "kind": "service",
        "state": state_of(service),
        "x": place.column,
        "y": place.row,
        "versions": dict(service.versions),
        "instances": service.instances,
        "ready": service.ready,
        "suspect": service.suspect,
        "draining": service.draining,
        "breakers": dict(service.breakers),
        "breakers_level": breakers_level(service.breakers),
        "level": service_level(service),
        "ejected": service.ejected,
        "capacity": capacity_of(service.capacity),
        **red_of(service.red, at),
    }


def _other(name: str, place: Place) -> Record:
    """Somebody who calls and is no service, or what is called and is none."""
    kind = "plain" if name == called_text(PLAIN) else "client"
    return {"name": name, "kind": kind, "state": kind, "x": place.column, "y": place.row}


def _guarded(policies: Iterable[Record]) -> frozenset[str]:
    """The services that a policy of access is about; ``*``: all of them."""
    return frozenset(
        str(each["target"]).partition("/")[0] for each in policies if str(each["policy"]).startswith(_GUARD)
    )


def _edge(edge: Edge, at: float, guarded: frozenset[str], *, tls: bool) -> Record:
    guards = edge.service in guarded or "*" in guarded
    locks = [word for word, on in (("TLS", tls), ("access policy", guards)) if on]
    breakers = edge.breakers
    return {
        "source": edge.source,
        "service": called_text(edge.service),
        "reporter": edge.reporter,
        "breaker": _OPEN if breakers.get(_OPEN) else _HALF if breakers.get(_HALF) else "",
        "breakers_level": breakers_level(breakers),
        "level": edge_level(edge),
        "locks": locks,
        **red_of(edge.red, at),
    }


def _sync(member: Member, verdict: Verdict) -> Record:
    """Where a member stands with the policies."""
    return {
        "service": member.service,
        "id": member.id,
        "name": member.name,
        "kind": member.kind,
        "version": member.version,
        "health": member.state,
        "sync": verdict.state,
        "revision": member.revision[1] if verdict.follows else None,
        "reason": verdict.reason,
    }


def _event_key(event: Event) -> str:
    """Events of presence have no number of their own: what they say tells them apart."""
    words = f"{event.service}/{event.instance}/{event.seq}/{event.at}/{event.kind}/{event.target}"
    return hashlib.blake2s(words.encode("utf-8", "replace"), digest_size=9).hexdigest()


def _event(event: Event) -> Record:
    """One row; ``services`` are those of all who told it."""
    members = event.members if isinstance(event, Alike) else ((event.service, event.instance),)
    return {
        "at": event.at,
        "kind": event.kind,
        "bad": is_bad(event.kind),
        "service": event.service if len(members) == 1 else f"{len(members)} members",
        "instance": event.instance if len(members) == 1 else "",
        "services": sorted({service for service, _ in members}),
        "target": event.target,
        "detail": event.detail,
        "missed": event.missed,
    }


def _rates(values: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in values]

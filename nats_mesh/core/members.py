"""What a registry knows and says: instances as last heard, changes, and how a person names an instance."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

from nats_mesh.core.presence import Announcement, EndpointInfo, Kind, Load, Rejection, State
from nats_mesh.errors import ConfigError

__all__ = [
    "AmbiguousInstanceError",
    "Change",
    "ChangeKind",
    "Health",
    "Instance",
    "Reason",
    "ServiceSummary",
    "UnknownInstanceError",
    "find",
    "heard",
    "summary",
]

_LISTED = 5


class Health(enum.StrEnum):
    """What this observer thinks of an instance."""

    ALIVE = "alive"
    SUSPECT = "suspect"


class ChangeKind(enum.StrEnum):
    """What happened to an instance; ``alive`` means: alive again after it was suspect."""

    JOINED = "joined"
    CHANGED = "changed"
    SUSPECT = "suspect"
    ALIVE = "alive"
    GONE = "gone"


class Reason(enum.StrEnum):
    """Why an instance is gone: it said so, it fell silent, or its id started anew."""

    LEFT = "left"
    MISSED = "missed"
    REPLACED = "replaced"


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One instance as last heard. ``seen`` is an instant of the observer's monotonic clock (seconds);
    ``described`` is false until a join or a change brought its ``endpoints``."""

    service: str
    id: str
    name: str
    version: str
    namespace: str
    labels: dict[str, str]
    state: State
    health: Health
    started: str
    interval_s: float
    endpoints: tuple[EndpointInfo, ...]
    described: bool
    load: Load
    revision: tuple[int, int]
    rejections: tuple[Rejection, ...]
    seen: float


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened; ``fields`` names what differs (``changed``), ``reason`` why it is ``gone``."""

    kind: ChangeKind
    instance: Instance
    reason: Reason | None = None
    fields: tuple[str, ...] = ()


class ServiceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One service: how many instances it has, how many of them are ready and alive, and their versions."""

    name: str
    instances: int
    ready: int
    suspect: int
    draining: int
    versions: dict[str, int]


class UnknownInstanceError(ConfigError):
    """No instance has this id, name or beginning of one."""


class AmbiguousInstanceError(ConfigError):
    """Several instances fit; ``matches`` are all of them."""

    def __init__(self, message: str, matches: tuple[Instance, ...]) -> None:
        super().__init__(message)
        self.matches = matches


def find(instances: Sequence[Instance], prefix: str) -> Instance:
    """The one instance whose id or ``host-pid`` name is, or else begins with, ``prefix``.

    :class:`UnknownInstanceError` where none does, :class:`AmbiguousInstanceError` where several do.
    """
    if not prefix:
        raise ConfigError(
            "an instance is named by its id, its host-pid, or the beginning of either; got nothing"
        )
    exact = [i for i in instances if prefix in (i.id, i.name)]
    found = exact or [i for i in instances if i.id.startswith(prefix) or i.name.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UnknownInstanceError(f"no instance has an id or host-pid that begins with {prefix[:80]!r}")
    listed = ", ".join(f"{i.id} ({i.service} {i.name})" for i in found[:_LISTED])
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    raise AmbiguousInstanceError(
        f"{prefix[:80]!r} fits {len(found)} instances: {listed}{more}; give more of the id", tuple(found)
    )


def heard(announcement: Announcement, before: Instance | None, now: float) -> Instance:
    """The instance after ``announcement``; a beat keeps the endpoints that were known ``before``."""
    described = announcement.type in (Kind.JOIN, Kind.CHANGE)
    if described:
        endpoints = announcement.endpoints
    else:
        endpoints = () if before is None else before.endpoints
    return Instance(
        service=announcement.service,
        id=announcement.instance,
        name=announcement.name,
        version=announcement.version,
        namespace=announcement.namespace,
        labels=announcement.labels,
        state=announcement.state,
        health=Health.ALIVE,
        started=announcement.started,
        interval_s=announcement.interval_s,
        endpoints=endpoints,
        described=described or (before is not None and before.described),
        load=announcement.load,
        revision=announcement.revision,
        rejections=announcement.rejections,
        seen=now,
    )


def summary(name: str, instances: Sequence[Instance]) -> ServiceSummary:
    """One line about the instances of one service."""
    versions: dict[str, int] = {}
    for instance in instances:
        versions[instance.version] = versions.get(instance.version, 0) + 1
    return ServiceSummary(
        name=name,
        instances=len(instances),
        ready=sum(i.state is State.READY and i.health is Health.ALIVE for i in instances),
        suspect=sum(i.health is Health.SUSPECT for i in instances),
        draining=sum(i.state is State.DRAINING for i in instances),
        versions=dict(sorted(versions.items())),
    )

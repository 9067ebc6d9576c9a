"""What is trouble, and how bad: the one scale of everything that shows a mesh, in a terminal or a browser. Pure.

A level is ``bad`` (somebody should look now), ``warn`` (it is not as it should be), ``ok``, or empty where nothing can
be said. How long calls take has none: what is slow for one service is usual for another, and objectives say which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.telemetry.series import FAILURES
from nats_mesh.telemetry.snapshots import Edge, Member, Service

__all__ = [
    "RANKS",
    "SOME_GAVE_UP",
    "Level",
    "breakers_level",
    "edge_level",
    "gave_up_level",
    "is_bad",
    "member_level",
    "met_level",
    "rank",
    "ready_level",
    "retry_level",
    "served_level",
    "service_level",
    "status_level",
    "success_level",
    "tells_of_trouble",
    "worst",
]

Level: TypeAlias = Literal["bad", "warn", "ok", ""]
#: How bad each is: see :func:`rank`.
RANKS: Final[dict[Level, int]] = {"": 0, "ok": 1, "warn": 2, "bad": 3}

#: Of the calls of the last seconds, the share without a fault of the service from which on nothing is wrong, and the
#: one below which it is bad.
_OK_FROM: Final = 0.999
_BAD_BELOW: Final = 0.99
#: From this share of repetitions among the attempts on something is wrong: budgets allow a tenth.
_MANY_RETRIES: Final = 0.1
#: From which share of calls that their callers gave up on they are shown without asking, something is wrong, and it is
#: bad. Some always are: whoever waits for a page may leave it.
SOME_GAVE_UP: Final = 0.01
_GAVE_UP_WARN: Final = 0.03
_GAVE_UP_BAD: Final = 0.1

_BAD: Final = frozenset(
    str(kind)
    for kind in (
        EventKind.ALERT_FIRING,
        EventKind.BREAKER_OPEN,
        EventKind.BUS_LOST,
        EventKind.CONFIG_REJECTED,
        EventKind.EJECTION_BEGAN,
        EventKind.EJECTION_PANIC,
        EventKind.FAULT_SET,
        EventKind.INSTANCE_GONE,
        EventKind.INSTANCE_SUSPECT,
        EventKind.POLICY_REJECTED,
        EventKind.RETRY_DENIED,
        EventKind.ROLLOUT_FAILING,
        EventKind.ROLLOUT_RETURNING,
    )
)
#: What goes on as it should: no trouble, nor the end of any.
_USUAL: Final = frozenset(
    str(kind)
    for kind in (
        EventKind.CONFIG_APPLIED,
        EventKind.CONFIG_CHANGED,
        EventKind.INSTANCE_JOINED,
        EventKind.LIMIT_CHANGED,
        EventKind.LOG_LEVEL,
        EventKind.POLICY_APPLIED,
        EventKind.POLICY_CHANGED,
        EventKind.ROLLOUT_ENDED,
        EventKind.ROLLOUT_RESUMED,
        EventKind.ROLLOUT_STARTED,
        EventKind.ROLLOUT_STEP,
        EventKind.ROLLOUT_TAKEN,
        EventKind.ROLLOUT_WAITING,
        EventKind.TAP_PAYLOADS,
    )
)


def tells_of_trouble(kind: str) -> bool:
    """Whether an event of this kind tells that trouble began, goes on, or is over; of kinds that applications made up
    nobody knows."""
    return kind not in _USUAL


def is_bad(kind: str) -> bool:
    """Whether an event of this kind wants somebody's attention."""
    return kind in _BAD


def rank(level: Level) -> int:
    """For sorting: the higher, the worse."""
    return RANKS[level]


def worst(*levels: Level) -> Level:
    """The worst of some levels."""
    found: Level = ""
    for level in levels:
        if RANKS[level] > RANKS[found]:
            found = level
    return found


def success_level(share: float | None) -> Level:
    """Of a share of calls without fault; ``None``: there were none."""
    if share is None:
        return ""
    return "ok" if share >= _OK_FROM else "bad" if share < _BAD_BELOW else "warn"


def met_level(success: float | None, gave_up: float) -> Level:
    """Of what callers met: how many of the answers were failures, and how many calls got none."""
    return worst(success_level(success), gave_up_level(gave_up))


def served_level(share: float | None) -> Level:
    """Of the attempts that instances failed: what retries made good for callers is not as it should be, and no more."""
    return "warn" if success_level(share) in ("warn", "bad") else ""


def retry_level(share: float) -> Level:
    """Of a share of repetitions among attempts."""
    return "warn" if share >= _MANY_RETRIES else ""


def gave_up_level(share: float) -> Level:
    """Of the share of calls that their callers gave up: these are no failures, but nobody has got an answer."""
    return "bad" if share >= _GAVE_UP_BAD else "warn" if share >= _GAVE_UP_WARN else ""


def breakers_level(breakers: Mapping[str, int]) -> Level:
    """Of circuits that are not closed, counted by state."""
    return "bad" if breakers.get("OPEN") else "warn" if breakers.get("HALF_OPEN") else ""


def ready_level(ready: int, instances: int) -> Level:
    """Of how many instances can be called."""
    return "bad" if not ready else "warn" if ready < instances else ""


def status_level(status: str) -> Level:
    """Of how a call ended: what its caller did wrong is no fault of the service."""
    return "ok" if status == "OK" else "bad" if status in FAILURES else "warn"


def service_level(service: Service) -> Level:
    """Of all that is known of a service."""
    less: Level = "warn" if service.suspect or service.draining or service.ejected else ""
    return worst(
        met_level(service.red.success, service.red.gave_up),
        served_level(service.served.success),
        breakers_level(service.breakers),
        ready_level(service.ready, service.instances),
        less,
    )


def edge_level(edge: Edge) -> Level:
    """Of the calls of one service to another."""
    return worst(met_level(edge.red.success, edge.red.gave_up), breakers_level(edge.breakers))


def member_level(member: Member) -> Level:
    """Of one instance or client."""
    state: Level = (
        "bad" if member.state in ("suspect", "silent") else "" if member.state == "ready" else "warn"
    )
    return worst(success_level(member.red.success), state, "warn" if member.rejected else "")

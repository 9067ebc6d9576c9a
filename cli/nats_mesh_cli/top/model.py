"""What ``top`` shows at one moment: plain data, so that keys and drawing are pure functions of it."""

from __future__ import annotations

import msgspec

from nats_mesh.core.sync_state import SyncState
from nats_mesh.telemetry.snapshots import Edge, Snapshot
from nats_mesh_cli.promised import Promised
from nats_mesh_cli.silent import Silent

__all__ = ["ARROW", "CallLine", "Data", "Follower", "PolicyLine", "edge_key"]

#: Between caller and service in what an edge is called; neither name has it.
ARROW = "→"


def edge_key(edge: Edge) -> str:
    """What tells an edge from all others."""
    return f"{edge.source}{ARROW}{edge.service}"


class Follower(msgspec.Struct, frozen=True, kw_only=True):
    """How far one member follows the policies: :mod:`nats_mesh.core.sync_state`."""

    service: str
    id: str
    name: str
    state: SyncState
    revision: int | None = None
    reason: str = ""


class PolicyLine(msgspec.Struct, frozen=True, kw_only=True):
    """A policy as it stands in the store; ``name`` is ``Kind/name``, ``document`` its text."""

    name: str
    target: str = ""
    revision: int = 0
    at: str = ""
    operator: str = ""
    message: str = ""
    document: str = ""


class CallLine(msgspec.Struct, frozen=True, kw_only=True):
    """One call that was tapped; ``facts`` is what else is known of it."""

    key: str
    at: str
    caller: str
    target: str
    status: str
    duration_s: float
    instance: str = ""
    facts: tuple[tuple[str, str], ...] = ()


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known: what the bus told, and what was asked beside it. The newest of ``calls`` is the last.

    ``away`` says why the bus is away, where it is. ``head`` is the revision of the policies that members ought to
    have; (0, 0) where there are none. ``store`` says what of the store is not known, and why. ``tapped`` tells of the
    tap: what was seen, and what was left out. ``promised``: how objectives stand, where somebody watches them.
    ``silent``: who is connected and answers nothing, as others know.
    ``settled``: it was listened long enough that whoever was not heard is not there.
    """

    mesh: Snapshot
    settled: bool = True
    silent: tuple[Silent, ...] = ()
    away: str = ""
    head: tuple[int, int] = (0, 0)
    store: str = ""
    policies: tuple[PolicyLine, ...] = ()
    calls: tuple[CallLine, ...] = ()
    tapped: str = ""
    promised: Promised = Promised()

"""What the callers of a call say of their circuits and of whom they ejected: heard from their statistics, for ``why``.

Each instance of a caller has circuits of its own. It tells of those that are not closed while somebody listens: at
once, or within a second where somebody else listens already.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Protocol

import anyio
import msgspec

from nats_mesh import Mesh
from nats_mesh.errors import PermissionDeniedError
from nats_mesh.telemetry.snapshots import Breaker, Ejection, Snapshot
from nats_mesh.telemetry.stats_messages import MAX_LISTED
from nats_mesh.telemetry.watching import MeshView
from nats_mesh_cli.heard import SETTLE_S

__all__ = ["UNASKED", "Listening", "Told", "listening", "told_of"]

#: How long it takes to look again whether everybody has told, where nothing new is heard (seconds).
_LOOK_S: Final = 0.25


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the instances of a caller say of now. ``told`` are those that said it and ``untold`` those that could not be
    heard, by their ids; ``names`` has what people call them. ``full`` have more open circuits, or ejected more
    instances, than one can tell. Where nobody was ``asked``, ``reason`` says why."""

    asked: bool = True
    reason: str = ""
    told: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    names: Mapping[str, str] = {}
    full: frozenset[str] = frozenset()
    breakers: tuple[Breaker, ...] = ()
    ejections: tuple[Ejection, ...] = ()

    def name_of(self, instance: str) -> str:
        """What people call this instance: its host and process, where no other one has the same."""
        name = self.names.get(instance, "")
        return instance if not name or list(self.names.values()).count(name) > 1 else name


UNASKED: Final = Told(asked=False, reason="each caller has its own, so its state is not known here")


class _Seen(Protocol):
    @property
    def told(self) -> frozenset[tuple[str, str]]: ...

    def snapshot(self) -> Snapshot: ...

    async def news(self, timeout_s: float) -> bool: ...


class Listening:
    """Listens from when it is made; ``seen`` is ``None`` where that is not allowed, for this ``reason``."""

    def __init__(self, seen: _Seen | None, reason: str = "", *, now: Callable[[], float]) -> None:
        self._seen = seen
        self._reason = reason
        self._now = now
        self._end = now() + SETTLE_S

    async def told(self, members: Mapping[str, Collection[str]]) -> dict[str, Told]:
        """By caller, what its ``members`` (ids) tell; those that have not within :data:`~nats_mesh_cli.heard.SETTLE_S`
        of the beginning are not waited for."""
        seen = self._seen
        if seen is None:
            return {caller: Told(asked=False, reason=self._reason) for caller in members}
        wanted = {(caller, each) for caller, ids in members.items() for each in ids}
        while not wanted <= seen.told and (left_s := self._end - self._now()) > 0.0:
            await seen.news(min(_LOOK_S, left_s))
        told, snapshot = seen.told, seen.snapshot()
        return {caller: told_of(caller, ids, told, snapshot) for caller, ids in members.items()}


@asynccontextmanager
async def listening(mesh: Mesh, callers: Sequence[str] | None) -> AsyncIterator[Listening]:
    """Listen to what ``callers`` (``None``: all) tell while the block runs; to nobody where there are none."""
    seen: MeshView | None = None
    reason = UNASKED.reason
    async with AsyncExitStack() as stack:
        if callers is None or callers:
            try:
                seen = await stack.enter_async_context(MeshView(mesh, services=callers or ()))
            except PermissionDeniedError as error:
                reason = f"this credential may not listen to statistics ({error.message})"
        yield Listening(seen, reason, now=anyio.current_time)


def told_of(
    caller: str, members: Collection[str], told: Collection[tuple[str, str]], snapshot: Snapshot
) -> Told:
    """What the ``members`` of a caller have told, of whom ``told`` did. Pure."""
    here = {each.id: each for each in snapshot.members if each.service == caller and each.id in members}
    heard = [each for each in sorted(members) if (caller, each) in told and each in here]
    return Told(
        told=tuple(heard),
        untold=tuple(sorted(set(members) - set(heard))),
        names={each: here[each].name for each in here},
        full=frozenset(
            each for each in heard if max(len(here[each].breakers), len(here[each].ejections)) >= MAX_LISTED
        ),
        breakers=tuple(one for each in heard for one in here[each].breakers),
        ejections=tuple(one for each in heard for one in here[each].ejections),
    )

"""How long somebody who looks once listens, so that nothing is called empty because it was looked at too early."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import anyio

from nats_mesh.telemetry.snapshots import Snapshot
from nats_mesh_cli.output import counted

__all__ = ["KNOWN_S", "SETTLE_S", "listened", "untold"]

#: Members answer at once who is there, and tell once a second: whoever was not heard after so long is not there
#: (seconds).
KNOWN_S: Final = 3.0
#: How long members may take to say what they have counted by now (seconds): it takes two words of each.
SETTLE_S: Final = 2.5
#: How many members a note names.
_NAMED: Final = 3


class Seen(Protocol):
    """What is listened with: a :class:`nats_mesh.telemetry.watching.MeshView`."""

    def snapshot(self) -> Snapshot: ...

    async def news(self, timeout_s: float) -> bool: ...

    async def settled(self, timeout_s: float) -> bool: ...


async def listened(seen: Seen, listen_s: float, *, settle_s: float = SETTLE_S) -> bool:
    """Listen for ``listen_s``, and longer only while nobody was heard (up to :data:`KNOWN_S`) or somebody has not told
    (up to ``settle_s``). False: somebody has not told in time. What all have told is at most ``settle_s`` old."""
    begun = anyio.current_time()
    await anyio.sleep(max(0.0, listen_s - settle_s))
    until = begun + max(KNOWN_S, listen_s)
    while _empty(seen.snapshot()) and (left_s := until - anyio.current_time()) > 0.0:
        await seen.news(left_s)
    complete = await seen.settled(settle_s)
    await anyio.sleep(max(0.0, begun + listen_s - anyio.current_time()))
    return complete


def untold(late: Sequence[tuple[str, str]]) -> str:
    """A note of the members that did not tell in time."""
    named = ", ".join(f"{service} {instance}" for service, instance in sorted(late)[:_NAMED])
    more = f" and {counted(len(late) - _NAMED, 'other')}" if len(late) > _NAMED else ""
    return f"note: {named or 'somebody'}{more} had not told the latest figures in time"


def _empty(snapshot: Snapshot) -> bool:
    return not snapshot.services and not snapshot.edges

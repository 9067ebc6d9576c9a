"""What one of many does at a time: whoever holds the key of a duty in the bucket ``mesh_lease_<namespace>``.

The holder writes his key every few seconds, and what he knows with it. Nobody compares clocks: who waits looks whether
the key's revision changes, and takes over where it has stood still for as long as a lease lasts, by compare-and-set on
that revision. The one before notices with his next write, which fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.wire.kv import Found, KvBucket, KvConflictError, KvError
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["LEASE_S", "RENEW_S", "Duty"]

#: How long a key stands still before somebody else takes over, and how often its holder writes it (seconds).
LEASE_S: Final = 6.0
RENEW_S: Final = 2.0
_ASK_S: Final = 1.5


class Duty:
    """The duty ``key`` in a namespace, which this member would do, too. Methods raise a :class:`KvError` where the
    store does not answer."""

    def __init__(
        self,
        key: str,
        namespace: str,
        *,
        transport: Transport,
        mux: ReplyMux,
        clock: Clock = SYSTEM_CLOCK,
        lease_s: float = LEASE_S,
    ) -> None:
        self.key = key
        self._now = clock.monotonic
        self._lease_s = lease_s
        self._bucket = KvBucket(
            Subjects(namespace).lease_bucket, transport=transport, mux=mux, now=clock.monotonic
        )
        #: The revision that was written here last; 0 while somebody else holds it.
        self._mine = 0
        self._until = 0.0
        #: Which revision was seen last of somebody else's, and since when it stands.
        self._seen = (-1, 0.0)

    @property
    def held(self) -> bool:
        """Whether it is this member's for now."""
        return self._mine > 0 and self._now() < self._until

    async def read(self) -> Found | None:
        """What the holder wrote last; ``None`` where nobody ever did."""
        found = await self._bucket.get(self.key, timeout_s=_ASK_S)
        return None if found is None or found.deleted else found

    async def turn(self, value: Callable[[], bytes], taken: Callable[[bytes], None]) -> bool:
        """Renew it, or take it where nobody has it; whether it is held. ``value`` makes what is written, ``taken`` gets
        what the one before wrote, before anything of this member's is."""
        if self._mine:
            try:
                await self._write(value(), self._mine)
                return True
            except KvConflictError:
                self._mine = 0
            except KvError:
                if not self.held:
                    self._mine = 0  # somebody may have taken it meanwhile
                raise
        found = await self._bucket.get(self.key, timeout_s=_ASK_S)
        now, revision = self._now(), 0 if found is None else found.revision
        given_back = found is None or found.deleted
        if revision != self._seen[0]:
            self._seen = (revision, now)
        if not given_back and now - self._seen[1] < self._lease_s:
            return False
        if found is not None and not found.deleted:
            taken(found.value)
        try:
            await self._write(value(), revision)
        except KvConflictError:
            return False  # somebody else was faster, or its holder lives
        return True

    async def _write(self, value: bytes, expected: int) -> None:
        sent = self._now()
        self._mine = await self._bucket.put(self.key, value, expected=expected, timeout_s=_ASK_S)
        self._until = sent + self._lease_s

    async def release(self, value: bytes) -> None:
        """Leave ``value`` for whoever takes it next. A key that stands still for the time of a lease is free."""
        if self._mine:
            mine, self._mine = self._mine, 0
            await self._bucket.put(self.key, value, expected=mine, timeout_s=_ASK_S)

    def __repr__(self) -> str:
        return f"<Duty {self.key}: {'held' if self.held else 'not held'}>"

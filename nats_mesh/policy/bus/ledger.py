"""What operators' stores have in common, policies and configurations alike: a bucket whose values have revisions, each
with who wrote it, when and why, and an audit that its changes are written down in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from nats_mesh.audit.changes import ChangeKeeper
from nats_mesh.audit.writing import Origin
from nats_mesh.clock import Clock, rfc3339
from nats_mesh.policy.bus.bucket import Bucket, make_bucket
from nats_mesh.policy.bus.revisions import Revision, revision_of
from nats_mesh.wire import headers as h
from nats_mesh.wire.ids import new_id
from nats_mesh.wire.kv_log import KvLog, Message, Write
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["Ledger"]

_MAX_OPERATOR: Final = 128
_MAX_MESSAGE: Final = 1024


class Ledger:
    """The bucket of ``log``, for ``operator``; ``kind`` names its changes in the audit (`policy`, `config`). Methods
    raise a :class:`~nats_mesh.wire.kv.KvError` where the store does not do it."""

    def __init__(
        self,
        kind: str,
        bucket: str,
        *,
        subjects: Subjects,
        transport: Transport,
        mux: ReplyMux,
        operator: str,
        clock: Clock,
        timeout_s: float,
    ) -> None:
        self.log = KvLog(bucket, transport=transport, mux=mux)
        self.operator = operator
        self.timeout_s = timeout_s
        self._kind = kind
        self._audit = ChangeKeeper(
            subjects, self.log, transport=transport, mux=mux, clock=clock, timeout_s=timeout_s
        )
        self._transport = transport
        self._clock = clock

    async def open(self, *, hints: str, make: bool, replicas: int | None, description: str) -> Bucket:
        """Make the bucket where there is none, and the audit's stream; with ``make=False`` an absent bucket is a
        :class:`~nats_mesh.wire.kv.KvAbsentError`, and one that is there stays as it is."""
        bucket = await make_bucket(
            self.log,
            hints=hints,
            servers=self._transport.known_servers,
            make=make,
            replicas=replicas,
            timeout_s=self.timeout_s,
            description=description,
        )
        if make:
            await self._audit.open(replicas=bucket.replicas)
        return bucket

    def seen(self, newest: Iterable[Message]) -> None:
        """Remember what stands there: that need not be asked for when it is replaced."""
        self._audit.seen(newest)

    async def history(self, key: str) -> list[Revision]:
        """The revisions of ``key`` that are kept, the oldest first."""
        found: list[Message] = []
        while True:
            after = found[-1].sequence + 1 if found else 1
            page = await self.log.after(after, key=key, timeout_s=self.timeout_s)
            found += page.messages
            if not page.more or not page.messages:
                return [revision_of(message) for message in found]

    def said(self, message: str, change: str = "", *, back_to: int | None = None) -> tuple[str, str]:
        """The id of a change, a new one where there is none yet, and the headers that say who makes it, when and why.
        ``back_to``: it puts back what stood there at that revision (0: nothing did)."""
        change = change or new_id()
        why = h.one_line(message, _MAX_MESSAGE) if message else ""
        lines = (
            f"Mesh-Operator: {h.one_line(self.operator, _MAX_OPERATOR)}\r\n"
            f"Mesh-Message: {why}\r\n"
            f"Mesh-Time: {rfc3339(self._clock.time())}\r\n"
            f"Mesh-Change: {change}\r\n"
        )
        if back_to is not None:
            lines += f"Mesh-Back-To: {back_to}\r\n"
        return change, lines

    async def write(self, writes: Sequence[Write], lines: str, *, batch: str = "") -> int:
        """Store ``writes``, several as one atomic ``batch``; the sequence of the last."""
        return await self.log.write(writes, lines, batch=batch, timeout_s=self.timeout_s)

    async def record(
        self,
        writes: Sequence[Write],
        sequences: Mapping[str, int],
        *,
        change: str,
        message: str,
        epoch: int = 0,
    ) -> str:
        """Write down in the audit what is stored under ``sequences``; why that is not known to have worked, else
        nothing."""
        origin = Origin(self._kind, self.operator, message, change, epoch)
        return await self._audit.record(origin, writes, sequences)

    def __repr__(self) -> str:
        return f"<Ledger {self.log.name}>"

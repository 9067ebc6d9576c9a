"""The changes of one store, written down as they are made, each with what stood there before it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence

from nats_mesh.audit.records import DocumentChange, Stood
from nats_mesh.audit.writing import AuditWriter, Origin
from nats_mesh.clock import Clock
from nats_mesh.wire.kv import KvError
from nats_mesh.wire.kv_log import KvLog, Message, Write
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["ChangeKeeper", "stood_of"]


def stood_of(revision: int, value: bytes | None, time: str = "") -> Stood:
    """What stands under a key, for a record: its bytes, or the mark of a deletion where they are ``None``."""
    if value is None:
        return Stood(revision=revision, time=time, deleted=True)
    try:
        return Stood(revision=revision, time=time, text=value.decode())
    except UnicodeDecodeError:
        return Stood(revision=revision, time=time, data=value)


class ChangeKeeper:
    """Keeps the changes of ``store``, whose log it is given, in the audit of its namespace. Nothing it does raises."""

    def __init__(
        self,
        subjects: Subjects,
        store: KvLog,
        *,
        transport: Transport,
        mux: ReplyMux,
        clock: Clock,
        timeout_s: float,
    ) -> None:
        self._store = store
        self._writer = AuditWriter(subjects, transport=transport, mux=mux, clock=clock)
        self._timeout_s = timeout_s
        #: The newest message of each key, as far as it was seen: what a change replaces.
        self._known: dict[str, Message] = {}

    async def open(self, *, replicas: int) -> str:
        """Make the stream where there is none; returns why it cannot be, empty where all is well."""
        return await self._writer.open(replicas=replicas, timeout_s=self._timeout_s)

    def seen(self, newest: Iterable[Message]) -> None:
        """Remember what stands there: that need not be asked for when it is replaced."""
        self._known = {message.key: message for message in newest}

    async def record(self, origin: Origin, writes: Sequence[Write], sequences: Mapping[str, int]) -> str:
        """Write down ``writes``, which the store has under ``sequences``; why that is not known to have worked, else
        nothing."""
        numbers = sequences.values()
        times = await self._times(min(numbers), max(numbers))
        documents = []
        for write in writes:
            before = await self._replaced(write)
            number = sequences[write.key]
            after = Message(number, write.key, write.value, times.get(number, ""), b"")
            documents.append(
                DocumentChange(
                    key=write.key, after=_said(after), before=None if before is None else _said(before)
                )
            )
            self._known[write.key] = after
        return await self._writer.record(origin, documents)

    async def _times(self, first: int, last: int) -> Mapping[int, str]:
        """When the store, by its own clock, took the messages from ``first`` to ``last``; what it does not say now is
        missing: a copy may lag behind, and the record's own time is near."""
        times: dict[int, str] = {}
        with contextlib.suppress(KvError):
            at = first
            while at <= last:
                page = await self._store.after(at, timeout_s=self._timeout_s)
                times |= {message.sequence: message.time for message in page.messages}
                if not page.messages or not page.more:
                    break
                at = page.messages[-1].sequence + 1
        return times

    async def _replaced(self, write: Write) -> Message | None:
        """What stood under a key before it was written; ``None``: nothing, or it cannot be said any more."""
        if write.expected == 0:
            return None
        known = self._known.get(write.key)
        if known is not None and known.sequence == write.expected:
            return known
        with contextlib.suppress(KvError):
            page = await self._store.after(write.expected, key=write.key, count=1, timeout_s=self._timeout_s)
            if page.messages and page.messages[0].sequence == write.expected:
                return page.messages[0]
        return None

    def __repr__(self) -> str:
        return f"<ChangeKeeper {self._store.name}>"


def _said(message: Message) -> Stood:
    return stood_of(message.sequence, message.value, message.time)

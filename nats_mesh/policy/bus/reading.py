"""Reading the store's log to its end, for one replica: one question at a time."""

from __future__ import annotations

import sys
from typing import Final

import anyio

from nats_mesh.core.replica import Question, Record, Replica, Step, Want
from nats_mesh.policy.bus.documents import MAX_VALUE
from nats_mesh.wire import headers as h
from nats_mesh.wire.kv_log import KvLog, KvTooManyKeysError, Message, Page, last_field

__all__ = ["READ_S", "StoreReader", "record_of"]

#: How long one answer of the store may take (seconds).
READ_S: Final = 2.0

_BATCH, _COMMIT, _CHANGE = b"\r\nNats-Batch-Id:", b"\r\nNats-Batch-Commit:", b"\r\nMesh-Change:"
_MAX_ID: Final = 128


def record_of(message: Message) -> Record:
    """A message of the log as a replica takes it; a value that is too large is not kept."""
    value = message.value
    size = 0 if value is None else len(value)
    batch = sys.intern(h.text_field(message.headers, _BATCH)[:_MAX_ID])
    commit = bool(batch) and last_field(message.headers, _COMMIT) != b""
    change = sys.intern(h.text_field(message.headers, _CHANGE)[:_MAX_ID])
    kept = b"" if size > MAX_VALUE else value
    return Record(message.sequence, message.key, kept, message.time, batch, commit, change, size)


class StoreReader:
    """Reads for ``replica``; sets ``heard`` once anything came. ``reads`` counts questions."""

    def __init__(self, log: KvLog, replica: Replica, heard: anyio.Event) -> None:
        self.reads = 0
        self._log = log
        self._replica = replica
        self._heard = heard

    async def read(self) -> Step:
        """Until the replica wants no more at once; raises :class:`~nats_mesh.wire.kv.KvError`, after which
        nothing is kept."""
        replica = self._replica
        try:
            while True:
                question = replica.question()
                self.reads += 1
                page = await self._ask(question)
                self._heard.set()
                if page is None:
                    replica.too_many()
                    continue
                records = [record_of(message) for message in page.messages]
                step = replica.answer(question, records, more=page.more, head=page.head)
                if step is not Step.MORE:
                    return step
        except BaseException:
            replica.abandon()
            raise

    async def _ask(self, question: Question) -> Page | None:
        """``None``: too many keys for one answer."""
        if question.want is Want.FROM:
            return await self._log.after(question.sequence, timeout_s=READ_S)
        try:
            return await self._log.latest(timeout_s=READ_S)
        except KvTooManyKeysError:
            return None

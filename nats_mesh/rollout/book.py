"""Where rollouts are kept: the keys ``rollout.<service>`` of the bucket ``mesh_lease_<namespace>``.

A record is its own lease. Whoever carries a rollout out writes it every second, and so says that he lives. Nobody
compares clocks: whoever waits looks whether the key's revision changes, and takes over where it has not for as long
as a lease lasts, by compare-and-set on that revision. The one before notices with his next write, which fails.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from nats_mesh.clock import SYSTEM_CLOCK, Clock, rfc3339
from nats_mesh.core.seldom import worth_saying
from nats_mesh.errors import CodecError, MeshError
from nats_mesh.rollout.record import MAX_BYTES, Record, Wish, decode_record, encode_record
from nats_mesh.wire.headers import one_line
from nats_mesh.wire.kv import KvBucket, KvConflictError
from nats_mesh.wire.kv_log import KvLog, Message
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["ASK_S", "LEASE_S", "RENEW_S", "Book", "Entry", "UnreadableError"]

log = logging.getLogger("nats_mesh.rollout")

#: How long a record stands still before somebody else takes over, and how often its holder writes it (seconds).
LEASE_S: Final = 5.0
RENEW_S: Final = 1.0
#: How long one question to the store may take (seconds): several fit into a lease.
ASK_S: Final = 2.0
_PREFIX: Final = "rollout."
#: Rollouts of one namespace; one a service.
_MAX_ENTRIES: Final = 4096
#: The size of the bucket, all of it set aside at once (bytes): the first that the server has room for.
_SIZES: Final = (64 << 20, 16 << 20, 4 << 20)
_REPLICAS: Final = 3
_ROUNDS: Final = 20


class UnreadableError(MeshError):
    """The record of a rollout cannot be read: a newer version wrote it, or something else did."""


class Entry(NamedTuple):
    """A record, and the revision of its key."""

    record: Record
    revision: int


class Book:
    """The records of one namespace. Methods raise a :class:`~nats_mesh.wire.kv.KvError` where the store does not
    answer. ``unreadable`` counts records that could not be read, ``overflowed`` those beyond what is looked at."""

    def __init__(
        self,
        namespace: str,
        *,
        transport: Transport,
        mux: ReplyMux,
        clock: Clock = SYSTEM_CLOCK,
        ask_s: float = ASK_S,
    ) -> None:
        name = Subjects(namespace).lease_bucket
        self.name = name
        self.unreadable = 0
        self.overflowed = 0
        self._bucket = KvBucket(name, transport=transport, mux=mux, now=clock.monotonic)
        self._log = KvLog(name, transport=transport, mux=mux)
        self._transport = transport
        self._clock = clock
        self._ask_s = ask_s

    async def make(self) -> None:
        """Make the bucket where there is none; three copies in a cluster of three and more."""
        await self._bucket.make(
            max_age_s=0.0,
            sizes=_SIZES,
            max_value_bytes=MAX_BYTES,
            replicas=_REPLICAS if self._transport.known_servers >= _REPLICAS else 1,
            description="who does what in a mesh namespace",
            timeout_s=self._ask_s,
        )

    async def read(self, service: str) -> Entry | None:
        """The last rollout of ``service``; ``None`` where there was none. :class:`UnreadableError` where it is none."""
        found = await self._bucket.get(f"{_PREFIX}{service}", timeout_s=self._ask_s)
        if found is None or found.deleted:
            return None
        try:
            return Entry(_read(f"{_PREFIX}{service}", found.value), found.revision)
        except CodecError as error:
            raise UnreadableError(
                f"{self.name}, {_PREFIX}{service}: {error}. A newer version wrote it, or something else did; where "
                f"nobody carries it out, 'nats kv del {self.name} {_PREFIX}{service}' takes it away"
            ) from None

    async def all(self) -> list[Entry]:
        """The last rollout of every service; what cannot be read is counted and left out."""
        return (await self.since(0))[0]

    async def since(self, sequence: int) -> tuple[list[Entry], int]:
        """What was written after ``sequence`` of the bucket, and up to where was read."""
        found: dict[str, Message] = {}
        while True:
            page = await self._log.after(sequence + 1, timeout_s=self._ask_s)
            for message in page.messages:
                sequence = message.sequence
                if not message.key.startswith(_PREFIX):
                    continue
                if message.key in found or len(found) < _MAX_ENTRIES:
                    found[message.key] = message
                else:
                    self._overflow(message.key)
            if not page.more or not page.messages:
                return list(self._entries(found.values())), sequence

    def _entries(self, messages: Iterable[Message]) -> Iterable[Entry]:
        for message in messages:
            if message.value is None:
                continue
            try:
                yield Entry(_read(message.key, message.value), message.sequence)
            except CodecError as error:
                self.unreadable += 1
                if worth_saying(self.unreadable):
                    log.warning(
                        "%s, %s: %s (%d so far)",
                        self.name, one_line(message.key, 100), error, self.unreadable,
                    )  # fmt: skip

    def _overflow(self, key: str) -> None:
        self.overflowed += 1
        if worth_saying(self.overflowed):
            log.warning(
                "%s has more than %d rollouts: %s and others are not looked at (%d so far)",
                self.name, _MAX_ENTRIES, one_line(key, 100), self.overflowed,
            )  # fmt: skip

    async def write(self, record: Record, expected: int) -> int:
        """Store ``record`` where revision ``expected`` stands (0: nothing); its new revision.
        :class:`~nats_mesh.wire.kv.KvConflictError` where something else stands there."""
        changed = msgspec.structs.replace(record, changed=rfc3339(self._clock.time()))
        key = f"{_PREFIX}{record.service}"
        return await self._bucket.put(key, encode_record(changed), expected=expected, timeout_s=self._ask_s)

    async def wish(self, service: str, wish: Wish, by: str, text: str) -> Entry:
        """Have whoever carries it out pause, resume or abort; the record with the wish in it."""
        return await self._change(
            service,
            lambda record: msgspec.structs.replace(
                record,
                wish=wish,
                wished=record.wished + 1,
                wished_by=one_line(by, 200) if by else "",
                wish_text=one_line(text, 500) if text else "",
            ),
        )

    async def _change(self, service: str, change: Callable[[Record], Record]) -> Entry:
        for _ in range(_ROUNDS):  # its holder writes once a second, and so may win a few times
            entry = await self.read(service)
            if entry is None:
                raise MeshError(f"there is no rollout of {service}")
            record = change(entry.record)
            try:
                return Entry(record, await self.write(record, entry.revision))
            except KvConflictError:
                continue
        raise KvConflictError(f"{self.name}: {_PREFIX}{service} is written by others all the time")

    def __repr__(self) -> str:
        return f"<Book {self.name}>"


def _read(key: str, value: bytes) -> Record:
    """The record under a key; :class:`CodecError` where it is none, or that of another service."""
    record = decode_record(value)
    if key != f"{_PREFIX}{record.service}":
        raise CodecError(f"rollout: it is one of {record.service}, and stands where another one's belongs")
    return record

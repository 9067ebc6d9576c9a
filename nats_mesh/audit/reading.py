"""Reading the audit in order, page by page: what is believed, what is not and why, and what is missing.

Memory is bounded by one page and the numbers of the writers that were met, whatever the stream holds.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from nats_mesh.audit.records import (
    MAX_WITHIN_S,
    ChangeRecord,
    PresenceRecord,
    Record,
    Writer,
    decode_record,
    writer_of,
)
from nats_mesh.audit.stream import StreamInfo, audit_log, stream_info
from nats_mesh.core.past import LOST, Found, Past, Sign
from nats_mesh.core.presence import incarnation
from nats_mesh.errors import CodecError, MeshError
from nats_mesh.wire.kv import KvError
from nats_mesh.wire.kv_log import KvLog, Message
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["AuditReader", "BeforeError", "Entry", "PresenceThen", "seconds_of", "sign_of", "utc_of"]

#: Writers whose numbers are remembered; of more, those that were silent longest are forgotten.
_MAX_WRITERS: Final = 50_000
#: Instances of one moment.
_MAX_INSTANCES: Final = 100_000
#: How far before a moment its signs may stand (seconds): the longest promise that instances make, and what may be lost.
_WINDOW_S: Final = MAX_WITHIN_S * (LOST + 1)
#: Messages of one page; what they weigh in all is bounded, too.
_PAGE: Final = 1000
_FROM_STREAM: Final = b"\r\nNats-Stream:"
_MAX_WHY: Final = 300


class BeforeError(MeshError):
    """Nothing is known of that moment: it is before what is kept, or has not come yet."""


class Entry(NamedTuple):
    """One message of the stream. ``time`` is the server's. ``record`` is ``None`` where it is not believed, and
    ``problem`` says why. ``missing``: how many records of its writer before it are not there."""

    sequence: int
    time: str
    kind: str
    writer: str
    instance: str
    record: Record | None
    problem: str = ""
    missing: int = 0


class PresenceThen(NamedTuple):
    """Who was there. ``names`` are the endpoints' names by their hash, as far as any sign said them. ``young_s``: how
    long the stream had been there then, for what it cannot know yet. ``untrusted`` counts what was not believed."""

    found: list[Found[PresenceRecord]]
    names: dict[str, tuple[str, ...]]
    young_s: float
    moment: float
    untrusted: int


def seconds_of(time: str) -> float:
    """An instant of RFC 3339 as seconds since 1970; :class:`ValueError` where it is none."""
    moment = datetime.datetime.fromisoformat(time)
    if moment.tzinfo is None:
        raise ValueError(f"{time!r} has no time zone")
    return moment.timestamp()


def _is_instant(time: str) -> bool:
    try:
        seconds_of(time)
    except (ValueError, OverflowError):
        return False
    return True


def utc_of(seconds: float) -> str:
    """The inverse, to the microsecond."""
    moment = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class AuditReader:
    """Reads the audit of one namespace. ``untrusted`` counts what was not believed, by reason, and ``missing`` the
    records that their writers' numbers say are not there. Methods raise :class:`~nats_mesh.wire.kv.KvError` where
    nobody answers, :class:`~nats_mesh.wire.kv.KvAbsentError` where there is no stream."""

    def __init__(
        self, subjects: Subjects, *, transport: Transport, mux: ReplyMux, timeout_s: float = 5.0
    ) -> None:
        self.untrusted: Counter[str] = Counter()
        self.missing = 0
        self.log: KvLog = audit_log(subjects, transport=transport, mux=mux)
        self._namespace = subjects.namespace
        self._timeout_s = timeout_s
        self._numbers: dict[str, int] = {}

    async def info(self) -> StreamInfo:
        """What the stream is; where its instants are none, that is a :class:`~nats_mesh.wire.kv.KvError`, too."""
        info = await stream_info(self.log, timeout_s=self._timeout_s)
        for what, time in (("it is now", info.now), ("it begins", info.since)):
            if not _is_instant(time):
                raise KvError(f"{info.name}: the server names no instant at which {what}: {time[:40]!r}")
        return info

    async def covering(self, time: str) -> StreamInfo:
        """The stream, where it knows the instant ``time`` (RFC 3339, UTC); :class:`BeforeError` where it does not."""
        info = await self.info()
        if incarnation(time) < incarnation(info.since):
            begins = "was made" if info.whole else "begins"
            raise BeforeError(f"nothing is known of {time}: the audit {begins} at {info.since}")
        if incarnation(time) > incarnation(info.now):
            raise BeforeError(f"{time} is still to come: it is {info.now} at the server")
        return info

    async def entries(
        self, *, kind: str = "", since: str = "", after: int = 0, upto: int = 0
    ) -> AsyncIterator[Entry]:
        """Everything from an instant ``since`` (RFC 3339), or behind sequence ``after``, to ``upto`` or the end."""
        # Most records are of presence: having the server look for them costs more than leaving out the others here.
        key = f"{kind}.>" if kind and kind != "presence" else ">"
        at = after + 1
        while True:
            page = await self.log.after(at, key=key, count=_PAGE, time=since, timeout_s=self._timeout_s)
            since = ""
            for message in page.messages:
                if upto and message.sequence > upto:
                    return
                if not kind or message.key.startswith(f"{kind}."):
                    yield self._entry(message)
            if not page.more or not page.messages:
                return
            at = page.messages[-1].sequence + 1

    def _entry(self, message: Message) -> Entry:
        writer = writer_of(message.key) or Writer("", message.key[:200], "")
        record: Record | None = None
        problem = ""
        missing = 0
        if message.headers.count(_FROM_STREAM) != 1:
            problem = "it came out of another stream: somebody had JetStream send it here"
            self.untrusted["forged"] += 1
        elif not _is_instant(message.time):
            problem = f"the server names no instant at which it came: {message.time[:40]!r}"
            self.untrusted["malformed"] += 1
        elif not writer.kind:
            problem = "its subject is no place for a record"
            self.untrusted["malformed"] += 1
        else:
            try:
                record = decode_record(message.value or b"", writer=writer, namespace=self._namespace)
            except CodecError as error:
                problem = str(error)[:_MAX_WHY]
                self.untrusted["malformed"] += 1
            else:
                missing = self._missing(message.key, record.seq)
        return Entry(
            sequence=message.sequence,
            time=message.time,
            kind=writer.kind,
            writer=writer.writer,
            instance=writer.instance,
            record=record,
            problem=problem,
            missing=missing,
        )

    def _missing(self, key: str, number: int) -> int:
        """How many records are missing between the one before on ``key`` and this one, by their numbers."""
        if number == 0:  # a writer that does not count
            return 0
        before = self._numbers.pop(key, None)
        if len(self._numbers) >= _MAX_WRITERS:
            self._numbers.pop(next(iter(self._numbers)))
        self._numbers[key] = number
        if before is None or number <= before + 1:
            return 0
        self.missing += number - before - 1
        return number - before - 1

    async def presence(self, time: str) -> PresenceThen:
        """Who was there at the instant ``time`` (RFC 3339, UTC); :class:`BeforeError` where that is not known."""
        info = await self.covering(time)
        moment, since = seconds_of(time), seconds_of(info.since)
        past: Past[PresenceRecord] = Past(max(moment, since), since)
        longest = 1.0
        names: dict[str, tuple[str, ...]] = {}
        begin = max(since, moment - _WINDOW_S)
        before = self.untrusted.total()
        async for entry in self.entries(kind="presence", since=utc_of(begin), upto=info.last):
            record = entry.record
            if not isinstance(record, PresenceRecord):
                continue
            at = seconds_of(entry.time)
            # Later signs than this say nothing of the moment any more.
            if at > moment + longest * (LOST + 1) + 1.0:
                break
            longest = max(longest, record.within_s)
            if record.endpoints is not None and len(names) < _MAX_INSTANCES:
                names[record.endpoints_hash] = record.endpoints
            key = (record.service, record.instance)
            past.take(key, sign_of(record, at), record)
            if len(past) > _MAX_INSTANCES:
                raise MeshError(f"more than {_MAX_INSTANCES} instances: that many cannot be told apart here")
        found = past.found(min(seconds_of(info.now), moment + longest * (LOST + 1) + 1.0))
        return PresenceThen(found, names, moment - since, moment, self.untrusted.total() - before)

    async def changes(self, kind: str) -> AsyncIterator[tuple[Entry, ChangeRecord]]:
        """The changes of ``kind`` (``policy`` or ``config``) that are kept, the oldest first."""
        async for entry in self.entries(kind=kind):
            if isinstance(entry.record, ChangeRecord):
                yield entry, entry.record

    def __repr__(self) -> str:
        return f"<AuditReader {self.log.name}>"


def sign_of(record: PresenceRecord, at: float) -> Sign:
    """What a record of presence says that was stored ``at``, as a sign of life."""
    return Sign(
        at=at,
        within_s=record.within_s,
        incarnation=record.started,
        start=record.event == "join",
        end=record.event == "leave",
    )

"""What a policy store holds, in words for operators: revisions, snapshots, changes, and what goes wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from nats_mesh.core.presence import incarnation
from nats_mesh.core.replica import EPOCH_KEY, MAX_EPOCH_DIGITS, OWN_PREFIX
from nats_mesh.errors import MeshError
from nats_mesh.model import is_name
from nats_mesh.policy.bus.documents import MAX_VALUE
from nats_mesh.wire import headers as h
from nats_mesh.wire.kv import KvConflictError
from nats_mesh.wire.kv_log import Message, Write

__all__ = [
    "Applied",
    "Change",
    "ConflictError",
    "NoEpochError",
    "NotAtomicError",
    "PartlyStoredError",
    "Revision",
    "Snapshot",
    "UnknownPastError",
    "by_sequence",
    "check_key",
    "dropped_before",
    "epoch_of",
    "instant_of",
    "revision_of",
    "snapshot_of",
    "writes_of",
]

_OPERATOR, _MESSAGE = b"\r\nMesh-Operator:", b"\r\nMesh-Message:"
_TIME, _CHANGE, _BACK_TO = b"\r\nMesh-Time:", b"\r\nMesh-Change:", b"\r\nMesh-Back-To:"
_EXPECTED, _OPERATION = b"\r\nNats-Expected-Last-Subject-Sequence:", b"\r\nKV-Operation:"
_ANY_KEY = re.compile(r"[^\s.*>\x00-\x20\x7f]+(\.[^\s.*>\x00-\x20\x7f]+)*")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")


class Change(msgspec.Struct, frozen=True):
    """One key (``Kind.name``) and the bytes that shall stand under it, ``None``: it is deleted.

    ``expected`` is the sequence of the revision that it replaces, a deletion's too; 0: the key was never there.
    """

    key: str
    value: bytes | None
    expected: int = 0


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """What stood under a key. ``value`` is exactly what was stored, ``None`` where the key was deleted.

    ``time`` is the server's; ``said_time``, ``operator``, ``message`` and ``change`` are what whoever wrote it said.
    ``back_to``: it puts back what stood there at that revision (0: before any); ``None`` where it is no such undo.
    """

    key: str
    sequence: int
    value: bytes | None
    time: str
    operator: str = ""
    message: str = ""
    said_time: str = ""
    change: str = ""
    back_to: int | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The store at one moment. ``policies`` are the keys that stood there; ``expected`` has the sequence to give to a
    :class:`Change` of any key, deleted ones included (0 for those it does not name). ``began`` is the sequence at which
    its epoch was given to it, and ``began_time`` the server's instant of that (0 and empty: not known)."""

    epoch: int
    sequence: int
    policies: Mapping[str, Revision]
    expected: Mapping[str, int]
    began: int = 0
    began_time: str = ""


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What a change came to: ``sequence`` is the store's after it, ``sequences`` that of each key. ``atomic``:
    as one. ``unrecorded`` says why the change is not in the audit, empty where it is."""

    epoch: int
    sequence: int
    sequences: Mapping[str, int]
    change: str
    atomic: bool
    unrecorded: str = ""


class ConflictError(KvConflictError):
    """Somebody else wrote meanwhile: nothing was stored. ``expected`` and ``found`` are sequences of ``key``."""

    def __init__(self, key: str, expected: int, found: Revision | None) -> None:
        self.key = key
        self.expected = expected
        self.found = found
        now = "nothing" if found is None else f"revision {found.sequence}"
        if found is not None and found.operator:
            now += f" by {found.operator}"
        before = f"revision {expected}" if expected else "nothing"
        super().__init__(
            f"{key}: {before} was expected there, and {now} is: somebody else changed it; look again"
        )


class NoEpochError(MeshError):
    """The bucket has no epoch: it was made by other means, or emptied. :meth:`PolicyStore.renew` gives it one."""


class NotAtomicError(MeshError):
    """The change cannot be stored as one here; nothing was stored."""


class PartlyStoredError(MeshError):
    """The change was stored in part and could not be taken back: ``stored`` are the keys that are as the change
    says."""

    def __init__(self, message: str, stored: Sequence[str]) -> None:
        super().__init__(message)
        self.stored = tuple(stored)


class UnknownPastError(MeshError):
    """What stood there then is not kept any more; ``keys`` are those of which it is unknown."""

    def __init__(self, message: str, keys: Sequence[str]) -> None:
        super().__init__(message)
        self.keys = tuple(keys)


def check_key(key: str, *, stands: bool = False) -> None:
    """Raise :class:`ValueError` where ``key`` is no key of a policy.

    With ``stands`` any key passes under which other programs may have written: to look at it, and to delete it.
    """
    if stands and _ANY_KEY.fullmatch(key) is not None and not key.startswith(OWN_PREFIX):
        return
    kind, dot, name = key.partition(".")
    if not (dot and is_name(kind) and is_name(name)) or key.startswith(OWN_PREFIX):
        raise ValueError(f"{key!r} is no key of a policy: Kind.name")


def writes_of(changes: Iterable[Change]) -> list[Write]:
    """What is written for ``changes``; :class:`ValueError` where one of them cannot be stored."""
    writes: dict[str, Write] = {}
    for change in changes:
        check_key(change.key, stands=change.value is None)
        if change.key in writes:
            raise ValueError(f"{change.key} stands in the change twice")
        if change.value is not None and not 0 < len(change.value) <= MAX_VALUE:
            raise ValueError(f"{change.key} has {len(change.value)} bytes; a document has 1 to {MAX_VALUE}")
        writes[change.key] = Write(change.key, change.value, change.expected)
    return list(writes.values())


def revision_of(message: Message) -> Revision:
    """A message of the log as a revision."""
    headers = message.headers
    back_to = h.text_field(headers, _BACK_TO)
    return Revision(
        key=message.key,
        sequence=message.sequence,
        value=message.value,
        time=message.time,
        operator=h.text_field(headers, _OPERATOR),
        message=h.text_field(headers, _MESSAGE),
        said_time=h.text_field(headers, _TIME),
        change=h.text_field(headers, _CHANGE),
        back_to=int(back_to) if back_to.isascii() and back_to.isdigit() and len(back_to) <= 15 else None,
    )


def snapshot_of(messages: Iterable[Message]) -> Snapshot:
    """What stands after ``messages``; :class:`NoEpochError` where none of them says an epoch."""
    epoch = sequence = began = 0
    began_time = ""
    policies: dict[str, Revision] = {}
    expected: dict[str, int] = {}
    for message in messages:
        sequence = message.sequence
        if message.key == EPOCH_KEY:
            epoch, began, began_time = epoch_of(message), message.sequence, message.time
        if message.key.startswith(OWN_PREFIX):
            continue
        expected[message.key] = message.sequence
        policies.pop(message.key, None)
        if message.value is not None:
            policies[message.key] = revision_of(message)
    if epoch == 0:
        raise NoEpochError("the bucket has no epoch: it was made by other means, or emptied")
    return Snapshot(
        epoch=epoch,
        sequence=sequence,
        policies=policies,
        expected=expected,
        began=began,
        began_time=began_time,
    )


def epoch_of(message: Message) -> int:
    """The epoch that a message says; 0 where it says none."""
    value = message.value or b""
    return int(value) if value.isdigit() and len(value) <= MAX_EPOCH_DIGITS else 0


def dropped_before(first: Message) -> bool:
    """Whether there were revisions of a key before the first one that is kept."""
    if h.field(first.headers, _OPERATION) == b"PURGE":
        return True
    expected = h.field(first.headers, _EXPECTED) or b"0"
    return expected.isdigit() and int(expected) > 0


def instant_of(time: str) -> str:
    """A text that sorts as instants do; :class:`ValueError` where it is no RFC 3339 in UTC."""
    if _INSTANT.fullmatch(time) is None:
        raise ValueError(f"{time!r} is no instant: write it as 2025-01-31T12:00:00Z")
    return incarnation(time)


def by_sequence(message: Message) -> int:
    """The order of the log."""
    return message.sequence

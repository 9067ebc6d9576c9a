"""Which call is a duplicate of which, and what a claim in the store means.

A caller that gives a call a key may send it again: the second one gets the reply of the first, and the handler
runs once. Who runs it says so first, by a *claim*: a record that only one can create, because the store compares
and sets. It is renewed while the handler runs, and ends as the reply.

Whether a claimant still lives is judged by watching its claim: one that has not moved for a whole lease, on the
clock of the instance that watches, is dead (the way Amazon's DynamoDB lock client judges a lock). Rejected: an
expiry time inside the record, which compares the clocks of two machines, and a record that the store lets expire,
which would let a second handler run while nobody knows whether the first one did.

A wrong verdict does no harm. Nothing but a compare-and-set lets a handler run, and where the endpoint is not
idempotent a dead claim lets none run at all: its callers learn that nobody knows. A claimant that was only slow
puts its reply in place of that.
"""

from __future__ import annotations

import base64
import enum
import hashlib

import msgspec

from nats_mesh.errors import Status

__all__ = [
    "LEASE_S",
    "MAX_SHARED_BYTES",
    "TRANSIENT",
    "Kept",
    "Move",
    "Record",
    "State",
    "Watch",
    "decode_record",
    "encode_record",
    "fingerprint",
    "judge",
    "key_token",
]

#: How long a claim stands without being renewed (seconds); it is renewed three times as often.
LEASE_S = 2.0
#: The longest lease that is believed of others (seconds).
_MAX_LEASE_S = 60.0
#: The largest reply (headers and body, in bytes) that goes into the store; of a larger one only the fact does. All
#: services of a namespace share the store, and where it is full it takes no new key of any of them.
MAX_SHARED_BYTES = 8 * 1024
#: Of an idempotent endpoint these are no reply worth keeping: it may be tried again.
TRANSIENT = frozenset(
    {
        Status.UNAVAILABLE,
        Status.INTERNAL,
        Status.RESOURCE_EXHAUSTED,
        Status.DEADLINE_EXCEEDED,
        Status.CANCELLED,
    }
)
#: Bits of a key's hash: enough that nobody finds two keys with one hash, and 32 characters in base32.
_TOKEN_BYTES = 20
_FINGERPRINT_BYTES = 16
_MAX_WATCHED = 4096


def key_token(caller: str, endpoint: str, key: bytes) -> str:
    """What stands for a caller's key of one endpoint in a subject: 160 bits of SHA-256, in base32 without padding.

    Caller and endpoint are names, which hold no NUL, so that no two triples are the same text.
    """
    digest = hashlib.sha256(b"\0".join((caller.encode(), endpoint.encode(), key))).digest()
    return base64.b32encode(digest[:_TOKEN_BYTES]).decode("ascii").lower()


def fingerprint(content_type: bytes, body: bytes) -> str:
    """What tells one request from another under the same key: 128 bits of SHA-256 over codec and body, in hex."""
    text = b"%d %s%s" % (len(content_type), content_type.lower(), body)
    return hashlib.sha256(text).digest()[:_FINGERPRINT_BYTES].hex()


class State(enum.StrEnum):
    """How far the first call with a key is: ``unknown`` where it was broken off, or its instance died."""

    RUNNING = "running"
    DONE = "done"
    UNKNOWN = "unknown"


class Kept(msgspec.Struct, frozen=True):
    """A reply to be given again: its status, its header lines without those of who answers, its body."""

    status: Status
    headers: str
    body: bytes

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.headers) + len(self.body)


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What stands in the store under a key. ``claim`` is unique to the call that claimed it.

    ``request`` is the :func:`fingerprint` of its request. A ``done`` record without ``reply`` is one whose reply
    of ``size`` bytes was too large to be kept, or (without ``size``) for which there was no room.

    """

    state: State
    claim: str
    instance: str
    request: str
    lease_ms: int = round(LEASE_S * 1000)
    reply: Kept | None = None
    size: int = 0


encode_record = msgspec.json.Encoder().encode
#: Raises :class:`msgspec.DecodeError` on what is no record.
decode_record = msgspec.json.Decoder(Record).decode


class Move(enum.Enum):
    """What a call does about the record that it found in place of its own claim."""

    #: The record is its own claim, whose acknowledgement was lost: run.
    RUN = enum.auto()
    #: Give the reply that is kept.
    REPLAY = enum.auto()
    #: Refuse: the same key was used for another request.
    MISMATCH = enum.auto()
    #: The first one runs: look again later.
    WAIT = enum.auto()
    #: Claim it in its place and run, which does no harm.
    TAKE_OVER = enum.auto()
    #: Nobody knows whether the first one ran: say so; ``MARK``: write it down, too.
    ABORT = enum.auto()
    MARK = enum.auto()
    #: It ran, and its reply was not kept.
    GONE = enum.auto()


def judge(record: Record, *, claim: str, request: str, idempotent: bool, silent_s: float) -> Move:
    """What to do about ``record``, for a call whose own claim is ``claim`` and whose fingerprint is ``request``.

    ``silent_s``: for how long the record has not changed, as seen from here (:class:`Watch`).
    """
    if record.request != request:
        return Move.MISMATCH
    if record.state is State.DONE:
        if record.reply is not None:
            return Move.REPLAY
        return Move.TAKE_OVER if idempotent else Move.GONE
    if record.state is State.UNKNOWN:
        return Move.TAKE_OVER if idempotent else Move.ABORT
    if record.claim == claim:
        return Move.RUN
    if silent_s < min(_MAX_LEASE_S, max(0, record.lease_ms) / 1000.0):
        return Move.WAIT
    return Move.TAKE_OVER if idempotent else Move.MARK


class Watch:
    """Since when the claims of others have not moved. Bounded: the one looked at first is forgotten first."""

    __slots__ = ("_limit", "_seen")

    def __init__(self, limit: int = _MAX_WATCHED) -> None:
        self._seen: dict[str, tuple[str, float]] = {}
        self._limit = limit

    def silent_s(self, name: str, stamp: str, now: float) -> float:
        """Seconds since ``stamp`` was first seen here under ``name``; it changes with everything that is written."""
        seen = self._seen.get(name)
        if seen is not None and seen[0] == stamp:
            return max(0.0, now - seen[1])
        self._seen.pop(name, None)
        if len(self._seen) >= self._limit:
            del self._seen[next(iter(self._seen))]
        self._seen[name] = (stamp, now)
        return 0.0

    def forget(self, name: str) -> None:
        """It is decided: nobody looks any more."""
        self._seen.pop(name, None)

    def __len__(self) -> int:
        return len(self._seen)

"""The little of a JetStream key-value bucket that the mesh needs: compare-and-set, read, make.

It speaks by the member's own connection and reply inbox. nats-py's ``key_value()`` would ask for the stream's
information first, which a workload with least privilege may not have; what is asked for here is a publish on
``$KV.<bucket>.<key>`` and a direct get of the same subject.

An answer that does not come leaves a write open: :attr:`KvError.maybe` says so, and what it means is for the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from nats_mesh.core.lazy import at_first_use
from nats_mesh.errors import UNREADABLE, CallError, Executed, MeshError, PermissionDeniedError
from nats_mesh.wire import headers as h
from nats_mesh.wire.jetstream import (
    ACCOUNT_FULL,
    NAME_TAKEN,
    NO_CLUSTER,
    NO_STORAGE,
    STORE_FAILED,
    TOO_LARGE,
    WRONG_SEQUENCE,
    Trouble,
    first_that_fits,
    wants_room,
)
from nats_mesh.wire.loop import Deadline, future_maker
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.transport import JETSTREAM, Transport

__all__ = [
    "Found",
    "KvAbsentError",
    "KvBucket",
    "KvConflictError",
    "KvDeniedError",
    "KvError",
    "KvFullError",
    "KvTooLargeError",
    "read_answer",
    "trouble",
    "writes_to",
]

#: Whose answers come to the inbox of these questions.
_DESTINATION = "$JS"
_SEQUENCE = b"\r\nNats-Sequence:"
_OPERATION = b"\r\nKV-Operation:"
#: How long the server looks for a repeated message id, which is not used here (seconds).
_DUPLICATE_WINDOW_S = 120.0


class KvError(MeshError):
    """The bucket did not do what it was asked to. ``maybe``: a write may have been stored all the same."""

    def __init__(self, message: str, *, maybe: bool = False) -> None:
        super().__init__(message)
        self.maybe = maybe


class KvConflictError(KvError):
    """Another revision stands there than the one that was expected: nothing was stored."""


class KvAbsentError(KvError):
    """Nobody answers for the bucket: it does not exist, or JetStream is off."""


class KvDeniedError(KvError):
    """The server's permissions do not allow it."""


class KvTooLargeError(KvError):
    """The bucket takes no value of this size."""


class KvFullError(KvError):
    """There is no room: for anything new, nor for more than what stands there already."""


class Found(NamedTuple):
    """What stands under a key; ``deleted``: the mark of a deletion, over which its revision still counts."""

    revision: int
    value: bytes
    deleted: bool


class _Answer(msgspec.Struct):
    """What JetStream says to a publish, or to a question of its API."""

    stream: str = ""
    seq: int = 0
    error: Trouble | None = None
    #: Of an atomic batch: its id, and how many messages it had.
    batch: str = ""
    count: int = 0


_decode = at_first_use(lambda: msgspec.json.Decoder(_Answer).decode)
_encode = msgspec.json.Encoder().encode


_TROUBLES: dict[int, type[KvError]] = {
    WRONG_SEQUENCE: KvConflictError,
    TOO_LARGE: KvTooLargeError,
    STORE_FAILED: KvFullError,
    NO_STORAGE: KvFullError,
    ACCOUNT_FULL: KvFullError,
}


def trouble(code: int, text: str) -> KvError:
    """The error for one of JetStream's error codes; ``text`` says whose it is, and what."""
    return _TROUBLES.get(code, KvError)(text)


def read_answer(name: str, body: bytes) -> _Answer:
    """What JetStream said about the bucket ``name``."""
    try:
        return _decode(body)
    except UNREADABLE as error:
        raise KvError(f"{name}: JetStream's answer cannot be read: {error}", maybe=True) from None


def writes_to(transport: Transport, prefix: str) -> str:
    """Where to publish what shall stand under ``prefix``: in a JetStream domain, what its server maps to that."""
    if transport.jetstream == JETSTREAM or not prefix.startswith("$KV."):
        return prefix
    return f"{transport.jetstream}.{prefix}"


class KvBucket:
    """One bucket, by its name. Every method raises :class:`KvError` where the bucket does not answer in time."""

    def __init__(self, name: str, *, transport: Transport, mux: ReplyMux, now: Callable[[], float]) -> None:
        self.name = name
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."
        self._writes = writes_to(transport, self._prefix)
        self._get = f"{transport.jetstream}.DIRECT.GET.{self._stream}"
        #: Whether reads name their key in the subject, where permissions can tell one service's keys from another's.
        self._by_subject = True
        self._transport = transport
        self._mux = mux
        self._inbox = mux.inbox(_DESTINATION)
        self._now = now
        self._new_future = future_maker()

    async def put(self, key: str, value: bytes, *, expected: int, timeout_s: float) -> int:
        """Store ``value`` where revision ``expected`` stands (0: nothing), and return the new revision.

        :class:`KvConflictError` where something else stands there. In a bucket that is full
        (:class:`KvFullError`) a value may still be replaced by one that is not longer.
        """
        return await self._write(key, value, "", expected, timeout_s)

    async def delete(self, key: str, *, expected: int, timeout_s: float) -> int:
        """As :meth:`put`, for nothing at all."""
        return await self._write(key, b"", "KV-Operation: DEL\r\n", expected, timeout_s)

    async def _write(self, key: str, value: bytes, lines: str, expected: int, timeout_s: float) -> int:
        # Always of one length: the server stores the headers too, and a full bucket takes nothing that is longer.
        block = f"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: {expected:015}\r\n{lines}\r\n".encode()

        answer = read_answer(self.name, (await self._ask(f"{self._writes}{key}", value, block, timeout_s))[1])
        if answer.error is not None:
            raise trouble(answer.error.err_code, f"{self.name}: {answer.error.description}")
        if answer.stream != self._stream or answer.seq < 1:
            text = f"{self.name}: another stream, {answer.stream[:80]!r}, takes what is written to {self._prefix}>"
            raise KvError(text, maybe=True)
        return answer.seq

    async def get(self, key: str, *, timeout_s: float) -> Found | None:
        """What stands under ``key``. It may be read from a replica, which may be a little behind."""
        subject = f"{self._prefix}{key}"
        if self._by_subject:
            try:
                headers, value = await self._ask(f"{self._get}.{subject}", b"", b"", timeout_s)
            except KvDeniedError:  # credentials that allow the bucket as a whole
                self._by_subject = False
        if not self._by_subject:
            headers, value = await self._ask(self._get, _encode({"last_by_subj": subject}), b"", timeout_s)
        status = h.server_status(headers)
        if status == 404:
            return None
        # Whoever wrote the message may have put a header of this name into it: the server's own comes after those.
        last = headers.rfind(_SEQUENCE)
        try:
            revision = h.int_field(headers[max(0, last) :], _SEQUENCE)
        except ValueError:
            revision = None
        if status is not None or revision is None or revision < 1:
            raise KvError(
                f"{self.name}: the server answered a read with {h.one_line(h.text(headers[:80]))!r}"
            )
        return Found(revision, value, h.field(headers, _OPERATION) in (b"DEL", b"PURGE"))

    async def make(
        self,
        *,
        max_age_s: float,
        sizes: Sequence[int],
        max_value_bytes: int,
        replicas: int,
        description: str,
        timeout_s: float,
    ) -> None:
        """Make the bucket: history 1, direct gets allowed. One that is there already stays as it is.

        The server sets all of a bucket's size aside when it is made: it gets the first of ``sizes`` (bytes, the
        largest first) that there is room for. Where the server turns out to be no cluster it gets one replica,
        whatever was asked for.
        """
        config = {
            "name": self._stream,
            "subjects": [f"{self._prefix}>"],
            "description": description,
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "max_msgs_per_subject": 1,
            "max_age": round(max_age_s * 1e9),
            "max_msg_size": max_value_bytes,
            "num_replicas": replicas,
            "duplicate_window": round(min(max_age_s, _DUPLICATE_WINDOW_S) * 1e9),
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
        }
        subject = f"{self._transport.jetstream}.STREAM.CREATE.{self._stream}"

        async def create(max_bytes: int) -> _Answer:
            config["max_bytes"] = max_bytes
            while True:
                _, body = await self._ask(subject, _encode(config), b"", timeout_s)
                said = read_answer(self.name, body)
                if said.error is None or said.error.err_code != NO_CLUSTER or config["num_replicas"] == 1:
                    return said
                config["num_replicas"] = 1

        error = (await first_that_fits(sizes, create)).error
        if error is None or error.err_code == NAME_TAKEN:
            return
        if wants_room(error) and await self._is_there(timeout_s):
            return  # the server looks at the room for a second one before it looks at the name
        raise trouble(error.err_code, f"{self.name}: {error.description}")

    async def _is_there(self, timeout_s: float) -> bool:
        try:
            await self.get("nothing", timeout_s=timeout_s)
        except KvAbsentError:
            return False
        return True

    async def _ask(self, subject: str, payload: bytes, block: bytes, timeout_s: float) -> tuple[bytes, bytes]:
        """One question and its answer, which is not the server's "nobody is there"."""
        future = self._new_future()
        number = 0
        try:
            number = self._mux.expect(self._inbox, subject, future, self._now() + timeout_s)
            self._transport.publish(subject, payload, f"{self._inbox}{number}", block)
            headers, body = await future
        except Deadline:
            raise KvError(f"{self.name} did not answer in {timeout_s:g} s", maybe=True) from None
        except PermissionDeniedError as error:
            raise KvDeniedError(error.message) from None
        except CallError as error:
            raise KvError(f"{self.name}: {error.message}", maybe=error.executed is not Executed.NO) from None
        finally:
            self._mux.forget(self._inbox, number)
        if h.server_status(headers) == h.NO_RESPONDERS:
            raise KvAbsentError(f"nobody answers for the bucket {self.name!r}")
        return headers, body

    def __repr__(self) -> str:
        return f"<KvBucket {self.name}>"

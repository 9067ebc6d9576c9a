"""One gather under way: who was asked, who has answered, and when that is enough."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar

import anyio
import msgspec

from nats_mesh.calling.asked import Asked, AskedTelling
from nats_mesh.calling.exchange import Target, encode_value
from nats_mesh.calling.heads import request_block, trace_of
from nats_mesh.context import Context
from nats_mesh.core.durations import duration_text
from nats_mesh.core.trace import TraceContext
from nats_mesh.errors import CallError, DeadlineExceededError, Executed, NoInstancesError, Status
from nats_mesh.model import Request
from nats_mesh.wire import headers as h

if TYPE_CHECKING:
    from nats_mesh.calling.client import Client

__all__ = ["Gathered", "Gathering", "Want"]

log = logging.getLogger("nats_mesh.client")

T = TypeVar("T")

#: How many answers are enough: everybody's, those of more than half of the instances asked, or a number.
Want: TypeAlias = Literal["all", "quorum"] | int

#: How much is written in one turn of the loop before the socket is looked at (bytes).
_TURN_BYTES: Final = 4 * 1024 * 1024
_HEAD_BYTES: Final = 512
#: How long before the end an instance can be out of time that was told of it in whole milliseconds (seconds).
_LAST_S: Final = 0.002
#: How many attempts one cancellation names, as the wire says.
_CANCELS: Final = 256
#: How many instances a sentence names.
_NAMED: Final = 5


class Gathered(msgspec.Struct, Generic[T], frozen=True, eq=False):
    """What came back. Every instance that was asked is in one of ``answers``, ``errors`` and ``missing``, by its id.

    ``answers`` stand in the order in which they came. ``errors`` holds whoever failed, refused, left
    (:class:`NoInstancesError`) or answered what does not fit ``returns``. ``missing`` are those that nobody waits
    for any more: the time was up, or enough others had answered. ``complete`` says whether the ``wanted`` answers
    are there, ``why`` in one sentence why they are not.
    """

    answers: dict[str, T]
    errors: dict[str, CallError]
    missing: tuple[str, ...]
    asked: int
    wanted: int
    complete: bool
    why: str = ""

    @property
    def values(self) -> list[T]:
        """The answers alone, in the order in which they came."""
        return list(self.answers.values())


class Gathering:
    """One gather under way. ``over`` is set when enough have answered, or nobody is left who could."""

    def __init__(
        self, client: Client, known: Target, request: Request, instances: Sequence[str], want: Want
    ) -> None:
        self.answers: dict[str, Any] = {}
        self.errors: dict[str, CallError] = {}
        self.over = anyio.Event()
        self._client = client
        self._known = known
        self._request = request
        self._instances = instances
        self._outstanding: dict[str, Asked] = {}
        self._written = 0
        there = len(instances)
        self._wanted = want if isinstance(want, int) else there if want == "all" else there // 2 + 1
        self._asked = 0
        self._telling: AskedTelling | None = None

    # -- asking -------------------------------------------------------------------------------------

    async def ask(self, parent: Context | None) -> None:
        """Write the requests, all in one turn of the loop unless they are large; raises where none could be."""
        client, known, request = self._client, self._known, self._request
        payload, codec = encode_value(known.label, request.value, request.codec)
        trace, sender = trace_of(request, parent), client._sender
        ids = sender.ids(trace)
        if trace is None:
            sampled = known.sampling > 0.0 and sender._rng.random() < known.sampling
            trace = TraceContext(ids[:32], ids[33:], sampled)
        else:
            sampled = trace.sampled
        self._telling = AskedTelling(
            known, request, parent, client._now, sampled=sampled, bytes_out=len(payload)
        )
        batch = max(1, _TURN_BYTES // (len(payload) + _HEAD_BYTES))
        for at in range(0, len(self._instances), batch):
            if self.over.is_set():
                break
            if not client.transport.ready:
                await client._sender.become_ready(request.deadline)
            now = client._now()
            remaining_s = request.deadline - now
            block = request_block(
                request, parent, codec, ids=ids, sampled=sampled, remaining_s=remaining_s, now=now
            )
            # Every instance is told a span of its own, so that what it does for the call hangs below that.
            before, said, behind = block.partition(ids.encode())
            client.transport.cork()
            try:
                for instance in self._instances[at : at + batch]:
                    own = sender.ids(trace)
                    block = before + own.encode() + behind if said else before
                    self._write(instance, payload, block, own, in_time=remaining_s > 0)
            finally:
                client.transport.uncork()
        if not self._written:
            raise next(iter(self.errors.values()))

    def _write(self, instance: str, payload: bytes, block: bytes, ids: str, *, in_time: bool) -> None:
        client, known = self._client, self._known
        subject = client.subjects.direct(known.service, instance, known.endpoint, client.name)
        asked = Asked(self, instance, subject, ids)
        self._asked += 1
        try:
            if not in_time:
                raise DeadlineExceededError("no time was left before it was sent", executed=Executed.NO)
            asked.reply = client.mux.open(known.service, asked)
            client.transport.publish(subject, payload, asked.reply, block)
        except CallError as error:
            client.mux.close(asked.reply)
            self._fail(asked, error, attempts=0)
        else:
            asked.sent = client._now()
            self._written += 1
            self._outstanding[instance] = asked

    # -- answers ------------------------------------------------------------------------------------

    def replied(self, asked: Asked, headers: bytes, payload: bytes) -> None:
        """The first reply of one instance; later ones find nobody."""
        self._client.mux.close(asked.reply)
        if self.over.is_set():
            asked.late = True
            return
        try:
            if h.server_status(headers) == h.NO_RESPONDERS:
                raise NoInstancesError(f"instance {asked.instance} is gone: it listens no more")
            _, _, value = self._client._sender.reading.read(self._known, self._request, headers, payload)
        except CallError as error:
            if (
                type(error) is DeadlineExceededError
                and self._client._now() > self._request.deadline - _LAST_S
            ):
                asked.late = True  # it was out of time, too: who of us two says so first is chance
            else:
                self._fail(asked, error, attempts=1)
        # Mostly a CodecError; a type of the user's own may raise anything. It is this answer's error, not the others'.
        except Exception as error:  # noqa: BLE001
            unfit = CallError(str(error), status=Status.INTERNAL, executed=Executed.YES)
            unfit.__cause__ = error
            self._fail(asked, unfit, attempts=1)
        else:
            self._outstanding.pop(asked.instance, None)
            self.answers[asked.instance] = value
            self._tell(asked, Status.OK, None, len(payload))
            self._look()

    def failed(self, asked: Asked, error: CallError) -> None:
        """No reply of this instance will come: the connection is gone, or the server refused the request."""
        self._client.mux.close(asked.reply)
        if not self.over.is_set():
            self._fail(asked, error, attempts=0 if error.executed is Executed.NO else 1)

    def _fail(self, asked: Asked, error: CallError, *, attempts: int) -> None:
        error.service, error.endpoint, error.attempts = self._known.service, self._known.endpoint, attempts
        self._outstanding.pop(asked.instance, None)
        self.errors[asked.instance] = error
        self._tell(asked, error.status, error)
        self._look()

    def _tell(self, asked: Asked, status: Status, error: CallError | None, bytes_in: int = 0) -> None:
        if self._telling is not None:
            self._telling.ended(asked, status, error, bytes_in)

    def _look(self) -> None:
        enough = len(self.answers) >= self._wanted
        if enough or len(self.answers) + len(self.errors) == len(self._instances):
            self.over.set()

    # -- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Wait for nobody any more, and tell those that still work on it."""
        client, known = self._client, self._known
        out_of_time = client._now() >= self._request.deadline - _LAST_S and not self.over.is_set()
        for asked in self._outstanding.values():
            client.mux.close(asked.reply)
            self._tell_missing(asked, late=asked.late or out_of_time)
        waited_for = [asked for asked in self._outstanding.values() if not asked.late]
        if not waited_for or not client.transport.connected:
            return
        # Every instance hears every cancellation: one for each of a thousand would be a million messages.
        for at in range(0, len(waited_for), _CANCELS):
            body = "\n".join([asked.reply for asked in waited_for[at : at + _CANCELS]]).encode()
            try:
                client.transport.publish(known.cancel, body, client.mux.one_way(known.service))
            except CallError as error:  # the connection takes no more; their own deadlines stop them
                log.debug("%s: nobody could be told to stop: %s", known.label, error.message)
                return

    def _tell_missing(self, asked: Asked, *, late: bool) -> None:
        if late:
            error = CallError("no answer in time", status=Status.DEADLINE_EXCEEDED, executed=Executed.MAYBE)
        else:
            error = CallError("nobody waits for it", status=Status.CANCELLED, executed=Executed.MAYBE)
        self._tell(asked, error.status, error)

    @property
    def _complete(self) -> bool:
        return len(self.answers) >= self._wanted

    def status(self) -> Status:
        """How the gather as a whole ended."""
        if self._complete:
            return Status.OK
        if self._outstanding:
            return Status.DEADLINE_EXCEEDED
        first = next(iter(self.errors.values()), None)
        return Status.UNAVAILABLE if first is None else first.status

    def result(self, took_s: float) -> Gathered[Any]:
        """What there is."""
        return Gathered(
            answers=self.answers,
            errors=self.errors,
            missing=tuple(self._outstanding),
            asked=self._asked,
            wanted=self._wanted,
            complete=self._complete,
            why="" if self._complete else self._why(took_s),
        )

    def _why(self, took_s: float) -> str:
        parts = [f"{len(self.answers)} of {self._wanted} wanted answers"]
        if self._wanted > len(self._instances):
            parts.append(f"only {len(self._instances)} instances are there")
        if self.errors:
            parts.append(f"failed: {_some([f'{i} ({e.status})' for i, e in self.errors.items()])}")
        if self._outstanding:
            parts.append(f"no answer in {duration_text(took_s)}: {_some(list(self._outstanding))}")
        return "; ".join(parts)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

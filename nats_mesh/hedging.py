"""A second instance is asked where the first takes long; whoever answers first is believed, the other is told to stop.

After J. Dean and L. A. Barroso, "The Tail at Scale" (2013), "hedged requests". How long is long, and how many calls
may be hedged, is :mod:`nats_mesh.core.hedge`'s to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats_mesh.context import Context
from nats_mesh.errors import CallError, DeadlineExceededError, Executed, NoInstancesError, RemoteError, Status
from nats_mesh.exchange import Target
from nats_mesh.layers.balance import Way
from nats_mesh.model import Request
from nats_mesh.wire import headers as h
from nats_mesh.wire.codecs import Codec
from nats_mesh.wire.loop import Deadline, Future, first_done
from nats_mesh.wire.outcome import decode_error

if TYPE_CHECKING:
    from nats_mesh.sending import Sender

__all__ = ["Race"]


class _Runner:
    """One of the attempts."""

    __slots__ = ("number", "since", "way")

    def __init__(self, number: int, way: Way | None, since: float) -> None:
        self.number = number
        self.way = way
        self.since = since


class Race:
    """One attempt and its hedges. :meth:`run` ends with the first answer, or with the last failure."""

    def __init__(
        self,
        sender: Sender,
        known: Target,
        request: Request,
        parent: Context | None,
        codec: Codec,
        payload: bytes,
        until: float,
    ) -> None:
        self._sender = sender
        self._known = known
        self._request = request
        self._parent = parent
        self._codec = codec
        self._payload = payload
        self._until = until
        self._running: dict[Future, _Runner] = {}
        self._hedges = 0

    def add(self, future: Future, number: int, way: Way | None, now: float) -> None:
        """An attempt that has been written."""
        self._running[future] = _Runner(number, way, now)

    async def run(self) -> tuple[bytes, bytes, Way | None, float]:
        """Header block and body of the first answer, the way it came, and when the request went there.

        Raises what the last attempt failed of.
        """
        sender, hedger = self._sender, self._known.hedger
        assert hedger is not None, "it is what starts a race"
        now = began = started = sender.now()
        hedger.called(now)
        failed: BaseException | None = None
        won = False
        try:
            while self._running:
                delay_s = hedger.delay_s(now) if self._hedges < hedger.rules.max_extra else None
                done = await first_done(
                    self._running, None if delay_s is None else max(0.0, delay_s - (now - began))
                )
                now = sender.now()
                if not done:
                    self._hedge(now)
                    began = now
                    continue
                for future in [
                    each for each in self._running if each in done
                ]:  # in the order of their sending
                    runner = self._running.pop(future)
                    try:
                        headers, body = future.result()
                    except (Deadline, CallError) as error:
                        failed = error
                        self._out(runner, now, error, b"")
                        continue
                    if self._running and _is_no_answer(headers):
                        failed = self._refusal(headers, body)
                        self._out(runner, now, failed, headers)
                        continue
                    hedger.answered(now, now - started)
                    won = True
                    return headers, body, runner.way, runner.since
        finally:
            now = sender.now()
            for future, runner in self._running.items():
                if future.done() and not future.cancelled():
                    future.exception()  # looked at: it came in the same turn as the answer
                else:
                    sender.give_up(self._known, runner.number)
                    future.cancel()
                if runner.way is None:
                    continue
                if won:  # it takes at least as long as that
                    runner.way.outrun(now, now - runner.since)
                else:
                    runner.way.dropped(now)
            self._running.clear()
        assert failed is not None, "the last attempt has failed"
        if isinstance(failed, Deadline):
            raise DeadlineExceededError("no attempt was answered in time", executed=Executed.MAYBE)
        raise failed

    def _hedge(self, now: float) -> None:
        """Ask another instance, where the rules still allow it."""
        known, sender, hedger = self._known, self._sender, self._known.hedger
        remaining_s = self._until - now
        self._hedges += 1
        if hedger is None or remaining_s <= 0.0 or not sender.ready or not hedger.may_hedge(now):
            return
        avoid = next((each.way.member.id for each in self._running.values() if each.way is not None), "")
        way = None if known.group is None else known.group.pick(now, self._request, avoid)
        number = 0
        try:
            future, number = sender.expect(known, way, self._until)
            sender.write(
                known,
                self._request,
                self._parent,
                self._codec,
                self._payload,
                number,
                way,
                "",
                remaining_s,
                now,
            )
        except CallError:  # no room, or the bus is away: the first attempt goes on alone
            if number:
                sender.forget(known, number)
            if way is not None:
                way.dropped(now)
            return
        self.add(future, number, way, now)
        known.hedges += 1

    def _refusal(self, headers: bytes, body: bytes) -> CallError:
        """What an answer is by which nobody took the attempt."""
        if h.server_status(headers) == 503:
            return NoInstancesError("nobody listens there")
        known = self._known
        return decode_error(
            headers, body, service=known.service, endpoint=known.endpoint, attempts=1, raises=()
        )

    def _out(self, runner: _Runner, now: float, error: BaseException, headers: bytes) -> None:
        """One attempt has failed, and the others go on."""
        silent = isinstance(error, Deadline)
        if silent:
            self._sender.give_up(self._known, runner.number)
            error = DeadlineExceededError("no answer in time", executed=Executed.MAYBE)
        if runner.way is not None:
            failed = error if isinstance(error, CallError) else RemoteError(str(error), status=Status.UNKNOWN)
            runner.way.answered(now, now - runner.since, headers, failed, silent=silent)


def _is_no_answer(headers: bytes) -> bool:
    """Whether nobody took the attempt: no responders, or a refusal before the handler ran."""
    return h.server_status(headers) == 503 or h.field(headers, h.REFUSED) is not None

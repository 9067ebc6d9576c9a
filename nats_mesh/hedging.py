"""A second instance is asked where the first takes long; whoever answers first is believed, the other is told to stop.

After J. Dean and L. A. Barroso, "The Tail at Scale" (2013), "hedged requests". How long is long, and how many calls
may be hedged, is :mod:`nats_mesh.core.hedge`'s to say.

A call that is answered in time pays for a timer and no more: only where that rings does the race begin, and takes
the place of the call's future in the reply mux. It needs no task: everything here runs in callbacks of the loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats_mesh.context import Context
from nats_mesh.core.hedge import Hedger
from nats_mesh.errors import CallError, DeadlineExceededError, Executed, NoInstancesError
from nats_mesh.exchange import Target
from nats_mesh.layers.balance import Way
from nats_mesh.model import Request
from nats_mesh.wire import headers as h
from nats_mesh.wire.codecs import Codec
from nats_mesh.wire.loop import Future, Timer, call_later
from nats_mesh.wire.outcome import decode_error

if TYPE_CHECKING:
    from nats_mesh.sending import Sender

__all__ = ["Race"]


class _Runner:
    """One of the attempts; in the reply mux it stands where the future of an attempt usually does."""

    __slots__ = ("_race", "ended", "number", "since", "way")

    def __init__(self, race: Race, number: int, way: Way | None, since: float) -> None:
        self._race = race
        self.number = number
        self.way = way
        self.since = since
        self.ended = False

    def done(self) -> bool:
        """Whether nobody waits for its answer any more."""
        return self.ended

    def set_result(self, result: tuple[bytes, bytes]) -> None:
        """It was answered."""
        self._race.answered(self, result)

    def set_exception(self, error: BaseException) -> None:
        """It was not: its time is up, or the connection is gone."""
        self._race.failed(self, error)


class Race:
    """One attempt and its hedges; ``future``, on which the call waits, gets the first answer or the last failure.

    ``begun`` says whether a hedge was sent: from then on the race forgets, cancels and judges its attempts by itself.
    ``hedges`` counts those that were sent. ``way`` is the one that the answer, or the last failure, came by, and
    ``since`` when the request went there.
    """

    def __init__(
        self,
        sender: Sender,
        hedger: Hedger,
        known: Target,
        request: Request,
        parent: Context | None,
        codec: Codec,
        payload: bytes,
        until: float,
        future: Future,
        number: int,
        way: Way | None,
        now: float,
    ) -> None:
        self.begun = False
        self.hedges = 0
        self.way = way
        self.since = now
        self._sender = sender
        self._hedger = hedger
        self._known = known
        self._request = request
        self._parent = parent
        self._codec = codec
        self._payload = payload
        self._until = until
        self._future = future
        self._number = number
        self._running: list[_Runner] = []
        self._left = hedger.rules.max_extra
        self._timer: Timer | None = None

    def start(self, delay_s: float) -> None:
        """Ask another instance after so long, seconds, unless :meth:`stop` comes first."""
        self._timer = call_later(delay_s, self._late)

    def stop(self) -> None:
        """The call is over: with its answer, its failure, or because nobody waits for it any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for runner in list(self._running):
            self._leave(runner)
            self._sender.give_up(self._known, runner.number)
            self._outrun(runner)

    def _late(self) -> None:
        """There has been no answer for so long."""
        self._timer = None
        if self._future.done():
            return
        now = self._sender.now()
        self._left -= 1
        self._hedge(now)
        delay_s = self._hedger.delay_s(now) if self._left > 0 else None
        if delay_s is not None:
            self.start(delay_s)

    def _hedge(self, now: float) -> None:
        """Ask another instance, where the rules still allow it."""
        known, sender, request = self._known, self._sender, self._request
        remaining_s = self._until - now
        if remaining_s <= 0.0 or not sender.ready or not self._hedger.may_hedge(now):
            return
        running = self._running or [_Runner(self, self._number, self.way, self.since)]
        avoid = next((each.way.member.id for each in running if each.way is not None), "")
        way = None if known.group is None else known.group.pick(now, request, avoid)
        runner = _Runner(self, 0, way, now)
        try:
            runner.number = sender.expect(known, way, runner, self._until)
            sender.write(
                known,
                request,
                self._parent,
                self._codec,
                self._payload,
                runner.number,
                way,
                "",
                remaining_s,
                now,
            )
        except CallError:  # no room, or the bus is away: what runs goes on alone
            if runner.number:
                sender.forget(known, runner.number)
            if way is not None:
                way.dropped(now)
            return
        if not self.begun:
            self.begun = True
            sender.replace(known, self._number, running[0])
        self._running = [*running, runner]
        self.hedges += 1
        known.hedges += 1

    def answered(self, runner: _Runner, answer: tuple[bytes, bytes]) -> None:
        """An answer, which ends the race unless it says that nobody took the attempt, and others still run."""
        headers, body = answer
        self._leave(runner)
        if self._future.done():  # another one's came in the same turn of the loop, or nobody waits any more
            self._outrun(runner)
        elif self._running and _is_no_answer(headers):
            known = self._known
            error = (
                NoInstancesError("nobody listens there")
                if h.server_status(headers) == 503
                else decode_error(
                    headers, body, service=known.service, endpoint=known.endpoint, attempts=1, raises=()
                )
            )
            self._judge(runner, error, headers, silent=False)
        else:
            self.way, self.since = runner.way, runner.since
            self._future.set_result(answer)

    def failed(self, runner: _Runner, error: BaseException) -> None:
        """An attempt that ended without an answer; the last one ends the race."""
        self._leave(runner)
        silent = not isinstance(error, CallError)
        if silent:
            self._sender.give_up(self._known, runner.number)
        failure = (
            error
            if isinstance(error, CallError)
            else DeadlineExceededError("no attempt was answered in time", executed=Executed.MAYBE)
        )
        self._judge(runner, failure, b"", silent=silent)
        if not self._running and not self._future.done():
            self.way, self.since = runner.way, runner.since
            self._future.set_exception(failure)

    def _leave(self, runner: _Runner) -> None:
        runner.ended = True
        self._running = [each for each in self._running if each is not runner]

    def _outrun(self, runner: _Runner) -> None:
        """It is not its answer that counts."""
        if runner.way is None:
            return
        future, now = self._future, self._sender.now()
        if future.done() and not future.cancelled() and future.exception() is None:
            runner.way.outrun(now, now - runner.since)  # it takes at least as long as that
        else:
            runner.way.dropped(now)

    def _judge(self, runner: _Runner, error: CallError, headers: bytes, *, silent: bool) -> None:
        """One attempt has failed, whatever comes of the others."""
        if runner.way is not None:
            now = self._sender.now()
            runner.way.failed(now, now - runner.since, headers, error, silent=silent)


def _is_no_answer(headers: bytes) -> bool:
    """Whether nobody took the attempt: no responders, or a refusal before the handler ran."""
    return h.server_status(headers) == 503 or h.field(headers, h.REFUSED) is not None

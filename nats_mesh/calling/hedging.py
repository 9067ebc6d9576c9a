"""Another instance is asked where the first takes long; whoever answers first is believed, the others are told to stop.

After J. Dean and L. A. Barroso, "The Tail at Scale" (2013), "hedged requests". How long is long, and how many calls
may be hedged, is :mod:`nats_mesh.core.hedge`'s to say. Where a balancer chooses, nobody is asked twice; the queue group
deals each request out anew.

A call that is answered in time pays for a timer and no more: only where that rings does the race begin, and takes
the place of the call's future in the reply mux. It needs no task: everything here runs in callbacks of the loop.
"""

from __future__ import annotations

import logging
from typing import NamedTuple, Protocol

from nats_mesh.calling.exchange import Target
from nats_mesh.context import Context
from nats_mesh.core.hedge import Hedger
from nats_mesh.errors import CallError, DeadlineExceededError, Executed, NoInstancesError
from nats_mesh.layers.balance import Way
from nats_mesh.model import Request
from nats_mesh.wire import headers as h
from nats_mesh.wire.codecs import Codec
from nats_mesh.wire.loop import Future, Timer, Waiter, call_later
from nats_mesh.wire.outcome import decode_error

__all__ = ["Finish", "Line", "Race", "Raced"]

log = logging.getLogger("nats_mesh.client")


class Raced(NamedTuple):
    """The call that a race is about: what all its attempts have in common. ``until`` is when each of them ends
    (monotonic seconds), ``trace_id`` and ``sampled`` are those of the trace they all belong to."""

    known: Target
    request: Request
    parent: Context | None
    codec: Codec
    payload: bytes
    until: float
    trace_id: str
    sampled: bool


class Finish(NamedTuple):
    """How a race stands when it is closed.

    ``begun``: a hedge was sent, so the race has forgotten its attempts, and ``judged`` those that failed. ``way`` is
    where the answer or the last failure came from, ``since`` when the request went there. ``may_have_run``: another
    attempt than the one that was answered may have run.
    """

    begun: bool
    hedges: int
    way: Way | None
    since: float
    judged: bool
    may_have_run: bool


class Line(Protocol):
    """What a race needs of who sends: to write attempts, and to wait for their replies."""

    @property
    def ready(self) -> bool: ...

    def now(self) -> float: ...

    def expect(self, known: Target, way: Way | None, waiter: Waiter, until: float) -> int: ...

    def replace(self, known: Target, number: int, waiter: Waiter) -> None: ...

    def hedge(self, raced: Raced, number: int, way: Way | None, now: float) -> None: ...

    def forget(self, known: Target, number: int) -> None: ...

    def give_up(self, known: Target, number: int) -> None: ...


class _Runner:
    """One of the attempts; in the reply mux it stands where the future of an attempt usually does, and never raises."""

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
        if self.ended:
            return
        try:
            self._race.answered(self, result)
        except Exception:
            log.exception("a hedged answer could not be judged")

    def set_exception(self, error: BaseException) -> None:
        """It was not: its time is up, the connection is gone, or the server did not take it."""
        try:
            self._race.failed(self, error)
        except Exception:
            log.exception("a hedged attempt could not be judged")


class Race:
    """One attempt and its hedges; ``future``, on which the call waits, gets the first answer or the last failure."""

    def __init__(
        self,
        line: Line,
        hedger: Hedger,
        raced: Raced,
        future: Future,
        number: int,
        way: Way | None,
        now: float,
    ) -> None:
        self._line = line
        self._hedger = hedger
        self._raced = raced
        self._future = future
        self._number = number
        self._way = way
        self._since = now
        self._begun = False
        self._judged = False
        self._may_have_run = False
        self._hedges = 0
        self._running: list[_Runner] = []
        #: The instances that were asked, where it is known which.
        self._instances: tuple[str, ...] = () if way is None else (way.member.id,)
        self._left = hedger.rules.max_extra
        self._timer: Timer | None = None

    def start(self, delay_s: float) -> None:
        """Ask another instance after so long, seconds, unless :meth:`close` comes first."""
        self._timer = call_later(delay_s, self._late)

    def close(self) -> Finish:
        """The call is over: with its answer, its failure, or because nobody waits for it any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        decided = self._future.done() and not self._future.cancelled()
        for runner in list(self._running):
            self._leave(runner)
            self._may_have_run = True
            self._line.give_up(self._raced.known, runner.number)
            self._passed_over(runner)
        way = self._way if decided or not self._begun else None
        return Finish(self._begun, self._hedges, way, self._since, self._judged, self._may_have_run)

    def _late(self) -> None:
        """There has been no answer for so long."""
        self._timer = None
        if self._future.done():
            return
        now = self._line.now()
        self._left -= 1
        self._hedge(now)
        delay_s = self._hedger.delay_s(now) if self._left > 0 else None
        if delay_s is not None:
            self.start(delay_s)

    def _hedge(self, now: float) -> None:
        """Ask another instance, where there is one and the rules still allow it."""
        line, raced = self._line, self._raced
        known = raced.known
        if raced.until <= now or not line.ready:
            return
        way = None if known.balance is None else known.balance.pick(now, raced.request, self._instances)
        if way is not None and way.member.id in self._instances:
            way.dropped(now)  # everybody who may be called is asked already
            return
        if not self._hedger.may_hedge(now):
            if way is not None:
                way.dropped(now)
            return
        runner = _Runner(self, 0, way, now)
        try:
            runner.number = line.expect(known, way, runner, raced.until)
            line.hedge(raced, runner.number, way, now)
        # No room, or the bus is away, or a handler left in its context what cannot be sent: what runs goes on alone.
        except Exception as error:
            if runner.number:
                line.forget(known, runner.number)
            if way is not None:
                way.dropped(now)
            if not isinstance(error, CallError):
                log.warning("%s: a hedge could not be written", known.label, exc_info=error)
            return
        if not self._begun:
            self._begun = True
            first = _Runner(self, self._number, self._way, self._since)
            line.replace(known, self._number, first)
            self._running.append(first)
        self._running.append(runner)
        if way is not None:
            self._instances = (*self._instances, way.member.id)
        self._hedges += 1
        known.hedges += 1

    def answered(self, runner: _Runner, answer: tuple[bytes, bytes]) -> None:
        """An answer, which ends the race unless it says that nobody took the attempt, and others still run."""
        headers, body = answer
        self._leave(runner)
        if self._future.done():  # another one's came in the same turn of the loop, or nobody waits any more
            self._may_have_run = True
            self._passed_over(runner)
        elif self._running and (error := self._refusal(headers, body)) is not None:
            self._judge(runner, error, headers, silent=False)
        else:
            self._way, self._since = runner.way, runner.since
            self._future.set_result(answer)

    def _refusal(self, headers: bytes, body: bytes) -> CallError | None:
        """Why nobody took the attempt, no responders or a refusal before the handler ran; ``None`` for an answer."""
        if h.server_status(headers) == h.NO_RESPONDERS:
            return NoInstancesError("nobody listens there")
        if h.field(headers, h.REFUSED) is None:
            return None
        known = self._raced.known
        error = decode_error(
            headers, body, service=known.service, endpoint=known.endpoint, attempts=1, raises=()
        )
        return (
            error if error.executed is Executed.NO else None
        )  # of a reason that nobody knows, nothing is known

    def failed(self, runner: _Runner, error: BaseException) -> None:
        """An attempt that ended without an answer; the last one ends the race."""
        self._leave(runner)
        silent = not isinstance(error, CallError)
        failure = (
            error
            if isinstance(error, CallError)
            else DeadlineExceededError("no attempt was answered in time", executed=Executed.MAYBE)
        )
        self._may_have_run = self._may_have_run or failure.executed is not Executed.NO
        if not self._running and not self._future.done():
            self._way, self._since, self._judged = runner.way, runner.since, True
            self._future.set_exception(failure)
        if silent:
            self._line.give_up(self._raced.known, runner.number)
        else:
            self._line.forget(self._raced.known, runner.number)
        self._judge(runner, failure, b"", silent=silent)

    def _leave(self, runner: _Runner) -> None:
        runner.ended = True
        self._running.remove(runner)

    def _passed_over(self, runner: _Runner) -> None:
        """It is not its answer that counts."""
        way, future = runner.way, self._future
        if way is None:
            return
        now = self._line.now()
        if future.done() and not future.cancelled() and future.exception() is None:
            way.outrun(now, now - runner.since)  # it takes at least as long as that
        else:
            way.dropped(now)

    def _judge(self, runner: _Runner, error: CallError, headers: bytes, *, silent: bool) -> None:
        """One attempt has failed, whatever comes of the others."""
        if runner.way is not None:
            now = self._line.now()
            runner.way.failed(now, now - runner.since, headers, error, silent=silent)

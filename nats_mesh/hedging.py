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

    async def run(self) -> tuple[bytes, bytes, Way | None]:
        """Header block and body of the first answer, and the way it came. Raises what the last attempt failed of."""
        sender, hedger = self._sender, self._known.hedger
        assert hedger is not None, "it is what starts a race"
        now = began = started = sender.now()
        hedger.called(now)
        failed: BaseException | None = None
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
                        self._out(runner, now, error)
                        continue
                    if self._running and _is_no_answer(headers):
                        self._out(runner, now, NoInstancesError("nobody took the attempt"))
                        continue
                    hedger.answered(now, now - started)
                    return headers, body, runner.way
        finally:
            for future, runner in self._running.items():
                sender.give_up(self._known, runner.number)
                future.cancel()
                if runner.way is not None:
                    runner.way.dropped(sender.now())
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
        future, number = sender.expect(known, way, self._until)
        self.add(future, number, way, now)
        known.hedges += 1
        sender.write(
            known, self._request, self._parent, self._codec, self._payload, number, way, "", remaining_s, now
        )

    def _out(self, runner: _Runner, now: float, error: BaseException) -> None:
        """One attempt has failed, and the others go on."""
        silent = isinstance(error, Deadline)
        if silent:
            self._sender.give_up(self._known, runner.number)
            error = DeadlineExceededError("no answer in time", executed=Executed.MAYBE)
        if runner.way is not None:
            failed = error if isinstance(error, CallError) else RemoteError(str(error), status=Status.UNKNOWN)
            runner.way.answered(now, now - runner.since, b"", failed, silent=silent)


def _is_no_answer(headers: bytes) -> bool:
    """Whether nobody took the attempt: no responders, or a refusal before the handler ran."""
    return h.server_status(headers) == 503 or h.field(headers, h.REFUSED) is not None

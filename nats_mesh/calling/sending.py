"""A call on its way: attempts, each encoded, written, waited for and read; and what is decided between two.

One coroutine for the whole of it: every further one costs each call about a quarter of a microsecond, and again at
its reply. What a destination's rules do not ask for is ``None`` in its target and costs one comparison.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio

from nats_mesh.calling.effects import Affecting
from nats_mesh.calling.exchange import Target
from nats_mesh.calling.foreign import elsewhere
from nats_mesh.calling.heads import PlainHeads, request_block, span_above, trace_of
from nats_mesh.calling.hedging import Race, Raced
from nats_mesh.calling.reading import Reading
from nats_mesh.calling.watching import AttemptEnd, CallEnd
from nats_mesh.context import Context
from nats_mesh.core.durations import duration_text
from nats_mesh.core.trace import TraceContext
from nats_mesh.discovery.directory import Directory
from nats_mesh.errors import (
    CallError,
    CircuitOpenError,
    CodecError,
    ConfigError,
    DeadlineExceededError,
    Executed,
    NoInstancesError,
    Refused,
    Status,
)
from nats_mesh.layers.balance import Way
from nats_mesh.layers.breaker import Circuit, is_failure
from nats_mesh.layers.retry import DENIED
from nats_mesh.model import Request, is_name
from nats_mesh.policy.scopes import Place
from nats_mesh.telemetry.flags import note_end
from nats_mesh.telemetry.series import FOLD_MASK
from nats_mesh.wire import headers as h
from nats_mesh.wire.codecs import Codec
from nats_mesh.wire.loop import CancelledError, Deadline, Future, Waiter, future_maker
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.transport import Transport

__all__ = ["Sender"]

log = logging.getLogger("nats_mesh.client")

#: An attribute of an enumeration costs a call each time it is looked up.
_OK: Final = Status.OK
_UNKNOWN: Final = Status.UNKNOWN
_NO_FAILURE: Final = CallError("")


class Sender:
    """Sends calls as one identity on one connection."""

    def __init__(
        self,
        *,
        namespace: str,
        transport: Transport,
        mux: ReplyMux,
        directory: Directory,
        now: Callable[[], float],
        rng: random.Random,
        rule_names: Callable[[], Mapping[Place, str]],
    ) -> None:
        self._namespace = namespace
        self._transport = transport
        self._mux = mux
        self._directory = directory
        self._now = now
        self._rng = rng
        self._new_future = future_maker()
        self.reading = Reading()
        self._heads = PlainHeads(rng)
        self._affecting = Affecting(
            transport, mux, self._heads, now=now, chance=rng.random, rule_names=rule_names
        )

    async def send(self, known: Target, request: Request, parent: Context | None) -> tuple[bytes, str, Any]:
        """The call as it is counted; the header block of its reply, the instance that answered, and the value."""
        start = now = self._now()
        mux, transport = self._mux, self._transport
        send = transport.send
        series, circuit, retries, group = known.series, known.circuit, known.retries, known.balance
        series.in_flight += 1
        status = _UNKNOWN
        tried = 0
        may_have_run = False
        foreign = ""
        avoid: tuple[str, ...] = ()
        failed = _NO_FAILURE
        way: Way | None = None
        future: Future | None = None
        race: Race | None = None
        payload = body = b""
        ids = answered_by = ""
        sent = start
        watching = known.watching
        #: Those that failed, where somebody may want to know.
        attempts: list[AttemptEnd] | None = None
        problem: BaseException | None = None
        delayed = False
        trace: TraceContext | None = None
        if not request.plain:
            trace = trace_of(request, parent)
        elif parent is not None:
            trace = parent.trace
        if trace is None:
            trace_id = ""
            sampled = known.sampling > 0.0 and self._rng.random() < known.sampling
        else:
            trace_id, sampled = trace.trace_id, trace.sampled
        try:
            payload, codec = known.encoded(request.value, request.codec)
            if known.effects is not None:
                trace_id = trace_id or self._heads.ids()[:32]  # copies are of the call's trace
                delayed = await self._affecting.affect(
                    known.effects, request, parent, codec, payload, trace_id, sampled=sampled
                )
                now = self._now()
            if retries is not None:
                retries.budget.deposit(now)
            hedger = known.hedger
            if hedger is not None:
                if request.idempotent:
                    hedger.called(now)
                else:
                    hedger = None
            while True:
                permit = number = 0
                silent = judged = False
                headers = b""
                sent = sent_to_way = now
                until = request.deadline
                try:
                    if circuit is not None and not circuit.breaker.closed:
                        permit = circuit.enter(now)
                    if not transport.ready:
                        await self.become_ready(until)
                        sent = sent_to_way = now = self._now()
                    remaining = until - now
                    if remaining <= 0:
                        raise DeadlineExceededError(
                            "no time was left before it was sent", executed=Executed.NO
                        )
                    if retries is not None and (request.idempotent or retries.bounded):
                        remaining = retries.time_for(
                            now, request.attempt, remaining, idempotent=bool(request.idempotent)
                        )
                        until = now + remaining
                    if group is not None and not foreign:
                        way = group.pick(now, request, avoid)
                    future = self._new_future()
                    alone = not mux.calls
                    number = mux.expect(
                        known.inbox,
                        way.subject if way is not None else foreign or known.subject,
                        future,
                        until,
                    )
                    tried += 1
                    ids = self._heads.ids(trace_id)
                    # Who waits alone has nobody to share a write with: another turn of the loop only costs time.
                    if alone:
                        transport.cork()
                    try:
                        if way is None and request.plain and send is not None and not foreign:
                            size = len(payload)
                            head = self._heads.head(
                                known.line, number, size, codec, ids, sampled, remaining, now
                            )
                            send(head, payload)
                        else:
                            self.write(
                                known, request, parent, codec, payload, number, way, foreign, remaining, now, ids,
                                sampled,
                            )  # fmt: skip
                    finally:
                        if alone:
                            transport.uncork()
                    if hedger is not None and not foreign:
                        hedge_s = hedger.delay_s(now)
                        if hedge_s is not None and hedge_s < remaining:
                            raced = Raced(known, request, parent, codec, payload, until, ids[:32], sampled)
                            race = Race(self, hedger, raced, future, number, way, now)
                            race.start(hedge_s)
                    headers, body = await future
                    number = 0  # the mux forgets by itself who got a reply
                    if race is not None:
                        finish, race = race.close(), None
                        tried += finish.hedges
                        way, sent_to_way = finish.way, finish.since
                        may_have_run = may_have_run or finish.may_have_run
                    answer = self.reading.read(known, request, headers, body)
                    end = self._now()
                    if hedger is not None:
                        hedger.answered(end, end - sent)
                    if circuit is not None:
                        transition = circuit.breaker.success(end, permit, end - sent)
                        if transition is not None:
                            circuit.say(transition)
                    if way is not None:
                        way.succeeded(end, end - sent_to_way, headers)
                    status = _OK
                    request.sent = tried
                    answered_by = answer[1]
                    return answer
                except CallError as error:
                    failed = error
                except Deadline:
                    silent = True
                    failed = DeadlineExceededError(
                        f"no answer in {duration_text(self._now() - start)}", executed=Executed.MAYBE
                    )
                except BaseException as error:
                    if race is not None:
                        finish, race = race.close(), None
                        if finish.begun:
                            number, way = 0, None if finish.judged else finish.way
                    if number:
                        mux.forget(known.inbox, number)
                        if isinstance(error, CancelledError) and not foreign:
                            self.cancel(known, number)
                    self._no_verdict(circuit, permit, way)
                    raise
                now = self._now()
                if ids:
                    if watching.tell is not None or watching.notable is not None:
                        who = "" if number else h.text_field(headers, h.INSTANCE)  # 0: it was answered
                        ended = AttemptEnd(ids, sent, now, failed.status, who if is_name(who) else "")
                        attempts = [ended] if attempts is None else [*attempts, ended]
                    trace_id, ids = ids[:32], ""  # the trace is that of the first attempt
                elif attempts is not None and isinstance(failed, CircuitOpenError):
                    # Of those that were never sent this one alone ends a call after others were.
                    attempts.append(
                        AttemptEnd(self._heads.ids(trace_id), now, now, failed.status, "", failed.message)
                    )
                if race is not None:
                    finish, race = race.close(), None
                    if finish.begun:  # it has forgotten its attempts, and judged them
                        number, way, judged = 0, finish.way, finish.judged
                        tried += finish.hedges
                        may_have_run = may_have_run or finish.may_have_run
                if number:
                    mux.forget(known.inbox, number)
                    if silent:
                        if not foreign:
                            self.cancel(known, number)
                    elif failed.executed is Executed.NO:
                        tried -= 1  # the bus did not take it
                if hedger is not None and failed.executed is Executed.YES:
                    hedger.answered(now, now - sent)
                may_have_run = may_have_run or failed.executed is not Executed.NO
                if circuit is not None:
                    circuit.ended(now, permit, now - sent, is_failure(failed))
                if way is not None:
                    avoid = (*avoid, way.member.id)
                    if not judged:
                        way.failed(now, now - sent_to_way, headers, failed, silent=silent)
                    if isinstance(failed, NoInstancesError) or failed.refused is Refused.DRAINING:
                        # It has just gone, and presence does not know yet: whoever else serves this takes the call.
                        group = way = None
                        tried -= 1
                        continue
                    way = None
                elif isinstance(failed, NoInstancesError) and known.mesh and not foreign:
                    try:
                        foreign = await elsewhere(self._directory, self._namespace, known, request, now)
                    except CallError as error:
                        failed = error
                        now = self._now()
                    else:
                        now = self._now()
                        tried -= 1  # the same attempt, where it is served
                        continue
                delay_s = -1.0 if retries is None else retries.after(now, request, failed, keyed=known.keyed)
                if delay_s < 0.0:
                    if delay_s == DENIED:
                        series.retries_denied += 1
                    raise failed
                if delay_s > 0.0:
                    await anyio.sleep(delay_s)
                request.attempt += 1
                request.plain = False  # its headers say which attempt it is
                now = self._now()
                foreign, group = "", known.balance
        except CallError as error:
            status = error.status
            error.service, error.endpoint = known.service, known.endpoint
            error.attempts = tried
            if may_have_run and error.executed is Executed.NO:  # the last attempt did not, one before it may
                error.executed = Executed.MAYBE
            problem = error
            raise
        except CancelledError as error:
            status, problem = Status.CANCELLED, error
            raise
        except (CodecError, ConfigError) as error:
            status, problem = Status.INVALID_ARGUMENT, error
            raise
        finally:
            now = self._now()
            series.in_flight -= 1
            flags = ""
            if tried != 1 or problem is not None or delayed:
                exhausted = retries is not None and request.attempt >= retries.rules.attempts
                flags = note_end(
                    series,
                    now - start,
                    status,
                    problem,
                    tried,
                    request.attempt - 1,
                    exhausted,
                    delayed=delayed,
                )
            elif status is _OK:  # this is Series.record
                series.ok = ok = series.ok + 1
                series.took.append(now - start)
                if not ok & FOLD_MASK:
                    series.fold()
            else:
                series.record(now - start, status)
            if parent is not None and parent.own_calls is not None:
                parent.note_call(known.label, start, now, status)
            tell, notable = watching.tell, watching.notable
            if notable is not None and problem is None and now - start < watching.slow_s:
                notes = watching.notes
                if not sampled:
                    notable = None
                elif notes is not None and tried == 1 and not flags:
                    notable = watching.rest
                    above = None if request.plain and parent is None else span_above(request, parent)
                    span = "" if above is None else above.span_id
                    notes.add_row(known, (ids, span, request.route, answered_by, start, now - start, 0.0))
            if tell is not None or notable is not None:
                if ids:  # the last attempt, which was answered or broken off
                    last = AttemptEnd(ids, sent, now, status, answered_by)
                    attempts = [last] if attempts is None else [*attempts, last]
                end_of = CallEnd(
                    known, request, parent, sampled, attempts or [], tried, status, problem, start, now, len(payload),
                    len(body), flags,
                )  # fmt: skip
                if tell is not None:
                    tell(end_of)
                if notable is not None:
                    notable(end_of)
            # An error whose traceback holds the frame that holds it would wait for the collector.
            failed, future, race, problem = _NO_FAILURE, None, None, None

    def write(
        self,
        known: Target,
        request: Request,
        parent: Context | None,
        codec: Codec,
        payload: bytes,
        number: int,
        way: Way | None,
        foreign: str,
        remaining_s: float,
        now: float,
        ids: str,
        sampled: bool,
    ) -> None:
        """Publish one attempt: to an instance by its ``way``, to a ``foreign`` subject, or to the queue group."""
        send = self._transport.send
        if request.plain and send is not None and not foreign:
            line = known.line if way is None else way.line
            send(self._heads.head(line, number, len(payload), codec, ids, sampled, remaining_s, now), payload)
            return
        subject = way.subject if way is not None else foreign or known.subject
        block = request_block(
            request, parent, codec, ids=ids, sampled=sampled, remaining_s=remaining_s, now=now
        )
        self._transport.publish(subject, payload, f"{known.inbox}{number}", block)

    def _no_verdict(self, circuit: Circuit | None, permit: int, way: Way | None) -> None:
        """The attempt was broken off from this side, or its answer is not what the caller can read."""
        now = self._now()
        if circuit is not None:
            circuit.ended(now, permit, 0.0, failed=None)
        if way is not None:
            way.dropped(now)

    @property
    def ready(self) -> bool:
        """Whether something can be written now."""
        return self._transport.ready

    def now(self) -> float:
        """The instant by which all of this is judged."""
        return self._now()

    def expect(self, known: Target, way: Way | None, waiter: Waiter, until: float) -> int:
        """Have ``waiter`` wait for the reply to an attempt that is about to be written."""
        return self._mux.expect(known.inbox, known.subject if way is None else way.subject, waiter, until)

    def replace(self, known: Target, number: int, waiter: Waiter) -> None:
        """Have ``waiter`` wait for the reply to an attempt that was written already."""
        self._mux.replace(known.inbox, number, waiter)

    def hedge(self, raced: Raced, number: int, way: Way | None, now: float) -> None:
        """Publish one more attempt of a race."""
        known, request, parent, codec, payload, until, trace_id, sampled = raced
        ids = self._heads.ids(trace_id)
        self.write(
            known, request, parent, codec, payload, number, way, "", until - now, now, ids, sampled
        )  # fmt: skip

    def ids(self, trace: TraceContext | None) -> str:
        """Ids of one more span of ``trace``, or of a new one."""
        return self._heads.ids("" if trace is None else trace.trace_id)

    def forget(self, known: Target, number: int) -> None:
        """An attempt to which no reply will come."""
        self._mux.forget(known.inbox, number)

    def give_up(self, known: Target, number: int) -> None:
        """Nobody waits for this attempt any more, here or at the instances."""
        self._mux.forget(known.inbox, number)
        self.cancel(known, number)

    def cancel(self, known: Target, number: int) -> None:
        """Tell the instances that nobody waits for this attempt any more."""
        if not known.mesh or not self._transport.connected:
            return
        try:
            reply_to = f"{known.inbox}{number}".encode()
            self._transport.publish(known.cancel, reply_to, self._mux.one_way(known.service))
        except (
            CallError
        ) as error:  # the handler ends at its own deadline; what ends here must not end otherwise
            log.debug("a cancellation could not be sent: %s", error.message)

    async def become_ready(self, deadline: float) -> None:
        """Wait for the connection, or for its socket to take bytes again, but not beyond the deadline."""
        transport = self._transport
        remaining = deadline - self._now()
        if remaining <= 0:
            return
        if not transport.connected:
            await transport.wait_connected(min(remaining, transport.reconnect_grace_s))
        elif transport.congested:
            with anyio.move_on_after(remaining):
                await transport.writable()

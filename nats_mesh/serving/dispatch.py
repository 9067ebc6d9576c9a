"""The instance's side of a call: from the bytes that arrived to the reply that leaves.

Until the gates have admitted a call nothing is decoded. Its handler then runs at once; a task and a timer
of its own it has from the moment it waits. Whatever happens, an admitted call gives its slots back and gets
one answer.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from nats_mesh.calling.client import Client
from nats_mesh.clock import Clock
from nats_mesh.config.follower import ConfigFollower
from nats_mesh.context import Context, Home, current_context
from nats_mesh.core.age import AgeGauge
from nats_mesh.core.deadline import DEFAULT_TIMEOUT_S
from nats_mesh.core.fault import Faults
from nats_mesh.core.seldom import worth_saying
from nats_mesh.endpoint import Endpoint
from nats_mesh.errors import Status
from nats_mesh.layers.base import Arrival, Gate
from nats_mesh.layers.concurrency import ConcurrencyGate
from nats_mesh.layers.credit import CreditGate
from nats_mesh.layers.deadline import DeadlineGate
from nats_mesh.layers.draining import DrainingGate
from nats_mesh.layers.duplicates import Duplicates, Kept
from nats_mesh.layers.fault import FaultGate, Postponed
from nats_mesh.model import Interceptor, Request
from nats_mesh.serving.arriving import KnownSubjects
from nats_mesh.serving.failing import Failing
from nats_mesh.serving.handling import Served, decode_body
from nats_mesh.serving.limits import Limits
from nats_mesh.serving.refusing import Refusing
from nats_mesh.serving.replier import Replier, merged
from nats_mesh.serving.waiting import STOPPED, Waiting
from nats_mesh.serving.watching import Watching
from nats_mesh.telemetry.flags import flags_of_ended
from nats_mesh.telemetry.series import FAILURES, FOLD_MASK
from nats_mesh.telemetry.stats import Stats
from nats_mesh.telemetry.stats_messages import EndpointLoad
from nats_mesh.wire import headers as h
from nats_mesh.wire.codecs import JSON, Codec, by_content_type
from nats_mesh.wire.eager import EagerPool, Held
from nats_mesh.wire.subjects import plain_answer, reply_allowed
from nats_mesh.wire.transport import Transport

__all__ = ["Dispatcher"]

log = logging.getLogger("nats_mesh.instance")

#: A handler that does not wait for so long holds up everybody else (seconds).
_BLOCKED_S = 1.0
#: How long the outcomes of calls with an idempotency key may take on their way to the store at the end (seconds).
_BEHIND_S = 1.0
#: Looked up once: a name of another module costs more, each time.
_JSON: Final = JSON
_OK: Final = Status.OK
_set_context: Final = current_context.set
#: What stands for the end of a handler's steps.
_DONE: Final = object()


def _stepped(call: Arrival, coroutine: Any) -> Generator[Any, Any, Any]:
    """The steps of a handler. Its result is left at the call, too: who makes the first step, which mostly is the last,
    learns it there without an exception (of all that an instance does for a call, that one took the longest)."""
    call.result = result = yield from coroutine.__await__()
    return result


class Dispatcher:
    """Serves the endpoints of one instance on one transport. ``dropped`` counts what was not believed, by reason."""

    def __init__(
        self,
        *,
        service: str,
        instance: str,
        client: Client,
        transport: Transport,
        clock: Clock,
        rng: random.Random,
        stats: Stats,
        endpoints: Mapping[str, Endpoint],
        interceptors: Sequence[Interceptor] = (),
        codec: Codec = JSON,
        enforced: bool = False,
    ) -> None:
        self.service = service
        self.instance = instance
        self.draining = DrainingGate()
        self.dropped: Counter[str] = Counter()
        self.replier = Replier(instance=instance, transport=transport, codec=codec)
        self.state: Any = None
        #: What follows the service's configuration, where it declares one.
        self.config: ConfigFollower | None = None
        self._client = client
        self._transport = transport
        self._transport_stats = transport.stats
        self._clock = clock
        self._now: Callable[[], float] = clock.monotonic
        self._rng = rng
        self._enforced = enforced
        self._gauge = AgeGauge()
        self._pool: EagerPool[Arrival] = EagerPool(self, self._died)
        self._home: Home | None = None
        #: What operators inject, and the calls that wait for it.
        self.faults = Faults()
        self._postponed = Postponed(self._pool.push, clock.monotonic)
        #: The calls whose handlers wait.
        self.waiting = Waiting(self._pool, self._postponed, self._now)
        self.replier.load = self._load
        #: Called when an endpoint with ``leave_queue`` has taken its last slot, or may have one again.
        self.on_credit: Callable[[], None] = _nothing
        #: The calls with an idempotency key, and what came of them.
        self.duplicates = Duplicates(
            service=service,
            instance=instance,
            namespace=client.namespace,
            transport=transport,
            mux=client.mux,
            now=clock.monotonic,
            rng=rng,
            enforced=enforced,
        )
        self.served = {name: self._serve(endpoint, interceptors) for name, endpoint in endpoints.items()}
        #: How many calls may run at a time.
        self.limits = Limits(self.served)
        self._blocks = 0
        self.subjects = KnownSubjects(service, self.served, stats)
        #: Who is told of calls that have ended; what is known of a call's subject says whether it is noted for them.
        self.watching = Watching(rng, self.subjects.note)
        self._known = self.subjects.known
        self._failing = Failing(service, self.replier, self._now)
        self._refusing = Refusing(
            service,
            self.served,
            replier=self.replier,
            watching=self.watching,
            postponed=self._postponed,
            now=self._now,
        )

    def _serve(self, endpoint: Endpoint, interceptors: Sequence[Interceptor]) -> Served:
        timeout_s = endpoint.contract.timeout_s or DEFAULT_TIMEOUT_S
        concurrency = ConcurrencyGate(endpoint.concurrency)
        gates: list[Gate] = [
            self.draining,
            DeadlineGate(timeout_s, self._gauge),
            FaultGate(endpoint.name, self.faults, self._now, self._rng.random),
            concurrency,
            CreditGate(concurrency, self._credit),
        ]
        served = Served(endpoint, gates, interceptors)
        idempotent = endpoint.contract.idempotent
        served.keyed = self.duplicates.of(endpoint.name, endpoint.duplicates, idempotent=idempotent)
        return served

    def shut(self, closed: bool = True) -> None:
        """Let nobody in any more: what still arrives is told to go elsewhere; or let calls in again."""
        self.draining.shut = closed
        self.compose()

    def compose(self) -> None:
        """Look again at which gates may refuse anybody now."""
        for served in self.served.values():
            served.compose()

    @property
    def in_flight(self) -> int:
        """How many calls run now, or wait to."""
        return len(self._pool) + len(self._postponed)

    def loads(self) -> dict[str, EndpointLoad]:
        """How busy each endpoint is: its slots, those taken, and the calls that wait for their turn or for a delay."""
        return self.limits.loads([*self._pool.unstarted(), *self._postponed])

    def _load(self) -> str:
        return f"{self._pool.others + len(self._postponed)}/{self.limits.total}"

    def _credit(self) -> None:
        self.on_credit()

    # -- arrival ------------------------------------------------------------------------------------

    def on_request(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A message on one of this instance's ``rpc`` or ``direct`` subjects."""
        known = self._known.get(subject) or self.subjects.find(subject)
        if known is None:
            self._drop("malformed", subject)
            return
        if (not reply.startswith(known.inbox) or reply == known.inbox) and not reply_allowed(
            reply, known.caller, enforced=self._enforced
        ):
            self._drop("forged", subject)
        elif known.served is None:
            self._refusing.unknown(reply, known)
        else:
            call = Arrival(known.caller, known.series, reply, headers, payload, self._now(), known.served)
            if (stall_s := self._transport_stats.stall_s) or known.noted:
                call.stall_s, call.instance_addressed = stall_s, known.addressed
                call.noted, call.route = known.noted, known.route
            self._pool.push(call)

    def on_plain(self, served: Served, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A message on a plain subject that an endpoint serves; nobody's identity is known there."""
        answer = plain_answer(reply)
        if answer is None:
            self._drop("forged", subject)
            return
        known = self._known.get(subject) or self.subjects.find_plain(subject, served)
        call = Arrival(known.caller, known.series, answer, headers, payload, self._now(), served)
        call.stall_s = self._transport_stats.stall_s
        call.noted, call.route = known.noted, known.route
        self._pool.push(call)

    def on_cancel(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A caller no longer waits for one of its attempts, or for several: a line names each."""
        caller = subject[subject.rfind(".") + 1 :]
        if reply_allowed(reply, caller, enforced=self._enforced):
            self.waiting.cancel(payload, caller, ordered=self._transport.ordered)
        else:
            self._drop("forged", subject)

    # -- running ------------------------------------------------------------------------------------

    def opened(self) -> None:
        """Calls are taken from the queue: their answers are written together."""
        self._transport.cork()

    def rested(self) -> None:
        """The queue is empty, or goes on in another turn."""
        self._transport.uncork()

    def first(self, call: Arrival) -> Held | None:
        """Let a call in and start its handler; ``None`` where that was all of it. Runs in the call's own context."""
        served: Served = call.kind
        if call.ended:
            self._refusing.stopped(call)
            return None
        call.started = self._now()
        for entered, enter in enumerate(served.enter):
            refusal = enter(call)
            if refusal is not None:
                for held in served.present[:entered]:
                    held.leave(call)
                self._refusing.refuse(call, refusal)
                return None
        call.leave = served.leave
        try:
            if call.plain:
                kind = call.content_type
                call.codec = _JSON if kind is None else by_content_type(kind)
            else:
                call.codec = by_content_type(h.content_type(call.headers)) if call.headers else JSON
            value = self._value(served, call.codec, call.payload)
            context = call.context = Context(
                self._home or self._make_home(),
                served.endpoint.name,
                call.caller,
                call.attempt,
                call.deadline,
                call.headers,
                call.plain,
            )
            if call.noted and self.watching.own_calls:
                context.own_calls = []
            _set_context(context)
            if not call.plain and served.keyed is not None and h.IDEMPOTENCY_KEY in call.headers:
                coroutine: Any = served.keyed.run(call, partial(self._start, served, call, value, context))
            elif served.chain is None:
                coroutine = served.invoke(value, context)
            else:
                coroutine = served.chain(self._request(served, call, value, context))
            steps = _stepped(call, coroutine)
            waits_for = next(steps, _DONE)
        except KeyboardInterrupt:
            self._over(call)
            raise
        # Whatever a handler raises is answered and logged; sys.exit() in one would end the process for everybody.
        except BaseException as error:  # noqa: BLE001
            self.failed(call, error)
            return None
        if waits_for is not _DONE:
            return steps, waits_for
        self.done(call, call.result)
        return None

    def _start(self, served: Served, call: Arrival, value: Any, context: Context) -> Awaitable[Any]:
        """The handler of a call with an idempotency key, once it is known that it may run."""
        if served.chain is not None:
            return served.chain(self._request(served, call, value, context))
        started: Awaitable[Any] = served.invoke(value, context)
        return started

    def _value(self, served: Served, codec: Codec | None, payload: bytes) -> Any:
        if codec is not None and codec.name in served.raw:
            try:
                return served.raw[codec.name](payload)
            except Exception:  # noqa: BLE001
                pass  # whatever is wrong, the careful way says it
        return decode_body(served.endpoint, codec, payload)

    def held(self, call: Arrival, stop: Callable[[], object]) -> None:
        """Its handler waits: from now on it can be stopped, by its caller or at its deadline."""
        self.waiting.add(call, stop)

    def done(self, call: Arrival, result: Any) -> None:
        """Its handler has returned."""
        extra = call.context._reply_headers
        try:
            if type(result) is Kept:
                self.replier.again(call, result)
            else:
                if call.kind.chain is not None:
                    extra = merged(result.headers, extra)
                    result = result.value
                self.replier.answer(call, call.codec or _JSON, result, extra)
        # A value that cannot be written is the handler's error, whatever its own code raises meanwhile.
        except Exception as error:  # noqa: BLE001
            self.failed(call, error)
            return
        self._over(call)

    def failed(self, call: Arrival, error: BaseException) -> None:
        """Its handler has raised, or was stopped."""
        try:
            self._failing.failed(call, error)
        finally:
            self._over(call)

    def _make_home(self) -> Home:
        self._home = Home(
            self.service,
            self._client.namespace,
            self.instance,
            self._clock,
            self._client,
            self._rng,
            self.state,
            self.config,
        )
        return self._home

    def _request(self, served: Served, call: Arrival, value: Any, context: Context) -> Request:
        return Request(
            service=self.service,
            endpoint=served.endpoint.name,
            caller=call.caller,
            namespace=context.namespace,
            value=value,
            headers=context.headers,
            deadline=call.deadline,
            instance=self.instance,
            attempt=call.attempt,
            idempotent=served.endpoint.contract.idempotent,
            idempotency_key=context.idempotency_key,
            priority=context.priority,
        )

    # -- ending -------------------------------------------------------------------------------------

    def _over(self, call: Arrival) -> None:
        """An admitted call is over: give back, count, and answer where nothing has answered yet."""
        served: Served = call.kind
        for leave in call.leave:
            leave(call)
        if call.context is not None:
            call.context.over = True
        took = self._now() - call.received
        if call.stop is not None:
            self.waiting.remove(call)
            served.concurrency.took(took)
        elif took > _BLOCKED_S and call.started and self._now() - call.started > _BLOCKED_S:
            self._blocked(served, self._now() - call.started)
        if call.status is not _OK or call.ended or call.injected:
            self._unusual(call, took)
        else:
            series = call.series  # this is Series.record
            series.ok = ok = series.ok + 1
            series.took.append(took)
            if not ok & FOLD_MASK:
                series.fold()
        watching = self.watching
        if watching.anybody:
            watching.ended(call, took)

    def _unusual(self, call: Arrival, took: float) -> None:
        """Count a call that failed, was stopped, or was held up on purpose, and answer where nothing has yet."""
        series, flags = call.series, flags_of_ended(call.ended, call.injected)
        if call.status is not None:
            series.end(took, call.status, flags)
            return
        status, text, maybe = STOPPED.get(call.ended, STOPPED["shutdown"])
        series.end(took, status, flags)
        if status in FAILURES:
            series.last_error = f"{status}: {text}"
        self.replier.fail(call, status, text, maybe=maybe)

    def _blocked(self, served: Served, seconds: float) -> None:
        """A handler that never waited took so long that everything else of this process stood still."""
        self._blocks += 1
        if worth_saying(self._blocks):
            log.warning(
                "%s.%s held up the event loop for %.1f s, and every other call with it: await what waits, or make the "
                "handler a plain function, which runs in a thread (%d times so far)",
                self.service,
                served.endpoint.name,
                seconds,
                self._blocks,
            )

    def _died(self, error: BaseException) -> None:
        log.error("a call's task died", exc_info=error)

    def _drop(self, reason: str, subject: str) -> None:
        """Count what is not believed; say so for the first and then ever more rarely."""
        self.dropped[reason] += 1
        count = self.dropped[reason]
        if worth_saying(count):
            log.warning("dropped a message on %a: %s (%d so far)", subject[:256], reason, count)

    async def finish_all(self, timeout_s: float) -> int:
        """Wait for what runs, then stop what still does; returns how many had to be stopped."""
        self.resume_all()
        stopped = 0
        try:
            if not await self._pool.join(timeout_s):
                stopped = self.waiting.end_all("shutdown")
                await self._pool.join(2.0)
            await self.duplicates.finish(_BEHIND_S)
        finally:
            self._pool.close()
        return stopped

    def resume_all(self) -> None:
        """Whatever an injected delay holds back goes on now."""
        self._postponed.resume_all()


def _nothing() -> None:
    """Nobody asks for credit."""

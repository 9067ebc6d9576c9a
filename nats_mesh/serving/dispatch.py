"""The instance's side of a call: from the bytes that arrived to the reply that leaves.

Until the gates have admitted a call nothing is decoded. Its handler then runs at once; a task and a timer
of its own it has from the moment it waits. Whatever happens, an admitted call gives its slots back and gets
one answer.
"""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from nats_mesh.calling.client import Client
from nats_mesh.clock import Clock
from nats_mesh.config.follower import ConfigFollower
from nats_mesh.context import Context, Home, current_context
from nats_mesh.core.age import AgeGauge
from nats_mesh.core.deadline import DEFAULT_TIMEOUT_S
from nats_mesh.core.fault import Faults
from nats_mesh.core.rules import ConcurrencyRules
from nats_mesh.core.seldom import worth_saying
from nats_mesh.endpoint import Endpoint
from nats_mesh.errors import ApplicationError, CallError, DeadlineExceededError, Refused, Status
from nats_mesh.layers.base import DIRECT, PLAIN, Arrival, Gate, Refusal, Tap
from nats_mesh.layers.concurrency import ConcurrencyGate
from nats_mesh.layers.credit import CreditGate
from nats_mesh.layers.deadline import DeadlineGate
from nats_mesh.layers.draining import DrainingGate
from nats_mesh.layers.duplicates import DuplicateError, Duplicates, Kept
from nats_mesh.layers.fault import TOO_MANY, FaultGate, Postponed
from nats_mesh.model import Interceptor, Request
from nats_mesh.serving.handling import Served, UndecodableError, decode_body
from nats_mesh.serving.replier import Replier, merged
from nats_mesh.telemetry.flags import flags_of_ended, flags_of_refusal
from nats_mesh.telemetry.notes import Notes
from nats_mesh.telemetry.series import OTHER, Series
from nats_mesh.telemetry.stats import EndpointLoad, Stats
from nats_mesh.wire import headers as h
from nats_mesh.wire.codecs import JSON, Codec, by_content_type
from nats_mesh.wire.eager import EagerPool, Held
from nats_mesh.wire.loop import CancelledError, being_cancelled, call_later
from nats_mesh.wire.subjects import ANONYMOUS, INBOX, parse_rpc, plain_answer, reply_allowed
from nats_mesh.wire.transport import Transport

__all__ = ["Dispatcher"]

log = logging.getLogger("nats_mesh.instance")

_MAX_ROUTES = 4096
#: When to look again for a call whose cancellation may have overtaken it on its way through the client (seconds).
_OVERTAKEN_S = 0.01
#: How much too early a timer of any loop may come (seconds).
_TIMER_EARLY_S = 0.005
#: A handler that does not wait for so long holds up everybody else (seconds).
_BLOCKED_S = 1.0
#: How many attempts one cancellation can name.
_MAX_CANCELLED = 256
#: How long the outcomes of calls with an idempotency key may take on their way to the store at the end (seconds).
_BEHIND_S = 1.0
#: What a caller learns of an error that the endpoint does not declare; the details go to the log.
INTERNAL_TEXT = "internal error"


class _Route(NamedTuple):
    """What a request's subject says, looked up once; ``served`` is ``None`` where the endpoint does not exist."""

    served: Served | None
    endpoint: str
    caller: str
    #: What a reply subject of this caller begins with.
    inbox: str
    addressed: bool
    #: Whether its calls are noted: they chose this instance, or somebody records; and the route they came by.
    noted: bool
    route: str
    series: Series


#: What stands before the ids of a trace that is the last thing in a block.
_IS_LAST: Final = b" 00-"
#: What stands behind them, of most.
_SAMPLED: Final = b"-01"
_NOT_SAMPLED: Final = b"-00"
_NO_IDS: Final = b""
#: Ids of spans that are drawn at a time.
_DRAWN: Final = 32
#: Looked up once: a name of another module costs more, each time.
_OK: Final = Status.OK
_JSON: Final = JSON
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
        self._stats = stats
        self._enforced = enforced
        self._gauge = AgeGauge()
        self._pool: EagerPool[Arrival] = EagerPool(self, self._died)
        #: The calls whose handlers wait, by themselves and by the reply subject that a cancellation names.
        self._waiting: dict[int, Arrival] = {}
        self._by_reply: dict[str, Arrival] = {}
        self._home: Home | None = None
        self._routes: dict[str, _Route] = {}
        #: What operators inject, and the calls that wait for it.
        self.faults = Faults()
        self._postponed = Postponed(self._pool.push)
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
        #: How many calls may run at a time, over all endpoints.
        self.limit = 0
        self._blocks = 0
        #: Who is told of calls that have ended, by name; and what tells all of them, where there is anybody.
        self._watchers: dict[str, Tap] = {}
        self._notable: dict[str, tuple[Tap, float, Notes | None]] = {}
        self._notes: Notes | None = None
        self._alone = False
        self._drawn: list[str] = []
        self._slow_s = math.inf
        self._tap: Tap | None = None
        self._sum_limits()

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

    def watch(
        self,
        name: str,
        tap: Tap | None,
        *,
        every: bool = True,
        slow_s: float = math.inf,
        notes: Notes | None = None,
    ) -> None:
        """Have ``tap`` told of calls that arrive from now on, each once it has ended (in the place of who was called
        ``name``); ``None``: of none any more.

        Unless it is to hear of ``every`` call: of those whose trace is sampled, that did not end well, or that took
        ``slow_s`` seconds and more. What is to be told in any case is noted from its arrival on, which a call's route
        says; it is looked up anew. While nobody watches, no call is asked anything. Who gives ``notes`` finds the
        spans of sampled calls there of which there is nothing else to say, and is not told of them.
        """
        self._watchers.pop(name, None)
        self._notable.pop(name, None)
        if tap is not None and every:
            self._watchers[name] = tap
        elif tap is not None:
            self._notable[name] = (tap, slow_s, notes)
        self._slow_s = min((each for _, each, _ in self._notable.values()), default=math.inf)
        takers = [each for _, _, each in self._notable.values() if each is not None]
        self._notes = takers[0] if len(takers) == 1 else None
        self._alone = len(self._notable) == 1
        self._tap = self._tell if self._watchers else None
        self._routes.clear()

    def _tell(self, call: Arrival, took_s: float) -> None:
        for name, tap in self._watchers.items():
            self._hand(name, tap, call, took_s)

    def _tell_notable(self, call: Arrival, took_s: float) -> None:
        """``call`` has ended, and somebody wants to hear of such calls."""
        notes = self._notes
        noted = False
        if call.status is _OK and took_s < self._slow_s:
            block, context = call.headers, call.context
            # Behind the trace of most requests stands nothing, not even a codec.
            last = call.plain and block[-60:-56] == _IS_LAST
            flags = block[-7:-4] if last else _NO_IDS
            if flags != _SAMPLED and (flags == _NOT_SAMPLED or not h.is_sampled(block, alone=call.plain)):
                return
            if notes is not None and context is not None and not call.injected and not call.ended:
                ids = _NO_IDS
                if last:
                    ids = block[-56:-7]
                elif call.plain:
                    at = block.find(h.TRACEPARENT) + 18
                    ids = block[at : at + 49]
                elif call.attempt == 1:
                    above = h.trace_parent(block)
                    ids = _NO_IDS if above is None else f"{above.trace_id}-{above.span_id}".encode()
                if ids:
                    noted = True
                    received = call.received
                    notes.add_row(
                        (call.kind, call.caller),
                        (
                            ids, context.own_span_id or self._span_id(context), call.route, "", received, took_s,
                            call.started - received,
                        ),
                    )  # fmt: skip
                    if self._alone:
                        return
        for name, (tap, _, own_notes) in self._notable.items():
            if not noted or own_notes is not notes:
                self._hand(name, tap, call, took_s)

    def _span_id(self, context: Context) -> str:
        """Draw the span id of a call that made none of its own; many at a time cost as much as one."""
        if not self._drawn:
            self._drawn = self._rng.randbytes(8 * _DRAWN).hex(" ", 8).split(" ")
        context.own_span_id = drawn = self._drawn.pop()
        return drawn

    def _hand(self, name: str, tap: Tap, call: Arrival, took_s: float) -> None:
        try:
            tap(call, took_s)
        # Whoever observes must not change what a caller gets, whatever is wrong with it.
        except Exception:
            log.exception("a call could not be told to %s", name)

    def compose(self) -> None:
        """Look again at which gates may refuse anybody now."""
        for served in self.served.values():
            served.compose()

    def apply_limits(self, find: Callable[[str], ConcurrencyRules | None]) -> dict[str, tuple[int, int]]:
        """Limit each endpoint as ``find`` says of its name; ``None``: as it declares. What changed, as (before, after).

        Calls that run go on. A chain that has not changed stays as it is.
        """
        changed: dict[str, tuple[int, int]] = {}
        for name, served in self.served.items():
            rules, slots = find(name), served.concurrency
            declared = served.endpoint.concurrency
            limit = declared if rules is None else rules.of(declared)
            if limit != slots.limit:
                changed[name] = (slots.limit, limit)
                slots.limit = limit
            if served.credit is not None:
                served.credit.present = rules is not None and rules.leave_queue
            served.compose()
        self._sum_limits()
        return changed

    def _sum_limits(self) -> None:
        self.limit = sum(served.concurrency.limit for served in self.served.values())

    @property
    def in_flight(self) -> int:
        """How many calls run now, or wait to."""
        return len(self._pool) + len(self._postponed)

    def loads(self) -> dict[str, EndpointLoad]:
        """How busy each endpoint is: its slots, those taken, and the calls that wait for their turn or for a delay."""
        waiting = Counter(call.kind.endpoint.name for call in [*self._pool.unstarted(), *self._postponed])
        return {
            name: EndpointLoad(
                limit=served.concurrency.limit, in_flight=served.concurrency.in_flight, queue=waiting[name]
            )
            for name, served in self.served.items()
        }

    def limited(self) -> dict[tuple[str, str], int]:
        """How many calls its slots have refused, by endpoint and by the policy that says how many there are."""
        found: dict[tuple[str, str], int] = {}
        for name, served in list(self.served.items()):
            slots = served.concurrency
            for policy, count in list(slots.refused_by.items()):
                found[name, policy] = count
        return found

    def _load(self) -> str:
        return f"{self._pool.others + len(self._postponed)}/{self.limit}"

    def _credit(self) -> None:
        self.on_credit()

    # -- arrival ------------------------------------------------------------------------------------

    def on_request(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A message on one of this instance's ``rpc`` or ``direct`` subjects."""
        route = self._routes.get(subject) or self._route(subject)
        if route is None:
            self._drop("malformed", subject)
            return
        if (not reply.startswith(route.inbox) or reply == route.inbox) and not reply_allowed(
            reply, route.caller, enforced=self._enforced
        ):
            self._drop("forged", subject)
        elif route.served is None:
            self._refuse_unknown(reply, route)
        else:
            call = Arrival(route.caller, route.series, reply, headers, payload, self._now(), route.served)
            if (stall_s := self._transport_stats.stall_s) or route.noted:
                call.stall_s, call.instance_addressed = stall_s, route.addressed
                call.noted, call.route = route.noted, route.route
            self._pool.push(call)

    def on_plain(self, served: Served, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A message on a plain subject that an endpoint serves; nobody's identity is known there."""
        answer = plain_answer(reply)
        if answer is None:
            self._drop("forged", subject)
            return
        route = self._routes.get(subject)
        if route is None:
            route = self._remember(subject, served, served.endpoint.name, ANONYMOUS, PLAIN, addressed=False)
        call = Arrival(route.caller, route.series, answer, headers, payload, self._now(), served)
        call.stall_s = self._transport_stats.stall_s
        call.noted, call.route = route.noted, route.route
        self._pool.push(call)

    def on_cancel(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A caller no longer waits for one of its attempts, or for several: a line names each."""
        caller = subject[subject.rfind(".") + 1 :]
        if not reply_allowed(reply, caller, enforced=self._enforced):
            self._drop("forged", subject)
            return
        named = payload.decode("ascii", "replace").split("\n", _MAX_CANCELLED)[:_MAX_CANCELLED]
        elsewhere = self._cancel(named, caller)
        if elsewhere and not self._transport.ordered:
            call_later(_OVERTAKEN_S, self._cancel, elsewhere, caller)

    def _cancel(self, replies: list[str], caller: str) -> list[str]:
        """End the calls of ``caller`` that are answered at ``replies``; returns those that are not here.

        Every instance hears of every cancellation, and most match nothing: the queue is gone through once for all of
        them, and not at all where it is empty.
        """
        unstarted: dict[str, Arrival] | None = None
        elsewhere: list[str] = []
        for reply in replies:
            call = self._by_reply.get(reply) or self._postponed.find(reply)
            if call is None:  # it may not have begun yet
                if unstarted is None:
                    unstarted = {each.reply: each for each in self._pool.unstarted() if each.reply}

                call = unstarted.get(reply)
            if call is None:
                elsewhere.append(reply)
            elif call.caller == caller:
                self._end(call, "cancelled")
                self._postponed.resume(call)
        return elsewhere

    def _route(self, subject: str) -> _Route | None:
        parsed = parse_rpc(subject)
        if parsed is None or parsed.service != self.service:
            return None
        served = self.served.get(parsed.endpoint)
        return self._remember(
            subject, served, parsed.endpoint, parsed.caller, parsed.route, addressed=bool(parsed.instance)
        )

    def _remember(
        self, subject: str, served: Served | None, endpoint: str, caller: str, route: str, *, addressed: bool
    ) -> _Route:
        series = self._stats.series("in", self.service, endpoint if served is not None else OTHER, caller)
        noted, route = addressed or self._tap is not None, DIRECT if addressed else route
        found = _Route(served, endpoint, caller, f"{INBOX}{caller}.", addressed, noted, route, series)
        if len(self._routes) >= _MAX_ROUTES:
            self._routes.pop(next(iter(self._routes)))
        self._routes[subject] = found
        return found

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
            status, text, maybe = _ENDED[call.ended]
            call.series.refuse(status)
            self._flag(call, status, flags_of_ended(call.ended, call.injected))
            self.replier.fail(call, status, text, maybe=maybe)
            if call.noted and self._tap is not None:
                self._tap(call, self._now() - call.received)
            if self._notable:
                self._tell_notable(call, self._now() - call.received)
            return None
        call.started = self._now()
        for entered, enter in enumerate(served.enter):
            refusal = enter(call)
            if refusal is not None:
                for held in served.present[:entered]:
                    held.leave(call)
                self._refuse(call, refusal)
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
            if call.noted and self._tap is not None:
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
        call.stop = stop
        call.series.in_flight += 1
        self._waiting[id(call)] = call
        if call.reply:
            self._by_reply[call.reply] = call
        call.timer = call_later(max(0.0, call.deadline - self._now()), self._end, call, "deadline")
        if call.ended:  # before it began to wait
            stop()

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
            if isinstance(error, CancelledError):
                if call.ended or being_cancelled():
                    call.ended = call.ended or "shutdown"
                else:  # the handler awaited something that was cancelled
                    self._internal(call, error)
            elif isinstance(error, UndecodableError):
                self.replier.fail(call, Status.INVALID_ARGUMENT, str(error), refused=Refused.INVALID)
            elif isinstance(error, DuplicateError):
                self.replier.fail(
                    call,
                    error.status,
                    str(error),
                    refused=error.refused,
                    retry_after_s=error.retry_after_s,
                    maybe=error.maybe,
                )
            elif isinstance(error, CallError):
                try:
                    self._handler_error(call, error)
                # Its text and details are whatever the handler put there; where they cannot be written, that is it.
                except Exception as failure:  # noqa: BLE001
                    self._internal(call, failure)
            else:
                self._internal(call, error)
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

    # -- answering ----------------------------------------------------------------------------------

    def _handler_error(self, call: Arrival, error: CallError) -> None:
        """An error of the mesh's own kind left the handler: what was meant for the caller travels."""
        if error.service and type(error) not in call.kind.endpoint.raises:
            # It came from a call the handler made. That is this endpoint's inner affair, except for the time.
            if isinstance(error, DeadlineExceededError) and self._now() >= call.deadline - 0.001:
                text = f"the time ran out in a call to {error.service}.{error.endpoint}"
                self.replier.fail(call, Status.DEADLINE_EXCEEDED, text)
            else:
                self._internal(call, error)
            return
        kind = "" if type(error) in (ApplicationError, CallError) else type(error).__name__
        self.replier.fail(
            call,
            error.status,
            error.message,
            kind=kind if isinstance(error, ApplicationError) else "",
            details=dict(error.details),
            retry_after_s=error.retry_after_s,
        )

    def _internal(self, call: Arrival, error: BaseException) -> None:
        name = call.kind.endpoint.name
        log.error(
            "%s.%s, called by %s, failed", self.service, name, call.caller, exc_info=error,
            extra={"service": self.service, "endpoint": name, "caller": call.caller},
        )  # fmt: skip
        # Anybody may ask for statistics, and the text is not meant for anybody.
        call.series.last_error = f"{type(error).__name__} (its text is in the log)"
        self.replier.fail(call, Status.INTERNAL, INTERNAL_TEXT)

    def resume_all(self) -> None:
        """Whatever an injected delay holds back goes on now."""
        self._postponed.resume_all()

    def _refuse(self, call: Arrival, refusal: Refusal) -> None:
        if refusal.delay_s > 0.0:
            # It comes to the gates again, at the latest when its deadline is surely over: a timer may be early.
            left_s = call.deadline - self._now() + _TIMER_EARLY_S
            if self._postponed.hold(call, min(refusal.delay_s, left_s)):
                return
            refusal = TOO_MANY
        self.replier.fail(
            call,
            refusal.status,
            refusal.message,
            refused=refusal.refused,
            retry_after_s=refusal.retry_after_s,
        )
        call.series.refuse(refusal.status)
        self._flag(call, refusal.status, flags_of_refusal(refusal.refused, call.injected))
        if call.noted and self._tap is not None:
            self._tap(call, self._now() - call.received)
        if self._notable:
            self._tell_notable(call, self._now() - call.received)

    def _refuse_unknown(self, reply: str, route: _Route) -> None:
        call = Arrival(route.caller, route.series, reply, b"", b"", self._now())
        call.instance_addressed, call.noted, call.route = route.addressed, route.noted, route.route
        known = ", ".join(sorted(self.served)) or "none"
        text = f"{self.service} has no endpoint {route.endpoint!r}; it has: {known[:512]}"
        self._refuse(call, Refusal(Status.UNIMPLEMENTED, Refused.UNIMPLEMENTED, text))

    # -- ending -------------------------------------------------------------------------------------

    def _end(self, call: Arrival, why: str) -> None:
        """Stop a call from outside; its task ends it and :meth:`_over` answers."""
        if not call.ended:
            call.ended = why
            if call.stop is not None:
                call.stop()

    def _over(self, call: Arrival) -> None:
        """An admitted call is over: give back, count, and answer where nothing has answered yet."""
        served: Served = call.kind
        for leave in call.leave:
            leave(call)
        if call.context is not None:
            call.context.over = True
        took = self._now() - call.received
        if call.stop is not None:
            self._let_go(served, call, took)
        elif took > _BLOCKED_S and call.started and self._now() - call.started > _BLOCKED_S:
            self._blocked(served, self._now() - call.started)
        status = call.status
        if status is None:
            status, text, maybe = _ENDED.get(call.ended, _ENDED["shutdown"])
            call.series.record(took, status)
            self.replier.fail(call, status, text, maybe=maybe)
        else:
            call.series.record(took, status)
        if call.ended or call.injected:
            self._flag(call, status, flags_of_ended(call.ended, call.injected))
        if call.noted and self._tap is not None:
            self._tap(call, took)
        if self._notable:
            self._tell_notable(call, took)

    def _flag(self, call: Arrival, status: Status, flags: str) -> None:
        """Say why the mesh itself ended a call that is counted under ``status``, where it did."""
        if flags:
            call.series.flag(status, flags)

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

    def _let_go(self, served: Served, call: Arrival, took: float) -> None:
        """It waited, and is over: what :meth:`held` noted is taken back."""
        if call.timer is not None:
            call.timer.cancel()
        if self._by_reply.get(call.reply) is call:
            del self._by_reply[call.reply]
        del self._waiting[id(call)]
        call.stop = None
        call.series.in_flight -= 1
        served.concurrency.took(took)

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
        stopped: list[Arrival] = []
        try:
            if not await self._pool.join(timeout_s):
                stopped = list(self._waiting.values())
                for call in stopped:
                    self._end(call, "shutdown")
                await self._pool.join(2.0)
            await self.duplicates.finish(_BEHIND_S)
        finally:
            self._pool.close()
        return len(stopped)


def _nothing() -> None:
    """Nobody asks for credit."""


#: What a stopped call is answered with, and whether nobody knows how far its handler came. Who leaves answers as who
#: dies does: what may run again goes to another instance, and the caller's breaker counts a failure.
_ENDED: dict[str, tuple[Status, str, bool]] = {
    "deadline": (Status.DEADLINE_EXCEEDED, "the handler did not finish in time and was stopped", False),
    "cancelled": (Status.CANCELLED, "the caller no longer waits", False),
    "shutdown": (Status.UNAVAILABLE, "the instance is shutting down and stopped the handler", True),
}

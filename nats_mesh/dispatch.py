"""The instance's side of a call: from the bytes that arrived to the reply that leaves.

Until the gates have admitted a call nothing is decoded and no task exists; from then on one task and
one timer serve it. Whatever happens, an admitted call gives its slots back and gets one answer.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from nats_mesh.client import Client
from nats_mesh.clock import Clock
from nats_mesh.context import Context, current_context
from nats_mesh.core.age import AgeGauge
from nats_mesh.core.deadline import DEFAULT_TIMEOUT_S
from nats_mesh.core.trace import TraceContext, parse_traceparent
from nats_mesh.endpoint import Endpoint
from nats_mesh.errors import ApplicationError, CallError, DeadlineExceededError, Refused, Status
from nats_mesh.handling import Served, UndecodableError, decode_body
from nats_mesh.layers.base import Arrival, Gate, Refusal
from nats_mesh.layers.concurrency import ConcurrencyGate
from nats_mesh.layers.deadline import DeadlineGate
from nats_mesh.layers.draining import DrainingGate
from nats_mesh.model import PRIORITIES, Headers, Interceptor, Request
from nats_mesh.replier import Replier, merged
from nats_mesh.telemetry.stats import OTHER, Series, Stats
from nats_mesh.wire import headers as h
from nats_mesh.wire.codecs import JSON, Codec, by_content_type
from nats_mesh.wire.loop import CancelledError, TaskPool, being_cancelled, call_later
from nats_mesh.wire.subjects import ANONYMOUS, INBOX, parse_rpc, plain_answer, reply_allowed
from nats_mesh.wire.transport import Transport

__all__ = ["Dispatcher"]

log = logging.getLogger("nats_mesh.instance")

_MAX_ROUTES = 4096
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
    series: Series


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
        self._client = client
        self._transport = transport
        self._clock = clock
        self._now: Callable[[], float] = clock.monotonic
        self._rng = rng
        self._stats = stats
        self._enforced = enforced
        self._gauge = AgeGauge()
        self._pool = TaskPool(self._died)
        self._running: dict[str, Arrival] = {}
        self._calls: set[Arrival] = set()
        self._routes: dict[str, _Route] = {}
        self.served = {name: self._serve(endpoint, interceptors) for name, endpoint in endpoints.items()}

    def _serve(self, endpoint: Endpoint, interceptors: Sequence[Interceptor]) -> Served:
        timeout_s = endpoint.contract.timeout_s or DEFAULT_TIMEOUT_S
        gates: list[Gate] = [
            self.draining,
            DeadlineGate(timeout_s, self._gauge),
            ConcurrencyGate(endpoint.concurrency),
        ]
        return Served(endpoint, gates, interceptors)

    @property
    def in_flight(self) -> int:
        """How many calls run now."""
        return len(self._pool)

    # -- arrival ------------------------------------------------------------------------------------

    def on_request(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A message on one of this instance's ``rpc`` or ``direct`` subjects."""
        route = self._routes.get(subject) or self._route(subject)
        if route is None:
            self._drop("malformed", subject)
            return
        own = reply.startswith(route.inbox) and reply != route.inbox
        if not own and not reply_allowed(reply, route.caller, enforced=self._enforced):
            self._drop("forged", subject)
            return
        if route.served is None:
            self._refuse_unknown(reply, route)
            return
        self._admit(route.served, route, reply, headers, payload)

    def on_plain(self, served: Served, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A message on a plain subject that an endpoint serves; nobody's identity is known there."""
        answer = plain_answer(reply)
        if answer is None:
            self._drop("forged", subject)
            return
        route = self._routes.get(subject)
        if route is None:
            route = self._remember(subject, served, served.endpoint.name, ANONYMOUS, addressed=False)
        self._admit(served, route, answer, headers, payload)

    def on_cancel(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A caller no longer waits for one of its attempts."""
        caller = subject[subject.rfind(".") + 1 :]
        if not reply_allowed(reply, caller, enforced=self._enforced):
            self._drop("forged", subject)
            return
        call = self._running.get(payload.decode("ascii", "replace"))
        if call is not None and call.caller == caller:
            self._end(call, "cancelled")

    def _route(self, subject: str) -> _Route | None:
        parsed = parse_rpc(subject)
        if parsed is None or parsed.service != self.service:
            return None
        served = self.served.get(parsed.endpoint)
        return self._remember(
            subject, served, parsed.endpoint, parsed.caller, addressed=bool(parsed.instance)
        )

    def _remember(
        self, subject: str, served: Served | None, endpoint: str, caller: str, *, addressed: bool
    ) -> _Route:
        series = self._stats.series("in", self.service, endpoint if served is not None else OTHER, caller)
        route = _Route(served, endpoint, caller, f"{INBOX}{caller}.", addressed, series)
        if len(self._routes) >= _MAX_ROUTES:
            self._routes.pop(next(iter(self._routes)))
        self._routes[subject] = route
        return route

    def _admit(self, served: Served, route: _Route, reply: str, headers: bytes, payload: bytes) -> None:
        received = self._now()
        call = Arrival(
            caller=route.caller,
            series=route.series,
            reply=reply,
            headers=headers,
            payload=payload,
            received=received,
            stall_s=self._transport.stats.stall_s,
            instance_addressed=route.addressed,
        )
        for entered, gate in enumerate(served.gates):
            refusal = gate.enter(call)
            if refusal is not None:
                for held in served.gates[:entered]:
                    held.leave(call)
                self._refuse(call, refusal)
                return
        route.series.in_flight += 1
        self._calls.add(call)
        task = self._pool.spawn(self._run(served, call), partial(self._finish, served, call))
        call.stop = task.cancel
        call.timer = call_later(call.deadline - received, self._end, call, "deadline")
        if reply:
            self._running[reply] = call

    # -- running ------------------------------------------------------------------------------------

    async def _run(self, served: Served, call: Arrival) -> None:
        endpoint = served.endpoint
        codec: Codec | None = JSON
        extra: Headers | None = None
        context: Context | None = None
        try:
            codec = by_content_type(h.content_type(call.headers)) if call.headers else JSON
            value = decode_body(endpoint, codec, call.payload)
            context = self._context(served, call)
            current_context.set(context)
            if served.chain is None:
                result = await served.invoke(value, context)
            else:
                reply = await served.chain(self._request(served, call, value, context))
                result = reply.value
                extra = reply.headers
            self.replier.answer(call, codec or JSON, result, merged(extra, context.taken_reply_headers()))
        except CancelledError as error:
            if not call.ended and not being_cancelled():  # the handler awaited something that was cancelled
                self._internal(served, call, error)
                return
            call.ended = call.ended or "shutdown"
            raise
        except UndecodableError as error:
            self.replier.fail(call, Status.INVALID_ARGUMENT, str(error), refused=Refused.INVALID)
        except CallError as error:
            try:
                self._handler_error(served, call, error)
            # Its text and details are whatever the handler put there: where they cannot be written, that is the error.
            except Exception as failure:  # noqa: BLE001
                self._internal(served, call, failure)
        except KeyboardInterrupt:
            raise
        # Whatever a handler raises is answered and logged; sys.exit() in one would end the process for everybody.
        except BaseException as error:  # noqa: BLE001
            self._internal(served, call, error)
        finally:
            if context is not None:
                context.over = True

    def _context(self, served: Served, call: Arrival) -> Context:
        headers = call.headers
        parent = h.field(headers, h.TRACEPARENT)
        priority = h.text_field(headers, h.PRIORITY)
        trace = parse_traceparent(parent.decode("ascii", "replace")) if parent is not None else None
        tracestate = "" if trace is None else h.text_field(headers, h.TRACESTATE)
        if trace is None:
            rng = self._rng
            trace = TraceContext(f"{rng.getrandbits(128) | 1:032x}", f"{rng.getrandbits(64) | 1:016x}", False)
        return Context(
            service=self.service,
            endpoint=served.endpoint.name,
            namespace=self._client.namespace,
            instance=self.instance,
            caller=call.caller,
            attempt=call.attempt,
            deadline=call.deadline,
            clock=self._clock,
            client=self._client,
            trace=trace,
            tracestate=tracestate,
            raw_headers=headers,
            baggage=h.text_field(headers, h.BAGGAGE),
            priority=priority if priority in PRIORITIES else "default",
            idempotency_key=h.text_field(headers, h.IDEMPOTENCY_KEY) or None,
            state=self.state,
        )

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

    def _handler_error(self, served: Served, call: Arrival, error: CallError) -> None:
        """An error of the mesh's own kind left the handler: what was meant for the caller travels."""
        if error.service and type(error) not in served.endpoint.raises:
            # It came from a call the handler made. That is this endpoint's inner affair, except for the time.
            if isinstance(error, DeadlineExceededError) and self._now() >= call.deadline - 0.001:
                text = f"the time ran out in a call to {error.service}.{error.endpoint}"
                self.replier.fail(call, Status.DEADLINE_EXCEEDED, text)
            else:
                self._internal(served, call, error)
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

    def _internal(self, served: Served, call: Arrival, error: BaseException) -> None:
        name = served.endpoint.name
        log.error(
            "%s.%s, called by %s, failed", self.service, name, call.caller, exc_info=error,
            extra={"service": self.service, "endpoint": name, "caller": call.caller},
        )  # fmt: skip
        # Anybody may ask for statistics, and the text is not meant for anybody.
        call.series.last_error = f"{type(error).__name__} (its text is in the log)"
        self.replier.fail(call, Status.INTERNAL, INTERNAL_TEXT)

    def _refuse(self, call: Arrival, refusal: Refusal) -> None:
        self.replier.fail(
            call,
            refusal.status,
            refusal.message,
            refused=refusal.refused,
            retry_after_s=refusal.retry_after_s,
        )
        call.series.refuse(refusal.status)

    def _refuse_unknown(self, reply: str, route: _Route) -> None:
        call = Arrival(
            caller=route.caller,
            series=route.series,
            reply=reply,
            headers=b"",
            payload=b"",
            received=self._now(),
        )
        known = ", ".join(sorted(self.served)) or "none"
        text = f"{self.service} has no endpoint {route.endpoint!r}; it has: {known[:512]}"
        self._refuse(call, Refusal(Status.UNIMPLEMENTED, Refused.UNIMPLEMENTED, text))

    # -- ending -------------------------------------------------------------------------------------

    def _end(self, call: Arrival, why: str) -> None:
        """Stop a running call from outside; its task ends it and :meth:`_finish` answers."""
        if not call.ended and call.stop is not None:
            call.ended = why
            call.stop()

    def _finish(self, served: Served, call: Arrival) -> None:
        """A call is over, also where it never took its first step: give back, answer, count."""
        if call.timer is not None:
            call.timer.cancel()
        for gate in served.gates:
            gate.leave(call)
        if call.reply and self._running.get(call.reply) is call:
            del self._running[call.reply]
        unanswered = call.status is None
        text = ""
        if call.status is None:
            call.status, text = _ENDED.get(call.ended, _ENDED["shutdown"])
        took = self._now() - call.received
        served.concurrency.took(took)
        call.series.in_flight -= 1
        call.series.record(took, call.status)
        self._calls.discard(call)
        call.stop = None
        if unanswered:
            self.replier.fail(call, call.status, text)

    def _died(self, error: BaseException) -> None:
        log.error("a call's task died", exc_info=error)

    def _drop(self, reason: str, subject: str) -> None:
        """Count what is not believed; say so for the first and then ever more rarely."""
        self.dropped[reason] += 1
        count = self.dropped[reason]
        if count & (count - 1) == 0:
            log.warning("dropped a message on %a: %s (%d so far)", subject[:256], reason, count)

    async def finish_all(self, timeout_s: float) -> int:
        """Wait for what runs, then stop what still does; returns how many had to be stopped."""
        if await self._pool.join(timeout_s):
            return 0
        stopped = list(self._calls)
        for call in stopped:
            self._end(call, "shutdown")
        await self._pool.join(2.0)
        return len(stopped)


_ENDED: dict[str, tuple[Status, str]] = {
    "deadline": (Status.DEADLINE_EXCEEDED, "the handler did not finish in time and was stopped"),
    "cancelled": (Status.CANCELLED, "the caller no longer waits"),
    "shutdown": (Status.CANCELLED, "the instance is shutting down and stopped the handler"),
}

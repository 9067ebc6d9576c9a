"""What a handler knows about its call, and how it calls on: deadline, trace and baggage go along."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

import msgspec
from msgspec import UNSET

from nats_mesh.clock import Clock
from nats_mesh.core.trace import TraceContext, format_baggage, parse_baggage
from nats_mesh.errors import ConfigError
from nats_mesh.model import PRIORITIES, CallOptions, Headers, HeadersLike, OwnHeaders, Priority, Reply
from nats_mesh.wire.headers import (
    BAGGAGE,
    IDEMPOTENCY_KEY,
    MIRROR,
    PRIORITY,
    field,
    text_field,
    trace_parent,
    trace_state,
    user_headers,
)

if TYPE_CHECKING:
    from nats_mesh.calling.client import Client
    from nats_mesh.calling.gathering import Gathered, Want
    from nats_mesh.config.follower import ConfigFollower

__all__ = ["Context", "Home", "current_context"]

#: How many of the calls that a handler makes are kept for whoever wants to know where its time went.
MAX_OWN_CALLS = 64

T = TypeVar("T")
_log = logging.getLogger("nats_mesh.service")

#: The call that runs in this task, if any: how a nested call inherits without being handed the context.
current_context: ContextVar[Context | None] = ContextVar("nats_mesh_context", default=None)


class Home(msgspec.Struct, frozen=True, eq=False):
    """What all calls that one instance serves have in common."""

    service: str
    namespace: str
    instance: str
    clock: Clock
    client: Client
    #: For the ids of traces that begin here.
    rng: random.Random
    #: What the service's lifespan yielded.
    state: Any = None
    #: What follows the service's configuration.
    config: ConfigFollower | None = None


class Context(msgspec.Struct, eq=False, weakref=True):
    """One call at the instance that serves it.

    ``deadline`` is an instant of this process's monotonic clock (seconds), :meth:`remaining` what is
    left of it. ``headers`` are the caller's, ``reply_headers`` travel back. ``baggage`` may be changed:
    the change goes along with calls made from here. ``state`` is what the service's lifespan yielded,
    ``claims`` what authentication learned of the end user. What the headers say is read when it is asked for.
    """

    _home: Home
    endpoint: str
    caller: str
    attempt: int
    deadline: float
    raw_headers: bytes = b""
    #: Whether the headers hold nothing but the time left, the caller's clock, a trace and a codec.
    _plain: bool = False
    #: Whether the call has ended. A task that it left behind may go on calling, without its deadline.
    over: bool = False
    claims: Mapping[str, Any] = {}
    _trace: TraceContext | None = None
    _tracestate: str | None = None
    _priority: str | None = None
    _headers: Headers | None = None
    #: The reply headers, if the handler touched them: whoever answers asks for them here, so that none are made.
    _reply_headers: Headers | None = None
    _baggage: dict[str, str] | None = None
    _log: logging.LoggerAdapter[logging.Logger] | None = None
    own_span_id: str = ""
    #: The calls that its handler made, as (target, start, end, status), where somebody wants to know; the oldest ones.
    own_calls: list[tuple[str, float, float, str]] | None = None

    @property
    def service(self) -> str:
        """The service that serves the call."""
        return self._home.service

    @property
    def namespace(self) -> str:
        """The namespace it is in."""
        return self._home.namespace

    @property
    def instance(self) -> str:
        """The id of the instance that serves it."""
        return self._home.instance

    @property
    def state(self) -> Any:
        """What the service's lifespan yielded."""
        return self._home.state

    @property
    def config(self) -> Any:
        """The configuration of the service, an instance of the struct that it declares (``Service(…, config=)``), as it
        is now; a call that asks twice may see a change in between. ``None`` where it declares none."""
        follower = self._home.config
        return None if follower is None else follower.value

    @property
    def mirror(self) -> bool:
        """Whether it is a copy of a call that another instance answers: nobody waits for this one's reply."""
        return not self._plain and field(self.raw_headers, MIRROR) is not None

    @property
    def trace(self) -> TraceContext:
        """Where in which trace this call is; a new trace where the caller sent none."""
        if self._trace is None:
            trace = trace_parent(self.raw_headers)
            if trace is None:
                ids = self._home.rng.randbytes(24).hex()
                trace = TraceContext(ids[:32], ids[32:], False)
            self._trace = trace
        return self._trace

    @trace.setter
    def trace(self, trace: TraceContext) -> None:
        self._trace = trace
        self._plain = False

    @property
    def tracestate(self) -> str:
        """The caller's ``tracestate``; without a valid ``traceparent`` it means nothing."""
        if self._tracestate is None:
            valid = not self._plain and trace_parent(self.raw_headers) is not None
            self._tracestate = trace_state(self.raw_headers) if valid else ""
        return self._tracestate

    @tracestate.setter
    def tracestate(self, tracestate: str) -> None:
        self._tracestate = tracestate
        self._plain = False

    @property
    def priority(self) -> Priority:
        """How much the call matters: one of :data:`~nats_mesh.model.PRIORITIES`."""
        if self._priority is None:
            priority = "" if self._plain else text_field(self.raw_headers, PRIORITY)
            self._priority = priority if priority in PRIORITIES else "default"
        return self._priority

    @priority.setter
    def priority(self, priority: Priority) -> None:
        self._priority = priority
        self._plain = False

    @property
    def idempotency_key(self) -> str | None:
        """The caller's key for this call, the same in every attempt; ``None`` where it gave none."""
        return None if self._plain else text_field(self.raw_headers, IDEMPOTENCY_KEY) or None

    @property
    def passes_on_trace_alone(self) -> bool:
        """Whether calls made from here inherit nothing but the trace and the deadline."""
        return self._plain and self._baggage is None

    def remaining(self) -> float:
        """Seconds left until the deadline; never negative."""
        return max(0.0, self.deadline - self._home.clock.monotonic())

    @property
    def trace_id(self) -> str:
        """The trace this call belongs to, 32 hexadecimal digits."""
        return self.trace.trace_id

    @property
    def span_id(self) -> str:
        """The id of this call's own span at the instance (16 hexadecimal digits), the parent of those of the calls it
        makes. Drawn when it is first asked for."""
        if not self.own_span_id:
            self.own_span_id = self._home.rng.randbytes(8).hex()
        return self.own_span_id

    def note_call(self, target: str, start: float, end: float, status: str) -> None:
        """Keep what became of a call that the handler made (instants: monotonic seconds)."""
        if self.own_calls is not None and len(self.own_calls) < MAX_OWN_CALLS:
            self.own_calls.append((target, start, end, status))

    @property
    def headers(self) -> Headers:
        """The caller's headers, without the mesh's own."""
        if self._headers is None:
            self._headers = user_headers(self.raw_headers)
        return self._headers

    @property
    def reply_headers(self) -> Headers:
        """Headers for the reply; set what the caller shall see."""
        if self._reply_headers is None:
            self._reply_headers = OwnHeaders()
        return self._reply_headers

    @property
    def baggage(self) -> dict[str, str]:
        """W3C baggage; what is put in here travels with every call made from this one."""
        if self._baggage is None:
            self._baggage = parse_baggage(self._baggage_text())
        return self._baggage

    def _baggage_text(self) -> str:
        return "" if self._plain else text_field(self.raw_headers, BAGGAGE)

    def baggage_header(self) -> str:
        """The header that nested calls carry; :class:`ConfigError` where the baggage breaks the W3C's limits."""
        if self._baggage is None:
            return self._baggage_text()
        try:
            return format_baggage(self._baggage)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{self.service}.{self.endpoint}: {error}") from None

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry service, endpoint, caller, instance and trace id."""
        if self._log is None:
            extra = {
                "service": self.service, "endpoint": self.endpoint, "caller": self.caller,
                "instance": self.instance, "trace_id": self.trace_id,
            }  # fmt: skip
            self._log = logging.LoggerAdapter(_log, extra)
        return self._log

    @overload
    async def call(
        self, target: Any, value: Any = None, *, returns: type[T], **options: Unpack[CallOptions]
    ) -> T: ...

    @overload
    async def call(
        self, target: Any, value: Any = None, *, returns: Any = ..., **options: Unpack[CallOptions]
    ) -> Any: ...

    async def call(
        self, target: Any, value: Any = None, *, returns: Any = UNSET, **options: Unpack[CallOptions]
    ) -> Any:
        """Call another service as this one; at most what is left of the deadline. See :meth:`Mesh.call`."""
        return await self._home.client.call(target, value, returns, options, self)

    async def request(
        self, target: Any, value: Any = None, *, returns: Any = UNSET, **options: Unpack[CallOptions]
    ) -> Reply[Any]:
        """As :meth:`call`, returning the whole :class:`Reply`."""
        return await self._home.client.request(target, value, returns=returns, parent=self, **options)

    @overload
    async def gather(
        self,
        target: Any,
        value: Any = None,
        *,
        returns: type[T],
        want: Want = ...,
        timeout: float | None = ...,
        headers: HeadersLike | None = ...,
        codec: str | None = ...,
    ) -> Gathered[T]: ...

    @overload
    async def gather(
        self,
        target: Any,
        value: Any = None,
        *,
        returns: Any = ...,
        want: Want = ...,
        timeout: float | None = ...,
        headers: HeadersLike | None = ...,
        codec: str | None = ...,
    ) -> Gathered[Any]: ...

    async def gather(
        self,
        target: Any,
        value: Any = None,
        *,
        returns: Any = UNSET,
        want: Want = "all",
        timeout: float | None = None,
        headers: HeadersLike | None = None,
        codec: str | None = None,
    ) -> Gathered[Any]:
        """Ask every instance of a service, within what is left of the deadline. See :meth:`Mesh.gather`."""
        return await self._home.client.gather(
            target,
            value,
            returns=returns,
            want=want,
            timeout=timeout,
            headers=headers,
            codec=codec,
            parent=self,
        )

    def __repr__(self) -> str:
        return f"<Context {self.caller} → {self.service}.{self.endpoint}, {self.remaining():.3f} s left>"

"""What a handler knows about its call, and how it calls on: deadline, trace and baggage go along."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from msgspec import UNSET

from nats_mesh.clock import Clock
from nats_mesh.core.trace import TraceContext, format_baggage, parse_baggage
from nats_mesh.errors import ConfigError
from nats_mesh.model import CallOptions, Headers, OwnHeaders, Priority, Reply
from nats_mesh.wire.headers import user_headers

if TYPE_CHECKING:
    from nats_mesh.client import Client

__all__ = ["Context", "current_context"]

T = TypeVar("T")
_log = logging.getLogger("nats_mesh.service")

#: The call that runs in this task, if any: how a nested call inherits without being handed the context.
current_context: ContextVar[Context | None] = ContextVar("nats_mesh_context", default=None)


class Context:
    """One call at the instance that serves it.

    ``deadline`` is an instant of this process's monotonic clock (seconds), :meth:`remaining` what is
    left of it. ``headers`` are the caller's, ``reply_headers`` travel back. ``baggage`` may be changed:
    the change goes along with calls made from here. ``state`` is what the service's lifespan yielded,
    ``claims`` what authentication learned of the end user.
    """

    __slots__ = (
        "_baggage", "_baggage_text", "_clock", "_client", "_headers", "_log", "_reply_headers", "attempt", "caller",
        "claims", "deadline", "endpoint", "idempotency_key", "instance", "namespace", "over", "priority", "raw_headers",
        "service", "state", "trace", "tracestate",
    )  # fmt: skip

    def __init__(
        self,
        *,
        service: str,
        endpoint: str,
        namespace: str,
        instance: str,
        caller: str,
        attempt: int,
        deadline: float,
        clock: Clock,
        client: Client,
        trace: TraceContext,
        tracestate: str = "",
        headers: Headers | None = None,
        raw_headers: bytes = b"",
        baggage: str = "",
        priority: Priority = "default",
        idempotency_key: str | None = None,
        state: Any = None,
        claims: Mapping[str, Any] | None = None,
    ) -> None:
        self.service = service
        self.endpoint = endpoint
        self.namespace = namespace
        self.instance = instance
        self.caller = caller
        self.attempt = attempt
        self.deadline = deadline
        #: Whether the call has ended. A task that it left behind may go on calling, without its deadline.
        self.over = False
        self.trace = trace
        self.tracestate = tracestate
        self.priority = priority
        self.idempotency_key = idempotency_key
        self.state = state
        self.claims: Mapping[str, Any] = claims or {}
        self.raw_headers = raw_headers
        self._clock = clock
        self._client = client
        self._headers = headers
        self._reply_headers: Headers | None = None
        self._baggage_text = baggage
        self._baggage: dict[str, str] | None = None
        self._log: logging.LoggerAdapter[logging.Logger] | None = None

    def remaining(self) -> float:
        """Seconds left until the deadline; never negative."""
        return max(0.0, self.deadline - self._clock.monotonic())

    @property
    def trace_id(self) -> str:
        """The trace this call belongs to, 32 hexadecimal digits."""
        return self.trace.trace_id

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

    def taken_reply_headers(self) -> Headers | None:
        """The reply headers if the handler touched them; read by the instance alone."""
        return self._reply_headers

    @property
    def baggage(self) -> dict[str, str]:
        """W3C baggage; what is put in here travels with every call made from this one."""
        if self._baggage is None:
            self._baggage = parse_baggage(self._baggage_text)
        return self._baggage

    def baggage_header(self) -> str:
        """The header that nested calls carry; :class:`ConfigError` where the baggage breaks the W3C's limits."""
        if self._baggage is None:
            return self._baggage_text
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
        return (await self._client.request(target, value, returns=returns, parent=self, **options)).value

    async def request(
        self, target: Any, value: Any = None, *, returns: Any = UNSET, **options: Unpack[CallOptions]
    ) -> Reply[Any]:
        """As :meth:`call`, returning the whole :class:`Reply`."""
        return await self._client.request(target, value, returns=returns, parent=self, **options)

    def __repr__(self) -> str:
        return f"<Context {self.caller} → {self.service}.{self.endpoint}, {self.remaining():.3f} s left>"

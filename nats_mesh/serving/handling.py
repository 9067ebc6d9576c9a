"""How an endpoint runs inside an instance: its body decoded, its handler invoked, its gates and numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import anyio

from nats_mesh.context import Context, current_context
from nats_mesh.endpoint import Endpoint
from nats_mesh.errors import CodecError, MeshError
from nats_mesh.layers.base import Arrival, Gate, Refusal
from nats_mesh.layers.concurrency import ConcurrencyGate
from nats_mesh.layers.credit import CreditGate
from nats_mesh.layers.duplicates import KeyedCalls
from nats_mesh.layers.stack import compose, in_order
from nats_mesh.model import Interceptor, Next, Reply, Request
from nats_mesh.wire.codecs import JSON, MSGPACK, Codec
from nats_mesh.wire.loop import in_thread

__all__ = ["NOTHING", "Served", "UndecodableError", "decode_body"]

#: Stands for "no value was sent", which is not the same as null.
NOTHING: Final = object()
#: Bodies that say nothing, in JSON and MessagePack: what an endpoint without a value takes.
_EMPTY = frozenset({b"", b"null", b"{}", b"\xc0", b"\x80"})


class Served:
    """One endpoint as this instance serves it: its chain and its numbers."""

    __slots__ = (
        "chain",
        "concurrency",
        "credit",
        "endpoint",
        "enter",
        "gates",
        "invoke",
        "keyed",
        "leave",
        "present",
        "raw",
        "waits",
    )

    def __init__(
        self, endpoint: Endpoint, gates: Sequence[Gate], interceptors: Sequence[Interceptor]
    ) -> None:
        self.endpoint = endpoint
        #: What tries first to read a usual body; where it fails, :func:`decode_body` does it with care.
        self.raw: dict[str, Callable[[bytes], Any]] = {}
        if endpoint.value_parameter is not None and endpoint.value_type is not bytes:
            self.raw = {each.name: each.raw_decoder(endpoint.value_type) for each in (JSON, MSGPACK)}
        self.gates = in_order(gates)
        self.concurrency = next(gate for gate in gates if isinstance(gate, ConcurrencyGate))
        self.credit = next((gate for gate in gates if isinstance(gate, CreditGate)), None)
        #: Its calls with an idempotency key, where those are told from each other.
        self.keyed: KeyedCalls | None = None
        self.present: tuple[Gate, ...] = ()
        self.enter: tuple[Callable[[Arrival], Refusal | None], ...] = ()
        self.leave: tuple[Callable[[Arrival], None], ...] = ()
        self.compose()
        self.invoke = _invoker(endpoint, self.concurrency)
        #: Whether the last call had to wait; a plain function waits for its thread.
        self.waits = not endpoint.is_async
        self.chain: Next | None = compose(interceptors, self._end) if interceptors else None

    def compose(self) -> None:
        """Look up, once for all calls, what the gates do: those that refuse nobody now are left out.

        A chain that has not changed stays the object that it is.
        """
        present = tuple(gate for gate in self.gates if gate.present)
        if present == self.present:
            return
        self.present = present
        self.enter = tuple(gate.enter for gate in self.present)
        self.leave = tuple(gate.leave for gate in self.present if gate.holds)

    async def _end(self, request: Request) -> Reply[Any]:
        context = current_context.get()
        assert context is not None, "interceptors run inside a call"
        return Reply(await self.invoke(request.value, context))


class UndecodableError(MeshError):
    """The request's body is not what the endpoint takes."""


def decode_body(endpoint: Endpoint, codec: Codec | None, payload: bytes) -> Any:
    """The handler's value, or :class:`UndecodableError` saying what is wrong with the body."""
    name = endpoint.name
    if endpoint.value_parameter is None:
        if payload in _EMPTY:
            return NOTHING
        raise UndecodableError(f"{name} takes no value, but the request has a body of {len(payload)} bytes")
    if not payload and endpoint.value_optional:
        return NOTHING
    if codec is None and endpoint.value_type is bytes:
        return payload
    if codec is None:
        raise UndecodableError(
            f"{name}: unknown content-type; use application/json, application/msgpack or application/octet-stream"
        )
    decode = endpoint.decoders.get(codec.name)
    if decode is None:
        raise UndecodableError(
            f"{name} does not take raw bytes; send application/json or application/msgpack"
        )
    try:
        return decode(payload)
    except CodecError as error:
        if not payload:
            try:
                return endpoint.decoders["json"](b"null")
            except CodecError:
                pass  # the type takes no null either: the message about the empty body is the better one
        raise UndecodableError(f"{name}: {error}") from None


def _invoker(endpoint: Endpoint, slots: ConcurrencyGate) -> Callable[[Any, Context], Any]:
    """How to call the handler with a value and a context, settled once."""
    handler = endpoint.handler
    if not endpoint.is_async:
        handler = _in_thread(handler, slots)
    takes_value, takes_context = endpoint.value_parameter, endpoint.context_parameter
    if endpoint.positional and not endpoint.value_optional:
        if takes_value and takes_context:
            return handler
        if takes_value:
            return lambda value, context: handler(value)
        if takes_context:
            return lambda value, context: handler(context)
        return lambda value, context: handler()

    def by_name(value: Any, context: Context) -> Any:
        arguments: dict[str, Any] = {}
        if takes_value is not None and value is not NOTHING:
            arguments[takes_value] = value
        if takes_context is not None:
            arguments[takes_context] = context
        return handler(**arguments)

    return by_name


def _in_thread(handler: Callable[..., Any], slots: ConcurrencyGate) -> Callable[..., Any]:
    """Run a plain function in a worker thread; its slot stays taken until the thread is done, cancelled or not."""
    # As many threads as there are slots, whatever their number is by then.
    limiter: anyio.CapacityLimiter | None = None

    async def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal limiter
        if limiter is None:
            limiter = anyio.CapacityLimiter(slots.limit)
        elif limiter.total_tokens != slots.limit:
            limiter.total_tokens = slots.limit
        return await in_thread(partial(handler, *args, **kwargs), limiter)

    return run

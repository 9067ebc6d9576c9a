"""What a call can carry, one line each: how the service and the caller are built with it switched on.

The first line is what the others are compared with. A layer that comes later is one line more here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import msgspec

from nats_mesh import Context, Mesh, Next, Reply, Request, Service
from nats_mesh.policy import PolicySet, parse
from tests.bench.echo import TIMEOUT_S, Echo

__all__ = ["LAYERS", "Layer", "Text"]

#: More than the largest cell has in flight, so that none measures refusals.
_ROOM = 1024
_DESTINATION = """
apiVersion: mesh/v1
kind: Destination
metadata: {{name: bench}}
spec: {{target: {{service: bench}}, {}}}
"""
_TRACEPARENT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


class Text(msgspec.Struct):
    """The typed value of a call; ``text`` makes up the size."""

    text: str


async def _pass(request: Request, proceed: Next) -> Reply[Any]:
    return await proceed(request)


def _service(address: str, kind: type, interceptors: tuple[Any, ...] = (), **options: Any) -> Service:
    service = Service("bench", version="1.0.0", servers=address, interceptors=interceptors)

    async def echo(value: Any) -> Any:
        return value

    echo.__annotations__ = {"value": kind, "return": kind}
    service.endpoint(**({"concurrency": _ROOM} | options))(echo)
    return service


def _context_service(address: str) -> Service:
    service = Service("bench", version="1.0.0", servers=address)

    @service.endpoint(concurrency=_ROOM)
    async def echo(value: bytes, ctx: Context) -> bytes:
        return value

    return service


def _bytes(address: str) -> Service:
    return _service(address, bytes)


def _mesh(address: str) -> Mesh:
    return Mesh("bench-caller", servers=address)


def _mesh_under(spec: str, **options: Any) -> Callable[[str], Mesh]:
    """A caller whose calls follow a `Destination` with ``spec``."""
    policies = PolicySet.of(parse(_DESTINATION.format(spec)))
    return lambda address: Mesh("bench-caller", servers=address, policies=policies, **options)


def _body(size: int, empty: bytes) -> str:
    """A text whose value, encoded, has ``size`` bytes where the encoding of the empty one has ``len(empty)``."""
    return "x" * max(0, size - len(empty))


def _msgpack_text(size: int) -> str:
    length = size
    while length and len(msgspec.msgpack.encode(Text("x" * length))) > size:
        length -= 1
    return "x" * length


def _call(mesh: Mesh, value: Any, returns: Any, **options: Any) -> Echo:
    return Echo(
        lambda: mesh.call("bench.echo", value, returns=returns, **({"timeout": TIMEOUT_S} | options)),
        lambda answer: answer,
        value,
    )


def _raw_call(**options: Any) -> Callable[[Mesh, int], Echo]:
    return lambda mesh, size: _call(mesh, b"x" * size, bytes, **options)


def _values(mesh: Mesh, size: int) -> Echo:
    return _call(mesh, {"text": _body(size, b'{"text":""}')}, dict[str, str])


def _typed(mesh: Mesh, size: int) -> Echo:
    return _call(mesh, Text(_body(size, b'{"text":""}')), Text)


def _typed_msgpack(mesh: Mesh, size: int) -> Echo:
    return _call(mesh, Text(_msgpack_text(size)), Text, codec="msgpack")


def _keyed(mesh: Mesh, value: Any, returns: Any, **options: Any) -> Echo:
    """Every call with a key of its own: the same one again would be answered without a handler."""
    numbers = itertools.count()

    def call() -> Any:
        key = f"bench-{next(numbers)}"
        return mesh.call(
            "bench.echo", value, returns=returns, timeout=TIMEOUT_S, idempotency_key=key, **options
        )

    return Echo(call, lambda answer: answer, value)


def _everything(mesh: Mesh, size: int) -> Echo:
    return _keyed(mesh, Text(_body(size, b'{"text":""}')), Text, headers=_TRACEPARENT)


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """``service(address)`` and ``mesh(address)`` build both sides, ``echo(mesh, size)`` the call.

    ``observed``: somebody listens to the statistics meanwhile.
    """

    name: str
    title: str
    service: Callable[[str], Service] = _bytes
    mesh: Callable[[str], Mesh] = _mesh
    echo: Callable[[Mesh, int], Echo] = _raw_call()
    observed: bool = False


LAYERS: dict[str, Layer] = {
    layer.name: layer
    for layer in (
        Layer(name="plain", title="bytes in, bytes out: nothing switched on (against itself)"),
        Layer(name="context", title="handler takes its Context", service=_context_service),
        Layer(
            name="values",
            title="JSON, plain values",
            service=lambda address: _service(address, dict[str, str]),
            echo=_values,
        ),
        Layer(
            name="typed-json",
            title="JSON, typed",
            service=lambda address: _service(address, Text),
            echo=_typed,
        ),
        Layer(
            name="typed-msgpack",
            title="MessagePack, typed",
            service=lambda address: _service(address, Text, codec="msgpack"),
            echo=_typed_msgpack,
        ),
        Layer(
            name="default-timeout",
            title="the default timeout instead of a call's own",
            echo=_raw_call(timeout=None),
        ),
        Layer(
            name="endpoint-timeout",
            title="a timeout declared by the endpoint",
            service=lambda address: _service(address, bytes, timeout=2.0),
        ),
        Layer(
            name="concurrency",
            title="a concurrency limit of exactly what is in flight (64)",
            service=lambda address: _service(address, bytes, concurrency=64),
        ),
        Layer(
            name="trace",
            title="a trace given by the caller (traceparent)",
            echo=_raw_call(headers=_TRACEPARENT),
        ),
        Layer(
            name="headers",
            title="two headers of the user",
            echo=_raw_call(headers={"X-Tenant": "blue", "X-Request": "b-17"}),
        ),
        Layer(
            name="idempotency",
            title="an idempotency key, remembered by the instance",
            service=lambda address: _service(address, bytes, duplicates="local"),
            echo=lambda mesh, size: _keyed(mesh, b"x" * size, bytes),
        ),
        Layer(
            name="interceptor-in",
            title="an interceptor around the handler",
            service=lambda address: _service(address, bytes, (_pass,)),
        ),
        Layer(
            name="interceptor-out",
            title="an interceptor around the call",
            mesh=lambda address: Mesh("bench-caller", servers=address, interceptors=(_pass,)),
        ),
        Layer(
            name="no-breaker",
            title="without the breaker, which is on by default",
            mesh=_mesh_under("breaker: off"),
        ),
        Layer(
            name="no-retry",
            title="without retries and their budget, which are on by default",
            mesh=_mesh_under("retry: {attempts: 1}"),
        ),
        Layer(
            name="slow-calls",
            title="a breaker that judges slow calls, too",
            mesh=_mesh_under("breaker: {slowCall: 1s}"),
        ),
        Layer(
            name="idempotent",
            title="a call that may be tried again (half of its time for the first attempt)",
            mesh=_mesh_under("idempotent: true"),
        ),
        Layer(
            name="round-robin",
            title="an instance chosen by round_robin, with ejection",
            mesh=_mesh_under("balancer: round_robin"),
        ),
        Layer(
            name="least-request",
            title="an instance chosen by least_request, with ejection",
            mesh=_mesh_under("balancer: least_request"),
        ),
        Layer(
            name="peak-ewma",
            title="an instance chosen by peak_ewma, with ejection",
            mesh=_mesh_under("balancer: peak_ewma"),
        ),
        Layer(
            name="hedge",
            title="hedging, of answers that take over 100 ms (none does)",
            mesh=_mesh_under("idempotent: true, hedge: {delay: 100ms, maxRatio: 1%}"),
        ),
        Layer(name="observed", title="statistics on the bus, because somebody listens", observed=True),
        Layer(
            name="everything",
            title="typed JSON, least_request, trace, idempotency key, interceptors, observed: all of it",
            service=lambda address: _service(address, Text, (_pass,), timeout=2.0, duplicates="local"),
            mesh=_mesh_under("balancer: least_request", interceptors=(_pass,)),
            echo=_everything,
            observed=True,
        ),
    )
}
"""By name, in the order of the table."""

"""What a decorator makes of a function: resolved at registration, or refused there with a reason."""

from __future__ import annotations

import asyncio
import builtins
import dataclasses
import enum
import functools
import threading
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import msgspec
import pydantic
import pytest

from nats_mesh import ApplicationError, ConfigError, Context, Service
from nats_mesh.endpoint import MAX_CONCURRENCY, Contract, Endpoint, contract_of
from nats_mesh.serving.handling import NOTHING, UndecodableError, decode_body
from nats_mesh.wire.codecs import CODECS, JSON, MSGPACK, RAW


class Order(msgspec.Struct):
    """A value."""

    sku: str
    count: int = 1


class Model(pydantic.BaseModel):
    """A value of pydantic's."""

    sku: str
    count: int = pydantic.Field(ge=1)


@dataclasses.dataclass
class Plain:
    """A value of the standard library's."""

    sku: str


class Holder(msgspec.Struct):
    """A value that holds itself and a pydantic model."""

    model: Model
    inner: Holder | None = None
    maybe: int | msgspec.UnsetType = msgspec.UNSET


class Lock:
    """Something that cannot travel."""


class OutOfStock(ApplicationError, status="FAILED_PRECONDITION"):
    """A declared error."""

    sku: str


class Unresolvable(ApplicationError, status="ABORTED"):
    """A declared error with a field that cannot be resolved."""

    sku: Missing  # type: ignore[name-defined]  # noqa: F821  # that is the mistake


def _register(handler: Any, **options: Any) -> Endpoint:
    service = Service("orders", version="1.0.0")
    service.endpoint(**options)(handler)
    [endpoint] = service.endpoints.values()
    return endpoint


# -- signatures that work -----------------------------------------------------------------------------


async def _nothing() -> None: ...


async def _value(order: Order) -> Order:
    return order


async def _context(ctx: Context) -> str:
    return ctx.caller


async def _both(order: Order, ctx: Context) -> Order:
    return order


async def _swapped(ctx: Context, order: Order) -> Order:
    return order


async def _default(order: Order | None = None) -> Order | None:
    return order


async def _keywords(*, order: Order, ctx: Context) -> Order:
    return order


async def _positional(order: Order, ctx: Context, /) -> Order:
    return order


def _thread(order: Order) -> Order:
    return order


async def _unannotated(order):  # type: ignore[no-untyped-def]  # that is the mistake
    return order


class Handlers:
    """Handlers that are no plain functions."""

    async def method(self, order: Order) -> Order:
        """A bound method."""
        return order

    async def __call__(self, order: Order) -> Order:
        return order


@pytest.mark.parametrize(
    ("handler", "value", "context", "positional", "is_async", "value_type"),
    [
        (_nothing, None, None, True, True, None),
        (_value, "order", None, True, True, Order),
        (_context, None, "ctx", True, True, None),
        (_both, "order", "ctx", True, True, Order),
        (_swapped, "order", "ctx", False, True, Order),
        (_default, "order", None, True, True, Order | None),
        (_keywords, "order", "ctx", False, True, Order),
        (_positional, "order", "ctx", True, True, Order),
        (_thread, "order", None, True, False, Order),
        (_unannotated, "order", None, True, True, Any),
        (Handlers().method, "order", None, True, True, Order),
        (Handlers(), "order", None, True, True, Order),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_signatures_that_work(
    handler: Any, value: str | None, context: str | None, positional: bool, is_async: bool, value_type: Any
) -> None:
    """Value and context are told apart by annotation, in any order and kind of parameter."""
    endpoint = _register(handler, name="place")
    assert (endpoint.value_parameter, endpoint.context_parameter) == (value, context)
    assert (endpoint.positional, endpoint.is_async) == (positional, is_async)
    assert endpoint.value_type == value_type


@pytest.mark.parametrize(
    "kind",
    [
        int, str, bytes, bytearray, Any, None, Order, Model, Plain, Holder, list[Holder], dict[str, Model | None],
        int | str | None, typing.Literal["a", "b"], Annotated[int, msgspec.Meta(ge=1)], msgspec.Raw,
        list[dict[str, tuple[int, ...]]],
    ],
    ids=str,
)  # fmt: skip
def test_types_that_travel(kind: Any) -> None:
    """Everything msgspec knows, and pydantic models, may be a value and a result."""

    async def handler(value: Any) -> Any: ...

    handler.__annotations__ = {"value": kind, "return": kind}
    endpoint = _register(handler)
    assert set(endpoint.decoders) >= {"json", "msgpack"}
    assert endpoint.returns in (kind, type(kind))


# -- signatures that cannot work ----------------------------------------------------------------------


async def _args(*args: int) -> None: ...


async def _kwargs(order: Order, **options: int) -> None: ...


async def _two_values(order: Order, count: int) -> None: ...


async def _two_values_with_default(order: Order, count: int = 1) -> None: ...


async def _unannotated_context(order: Order, ctx) -> None: ...  # type: ignore[no-untyped-def]  # that is the mistake


async def _two_contexts(ctx: Context, again: Context) -> None: ...


async def _optional_context(ctx: Context | None = None) -> None: ...


async def _annotated_context(ctx: Annotated[Context, "x"]) -> None: ...


async def _generator(order: Order) -> AsyncIterator[Order]:
    yield order


def _plain_generator(order: Order) -> Iterator[Order]:
    yield order


async def _positional_swapped(ctx: Context, order: Order, /) -> None: ...


async def _positional_optional(order: int = 1, /) -> None: ...


async def _unresolved(order: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # that is the mistake


async def _custom(order: Lock) -> None: ...


async def _custom_inside(order: list[dict[str, Lock | None]]) -> None: ...


async def _thread_lock(order: threading.Event) -> None: ...


async def _custom_return() -> Lock:
    return Lock()


async def _object_return() -> object:
    return object()


async def _callback(order: Callable[[int], int]) -> None: ...


async def _bad_union(order: Order | Plain) -> None: ...


async def _empty_enum(order: enum.Enum) -> None: ...


IMPOSSIBLE: list[tuple[Any, str]] = [
    (_args, r"\*args.* cannot be filled from a call"),
    (_kwargs, r"\*\*options.* cannot be filled from a call"),
    (_two_values, "takes one value, but both 'order' and 'count' want one"),
    (_two_values_with_default, "takes one value, but both 'order' and 'count'"),
    (_unannotated_context, "annotate the context as 'ctx: Context'"),
    (_two_contexts, "'ctx' and 'again' both take the Context"),
    (_optional_context, "annotate 'ctx' as Context alone"),
    (_annotated_context, "annotate 'ctx' as Context alone"),
    (_generator, "a generator cannot answer a call"),
    (_plain_generator, "a generator cannot answer a call"),
    (_positional_swapped, "'ctx' must be passed by name here; leave out the '/'"),
    (_positional_optional, "'order' must be passed by name here; leave out the '/'"),
    (_unresolved, "annotation cannot be resolved.*Missing.*import the type"),
    (_custom, "parameter 'order' cannot be decoded.*Lock is no type that travels"),
    (_custom_inside, "parameter 'order' cannot be decoded.*Lock is no type that travels"),
    (_thread_lock, "Event is no type that travels"),
    (_custom_return, "the return type cannot travel.*Lock is no type that travels"),
    (_object_return, "the return type cannot travel.*object is no type that travels.*Any"),
    (_callback, "Callable is no type that travels"),
    (_bad_union, "parameter 'order' cannot be decoded.*union"),
    (_empty_enum, "parameter 'order' cannot be decoded"),
    (3, "an endpoint must be a function, got 3"),
    ("place", "an endpoint must be a function, got 'place'"),
    (None, "an endpoint must be a function, got None"),
    (builtins.print, r"\*args.* cannot be filled"),
]


@pytest.mark.parametrize(
    ("handler", "reason"), IMPOSSIBLE, ids=lambda value: str(getattr(value, "__name__", ""))
)
def test_impossible_signatures_are_refused_at_registration(handler: Any, reason: str) -> None:
    """A handler that could never be called is an error where it is decorated, naming service and endpoint."""
    with pytest.raises(ConfigError, match=f"(?s)^orders(\\.place)?: .*{reason}"):
        _register(handler, name="place")


@pytest.mark.parametrize("handler", [lambda: 1, functools.partial(_value)], ids=["lambda", "partial"])
def test_a_function_without_a_usable_name_needs_one(handler: Any) -> None:
    """What has no name that a subject can hold is refused, and accepted under a given one."""
    with pytest.raises(ConfigError, match="endpoint name"):
        _register(handler)
    assert _register(handler, name="place").name == "place"


def test_the_decorator_needs_its_parentheses() -> None:
    """@service.endpoint without parentheses is the commonest slip: the message shows the remedy."""
    service = Service("orders", version="1.0.0")
    with pytest.raises(ConfigError, match=r"write @orders\.endpoint\(\) with parentheses"):
        service.endpoint(_value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"name": ""}, "endpoint name ''.*it is empty"),
        ({"name": "a b"}, "' ' cannot stand in it"),
        ({"name": "a.b"}, r"'\.' cannot stand in it"),
        ({"name": "*"}, r"'\*' cannot stand in it"),
        ({"name": ">"}, "'>' cannot stand in it"),
        ({"name": "zażółć"}, "cannot stand in it"),
        ({"name": "a\r\nb"}, r"'\\n', '\\r' cannot stand in it"),
        ({"name": "x" * 64}, "64 characters, at most 63"),
        ({"name": "all"}, "'all' is reserved"),
        ({"name": "anonymous"}, "'anonymous' is reserved"),
        ({"name": 7}, "must be a string, got int"),
        ({"timeout": 0}, "timeout must be above 0"),
        ({"timeout": -1.0}, "timeout must be above 0"),
        ({"timeout": float("nan")}, "timeout must be above 0"),
        ({"timeout": float("inf")}, "timeout must be above 0"),
        ({"timeout": 86_401}, "at most 86400 s"),
        ({"timeout": "2s"}, "must be a number of seconds, got '2s'"),
        ({"timeout": True}, "must be a number of seconds"),
        ({"concurrency": 0}, f"concurrency must be a whole number from 1 to {MAX_CONCURRENCY}"),
        ({"concurrency": -1}, "concurrency must be a whole number"),
        ({"concurrency": 1.5}, "concurrency must be a whole number"),
        ({"concurrency": True}, "concurrency must be a whole number"),
        ({"concurrency": MAX_CONCURRENCY + 1}, "concurrency must be a whole number"),
        ({"codec": "yaml"}, "codec 'yaml' is unknown; use one of: bytes, json, msgpack"),
        ({"raises": ValueError}, "raises takes subclasses of ApplicationError"),
        ({"raises": (OutOfStock("x", sku="y"),)}, "raises takes subclasses of ApplicationError"),
        ({"raises": (OutOfStock, type("OutOfStock", (ApplicationError,), {}))}, "two errors.*OutOfStock"),
        ({"raises": Unresolvable}, "Unresolvable: the type of a field cannot be resolved.*Missing"),
        ({"subject": "a.*"}, r"subject 'a\.\*'"),
        ({"subject": "a b"}, "subject 'a b'"),
        ({"subject": "a..b"}, "subject"),
        ({"subject": ">"}, "subject '>'"),
        ({"subject": ""}, "subject ''"),
        ({"subject": "a\r\nPUB b 0"}, "subject"),
        ({"subject": "x" * 1025}, "at most 1024 bytes"),
        ({"queue": "a b"}, "queue name 'a b'"),
        ({"queue": ""}, "queue name ''"),
        ({"duplicates": "both"}, "duplicates must be one of shared, local"),
    ],
    ids=str,
)
def test_options_that_cannot_work(options: dict[str, Any], reason: str) -> None:
    """A wrong option is refused at registration; the message says what was given and what is possible."""
    with pytest.raises(ConfigError, match=reason):
        _register(_value, **options)


def test_an_endpoint_name_is_unique() -> None:
    """Two handlers under one name are refused; the first one stays."""
    service = Service("orders", version="1.0.0")
    service.endpoint(name="place")(_value)
    with pytest.raises(ConfigError, match="orders has an endpoint 'place' already"):
        service.endpoint(name="place")(_both)
    assert service.endpoints["place"].handler is _value


def test_local_types_resolve() -> None:
    """Types that are local to the function in which a service is made are found, also as text."""

    class Local(msgspec.Struct):
        a: int

    service = Service("orders", version="1.0.0")

    @service.endpoint()
    async def place(value: Local) -> Local:
        return value

    assert service.endpoints["place"].value_type is Local
    assert asyncio.run(place(Local(1))) == Local(1)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"name": "a.b"}, "service name"),
        ({"name": "all"}, "reserved"),
        ({"name": "orders", "version": "1"}, "service 'orders': .*1"),
        ({"name": "orders", "version": "v1.0.0"}, "service 'orders'"),
        ({"name": "orders", "labels": {"zone": 3}}, "service 'orders'"),
        ({"name": "orders", "namespace": "a b"}, "namespace name"),
        ({"name": "orders", "codec": "xml"}, "codec 'xml' is unknown"),
        ({"name": "orders", "instance": "a.b"}, "instance name"),
        ({"name": "orders", "interceptors": ["x"]}, "interceptor 'x' cannot be called"),
        (
            {"name": "orders", "policies": 7},
            "policies= takes a folder of policy files, or False for none; got int",
        ),
    ],
    ids=str,
)
def test_services_that_cannot_work(arguments: dict[str, Any], reason: str) -> None:
    """A service's own options are checked where it is made."""
    with pytest.raises(ConfigError, match=reason):
        Service(**{"version": "1.0.0", **arguments})


# -- contracts ----------------------------------------------------------------------------------------


def test_the_contract_says_what_callers_need() -> None:
    """Return type, errors, codec, timeout and idempotency are read off the function by who calls it."""
    service = Service("orders", version="1.0.0", codec="msgpack")

    @service.endpoint(timeout=2, idempotent=True, raises=OutOfStock)
    async def place(order: Order) -> list[Order]:
        return [order]

    assert contract_of(place) == Contract(
        service="orders", endpoint="place", returns=list[Order], raises=(OutOfStock,), codec="msgpack",
        timeout_s=2.0, idempotent=True, keyed=True,
    )  # fmt: skip


def test_a_function_without_a_single_contract_cannot_be_called() -> None:
    """A plain function, and one that serves several endpoints, name no target; the message says what to do."""
    with pytest.raises(ConfigError, match=r"_never_served.*service\.endpoint"):
        contract_of(_never_served)
    service = Service("orders", version="1.0.0")
    for name in ("one", "two"):
        service.endpoint(name=name)(_served_twice)
    with pytest.raises(ConfigError, match=r"several endpoints \(orders\.one, orders\.two\)"):
        contract_of(_served_twice)


async def _never_served() -> None: ...


async def _served_twice() -> None: ...


def test_schemas_and_their_hash_follow_the_types() -> None:
    """The hash changes with the types and with nothing else; bytes and Any have no schema."""
    first, again, other = _register(_value), _register(_value, name="renamed"), _register(_nothing)
    assert first.schema_hash == again.schema_hash != other.schema_hash
    assert first.request_schema is not None
    assert first.request_schema["$ref"] == "#/$defs/Order"

    async def raw(body: bytes) -> Any: ...

    assert (_register(raw).request_schema, _register(raw).response_schema) == (None, None)


# -- bodies -------------------------------------------------------------------------------------------


async def _int(n: int) -> None: ...


async def _int_or_none(n: int | None) -> None: ...


async def _int_optional(n: int = 3) -> None: ...


async def _bytes(body: bytes) -> None: ...


async def _any(value: Any) -> None: ...


async def _model(model: Model) -> None: ...


@pytest.mark.parametrize(
    ("handler", "codec", "body", "value"),
    [
        (_nothing, JSON, b"", NOTHING),
        (_nothing, JSON, b"null", NOTHING),
        (_nothing, JSON, b"{}", NOTHING),
        (_nothing, MSGPACK, b"\xc0", NOTHING),
        (_nothing, MSGPACK, b"\x80", NOTHING),
        (_nothing, RAW, b"", NOTHING),
        (_int, JSON, b" 7 ", 7),
        (_int, MSGPACK, b"\x07", 7),
        (_int_or_none, JSON, b"", None),
        (_int_or_none, MSGPACK, b"", None),
        (_int_optional, JSON, b"", NOTHING),
        (_int_optional, JSON, b"4", 4),
        (_bytes, JSON, b"\xff", b"\xff"),
        (_bytes, RAW, b"", b""),
        (_bytes, None, b"\xff", b"\xff"),
        (_any, RAW, b"\xff", b"\xff"),
        (_any, JSON, b'{"a":[1]}', {"a": [1]}),
        (_value, JSON, b'{"sku":"x","unknown":1}', Order("x")),
        (_model, JSON, b'{"sku":"x","count":2}', Model(sku="x", count=2)),
    ],
)
def test_bodies_that_decode(handler: Any, codec: Any, body: bytes, value: Any) -> None:
    """An empty body is no value where none is needed, null where null is possible, else an error."""
    assert decode_body(_register(handler, name="x"), codec, body) == value


@pytest.mark.parametrize(
    ("handler", "codec", "body", "reason"),
    [
        (_nothing, JSON, b"7", "takes no value, but the request has a body of 1 bytes"),
        (_int, JSON, b"", "the body is empty"),
        (_int, JSON, b'"7"', r"Expected `int`, got `str`"),
        (_int, JSON, b"{", "Expected `int`"),
        (_int, JSON, b"\xff\xfe", "not valid json"),
        (_int, MSGPACK, b"\xc1", "not valid msgpack"),
        (_int, MSGPACK, b"\xa17", r"Expected `int`, got `str`"),
        (_int, RAW, b"7", "does not take raw bytes; send application/json"),
        (_int, None, b"7", "unknown content-type; use application/json, application/msgpack"),
        (_value, JSON, b"{}", "missing required field `sku`"),
        (_value, JSON, b'{"sku":"x","count":"y"}', r"\$\.count"),
        (_model, JSON, b'{"sku":"x","count":0}', "greater than or equal to 1"),
        (_any, JSON, b"[" * 100_000, "nests too deeply"),
        (_value, JSON, b'{"sku":' * 50_000, "does not fit"),
        (_any, MSGPACK, b"\x91" * 100_000, "nests too deeply"),
        (_any, MSGPACK, b"\xdd\xff\xff\xff\xff", "truncated"),
        (_any, JSON, b'"\xff"', "not valid json"),
        (_any, MSGPACK, b"\x81\x80\x01", "not valid msgpack"),
    ],
)
def test_bodies_that_do_not_decode(handler: Any, codec: Any, body: bytes, reason: str) -> None:
    """What does not decode is one typed error that names the endpoint, the field and what was expected there."""
    with pytest.raises(UndecodableError, match=reason) as caught:
        decode_body(_register(handler, name="place"), codec, body)
    assert str(caught.value).startswith("place")
    assert len(str(caught.value)) < 2000


def test_every_codec_can_be_named() -> None:
    """The names that codec= takes are those of the table."""
    for name in CODECS:
        assert _register(_bytes, name="x", codec=name).codec is CODECS[name]

"""What a decorated function is to the mesh: resolved once, at registration, or refused with a reason."""

from __future__ import annotations

import hashlib
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from nats_mesh.context import Context
from nats_mesh.core.deadline import check_timeout
from nats_mesh.errors import ApplicationError, ConfigError
from nats_mesh.model import check_name
from nats_mesh.wire.codecs import CODECS, Codec, check_codec
from nats_mesh.wire.subjects import QUEUE, check_plain_subject

__all__ = [
    "DEFAULT_CONCURRENCY",
    "MAX_CONCURRENCY",
    "Contract",
    "Endpoint",
    "contract_of",
    "describe_handler",
]

DEFAULT_CONCURRENCY = 256
MAX_CONCURRENCY = 1_000_000
_MARK = "__mesh_contracts__"
_DUPLICATES = ("shared", "local", "off")


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller needs to know of a handler: enough to call it by the function itself, typed."""

    service: str
    endpoint: str
    returns: Any = Any
    raises: tuple[type[ApplicationError], ...] = ()
    codec: str = "json"
    timeout_s: float | None = None
    idempotent: bool = False
    #: Whether all instances know each other's idempotency keys: ``duplicates="shared"``.
    keyed: bool = False


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of a service. ``decoders`` maps a codec's name to the ready decoder of the value."""

    name: str
    handler: Callable[..., Any]
    #: How to call the handler: the parameter that takes the value and the one that takes the context.
    value_parameter: str | None
    context_parameter: str | None
    positional: bool
    value_type: Any
    value_optional: bool
    returns: Any
    is_async: bool
    contract: Contract
    concurrency: int
    raises: tuple[type[ApplicationError], ...]
    codec: Codec
    decoders: Mapping[str, Callable[[bytes], Any]]
    description: str
    request_schema: Mapping[str, Any] | None
    response_schema: Mapping[str, Any] | None
    schema_hash: str
    subject: str | None = None
    queue: str = QUEUE
    duplicates: str = "shared"


def contract_of(target: Any) -> Contract:
    """The contract of a decorated function, or :class:`ConfigError` where it has none or several."""
    contracts: tuple[Contract, ...] = getattr(target, _MARK, ())
    name = getattr(target, "__qualname__", repr(target))
    if not contracts:
        raise ConfigError(
            f"{name} cannot be called on the mesh: give 'service.endpoint', 'nats://subject' or a function "
            "that carries @service.endpoint"
        )
    if len(contracts) > 1:
        names = ", ".join(f"{c.service}.{c.endpoint}" for c in contracts)
        raise ConfigError(f"{name} serves several endpoints ({names}): name the one that is meant")
    return contracts[0]


def describe_handler(
    service: str,
    handler: Callable[..., Any],
    *,
    name: str | None,
    timeout: float | None,
    idempotent: bool,
    concurrency: int,
    raises: tuple[type[ApplicationError], ...],
    codec: str,
    subject: str | None,
    queue: str,
    duplicates: str,
    locals_: Mapping[str, Any],
) -> Endpoint:
    """Inspect ``handler`` and return its endpoint; every mistake is a :class:`ConfigError` that names it."""
    if not callable(handler):
        raise ConfigError(f"{service}: an endpoint must be a function, got {handler!r}")
    own_name = name if name is not None else getattr(handler, "__name__", "")
    endpoint = check_name("endpoint", own_name)
    where = f"{service}.{endpoint}"
    if inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
        raise ConfigError(f"{where}: a generator cannot answer a call; return a value")
    signature, hints = _signature(where, handler, locals_)
    value, context = _parameters(where, signature, hints)
    value_type = hints.get(value.name, Any) if value is not None else None
    returns = hints.get("return", Any)
    chosen = check_codec(codec)
    declared = _check_raises(where, raises)
    timeout_s = None if timeout is None else check_timeout(where, timeout)
    if (
        isinstance(concurrency, bool)
        or not isinstance(concurrency, int)
        or not 1 <= concurrency <= MAX_CONCURRENCY
    ):
        raise ConfigError(
            f"{where}: concurrency must be a whole number from 1 to {MAX_CONCURRENCY}, got {concurrency!r}"
        )
    if duplicates not in _DUPLICATES:
        raise ConfigError(f"{where}: duplicates must be one of {', '.join(_DUPLICATES)}, got {duplicates!r}")
    request_schema = None if value is None else _schema(value_type)
    response_schema = _schema(returns)
    contract = Contract(
        service=service, endpoint=endpoint, returns=returns, raises=declared, codec=codec,
        timeout_s=timeout_s, idempotent=bool(idempotent), keyed=duplicates == "shared",
    )  # fmt: skip
    result = Endpoint(
        name=endpoint,
        handler=handler,
        value_parameter=None if value is None else value.name,
        context_parameter=None if context is None else context.name,
        positional=_positional(value, context, signature),
        value_type=value_type,
        value_optional=value is not None and value.default is not inspect.Parameter.empty,
        returns=returns,
        is_async=inspect.iscoroutinefunction(handler)
        or inspect.iscoroutinefunction(getattr(handler, "__call__", None)),  # noqa: B004 - a callable object with an async __call__ is meant
        contract=contract,
        concurrency=concurrency,
        raises=declared,
        codec=chosen,
        decoders=_decoders(where, value, value_type, returns),
        description=inspect.cleandoc(handler.__doc__ or "").split("\n\n")[0].replace("\n", " "),
        request_schema=request_schema,
        response_schema=response_schema,
        schema_hash=_hash([request_schema, response_schema]),
        subject=None if subject is None else check_plain_subject(subject),
        queue=check_name("queue", queue),
        duplicates=duplicates,
    )
    known: tuple[Contract, ...] = getattr(handler, _MARK, ())
    try:
        setattr(handler, _MARK, (*known, contract))
    except AttributeError:
        pass  # a builtin or a bound method takes no attribute: it can be served, but not called by the function
    return result


def _signature(
    where: str, handler: Callable[..., Any], locals_: Mapping[str, Any]
) -> tuple[inspect.Signature, dict[str, Any]]:
    target = handler if inspect.isroutine(handler) else getattr(handler, "__call__", handler)  # noqa: B004
    try:
        signature = inspect.signature(handler)
        hints = typing.get_type_hints(target, localns=dict(locals_), include_extras=True)
    except NameError as error:
        raise ConfigError(
            f"{where}: an annotation cannot be resolved ({error}); import the type where the handler is "
            "defined (not only under TYPE_CHECKING)"
        ) from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: the signature cannot be read: {error}") from None
    return signature, hints


def _parameters(
    where: str, signature: inspect.Signature, hints: Mapping[str, Any]
) -> tuple[inspect.Parameter | None, inspect.Parameter | None]:
    value = context = None
    for parameter in signature.parameters.values():
        kind = hints.get(parameter.name)
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigError(
                f"{where}: {parameter} cannot be filled from a call; take one value (a struct holds several fields)"
            )
        if isinstance(kind, type) and issubclass(kind, Context):
            if context is not None:
                raise ConfigError(
                    f"{where}: {context.name!r} and {parameter.name!r} both take the Context; one is enough"
                )
            context = parameter
        elif Context in typing.get_args(kind):
            raise ConfigError(f"{where}: annotate {parameter.name!r} as Context alone; every call has one")
        elif value is None:
            value = parameter
        else:
            raise ConfigError(
                f"{where}: a handler takes one value, but both {value.name!r} and {parameter.name!r} want one; "
                "put the fields into a struct, and annotate the context as 'ctx: Context'"
            )
    _check_positional_only(where, value, context, signature)
    return value, context


def _check_positional_only(
    where: str,
    value: inspect.Parameter | None,
    context: inspect.Parameter | None,
    signature: inspect.Signature,
) -> None:
    """Refuse a ``/`` where parameters are passed by name: the context stands first, or the value may be missing."""
    optional = value is not None and value.default is not inspect.Parameter.empty
    if _positional(value, context, signature) and not optional:
        return
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ConfigError(f"{where}: {parameter.name!r} must be passed by name here; leave out the '/'")


def _positional(
    value: inspect.Parameter | None, context: inspect.Parameter | None, signature: inspect.Signature
) -> bool:
    """Whether ``handler(value, context)`` in this order is right; otherwise both are passed by name."""
    order = [p.name for p in signature.parameters.values()]
    wanted = [p.name for p in (value, context) if p is not None]
    return order == wanted and all(p.kind is not p.KEYWORD_ONLY for p in signature.parameters.values())


def _check_raises(
    where: str, raises: tuple[type[ApplicationError], ...]
) -> tuple[type[ApplicationError], ...]:
    declared = tuple(raises)
    names: dict[str, type] = {}
    for each in declared:
        if not (isinstance(each, type) and issubclass(each, ApplicationError)):
            raise ConfigError(f"{where}: raises takes subclasses of ApplicationError, got {each!r}")
        if names.setdefault(each.__name__, each) is not each:
            raise ConfigError(
                f"{where}: two errors in raises are called {each.__name__}; a name must be unique"
            )
        each.fields_type()
    return declared


def _decoders(
    where: str, value: inspect.Parameter | None, value_type: Any, returns: Any
) -> dict[str, Callable[[bytes], Any]]:
    try:
        CODECS["json"].decoder(returns)
    except ConfigError as error:
        raise ConfigError(f"{where}: the return type cannot travel: {error}") from None
    if value is None:
        return {}
    if value_type is bytes:
        return dict.fromkeys(CODECS, bytes)
    decoders: dict[str, Callable[[bytes], Any]] = {}
    for name, codec in CODECS.items():
        if name == "bytes" and value_type is not Any:
            continue
        try:
            decoders[name] = codec.decoder(value_type)
        except ConfigError as error:
            raise ConfigError(f"{where}: parameter {value.name!r} cannot be decoded: {error}") from None
    return decoders


def _schema(kind: Any) -> dict[str, Any] | None:
    """The JSON schema of a type; ``None`` for what has none (raw bytes, anything, exotic types)."""
    if kind is bytes or kind is Any:
        return None
    model_schema = getattr(kind, "model_json_schema", None)
    if callable(model_schema):
        return dict(model_schema())
    try:
        return msgspec.json.schema(kind)
    except (TypeError, NotImplementedError):
        return None


def _hash(schemas: list[Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(schemas, order="sorted")).hexdigest()[:16]

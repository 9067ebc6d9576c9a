"""The error tree: what went wrong, where, whether the work was done, and what to do about it.

Retryability is data, not ancestry: every :class:`CallError` says whether the handler ran
(:class:`Executed`), and who decides about a second attempt looks at that and at the status.
"""

from __future__ import annotations

import enum
import inspect
import typing
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import msgspec

__all__ = [
    "UNREADABLE",
    "ApplicationError",
    "CallError",
    "CancelledByPeerError",
    "CircuitOpenError",
    "CodecError",
    "ConfigError",
    "DeadlineExceededError",
    "DisconnectedError",
    "Executed",
    "MeshError",
    "NoInstancesError",
    "OverloadedError",
    "PermissionDeniedError",
    "PolicyError",
    "RateLimitedError",
    "Refused",
    "RemoteError",
    "Status",
]


UNREADABLE: tuple[type[Exception], ...] = (
    msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError,
)  # fmt: skip
"""What msgspec raises for bytes that hold no such value: no JSON, no UTF-8, no date of any year, nested without end."""


class Status(enum.StrEnum):
    """The gRPC status names; ``code`` is the number that foreign NATS clients see."""

    OK = "OK"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"

    @property
    def code(self) -> int:
        """The HTTP-like number carried in ``Nats-Service-Error-Code`` (0 for OK)."""
        return _CODES[self]

    @classmethod
    def from_code(cls, code: int) -> Status:
        """The status a *foreign* service means by ``code``; unknown numbers are UNKNOWN.

        Where several statuses share a number, the least specific one is chosen (400, 409, 500).
        """
        return _FROM_CODE.get(code, cls.UNKNOWN)


_CODES: dict[Status, int] = {
    Status.OK: 0,
    Status.CANCELLED: 499,
    Status.UNKNOWN: 500,
    Status.INVALID_ARGUMENT: 400,
    Status.DEADLINE_EXCEEDED: 504,
    Status.NOT_FOUND: 404,
    Status.ALREADY_EXISTS: 409,
    Status.PERMISSION_DENIED: 403,
    Status.UNAUTHENTICATED: 401,
    Status.RESOURCE_EXHAUSTED: 429,
    Status.FAILED_PRECONDITION: 412,
    Status.ABORTED: 409,
    Status.OUT_OF_RANGE: 400,
    Status.UNIMPLEMENTED: 501,
    Status.INTERNAL: 500,
    Status.UNAVAILABLE: 503,
    Status.DATA_LOSS: 500,
}

_FROM_CODE: dict[int, Status] = {
    **{code: status for status, code in _CODES.items() if status is not Status.OK},
    400: Status.INVALID_ARGUMENT,
    409: Status.ABORTED,
    500: Status.INTERNAL,
}


class Executed(enum.StrEnum):
    """Whether the handler of a failed call ran: only ``NO`` makes any call safe to repeat."""

    NO = "no"
    MAYBE = "maybe"
    YES = "yes"


class Refused(enum.StrEnum):
    """Why an instance refused a call before its handler ran (header ``Mesh-Refused``)."""

    DRAINING = "draining"
    CONCURRENCY = "concurrency"
    RATE = "rate"
    QUOTA = "quota"
    ACCESS = "access"
    AUTHN = "authn"
    DEADLINE = "deadline"
    UNIMPLEMENTED = "unimplemented"
    IDEMPOTENCY = "idempotency"
    INVALID = "invalid"


class MeshError(Exception):
    """The root of everything this package raises on purpose."""


class ConfigError(MeshError):
    """A name, signature, setting or option that cannot work; the message says what to change."""


class PolicyError(MeshError):
    """A policy that is not valid, with the ``path`` of the field, the ``file`` and the ``line`` in it.

    Where several things are wrong, the place is that of the first, and ``problems`` has an error for each.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str = "",
        line: int | None = None,
        file: str = "",
        problems: tuple[PolicyError, ...] = (),
    ) -> None:
        super().__init__(message)
        self.path = path
        self.line = line
        self.file = file
        self._problems = problems

    @property
    def problems(self) -> tuple[PolicyError, ...]:
        """Everything that is wrong, one by one; the error itself where it is the only one."""
        return self._problems or (self,)


class CodecError(MeshError):
    """A value that cannot be encoded, or bytes that do not decode to the expected type.

    ``executed`` is for whoever made a call: ``yes`` where it was answered and its reply does not fit, so that the
    handler ran; ``no`` in any other case.
    """

    def __init__(self, message: str = "", *, executed: Executed = Executed.NO) -> None:
        super().__init__(message)
        self.executed = executed


class CallError(MeshError):
    """A call that did not produce its value.

    ``status`` is the outcome, ``executed`` whether the handler ran, ``attempts`` how many tries
    were made (0: none left this process), ``retry_after_s`` when the other side asked to wait
    (seconds), ``refused`` the reason of a refusal, ``type`` and ``details`` what an application error carried.
    """

    default_status: ClassVar[Status] = Status.UNKNOWN
    default_executed: ClassVar[Executed] = Executed.MAYBE
    #: ``abort`` where an operator injected the error: it is not to be retried, but counts with breakers and ejection as
    #: any other answer with its status does.
    fault: str = ""

    def __init__(
        self,
        message: str = "",
        *,
        status: Status | str | None = None,
        service: str = "",
        endpoint: str = "",
        attempts: int = 0,
        executed: Executed | None = None,
        retry_after_s: float | None = None,
        refused: Refused | None = None,
        details: Mapping[str, Any] | None = None,
        type: str = "",
    ) -> None:
        super().__init__(message)
        self.type = type
        self.message = message
        self.status = self.default_status if status is None else Status(status)
        if self.status is Status.OK:
            raise ConfigError(f"{self.__class__.__name__}: an error cannot have the status OK")
        self.service = service
        self.endpoint = endpoint
        self.attempts = attempts
        self.executed = self.default_executed if executed is None else executed
        self.retry_after_s = retry_after_s
        self.refused = refused
        self.details: Mapping[str, Any] = details or {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (
            type(self),
            dict(self.__dict__),
        )  # constructors want arguments that are not in `args`

    def __str__(self) -> str:
        target = ".".join(part for part in (self.service, self.endpoint) if part)
        text = self.message or self.__class__.__name__
        return f"{target}: {text} ({self.status})" if target else f"{text} ({self.status})"


def _restored(cls: type[CallError], state: dict[str, Any]) -> CallError:
    error = cls.__new__(cls, state["message"])
    error.__dict__.update(state)
    return error


class CircuitOpenError(CallError):
    """The breaker of this destination is open: nothing was sent."""

    default_status = Status.UNAVAILABLE
    default_executed = Executed.NO


class RateLimitedError(CallError):
    """A rate or quota policy refused the call; ``retry_after_s`` says when to come back."""

    default_status = Status.RESOURCE_EXHAUSTED
    default_executed = Executed.NO


class OverloadedError(CallError):
    """Every slot of the instance was taken (or it drains): refused at once, never queued."""

    default_status = Status.RESOURCE_EXHAUSTED
    default_executed = Executed.NO


class NoInstancesError(CallError):
    """Nobody serves the subject: the server said so at once, nothing ran."""

    default_status = Status.UNAVAILABLE
    default_executed = Executed.NO


class DeadlineExceededError(CallError):
    """The time was up, here or at the instance."""

    default_status = Status.DEADLINE_EXCEEDED


class CancelledByPeerError(CallError):
    """The instance stopped the work because its caller, or that one's caller, gave up; or a service says CANCELLED."""

    default_status = Status.CANCELLED


class DisconnectedError(CallError):
    """The bus is away. ``executed`` is ``no`` where the request was never written."""

    default_status = Status.UNAVAILABLE


class PermissionDeniedError(CallError):
    """The server's permissions or an access policy do not allow this call."""

    default_status = Status.PERMISSION_DENIED
    default_executed = Executed.NO


class RemoteError(CallError):
    """The service answered with an error that is not one of the declared application errors."""

    default_executed = Executed.YES


class ApplicationError(CallError):
    """An error that belongs to a service's contract: status, text and typed fields travel.

    Subclass it with a status and annotated fields::

        class OutOfStock(ApplicationError, status="FAILED_PRECONDITION"):
            sku: str

        raise OutOfStock("nothing left", sku="b-17")

    The caller gets the same class where it names it in ``raises`` or calls by the function.
    The base class can be raised directly with ``status=``. A missing, unknown or wrongly typed
    field is a :class:`ConfigError` where the error is made.
    """

    default_status: ClassVar[Status] = Status.UNKNOWN
    default_executed = Executed.YES
    _fields: ClassVar[type[msgspec.Struct] | None] = None

    def __init_subclass__(cls, *, status: Status | str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if status is not None:
            try:
                cls.default_status = Status(status)
            except ValueError:
                raise ConfigError(
                    f"{cls.__name__}: {status!r} is no status; use one of {', '.join(Status)}"
                ) from None
            if cls.default_status is Status.OK:
                raise ConfigError(f"{cls.__name__}: an error cannot have the status OK")
        cls._fields = None

    def __init__(self, message: str = "", *, status: Status | str | None = None, **fields: Any) -> None:
        struct = type(self).fields_type()
        known = struct.__struct_fields__
        values = {name: fields.pop(name) for name in known if name in fields}
        call = {name: fields.pop(name) for name in _CALL_FIELDS if name in fields}
        if fields:
            raise ConfigError(
                f"{type(self).__name__} has no field {_names(fields)}; its fields are: {_names(known) or 'none'}"
            )
        try:
            content = msgspec.convert(values, struct, from_attributes=True)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{type(self).__name__}: {error}") from None
        if not message:
            message = ", ".join(f"{n}={getattr(content, n)!r}" for n in known) or type(self).__name__
        details = call.pop("details", None) or msgspec.to_builtins(content)
        super().__init__(message, status=status, details=details, **call)
        for name in known:
            setattr(self, name, getattr(content, name))

    @classmethod
    def fields_type(cls) -> type[msgspec.Struct]:
        """The struct of this class's own annotated fields (built once, at first use)."""
        if cls._fields is None:
            spec: list[Any] = []
            own: dict[str, Any] = {}
            for parent in reversed(cls.__mro__):
                if parent is ApplicationError or not issubclass(parent, ApplicationError):
                    continue
                own.update(_hints(parent))
            for name, kind in own.items():
                if name in _CALL_FIELDS or name in ("status", "message"):
                    raise ConfigError(
                        f"{cls.__name__}.{name}: this name is taken by the error itself; choose another"
                    )
                spec.append((name, kind, getattr(cls, name)) if hasattr(cls, name) else (name, kind))
            cls._fields = msgspec.defstruct(f"{cls.__name__}Fields", spec, kw_only=True)
        return cls._fields

    @classmethod
    def from_details(cls, message: str, details: Mapping[str, Any], **call: Any) -> ApplicationError | None:
        """Rebuild an error that travelled; ``None`` where its details do not fit this class.

        The class's own constructor is not called: it may take whatever it likes.
        """
        try:
            content = msgspec.convert(details, cls.fields_type(), strict=False)
        except UNREADABLE:
            return None
        error = cls.__new__(cls, message)
        CallError.__init__(error, message, details=details, **call)
        for name in content.__struct_fields__:
            setattr(error, name, getattr(content, name))
        return error


_CALL_FIELDS = frozenset(
    {"service", "endpoint", "attempts", "executed", "retry_after_s", "refused", "details", "type"}
)


def _hints(cls: type) -> dict[str, Any]:
    own = inspect.get_annotations(cls)
    try:
        resolved = typing.get_type_hints(cls)
    except NameError as error:
        raise ConfigError(
            f"{cls.__name__}: the type of a field cannot be resolved ({error}); define it at module level"
        ) from None
    return {name: resolved[name] for name in own if typing.get_origin(resolved[name]) is not ClassVar}


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))

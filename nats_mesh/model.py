"""What a call is made of: headers, the request on its way through a chain, and the reply."""

from __future__ import annotations

import base64
import binascii
import contextlib
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Generic, Protocol, TypeAlias, TypedDict, TypeVar

import msgspec

from nats_mesh.errors import ConfigError, Status

__all__ = [
    "CONTROL",
    "NO_HEADERS",
    "PRIORITIES",
    "CallOptions",
    "Headers",
    "HeadersLike",
    "Interceptor",
    "Next",
    "OwnHeaders",
    "Priority",
    "Reply",
    "Request",
    "check_interceptors",
    "check_name",
    "is_header_name",
    "is_name",
    "is_reserved_header",
    "label_of",
]

T = TypeVar("T")

#: What ``headers=`` accepts: a mapping (a list as value keeps every value) or pairs.
HeadersLike: TypeAlias = "Mapping[str, Any] | Iterable[tuple[str, Any]]"

#: The values of ``Mesh-Priority``, and their type.
PRIORITIES = frozenset({"critical", "default", "sheddable"})
Priority: TypeAlias = str

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
#: What cannot stand in a header value: control characters other than the tab.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_RESERVED = frozenset({"all", "anonymous"})


def is_name(value: object) -> bool:
    """Whether ``value`` can be a service, endpoint, subset, caller, instance or namespace."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def check_name(kind: str, value: object, *, reserved: bool = False) -> str:
    """Return ``value`` if it is a valid name, else raise :class:`ConfigError` saying what is wrong with it.

    ``kind`` is the word for the message (``"service"``); ``reserved`` admits ``all`` and ``anonymous``.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{kind} name must be a string, got {type(value).__name__}: {value!r}")
    if _NAME.fullmatch(value) is None:
        if not value:
            reason = "it is empty"
        elif len(value) > 63:
            reason = f"it has {len(value)} characters, at most 63 are allowed"
        else:
            bad = sorted({c for c in value if _NAME.fullmatch(c) is None})
            reason = f"{', '.join(ascii(c) for c in bad[:5])} cannot stand in it"
        raise ConfigError(f"{kind} name {value[:80]!r}: {reason}; use letters, digits, '_' and '-' only")
    if not reserved and value in _RESERVED:
        raise ConfigError(f"{kind} name {value!r} is reserved by the mesh; choose another")
    return value


#: Names that were found good and have nothing special: with them, printable ASCII needs no further look.
_plain_names: set[str] = set()
_MAX_PLAIN_NAMES = 1024


class Headers(MutableMapping[str, Any]):
    """Message headers: names compare without regard to case, every value of a repeated name is kept.

    Values are ``str``; a name that ends in ``-bin`` carries bytes (base64 on the wire) and reads as
    ``bytes``. Setting a name replaces all its values, :meth:`add` appends one. Anything that could
    forge a line on the wire (CR, LF, control characters, odd names) is a :class:`ConfigError`.
    """

    __slots__ = ("_items",)

    def __init__(self, items: HeadersLike | None = None) -> None:
        self._items: list[tuple[str, str]] = []
        if items is None:
            return
        if isinstance(items, Headers):
            items = items.pairs()
        try:
            pairs = list(items.items()) if isinstance(items, Mapping) else [(n, v) for n, v in items]
        except (TypeError, ValueError):
            raise ConfigError(f"headers must be a mapping or pairs, got {items!r:.80}") from None
        for name, value in pairs:
            if isinstance(value, list | tuple):
                for each in value:
                    self.add(name, each)
            else:
                self.add(name, value)

    @classmethod
    def trusted(cls, items: list[tuple[str, str]]) -> Headers:
        """Wrap pairs that came off the wire and need no check."""
        headers = cls.__new__(cls)
        headers._items = items
        return headers

    def add(self, name: str, value: Any) -> None:
        """Append one value; what the name already holds stays."""
        # The plainest first: each of these is one step in C.
        known = type(name) is str and name in _plain_names
        if known and type(value) is str and value.isascii() and value.isprintable():
            self._items.append((name, value))
            return
        self._items.append((_check_header_name(name), _wire_value(name, value)))
        if not (is_reserved_header(name) or name.lower().endswith("-bin")):
            if len(_plain_names) >= _MAX_PLAIN_NAMES:
                _plain_names.clear()
            _plain_names.add(name)

    def get_all(self, name: str) -> list[Any]:
        """Every value of ``name``, in the order of the wire; empty where there is none."""
        wanted = name.lower()
        return [_user_value(n, v) for n, v in self._items if n.lower() == wanted]

    def pairs(self) -> list[tuple[str, str]]:
        """All pairs as they stand on the wire (``-bin`` values in base64)."""
        return list(self._items)

    def __getitem__(self, name: str) -> Any:
        wanted = name.lower()
        for known, value in self._items:
            if known.lower() == wanted:
                return _user_value(known, value)
        raise KeyError(name)

    def __setitem__(self, name: str, value: Any) -> None:
        wanted = _check_header_name(name).lower()
        values = value if isinstance(value, list | tuple) else (value,)
        new = [(name, _wire_value(name, each)) for each in values]
        self._items = [item for item in self._items if item[0].lower() != wanted] + new

    def __delitem__(self, name: str) -> None:
        wanted = name.lower()
        kept = [item for item in self._items if item[0].lower() != wanted]
        if len(kept) == len(self._items):
            raise KeyError(name)
        self._items = kept

    def __iter__(self) -> Iterator[str]:
        seen: set[str] = set()
        for name, _ in self._items:
            if (lower := name.lower()) not in seen:
                seen.add(lower)
                yield name

    def __len__(self) -> int:
        return len({name.lower() for name, _ in self._items})

    def __repr__(self) -> str:
        return f"Headers({self._items!r})"


class OwnHeaders(Headers):
    """Headers that an application sets: the mesh's own names (``Mesh-*``, ``Nats-*``) are refused."""

    __slots__ = ()

    def add(self, name: str, value: Any) -> None:
        super().add(name if type(name) is str and name in _plain_names else _not_reserved(name), value)

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(_not_reserved(name), value)


class _NoHeaders(OwnHeaders):
    """The headers of a call that has none; shared, so nothing can be set."""

    __slots__ = ()

    def add(self, name: str, value: Any) -> None:
        raise ConfigError("these are the headers of no call in particular; make OwnHeaders() of your own")

    def __setitem__(self, name: str, value: Any) -> None:
        self.add(name, value)


#: What stands where nobody gave headers and nobody else can add any.
NO_HEADERS: OwnHeaders = _NoHeaders()


def is_header_name(name: str) -> bool:
    """Whether a header can be called so: a token of up to 256 characters."""
    return _TOKEN.fullmatch(name) is not None


def is_reserved_header(name: str) -> bool:
    """Whether only the mesh itself may set this header."""
    return name[:5].lower() in ("mesh-", "nats-")


def _not_reserved(name: Any) -> Any:
    if isinstance(name, str) and is_reserved_header(name):
        raise ConfigError(f"header {name!r} belongs to the mesh; choose a name without Mesh- or Nats-")
    return name


def _check_header_name(name: object) -> str:
    if not isinstance(name, str) or not is_header_name(name):
        raise ConfigError(f"header name {name!r}: use letters, digits and !#$%&'*+-.^_`|~, without spaces")
    return name


def _wire_value(name: str, value: object) -> str:
    binary = name.lower().endswith("-bin")
    if isinstance(value, bytes | bytearray | memoryview):
        if not binary:
            raise ConfigError(f"header {name!r}: bytes need a name that ends in '-bin'")
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(
            f"header {name!r}: a value must be str (or bytes under a '-bin' name), got {type(value).__name__}"
        )
    text = str(value)
    if (bad := CONTROL.search(text)) is not None:
        raise ConfigError(f"header {name!r}: {bad[0]!a} at position {bad.start()} cannot stand in a value")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"header {name!r}: the value is not valid Unicode at position {error.start}"
        ) from None
    if binary:
        try:
            base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise ConfigError(f"header {name!r}: a '-bin' name takes bytes (or their base64 text)") from None
    return text


def _user_value(name: str, value: str) -> Any:
    if not name.lower().endswith("-bin"):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return value.encode()  # a foreign peer's raw value: handed on rather than lost


class CallOptions(TypedDict, total=False):
    """The options of a call, all by keyword; see :meth:`nats_mesh.Mesh.call`. ``timeout`` in seconds."""

    timeout: float | None
    headers: HeadersLike | None
    raises: tuple[type[Exception], ...] | type[Exception]
    idempotent: bool | None
    idempotency_key: str | None
    priority: Priority | None
    codec: str | None


class Request(msgspec.Struct, eq=False):
    """One call on its way: the caller's side before it is sent, the instance's side before the handler.

    ``deadline`` is an instant of the process's monotonic clock (seconds). On the caller's side
    ``instance`` is empty; on the instance's side ``value`` is already decoded.
    """

    service: str
    endpoint: str
    caller: str
    namespace: str
    value: Any
    headers: Headers
    deadline: float
    returns: Any = Any
    codec: str = "json"
    raises: tuple[type[Exception], ...] = ()
    idempotent: bool | None = None
    idempotency_key: str | None = None
    priority: Priority | None = None
    subject: str = ""
    #: The client's own: whether there is nothing to say in headers but the time and the trace.
    plain: bool = False
    route: str = "all"
    instance: str = ""
    attempt: int = 1
    #: Free for interceptors to hand something on to each other within this call.
    state: dict[str, Any] | None = None
    #: The client's own: what it found out about the target, on its way around the interceptors.
    resolved: Any = None
    #: The client's own: how many attempts were sent in the end, hedges among them.
    sent: int = 0

    def __repr__(self) -> str:
        target = ".".join(part for part in (self.service, self.endpoint) if part)
        return f"<Request {self.caller} → {target} attempt {self.attempt}>"


class Reply(Generic[T]):
    """What came back: the decoded value and everything around it. ``duration_s`` is the caller's view.

    ``headers`` may be given as a function, so that nobody parses what nobody reads.
    """

    __slots__ = ("_headers", "attempts", "duration_s", "instance", "status", "value")

    def __init__(
        self,
        value: T,
        *,
        headers: Headers | Callable[[], Headers] | None = None,
        status: Status = Status.OK,
        instance: str = "",
        attempts: int = 1,
        duration_s: float = 0.0,
    ) -> None:
        self.value = value
        self._headers = headers
        self.status = status
        self.instance = instance
        self.attempts = attempts
        self.duration_s = duration_s

    @property
    def headers(self) -> Headers:
        """The reply's headers, without the mesh's own."""
        if not isinstance(self._headers, Headers):
            self._headers = Headers() if self._headers is None else self._headers()
        return self._headers

    def __repr__(self) -> str:
        return f"<Reply {self.status} from {self.instance or '?'} in {self.duration_s * 1e3:.2f} ms>"


#: The rest of the chain, as an interceptor sees it.
Next: TypeAlias = Callable[[Request], Awaitable[Reply[Any]]]


class Interceptor(Protocol):
    """``async def interceptor(request, proceed) -> Reply``: call ``proceed(request)`` once, or answer yourself."""

    def __call__(self, request: Request, proceed: Next, /) -> Awaitable[Reply[Any]]: ...


def label_of(function: object) -> str:
    """What people call a function."""
    return str(getattr(function, "__qualname__", None) or repr(function)[:80])


def check_interceptors(name: str, interceptors: Iterable[Interceptor]) -> tuple[Interceptor, ...]:
    """Return ``interceptors`` if each can be called, else raise :class:`ConfigError`; ``name`` is whose they are."""
    checked = tuple(interceptors)
    for each in checked:
        if not callable(each):
            raise ConfigError(
                f"{name}: interceptor {each!r} cannot be called; use 'async def f(request, proceed)'"
            )
        with contextlib.suppress(ValueError):  # a signature that cannot be read is no wrong one
            signature = inspect.signature(each)
            try:
                signature.bind(None, None)
            except TypeError as error:
                raise ConfigError(
                    f"{name}: interceptor {label_of(each)}{signature} cannot take (request, proceed): {error}"
                ) from None
    return checked

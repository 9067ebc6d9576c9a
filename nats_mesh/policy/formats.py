"""Further ways to write a single value: sizes and long periods, addresses and paths of HTTP, keys of signatures, words.

As in :mod:`nats_mesh.policy.kinds`, a number without its unit is refused rather than guessed.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any
from urllib.parse import urlsplit

from nats_mesh.core.redact import parse_path
from nats_mesh.policy.kinds import HEADER, TEXT, Kind, Scalar, shown, write_duration

__all__ = [
    "ALGORITHMS",
    "AMOUNT",
    "CLAIM",
    "CLAIMS",
    "FIELDS",
    "FILE",
    "HEADERS",
    "HOST",
    "HOSTS",
    "JWKS",
    "KEYS",
    "METHODS",
    "ORIGINS",
    "PATH",
    "PATHS",
    "PERCENT",
    "PERIOD",
    "PORT",
    "SIZE",
    "TEXTS",
    "URL",
    "word",
]

#: No amount of a quota is larger.
MAX_AMOUNT = 10**15
#: The longest period, in seconds: a year and a day.
MAX_PERIOD_S = 366 * 86_400.0
#: The largest size, in bytes.
MAX_SIZE = 1 << 40
_MAX_PATH = 1024
_MAX_JWKS = 64 * 1024

_PERIOD_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PERIOD = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB|GiB)")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()+,;=:@%-]+|\{[A-Za-z_][A-Za-z0-9_]{0,62}\}")
_KEY = r"caller|endpoint|header:[!#-'*+.0-9A-Z^-z|~-]{1,256}|claim:.{1,250}"

#: The methods of HTTP that a route can name.
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
#: Signatures by key pairs (RFC 7518 and RFC 8037). None with a shared secret: whoever can check could forge.
_ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
#: What a public key may consist of, by its type (RFC 7518, section 6; RFC 8037, section 2).
_PUBLIC = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
#: What only a private or a secret key has.
_SECRET = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")


def word(name: str, *words: str, several: bool = False) -> Kind:
    """One of ``words``; ``name`` says in an explanation what they are."""

    def parse(value: Scalar) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"must be one of {', '.join(words)}, got {shown(value)}")
        return value

    return Kind(name=name, parse=parse, write=str, schema={"enum": list(words)}, several=several)


def _period(value: Scalar) -> float:
    match = _PERIOD.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"must be a period with its unit, such as 10m, 24h or 30d, got {shown(value)}")
    seconds = float(match[1]) * _PERIOD_S[match[2]]
    if seconds > MAX_PERIOD_S:
        raise ValueError(f"must be at most {write_period(MAX_PERIOD_S)}, got {shown(value)}")
    return seconds


def write_period(seconds: float) -> str:
    """Seconds as a period is written: like a duration, with days."""
    return write_duration(seconds, days=True)


def _size(value: Scalar) -> int:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"must be a size with its unit, such as 64KiB or 1MiB, got {shown(value)}")
    size = int(match[1]) * _SIZES[match[2]]
    if size > MAX_SIZE:
        raise ValueError(f"must be at most {write_size(MAX_SIZE)}, got {shown(value)}")
    return size


def write_size(size: int) -> str:
    """Bytes in the largest unit that leaves a whole number."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _SIZES[unit] == 0:
            return f"{size // _SIZES[unit]}{unit}"
    return f"{size}B"


def _whole(low: int, high: int) -> Any:
    def parse(value: Scalar) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}, got {shown(value)}")
        return value

    return parse


def _claim(value: Scalar) -> str:
    return str(TEXT.parse(value))


def _key(value: Scalar) -> str:
    text = value if isinstance(value, str) else ""
    what, colon, name = text.partition(":")
    if text in ("caller", "endpoint"):
        return text
    if colon and what == "header":
        return f"header:{HEADER.parse(name)}"
    if colon and what == "claim" and name:
        return f"claim:{_claim(name)}"
    raise ValueError(f"must be caller, endpoint, header:NAME or claim:NAME, got {shown(value)}")


def _is_host(text: str) -> bool:
    return len(text) <= 253 and _HOST_NAME.fullmatch(text) is not None


def _host(value: Scalar) -> str:
    text = value if isinstance(value, str) else ""
    if not _is_host(text) and not _is_address(text.strip("[]")):
        raise ValueError(
            f"must be a host such as api.example.com, without scheme, port and path, got {shown(value)}"
        )
    return text.lower()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _host_pattern(value: Scalar) -> str:
    text = value if isinstance(value, str) else ""
    if text == "*" or (text.startswith("*.") and _is_host(text[2:])):
        return text.lower()
    try:
        return _host(value)
    except ValueError:
        said = "must be a host such as shop.example.com, *.example.com or *, without scheme, port and path"
        raise ValueError(f"{said}, got {shown(value)}") from None


def _split_url(value: Scalar, schemes: tuple[str, ...]) -> tuple[str, Any]:
    text = value if isinstance(value, str) else ""
    wrong = f"must be an address such as {schemes[-1]}://example.com, got {shown(value)}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(wrong) from None
    host = parts.hostname or ""
    good = parts.scheme in schemes and (_is_host(host) or _is_address(host)) and port != 0
    if not good or len(text) > _MAX_PATH or not text.isprintable() or any(char in " \\" for char in text):
        raise ValueError(wrong)
    if parts.username is not None or parts.password is not None:
        raise ValueError("must be an address without a password: a policy is read by everybody")
    return text, parts


def _url(value: Scalar) -> str:
    text, parts = _split_url(value, ("http", "https"))
    if parts.fragment:
        raise ValueError(f"must be an address without a #fragment, got {shown(value)}")
    return text


def _origin(value: Scalar) -> str:
    if value == "*":
        return "*"
    text, parts = _split_url(value, ("http", "https"))
    if parts.path or parts.query or parts.fragment:
        raise ValueError(f"must be an origin such as https://example.com, without a path, got {shown(value)}")
    return text


def _path(value: Scalar) -> str:
    text = value if isinstance(value, str) else ""
    said = "must be a path such as /orders, /orders/{id} or /static/*"
    if not text.startswith("/") or len(text) > _MAX_PATH:
        raise ValueError(f"{said}, got {shown(value)}")
    names: list[str] = []
    segments = text[1:].split("/")
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if last and segment in ("", "*"):
            continue
        if _SEGMENT.fullmatch(segment) is None or segment in (".", ".."):
            raise ValueError(f"{said}, got {shown(value)}")
        if segment.startswith("{"):
            names.append(segment)
    if len(set(names)) < len(names):
        raise ValueError(f"has a name in braces twice: {shown(value)}")
    return text


def _field(value: Scalar) -> str:
    """A path in a body, as :mod:`nats_mesh.core.redact` reads it."""
    text = value if isinstance(value, str) else ""
    parse_path(text)
    return text


def _file(value: Scalar) -> str:
    text = value if isinstance(value, str) else ""
    if not text or len(text) > _MAX_PATH or not text.isprintable():
        raise ValueError(f"must be the path of a file, got {shown(value)}")
    return text


def _jwks(value: Scalar) -> str:
    """A set of public keys (RFC 7517) as JSON text."""
    if not isinstance(value, str) or len(value) > _MAX_JWKS:
        limit = f"of up to {_MAX_JWKS // 1024} KiB"
        raise ValueError(
            f"must be a set of keys as JSON text {limit}, such as '{{\"keys\": […]}}', got {shown(value)}"
        )
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError(f"is no JSON: {shown(value)}") from None
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) for key in keys):
        raise ValueError('must have "keys", a list of at least one key')
    for index, key in enumerate(keys):
        kind = key.get("kty")
        secret = [name for name in _SECRET if name in key]
        if secret or kind == "oct":
            raise ValueError(
                f"has a private or secret key (keys[{index}]): a policy is read by everybody. Give the public key "
                "alone; that secret is no longer one"
            )
        needed = _PUBLIC.get(kind) if isinstance(kind, str) else None
        if needed is None:
            raise ValueError(f"has a key of an unknown type (keys[{index}].kty): one of {', '.join(_PUBLIC)}")
        missing = [name for name in needed if not isinstance(key.get(name), str)]
        if missing:
            raise ValueError(f"has a key without its {' and '.join(missing)} (keys[{index}])")
    return value


PERIOD = Kind(
    name="period", suffix="_s", parse=_period, write=write_period,
    schema={"type": "string", "pattern": f"^{_PERIOD.pattern}$", "examples": ["10m", "24h", "30d"]},
)  # fmt: skip
SIZE = Kind(
    name="size", suffix="_bytes", parse=_size, write=write_size,
    schema={"type": "string", "pattern": f"^{_SIZE.pattern}$", "examples": ["64KiB", "1MiB"]},
)  # fmt: skip
AMOUNT = Kind(
    name="whole number", parse=_whole(1, MAX_AMOUNT), write=str,
    schema={"type": "integer", "minimum": 1, "maximum": MAX_AMOUNT},
)  # fmt: skip
PERCENT = Kind(
    name="whole number from 0 to 100", parse=_whole(0, 100), write=str,
    schema={"type": "integer", "minimum": 0, "maximum": 100},
)  # fmt: skip
PORT = Kind(
    name="port", parse=_whole(1, 65_535), write=str,
    schema={"type": "integer", "minimum": 1, "maximum": 65_535},
)  # fmt: skip
TEXTS = Kind(name="list of texts", parse=TEXT.parse, write=str, schema=TEXT.schema, several=True)
CLAIM = Kind(name="name of a claim", parse=_claim, write=str, schema=TEXT.schema)
CLAIMS = Kind(name="list of names of claims", parse=_claim, write=str, schema=TEXT.schema, several=True)
HEADERS = Kind(
    name="list of names of headers", parse=HEADER.parse, write=str, schema=HEADER.schema, several=True
)
FIELDS = Kind(
    name="list of paths in a body", parse=_field, write=str, several=True,
    schema={"type": "string", "minLength": 1, "maxLength": 256, "examples": ["card.number", "**.iban"]},
)  # fmt: skip
KEYS = Kind(
    name="list of keys", parse=_key, write=str, several=True,
    schema={"type": "string", "pattern": f"^({_KEY})$", "examples": ["caller", "endpoint", "header:x-tenant"]},
)  # fmt: skip
HOST = Kind(
    name="host", parse=_host, write=str, schema={"type": "string", "pattern": "^[A-Za-z0-9.:\\[\\]-]{1,253}$"}
)
HOSTS = Kind(
    name="list of hosts", parse=_host_pattern, write=str, several=True,
    schema={
        "type": "string", "pattern": "^(\\*|(\\*\\.)?[A-Za-z0-9.:\\[\\]-]{1,253})$",
        "examples": ["shop.example.com", "*.example.com"],
    },
)  # fmt: skip
URL = Kind(
    name="address (http or https)", parse=_url, write=str,
    schema={"type": "string", "pattern": "^https?://[^\\s\\\\@#/]+(/[^\\s\\\\#]*)?$", "maxLength": _MAX_PATH},
)  # fmt: skip
ORIGINS = Kind(
    name="list of origins", parse=_origin, write=str, several=True,
    schema={"type": "string", "pattern": "^(\\*|https?://[^\\s\\\\@#/?]+)$", "examples": ["https://example.com"]},
)  # fmt: skip
PATH = Kind(
    name="path", parse=_path, write=str,
    schema={
        "type": "string", "pattern": f"^/(({_SEGMENT.pattern})/)*({_SEGMENT.pattern}|\\*)?$",
        "maxLength": _MAX_PATH, "examples": ["/orders/{id}", "/static/*"],
    },
)  # fmt: skip
PATHS = Kind(name="list of paths", parse=_path, write=str, schema=PATH.schema, several=True)
FILE = Kind(
    name="path of a file", parse=_file, write=str,
    schema={"type": "string", "minLength": 1, "maxLength": _MAX_PATH},
)  # fmt: skip
JWKS = Kind(
    name="set of public keys as JSON text", parse=_jwks, write=str,
    schema={"type": "string", "maxLength": _MAX_JWKS, "pattern": "keys"},
)  # fmt: skip
METHODS = word("list of methods of HTTP", *_METHODS, several=True)
ALGORITHMS = word("list of algorithms", *_ALGORITHMS, several=True)

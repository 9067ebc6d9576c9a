"""How a single value is written in a policy: durations, shares, rates, numbers, names.

A value without its unit is refused rather than guessed: `timeout: 5` is five seconds to one reader and five
milliseconds to the next. What a value may be in its place (above zero, at most ten) is said once, by the rules
in :mod:`nats_mesh.core.rules`; here it is only made into a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, get_args

import msgspec

from nats_mesh.core.deadline import MAX_TIMEOUT_S
from nats_mesh.core.matcher import check_pattern, check_regex
from nats_mesh.core.presence import SEMVER, check_version
from nats_mesh.core.rules import BALANCERS, RetryCondition
from nats_mesh.core.shares import SHARE_PATTERN, read_share, share_text
from nats_mesh.errors import ConfigError, Status
from nats_mesh.model import check_name, is_header_name, is_reserved_header

__all__ = [
    "BALANCER",
    "CONDITION",
    "COUNT",
    "DURATION",
    "FLAG",
    "HEADER",
    "INTEGER",
    "NAME",
    "NUMBER",
    "PATTERNS",
    "RATE",
    "REGEX",
    "SHARE",
    "STATUS",
    "TEXT",
    "VERSION",
    "Kind",
    "Scalar",
    "about",
    "shown",
    "write_duration",
]

#: What a single value of a file is before anybody knows what it should be.
Scalar: TypeAlias = "bool | int | float | str | None"

#: No whole number in a policy is larger.
MAX_COUNT = 1_000_000
#: The largest whole number of which a header may be asked, and minus that the smallest.
MAX_INTEGER = 2**53
_MAX_TEXT = 256

#: What a call can be failed with.
_STATUSES = tuple(status.value for status in Status if status is not Status.OK)

_UNITS_S = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(us|µs|ms|s|m|h)")
_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)/(s|m|h)")


#: A token that neither belongs to the mesh nor carries bytes, for JSON Schema.
_HEADER_PATTERN = (
    "^(?!([Mm][Ee][Ss][Hh]|[Nn][Aa][Tt][Ss])-)(?!.*-[Bb][Ii][Nn]$)[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$"
)


class Kind(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One way to write a value. ``parse`` makes it, or raises :class:`ValueError` with the reason; ``write`` is
    its opposite; ``suffix`` is what the name of such a number ends in, in the rules; ``schema`` for JSON Schema."""

    name: str
    parse: Callable[[Scalar], Any]
    write: Callable[[Any], str]
    schema: Mapping[str, Any]
    suffix: str = ""
    #: In the field stands a list of such values.
    several: bool = False


def shown(value: object) -> str:
    """A value of a file for a message: short, and without anything that could forge a line of a log."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = ascii(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def about(
    text: str,
    kind: Kind | None = None,
    *,
    off: bool = False,
    default: str = "",
    required: bool = False,
    key: Kind | None = None,
) -> msgspec.Meta:
    """Annotate a field of the schema: what it says, how it is written, whether it may be ``off``, and its default in
    words where the rules have none. ``key`` is how the names are written of what is held by name."""
    return msgspec.Meta(
        description=text,
        extra={"kind": kind, "off": off, "default": default, "required": required, "key": key},
    )


def _measured(pattern: re.Pattern[str], what: str, value: Scalar) -> tuple[float, str]:
    match = pattern.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"must be {what}, got {shown(value)}")
    return float(match[1]), match[2] if pattern.groups > 1 else ""


def _duration(value: Scalar) -> float:
    number, unit = _measured(_DURATION, "a duration with its unit, such as 250ms, 2s or 5m", value)
    seconds = number * _UNITS_S[unit]
    if seconds > MAX_TIMEOUT_S:
        raise ValueError(f"must be at most {write_duration(MAX_TIMEOUT_S)}, got {shown(value)}")
    return seconds


def _share(value: Scalar) -> float:
    share = read_share(value) if isinstance(value, str) else None
    if share is None:
        raise ValueError(f"must be a share with its sign, such as 10%, got {shown(value)}")
    if share > 1.0:
        raise ValueError(f"must be at most 100%, got {shown(value)}")
    return share


def _rate(value: Scalar) -> float:
    number, unit = _measured(_RATE, "a rate, such as 100/s or 30/m", value)
    return number / _UNITS_S[unit]


def _count(value: Scalar) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise ValueError(f"must be a whole number up to {MAX_COUNT}, got {shown(value)}")
    return value


def _integer(value: Scalar) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise ValueError(f"must be a whole number, got {shown(value)}")
    return value


def _number(value: Scalar) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"must be a number, got {shown(value)}")
    return float(value)


def _flag(value: Scalar) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, got {shown(value)}")
    return value


def _text(value: Scalar) -> str:
    if isinstance(value, bool | int | float):
        raise ValueError(f"must be text, got {shown(value)}: put it in quotes")
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT or not value.isprintable():
        raise ValueError(f"must be text of up to {_MAX_TEXT} printable characters, got {shown(value)}")
    return value


def _name(value: Scalar) -> str:
    try:
        return check_name("this", _text(value))
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("this name ")) from None


def _pattern(value: Scalar) -> str:
    return check_pattern(_text(value))


def _regex(value: Scalar) -> str:
    return check_regex(_text(value))


def _version(value: Scalar) -> str:
    try:
        return check_version(_text(value))
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("version ")) from None


def _header(value: Scalar) -> str:
    """A header of the application's whose value is text, as that is what is hashed."""
    if not isinstance(value, str) or not is_header_name(value):
        raise ValueError(f"must be the name of a header, got {shown(value)}")
    if is_reserved_header(value):
        raise ValueError(
            f"must be a header of the application's, got {shown(value)}: names that begin with Mesh- or Nats- "
            "belong to the mesh; give what tells callers' calls apart a header of its own"
        )
    if value.lower().endswith("-bin"):
        raise ValueError(
            f"must be a header whose value is text, got {shown(value)}: names that end in -bin carry bytes; "
            "use a header without that ending"
        )
    return value.lower()


def _one_of(words: tuple[str, ...]) -> Callable[[Scalar], str]:
    def parse(value: Scalar) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}, got {shown(value)}")
        return str(value)

    return parse


def write_duration(seconds: float, *, days: bool = False) -> str:
    """Seconds as a policy writes them: in the largest unit (``days``, where they may be written) that leaves a whole
    number, else in s or ms."""
    for unit, factor in (("d", 86_400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0)):
        if unit == "d" and not days:
            continue
        if seconds >= factor and seconds % factor == 0.0:
            return f"{seconds / factor:.0f}{unit}"
    if seconds >= 1.0:
        return f"{_digits(seconds)}s"
    return f"{_digits(seconds * 1e3)}ms" if seconds else "0s"


#: So many digits of a share are written where it is to be read again: more than a share that was read can have lost.
_EXACT = 12


def _digits(value: float) -> str:
    """A number without an exponent and without zeros at its end."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _lower(value: Any) -> str:
    return str(value).lower()


DURATION = Kind(
    name="duration", suffix="_s", parse=_duration, write=write_duration,
    schema={"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["250ms", "2s", "5m"]},
)  # fmt: skip
SHARE = Kind(
    name="share", parse=_share, write=lambda value: share_text(value, _EXACT),
    schema={"type": "string", "pattern": f"^{SHARE_PATTERN}$", "examples": ["10%"]},
)  # fmt: skip
RATE = Kind(
    name="rate", suffix="_per_s", parse=_rate, write=lambda value: f"{_digits(value)}/s",
    schema={"type": "string", "pattern": f"^{_RATE.pattern}$", "examples": ["100/s"]},
)  # fmt: skip
COUNT = Kind(
    name="whole number", parse=_count, write=str,
    schema={"type": "integer", "minimum": 0, "maximum": MAX_COUNT},
)  # fmt: skip
NUMBER = Kind(name="number", parse=_number, write=_digits, schema={"type": "number"})
FLAG = Kind(name="true or false", parse=_flag, write=_lower, schema={"type": "boolean"})
TEXT = Kind(
    name="text", parse=_text, write=str, schema={"type": "string", "minLength": 1, "maxLength": _MAX_TEXT}
)
NAME = Kind(
    name="name", parse=_name, write=str,
    schema={"type": "string", "pattern": "^(?!(all|anonymous)$)[A-Za-z0-9_-]{1,63}$"},
)  # fmt: skip
NAMES = Kind(name="list of names", parse=_name, write=str, schema=NAME.schema, several=True)
INTEGER = Kind(name="whole number", parse=_integer, write=str, schema={"type": "integer"})
PATTERNS = Kind(
    name="list of names or patterns", parse=_pattern, write=str, several=True,
    schema={
        "type": "string", "pattern": "^(\\*|\\*?[A-Za-z0-9_-]{1,63}|[A-Za-z0-9_-]{1,63}\\*)$",
        "examples": ["web", "web-*", "*"],
    },
)  # fmt: skip
REGEX = Kind(name="RE2 regular expression", parse=_regex, write=str, schema=TEXT.schema)
STATUS = Kind(name="name of a status", parse=_one_of(_STATUSES), write=str, schema={"enum": list(_STATUSES)})
VERSION = Kind(
    name="version", parse=_version, write=str,
    schema={"type": "string", "pattern": f"^{SEMVER}$", "examples": ["2.0.0"]},
)  # fmt: skip
HEADER = Kind(
    name="name of a header", parse=_header, write=str,
    schema={"type": "string", "pattern": _HEADER_PATTERN},
)  # fmt: skip
BALANCER = Kind(
    name="name of a balancer", parse=_one_of(BALANCERS), write=str, schema={"enum": list(BALANCERS)}
)
CONDITION = Kind(
    name="list of conditions", parse=_one_of(get_args(RetryCondition)), write=str,
    schema={"enum": list(get_args(RetryCondition))}, several=True,
)  # fmt: skip

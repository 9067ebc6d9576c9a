"""One call as an instance saw it, without what was said in it: what recordings are made of.

The bounds stand beside each field and hold wherever an envelope is decoded. What an application's headers hold is shown
only as far as it is no secret: a header whose name or value looks like one keeps its name and loses its value, at the
instance, before anything is sent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from typing import Annotated, Final, TypeAlias

import msgspec

from nats_mesh.core.presence import Count, Instant, Name, Version
from nats_mesh.core.router import position
from nats_mesh.errors import ConfigError

__all__ = [
    "HANDED_ON",
    "HIDDEN",
    "MAX_HEADERS",
    "MAX_NAMES",
    "MAX_VALUE",
    "Envelope",
    "HeaderNames",
    "RecordedCall",
    "Share",
    "check_header_names",
    "hashed_key",
    "hidden_text",
    "is_secret",
    "is_whole",
    "kept_headers",
    "names_secret",
    "no_secret_names",
    "no_secret_values",
    "sampled",
    "small",
]

#: Stands for the value of a header that looks like a secret.
HIDDEN: Final = "***"
#: How many headers of a call are kept, and how much of a value (characters); what is cut ends in ``…``.
MAX_HEADERS: Final = 32
MAX_VALUE: Final = 256
#: How many names an observer can ask for.
MAX_NAMES: Final = 32
_CUT: Final = "…"
_MAX_NAME: Final = 256
_LONGEST_S: Final = 1e7

#: What the mesh itself hands on from call to call: never kept, as it is not what a caller's rules saw.
HANDED_ON: Final = frozenset({"traceparent", "tracestate", "baggage", "content-type"})
_SECRET_NAMES: Final = (
    "auth(?!or(?!i[sz]a))|cookie|token|secret|passw|pwd|key|credential|signature|session|jwt|bearer"
)
#: These are held against texts in small letters (:func:`small`): patterns that ignore case take several times as long.
_is_secret = re.compile(_SECRET_NAMES).search
#: Values that are secrets whatever their header is called: credentials of HTTP (RFC 9110), tokens of JOSE (RFC 7515).
_holds_credential = re.compile(r"\b(?:bearer|basic|digest|negotiate) ++[a-z0-9._~+/=-]{8}").search
#: The first part of what may be such a token, and how it begins. In one pattern each place where one may begin would
#: have the rest of a long text looked through.
_first_parts = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{9,}+(?=\.[A-Za-z0-9_-]++\.)").finditer
_is_token = re.compile(r"\beyj[a-z0-9_-]{6}").search
#: A name that looks like a secret's, and a value behind it, in a text of whatever form.
_names_secret = re.compile(rf"(?:{_SECRET_NAMES})[a-z0-9_.-]{{0,40}}+[\"']?[ \t]{{0,8}}+[=:>]").search
#: In small letters: one of each stands in every text that the patterns above find something in.
_NAME_WORDS: Final = (
    "auth", "cookie", "token", "secret", "passw", "pwd", "key", "credential", "signature", "session", "jwt", "bearer",
)  # fmt: skip
_VALUE_WORDS: Final = ("bearer ", "basic ", "digest ", "negotiate ", "eyj")
#: What patterns that ignore case take for a letter of these words, beside the large ones.
_LIKE: Final = (("\u0130", "i"), ("\u0131", "i"), ("\u017f", "s"), ("\u212a", "k"))
_is_header_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}").fullmatch
#: What no text of an envelope holds: it could forge a line where it is shown.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TEXT: Final = r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z"

Share: TypeAlias = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
_Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=_LONGEST_S)]
_Word = Annotated[str, msgspec.Meta(pattern=r"\A[a-z-]{0,40}\Z")]
_Header = tuple[
    Annotated[str, msgspec.Meta(pattern=_TEXT, max_length=_MAX_NAME)],
    Annotated[str, msgspec.Meta(pattern=_TEXT, max_length=MAX_VALUE)],
]
#: Names of headers in lower case; ``None``: every header.
HeaderNames: TypeAlias = (
    Annotated[
        tuple[Annotated[str, msgspec.Meta(pattern=r"\A[!#$%&'*+.^_`|~0-9a-z-]{1,256}\Z")], ...],
        msgspec.Meta(max_length=MAX_NAMES),
    ]
    | None
)


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call that has ended, at the instance: one attempt of its caller.

    ``at`` is the wall time of its arrival. ``route`` says how it came: ``all`` or a subset by a queue group, ``direct``
    to this instance, ``plain`` on a subject of the endpoint's own. ``mirror``: it is a copy whose answer nobody waits
    for. ``duration_s`` is from arrival to end, of which ``queue_s`` passed before it was looked at, and an injected
    delay held it for ``fault_s`` then. ``refused`` says why it never ran, where it did not; ``injected`` what an
    operator did to it (``delay``, ``abort``). ``trace`` is its trace (32 digits, or empty), ``key`` a hash of its
    idempotency key (16 digits; empty without one). ``headers`` are the application's that were asked for, with
    :data:`HIDDEN` in the place of secrets; ``cut``: some found no room.
    """

    at: Instant
    endpoint: Name
    caller: Name
    route: Name
    status: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z_]{1,40}\Z")]
    duration_s: _Seconds
    queue_s: _Seconds = 0.0
    fault_s: _Seconds = 0.0
    attempt: Annotated[int, msgspec.Meta(ge=1, le=2**31)] = 1
    mirror: bool = False
    refused: _Word = ""
    injected: _Word = ""
    bytes_in: Count = 0
    bytes_out: Count = 0
    trace: Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{32})?\Z")] = ""
    key: Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{16})?\Z")] = ""
    headers: Annotated[tuple[_Header, ...], msgspec.Meta(max_length=MAX_HEADERS)] = ()
    cut: bool = False


class RecordedCall(Envelope, frozen=True, kw_only=True, omit_defaults=True):
    """A line of a recording: an envelope, and whose it is. ``concurrency`` is how many calls of the endpoint its
    instance takes at a time by its own declaration, where it said so."""

    service: Name
    instance: Name
    version: Version
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=2**31)] | None = None


def is_secret(name: str) -> bool:
    """Whether the name of a header says that its value is nobody's business."""
    return _is_secret(small(name)) is not None


def check_header_names(names: Iterable[str]) -> tuple[str, ...]:
    """These names in lower case, each once; :class:`ConfigError` for one that is none, or for too many."""
    found = tuple(dict.fromkeys([name.lower() for name in names]))
    for name in found:
        if _is_header_name(name) is None:
            raise ConfigError(f"{name[:80]!r} is no name of a header")
    if len(found) > MAX_NAMES:
        raise ConfigError(f"{len(found)} headers are too many: name up to {MAX_NAMES}, or take all of them")
    return found


def hidden_text(text: str) -> str:
    """A text as it may be shown: :data:`HIDDEN` where it holds a credential, whatever else is in it."""
    return HIDDEN if _holds_secret(text) else text


def names_secret(text: str) -> bool:
    """Whether a text of unknown form has a name in it that looks like a secret's, with a value: `password=x`."""
    text = small(text)
    return not no_secret_names(text) and _names_secret(text) is not None


def small(text: str) -> str:
    """A text in small letters, as far as what looks like a secret depends on it."""
    if not text.isascii():
        for letter, like in _LIKE:
            text = text.replace(letter, like)
    return text.lower()


def no_secret_names(small_text: str) -> bool:
    """Whether no name of a secret can stand anywhere in a text of which :func:`small` made this. To find a word costs a
    hundredth of what a pattern costs, and most texts have none."""
    return not any(word in small_text for word in _NAME_WORDS)


def no_secret_values(small_text: str) -> bool:
    """Whether no credential can stand anywhere in a text of which :func:`small` made this."""
    return not any(word in small_text for word in _VALUE_WORDS)


def _holds_secret(text: str) -> bool:
    in_small = small(text)
    if no_secret_values(in_small):
        return False
    if _holds_credential(in_small) is not None:
        return True
    # In the text as it is: a letter that small() takes for another one would be part of the token behind it.
    return any(_is_token(part[0].lower()) is not None for part in _first_parts(text))


def kept_headers(
    pairs: Iterable[tuple[str, str]], wanted: Collection[str] | None, hidden: Collection[str] = ()
) -> tuple[tuple[tuple[str, str], ...], bool]:
    """What may be shown of an application's headers, by the names that are ``wanted`` (``None``: all), and whether some
    found no room. ``hidden``: names in lower case whose values are never shown, beside those that look like secrets."""
    kept: list[tuple[str, str]] = []
    for name, value in pairs:
        lower = name.lower()
        if lower in HANDED_ON or (wanted is not None and lower not in wanted):
            continue
        if len(kept) == MAX_HEADERS or len(name) > _MAX_NAME:
            return tuple(kept), True
        value = _CONTROL.sub(" ", value)
        if lower in hidden or is_secret(lower) or _holds_secret(value):
            value = HIDDEN
        elif len(value) > MAX_VALUE:
            value = f"{value[: MAX_VALUE - 1]}{_CUT}"
        kept.append((lower, value))
    return tuple(kept), False


def is_whole(value: str) -> bool:
    """Whether a kept value is what the header held."""
    return value != HIDDEN and not (len(value) == MAX_VALUE and value.endswith(_CUT))


def hashed_key(key: bytes) -> str:
    """What is shown of an idempotency key: enough to tell two from each other."""
    return hashlib.blake2b(key, digest_size=8, person=b"mesh-tap").hexdigest()


def sampled(trace: str, share: float) -> bool:
    """Whether the calls of a trace belong to a sample of ``share`` of them: the same everywhere, so that traces stay
    whole, and a smaller sample is part of every larger one."""
    return share >= 1.0 or position(trace, "sample") < share

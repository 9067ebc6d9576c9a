"""Conditions of Istio's access rules, as conditions of ours.

Each is a list of alternatives (:data:`Terms`): none where no call can meet it, one without a term where every call
does. What cannot be asked of a call is decided by what the rule does. In a rule that allows it is met by nobody
(``widen`` is false), in one that denies by everybody (``widen`` is true), so that nothing is ever let in that Istio
would refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from nats_mesh.core.matcher import matches_pattern

__all__ = [
    "ANYBODY",
    "NOBODY",
    "Terms",
    "Unknown",
    "both",
    "callers_of",
    "namespaces_of",
    "texts_of",
    "tokens_of",
]

#: One set of terms, all of which a call must meet: `callers` and `notCallers` (lists of patterns), `headers` and
#: `claims`.
Terms = dict[str, Any]
ANYBODY: Final[list[Terms]] = [{}]
NOBODY: Final[list[Terms]] = []

#: The name of callers without an identity.
_ANONYMOUS: Final = "anonymous"
_PRINCIPAL = re.compile(r"([^/*]+)/ns/([^/*]+)/sa/([^/*]+)")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
_SPECIAL = re.compile(r"([\\.+*?()|\[\]{}^$])")
_MAX_TEXT = 256
_DOMAIN: Final = "cluster.local"

#: Tells that a value is not asked for as it stands, and why.
Unknown = Callable[[str, str], None]


class _Who(NamedTuple):
    """Callers that a value means: by a ``pattern``, or everybody who has an identity (``any``), or nobody here. Where
    it
    cannot be told (``unknown``), ``pattern`` has at least all of them; empty: it may be anybody."""

    pattern: str = ""
    any: bool = False
    unknown: bool = False
    why: str = ""


def callers_of(
    values: Sequence[str], namespace: str, said: Unknown, *, negate: bool, widen: bool, accounts: bool = False
) -> list[Terms]:
    """Callers by Istio's principals, or with ``accounts`` by service accounts; ``negate``: all but these."""
    find = _account if accounts else _principal
    return _callers([(value, find(value, namespace)) for value in values], said, negate=negate, widen=widen)


def namespaces_of(
    values: Sequence[str], namespace: str, said: Unknown, *, negate: bool, widen: bool
) -> list[Terms]:
    """Callers by their namespace: on the mesh that is always the namespace of the policy."""
    found = [(value, _Who(any=True) if _fits(value, namespace) else _Who(why=_ELSEWHERE)) for value in values]
    return _callers(found, said, negate=negate, widen=widen)


_ELSEWHERE: Final = "no caller of another namespace comes here"


def _callers(found: Sequence[tuple[str, _Who]], said: Unknown, *, negate: bool, widen: bool) -> list[Terms]:
    patterns: list[str] = []
    for value, who in found:
        if who.any:
            return [{"callers": (_ANONYMOUS,)}] if negate else [{"notCallers": (_ANONYMOUS,)}]
        if not who.unknown:
            if who.pattern:
                patterns.append(who.pattern)
            elif not negate:
                said(value, who.why)
            continue
        said(value, who.why)
        # What may be meant counts where that lets fewer calls in: denied, or left out of what is allowed.
        if widen != negate:
            if not who.pattern:
                return ANYBODY if widen else NOBODY
            patterns.append(who.pattern)
    if negate:
        return [{"notCallers": tuple(dict.fromkeys(patterns))}] if patterns else ANYBODY
    return [{"callers": tuple(dict.fromkeys(patterns))}] if patterns else NOBODY


def _principal(value: str, namespace: str) -> _Who:
    if value == "*":
        return _Who(any=True)
    own = f"{_DOMAIN}/ns/{namespace}/sa/"
    if value.startswith("*"):
        return _by_end(value[1:], own)
    if value.endswith("*"):
        return _by_beginning(value[:-1], own)
    match = _PRINCIPAL.fullmatch(value.removeprefix("spiffe://"))
    if match is None:
        return _Who(unknown=True, why="is no principal such as cluster.local/ns/default/sa/web")
    domain, where, name = match.groups()
    if where != namespace:
        return _Who(why=_ELSEWHERE)
    if _NAME.fullmatch(name) is None:
        return _Who(unknown=True, why="is no name that a caller can have")
    if domain != _DOMAIN:
        return _Who(
            pattern=name, unknown=True, why=f"is of another trust domain than {_DOMAIN}: it may be anybody"
        )
    return _Who(pattern=name)


def _by_beginning(text: str, own: str) -> _Who:
    if own.startswith(text):
        return _Who(any=True)
    if text.startswith(own):
        name = text.removeprefix(own)
        if _NAME.fullmatch(name):
            return _Who(pattern=f"{name}*")
        return _Who(unknown=True, why="is no name that a caller can have")
    if text.startswith(f"{_DOMAIN}/"):
        return _Who(why=_ELSEWHERE)
    return _Who(unknown=True, why="is of another trust domain: it may be anybody")


def _by_end(text: str, own: str) -> _Who:
    head, slash, name = text.rpartition("/")
    if _NAME.fullmatch(name) is None:
        return _Who(unknown=True, why="is no name that a caller can have")
    if not slash:
        return _Who(pattern=f"*{name}")
    if own.endswith(f"{head}/"):
        return _Who(pattern=name)
    return _Who(pattern=name, unknown=True, why="may be of another namespace")


def _account(value: str, namespace: str) -> _Who:
    where, slash, name = value.rpartition("/")
    if slash and where != namespace:
        return _Who(why=_ELSEWHERE)
    if _NAME.fullmatch(name) is None:
        return _Who(unknown=True, why="is no name that a caller can have")
    return _Who(pattern=name)


def _fits(pattern: str, text: str) -> bool:
    if pattern.startswith("*"):
        return text.endswith(pattern[1:])
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def texts_of(
    field: str, name: str, values: Sequence[str], said: Unknown, *, negate: bool, widen: bool
) -> list[Terms]:
    """Calls whose header or claim ``name`` (``field`` says which of them) has one of ``values``; ``negate``: none."""
    if "*" in values:
        return [{field: {name: {"absent" if negate else "present": True}}}]
    condition: dict[str, Any]
    if len(values) == 1:
        condition = _single(values[0])
    else:
        condition = {"regex": "|".join([_as_regex(value) for value in values])}
    (text,) = condition.values()
    if not text or len(text) > _MAX_TEXT or not text.isprintable():
        said(", ".join(values)[:80], f"cannot be asked for: at most {_MAX_TEXT} printable characters can")
        return ANYBODY if widen else NOBODY
    if negate:
        condition["invert"] = True
    return [{field: {name: condition}}]


def _single(value: str) -> dict[str, Any]:
    if value.startswith("*"):
        return {"suffix": value[1:]}
    return {"prefix": value[:-1]} if value.endswith("*") else {"exact": value}


def _as_regex(value: str) -> str:
    ((how, text),) = _single(value).items()
    escaped = _SPECIAL.sub(r"\\\1", text)
    return {"exact": escaped, "prefix": f"{escaped}.*", "suffix": f".*{escaped}"}[how]


def tokens_of(
    values: Sequence[str], issuers: Sequence[str], said: Unknown, *, negate: bool, widen: bool
) -> list[Terms]:
    """Calls with the token of one of Istio's request principals, `issuer/subject`; ``negate``: of none of them."""
    if "*" in values:
        return [{"claims": {"iss": {"absent" if negate else "present": True}}}]
    found = ANYBODY if negate else NOBODY
    for value in values:
        pairs = _token(value, issuers)
        if not pairs:
            said(value, "is no principal of a token such as issuer/subject")
            if widen != negate:
                return ANYBODY if widen else NOBODY
            continue
        if not negate:
            found = [*found, *({"claims": pair} for pair in pairs)]
            continue
        for pair in pairs:
            out = [{"claims": {claim: {**condition, "invert": True}}} for claim, condition in pair.items()]
            found, clashed = both(found, out, widen=widen)
            if clashed:
                said(value, "stands beside another one, and one condition per claim can be asked for")
    return found


def _token(value: str, issuers: Sequence[str]) -> list[dict[str, Any]]:
    """The claims of tokens that a request principal means: several where it cannot be told where the issuer ends."""
    if value.startswith("*"):
        head, slash, subject = value[1:].rpartition("/")
        return [{"sub": {"exact": subject}}] if slash and not head and subject else []
    if value.endswith("*"):
        issuer = value[:-1]
        return (
            [{"iss": {"exact": issuer[:-1]}}]
            if issuer.endswith("/") and len(issuer) > 1 and issuer[:-1] in issuers
            else []
        )
    for issuer in issuers:
        if value.startswith(f"{issuer}/") and len(value) > len(issuer) + 1:
            return [{"iss": {"exact": issuer}, "sub": {"exact": value[len(issuer) + 1 :]}}]
    scheme = value.find("://")
    start = scheme + 2 if scheme >= 0 else 0
    cuts = [at for at, char in enumerate(value) if char == "/" and at > start and 0 < at < len(value) - 1]
    if not 0 < len(cuts) <= 8:
        return []
    return [{"iss": {"exact": value[:at]}, "sub": {"exact": value[at + 1 :]}} for at in cuts]


def both(
    one: Sequence[Terms], other: Sequence[Terms], *, widen: bool, most: int = 1000
) -> tuple[list[Terms], bool]:
    """Calls that meet an alternative of each; and whether two conditions could not be put into one. Then the rule holds
    for more calls (``widen``) or for fewer. :class:`OverflowError` beyond ``most`` alternatives."""
    found: list[Terms] = []
    clashed = False
    for left in one:
        for right in other:
            merged, clash = _merged(left, right, widen=widen)
            clashed = clashed or clash
            if merged is not None and (len(other) == 1 or merged not in found):
                found.append(merged)
            if len(found) > most:
                raise OverflowError
    return found, clashed


def _merged(left: Terms, right: Terms, *, widen: bool) -> tuple[Terms | None, bool]:
    merged: Terms = dict(left)
    clashed = False
    for field, value in right.items():
        if field not in merged:
            merged[field] = value
        elif field == "notCallers":
            merged[field] = tuple(dict.fromkeys((*merged[field], *value)))
        elif field == "callers":
            common = _common(merged[field], value)
            if common is None:
                clashed = True
            elif not common:
                return None, clashed
            else:
                merged[field] = common
        else:
            inside = dict(merged[field])
            for name, condition in value.items():
                clashed = clashed or inside.get(name, condition) != condition
                inside.setdefault(name, condition)
            merged[field] = inside
    return (None if clashed and not widen else merged), clashed


def _common(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...] | None:
    """Patterns of whoever is in both lists; ``None`` where there is no such pattern."""
    found: list[str] = []
    for left in one:
        for right in other:
            if _within(left, right):
                found.append(left)
            elif _within(right, left):
                found.append(right)
            elif "*" in left and "*" in right and left.startswith("*") != right.startswith("*"):
                return None
    return tuple(dict.fromkeys(found))


def _within(pattern: str, other: str) -> bool:
    """Whether everybody whom ``pattern`` means is meant by ``other``, too."""
    if "*" not in pattern:
        return matches_pattern(other, pattern)
    if pattern.startswith("*") and len(pattern) > 1:
        return other.startswith("*") and pattern.endswith(other[1:])
    return other == "*" or (other.endswith("*") and pattern[:-1].startswith(other[:-1]))

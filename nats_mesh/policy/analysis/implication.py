"""Whether every call that meets one condition meets another, too: what makes a rule below another out of reach.

It answers yes only where that follows from what is written, whatever the call: a no means "not surely". Headers may
stand several times, and a condition holds where one of the values meets it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from nats_mesh.core.matcher import HeaderTest, in_patterns, matches_pattern
from nats_mesh.core.router import Match

__all__ = ["covered", "covers_pattern", "implies"]

#: So many combinations of callers and endpoints of one match are looked at one by one; beyond that all at once.
_MAX_PARTS = 1000


def covered(narrow: Match, wide: Sequence[Match], endpoints: Sequence[str] = ()) -> bool:
    """Whether every call that meets ``narrow`` meets one of ``wide``. ``endpoints`` are the only ones that are called;
    empty: any."""
    certain = [each for each in wide if each.share is None or each.share >= 1.0]
    return all(any(_covers(each, part) for each in certain) for part in _parts(narrow, endpoints))


def _parts(match: Match, endpoints: Sequence[str]) -> Iterator[Match]:
    """``match`` as several that are about one caller pattern and one endpoint pattern each."""
    named = [name for name in endpoints if in_patterns(match.endpoints, name)] or match.endpoints
    callers = match.callers
    if len(named) * len(callers) > _MAX_PARTS:
        yield msgspec.structs.replace(match, endpoints=tuple(named))
        return
    for caller in callers or ("*",):
        for name in named or ("*",):
            yield msgspec.structs.replace(match, callers=(caller,), endpoints=(name,))


def _covers(wide: Match, narrow: Match) -> bool:
    return (
        _covers_all(wide.callers, narrow.callers)
        and _covers_all(wide.endpoints, narrow.endpoints)
        and all(any(implies(mine, test) for mine in narrow.headers) for test in wide.headers)
    )


def _covers_all(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    return not wide or all(any(covers_pattern(each, name) for each in wide) for name in narrow or ("*",))


def covers_pattern(wide: str, narrow: str) -> bool:
    """Whether every name of the pattern ``narrow`` is one of ``wide``."""
    if wide in ("*", narrow):
        return True
    if "*" not in narrow:
        return matches_pattern(wide, narrow)
    if narrow == "*" or "*" not in wide:
        return False
    if narrow.startswith("*") and wide.startswith("*"):
        return narrow.endswith(wide[1:])
    return narrow.endswith("*") and wide.endswith("*") and narrow.startswith(wide[:-1])


def implies(narrow: HeaderTest, wide: HeaderTest) -> bool:
    """Whether ``wide`` holds wherever ``narrow`` does."""
    if narrow.name != wide.name:
        return False
    there, said = _presence(narrow), _presence(wide)
    if said is not None:
        return there is said if there is not None else said and not narrow.invert
    if there is not None:
        return not there and wide.invert
    if narrow.invert or wide.invert:
        return narrow.invert and wide.invert and _value_implies(wide, narrow)
    return _value_implies(narrow, wide)


def _presence(test: HeaderTest) -> bool | None:
    """What it says of whether the header is there; ``None`` where it asks for a value."""
    if test.present is not None:
        return test.present is not test.invert
    if test.regex == ".*" or test.prefix == "" or test.suffix == "":
        return not test.invert
    return None


def _value_implies(narrow: HeaderTest, wide: HeaderTest) -> bool:
    """As :func:`implies`, of what both ask of a value, as if neither were inverted."""
    if _value(narrow) == _value(wide):
        return True
    if narrow.exact is not None:
        return msgspec.structs.replace(wide, invert=False).holds([narrow.exact])
    if narrow.prefix is not None:
        return wide.prefix is not None and narrow.prefix.startswith(wide.prefix)
    if narrow.suffix is not None:
        return wide.suffix is not None and narrow.suffix.endswith(wide.suffix)
    if narrow.regex is not None or (wide.start is None and wide.end is None):
        return False
    low = wide.start is None or (narrow.start is not None and narrow.start >= wide.start)
    return low and (wide.end is None or (narrow.end is not None and narrow.end <= wide.end))


def _value(test: HeaderTest) -> tuple[object, ...]:
    return test.exact, test.prefix, test.suffix, test.regex, test.start, test.end

"""Whether a name, a header, a call is one of those that a rule is about.

Patterns of names are exact, or have one ``*`` at their end, at their beginning, or alone. Regular expressions are
RE2's: they are matched in time linear in the text, whatever the expression. Headers come from anybody, so an
expression of Python's own ``re`` would hand them a way to stop a process.

A header may stand several times: a condition holds where one of its values meets it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from nats_mesh.errors import ConfigError

__all__ = ["MAX_MATCHED", "HeaderTest", "check_pattern", "check_regex", "in_patterns", "matches_pattern"]

_PATTERN = re.compile(r"\*|\*?[A-Za-z0-9_-]{1,63}|[A-Za-z0-9_-]{1,63}\*")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
#: A longer value matches no regular expression: linear time in 60 KiB of somebody's header is still a long time.
MAX_MATCHED = 4096
#: Of a value no longer than this it is remembered whether it matches.
_MAX_REMEMBERED = 128
#: What one regular expression may take up while it is matched (bytes).
_MAX_PROGRAM = 1 << 20


def check_pattern(pattern: str) -> str:
    """``pattern`` where it is a name, or one with a ``*`` at an end; :class:`ValueError` with the reason else."""
    if _PATTERN.fullmatch(pattern) is None:
        raise ValueError(f"must be a name, or one with * at its beginning or end, got {ascii(pattern)[:80]}")
    return pattern


def matches_pattern(pattern: str, name: str) -> bool:
    """Whether ``name`` is what ``pattern`` says."""
    if pattern.startswith("*"):
        return name.endswith(pattern[1:])
    if pattern.endswith("*"):
        return name.startswith(pattern[:-1])
    return name == pattern


def in_patterns(patterns: Sequence[str], name: str) -> bool:
    """Whether ``name`` is in one of ``patterns``; no patterns are about every name."""
    return not patterns or any(matches_pattern(each, name) for each in patterns)


def check_regex(expression: str) -> str:
    """``expression`` where RE2 can read it; :class:`ValueError` with the reason else."""
    _full_match(expression)
    return expression


@functools.lru_cache(maxsize=1024)
def _full_match(expression: str) -> Callable[[str], Any]:
    """Matches a whole text."""
    import re2  # where the first expression is read: it takes 10 ms that most processes can do without

    options = re2.Options()
    options.max_mem = _MAX_PROGRAM
    options.log_errors = False
    try:
        found: Callable[[str], Any] = re2.compile(expression, options).fullmatch
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        said = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"is no regular expression of RE2: {said[:120]}") from None
    return found


@functools.lru_cache(maxsize=8192)
def _matches(expression: str, value: str) -> bool:
    """Whether it does. Headers say the same again and again, and asking RE2 takes ten microseconds."""
    return _full_match(expression)(value) is not None


class HeaderTest(msgspec.Struct, frozen=True, kw_only=True):
    """One condition on one header: exactly one of the fields beside ``name`` and ``invert`` is set.

    ``present`` is true for a header that must be there, false for one that must not. ``start`` and ``end`` are a
    range of whole numbers, from ``start`` on, below ``end``; a value that is no number is in none. ``invert`` turns
    the condition round: it holds where no value meets it, and so also where the header is missing.
    """

    name: str
    exact: str | None = None
    prefix: str | None = None
    suffix: str | None = None
    regex: str | None = None
    present: bool | None = None
    start: int | None = None
    end: int | None = None
    invert: bool = False

    def __post_init__(self) -> None:
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ConfigError(f"range: no number is from {self.start} on and below {self.end}")

    def holds(self, values: Sequence[str]) -> bool:
        """Whether it holds for a call that has these values of the header."""
        if self.present is not None:
            return (bool(values) is self.present) is not self.invert
        if len(values) == 1:
            return self._meets(values[0]) is not self.invert
        return any(self._meets(value) for value in values) is not self.invert

    def _meets(self, value: str) -> bool:
        if self.exact is not None:
            return value == self.exact
        if self.prefix is not None:
            return value.startswith(self.prefix)
        if self.suffix is not None:
            return value.endswith(self.suffix)
        if self.regex is not None:
            if len(value) <= _MAX_REMEMBERED:
                return _matches(self.regex, value)
            return len(value) <= MAX_MATCHED and _full_match(self.regex)(value) is not None
        if _INTEGER.fullmatch(value) is None:
            return False
        number = int(value)
        return (self.start is None or number >= self.start) and (self.end is None or number < self.end)

    def __str__(self) -> str:
        if self.present is not None:
            said = "is present" if self.present else "is absent"
        elif self.exact is not None:
            said = f"= {self.exact!r}"
        elif self.prefix is not None:
            said = f"begins with {self.prefix!r}"
        elif self.suffix is not None:
            said = f"ends with {self.suffix!r}"
        elif self.regex is not None:
            said = f"~ {self.regex!r}"
        else:
            low = "" if self.start is None else f"from {self.start}"
            high = "" if self.end is None else f"below {self.end}"
            said = f"is a number {' '.join(part for part in (low, high) if part)}"
        return f"header {self.name} {'not: ' if self.invert else ''}{said}"

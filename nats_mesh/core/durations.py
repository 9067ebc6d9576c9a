"""Durations as errors and reasons say them: the unit that fits, and no digits that nobody asked for."""

from __future__ import annotations

from typing import Final

__all__ = ["duration_text"]

_UNITS: Final = (("µs", 1e-6), ("ms", 1e-3))
#: From here on three digits are four: the next unit says it shorter.
_THREE_DIGITS: Final = 999.5


def duration_text(seconds: float) -> str:
    """In three digits at most, without zeros at the end: ``420 µs``, ``1.5 ms``, ``3 s``. What is longer than a
    thousand seconds is whole seconds."""
    if not seconds:
        return "0 s"
    for unit, size in _UNITS:
        if abs(seconds) < _THREE_DIGITS * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s" if abs(seconds) < _THREE_DIGITS else f"{seconds:.0f} s"

"""Numbers for people: counts, shares, rates, durations. Pure."""

from __future__ import annotations

import math
from typing import Final

__all__ = [
    "age",
    "counted",
    "millis",
    "part_text",
    "percent_text",
    "rate_text",
    "success_text",
    "used_text",
]


def age(seconds: float | None) -> str:
    """How long something runs, in one or two units: ``42s``, ``5m10s``, ``3h5m``, ``12d``."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60}s" if whole % 60 else f"{whole // 60}m"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60}m" if whole % 3600 // 60 else f"{whole // 3600}h"
    return f"{whole // 86_400}d"


def counted(count: int, one: str, several: str = "") -> str:
    """`1 call`, `2 calls`; ``several`` where that is not just ``one`` with an s: `3 policies`."""
    return f"{count} {one if count == 1 else several or f'{one}s'}"


def success_text(share: float) -> str:
    """How many calls went well, rounded down: `100%` means that none failed, and `99.99%` that one did."""
    return "100%" if share >= 1.0 else f"{math.floor(share * 10_000) / 100:.2f}%"


def part_text(share: float) -> str:
    """How large a part is, in percent: `0%` means none and `100%` all, whatever rounding would make of it."""
    if not 0.0 < share < 1.0:
        return "0%" if share <= 0.0 else "100%"
    if share < 0.001:
        return "<0.1%"
    return ">99.9%" if share > 0.999 else f"{share * 100:.1f}%"


def percent_text(share: float) -> str:
    """As :func:`part_text`, for a column whose head has the sign: `0`, `<0.1`, `8.1`."""
    return part_text(share).replace("%", "")


def used_text(share: float) -> str:
    """How much of a limit is used: as :func:`part_text`, but more than all is said, too."""
    return part_text(share) if share <= 1.0 else f"{share * 100:.1f}%"


_UNITS: Final = (("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0))
_THREE_DIGITS: Final = 999.5


def millis(seconds: float | None) -> str:
    """A duration for people, in three digits: ``420 µs``, ``4.20 ms``, ``41.3 ms``, ``1.25 s``, ``16.7 m``, ``5.00 h``.

    Nobody has measured more of it, and less would hide what was. ``-`` where there is none.
    """
    if seconds is None or not math.isfinite(seconds):
        return "-"
    for unit, size in _UNITS:
        if abs(seconds) < _THREE_DIGITS * size:
            value = seconds / size
            digits = 0 if abs(value) >= 99.95 or not value else 1 if abs(value) >= 9.995 else 2
            return f"{value:.{digits}f} {unit}"
    return ">999 d"


def rate_text(per_s: float) -> str:
    """How many a second, in at most five cells: ``0``, ``4.2``, ``310``, ``1.2k``, ``3.4M``."""
    if not math.isfinite(per_s) or per_s <= 0.0:
        return "0"
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if per_s >= 0.9995 * size:
            scaled = per_s / size
            return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"
    return f"{per_s:.1f}" if per_s < 9.95 else f"{per_s:.0f}"

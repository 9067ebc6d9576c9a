"""Shares of the calls, as people read and write them: `10%` is 0.1. Whoever shows or reads one does it here."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["SHARE_PATTERN", "read_share", "share_text"]

#: How a share is written, as a regular expression that JSON Schema understands, too.
SHARE_PATTERN: Final = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)%"
#: So many digits after the point are read, and so many are written at most.
_DECIMALS: Final = 9

_share = re.compile(SHARE_PATTERN)


def read_share(text: str) -> float | None:
    """`12.5%` as 0.125; ``None`` where it is no share. More than `100%` is read: whether so much makes sense, and what
    to say where it does not, is the asker's to know."""
    match = _share.fullmatch(text)
    return float(match[1]) / 100.0 if match else None


def share_text(share: float, digits: int = 4) -> str:
    """0.125 as `12.5%`: with so many digits at most that count, without zeros at the end, never with an exponent."""
    percent = round(share * 100.0, _DECIMALS)
    text = f"{percent:.{digits}g}"
    if "e" in text:
        text = f"{float(text):.{_DECIMALS}f}".rstrip("0").rstrip(".")
    return f"{text}%"

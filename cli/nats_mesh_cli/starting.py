"""The start of the program without looking for garbage: what is imported and made then stays, and looking through it
again and again takes a tenth of that time."""

from __future__ import annotations

import gc

__all__ = ["begin", "over"]

#: How many new objects there may be between two looks meanwhile.
_MANY = 200_000
_before: list[tuple[int, int, int]] = []


def begin() -> None:
    """The program starts."""
    _before.append(gc.get_threshold())
    gc.set_threshold(_MANY, *_before[-1][1:])


def over() -> None:
    """It has started: from here on garbage is collected as usual, and what is there by now is left out of it."""
    while _before:
        gc.freeze()
        gc.set_threshold(*_before.pop())

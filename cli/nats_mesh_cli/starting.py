"""The start of the program without looking for garbage: what is imported and made then stays, and looking through it
again and again takes a tenth of that time."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Final

__all__ = ["begin", "over", "seldom"]

#: How many new objects there may be between two looks meanwhile.
_MANY = 200_000
#: How many looks at what is young there are meanwhile for one at everything.
_SELDOM: Final = 500
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


@contextlib.contextmanager
def seldom() -> Iterator[None]:
    """Everything is seldom looked through for garbage meanwhile.

    For a view of a large mesh: what is known of it is many objects, none of which are garbage, and looking through them
    takes a tenth of a second every few seconds, in which no key is heard.
    """
    usual = gc.get_threshold()
    gc.set_threshold(*usual[:2], _SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*usual)

"""Decoders that are made when the first message of their kind is there: one of a large type takes milliseconds, and
nobody who only calls or serves ever needs most of them. Those on the path of a call are made at import."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

__all__ = ["at_first_use"]

D = TypeVar("D")
T = TypeVar("T")


def at_first_use(make: Callable[[], Callable[[D], T]]) -> Callable[[D], T]:
    """What ``make`` makes, made when it is first called. From several threads at once it may be made more than once;
    all of them decode alike. Whatever ``make`` raises is raised by every call, until it no longer does."""
    made = cache(make)

    def decode(data: D) -> T:
        return made()(data)

    return decode

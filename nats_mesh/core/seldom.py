"""When to say something that happens again and again: ever more rarely."""

from __future__ import annotations

__all__ = ["worth_saying"]


def worth_saying(count: int) -> bool:
    """Whether the ``count``-th time (from 1) is one to speak of: the first, the second, the fourth, the eighth, …

    A flood is told in as many lines as its count has binary digits. Rejected: once in so many seconds, which needs a
    clock, and says nothing of how often it happened in between.
    """
    return count & (count - 1) == 0

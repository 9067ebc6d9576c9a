"""Latency in classes that people read: out of the fine buckets that are counted. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from nats_mesh.telemetry.snapshots import Figures

__all__ = ["Bar", "bars_of", "bounds_for", "classes"]

#: Upper bounds in seconds; what is above the last one is a class more.
_BOUNDS: Final = (
    (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
    (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
    (0.001, 0.005, 0.025, 0.1),
)


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One class: how it is called, how many calls fell there, and what share of all (0 … 1)."""

    label: str
    count: int
    share: float


def bounds_for(lines: int) -> tuple[float, ...]:
    """The finest classes that so many lines have room for."""
    return next((each for each in _BOUNDS if len(each) < lines), _BOUNDS[-1])


def bars_of(figures: Figures, bounds: Sequence[float]) -> tuple[Bar, ...]:
    """The classes of some calls; none where there was no call."""
    return classes(figures.buckets, bounds)


def classes(buckets: Sequence[tuple[float, int]], bounds: Sequence[float]) -> tuple[Bar, ...]:
    """``buckets`` (an upper bound in seconds, how many durations fell under it and above the one before) sorted into
    the classes that ``bounds`` divide. A bucket that a bound cuts through counts where most of it lies: they are
    log-spaced, so that is where its geometric middle is, at most half a bucket (9 %) off."""
    counts = [0] * (len(bounds) + 1)
    for upper, count in buckets:
        middle = upper / 2.0**0.125 if math.isfinite(upper) else math.inf
        counts[sum(1 for bound in bounds if middle > bound)] += count
    total = sum(counts)
    if not total:
        return ()
    names = [f"{bound:g}s" if bound >= 1.0 else f"{bound * 1e3:g}ms" for bound in bounds]
    labels = [f"≤{name}" for name in names] + [f">{names[-1]}"]
    return tuple(
        Bar(label=label, count=count, share=count / total)
        for label, count in zip(labels, counts, strict=True)
    )

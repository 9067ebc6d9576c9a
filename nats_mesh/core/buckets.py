"""The buckets that durations are counted in, and a histogram as it travels.

Bounds are fixed and log-spaced, four to the octave: every quantile between 50 µs and 120 s is at most
9.1 % off (half a bucket: 2^(1/8)), and as every fourth bound is 0.25 ms times a power of two, coarser
buckets for metrics derive without error.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

__all__ = ["BOUNDS", "LAYOUT", "SIZE", "HistogramSnapshot"]

#: Names this choice of bounds in snapshots; another choice takes another number.
LAYOUT: Final = 1
_PER_OCTAVE: Final = 4
_FIRST: Final = -10
_LAST: Final = 76
#: Upper bounds of the buckets in seconds, inclusive: 44 µs … 131 s. What is above falls in one bucket more.
BOUNDS: Final[tuple[float, ...]] = tuple(0.00025 * 2.0 ** (k / _PER_OCTAVE) for k in range(_FIRST, _LAST + 1))
#: How many buckets there are.
SIZE: Final = _LAST - _FIRST + 2
_MAX_COUNT: Final = 2**53 - 1
_MAX_SUM: Final = 2**62

_Bucket = Annotated[int, msgspec.Meta(ge=0, lt=SIZE)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=_MAX_COUNT)]


class HistogramSnapshot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A histogram as it travels: pairs of bucket and count, of the filled buckets alone, and the sum.

    The garbage collector leaves it alone (``gc``): a view holds one of each series, and none can be part of a cycle.
    """

    buckets: Annotated[tuple[tuple[_Bucket, _Count], ...], msgspec.Meta(max_length=SIZE)] = ()
    sum_ns: Annotated[int, msgspec.Meta(ge=0, le=_MAX_SUM)] = 0

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        return sum(count for _, count in self.buckets)

"""A series as a member tells of it, made anew only where something has happened.

A member tells every second of up to some hundred series, beside the calls that it answers. Most of what it says is what
it said before: names always, most buckets of the durations mostly. So what is encoded is kept, and changed in place.

Rejected: to keep the text of each series, and to put the texts together. Joining the pieces of a histogram takes three
times as long as encoding its numbers.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from nats_mesh.errors import Status
from nats_mesh.telemetry.series import Series, Side

__all__ = ["TellingSeries", "Told", "retries_of"]


_OK: Final = str(Status.OK)
#: Of a series of which all calls went well.
_USUAL: Final = (0, 0, 0, 0)


class Told(msgspec.Struct, kw_only=True):
    """What a :class:`~nats_mesh.telemetry.stats_messages.SeriesSnapshot` is read from, with parts that change."""

    side: Side
    service: str
    endpoint: str
    peer: str
    age_s: float
    statuses: dict[str, int]
    histogram: list[Any]
    in_flight: int
    last_error: str
    subset: str | UnsetType
    attempts: int | UnsetType
    retries: dict[str, int] | UnsetType
    flags: dict[str, int] | UnsetType


class TellingSeries:
    """What observers get of one series."""

    __slots__ = ("_in_flight", "_ok", "_series", "_since", "_told", "_unusual")

    def __init__(self, series: Series) -> None:
        self._series = series
        self._since = series.since
        #: How the series was when it was told last.
        self._ok = self._in_flight = -1
        self._unusual = _USUAL
        self._told = Told(
            side=series.side,
            service=series.service,
            endpoint=series.endpoint,
            peer=series.peer,
            age_s=0.0,
            statuses={},
            histogram=[[], 0],
            in_flight=0,
            last_error="",
            subset=series.subset or UNSET,
            attempts=UNSET,
            retries=UNSET,
            flags=UNSET,
        )

    def at(self, now: float, *, whole: bool = True) -> Told | None:
        """The series at ``now``, an instant of the clock its ``since`` is of; where not ``whole``, ``None`` if nothing
        has happened since it was asked last. It is good until it is asked again."""
        series, told = self._series, self._told
        ok, in_flight, unusual = series.ok, series.in_flight, series.unusual
        if ok != self._ok or in_flight != self._in_flight or unusual != self._unusual:
            self._ok = ok
            if ok:
                told.statuses[_OK] = ok
            self._in_flight = in_flight
            told.in_flight = in_flight if in_flight > 0 else 0
            series.tell_durations(told.histogram)
            if unusual != _USUAL:
                self._unusual = unusual
                self._look()
        elif not whole:
            return None
        age_s = now - self._since
        told.age_s = age_s if age_s > 0.0 else 0.0
        return told

    def _look(self) -> None:
        """What there is to say beside calls that went well."""
        series, told = self._series, self._told
        told.statuses = series.by_status
        told.last_error = series.last_error
        told.attempts = series.attempts if series.extra else UNSET
        if series.retried_ok or series.retried_failed or series.retries_denied:
            told.retries = retries_of(series)
        if series.is_flagged:
            told.flags = _by_flags(series)


def retries_of(series: Series) -> dict[str, int]:
    """The retries of a series by what came of them."""
    return {
        "success": series.retried_ok,
        "failure": series.retried_failed,
        "denied": series.retries_denied,
    }


def _by_flags(series: Series) -> dict[str, int]:
    counts: dict[str, int] = {}
    for (_, flags), count in series.flagged.items():
        counts[flags] = counts.get(flags, 0) + count
    return counts

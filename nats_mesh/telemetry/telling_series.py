"""A series as a member tells of it, made anew only where something has happened.

A member tells every second of up to some hundred series, beside the calls that it answers. Most of what it says is what
it said before: names always, most buckets of the durations mostly. So what is encoded is kept, and changed in place;
and between two messages that tell everything, a series whose calls went well is a row: five numbers instead of a page.

Rejected: to keep the text of each series, and to put the texts together. Joining the pieces of a histogram takes three
times as long as encoding its numbers.
"""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from nats_mesh.errors import Status
from nats_mesh.telemetry.series import USUAL, Series
from nats_mesh.telemetry.stats_messages import Told, ToldRow

__all__ = ["TellingSeries", "retries_of"]


_OK: Final = str(Status.OK)


class TellingSeries:
    """What observers get of one series, which is the member's ``number``-th.

    What is returned is good until the series is asked again.
    """

    __slots__ = ("_base", "_full", "_in_flight", "_ok", "_row", "_series", "_since", "_told", "_unusual")

    def __init__(self, series: Series, number: int) -> None:
        self._series = series
        self._since = series.since
        #: How the series was when it was told last.
        self._ok = self._in_flight = -1
        self._unusual = USUAL
        #: How it was, beside calls that went well, when all series were told last; ``None``: unlike a row says.
        self._base: tuple[int, int, int, int] | None = None
        #: Whether ``_told`` says how it was told last.
        self._full = False
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
            error_age_s=UNSET,
            subset=series.subset or UNSET,
            attempts=UNSET,
            retries=UNSET,
            flags=UNSET,
            number=number,
        )
        self._row = ToldRow(number, 0, 0, [[], 0])

    def whole(self, now: float) -> Told:
        """All of it at ``now``, an instant of the clock its ``since`` is of."""
        if self._has_changed() or not self._full:
            self._fill()
        self._base = self._unusual
        return self._aged(now)

    def changes(self, now: float) -> Told | ToldRow | None:
        """What has changed since it was asked last; ``None`` where nothing has. A row where nothing but calls that
        went well has, since all series were told last."""
        if not self._has_changed():
            return None
        series, row = self._series, self._row
        if self._unusual != self._base:
            self._base = None  # rows say nothing of what was told in between
            self._fill()
            return self._aged(now)
        self._full = False
        row.ok = series.succeeded
        in_flight = self._in_flight
        row.in_flight = in_flight if in_flight > 0 else 0
        series.tell_recent_durations(row.histogram)
        return row

    def _has_changed(self) -> bool:
        series = self._series
        ok, in_flight, unusual = series.ok, series.in_flight, series.unusual
        if ok == self._ok and in_flight == self._in_flight and unusual == self._unusual:
            return False
        self._ok, self._in_flight, self._unusual = ok, in_flight, unusual
        return True

    def _aged(self, now: float) -> Told:
        told, age_s = self._told, now - self._since
        told.age_s = age_s if age_s > 0.0 else 0.0
        if self._series.error_order:
            told.error_age_s = max(0.0, now - self._series.error_at)
        return told

    def _fill(self) -> None:
        series, told = self._series, self._told
        self._full = True
        if self._ok:
            told.statuses[_OK] = self._ok
        told.in_flight = self._in_flight if self._in_flight > 0 else 0
        series.tell_durations(told.histogram)
        if self._unusual != USUAL:
            self._look()

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

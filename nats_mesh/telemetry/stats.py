"""The plain numbers of one Service or Mesh: what it did as an instance and what it saw as a caller.

Counting stands on the path of every call, so it is integers in slots and nothing else; rates, ratios and
quantiles are made by whoever reads. How the numbers travel is in :mod:`nats_mesh.telemetry.stats_messages`.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import UNSET, UnsetType

from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.core.presence import State
from nats_mesh.errors import ConfigError
from nats_mesh.telemetry.series import OTHER, ErrorOrder, Key, Series, Side, errors_in
from nats_mesh.telemetry.stats_messages import Condition, Outgoing, Told, ToldRow
from nats_mesh.telemetry.telling_series import TellingSeries

__all__ = ["EndpointTotals", "Stats"]


class EndpointTotals(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint over all its peers."""

    requests: int
    errors: int
    busy_s: float
    in_flight: int
    last_error: str


class Stats:
    """All series of one Service or Mesh: one identity, one object.

    Beyond ``max_series`` what is new falls into one series of its side, named :data:`OTHER` throughout;
    ``overflowed`` counts how often that was asked for.
    """

    __slots__ = (
        "_base",
        "_clock",
        "_max_series",
        "_order",
        "_others",
        "_seq",
        "_series",
        "_started",
        "_telling",
        "overflowed",
    )

    def __init__(self, *, max_series: int = 1000, clock: Clock = SYSTEM_CLOCK) -> None:
        if max_series < 1:
            raise ConfigError(f"max_series must be at least 1, got {max_series}")
        self._max_series = max_series
        self._clock = clock
        self._started = clock.monotonic()
        self._series: dict[Key, Series] = {}
        self._others: dict[Side, Series] = {}
        self._order = ErrorOrder(clock.monotonic)
        self._seq = 0
        #: The number of the last snapshot that was whole; 0: there was none.
        self._base = 0
        #: What is told of each series (which lives as long as this).
        self._telling: list[TellingSeries] = []
        self.overflowed = 0

    def series(self, side: Side, service: str, endpoint: str, peer: str, subset: str = "") -> Series:
        """The series of a kind of call; keep it where the same kind comes again.

        ``in``: ``service`` is one's own, ``peer`` the caller. ``out``: ``service`` and ``endpoint`` are the
        destination, ``peer`` is one's own name, ``subset`` the one that a route sends the calls to.
        """
        found = self._series.get((side, service, endpoint, peer, subset))
        return found if found is not None else self._add((side, service, endpoint, peer, subset))

    def _add(self, key: Key) -> Series:
        side = key[0]
        if len(self._series) < self._max_series:
            self._series[key] = made = Series(key, self._clock.monotonic(), self._order)
            self._tell(made)
            return made
        self.overflowed += 1
        if side not in self._others:
            other = Series((side, OTHER, OTHER, OTHER, ""), self._clock.monotonic(), self._order)
            self._others[side] = other
            self._tell(other)
        return self._others[side]

    def _tell(self, series: Series) -> None:
        self._telling.append(TellingSeries(series, len(self._telling)))

    def __iter__(self) -> Iterator[Series]:
        yield from self._series.values()
        yield from self._others.values()

    def __len__(self) -> int:
        return len(self._series) + len(self._others)

    @property
    def in_flight(self) -> int:
        """Calls that are being answered now."""
        return max(
            0,
            sum([series.in_flight for series in self._series.values() if series.side == "in"])
            + sum([series.in_flight for side, series in self._others.items() if side == "in"]),
        )

    def totals(self, side: Side) -> tuple[int, int]:
        """Calls finished and failed (:data:`FAILURES`) on one side."""
        mine = [series.by_status for series in self if series.side == side]
        return sum(sum(statuses.values()) for statuses in mine), sum(errors_in(statuses) for statuses in mine)

    def called(self) -> set[str]:
        """The services that were ever called."""
        return {
            series.service for series in self if series.side == "out" and not series.service.startswith("_")
        }

    def by_endpoint(self, side: Side) -> dict[str, EndpointTotals]:
        """The calls of one side by endpoint; those beyond the table stand under :data:`OTHER`."""
        groups: dict[str, list[Series]] = {}
        for series in self:
            if series.side == side:
                groups.setdefault(series.endpoint, []).append(series)
        return {
            endpoint: EndpointTotals(
                requests=sum(each.requests for each in group),
                errors=sum(each.errors for each in group),
                busy_s=sum(each.histogram.sum_ns for each in group) / 1e9,
                in_flight=sum(each.in_flight for each in group),
                last_error=max(group, key=lambda each: each.error_order).last_error,
            )
            for endpoint, group in groups.items()
        }

    def snapshot(
        self,
        *,
        instance: str,
        service: str,
        version: str,
        namespace: str,
        state: State = State.READY,
        condition: Condition | UnsetType = UNSET,
        whole: bool = True,
    ) -> Outgoing:
        """Everything counted so far, under the next number; where not ``whole``, without the series in which nothing
        has happened since the snapshot before, and what can be said shortly since the last whole one as rows."""
        now = self._clock.monotonic()
        self._seq += 1
        series: list[Told] = []
        rows: list[ToldRow] = []
        if whole or not self._base:
            self._base = self._seq
            series = [each.whole(now) for each in self._telling]
        else:
            for each in self._telling:
                changed = each.changes(now)
                if changed is None:
                    continue
                if isinstance(changed, Told):
                    series.append(changed)
                else:
                    rows.append(changed)
        return Outgoing(
            instance=instance,
            service=service,
            version=version,
            namespace=namespace,
            seq=self._seq,
            since_s=max(0.0, now - self._started),
            state=state,
            in_flight=self.in_flight,
            series=series,
            base=UNSET if self._base == self._seq else self._base,
            rows=rows or UNSET,
            condition=condition,
        )

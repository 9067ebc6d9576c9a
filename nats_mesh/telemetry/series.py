"""One kind of call in plain numbers: what the path of every call counts in."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from nats_mesh.core.histogram import Histogram
from nats_mesh.errors import Status
from nats_mesh.wire.headers import one_line

__all__ = [
    "FAILURES",
    "FOLD_MASK",
    "MAX_ERROR",
    "OTHER",
    "PLAIN",
    "USUAL",
    "ErrorOrder",
    "Key",
    "Series",
    "Side",
    "errors_in",
]

#: ``in``: calls this instance answered; ``out``: calls it made.
Side: TypeAlias = Literal["in", "out"]
#: Side, service, endpoint, peer, and the subset that calls were sent to (empty: every instance; of ``in`` always).
Key: TypeAlias = tuple[Side, str, str, str, str]

#: Stands for every service, endpoint or peer that found no room in a table.
OTHER: Final = "_OTHER"
#: Stands for the service where a plain subject was called: nobody's.
PLAIN: Final = "_PLAIN"
#: Statuses that count as failures of the service (a code of 500 and more), not of its caller.
FAILURES: Final = frozenset(str(status) for status in Status if status.code >= 500)
#: The longest text of a last error, characters.
MAX_ERROR: Final = 256

#: An attribute of an enumeration costs a call each time it is looked up.
_OK: Final = Status.OK
_KNOWN: Final = frozenset(str(status) for status in Status)
#: How many durations are kept until they are put into the histogram; calls that went well look whether their number
#: has these bits, which costs less than asking for the length of a list.
_FOLD_AT: Final = 512
FOLD_MASK: Final = 511
#: :attr:`Series.unusual` of a series of which all calls went well.
USUAL: Final = (0, 0, 0, 0)
#: How often another thread looks for a moment in which nothing changes.
_TRIES: Final = 1000


class ErrorOrder:
    """Numbers the errors of a process as they come; ``now`` says when (seconds of the clock that a series' ``since`` is
    of)."""

    __slots__ = ("count", "now")

    def __init__(self, now: Callable[[], float]) -> None:
        self.count = 0
        self.now = now


class Series:
    """One kind of call: by side, service, endpoint, peer and subset. ``in_flight`` is its users' to count.

    On the path of a call that went well :meth:`record` stands written out
    (:mod:`nats_mesh.serving.dispatch`, :mod:`nats_mesh.calling.sending`): calling it costs half as much again.
    """

    __slots__ = (
        "_by_status",
        "_flagged",
        "_folds",
        "_histogram",
        "_order",
        "endings",
        "endpoint",
        "error_at",
        "error_order",
        "extra",
        "in_flight",
        "last_error_text",
        "ok",
        "peer",
        "retried_failed",
        "retried_ok",
        "retries_denied",
        "service",
        "side",
        "since",
        "subset",
        "took",
    )

    def __init__(self, key: Key, since: float, order: ErrorOrder) -> None:
        self.side, self.service, self.endpoint, self.peer, self.subset = key
        self.since = since
        #: Calls that succeeded; every other status has its place in a table.
        self.ok = 0
        self._by_status: dict[str, int] = {}
        #: Calls that ended for a reason of the mesh's own, by status and flags; they are in the statuses, too.
        self._flagged: dict[tuple[str, str], int] = {}
        #: Counts the beginnings and the ends of :meth:`end`: odd while a call stands in one of the tables alone.
        self.endings = 0
        #: Attempts beyond one a call: retries and hedges; calls that ended before anything was sent count against them.
        self.extra = 0
        #: Retries by what came of them; denied are those that the budget had no room for.
        self.retried_ok = 0
        self.retried_failed = 0
        self.retries_denied = 0
        self._histogram = Histogram()
        #: Durations that are not in the histogram yet.
        self.took: list[float] = []
        #: Counts the beginnings and the ends of putting them there: odd while that is done.
        self._folds = 0
        self.in_flight = 0
        #: Which of all errors of the process the last one here was: orders the last errors of several series.
        self.error_order = 0
        #: When that was (seconds of the clock of ``since``).
        self.error_at = 0.0
        self._order = order
        self.last_error_text = ""

    def record(self, duration_s: float, status_name: str) -> None:
        """Count one finished call. A status that does not exist counts as UNKNOWN."""
        if status_name is _OK:
            self.ok = ok = self.ok + 1
            self.took.append(duration_s)
            if not ok & FOLD_MASK:
                self.fold()
            return
        self.refuse(status_name)
        self._keep(duration_s)

    def _keep(self, duration_s: float) -> None:
        self.took.append(duration_s)
        if len(self.took) >= _FOLD_AT:
            self.fold()

    def fold(self) -> None:
        """Put :attr:`took` into the histogram: sorting many in at once costs a quarter of sorting in each when it
        comes."""
        took = self.took
        if took:
            self._folds += 1
            self.took = []
            self._histogram.record_all(took)
            self._folds += 1

    @property
    def histogram(self) -> Histogram:
        """The durations of all calls that were recorded, for the thread that records them."""
        self.fold()
        return self._histogram

    def tell_durations(self, into: list[Any]) -> None:
        """Put :attr:`histogram` into a list of two: :meth:`Histogram.pairs`, and the sum in nanoseconds."""
        self.fold()
        histogram = self._histogram
        into[0] = histogram.pairs()
        into[1] = histogram.sum_ns

    def tell_recent_durations(self, into: list[Any]) -> None:
        """As :meth:`tell_durations`, without the buckets that are as that told them last."""
        if self.took:
            self.fold()
        histogram = self._histogram
        into[0] = histogram.pairs_since()
        into[1] = histogram.sum_ns

    def durations(self) -> Histogram:
        """A copy of :attr:`histogram`, for any thread."""
        for _ in range(_TRIES):
            folds = self._folds
            copied = self._histogram.copy()
            copied.record_all(self.took[:])
            if folds == self._folds and not folds % 2:
                return copied
            time.sleep(0)  # the other one is at it
        raise RuntimeError(f"{self!r}: its durations changed during each of {_TRIES} readings")

    def refuse(self, status_name: str) -> None:
        """Count a call that never began: it has a status but no duration, which would flatter the quantiles."""
        status = str(status_name) if status_name in _KNOWN else str(Status.UNKNOWN)
        self._by_status[status] = self._by_status.get(status, 0) + 1

    def end(self, duration_s: float | None, status_name: str, flags: str) -> None:
        """Count one call as :meth:`record` does, or without a duration as :meth:`refuse`; ``flags`` say why the mesh
        itself ended or held it up (``UT``; several: ``UT,URX``), where it did. Another thread finds a call under its
        status and its flags or under neither, where it heeds :attr:`endings`."""
        if not flags:
            if duration_s is None:
                self.refuse(status_name)
            else:
                self.record(duration_s, status_name)
            return
        self.endings += 1
        status = str(status_name) if status_name in _KNOWN else str(Status.UNKNOWN)
        # One that went well, too: by this :attr:`unusual` knows that there are flags to tell.
        self._by_status[status] = self._by_status.get(status, 0) + 1
        self._flagged[status, flags] = self._flagged.get((status, flags), 0) + 1
        if duration_s is not None:
            self._keep(duration_s)
        self.endings += 1

    @property
    def is_flagged(self) -> bool:
        """Whether there is anything in :attr:`flagged`."""
        return bool(self._flagged)

    @property
    def flagged(self) -> dict[tuple[str, str], int]:
        """How many calls ended with each status for each reason of the mesh's own; a copy."""
        return dict(self._flagged)

    @property
    def attempts(self) -> int:
        """How many attempts the calls that ended took; of an instance, as many as it answered."""
        return max(0, self.requests + self.extra)

    @property
    def by_status(self) -> dict[str, int]:
        """How many calls ended with each status; a copy, without those that none did."""
        if not self.ok:
            return dict(self._by_status)
        counts = {str(Status.OK): self.ok, **self._by_status}
        counts[str(Status.OK)] = self.ok + self._by_status.get(str(Status.OK), 0)
        return counts

    @property
    def succeeded(self) -> int:
        """How many calls ended well."""
        return self.ok + self._by_status.get(_OK, 0) if self._by_status else self.ok

    @property
    def unusual(self) -> tuple[int, int, int, int]:
        """Differs from what it was before whenever something has happened beside calls that went well."""
        others = self._by_status
        if not others and not self.extra and not self.retries_denied and not self.error_order:
            return USUAL
        return sum(others.values()), self.extra, self.retries_denied, self.error_order

    @property
    def requests(self) -> int:
        """How many calls finished."""
        return sum(self.by_status.values())

    @property
    def errors(self) -> int:
        """How many of them failed by the service's fault (:data:`FAILURES`)."""
        return errors_in(self.by_status)

    @property
    def busy_s(self) -> float:
        """All their durations together, in seconds."""
        return self.histogram.sum_s

    @property
    def last_error(self) -> str:
        """What went wrong last, on one line of bounded length; empty where nothing did."""
        return self.last_error_text

    @last_error.setter
    def last_error(self, text: str) -> None:
        self.last_error_text = one_line(text, MAX_ERROR)
        order = self._order
        order.count += 1
        self.error_order = order.count
        self.error_at = order.now()

    def __repr__(self) -> str:
        return f"<Series {self.side} {self.peer} ~ {self.service}.{self.endpoint}: {self.requests}>"


def errors_in(statuses: dict[str, int]) -> int:
    """How many of these calls failed by the service's fault."""
    return sum(count for status, count in statuses.items() if status in FAILURES)

"""What several calls of ``call --count`` came to, in one line behind them."""

from __future__ import annotations

import math
from array import array
from collections import Counter

from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, counted, dump, millis

__all__ = ["Totals"]

_OK = "OK"


class Totals:
    """Counts calls by their status. Times are of every call, failed ones included; exact, eight bytes a call."""

    def __init__(self) -> None:
        self.by_status: Counter[str] = Counter()
        self._seconds = array("d")

    def add(self, seconds: float, status: str) -> None:
        """A call that is over."""
        self.by_status[status] += 1
        self._seconds.append(seconds)

    @property
    def calls(self) -> int:
        """How many calls there were."""
        return len(self._seconds)

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return self.calls - self.by_status[_OK]

    def quantile(self, share: float) -> float | None:
        """The time within which that share of the calls was over (seconds); ``None`` without calls."""
        if not self._seconds:
            return None
        return sorted(self._seconds)[max(0, math.ceil(share * self.calls) - 1)]

    def tell(self, options: Options, out: Out) -> None:
        """Write them to stderr, in the form of the messages: the replies on stdout stay what the endpoint said."""
        p50, p99 = self.quantile(0.5), self.quantile(0.99)
        failures = {status: count for status, count in self.by_status.most_common() if status != _OK}
        if options.format.structured:
            document = {
                "calls": self.calls,
                "failed": self.failed,
                "by_status": dict(self.by_status.most_common()),
                "p50_ms": None if p50 is None else round(p50 * 1e3, 3),
                "p99_ms": None if p99 is None else round(p99 * 1e3, 3),
            }
            fmt = Format.YAML if options.format is Format.YAML else Format.JSONL
            out.note(dump({"totals": document}, fmt), whole=True)
            return
        said = (
            f" ({', '.join(f'{status} {count}' for status, count in failures.items())})" if failures else ""
        )
        out.note(
            f"{counted(self.calls, 'call')}, {self.failed} failed{said}; p50 {millis(p50)}, p99 {millis(p99)}",
            "bad" if failures else "dim",
        )

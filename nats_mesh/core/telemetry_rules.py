"""What is told of calls: frozen values with the mesh's defaults, as both sides follow them.

What a policy says was checked where it was written; these are what comes out. Durations are seconds, shares are
between 0 and 1. A part that is off is ``None``, so that whoever has nothing to do asks for one thing alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import msgspec

__all__ = [
    "DEFAULT_SAMPLING",
    "MAX_SPAN_LABELS",
    "AccessLogMode",
    "AccessLogRules",
    "LatencyGoal",
    "ObjectiveRules",
    "SlowRules",
    "TapRules",
    "TelemetryRules",
]

AccessLogMode: TypeAlias = Literal["on", "errors"]

#: So many of the traces that begin somewhere are kept where no policy says anything.
DEFAULT_SAMPLING: Final = 0.01
#: How many labels go with a span.
MAX_SPAN_LABELS: Final = 32


class AccessLogRules(msgspec.Struct, frozen=True, kw_only=True):
    """A line for each call: with ``errors`` of those that failed alone, else of them and of a ``share`` of the rest."""

    mode: AccessLogMode = "on"
    share: float = 1.0


class SlowRules(msgspec.Struct, frozen=True, kw_only=True):
    """From when on a call is slow: after ``threshold_s``, or after ``times_p99`` times what the slowest of a hundred
    calls of its endpoint take. Exactly one of them is set."""

    threshold_s: float | None = None
    times_p99: float | None = None


class TapRules(msgspec.Struct, frozen=True, kw_only=True):
    """What may be seen of live calls. ``redact``: headers (in lower case) whose values are never shown, beside those
    that always are hidden; ``fields``: paths in bodies whose values are not. At most ``rate_per_s`` calls of an
    instance are told of; ``None``: no policy says how many."""

    payloads: bool = False
    redact: frozenset[str] = frozenset()
    fields: tuple[str, ...] = ()
    rate_per_s: float | None = None


class LatencyGoal(msgspec.Struct, frozen=True, kw_only=True):
    """A ``share`` of the calls is answered within ``threshold_s``."""

    threshold_s: float
    share: float


class ObjectiveRules(msgspec.Struct, frozen=True, kw_only=True):
    """What is promised (an SLO): an ``availability``, a ``latency``, or both, over ``window_s``.

    ``policy`` (`Telemetry/orders`) promises it of ``service`` (empty: of every service, each by itself), and of these
    ``endpoints`` alone where it names any. ``name`` is what alerts call it.
    """

    name: str
    policy: str
    service: str = ""
    endpoints: tuple[str, ...] = ()
    availability: float | None = None
    latency: LatencyGoal | None = None
    window_s: float = 30 * 86_400.0


class TelemetryRules(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of the calls of one endpoint, on both sides.

    ``sampling``: so many of the traces that begin with such a call. ``labels`` go with the lines of its access log,
    with its slow calls and with its spans. ``sources`` says for every value, by its path in a policy
    (`slow.threshold`), where it comes from: `default`, or `Telemetry/orders (file:line)`.
    """

    sampling: float = DEFAULT_SAMPLING
    access_log: AccessLogRules | None = None
    slow: SlowRules | None = None
    tap: TapRules | None = TapRules()
    labels: tuple[tuple[str, str], ...] = ()
    objectives: tuple[ObjectiveRules, ...] = ()
    sources: Mapping[str, str] = {}

    def span_labels(self) -> dict[str, str]:
        """Those that go with spans: of more than :data:`MAX_SPAN_LABELS`, the first by name."""
        return dict(self.labels[:MAX_SPAN_LABELS])

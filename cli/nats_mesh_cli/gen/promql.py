"""Pieces of PromQL: the metrics as the mesh names them, put together the same way everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nats_mesh.telemetry.series import FAILURES

__all__ = [
    "ANSWERED",
    "DESTINATION",
    "FAILED",
    "GIVEN_UP",
    "SOURCE",
    "any_of",
    "flagged",
    "quantile",
    "rate",
    "selector",
    "share",
    "span",
]

#: Who counted.
SOURCE: Final = 'reporter="source"'
DESTINATION: Final = 'reporter="destination"'
#: Statuses that are the service's failures: those with a code of 500 and above.
FAILED: Final = f'status=~"{"|".join(sorted(FAILURES))}"'

#: All but those that their callers gave up: whether these would have gone well nobody knows.
ANSWERED: Final = 'status!="CANCELLED"'
GIVEN_UP: Final = 'status="CANCELLED"'

_UNITS: Final = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def span(seconds: float) -> str:
    """A duration as PromQL writes it, in its largest whole unit: `6h`, `3d`, `90s`."""
    whole = round(seconds)
    unit, size = next((unit, size) for unit, size in _UNITS if whole % size == 0)
    return f"{whole // size}{unit}"


def selector(*matchers: str) -> str:
    """`{a="b",c="d"}`; empty matchers are left out, and nothing at all is an empty text."""
    given = [each for each in matchers if each]
    return f"{{{','.join(given)}}}" if given else ""


def any_of(label: str, values: Iterable[str], *, none: bool = False) -> str:
    """A matcher for one of these names (letters, digits, `_` and `-` alone, so nothing needs to be escaped)."""
    found = sorted(values)
    if not found:
        return ""
    alone = len(found) == 1
    operator = ("!=" if none else "=") if alone else ("!~" if none else "=~")
    return f'{label}{operator}"{"|".join(found)}"'


def flagged(flag: str) -> str:
    """Calls that bear ``flag``, alone or with others."""
    return f'flags=~"(.*,)?{flag}(,.*)?"'


def rate(metric: str, window: str, *matchers: str, by: str = "") -> str:
    """What a counter grows by a second, added up."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{selector(*matchers)}[{window}]))"


def share(part: str, whole: str, *, by: str = "") -> str:
    """``part`` of ``whole`` where there is any: 0 where nothing is in the part."""
    on = f" on ({by})" if by else ""
    return f"({part} or{on} 0 * {whole}) / ({whole} > 0)"


def quantile(q: float, window: str, *matchers: str, by: str = "") -> str:
    """A quantile of the durations, in seconds."""
    grouped = f"le, {by}" if by else "le"
    inside = rate("mesh_request_duration_seconds_bucket", window, *matchers, by=grouped)
    return f"histogram_quantile({q:g}, {inside})"

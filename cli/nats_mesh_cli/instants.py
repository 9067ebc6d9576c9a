"""Moments as people write them, and as this program prints them: what is printed can be given back."""

from __future__ import annotations

import contextlib
import datetime
import re
from typing import Final

from nats_mesh_cli.errors import CliError

__all__ = ["instant", "shown_time"]

_HINT: Final = "write 2026-01-31T12:00:00Z, an offset in place of the Z, or how long ago: -10m, -2h30m, -3d"
#: How long ago: one or several numbers with units, as ages are printed (``-3h5m``).
_AGO: Final = re.compile(r"-((?:\d+(?:\.\d*)?(?:ms|s|m|h|d))+)")
_PART: Final = re.compile(r"(\d+(?:\.\d*)?)(ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
#: An instant whose fraction may have more digits than Python keeps: the server's have nine.
_INSTANT: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9}))?([Zz]|[+-]\d\d:?\d\d)"
)


def instant(text: str, *, now: datetime.datetime | None = None) -> str:
    """``2026-01-31T12:00:00Z``, the same with an offset, or ``-10m``: in UTC, as the store writes instants.

    No digit of a fraction is lost: an instant cut to what Python keeps would be before what happened then.
    """
    text = text.strip()
    ago = _AGO.fullmatch(text)
    if ago is not None:
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(ago[1]))
        with contextlib.suppress(OverflowError):
            moment = (now or datetime.datetime.now(datetime.UTC)) - datetime.timedelta(seconds=seconds)
            return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        raise CliError(f"{text!r} is before all time", hint=_HINT)
    found = _INSTANT.fullmatch(text)
    if found is None:
        raise CliError(_wrong(text), hint=_HINT)
    zone = "+00:00" if found[3] in "Zz" else found[3]
    try:
        moment = datetime.datetime.fromisoformat(f"{found[1].upper()}{zone}").astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        raise CliError(f"{text!r} is no instant", hint=_HINT) from None
    fraction = f".{found[2]}" if found[2] else ""
    return f"{moment.strftime('%Y-%m-%dT%H:%M:%S')}{fraction}Z"


def _wrong(text: str) -> str:
    if text.lstrip("-").replace(".", "", 1).isdigit():
        return f"{text!r} is no instant: it has no unit"
    with contextlib.suppress(ValueError):
        if datetime.datetime.fromisoformat(text).tzinfo is None:
            return f"{text!r} does not say in which time zone"
    return f"{text!r} is no instant"


def shown_time(time: str) -> str:
    """An instant of the store in a table: RFC 3339 with milliseconds, rounded up, so that ``--at`` of what is printed
    is not before it. What is no instant stays as it is."""
    head, point, fraction = time.removesuffix("Z").partition(".")
    try:
        moment = datetime.datetime.fromisoformat(f"{head}+00:00")
        nanoseconds = int(fraction.ljust(9, "0")[:9]) if point else 0
        millis = -(-nanoseconds // 1_000_000)
        moment += datetime.timedelta(milliseconds=millis)
    except (ValueError, OverflowError):
        return time
    return f"{moment.strftime('%Y-%m-%dT%H:%M:%S')}.{moment.microsecond // 1000:03d}Z"

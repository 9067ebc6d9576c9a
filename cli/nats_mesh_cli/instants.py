"""Moments as people write them: an instant of RFC 3339, or how long ago."""

from __future__ import annotations

import contextlib
import datetime
import re

from nats_mesh_cli.errors import CliError
from nats_mesh_cli.options import duration_with_unit

__all__ = ["instant"]

_AGO = re.compile(r"-(\S+)")


def instant(text: str, *, now: datetime.datetime | None = None) -> str:
    """``2026-01-31T12:00:00Z``, the same with an offset, or ``-10m``: in UTC, as the store writes instants."""
    text = text.strip()
    ago = _AGO.fullmatch(text)
    if ago is not None:
        moment = (now or datetime.datetime.now(datetime.UTC)) - datetime.timedelta(
            seconds=duration_with_unit(ago[1])
        )
    else:
        found = None
        with contextlib.suppress(ValueError):
            found = datetime.datetime.fromisoformat(text)
        if found is None or found.tzinfo is None:
            raise CliError(
                f"{text!r} is no instant", hint="write 2026-01-31T12:00:00Z, an offset for the Z, or -10m"
            )
        moment = found.astimezone(datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

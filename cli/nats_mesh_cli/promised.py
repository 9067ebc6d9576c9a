"""How what is promised stands, for whoever looks on: one key of the store, read now and then.

Members do nothing for it. Where nobody watches (``nats-mesh alerts --watch``) nothing is known, and nothing is said to
be well.
"""

from __future__ import annotations

import datetime
from typing import Final

import anyio
import msgspec

from nats_mesh import Mesh
from nats_mesh.clock import SYSTEM_CLOCK
from nats_mesh.errors import CodecError, MeshError
from nats_mesh.telemetry.alert_messages import Alert, LevelName, Standing, decode_standing
from nats_mesh.telemetry.duty import Duty
from nats_mesh.wire.kv import KvAbsentError

__all__ = ["DUTY", "LEVELS", "LEVEL_STYLES", "Promised", "PromisedReader", "is_old"]

#: The key under which whoever tells of alerts says so.
DUTY: Final = "alerts"
#: The levels, the worst first.
LEVELS: Final[tuple[LevelName, ...]] = ("page", "ticket", "ok")
#: How each is painted.
LEVEL_STYLES: Final = {"page": "bad", "ticket": "warn", "ok": "ok"}
#: What was written longer ago (seconds of wall time) is what nobody renews.
_STALE_S: Final = 30.0
#: By how much the clock of whoever wrote it may be ahead (seconds).
_AHEAD_S: Final = 3600.0
#: How often an observer that goes on reads it (seconds).
_READ_S: Final = 5.0


class Promised(msgspec.Struct, frozen=True, kw_only=True):
    """What whoever watches knew ``at`` last (empty: nobody ever did). ``live``: somebody watches now."""

    alerts: tuple[Alert, ...] = ()
    at: str = ""
    live: bool = False

    def of(self, service: str) -> list[Alert]:
        """How the objectives of a service stand, the worst first; none where nobody watches."""
        if not self.live:
            return []
        found = [each for each in self.alerts if each.service == service]
        return sorted(found, key=lambda each: (LEVELS.index(each.level), each.objective, each.indicator))

    @property
    def worst(self) -> dict[str, LevelName]:
        """The worst level of each service that anything is promised of; empty where nobody watches."""
        found: dict[str, LevelName] = {}
        for each in self.alerts if self.live else ():
            level = found.get(each.service, "ok")
            found[each.service] = min(level, each.level, key=LEVELS.index)
        return found

    def count(self, level: LevelName) -> int:
        """How many alerts are at this level now."""
        return sum(each.level == level for each in self.alerts) if self.live else 0


class PromisedReader:
    """Reads it over the connection of ``mesh``; :meth:`now` is what is known."""

    def __init__(self, mesh: Mesh) -> None:
        client = mesh.client
        self._duty = Duty(DUTY, mesh.namespace, transport=client.transport, mux=client.mux)
        self._standing: Standing | None = None
        self._due = 0.0

    async def read(self) -> None:
        """Look once. What cannot be read now is what it was, and soon old; what says nonsense is nothing."""
        try:
            found = await self._duty.read()
            self._standing = None if found is None else decode_standing(found.value)
        except (KvAbsentError, CodecError):
            self._standing = None
        except MeshError:
            return

    async def refresh(self) -> None:
        """Look, unless that was done just now."""
        now = SYSTEM_CLOCK.monotonic()
        if now >= self._due:
            self._due = now + _READ_S
            await self.read()

    async def follow(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await self.read()
            await anyio.sleep(_READ_S)

    def now(self) -> Promised:
        """How everything stands, as far as somebody watches."""
        standing = self._standing
        if standing is None:
            return Promised()
        return Promised(alerts=standing.alerts, at=standing.at, live=not is_old(standing.at))


def is_old(at: str) -> bool:
    """Whether nobody renews what was written then, by this machine's wall clock. A clock may be ahead of it; what
    comes from a time that no clock says is nobody's word of now."""
    try:
        moment = datetime.datetime.fromisoformat(at.replace("Z", "+00:00"))
    except ValueError:
        return True
    since_s = (datetime.datetime.now(datetime.UTC) - moment).total_seconds()
    return not -_AHEAD_S <= since_s <= _STALE_S

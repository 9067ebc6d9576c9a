"""Who looks at the calls of an instance: what policies show them, and that those who see bodies are written down."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from nats_mesh.audit.records import TapRecord, encode_record
from nats_mesh.clock import Clock, rfc3339
from nats_mesh.core.envelope import is_secret
from nats_mesh.core.tap_filter import Filter
from nats_mesh.errors import CallError
from nats_mesh.telemetry.events import Events
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.telemetry.tap_messages import Wish
from nats_mesh.wire.headers import one_line
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["RECORDS_PER_S", "Witness"]

log = logging.getLogger("nats_mesh.audit")

#: How many observers are written down at once, and how many a second after that: whoever comes beyond sees no bodies.
_BURST: Final = 16.0
RECORDS_PER_S: Final = 1.0
_MAX_LINE: Final = 1000
_DESTINATION: Final = "audit"


class Witness:
    """Writes down who is about to see the bodies of calls: in the audit, where the namespace keeps one, and among the
    instance's events. Called with the observer's name, which the server vouches for, and what it asked for; false where
    it cannot be written down now, and so nothing may be shown."""

    def __init__(
        self,
        *,
        service: str,
        instance: str,
        subjects: Subjects,
        transport: Transport,
        mux: ReplyMux,
        clock: Clock,
        events: Events,
    ) -> None:
        self._service = service
        self._instance = instance
        self._namespace = subjects.namespace
        self._subject = subjects.audit("tap", service, instance)
        self._transport = transport
        self._mux = mux
        self._clock = clock
        self._emit: Callable[..., None] = events.emit
        self._left = _BURST
        self._filled = clock.monotonic()

    def __call__(self, observer: str, wish: Wish) -> bool:
        """``observer`` is to see what ``wish`` asks for; whether that is written down."""
        now = self._clock.monotonic()
        self._left = min(_BURST, self._left + (now - self._filled) * RECORDS_PER_S)
        self._filled = now
        if self._left < 1.0:
            return False
        of = _told(wish.only)
        record = TapRecord(
            namespace=self._namespace,
            at=rfc3339(self._clock.time()),
            seq=self._mux.number(self._subject),
            who=one_line(observer, _MAX_LINE),
            why=one_line(wish.why, _MAX_LINE),
            service=self._service,
            instance=self._instance,
            calls=of,
            characters=wish.body,
        )
        try:
            self._transport.publish(self._subject, encode_record(record), self._mux.one_way(_DESTINATION))
        except CallError as error:
            log.warning(
                "%s sees no payloads: that it does cannot be written down: %s", observer, error.message
            )
            return False
        self._left -= 1.0
        detail = f"{observer} sees what is sent and answered ({of}): {wish.why}"
        self._emit(EventKind.TAP_PAYLOADS, self._service, detail)
        return True


def _told(only: Filter) -> str:
    """Of which calls, in words."""
    parts = [
        f"{what} {', '.join(names)}"
        for what, names in (
            ("endpoint", only.endpoints),
            ("caller", only.callers),
            ("route", only.routes),
            ("status", only.statuses),
        )
        if names
    ]
    if only.failed:
        parts.append("status not OK")
    if only.slow_s:
        parts.append(f"{only.slow_s:g} s or more")
    parts += [f"header {name}={'***' if is_secret(name) else value}" for name, value in only.headers]
    return one_line("; ".join(parts), _MAX_LINE) if parts else "all calls"

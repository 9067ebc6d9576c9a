"""What happens in a rollout, told three times: as an event, as a record for the audit, and to whoever looks on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from nats_mesh.clock import SYSTEM_CLOCK, Clock, rfc3339
from nats_mesh.core.rollout import What
from nats_mesh.errors import CallError
from nats_mesh.mesh import Mesh
from nats_mesh.rollout.record import Record
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.headers import one_line

__all__ = ["KIND_OF", "Tell", "Teller", "Told"]

log = logging.getLogger("nats_mesh.rollout")

_MAX_DETAIL: Final = 2000
#: The kind of event that each thing is told as.
KIND_OF: Final[Mapping[What, EventKind]] = {
    What.STEP: EventKind.ROLLOUT_STEP,
    What.WAITING: EventKind.ROLLOUT_WAITING,
    What.FAILING: EventKind.ROLLOUT_FAILING,
    What.PAUSED: EventKind.ROLLOUT_PAUSED,
    What.RESUMED: EventKind.ROLLOUT_RESUMED,
    What.RETURNING: EventKind.ROLLOUT_RETURNING,
    What.ENDED: EventKind.ROLLOUT_ENDED,
}


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened; the body of ``audit.rollout.<runner>.<connection>``.

    ``kind`` is the event's, ``runner`` and ``instance`` say who did it. ``weight`` is that of the new subset, ``step``
    counts from 1 (0: before the first).
    """

    kind: str
    at: str
    namespace: str
    service: str
    rollout: str
    run: str
    runner: str
    instance: str
    detail: str
    phase: str
    step: int
    steps: int
    weight: int
    route: str
    revision: int
    numbers: dict[str, float] = {}
    seq: int = 0
    prev: str = ""
    wire: int = 1


Tell = Callable[[Told], None]


class Teller:
    """Tells for the runner that ``mesh`` is. ``failed`` counts records for the audit that could not be sent."""

    def __init__(self, mesh: Mesh, look_on: Tell | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.failed = 0
        self._mesh = mesh
        self._look_on = look_on
        self._clock = clock

    def tell(
        self, kind: EventKind, detail: str, record: Record, numbers: dict[str, float] | None = None
    ) -> None:
        """This happened to the rollout that ``record`` is of, as it stands now."""
        mesh, client = self._mesh, self._mesh.client
        # It quotes what operators wrote into the record, or others did.
        detail = one_line(detail, _MAX_DETAIL)
        subject = client.subjects.audit("rollout", mesh.name, client.transport.connection)
        told = Told(
            kind=str(kind),
            at=rfc3339(self._clock.time()),
            namespace=mesh.namespace,
            service=record.service,
            rollout=record.rollout,
            run=record.run,
            runner=mesh.name,
            instance=client.transport.connection,
            detail=detail,
            phase=str(record.progress.phase),
            step=record.progress.step + 1,
            steps=len(record.rules.steps),
            weight=record.progress.weight,
            route=record.route,
            revision=record.revision,
            numbers=numbers or {},
            seq=client.mux.number(subject),
        )
        log.info("%s of %s: %s", kind, record.service, detail)
        mesh.events.emit(told.kind, record.service, detail, **told.numbers)
        try:
            client.transport.publish(subject, JSON.encode(told), client.mux.one_way("audit"))
        except (
            CallError
        ) as error:  # the bus is away: what was done stands in the store, with who did it and when
            self.failed += 1
            log.warning("%s: what happened could not be recorded: %s", record.service, error.message)
        if self._look_on is not None:
            self._look_on(told)

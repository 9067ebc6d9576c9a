"""Carries out whatever rollouts nobody carries out: the first one to take the lease of one does.

Runners are alike, and as many may run as one likes. Each reads what has changed in the bucket once a second; one whose
holder does not write any more for as long as a lease lasts is taken over, and goes on where it was.
"""

from __future__ import annotations

import logging
from typing import Final

import anyio
import msgspec

from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.errors import CallError
from nats_mesh.mesh import Mesh
from nats_mesh.rollout.book import LEASE_S, RENEW_S, Book, Entry
from nats_mesh.rollout.carrying import Carrier, LostError
from nats_mesh.rollout.telling import Tell, Teller
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.wire.kv import KvConflictError, KvError

__all__ = ["Runner"]

log = logging.getLogger("nats_mesh.rollout")

#: How many rollouts one runner carries out at a time; what is beyond that waits for another runner, or for its end.
MAX_CARRIED: Final = 256
#: How many looks at what has changed come before one at everything: a bucket that was made anew counts from 1.
_LOOKS: Final = 30
_RELEASE_S: Final = 3.0


class Runner:
    """A member that carries out rollouts, over the connection of ``mesh``, which must follow the policies on the bus.

    ``only`` names the one service whose rollout it takes. ``look_on`` hears what it does. ``waiting`` are so many
    rollouts that nobody carries out and that this runner has no room for.
    """

    def __init__(
        self,
        mesh: Mesh,
        *,
        only: str = "",
        look_on: Tell | None = None,
        clock: Clock = SYSTEM_CLOCK,
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
    ) -> None:
        client = mesh.client
        self.holder = f"{mesh.name}/{client.transport.connection}"
        self.carried: dict[str, Carrier] = {}
        self.waiting = 0
        self.book = Book(mesh.namespace, transport=client.transport, mux=client.mux, clock=clock)
        self._mesh = mesh
        self._only = only
        self._teller = Teller(mesh, look_on, clock=clock)
        self._clock = clock
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._sequence = 0
        self._looks = 0
        #: Every record that is not this runner's, and since when it has stood still.
        self._seen: dict[str, tuple[Entry, float]] = {}
        self._complained = ""

    async def run(self) -> None:
        """Carry out rollouts until cancelled; the leases are then given back."""
        async with anyio.create_task_group() as tasks:
            while True:
                try:
                    await self._look()
                    for entry in self._takeable():
                        await self._take(entry, tasks)
                    self._complained = ""
                except (KvError, CallError) as error:
                    if str(error) != self._complained:
                        self._complained = str(error)
                        log.warning("rollouts cannot be read now: %s", error)
                await anyio.sleep(self._renew_s)

    async def _look(self) -> None:
        now = self._clock.monotonic()
        self._looks += 1
        whole = self._looks % _LOOKS == 1
        entries, self._sequence = await self.book.since(0 if whole else self._sequence)
        for entry in entries:
            known = self._seen.get(entry.record.service)
            if known is None or known[0].revision != entry.revision:
                self._seen[entry.record.service] = (entry, now)
        if whole:
            there = {entry.record.service for entry in entries}
            for service in [each for each in self._seen if each not in there]:
                del self._seen[service]

    def _free(self) -> list[Entry]:
        """What nobody carries out: it was given back, never taken, or its holder is silent."""
        now = self._clock.monotonic()
        return [
            entry
            for service, (entry, since) in self._seen.items()
            if service not in self.carried
            and (not self._only or service == self._only)
            and not entry.record.progress.phase.ended
            and (not entry.record.holder or now - since >= self._lease_s)
        ]

    def _takeable(self) -> list[Entry]:
        """What of that this runner has room for."""
        free = self._free()
        room = max(0, MAX_CARRIED - len(self.carried))
        waiting = len(free[room:])
        if waiting and not self.waiting:
            log.warning(
                "%d rollouts wait: this runner carries out %d, and no more at a time; start another one, "
                "or end some that are paused", waiting, MAX_CARRIED,
            )  # fmt: skip
        self.waiting = waiting
        return free[:room]

    async def _take(self, entry: Entry, tasks: anyio.abc.TaskGroup) -> None:
        before = entry.record.holder
        record = msgspec.structs.replace(entry.record, holder=self.holder, term=entry.record.term + 1)
        try:
            revision = await self.book.write(record, entry.revision)
        except KvConflictError:
            return  # somebody else was faster, or its holder lives
        carrier = Carrier(
            self._mesh,
            self.book,
            Entry(record, revision),
            holder=self.holder,
            teller=self._teller,
            clock=self._clock,
            lease_s=self._lease_s,
            renew_s=self._renew_s,
        )
        if entry.record.term == 0:
            rules = record.rules
            self._teller.tell(
                EventKind.ROLLOUT_STARTED, f"from {rules.old} to {rules.new}, by {record.started_by}", record
            )
        else:
            whom = f"from {before}, which is silent" if before else "that nobody carried out"
            self._teller.tell(EventKind.ROLLOUT_TAKEN, f"taken over {whom}", record)
        self.carried[record.service] = carrier
        tasks.start_soon(self._carry, carrier)

    async def _carry(self, carrier: Carrier) -> None:
        service = carrier.record.service
        try:
            await carrier.run()
        except LostError as error:
            log.warning("rollout of %s: %s", service, error)
        except (
            Exception
        ):  # a defect must not stop the other rollouts; its lease runs out, and another runner tries
            log.exception("the rollout of %s is not carried out any more", service)
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(_RELEASE_S, shield=True):
                await carrier.release()
            raise
        finally:
            self._seen.pop(service, None)
            del self.carried[service]

    def __repr__(self) -> str:
        return f"<Runner {self.holder}: {', '.join(sorted(self.carried)) or 'nothing'}>"

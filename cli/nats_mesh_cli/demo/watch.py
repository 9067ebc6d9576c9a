"""What the bus says about a mesh: presence, and the statistics that members publish while somebody leases them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial

import anyio
import msgspec

from nats_mesh import Mesh
from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.core.registry import Change, ChangeKind, Registry
from nats_mesh.discovery.observer import Observer
from nats_mesh.errors import CallError, CodecError
from nats_mesh.telemetry.events import Event, decode_event
from nats_mesh.telemetry.folding import Fold
from nats_mesh.telemetry.hearing import Hearing
from nats_mesh.telemetry.leasing import hold_lease
from nats_mesh.telemetry.snapshots import Snapshot
from nats_mesh.wire.subjects import ALL, Subjects
from nats_mesh.wire.vouching import member_of

__all__ = ["BusWatch", "Heard"]

_MAX_INSTANCES = 1000
#: A snapshot may have been on its way when something ended; the one after it cannot.
_SETTLED_AFTER = 2


class Heard(msgspec.Struct, frozen=True):
    """The latest word of one instance about itself."""

    state: str
    in_flight: int
    calls: int


class BusWatch:
    """Keeps a registry and all figures true while :meth:`run` runs."""

    def __init__(
        self,
        mesh: Mesh,
        on_change: Callable[[Change], None],
        clock: Clock = SYSTEM_CLOCK,
        on_event: Callable[[Event], None] = lambda _: None,
    ) -> None:
        client = mesh.client
        self._now = clock.monotonic
        self._fold = Fold(namespace=mesh.namespace, max_members=_MAX_INSTANCES, durations=True)
        self._transport = client.transport
        self._mux = client.mux
        self._inbox = client.mux.lease()
        subjects = Subjects(mesh.namespace)
        self._want = subjects.want("stats", ALL, mesh.name)
        self._want_events = subjects.want("event", ALL, mesh.name)
        self._on_event = on_event
        self._namespace = mesh.namespace
        self._enforced = mesh.settings.enforced
        self._told = self._transport.subscribe(subjects.telemetry_of("event"), self._heard_event)
        self._news = anyio.Event()
        hearing = Hearing(
            self._fold, services=(), enforced=mesh.settings.enforced, now=clock.monotonic, on_news=self.wake
        )
        self._subscription = self._transport.subscribe(subjects.telemetry_of("stats"), hearing.on_stats)
        self._observer = Observer(
            subjects=subjects,
            transport=self._transport,
            mux=self._mux,
            clock=clock,
            enforced=mesh.settings.enforced,
            on_change=lambda change: self._on_change(change, on_change),
        )

    @property
    def registry(self) -> Registry:
        """Who is there."""
        return self._observer.registry

    @property
    def ignored(self) -> int:
        """Messages that were not believed."""
        return self._fold.ignored

    def snapshot(self) -> Snapshot:
        """All figures of now; totals have their durations."""
        return self._fold.snapshot(self._now())

    def heard(self) -> dict[tuple[str, str], Heard]:
        """What each instance said last of itself, by service and id."""
        totals = self._fold.groups.members
        return {
            key: Heard(
                str(known.message.state),
                known.message.in_flight,
                totals["in", *key].total.requests if ("in", *key) in totals else 0,
            )
            for key, known in self._fold.members.items()
            if known.message is not None
        }

    async def run(self) -> None:
        """Hold the lease on statistics until cancelled."""
        # Totals are cumulative: nothing is lost while the bus is away.
        async with anyio.create_task_group() as tasks:
            for want in (self._want, self._want_events):
                tasks.start_soon(partial(hold_lease, want, transport=self._transport, mux=self._mux))

    async def news(self) -> None:
        """Return when something was heard, or somebody called :meth:`wake`."""
        await self._news.wait()

    def wake(self) -> None:
        """Let everyone who waits look again."""
        news, self._news = self._news, anyio.Event()
        news.set()

    async def settled(self, members: Collection[tuple[str, str]]) -> None:
        """Return when every one of ``members`` has told what it had counted at this moment."""
        wanted = {key: self._seq(key) + _SETTLED_AFTER for key in members}
        while any(self._seq(key) < seq or self._fold.members[key].behind for key, seq in wanted.items()):
            await self._news.wait()

    def _seq(self, key: tuple[str, str]) -> int:
        known = self._fold.members.get(key)
        return 0 if known is None else known.seq

    def close(self) -> None:
        """Stop listening; what was learnt stays."""
        self._observer.close()
        self._transport.unsubscribe(self._subscription)
        self._transport.unsubscribe(self._told)

    def _heard_event(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """What a member tells of itself; what is not believed is left to `nats-mesh events` to say."""
        whose = member_of(subject, reply, enforced=self._enforced)
        if whose is not None:
            with suppress(CodecError):
                self._on_event(
                    decode_event(payload, service=whose[0], instance=whose[1], namespace=self._namespace)
                )

    def _on_change(self, change: Change, tell: Callable[[Change], None]) -> None:
        if change.kind is ChangeKind.JOINED:
            self._ask()
        tell(change)
        self.wake()

    def _ask(self) -> None:
        """Let whoever has come know of the leases at once: until the next renewal it would tell nothing."""
        with suppress(CallError):  # the bus is away: so is whoever came
            for want in (self._want, self._want_events):
                self._transport.publish(want, b"", self._inbox)

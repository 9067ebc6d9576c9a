"""What the bus says about a mesh: presence, and the statistics that members publish while somebody leases them."""

from __future__ import annotations

from collections.abc import Callable, Collection

import anyio
import msgspec

from nats_mesh import Mesh
from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.core.members import ChangeKind
from nats_mesh.core.registry import Change, Registry
from nats_mesh.discovery.observer import Observer
from nats_mesh.telemetry.asking import Asking
from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.folding import Fold
from nats_mesh.telemetry.hearing import Hearing
from nats_mesh.telemetry.snapshots import Snapshot
from nats_mesh.wire.subjects import Subjects
from nats_mesh_cli.demo.rows import Own, own_calls

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
        subjects = Subjects(mesh.namespace)
        self._news = anyio.Event()
        hearing = Hearing(
            self._fold,
            services=(),
            enforced=mesh.settings.enforced,
            now=clock.monotonic,
            on_news=self.wake,
            on_happened=on_event,
        )
        self._subscriptions = [
            self._transport.subscribe(subjects.telemetry_of("stats"), hearing.on_stats),
            self._transport.subscribe(subjects.telemetry_of("event"), hearing.on_event),
        ]
        self._asking = Asking(
            name=mesh.name,
            subjects=subjects,
            services=(),
            transport=lambda: self._transport,
            mux=client.mux,
            now=clock.monotonic,
            on_recent=hearing.on_recent,
            on_ping=hearing.on_ping,
        )
        self._observer = hearing.observer = Observer(
            subjects=subjects,
            transport=self._transport,
            mux=client.mux,
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

    def own_calls(self, own: Collection[str]) -> dict[str, Own]:
        """What callers of these names asked of each service, as its instances counted."""
        return own_calls(self._fold.answered(), own)

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
        """Hold the leases on statistics and events until cancelled."""
        # Totals are cumulative: nothing is lost while the bus is away.
        try:
            await self._asking.run(self.wake)
        finally:
            self._asking.close()

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
        for subscription in self._subscriptions:
            self._transport.unsubscribe(subscription)

    def _on_change(self, change: Change, tell: Callable[[Change], None]) -> None:
        if change.kind is ChangeKind.JOINED:
            self._asking.soon()
        tell(change)
        self.wake()

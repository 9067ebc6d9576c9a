"""What the bus says about a mesh: presence, and the statistics that members publish while somebody leases them."""

from __future__ import annotations

from collections.abc import Callable, Collection

import anyio
import msgspec

from nats_mesh import CodecError, Mesh
from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.core.registry import Change, Registry
from nats_mesh.discovery.observer import Observer
from nats_mesh.telemetry.aggregate import Aggregate
from nats_mesh.telemetry.leasing import hold_lease
from nats_mesh.telemetry.stats import decode_stats
from nats_mesh.wire.subjects import ALL, Subjects, reply_allowed

__all__ = ["BusWatch", "Heard"]

_WINDOW_S = 10.0
_MAX_INSTANCES = 1000
#: A snapshot may have been on its way when something ended; the one after it cannot.
_SETTLED_AFTER = 2


class Heard(msgspec.Struct, frozen=True):
    """The latest word of one instance about itself."""

    seq: int
    state: str
    in_flight: int
    calls: int


class BusWatch:
    """Keeps a registry and an aggregate true while :meth:`run` runs. ``ignored`` counts what was not believed."""

    def __init__(self, mesh: Mesh, on_change: Callable[[Change], None], clock: Clock = SYSTEM_CLOCK) -> None:
        client = mesh.client
        self.aggregate = Aggregate(window_s=_WINDOW_S)
        self.heard: dict[tuple[str, str], Heard] = {}
        self.ignored = 0
        self._now = clock.monotonic
        self._enforced = mesh.settings.enforced
        self._transport = client.transport
        self._mux = client.mux
        self._subjects = Subjects(mesh.namespace)
        self._want = self._subjects.want("stats", ALL, mesh.name)
        self._news = anyio.Event()
        self._subscription = self._transport.subscribe(self._subjects.telemetry_of("stats"), self._on_stats)
        self._observer = Observer(
            subjects=self._subjects,
            transport=self._transport,
            mux=self._mux,
            clock=clock,
            enforced=self._enforced,
            on_change=lambda change: self._on_change(change, on_change),
        )

    @property
    def registry(self) -> Registry:
        """Who is there."""
        return self._observer.registry

    async def run(self) -> None:
        """Hold the lease on statistics until cancelled."""
        # Totals are cumulative: nothing is lost while the bus is away.
        await hold_lease(self._want, transport=self._transport, mux=self._mux)

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
        while any(self._seq(key) < seq for key, seq in wanted.items()):
            await self._news.wait()

    def _seq(self, key: tuple[str, str]) -> int:
        return self.heard[key].seq if key in self.heard else 0

    def close(self) -> None:
        """Stop listening; what was learnt stays."""
        self._observer.close()
        self._transport.unsubscribe(self._subscription)

    def _on_change(self, change: Change, tell: Callable[[Change], None]) -> None:
        tell(change)
        self.wake()

    def _on_stats(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        _, _, _, _, service, instance = subject.split(".")
        if not reply_allowed(reply, service, enforced=self._enforced):
            self.ignored += 1
            return
        try:
            message = decode_stats(
                payload, service=service, instance=instance, namespace=self._subjects.namespace
            )
        except CodecError:
            self.ignored += 1
            return
        key = (service, instance)
        if key not in self.heard and len(self.heard) >= _MAX_INSTANCES:
            self.ignored += 1
            return
        self.aggregate.apply(message, self._now())
        calls = self.aggregate.answered(*key)
        self.heard[key] = Heard(message.seq, str(message.state), message.in_flight, calls)
        self.wake()

"""Live calls for an observer: ``async with TapFeed(mesh, …) as feed: … feed.taken()``.

What is wanted is said to the instances, which send no more than that, and looked at again where it arrives
(:mod:`nats_mesh.telemetry.tap_sink`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import anyio
import msgspec

from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.core.presence import Name, Version
from nats_mesh.core.tap_filter import MAX_SLOW_S, Filter
from nats_mesh.errors import CallError
from nats_mesh.telemetry.tap_messages import MAX_RATE, TapCall, TapMessage, Wish
from nats_mesh.telemetry.tap_sink import TapSink
from nats_mesh.telemetry.wants import LEASE_S
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.subjects import ALL

__all__ = ["MAX_TARGETS", "SeenCall", "TapFeed"]

#: How many services may be named.
MAX_TARGETS: Final = 32
_KIND: Final = "tap"
_ALL: Final = Filter()
#: What is wanted once nothing is wanted any more: calls that take longer than any does.
_NOTHING: Final = Wish(only=Filter(slow_s=MAX_SLOW_S))


class SeenCall(TapCall, frozen=True, kw_only=True, omit_defaults=True):
    """A call, and the instance that told of it."""

    service: Name
    instance: Name
    version: Version


def _seen(call: TapCall, message: TapMessage) -> SeenCall:
    fields: dict[str, Any] = {name: getattr(call, name) for name in TapCall.__struct_fields__}
    return SeenCall(service=message.service, instance=message.instance, version=message.version, **fields)


class TapFeed(TapSink[SeenCall]):
    """Asks the instances of an open ``mesh`` for calls while the block runs.

    ``targets``: services, each with its endpoints (none: all of them); none at all is every service. ``rate_per_s``:
    of each instance and of all of them together. ``body``: so many characters of what was sent and answered, where a
    policy allows it; then ``why`` must say why, which is written down at the instances. ``headers``: those of the
    application's that are shown; ``None`` is all.
    """

    def __init__(
        self,
        mesh: Any,
        *,
        targets: Mapping[str, tuple[str, ...]] = {},
        only: Filter = _ALL,
        headers: tuple[str, ...] | None = (),
        rate_per_s: float = 100.0,
        body: int = 0,
        why: str = "",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        asked = headers
        if headers is not None and only.headers:
            asked = tuple(dict.fromkeys([*headers, *(name for name, _ in only.headers)]))
        wish = Wish(only=only, headers=asked, rate=min(MAX_RATE, rate_per_s), body=body, why=why)
        super().__init__(
            _seen,
            namespace=mesh.namespace,
            enforced=mesh.settings.enforced,
            now=clock.monotonic,
            targets=targets,
            wish=wish,
            rate_per_s=rate_per_s,
        )
        self._mesh = mesh
        self._inbox = ""
        self._subscription: Any = None
        self._tasks: Any = None

    async def __aenter__(self) -> Self:
        client = self._mesh.client
        self._inbox = client.mux.lease()
        self._subscription = client.transport.subscribe(client.subjects.telemetry_of(_KIND), self.on_message)
        try:
            await client.transport.fence()
        except BaseException:
            client.transport.unsubscribe(self._subscription)
            raise
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._hold)
        return self

    async def _hold(self) -> None:
        """Hold a lease for each service, which says what is wanted of it."""
        while True:
            self._ask(self._wish)
            await anyio.sleep(LEASE_S / 2)

    def _ask(self, wish: Wish) -> None:
        client = self._mesh.client
        for service, endpoints in (self._targets or {ALL: ()}).items():
            only = msgspec.structs.replace(wish.only, endpoints=endpoints) if endpoints else wish.only
            body = JSON.encode(msgspec.structs.replace(wish, only=only))
            try:
                client.transport.publish(
                    client.subjects.want(_KIND, service, self._mesh.name), body, self._inbox
                )
            except CallError:
                return  # the bus is away: the next one is in time, or its loss shows as a gap

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._ask(_NOTHING)  # until the lease is over, too
            self._mesh.client.transport.unsubscribe(self._subscription)

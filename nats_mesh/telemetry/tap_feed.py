"""Live calls for an observer: ``async with TapFeed(mesh, …) as feed: … feed.taken()``.

What is wanted is said to the instances, which send no more than that; and it is looked at again here, because another
observer may have asked for more, and an older instance knows no filters. Whoever takes slowly loses the oldest calls
that wait, which are counted: nothing grows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import anyio
import msgspec

from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.core.envelope import sampled
from nats_mesh.core.numbering import Numbering
from nats_mesh.core.presence import Name, Version
from nats_mesh.core.refill import Refill
from nats_mesh.core.tap_filter import MAX_SLOW_S, Filter
from nats_mesh.errors import CallError, CodecError
from nats_mesh.telemetry.tap_messages import MAX_RATE, TapCall, TapMessage, Wish, decode_tap
from nats_mesh.telemetry.wants import LEASE_S
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.subjects import ALL, reply_allowed

__all__ = ["MAX_TARGETS", "SeenCall", "TapCounts", "TapFeed", "TapSink"]

#: How many services may be named.
MAX_TARGETS: Final = 32
#: How many calls wait to be taken, and how many instances are told apart.
_MAX_WAITING: Final = 2000
_MAX_INSTANCES: Final = 10_000
#: A burst may be this long at the full rate (seconds).
_BURST_S: Final = 1.0
_KIND: Final = "tap"
_ALL: Final = Filter()
_ANY: Final = Wish()
#: What is wanted once nothing is wanted any more: calls that take longer than any does.
_NOTHING: Final = Wish(only=Filter(slow_s=MAX_SLOW_S))


class SeenCall(TapCall, frozen=True, kw_only=True, omit_defaults=True):
    """A call, and the instance that told of it."""

    service: Name
    instance: Name
    version: Version


class TapCounts(msgspec.Struct):
    """``ended`` calls at the instances that were heard (whatever is wanted of them), of which ``shown`` were handed
    out. Left out, though wanted: ``capped`` above the rate at an instance, ``over`` above the rate here, ``slow`` for
    want of whoever takes them, ``withheld`` because a policy shows them to nobody. ``lost`` messages never came,
    ``ignored`` ones were not believed. ``silent`` calls came without the bodies that were asked for."""

    ended: int = 0
    shown: int = 0
    capped: int = 0
    over: int = 0
    slow: int = 0
    withheld: int = 0
    lost: int = 0
    ignored: int = 0
    silent: int = 0

    @property
    def left_out(self) -> int:
        """Calls that somebody wanted and nobody sees."""
        return self.capped + self.over + self.slow + self.withheld


class TapSink:
    """Takes messages of instances in and hands out calls. ``targets``: the services that are wanted, each with the
    endpoints of it (none: all); none at all is every service. ``older``: instances that know no filters."""

    def __init__(
        self,
        *,
        namespace: str,
        enforced: bool,
        now: Callable[[], float],
        targets: Mapping[str, tuple[str, ...]] = {},
        wish: Wish = _ANY,
        rate_per_s: float = MAX_RATE,
        waiting: int = _MAX_WAITING,
    ) -> None:
        self.counts = TapCounts()
        self.older: set[str] = set()
        self._namespace = namespace
        self._enforced = enforced
        self._now = now
        self._targets = dict(targets)
        self._wish = wish
        self._headers = None if wish.headers is None else frozenset(wish.headers)
        self._rate = Refill(rate_per_s, max(1.0, rate_per_s * _BURST_S), now())
        self._numbers = Numbering(_MAX_INSTANCES)
        self._waiting: deque[SeenCall] = deque()
        self._room = waiting
        self._news = anyio.Event()

    @property
    def instances(self) -> int:
        """How many instances told of calls."""
        return len(self._numbers)

    def on_message(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A message on an instance's tap subject."""
        parts = subject.split(".")
        if len(parts) != 6 or not reply_allowed(reply, parts[4], enforced=self._enforced):
            self.counts.ignored += 1
            return
        if self._targets and parts[4] not in self._targets:
            return  # another observer's
        try:
            message = decode_tap(payload, service=parts[4], instance=parts[5], namespace=parts[1])
        except CodecError:
            self.counts.ignored += 1
            return
        if message.namespace != self._namespace or not self._follows(message):
            self.counts.ignored += 1
            return
        self.take(message)

    def take(self, message: TapMessage) -> None:
        """What an instance tells."""
        counts = self.counts
        counts.ended += message.seen
        counts.capped += message.dropped
        counts.withheld += message.withheld
        if not message.filtered:
            self.older.add(message.instance)
        endpoints = self._targets.get(message.service, ())
        for call in message.calls:
            if not endpoints or call.endpoint in endpoints:
                self._take(call, message)
        if self._waiting:
            self._news.set()

    def _follows(self, message: TapMessage) -> bool:
        """Whether a message is news of its instance; counts those between that never came."""
        numbers = self._numbers
        news = numbers.is_news((message.service, message.instance), message.seq, self._now())
        self.counts.lost = numbers.lost
        return news

    def _take(self, call: TapCall, message: TapMessage) -> None:
        wish, counts = self._wish, self.counts
        if not wish.only.admits_told(call) or (call.trace and not sampled(call.trace, wish.sample)):
            return  # another observer asked for more, or the instance is an older one
        if self._rate.room(self._now()) < 1:
            counts.over += 1
            return
        self._rate.take(1)
        if len(self._waiting) >= self._room:
            self._waiting.popleft()
            counts.slow += 1
            counts.shown -= 1
        counts.shown += 1
        fields: dict[str, Any] = {name: getattr(call, name) for name in TapCall.__struct_fields__}
        if self._headers is not None:
            fields["headers"] = tuple([pair for pair in call.headers if pair[0] in self._headers])
        if not wish.body:
            fields |= {"sent": None, "answered": None, "silent": False}
        elif call.silent:
            counts.silent += 1
        self._waiting.append(
            SeenCall(service=message.service, instance=message.instance, version=message.version, **fields)
        )

    def taken(self) -> list[SeenCall]:
        """What came since the last time."""
        calls = list(self._waiting)
        self._waiting.clear()
        self._news = anyio.Event()
        return calls

    async def news(self) -> None:
        """Return when there is something to take, or somebody wants attention."""
        await self._news.wait()

    def rouse(self) -> None:
        """Have whoever waits look again."""
        self._news.set()


class TapFeed(TapSink):
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

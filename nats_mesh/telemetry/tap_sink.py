"""What an observer takes of the calls that instances tell of: its own sample, its own headers, no more than it wants.

Instances tell all observers the same, and an older one knows no filters: so what was asked for is looked at again here.
Whoever takes slowly loses the oldest calls that wait, which are counted: nothing grows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

import anyio
import msgspec
from msgspec import UNSET

from nats_mesh.core.envelope import sampled
from nats_mesh.core.numbering import Numbering
from nats_mesh.core.refill import Refill
from nats_mesh.errors import CodecError
from nats_mesh.telemetry.tap_messages import MAX_RATE, TapCall, TapMessage, Wish, decode_tap
from nats_mesh.telemetry.wants import LEASE_S
from nats_mesh.wire.vouching import member_of

__all__ = ["Crowd", "TapCounts", "TapSink"]

#: How many calls wait to be taken, and how many instances are told apart.
_MAX_WAITING: Final = 2000
_MAX_INSTANCES: Final = 10_000
#: A burst may be this long at the full rate (seconds).
_BURST_S: Final = 1.0
_ANY: Final = Wish()

C = TypeVar("C")


class Crowd(NamedTuple):
    """An instance (``service/id``) that has no place left, and how many places each observer's name has there."""

    instance: str
    places: dict[str, int]


class TapCounts(msgspec.Struct):
    """``ended`` calls at the instances that were heard (of the endpoints that were named, whatever else is wanted; of
    all endpoints at instances that do not tell them apart), of which ``shown`` were handed
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
    def dropped(self) -> int:
        """Calls that somebody wanted and that found no room, there or here."""
        return self.capped + self.over + self.slow

    @property
    def left_out(self) -> int:
        """Calls that somebody wanted and nobody sees."""
        return self.dropped + self.withheld


class TapSink(Generic[C]):
    """Takes messages of instances in and hands out calls, as ``make`` makes them of a call and the message it is in.

    ``targets``: the services that are wanted, each with the endpoints of it (none: all); none at all is every service.
    ``older``: instances that know no filters.
    """

    def __init__(
        self,
        make: Callable[[TapCall, TapMessage], C],
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
        self._crowd: Crowd | None = None
        self._crowd_until = 0.0
        self._make = make
        self._namespace = namespace
        self._enforced = enforced
        self._now = now
        self._targets = dict(targets)
        self._wish = wish
        self._headers = None if wish.headers is None else frozenset(wish.headers)
        self._rate = Refill(rate_per_s, max(1.0, rate_per_s * _BURST_S), now())
        self._numbers = Numbering(_MAX_INSTANCES)
        self._waiting: deque[C] = deque()
        self._room = waiting
        self._news = anyio.Event()

    @property
    def instances(self) -> int:
        """How many instances told of calls."""
        return len(self._numbers)

    @property
    def crowded(self) -> Crowd | None:
        """Of instances that more observers ask than they tell apart, the one that said so last; ``None`` where none did
        within :data:`LEASE_S`."""
        return self._crowd if self._now() < self._crowd_until else None

    def on_message(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A message on an instance's tap subject."""
        counts, numbers = self.counts, self._numbers
        whose = member_of(subject, reply, enforced=self._enforced)
        if whose is None:
            counts.ignored += 1
            return
        if self._targets and whose[0] not in self._targets:
            return  # another observer's
        try:
            message = decode_tap(payload, service=whose[0], instance=whose[1], namespace=self._namespace)
        except CodecError:
            counts.ignored += 1
            return
        if not numbers.is_news(whose, message.seq, payload, self._now()):
            counts.ignored += 1
            return
        counts.lost = numbers.lost
        self.take(message)

    def take(self, message: TapMessage) -> None:
        """What an instance tells."""
        counts = self.counts
        endpoints = self._targets.get(message.service, ())
        if endpoints and message.seen_by is not UNSET:
            counts.ended += sum([message.seen_by.get(each, 0) for each in endpoints])
        else:
            counts.ended += message.seen
        counts.capped += message.dropped
        counts.withheld += message.withheld
        if not message.filtered and len(self.older) < _MAX_INSTANCES:
            self.older.add(message.instance)
        instance = f"{message.service}/{message.instance}"
        if message.crowded:
            self._crowd = Crowd(instance, message.crowded)
            self._crowd_until = self._now() + LEASE_S
        elif self._crowd is not None and self._crowd.instance == instance:
            self._crowd = None
        for call in message.calls:
            if not endpoints or call.endpoint in endpoints:
                self._take(call, message)
        if self._waiting:
            self._news.set()

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
        others: dict[str, Any] = {}
        if self._headers is not None and call.headers:
            others["headers"] = tuple([pair for pair in call.headers if pair[0] in self._headers])
        if not wish.body:
            others |= {"sent": None, "answered": None, "silent": False}
        elif call.silent:
            counts.silent += 1
        self._waiting.append(self._make(msgspec.structs.replace(call, **others), message))

    def taken(self) -> list[C]:
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

"""What an observer takes of the calls that instances tell of: its own sample, its own headers, no more than it
wants."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import msgspec

from nats_mesh.core.envelope import RecordedCall, sampled
from nats_mesh.core.numbering import Numbering
from nats_mesh.core.refill import Refill
from nats_mesh.errors import CodecError
from nats_mesh.policy.whatif.recording import End
from nats_mesh.telemetry.tap_messages import TapMessage, calls_of, decode_tap
from nats_mesh.wire.subjects import reply_allowed

__all__ = ["Taken"]

#: How many calls wait to be written at most.
_MAX_WAITING = 50_000
_MAX_INSTANCES = 10_000
#: How long a burst may be at the full rate (seconds).
_BURST_S = 1.0


class Taken:
    """Takes messages in and hands out calls. Counters: ``seen`` calls ended at the instances, of which ``recorded``
    were taken; ``dropped`` belonged to the sample and found no room, there or here; ``lost`` messages never came;
    ``ignored`` ones were not believed, or could not be read."""

    def __init__(
        self,
        *,
        namespace: str,
        enforced: bool,
        sample: float,
        headers: tuple[str, ...] | None,
        rate_per_s: float,
        now: Callable[[], float],
    ) -> None:
        self.seen = self.recorded = self.dropped = self.lost = self.ignored = 0
        self._namespace = namespace
        self._enforced = enforced
        self._sample = sample
        self._headers = None if headers is None else frozenset(headers)
        self._now = now
        self._rate = Refill(rate_per_s, max(1.0, rate_per_s * _BURST_S), now())
        self._numbers = Numbering(_MAX_INSTANCES)
        self._waiting: list[RecordedCall] = []
        self._news = anyio.Event()

    @property
    def instances(self) -> int:
        """How many instances told of calls."""
        return len(self._numbers)

    def on_message(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A message on an instance's tap subject."""
        parts = subject.split(".")
        if len(parts) != 6 or not reply_allowed(reply, parts[4], enforced=self._enforced):
            self.ignored += 1
            return
        try:
            message = decode_tap(payload, service=parts[4], instance=parts[5], namespace=parts[1])
        except CodecError:
            self.ignored += 1
            return
        if message.namespace != self._namespace or not self._follows(message):
            self.ignored += 1
            return
        self.seen += message.seen
        self.dropped += message.dropped
        for call in calls_of(message):
            self._take(call)
        if self._waiting:
            self._news.set()

    def _follows(self, message: TapMessage) -> bool:
        """Whether a message is news of its instance; counts those between that never came."""
        numbers = self._numbers
        news = numbers.is_news((message.service, message.instance), message.seq, self._now())
        self.lost = numbers.lost
        return news

    def _take(self, call: RecordedCall) -> None:
        if call.trace and not sampled(call.trace, self._sample):
            return  # another observer asked for more
        if self._rate.room(self._now()) < 1 or len(self._waiting) >= _MAX_WAITING:
            self.dropped += 1
            return
        self._rate.take(1)
        self.recorded += 1
        if self._headers is not None:
            kept = tuple([(name, value) for name, value in call.headers if name in self._headers])
            call = msgspec.structs.replace(call, headers=kept)
        self._waiting.append(call)

    def taken(self) -> list[RecordedCall]:
        """What came since the last time."""
        calls, self._waiting = self._waiting, []
        self._news = anyio.Event()
        return calls

    async def news(self) -> None:
        """Return when there is something, or somebody wants attention."""
        await self._news.wait()

    def rouse(self) -> None:
        """Have whoever waits look again."""
        self._news.set()

    def end(self, ended: str) -> End:
        """The last line of a recording."""
        return End(
            ended=ended,
            seen=self.seen,
            recorded=self.recorded,
            dropped=self.dropped,
            lost=self.lost,
            ignored=self.ignored,
        )

"""What members tell while somebody listens, each event once, as far as it is asked for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

import anyio

from nats_mesh import Mesh
from nats_mesh.clock import rfc3339
from nats_mesh.core.members import Change
from nats_mesh.core.presence import incarnation
from nats_mesh.errors import CodecError
from nats_mesh.telemetry.events import Event, decode_event, decode_recent
from nats_mesh.wire.subjects import ALL
from nats_mesh.wire.vouching import member_of
from nats_mesh_cli.bus import ask
from nats_mesh_cli.event_records import membership, record_of
from nats_mesh_cli.output import Record

__all__ = ["Feed"]

_MAX_SEEN = 50_000
_MAX_WAITING = 10_000


class Feed:
    """Takes in what members tell and hands it out once, in the order in which it came.

    ``ignored`` counts what was not believed or could not be read, ``lost`` what came faster than it was shown.
    """

    def __init__(
        self, mesh: Mesh, service: str | None, *, kinds: Sequence[str] = (), since: str = ""
    ) -> None:
        self.service = service
        self._kinds = tuple(kinds)
        self._since = incarnation(since) if since else ""
        self.ignored = 0
        self.lost = 0
        #: Whether it is known who was there before: whoever is new from now on has come.
        self.introduced = False
        self._mesh = mesh
        self._seen: dict[tuple[str, str, int, str, str], None] = {}
        self._waiting: deque[Record] = deque()
        self._news = anyio.Event()

    def take(self, event: Event) -> None:
        """One event, however often it comes."""
        # Not the number alone: whoever says the next ones in another's name would keep what happens there from us.
        key = (event.service, event.instance, event.seq, event.at, event.kind)
        if key in self._seen or event.namespace != self._mesh.namespace:
            return
        if self.service not in (None, event.service):
            return
        if len(self._seen) >= _MAX_SEEN:
            self._seen.pop(next(iter(self._seen)))
        self._seen[key] = None
        self.put(record_of(event))

    def wanted(self, record: Record) -> bool:
        """Whether it is of a kind, a time and a service that are asked for."""
        kind = str(record["kind"])
        if self._kinds and not any(kind == each or kind.startswith(f"{each}.") for each in self._kinds):
            return False
        if self.service is not None and self.service not in (record["service"], record["target"]):
            return False
        return not self._since or incarnation(str(record["at"])) >= self._since

    def put(self, record: Record) -> None:
        """Something to show, where it is wanted."""
        if not self.wanted(record):
            return
        if len(self._waiting) >= _MAX_WAITING:
            self._waiting.popleft()
            self.lost += 1
        self._waiting.append(record)
        self._news.set()

    def taken(self) -> list[Record]:
        """What came since the last time."""
        records = list(self._waiting)
        self._waiting.clear()
        self._news = anyio.Event()
        return records

    async def news(self) -> None:
        """Return when there is something to show."""
        await self._news.wait()

    def on_event(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A message on a member's event subject."""
        whose = member_of(subject, reply, enforced=self._mesh.settings.enforced)
        if whose is None:
            self.ignored += 1
            return
        try:
            self.take(
                decode_event(payload, service=whose[0], instance=whose[1], namespace=self._mesh.namespace)
            )
        except CodecError:
            self.ignored += 1

    def on_change(self, change: Change) -> None:
        """Somebody came or went."""
        record = membership(change, rfc3339(time.time()))
        if self.introduced and record is not None:
            self.put(record)

    async def ask(self, timeout_s: float) -> None:
        """Ask everybody for what they remember; this is also a lease."""
        want = self._mesh.client.subjects.want("event", self.service or ALL, self._mesh.name)
        replies = await ask(self._mesh, want, timeout_s=timeout_s, destination="telemetry")
        found: list[Event] = []
        for payload in replies.payloads:
            try:
                found += decode_recent(payload, service=self.service, namespace=self._mesh.namespace)
            except CodecError:
                self.ignored += 1
        for event in sorted(found, key=lambda each: (each.at, each.service, each.seq)):
            self.take(event)

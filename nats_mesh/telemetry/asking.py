"""What an observer asks of members: to tell of what they count and what happens, and who is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from nats_mesh.discovery.services_api import Verb, request_subject
from nats_mesh.errors import CallError
from nats_mesh.telemetry.wants import LEASE_S
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import ALL, Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["Asking"]

#: How often it is asked again who is there (seconds).
_ASK_EVERY_S: Final = 30.0
#: Who has come knows of no lease: it is renewed at once, but not more often (seconds). Several usually come together.
_REST_S: Final = 0.1
#: How many questions are listened for at a time: whoever has not answered by then does not.
_MAX_ASKED: Final = 4

_Take: TypeAlias = Callable[[bytes], None]


class _Answers:
    """Takes what answers a question as it comes."""

    def __init__(self, subject: str, take: _Take) -> None:
        self.subject = subject
        self._take = take

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        """Empty is what the server says where nobody is there."""
        if payload:
            self._take(payload)

    def on_failure(self, error: CallError) -> None:
        """The bus is away: it is asked again."""


class Asking:
    """Holds the leases on statistics and events of ``services`` (none: of all) for the observer ``name``.

    ``on_recent`` takes what members remember of events, ``on_ping`` who is there.
    """

    def __init__(
        self,
        *,
        name: str,
        subjects: Subjects,
        services: Sequence[str],
        transport: Callable[[], Transport],
        mux: ReplyMux,
        now: Callable[[], float],
        on_recent: _Take,
        on_ping: _Take,
    ) -> None:
        asked = services or [ALL]
        self._wants = [subjects.want(kind, each, name) for kind in ("stats", "event") for each in asked]
        self._transport = transport
        self._mux = mux
        self._inbox = mux.lease()
        self._now = now
        self._on_recent = on_recent
        self._on_ping = on_ping
        self._asked: list[str] = []
        self._came = asyncio.Event()
        #: When it is asked again what is there (by ``now``).
        self._due = 0.0

    def soon(self) -> None:
        """Somebody has come: have him know of the leases before they are renewed in any case."""
        self._came.set()

    def again(self) -> None:
        """The bus was away: ask at once what has happened meanwhile, and who is there."""
        self._due = 0.0
        self._came.set()

    async def run(self, each_time: Callable[[], None]) -> None:
        """Hold the leases until cancelled; ask now and then who is there, and what has happened."""
        while True:
            transport = self._transport()
            ask = self._now() >= self._due and transport.connected
            if ask:
                self._due = self._now() + _ASK_EVERY_S
                self._question(transport, request_subject(Verb.PING), "$SRV", self._on_ping)
            for want in self._wants:
                try:
                    if ask and ".want.event." in want:
                        self._question(transport, want, "telemetry", self._on_recent)
                    else:
                        transport.publish(want, b"", self._inbox)
                except CallError:
                    pass  # the bus is away: the next one is in time, and the view says that it is away
            try:
                async with asyncio.timeout(LEASE_S / 2):
                    await asyncio.sleep(_REST_S)
                    await self._came.wait()
            except TimeoutError:
                pass  # the leases are due
            self._came.clear()
            each_time()

    def _question(self, transport: Transport, subject: str, destination: str, take: _Take) -> None:
        """Ask everybody; answers are taken as they come, for a while."""
        for inbox in self._asked[:-_MAX_ASKED]:
            self._mux.close(inbox)
        self._asked = self._asked[-_MAX_ASKED:]
        try:
            inbox = self._mux.open(destination, _Answers(subject, take))
            self._asked.append(inbox)
            transport.publish(subject, b"", inbox)
        except CallError:
            pass  # as above

    def close(self) -> None:
        """Listen for no answers any more."""
        for inbox in self._asked:
            self._mux.close(inbox)
        self._asked = []

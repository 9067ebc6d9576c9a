"""A crowd of simulated instances: on the wire they are what real ones are, and they cost a timer each less.

Presence as ``docs/wire.md`` says it: join, beats at the interval that the size of the service asks for (± 20 %), leave.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time

import msgspec

from nats_mesh.core.presence import Announcement, EndpointInfo, Kind, Load
from nats_mesh.discovery.messages import beat_interval_s, encode, nominal_interval_s, rfc3339
from nats_mesh.wire.ids import new_id, new_secret
from nats_mesh.wire.subjects import INBOX, Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["Crowd", "Member"]

_ENDPOINTS = tuple(
    EndpointInfo(name=name, timeout_ms=2_000, concurrency=256, schema="0123456789abcdef")
    for name in ("place", "cancel", "get", "list", "price")
)
#: Announcements between two waits for the socket, and for whoever else runs on the loop.
_BURST = 100


class Member:
    """One simulated instance: what it says, and where."""

    __slots__ = ("_announcement", "inbox", "subject")

    def __init__(self, announcement: Announcement, subject: str, inbox: str) -> None:
        self._announcement = announcement
        self.subject = subject
        self.inbox = inbox

    @property
    def id(self) -> str:
        """Its instance id."""
        return self._announcement.instance

    @property
    def service(self) -> str:
        """Its service."""
        return self._announcement.service

    def say(self, kind: Kind) -> bytes:
        """The body of its next announcement."""
        self._announcement = msgspec.structs.replace(
            self._announcement,
            type=kind,
            seq=self._announcement.seq + 1,
            endpoints=_ENDPOINTS if kind in (Kind.JOIN, Kind.CHANGE) else (),
        )
        return encode(self._announcement)


class Crowd:
    """``services`` × ``each`` instances on one connection; ``interval_s`` replaces what their number asks for."""

    def __init__(
        self,
        transport: Transport,
        subjects: Subjects,
        rng: random.Random,
        *,
        services: int,
        each: int,
        interval_s: float | None = None,
    ) -> None:
        self._transport = transport
        self._rng = rng
        self._each = each
        self._interval_s = interval_s
        self.sent = 0
        started = rfc3339(time.time())
        self.members = [
            self._member(
                subjects, f"crowd-{number}", f"{INBOX}crowd-{number}.{new_id()}.{new_secret()}.0", started
            )
            for number in range(services)
            for _ in range(each)
        ]

    def _member(self, subjects: Subjects, service: str, inbox: str, started: str) -> Member:
        instance = new_id()
        announcement = Announcement(
            type=Kind.JOIN,
            service=service,
            instance=instance,
            name=f"host-{self._rng.randrange(1_000)}-{self._rng.randrange(2, 65_536)}",
            version="1.2.3",
            namespace=subjects.namespace,
            seq=1,
            started=started,
            interval_s=self._interval_s or nominal_interval_s(self._each),
            labels={"zone": "eu-1", "team": "shop"},
            load=Load(in_flight=3, limit=1_280, requests=1_000, errors=1),
        )
        return Member(announcement, subjects.presence(service, instance), inbox)

    async def say(self, kind: Kind) -> None:
        """Everybody says the same, as fast as the socket takes it; returns when the server has it."""
        for number, member in enumerate(self.members, 1):
            self._publish(member, kind)
            if number % _BURST == 0:
                await asyncio.sleep(0)
                await self._transport.writable()
        await self._transport.fence()

    async def beat(self) -> None:
        """Everybody beats at his own pace, until cancelled."""
        start = time.monotonic()
        # A crowd that has run for a while: first beats lie anywhere within an interval.
        due = [(start + self._rng.random() * self._wait_s(), number) for number in range(len(self.members))]
        heapq.heapify(due)
        while True:
            at, number = due[0]
            if (wait_s := at - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
                continue
            heapq.heapreplace(due, (at + self._wait_s(), number))
            self._publish(self.members[number], Kind.BEAT)

    def _wait_s(self) -> float:
        if self._interval_s is None:
            return beat_interval_s(self._each, self._rng.random())
        return self._interval_s * (0.8 + 0.4 * self._rng.random())

    def _publish(self, member: Member, kind: Kind) -> None:
        self._transport.publish(member.subject, member.say(kind), member.inbox)
        self.sent += 1

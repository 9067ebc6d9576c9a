"""Who has applied a change of policies: a roll call of everybody, and the acknowledgements that come.

A member counts from when it answered the roll call or acknowledged anything; one that says nothing more is
silent, and is named. Members that follow files, a set given in code, or nothing, are told apart: no change of
the store reaches them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, Literal

import anyio
import msgspec

from nats_mesh.core.presence import Rejection
from nats_mesh.discovery.messages import parse_revision
from nats_mesh.discovery.services_api import Verb, parse_ping, request_subject
from nats_mesh.errors import CallError, CodecError
from nats_mesh.policy.bus.acking import Ack, decode_ack
from nats_mesh.wire import headers as h
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects, reply_allowed
from nats_mesh.wire.transport import Subscription, Transport

__all__ = ["MAX_MEMBERS", "Acks", "Member", "Report"]

log = logging.getLogger("nats_mesh.policies")

#: How many members are kept track of; where there are more, a report says so (``more``).
MAX_MEMBERS: Final = 20_000
_MAX_REASON: Final = 512
#: The largest answer to the roll call that is read (bytes), and what is kept of a name for people (characters).
_MAX_ANSWER: Final = 64 << 10
_MAX_PLACE: Final = 256
#: How long to wait before the next look at all of them, for each (seconds).
_LOOK_S: Final = 5e-6
#: Sources of a member's policies that no change of the store reaches.
_ELSEWHERE: Final = frozenset({"files", "given", "off"})


class Member(msgspec.Struct, kw_only=True):
    """One instance of a service, or one connection of a pure client, and where it stands as far as it is known."""

    service: str
    instance: str
    kind: Literal["service", "client"] = "service"
    #: ``host-pid`` of an instance; empty where it is not known.
    name: str = ""
    source: str = ""
    revision: tuple[int, int] = (0, 0)
    rejections: tuple[Rejection, ...] = ()
    rejected: int = 0
    #: The version of the policies' schema that it reads, where it said so in a roll call; 0: it did not say.
    schema: int = 0
    #: What it refused last and why, where it said so in a roll call.
    reason: str = ""

    @property
    def place(self) -> str:
        """What people call it."""
        return f"{self.service}/{self.name or self.instance}"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a change went: who applied it, who refused it and why, who said nothing, whom it does not reach.

    ``more``: there are members beyond :data:`MAX_MEMBERS`, of whom nothing is known.
    """

    applied: tuple[Member, ...] = ()
    rejected: tuple[tuple[Member, Rejection], ...] = ()
    silent: tuple[Member, ...] = ()
    elsewhere: tuple[Member, ...] = ()
    more: bool = False

    @property
    def done(self) -> bool:
        """Whether everybody whom it reaches has answered."""
        return not self.silent

    @property
    def agreed(self) -> bool:
        """Whether it is in effect at everybody whom it reaches, as far as all of them are known."""
        return not (self.silent or self.rejected or self.more)


class Acks:
    """Hears acknowledgements from :meth:`open` to :meth:`close`; ``ignored`` counts those that were not believed."""

    def __init__(
        self, *, subjects: Subjects, transport: Transport, mux: ReplyMux, enforced: bool = False
    ) -> None:
        self.members: dict[tuple[str, str], Member] = {}
        self.ignored = 0
        #: Whether there are more members than are kept track of.
        self.more = False
        self._subjects = subjects
        self._transport = transport
        self._mux = mux
        self._enforced = enforced
        self._subscription: Subscription | None = None
        self._changed = anyio.Event()

    async def open(self) -> None:
        """Listen; returns when the server has confirmed it. :class:`PermissionDeniedError` where one may not."""
        self._subscription = self._transport.subscribe(self._subjects.ack_of(), self._on_ack)
        await self._transport.fence()

    async def roll_call(
        self, *, first_s: float = 1.0, quiet_s: float = 0.2, all_s: float = 3.0
    ) -> list[Member]:
        """Ask everybody in the namespace who is there: all that answered until nobody had for ``quiet_s``.

        Nobody at all is waited for ``first_s``; in all it takes at most ``all_s``.
        """
        roll = _Roll(request_subject(Verb.PING), self._member)
        reply = self._mux.open(roll.subject, roll)
        try:
            self._transport.publish(roll.subject, b"", reply)
            with anyio.move_on_after(all_s):
                wait_s = first_s
                while not roll.over:
                    with anyio.move_on_after(wait_s) as quiet:
                        await roll.next()
                    if quiet.cancelled_caught:
                        break
                    wait_s = quiet_s
        finally:
            self._mux.close(reply)
        if roll.error is not None:
            raise roll.error
        self.more = self.more or roll.more
        self.ignored += roll.ignored
        found = roll.found
        for member in found:
            known = self._keep(member)
            if known is not None and known.revision <= member.revision:
                known.revision = member.revision
        return found

    def too_old(self, schema: int) -> list[Member]:
        """Those that follow the store and do not read this version of the policies' schema."""
        return [
            each
            for each in self.members.values()
            if each.source not in _ELSEWHERE and 0 < each.schema < schema
        ]

    def _member(self, body: bytes) -> Member | None:
        try:
            ping = parse_ping(body)
        except CodecError:
            return None  # some other program's idea of an answer
        if ping.id == self._transport.connection:
            return None  # who asks
        meta = ping.metadata
        kind = meta.get("mesh.kind", "")
        if kind not in ("service", "client") or meta.get("mesh.namespace") != self._subjects.namespace:
            return None
        return Member(
            service=ping.name,
            instance=ping.id,
            kind="client" if kind == "client" else "service",
            name=meta.get("mesh.instance", "")[:_MAX_PLACE],
            source=meta.get("mesh.policies", "")[:_MAX_PLACE],
            revision=parse_revision(meta.get("mesh.revision", "")),
            rejected=_count(meta.get("mesh.rejected", "")),
            schema=_count(meta.get("mesh.policy.schema", "")),
            reason=meta.get("mesh.rejection", "")[:_MAX_REASON],
        )

    def _on_ack(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        parts = subject.split(".")
        if len(parts) != 6 or not reply_allowed(reply, parts[4], enforced=self._enforced):
            self.ignored += 1
            return
        try:
            ack = decode_ack(payload, service=parts[4], instance=parts[5], namespace=self._subjects.namespace)
        except CodecError as error:
            self.ignored += 1
            log.debug("%s: %s", subject, error)
            return
        self._take(ack)

    def _take(self, ack: Ack) -> None:
        member = self._keep(Member(service=ack.service, instance=ack.instance, kind=ack.kind))
        if member is None:
            return
        member.source, member.revision = ack.source, ack.revision
        member.rejections, member.rejected = ack.rejections, ack.rejected
        self._changed.set()

    def _keep(self, member: Member) -> Member | None:
        key = (member.service, member.instance)
        known = self.members.get(key)
        if known is not None:
            known.name, known.source = member.name or known.name, member.source or known.source
            known.schema = member.schema or known.schema
            return known
        if len(self.members) >= MAX_MEMBERS:
            self.more = True
            return None
        self.members[key] = member
        return member

    def forget(self, member: Member) -> None:
        """It has left: nobody waits for it any more."""
        self.members.pop((member.service, member.instance), None)
        self._changed.set()

    def report(self, epoch: int, sequences: Mapping[str, int]) -> Report:
        """How the change of these keys to these ``sequences`` went, as far as it is known now."""
        last = max(sequences.values(), default=0)
        applied: list[Member] = []
        rejected: list[tuple[Member, Rejection]] = []
        silent: list[Member] = []
        elsewhere: list[Member] = []
        for member in self.members.values():
            if member.source in _ELSEWHERE:
                elsewhere.append(member)
                continue
            refused = next(
                (each for each in member.rejections if _concerns(each, epoch, sequences, last)), None
            )
            if refused is not None:
                rejected.append((member, refused))
            elif member.revision[0] == epoch and member.revision[1] >= last:
                applied.append(member)
            else:
                silent.append(member)
        return Report(
            applied=tuple(applied),
            rejected=tuple(rejected),
            silent=tuple(silent),
            elsewhere=tuple(elsewhere),
            more=self.more,
        )

    async def wait(self, epoch: int, sequences: Mapping[str, int], *, timeout_s: float) -> Report:
        """Wait until everybody has answered for the change, at most ``timeout_s``; then see who is silent."""
        with anyio.move_on_after(timeout_s):
            while not self.report(epoch, sequences).done:
                self._changed = anyio.Event()
                await self._changed.wait()
                await anyio.sleep(_LOOK_S * len(self.members))  # many come at once: one look for all of them
        return self.report(epoch, sequences)

    def close(self) -> None:
        """Listen no more; what is known stays."""
        if self._subscription is not None:
            self._transport.unsubscribe(self._subscription)
            self._subscription = None

    def __repr__(self) -> str:
        return f"<Acks {len(self.members)} members>"


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _concerns(rejection: Rejection, epoch: int, sequences: Mapping[str, int], last: int) -> bool:
    """Whether this rejection is of one of these keys at its new sequence, or of everything at that time."""
    said, sequence = rejection.revision
    if said != epoch:
        return False
    if rejection.policy == "*":
        return sequence >= last
    return sequences.get(rejection.policy, -1) == sequence


class _Roll:
    """A sink of the reply mux: who answered one question to everybody, at most :data:`MAX_MEMBERS`.

    Answers are read as they come, and none is kept: anybody may send any number of any size. ``ignored`` counts those
    that were too large to be read.
    """

    def __init__(self, subject: str, read: Callable[[bytes], Member | None]) -> None:
        self.subject = subject
        self.found: list[Member] = []
        self.ignored = 0
        self.over = self.more = False
        self.error: CallError | None = None
        self._read = read
        self._event = anyio.Event()

    async def next(self) -> None:
        """Wait for one more answer, or the end."""
        event = self._event
        await event.wait()

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        if h.server_status(headers) is not None:
            self.over = True
        elif len(payload) > _MAX_ANSWER:
            self.ignored += 1
        elif len(self.found) >= MAX_MEMBERS:
            self.over = self.more = True
        elif (member := self._read(payload)) is not None:
            self.found.append(member)
        self._tell()

    def on_failure(self, error: CallError) -> None:
        self.over, self.error = True, error
        self._tell()

    def _tell(self) -> None:
        self._event.set()
        self._event = anyio.Event()

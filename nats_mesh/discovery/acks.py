"""Who has applied a change of policies: a roll call of everybody, and the acknowledgements that come.

A member counts from when it answered the roll call or acknowledged anything; one that says nothing more is
silent, and is named. With a :class:`~nats_mesh.discovery.witness.Witness` an instance counts, too, that ought to be
there and does not answer. Members that follow files, a set given in code, or nothing, are told apart: no change of
the store reaches them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import anyio

from nats_mesh.core.presence import Rejection
from nats_mesh.discovery.messages import parse_revision, rejection_text
from nats_mesh.discovery.reports import Member, Report
from nats_mesh.discovery.rolls import Roll
from nats_mesh.discovery.services_api import Verb, parse_ping, request_subject
from nats_mesh.discovery.witness import Witness
from nats_mesh.errors import CodecError, MeshError
from nats_mesh.policy.bus.acking import Ack, decode_ack
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Subscription, Transport
from nats_mesh.wire.vouching import member_of

__all__ = ["MAX_MEMBERS", "Acks", "Member", "Report"]

log = logging.getLogger("nats_mesh.policies")

#: How many members are kept track of; where there are more, a report says so (``more``).
MAX_MEMBERS: Final = 20_000
_MAX_REASON: Final = 512
#: What is kept of a name for people (characters).
_MAX_PLACE: Final = 256
#: How long to wait before the next look at all of them, for each (seconds).
_LOOK_S: Final = 5e-6
#: The same where somebody ought to be there and does not answer: who is busy gets more time to (seconds).
_SLOW_S: Final = 0.5
#: How often to look whether presence still shows who does not answer (seconds).
_STILL_S: Final = 0.5


class Acks:
    """Hears acknowledgements from :meth:`open` to :meth:`close`; ``ignored`` counts those that were not believed.

    ``without`` names members that nobody waits for (:meth:`Member.called`).
    """

    def __init__(
        self,
        *,
        subjects: Subjects,
        transport: Transport,
        mux: ReplyMux,
        enforced: bool = False,
        witness: Witness | None = None,
        without: Collection[str] = (),
    ) -> None:
        self.members: dict[tuple[str, str], Member] = {}
        self.ignored = 0
        #: Whether there are more members than are kept track of.
        self.more = False
        self._subjects = subjects
        self._transport = transport
        self._mux = mux
        self._enforced = enforced
        self._witness = witness
        self._without = tuple(without)
        self._subscription: Subscription | None = None
        self._changed = anyio.Event()

    async def open(self) -> None:
        """Listen; returns when the server has confirmed it. :class:`PermissionDeniedError` where one may not."""
        self._subscription = self._transport.subscribe(self._subjects.ack_of(), self._on_ack)
        await self._transport.fence()
        if self._witness is not None:
            await self._witness.open()

    async def attend(self) -> list[Member]:
        """As :meth:`roll_call`, and find out who else ought to be there: who has answered, now or when asked again.

        An instance that the servers say is gone does not count; :meth:`absent` are those that are left.
        """
        witness = self._witness
        if witness is None:
            return await self.roll_call()
        found: list[Member] = []
        failed: MeshError | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(witness.recall)
            try:
                found = await self.roll_call()
            except MeshError as error:
                failed = error
                tasks.cancel_scope.cancel()
        if failed is not None:
            raise failed
        if absent := self.absent():
            await witness.ended(absent)
        if self.absent():
            again = {each.key: each for each in await self.roll_call(first_s=_SLOW_S, quiet_s=_SLOW_S)}
            found = list({**{each.key: each for each in found}, **again}.values())
        return found

    def absent(self) -> list[Member]:
        """Who ought to be there, as far as anybody knows, and neither answered nor acknowledged."""
        return [] if self._witness is None else self._witness.absent(self.members.keys())

    @property
    def problem(self) -> str:
        """Why not everybody who ought to be there may be known; empty where nothing is wrong."""
        return "" if self._witness is None else self._witness.problem

    async def look_again(self, silent: Sequence[Member]) -> list[str]:
        """Ask everybody once more, and forget of the ``silent`` who is not there any more; what people should know of
        that.

        Who does not answer is gone where the servers say so, or where they cannot say and presence does not show it;
        who answers is gone where the servers say so and presence does not show it: anybody may answer.
        """
        here = {each.key for each in await self.roll_call()}
        ended = {} if self._witness is None else await self._witness.ended(silent)
        notes: list[str] = []
        for member in silent:
            known = self.members.get(member.key)
            shown = self._witness is not None and self._witness.shows(member)
            gone = ended.get(member.key)
            if member.key in here:
                if gone and not shown:
                    self.forget(member)
                    notes.append(
                        f"{member.place} ({member.instance}) answers, but no connection is its: not waited for"
                    )
            elif gone or (gone is None and not shown):
                self.forget(member)
            elif known is not None:
                known.answers = False
        return notes

    async def roll_call(
        self, *, first_s: float = 1.0, quiet_s: float = 0.2, all_s: float = 3.0
    ) -> list[Member]:
        """Ask everybody in the namespace who is there: all that answered until nobody had for ``quiet_s``.

        Nobody at all is waited for ``first_s``; in all it takes at most ``all_s``.
        """
        roll = Roll(request_subject(Verb.PING), self._on_answer, most=MAX_MEMBERS)
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
        return roll.found

    def too_old(self, schema: int) -> list[Member]:
        """Those that follow the store and do not read this version of the policies' schema."""
        return [each for each in self.members.values() if not each.elsewhere and 0 < each.schema < schema]

    def _on_answer(self, body: bytes) -> Member | None:
        """Taken as it comes, in order with the acknowledgements: what a member says later is what holds."""
        member = self._member(body)
        known = None if member is None else self._keep(member)
        if member is not None and known is not None and known.revision <= member.revision:
            known.revision = member.revision
            known.rejected, known.reason = member.rejected, member.reason
            if not member.rejected:
                known.rejections = ()
        return member

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
        whose = member_of(subject, reply, enforced=self._enforced)
        if whose is None:
            self.ignored += 1
            return
        try:
            ack = decode_ack(payload, service=whose[0], instance=whose[1], namespace=self._subjects.namespace)
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
        member.reason = rejection_text(ack.rejections)
        self._changed.set()

    def _keep(self, member: Member) -> Member | None:
        key = (member.service, member.instance)
        known = self.members.get(key)
        if known is not None:
            known.name, known.source = member.name or known.name, member.source or known.source
            known.schema = member.schema or known.schema
            known.answers = True
            return known
        if len(self.members) >= MAX_MEMBERS:
            self.more = True
            return None
        self.members[key] = member
        return member

    def forget(self, member: Member) -> None:
        """It has left: nobody waits for it any more."""
        self.members.pop(member.key, None)
        self._changed.set()

    def report(self, epoch: int, sequences: Mapping[str, int]) -> Report:
        """How the change of these keys to these ``sequences`` went, as far as it is known now."""
        last = max(sequences.values(), default=0)
        applied: list[Member] = []
        rejected: list[tuple[Member, Rejection]] = []
        silent: list[Member] = []
        elsewhere: list[Member] = []
        without: list[Member] = []
        for member in self.members.values():
            if member.elsewhere:
                elsewhere.append(member)
                continue
            if self._left_out(member):
                without.append(member)
                continue
            refused = _refused(member, epoch, sequences, last)
            if refused is not None:
                rejected.append((member, refused))
            elif _has(member, epoch, last):
                applied.append(member)
            else:
                silent.append(member)
                member.why = "" if self._witness is None else self._witness.why(member)
        for member in self.absent():
            (without if self._left_out(member) else silent).append(member)
        return Report(
            applied=tuple(applied),
            rejected=tuple(rejected),
            silent=tuple(silent),
            elsewhere=tuple(elsewhere),
            without=tuple(without),
            more=self.more,
        )

    def _left_out(self, member: Member) -> bool:
        return any(member.called(name) for name in self._without)

    def _open(self, epoch: int, sequences: Mapping[str, int], last: int) -> bool:
        """Whether anybody still has to answer for the change; the short way to what :meth:`report` says of it."""
        for member in self.members.values():
            if not (
                member.elsewhere
                or _has(member, epoch, last)
                or _refused(member, epoch, sequences, last) is not None
                or self._left_out(member)
            ):
                return True
        return any(not self._left_out(member) for member in self.absent())

    async def wait(self, epoch: int, sequences: Mapping[str, int], *, timeout_s: float) -> Report:
        """Wait until everybody has answered for the change, at most ``timeout_s``; then see who is silent."""
        last = max(sequences.values(), default=0)
        with anyio.move_on_after(timeout_s):
            while self._open(epoch, sequences, last):
                self._changed = anyio.Event()
                with anyio.move_on_after(_STILL_S):  # presence may drop meanwhile who does not answer
                    await self._changed.wait()
                await anyio.sleep(_LOOK_S * len(self.members))  # many come at once: one look for all of them
        return self.report(epoch, sequences)

    def close(self) -> None:
        """Listen no more; what is known stays."""
        if self._subscription is not None:
            self._transport.unsubscribe(self._subscription)
            self._subscription = None
        if self._witness is not None:
            self._witness.close()

    def __repr__(self) -> str:
        return f"<Acks {len(self.members)} members>"


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _has(member: Member, epoch: int, last: int) -> bool:
    """Whether what it follows is this change, or newer."""
    return member.revision[0] == epoch and member.revision[1] >= last


def _refused(member: Member, epoch: int, sequences: Mapping[str, int], last: int) -> Rejection | None:
    """What it refused of the change."""
    return next((each for each in member.rejections if _concerns(each, epoch, sequences, last)), None)


def _concerns(rejection: Rejection, epoch: int, sequences: Mapping[str, int], last: int) -> bool:
    """Whether this rejection is of one of these keys at its new sequence, or of everything at that time."""
    said, sequence = rejection.revision
    if said != epoch:
        return False
    if rejection.policy == "*":
        return sequence >= last
    return sequences.get(rejection.policy, -1) == sequence

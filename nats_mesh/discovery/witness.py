"""A second word about who is there, beside the answers to a roll call: presence, the audit, and the servers.

An instance that presence shows and that does not answer hangs, or has just ended: the servers know which, where they
may be asked. A member that answers and that neither presence nor the servers know is nobody's: in open mode anybody may
answer a roll call under any name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.discovery.connections import Connections, client_subject, instance_subject
from nats_mesh.discovery.expected import Expected, Sighting
from nats_mesh.discovery.reports import Member
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["Witness"]


class Witness:
    """Knows who ought to be there, from :meth:`open` to :meth:`close`."""

    def __init__(
        self,
        *,
        subjects: Subjects,
        transport: Transport,
        mux: ReplyMux,
        clock: Clock = SYSTEM_CLOCK,
        enforced: bool = False,
    ) -> None:
        self._expected = Expected(
            subjects=subjects, transport=transport, mux=mux, clock=clock, enforced=enforced
        )
        self._connections = Connections(transport, mux)

    @property
    def problem(self) -> str:
        """Why not everybody may be known; empty where all is well."""
        return self._expected.problem

    @property
    def recalled(self) -> bool:
        """Whether there is an audit, and it has told who was there."""
        return self._expected.recalled

    async def open(self) -> None:
        """Listen; returns when the server has confirmed it."""
        await self._expected.open()

    async def recall(self) -> None:
        """Take what the audit knows of the time before. Raises nothing."""
        await self._expected.recall()

    def absent(self, known: Collection[tuple[str, str]]) -> list[Member]:
        """The instances that ought to be there and are not among those that are ``known``."""
        return [
            Member(
                service=each.service,
                instance=each.instance,
                name=each.name,
                revision=each.revision,
                answers=False,
                why=_silence(each),
            )
            for each in self._expected.everybody()
            if (each.service, each.instance) not in known
        ]

    def shows(self, member: Member) -> bool:
        """Whether presence shows this member; of a pure client it never does."""
        return self._expected.find(member.service, member.instance) is not None

    def why(self, member: Member) -> str:
        """What is to be said of a member that has not acknowledged."""
        sighting = self._expected.find(member.service, member.instance)
        if not member.answers:
            return "does not answer any more" if sighting is None else _silence(sighting)
        if sighting is None and member.kind == "service":
            return (
                "answers the roll call, and presence does not know it: there is no beat and no record of it"
            )
        return "answers, and has not acknowledged"

    async def ended(self, members: Iterable[Member]) -> dict[tuple[str, str], bool | None]:
        """Ask the servers which of these have ended: by its key whether each has, ``None`` where they cannot say."""
        subjects = {each.key: _subject(each) for each in members}
        held = await self._connections.held(subjects.values())
        found: dict[tuple[str, str], bool | None] = {}
        for key, subject in subjects.items():
            there = held.get(subject)
            found[key] = None if there is None else not there
            if there is False:
                self._expected.ended(*key)
        return found

    def close(self) -> None:
        """Listen no more; what is known stays."""
        self._expected.close()


def _subject(member: Member) -> str:
    subject = instance_subject if member.kind == "service" else client_subject
    return subject(member.service, member.instance)


def _silence(sighting: Sighting) -> str:
    if sighting.recorded:
        return f"does not answer; its last sign in the audit (it gives one a minute) is {sighting.silent_s:.0f} s old"
    return f"does not answer, and gave its last sign of life {sighting.silent_s:.0f} s ago"

"""Who follows the store, as ``policy apply`` waits for them and ``policy status`` lists them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from nats_mesh import Mesh
from nats_mesh.discovery.acks import MAX_MEMBERS, Acks, Member, Report
from nats_mesh.discovery.witness import Witness
from nats_mesh_cli.bus import CALLER
from nats_mesh_cli.errors import one_line
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Out, counted

__all__ = ["acks_of", "tell_report", "without_hint"]


@asynccontextmanager
async def acks_of(options: Options, mesh: Mesh, *, without: Sequence[str] = ()) -> AsyncIterator[Acks]:
    """Everybody's acknowledgements, with presence as the second witness of who is there."""
    client, enforced = mesh.client, options.settings().enforced
    subjects, transport, mux = client.subjects, client.transport, client.mux
    witness = Witness(subjects=subjects, transport=transport, mux=mux, enforced=enforced)
    acks = Acks(
        subjects=subjects,
        transport=transport,
        mux=mux,
        enforced=enforced,
        witness=witness,
        without=without,
    )
    await acks.open()
    try:
        yield acks
    finally:
        acks.close()


def tell_report(out: Out, report: Report, without: Sequence[str] = ()) -> None:
    """Who has acknowledged, and who has not and why. ``without`` names those that nobody was to wait for."""
    answer = len(report.applied) + len(report.rejected) + sum(each.answers for each in report.silent)
    if not answer + len(report.silent):
        out.note("nobody in this namespace follows the store now (-n names another)", "warn")
    else:
        out.note(
            f"acknowledged by {len(report.applied)} of {counted(answer, 'member that answers', 'members that answer')}"
        )
    for member, rejection in report.rejected:
        out.note(f"rejected by {member.place}: {rejection.policy}: {rejection.reason}", "bad")
    for member in report.silent:
        out.note(f"no acknowledgement from {_who(member)}: {member.why or 'it says nothing'}", "bad")
    for member in report.without:
        out.note(f"not waited for: {_who(member)}", "warn")
    for name in without:
        if not any(member.called(name) for member in report.without):
            out.note(f"--without {name}: there is no such member now", "dim")
    # Commands that look on make no calls that policies are about.
    elsewhere = [each for each in report.elsewhere if each.kind != "client" or each.service != CALLER]
    if elsewhere:
        count = len(elsewhere)
        who = counted(count, "member follows", "members follow")
        out.note(f"{who} files, code or nothing: not reached", "dim")
    if report.more:
        out.note(f"there are more than {MAX_MEMBERS:,} members: nobody waited for the others", "warn")


def without_hint(report: Report) -> str:
    """How to go on without those that say nothing or refuse; empty where there is nobody."""
    members = [*report.silent, *(member for member, _ in report.rejected)]
    names = [f"--without {one_line(each.instance)}" for each in members[:3]]
    if not names:
        return ""
    more = " …" if len(members) > len(names) else ""
    return f"{' '.join(names)}{more} goes on without {'it' if len(members) == 1 else 'them'}"


def _who(member: Member) -> str:
    """A member as people call it, with what tells it from every other."""
    return one_line(f"{member.place} ({member.kind} {member.instance})")

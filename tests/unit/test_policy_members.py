"""What is said of who acknowledged a change, and of whom it does not reach."""

from __future__ import annotations

import io

from nats_mesh.discovery.acks import Member, Report
from nats_mesh_cli.bus import CALLER
from nats_mesh_cli.output import Out
from nats_mesh_cli.policy_members import tell_report


def told(*elsewhere: Member) -> str:
    """The notes about a change that one member has acknowledged."""
    notes = io.StringIO()
    out = Out(io.StringIO(), notes)
    applied = (Member(service="orders", instance="i1", source="bus"),)
    tell_report(out, Report(applied=applied, elsewhere=elsewhere))
    return notes.getvalue()


def test_views_that_look_on_are_not_called_unreached() -> None:
    """`top`, `stat` and other commands follow no policies, and need none; a service or a client that follows files
    is what an operator must know of."""
    view = Member(service=CALLER, instance="v1", kind="client", source="off")
    batch = Member(service="batch", instance="b1", kind="client", source="files")
    assert "not reached" not in told(view, view)
    assert "1 member follows files, code or nothing: not reached" in told(view, batch)
    assert "acknowledged by 1 of 1 member that answers" in told(view)

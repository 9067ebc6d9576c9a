"""``get policies``: what stands in the store, once or with every change."""

from __future__ import annotations

from collections.abc import Iterable

import anyio

from nats_mesh.policy.bus.revisions import Revision
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.get import Kind
from nats_mesh_cli.naming import selected
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Out
from nats_mesh_cli.policy_board import Board, Reader
from nats_mesh_cli.policy_bus import opened
from nats_mesh_cli.policy_history import POLICIES, about, policy_record
from nats_mesh_cli.policy_history import get as get_documents
from nats_mesh_cli.watch import Connection, must_go_on, view_of

__all__ = ["get_policies", "watch_policies"]

#: How often the store is read while it goes on (seconds).
_EVERY_S = 1.0


async def get_policies(options: Options, out: Out, name: str | None, *, at: str | None) -> int:
    """List what stands in the store, or stood ``at`` a moment; the exit code. ``name``: a service that they are about,
    or ``KIND[/NAME]``."""
    names = [] if name is None else [name]
    if name is not None and at is None:
        async with opened(options) as (_, store):
            found = (await store.snapshot()).policies
        keys = _meant(found.values(), name)
        names = names if "/" in name else keys  # a list, however many there are, unless one is named in full
    return await get_documents(options, out, names, revision=None, at=at)


async def watch_policies(options: Options, out: Out, name: str | None) -> None:
    """Show what stands in the store, and go on until Ctrl-C."""
    must_go_on(options)
    kind = Kind("policies", POLICIES, lambda record: str(record["policy"]), lambda record, _: bool(record))
    async with opened(options, absent_ok=True) as (mesh, _):
        board = Board()
        reader, view = Reader(mesh, board), view_of(options, out, kind, {})
        mesh.client.transport.add_listener(Connection(out))
        told = ""
        try:
            while True:
                await reader.read()
                if board.problem != told:
                    told = board.problem
                    out.note(told or "the policy store can be read again", "warn" if told else "ok")
                meant = None if name is None else _meant_now(board.revisions, name)
                view.update(
                    {
                        ("", "policy", each.key): policy_record(each)
                        for each in board.revisions
                        if meant is None or each.key in meant
                    }
                )
                await anyio.sleep(_EVERY_S)
        finally:
            view.close()


def _meant(revisions: Iterable[Revision], name: str) -> list[str]:
    """The keys of what is about a service ``name``, or is called so; :class:`CliError` where there is none."""
    known = {each.key: each for each in revisions}
    keys = [key for key, each in known.items() if name in about(each)]
    return keys or selected(name, known)


def _meant_now(revisions: Iterable[Revision], name: str) -> frozenset[str]:
    try:
        return frozenset(_meant(revisions, name))
    except CliError:  # there may be one later
        return frozenset()

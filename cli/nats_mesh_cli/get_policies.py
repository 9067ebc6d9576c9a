"""``get policies``: what stands in the store, once or with every change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio

from nats_mesh.core.sync_state import policy_label
from nats_mesh.policy.bus.revisions import Revision
from nats_mesh_cli.connection import Connection
from nats_mesh_cli.errors import FAILED, CliError
from nats_mesh_cli.get import Kind
from nats_mesh_cli.hints import nearest
from nats_mesh_cli.naming import selected
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Out
from nats_mesh_cli.policy_board import Board, Reader
from nats_mesh_cli.policy_bus import opened
from nats_mesh_cli.policy_history import POLICIES, about, policy_record
from nats_mesh_cli.policy_history import get as get_documents
from nats_mesh_cli.watch import must_go_on, view_of

__all__ = ["get_policies", "watch_policies"]

#: How often the store is read while it goes on (seconds).
_EVERY_S = 1.0


async def get_policies(options: Options, out: Out, name: str | None, *, at: str | None) -> int:
    """List what stands in the store, or stood ``at`` a moment; the exit code. ``name``: a service that they are about,
    or ``KIND[/NAME]``."""
    names = [] if name is None else [name]
    return await get_documents(options, out, names, revision=None, at=at, meant=_meant)


async def watch_policies(options: Options, out: Out, name: str | None) -> None:
    """Show what stands in the store, and go on until Ctrl-C."""
    must_go_on(options)
    kind = Kind("policies", POLICIES, lambda record: str(record["policy"]), lambda record, _: bool(record))
    async with opened(options, absent_ok=True) as (mesh, _):
        board = Board()
        reader, view = Reader(mesh, board), view_of(options, out, kind, {})
        mesh.client.transport.add_listener(Connection(out))
        told, waits = "", name is not None
        try:
            while True:
                await reader.read()
                if board.problem != told:
                    told = board.problem
                    out.note(told or "the policy store can be read again", "warn" if told else "ok")
                meant = None if name is None else _meant_now(name, board.revisions)
                if waits and board.known and not meant:
                    out.note(f"no policy is about {name!r} yet, and none is called so; waiting", "dim")
                waits = waits and not board.known
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


def _meant(name: str, known: Mapping[str, Revision]) -> list[str]:
    """The keys of what is about a service ``name``, or is called so; :class:`CliError` where there is none."""
    targets = {key: about(each) for key, each in known.items()}
    keys = [key for key, services in targets.items() if name in services]
    if keys or "/" in name:
        return keys or selected(name, known)
    try:
        return selected(name, known)
    except CliError:
        services = {each for found in targets.values() for each in found} - {"*"}
        raise CliError(
            f"no policy in the store is about {name!r}, and none is called so",
            hint=nearest(name, {*services, *map(policy_label, known)}) or "there are no policies",
            code=FAILED,
        ) from None


def _meant_now(name: str, revisions: Sequence[Revision]) -> frozenset[str]:
    try:
        return frozenset(_meant(name, {each.key: each for each in revisions}))
    except CliError:  # there may be one later
        return frozenset()

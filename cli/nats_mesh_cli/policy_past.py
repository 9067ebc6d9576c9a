"""What stood in the policy store at one of its revisions: from the bucket as far as that goes, else from the audit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from nats_mesh import Mesh
from nats_mesh.audit.reading import AuditReader
from nats_mesh.core.sync_state import policy_label
from nats_mesh.policy.bus.bucket import HISTORY
from nats_mesh.policy.bus.past import DocumentsAt
from nats_mesh.policy.bus.revisions import Revision, UnknownPastError
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.wire.kv import KvError
from nats_mesh_cli.errors import FAILED, CliError
from nats_mesh_cli.naming import by_key
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Out

__all__ = ["StoodAt", "audited_at", "stood_at", "tell_older"]

_SHOWN = 5


class StoodAt(NamedTuple):
    """What stood at a revision, by key; ``audited`` are those of which only the audit knew, deleted ones included."""

    found: dict[str, Revision]
    audited: tuple[str, ...]

    def tell(self, out: Out, revision: int) -> None:
        """Where it comes from."""
        if self.audited:
            out.note(
                f"as of revision {revision}, from the audit: the store does not keep it any more of "
                f"{_listed(self.audited)}",
                "dim",
            )


async def stood_at(
    options: Options, mesh: Mesh, store: PolicyStore, revision: int, *, only: Collection[str] = ()
) -> StoodAt:
    """What stood under every key at a ``revision`` (of ``only`` some, where they are said), byte for byte.

    :class:`CliError` naming the policies of which neither the store nor the audit knows it.
    """
    now = await store.snapshot()
    found, lost = await store.known_at(revision)
    lost = [key for key in lost if not only or key in only]
    if lost:
        newest = {key: now.expected.get(key, 0) for key in lost}
        found |= await audited_at(options, mesh, "policy", newest, revision, epoch=now.epoch)
    return StoodAt({key: found[key] for key in sorted(found) if not only or key in only}, tuple(lost))


async def audited_at(
    options: Options, mesh: Mesh, kind: str, newest: Mapping[str, int], revision: int, *, epoch: int = 0
) -> dict[str, Revision]:
    """What stood at a ``revision`` by the audit's records of ``kind``; ``newest`` has the store's newest revision of
    each key that is asked for. :class:`CliError` naming those of which it does not know."""
    reader = _reader(options, mesh)
    then = DocumentsAt(revision, epoch, newest)
    try:
        async for _, record in reader.changes(kind):
            then.take(record)
        return then.found(newest)
    except (UnknownPastError, KvError) as error:
        unknown = error.keys if isinstance(error, UnknownPastError) else newest
        raise CliError(
            f"what stood there at revision {revision} is not kept any more of {_listed(unknown)}; "
            f"nor does the audit know: {error}",
            code=FAILED,
        ) from error


async def tell_older(
    options: Options, out: Out, mesh: Mesh, log: Collection[Revision], shown: Collection[str]
) -> None:
    """Of the keys that are ``shown``, which have older revisions than the store keeps, and where those are."""
    full = {key: each[0] for key, each in by_key(log).items() if key in shown and len(each) >= HISTORY}
    if not full:
        return
    what = ", ".join(f"{policy_label(key)} before revision {each.sequence}" for key, each in _first(full))
    more = f" and {len(full) - _SHOWN} more" if len(full) > _SHOWN else ""
    try:
        info = await _reader(options, mesh).info()
    except KvError:
        out.note(
            f"the store keeps {HISTORY} revisions of a policy: not {what}{more}; there is no audit", "dim"
        )
        return
    out.note(
        f"the store keeps {HISTORY} revisions of a policy: not {what}{more}; "
        f"the audit goes back to {info.since}: 'audit --kind policy', 'policy get --revision N'",
        "dim",
    )


def _first(full: dict[str, Revision]) -> list[tuple[str, Revision]]:
    return sorted(full.items())[:_SHOWN]


def _reader(options: Options, mesh: Mesh) -> AuditReader:
    client = mesh.client
    return AuditReader(
        client.subjects, transport=client.transport, mux=client.mux, timeout_s=options.timeout_s or 5.0
    )


def _listed(keys: Collection[str]) -> str:
    names = [policy_label(key) for key in sorted(keys)]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"

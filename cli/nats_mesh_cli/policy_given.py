"""Policies for the commands that only look at them: from files, a folder, or the bus; all that is wrong at once."""

from __future__ import annotations

import os
from collections.abc import Sequence

from nats_mesh import PolicyError
from nats_mesh.policy import Policy
from nats_mesh.policy.bus.documents import read_document
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.policy.files import read_files
from nats_mesh.policy.istio import translate_files
from nats_mesh.policy.problems import Problems
from nats_mesh_cli.errors import one_line
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Out, counted

__all__ = ["contents_of", "folder_of", "live_policies", "policies_in"]


def folder_of(options: Options) -> str | None:
    """The folder of ``--policies`` or ``MESH_POLICIES``."""
    return options.settings().policies


def contents_of(paths: Sequence[str]) -> dict[str, bytes]:
    """What is in files and in the files of folders, by name; :class:`nats_mesh.PolicyError` for what cannot be read."""
    problems = Problems()
    found: dict[str, bytes] = {}
    for path in paths:
        for name, held in read_files(path).items():
            if isinstance(held, str):
                problems.add(held, file=name)
            else:
                found[os.path.normpath(name)] = held
    problems.raise_if_any()
    return found


def policies_in(paths: Sequence[str], out: Out, *, namespace: str) -> tuple[Policy, ...]:
    """The policies in files and folders, the mesh's own and Istio's; the policies are not held against each other."""
    contents = contents_of(paths)
    found = translate_files([(held, name) for name, held in contents.items()], namespace=namespace)
    if found.untranslated:
        count = len(found.untranslated)
        out.note(
            f"note: {counted(count, 'field')} of Istio's documents {'has' if count == 1 else 'have'} no meaning here; "
            "policy convert names them",
            "warn",
        )
    return found.policies


async def live_policies(store: PolicyStore, out: Out, *, namespace: str) -> tuple[tuple[Policy, ...], int]:
    """What stands in the store, and how many documents there cannot be read, each of which is told."""
    snapshot = await store.snapshot()
    found: list[Policy] = []
    bad = 0
    for key, revision in snapshot.policies.items():
        value = b"" if revision.value is None else revision.value
        try:
            found.append(read_document(key, value, revision.sequence, namespace=namespace))
        except PolicyError as error:
            bad += 1
            out.note(f"note: {one_line(str(error))}", "bad")
    return tuple(found), bad

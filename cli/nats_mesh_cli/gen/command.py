"""``gen``: say what there is, read what is promised, write the files."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from nats_mesh.policy.decode import Policy, decode
from nats_mesh.policy.policy_set import PolicySet
from nats_mesh.policy.problems import Problems
from nats_mesh.telemetry.slo import Promise, promises
from nats_mesh.wire.kv import KvAbsentError
from nats_mesh_cli.bus import run_async
from nats_mesh_cli.errors import CliError, did_you_mean, one_line
from nats_mesh_cli.gen import files
from nats_mesh_cli.gen.dashboards import DASHBOARDS
from nats_mesh_cli.gen.rules import loosened
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Column, Out, counted
from nats_mesh_cli.policy_bus import opened
from nats_mesh_cli.policy_sources import read_given

__all__ = ["gen_alerts", "gen_compose", "gen_grafana"]

_COLUMNS: Final = (
    Column("FILE", lambda r: str(r["file"]), style=lambda r: "name"),
    Column("", lambda r: str(r["state"])),
)
#: What makes a folder a checkout that the image can be built from.
_CHECKOUT: Final = ("pyproject.toml", "nats_mesh", "cli", "examples", "requirements")


def gen_grafana(options: Options, out: Out, name: str | None, folder: Path | None, *, force: bool) -> None:
    """Dashboards into a folder, or one of them to stdout."""
    if name is not None and name not in DASHBOARDS:
        hint = did_you_mean(name, DASHBOARDS) or f"there are {', '.join(DASHBOARDS)}"
        raise CliError(f"there is no dashboard {name!r}", hint=hint)
    if name is None:
        if folder is None:
            raise CliError("gen grafana makes several files", hint="--out DIR, or name one dashboard")
        _write(options, out, files.grafana(), folder, force=force)
    elif folder is None:
        _print(files.dashboard(name))
    else:
        _write(options, out, {f"{name}.json": files.dashboard(name)}, folder, force=force)


def gen_alerts(options: Options, out: Out, paths: Sequence[str], folder: Path | None, *, force: bool) -> None:
    """Rules for what files promise, or else what the policies on the bus do."""
    promised = _promised(options, out, paths)
    for text in loosened(promised):
        out.note(f"note: {one_line(text)}", "warn")
    if not promised:
        out.note("nothing is promised: these are the mesh's own alerts alone", "dim")
    text = files.alerts(promised)
    if folder is None:
        _print(text)
    else:
        _write(options, out, {"alerts.yml": text}, folder, force=force)


def gen_compose(options: Options, out: Out, folder: Path | None, context: str, *, force: bool) -> None:
    """The whole stack into a folder."""
    if folder is None:
        raise CliError("gen compose makes several files", hint="--out DIR")
    # Lexically, as docker puts the two together.
    above = os.path.relpath(os.path.abspath(folder), os.path.abspath(folder / context))
    _write(options, out, files.compose(context, Path(above, "Dockerfile").as_posix()), folder, force=force)
    if not all((folder / context / name).exists() for name in _CHECKOUT):
        out.note(
            f"note: the image of the services is built from a checkout of nats-mesh, and {context!r}, as seen from "
            f"{folder}, is none; say where it is with --context",
            "warn",
        )


def _promised(options: Options, out: Out, paths: Sequence[str]) -> tuple[Promise, ...]:
    namespace = options.settings().namespace
    if paths:
        given = read_given(paths, namespace)
        given.tell(out)
        found: list[Policy] = [each.policy for each in given.documents.values()]
    else:
        found, unread = run_async(_stored(options))
        if unread:
            out.note(
                f"note: {counted(unread, 'policy', 'policies')} on the bus cannot be read here: left out",
                "warn",
            )
    return promises(PolicySet.of(found, namespace=namespace))


async def _stored(options: Options) -> tuple[list[Policy], int]:
    """The policies on the bus, none where there is no store; and how many there are that cannot be read."""
    async with opened(options, absent_ok=True) as (_, store):
        try:
            snapshot = await store.snapshot()
        except KvAbsentError:
            return [], 0
    found: list[Policy] = []
    unread = 0
    for key, stored in snapshot.policies.items():
        problems = Problems()
        found += decode(stored.value or b"", key, problems)
        unread += bool(len(problems))
    return found, unread


def _print(text: str) -> None:
    sys.stdout.write(text)


def _write(options: Options, out: Out, made: Mapping[str, str], folder: Path, *, force: bool) -> None:
    states = files.write(made, folder, force=force)
    records = [{"file": str(folder / path), "state": state} for path, state in zip(made, states, strict=True)]
    out.rows(records, _COLUMNS, options.format, name=lambda r: str(r["file"]), nothing="nothing was made")

"""``policy analyze``: what is wrong with policies that are all right one by one, held against what runs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nats_mesh import CallError
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.policy import Policy
from nats_mesh.policy.analysis import SEVERITIES, Endpoint, Finding, Instance, Service, World, analyze
from nats_mesh.policy.problems import place
from nats_mesh_cli.bus import connected
from nats_mesh_cli.catalog import endpoint_records, instance_record, visible
from nats_mesh_cli.errors import FAILED, OK, CliError, one_line
from nats_mesh_cli.get import fetch
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, Record, counted, dump, paint
from nats_mesh_cli.policy_bus import opened
from nats_mesh_cli.policy_given import folder_of, live_policies, policies_in

__all__ = ["analyze_policies", "render", "world_of"]

_STYLES = {"error": "bad", "warning": "warn", "info": "dim"}
_WIDTH = max(map(len, SEVERITIES))
_INDENT = " " * (_WIDTH + 2)


async def analyze_policies(
    options: Options, out: Out, paths: Sequence[str], *, offline: bool = False, strict: bool = False
) -> int:
    """Look at policies and tell; 1 where there is an error, or with ``strict`` a warning."""
    settings = options.settings()
    folder = folder_of(options)
    given = list(paths) or ([folder] if folder is not None else [])
    bad = 0
    if given:
        policies = policies_in(given, out, namespace=settings.namespace)
        world = None if offline else await _world(options, out)
    else:
        if offline:
            raise CliError(
                "policy analyze: the policies in effect stand on the bus",
                hint="name files or folders, or leave --offline out",
            )
        async with opened(options) as (mesh, store):
            policies, bad = await live_policies(store, out, namespace=mesh.namespace)
            world = world_of(visible(await fetch(mesh, options, out), mesh.namespace))
    found = analyze(policies, world, namespace=settings.namespace, mode=settings.mode)
    _show(options, out, found, policies)
    worst = {each.severity for each in found}
    return FAILED if bad or "error" in worst or (strict and "warning" in worst) else OK


async def _world(options: Options, out: Out) -> World | None:
    """What runs; ``None`` where the bus cannot be reached, which is said."""
    try:
        async with connected(options) as mesh:
            return world_of(visible(await fetch(mesh, options, out), mesh.namespace))
    except CallError as error:
        out.note(
            f"note: {one_line(error.message)}; only what the files show by themselves was looked at (--offline says "
            f"so)",
            "warn",
        )
        return None


def world_of(infos: Sequence[InfoReply]) -> World:
    """What answers, as an analysis sees it."""
    endpoints: dict[str, dict[str, Endpoint]] = {}
    for record in endpoint_records(infos):
        declared_ms, followed = record["timeout_ms"], bool(record["concurrency_source"])
        endpoints.setdefault(record["service"], {})[record["name"]] = Endpoint(
            timeout_s=None if declared_ms is None else declared_ms / 1000.0,
            idempotent=record["idempotent"],
            concurrency=None if followed else record["concurrency"],
        )
    instances: dict[str, list[Instance]] = {}
    for info in infos:
        record = instance_record(info, 0.0)
        instances.setdefault(info.name, []).append(
            Instance(id=record["instance"], version=record["version"], labels=record["labels"])
        )
    return World(
        services={
            name: Service(endpoints=endpoints.get(name, {}), instances=tuple(there))
            for name, there in instances.items()
        }
    )


def _show(options: Options, out: Out, found: Sequence[Finding], policies: Sequence[Policy]) -> None:
    records: list[Record] = [msgspec.to_builtins(each) for each in found]
    if options.format is Format.JSONL:
        for record in records:
            out.data(dump(record, Format.JSONL))
    elif options.format.structured:
        out.data(dump(records, options.format, pretty=out.tty))
    elif options.format is Format.NAME:
        for code in dict.fromkeys(each.code for each in found):
            out.data(code)
    else:
        for finding in found:
            out.text(render(finding, color=out.color))
    if not options.format.structured:
        counts = [(severity, sum(each.severity == severity for each in found)) for severity in SEVERITIES]
        said = ", ".join(counted(count, word) for word, count in counts if count)
        number = len(policies)
        where = f"{counted(number, 'policy', 'policies')}"
        worst = next((word for word, count in counts if count), "")
        out.note(f"{said or 'nothing found'} in {where}", _STYLES.get(worst, "ok"))


def render(finding: Finding, *, color: bool = False) -> str:
    """One finding: what and where, then the message, then the remedy."""
    word = paint(finding.severity.ljust(_WIDTH), _STYLES[finding.severity], color)
    where = place(finding.file, finding.line)
    head = f"{word}  {paint(finding.code, 'bold', color)}  {paint(finding.policy, 'name', color)}"
    return (
        f"{head}  {one_line(where)}: {one_line(finding.path)}\n"
        f"{_INDENT}{one_line(finding.message)}\n{_INDENT}→ {one_line(finding.remedy)}"
    )

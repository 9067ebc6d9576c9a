"""``get services --at`` and ``get instances --at``: who was there at a past moment, rebuilt from the audit."""

from __future__ import annotations

from typing import Final

from nats_mesh.audit.reading import BeforeError, PresenceThen, seconds_of
from nats_mesh.audit.records import PresenceRecord
from nats_mesh.audit.signs import SIGN_S
from nats_mesh.core.past import Found, Presence
from nats_mesh_cli.audit import reading
from nats_mesh_cli.catalog import MESH, service_records
from nats_mesh_cli.errors import FAILED, CliError
from nats_mesh_cli.get import kind_of, show
from nats_mesh_cli.hints import namespace_text
from nats_mesh_cli.instants import instant
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Out, Record, counted

__all__ = ["get_at"]

#: How old the audit must be to know everybody: who was there before it and ended without a sign is not in it.
_SETTLED_S: Final = 1.5 * SIGN_S


async def get_at(
    options: Options, out: Out, word: str, name: str | None, at: str, *, everywhere: bool
) -> None:
    """List who was there ``at`` a moment; with a ``name`` that nothing has, exit code 1."""
    kind = kind_of(word)
    if kind.plural == "faults":
        raise CliError(
            "what faults there were at a moment is not put together",
            hint="'nats-mesh audit --kind command' has when each was set",
        )
    if kind.plural == "endpoints":
        raise CliError(
            "the audit does not keep how endpoints were declared",
            hint="'get services --at TIME -o wide' names them",
        )
    if everywhere:
        raise CliError("each namespace has an audit of its own", hint="say which: -n NAME")
    moment = instant(at)
    async with reading(options) as (mesh, reader):
        try:
            then = await reader.presence(moment)
        except BeforeError as error:
            raise CliError(str(error), hint="'nats-mesh audit' shows what there is", code=FAILED) from error
        namespace = mesh.namespace
    instances = [_instance(each, then) for each in then.found]
    records = instances if kind.plural == "instances" else service_records(instances)
    chosen = records if name is None else [each for each in records if kind.matches(each, name)]
    show(kind, chosen, options, out)
    if not options.format.structured:
        _tell(out, then, moment)
    if chosen:
        return
    if name is not None:
        raise CliError(
            f"no {kind.plural[:-1]} {name!r} in {namespace_text(namespace)} at {moment}", code=FAILED
        )
    if not options.format.structured:
        out.note(f"no {kind.plural} in {namespace_text(namespace)} at {moment}", "dim")


def _tell(out: Out, then: PresenceThen, moment: str) -> None:
    suspect = sum(each.presence is Presence.SUSPECT for each in then.found)
    out.note(f"as of {moment}, from the audit; services outside the mesh are not in it", "dim")
    if suspect:
        out.note(f"{suspect} of them gave no sign of life afterwards: they ended about then", "warn")
    if then.young_s < _SETTLED_S:
        out.note(
            f"the audit was {then.young_s:.0f} s old: who was there before it and ended at once is not in it",
            "warn",
        )
    if then.untrusted:
        out.note(
            f"{counted(then.untrusted, 'record was', 'records were')} not believed ('nats-mesh audit' shows them)",
            "warn",
        )


def _instance(found: Found[PresenceRecord], then: PresenceThen) -> Record:
    """An instance as ``get instances -o json`` has it; what the audit does not know is ``None``."""
    record = found.value
    names = record.endpoints if record.endpoints is not None else then.names.get(record.endpoints_hash, ())
    state = record.state.value if found.presence is Presence.THERE else found.presence.value
    return {
        "instance": record.instance,
        "service": record.service,
        "host_pid": record.name,
        "namespace": record.namespace,
        "kind": MESH,
        "version": record.version,
        "state": state,
        "in_flight": None,
        "limit": None,
        "endpoints": list(names),
        "started": record.started,
        "age_s": round(max(0.0, then.moment - seconds_of(record.started)), 3),
        "labels": dict(record.labels),
        "wire": record.wire,
        "full": False,
        "metrics_port": None,
        "faults": [],
        "plugins": {"inbound": [], "outbound": []},
        "revision": record.revision[1],
        "heard_s": round(then.moment - found.heard, 3),
    }

"""``config``: the configuration of services on the bus; checked by the instances that run before it is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec

from nats_mesh import Mesh
from nats_mesh.config.store import ConfigStore
from nats_mesh.config.value import MAX_VALUE
from nats_mesh.discovery.commands import CheckConfig
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.errors import UNREADABLE
from nats_mesh.model import check_name
from nats_mesh.policy.bus.bucket import HISTORY
from nats_mesh.policy.bus.revisions import Revision
from nats_mesh_cli.bus import CALLER, connected
from nats_mesh_cli.catalog import MESH, instance_record, visible
from nats_mesh_cli.config_given import assign, read_configuration
from nats_mesh_cli.errors import FAILED, OK, CliError
from nats_mesh_cli.get import fetch
from nats_mesh_cli.hints import missing_service, nearest
from nats_mesh_cli.instants import shown_time
from nats_mesh_cli.naming import revision_called
from nats_mesh_cli.operate import tell
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out, Record, counted, dump
from nats_mesh_cli.policy_past import audited_at
from nats_mesh_cli.store_errors import store_errors
from nats_mesh_cli.undoing import last_change, told
from nats_mesh_cli.who import operator_name

__all__ = ["Setting", "delete", "get", "history", "set_value", "status", "undo"]

#: How long --wait waits for every instance (seconds), and how often it asks.
_WAIT_S, _ASK_S = 5.0, 0.2
#: No revision is above this.
_LAST = 2**53

_REVISIONS = (
    Column("REVISION", lambda r: str(r["revision"]), right=True),
    Column("TIME", lambda r: shown_time(str(r["time"]))),
    Column("ACTION", lambda r: str(r["action"])),
    Column("BY", lambda r: str(r["operator"])),
    Column("MESSAGE", lambda r: str(r["message"]), drop=8, short=12),
    Column("CHANGE", lambda r: str(r["change"]), wide=True, drop=15, short=16),
)
_STATES = {"SYNCED": "ok", "STALE": "warn", "REJECTED": "bad"}
_INSTANCES = (
    Column("INSTANCE", lambda r: str(r["host_pid"] or r["instance"]), style=lambda _: "name", drop=0),
    Column("VERSION", lambda r: str(r["version"])),
    Column("STATE", lambda r: str(r["state"]), style=lambda r: _STATES.get(r["state"], "dim"), drop=2),
    Column("REVISION", lambda r: "" if r["revision"] is None else str(r["revision"]), right=True),
    Column("REASON", lambda r: str(r["reason"]), drop=3, short=16),
)


class Setting:
    """How a configuration is to be changed, as the options say."""

    def __init__(
        self,
        *,
        name: str | None = None,
        message: str = "",
        dry_run: bool = False,
        wait: bool = False,
        unchecked: bool = False,
    ) -> None:
        self.name = name
        self.message = message
        self.dry_run = dry_run
        self.wait = wait
        self.unchecked = unchecked
        self.back_to: int | None = None


@asynccontextmanager
async def _opened(
    options: Options, name: str | None = None, *, make: bool = False
) -> AsyncIterator[tuple[Mesh, ConfigStore]]:
    async with connected(options, name or CALLER) as mesh:
        client = mesh.client
        store = ConfigStore(
            mesh.namespace,
            transport=client.transport,
            mux=client.mux,
            operator=operator_name(name),
            timeout_s=options.timeout_s or 5.0,
        )
        with store_errors(mesh.namespace, "store of configurations", "config set", make=make):
            await store.open(make=make)
            yield mesh, store


async def _missing(store: ConfigStore, service: str) -> CliError:
    """What to say where a service has no configuration."""
    hint = nearest(service, await store.services()) or "no service has one"
    return CliError(f"{service} has no configuration in the store", hint=hint, code=FAILED)


async def set_value(
    options: Options, out: Out, service: str, given: Sequence[str], files: Sequence[str], setting: Setting
) -> int:
    """Store a configuration: a file's, or single values over what stands there; the exit code."""
    check_name("service", service)
    whole, assigned = read_configuration(given, files)
    async with _opened(options, setting.name, make=not setting.dry_run) as (mesh, store):
        history = await store.history(service)
        now = history[-1] if history else None
        value = whole
        if value is None:
            value = {} if now is None or now.value is None else _readable(service, now)
        for path, each in assigned:
            assign(value, path, each)
        encoded = msgspec.json.encode(value)
        if now is not None and now.value == encoded:
            out.data(f"{service} unchanged")
            return OK
        return await _store(options, out, mesh, store, service, encoded, now, setting)


async def delete(options: Options, out: Out, service: str, setting: Setting) -> int:
    """Delete a configuration: its defaults hold then; the exit code."""
    check_name("service", service)
    async with _opened(options, setting.name) as (mesh, store):
        history = await store.history(service)
        if not history or history[-1].value is None:
            raise await _missing(store, service)
        return await _store(options, out, mesh, store, service, None, history[-1], setting)


async def undo(options: Options, out: Out, service: str, revision: str | None, setting: Setting) -> int:
    """Undo the last change that is not undone yet, or put back the value of a revision; the exit code."""
    check_name("service", service)
    async with _opened(options, setting.name) as (mesh, store):
        history = await store.history(service)
        if not history:
            raise await _missing(store, service)
        if revision is None:
            last = last_change(history)
            out.note(told(last, f"config undo {service}"))
            back, setting.back_to = last.found[history[-1].key], last.back_to
            setting.message = setting.message or f"undo of revision {last.undone.sequence}"
        else:
            number = revision_called(revision, history, epoch=0, last=_LAST)
            back, setting.back_to = await _at(options, out, mesh, service, history, number), number
            again = f"config undo {service} --to-revision {history[-1].sequence}"
            out.note(f"puts back what stood there at revision {number}; {again} takes that back")
            setting.message = setting.message or f"undo to revision {number}"
        if back is not None and back.value is not None:
            _readable(service, back)
        found = None if back is None else back.value
        if history[-1].value == found:
            out.data(f"{service} unchanged")
            return OK
        stood = (
            "nothing stood there, it is deleted"
            if back is None or found is None
            else f"revision {back.sequence}"
        )
        out.note(f"puts back {service}: {stood}")
        return await _store(options, out, mesh, store, service, found, history[-1], setting)


async def _at(
    options: Options, out: Out, mesh: Mesh, service: str, history: Sequence[Revision], number: int
) -> Revision:
    """The revision of that number: from the audit, which is said, where the store keeps it no more."""
    match = [each for each in history if each.sequence == number]
    if match:
        return match[0]
    known = ", ".join(str(each.sequence) for each in history[-10:])
    hint = f"there are: {known}"
    if len(history) >= HISTORY and number < history[0].sequence:
        newest = {history[-1].key: history[-1].sequence}
        then = await audited_at(options, mesh, "config", newest, number)
        found = then.get(history[-1].key)
        if found is not None and found.sequence == number:
            out.note(f"revision {number} comes from the audit: the store does not keep it any more", "dim")
            return found
        hint = f"the audit knows of none at that number, and the store has: {known}"
    raise CliError(f"{service} has no revision {number}", hint=hint, code=FAILED)


async def _store(
    options: Options,
    out: Out,
    mesh: Mesh,
    store: ConfigStore,
    service: str,
    value: bytes | None,
    now: Revision | None,
    setting: Setting,
) -> int:
    if value is not None and len(value) > MAX_VALUE:
        raise CliError(f"the configuration has {len(value)} bytes, at most {MAX_VALUE} are stored")
    everything = await fetch(mesh, options, out)
    infos = [info for info in visible(everything, mesh.namespace) if info.name == service]
    if value is not None and not setting.unchecked:
        if not infos:
            raise CliError(
                f"no instance of {service} runs that could check it; --unchecked stores it all the same",
                hint=missing_service(service, everything, mesh.namespace),
                code=FAILED,
            )
        await _check(options, mesh, service, infos, value)
    action = "deleted" if value is None else "created" if now is None or now.value is None else "configured"
    revision = None
    if not setting.dry_run:
        revision = await store.write(
            service,
            value,
            expected=0 if now is None else now.sequence,
            message=setting.message,
            back_to=setting.back_to,
        )
    if store.unrecorded:
        out.note(f"stored, but not in the audit: {store.unrecorded}", "warn")
    record = {"service": service, "action": action, "revision": revision, "dry_run": setting.dry_run}
    if options.format is Format.TABLE:
        out.data(f"{service} {action}{' (dry run)' if setting.dry_run else ''}")
    else:
        out.data(service if options.format is Format.NAME else dump(record, options.format, pretty=out.tty))
    if revision is None or not setting.wait:
        return OK
    records: list[Record] = []
    with anyio.move_on_after(options.timeout_s or _WAIT_S):
        while True:
            infos = [
                info
                for info in visible(await fetch(mesh, options, out), mesh.namespace)
                if info.name == service
            ]
            records = [_instance(info, revision) for info in infos]
            if all(each["state"] != "STALE" for each in records):
                break
            await anyio.sleep(_ASK_S)
    bad = [each for each in records if each["state"] in ("STALE", "REJECTED")]
    out.note(f"in effect at {len(records) - len(bad)} of {counted(len(records), 'instance')}")
    for each in bad:
        out.note(
            f"{each['host_pid'] or each['instance']}: {each['state'].lower()} {each['reason']}".rstrip(),
            "bad",
        )
    return FAILED if bad else OK


async def _check(
    options: Options, mesh: Mesh, service: str, infos: Sequence[InfoReply], value: bytes
) -> None:
    """Ask every instance that runs whether it would take ``value``; :class:`CliError` where one would not."""
    records = [record for info in infos if (record := instance_record(info, 0.0))["kind"] == MESH]
    if not records:
        raise CliError(f"{service} is outside the mesh and has no configuration here", code=FAILED)
    answers = await tell(mesh, options, records, CheckConfig(value=msgspec.Raw(value)))
    refused = [each for each in answers if not each["done"]]
    if refused:
        reasons = dict.fromkeys(str(each["message"]) for each in refused)
        raise CliError(
            f"{service} does not take it: {'; '.join(reasons)}",
            hint=f"said by {len(refused)} of {counted(len(answers), 'instance')}; nothing was stored",
        )


async def get(options: Options, out: Out, service: str) -> int:
    """Show a configuration; the exit code."""
    async with _opened(options) as (_, store):
        history = await store.history(check_name("service", service))
        if not history or history[-1].value is None:
            raise await _missing(store, service)
    value = _readable(service, history[-1])
    fmt = Format.YAML if options.format in (Format.TABLE, Format.WIDE, Format.NAME) else options.format
    try:
        text = dump(value, fmt, pretty=out.tty)
    except RecursionError:
        raise CliError(
            f"{service}: revision {history[-1].sequence} is nested too deep to be shown",
            hint="'config set' with a file replaces it",
            code=FAILED,
        ) from None
    out.data(text.rstrip("\n"))
    return OK


async def history(options: Options, out: Out, service: str) -> int:
    """Show who changed it, the newest first; the exit code."""
    async with _opened(options) as (_, store):
        found = await store.history(check_name("service", service))
        if not found:
            raise await _missing(store, service)
    records: list[Record] = []
    before = False
    for each in found:
        action = "deleted" if each.value is None else "configured" if before else "created"
        before = each.value is not None
        records.append(
            {
                "revision": each.sequence,
                "time": each.time,
                "action": action,
                "operator": each.operator,
                "message": each.message,
                "change": each.change,
                "back_to": each.back_to,
                "value": None if each.value is None else _shown(each.value),
            }
        )
    out.rows(records[::-1], _REVISIONS, options.format, name=lambda r: str(r["revision"]))
    return OK


async def status(options: Options, out: Out, service: str) -> int:
    """Show which instances have which revision; 1 where one is behind or refuses it."""
    async with _opened(options) as (mesh, store):
        found = await store.history(check_name("service", service))
        everything = await fetch(mesh, options, out)
        infos = [info for info in visible(everything, mesh.namespace) if info.name == service]
        if not infos:
            hint = missing_service(service, everything, mesh.namespace)
            raise CliError(f"no instance of {service} runs", hint=hint, code=FAILED)
    records = [_instance(info, found[-1].sequence if found else 0) for info in infos]
    out.rows(records, _INSTANCES, options.format, name=lambda r: str(r["instance"]))
    return FAILED if any(each["state"] in ("STALE", "REJECTED") for each in records) else OK


def _readable(service: str, revision: Revision) -> dict[str, Any]:
    """The configuration of a revision; :class:`CliError` where other programs wrote something else there."""
    assert revision.value is not None
    try:
        return msgspec.json.decode(revision.value, type=dict[str, Any])
    except UNREADABLE as error:
        raise CliError(
            f"{service}: revision {revision.sequence} is no JSON object: {error}",
            hint="'config set' with a file replaces it",
            code=FAILED,
        ) from None


def _shown(value: bytes) -> Any:
    """What a revision holds; what is no JSON as text."""
    try:
        return msgspec.json.decode(value)
    except UNREADABLE:
        return value.decode("utf-8", "replace")


def _instance(info: InfoReply, wanted: int) -> Record:
    record = instance_record(info, 0.0)
    meta = info.metadata
    said = meta.get("mesh.config", "")
    revision = int(said) if said.isascii() and said.isdigit() else None
    reason = meta.get("mesh.config.rejected", "")
    if revision is None:
        state, reason = "NONE", "it declares no configuration"
    elif reason:
        state = "REJECTED"
    else:
        state = "SYNCED" if revision >= wanted else "STALE"
    return {
        "service": info.name,
        "instance": info.id,
        "host_pid": record["host_pid"],
        "version": info.version,
        "state": state,
        "revision": revision,
        "reason": reason,
    }

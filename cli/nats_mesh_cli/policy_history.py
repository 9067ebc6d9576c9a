"""``policy get``, ``history`` and ``status``: what stands in the store, who changed it, and who follows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from nats_mesh import Mesh
from nats_mesh.audit.policies import DocumentsThen
from nats_mesh.audit.reading import AuditReader, BeforeError
from nats_mesh.discovery.acks import Acks, Member
from nats_mesh.errors import UNREADABLE
from nats_mesh.policy.bus.revisions import Revision, Snapshot, UnknownPastError
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.policy.reader import MAX_DEPTH
from nats_mesh.wire.kv import KvError
from nats_mesh_cli.errors import FAILED, OK, CliError, one_line
from nats_mesh_cli.instants import instant
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out, Record, dump, render_list
from nats_mesh_cli.policy_apply import opened, selected

__all__ = ["get", "history", "status"]


class _Target(msgspec.Struct):
    service: str = "*"
    endpoints: list[str] = []
    subset: str = ""


class _Spec(msgspec.Struct):
    target: _Target = msgspec.field(default_factory=_Target)


_POLICIES = (
    Column("POLICY", lambda r: str(r["policy"]), style=lambda _: "name"),
    Column("TARGET", lambda r: str(r["target"])),
    Column("REVISION", lambda r: str(r["revision"]), right=True),
    Column("CHANGED", lambda r: str(r["time"])[:19]),
    Column("BY", lambda r: str(r["operator"])),
    Column("MESSAGE", lambda r: str(r["message"]), wide=True),
)
_REVISIONS = (
    Column("REVISION", lambda r: str(r["revision"]), right=True),
    Column("TIME", lambda r: str(r["time"])[:19]),
    Column("POLICY", lambda r: str(r["policy"]), style=lambda _: "name"),
    Column("ACTION", lambda r: str(r["action"])),
    Column("BY", lambda r: str(r["operator"])),
    Column("MESSAGE", lambda r: str(r["message"])),
    Column("CHANGE", lambda r: str(r["change"]), wide=True),
)
_STATES = {"SYNCED": "ok", "STALE": "warn", "REJECTED": "bad"}
_MEMBERS = (
    Column("SERVICE", lambda r: str(r["service"]), style=lambda _: "name"),
    Column("INSTANCE", lambda r: str(r["host_pid"] or r["instance"])),
    Column("ID", lambda r: str(r["instance"]), wide=True),
    Column("KIND", lambda r: str(r["kind"]), wide=True),
    Column("STATE", lambda r: str(r["state"]), style=lambda r: _STATES.get(r["state"], "dim")),
    Column("REVISION", lambda r: str(r["revision"]), right=True),
    Column("REASON", lambda r: str(r["reason"])),
)


async def get(
    options: Options, out: Out, names: Sequence[str], *, revision: int | None, at: str | None
) -> int:
    """Show policies as they stand, or stood; the exit code."""
    if revision is not None and at is not None:
        raise CliError("say --revision or --at, not both")
    async with opened(options) as (mesh, store):
        snapshot = await _snapshot(options, out, mesh, store, revision, at)
    known = snapshot.policies
    keys = [key for name in names for key in selected(name, known)] if names else list(known)
    found = [known[key] for key in dict.fromkeys(keys)]
    unread = [each for each in found if _document(each) is None]
    for each in unread:
        out.note(f"{_shown_key(each)}@{each.sequence} is no document that can be shown", "warn")
    if options.format in (Format.YAML, Format.JSON, Format.JSONL):
        documents = [document for each in found if (document := _document(each)) is not None]
        if unread and not documents:
            raise CliError(
                "nothing of it can be shown", hint="'policy delete KIND/NAME' removes it", code=FAILED
            )
        if options.format is Format.YAML:
            out.data("---\n".join(f"{dump(each, Format.YAML)}\n" for each in documents).rstrip("\n"))
        elif len(names) == 1 and "/" in names[0] and options.format is Format.JSON:
            out.data(dump(documents[0], options.format, pretty=out.tty))
        else:
            out.data(render_list(documents, (), options.format, name=str, pretty=out.tty))
        return FAILED if unread else OK
    records = [_policy_record(each) for each in found]
    text = render_list(records, _POLICIES, options.format, name=lambda r: str(r["policy"]), color=out.color)
    if text:
        out.data(text)
    if not records:
        out.note("there are no policies in the store")
    return OK


async def _snapshot(
    options: Options, out: Out, mesh: Mesh, store: PolicyStore, revision: int | None, at: str | None
) -> Snapshot:
    """What stood there, from the store where it keeps it, else from the audit; which of them answered is said."""
    if revision is None and at is None:
        return await store.snapshot()
    moment = None if at is None else instant(at)
    try:
        found = await store.at(sequence=revision, time=moment)
        if moment is not None:
            out.note(f"as of {moment}, from the store", "dim")
        return found
    except UnknownPastError as error:
        if moment is None:
            raise CliError(str(error), hint="--at TIME asks the audit, too", code=FAILED) from error
        try:
            found = await _from_audit(options, mesh, store, moment)
        except (UnknownPastError, BeforeError, KvError) as also:
            raise CliError(f"{error}; nor does the audit know: {also}", code=FAILED) from also
    out.note(f"as of {moment}, from the audit: the store does not keep it any more", "dim")
    return found


async def _from_audit(options: Options, mesh: Mesh, store: PolicyStore, moment: str) -> Snapshot:
    client = mesh.client
    reader = AuditReader(
        client.subjects, transport=client.transport, mux=client.mux, timeout_s=options.timeout_s or 5.0
    )
    await reader.covering(moment)
    then = DocumentsThen(moment)
    now, times = await store.standing()
    async for entry, record in reader.changes("policy"):
        then.take(record, entry.time)
    return then.found(now, times)


async def history(options: Options, out: Out, names: Sequence[str], *, limit: int) -> int:
    """Show who changed what, the newest first; the exit code."""
    async with opened(options) as (_, store):
        log = await store.log()
    keys = {key for name in names for key in selected(name, {each.key: each for each in log})}
    created: set[str] = set()
    records: list[Record] = []
    for each in log:
        action = "configured" if each.key in created else "created"
        created.add(each.key)
        if each.value is None:
            action = "deleted"
            created.discard(each.key)
        if not keys or each.key in keys:
            records.append({**_revision_record(each), "action": action})
    records = records[::-1][:limit]
    text = render_list(
        records,
        _REVISIONS,
        options.format,
        name=lambda r: str(r["revision"]),
        color=out.color,
        pretty=out.tty,
    )
    if text:
        out.data(text)
    return OK


async def status(options: Options, out: Out) -> int:
    """Show who follows the store and how far; 1 where somebody does not, or refuses something."""
    async with opened(options) as (mesh, store):
        snapshot = await store.snapshot()
        members = await _members(options, mesh)
        own = mesh.client.transport.connection
    here = (snapshot.epoch, snapshot.sequence)
    records = sorted(
        (_member_record(member, here) for member in members if member.instance != own),
        key=lambda r: (r["state"] == "SYNCED", r["service"], r["instance"]),
    )
    text = render_list(
        records, _MEMBERS, options.format, name=lambda r: str(r["instance"]), color=out.color, pretty=out.tty
    )
    if text:
        out.data(text)
    bad = [each for each in records if each["state"] in ("STALE", "REJECTED")]
    if not options.format.structured:
        follows = [each for each in records if each["state"] != "ELSEWHERE"]
        out.note(
            f"revision {snapshot.sequence}: {len(follows) - len(bad)} of {len(follows)} members are in sync"
        )
    return FAILED if bad else OK


async def _members(options: Options, mesh: Mesh) -> list[Member]:
    """Everybody who answers."""
    client = mesh.client
    acks = Acks(
        subjects=client.subjects,
        transport=client.transport,
        mux=client.mux,
        enforced=options.settings().enforced,
    )
    await acks.open()
    try:
        return await acks.roll_call()
    finally:
        acks.close()


def _member_record(member: Member, here: tuple[int, int]) -> Record:
    state, reason = "SYNCED", ""
    if member.source in ("files", "given", "off"):
        state, reason = "ELSEWHERE", f"its policies come from {member.source}"
    elif member.rejected:
        more = f" (and {member.rejected - 1} more)" if member.rejected > 1 else ""
        state, reason = "REJECTED", f"{member.reason}{more}"
    elif member.revision != here:
        state, reason = (
            "STALE",
            f"the store is at {here[1]}" if member.revision[0] == here[0] else "another epoch",
        )
    if member.source == "cache" and state == "SYNCED":
        state, reason = "STALE", "it reads from its cache: the store has not answered it"
    return {
        "service": member.service,
        "instance": member.instance,
        "host_pid": member.name,
        "kind": member.kind,
        "state": state,
        "revision": member.revision[1],
        "epoch": member.revision[0],
        "source": member.source,
        "reason": reason,
    }


def _document(revision: Revision) -> dict[str, Any] | None:
    """The document, ``None`` where it is none: anybody with the right to may have written there."""
    assert revision.value is not None
    try:
        found = msgspec.json.decode(revision.value, type=dict[str, Any])
    except UNREADABLE:
        return None
    return None if _is_deep(found) else found


def _is_deep(value: object) -> bool:
    """Whether it is nested deeper than any policy, and than what writes YAML takes."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        level = inner
    return bool(level)


def _policy_record(revision: Revision) -> Record:
    return {**_revision_record(revision), "target": _target(_document(revision))}


def _target(document: dict[str, Any] | None) -> str:
    """What a document is about, as people read it; ``?`` where it does not say so as policies do."""
    if document is None:
        return "?"
    try:
        target = msgspec.convert(document.get("spec", {}), _Spec).target
    except msgspec.ValidationError:
        return "?"
    parts = [target.service, ",".join(target.endpoints), target.subset]
    return "/".join(part for part in parts if part)


def _shown_key(revision: Revision) -> str:
    return one_line(revision.key.replace(".", "/", 1))


def _revision_record(revision: Revision) -> Record:
    return {
        "policy": revision.key.replace(".", "/", 1),
        "revision": revision.sequence,
        "time": revision.time,
        "operator": revision.operator,
        "message": revision.message,
        "change": revision.change,
    }

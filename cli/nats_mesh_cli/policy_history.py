"""``policy get``, ``history`` and ``status``: what stands in the store, who changed it, and who follows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from nats_mesh import Mesh
from nats_mesh.audit.reading import AuditReader, BeforeError
from nats_mesh.core.sync_state import ORDER, policy_label, verdict_of
from nats_mesh.discovery.acks import Member
from nats_mesh.errors import UNREADABLE
from nats_mesh.policy.bus.past import DocumentsThen
from nats_mesh.policy.bus.revisions import Revision, Snapshot, UnknownPastError
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.policy.reader import MAX_DEPTH
from nats_mesh.wire.kv import KvError
from nats_mesh_cli.errors import FAILED, OK, CliError, one_line
from nats_mesh_cli.instants import instant, shown_time
from nats_mesh_cli.naming import changes_called, gone_of, revision_called, selected, without_revision
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out, Record, counted, dump, render_list
from nats_mesh_cli.policy_bus import opened
from nats_mesh_cli.policy_members import acks_of
from nats_mesh_cli.policy_past import stood_at, tell_older

__all__ = ["POLICIES", "about", "get", "history", "member_record", "policy_record", "status"]


class _Target(msgspec.Struct):
    service: str = "*"
    endpoints: list[str] = []
    subset: str = ""


class _Spec(msgspec.Struct):
    target: _Target = msgspec.field(default_factory=_Target)


#: The columns of a list of policies.
POLICIES = (
    Column("POLICY", lambda r: str(r["policy"]), style=lambda _: "name", drop=0),
    Column("TARGET", lambda r: str(r["target"]), drop=5),
    Column("REVISION", lambda r: str(r["revision"]), right=True, drop=10),
    Column("CHANGED", lambda r: shown_time(str(r["time"])), drop=15),
    Column("BY", lambda r: str(r["operator"]), drop=20),
    Column("MESSAGE", lambda r: str(r["message"]), wide=True, drop=25, short=12),
)
_REVISIONS = (
    Column("REVISION", lambda r: str(r["revision"]), right=True),
    Column("TIME", lambda r: shown_time(str(r["time"]))),
    Column("POLICY", lambda r: str(r["policy"]), style=lambda _: "name", drop=0),
    Column("ACTION", lambda r: str(r["action"])),
    Column("BY", lambda r: str(r["operator"])),
    Column("MESSAGE", lambda r: str(r["message"]), drop=25, short=12),
    Column("CHANGE", lambda r: str(r["change"]), wide=True),
)
_STATES = {"SYNCED": "ok", "STALE": "warn", "REJECTED": "bad"}
_MEMBERS = (
    Column("SERVICE", lambda r: str(r["service"]), style=lambda _: "name", drop=0),
    Column("INSTANCE", lambda r: str(r["host_pid"] or r["instance"]), drop=0),
    Column("ID", lambda r: str(r["instance"]), wide=True),
    Column("KIND", lambda r: str(r["kind"]), wide=True),
    Column("STATE", lambda r: str(r["state"]), style=lambda r: _STATES.get(r["state"], "dim"), drop=2),
    Column("REVISION", lambda r: "" if r["revision"] is None else str(r["revision"]), right=True),
    Column("REASON", lambda r: str(r["reason"]), drop=3, short=16),
)


async def get(
    options: Options,
    out: Out,
    names: Sequence[str],
    *,
    revision: str | None,
    at: str | None,
    meant: Callable[[str, Mapping[str, Revision]], list[str]] = selected,
) -> int:
    """Show policies as they stand, or stood; the exit code. ``meant`` says which keys of those there are a name means,
    or raises :class:`CliError`."""
    if revision is not None and at is not None:
        raise CliError("say --revision or --at, not both")
    asked = [without_revision(name) for name in names]
    if (revision is not None or at is not None) and any(number is not None for _, number in asked):
        raise CliError("KIND/NAME@N says the revision already: leave out --revision and --at")
    whatever = not names and revision is None and at is None
    async with opened(options, absent_ok=whatever) as (mesh, store):
        if store.bucket is None:
            return _nothing(options, out, mesh, POLICIES, "there are no policies")
        number = await _numbered(store, revision, [each for _, each in asked if each is not None])
        snapshots = {
            each: await _snapshot(options, out, mesh, store, each if each is not None else number, at)
            for each in dict.fromkeys([at_revision for _, at_revision in asked] or [None])
        }
    found: list[Revision] = []
    for name, at_revision in asked:
        known = snapshots[at_revision].policies
        found += [known[key] for key in meant(name, known)]
    if not names:
        found = list(snapshots[None].policies.values())
    found = list({(each.key, each.sequence): each for each in found}.values())
    unread = [each for each in found if _document(each) is None]
    for each in unread:
        out.note(
            f"{one_line(policy_label(each.key))}@{each.sequence} is no document that can be shown", "warn"
        )
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
    records = [policy_record(each) for each in found]
    out.rows(records, POLICIES, options.format, name=lambda r: str(r["policy"]))
    if not records:
        out.note("there are no policies in the store")
    return OK


def _nothing(options: Options, out: Out, mesh: Mesh, columns: Sequence[Column], text: str) -> int:
    """Without a store there are no policies: an empty list, as of a store that is empty."""
    nothing = f"{text} in namespace {mesh.namespace!r}: it has no policy store yet ('policy apply' makes one)"
    out.rows([], columns, options.format, name=str, nothing=nothing)
    return OK


async def _numbered(store: PolicyStore, revision: str | None, others: Sequence[int]) -> int | None:
    """The number of the ``revision`` that is asked for; :class:`CliError` where there is none such, or one of the
    ``others`` is none."""
    if revision is None and not others:
        return None
    now = await store.snapshot()
    for each in others:
        revision_called(str(each), (), epoch=now.epoch, last=now.sequence)
    if revision is None:
        return None
    log = () if revision.isascii() and revision.isdigit() else await store.log()
    return revision_called(revision, log, epoch=now.epoch, last=now.sequence)


async def _snapshot(
    options: Options, out: Out, mesh: Mesh, store: PolicyStore, revision: int | None, at: str | None
) -> Snapshot:
    """What stood there, from the store where it keeps it, else from the audit; which of them answered is said."""
    if revision is not None:
        return await _at_revision(options, out, mesh, store, revision)
    if at is None:
        return await store.snapshot()
    moment = instant(at)
    try:
        found = await store.at(time=moment)
        out.note(f"as of {moment}, from the store", "dim")
        return found
    except UnknownPastError as error:
        try:
            found = await _from_audit(options, mesh, store, moment)
        except (UnknownPastError, BeforeError, KvError) as also:
            raise CliError(f"{error}; nor does the audit know: {also}", code=FAILED) from also
    out.note(f"as of {moment}, from the audit: the store does not keep it any more", "dim")
    return found


async def _at_revision(options: Options, out: Out, mesh: Mesh, store: PolicyStore, revision: int) -> Snapshot:
    """What stood at a revision: beyond what the store keeps it is asked of the audit, and that is said."""
    try:
        return await store.at(sequence=revision)
    except UnknownPastError:
        then = await stood_at(options, mesh, store, revision)
    then.tell(out, revision)
    now = await store.snapshot()
    expected = {key: each.sequence for key, each in then.found.items()}
    return Snapshot(epoch=now.epoch, sequence=revision, policies=then.found, expected=expected)


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
    async with opened(options, absent_ok=not names) as (mesh, store):
        if store.bucket is None:
            return _nothing(options, out, mesh, _REVISIONS, "no policy was ever changed")
        log = await store.log()
        return await _history(options, out, mesh, log, names, limit)


async def _history(
    options: Options, out: Out, mesh: Mesh, log: Sequence[Revision], names: Sequence[str], limit: int
) -> int:
    known = {each.key for each in log}
    keys: set[str] = set()
    changes: set[str] = set()
    for name in names:
        if of := changes_called(name, log):
            changes.add(of[0].change)
        else:
            keys.update(selected(without_revision(name)[0], known, place="in the history", gone=gone_of(log)))
    created: set[str] = set()
    records: list[Record] = []
    for each in log:
        action = "configured" if each.key in created else "created"
        created.add(each.key)
        if each.value is None:
            action = "deleted"
            created.discard(each.key)
        if not names or each.key in keys or each.change in changes:
            records.append({**_revision_record(each), "action": action})
    every = records
    records = records[::-1][:limit]
    out.rows(records, _REVISIONS, options.format, name=lambda r: str(r["revision"]))
    if not options.format.structured:
        if not every:
            out.note("no policy was changed in this namespace (-n names another)", "dim")
        shown = {str(each["policy"]).replace("/", ".", 1) for each in every}
        await tell_older(options, out, mesh, log, shown)
    return OK


async def status(options: Options, out: Out) -> int:
    """Show who follows the store and how far; 1 where somebody does not, or refuses something."""
    async with opened(options) as (mesh, store):
        snapshot = await store.snapshot()
        members = await _members(options, out, mesh)
        own = mesh.client.transport.connection
    here = (snapshot.epoch, snapshot.sequence)
    records = sorted(
        (member_record(member, here) for member in members if member.instance != own),
        key=lambda r: (ORDER.index(r["state"]), r["service"], r["instance"]),
    )
    out.rows(records, _MEMBERS, options.format, name=lambda r: str(r["instance"]))
    bad = [each for each in records if each["state"] in ("STALE", "REJECTED")]
    if not options.format.structured:
        follows = [each for each in records if each["state"] != "ELSEWHERE"]
        of = counted(len(follows), "member is", "members are")
        out.note(f"revision {snapshot.sequence}: {len(follows) - len(bad)} of {of} in sync")
    return FAILED if bad else OK


async def _members(options: Options, out: Out, mesh: Mesh) -> list[Member]:
    """Everybody who answers, and who ought to."""
    async with acks_of(options, mesh) as acks:
        found = await acks.attend()
        if acks.problem:
            out.note(acks.problem, "warn")
        return [*found, *acks.absent()]


def member_record(member: Member, here: tuple[int, int]) -> Record:
    """Where a member stands with the store, which is at ``here``, as ``policy status`` lists it."""
    found = verdict_of(
        member.source,
        member.revision,
        here,
        rejected=member.rejected,
        rejections=member.rejections,
        reason=member.reason,
        silent="" if member.answers else member.why or "does not answer",
    )
    return {
        "service": member.service,
        "instance": member.instance,
        "host_pid": member.name,
        "kind": member.kind,
        "state": found.state,
        "revision": member.revision[1] if found.follows else None,
        "epoch": member.revision[0] if found.follows else None,
        "answers": member.answers,
        "source": member.source,
        "reason": found.reason,
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


def policy_record(revision: Revision) -> Record:
    """A policy that stands in the store, as ``policy get`` lists it."""
    return {**_revision_record(revision), "target": _target(_document(revision))}


def about(revision: Revision) -> frozenset[str]:
    """What a policy is about, as ``get`` asks for it: its service, and each ``SERVICE.ENDPOINT`` that it names; ``*``
    where it is about all."""
    target = _target_of(_document(revision))
    if target is None:
        return frozenset()
    return frozenset([target.service, *(f"{target.service}.{each}" for each in target.endpoints)])


def _target(document: dict[str, Any] | None) -> str:
    """What a document is about, as people read it; ``?`` where it does not say so as policies do."""
    target = _target_of(document)
    if target is None:
        return "?"
    parts = [target.service, ",".join(target.endpoints), target.subset]
    return "/".join(part for part in parts if part)


def _target_of(document: dict[str, Any] | None) -> _Target | None:
    if document is None:
        return None
    try:
        return msgspec.convert(document.get("spec", {}), _Spec).target
    except msgspec.ValidationError:
        return None


def _revision_record(revision: Revision) -> Record:
    return {
        "policy": policy_label(revision.key),
        "revision": revision.sequence,
        "time": revision.time,
        "operator": revision.operator,
        "message": revision.message,
        "change": revision.change,
        "back_to": revision.back_to,
    }

"""``policy apply``, ``delete`` and ``undo``: change the policies on the bus, and see that the change is in effect."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from nats_mesh import Mesh, PolicyError
from nats_mesh.changing import ACK_S, Changed, Changing, Prepared, UnacknowledgedError
from nats_mesh.core.sync_state import policy_label
from nats_mesh.policy.bus.documents import read_document
from nats_mesh.policy.bus.plan import Document
from nats_mesh.policy.bus.revisions import Revision, Snapshot
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.policy.problems import place
from nats_mesh_cli.catalog import visible
from nats_mesh_cli.errors import FAILED, OK, CliError, problem_documents
from nats_mesh_cli.get import fetch
from nats_mesh_cli.naming import gone_of, missing, revision_called, selected
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out, Record
from nats_mesh_cli.policy_bus import opened
from nats_mesh_cli.policy_members import acks_of, tell_report, without_hint
from nats_mesh_cli.policy_past import stood_at
from nats_mesh_cli.policy_sources import read_given
from nats_mesh_cli.undoing import last_change, told

__all__ = ["Change", "apply", "delete", "undo"]

_STYLES = {"created": "ok", "configured": "warn", "unchanged": "dim", "deleted": "bad"}
_COLUMNS = (
    Column("POLICY", lambda r: str(r["policy"]), style=lambda _: "name", drop=0),
    Column("ACTION", lambda r: str(r["action"]), style=lambda r: _STYLES.get(r["action"], ""), drop=2),
    Column("REVISION", lambda r: "" if r["revision"] is None else str(r["revision"]), right=True),
    Column("PLACE", lambda r: str(r["place"]), wide=True),
)


class Change:
    """How a change is to be made, as the options say."""

    def __init__(
        self,
        *,
        name: str | None = None,
        message: str = "",
        dry_run: bool = False,
        wait: bool = False,
        one_by_one: bool = False,
        without: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.message = message
        self.dry_run = dry_run
        self.wait = wait
        self.one_by_one = one_by_one
        self.without = tuple(without)
        self.back_to: int | None = None


async def apply(
    options: Options,
    out: Out,
    paths: Sequence[str],
    change: Change,
    *,
    prune: bool = False,
    strict: bool = False,
) -> int:
    """Store the documents in files; the exit code."""
    namespace = options.settings().namespace
    given = read_given(paths, namespace, to_apply=True)
    given.tell(out)
    if strict:
        given.refuse_lossy()
    if not given.documents:
        raise CliError(
            "there are no policies in what was given",
            hint="a policy has apiVersion, kind, metadata, spec; of Istio's documents none has a meaning here"
            if given.untranslated
            else "a policy has apiVersion, kind, metadata, spec",
        )
    wanted: dict[str, Document | None] = dict(given.documents)
    async with (
        opened(options, change.name, make=not change.dry_run, absent_ok=change.dry_run) as (mesh, store),
        _changing(options, out, mesh, store, change) as changing,
    ):
        if store.bucket is None:  # a dry run before the first policy
            snapshot = Snapshot(epoch=0, sequence=0, policies={}, expected={})
        else:
            snapshot = await store.snapshot()
        if prune:
            wanted |= {key: None for key in snapshot.policies if key not in wanted}
        for key, origin in () if prune else given.left_behind(snapshot.policies):
            name = policy_label(key)
            out.note(
                f"note: {name} stays: {origin} does not come to it; policy delete {name} removes it", "warn"
            )
        return await _make(options, out, mesh, changing, snapshot, wanted, change)


async def delete(
    options: Options, out: Out, names: Sequence[str], paths: Sequence[str], change: Change
) -> int:
    """Delete policies by name, or those that files hold; the exit code."""
    if not names and not paths:
        raise CliError("say which policies to delete", hint="KIND/NAME, or -f FILE")
    keys = list(read_given(paths, options.settings().namespace).documents) if paths else []
    async with (
        opened(options, change.name) as (mesh, store),
        _changing(options, out, mesh, store, change) as changing,
    ):
        snapshot = await store.snapshot()
        for name in names:
            keys += selected(name, snapshot.policies)
        absent = [key for key in keys if key not in snapshot.policies]
        if absent:
            raise missing(absent[0], snapshot.policies)
        try:
            return await _make(options, out, mesh, changing, snapshot, dict.fromkeys(keys), change)
        except PolicyError as error:
            raise CliError(
                str(error),
                hint="what stays still needs it: delete or change that, too, in the same command or before",
                document={"problems": problem_documents(error)},
            ) from error


async def undo(options: Options, out: Out, names: Sequence[str], revision: str | None, change: Change) -> int:
    """Undo the last change that is not undone yet, or put back what stood there at a ``revision``; of some policies, or
    of all."""
    async with (
        opened(options, change.name) as (mesh, store),
        _changing(options, out, mesh, store, change) as changing,
    ):
        snapshot = await store.snapshot()
        log = await store.log()
        known, deleted = {each.key: each for each in log}, gone_of(log)
        place = "in the store, nor in what it keeps of before"
        keys = {key for name in names for key in selected(name, known, place=place, gone=deleted)}
        if revision is None:
            back = last_change(log, keys)
            out.note(told(back, " ".join(["policy undo", *map(policy_label, back.found)])))
            change.back_to, found = back.back_to, back.found
            change.message = change.message or f"undo of revision {back.undone.sequence}"
        else:
            at = revision_called(revision, log, epoch=snapshot.epoch, last=snapshot.sequence)
            change.back_to, found = at, await _before(options, out, mesh, store, log, keys, at)
            again = " ".join(["policy undo", *names, "--to-revision", str(snapshot.sequence)])
            out.note(f"puts back what stood there at revision {at}; {again} takes that back")
            change.message = change.message or f"undo to revision {at}"
        wanted: dict[str, Document | None] = {}
        for key, before in found.items():
            wanted[key] = None
            if before is not None and before.value is not None:
                policy = read_document(key, before.value, before.sequence, namespace=mesh.namespace)
                wanted[key] = Document(policy=policy, value=before.value)
            now = snapshot.policies.get(key)
            if (None if now is None else now.value) == (None if before is None else before.value):
                continue
            gone = before is None or before.value is None
            stood = (
                "nothing stood there, it is deleted"
                if gone or before is None
                else f"revision {before.sequence}"
            )
            out.note(f"puts back {policy_label(key)}: {stood}")
        return await _make(options, out, mesh, changing, snapshot, wanted, change)


async def _before(
    options: Options,
    out: Out,
    mesh: Mesh,
    store: PolicyStore,
    log: Sequence[Revision],
    keys: set[str],
    revision: int,
) -> dict[str, Revision | None]:
    """What stood under each key at a revision (``None``: nothing), from the audit where the store keeps it no more."""
    wanted = {each.key for each in log if not keys or each.key in keys}
    then = await stood_at(options, mesh, store, revision, only=wanted)
    then.tell(out, revision)
    return {key: then.found.get(key) for key in sorted(wanted)}


@asynccontextmanager
async def _changing(
    options: Options, out: Out, mesh: Mesh, store: PolicyStore, change: Change
) -> AsyncIterator[Changing]:
    async with acks_of(options, mesh, without=change.without) as acks:
        yield Changing(store, acks, tell=lambda text: out.note(text, "dim"))


async def _make(
    options: Options,
    out: Out,
    mesh: Mesh,
    changing: Changing,
    snapshot: Snapshot,
    wanted: Mapping[str, Document | None],
    change: Change,
) -> int:
    prepared = changing.check(snapshot, wanted)
    for warning in prepared.warnings:
        out.note(f"already wrong in the store: {warning}", "warn")
    await _tell_findings(options, out, mesh, prepared, wanted, dry_run=change.dry_run)
    changed: Changed | None = None
    try:
        if (prepared.steps or change.wait) and not change.dry_run:
            changed = await changing.carry_out(
                prepared,
                message=change.message,
                wait_s=(options.timeout_s or ACK_S) if change.wait else None,
                one_by_one=change.one_by_one,
                back_to=change.back_to,
            )
    except UnacknowledgedError as error:
        tell_report(out, error.report, change.without)
        hint = "the same command goes on from there"
        if other := without_hint(error.report):
            hint = f"{hint}; {other}"
        raise CliError(str(error), hint=hint, code=FAILED) from error
    _show(options, out, prepared, wanted, changed, change)
    for problem in (
        dict.fromkeys(done.unrecorded for done in changed.applied if done.unrecorded) if changed else ()
    ):
        out.note(f"in effect, but not in the audit: {problem}", "warn")
    if changed is not None and changed.report is not None and change.wait:
        tell_report(out, changed.report, change.without)
        if changed.report.agreed:
            return OK
        if other := without_hint(changed.report):
            out.note(f"it is stored; {other}", "dim")
        return FAILED
    return OK


async def _tell_findings(
    options: Options,
    out: Out,
    mesh: Mesh,
    prepared: Prepared,
    wanted: Mapping[str, Document | None],
    *,
    dry_run: bool,
) -> None:
    """What is valid and questionable in what is changed, as ``policy analyze`` finds it, held against what runs."""
    # Here, because it takes long and most commands need none of it.
    from nats_mesh.policy.analysis import analyze
    from nats_mesh_cli.policy_analyze import world_of

    new = {document.policy.name for document in wanted.values() if document is not None}
    after = {key: each for key, each in prepared.current.items() if key not in wanted}
    after |= {key: each for key, each in wanted.items() if each is not None}
    if not new:
        return
    # What --timeout says is for those that acknowledge.
    infos = await fetch(mesh, replace(options, timeout_s=None), out)
    world = world_of(visible(infos, mesh.namespace))
    policies = [each.policy for each in after.values()]
    settled = analyze(policies, namespace=mesh.namespace)
    # Of what runs now, errors alone: a policy may be there before what it is about.
    now = analyze(policies, world, namespace=mesh.namespace, mode=options.settings().mode)
    lost = [each for each in now if each.severity == "error" and each not in settled]
    for found in (*settled, *lost):
        if found.policy in new and found.severity != "info":
            where = place(found.file, found.line)
            out.note(
                f"{found.severity} {found.code}: {where}: {found.path}: {found.message}; {found.remedy}",
                "warn",
            )
    if not dry_run and any(each.policy in new for each in lost):
        out.note("it is stored all the same: it may be meant for what is yet to start", "warn")


def _show(
    options: Options,
    out: Out,
    prepared: Prepared,
    wanted: Mapping[str, Document | None],
    changed: Changed | None,
    change: Change,
) -> None:
    touched = {key for step in prepared.steps for key in step.values}
    sequences = {
        key: at for done in (changed.applied if changed else ()) for key, at in done.sequences.items()
    }
    records: list[Record] = []
    for key, document in wanted.items():
        before = prepared.current.get(key)
        if key not in touched:
            action = "unchanged"
        elif document is None:
            action = "deleted"
        else:
            action = "configured" if before is not None or key in prepared.snapshot.policies else "created"
        records.append(
            {
                "policy": policy_label(key),
                "action": action,
                "revision": sequences.get(key),
                "dry_run": change.dry_run,
                "place": "" if document is None else document.policy.place,
            }
        )
    if options.format in (Format.TABLE, Format.NAME):
        note = " (dry run)" if change.dry_run else ""
        for record in records:
            text = (
                f"{record['policy']} {record['action']}{note}"
                if options.format is Format.TABLE
                else record["policy"]
            )
            out.data(text)
        return
    out.rows(records, _COLUMNS, options.format, name=lambda r: str(r["policy"]))

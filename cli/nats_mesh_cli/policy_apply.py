"""``policy apply``, ``delete`` and ``undo``: change the policies on the bus, and see that the change is in effect."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from nats_mesh import Mesh, PolicyError
from nats_mesh.changing import ACK_S, Changed, Changing, Prepared, UnacknowledgedError
from nats_mesh.discovery.acks import MAX_MEMBERS, Acks, Report
from nats_mesh.policy.analysis import analyze
from nats_mesh.policy.bus.bucket import HISTORY
from nats_mesh.policy.bus.documents import read_document
from nats_mesh.policy.bus.plan import Document
from nats_mesh.policy.bus.revisions import Revision, Snapshot
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.policy.problems import place
from nats_mesh.wire.kv import KvAbsentError
from nats_mesh_cli.bus import CALLER, connected
from nats_mesh_cli.errors import FAILED, OK, CliError, did_you_mean, problem_documents
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out, Record, render_list
from nats_mesh_cli.policy_settling import settle
from nats_mesh_cli.policy_sources import read_given
from nats_mesh_cli.store_errors import store_errors
from nats_mesh_cli.who import operator_name

__all__ = ["Change", "apply", "delete", "opened", "selected", "undo"]

_STYLES = {"created": "ok", "configured": "warn", "unchanged": "dim", "deleted": "bad"}
_COLUMNS = (
    Column("POLICY", lambda r: str(r["policy"]), style=lambda _: "name"),
    Column("ACTION", lambda r: str(r["action"]), style=lambda r: _STYLES.get(r["action"], "")),
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
    ) -> None:
        self.name = name
        self.message = message
        self.dry_run = dry_run
        self.wait = wait
        self.one_by_one = one_by_one


@asynccontextmanager
async def opened(
    options: Options, name: str | None = None, *, make: bool = False, absent_ok: bool = False
) -> AsyncIterator[tuple[Mesh, PolicyStore]]:
    """The store of the namespace, as ``name``; what goes wrong with it is told in this program's words."""
    async with connected(options, name or CALLER) as mesh:
        client = mesh.client
        store = PolicyStore(
            mesh.namespace,
            transport=client.transport,
            mux=client.mux,
            operator=operator_name(name),
            timeout_s=options.timeout_s or 5.0,
        )
        instead = "without it members follow files: --policies DIR"
        with store_errors(mesh.namespace, "policy store", "policy apply", make=make, instead=instead):
            try:
                await store.open(make=make)
            except KvAbsentError:
                if not absent_ok:
                    raise
            yield mesh, store


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
        _changing(options, out, mesh, store) as changing,
    ):
        if store.bucket is None:  # a dry run before the first policy
            snapshot = Snapshot(epoch=0, sequence=0, policies={}, expected={})
        else:
            snapshot = await store.snapshot()
        if prune:
            wanted |= {key: None for key in snapshot.policies if key not in wanted}
        for key, origin in () if prune else given.left_behind(snapshot.policies):
            name = key.replace(".", "/", 1)
            out.note(
                f"note: {name} stays: {origin} does not come to it; policy delete {name} removes it", "warn"
            )
        return await _make(options, out, changing, snapshot, wanted, change)


async def delete(
    options: Options, out: Out, names: Sequence[str], paths: Sequence[str], change: Change
) -> int:
    """Delete policies by name, or those that files hold; the exit code."""
    if not names and not paths:
        raise CliError("say which policies to delete", hint="KIND/NAME, or -f FILE")
    keys = list(read_given(paths, options.settings().namespace).documents) if paths else []
    async with (
        opened(options, change.name) as (mesh, store),
        _changing(options, out, mesh, store) as changing,
    ):
        snapshot = await store.snapshot()
        for name in names:
            keys += selected(name, snapshot.policies)
        missing = [key for key in keys if key not in snapshot.policies]
        if missing:
            raise CliError(f"there is no {missing[0].replace('.', '/', 1)} in the store", code=FAILED)
        try:
            return await _make(options, out, changing, snapshot, dict.fromkeys(keys), change)
        except PolicyError as error:
            raise CliError(
                str(error),
                hint="what stays still needs it: delete or change that, too, in the same command or before",
                document={"problems": problem_documents(error)},
            ) from error


async def undo(options: Options, out: Out, names: Sequence[str], revision: int | None, change: Change) -> int:
    """Put back what stood there before the last change, or at a ``revision``; of some policies, or of all."""
    async with (
        opened(options, change.name) as (mesh, store),
        _changing(options, out, mesh, store) as changing,
    ):
        snapshot = await store.snapshot()
        log = await store.log()
        keys = {key for name in names for key in selected(name, {each.key: each for each in log})}
        wanted: dict[str, Document | None] = {}
        for key, found in _before(log, keys, revision, snapshot).items():
            wanted[key] = None
            if found is not None and found.value is not None:
                policy = read_document(key, found.value, found.sequence, namespace=mesh.namespace)
                wanted[key] = Document(policy=policy, value=found.value)
            what = "nothing" if found is None or found.value is None else f"revision {found.sequence}"
            out.note(f"puts back {key.replace('.', '/', 1)}: {what}")
        if not change.message:
            change.message = "undo" if revision is None else f"undo to revision {revision}"
        return await _make(options, out, changing, snapshot, wanted, change)


def _before(
    log: Sequence[Revision], keys: set[str], revision: int | None, snapshot: Snapshot
) -> dict[str, Revision | None]:
    """What is to stand under each key again (``None``: nothing)."""
    of: dict[str, list[Revision]] = {}
    for each in log:
        if not keys or each.key in keys:
            of.setdefault(each.key, []).append(each)
    if not of:
        raise CliError("there is nothing to undo: the store is empty", code=FAILED)
    found: dict[str, Revision | None] = {}
    if revision is None:
        last = max((each for revisions in of.values() for each in revisions), key=lambda each: each.sequence)
        for key, revisions in of.items():
            if revisions[-1] is last or (last.change and revisions[-1].change == last.change):
                # All steps of one change have its id; what stood there is what was before the first of them.
                before = [each for each in revisions if each.change != last.change or not last.change]
                if not last.change:
                    before = revisions[:-1]
                found[key] = before[-1] if before else None
        return found
    if revision < 1 or revision > snapshot.sequence:
        raise CliError(
            f"there is no revision {revision}: the last one is {snapshot.sequence}",
            hint="'policy history' lists them",
            code=FAILED,
        )
    for key, revisions in of.items():
        before = [each for each in revisions if each.sequence <= revision]
        if not before and len(revisions) >= HISTORY:
            raise CliError(
                f"{key}: what stood there at revision {revision} is not kept any more", code=FAILED
            )
        found[key] = before[-1] if before else None
    return found


def selected(name: str, known: Mapping[str, object]) -> list[str]:
    """The keys that ``KIND/NAME``, ``KIND`` or ``Kind.name`` means; :class:`CliError` where it means none."""
    kind, _, rest = name.partition("/" if "/" in name else ".")
    kinds = {key.partition(".")[0] for key in known}
    match = next(
        (each for each in kinds if each.lower() == kind.lower().removesuffix("s") or each == kind), None
    )
    if match is None:
        hint = did_you_mean(kind, kinds) or (f"there are: {', '.join(sorted(kinds))}" if kinds else "")
        raise CliError(f"there are no policies of kind {kind!r} in the store", hint=hint, code=FAILED)
    own = [key for key in known if key.startswith(f"{match}.")]
    if not rest:
        return own
    key = f"{match}.{rest}"
    if key not in known:
        near = did_you_mean(rest, [each.partition(".")[2] for each in own])
        raise CliError(f"there is no {match}/{rest} in the store", hint=near, code=FAILED)
    return [key]


@asynccontextmanager
async def _changing(options: Options, out: Out, mesh: Mesh, store: PolicyStore) -> AsyncIterator[Changing]:
    client = mesh.client
    acks = Acks(
        subjects=client.subjects,
        transport=client.transport,
        mux=client.mux,
        enforced=options.settings().enforced,
    )
    await acks.open()
    try:
        yield Changing(store, acks, tell=lambda text: out.note(text, "dim"))
    finally:
        acks.close()


async def _make(
    options: Options,
    out: Out,
    changing: Changing,
    snapshot: Snapshot,
    wanted: Mapping[str, Document | None],
    change: Change,
) -> int:
    prepared = changing.check(snapshot, wanted)
    for warning in prepared.warnings:
        out.note(f"already wrong in the store: {warning}", "warn")
    _tell_findings(options, out, prepared, wanted)
    changed: Changed | None = None
    try:
        if prepared.steps and not change.dry_run:
            changed = await changing.carry_out(
                prepared,
                message=change.message,
                wait_s=(options.timeout_s or ACK_S) if change.wait else None,
                one_by_one=change.one_by_one,
            )
    except UnacknowledgedError as error:
        _tell_report(out, error.report)
        raise CliError(
            str(error), hint="'policy status' shows who; the same command goes on from there", code=FAILED
        ) from error
    _show(options, out, prepared, wanted, changed, change)
    for problem in (
        dict.fromkeys(done.unrecorded for done in changed.applied if done.unrecorded) if changed else ()
    ):
        out.note(f"in effect, but not in the audit: {problem}", "warn")
    if changed is not None and changed.report is not None and change.wait:
        await settle(prepared, wanted, namespace=options.settings().namespace)
        _tell_report(out, changed.report)
        return OK if changed.report.agreed else FAILED
    return OK


def _tell_findings(
    options: Options, out: Out, prepared: Prepared, wanted: Mapping[str, Document | None]
) -> None:
    """What is valid and questionable in what is changed, as ``policy analyze`` finds it."""
    new = {document.policy.name for document in wanted.values() if document is not None}
    after = {key: each for key, each in prepared.current.items() if key not in wanted}
    after |= {key: each for key, each in wanted.items() if each is not None}
    namespace = options.settings().namespace
    for found in analyze([each.policy for each in after.values()], namespace=namespace):
        if found.policy in new and found.severity != "info":
            where = place(found.file, found.line)
            out.note(
                f"{found.severity} {found.code}: {where}: {found.path}: {found.message}; {found.remedy}",
                "warn",
            )


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
                "policy": key.replace(".", "/", 1),
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
    out.data(
        render_list(
            records,
            _COLUMNS,
            options.format,
            name=lambda r: str(r["policy"]),
            color=out.color,
            pretty=out.tty,
        )
    )


def _tell_report(out: Out, report: Report) -> None:
    """Who has acknowledged, and who has not and why."""
    if not _reached(report):
        out.note("nobody in this namespace follows the store now (-n names another)", "warn")
    else:
        out.note(f"acknowledged by {len(report.applied)} of {_reached(report)} members that answer")
    for member, rejection in report.rejected:
        out.note(f"rejected by {member.place}: {rejection.policy}: {rejection.reason}", "bad")
    for member in report.silent:
        out.note(f"no answer from {member.place}", "bad")
    if report.elsewhere:
        count = len(report.elsewhere)
        who = "1 member follows" if count == 1 else f"{count} members follow"
        out.note(f"{who} files, code or nothing: not reached", "dim")
    if report.more:
        out.note(f"there are more than {MAX_MEMBERS:,} members: nobody waited for the others", "warn")


def _reached(report: Report) -> int:
    return len(report.applied) + len(report.rejected) + len(report.silent)

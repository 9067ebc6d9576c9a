"""``rollout``: start one, see how far it is, pause, resume and abort it, and carry out what others started."""

from __future__ import annotations

import getpass
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast

import anyio
import msgspec

from nats_mesh import Mesh
from nats_mesh.core.rollout import Hold, Phase
from nats_mesh.model import is_name
from nats_mesh.policy.bus.documents import key_of
from nats_mesh.policy.bus.plan import Document
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.rollout import Book, Entry, Runner, Starting, Told
from nats_mesh.rollout.book import LEASE_S
from nats_mesh.rollout.record import Wish
from nats_mesh.rollout.starting import NotStartedError
from nats_mesh.wire.kv import KvAbsentError, KvDeniedError, KvError
from nats_mesh_cli.bus import CALLER, CONNECT_S
from nats_mesh_cli.errors import FAILED, OK, CliError
from nats_mesh_cli.hints import nearest
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, Record, dump
from nats_mesh_cli.policy_sources import STDIN, read_given
from nats_mesh_cli.reaching import connector_of
from nats_mesh_cli.rollout_text import COLUMNS, line_of, record_of, told_line, told_record
from nats_mesh_cli.store_errors import store_errors

__all__ = ["ask_for", "run", "start", "status"]

#: How often to look how far it is (seconds).
_LOOK_S: Final = 0.25
#: How long somebody may take to take it up, and to do what is wanted where its runner has died meanwhile (seconds).
_TAKEN_S: Final = 3.0
_DONE_S: Final = LEASE_S + 10.0
_NOBODY = "'nats-mesh rollout run' carries rollouts out, here or on any machine"


@asynccontextmanager
async def _opened(options: Options, name: str | None = None) -> AsyncIterator[Mesh]:
    """A member that follows the policies on the bus, whatever the environment says: which instances are in which subset
    stands there. What goes wrong with the store is told in this program's words."""
    settings = msgspec.structs.replace(
        options.settings(), plugins=False, policies=None, follow=True, cache_dir=""
    )
    timeout_s = min(CONNECT_S, options.timeout_s or CONNECT_S)
    connector = connector_of(options.timeout_s)
    async with Mesh(
        name or CALLER, settings=settings, connect_timeout=timeout_s, connector=connector
    ) as mesh:
        made = "'policy apply' makes the policy store"
        unsure = "'nats-mesh rollout status' shows whether it was stored"
        with store_errors(
            mesh.namespace, "store for rollouts", "rollout start", make=True, instead=made, unsure=unsure
        ):
            yield mesh


def _book(mesh: Mesh) -> Book:
    return Book(mesh.namespace, transport=mesh.client.transport, mux=mesh.client.mux)


def _operator(name: str | None) -> str:
    return name or f"{getpass.getuser()}@{socket.gethostname()}"


async def start(
    options: Options, out: Out, what: str, *, follow: bool, message: str, name: str | None
) -> int:
    """Start the rollout in a file, or the one that is stored for a service; the exit code."""
    if follow and options.format in (Format.JSON, Format.YAML):
        raise CliError(f"--follow goes on, which -o {options.format} cannot", hint="use -o jsonl")
    given, beside = _given(what, options.settings().namespace)
    async with _opened(options, name) as mesh:
        starting = Starting(mesh, by=_operator(name), timeout_s=options.timeout_s or 5.0)
        try:
            started = await starting.start(given, beside=beside, message=message)
        except NotStartedError as error:
            stored = await _startable(mesh) if isinstance(given, str) else []
            hint = "" if given in stored else nearest(what, stored)
            raise CliError(str(error), hint=hint, code=FAILED) from error
        for warning in started.warnings:
            out.note(f"already wrong in the store: {warning}", "warn")
        for key in started.replaced:
            out.note(f"{key.replace('.', '/', 1)} gave way to it", "dim")
        record = started.entry.record
        if not record.rules.gates:
            out.note("it has no gates: time alone decides", "warn")
        if follow:
            return await _carry(options, out, mesh, record.service)
        entry = await _until(
            starting.book, record.service, lambda e: bool(e.record.holder), options.timeout_s or _TAKEN_S
        )
        entry = entry or started.entry
        _show_one(options, out, entry)
        if not entry.record.holder and not entry.record.progress.phase.ended:
            out.note(f"nobody carries it out yet: {_NOBODY}", "warn")
    return OK


async def _startable(mesh: Mesh) -> list[str]:
    """The names of the rollouts in the store."""
    client = mesh.client
    store = PolicyStore(mesh.namespace, transport=client.transport, mux=client.mux)
    await store.open(make=False)
    snapshot = await store.snapshot()
    return [key.partition(".")[2] for key in snapshot.policies if key.startswith("Rollout.")]


def _given(what: str, namespace: str) -> tuple[Document | str, dict[str, Document]]:
    """The rollout to start, and the policies that stand in the file with it."""
    if what != STDIN and not Path(what).exists() and is_name(what):
        return what, {}
    documents = dict(read_given([what], namespace).documents)
    rollouts = [each for each in documents.values() if each.policy.kind == "Rollout"]
    if len(rollouts) != 1:
        found = ", ".join(each.policy.name for each in documents.values()) or "nothing"
        raise CliError(f"{what}: one Rollout is started at a time, and there is {found}")
    del documents[key_of(rollouts[0].policy)]
    return rollouts[0], documents


async def _carry(options: Options, out: Out, mesh: Mesh, service: str) -> int:
    """Carry it out where nobody else does, and show how it goes until it has ended."""
    code = FAILED
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Runner(mesh, only=service).run)
        code = await _follow(options, out, _book(mesh), service)
        tasks.cancel_scope.cancel()
    return code


async def _follow(options: Options, out: Out, book: Book, service: str) -> int:
    shown: object = None
    while True:
        entry = await _read(book, service)
        if entry is not None:
            record = record_of(entry)
            news = [record[key] for key in ("run", "phase", "hold", "step", "weight_percent")]
            news.append(str(record["reason"]).partition(":")[0])
            if news != shown:
                shown = news
                if options.format is Format.JSONL:
                    out.data(dump(record, Format.JSONL))
                else:
                    out.text(line_of(record))
            if record["ended"]:
                return OK if record["phase"] == Phase.PROMOTED else FAILED
        await anyio.sleep(_LOOK_S)


async def _read(book: Book, service: str) -> Entry | None:
    """The record; nothing while the store does not answer, which does not end what only looks on."""
    try:
        return await book.read(service)
    except (KvAbsentError, KvDeniedError):
        raise
    except KvError:
        return None


async def _until(
    book: Book, service: str, condition: Callable[[Entry], bool], timeout_s: float
) -> Entry | None:
    """The record once it is so; after ``timeout_s`` as it is."""
    entry: Entry | None = None
    with anyio.move_on_after(timeout_s):
        while True:
            entry = await _read(book, service) or entry
            if entry is not None and condition(entry):
                break
            await anyio.sleep(_LOOK_S)
    return entry


async def status(options: Options, out: Out, service: str | None, *, follow: bool) -> int:
    """Show all rollouts, or that of one service; the exit code."""
    if follow and options.format in (Format.JSON, Format.YAML, Format.NAME):
        raise CliError(f"--follow goes on, which -o {options.format} cannot", hint="use -o jsonl")
    async with _opened(options) as mesh:
        book = _book(mesh)
        entries = await _all(book)
        if service is not None:
            entry = _of(entries, service)
            if follow:
                return await _follow(options, out, book, service)
            _show_one(options, out, entry)
            return OK
        if follow:
            return await _follow(options, out, book, _under_way(entries).record.service)
    records = [record_of(entry) for entry in entries]
    nothing = "there are no rollouts"
    out.rows(records, COLUMNS, options.format, name=lambda r: str(r["service"]), nothing=nothing)
    return OK


async def _all(book: Book) -> list[Entry]:
    try:
        entries = await book.all()
    except KvAbsentError:  # nothing was ever rolled out here
        return []
    return sorted(entries, key=lambda entry: entry.record.service)


def _of(entries: list[Entry], service: str) -> Entry:
    for entry in entries:
        if entry.record.service == service:
            return entry
    known = [entry.record.service for entry in entries]
    hint = nearest(service, known)
    raise CliError(f"there is no rollout of {service!r}", hint=hint, code=FAILED)


def _under_way(entries: list[Entry]) -> Entry:
    found = [entry for entry in entries if not entry.record.progress.phase.ended]
    if len(found) == 1:
        return found[0]
    if not found:
        raise CliError("no rollout is under way", code=FAILED)
    names = ", ".join(entry.record.service for entry in found)
    raise CliError(f"{len(found)} rollouts are under way", hint=f"say which: {names}")


async def ask_for(
    options: Options, out: Out, wish: str, service: str | None, *, message: str, name: str | None
) -> int:
    """Have a rollout paused, resumed or aborted, and wait until it is; the exit code."""
    async with _opened(options, name) as mesh:
        book = _book(mesh)
        entries = await _all(book)
        entry = _under_way(entries) if service is None else _of(entries, service)
        service = entry.record.service
        if entry.record.progress.phase.ended:
            raise CliError(f"the rollout of {service} is over: {entry.record.progress.phase}", code=FAILED)
        asked = await book.wish(service, cast(Wish, wish), _operator(name), message)
        found: Entry | None = None
        async with anyio.create_task_group() as tasks:
            if wish != "resume":  # whoever carries it out may be gone: then it is done from here
                tasks.start_soon(Runner(mesh, only=service).run)
            waits_s = options.timeout_s or (_TAKEN_S if wish == "resume" else _DONE_S)
            found = await _until(book, service, _done(wish, asked.record.wished), waits_s)
            tasks.cancel_scope.cancel()
        found = await _read(book, service) or found or asked
    _show_one(options, out, found)
    record = found.record
    if record.answered < asked.record.wished and not record.progress.phase.ended:
        text = "nobody carries it out" if not record.holder else "whoever carries it out has not answered"
        raise CliError(f"{text}: it is done as soon as somebody does", hint=_NOBODY, code=FAILED)
    if record.answered == asked.record.wished and record.answer != "done":
        raise CliError(f"{service}: {record.answer}", code=FAILED)
    if wish == "abort" and not record.progress.phase.ended:
        raise CliError(f"{service}: {record.progress.reason or record.progress.phase}", code=FAILED)
    return OK


def _done(wish: str, number: int) -> Callable[[Entry], bool]:
    """Whether what was wanted has been done, or refused."""

    def done(entry: Entry) -> bool:
        record = entry.record
        if record.progress.phase.ended:
            return True
        answered = record.answered >= number
        if wish != "abort" or not answered or record.answer != "done":
            return answered
        return record.progress.hold is Hold.ROUTE  # the way back is barred: somebody has to look

    return done


async def run(options: Options, out: Out, *, name: str | None) -> int:
    """Carry out rollouts until Ctrl-C or SIGTERM; the leases are given back."""
    if options.format not in (Format.TABLE, Format.WIDE, Format.JSONL):
        raise CliError(f"rollout run goes on for ever, which -o {options.format} cannot", hint="use -o jsonl")

    def show(told: Told) -> None:
        jsonl = options.format is Format.JSONL
        out.data(dump(told_record(told), Format.JSONL) if jsonl else told_line(told))

    async with _opened(options, name) as mesh:
        runner = Runner(mesh, look_on=show)
        await runner.book.make()
        out.note(f"carries out rollouts in namespace {mesh.namespace} as {runner.holder}", "ok")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                async for _ in signals:
                    tasks.cancel_scope.cancel()
    return OK


def _show_one(options: Options, out: Out, entry: Entry) -> None:
    record: Record = record_of(entry)
    if options.format.structured:
        out.data(dump(record, options.format, pretty=out.tty))
        return
    out.rows([record], COLUMNS, options.format, name=lambda r: str(r["service"]))

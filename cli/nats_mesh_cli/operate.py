"""``drain``, ``undrain``, ``fault``, ``log-level``: tell instances what to do, and show what they answer."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import msgspec

from nats_mesh import CallError, Mesh, Status
from nats_mesh.core.shares import read_share
from nats_mesh.discovery.commands import (
    LEVELS,
    MAX_OPERATOR,
    MAX_REASON,
    Answer,
    Command,
    Drain,
    FaultCommand,
    LogLevel,
    Undrain,
    decode_answer,
    encode,
)
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.errors import CodecError
from nats_mesh.model import check_name
from nats_mesh.wire.subjects import ALL, Subjects
from nats_mesh_cli.bus import CALLER, QUESTION_S, connected
from nats_mesh_cli.catalog import MESH, instance_record, visible
from nats_mesh_cli.errors import FAILED, OK, CliError, did_you_mean
from nats_mesh_cli.get import fetch, short_ids
from nats_mesh_cli.hints import listed, no_endpoint, no_service
from nats_mesh_cli.naming import is_instance
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out, Record, dump
from nats_mesh_cli.silence import silent_or
from nats_mesh_cli.who import operator_name

__all__ = ["drain", "fault", "fault_command", "instance_of", "level_command", "log_level", "percent", "tell"]

_OLD = "is it an older version, or may nobody tell it anything? 'nats-mesh check --as NAME' shows permissions"

#: What takes back every change of a level.
_RESET = "reset"
_MAX_LOGGER = 200

_COLUMNS = (
    Column("INSTANCE", lambda r: str(r.get("short") or r["instance"]), style=lambda _: "name", drop=0),
    Column("HOST-PID", lambda r: str(r["host_pid"])),
    Column("SERVICE", lambda r: str(r["service"]), drop=0),
    Column("STATE", lambda r: str(r["state"]), drop=5),
    Column("IN FLIGHT", lambda r: str(r["in_flight"]), right=True),
    Column(
        "DONE", lambda r: "yes" if r["done"] else "no", style=lambda r: "ok" if r["done"] else "bad", drop=2
    ),
    Column("MESSAGE", lambda r: str(r["message"]), drop=3, short=16),
)


def percent(text: str) -> float:
    """``10%`` as a share of 1; for typer's ``parser=``."""
    typed = text.strip()
    share = read_share(f"0{typed}" if typed.startswith(".") else typed)
    if share is None or not 0.0 < share <= 1.0:
        raise CliError(f"{text!r} is no share", hint="write 10%, 0.5% or 100% (above 0%, at most 100%)")
    return share


def fault_command(
    endpoint: str,
    *,
    delay_s: float | None,
    abort: str | None,
    share: float | None,
    lasting_s: float | None,
    clear: bool,
    reason: str = "",
) -> FaultCommand:
    """The command that these options mean; :class:`CliError` where they do not go together."""
    given = [
        name
        for name, value in (
            ("--delay", delay_s),
            ("--abort", abort),
            ("--share", share),
            ("--for", lasting_s),
        )
        if value is not None
    ]
    if len(reason) > MAX_REASON:
        raise CliError(f"fault: -m takes at most {MAX_REASON} characters, these are {len(reason)}")
    if clear:
        if given:
            raise CliError(f"fault: --clear takes everything away; leave out {', '.join(given)}")
        return FaultCommand(endpoint=endpoint, clear=True, reason=reason)
    if delay_s is None and abort is None:
        raise CliError(
            "fault: say what shall go wrong",
            hint="--delay 200ms, --abort UNAVAILABLE, or both; --clear ends it",
        )
    if delay_s is not None and delay_s > 3600.0:
        raise CliError("fault: a delay is at most 1h", hint="--delay 200ms")
    status = ""
    if abort is not None:
        known = [str(each) for each in Status if each is not Status.OK]
        status = abort.upper().replace("-", "_")
        if status not in known:
            hint = did_you_mean(status, known) or f"there are: {', '.join(known)}"
            raise CliError(f"fault: {abort!r} is no status to abort with", hint=hint)
    return FaultCommand(
        endpoint=endpoint,
        reason=reason,
        delay_ms=(delay_s or 0.0) * 1000.0,
        abort=status,
        share=1.0 if share is None else share,
        for_ms=(60.0 if lasting_s is None else lasting_s) * 1000.0,
    )


def _signed(command: Command, name: str | None) -> Command:
    """The command with who gives it: the bus vouches for a name that all who use this program may share."""
    return msgspec.structs.replace(command, operator=operator_name(name)[:MAX_OPERATOR])


async def drain(options: Options, out: Out, prefix: str, *, back: bool, name: str | None) -> int:
    """Drain one instance, or take that ``back``; the exit code."""
    async with connected(options, name or CALLER) as mesh:
        infos = visible(await fetch(mesh, options, out), mesh.namespace)
        chosen = await _instance(mesh, prefix, infos, services=True)
        answers = await tell(mesh, options, [chosen], _signed(Undrain() if back else Drain(), name))
    return _show(options, out, answers, single=True)


def level_command(level: str, *, logger: str, for_s: float | None) -> LogLevel:
    """The command that these options mean; :class:`CliError` where there is no such level."""
    wanted = LEVELS.get(level.upper())
    if level.lower() == _RESET:
        return LogLevel(level="RESET", logger=logger)
    if wanted is None:
        known = [each.lower() for each in (*LEVELS, _RESET)]
        hint = did_you_mean(level, known) or f"there are: {', '.join(known)}"
        raise CliError(f"log-level: {level!r} is no level", hint=hint)
    if not logger.isprintable() or " " in logger or not 0 < len(logger) <= _MAX_LOGGER:
        raise CliError(
            f"log-level: {logger[:80]!r} is no name of a logger", hint="such as nats_mesh, or root"
        )
    return LogLevel(level=wanted, logger=logger, for_ms=None if for_s is None else for_s * 1000.0)


async def log_level(options: Options, out: Out, target: str, command: LogLevel, *, name: str | None) -> int:
    """Have the process of an instance, or of each instance of a service, log as ``command`` says; the exit code."""
    async with connected(options, name or CALLER) as mesh:
        infos = visible(await fetch(mesh, options, out), mesh.namespace)
        records = [instance_record(info, 0.0) for info in infos]
        chosen = [each for each in records if each["service"] == target and each["kind"] == MESH]
        single = not chosen
        if single:
            chosen = [await _instance(mesh, target, infos, services=True)]
        answers = await tell(mesh, options, chosen, _signed(command, name))
    return _show(options, out, answers, single=single)


async def fault(
    options: Options, out: Out, target: str, command: FaultCommand, *, instance: str | None, name: str | None
) -> int:
    """Inject a fault into every instance of a service, or into one; the exit code."""
    service = check_name("service", target.partition(".")[0])
    async with connected(options, name or CALLER) as mesh:
        everything = await fetch(mesh, options, out)
        infos = [info for info in visible(everything, mesh.namespace) if info.name == service]
        if not infos:
            error = no_service(service, everything, mesh.namespace)
            raise await silent_or(mesh, visible(everything, mesh.namespace), service, error)
        if command.endpoint and (absent := no_endpoint(service, command.endpoint, infos)):
            raise absent
        records = [instance_record(info, 0.0) for info in infos]
        chosen = records if instance is None else [await _instance(mesh, instance, infos)]
        if any(record["kind"] != MESH for record in chosen):
            raise CliError(f"{service} is outside the mesh: nothing can be injected into it", code=FAILED)
        answers = await tell(mesh, options, chosen, _signed(command, name))
    return _show(options, out, answers)


async def _instance(mesh: Mesh, prefix: str, infos: Sequence[InfoReply], *, services: bool = False) -> Record:
    """As :func:`instance_of`; who is meant and answers nothing is said to be silent."""
    try:
        return instance_of(prefix, infos, services=services)
    except CliError as error:
        raise await silent_or(mesh, infos, prefix, error) from None


def instance_of(prefix: str, infos: Sequence[InfoReply], *, services: bool = False) -> Record:
    """The record of the one instance whose id or host-pid is, or begins with, ``prefix``. ``services``: whoever
    named none may have meant a service, of which the nearest is named, too."""
    records = list({(info.name, info.id): instance_record(info, 0.0) for info in infos}.values())
    found = [r for r in records if is_instance(r, prefix, whole=True)]
    found = found or [r for r in records if is_instance(r, prefix)]
    if not prefix or not found:
        own = [r["instance"] for r in records if r["service"] == prefix]
        if own:
            raise CliError(f"{prefix!r} is a service", hint=f"its instances: {listed(own)}", code=FAILED)
        hint = "nothing runs here"
        if records:
            names = [r["host_pid"] for r in records if r["host_pid"]]
            guess = did_you_mean(prefix, [*names, *({r["service"] for r in records} if services else ())])
            there = [f"{r['service']}/{r['host_pid'] or r['instance']}" for r in records]
            hint = f"{guess} there are: {listed(there)}; 'nats-mesh get instances' has their ids".strip()
        if services:
            raise CliError(f"there is no instance and no service {prefix!r}", hint=hint, code=FAILED)
        raise CliError(f"there is no instance {prefix!r}", hint=hint, code=FAILED)
    if len(found) > 1:
        names = [f"{r['service']} {r['instance']} ({r['host_pid'] or 'foreign'})" for r in found]
        raise CliError(
            f"{prefix!r} fits {len(found)} instances", hint=f"give more of the id: {listed(names)}"
        )
    if found[0]["kind"] != MESH:
        text = f"{found[0]['service']} {found[0]['instance']} is outside the mesh and takes no commands"
        raise CliError(text, code=FAILED)
    return found[0]


class _Answers:
    """What comes back from those who were told."""

    def __init__(self, subject: str, wanted: set[str]) -> None:
        self.subject = subject
        self.heard: dict[str, Answer] = {}
        self.error: CallError | None = None
        self.over = anyio.Event()
        self._wanted = wanted

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        try:
            answer = decode_answer(payload)
        except CodecError:
            return  # no answer: the server's word that nobody listens, or something foreign
        if answer.instance in self._wanted:
            self.heard[answer.instance] = answer
        if len(self.heard) == len(self._wanted):
            self.over.set()

    def on_failure(self, error: CallError) -> None:
        self.error = error
        self.over.set()


async def tell(mesh: Mesh, options: Options, chosen: Sequence[Record], command: Command) -> list[Record]:
    """Tell each of ``chosen`` (of one service), and return a record of what it answered, in the same order."""
    client, service = mesh.client, chosen[0]["service"]
    to = chosen[0]["instance"] if len(chosen) == 1 else ALL
    subject = Subjects(mesh.namespace).command(service, to, mesh.name)
    answers = _Answers(subject, {record["instance"] for record in chosen})
    inbox = client.mux.open(f"control.{service}", answers)
    try:
        client.transport.publish(subject, encode(command), inbox)
        with anyio.move_on_after(options.timeout_s or QUESTION_S):
            await answers.over.wait()
    finally:
        client.mux.close(inbox)
    if answers.error is not None:
        raise answers.error
    return [_record(record, answers.heard.get(record["instance"])) for record in chosen]


def _record(record: Record, answer: Answer | None) -> Record:
    return {
        "instance": record["instance"],
        "service": record["service"],
        "host_pid": record["host_pid"],
        "done": answer is not None and answer.done,
        "message": "no answer" if answer is None else answer.message,
        "state": record["state"] if answer is None else str(answer.state),
        "in_flight": record["in_flight"] if answer is None else answer.in_flight,
    }


def _show(options: Options, out: Out, records: Sequence[Record], *, single: bool = False) -> int:
    fmt = options.format
    if single and fmt.structured:
        out.data(dump(records[0], fmt, pretty=out.tty))
    elif single and not records[0]["done"]:
        raise CliError(
            f"{records[0]['service']} {records[0]['instance']}: {records[0]['message']}",
            hint=_OLD if records[0]["message"] == "no answer" else "",
            code=FAILED,
        )
    else:
        shown = records if fmt.structured else short_ids(records)
        out.rows(shown, _COLUMNS, fmt, name=lambda r: str(r["instance"]))
    missing = [record["instance"] for record in records if not record["done"]]
    if missing and fmt in (Format.TABLE, Format.WIDE) and not single:
        out.note(f"not done by {len(missing)} of {len(records)}: {listed(missing)}", "bad")
    return FAILED if missing else OK

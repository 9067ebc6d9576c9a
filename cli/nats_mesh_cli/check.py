"""``check``: what is wrong here, each with its remedy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import anyio

from nats_mesh import ConfigError, DisconnectedError, Mesh, MeshError, PermissionDeniedError, PolicyError
from nats_mesh.clock import SYSTEM_CLOCK
from nats_mesh.discovery.observer import Observer
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.discovery.witness import Witness
from nats_mesh.errors import CallError
from nats_mesh.policy.analysis import Finding as Analysed
from nats_mesh.policy.analysis import analyze
from nats_mesh.telemetry.watching import MeshView
from nats_mesh.wire.subjects import Subjects
from nats_mesh_cli import check_calls, checks
from nats_mesh_cli.bus import CALLER, connected
from nats_mesh_cli.catalog import announcement_of, visible
from nats_mesh_cli.checks import BAD, GOOD, SKIPPED, WARN, Finding
from nats_mesh_cli.errors import BUS, DENIED, FAILED, OK, exit_code_of, one_line
from nats_mesh_cli.get import fetch
from nats_mesh_cli.heard import KNOWN_S
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, Record, counted, dump, paint
from nats_mesh_cli.permissions import check_permissions
from nats_mesh_cli.policies import live_policies
from nats_mesh_cli.policy_analyze import world_of
from nats_mesh_cli.silence import called_by_clients, silence_of, unheard

__all__ = ["check", "render", "verdict"]

_MARKS = {GOOD: ("✓", "ok"), WARN: ("!", "warn"), BAD: ("✗", "bad"), SKIPPED: ("-", "dim")}
_NAME_WIDTH = 12
#: Beats may come this much later than their interval, as a factor, and a moment for the way (seconds).
_BEAT_FACTOR, _WAY_S = 1.2, 0.3
_LONGEST_LISTEN_S = 15.0
_USUAL_INTERVAL_S = 5.0
#: Of so many services without an answer it is asked what that means.
_MAX_ASKED = 50


async def check(options: Options, out: Out, *, name: str | None, quick: bool) -> int:
    """Look at everything and tell; 0 where nothing is wrong, 1 where something is, 3 without a bus, 4 refused."""
    options.settings()  # a setting that cannot work is a usage error, not a finding
    report = _Report(options, out)
    report.add(checks.check_client(), checks.check_loop())
    code = OK
    try:
        async with connected(options, name or CALLER) as mesh:
            await _look(mesh, options, out, report, quick=quick)
    except (CallError, ConfigError) as error:
        code = exit_code_of(error)
        report.add(_not_connected(error))
    report.end()
    if code in (BUS, DENIED):
        return code
    return FAILED if report.failed else OK


class _Report:
    """The findings so far: shown one by one to people, all at the end to programs."""

    def __init__(self, options: Options, out: Out) -> None:
        self._options = options
        self._out = out
        self._findings: list[Finding] = []

    @property
    def failed(self) -> bool:
        return any(finding.state == BAD for finding in self._findings)

    def add(self, *findings: Finding) -> None:
        self._findings += findings
        for finding in findings:
            if self._options.format is Format.JSONL:
                self._out.data(dump(finding.record(), Format.JSONL))
            elif self._options.format is Format.NAME:
                if finding.state in (WARN, BAD):
                    self._out.data(finding.check)
            elif not self._options.format.structured:
                self._out.text(render(finding.record(), color=self._out.color))

    def end(self) -> None:
        if self._options.format in (Format.JSON, Format.YAML):
            records = [finding.record() for finding in self._findings]
            self._out.data(dump(records, self._options.format, pretty=self._out.tty))
            return
        self._out.note(*verdict(self._findings))


def verdict(findings: Sequence[Finding]) -> tuple[str, str]:
    """What it comes to, and how that looks. What was not looked at may be wrong."""
    wrong = sum(finding.state == BAD for finding in findings)
    warned = sum(finding.state == WARN for finding in findings)
    skipped = [finding.check for finding in findings if finding.state == SKIPPED]
    left_out = ""
    if skipped:
        left_out = f"; {counted(len(skipped), 'check was', 'checks were')} skipped: {', '.join(skipped)}"
    if wrong or warned:
        return f"{wrong} wrong, {warned} to look at{left_out}", "bad" if wrong else "warn"
    return f"nothing wrong in what was looked at{left_out}" if left_out else "nothing wrong", "ok"


def render(record: Record, *, color: bool = False) -> str:
    """One finding on a line, and its remedy below it."""
    mark, style = _MARKS[record["state"]]
    word = f"{mark} {record['state']}".ljust(6)
    line = f"{paint(word, style, color)}  {record['check'].ljust(_NAME_WIDTH)}  {record['text']}"
    return f"{line}\n{' ' * (_NAME_WIDTH + 10)}→ {record['remedy']}" if record["remedy"] else line


def _not_connected(error: MeshError) -> Finding:
    message = error.message if isinstance(error, CallError) else str(error)
    if isinstance(error, DisconnectedError):
        remedy = "-s URL names another server; so do NATS_URL and --context NAME"
    else:
        remedy = (
            "--creds FILE or --context NAME give other credentials" if isinstance(error, CallError) else ""
        )
    return Finding("server", BAD, message, remedy)


async def _look(mesh: Mesh, options: Options, out: Out, report: _Report, *, quick: bool) -> None:
    client = mesh.client
    report.add(await checks.check_server(mesh), checks.check_payload(mesh))
    report.add(await checks.check_jetstream(mesh), await checks.check_clock(mesh))
    report.add(*await check_permissions(mesh))
    observer = Observer(
        subjects=Subjects(mesh.namespace), transport=client.transport, mux=client.mux, clock=SYSTEM_CLOCK
    )
    try:
        infos = await _ask(mesh, options, out, report)
        if infos is None:
            return
        report.add(checks.check_wire(infos), check_calls.check_faults(infos))
        if quick:
            skipped = ("instances", *check_calls.LISTENED)
            report.add(*[Finding(each, SKIPPED, "not listened for (--quick)") for each in skipped])
            return
        wait_s = _listening_s(infos)
        if out.stderr.isatty():
            out.note(f"listening {wait_s:.0f} s for instances and calls (--quick leaves it out) …", "dim")
        async with _listening(mesh, options) as heard:
            await heard.listen(wait_s)
            again = await _ask(mesh, options, out, report)
            if again is not None:
                known = observer.registry.instances()
                report.add(*checks.check_answers(known, again, observer.ignored))
                policies, analysed = await _policies(mesh, options, again)
                instances = [(each.service, each.id) for each in known]
                report.add(*await heard.findings(again, instances, analysed), policies)
    finally:
        observer.close()


class _Heard:
    """Who ought to be there, and what members tell; ``view`` is ``None`` where statistics may not be heard."""

    def __init__(self, mesh: Mesh, witness: Witness, view: MeshView | None, reason: str) -> None:
        self._mesh = mesh
        self._witness = witness
        self._view = view
        self._reason = reason

    async def listen(self, wait_s: float) -> None:
        """Returns after ``wait_s``, or once the audit was read."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._witness.recall)
            await anyio.sleep(wait_s)

    async def findings(
        self, infos: Sequence[InfoReply], heard: Sequence[tuple[str, str]], analysed: Sequence[Analysed]
    ) -> list[Finding]:
        """What was heard, beside ``infos`` of those who answer, the instances that were ``heard`` just now, and what
        was ``analysed`` of the policies."""
        absent = self._witness.absent({(info.name, info.id) for info in infos})
        known = await unheard(self._mesh, infos, await called_by_clients(self._mesh))
        found = [
            check_calls.check_silent(
                absent, known, heard, self._witness.problem, recalled=self._witness.recalled
            )
        ]
        if self._view is None:
            skipped = ("circuits", "unserved", "calls")
            return found + [Finding(each, SKIPPED, self._reason) for each in skipped]
        snapshot = self._view.snapshot()
        calls = check_calls.unserved(snapshot, infos)
        # Where some answer that they take no calls, the server's word tells nothing of others.
        unserved = [each for each in calls if each not in {info.name for info in infos}]
        means = await silence_of(self._mesh, unserved[:_MAX_ASKED])
        return [
            *found,
            check_calls.check_circuits(snapshot),
            check_calls.check_unserved(calls, means, analysed),
            check_calls.check_edges(snapshot),
        ]


@asynccontextmanager
async def _listening(mesh: Mesh, options: Options) -> AsyncIterator[_Heard]:
    client, enforced = mesh.client, options.settings().enforced
    witness = Witness(subjects=client.subjects, transport=client.transport, mux=client.mux, enforced=enforced)
    await witness.open()
    try:
        async with AsyncExitStack() as stack:
            view: MeshView | None = None
            reason = ""
            try:
                view = await stack.enter_async_context(MeshView(mesh))
            except PermissionDeniedError as error:
                reason = f"this credential may not listen to statistics: {error.message}"
            yield _Heard(mesh, witness, view, reason)
    finally:
        witness.close()


async def _policies(
    mesh: Mesh, options: Options, infos: Sequence[InfoReply]
) -> tuple[Finding, Sequence[Analysed]]:
    settings = options.settings()
    try:
        policies, source = await live_policies(options, mesh)
    except (CallError, PolicyError) as error:
        return Finding("policies", SKIPPED, f"cannot be read: {one_line(str(error))}"), ()
    found = analyze(policies.policies, world_of(infos), namespace=settings.namespace, mode=settings.mode)
    return check_calls.check_policies(found, source), found


async def _ask(mesh: Mesh, options: Options, out: Out, report: _Report) -> list[InfoReply] | None:
    try:
        return visible(await fetch(mesh, options, out), mesh.namespace)
    except CallError as error:
        report.add(Finding("instances", SKIPPED, f"cannot be asked: {error.message}"))
        return None


def _listening_s(infos: Sequence[InfoReply]) -> float:
    """Long enough to hear a beat of everybody who answered, and what members count."""
    announced = [announcement_of(info) for info in infos]
    longest = max((each.interval_s for each in announced if each is not None), default=_USUAL_INTERVAL_S)
    return max(KNOWN_S, min(_LONGEST_LISTEN_S, longest * _BEAT_FACTOR + _WAY_S))

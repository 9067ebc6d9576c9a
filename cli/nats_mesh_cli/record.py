"""``record``: calls as their instances saw them, a JSON object a line, for ``policy diff --replay``."""

from __future__ import annotations

import os
import signal
import time
from typing import IO

import anyio
import msgspec

from nats_mesh import Mesh
from nats_mesh.clock import rfc3339
from nats_mesh.core.envelope import check_header_names
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.model import check_name
from nats_mesh.policy.kinds import SHARE
from nats_mesh.policy.whatif.recording import (
    FORMAT,
    MAX_CALLS,
    MAX_LINE,
    MAX_TOTAL,
    End,
    Header,
    encode_line,
)
from nats_mesh.telemetry.leasing import hold_lease
from nats_mesh.telemetry.tap_messages import MAX_RATE, Wish, recorded_call
from nats_mesh.telemetry.tap_sink import TapCounts, TapSink
from nats_mesh.telemetry.taps import BATCH_S
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.subjects import ALL
from nats_mesh_cli.bus import CALLER, connected
from nats_mesh_cli.catalog import visible
from nats_mesh_cli.connection import Connection
from nats_mesh_cli.errors import FAILED, OK, CliError
from nats_mesh_cli.get import fetch
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, Record, counted, dump
from nats_mesh_cli.present import absent, nobody_answered, say_absent
from nats_mesh_cli.tap_text import crowded_text

__all__ = ["RATE_PER_S", "STDOUT", "Plan", "headers_of", "rate", "record"]

STDOUT = "-"
#: How many calls a second are recorded at most where nothing is said.
RATE_PER_S = 1000.0
#: How often what was recorded so far is said: on a terminal, and elsewhere (seconds).
_PROGRESS_S, _SELDOM_S = 1.0, 10.0
#: How long to listen once no more calls are asked for (seconds): what is under way was recorded, too.
_LAST_S = 2.0 * BATCH_S
_MAX_POLICIES = 20
#: How many calls wait to be written at most.
_MAX_WAITING = 50_000
#: Room that is left for the last line (bytes).
_END_ROOM = 1024


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to record: of which ``service`` (``None``: all), into which file, for how long, how much of it. ``headers``:
    ``None`` is all of them."""

    service: str | None = None
    path: str = STDOUT
    for_s: float | None = None
    sample: float = 1.0
    headers: tuple[str, ...] | None = None
    rate_per_s: float = RATE_PER_S


def rate(text: str) -> float:
    """``200/s`` as calls a second; for typer's ``parser=``."""
    from nats_mesh.policy.kinds import RATE

    try:
        per_s: float = RATE.parse(text.strip())
    except ValueError as error:
        raise CliError(f"{text!r} is no rate: {error}", hint="write 200/s, or 600/m") from None
    if per_s <= 0.0:
        raise CliError(f"{text!r} is no rate: nothing would be recorded", hint="write 200/s, or 600/m")
    return per_s


def headers_of(names: str | None, *, none: bool) -> tuple[str, ...] | None:
    """The headers of ``--headers a,b`` and ``--no-headers``; ``None`` for all of them."""
    if none and names is not None:
        raise CliError("--headers and --no-headers contradict each other", hint="give one of them")
    if none:
        return ()
    return None if names is None else check_header_names([each.strip() for each in names.split(",")])


async def record(options: Options, out: Out, plan: Plan, *, name: str | None) -> int:
    """Record until the time is over, or SIGINT or SIGTERM; says what was left out."""
    if plan.service is not None:
        check_name("service", plan.service)
    if options.format is Format.NAME:
        raise CliError("record: a recording has no names", hint="leave -o out")
    async with connected(options, name or CALLER) as mesh:
        everything = await fetch(mesh, options, out)
        nobody = None
        if plan.service is not None and (error := absent(everything, mesh.namespace, plan.service)):
            nobody = nobody_answered(plan.service, mesh.namespace, error)
            say_absent(out, error)  # it may still come
        with _File(plan.path, out) as file:
            recorder = _Recorder(mesh, plan, file, out)
            code = await recorder.run(options, _followed(visible(everything, mesh.namespace), plan.service))
    if nobody is not None and not recorder.heard:
        raise nobody
    return code


def _followed(infos: list[InfoReply], service: str | None) -> tuple[str, ...]:
    """Which policies the instances say that they follow: `bus 1.42`, or `files`."""
    found = set()
    for info in infos:
        source = info.metadata.get("mesh.policies", "")
        if service in (None, info.name) and source:
            revision = info.metadata.get("mesh.revision", "")
            found.add(f"{source} {revision}" if source == "bus" and revision else source)
    return tuple(sorted(found)[:_MAX_POLICIES])


class _File:
    """Where lines go: a new file, or stdout."""

    def __init__(self, path: str, out: Out) -> None:
        self.path = path
        self._out = out
        self._file: IO[bytes] | None = None

    def __enter__(self) -> _File:
        if self.path != STDOUT:
            try:
                self._file = open(self.path, "xb", opener=_for_oneself)
            except FileExistsError:
                raise CliError(
                    f"{self.path}: is there already", hint="name another file, or remove this one"
                ) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, data: bytes) -> None:
        """Write whole lines, so that a reader of a recording under way meets no half ones."""
        if self._file is None:
            self._out.raw(data)
            return
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            text = f"{self.path}: cannot be written any more: {error.strerror or error}"
            raise CliError(text, code=FAILED) from None


def _for_oneself(path: str, flags: int) -> int:
    """What calls said of themselves is not for everybody on this machine."""
    return os.open(path, flags, 0o600)


class _Recorder:
    def __init__(self, mesh: Mesh, plan: Plan, file: _File, out: Out) -> None:
        self._mesh = mesh
        self._plan = plan
        self._file = file
        self._out = out
        self._start = time.monotonic()
        self._shown = self._start
        self._wish = Wish(sample=plan.sample, headers=plan.headers, rate=min(MAX_RATE, plan.rate_per_s))
        self._taken = TapSink(
            recorded_call,
            namespace=mesh.namespace,
            enforced=mesh.settings.enforced,
            now=time.monotonic,
            wish=self._wish,
            rate_per_s=plan.rate_per_s,
            waiting=_MAX_WAITING,
        )
        self._over = anyio.Event()
        self._written = 0
        #: Calls of which no reader takes the line.
        self._too_long = 0
        #: Of the lines that calls are written in, as reading counts them.
        self._bytes = 0
        #: What the recording has come to; empty while there is room.
        self._full = ""

    @property
    def heard(self) -> bool:
        """Whether any instance has told of anything."""
        return self._taken.instances > 0

    async def run(self, options: Options, policies: tuple[str, ...]) -> int:
        """Record to the end; the exit code."""
        plan, client, taken = self._plan, self._mesh.client, self._taken
        header = Header(
            format=FORMAT,
            namespace=self._mesh.namespace,
            started=rfc3339(time.time()),
            service=plan.service or "",
            policies=policies,
            sample=plan.sample,
            headers=plan.headers,
            rate_per_s=plan.rate_per_s,
        )
        self._file.write(encode_line(header))
        subject = client.subjects.telemetry_of("tap", plan.service or "*")
        subscription = client.transport.subscribe(subject, taken.on_message)
        connection = Connection(self._out, "calls will be missing")
        client.transport.add_listener(connection)
        await client.transport.fence()
        self._say_start()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._until_signal)
                tasks.start_soon(self._lease)
                with anyio.move_on_after(plan.for_s):
                    await self._write()
                tasks.cancel_scope.cancel()
            await anyio.sleep(_LAST_S)
            self._flush()
        finally:
            client.transport.remove_listener(connection)
            client.transport.unsubscribe(subscription)
            end = _end(taken.counts)
            self._file.write(encode_line(end))
        self._say_end(options, header, end)
        return OK

    async def _until_signal(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                self._over.set()
                self._taken.rouse()

    async def _lease(self) -> None:
        """Hold the lease, which says what is wanted."""
        client, plan = self._mesh.client, self._plan
        want = client.subjects.want("tap", plan.service or ALL, self._mesh.name)
        body = JSON.encode(self._wish)
        await hold_lease(want, body, transport=client.transport, mux=client.mux)  # gaps are counted

    async def _write(self) -> None:
        while not self._over.is_set():
            self._flush()
            if self._full:
                self._out.note(f"a recording has at most {self._full}: it ends here", "warn")
                return
            self._progress()
            with anyio.move_on_after(_PROGRESS_S):
                await self._taken.news()

    def _flush(self) -> None:
        """Write what came, as far as a reader takes it; what is beyond that counts as dropped."""
        calls, counts = self._taken.taken(), self._taken.counts
        lines: list[bytes] = []
        for call in calls:
            if self._full:
                break
            line = encode_line(call)
            if len(line) > MAX_LINE:
                self._too_long += 1
                continue
            if self._bytes + len(line) > MAX_TOTAL - _END_ROOM:
                self._full = f"{MAX_TOTAL >> 20} MiB"
                break
            lines.append(line)
            self._bytes += len(line)
            self._written += 1
            if self._written >= MAX_CALLS:
                self._full = f"{MAX_CALLS:,} calls"
        counts.shown -= len(calls) - len(lines)
        counts.slow += len(calls) - len(lines)
        if lines:
            self._file.write(b"".join(lines))

    # -- telling ------------------------------------------------------------------------------------

    def _say_start(self) -> None:
        plan = self._plan
        what = plan.service or "every service"
        where = "stdout" if plan.path == STDOUT else plan.path
        until = "Ctrl-C" if plan.for_s is None else f"{plan.for_s:g} s are over"
        self._out.note(
            f"recording {SHARE.write(plan.sample)} of the calls of {what} to {where} until {until}", "dim"
        )

    def _progress(self) -> None:
        terminal, now = self._out.stderr.isatty(), time.monotonic()
        if now - self._shown >= (_PROGRESS_S if terminal else _SELDOM_S):
            self._shown = now
            counts = self._taken.counts
            self._out.note(
                f"{now - self._start:.0f} s: {counted(counts.shown, 'call')} of {counts.ended} recorded, "
                f"{counts.dropped} dropped",
                "dim",
            )

    def _say_end(self, options: Options, header: Header, end: End) -> None:
        instances = self._taken.instances
        if options.format.structured and self._plan.path != STDOUT:
            summary: Record = {"file": os.path.abspath(self._plan.path)}
            for part in (header, end):
                summary |= {k: v for k, v in msgspec.to_builtins(part).items() if k != "record"}
            summary["instances"] = instances
            self._out.data(dump(summary, options.format, pretty=self._out.tty))
        self._out.note(
            f"{counted(end.recorded, 'call')} recorded of {end.seen} seen, from {counted(instances, 'instance')}",
            "ok",
        )
        if self._taken.crowded is not None:
            self._out.note(f"note: {crowded_text(self._taken.crowded)}", "warn")
        few = "found no room, and are missing: record a smaller --sample, or at a higher --rate"
        for count, text in (
            (end.dropped - self._too_long, f"calls of the sample {few}"),
            (
                self._too_long,
                f"calls have lines of more than {MAX_LINE >> 10} KiB, which no reader takes, and are missing: keep "
                "fewer headers (--headers)",
            ),
            (end.lost, "messages of instances never came; their calls are missing"),
            (self._taken.counts.withheld, "calls are shown to nobody, as policies say"),
            (end.ignored, "messages were no calls, or not their publisher's, and are left out"),
        ):
            if count:
                self._out.note(f"note: {count} {text}", "warn")


def _end(counts: TapCounts) -> End:
    """The last line of a recording."""
    return End(
        ended=rfc3339(time.time()),
        seen=counts.ended,
        recorded=counts.shown,
        dropped=counts.dropped,
        lost=counts.lost,
        ignored=counts.ignored,
    )

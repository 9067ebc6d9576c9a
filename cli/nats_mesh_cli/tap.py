"""``tap``: calls as they end, a line each, while somebody looks."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

import anyio

from nats_mesh import Mesh
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.telemetry.tap_feed import MAX_TARGETS, SeenCall, TapFeed
from nats_mesh.telemetry.taps import BATCH_S
from nats_mesh_cli.bus import CALLER, connected
from nats_mesh_cli.catalog import announcement_of, visible
from nats_mesh_cli.connection import Connection
from nats_mesh_cli.errors import DENIED, FAILED, OK, CliError
from nats_mesh_cli.get import fetch
from nats_mesh_cli.hints import missing_service
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, Record, counted, dump
from nats_mesh_cli.present import absent, nobody_answered, say_absent
from nats_mesh_cli.printing import Printer
from nats_mesh_cli.rows import Growing
from nats_mesh_cli.silence import silent_or
from nats_mesh_cli.tap_given import Plan, check
from nats_mesh_cli.tap_order import ORDER_S, InOrder
from nats_mesh_cli.tap_text import (
    COLUMNS,
    WIDTHS,
    body_lines,
    crowded_text,
    left_out_text,
    record_of,
    unheard_text,
)

__all__ = ["BODY", "tap"]

#: How much of a body is asked for (characters).
BODY: Final = 4096
#: How often what was left out is said: on a terminal, and elsewhere (seconds).
_OFTEN_S, _SELDOM_S = 1.0, 10.0
#: What stands in the subject of a lease; servers tell of subjects in lower case.
_LEASE: Final = ".telemetry.want.tap."


async def tap(options: Options, out: Out, plan: Plan, *, name: str | None) -> int:
    """Show calls until there were enough, the time is over, or SIGINT or SIGTERM; says what was left out."""
    check(options, plan)
    async with connected(options, name or CALLER) as mesh:
        everything = await fetch(mesh, options, out)
        nobody, of_endpoint = await _nobody(plan, everything, mesh, out)
        # Where nobody is there who was named, the error at the end says it.
        unheard = _unheard(plan, everything, mesh.namespace) if nobody is None else ""
        tapper = _Tapper(mesh, plan, options.format, out, unheard)
        heard = await tapper.run(of_endpoint=of_endpoint)
    if nobody is not None and not heard:
        raise nobody
    return OK


async def _nobody(
    plan: Plan, everything: list[InfoReply], mesh: Mesh, out: Out
) -> tuple[CliError | None, bool]:
    """Say what is asked for and not there; what ends a tap that hears nothing of it, where nothing that was named is
    there, and whether it is an endpoint that is missing of a service that is."""
    gone: dict[tuple[str, str], CliError] = {}
    services: set[str] = set()
    named = sum([len(endpoints) or 1 for endpoints in plan.targets.values()])
    for service, endpoints in plan.targets.items():
        error = absent(everything, mesh.namespace, service)
        if error is not None:  # it may still come
            error = await silent_or(mesh, visible(everything, mesh.namespace), service, error)
            gone |= {
                (service, each): nobody_answered(service, mesh.namespace, error)
                for each in endpoints or ("",)
            }
            services.add(service)
            say_absent(out, error)
            continue
        for endpoint in endpoints:
            error = absent(everything, mesh.namespace, service, endpoint)
            if error is not None:
                text = f"{error.message}: no call of it was seen"
                gone[service, endpoint] = CliError(text, hint=error.hint, code=FAILED)
                say_absent(out, error)
    if not gone or len(gone) < named:
        return None, False
    (service, _), error = next(iter(gone.items()))
    return error, service not in services


def _unheard(plan: Plan, everything: Sequence[InfoReply], namespace: str) -> str:
    """What to say where no instance tells of a call: who could be asked, foreign services not among them."""
    asked = Counter(
        info.name
        for info in visible(everything, namespace)
        if announcement_of(info) is not None and (not plan.targets or info.name in plan.targets)
    )
    return unheard_text(
        asked, namespace, missing_service(next(iter(plan.targets), ""), everything, namespace)
    )


class _Tapper(Connection):
    def __init__(self, mesh: Mesh, plan: Plan, fmt: Format, out: Out, unheard: str) -> None:
        super().__init__(out, "calls will be missing")
        self._unheard = unheard
        self._mesh = mesh
        self._plan = plan
        self._printer = Printer(out)
        self._rows = _Rows(self._printer, fmt, out)
        self._told = 0
        self._silent: set[str] = set()
        self._said = time.monotonic()
        self._said_left = 0
        self._over = False
        self._denied = ""
        self._crowd_said = False
        self._order = InOrder(ORDER_S)
        everything = fmt.structured or fmt is Format.WIDE
        self._feed = TapFeed(
            mesh,
            targets=plan.targets,
            only=plan.only,
            headers=None if everything else (),
            rate_per_s=plan.rate_per_s,
            body=0 if plan.why is None else BODY,
            why=plan.why or "",
        )

    async def run(self, *, of_endpoint: bool = False) -> bool:
        """Show calls to the end; whether any instance was heard, or with ``of_endpoint`` a call of what was named."""
        transport = self._mesh.client.transport
        transport.add_listener(self)
        try:
            async with self._feed:
                self._say_start()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._until_signal)
                    with anyio.move_on_after(self._plan.for_s):
                        await self._show()
                    tasks.cancel_scope.cancel()
                if not self._done():
                    await anyio.sleep(BATCH_S)  # what ended within the time is on its way
                self._show_all(self._order.put(self._feed.taken(), time.monotonic()))
                self._show_all(self._order.rest())
        finally:
            transport.remove_listener(self)
            self._rows.close()
            self._printer.finish()
            self._say_end()
        if self._denied:
            raise CliError(
                f"the server's permissions do not let {self._mesh.name} ask for calls ({self._denied})",
                hint="operators may: use their credentials, --creds FILE",
                code=DENIED,
            )
        return self._feed.counts.ended > 0 if of_endpoint else self._feed.instances > 0

    async def _until_signal(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                self._over = True
                self._feed.rouse()

    def _done(self) -> bool:
        """Whether there were enough calls, or somebody ends it."""
        return self._over or (self._plan.most is not None and self._told >= self._plan.most)

    async def _show(self) -> None:
        while not self._done():
            now = time.monotonic()
            self._show_all(self._order.put(self._feed.taken(), now))
            self._say_crowd()
            self._say_left_out()
            if not self._done():
                with anyio.move_on_after(min(_OFTEN_S, self._order.due_s(now))):
                    await self._feed.news()

    def _show_all(self, calls: Sequence[SeenCall]) -> None:
        for call in calls:
            if self._done():
                return
            self._told += self._rows.show(call)
            if call.silent:
                self._say_silent(call)

    # -- telling ------------------------------------------------------------------------------------

    def _say_start(self) -> None:
        targets = [
            f"{service}.{endpoint}" if endpoint else service
            for service, endpoints in self._plan.targets.items()
            for endpoint in endpoints or ("",)
        ]
        what = " and ".join(targets) or "every service"
        until = "Ctrl-C"
        if self._plan.for_s is not None:
            until = f"{self._plan.for_s:g} s are over"
        if self._plan.most is not None:
            until = f"{self._plan.most} were shown, or {until}"
        self._out.note(f"calls of {what}, as they end, until {until}", "dim")

    def _say_silent(self, call: SeenCall) -> None:
        target = f"{call.service}.{call.endpoint}"
        if target not in self._silent and len(self._silent) < MAX_TARGETS:
            self._silent.add(target)
            self._out.note(
                f"note: no payloads of {target}: no Telemetry policy allows them (tap.payloads), or who sees them "
                "cannot be written down",
                "warn",
            )

    def _say_crowd(self) -> None:
        if self._feed.crowded is not None and not self._crowd_said:
            self._crowd_said = True
            self._out.note(f"note: {crowded_text(self._feed.crowded)}", "warn")

    def _say_left_out(self) -> None:
        left = self._feed.counts.left_out + self._printer.dropped
        now = time.monotonic()
        pause_s = _OFTEN_S if self._out.stderr.isatty() else _SELDOM_S
        if left > self._said_left and now - self._said >= pause_s:
            self._said, more = now, left - self._said_left
            self._said_left = left
            why = left_out_text(self._feed.counts, self._printer.dropped)
            self._out.note(
                f"{counted(more, 'more call is', 'more calls are')} not shown; so far {why}", "warn"
            )

    def _say_end(self) -> None:
        feed, counts, out = self._feed, self._feed.counts, self._out
        if feed.instances:
            told = (
                f"{counted(self._told, 'call')} shown of {counts.ended} that ended, "
                f"at {counted(feed.instances, 'instance')}"
            )
            out.note(told, "ok")
        elif self._unheard:
            out.note(self._unheard, "warn")
        self._say_crowd()
        left = left_out_text(counts, self._printer.dropped)
        if left:
            out.note(f"note: not shown, though asked for: {left}", "warn")
        for count, text in (
            (counts.lost, "of instances never came; what they told is missing"),
            (counts.ignored, "told of no calls, or came from nobody who may: left out"),
        ):
            if count:
                out.note(f"note: {counted(count, 'message')} {text}", "warn")
        if not self._told and self._plan.only.failed:
            out.note(
                "note: a tap shows what instances answered; what callers met (an open circuit, no answer in time, "
                "nobody there) is in 'nats-mesh trace --error' and 'nats-mesh edges'",
                "dim",
            )
        if feed.older and not self._plan.only.is_empty:
            out.note(
                f"note: {counted(len(feed.older), 'older instance sends', 'older instances send')} every call: they "
                "are filtered here, and the rate is theirs",
                "warn",
            )

    def on_denied(self, operation: str, subject: str) -> None:
        """Where it is the lease, nothing will come."""
        if operation == "publish" and _LEASE in subject.lower():
            self._denied, self._over = subject, True
            self._feed.rouse()
        else:
            super().on_denied(operation, subject)


class _Rows:
    """Calls one by one: lines of JSON, the items of one list, or a table that grows."""

    def __init__(self, printer: Printer, fmt: Format, out: Out) -> None:
        self._printer, self._format, self._out, self._color = printer, fmt, out, out.color
        self._growing = Growing(out, COLUMNS, WIDTHS, wide=fmt is Format.WIDE)
        self._begun = False

    def show(self, call: SeenCall) -> bool:
        """Show a call; false where there was no room for it."""
        record = record_of(call)
        if self._format is Format.JSONL:
            return self._printer.put(dump(record, Format.JSONL))
        if self._format is Format.YAML:
            shown = self._printer.put(dump([record], Format.YAML).rstrip("\n"))
        elif self._format is Format.JSON:
            shown = self._printer.put(f"{',' if self._begun else '['}{dump(record, Format.JSON)}")
        else:
            return self._row(record)
        self._begun = self._begun or shown
        return shown

    def _row(self, record: Record) -> bool:
        head, note = self._growing.take([record])
        if head:
            self._printer.put(head)
        if note:
            self._out.note(note, "dim")
        line = self._growing.row(record)
        return self._printer.put("\n".join([line, *body_lines(record, color=self._color)]))

    def close(self) -> None:
        """The end of a list."""
        if self._format is Format.JSON:
            self._printer.put("]" if self._begun else "[]")
        elif self._format is Format.YAML and not self._begun:
            self._printer.put("[]")

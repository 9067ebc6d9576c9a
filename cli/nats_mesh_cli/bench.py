"""``bench``: an endpoint under load, and the report."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Sequence
from typing import Any

import anyio
from anyio.abc import TaskStatus

from nats_mesh import CallError, DisconnectedError, Mesh, NoInstancesError, PermissionDeniedError, Status
from nats_mesh.core.shares import share_text
from nats_mesh_cli.bus import CALLER, connected, run_async
from nats_mesh_cli.call import Declared, declared_options, explain
from nats_mesh_cli.errors import FAILED, INTERRUPTED, OK, CliError, exit_code_of, one_line
from nats_mesh_cli.load import Plan, Tally, bars, run_load
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, counted, dump, millis, paint
from nats_mesh_cli.values import check_codec_name, parse_headers, parse_target, read_value

__all__ = ["bench", "document_of", "render"]

_USUAL_DURATION_S = 10.0
_BAR_WIDTH = 40
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999}
#: What more calls would not change.
_HOPELESS = (Status.UNIMPLEMENTED, Status.INVALID_ARGUMENT, Status.UNAUTHENTICATED, Status.PERMISSION_DENIED)


def bench(
    options: Options,
    out: Out,
    target: str,
    text: str | None,
    *,
    headers: Sequence[str],
    rate: float | None,
    concurrency: int,
    count: int | None,
    duration_s: float | None,
    codec: str,
    name: str | None,
) -> int:
    """Load and report; 0 where every call succeeded. Ctrl-C and SIGTERM report what there is by then."""
    parse_target(target)
    check_codec_name(codec)
    if options.format is Format.NAME:
        raise CliError("bench: a report has no name", hint="use -o json, yaml, or leave -o out")
    if count is None and duration_s is None:
        duration_s = _USUAL_DURATION_S
    plan = Plan(concurrency=concurrency, rate=rate, count=count, duration_s=duration_s)
    work = _Work(options, out, target, read_value(text, raw=False), parse_headers(headers), codec)
    tally = Tally()
    interrupted = False
    try:
        run_async(work.run(plan, tally, name or CALLER))
    except KeyboardInterrupt:
        interrupted = True
    if tally.calls:
        document = document_of(target, plan, tally)
        if options.format.structured:
            out.data(dump(document, options.format, pretty=out.tty))
        else:
            out.text(render(document, color=out.color))
    if interrupted or work.ended:
        return INTERRUPTED
    return _exit_code(tally, work.last_error)


def _exit_code(tally: Tally, last_error: CallError | None) -> int:
    if tally.by_status[str(Status.OK)] == tally.calls and tally.calls:
        return OK
    if last_error is not None and not tally.by_status[str(Status.OK)]:
        return exit_code_of(last_error)
    return FAILED


class _Work:
    def __init__(self, options: Options, out: Out, target: str, value: Any, headers: Any, codec: str) -> None:
        self.last_error: CallError | None = None
        self.ended = False  # by a signal
        self._options = options
        self._out = out
        self._target = target
        self._value = value
        self._headers = headers
        self._codec = codec
        self._declared = Declared()
        self._mesh: Mesh | None = None

    async def run(self, plan: Plan, tally: Tally, name: str) -> None:
        async with connected(self._options, name, calls=True) as mesh:
            self._mesh = mesh
            self._declared = await declared_options(mesh, self._target, self._options.timeout_s)
            await self._try_once(mesh)
            async with anyio.create_task_group() as beside:
                await beside.start(self._end_on_signal, beside.cancel_scope)
                if self._out.stderr.isatty():
                    beside.start_soon(self._progress, tally)
                await run_load(self._call, plan, tally, time.perf_counter)
                beside.cancel_scope.cancel()

    async def _end_on_signal(
        self, scope: anyio.CancelScope, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """SIGTERM ends the load as Ctrl-C does: what was measured by then is the report."""
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                self.ended = True
                scope.cancel()

    async def _try_once(self, mesh: Mesh) -> None:
        """One call ahead, not counted: what cannot work is said once and with its remedy."""
        try:
            await self._request(mesh)
        except CallError as error:
            away = isinstance(error, NoInstancesError | DisconnectedError | PermissionDeniedError)
            if away or error.status in _HOPELESS:
                raise await explain(mesh, self._target, error) from error

    async def _request(self, mesh: Mesh) -> str:
        reply = await mesh.request(
            self._target, self._value, headers=self._headers, codec=self._codec, **self._declared
        )
        return reply.instance

    async def _call(self) -> tuple[str, str, str]:
        assert self._mesh is not None, "the load runs inside the connection"
        try:
            return str(Status.OK), "", await self._request(self._mesh)
        except CallError as error:
            self.last_error = error
            return str(error.status), one_line(error.message), ""

    async def _progress(self, tally: Tally) -> None:
        """One line on the terminal, written anew each second and gone at the end."""
        before, stderr, size = 0, self._out.stderr, 0
        try:
            while True:
                await anyio.sleep(1.0)
                errors = tally.calls - tally.by_status[str(Status.OK)]
                line = (
                    f"{tally.elapsed_s:.0f} s  {counted(tally.calls, 'call')}  {tally.calls - before}/s  "
                    f"{counted(errors, 'error')}"
                )
                stderr.write(f"\r{line.ljust(size)}")
                stderr.flush()
                before, size = tally.calls, len(line)
        finally:
            stderr.write(f"\r{' ' * size}\r")
            stderr.flush()


def document_of(target: str, plan: Plan, tally: Tally) -> dict[str, Any]:
    """The report as ``-o json`` shows it."""
    ok = tally.by_status[str(Status.OK)]
    elapsed_s = max(tally.elapsed_s, 1e-9)
    return {
        "target": target,
        "loop": "closed" if plan.rate is None else "open",
        "concurrency": plan.concurrency,
        "wanted_rate_per_s": plan.rate,
        "elapsed_s": round(tally.elapsed_s, 6),
        "calls": tally.calls,
        "ok": ok,
        "errors": tally.calls - ok,
        "missed": tally.missed,
        "rate_per_s": round(tally.calls / elapsed_s, 3),
        "success": ok / tally.calls if tally.calls else None,
        "by_status": dict(tally.by_status.most_common()),
        "messages": dict(tally.messages),
        "latency_ms": {
            **{name: _ms(tally.quantile_s(share)) for name, share in _QUANTILES.items()},
            "mean": _ms(tally.latency.sum_s / ok if ok else None),
            "min": _ms(tally.shortest_s if ok else None),
            "max": _ms(tally.longest_s if ok else None),
        },
        "histogram": [
            {"le_ms": None if math.isinf(bound) else bound * 1000.0, "count": count}
            for bound, count in bars(tally.latency)
        ],
        "instances": dict(tally.instances.most_common()),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000.0, 4)


def render(document: dict[str, Any], *, color: bool = False) -> str:
    """The report for people."""
    open_loop = document["loop"] == "open"
    how = f"open loop at {document['wanted_rate_per_s']:g} calls/s" if open_loop else "closed loop"
    lines = [
        f"{paint(document['target'], 'name', color)}  {how}, at most {document['concurrency']} at a time, "
        f"{document['elapsed_s']:.2f} s",
        "",
        f"  calls    {document['calls']}  ({document['rate_per_s']:.1f}/s)",
        f"  errors   {document['errors']}  ({_percent(document['errors'], document['calls'])})",
    ]
    for status, count in document["by_status"].items():
        if status != "OK":
            message = one_line(document["messages"].get(status, ""))
            lines.append(f"    {paint(status, 'bad', color)} {count}  {message}")
    if open_loop and document["missed"]:
        lines.append(
            f"  missed   {document['missed']}  (due, but every one of the {document['concurrency']} was busy)"
        )
    if document["ok"]:
        lines += ["", *_latency(document, open_loop)]
    return "\n".join(lines)


def _latency(document: dict[str, Any], open_loop: bool) -> list[str]:
    latency = document["latency_ms"]
    source = (
        "from the instant each call should have started: no coordinated omission"
        if open_loop
        else "from each call's own start; --rate shows what callers see who do not wait for each other"
    )
    names = {"p50": "p50", "p90": "p90", "p99": "p99", "p99_9": "p99.9", "max": "max", "mean": "mean"}
    lines = [
        f"  latency  {source}",
        *(f"    {shown.ljust(6)} {_shown(latency[key]):>10}" for key, shown in names.items()),
    ]
    rows = document["histogram"]
    most = max(row["count"] for row in rows)
    lines.append("")
    for row in rows:
        label = "longer" if row["le_ms"] is None else f"≤ {_shown(row['le_ms'])}"
        bar = "▇" * math.ceil(row["count"] / most * _BAR_WIDTH)
        lines.append(
            f"    {label:>11}  {bar.ljust(_BAR_WIDTH)}  {row['count']} ({_percent(row['count'], document['ok'])})"
        )
    lines += ["", "  percentiles are within 9 %, min and max exact"]
    if len(document["instances"]) > 1:
        shares = ", ".join(
            f"{name[:8] or '?'} {count}" for name, count in list(document["instances"].items())[:8]
        )
        lines.append(f"  answered by {counted(len(document['instances']), 'instance')}: {shares}")
    return lines


def _shown(ms: float) -> str:
    return millis(ms / 1000.0)


def _percent(part: int, whole: int) -> str:
    return share_text(part / whole) if whole else "-"

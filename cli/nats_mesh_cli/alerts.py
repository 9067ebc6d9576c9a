"""``alerts``: how what is promised stands, as those who watch know it; and watching it."""

from __future__ import annotations

import signal
from typing import Any, Final

import anyio
import msgspec

from nats_mesh import CodecError
from nats_mesh.telemetry.alert_messages import (
    Alert,
    Burn,
    Standing,
    brief,
    coming_of,
    decode_standing,
    limit_of,
    limit_text,
    promise_text,
    seen_text,
    span_text,
)
from nats_mesh.telemetry.alerts import Turn
from nats_mesh.telemetry.duty import Duty
from nats_mesh.telemetry.slo import promises
from nats_mesh.wire.kv import KvAbsentError
from nats_mesh_cli.alert_watch import Watcher, watches
from nats_mesh_cli.bus import CALLER, connected
from nats_mesh_cli.errors import FAILED, OK, CliError
from nats_mesh_cli.hints import service_given
from nats_mesh_cli.instants import shown_time
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out, Record, age, dump, paint
from nats_mesh_cli.present import must_be_there
from nats_mesh_cli.promised import DUTY, LEVEL_STYLES, is_old
from nats_mesh_cli.store_errors import store_errors

__all__ = ["alerts", "record_of", "watch"]

_NOBODY: Final = "'nats-mesh alerts --watch' watches, here or on any machine, and as many of them as you like"


def record_of(alert: Alert) -> Record:
    """An alert as ``-o json`` shows it."""
    found: Record = msgspec.to_builtins(alert)
    pair = limit_of(alert)
    limit = None if pair is None else {"burn": pair.factor, "windows_s": [pair.long_s, pair.short_s]}
    coming = coming_of(alert)
    return {**found, "limit": limit, "coming": None if coming is None else coming._asdict()}


def _burn(record: Record, window_s: float) -> str:
    """How fast one window burns."""
    for each in record["burns"]:
        burn = msgspec.convert(each, Burn)
        if burn.window_s == window_s:
            return seen_text(burn)
    return "-"


def _window(window_s: float, *, wide: bool = False) -> Column:
    return Column(f"BURN {span_text(window_s).upper()}", lambda r: _burn(r, window_s), wide=wide)


def _promised(record: Record) -> str:
    return f"{promise_text(msgspec.convert(record, Alert))} over {span_text(record['window_s'])}"


def _level(record: Record) -> str:
    """``ok → page``: it is well, and will not be for long."""
    return str(record["level"]) + (f" → {record['coming']['level']}" if record["coming"] else "")


def _level_style(record: Record) -> str:
    soon = record["coming"] and record["level"] == "ok"
    return "warn" if soon else LEVEL_STYLES[str(record["level"])]


_COLUMNS: Final = (
    Column("LEVEL", lambda r: _level(r), style=lambda r: _level_style(r), drop=2),
    Column("SERVICE", lambda r: str(r["service"]), style=lambda r: "name", drop=0),
    Column("OBJECTIVE", lambda r: str(r["objective"]), drop=0),
    Column("PROMISED", _promised),
    Column("FOR", lambda r: age(r["for_s"])),
    Column("LIMIT", lambda r: limit_text(msgspec.convert(r, Alert)), drop=5),
    _window(300.0),
    _window(1800.0, wide=True),
    _window(3600.0),
    _window(7200.0, wide=True),
    _window(21_600.0),
    _window(86_400.0, wide=True),
    _window(259_200.0),
    Column("ENDPOINTS", lambda r: ",".join(r["endpoints"]) or "all", wide=True, drop=40, short=8),
    Column("POLICY", lambda r: str(r["policy"]), wide=True),
)


async def alerts(options: Options, out: Out, *, service: str | None, name: str | None) -> int:
    """Show what whoever watches knows; exit code 1 where something fires, and where nobody knows."""
    if service is not None:
        service_given(service, "alerts {}")
    async with connected(options, name or CALLER, calls=True) as mesh:
        client = mesh.client
        duty = Duty(DUTY, mesh.namespace, transport=client.transport, mux=client.mux)
        with store_errors(
            mesh.namespace, "store in which watchers agree", "nats-mesh alerts --watch", make=False
        ):
            try:
                found = await duty.read()
            except KvAbsentError:
                found = None
        promised = promises(client.outbound.policies)
        standing = None if found is None else _read(found.value)
        known = {each.service for each in promised}
        known |= set() if standing is None else {each.service for each in standing.alerts}
        if service is not None and service not in known:
            await must_be_there(mesh, options, out, service)
            out.note(f"nothing is promised of {service!r}", "dim")
            return OK
    if standing is None:
        records: list[Record] = []
    else:
        mine = [each for each in standing.alerts if service in (None, each.service)]
        records = [record_of(each) for each in mine]
    nothing = "" if promised else "nothing is promised: a Telemetry policy with objectives does that"
    out.rows(
        records, _COLUMNS, options.format, name=lambda r: f"{r['service']}/{r['objective']}", nothing=nothing
    )
    if not promised and not records:
        return OK
    if standing is None:
        out.note(f"nobody watches what is promised: {_NOBODY}", "warn")
        return FAILED
    if standing.left_out:
        out.note(f"note: {standing.left_out} more found no room; none of them is more urgent", "warn")
    if service is not None and not records:
        out.note(f"nothing is known of {service!r} yet", "warn")
    if is_old(standing.at):
        out.note(f"nobody has watched since {shown_time(standing.at)}: {_NOBODY}", "warn")
        return FAILED
    out.note(f"as {standing.holder} knew it at {shown_time(standing.at)}", "dim")
    return FAILED if any(record["level"] != "ok" for record in records) else OK


def _read(value: bytes) -> Standing:
    try:
        return decode_standing(value)
    except CodecError as error:
        raise CliError(f"what is known of alerts cannot be read: {error}", code=FAILED) from None


async def watch(options: Options, out: Out, *, name: str | None) -> int:
    """Watch until Ctrl-C or SIGTERM, and show every change."""
    if options.format not in (Format.TABLE, Format.WIDE, Format.JSONL):
        raise CliError(f"--watch goes on for ever, which -o {options.format} cannot", hint="use -o jsonl")

    def show(turn: Turn, at: str) -> None:
        if options.format is Format.JSONL:
            out.data(dump(_turn_record(turn, at), Format.JSONL))
            return
        level = paint(f"{turn.alert.level.upper():6}", LEVEL_STYLES[turn.alert.level], out.color)
        out.text(f"{shown_time(at)}  {level}  {turn.detail}")

    async with connected(options, name or CALLER, calls=True) as mesh:
        watcher = Watcher(mesh, show, lambda text: out.note(text, "warn"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watcher.run)
            count = len(promises(mesh.client.outbound.policies))
            out.note(watches(count, mesh.namespace), "ok" if count else "warn")
            with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                async for _ in signals:
                    tasks.cancel_scope.cancel()
    return OK


def _turn_record(turn: Turn, at: str) -> dict[str, Any]:
    return {
        "at": at,
        "kind": turn.kind.value,
        "before": turn.before,
        "detail": turn.detail,
        "promise": brief(turn.alert),
        **record_of(turn.alert),
    }

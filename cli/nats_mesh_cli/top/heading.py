"""The two lines above the views: where one is, and how everything together does; or that the bus is away. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.cells import cell_len

from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.output import age, counted
from nats_mesh_cli.promised import LEVELS, Promised
from nats_mesh_cli.silent import Silent
from nats_mesh_cli.top import words
from nats_mesh_cli.top.following import Facts
from nats_mesh_cli.top.frame import Line, joined, width_of
from nats_mesh_cli.top.grid import clip
from nats_mesh_cli.top.state import State
from nats_mesh_cli.trouble import SOME_GAVE_UP

__all__ = ["banner", "numbers", "title"]

#: How wide the small curves are, and from which width on there are any (cells).
_TREND = 8
_TREND_FROM = 70
#: How many lines the reason may take where it does not stand beside the banner.
_WHY_LINES = 2
_DENIALS = ("PERMISSION_DENIED", "UNAUTHENTICATED")


def title(state: State, facts: Facts, width: int) -> Line:
    """``mesh ▸ default  nats://… ● 0.8ms  policies rev 42  SYNCED 31/31``."""
    mesh = state.data.mesh
    name = Cell(clip(f"mesh ▸ {words.clean(mesh.namespace)}", width), words.NAME)
    if mesh.connected:
        bus = Cell(
            f"● {words.duration_text(mesh.rtt_s)}" if mesh.rtt_s is not None else "● connected", words.GOOD
        )
    else:
        bus = Cell("✗ away", words.BAD)
    sync = facts.counts
    following = sync["SYNCED"] + sync["STALE"] + sync["REJECTED"] if facts.policed else 0
    synced = f"SYNCED {sync['SYNCED']}/{following}"
    if sync["REJECTED"]:
        synced_cell = Cell(f"✗ {sync['REJECTED']} REJECTED {synced}", words.BAD)
    elif sync["STALE"]:
        synced_cell = Cell(f"▲ {synced}", words.WARN)
    else:
        synced_cell = Cell(f"✓ {synced}", words.GOOD)
    policies = (
        [Cell(f"policies rev {state.data.head[1]}"), synced_cell]
        if following
        else [Cell("no policies", words.DIM)]
    )
    right = [Cell("▮▮ PAUSED", "bold yellow")] if state.paused else [Cell("⟳1s", words.DIM)]
    server = Cell(clip(words.clean(mesh.server), max(8, width // 3)))
    left = joined([name, bus, *policies], width - width_of(right) - 2)
    if width_of(left) + width_of([server]) + width_of(right) + 4 <= width:
        left = joined([name, server, bus, *policies], width - width_of(right) - 2)
    blank = max(0, width - width_of(left) - width_of(right))
    return [*left, Cell(" " * blank), *right]


def banner(state: State, width: int) -> list[Line]:
    """What is wrong with the view itself, where something is: a line, and more where a reason needs them."""
    mesh = state.data.mesh
    if not mesh.connected:
        return [[Cell(clip(text, width), "bold red")] for text in _away(state, width)]
    if mesh.overflowed:
        left = counted(mesh.overflowed, "word was", "words were")
        text = f"▲ more instances or series than can be kept: {left} left out"
        return [[Cell(clip(text, width), words.WARN)]]
    return []


def _away(state: State, width: int) -> list[str]:
    """Why the bus is away matters more than what follows of it, and is cut last."""
    told = f"✗ THE BUS IS AWAY since {age(state.data.mesh.away_s)}"
    more = (": figures are old, trying again", ": figures are old", "")
    why = words.clean(state.data.away)
    if why:
        lines = [f"{told}{each} ({why})" for each in more]
        fits = next((each for each in lines if cell_len(each) <= width), None)
        if fits is not None:
            return [fits]
    first = next((f"{told}{each}" for each in more if cell_len(told + each) <= width), told)
    return [
        first,
        *textwrap.wrap(
            why, width - 2, max_lines=_WHY_LINES, placeholder="…", initial_indent="  ", subsequent_indent="  "
        ),
    ]


def _gave_up(share: float) -> list[Cell]:
    if share < SOME_GAVE_UP:
        return []
    cell = words.gave_up_cell(share)
    return [Cell(f"GAVE UP {cell.text}", cell.style)]


def numbers(state: State, width: int) -> Line:
    """``RPS 1.2k ▂▃▅▇▆  OK 99.82%  p99 41ms  OPEN 1  DENIED 3/s``."""
    mesh = state.data.mesh
    red, trend = mesh.red, mesh.trend
    denied = sum(red.recent.statuses.get(status, 0) for status in _DENIALS)
    open_circuits = sum(1 for each in mesh.breakers if str(each.state) == "OPEN")
    drawn = _TREND if width >= _TREND_FROM and red.recent.requests else 0
    bars = words.trend_text(trend.rates, drawn)
    late = words.trend_text(tuple([each or 0.0 for each in trend.p99_s]), drawn)
    success = words.success_cell(red.success, red.gave_up)
    bad = [each for each in mesh.services if not each.ready]
    cells = [
        *_alerts(state.data.promised),
        *_silent(state.data.silent),
        Cell(f"RPS {words.rate_text(red.rate_per_s)} {bars}".rstrip(), words.HEAD),
        Cell(f"OK {success.text}", success.style),
        *_gave_up(red.gave_up),
        Cell(f"p99 {words.duration_text(red.p99_s)} {late}".rstrip()),
        Cell(f"✗ OPEN {open_circuits}", words.BAD) if open_circuits else Cell("OPEN 0", words.DIM),
        *(
            [Cell(f"▲ EJECTED {len({each.ejected for each in mesh.ejections})}", words.WARN)]
            if mesh.ejections
            else []
        ),
        Cell(f"▲ DENIED {words.rate_text(denied / mesh.window_s)}/s", words.WARN)
        if denied
        else Cell("DENIED 0", words.DIM),
        *([Cell(f"✗ {len(bad)} NOT READY", words.BAD)] if bad else []),
        *([Cell("ALERTS 0", words.DIM)] if _kept(state.data.promised) else []),
        Cell(counted(len(mesh.services), "service")),
        Cell(f"{red.in_flight} in flight"),
        Cell(f"tries {words.rate_text(red.attempts_per_s)}/s"),
    ]
    return joined(cells, width)


def _alerts(promised: Promised) -> list[Cell]:
    """What fires, the worst first; nothing where nothing does, or nobody watches."""
    counts = [(level, promised.count(level)) for level in LEVELS if level != "ok"]
    styles = {"page": ("✗", words.BAD), "ticket": ("▲", words.WARN)}
    return [
        Cell(f"{styles[level][0]} {count} {level.upper()}", styles[level][1])
        for level, count in counts
        if count
    ]


def _silent(found: Sequence[Silent]) -> list[Cell]:
    """Who is connected and answers nothing."""
    if not found:
        return []
    first = found[0]
    name = f"{first.service} ({first.name or first.instance[:8]})" if first.instance else first.service
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return [Cell(f"✗ SILENT {words.clean(name)}{more}", words.BAD)]


def _kept(promised: Promised) -> bool:
    """Whether somebody watches, something is promised, and no alert fires."""
    return promised.live and bool(promised.alerts) and all(each.level == "ok" for each in promised.alerts)

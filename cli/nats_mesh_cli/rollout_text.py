"""Rollouts as records, and in words for people."""

from __future__ import annotations

import datetime
import time

from nats_mesh.core.rollout import Hold, Phase
from nats_mesh.core.sync_state import policy_label
from nats_mesh.rollout.book import LEASE_S, Entry
from nats_mesh.rollout.telling import Told
from nats_mesh_cli.errors import one_line
from nats_mesh_cli.output import Column, Record, age

__all__ = ["COLUMNS", "line_of", "record_of", "told_line", "told_record"]

_STYLES = {
    Phase.PROMOTED: "ok",
    Phase.ROLLED_BACK: "bad",
    Phase.ABORTED: "bad",
    Phase.RETURNING: "bad",
    Phase.PAUSED: "warn",
}
_HOLDS = {
    Hold.STEP: "the step says so",
    Hold.OPERATOR: "by an operator",
    Hold.FAILURE: "a gate does not hold",
    Hold.CALLS: "too few calls",
    Hold.ROUTE: "the route was changed",
}


def record_of(entry: Entry, now_s: float | None = None) -> Record:
    """A rollout as ``-o json`` shows it. ``age_s`` is how long ago its record was written, by this machine's clock."""
    record = entry.record
    rules, at = record.rules, record.progress
    step = rules.steps[at.step] if at.step >= 0 else None
    return {
        "service": record.service,
        "rollout": record.rollout,
        "from": rules.old,
        "to": rules.new,
        "phase": str(at.phase),
        "hold": str(at.hold) or None,
        "ended": at.phase.ended,
        "step": at.step + 1,
        "steps": len(rules.steps),
        "weight_percent": at.weight,
        "routed_percent": None if record.routed < 0 else record.routed,
        "reason": at.reason,
        "step_elapsed_s": round(at.spent_s, 3),
        "step_lasts_s": None if step is None else step.for_s,
        "elapsed_s": round(at.ran_s, 3),
        "calls_in_step": record.calls,
        "route": policy_label(record.route),
        "route_revision": record.revision,
        "runner": record.holder or None,
        "wish": record.wish if record.asked else None,
        "started": record.started,
        "started_by": record.started_by,
        "changed": record.changed,
        "age_s": _age(record.changed, time.time() if now_s is None else now_s),
        "run": record.run,
    }


def _age(changed: str, now_s: float) -> float | None:
    try:
        written = datetime.datetime.fromisoformat(changed.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return None
    return round(max(0.0, now_s - written), 3)


def _runner(record: Record) -> str:
    if record["ended"]:
        return "-"
    if record["runner"] is None:
        return "nobody"
    name = str(record["runner"]).partition("/")[0]
    silent_s = record["age_s"]
    return f"{name}, silent {age(silent_s)}" if silent_s is not None and silent_s > LEASE_S else name


def _phase(record: Record) -> str:
    hold = record["hold"]
    return str(record["phase"]) if hold is None else f"{record['phase']}: {_HOLDS[Hold(hold)]}"


COLUMNS = (
    Column("SERVICE", lambda r: str(r["service"]), style=lambda _: "name", drop=0),
    Column("ROLLOUT", lambda r: str(r["rollout"]), wide=True),
    Column("FROM", lambda r: str(r["from"]), drop=20),
    Column("TO", lambda r: str(r["to"]), drop=5),
    Column("PHASE", _phase, style=lambda r: _STYLES.get(Phase(r["phase"]), ""), drop=2),
    Column("STEP", lambda r: f"{r['step']}/{r['steps']}", right=True),
    Column("WEIGHT", lambda r: f"{r['weight_percent']}%", right=True, drop=6),
    Column("IN STEP", lambda r: age(r["step_elapsed_s"]), right=True),
    Column("CALLS", lambda r: str(r["calls_in_step"]), right=True),
    Column("RUNNER", _runner),
    Column("ROUTE", lambda r: f"{r['route']} rev {r['route_revision']}", wide=True),
    Column("STARTED", lambda r: str(r["started"]), wide=True),
    Column("BY", lambda r: str(r["started_by"]), wide=True),
    Column("REASON", lambda r: str(r["reason"]), drop=3, short=16),
)


def line_of(record: Record) -> str:
    """How far it is, on one line."""
    step = f"step {record['step']}/{record['steps']}, " if record["step"] else ""
    reason = f": {record['reason']}" if record["reason"] else ""
    where = f"{step}{record['weight_percent']}% to {record['to']}"
    return one_line(f"{record['service']} {_phase(record)}, {where}{reason}")


def told_record(told: Told) -> Record:
    """Something that a runner did, as data."""
    return {name: getattr(told, name) for name in told.__struct_fields__ if name != "wire"}


def told_line(told: Told) -> str:
    """The same in words."""
    kind = told.kind.removeprefix("rollout.")
    return f"{told.at[11:19]}  {told.service}  {kind:<9}  {one_line(told.detail)}"

"""Circuits that are not closed, and instances that were ejected, as records and as a table. Pure."""

from __future__ import annotations

from nats_mesh.telemetry.snapshots import Snapshot
from nats_mesh_cli.output import Column, Record, millis
from nats_mesh_cli.stat_table import Shown

__all__ = ["breaker_records", "breakers_table"]

_SHORT = 8
_LEVELS = {"OPEN": "bad", "HALF_OPEN": "warn", "EJECTED": "warn"}


def breaker_records(snapshot: Snapshot, name: str | None = None) -> list[Record]:
    """A record for each: at which caller's instance, of what, in which state. ``state`` is ``EJECTED`` where one
    ``target`` instance of the service gets no calls, and ``endpoint`` is ``None`` then. ``retry_after_s``: in how many
    seconds an OPEN circuit lets a probe pass, where its caller says so."""
    circuits: list[Record] = [
        {
            "caller": each.caller,
            "instance": each.instance,
            "service": each.service,
            "endpoint": each.endpoint,
            "subset": each.subset or None,
            "target": None,
            "state": each.state.value,
            "retry_after_s": each.retry_after_s,
        }
        for each in snapshot.breakers
    ]
    ejected: list[Record] = [
        {
            "caller": each.caller,
            "instance": each.instance,
            "service": each.service,
            "endpoint": None,
            "subset": None,
            "target": each.ejected,
            "state": "EJECTED",
            "retry_after_s": None,
        }
        for each in snapshot.ejections
    ]
    return [
        each for each in (*circuits, *ejected) if name is None or name in (each["caller"], each["service"])
    ]


def breakers_table(name: str | None) -> Shown:
    """What ``get breakers`` shows."""
    return Shown(
        lambda snapshot, _: breaker_records(snapshot, name),
        (
            Column("CALLER", lambda r: str(r["caller"]), style=lambda _: "name", drop=0),
            Column("INSTANCE", lambda r: str(r["instance"])[:_SHORT], drop=10),
            Column("TO", _to, style=lambda _: "name", drop=0),
            Column("STATE", lambda r: str(r["state"]), style=lambda r: _LEVELS[r["state"]], drop=2),
            Column("NEXT TRY", _next, right=True, drop=5),
            Column("CALLER ID", lambda r: str(r["instance"]), wide=True, drop=50),
            Column("TARGET ID", lambda r: str(r["target"] or "-"), wide=True, drop=51),
        ),
        lambda r: f"{r['caller']}/{r['instance']}→{_to(r)}",
        "every circuit is closed, and nobody is ejected, as far as members tell",
        key=_key,
    )


def _key(record: Record) -> tuple[str, str, str]:
    """Whose circuit, or whose judgement, it is, and of what."""
    of = f"{record['service']}.{record['endpoint'] or ''}"
    return f"{record['caller']}/{record['instance']}", of, str(record["subset"] or record["target"] or "")


def _next(record: Record) -> str:
    """When a call may pass for a trial; an ejected instance is back when its caller says so."""
    if record["retry_after_s"] is None:
        return "-"
    return f"in {millis(record['retry_after_s'])}" if record["retry_after_s"] > 0.0 else "next call"


def _to(record: Record) -> str:
    if record["target"] is not None:
        return f"{record['service']} instance {record['target'][:_SHORT]}"
    subset = f" ({record['subset']})" if record["subset"] else ""
    return f"{record['service']}.{record['endpoint']}{subset}"

"""Records of the audit as ``-o json`` shows them. Pure."""

from __future__ import annotations

from typing import Any, Final

from nats_mesh.audit.reading import Entry
from nats_mesh.audit.records import (
    ChangeRecord,
    DocumentChange,
    PresenceRecord,
    RolloutRecord,
    Stood,
    TapRecord,
)
from nats_mesh.core.sync_state import policy_label
from nats_mesh_cli.output import Record

__all__ = ["is_about", "records_of"]

_SHORT: Final = 8
#: How much of an id must be given at least.
_LEAST_ID: Final = 4


def records_of(entry: Entry) -> list[Record]:
    """A message of the stream as ``-o json`` shows it; a change of several documents is one for each."""
    record = entry.record
    if isinstance(record, ChangeRecord):
        return [_change(entry, record, each) for each in record.documents]
    head = _head(entry)
    if isinstance(record, PresenceRecord):
        what = f"{record.service} {record.instance[:_SHORT]}"
        return [
            head
            | {
                "action": record.event,
                "what": what,
                "who": record.name,
                "why": f"version {record.version}, {record.state}",
                "version": record.version,
                "state": record.state.value,
                "labels": dict(record.labels),
                "started": record.started,
                "endpoints": None if record.endpoints is None else list(record.endpoints),
                "endpoints_hash": record.endpoints_hash,
                "revision": record.revision[1],
            }
        ]
    if isinstance(record, RolloutRecord):
        return [
            head
            | {
                "action": record.kind.removeprefix("rollout."),
                "what": record.service,
                "who": record.runner,
                "why": " ".join(record.detail.split()),
                "rollout": record.rollout,
                "weight": record.weight,
                "revision": record.revision,
            }
        ]
    if isinstance(record, TapRecord):
        return [
            head
            | {
                "action": "payloads",
                "what": f"{record.service} {record.instance[:_SHORT]}",
                "who": record.who,
                "why": record.why,
                "calls": record.calls,
                "characters": record.characters,
            }
        ]
    return [head]


def is_about(record: Record, word: str) -> bool:
    """Whether a record is about what ``word`` names: a policy, a service, a rollout, an instance (its id or the
    begin of it, its host-pid), a change (its id or the begin of it), or the record's own number."""
    if word == str(record["sequence"]) or word in (record["what"], record.get("rollout")):
        return True
    if record["kind"] in ("presence", "tap") and word in (
        str(record["what"]).partition(" ")[0],
        record["who"],
    ):
        return True
    change = str(record.get("change", ""))
    return len(word) >= _LEAST_ID and (record["instance"].startswith(word) or change.startswith(word))


def _head(entry: Entry) -> Record:
    record = entry.record
    return {
        "sequence": entry.sequence,
        "time": entry.time,
        "kind": entry.kind,
        "action": "",
        "what": "",
        "who": entry.writer,
        "why": "",
        "writer": entry.writer,
        "instance": entry.instance,
        "said_time": "" if record is None else record.at,
        "believed": record is not None,
        "problem": entry.problem,
        "missing": entry.missing,
    }


def _change(entry: Entry, record: ChangeRecord, change: DocumentChange) -> Record:
    before, after = change.before, change.after
    action = "deleted" if after.deleted else "created" if before is None or before.deleted else "configured"
    return _head(entry) | {
        "action": action,
        "what": policy_label(change.key) if entry.kind == "policy" else change.key.partition(".")[0],
        "who": record.who or entry.writer,
        "why": record.why,
        "change": record.change,
        "revision": after.revision,
        "epoch": record.epoch,
        "before": _stood(before),
        "after": _stood(after),
    }


def _stood(stood: Stood | None) -> Any:
    if stood is None or stood.deleted:
        return None
    if stood.omitted:
        return {"revision": stood.revision, "omitted": stood.omitted, "sha256": stood.sha256}
    value = stood.value or b""
    return {"revision": stood.revision, "text": value.decode("utf-8", "replace")}

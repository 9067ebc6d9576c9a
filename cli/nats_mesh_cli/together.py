"""Events that say the same, as one row: a revision of policies that all members apply within seconds, a server that
they lose or have back, and what one member tells again and again with a count of it (``… (512 so far)``). Pure.

Of everything else each row stays: which of two breakers opened, or whose fault it was, is what a reader looks for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, TypeVar

from nats_mesh.audit.reading import seconds_of
from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh_cli.output import Record

__all__ = ["STORM_S", "WITHIN_S", "Alike", "Repeated", "events_together", "records_together"]

#: So long after the first of them the others count with it (seconds, by the members' own clocks).
WITHIN_S: Final = 5.0
#: What is told again, by the same member and of the same, within so long of the time before (seconds) is one storm.
STORM_S: Final = 60.0

#: What comes to many members at once.
_SHARED: Final = frozenset(
    str(kind) for kind in (EventKind.POLICY_APPLIED, EventKind.BUS_LOST, EventKind.BUS_BACK)
)

_T = TypeVar("_T")
#: How often something has happened, in the words of all events that are told ever more rarely.
_SO_FAR: Final = re.compile(r"\d+ so far")


class Alike(Event, frozen=True, kw_only=True):
    """The first of several events; ``members`` (service and instance) have told it."""

    members: tuple[tuple[str, str], ...]


class Repeated(Event, frozen=True, kw_only=True):
    """The last of several events that one member has told; ``since`` is the instant of the first of these ``times``,
    which ``detail`` says, too."""

    times: int
    since: str


class _Said(NamedTuple):
    kind: str
    at: str
    target: str
    detail: str
    member: tuple[str, str]


def events_together(events: Iterable[Event]) -> list[Event]:
    """``events``, in their order: those that are alike stand once, in the place of the first, and what is told again
    and again in the place of the last."""
    return [_event(group) for group in _groups(events, _said)]


def records_together(records: Sequence[Record]) -> list[Record]:
    """The same of events as ``-o json`` shows them, for a table: the service of several is their number."""
    return [_record(group) for group in _groups(records, _said_in)]


def _said(event: Event) -> _Said:
    return _Said(event.kind, event.at, event.target, event.detail, (event.service, event.instance))


def _said_in(record: Record) -> _Said:
    kind, at, target, detail, service, instance = (
        str(record[name]) for name in ("kind", "at", "target", "detail", "service", "instance")
    )
    return _Said(kind, at, target, detail, (service, instance))


def _event(group: Sequence[Event]) -> Event:
    first, last = group[0], group[-1]
    if len(group) < 2:
        return first
    given = {name: getattr(first, name) for name in Event.__struct_fields__ if name != "wire"}
    if first.kind not in _SHARED:
        given |= {"at": last.at, "detail": _detail(_said(first), _said(last), len(group))}
        given["missed"] = sum(each.missed for each in group)
        return Repeated(**given, times=len(group), since=first.at)
    members = _members(map(_said, group))
    return first if len(members) < 2 else Alike(**given, members=members)


def _record(group: Sequence[Record]) -> Record:
    first, last = group[0], group[-1]
    if len(group) < 2:
        return first
    if str(first["kind"]) not in _SHARED:
        detail = _detail(_said_in(first), _said_in(last), len(group))
        return {**last, "detail": detail, "missed": sum(each.get("missed", 0) for each in group)}
    members = _members(map(_said_in, group))
    return first if len(members) < 2 else {**first, "service": f"{len(members)} members", "instance": ""}


def _detail(first: _Said, last: _Said, times: int) -> str:
    """The latest count, how often it was told, and since when (by the day's time: a storm has no gaps)."""
    return f"{last.detail}; told {times} times since {first.at[11:19]}"


def _members(told: Iterable[_Said]) -> tuple[tuple[str, str], ...]:
    return tuple(dict.fromkeys(each.member for each in told))


def _groups(items: Iterable[_T], said: Callable[[_T], _Said]) -> list[list[_T]]:
    """By what each ``said``."""
    found: dict[int, list[_T]] = {}
    begun: dict[tuple[str, str, str], tuple[float, list[_T], set[tuple[str, str]]]] = {}
    storms: dict[tuple[str, str, str, tuple[str, str]], tuple[float, int]] = {}
    for number, item in enumerate(items):
        each = said(item)
        moment = _moment(each.at)
        found[number] = group = [item]
        if moment is None:
            continue
        if each.kind in _SHARED:
            # How long a server was away differs by who tells of it.
            same = each.kind, each.target, "" if each.kind == EventKind.BUS_BACK else each.detail
            known = begun.get(same)
            again = each.kind != EventKind.POLICY_APPLIED and known is not None and each.member in known[2]
            if known is not None and abs(moment - known[0]) <= WITHIN_S and not again:
                known[1].append(item)
                known[2].add(each.member)
                del found[number]
            else:
                begun[same] = moment, group, {each.member}
            continue
        what, counts = _SO_FAR.subn("", each.detail)
        if counts:
            key = each.kind, each.target, what, each.member
            before = storms.get(key)
            if before is not None and abs(moment - before[0]) <= STORM_S:
                found[number] = storm = found.pop(before[1])
                storm.append(item)
            storms[key] = moment, number
    return list(found.values())


def _moment(at: str) -> float | None:
    """``None`` for a day that there is not: whoever tells of it stands alone."""
    try:
        return seconds_of(at)
    except ValueError:
        return None

"""Events that several members tell alike within seconds, as one row: a revision of policies that all apply. Pure.

Of everything else each row stays: which of two breakers opened, or whose fault it was, is what a reader looks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from nats_mesh.audit.reading import seconds_of
from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh_cli.output import Record

__all__ = ["WITHIN_S", "Alike", "events_together", "records_together"]

#: So long after the first of them the others count with it (seconds, by the members' own clocks).
WITHIN_S: Final = 5.0

_T = TypeVar("_T")


class Alike(Event, frozen=True, kw_only=True):
    """The first of several events; ``members`` (service and instance) have told it."""

    members: tuple[tuple[str, str], ...]


def events_together(events: Iterable[Event]) -> list[Event]:
    """``events``, in their order, of which those that are alike stand once, in the place of the first."""
    return [
        group[0]
        if len(members := _members((each.service, each.instance) for each in group)) < 2
        else Alike(
            **{name: getattr(group[0], name) for name in Event.__struct_fields__ if name != "wire"},
            members=members,
        )
        for group in _groups(events, lambda each: (each.kind, each.at, each.target, each.detail))
    ]


def records_together(records: Sequence[Record]) -> list[Record]:
    """The same of events as ``-o json`` shows them, for a table: the service of several is their number."""
    return [
        group[0]
        if len(members := _members((str(each["service"]), str(each["instance"])) for each in group)) < 2
        else {**group[0], "service": f"{len(members)} members", "instance": ""}
        for group in _groups(
            records,
            lambda each: (str(each["kind"]), str(each["at"]), str(each["target"]), str(each["detail"])),
        )
    ]


def _members(told: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(dict.fromkeys(told))


def _groups(items: Iterable[_T], said: Callable[[_T], tuple[str, str, str, str]]) -> list[list[_T]]:
    """By what each ``said``: kind, time, target, detail."""
    found: list[list[_T]] = []
    begun: dict[tuple[str, str], tuple[float, list[_T]]] = {}
    for item in items:
        kind, at, target, detail = said(item)
        moment = _moment(at) if kind == EventKind.POLICY_APPLIED else None
        if moment is None:
            found.append([item])
            continue
        known = begun.get((target, detail))
        if known is not None and abs(moment - known[0]) <= WITHIN_S:
            known[1].append(item)
            continue
        begun[target, detail] = moment, (group := [item])
        found.append(group)
    return found


def _moment(at: str) -> float | None:
    """``None`` for a day that there is not: whoever tells of it stands alone."""
    try:
        return seconds_of(at)
    except ValueError:
        return None

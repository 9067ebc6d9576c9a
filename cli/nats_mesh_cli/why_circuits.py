"""The circuits of a call's caller, and whom it ejected, as ``why`` tells of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from nats_mesh.core.breaker import BreakerState
from nats_mesh.errors import Status
from nats_mesh.explaining.calls import Way
from nats_mesh.explaining.foreseeing import Ending
from nats_mesh_cli.chain_text import duration_text
from nats_mesh_cli.hints import listed
from nats_mesh_cli.output import Record, counted
from nats_mesh_cli.why_heard import Told
from nats_mesh_cli.why_words import ROUNDING, aim_text, name_of

__all__ = [
    "circuit_problems",
    "circuits_of",
    "circuits_text",
    "ejected_of",
    "ejected_text",
    "elsewhere_problems",
    "elsewhere_texts",
    "only_trials",
    "open_texts",
    "refusals_of",
]

_OPEN: Final = str(BreakerState.OPEN)
_HALF_OPEN: Final = str(BreakerState.HALF_OPEN)
_CLOSED: Final = str(BreakerState.CLOSED)
#: So many callers are named.
_NAMED: Final = 5
_RULE: Final = "refused at once while this caller's circuit for the endpoint is open"


def circuits_of(way: Way, told: Told) -> list[Record] | None:
    """The circuit of these calls at each of the caller's instances that told: ``state`` is ``None`` where it has more
    that are open than it can tell. ``None`` where nobody was asked, or there is no circuit."""
    if not told.asked or way.target.circuit is None:
        return None
    where = way.target.service, way.target.endpoint, way.target.subset
    known = {
        each.instance: each for each in told.breakers if (each.service, each.endpoint, each.subset) == where
    }
    found = []
    for instance in told.told:
        breaker = known.get(instance)
        unknown = None if instance in told.full else _CLOSED
        found.append(
            {
                "instance": instance,
                "state": unknown if breaker is None else str(breaker.state),
                "retry_after_s": None if breaker is None else breaker.retry_after_s,
            }
        )
    return found


def circuits_text(caller: str, told: Told, circuits: Sequence[Record] | None) -> str:
    """What happens at the breaker."""
    if circuits is None:
        return f"{_RULE}; {told.reason}"
    total = len(told.told) + len(told.untold)
    if not total:
        return f"{_RULE}; no caller {caller} is there now whose circuit that could be"
    texts = []
    for state, words in (
        (_OPEN, "open"), (_HALF_OPEN, "half-open"), (None, "not known"), (_CLOSED, "closed"),
    ):  # fmt: skip
        those = [each for each in circuits if each["state"] == state]
        if those:
            where = _share(caller, told, [each["instance"] for each in those], of=total)
            texts.append(f"{words} at {where}{_meaning(state, those)}")
    if told.untold:
        names = listed(map(told.name_of, told.untold))
        texts.append(f"{len(told.untold)} of {counted(total, 'instance')} could not be heard ({names})")
    return f"{_RULE}; {'; '.join(texts)}"


def _share(caller: str, told: Told, instances: Sequence[str], *, of: int) -> str:
    names = listed(map(told.name_of, instances))
    if len(instances) < of:
        return f"{len(instances)} of {counted(of, 'instance')} of {caller} ({names})"
    return f"the one instance of {caller} ({names})" if of == 1 else f"all {of} instances of {caller}"


def _meaning(state: str | None, circuits: Sequence[Record]) -> str:
    if state == _OPEN:
        return f": refused there, unsent; {_trial(circuits)}"
    if state == _HALF_OPEN:
        return ": a few calls pass there as trials, and all others are refused"
    return ", which has more open circuits than can be told" if state is None else ""


def _trial(circuits: Sequence[Record]) -> str:
    """When the first of some open circuits lets a trial pass."""
    waits = [each["retry_after_s"] for each in circuits if each["retry_after_s"] is not None]
    if not waits:
        return "when the next trial may pass is not told"
    least_s = round(min(waits), 1)
    return f"a trial may pass in {duration_text(least_s)}" if least_s else "the next call there is a trial"


def refusals_of(caller: str, way: Way, told: Told, circuits: Sequence[Record] | None) -> list[Ending]:
    """How these calls end where the circuit is open at every instance of the caller, and no trial is due by then: not
    sure where one does not tell when."""
    left = 1.0 - sum([each.share for each in way.endings if not each.sent])
    if not circuits or told.untold or left <= 0.0 or any(each["state"] != _OPEN for each in circuits):
        return []
    fault = None if way.target.effects is None else way.target.effects.fault
    held_s = 0.0 if fault is None else fault.delay_s  # a route's delay comes first
    waits = [each["retry_after_s"] for each in circuits]
    if any(wait_s is not None and wait_s <= held_s for wait_s in waits):
        return []
    where = _share(caller, told, told.told, of=len(told.told))
    return [
        Ending(
            share=left,
            status=Status.UNAVAILABLE,
            reason=f"the circuit is open at {where}, {_trial(circuits)}",
            sent=False,
            sure=None not in waits,
        )
    ]


def circuit_problems(caller: str, told: Told, way: Way, circuits: Sequence[Record] | None) -> list[Record]:
    """What should be known of these calls before anything else."""
    found = [each["instance"] for each in circuits or () if each["state"] == _OPEN]
    if not found:
        return []
    where = _share(caller, told, found, of=len(told.told) + len(told.untold))
    text = f"the circuit of {caller} for {aim_text(way.target)} is open at {where}: calls are refused there, unsent"
    hint = f"'nats-mesh events {caller} --kind breaker' says since when, and after what"
    return [{"what": "circuit", "message": text, "hint": hint}]


def elsewhere_problems(callers: Mapping[str, Told], way: Way) -> list[Record]:
    """Where nobody said who calls: which ``callers`` have an open circuit for these calls."""
    found = _open_elsewhere(callers, way)
    if not found:
        return []
    message = (
        f"the circuit for {aim_text(way.target)} is open at {_places(found)}: their calls are refused, unsent"
    )
    return [{"what": "circuit", "message": message, "hint": f"--from {found[0][0]} tells of its calls"}]


def elsewhere_texts(callers: Mapping[str, Told], ways: Sequence[Way]) -> list[str]:
    """The same in short."""
    found = []
    for way in ways:
        if those := _open_elsewhere(callers, way):
            to = "" if way.share >= 1.0 - ROUNDING else f" to {aim_text(way.target)}"
            found.append(f"refused{to} at {_places(those)}, whose circuit is open")
    return list(dict.fromkeys(found))


def _places(found: Sequence[tuple[str, str]]) -> str:
    places = "; ".join([place for _, place in found[:_NAMED]])
    more = f"; and of {counted(len(found) - _NAMED, 'other caller')}" if len(found) > _NAMED else ""
    return f"{places}{more}"


def _open_elsewhere(callers: Mapping[str, Told], way: Way) -> list[tuple[str, str]]:
    """The callers whose circuit for these calls is open, each with where that is."""
    where = way.target.service, way.target.endpoint, way.target.subset
    found = []
    for caller, told in sorted(callers.items()):
        refuse = [
            each.instance
            for each in told.breakers
            if each.state is BreakerState.OPEN and (each.service, each.endpoint, each.subset) == where
        ]
        if refuse:
            found.append((caller, _share(caller, told, refuse, of=len(told.told) + len(told.untold))))
    return found


def only_trials(document: Record, ways: Sequence[Record]) -> bool:
    """Whether the circuits of all these ways are open wherever their caller is, so that nothing but a trial passes."""
    if not ways or any(not each["told"] for each in document["caller_instances"] or ()):
        return False
    return all(way["circuits"] and all(each["state"] == _OPEN for each in way["circuits"]) for way in ways)


def open_texts(document: Record, ways: Sequence[Record]) -> list[str]:
    """In short, where the circuits of some ways are open and a call may come through all the same."""
    found = []
    for way in ways:
        refuse = [each for each in way["circuits"] or () if each["state"] == _OPEN]
        if refuse:
            due = f" ({_trial(refuse)})" if any(each["retry_after_s"] == 0.0 for each in refuse) else ""
            total = counted(len(document["caller_instances"]), "instance")
            whole = "" if way["share"] >= 1.0 - ROUNDING else f" to {way['text']}"
            found.append(
                f"refused{whole} at {len(refuse)} of {total} of {document['caller']}, whose circuit is open{due}"
            )
    return list(dict.fromkeys(found))


def ejected_of(way: Way, told: Told) -> list[Record] | None:
    """Which instances get no calls from which of the caller's; ``None`` where nobody was asked, or told everything."""
    if not told.asked or way.target.balance is None:
        return None
    return [
        {"caller_instance": each.instance, "instance": each.ejected}
        for each in told.ejections
        if each.service == way.target.service
    ]


def ejected_text(
    caller: str, told: Told, ejected: Sequence[Record] | None, instances: Sequence[Record]
) -> str:
    """Whom a caller has ejected, of ``instances`` and at which of its own."""
    if ejected is None or (told.untold and not told.told):
        return "whom this caller has ejected is not known here"
    total = len(told.told) + len(told.untold)
    by: dict[str, int] = {}
    for each in ejected:
        by[each["instance"]] = by.get(each["instance"], 0) + 1
    silent = f"; {len(told.untold)} of {counted(total, 'instance')} of it could not be heard" * bool(
        told.untold
    )
    if not by:
        return f"{caller} has ejected none of them{silent}"
    texts = [
        name_of(instance, instances)
        + ("" if count == total else f" (at {count} of {counted(total, 'instance')} of it)")
        for instance, count in sorted(by.items())
    ]
    return f"{caller} has ejected {listed(texts)}{silent}"

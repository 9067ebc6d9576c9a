"""What ``check`` finds in the calls of the last seconds, in who answers them, and in what holds for them. Pure.

What may well be meant so (an operator's fault, a policy that is odd) is worth a look; where calls fail it is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from nats_mesh.core.breaker import BreakerState
from nats_mesh.core.shares import share_text
from nats_mesh.discovery.reports import Member
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.explaining.foreseeing import Silence
from nats_mesh.explaining.hypothetical import state_of
from nats_mesh.policy.analysis import Finding as Analysed
from nats_mesh.telemetry.snapshots import Edge, Snapshot
from nats_mesh_cli.catalog import fault_effect, fault_records, instance_record
from nats_mesh_cli.checks import BAD, GOOD, SKIPPED, WARN, Finding
from nats_mesh_cli.errors import one_line
from nats_mesh_cli.output import counted, part_text, rate_text
from nats_mesh_cli.silent import Unheard, heard_text, not_among
from nats_mesh_cli.trouble import gave_up_level, success_level, worst

__all__ = [
    "LISTENED",
    "check_circuits",
    "check_edges",
    "check_faults",
    "check_policies",
    "check_silent",
    "check_unserved",
    "unserved",
]

#: What only those find who listen for a while.
LISTENED: Final = ("silent", "circuits", "unserved", "calls", "policies")
#: What the analysis of policies calls a route into a subset that selects no instance.
_EMPTY_SUBSET: Final = "NM0501"
#: So many of a kind are named in a line; ``data`` has all of them.
_NAMED: Final = 5


def check_faults(infos: Sequence[InfoReply]) -> Finding:
    """Whether operators have calls fail or wait on purpose."""
    records = fault_records([instance_record(info, 0.0) for info in infos])
    if not records:
        return Finding("faults", GOOD, "no operator's fault is in force")
    at: dict[tuple[str, str], int] = {}
    for each in records:
        aim = f"{each['service']}.{each['endpoint']}" if each["endpoint"] else each["service"]
        what = f"{fault_effect(each)} for {share_text(each['share'])}"
        at[aim, what] = at.get((aim, what), 0) + 1
    told = [f"{aim} at {counted(count, 'instance')} ({what})" for (aim, what), count in at.items()]
    remedy = f"'nats-mesh fault {next(iter(at))[0]} --clear' ends it; 'nats-mesh get faults' lists them"
    text = f"operators' faults are in force: {_some(told)}"
    return Finding("faults", WARN, text, remedy, {"faults": records})


def check_silent(
    absent: Sequence[Member],
    unheard: Unheard,
    heard: Iterable[tuple[str, str]],
    problem: str,
    *,
    recalled: bool,
) -> Finding:
    """Who ought to be here and answers nothing: those ``unheard`` of whom others and the server know, and what becomes
    of calls to them, and those that are ``absent`` though a beat was heard or the audit (``recalled``) tells of them.
    ``heard`` are told of already; ``problem``: not all may be known."""
    known = set(heard)
    hung = not_among(unheard.silent, known)
    ended = not_among(unheard.ended, known)
    known.update(each.key for each in (*hung, *ended))
    missing = [each for each in absent if each.key not in known]
    # Of a service of which some instance is told of by its name nothing more is to be said.
    hung = [each for each in hung if each.instance or each.service not in {one.service for one in missing}]
    if missing or hung or ended:
        names = [each.told for each in hung]
        names += [f"{each.place} has ended without leaving{heard_text(each)}" for each in ended]
        names += [f"{each.service} ({each.name or each.instance}) {each.why}" for each in missing]
        remedy = (
            "let it go on, or restart it: calls that reach it wait until their time is over"
            if hung
            else "it was killed, has crashed or hangs: 'nats-mesh events' says when it was heard last, its log why"
        )
        text = f"{counted(len(names), 'instance')} ought to be here: {_some(names)}"
        places = [each.place for each in (*hung, *ended)]
        data = {"silent": places + [f"{each.service} ({each.name or each.instance})" for each in missing]}
        return Finding("silent", BAD if hung else WARN, text, remedy, data)
    if problem:
        return Finding("silent", SKIPPED, one_line(problem))
    witnesses = "others or the audit tell" if recalled else "others tell"
    return Finding("silent", GOOD, f"nobody is missing of whom a beat was heard, or {witnesses}")


def check_circuits(snapshot: Snapshot) -> Finding:
    """Which circuits are not closed, and who is ejected."""
    found: dict[tuple[str, str], int] = {}
    for each in snapshot.breakers:
        where = f"{each.caller} → {each.service}.{each.endpoint}{f'/{each.subset}' if each.subset else ''}"
        key = str(each.state), where
        found[key] = found.get(key, 0) + 1
    for one in snapshot.ejections:
        key = "EJECTED", f"{one.caller} → {one.service} {one.ejected[:8]}"
        found[key] = found.get(key, 0) + 1
    if not found:
        return Finding("circuits", GOOD, "all circuits are closed, and nobody is ejected")
    told = [
        f"{state} {where}" + (f" at {count} instances" if count > 1 else "")
        for (state, where), count in found.items()
    ]
    opened = [where for state, where in found if state == str(BreakerState.OPEN)]
    caller, _, target = (opened or [""])[0].partition(" → ")
    remedy = "'nats-mesh get breakers' lists them"
    if opened:
        remedy += f"; 'nats-mesh why {target.partition('/')[0]} --from {caller}' says what a call meets now"
    return Finding("circuits", BAD if opened else WARN, _some(told), remedy, {"circuits": told})


def unserved(snapshot: Snapshot, infos: Sequence[InfoReply]) -> dict[str, list[str]]:
    """The services that are called now and have no instance that takes calls, each with its callers."""
    there = {info.name for info in infos if state_of(info) == "ready"}
    found: dict[str, list[str]] = {}
    for edge in _called(snapshot):
        if edge.service not in there:
            found.setdefault(edge.service, []).append(edge.source)
    return found


def check_unserved(
    calls: Mapping[str, Sequence[str]], means: Mapping[str, Silence], analysed: Sequence[Analysed] = ()
) -> Finding:
    """Services that are called, and of which no instance takes calls; ``means`` says what their silence is. And routes
    into a subset that no instance is in, by what was ``analysed`` of the policies: to these the others are no help."""
    nowhere = [each for each in analysed if each.code == _EMPTY_SUBSET]
    if not calls and not nowhere:
        return Finding("unserved", GOOD, "whatever is called has an instance that takes calls")
    words = {Silence.NOBODY: "nobody is there", Silence.SILENT: "one is connected and answers nothing"}
    told = [
        f"{service} (called by {', '.join(sorted(callers)[:_NAMED])}"
        + (f"; {words[said]})" if (said := means.get(service, Silence.UNKNOWN)) in words else ")")
        for service, callers in sorted(calls.items())
    ]
    texts, remedies = [], []
    if told:
        texts.append(f"called, and no instance takes calls: {_some(told)}")
        remedies.append("start it, or restart what hangs; 'nats-mesh get instances -w' shows when it is back")
    if nowhere:
        routes = [f"{each.policy} ({one_line(each.message)})" for each in nowhere]
        texts.append(f"routes lead to a subset that nobody is in: {_some(routes)}")
        remedies.append("start such instances, mend the subset, or take the weight from it")
    data = {"unserved": sorted(calls), "routes": list(dict.fromkeys(each.policy for each in nowhere))}
    return Finding("unserved", BAD, "; ".join(texts), "; ".join(remedies), data)


def check_edges(snapshot: Snapshot) -> Finding:
    """How calls went while we listened: who fails whom, and what is given up. Of those that are as bad, the ones whose
    callee itself is failed by nobody stand first: what goes wrong there is met by all above."""
    edges = [edge for edge in _called(snapshot) if edge.red.recent.requests]
    levels = [
        (worst(success_level(each.red.success), gave_up_level(each.red.gave_up)), each) for each in edges
    ]
    bad = [edge for level, edge in levels if level == "bad"]
    wrong = bad + [edge for level, edge in levels if level == "warn"]
    if not wrong:
        if not edges:
            return Finding("calls", SKIPPED, "nobody has told of calls while we listened")
        requests = sum(edge.red.recent.requests for edge in edges)
        text = f"{counted(requests, 'call')} on {counted(len(edges), 'edge')} went well"
        return Finding("calls", GOOD, text, data={"edges": len(edges), "requests": requests})
    depths = _depths(wrong)
    wrong.sort(key=lambda each: (each not in bad, depths[each.source, each.service]))
    told = [f"{each.source} → {each.service} ({_went(each)})" for each in wrong]
    first = wrong[0]
    remedy = (
        f"begin with {first.source} → {first.service}: 'nats-mesh edges {first.service} --by endpoint' shows its "
        f"calls, 'nats-mesh trace --error --service {first.service}' those that failed"
    )
    data = {"edges": [f"{each.source} → {each.service}" for each in wrong]}
    return Finding("calls", BAD if bad else WARN, f"calls go wrong: {_some(told)}", remedy, data)


def _depths(edges: Sequence[Edge]) -> dict[tuple[str, str], int]:
    """Of each edge, on how many of these calls its callee depends one behind the other; services that call each other
    in a circle are as deep as each other."""
    below: dict[str, list[str]] = {}
    for edge in edges:
        below.setdefault(edge.source, []).append(edge.service)
    deep: dict[str, int] = dict.fromkeys((edge.service for edge in edges), 0)
    for _ in range(len(deep)):  # no way without a circle is longer
        known = dict(deep)
        for service in deep:
            deep[service] = max((known[each] + 1 for each in below.get(service, ())), default=0)
        if deep == known:
            break
    return {(edge.source, edge.service): deep[edge.service] for edge in edges}


def _went(edge: Edge) -> str:
    """Which shares of all calls failed and were given up, and of how many: edges are looked at for different times, so
    counts could not be compared."""
    recent = edge.red.recent
    parts = [
        f"{part_text(count / recent.requests)} {what}"
        for count, what in ((recent.errors, "failed"), (recent.given_up, "given up by the caller"))
        if count
    ]
    rate = f" of {rate_text(edge.red.rate_per_s)} calls/s" if edge.red.rate_per_s else ""
    return f"{', '.join(parts)}{rate}"


def check_policies(found: Sequence[Analysed], source: str | None) -> Finding:
    """What ``policy analyze`` says of the policies that hold; ``source`` is where they stand."""
    if source is None:
        return Finding("policies", SKIPPED, "there are none here, or they may not be read")
    serious = [each for each in found if each.severity in ("error", "warning")]
    if not serious:
        return Finding("policies", GOOD, f"{source}: nothing is wrong with them")
    told = [f"{each.code} {each.policy}: {one_line(each.message)}" for each in serious]
    state = BAD if any(each.severity == "error" for each in serious) else WARN
    data = {"codes": list(dict.fromkeys(each.code for each in serious))}
    return Finding("policies", state, _some(told, 2), "'nats-mesh policy analyze' says what to do", data)


def _called(snapshot: Snapshot) -> list[Edge]:
    """The edges between services on which calls are under way or were made lately; plain subjects have none."""
    return [
        edge
        for edge in snapshot.edges
        if not edge.service.startswith("_") and (edge.red.recent.requests or edge.red.in_flight)
    ]


def _some(told: Sequence[str], named: int = _NAMED) -> str:
    more = f"; and {len(told) - named} more" if len(told) > named else ""
    return "; ".join(told[:named]) + more

"""The document of ``why``: an explanation as ``-o json`` shows it, with what is wrong at its top. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from nats_mesh.core.conditions import ExaminedMatch, ExaminedRule
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.explaining.calls import Explanation, Way
from nats_mesh.policy import PolicySet
from nats_mesh_cli.catalog import FOREIGN, MESH, endpoint_records, instance_record
from nats_mesh_cli.effective import PRECEDENCE, Known
from nats_mesh_cli.output import Record
from nats_mesh_cli.policies import unheard
from nats_mesh_cli.routes import rule_text
from nats_mesh_cli.silent import Silent
from nats_mesh_cli.why_circuits import (
    circuit_problems,
    circuits_of,
    ejected_of,
    elsewhere_problems,
    elsewhere_texts,
    refusals_of,
)
from nats_mesh_cli.why_delays import delays_of
from nats_mesh_cli.why_faults import aborted_by_operators, fault_problems
from nats_mesh_cli.why_heard import UNASKED, Told
from nats_mesh_cli.why_layers import layers_of
from nats_mesh_cli.why_problems import problems_of
from nats_mesh_cli.why_summary import summary_of, surely
from nats_mesh_cli.why_words import aim_text, faults_at

__all__ = ["document_of"]

#: Shares are sums of products: nearer to all of them than this is all of them.
_ROUNDING = 1e-9
_NOBODY: Mapping[str, Told] = {}


def document_of(
    explained: Explanation,
    policies: PolicySet,
    *,
    infos: Sequence[InfoReply] | None,
    everything: Sequence[InfoReply],
    clients: Collection[str],
    reason: str,
    source: str | None,
    count: int | None,
    named: bool,
    now_s: float,
    told: Told = UNASKED,
    callers: Mapping[str, Told] = _NOBODY,
    silent: Sequence[Silent] = (),
) -> Record:
    """All of it. ``infos`` are the services of this namespace and those of none (``None``: nobody was asked, for this
    ``reason``), ``everything`` those of any, ``clients`` the names of pure clients, ``source`` where the policies come
    from; ``named``: it was said who calls; ``told`` is what the caller says of now, ``callers``
    what all callers say where none was named; ``silent`` instances are connected and answer nothing, beside others.
    """
    question = explained.question
    ways = [_way(explained, way, policies, infos, count, now_s, told) for way in explained.ways]
    fails = sum([way["share"] * way["fails"] for way in ways])
    routes = [
        {"source": route.source, "rules": [_rule(rule, policies) for rule in route.rules]}
        for route in explained.routes
    ]
    problems = problems_of(explained, policies, infos, everything, clients, named, ways, silent)
    for way, made in zip(explained.ways, ways, strict=True):
        found = fault_problems(way, made)
        found += circuit_problems(question.caller, told, way, made["circuits"])
        found += elsewhere_problems(callers, way)
        problems += [each for each in found if each not in problems]
    seen = None
    if infos is not None:
        seen = question.caller in clients or any(info.name == question.caller for info in infos)
    document: Record = {
        "target": f"{question.service}.{question.endpoint}",
        "service": question.service,
        "endpoint": question.endpoint,
        "caller": question.caller,
        "caller_seen": seen,
        "caller_instances": [
            *({"instance": each, "told": True} for each in told.told),
            *({"instance": each, "told": False} for each in told.untold),
        ]
        if told.asked
        else None,
        "caller_zones": [zone for zone in explained.zones if zone],
        "namespace": policies.namespace,
        "headers": {name: question.headers.get_all(name) for name, _ in question.headers.pairs()},
        "arguments": {
            "timeout_s": question.timeout_s,
            "idempotent": question.idempotent,
            "idempotency_key": question.keyed,
        },
        "policies": {
            "source": source,
            "revision": None if source is None else policies.revision,
            "count": len(policies),
        },
        "bus": {"asked": infos is not None, "reason": reason},
        "problems": problems,
        "routes": routes,
        "ways": ways,
        "count": count,
        "precedence": list(PRECEDENCE),
        "fails": round(fails, 12),
        "fails_wholly": fails >= 1.0 - _ROUNDING,
        "fails_surely": sum([way["share"] * surely(way) for way in ways]) >= 1.0 - _ROUNDING,
    }
    document["summary"] = summary_of(document, elsewhere_texts(callers, explained.ways))
    return document


# -- rules --------------------------------------------------------------------------------------------


def _rule(examined: ExaminedRule, policies: PolicySet) -> Record:
    return {
        "rule": examined.rule.place,
        "source": policies.rule_source(examined.rule),
        "says": rule_text(examined.rule),
        "state": _state(examined),
        "asked": examined.asked,
        "share": examined.share,
        "met": examined.met,
        "matches": [_match(match) for match in examined.matches],
    }


def _state(examined: ExaminedRule) -> str:
    if examined.asked <= 0.0:
        return "out of reach"
    if examined.share <= 0.0:
        return "not met"
    return "met" if examined.share >= 1.0 else "by chance"


def _match(examined: ExaminedMatch) -> Record:
    return {
        "says": str(examined.match),
        "share": examined.share,
        "conditions": [
            {"about": each.about, "says": each.says, "found": list(each.found), "holds": each.holds}
            for each in examined.conditions
        ],
    }


# -- ways ---------------------------------------------------------------------------------------------


def _way(
    explained: Explanation,
    way: Way,
    policies: PolicySet,
    infos: Sequence[InfoReply] | None,
    count: int | None,
    now_s: float,
    told: Told,
) -> Record:
    question, target = explained.question, way.target
    record = _record(way, policies, infos)
    instances = [instance_record(info, now_s) for info in way.all_instances]
    taking = {info.id for info in way.instances or ()}
    here = [each for each in instances if each["instance"] in taking]
    known = Known(
        policies=policies,
        caller=question.caller,
        plugins_in=list(dict.fromkeys(name for each in here for name in each["plugins"]["inbound"])),
        plugins_out=_plugins_of(question.caller, infos, now_s),
        faults=sum([len(faults_at(record, each)) for each in here]),
        draining=[each["host_pid"] or each["instance"] for each in instances if each["state"] == "draining"],
        timeout_s=question.timeout_s,
        idempotent=question.idempotent,
        subset=target.subset,
        via=target.via,
    )
    said_s = [question.timeout_s, known.outbound(record)[0].timeout_s]
    circuits = circuits_of(way, told)
    refusals = refusals_of(question.caller, way, told, circuits)
    # Who is refused unsent comes to no instance, whatever would become of it there.
    unsent = [each for each in way.endings if not each.sent]
    endings = [*unsent, *refusals] if refusals else [*way.endings, *aborted_by_operators(way, record, here)]
    return {
        "share": way.share,
        "expected": None if count is None else way.share * count,
        "deviation": None if count is None else (count * way.share * (1.0 - way.share)) ** 0.5,
        "to": {"service": target.service, "endpoint": target.endpoint, "subset": target.subset},
        "text": aim_text(target),
        "why": way.why,
        "source": "" if way.by is None else policies.rule_source(way.by),
        "rules": [policies.rule_source(rule) for rule in way.path.rules],
        "subject": way.foreign or target.subject,
        "timeout_s": way.timeout_s,
        "timeout_known": not way.undeclared or said_s != [None, None],
        "idempotent": bool(way.request.idempotent),
        "attempts": way.most_attempts,
        "attempt_s": list(way.attempt_s),
        "retries": [
            {"failure": each.failure, "again": each.again, "delay_s": each.delay_s, "reason": each.reason}
            for each in way.retries
        ],
        "copies": [
            {
                "service": each.target.service,
                "endpoint": each.target.endpoint,
                "subset": each.target.subset,
                "share": each.share,
                "instances": None if each.instances is None else [info.id for info in each.instances],
            }
            for each in way.copies
        ],
        "origin": FOREIGN if way.foreign else MESH,
        "instances": None if way.instances is None else here,
        "chosen": list(way.chosen) or None,
        "chosen_always": way.only or None,
        "circuits": circuits,
        "ejected": ejected_of(way, told),
        "delays": delays_of(way, policies, record, here),
        "fails": sum([each.share for each in endings]),
        "endings": [
            {
                "share": each.share,
                "status": str(each.status),
                "otherwise": None if each.otherwise is None else str(each.otherwise),
                "reason": each.reason,
                "sure": each.sure,
            }
            for each in endings
        ],
        "layers": layers_of(question, policies, way, record, instances, known, told),
    }


def _record(way: Way, policies: PolicySet, infos: Sequence[InfoReply] | None) -> Record:
    """The endpoint of a way as `describe` knows it; what it declares, as callers take it from all instances."""
    target = way.target
    own = [info for info in infos or () if info.name == target.service]
    found = next((each for each in endpoint_records(own) if each["name"] == target.endpoint), None)
    record = found or unheard(target.service, target.endpoint, policies.namespace)
    if record["kind"] != MESH:
        return record
    declared = target.declared
    return {
        **record,
        "timeout_ms": None if declared.timeout_s is None else declared.timeout_s * 1000.0,
        "idempotent": declared.idempotent,
    }


def _plugins_of(caller: str, infos: Sequence[InfoReply] | None, now_s: float) -> list[str] | None:
    own = [instance_record(info, now_s) for info in infos or () if info.name == caller]
    own = [each for each in own if each["kind"] == MESH]
    if not own:
        return None
    return list(dict.fromkeys(name for each in own for name in each["plugins"]["outbound"]))

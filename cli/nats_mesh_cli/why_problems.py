"""What a person should know of a hypothetical call before anything else, each with what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.explaining.calls import Explanation
from nats_mesh.explaining.foreseeing import Silence
from nats_mesh.explaining.hypothetical import labels_of, state_of
from nats_mesh.policy import PolicySet
from nats_mesh_cli.errors import did_you_mean
from nats_mesh_cli.hints import listed, missing_endpoint, missing_service
from nats_mesh_cli.output import Record, counted
from nats_mesh_cli.silent import Silent, after_silence, silent_text

__all__ = ["problems_of"]


def problems_of(
    explained: Explanation,
    policies: PolicySet,
    infos: Sequence[InfoReply] | None,
    everything: Sequence[InfoReply],
    clients: Collection[str],
    named: bool,
    ways: Sequence[Record],
    silent: Sequence[Silent] = (),
) -> list[Record]:
    """Names that nobody has, subsets that select nobody, ``silent`` instances beside others, a caller that is not seen;
    nothing where nobody was asked."""
    question = explained.question
    if infos is None:
        return []
    found: list[Record] = []
    services = {info.name for info in infos}
    for service in dict.fromkeys([question.service, *(way["to"]["service"] for way in ways)]):
        if service not in services:
            found.append(_unserved(service, explained, everything, policies.namespace))
        elif hung := [each for each in silent if each.service == service]:
            found.append(_problem("silent", silent_text(hung), after_silence(hung)))
    for service, endpoint in dict.fromkeys(
        [
            (question.service, question.endpoint),
            *((way["to"]["service"], way["to"]["endpoint"]) for way in ways),
        ]
    ):
        if service in services and (hint := missing_endpoint(service, endpoint, infos)):
            found.append(_problem("endpoint", f"{service} has no endpoint {endpoint!r}", hint))
    for way in explained.ways:
        target = way.target
        if target.subset and way.instances == () and target.service in services:
            labels = listed(_what(info) for info in way.all_instances)
            text = (
                f"subset {target.subset} of {target.service} selects no instance that answers and takes calls"
            )
            found.append(_problem("subset", text, f"there are: {labels}" if labels else ""))
        without = [
            info
            for info in way.instances or ()
            if target.endpoint not in [each.name for each in info.endpoints]
        ]
        if without and len(without) < len(way.instances or ()):
            text = (
                f"{len(without)} of {counted(len(way.instances or ()), 'instance')} of {target.service} have no "
                f"endpoint {target.endpoint!r}, and answer UNIMPLEMENTED"
            )
            found.append(_problem("endpoint", text, f"they are: {listed(_what(info) for info in without)}"))
    known = {*clients, *services}
    if named and question.caller not in known:
        guess = did_you_mean(question.caller, known)
        hint = guess or "a client that is not connected now, or of another version, is not seen"
        found.append(_problem("caller", f"no caller {question.caller!r} is seen here", hint))
    return [each for at, each in enumerate(found) if each not in found[:at]]


def _unserved(
    service: str, explained: Explanation, everything: Sequence[InfoReply], namespace: str
) -> Record:
    """A service of which nobody answered, by what that means."""
    means = [way.silence for way in explained.ways if way.target.service == service]
    if Silence.SILENT in means:
        text = f"no instance of {service!r} answers, and one is connected: it is silent (hung, or stopped)"
        hint = f"{after_silence([Silent(service)])}; 'nats-mesh get instances -w' shows when it is back"
        return _problem("service", text, hint)
    nobody = Silence.NOBODY in means
    text = f"nobody serves {service!r} here" if nobody else f"no instance of {service!r} answers here"
    return _problem("service", text, missing_service(service, everything, namespace))


def _problem(what: str, message: str, hint: str) -> Record:
    return {"what": what, "message": message, "hint": hint}


def _what(info: InfoReply) -> str:
    said = ", ".join(f"{key}={value}" for key, value in sorted(labels_of(info).items()))
    state = state_of(info)
    return f"{info.version}{f' ({said})' if said else ''}{'' if state == 'ready' else f' {state}'}"

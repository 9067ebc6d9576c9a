"""What happens to a call in each layer of both sides, in words, beside what `describe` says of the layer. Pure.

Made of one way of an explanation (:mod:`nats_mesh.explaining.calls`), whose target has the layers, and of the chain of
``chain.py``, which has every parameter with its source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nats_mesh.core.router import Rule
from nats_mesh.core.shares import share_text
from nats_mesh.explaining.calls import Copy, Question, Way
from nats_mesh.policy import PolicySet
from nats_mesh.policy.rules import DEFAULT
from nats_mesh_cli.chain import chain_of
from nats_mesh_cli.chain_text import duration_text
from nats_mesh_cli.effective import ENDPOINT, Known
from nats_mesh_cli.output import Record, counted
from nats_mesh_cli.why_circuits import circuits_of, circuits_text, ejected_of, ejected_text
from nats_mesh_cli.why_heard import Told
from nats_mesh_cli.why_inbound import Inbound
from nats_mesh_cli.why_words import aim_text, name_of, named

__all__ = ["layers_of"]


def layers_of(
    question: Question,
    policies: PolicySet,
    way: Way,
    record: Record,
    instances: Sequence[Record],
    known: Known,
    told: Told,
) -> Record:
    """Both sides' layers in their order. ``record`` is the endpoint's, ``instances`` are those of its service,
    ``known`` what is known beside them, ``told`` what the caller says."""
    ids = {info.id for info in way.instances or ()}
    taking = [each for each in instances if each["instance"] in ids]
    others = [each for each in instances if each["instance"] not in ids]
    words = {
        "outbound": _Outbound(question, policies, way, taking, told).words,
        "inbound": Inbound(question, way, record, taking, others).words,
    }
    return {
        side: [_told(layer, words[side].get(layer["layer"])) for layer in layers]
        for side, layers in chain_of(record, known).items()
    }


def _told(layer: Record, words: Callable[[Record], str] | None) -> Record:
    """The layer, with what happens there."""
    happens = "" if words is None else words(layer)
    if not happens:
        happens = f"not in the chain: {layer['reason']}" if layer["present"] is False else layer["reason"]
    return {"layer": layer["layer"], "happens": happens or "nothing in particular", **layer}


class _Outbound:
    """The words for the caller's side; ``taking`` are the instances that take such calls, ``told`` is what the caller
    says."""

    def __init__(
        self, question: Question, policies: PolicySet, way: Way, taking: Sequence[Record], told: Told
    ) -> None:
        self._told = told
        self._question = question
        self._policies = policies
        self._way = way
        self._instances = taking
        self.words: Mapping[str, Callable[[Record], str]] = {
            "context": self._context,
            "deadline": self._deadline,
            "interceptors": lambda _: "those in the caller's code, which nobody knows here, see it next",
            "route": self._route,
            "encode": lambda _: "its value is encoded once, whatever number of attempts follows",
            "fault": self._fault,
            "mirror": self._mirror,
            "retry": self._retry,
            "breaker": self._breaker,
            "attempt-timeout": self._attempt_timeout,
            "hedge": self._hedge,
            "balance": self._balance,
            "wire": self._wire,
        }

    def _context(self, layer: Record) -> str:
        headers = {name.lower() for name, _ in self._question.headers.pairs()}
        if "traceparent" in headers:
            return "goes on with the trace that its header traceparent names"
        return "begins a trace, or goes on with that of the call it is made from"

    def _deadline(self, layer: Record) -> str:
        source = layer["parameters"]["timeout_s"]["source"]
        learned = "; a caller learns that beside its first call" if source == ENDPOINT else ""
        own = duration_text(self._way.timeout_s)
        if source == DEFAULT and self._way.undeclared:
            learned = "; no instance answers, so the endpoint's own timeout is not known now, and this is the default"
        return f"it may take {own}, or what is left to the call that it is made from{learned}"

    def _route(self, layer: Record) -> str:
        way = self._way
        met = [self._policies.rule_source(rule) for rule in way.path.rules]
        layer["present"], layer["reason"] = bool(met), ""
        if not met:
            layer["reason"] = "it meets no rule of a route"
            return f"{layer['reason']}, and goes to {aim_text(way.target)} as if there were none"
        return f"meets {' and '.join(met)}; goes to {aim_text(way.target)}: {way.why}"

    def _fault(self, layer: Record) -> str:
        effects = self._way.target.effects
        fault = None if effects is None else effects.fault
        layer["present"], layer["reason"] = fault is not None, ""
        if fault is None:
            layer["reason"] = "no rule that it meets has one"
            return ""
        parts = []
        if fault.delay_s:
            parts.append(
                f"{share_text(min(1.0, fault.delay_share))} wait {duration_text(fault.delay_s)} of their time"
            )
        if fault.abort is not None:
            parts.append(
                f"{share_text(min(1.0, fault.abort_share))} fail with {fault.abort}, unsent and never tried again"
            )
        by = next((rule for rule in reversed(self._way.path.rules) if rule.fault is not None), None)
        return f"{'; '.join(parts) or 'nothing'}{self._by(by)}"

    def _mirror(self, layer: Record) -> str:
        copies = self._way.copies
        layer["present"], layer["reason"] = bool(copies), ""
        if not copies:
            layer["reason"] = "no rule that it meets has one"
            return ""
        by = next((rule for rule in reversed(self._way.path.rules) if rule.mirrors is not None), None)
        return f"{'; '.join(map(_copy, copies))}; nobody waits for what becomes of them{self._by(by)}"

    def _by(self, rule: Rule | None) -> str:
        return "" if rule is None else f", by {self._policies.rule_source(rule)}"

    def _retry(self, layer: Record) -> str:
        way = self._way
        if way.target.retries is None:
            return ""
        if way.most_attempts == 1:
            return "one attempt: there is nothing after which another would be made"
        budget = f"the caller's budget for {way.target.service}"
        return f"up to {way.most_attempts} attempts, as long as {budget} has one left"

    def _breaker(self, layer: Record) -> str:
        if self._way.target.circuit is None:
            return ""
        return circuits_text(self._question.caller, self._told, circuits_of(self._way, self._told))

    def _attempt_timeout(self, layer: Record) -> str:
        times = [duration_text(float(f"{each:.4g}")) for each in self._way.attempt_s]
        if len(times) == 1:
            return f"its attempt has {times[0]}"
        return f"its attempts have {', then '.join(times)}, where each uses up its own"

    def _hedge(self, layer: Record) -> str:
        way = self._way
        hedger = way.target.hedger
        if hedger is None or not way.request.idempotent:
            if hedger is not None and self._question.idempotent is False:
                layer["present"], layer["reason"] = False, "the call says that it is not idempotent"
            return ""
        rules = hedger.rules
        when = (
            f"after {duration_text(rules.delay_s)}"
            if rules.delay_s is not None
            else f"after what {share_text(rules.quantile)} of the answers take"
        )
        return f"asked once more {when} without an answer; at most {share_text(rules.max_ratio)} of the calls"

    def _balance(self, layer: Record) -> str:
        way = self._way
        balance = way.target.balance
        if way.foreign:
            return f"the queue group of {way.target.service}, which is outside the mesh, chooses"
        who = "the server's queue group" if balance is None else balance.group.rules.name
        if way.instances is None:
            return f"{who} chooses the instance; which there are is not known"
        if not way.instances:
            return f"{who} finds nobody that answers"
        if balance is None:
            return f"{who} gives it to one of {counted(len(way.instances), 'instance')}: {named(self._instances)}"
        if way.only:
            return (
                f"{who} always takes {name_of(way.only, self._instances)} for it, of {named(self._instances)}"
            )
        chosen = [each for each in self._instances if each["instance"] in way.chosen]
        text = f"{who} chooses among {counted(len(chosen), 'instance')}: {named(chosen)}"
        if len(chosen) < len(self._instances):
            text += f"; of {len(self._instances)}, those of its own zone"
        ejected = ejected_of(way, self._told)
        return f"{text}; {ejected_text(self._question.caller, self._told, ejected, self._instances)}"

    def _wire(self, layer: Record) -> str:
        way = self._way
        if way.foreign:
            return f"sent to {way.foreign}, where a service outside the mesh listens"
        if way.target.balance is not None and way.chosen:
            return "sent to the chosen instance by its id"
        return f"sent to {way.target.subject}"


def _copy(copy: Copy) -> str:
    who = ""
    if copy.instances is not None:
        who = (
            f" ({counted(len(copy.instances), 'instance')})" if copy.instances else " (where nobody takes it)"
        )
    return f"{share_text(copy.share)} are copied to {aim_text(copy.target)}{who}"

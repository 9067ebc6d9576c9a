"""What the fields of one policy may only say together: each is fine by itself, and the schema knows them one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

from msgspec import UNSET

from nats_mesh.core.rules import SubsetRules
from nats_mesh.errors import ConfigError
from nats_mesh.policy import kind_checks
from nats_mesh.policy import routing_parts as parts
from nats_mesh.policy.access_parts import Access, Authentication
from nats_mesh.policy.fields import fields_of
from nats_mesh.policy.gateway_checks import gateway
from nats_mesh.policy.gateway_parts import Gateway
from nats_mesh.policy.limit_parts import Throttle
from nats_mesh.policy.look import Look, Wrong
from nats_mesh.policy.parts import Target
from nats_mesh.policy.rollout_parts import Rollout
from nats_mesh.policy.schema import Destination, Document, Limit, Route, Rule
from nats_mesh.policy.telemetry_parts import Telemetry

__all__ = ["check_together"]


def check_together(document: Document, lines: Mapping[str, int], wrong: Wrong) -> None:
    """Tell ``wrong`` of everything that does not go together; ``lines`` has the line of every field that is there."""
    _Checking(document, lines, wrong).all()


class _Checking(Look):
    def __init__(self, document: Document, lines: Mapping[str, int], wrong: Wrong) -> None:
        super().__init__(lines, wrong)
        self._document = document

    def all(self) -> None:
        document = self._document
        if isinstance(document, Gateway):
            gateway(document.spec, self)
            return
        self._target(document.spec.target)
        if isinstance(document, Destination):
            self.positive("spec.timeout", document.spec.timeout)
            self._subsets(document)
            if isinstance(document.spec.throttle, Throttle):
                kind_checks.throttle(document.spec.throttle, self)
        elif isinstance(document, Route):
            self._rules(document.spec.rules)
        elif isinstance(document, Limit):
            kind_checks.limit(document.spec, self)
        elif isinstance(document, Access):
            kind_checks.access(document.spec, self)
        elif isinstance(document, Authentication):
            kind_checks.authentication(document.spec, self)
        elif isinstance(document, Telemetry):
            kind_checks.telemetry(document.spec, self)
        elif isinstance(document, Rollout):
            kind_checks.rollout(document.spec, self)
        else:
            assert_never(document)

    def _target(self, target: Target | object) -> None:
        if not isinstance(target, Target):
            return
        if target.endpoints is not UNSET:
            if target.service is UNSET:
                self.say("spec.target.endpoints", "needs a service beside it: whose endpoints?")
            if not target.endpoints:
                self.say("spec.target.endpoints", "names none: leave it out to mean all of them")
        if target.subset is not UNSET:
            if not isinstance(self._document, Destination):
                self.say(
                    "spec.target.subset",
                    f"a {type(self._document).__name__} is not about a subset: only a Destination can be",
                )
            elif target.service is UNSET:
                self.say("spec.target.subset", "needs a service beside it: whose subset?")

    def _subsets(self, document: Destination) -> None:
        subsets, target = document.spec.subsets, document.spec.target
        if subsets is UNSET:
            return
        said = Target() if target is UNSET else target
        if said.service is UNSET or said.endpoints is not UNSET or said.subset is not UNSET:
            self.say("spec.subsets", "need a target with a service, and no endpoints or subset")
        for name, subset in subsets.items():
            where = f"spec.subsets.{name}"
            refused = self.says(where, ("version",)) or self.stands(f"{where}.labels")
            if subset.version is UNSET and not subset.labels and refused:
                continue  # what it shall select
            try:
                SubsetRules(
                    name=name,
                    version="" if subset.version is UNSET else subset.version,
                    labels=() if subset.labels is UNSET else tuple(subset.labels.items()),
                )
            except ConfigError as error:
                self.say(where, str(error))

    def _rules(self, rules: Sequence[Rule]) -> None:
        last = ""
        for index, rule in enumerate(rules):
            path = f"spec.rules[{index}]"
            if last:
                self.say(path, f"is never reached: {last} above applies to every call")
            self.positive(f"{path}.timeout", rule.timeout)
            if not self.says(path, [name for name in fields_of(Rule) if name != "match"]):
                self.say(path, "does nothing: say where its calls go, or what they get")
            self._matches(path, rule)
            self._where_to(path, rule)
            if rule.fault is not UNSET:
                self._fault(f"{path}.fault", rule.fault)
            self.sticky(f"{path}.sticky", rule.sticky)
            if self._always(path, rule):
                last = path

    def _matches(self, path: str, rule: Rule) -> None:
        for index, match in enumerate([] if rule.match is UNSET else rule.match):
            where = self.place(f"{path}.match", index)
            self.names(where, match, ("callers", "endpoints", "headers"))
            self.conditions(f"{where}.headers", match.headers)

    def _where_to(self, path: str, rule: Rule) -> None:
        if rule.split is not UNSET:
            if rule.redirect is not UNSET:
                self.say(f"{path}.redirect", "cannot stand beside split: a call goes to one place")
            if not any(leg.weight is UNSET or leg.weight > 0 for leg in rule.split):
                self.say(f"{path}.split", "sends nobody anywhere: give one of them a weight above 0")
            seen: set[tuple[object, object]] = set()
            for index, leg in enumerate(rule.split):
                key = (leg.service, leg.subset)
                if key in seen:
                    self.say(f"{path}.split[{index}]", "stands above already: put the two weights into one")
                seen.add(key)
        if rule.redirect is not UNSET and not self.says(f"{path}.redirect", ("service", "endpoint")):
            self.say(f"{path}.redirect", "leads nowhere else: give it a service, an endpoint, or both")
        for index in range(0 if rule.mirror is UNSET else len(rule.mirror)):
            where = self.place(f"{path}.mirror", index)
            if not self.says(where, ("service", "subset")):
                self.say(where, "would call the same twice: give it a service, a subset, or both")

    def _fault(self, path: str, fault: parts.Fault) -> None:
        if not self.says(path, ("delay", "abort")):
            self.say(path, "does nothing: give it a delay, an abort, or both")
        if fault.delay is not UNSET:
            self.positive(f"{path}.delay.duration", fault.delay.duration)

    def _always(self, path: str, rule: Rule) -> bool:
        """Whether every call meets the rule."""
        if rule.match is UNSET:
            return f"{path}.match" not in self.lines
        return any(not self.stands(self.place(f"{path}.match", index)) for index in range(len(rule.match)))

"""Istio's AuthorizationPolicy as `Access`: never wider than it, and as wide where everything can be said."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from nats_mesh.policy.istio.conditions import (
    ANYBODY,
    NOBODY,
    Terms,
    Unknown,
    both,
    callers_of,
    namespaces_of,
    texts_of,
    tokens_of,
)  # fmt: skip
from nats_mesh.policy.istio.found import made
from nats_mesh.policy.istio.hosts import name_of
from nats_mesh.policy.istio.items import Item
from nats_mesh.policy.istio.matches import header_name
from nats_mesh.policy.istio.targets import NO_LABEL, Aim, aims_of
from nats_mesh.policy.istio.world import World
from nats_mesh.policy.problems import hint
from nats_mesh.policy.reader import Node

__all__ = ["translate_authorization_policies"]

_MAX_CONDITIONS: Final = 100
_DRY_RUN: Final = "istio.io/dry-run"
_HEADER = re.compile(r"request\.headers\[([^\]]+)\]")
_CLAIM = re.compile(r"request\.auth\.claims((?:\[[^\]]+\])+)")
#: Attributes that no call of the mesh has, and what is there in their place.
_NOT_ASKED: Final = {
    "source.ip": "calls come from names, not from addresses",
    "remote.ip": "calls come from names, not from addresses",
    "destination.ip": "services have no addresses",
    "destination.port": "services have no ports",
    "connection.sni": "calls are no connections of their own",
}
_KEYS: Final = (
    "request.headers[x]", "request.auth.principal", "request.auth.audiences", "request.auth.presenter",
    "request.auth.claims[x]", "source.principal", "source.namespace", "source.serviceAccount", *_NOT_ASKED,
)  # fmt: skip
_OF_HTTP: Final = {
    "hosts": "calls name a service, and no host", "ports": "services have no ports", "methods": "calls have no method",
    "paths": "calls name an endpoint, and have no path: say `endpoints`",
    "ipBlocks": _NOT_ASKED["source.ip"], "remoteIpBlocks": _NOT_ASKED["remote.ip"],
}  # fmt: skip


class _Planned(NamedTuple):
    spec: Item
    aim: Aim
    action: str


def translate_authorization_policies(world: World) -> None:
    """Add what the AuthorizationPolicies say: all of them together, because what they allow adds up."""
    planned: list[_Planned] = []
    for spec in world.of_kind("AuthorizationPolicy"):
        action = spec.text("action") or "ALLOW"
        aims = aims_of(spec, world)
        if action == "CUSTOM":
            spec.lost("provider", "nobody asks a server outside who may call")
            spec.lost(
                "action", "nobody asks a server outside who may call: what it refuses is let in", "serious"
            )
            spec.give_up()
            continue
        spec.note("provider", "is asked with the action CUSTOM alone")
        for aim in aims:
            if aim.unknown:
                spec.source.wrong(aim.path, aim.line, f"{NO_LABEL}, and whom it protects must not be guessed")
            else:
                planned.append(_Planned(spec, aim, action))
        if not aims:
            spec.give_up()
    allowing: dict[str, list[_Planned]] = {}
    for each in planned:
        if each.action == "ALLOW":
            allowing.setdefault(each.aim.service, []).append(each)
    for each in planned:
        _Policy(each, world, allowing).emit()


class _Policy:
    def __init__(self, plan: _Planned, world: World, allowing: dict[str, list[_Planned]]) -> None:
        self._spec, self._aim, self._action = plan
        self._world = world
        self._allowing = allowing
        self._widen = self._action != "ALLOW"
        self._namespace = world.within(self._spec.source) if self._aim.namespace else world.namespace
        self._issuers = world.issuers

    def emit(self) -> None:
        spec, aim = self._spec, self._aim
        source = spec.source
        if aim.others and not self._covers_all():
            return
        rules = self._rules()
        document: dict[str, Any] = dict(aim.target)
        if source.annotations.get(_DRY_RUN, "").lower() == "true":
            document["mode"] = made("dry-run", source.line)
        if not rules:
            if self._widen:
                spec.note("rules" if spec.has("rules") else "", "meets no call")
                return
            document["default"] = made("deny", spec.line("rules"))
        else:
            document["rules"] = made(rules, spec.line("rules"))
        several = len(spec.many("targetRefs")) > 1
        self._world.emit(
            source, "Access", name_of(source.name, aim.service if several else ""), aim.namespace, document
        )

    def _covers_all(self) -> bool:
        """Access is about every instance of a service: whether that lets nothing in that Istio refuses."""
        spec, aim = self._spec, self._aim
        labels = ", ".join(aim.others)
        if self._widen:
            text = f"holds for every instance of {aim.service}, whatever its {labels}"
            spec.source.lost(aim.path, aim.line, text, "serious")
            return True
        for plan in (*self._allowing.get("", ()), *self._allowing.get(aim.service, ())):
            here = "" in (plan.aim.namespace, aim.namespace) or plan.aim.namespace == aim.namespace
            if plan.spec is not spec and here:
                text = (
                    f"allows something to instances by {labels}, and {plan.spec.source.title} to others of "
                    f"{aim.service}: an Access is about all of them, and would allow both everywhere. Leave the "
                    "labels out of both, or give the instances services of their own"
                )
                spec.source.wrong(aim.path, aim.line, text)
                return False
        text = f"holds for every instance of {aim.service}, whatever its {labels}: the others refuse all else, too"
        spec.source.lost(aim.path, aim.line, text, "serious")
        return True

    def _rules(self) -> list[Node]:
        found: list[Node] = []
        for rule in self._spec.many("rules"):
            try:
                alternatives = self._rule(rule)
            except OverflowError:
                rule.source.wrong(
                    rule.path,
                    rule.line(),
                    "comes to more than 1000 rules, or has more than 100 conditions: split it",
                )
                continue
            if not alternatives:
                verb = "allows" if self._action == "ALLOW" else "denies"
                rule.lost(
                    "", f"the rule is left out: it {verb} nothing that a call of the mesh can be", "serious"
                )
            for terms in alternatives:
                body = {"action": made(self._action, rule.line()), **_written(terms)}
                found.append(made(body, rule.line(), f"{rule.path}, line {rule.line()}"))
        return found

    def _rule(self, rule: Item) -> list[Terms]:
        sources: list[Terms] = [] if rule.has("from") else ANYBODY
        for each in rule.many("from"):
            if (source := each.one("source")) is not None:
                sources = [*sources, *self._source(source)]
        sources = ANYBODY if {} in sources else sources
        operations = [each.one("operation") for each in rule.many("to")]
        reached = [self._operation(each) for each in operations if each is not None]
        found = sources if not reached or any(reached) else NOBODY
        if len(rule.many("when")) > _MAX_CONDITIONS:
            raise OverflowError
        for each in rule.many("when"):
            found = self._and(found, self._condition(each), each)
        return found

    def _and(self, one: list[Terms], other: list[Terms], item: Item) -> list[Terms]:
        found, clashed = both(one, other, widen=self._widen)
        if clashed:
            item.lost("", f"two conditions on one thing cannot be asked for: {self._effect}", "serious")
        return found

    @property
    def _effect(self) -> str:
        return "the rule denies more calls" if self._widen else "the rule allows fewer calls"

    def _said(self, item: Item, name: str) -> Unknown:
        def said(value: str, why: str) -> None:
            item.lost(name, f"{value[:80]} {why}: {self._effect}", "serious")

        return said

    def _source(self, source: Item) -> list[Terms]:
        if not source:
            source.source.wrong(
                source.path, source.line(), "says nothing: leave `from` out to mean everybody"
            )
        found: list[Terms] = ANYBODY
        for name in source.names():
            word, negate = _positive(name)
            values = source.words(name)
            said = self._said(source, name)
            if word in ("principals", "serviceAccounts"):
                terms = callers_of(
                    values,
                    self._namespace,
                    said,
                    negate=negate,
                    widen=self._widen,
                    accounts=word == "serviceAccounts",
                )
            elif word == "namespaces":
                terms = namespaces_of(values, self._namespace, said, negate=negate, widen=self._widen)
            elif word == "requestPrincipals":
                terms = tokens_of(values, self._issuers, said, negate=negate, widen=self._widen)
            else:
                terms = self._unasked(source, name, _OF_HTTP[word])
            found = self._and(found, terms, source)
        return found

    def _operation(self, operation: Item) -> bool:
        """Whether calls meet it: what it asks for is HTTP's, and no call has it."""
        if not operation:
            operation.source.wrong(
                operation.path, operation.line(), "says nothing: leave `to` out to mean everything"
            )
        met = True
        for name in operation.names():
            word, negate = _positive(name)
            values = operation.words(name)
            if "*" in values and word != "ports":
                met = met and not negate
                continue
            met = bool(self._unasked(operation, name, _OF_HTTP[word])) and met
        return met

    def _unasked(self, item: Item, name: str, why: str) -> list[Terms]:
        item.lost(name, f"{why}: {self._effect}", "serious")
        return ANYBODY if self._widen else NOBODY

    def _condition(self, item: Item) -> list[Terms]:
        key = item.text("key")
        found: list[Terms] = ANYBODY
        if not item.has("values") and not item.has("notValues"):
            item.source.wrong(item.path, item.line(), "asks for nothing: give it values or notValues")
        for name, negate in (("values", False), ("notValues", True)):
            if item.has(name):
                found = self._and(found, self._asked(item, key, name, negate=negate), item)
        return found

    def _asked(self, item: Item, key: str, name: str, *, negate: bool) -> list[Terms]:
        values, said = item.words(name), self._said(item, name)
        if (header := _HEADER.fullmatch(key)) is not None:
            if reason := header_name(header[1]):
                return self._unasked(item, "key", f"{header[1][:80]} {reason}")
            return texts_of("headers", header[1].lower(), values, said, negate=negate, widen=self._widen)
        if (claim := _CLAIM.fullmatch(key)) is not None:
            path = claim[1][1:-1].replace("][", ".")
            return texts_of("claims", path, values, said, negate=negate, widen=self._widen)
        if key in ("request.auth.audiences", "request.auth.presenter"):
            path = "aud" if key.endswith("audiences") else "azp"
            return texts_of("claims", path, values, said, negate=negate, widen=self._widen)
        if key == "request.auth.principal":
            return tokens_of(values, self._issuers, said, negate=negate, widen=self._widen)
        if key == "source.namespace":
            return namespaces_of(values, self._namespace, said, negate=negate, widen=self._widen)
        if key in ("source.principal", "source.serviceAccount"):
            accounts = key.endswith("Account")
            return callers_of(
                values, self._namespace, said, negate=negate, widen=self._widen, accounts=accounts
            )
        if key in _NOT_ASKED or key.startswith("experimental."):
            return self._unasked(item, name, _NOT_ASKED.get(key, "there is no Envoy to ask"))
        item.source.wrong(
            item.at("key"), item.line("key"), f"{key[:60]!a} is no attribute; {hint(key, _KEYS)}"
        )
        return NOBODY


def _positive(name: str) -> tuple[str, bool]:
    """The field without its `not`, and whether it had one."""
    return (f"{name[3].lower()}{name[4:]}", True) if name.startswith("not") else (name, False)


def _written(terms: Terms) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, value in terms.items():
        if field in ("callers", "notCallers"):
            found[field] = list(value)
        else:
            found[field] = {
                name: condition["exact"] if tuple(condition) == ("exact",) else condition
                for name, condition in value.items()
            }
    return found

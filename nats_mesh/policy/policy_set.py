"""All policies of one moment, and what they come to for one target.

Policies are indexed by what they are about, so that a question costs the same whatever else is in the set. It is
asked once per target when policies change, and never by a call; where nothing changed for a target, the answer is
the very object that the set before gave, and so whatever was built from it can stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import UNSET

from nats_mesh.core.rules import ConcurrencyRules
from nats_mesh.errors import ConfigError
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.fields import fields_of
from nats_mesh.policy.inert import Inert
from nats_mesh.policy.layering import BLOCKS, Layers
from nats_mesh.policy.problems import Problems, later_text, place
from nats_mesh.policy.rules import DEFAULT, InboundRules, OutboundRules, same_rules
from nats_mesh.policy.schema import Concurrency, Destination, DestinationSpec, Limit, LimitSpec, Route

__all__ = ["PolicySet"]

#: How many answers a set keeps, in each direction; the oldest is forgotten first.
MAX_ANSWERS = 10_000

_Answer = TypeVar("_Answer", OutboundRules, InboundRules)
#: What a policy is about: ("", "") the namespace, (service, "") a service, (service, endpoint) one endpoint.
_Scope = tuple[str, str]

_OUTBOUND = tuple(f for f in fields_of(DestinationSpec).values() if f.name not in ("target", "subsets"))


class PolicySet:
    """Policies of one namespace; never changes. Build it with :meth:`of`, or take :meth:`empty`.

    ``revision`` names the content: the same policies have the same one, whatever file they stand in.
    """

    def __init__(
        self, policies: tuple[Policy, ...], problems: Problems, *, namespace: str, before: PolicySet | None
    ) -> None:
        self.namespace = namespace
        self.policies = policies
        self.revision = _revision(policies)
        self._destinations: dict[_Scope, Policy] = {}
        self._routes: dict[_Scope, Policy] = {}
        self._limits: dict[_Scope, list[Policy]] = {}
        self._outbound: _Answers[OutboundRules] = _Answers(None if before is None else before._outbound)
        self._inbound: _Answers[InboundRules] = _Answers(None if before is None else before._inbound)
        self._index(problems)
        self._check(problems)

    @classmethod
    def of(
        cls, policies: Iterable[Policy], *, namespace: str = "default", before: PolicySet | None = None
    ) -> PolicySet:
        """The set of those ``policies`` that hold in ``namespace``; everything wrong with it is one
        :class:`~nats_mesh.errors.PolicyError`. ``before`` is the set that this one replaces."""
        problems = Problems()
        found = cls.collect(policies, problems, namespace=namespace, before=before)
        problems.raise_if_any()
        return found

    @classmethod
    def collect(
        cls,
        policies: Iterable[Policy],
        problems: Problems,
        *,
        namespace: str = "default",
        before: PolicySet | None = None,
    ) -> PolicySet:
        """As :meth:`of`, for whoever has problems of his own to report with those of the set. Where there are any,
        the set is good for nothing."""
        every = tuple(policies)
        _check_names(every, problems)

        def within(name: str) -> tuple[Policy, ...]:
            return tuple(policy for policy in every if _namespace(policy, name) == name)

        for other in {_namespace(policy, namespace) for policy in every} - {namespace}:
            cls(within(other), problems, namespace=other, before=None)  # for its problems alone
        return cls(within(namespace), problems, namespace=namespace, before=before)

    @classmethod
    def empty(cls, *, namespace: str = "default", before: PolicySet | None = None) -> PolicySet:
        """The set without a policy: the mesh's defaults."""
        return cls((), Problems(), namespace=namespace, before=before)

    def __len__(self) -> int:
        return len(self.policies)

    def __repr__(self) -> str:
        return f"<PolicySet {self.revision}: {len(self)} policies in {self.namespace}>"

    def outbound(self, service: str, endpoint: str, caller: str) -> OutboundRules:
        """What ``caller`` does on its way to ``service.endpoint``. Every caller gets the same as long as no kind of
        policy tells callers apart."""
        return self._outbound.answer((service, endpoint), self._compile_outbound)

    def inbound(self, service: str, endpoint: str) -> InboundRules:
        """What an instance of ``service`` does with calls of ``endpoint``."""
        return self._inbound.answer((service, endpoint), self._compile_inbound)

    def endpoints(self, service: str) -> frozenset[str]:
        """The endpoints of ``service`` that policies name."""
        named = (scope for table in (self._destinations, self._routes, self._limits) for scope in table)
        return frozenset(endpoint for whose, endpoint in named if whose == service and endpoint)

    def outbound_sources(self, service: str, endpoint: str, caller: str) -> Mapping[str, str]:
        """Where every value of :meth:`outbound` comes from, with the lines of this very set: an answer
        that the set before gave, too, still names the lines of its time."""
        return self._compile_outbound((service, endpoint)).sources

    def inbound_sources(self, service: str, endpoint: str) -> Mapping[str, str]:
        """Where every value of :meth:`inbound` comes from, with the lines of this very set."""
        return self._compile_inbound((service, endpoint)).sources

    def _index(self, problems: Problems) -> None:
        for policy in self.policies:
            document = policy.document
            for scope in _scopes(policy):
                if isinstance(document, Limit):
                    self._limits.setdefault(scope, []).append(policy)
                    continue
                index = self._destinations if isinstance(document, Destination) else self._routes
                other = index.setdefault(scope, policy)
                if other is not policy:
                    problems.add(
                        f"{policy.name} and {other.name} ({other.place}) are both about {_said(scope)}: "
                        "put them into one",
                        file=policy.file,
                        line=policy.line,
                        path="spec.target",
                    )
            if isinstance(document, Destination) and document.spec.subsets is not UNSET:
                problems.add(
                    f"{later_text('selections of instances to route to')}; remove them",
                    file=policy.file,
                    line=policy.lines.get("spec.subsets", policy.line),
                    path="spec.subsets",
                )

    def _check(self, problems: Problems) -> None:
        """Make the rules of every scope once: what is refused only in company is found before it holds anywhere, and
        so is what has no effect there."""
        inert = Inert()
        for service, endpoint in {*self._destinations, *self._routes}:
            layers = self._layers(service, endpoint)
            self._rules(layers, problems)
            inert.look(layers)
            if any(scope in self._routes for scope in _around(service, endpoint)):
                self._rules(self._layers(service, endpoint, routes=False), problems)
        inert.report(problems)
        for policy in self.policies:
            if isinstance(policy.document, Limit):
                said = _concurrency_of(policy)
                try:
                    ConcurrencyRules(limit=None if said.limit is UNSET else said.limit)
                except ConfigError as error:
                    path, _, reason = str(error).partition(": ")
                    line = policy.lines.get(f"spec.{path}", policy.line)
                    problems.add(reason, file=policy.file, line=line, path=f"spec.{path}")

    def _layers(self, service: str, endpoint: str, *, routes: bool = True) -> Layers:
        layers = Layers()
        for scope in _around(service, endpoint):
            if (policy := self._destinations.get(scope)) is not None:
                layers.add(policy, policy.document.spec, "spec.")
        for scope in _around(service, endpoint) if routes else ():
            policy = self._routes.get(scope)
            if policy is not None and isinstance(policy.document, Route):
                for index, rule in enumerate(policy.document.spec.rules[:1]):
                    layers.add(policy, rule, f"spec.rules[{index}].")
        return layers

    def _rules(self, layers: Layers, problems: Problems) -> dict[str, Any]:
        return {block.attribute: layers.rules(block, problems) for block in BLOCKS}

    def _compile_outbound(self, scope: _Scope) -> OutboundRules:
        service, endpoint = scope
        layers = self._layers(service, endpoint)
        return OutboundRules(
            timeout_s=layers.value("timeout"),
            idempotent=layers.value("idempotent"),
            sources=dict(layers.sources(_OUTBOUND)),
            **self._rules(layers, Problems()),
        )

    def _compile_inbound(self, scope: _Scope) -> InboundRules:
        least: tuple[int, Policy] | None = None
        leave: tuple[bool, Policy] | None = None
        lowers = True
        for around in _around(*scope):
            for policy in self._limits.get(around, ()):
                said = _concurrency_of(policy)
                if said.limit is not UNSET:
                    lowers = lowers and not around[1]
                    if least is None or said.limit < least[0]:
                        least = said.limit, policy
                if said.leave_queue is not UNSET:
                    leave = said.leave_queue, policy
        rules = ConcurrencyRules(
            limit=None if least is None else least[0],
            leave_queue=leave is not None and leave[0],
            lowers=least is not None and lowers,
        )
        sources = {
            "concurrency.limit": _source(None if least is None else least[1], "spec.concurrency.limit"),
            "concurrency.leaveQueue": _source(
                None if leave is None else leave[1], "spec.concurrency.leaveQueue"
            ),
        }
        return InboundRules(concurrency=rules if least or leave else None, sources=sources)


class _Answers(Generic[_Answer]):
    """The answers of one set in one direction, and those of the sets before that may still hold."""

    def __init__(self, before: _Answers[_Answer] | None) -> None:
        self._now: dict[_Scope, _Answer] = {}
        self._before: dict[_Scope, _Answer] = {}
        if before is not None:  # a copy: whoever asks the set before may do so on another thread
            earlier = {**before._before, **before._now}
            self._before = dict(list(earlier.items())[-MAX_ANSWERS:])

    def answer(self, scope: _Scope, compile_: Callable[[_Scope], _Answer]) -> _Answer:
        """What this set says about ``scope``: always the same object, and the one from before where it still holds."""
        found = self._now.get(scope)
        if found is None:
            found = compile_(scope)
            earlier = self._before.pop(scope, None)
            if earlier is not None and same_rules(earlier, found):
                found = earlier
            if len(self._now) >= MAX_ANSWERS:
                del self._now[next(iter(self._now))]
            self._now[scope] = found
        return found


def _revision(policies: Iterable[Policy]) -> str:
    every = sorted((p.name, msgspec.json.encode(p.document, order="sorted")) for p in policies)
    return hashlib.sha256(b"\n".join(encoded for _, encoded in every)).hexdigest()[:16]


def _namespace(policy: Policy, otherwise: str) -> str:
    said = policy.document.metadata.namespace
    return otherwise if said is UNSET else said


def _check_names(policies: Iterable[Policy], problems: Problems) -> None:
    seen: dict[tuple[str, str], Policy] = {}
    for policy in policies:
        other = seen.setdefault((_namespace(policy, ""), policy.name), policy)
        if other is not policy:
            line = policy.lines.get("metadata.name", policy.line)
            message = f"{policy.name} stands at {other.place}, too: give one of them another name"
            problems.add(message, file=policy.file, line=line, path="metadata.name")


def _scopes(policy: Policy) -> list[_Scope]:
    target = policy.document.spec.target
    if target is UNSET or target.service is UNSET:
        return [("", "")]
    service = target.service
    return [(service, "")] if target.endpoints is UNSET else [(service, name) for name in target.endpoints]


def _around(service: str, endpoint: str) -> tuple[_Scope, ...]:
    """The scopes a target lies in, from the least to the most specific, each once."""
    if not service:
        return (("", ""),)
    return (("", ""), (service, ""), (service, endpoint)) if endpoint else (("", ""), (service, ""))


def _said(scope: _Scope) -> str:
    return ".".join(part for part in scope if part) or "the whole namespace"


def _source(policy: Policy | None, path: str) -> str:
    if policy is None:
        return DEFAULT
    where = place(policy.file, policy.lines.get(path, policy.line)) if policy.file else ""
    return f"{policy.name} ({where})" if where else policy.name


def _concurrency_of(policy: Policy) -> Concurrency:
    spec = policy.document.spec
    assert isinstance(spec, LimitSpec)
    return spec.concurrency

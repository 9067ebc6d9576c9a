"""All policies of one moment, and what they come to for one target.

Policies are indexed by what they are about, so that a question costs the same whatever else is in the set. It is
asked once per target when policies change, and never by a call; where nothing changed for a target, the answer is
the very object that the set before gave, and so whatever was built from it can stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import UNSET

from nats_mesh.core.router import Leg, Mirror, Rule, relevant
from nats_mesh.core.rules import ConcurrencyRules, SubsetRules
from nats_mesh.errors import ConfigError
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.fields import fields_of
from nats_mesh.policy.inert import Inert
from nats_mesh.policy.layering import BLOCKS, Layers
from nats_mesh.policy.layerless import layerless
from nats_mesh.policy.problems import Problems, hint, later_text, place
from nats_mesh.policy.rollout_parts import Rollout
from nats_mesh.policy.routing import rules_of, subsets_of
from nats_mesh.policy.rules import DEFAULT, InboundRules, OutboundRules, same_rules
from nats_mesh.policy.schema import Concurrency, Destination, DestinationSpec, Limit, LimitSpec, Route
from nats_mesh.policy.scopes import Scope, Via, around, around_subset, namespace_of, scopes_of, subset_of

__all__ = ["PolicySet"]

#: How many answers a set keeps, in each direction; the oldest is forgotten first.
MAX_ANSWERS = 10_000

_Answer = TypeVar("_Answer", OutboundRules, InboundRules)
_Key = tuple[str, ...]

_OUTBOUND = tuple(
    field
    for field in fields_of(DestinationSpec).values()
    if field.name not in ("target", "subsets", *DestinationSpec.later)
)


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
        self._destinations: dict[tuple[str, str, str], Policy] = {}
        self._routes: dict[Scope, Policy] = {}
        self._rules_of: dict[Scope, tuple[Rule, ...]] = {}
        self._subsets: dict[str, dict[str, SubsetRules]] = {}
        self._limits: dict[Scope, list[Policy]] = {}
        self._rollouts: dict[str, Policy] = {}
        self._outbound: _Answers[OutboundRules] = _Answers(None if before is None else before._outbound)
        self._inbound: _Answers[InboundRules] = _Answers(None if before is None else before._inbound)
        self._index(problems)
        self._tells_callers_apart = any(
            match.callers for rules in self._rules_of.values() for rule in rules for match in rule.matches
        )
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
            return tuple(policy for policy in every if namespace_of(policy, name) == name)

        for other in {namespace_of(policy, namespace) for policy in every} - {namespace}:
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

    def outbound(
        self, service: str, endpoint: str, caller: str, *, subset: str = "", via: Via | None = None
    ) -> OutboundRules:
        """What ``caller`` does on its way to ``service.endpoint``.

        Where routes ask something of each call, the answer has them as ``routing``, and no values of theirs; what then
        holds for calls that have met the rules ``via`` and go to ``subset`` is another question.
        """
        whose = caller if self._tells_callers_apart else ""
        key = (service, endpoint, whose, subset, *(() if via is None else (repr(via),)))
        return self._outbound.answer(
            key, lambda: self._compile_outbound(service, endpoint, caller, subset, via)
        )

    def inbound(self, service: str, endpoint: str) -> InboundRules:
        """What an instance of ``service`` does with calls of ``endpoint``."""
        return self._inbound.answer((service, endpoint), lambda: self._compile_inbound((service, endpoint)))

    def subsets(self, service: str) -> Mapping[str, SubsetRules]:
        """The subsets of ``service`` by their names."""
        return self._subsets.get(service, {})

    def routes(self, service: str, endpoint: str) -> tuple[tuple[str, tuple[Rule, ...]], ...]:
        """Every route that is about ``service.endpoint``, whoever calls: where it stands, and all its rules; the least
        specific first. What of it a caller's calls can meet is in :meth:`outbound`."""
        return tuple(
            [
                (_source(self._routes[scope], "spec.rules"), self._rules_of[scope])
                for scope in around(service, endpoint)
                if scope in self._rules_of
            ]
        )

    def rule_source(self, rule: Rule) -> str:
        """Where a rule of :meth:`outbound`'s ``routing`` stands: the route, with the place of the rule."""
        return _source(self._routes[rule.scope], f"spec.rules[{rule.index}]")

    def all_rules(self) -> tuple[Rule, ...]:
        """Every rule of every route."""
        return tuple([rule for rules in self._rules_of.values() for rule in rules])

    def all_subsets(self) -> frozenset[tuple[str, SubsetRules]]:
        """Every subset of every service."""
        return frozenset(
            (service, rules) for service, found in self._subsets.items() for rules in found.values()
        )

    def routed_subsets(self) -> frozenset[tuple[str, str]]:
        """The subsets, as service and name, to which any route sends calls."""
        return frozenset(
            (service, subset)
            for scope, rules in self._rules_of.items()
            for rule in rules
            for service, subset in _aims(rule, scope[0])
            if subset
        )

    def with_routes_of(self, before: PolicySet) -> PolicySet:
        """These policies, with the routes of ``before`` in the place of their own: for as long as what new routes
        lead to has not been heard of everywhere. A route of then that would lead nowhere now is left out."""
        routes = [policy for policy in before.policies if isinstance(policy.document, Route)]
        kept = [policy for policy in self.policies if not isinstance(policy.document, Route)]
        known = {(service, name) for service, found in self._subsets.items() for name in found}
        for policy in routes:
            scopes = scopes_of(policy)
            aims = {
                aim
                for scope in scopes
                for rule in before._rules_of[scope]
                for aim in _aims(rule, scope[0])
                if aim[1]
            }
            if aims <= known:
                kept.append(policy)
        return PolicySet.of(kept, namespace=self.namespace, before=before)

    def endpoints(self, service: str) -> frozenset[str]:
        """The endpoints of ``service`` that policies name."""
        named = {scope[:2] for table in (self._destinations, self._routes, self._limits) for scope in table}
        return frozenset(scope[1] for scope in named if scope[0] == service and scope[1])

    def outbound_sources(
        self, service: str, endpoint: str, caller: str, *, subset: str = "", via: Via | None = None
    ) -> Mapping[str, str]:
        """Where every value of :meth:`outbound` comes from, with the lines of this very set: an answer
        that the set before gave, too, still names the lines of its time."""
        return self._compile_outbound(service, endpoint, caller, subset, via).sources

    def inbound_sources(self, service: str, endpoint: str) -> Mapping[str, str]:
        """Where every value of :meth:`inbound` comes from, with the lines of this very set."""
        return self._compile_inbound((service, endpoint)).sources

    def _index(self, problems: Problems) -> None:
        for policy in self.policies:
            document = policy.document
            for path, what in layerless(policy):
                line = policy.lines.get(path, policy.line)
                it = "the document" if path == "kind" else "it"
                problems.add(f"{later_text(what)}; remove {it}", file=policy.file, line=line, path=path)
            if isinstance(document, Rollout):
                self._claim_rollout(policy, document, problems)
            if not isinstance(document, Destination | Route | Limit):
                continue  # no affair of a caller or an instance
            for scope in scopes_of(policy):
                if isinstance(document, Limit):
                    self._limits.setdefault(scope, []).append(policy)
                elif isinstance(document, Destination):
                    subset = subset_of(policy)
                    self._claim(
                        policy,
                        self._destinations.setdefault((*scope, subset), policy),
                        scope,
                        subset,
                        problems,
                    )
                else:
                    self._claim(policy, self._routes.setdefault(scope, policy), scope, "", problems)
                    if (
                        self._routes[scope] is policy
                    ):  # of two about the same, which is told, the first counts
                        self._rules_of[scope] = rules_of(document.spec, scope)
            if isinstance(document, Destination) and document.spec.subsets is not UNSET:
                self._subsets[scopes_of(policy)[0][0]] = subsets_of(document.spec)

    def _claim(self, policy: Policy, holder: Policy, scope: Scope, subset: str, problems: Problems) -> None:
        if holder is not policy:
            problems.add(
                f"{policy.name} and {holder.name} ({holder.place}) are both about {_said(scope, subset)}: "
                "put them into one",
                file=policy.file,
                line=policy.line,
                path="spec.target",
            )

    def _claim_rollout(self, policy: Policy, rollout: Rollout, problems: Problems) -> None:
        service = rollout.spec.target.service
        holder = policy if service is UNSET else self._rollouts.setdefault(service, policy)
        if holder is not policy:
            problems.add(
                f"{policy.name} and {holder.name} ({holder.place}) are both about {service}: a service has one",
                file=policy.file,
                line=policy.line,
                path="spec.target",
            )

    def _check(self, problems: Problems) -> None:
        """Make the rules of every scope once: what is refused only in company is found before it holds anywhere, and
        so is what has no effect there."""
        inert = Inert()
        for service, endpoint, subset in sorted(
            {*self._destinations, *((*scope, "") for scope in self._routes)}
        ):
            layers = self._layers(service, endpoint, subset, ())
            self._rules(layers, problems)
            inert.look(layers)
        for scope, rules in self._rules_of.items():
            for rule in rules:
                layers = self._layers(*scope, "", ((scope, rule.index),))
                self._rules(layers, problems)
                inert.look(layers)
                self._check_aims(self._routes[scope], rule, problems)
        inert.report(problems)
        for policy in self.policies:
            subset = subset_of(policy)
            if subset and isinstance(policy.document, Destination):
                self._check_subset(policy, scopes_of(policy)[0][0], subset, "spec.target.subset", problems)
            if isinstance(policy.document, Limit):
                self._check_limit(policy, problems)
            if isinstance(policy.document, Rollout):
                spec = policy.document.spec
                for path, subset in (("spec.from", spec.from_), ("spec.to", spec.to)):
                    self._check_subset(policy, scopes_of(policy)[0][0], subset, path, problems)

    def _check_aims(self, policy: Policy, rule: Rule, problems: Problems) -> None:
        """Every subset that a rule leads to must be one."""
        own = rule.scope[0]
        every: dict[str, Sequence[Leg | Mirror]] = {"split": rule.legs or (), "mirror": rule.mirrors or ()}
        for field, aims in every.items():
            for index, aim in enumerate(aims):
                if aim.subset:
                    path = f"spec.rules[{rule.index}].{field}[{index}].subset"
                    if path not in policy.lines:
                        path = f"spec.rules[{rule.index}].{field}.subset"
                    self._check_subset(policy, aim.service or own, aim.subset, path, problems)

    def _check_subset(self, policy: Policy, service: str, subset: str, path: str, problems: Problems) -> None:
        known = self._subsets.get(service, {})
        if subset in known:
            return
        if not service:
            reason = f"subset {subset} of which service? Name the service beside it, or in the target"
        elif known:
            reason = f"{service} has no subset {subset}; {hint(subset, known)}"
        else:
            reason = f"no Destination names subsets of {service}: add one with {subset}"
        line = policy.lines.get(path, policy.line)
        problems.add(reason, file=policy.file, line=line, path=path)

    def _check_limit(self, policy: Policy, problems: Problems) -> None:
        said = _concurrency_of(policy)
        try:
            ConcurrencyRules(limit=None if said.limit is UNSET else said.limit)
        except ConfigError as error:
            path, _, reason = str(error).partition(": ")
            line = policy.lines.get(f"spec.{path}", policy.line)
            problems.add(reason, file=policy.file, line=line, path=f"spec.{path}")

    def _layers(self, service: str, endpoint: str, subset: str, via: Via) -> Layers:
        """What destinations say, and above it the rules of routes that a call has met."""
        layers = Layers()
        for scope in around_subset(service, endpoint, subset):
            if (policy := self._destinations.get(scope)) is not None:
                layers.add(policy, policy.document.spec, "spec.")
        for where, index in via:
            policy = self._routes.get(where)
            if policy is not None and isinstance(policy.document, Route):
                layers.add(policy, policy.document.spec.rules[index], f"spec.rules[{index}].")
        return layers

    def _rules(self, layers: Layers, problems: Problems) -> dict[str, Any]:
        return {block.attribute: layers.rules(block, problems) for block in BLOCKS}

    def _routing(self, service: str, endpoint: str, caller: str) -> tuple[tuple[Rule, ...], ...]:
        """The rules that calls may meet, of each route that is about them, the least specific route first."""
        found = [
            relevant(self._rules_of[scope], caller, endpoint)
            for scope in around(service, endpoint)
            if scope in self._rules_of
        ]
        return tuple([rules for rules in found if rules])

    def _compile_outbound(
        self, service: str, endpoint: str, caller: str, subset: str, via: Via | None
    ) -> OutboundRules:
        routing: tuple[tuple[Rule, ...], ...] = ()
        if via is None:
            routing = self._routing(service, endpoint, caller)
            if all(not rules[0].matches and not rules[0].routes for rules in routing):
                # Every call meets the same rules, and all of them go where they would have gone.
                via = tuple([(rules[0].scope, rules[0].index) for rules in routing])
                routing = ()
            else:
                via = ()
        layers = self._layers(service, endpoint, subset, via)
        return OutboundRules(
            timeout_s=layers.value("timeout"),
            idempotent=layers.value("idempotent"),
            sources=dict(layers.sources(_OUTBOUND)),
            subset=self._subsets.get(service, {}).get(subset) if subset else None,
            routing=routing,
            **self._rules(layers, Problems()),
        )

    def _compile_inbound(self, scope: Scope) -> InboundRules:
        least: tuple[int, Policy] | None = None
        leave: tuple[bool, Policy] | None = None
        lowers = True
        for where in around(*scope):
            for policy in self._limits.get(where, ()):
                said = _concurrency_of(policy)
                if said.limit is not UNSET:
                    lowers = lowers and not where[1]
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
        self._now: dict[_Key, _Answer] = {}
        self._before: dict[_Key, _Answer] = {}
        if before is not None:  # a copy: whoever asks the set before may do so on another thread
            earlier = {**before._before, **before._now}
            self._before = dict(list(earlier.items())[-MAX_ANSWERS:])

    def answer(self, key: _Key, compile_: Callable[[], _Answer]) -> _Answer:
        """What this set says about ``key``: always the same object, and the one from before where it still holds."""
        found = self._now.get(key)
        if found is None:
            found = compile_()
            earlier = self._before.pop(key, None)
            if earlier is not None and same_rules(earlier, found):
                found = earlier
            if len(self._now) >= MAX_ANSWERS:
                del self._now[next(iter(self._now))]
            self._now[key] = found
        return found


def _revision(policies: Iterable[Policy]) -> str:
    every = sorted((p.name, msgspec.json.encode(p.document, order="sorted")) for p in policies)
    return hashlib.sha256(b"\n".join(encoded for _, encoded in every)).hexdigest()[:16]


def _check_names(policies: Iterable[Policy], problems: Problems) -> None:
    seen: dict[tuple[str, str], Policy] = {}
    for policy in policies:
        other = seen.setdefault((namespace_of(policy, ""), policy.name), policy)
        if other is not policy:
            line = policy.lines.get("metadata.name", policy.line)
            message = f"{policy.name} stands at {other.place}, too: give one of them another name"
            problems.add(message, file=policy.file, line=line, path="metadata.name")


def _aims(rule: Rule, service: str) -> list[tuple[str, str]]:
    """Where a rule leads, as service and subset; ``service`` is what its route is about."""
    legs = [(leg.service or service, leg.subset) for leg in rule.legs or ()]
    return legs + [(mirror.service or service, mirror.subset) for mirror in rule.mirrors or ()]


def _said(scope: Scope, subset: str = "") -> str:
    about = ".".join(part for part in scope if part) or "the whole namespace"
    return f"subset {subset} of {about}" if subset else about


def _source(policy: Policy | None, path: str) -> str:
    if policy is None:
        return DEFAULT
    where = place(policy.file, policy.lines.get(path, policy.line)) if policy.file else ""
    return f"{policy.name} ({where})" if where else policy.name


def _concurrency_of(policy: Policy) -> Concurrency:
    spec = policy.document.spec
    assert isinstance(spec, LimitSpec)
    return Concurrency() if spec.concurrency is UNSET else spec.concurrency

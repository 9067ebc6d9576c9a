"""All policies of one moment, and what they come to for one target.

Policies are indexed by what they are about, so that a question costs the same whatever else is in the set. It is
asked once per target when policies change, and never by a call; where nothing changed for a target, the answer is
the very object that the set before gave, and so whatever was built from it can stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import UNSET

from nats_mesh.core.router import Rule, relevant
from nats_mesh.core.rules import ConcurrencyRules, SubsetRules
from nats_mesh.core.telemetry_rules import TelemetryRules
from nats_mesh.policy.answers import Answers, Key
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.fields import fields_of
from nats_mesh.policy.group import (
    Group,
    aims_of,
    check_aims,
    check_group,
    concurrency_of,
    layers_in,
    made_of,
)
from nats_mesh.policy.increments import (
    SUM_BYTES,
    Change,
    Names,
    about,
    check_names,
    difference,
    has_rules,
    has_subsets,
    has_telemetry,
    less_selecting,
    refreshed,
    regrouped,
    renamed,
    summed,
)
from nats_mesh.policy.inert import Idle
from nats_mesh.policy.layering import Layers
from nats_mesh.policy.problems import Problems
from nats_mesh.policy.rules import DEFAULT, InboundRules, OutboundRules, source_text
from nats_mesh.policy.schema import Destination, DestinationSpec, Limit, Route
from nats_mesh.policy.scopes import Place, Scope, Via, around, namespace_of, scopes_of
from nats_mesh.policy.telemetry import telemetry_rules
from nats_mesh.policy.telemetry_parts import Telemetry

__all__ = ["PolicySet"]

_OUTBOUND = tuple(
    field
    for field in fields_of(DestinationSpec).values()
    if field.name not in ("target", "subsets", *DestinationSpec.later)
)


class PolicySet:
    """Policies of one namespace; never changes. Build it with :meth:`of`, or take :meth:`empty`.

    ``revision`` names the content: the same policies have the same one, whatever file they stand in, and in whatever
    order. A set that follows another one takes over what the change does not concern: see
    :mod:`nats_mesh.policy.group` for what depends on what. It comes to exactly what it would come to alone.
    """

    def __init__(
        self,
        policies: tuple[Policy, ...],
        problems: Problems,
        *,
        namespace: str,
        before: PolicySet | None,
        base: PolicySet | None,
        change: Change,
        names: Names | None,
    ) -> None:
        self.namespace = namespace
        self.policies = policies
        #: Whether nothing is wrong with it: only then what follows it need not be looked at as a whole.
        self._sound: bool
        self._groups: dict[str, Group]
        self._routed: dict[str, Group]
        self._selecting: dict[str, Group]
        self._told: dict[str, Group]
        self._sum: int
        concerned = {about(policy) for policy in (*change.come, *change.gone)}
        everywhere = {type(policy.document) for policy in (*change.come, *change.gone) if not about(policy)}
        found = Problems()
        self._groups = regrouped(None if base is None else base._groups, policies, change, concerned, found)
        #: Those of them that have routes, and those that name subsets; most have neither.
        self._routed = refreshed(None if base is None else base._routed, self._groups, concerned, has_rules)
        self._selecting = refreshed(
            None if base is None else base._selecting, self._groups, concerned, has_subsets
        )
        self._told = refreshed(None if base is None else base._told, self._groups, concerned, has_telemetry)
        #: Whether any policy says what is told of calls; where none does, nobody needs to ask for one of them.
        self.telling = bool(self._told)
        self._tells_callers_apart = any(group.tells_callers_apart for group in self._routed.values())
        #: Of what the destination for all services says: what has an effect in which service, and what has none as
        #: it stands.
        self._effects: dict[str, frozenset[str]] = {} if base is None else base._effects.copy()
        self._idle: tuple[Idle, ...] = () if base is None else base._idle
        self._check(
            concerned if base is not None and Destination not in everywhere else {*self._groups, *concerned},
            set() if base is None else less_selecting(base._groups, self._groups, concerned),
            found,
        )
        self._sum = summed(0 if base is None else base._sum, change)
        self.revision = hashlib.sha256(self._sum.to_bytes(SUM_BYTES, "big")).hexdigest()[:16]
        self._names = names
        self._sound = not len(found) and names is not None
        problems.take(found)
        self._answer_like(before, base, concerned, everywhere)
        self._every_subset: frozenset[tuple[str, SubsetRules]] | None = None
        self._rule_names: Mapping[Place, str] | None = None
        if base is not None and all(base.subsets(name) == self.subsets(name) for name in concerned):
            self._every_subset = base._every_subset

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
        base = before if before is not None and before._sound and before.namespace == namespace else None
        change = None if base is None else difference(base.policies, every)
        if base is not None and base._names is not None and change is not None:
            names = renamed(base._names, change, namespace)
            if names is not None:
                return cls(
                    every,
                    problems,
                    namespace=namespace,
                    before=before,
                    base=base,
                    change=change,
                    names=names,
                )
        return cls._anew(every, problems, namespace=namespace, before=before)

    @classmethod
    def _anew(
        cls, every: tuple[Policy, ...], problems: Problems, *, namespace: str, before: PolicySet | None
    ) -> PolicySet:
        """A set that can take over nothing but answers."""
        names = check_names(every, problems)
        by_namespace: dict[str, list[Policy]] = {namespace: []}
        for policy in every:
            by_namespace.setdefault(namespace_of(policy, namespace), []).append(policy)
        if len(by_namespace) > 1:
            names = None
        found: dict[str, PolicySet] = {}
        for name, those in reversed(
            by_namespace.items()
        ):  # those of other namespaces for their problems alone
            found[name] = cls(
                tuple(those),
                problems,
                namespace=name,
                before=before if name == namespace else None,
                base=None,
                change=Change(those, ()),
                names=names,
            )
        return found[namespace]

    @classmethod
    def empty(cls, *, namespace: str = "default", before: PolicySet | None = None) -> PolicySet:
        """The set without a policy: the mesh's defaults."""
        return cls.collect((), Problems(), namespace=namespace, before=before)

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
        key = (service, endpoint, whose, subset, via)
        return self._outbound.answer(
            key, lambda: self._compile_outbound(service, endpoint, caller, subset, via)
        )

    def inbound(self, service: str, endpoint: str) -> InboundRules:
        """What an instance of ``service`` does with calls of ``endpoint``."""
        return self._inbound.answer(
            (service, endpoint, "", "", None), lambda: self._compile_inbound((service, endpoint))
        )

    def telemetry(self, service: str, endpoint: str) -> TelemetryRules:
        """What both sides tell of calls of ``service.endpoint``; without an endpoint, of those of the whole service."""
        return self._telemetry.answer(
            (service, endpoint, "", "", None), lambda: self._compile_telemetry(service, endpoint)
        )

    def logging(self) -> bool:
        """Whether any policy asks for an access log, of any calls."""
        return any(
            telemetry_rules([policy]).access_log is not None
            for group in self._told.values()
            for policy in group.telemetry.values()
        )

    def subsets(self, service: str) -> Mapping[str, SubsetRules]:
        """The subsets of ``service`` by their names."""
        group = self._groups.get(service)
        return {} if group is None else group.subsets

    def routes(self, service: str, endpoint: str) -> tuple[tuple[str, tuple[Rule, ...]], ...]:
        """Every route that is about ``service.endpoint``, whoever calls: where it stands, and all its rules; the least
        specific first. What of it a caller's calls can meet is in :meth:`outbound`."""
        return tuple(
            [
                (group.routes[where].source_of("spec.rules"), group.rules[where])
                for group, where in self._routes_around(service, endpoint)
            ]
        )

    def rule_name(self, rule: Rule) -> str:
        """What a rule of :meth:`outbound`'s ``routing`` is called: `Route/orders rules[1]`."""
        return f"{self._route_of(rule).name} {rule.place}"

    def rule_source(self, rule: Rule) -> str:
        """Its name, and where it stands: `Route/orders rules[1] (orders.yaml:27)`."""
        policy = self._route_of(rule)
        line = policy.lines.get(f"spec.{rule.place}", policy.line)
        return source_text(self.rule_name(rule), policy.file, line)

    def rule_names(self) -> Mapping[Place, str]:
        """The name of every rule by its place, as targets tell by whom they were reached (``via``)."""
        if self._rule_names is None:
            self._rule_names = {(rule.scope, rule.index): self.rule_name(rule) for rule in self.all_rules()}
        return self._rule_names

    def all_rules(self) -> tuple[Rule, ...]:
        """Every rule of every route."""
        groups = [self._routed[name] for name in sorted(self._routed)]
        return tuple([rule for group in groups for rules in group.rules.values() for rule in rules])

    def all_subsets(self) -> frozenset[tuple[str, SubsetRules]]:
        """Every subset of every service."""
        if self._every_subset is None:
            self._every_subset = frozenset(
                [(name, rules) for name, group in self._selecting.items() for rules in group.subsets.values()]
            )
        return self._every_subset

    def routed_subsets(self) -> frozenset[tuple[str, str]]:
        """The subsets, as service and name, to which any route sends calls."""
        return frozenset().union(*[group.aims for group in self._routed.values()])

    def with_routes_of(self, before: PolicySet) -> PolicySet:
        """These policies, with the routes of ``before`` in the place of their own: for as long as what new routes
        lead to has not been heard of everywhere. A route of then that would lead nowhere now is left out."""
        routes = [policy for policy in before.policies if isinstance(policy.document, Route)]
        kept = [policy for policy in self.policies if not isinstance(policy.document, Route)]
        for policy in routes:
            rules = [rule for scope in scopes_of(policy) for rule in before._groups[scope[0]].rules[scope[1]]]
            aims = [aim for rule in rules for aim in aims_of(rule) if aim[1]]
            if all(subset in self.subsets(service) for service, subset in aims):
                kept.append(policy)
        return PolicySet.of(kept, namespace=self.namespace, before=before)

    def endpoints(self, service: str) -> frozenset[str]:
        """The endpoints of ``service`` that policies name."""
        group = self._groups.get(service)
        return frozenset() if group is None else group.endpoints()

    def outbound_sources(
        self, service: str, endpoint: str, caller: str, *, subset: str = "", via: Via | None = None
    ) -> Mapping[str, str]:
        """Where every value of :meth:`outbound` comes from, with the lines of this very set: an answer
        that the set before gave, too, still names the lines of its time."""
        return self._compile_outbound(service, endpoint, caller, subset, via).sources

    def inbound_sources(self, service: str, endpoint: str) -> Mapping[str, str]:
        """Where every value of :meth:`inbound` comes from, with the lines of this very set."""
        return self._compile_inbound((service, endpoint)).sources

    def telemetry_sources(self, service: str, endpoint: str) -> Mapping[str, str]:
        """Where every value of :meth:`telemetry` comes from, with the lines of this very set."""
        return self._compile_telemetry(service, endpoint).sources

    def _check(self, concerned: set[str], less: set[str], problems: Problems) -> None:
        """Look at the groups that are ``concerned``, and at the routes of others that lead to services which have
        ``less`` subsets than before."""
        leading: set[str] = set()
        if less:
            for name, group in self._routed.items():
                if any(service in less for service, _ in group.aims):
                    leading.add(name)
        for name in sorted(concerned | leading):
            if name not in self._groups:
                self._effects.pop(name, None)
            elif name not in concerned:
                check_aims(self._groups, name, problems)
            else:
                used, idle = check_group(self._groups, name, problems)
                if used:
                    self._effects[name] = used
                else:
                    self._effects.pop(name, None)
                if not name:
                    self._idle = idle
        if "" in concerned and "" not in self._groups:
            self._idle = ()
        for each in self._idle:
            if not any(each.path in used for used in self._effects.values()):
                each.note(problems)

    def _answer_like(
        self,
        before: PolicySet | None,
        base: PolicySet | None,
        concerned: set[str],
        everywhere: set[type[Any]],
    ) -> None:
        """What was answered before stays as it is where the change does not concern it; elsewhere it is compared."""

        def unconcerned(key: Key) -> bool:
            via = key[4]
            return key[0] not in concerned and (not via or all(scope[0] not in concerned for scope, _ in via))

        outbound = inbound = telemetry = None if base is None else unconcerned
        if before is None or before._tells_callers_apart != self._tells_callers_apart:
            outbound = None  # it stands under another key
        if not everywhere.isdisjoint((Destination, Route)):
            outbound = None
        if Limit in everywhere:
            inbound = None
        if Telemetry in everywhere:
            telemetry = None
        self._outbound: Answers[OutboundRules] = Answers(
            None if before is None else before._outbound, outbound
        )
        self._inbound: Answers[InboundRules] = Answers(None if before is None else before._inbound, inbound)
        self._telemetry: Answers[TelemetryRules] = Answers(
            None if before is None else before._telemetry, telemetry
        )

    def _layers(self, service: str, endpoint: str, subset: str, via: Via) -> Layers:
        return layers_in(self._groups, service, endpoint, subset, via)

    def _route_of(self, rule: Rule) -> Policy:
        return self._groups[rule.scope[0]].routes[rule.scope[1]]

    def _routes_around(self, service: str, endpoint: str) -> list[tuple[Group, str]]:
        """The groups and endpoints of the routes that are about a target, the least specific first."""
        found = []
        for name, where in around(service, endpoint):
            group = self._routed.get(name)
            if group is not None and where in group.rules:
                found.append((group, where))
        return found

    def _routing(self, service: str, endpoint: str, caller: str) -> tuple[tuple[Rule, ...], ...]:
        """The rules that calls may meet, of each route that is about them, the least specific route first."""
        found = [
            relevant(group.rules[where], caller, endpoint)
            for group, where in self._routes_around(service, endpoint)
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
            subset=self.subsets(service).get(subset) if subset else None,
            routing=routing,
            **made_of(layers, Problems()),
        )

    def _compile_telemetry(self, service: str, endpoint: str) -> TelemetryRules:
        found = []
        for name, where in around(service, endpoint):
            group = self._groups.get(name)
            policy = None if group is None else group.telemetry.get(where)
            if policy is not None:
                found.append(policy)
        return telemetry_rules(found)

    def _compile_inbound(self, scope: Scope) -> InboundRules:
        least: tuple[int, Policy] | None = None
        leave: tuple[bool, Policy] | None = None
        lowers = True
        for name, where in around(*scope):
            group = self._groups.get(name)
            for policy in () if group is None else group.limits.get(where, ()):
                said = concurrency_of(policy)
                if said.limit is not UNSET:
                    lowers = lowers and not where
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
            "concurrency.limit": DEFAULT if least is None else least[1].source_of("spec.concurrency.limit"),
            "concurrency.leaveQueue": (
                DEFAULT if leave is None else leave[1].source_of("spec.concurrency.leaveQueue")
            ),
        }
        return InboundRules(concurrency=rules if least or leave else None, sources=sources)

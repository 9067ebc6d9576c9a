"""What a caller's calls to each destination are made of: its policies, turned into layers once and not per call.

Breakers are kept by destination endpoint, retry budgets by service, instances by service and rules; targets that
differ only in how they were named share them. A change of policies touches the targets whose rules have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias, TypeVar

from nats_mesh.calling.exchange import Effects, Target
from nats_mesh.calling.routing import Routing
from nats_mesh.calling.verdicts import Opinions
from nats_mesh.core.breaker import BreakerState
from nats_mesh.core.budget import RetryBudget
from nats_mesh.core.deadline import DEFAULT_TIMEOUT_S
from nats_mesh.core.hedge import Hedger
from nats_mesh.core.router import Leg, Path, aims
from nats_mesh.core.rules import BalancerRules, BudgetRules, EjectionRules, RetryRules, SubsetRules
from nats_mesh.discovery.fleets import FleetDirectory
from nats_mesh.endpoint import Contract
from nats_mesh.layers.balance import Balance, Group, Keys
from nats_mesh.layers.breaker import Circuit, Tell
from nats_mesh.layers.retry import Retries
from nats_mesh.model import Request
from nats_mesh.policy import OutboundRules, PolicySet
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.wire.subjects import Subjects

__all__ = ["Outbound"]

_MAX_KEPT = 4096

#: Makes a target for a service, an endpoint, the contract its callers know, and a subset (empty: every instance).
MakeTarget: TypeAlias = Callable[[str, str, "Contract | None", str], Target]
#: Service, endpoint, subset.
_Way: TypeAlias = "tuple[str, str, str]"
_GroupKey: TypeAlias = "tuple[str, SubsetRules | None, BalancerRules, EjectionRules]"

K = TypeVar("K")
V = TypeVar("V")


class Outbound:
    """The layers of one caller's targets. ``policies`` is what they follow."""

    def __init__(
        self,
        *,
        caller: str,
        subjects: Subjects,
        fleets: FleetDirectory,
        opinions: Opinions,
        chance: Callable[[], float],
        tell: Tell,
        make: MakeTarget,
        zone: str = "",
        policies: PolicySet | None = None,
    ) -> None:
        self.policies = PolicySet.empty() if policies is None else policies
        self._caller = caller
        self._subjects = subjects
        self._fleets = fleets
        self._opinions = opinions
        self._chance = chance
        self._tell = tell
        self._zone = zone
        self._make = make
        self._circuits: dict[_Way, tuple[OutboundRules, Circuit | None]] = {}
        self._budgets: dict[tuple[str, BudgetRules], RetryBudget] = {}
        self._groups: dict[_GroupKey, Group] = {}
        #: How often an instance of each service was ejected.
        self.ejections: dict[str, int] = {}
        #: The share of the traces that begin with a call of an endpoint which are sampled.
        self.sampling: Callable[[str, str], float] = _none

    def circuits(self) -> list[tuple[str, str, str, BreakerState]]:
        """Every circuit there is: service, endpoint, subset, state."""
        return [
            (*key, circuit.breaker.state)
            for key, (_, circuit) in list(self._circuits.items())
            if circuit is not None
        ]

    def broken(self, now: float) -> list[tuple[str, str, str, BreakerState, float]]:
        """The circuits that are not closed: service, endpoint, subset, state, seconds until one lets a probe pass."""
        return [
            (*key, circuit.breaker.state, circuit.breaker.retry_after_s(now))
            for key, (_, circuit) in list(self._circuits.items())
            if circuit is not None and not circuit.breaker.closed
        ]

    def ejected(self, now: float) -> list[tuple[str, str]]:
        """The instances that get no calls for now: service, instance."""
        return [
            (group.service, each.id)
            for group in list(self._groups.values())
            for each in group.ejector.ejected(now)
        ]

    def _tell_of_instances(self, kind: str, target: str, detail: str) -> None:
        if kind == EventKind.EJECTION_BEGAN and (target in self.ejections or len(self.ejections) < _MAX_KEPT):
            self.ejections[target] = self.ejections.get(target, 0) + 1
        self._tell(kind, target, detail)

    def sample(self, targets: Iterable[Target]) -> None:
        """Ask :attr:`sampling` again."""
        for target in targets:
            if target.mesh:
                target.sampling = self.sampling(target.service, target.endpoint)
                if target.routing is not None:
                    self.sample(target.routing.targets())

    def apply(self, policies: PolicySet, targets: Iterable[Target]) -> None:
        """Follow ``policies`` from now on; calls under way end as they began. Circuits of ways that no call takes any
        more are let go of: no trial would ever close one."""
        self.policies = policies
        used: set[_Way] = set()
        for target in list(targets):
            self.compose(target)
            used |= _ways_of(target)
        for way in [each for each in self._circuits if each not in used]:
            self._let_go(way)

    def compose(self, target: Target) -> None:
        """Put a target's layers together; what has not changed is kept as it is, with its state."""
        if not target.mesh:
            return
        target.sampling = self.sampling(target.service, target.endpoint)
        rules = self.policies.outbound(
            target.service, target.endpoint, self._caller, subset=target.subset, via=target.via
        )
        before = target.rules
        if rules is not before:
            target.rules = rules
            if before is None or before.routing != rules.routing:
                if target.routing is not None:
                    target.routing.close()
                target.routing = self._routing(target, rules) if rules.routing else None
            own = (target.service, target.endpoint, target.subset)
            # The words of others would open the circuit of a way that no call of this caller takes.
            target.circuit = self._circuit(target, rules) if own in _ways_of(target) else None
            if before is None or before.retry != rules.retry:
                target.retries = self._retries(target, rules.retry)
            if before is None or _chosen_by(before) != _chosen_by(rules):
                self._leave(target.balance)
                target.balance = self._balance(target, rules)
            if before is None or before.hedge != rules.hedge:
                target.hedger = None if rules.hedge is None else Hedger(rules.hedge)
        self.settle(target)
        if target.routing is not None:
            for each in target.routing.targets():
                self.compose(each)

    def _routing(self, target: Target, rules: OutboundRules) -> Routing:
        """Where each call of ``target`` goes; what it meets there is composed as for any other target."""

        def aimed(service: str, endpoint: str, subset: str) -> Target:
            return self._make(service, endpoint, target.contract, subset)

        def make(path: Path, leg: Leg) -> Target:
            made = aimed(leg.service or target.service, leg.endpoint or target.endpoint, leg.subset)
            made.via = tuple([(rule.scope, rule.index) for rule in path.rules])
            mirrors = [
                (aimed(each.service or target.service, made.endpoint, each.subset), each.share)
                for each in path.mirrors
            ]
            if mirrors or path.fault is not None:
                # Of several rules that say a fault the last one's holds.
                by = [(rule.scope, rule.index) for rule in path.rules if rule.fault is not None]
                made.effects = Effects(path.fault, tuple(mirrors), by[-1] if by else None)
            self.compose(made)
            return made

        return Routing(
            target.service,
            rules.routing,
            caller=self._caller,
            chance=self._chance,
            make=make,
            forget=self.forget,
        )

    def settle(self, target: Target) -> None:
        """What its calls use where they say nothing: a policy's word, the function's, the endpoint's, the default."""
        rules, contract, declared = target.rules, target.contract, target.declared
        timeouts = [] if rules is None else [rules.timeout_s]
        idempotent = [] if rules is None else [rules.idempotent]
        if contract is not None:
            timeouts.append(contract.timeout_s)
            idempotent.append(contract.idempotent)
        timeouts.append(declared.timeout_s)
        idempotent.append(declared.idempotent)
        target.keyed = declared.keyed if contract is None else contract.keyed
        target.timeout_s = next((each for each in timeouts if each is not None), DEFAULT_TIMEOUT_S)
        target.usual.idempotent = next((each for each in idempotent if each is not None), None)

    def _circuit(self, target: Target, rules: OutboundRules) -> Circuit | None:
        key = (target.service, target.endpoint, target.subset)
        known = self._circuits.get(key)
        if known is not None and known[0].breaker == rules.breaker:
            return known[1]
        made = (
            None if rules.breaker is None else Circuit(rules.breaker, self._chance, target.label, self._tell)
        )
        _keep(self._circuits, key, (rules, made))
        if not target.subset:  # what fails in a subset says nothing of the endpoint, and the other way round
            breaker = rules.breaker
            verdicts = None if breaker is None else breaker.verdicts
            self._opinions.breakers.follow(target.service, target.endpoint, made, verdicts)
        return made

    def _let_go(self, way: _Way) -> None:
        """Forget the circuit of a way that no call takes."""
        service, endpoint, subset = way
        _, circuit = self._circuits.pop(way)
        if circuit is None:
            return
        if not subset:
            self._opinions.breakers.follow(service, endpoint, None, None)
        if not circuit.breaker.closed:
            self._tell(EventKind.BREAKER_CLOSED, circuit.where, "a route sends no call this way any more")

    def _retries(self, target: Target, rules: RetryRules) -> Retries | None:
        """``None`` where there is one attempt, with all the time of its call."""
        if rules.attempts == 1 and rules.per_try_timeout_s is None:
            return None
        budget = self._budget(target.service, rules.budget)
        return Retries(rules, budget, self._chance, target.label, self._tell)

    def _budget(self, service: str, rules: BudgetRules) -> RetryBudget:
        key = (service, rules)
        found = self._budgets.get(key)
        if found is None:
            found = RetryBudget(rules)
            _keep(self._budgets, key, found)
        return found

    def _balance(self, target: Target, rules: OutboundRules) -> Balance | None:
        if rules.balancer.name == "queue":
            return None
        key = (target.service, rules.subset, rules.balancer, rules.ejection)
        group = self._groups.get(key)
        if group is None:
            group = Group(
                target.service,
                self._fleets.fleet(target.service),
                rules.balancer,
                rules.ejection,
                subset=rules.subset,
                zone=self._zone,
                chance=self._chance,
                tell=self._tell_of_instances,
            )
            self._groups[key] = group
            if rules.ejection.verdicts is not None:
                self._opinions.attach(group, rules.ejection.verdicts)

        group.users += 1

        def way_to(instance: str) -> tuple[str, str]:
            subject = self._subjects.direct(target.service, instance, target.endpoint, self._caller)
            return subject, f"HPUB {subject} {target.inbox}"

        return Balance(group, way_to, self._key_of(rules.balancer))

    def forget(self, target: Target) -> None:
        """A target that nobody knows any more; a call of it that is under way ends as it began."""
        self._leave(target.balance)
        if target.routing is not None:
            target.routing.close()

    def _leave(self, balance: Balance | None) -> None:
        """One endpoint less is balanced over a group; where it was the last, nobody watches its instances any more."""
        if balance is None:
            return
        group = balance.group
        group.users -= 1
        if group.users == 0:
            del self._groups[group.service, group.subset, group.rules, group.ejection]
            self._opinions.detach(group)
            self._fleets.release(group.fleet)

    def _key_of(self, rules: BalancerRules) -> Keys | None:
        if rules.name != "consistent_hash":
            return None
        caller, header = self._caller, rules.header
        if not header:
            return lambda request: caller

        def by_header(request: Request) -> str | None:
            return request.headers.get(header)

        return by_header


def _ways_of(target: Target) -> set[_Way]:
    """The ways that calls of a target may take."""
    own = (target.service, target.endpoint, target.subset)
    rules = target.rules
    if not target.mesh or rules is None or not rules.routing:
        return {own}
    return {
        (leg.service or target.service, leg.endpoint or target.endpoint, leg.subset)
        for leg in aims(rules.routing)
    }


def _chosen_by(rules: OutboundRules) -> tuple[SubsetRules | None, BalancerRules, EjectionRules]:
    """By what an instance is chosen."""
    return rules.subset, rules.balancer, rules.ejection


def _keep(table: dict[K, V], key: K, value: V) -> None:
    """Put into a table that is bounded: what was there first goes."""
    if len(table) >= _MAX_KEPT:
        del table[next(iter(table))]
    table[key] = value


def _none(service: str, endpoint: str) -> float:
    """Where nobody traces, nothing is sampled."""
    return 0.0

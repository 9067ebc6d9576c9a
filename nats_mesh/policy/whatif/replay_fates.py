"""What becomes of one recorded call under one set of policies, by the very code that calls are routed and let in
with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Final

import msgspec

from nats_mesh.core.access import AccessRule, AccessRules, Decision, decide
from nats_mesh.core.envelope import HANDED_ON, RecordedCall, is_whole
from nats_mesh.core.router import Fault, Leg, Rule, laid
from nats_mesh.policy.access import access_rules
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.layerless import without_layerless
from nats_mesh.policy.policy_set import PolicySet
from nats_mesh.policy.rules import OutboundRules
from nats_mesh.policy.scopes import namespace_of
from nats_mesh.policy.ways import PolicyWay, PolicyWays, keep

__all__ = ["Candidate", "Fates", "Seen", "Way"]

#: So many combinations of rules are compared at most to find that two sets say the same of a target.
_MAX_COMBINATIONS: Final = 256


class Candidate(msgspec.Struct, frozen=True, eq=False):
    """Policies as they are, and the set of what of them has a layer."""

    policies: tuple[Policy, ...]
    applied: PolicySet

    @classmethod
    def of(cls, policies: Iterable[Policy], *, namespace: str = "default") -> Candidate:
        """The policies that hold in ``namespace``; :class:`~nats_mesh.errors.PolicyError` where they cannot."""
        every = tuple(policies)
        applied = PolicySet.of(without_layerless(every), namespace=namespace)
        here = [policy for policy in every if namespace_of(policy, namespace) == namespace]
        return cls(tuple(here), applied)


class Way(msgspec.Struct, frozen=True, eq=False):
    """One thing that may become of a call, with ``share`` of its probability. ``rule`` is the place of the rule that
    says where it goes, empty where none does; ``rules`` is what holds on this way."""

    share: float
    target: str
    rule: str
    rules: OutboundRules
    fault: Fault | None
    fault_rule: str
    mirrors: tuple[tuple[str, float], ...]
    sources: Mapping[str, str]


class Seen:
    """A recorded call with its headers looked up. ``kept`` are the names of the headers that the recording kept."""

    __slots__ = ("_kept", "_values", "call", "number")

    def __init__(self, number: int, call: RecordedCall, kept: frozenset[str] | None) -> None:
        self.number = number
        self.call = call
        self._kept = kept
        self._values: dict[str, list[str]] = {}
        for name, value in call.headers:
            self._values.setdefault(name.lower(), []).append(value)

    def values(self, name: str) -> Sequence[str]:
        """The values of a header, by its name."""
        return self._values.get(name.lower(), ())

    def has(self, name: str) -> bool | None:
        """Whether the call had a header; ``None`` where nobody can tell."""
        if self.values(name):
            return True
        if self.call.cut or name in HANDED_ON or (self._kept is not None and name not in self._kept):
            return None
        return False

    def tells(self, name: str) -> bool:
        """Whether it is known which values a header had."""
        return self.has(name) is not None and all(is_whole(value) for value in self.values(name))


class _Asked(msgspec.Struct, frozen=True):
    """The headers that routing asks for: those whose values count, whose presence does, and that calls stick by."""

    values: frozenset[str]
    presence: frozenset[str]
    sticky: frozenset[str]


class Fates:
    """Asks one candidate. Answers are kept by what they depend on, so that a million calls of one kind cost one."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self._set = candidate.applied
        self._asked: dict[tuple[str, str, str], _Asked] = {}
        self._ways: dict[Any, tuple[Way, ...]] = {}
        self._policy_ways = PolicyWays(candidate.applied)
        self._access: dict[tuple[str, str], AccessRules] = {}

    # -- the caller's side --------------------------------------------------------------------------

    def asked(self, call: RecordedCall) -> _Asked:
        """Which headers count for calls such as ``call``."""
        key = (call.service, call.endpoint, call.caller)
        found = self._asked.get(key)
        if found is None:
            found = _asked(self._set.outbound(*key).routing)
            keep(self._asked, key, found)
        return found

    def untold(self, seen: Seen) -> str:
        """The header that decides where a call goes and that the recording does not tell; empty where there is none."""
        asked = self.asked(seen.call)
        for name in sorted(asked.values):
            if not seen.tells(name):
                return name
        for name in sorted(asked.presence):
            # What calls stick by and nobody knows is left out, which must not change whether it is there.
            if seen.has(name) is None or (name in asked.sticky and not seen.tells(name)):
                return name
        return ""

    def ways(self, seen: Seen) -> tuple[Way, ...]:
        """Everything that may become of a call on its way to an instance; the shares come to 1.

        A call that sticks by a header nobody knows the value of goes by chance, as all such calls together do.
        """
        call, asked = seen.call, self.asked(seen.call)
        hidden = {name for name in asked.sticky if not seen.tells(name)}
        names = sorted((asked.values | asked.presence | asked.sticky) - hidden)
        key = (
            call.service, call.endpoint, call.caller, tuple([(name, tuple(seen.values(name))) for name in names]),
        )  # fmt: skip
        found = self._ways.get(key)
        if found is None:

            def values(name: str) -> Sequence[str]:
                return () if name.lower() in hidden else seen.values(name)

            ways = self._policy_ways.of(call.service, call.endpoint, call.caller, values)
            found = tuple([self._way(way) for way in ways])
            keep(self._ways, key, found)
        return found

    def _way(self, way: PolicyWay) -> Way:
        return Way(
            way.share,
            _aim(f"{way.service}.{way.endpoint}", way.subset),
            self._source([rule for rule in way.path.rules if rule.legs is not None]),
            way.outbound,
            way.path.fault,
            self._source([rule for rule in way.path.rules if rule.fault is not None]),
            tuple([(_aim(each.service, each.subset), each.share) for each in way.mirrors]),
            way.sources,
        )

    def _source(self, rules: Sequence[Rule]) -> str:
        return self._set.rule_source(rules[-1]) if rules else ""

    def says_as(self, other: Fates, call: RecordedCall) -> bool:
        """Whether both certainly say the same of every call such as ``call``, whatever its headers."""
        mine, others = self._every(call), other._every(call)
        return mine is not None and mine == others

    def _every(self, call: RecordedCall) -> list[Any] | None:
        """All that is said of calls such as ``call``; ``None`` where it is too much to compare."""
        rules = self._set.outbound(call.service, call.endpoint, call.caller)
        said: list[Any] = [_content(rules), rules.routing]
        combinations = 1
        for each in rules.routing:
            combinations *= len(each) + 1
        if combinations > _MAX_COMBINATIONS:
            return None
        for met in product(*[(None, *each) for each in rules.routing]):
            path = laid([rule for rule in met if rule is not None])
            for leg in path.legs or (Leg(),):
                way = self._policy_ways.along(call.service, call.endpoint, call.caller, path, leg)
                said.append(
                    (way.service, way.endpoint, way.subset, _content(way.outbound), path.fault, way.mirrors)
                )
        return said

    # -- the instance's side ------------------------------------------------------------------------

    def slots(self, call: RecordedCall) -> tuple[int | None, str]:
        """How many calls of the endpoint an instance takes at a time, and by which policy; ``None``: nobody knows."""
        rules = self._set.inbound(call.service, call.endpoint)
        said, source = rules.concurrency, rules.sources.get("concurrency.limit", "")
        if said is None or said.limit is None:
            return call.concurrency, ""
        if call.concurrency is None:
            return said.limit, source  # it declares less than that, or this is what counts
        return said.of(call.concurrency), source

    def admitted(self, seen: Seen) -> Decision | str:
        """Whether the instance lets a call in; or, as text, why nobody can tell."""
        call = seen.call
        rules = self._rules(call)
        if not rules.rules and not rules.denying:
            return Decision(allowed=True)
        doubtful = [rule for rule in rules.rules if _doubt(rule, seen)]
        arguments: dict[str, Any] = {
            "caller": call.caller, "endpoint": call.endpoint, "values": seen.values, "claims": {},
        }  # fmt: skip
        if not doubtful:
            return decide(rules, **arguments)
        best = decide(_settled(rules, doubtful, seen, met="ALLOW"), **arguments)
        worst = decide(_settled(rules, doubtful, seen, met="DENY"), **arguments)
        if best.allowed == worst.allowed:
            return best
        return _doubt(doubtful[0], seen)

    def same_access(self, other: Fates, call: RecordedCall) -> bool:
        """Whether both let in the same calls of the endpoint that ``call`` went to."""
        return self._rules(call) == other._rules(call)

    def _rules(self, call: RecordedCall) -> AccessRules:
        key = (call.service, call.endpoint)
        found = self._access.get(key)
        if found is None:
            found = access_rules(self.candidate.policies, *key)
            # Of dry runs nothing depends.
            found = AccessRules(
                rules=tuple([rule for rule in found.rules if not rule.dry_run]), denying=found.denying
            )
            keep(self._access, key, found)
        return found


def _doubt(rule: AccessRule, seen: Seen) -> str:
    """Why nobody can tell whether a call meets ``rule``; empty where one can."""
    if rule.claims:
        return f"{rule} asks for claims, which no recording has"
    for test in rule.headers:
        known = seen.has(test.name) is not None if test.present is not None else seen.tells(test.name)
        if not known:
            return f"{rule} asks for the header {test.name}, which the recording does not tell"
    return ""


def _settled(rules: AccessRules, doubtful: Sequence[AccessRule], seen: Seen, *, met: str) -> AccessRules:
    """The rules with those in doubt taken for met where their action is ``met``, and for not met elsewhere."""
    found: list[AccessRule] = []
    denying = list(rules.denying)
    for rule in rules.rules:
        if rule not in doubtful:
            found.append(rule)
        elif rule.action == met:
            tests = [test for test in rule.headers if seen.tells(test.name)]
            found.append(msgspec.structs.replace(rule, headers=tuple(tests), claims=()))
        elif rule.action == "ALLOW":
            denying.append(rule.policy)  # it allows nobody, but somebody would have to be allowed
    return AccessRules(rules=tuple(found), denying=tuple(denying))


def _asked(routing: Sequence[Sequence[Rule]]) -> _Asked:
    values: set[str] = set()
    presence: set[str] = set()
    sticky: set[str] = set()
    for rules in routing:
        for rule in rules:
            if rule.sticky is not None and rule.sticky.header:
                sticky.add(rule.sticky.header.lower())
            for match in rule.matches:
                for test in match.headers:
                    (values if test.present is None else presence).add(test.name.lower())
    return _Asked(frozenset(values), frozenset(presence - values), frozenset(sticky))


def _aim(name: str, subset: str) -> str:
    return f"{name}/{subset}" if subset else name


def _content(rules: OutboundRules) -> OutboundRules:
    """What rules say, wherever it comes from."""
    return msgspec.structs.replace(rules, routing=(), sources={})

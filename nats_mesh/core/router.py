"""Where one call goes: the first rule that it matches, and of that rule's destinations one by weight.

Stickiness is weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005): every
destination gets a number from the key and its own name, scaled by its weight, and the largest wins. Hash first, weight
second: what has won a key at one weight wins it at any larger one, so a canary that grows from 5 to 10 % keeps
everybody it had, and whoever is new comes from where the weight came from.

Rejected: intervals of [0, 1) by cumulated weights. With three destinations and more a change of one moves the
borders of the others, and with them keys between two whose weights have not changed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from nats_mesh.core.matcher import HeaderTest, in_patterns
from nats_mesh.core.shares import share_text
from nats_mesh.errors import Status

__all__ = [
    "Fault", "Leg", "Match", "Mirror", "Path", "Rule", "Sticky", "Values", "aims", "choose", "draw", "key_of", "laid",
    "position", "relevant", "standing",
]  # fmt: skip

#: The values of one header of a call, by its name; none where it is missing.
Values: TypeAlias = Callable[[str], Sequence[str]]


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """One destination of a split. An empty ``service`` or ``endpoint`` is that of the call; an empty ``subset`` is
    every instance."""

    service: str = ""
    endpoint: str = ""
    subset: str = ""
    weight: int = 1

    def __str__(self) -> str:
        name = ".".join(part for part in (self.service, self.endpoint) if part)
        return "/".join(part for part in (name, self.subset) if part) or "all"


class Mirror(msgspec.Struct, frozen=True, kw_only=True):
    """A second destination that gets a copy of ``share`` of the calls, and whose answers nobody waits for."""

    service: str = ""
    subset: str = ""
    share: float = 1.0


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What is done to calls on purpose: ``delay_share`` of them wait ``delay_s`` first, ``abort_share`` fail."""

    delay_s: float = 0.0
    delay_share: float = 1.0
    abort: Status | None = None
    abort_share: float = 1.0


class Sticky(msgspec.Struct, frozen=True, kw_only=True):
    """What calls that belong together have in common: the value of a ``header``, or else the caller's identity."""

    header: str = ""


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that meet all of these. ``share``: of those that do, so many."""

    callers: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    headers: tuple[HeaderTest, ...] = ()
    share: float | None = None

    def __str__(self) -> str:
        parts = [
            f"{word} {', '.join(names)}"
            for word, names in (("caller", self.callers), ("endpoint", self.endpoints))
            if names
        ]
        parts += [str(each) for each in self.headers]
        if self.share is not None:
            parts.append(f"{share_text(self.share, 6)} of them")
        return ", ".join(parts) or "every call"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of a route. A call must meet one of ``matches``; where there are none, every call does.

    ``scope`` and ``index`` say which rule it is: of the route about which scope, and its place there.
    ``legs`` (where it goes), ``mirrors``, ``fault`` and ``sticky`` are ``None`` where the rule says nothing of them.
    """

    scope: tuple[str, str]
    index: int
    matches: tuple[Match, ...] = ()
    legs: tuple[Leg, ...] | None = None
    mirrors: tuple[Mirror, ...] | None = None
    fault: Fault | None = None
    sticky: Sticky | None = None

    @property
    def place(self) -> str:
        """Where it stands in its route, as paths of policies say it: the first is `rules[0]`."""
        return f"rules[{self.index}]"

    @property
    def routes(self) -> bool:
        """Whether it does anything to a call beyond other numbers for its timeout and retries."""
        return not (self.legs is None and self.mirrors is None and self.fault is None)


class Path(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules that a call matched come to, laid over each other; see :func:`laid`."""

    rules: tuple[Rule, ...]
    legs: tuple[Leg, ...]
    mirrors: tuple[Mirror, ...]
    fault: Fault | None
    sticky: Sticky | None


def relevant(rules: Sequence[Rule], caller: str, endpoint: str) -> tuple[Rule, ...]:
    """Those that calls of ``caller`` to ``endpoint`` can match at all, with what remains to be asked of a call; what
    stands below a rule that each of them matches is out of reach."""
    found: list[Rule] = []
    for rule in rules:
        if rule.matches:
            left = tuple(
                [
                    Match(headers=each.headers, share=each.share)
                    for each in rule.matches
                    if in_patterns(each.callers, caller) and in_patterns(each.endpoints, endpoint)
                ]
            )
            if not left:
                continue
            always = any(not each.headers and each.share is None for each in left)
            found.append(msgspec.structs.replace(rule, matches=() if always else left))
        else:
            always = True
            found.append(rule)
        if always:
            break
    return tuple(found)


def laid(rules: Sequence[Rule]) -> Path:
    """The rules that a call matched, one of each route, the least specific first: each says over those before."""
    legs: tuple[Leg, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    fault: Fault | None = None
    sticky: Sticky | None = None
    for rule in rules:
        legs = legs if rule.legs is None else rule.legs
        mirrors = mirrors if rule.mirrors is None else rule.mirrors
        fault = fault if rule.fault is None else rule.fault
        sticky = sticky if rule.sticky is None else rule.sticky
    return Path(rules=tuple(rules), legs=legs, mirrors=mirrors, fault=fault, sticky=sticky)


def aims(routing: Sequence[Sequence[Rule]]) -> frozenset[Leg]:
    """Every destination that a call may get to, whatever its headers; with an empty leg where none of the rules it
    meets may say one. ``routing`` are the :func:`relevant` rules of each route. Too many rather than too few: that
    one rule keeps calls from another one is seen only within a route."""
    found = {leg for rules in routing for rule in rules for leg in rule.legs or () if leg.weight > 0}
    if not any(rules and not rules[-1].matches and all(rule.legs for rule in rules) for rules in routing):
        found.add(Leg())
    return frozenset(found)


def draw(
    rules: Sequence[Rule], values: Values, caller: str, service: str, chance: Callable[[], float]
) -> Rule | None:
    """The first of ``rules`` that a call matches; they are :func:`relevant` ones. ``chance`` is asked for shares that
    nothing makes sticky."""
    for rule in rules:
        if not rule.matches:
            return rule
        for match in rule.matches:
            if _meets(rule, match, values, caller, service, chance):
                return rule
    return None


def _meets(
    rule: Rule, match: Match, values: Values, caller: str, service: str, chance: Callable[[], float]
) -> bool:
    for test in match.headers:
        if not test.holds(values(test.name)):
            return False
    if match.share is None:
        return True
    key = key_of(rule.sticky, values, caller)
    if key is None:
        return chance() < match.share
    return standing(rule, key, service) < match.share


def standing(rule: Rule, key: str, service: str) -> float:
    """Where the calls with a key stand for the shares of a rule: among every share that is larger than this."""
    return position(key, f"{service}?{','.join([str(leg) for leg in rule.legs or ()])}")


def key_of(sticky: Sticky | None, values: Values, caller: str) -> str | None:
    """What a call is made sticky by; ``None`` where it has nothing of the kind, and goes by chance."""
    if sticky is None:
        return None
    if not sticky.header:
        return caller
    found = values(sticky.header)
    return found[0] if found else None


def choose(legs: Sequence[Leg], key: str | None, service: str, chance: Callable[[], float]) -> int:
    """The place of one of ``legs``, by weight: always the same for the same ``key``, by chance where there is none.
    One of them has a weight above zero."""
    if len(legs) == 1:
        return 0
    if key is None:
        left = chance() * sum([leg.weight for leg in legs])
        last = 0
        for place, leg in enumerate(legs):
            if leg.weight > 0:
                last = place
                left -= leg.weight
                if left < 0.0:
                    return place
        return last
    best, found = -1.0, 0
    for place, leg in enumerate(legs):
        if leg.weight > 0:
            score = -leg.weight / math.log(position(key, f"{leg.service or service}/{leg.subset}"))
            if score > best:
                best, found = score, place
    return found


def position(key: str, label: str) -> float:
    """A number above 0 and below 1 that depends on both evenly, the same in every process."""
    digest = hashlib.blake2b(f"{label}\x00{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest[:6], "big") + 0.5) / float(1 << 48)

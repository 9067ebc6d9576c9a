"""Why a call meets a rule of a route, or does not: every condition of every rule, with what the call has for it.

For whoever explains a call; no call comes here. The conditions themselves are asked by what calls are asked by
(:mod:`nats_mesh.core.matcher`), and how many of such calls meet a rule is worked out by
:mod:`nats_mesh.core.likely` from :func:`nats_mesh.core.router.draw`, so that the two cannot say different things.

Rejected: to have :func:`~nats_mesh.core.router.draw` write down what it does as it goes. Every call would pay for what
one question in a million asks, and a draw ends at the first rule that is met, while a person wants to see the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from nats_mesh.core.likely import outcomes
from nats_mesh.core.matcher import HeaderTest, in_patterns
from nats_mesh.core.router import Match, Rule, Values, key_of, relevant, standing
from nats_mesh.core.shares import share_text

__all__ = ["Condition", "ExaminedMatch", "ExaminedRule", "examined"]


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a match asks: ``about`` what (`caller`, `endpoint`, `header`, `share`), what it ``says``, what was
    ``found`` at the call, and whether it ``holds``; ``None`` where that is drawn for each call anew."""

    about: str
    says: str
    found: tuple[str, ...]
    holds: bool | None


class ExaminedMatch(msgspec.Struct, frozen=True, kw_only=True):
    """One match of a rule. ``share`` of such calls meet it."""

    match: Match
    conditions: tuple[Condition, ...]
    share: float


class ExaminedRule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule. ``asked`` of the calls come as far as this one, ``share`` of those meet it, so ``met`` of all do."""

    rule: Rule
    matches: tuple[ExaminedMatch, ...]
    asked: float
    share: float

    @property
    def met(self) -> float:
        return self.asked * self.share


def examined(
    rules: Sequence[Rule], values: Values, caller: str, endpoint: str, service: str
) -> tuple[ExaminedRule, ...]:
    """Every one of ``rules``, the rules of one route in their order, for calls of ``caller`` to ``service.endpoint``
    that have the headers ``values``."""
    found: list[ExaminedRule] = []
    asked = 1.0
    for rule in rules:
        matches = tuple(
            [
                ExaminedMatch(
                    match=match,
                    conditions=tuple(_conditions(rule, match, values, caller, endpoint, service)),
                    share=_share(
                        msgspec.structs.replace(rule, matches=(match,)), values, caller, endpoint, service
                    ),
                )
                for match in rule.matches
            ]
        )
        share = _share(rule, values, caller, endpoint, service)
        found.append(ExaminedRule(rule=rule, matches=matches, asked=asked, share=share))
        asked *= 1.0 - share
    return tuple(found)


def _share(rule: Rule, values: Values, caller: str, endpoint: str, service: str) -> float:
    """How many of such calls meet ``rule``, if it is the first."""
    ways = outcomes((relevant((rule,), caller, endpoint),), values, caller, service)
    missed = sum([way.share for way in ways if not way.path.rules])
    return 1.0 - missed if missed else 1.0


def _conditions(
    rule: Rule, match: Match, values: Values, caller: str, endpoint: str, service: str
) -> Iterator[Condition]:
    if match.callers:
        yield _named("caller", match.callers, caller)
    if match.endpoints:
        yield _named("endpoint", match.endpoints, endpoint)
    for test in match.headers:
        yield _header(test, values)
    if match.share is not None:
        says = f"{share_text(match.share, 6)} of them"
        key = key_of(rule.sticky, values, caller)
        if key is None:
            yield Condition(about="share", says=says, found=(), holds=None)
        else:
            place = standing(rule, key, service)
            yield Condition(
                about="share",
                says=says,
                found=(f"{key!r} is at {share_text(place)}",),
                holds=place < match.share,
            )


def _named(about: str, patterns: tuple[str, ...], name: str) -> Condition:
    return Condition(
        about=about,
        says=f"{about} {' or '.join(patterns)}",
        found=(name,),
        holds=in_patterns(patterns, name),
    )


def _header(test: HeaderTest, values: Values) -> Condition:
    found = tuple([str(value) for value in values(test.name)])
    return Condition(about="header", says=str(test), found=found, holds=test.holds(values(test.name)))

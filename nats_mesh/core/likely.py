"""What may become of a call, and how likely each way is: exact numbers, from the very code that routes it.

Whoever asks where calls go (a test of policies, an explanation, a comparison of two sets) wants shares and no samples.
Each condition is put to :func:`nats_mesh.core.router.draw` twice, with the luckiest and the unluckiest chance: where
both meet it, every such call does; where only the lucky one does, the share that is written there does. So no second
reading of a rule can grow apart from the one that calls meet.

Rejected: drawing some thousand calls and counting. A canary of 0.1 % would need a million of them for one digit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from nats_mesh.core.router import Leg, Match, Path, Rule, Values, choose, draw, key_of, laid
from nats_mesh.errors import ConfigError

__all__ = ["MAX_OUTCOMES", "Outcome", "outcomes"]

#: So many ways of one call are worked out at most.
MAX_OUTCOMES = 10_000


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One way: ``share`` of the calls meet the rules of ``path`` and go to ``leg``. Faults and mirrors, which ``path``
    names, have shares of their own within it."""

    share: float
    path: Path
    leg: Leg


def outcomes(
    routing: Sequence[Sequence[Rule]], values: Values, caller: str, service: str
) -> tuple[Outcome, ...]:
    """Every way with a share above zero; the shares come to 1. ``routing`` are the :func:`relevant` rules of each
    route, ``values`` the headers of the call. :class:`ConfigError` where there are more than :data:`MAX_OUTCOMES`."""
    ways: list[tuple[float, tuple[Rule, ...]]] = [(1.0, ())]
    for rules in routing:
        met = list(_met(rules, values, caller, service))
        ways = [
            (share * more, before if rule is None else (*before, rule))
            for share, before in ways
            for more, rule in met
        ]
        _check_bound(len(ways))
    found: list[Outcome] = []
    for share, before in ways:
        path = laid(before)
        for part, leg in _legs(path, values, caller, service):
            found.append(Outcome(share=share * part, path=path, leg=leg))
        _check_bound(len(found))
    return tuple(found)


def _check_bound(count: int) -> None:
    if count > MAX_OUTCOMES:
        raise ConfigError(
            f"routes: a call may take more than {MAX_OUTCOMES:,} ways: have fewer rules with a share, or fewer legs"
        )


def _met(
    rules: Sequence[Rule], values: Values, caller: str, service: str
) -> Iterator[tuple[float, Rule | None]]:
    """The rules of one route that a call may meet, and none, each with its share."""
    left = 1.0
    for rule in rules:
        missed = 1.0
        for match in rule.matches:
            missed *= 1.0 - _share(rule, match, values, caller, service)
        met = 1.0 if not rule.matches else 1.0 - missed
        if met > 0.0:
            yield left * met, rule
        left *= 1.0 - met
        if left <= 0.0:
            return
    yield left, None


def _share(rule: Rule, match: Match, values: Values, caller: str, service: str) -> float:
    """How many of such calls meet ``match``."""
    alone = (msgspec.structs.replace(rule, matches=(match,)),)
    if draw(alone, values, caller, service, lambda: 1.0) is not None:
        return 1.0
    if match.share is not None and draw(alone, values, caller, service, lambda: 0.0) is not None:
        return match.share
    return 0.0


def _legs(path: Path, values: Values, caller: str, service: str) -> Iterator[tuple[float, Leg]]:
    if not path.legs:
        yield 1.0, Leg()
        return
    key = key_of(path.sticky, values, caller)
    if key is not None or len(path.legs) == 1:
        yield 1.0, path.legs[choose(path.legs, key, service, lambda: 0.0)]
        return
    total = sum([leg.weight for leg in path.legs])
    for leg in path.legs:
        if leg.weight > 0:
            yield leg.weight / total, leg

"""NM03: weights, and what calls stick to."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET

from nats_mesh.core.shares import share_text
from nats_mesh.policy.analysis.findings import Hit, check
from nats_mesh.policy.analysis.view import RouteRule, View
from nats_mesh.policy.schema import Route
from nats_mesh.policy.scopes import around, scopes_of

__all__: list[str] = []

#: Weights whose sum is this near to 100 were most likely meant to come to 100.
_NEAR = (80, 120)
#: A weight from here on reads as a part of 100 and not as a ratio.
_PERCENT = 10


def _weights(rule: RouteRule) -> list[int]:
    """The weights of a split; none of a redirect, or of a rule that says nothing of the kind."""
    return [] if rule.said.split is UNSET else [leg.weight for leg in rule.core.legs or ()]


@check(
    "NM0301", "warning", "Weights that do not come to 100",
    "Weights are parts of their sum. Let them come to 100 where they are meant as percentages.",
)  # fmt: skip
def not_hundred(view: View) -> Iterable[Hit]:
    """Weights that look like percentages, and are none."""
    for rule in view.rules:
        weights = _weights(rule)
        total = sum(weights)
        said = rule.said.split is not UNSET and all(leg.weight is not UNSET for leg in rule.said.split)
        alive = [weight for weight in weights if weight > 0]
        if said and len(alive) > 1 and total != 100 and _NEAR[0] <= total <= _NEAR[1]:
            shares = ", ".join(f"{weight} is {share_text(weight / total, 3)}" for weight in weights)
            yield Hit(rule.policy, f"{rule.path}.split", f"the weights come to {total}, not to 100: {shares}")


@check(
    "NM0302", "info", "A destination of weight 0",
    "Remove it, or give it a weight: it gets no calls, and calls that stick to it go elsewhere.",
)  # fmt: skip
def weight_zero(view: View) -> Iterable[Hit]:
    """A leg that gets nothing."""
    for rule in view.rules:
        for index, weight in enumerate(_weights(rule)):
            if weight == 0:
                path = f"{rule.path}.split[{index}].weight"
                yield Hit(rule.policy, path, f"{(rule.core.legs or ())[index]} gets no calls")


@check(
    "NM0303", "warning", "The weight of an only destination",
    "Name the others beside it, each with its weight; or, for some of the calls alone, use `match: {share: 10%}`.",
)  # fmt: skip
def lonely_weight(view: View) -> Iterable[Hit]:
    """One leg with a weight: it gets all calls, whatever the number."""
    for rule in view.rules:
        weights = _weights(rule)
        if len(weights) == 1 and weights[0] not in (1, 100):
            text = f"all calls go there, not {weights[0]}%: nothing stands beside it"
            yield Hit(rule.policy, f"{rule.path}.split[0].weight", text)


@check(
    "NM0304", "warning", "Some destinations have a weight and others have none",
    "Write every weight: what has none counts as 1.",
)  # fmt: skip
def missing_weight(view: View) -> Iterable[Hit]:
    """A leg without a weight beside one that reads as a percentage."""
    for rule in view.rules:
        legs = [] if rule.said.split is UNSET else rule.said.split
        largest = max((leg.weight for leg in legs if leg.weight is not UNSET), default=0)
        if largest < _PERCENT:
            continue
        for index, leg in enumerate(legs):
            if leg.weight is UNSET:
                share = share_text(1.0 / sum(_weights(rule)), 2)
                text = f"has no weight, which counts as 1: {share} of the calls"
                yield Hit(rule.policy, f"{rule.path}.split[{index}]", text)


@check(
    "NM0305", "warning", "Sticky, and nothing to stick to",
    "Give the rule a `split` over several destinations or a `match` with a share, or remove `sticky`.",
)  # fmt: skip
def sticky_alone(view: View) -> Iterable[Hit]:
    """A rule that makes calls sticky where nothing is left to chance."""
    for rule in view.rules:
        if rule.said.sticky is UNSET or any(each.share is not None for each in rule.core.matches):
            continue
        if rule.core.legs is not None:
            chosen = len([leg for leg in rule.core.legs if leg.weight > 0]) > 1
        else:
            chosen = any(_splits(other) for other in _beside(view, rule))
        if not chosen:
            yield Hit(rule.policy, f"{rule.path}.sticky", "has no effect: all of these calls go one way")


def _splits(rule: RouteRule) -> bool:
    return len([weight for weight in _weights(rule) if weight > 0]) > 1


def _beside(view: View, rule: RouteRule) -> list[RouteRule]:
    """Rules of other routes that the same calls may meet."""
    own = scopes_of(rule.policy)
    return [
        each
        for policy, _ in view.near(rule.service, Route)
        if policy is not rule.policy
        and any(
            scope in around(*mine) or mine in around(*scope) for scope in scopes_of(policy) for mine in own
        )
        for each in view.routes[scopes_of(policy)[0]]
    ]


@check(
    "NM0306", "warning", "Sticky by a header that these calls have not",
    "Stick to a header that the rule's calls have, or remove `sticky`: calls without the header go by chance.",
)  # fmt: skip
def sticky_missing(view: View) -> Iterable[Hit]:
    """A rule sticky by a header that its match says is not there."""
    for rule in view.rules:
        header = "" if rule.core.sticky is None else rule.core.sticky.header
        for each in rule.core.matches if header else ():
            for test in each.headers:
                absent = test.present is not None and (test.present is test.invert)
                if test.name == header and absent:
                    text = f"nothing sticks: these calls have no header {header}"
                    yield Hit(rule.policy, f"{rule.path}.sticky.header", text)

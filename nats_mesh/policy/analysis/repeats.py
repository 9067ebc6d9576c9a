"""NM08: work that runs twice, or that was meant to and does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nats_mesh.core.rules import BudgetRules, RetryRules
from nats_mesh.policy.analysis.findings import Hit, check
from nats_mesh.policy.analysis.view import Situation, View
from nats_mesh.policy.layering import Leaf

__all__: list[str] = []

_RETRY = RetryRules()
_BUDGET = BudgetRules()


def _idempotent(view: View, situation: Situation) -> bool | None:
    """Whether such calls may run twice; ``None`` where nobody says."""
    leaf = situation.leaf("idempotent")
    if leaf is not None:
        said: bool = leaf.value
        return said
    declared = view.endpoint(situation.service, situation.endpoint)
    return None if declared is None else declared.idempotent


def _retries(situation: Situation) -> Leaf | None:
    """Who asks for retries that only an idempotent endpoint gets."""
    attempts, conditions = situation.leaf("retry.attempts"), situation.leaf("retry.retryOn")
    count = _RETRY.attempts if attempts is None else attempts.value
    wanted = set(_RETRY.retry_on if conditions is None else conditions.value) - {"refused"}
    if count < 2 or not wanted:
        return None
    if conditions is not None:
        return conditions
    return attempts if attempts is not None and attempts.value > _RETRY.attempts else None


def _never(view: View, path: str) -> Iterator[tuple[Leaf, str, str]]:
    """Who asks for something that only idempotent endpoints get, and gets it nowhere: the value, its path, where."""
    refused: dict[tuple[int, str], tuple[Leaf, str, str]] = {}
    granted: set[tuple[int, str]] = set()
    for situation in view.situations:
        if path:
            leaf = situation.leaf(path)
            at = path
        else:
            leaf = _retries(situation)
            at = (
                "retry.retryOn"
                if leaf is not None and leaf is situation.leaf("retry.retryOn")
                else "retry.attempts"
            )
        if leaf is None or (path and leaf.value in (None, "off")):
            continue
        key = (id(leaf.policy), f"{leaf.prefix}{at}")
        # A value of a wide policy is meant for those that may run twice, and harmless for the others.
        if _idempotent(view, situation) is False:
            refused.setdefault(key, (leaf, at, situation.name))
        elif situation.endpoint or not view.endpoints(situation.service):
            granted.add(key)
    for key, found in refused.items():
        if key not in granted:
            yield found


@check(
    "NM0801", "warning", "Retries of an endpoint that must not run twice",
    "Say `idempotent: true` where running it twice does no harm; else `retryOn: [refused]`, which is all that holds, "
    "or let callers give an idempotency key.",
)  # fmt: skip
def retried(view: View) -> Iterable[Hit]:
    """Retries after attempts that may have run, asked for where they are never made."""
    for leaf, path, name in _never(view, ""):
        text = f"{name} is not idempotent, so only what was refused is tried again"
        yield Hit(leaf.policy, f"{leaf.prefix}{path}", text)


@check(
    "NM0802", "warning", "A hedge for an endpoint that must not run twice",
    "Say `idempotent: true` where running it twice does no harm, or remove the hedge: nobody is asked twice.",
)  # fmt: skip
def hedged(view: View) -> Iterable[Hit]:
    """A hedge where it is never made."""
    for leaf, path, name in _never(view, "hedge"):
        yield Hit(
            leaf.policy, f"{leaf.prefix}{path}", f"{name} is not idempotent, so it is never asked twice"
        )


@check(
    "NM0803", "warning", "Copies of calls that must not run twice",
    "Mirror only endpoints that change nothing (`match: {endpoints: [get, list]}`), or let the copies go where nothing "
    "is shared with the original, and say `idempotent: true`.",
)  # fmt: skip
def mirrored(view: View) -> Iterable[Hit]:
    """A mirror of an endpoint that is not idempotent: the work is done once more."""
    for situation in view.situations:
        for rule in situation.rules:
            if rule.core.mirrors and _idempotent(view, situation) is False:
                mirrors = [mirror for mirror in rule.core.mirrors if mirror.share > 0.0]
                if mirrors:
                    text = f"copies of {situation.name} run, too, and it is not idempotent"
                    yield Hit(rule.policy, f"{rule.path}.mirror", text)


@check(
    "NM0804", "warning", "Retries that never happen",
    "Give `retryOn` what is worth another attempt, or the budget something to spend; or say `attempts: 1`.",
)  # fmt: skip
def never_retried(view: View) -> Iterable[Hit]:
    """Several attempts, and nothing that would cause or allow the second."""
    for situation in view.situations:
        attempts = situation.leaf("retry.attempts")
        if attempts is None or attempts.value < 2:
            continue
        conditions = situation.leaf("retry.retryOn")
        ratio, floor = situation.leaf("retry.budget.ratio"), situation.leaf("retry.budget.floor")
        spent = (_BUDGET.ratio if ratio is None else ratio.value) + (
            _BUDGET.floor_per_s if floor is None else floor.value
        )
        if conditions is not None and not conditions.value:
            text = "nothing is worth another attempt: `retryOn` is empty"
        elif spent == 0.0:
            text = "no second attempt is ever allowed: the budget is empty"
        else:
            continue
        yield Hit(
            attempts.policy, f"{attempts.prefix}retry.attempts", f"{attempts.value} attempts, but {text}"
        )

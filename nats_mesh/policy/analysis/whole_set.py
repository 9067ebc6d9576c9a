"""NM00: what `apply` would say of the set as a whole."""

from __future__ import annotations

from collections.abc import Iterable

from nats_mesh.errors import PolicyError
from nats_mesh.policy.analysis.findings import Hit, check
from nats_mesh.policy.analysis.view import View
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.layerless import layerless, without_layerless
from nats_mesh.policy.policy_set import PolicySet

__all__ = ["REFUSED"]

#: What any other check says of the same place counts in its place.
REFUSED = "NM0001"


@check(
    REFUSED, "error", "The set would be refused",
    "Mend what the message names: `apply` stores nothing of a set with a mistake, and members keep their last good "
    "one.",
)  # fmt: skip
def refused(view: View) -> Iterable[Hit]:
    """Whatever the set of these policies refuses, and no other check is about."""
    try:
        PolicySet.of(without_layerless(view.policies))
    except PolicyError as error:
        for problem in error.problems:
            owner = _owner(view, problem)
            if owner is not None:
                text = str(problem).partition(f"{problem.path}: ")[2] if problem.path else str(problem)
                yield Hit(owner, problem.path, text)


def _owner(view: View, problem: PolicyError) -> Policy | None:
    """The policy of a file in which a line lies."""
    own = [each for each in view.policies if each.file == problem.file]
    above = [each for each in own if each.line <= (problem.line or 0)]
    return max(above, key=lambda each: each.line, default=own[0] if own else None)


@check(
    "NM0002", "info", "Nothing applies this yet",
    "Keep it for `convert`, `analyze` and `test`; `apply` refuses it until a version has a layer for it.",
)  # fmt: skip
def later(view: View) -> Iterable[Hit]:
    """Kinds and fields without a layer."""
    for policy in view.policies:
        for path, what in layerless(policy):
            yield Hit(policy, path, f"{what}: not in this version")

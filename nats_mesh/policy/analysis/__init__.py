"""What is wrong with policies that are all right one by one: references, reach, weights, conflicts, times.

Each module has the checks of one topic; a new check is one function with its code, and a section in docs/analysis.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nats_mesh.policy.analysis import (  # noqa: F401 - they put their checks into the list
    access,
    conflicts,
    reach,
    references,
    repeats,
    resilience,
    rollouts,
    splits,
    subsets,
    times,
    whole_set,
)
from nats_mesh.policy.analysis.findings import CHECKS, SEVERITIES, Check, Finding, Hit, Severity
from nats_mesh.policy.analysis.view import View
from nats_mesh.policy.analysis.whole_set import REFUSED
from nats_mesh.policy.analysis.world import Endpoint, Instance, Service, World
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.scopes import namespace_of

__all__ = [
    "CHECKS",
    "SEVERITIES",
    "Check",
    "Endpoint",
    "Finding",
    "Instance",
    "Service",
    "Severity",
    "World",
    "analyze",
]

#: Lists that may be written as the one thing in them; without lines nobody knows how they were.
_ALONE = re.compile(r"\.(split|mirror|match)\[[0-9]+\]")
_STEP = re.compile(r"(\.[^.\[\]]+|\[[0-9]+\])$")


def analyze(
    policies: Sequence[Policy], world: World | None = None, *, namespace: str = "default", mode: str = ""
) -> list[Finding]:
    """Everything that the checks find, by file and line.

    ``world`` is what is there in ``namespace`` now; without it only what the policies show by themselves is found.
    Policies of other namespaces are looked at among themselves. ``mode`` is that of the mesh: `open` or `enforced`.
    """
    groups: dict[str, list[Policy]] = {}
    for policy in policies:
        groups.setdefault(namespace_of(policy, namespace), []).append(policy)
    found: list[Finding] = []
    for name, group in groups.items():
        found += _analyzed(View(group, world if name == namespace else None, mode))
    return sorted(found, key=lambda each: (each.file, each.line, each.code, each.path))


def _analyzed(view: View) -> list[Finding]:
    found: dict[tuple[str, str, int, str], Finding] = {}
    for code in sorted(CHECKS, key=lambda code: (code == REFUSED, code)):
        check = CHECKS[code]
        known = {(each.file, _plain(each.path)) for each in found.values() if each.severity == "error"}
        for hit in check.find(view):
            if code == REFUSED and (hit.policy.file, _plain(hit.path)) in known:
                continue
            finding = _finding(check, hit)
            # The same value may be found wrong in several situations: the first of them says enough.
            found.setdefault((finding.code, finding.policy, finding.line, finding.path), finding)
    return list(found.values())


def _finding(check: Check, hit: Hit) -> Finding:
    return Finding(
        code=check.code,
        severity=check.severity,
        policy=hit.policy.name,
        file=hit.policy.file,
        line=_line(hit.policy, hit.path),
        path=hit.path,
        message=hit.message,
        remedy=hit.remedy or check.remedy,
    )


def _plain(path: str) -> str:
    return _ALONE.sub(r".\1", path)


def _line(policy: Policy, path: str) -> int:
    """The line of a path, or of the nearest thing around it that has one: what is written in short has none."""
    while path:
        if path in policy.lines:
            return policy.lines[path]
        shorter = _STEP.sub("", path)
        path = "" if shorter == path else shorter
    return policy.line

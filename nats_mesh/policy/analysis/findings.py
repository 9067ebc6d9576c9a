"""What an analysis finds, and the list of everything that it looks for.

Every check has a code that never changes its meaning, one severity, and a remedy; docs/analysis.md has a section for
each. An ``error`` cannot be meant: calls fail, or `apply` refuses it. A ``warning`` most likely is not meant. An
``info`` may well be meant, and is worth knowing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from nats_mesh.policy.decode import Policy

if TYPE_CHECKING:
    from nats_mesh.policy.analysis.view import View

__all__ = ["CHECKS", "SEVERITIES", "Check", "Finding", "Hit", "Severity", "check"]

Severity: TypeAlias = Literal["error", "warning", "info"]
#: From the worst to the mildest.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing found: ``path`` is the field of ``policy`` (`Kind/name`), at ``line`` of ``file``."""

    code: str
    severity: Severity
    policy: str
    file: str
    line: int
    path: str
    message: str
    remedy: str


class Hit(msgspec.Struct, frozen=True, eq=False):
    """Where a check found something, and what; ``remedy`` where there is a better one than the check's own."""

    policy: Policy
    path: str
    message: str
    remedy: str = ""


class Check(msgspec.Struct, frozen=True, eq=False):
    """One check: ``find`` looks at everything and yields what it found."""

    code: str
    severity: Severity
    title: str
    remedy: str
    find: Callable[[View], Iterable[Hit]]


#: Every check by its code. The modules of the package put theirs in; :mod:`nats_mesh.policy.analysis` imports them all.
_CHECKS: dict[str, Check] = {}
CHECKS: Mapping[str, Check] = _CHECKS


def check(
    code: str, severity: Severity, title: str, remedy: str
) -> Callable[[Callable[[View], Iterable[Hit]]], Callable[[View], Iterable[Hit]]]:
    """Make a function a check."""

    def register(find: Callable[[View], Iterable[Hit]]) -> Callable[[View], Iterable[Hit]]:
        assert code not in _CHECKS, f"{code} is taken"
        _CHECKS[code] = Check(code, severity, title, remedy, find)
        return find

    return register

"""What a set of policies takes over from the one before: everything that their difference does not concern.

Documents are told apart by being the same objects, so that whoever reads them hands on those that did not change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple, TypeAlias

import msgspec

from nats_mesh.policy.decode import Policy
from nats_mesh.policy.group import Group
from nats_mesh.policy.problems import Problems
from nats_mesh.policy.scopes import namespace_of, scopes_of

__all__ = [
    "SUM_BYTES",
    "Change",
    "Names",
    "about",
    "check_names",
    "difference",
    "has_rules",
    "has_subsets",
    "has_telemetry",
    "less_selecting",
    "refreshed",
    "regrouped",
    "renamed",
    "summed",
]

#: What is compared of documents' names: the namespace they say and their kind.
Names: TypeAlias = dict[tuple[str, str], dict[str, Policy]]

#: Of the sum that names a content: two contents have the same one only by somebody's long work.
SUM_BYTES: Final = 32


class Change(NamedTuple):
    """What is in a set and was not in the one before, and the other way round."""

    come: Sequence[Policy]
    gone: Sequence[Policy]


def difference(before: tuple[Policy, ...], policies: tuple[Policy, ...]) -> Change | None:
    """How ``policies`` differ from those ``before``; ``None`` where that cannot be told."""
    known, now = set(map(id, before)), set(map(id, policies))
    if len(known) != len(before) or len(now) != len(policies):
        return None  # the same document twice
    come, gone = now - known, known - now
    return Change(_those(policies, come), _those(before, gone))


def _those(policies: Iterable[Policy], wanted: AbstractSet[int]) -> list[Policy]:
    """Of ``policies`` those whose identity is wanted, in their order."""
    return [policy for policy in policies if id(policy) in wanted] if wanted else []


def about(policy: Policy) -> str:
    """The service whose group a policy belongs to."""
    return scopes_of(policy)[0][0]


def regrouped(
    before: Mapping[str, Group] | None,
    policies: tuple[Policy, ...],
    change: Change,
    concerned: set[str],
    problems: Problems,
) -> dict[str, Group]:
    """The groups of a set: those ``before``, and new ones where something changed."""
    groups: dict[str, Group] = {} if before is None else dict(before)
    members: dict[str, list[Policy]] = {name: [] for name in sorted(concerned)}
    if before is None:
        for policy in policies:
            members[about(policy)].append(policy)
    else:
        gone = set(map(id, change.gone))
        stay = set(map(id, change.come))
        for name in concerned:
            if name in groups:
                stay |= set(map(id, groups[name].policies)) - gone
        for policy in _those(policies, stay):  # in their order: of two about the same thing the first counts
            members[about(policy)].append(policy)
    for name, those in members.items():
        if those:
            groups[name] = Group(name, tuple(those), problems)
        else:
            groups.pop(name, None)
    return groups


def refreshed(
    before: dict[str, Group] | None,
    groups: Mapping[str, Group],
    concerned: set[str],
    belongs: Callable[[Group], bool],
) -> dict[str, Group]:
    """Those of ``groups`` that belong somewhere, where those ``before`` are known."""
    found = {} if before is None else before.copy()
    for name in sorted(concerned):
        group = groups.get(name)
        if group is not None and belongs(group):
            found[name] = group
        else:
            found.pop(name, None)
    return found


def has_rules(group: Group) -> bool:
    """Whether calls are routed there."""
    return bool(group.rules)


def has_subsets(group: Group) -> bool:
    """Whether it names subsets."""
    return bool(group.subsets)


def has_telemetry(group: Group) -> bool:
    """Whether it says what is told of calls."""
    return bool(group.telemetry)


def less_selecting(before: Mapping[str, Group], groups: Mapping[str, Group], concerned: set[str]) -> set[str]:
    """The services of which a subset is gone."""
    less = set()
    for name in concerned:
        was, group = before.get(name), groups.get(name)
        known = () if was is None else was.subsets
        if known and (group is None or any(subset not in group.subsets for subset in known)):
            less.add(name)
    return less


def summed(total: int, change: Change) -> int:
    """What names the content: the sum of what names each document, so that order does not matter, and a change costs
    what it changes."""
    for policy in change.come:
        total += _named(policy)
    for policy in change.gone:
        total -= _named(policy)
    return int(total % (1 << 8 * SUM_BYTES))


def _named(policy: Policy) -> int:
    digest = hashlib.sha256(msgspec.json.encode(policy.document, order="sorted")).digest()
    return int.from_bytes(digest, "big")


def check_names(policies: Iterable[Policy], problems: Problems) -> Names | None:
    """The names, each of which may stand once; ``None`` where one does not."""
    seen: Names = {}
    once = True
    for policy in policies:
        named = seen.setdefault((namespace_of(policy, ""), policy.kind), {})
        other = named.setdefault(policy.document.metadata.name, policy)
        if other is not policy:
            once = False
            line = policy.lines.get("metadata.name", policy.line)
            message = f"{policy.name} stands at {other.place}, too: give one of them another name"
            problems.add(message, file=policy.file, line=line, path="metadata.name")
    return seen if once else None


def renamed(names: Names, change: Change, namespace: str) -> Names | None:
    """The names after a change; ``None`` where one stands twice, or a policy is for another namespace."""
    found = dict(names)
    copied: set[tuple[str, str]] = set()

    def table(policy: Policy) -> dict[str, Policy]:
        which = (namespace_of(policy, ""), policy.kind)
        if which not in copied:
            copied.add(which)
            found[which] = dict(names.get(which, {}))
        return found[which]

    for policy in change.gone:
        table(policy).pop(policy.document.metadata.name, None)
    for policy in change.come:
        other = table(policy).setdefault(policy.document.metadata.name, policy)
        if other is not policy or namespace_of(policy, namespace) != namespace:
            return None
    return found

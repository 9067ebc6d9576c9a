"""Whether a change of policies holds: each document, all of them with what stands there, and the set that each of its
steps leaves. Pure: it is asked before anything is stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from nats_mesh.core.sync_state import policy_label
from nats_mesh.errors import PolicyError
from nats_mesh.policy.bus.documents import read_document
from nats_mesh.policy.bus.plan import Document, Step, steps_of
from nats_mesh.policy.bus.revisions import Snapshot
from nats_mesh.policy.policy_set import PolicySet
from nats_mesh.policy.problems import Problems, together

__all__ = ["Prepared", "check_change", "stored_documents"]


class Prepared(NamedTuple):
    """A change that was checked: its steps, and what was found wrong with what stands there already. ``keys`` are what
    it is about, whether that changes or not."""

    snapshot: Snapshot
    current: Mapping[str, Document]
    steps: tuple[Step, ...]
    warnings: tuple[PolicyError, ...]
    keys: frozenset[str] = frozenset()


def stored_documents(snapshot: Snapshot, namespace: str, problems: Problems) -> dict[str, Document]:
    """The documents of a snapshot that can be read; what cannot goes to ``problems``."""
    found: dict[str, Document] = {}
    for key, revision in snapshot.policies.items():
        assert revision.value is not None
        try:
            policy = read_document(key, revision.value, revision.sequence, namespace=namespace)
        except PolicyError as error:
            for each in error.problems:
                problems.add(str(each))
        else:
            found[key] = Document(policy=policy, value=revision.value)
    return found


def check_change(snapshot: Snapshot, changes: Mapping[str, Document | None], *, namespace: str) -> Prepared:
    """Check ``changes`` (new documents by their keys, ``None``: deleted) against what stood there at ``snapshot``.

    A :class:`PolicyError` has everything that would be wrong and is not wrong already.
    """
    standing = Problems()
    current = stored_documents(snapshot, namespace, standing)
    before = Problems()
    # What a step leaves is looked at as far as it differs from this.
    base = PolicySet.collect([each.policy for each in current.values()], before, namespace=namespace)
    known = {str(each) for each in _all(before)}
    steps = _with_unread(steps_of(current, changes), snapshot, current, changes)
    wrong = _wrong(snapshot, current, changes, steps, known, base)
    if wrong:
        after = {key: each for key, each in current.items() if key not in changes}
        after |= {key: each for key, each in changes.items() if each is not None}
        if whole := _new(after, known, base):
            raise together(whole)
        steps = _with_unread(steps_of(current, changes, narrow=True), snapshot, current, changes)
        if still := _wrong(snapshot, current, changes, steps, known, base):
            raise _in_two(still, steps)
    return Prepared(snapshot, current, tuple(steps), (*_all(standing), *_all(before)), frozenset(changes))


def _new(documents: Mapping[str, Document], known: Collection[str], base: PolicySet) -> list[PolicyError]:
    """What is wrong with a set, beside what is known already."""
    found = Problems()
    policies = [each.policy for each in documents.values()]
    PolicySet.collect(policies, found, namespace=base.namespace, before=base)
    return [each for each in _all(found) if str(each) not in known]


def _wrong(
    snapshot: Snapshot,
    current: Mapping[str, Document],
    changes: Mapping[str, Document | None],
    steps: Sequence[Step],
    known: Collection[str],
    base: PolicySet,
) -> list[PolicyError]:
    """What is wrong with the set that the first of the steps leaves that leaves one which does not hold."""
    then = dict(current)
    for step in steps:
        for key, value in step.values.items():
            wanted = changes.get(key)
            if value is None:
                then.pop(key, None)
            elif wanted is not None and wanted.value == value:
                then[key] = wanted
            else:  # the intermediate form of a document
                policy = read_document(key, value, snapshot.sequence, namespace=base.namespace)
                then[key] = Document(policy=policy, value=value)
        if wrong := _new(then, known, base):
            return wrong
    return []


def _with_unread(
    steps: list[Step],
    snapshot: Snapshot,
    current: Mapping[str, Document],
    changes: Mapping[str, Document | None],
) -> list[Step]:
    """What cannot be read is no document of the current set, and goes all the same where it is to be deleted."""
    unread: dict[str, bytes | None] = {
        key: None
        for key, document in changes.items()
        if document is None and key in snapshot.policies and key not in current
    }
    if not unread:
        return steps
    if not steps:
        return [Step(why="all of it", values=unread)]
    return [msgspec.structs.replace(steps[0], values={**steps[0].values, **unread}), *steps[1:]]


def _in_two(problems: Sequence[PolicyError], steps: Sequence[Step]) -> PolicyError:
    """The error for a change that holds as a whole, and of which no first part holds with what stands there."""
    first = ", ".join(sorted(policy_label(key) for key in steps[0].values))
    return together(
        [
            *problems,
            PolicyError(
                "the change holds as a whole, but not with what stands there while it is made: make it in two. "
                f"First apply {first} so that it holds with the routes of now, then all of it"
            ),
        ]
    )


def _all(problems: Problems) -> Sequence[PolicyError]:
    error = problems.error()
    return () if error is None else error.problems

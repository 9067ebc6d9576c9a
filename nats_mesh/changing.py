"""A change of the policies on the bus, from the documents that are wanted to everybody's acknowledgement.

Everything is checked before anything is stored: each document, all of them together with what stands there, and the
set that each step leaves. Then the steps are stored one after another (:mod:`nats_mesh.policy.bus.plan`), each as one,
each once everybody who is alive has acknowledged the one before. Whoever stops in between leaves a set that holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import anyio
import msgspec

from nats_mesh.core.presence import POLICY_SCHEMA
from nats_mesh.discovery.acks import Acks, Report
from nats_mesh.errors import ConfigError, MeshError, PolicyError
from nats_mesh.policy.bus.documents import read_document
from nats_mesh.policy.bus.plan import Document, Step, steps_of
from nats_mesh.policy.bus.revisions import Applied, Change, Snapshot
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.policy.policy_set import PolicySet
from nats_mesh.policy.problems import Problems, together

__all__ = ["ACK_S", "Changed", "Changing", "Prepared", "UnacknowledgedError", "stored_documents"]

#: How long to wait for everybody's acknowledgement of a step (seconds).
ACK_S: Final = 5.0


class UnacknowledgedError(MeshError):
    """A step was not acknowledged by everybody, so the next one was not stored. ``report`` says by whom not, and
    ``applied`` what was stored so far; running the same change again goes on from there."""

    def __init__(self, message: str, report: Report, applied: Sequence[Applied]) -> None:
        super().__init__(message)
        self.report = report
        self.applied = tuple(applied)


class Prepared(NamedTuple):
    """A change that was checked: its steps, and what was found wrong with what stands there already."""

    snapshot: Snapshot
    current: Mapping[str, Document]
    steps: tuple[Step, ...]
    warnings: tuple[PolicyError, ...]


class Changed(NamedTuple):
    """How a change went: what each step stored, and who acknowledged the last one (``None``: nobody was asked)."""

    applied: tuple[Applied, ...]
    report: Report | None


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


class Changing:
    """Changes the policies of ``store``'s namespace. ``tell`` hears what is going on, in words for people."""

    def __init__(self, store: PolicyStore, acks: Acks, *, tell: Callable[[str], None]) -> None:
        self._store = store
        self._acks = acks
        self._tell = tell

    async def prepare(self, changes: Mapping[str, Document | None]) -> Prepared:
        """Check ``changes`` (new documents by their keys, ``None``: deleted) against what stands there now.

        A :class:`PolicyError` has everything that would be wrong and is not wrong already.
        """
        snapshot = await self._store.snapshot()
        return self.check(snapshot, changes)

    def check(self, snapshot: Snapshot, changes: Mapping[str, Document | None]) -> Prepared:
        """As :meth:`prepare`, for what stood there at ``snapshot``."""
        namespace = self._store.subjects.namespace
        standing = Problems()
        current = stored_documents(snapshot, namespace, standing)
        before = Problems()
        PolicySet.collect([each.policy for each in current.values()], before, namespace=namespace)
        known = {str(each) for each in _all(before)}
        steps = _with_unread(steps_of(current, changes), snapshot, current, changes)
        then = dict(current)
        for step in steps:
            for key, value in step.values.items():
                wanted = changes.get(key)
                if value is None:
                    then.pop(key, None)
                elif wanted is not None and wanted.value == value:
                    then[key] = wanted
                else:  # the intermediate form of a document
                    policy = read_document(key, value, snapshot.sequence, namespace=namespace)
                    then[key] = Document(policy=policy, value=value)
            found = Problems()
            PolicySet.collect([each.policy for each in then.values()], found, namespace=namespace)
            new = [each for each in _all(found) if str(each) not in known]
            if new:
                raise together(new)
        return Prepared(snapshot, current, tuple(steps), (*_all(standing), *_all(before)))

    async def carry_out(
        self, prepared: Prepared, *, message: str = "", wait_s: float | None = ACK_S, one_by_one: bool = False
    ) -> Changed:
        """Store the steps. Between two of them, and with ``wait_s`` after the last one, everybody alive is waited for.

        :class:`UnacknowledgedError` where somebody has not acknowledged a step that another one builds upon.
        """
        applied: list[Applied] = []
        report: Report | None = None
        expected = dict(prepared.snapshot.expected)
        last = len(prepared.steps) - 1
        if prepared.steps:
            await self._acks.roll_call()
            self._check_schemas()
        for place, step in enumerate(prepared.steps):
            if last:
                self._tell(f"step {place + 1} of {last + 1}: {step.why}")
                if step.pause_s:
                    self._tell(f"waiting {step.pause_s:g} s for calls that are under way")
                    await anyio.sleep(step.pause_s)
            changes = [
                Change(key=key, value=value, expected=expected.get(key, 0))
                for key, value in step.values.items()
            ]
            done = await self._store.apply(
                changes, message=message, change=applied[0].change if applied else "", one_by_one=one_by_one
            )
            applied.append(done)
            expected |= done.sequences
            if place < last or wait_s is not None:
                report = await self._acks.wait(
                    done.epoch, done.sequences, timeout_s=ACK_S if wait_s is None else wait_s
                )
            if place < last and report is not None and not report.agreed:
                await self._gone(report)
                report = self._acks.report(done.epoch, done.sequences)
                if not report.agreed:
                    raise UnacknowledgedError(
                        f"{step.why}: stored, but not in effect everywhere, so what builds upon it was not stored",
                        report,
                        applied,
                    )
        if report is not None and report.silent:
            await self._gone(report)
            report = self._acks.report(applied[-1].epoch, applied[-1].sequences)
        return Changed(tuple(applied), report)

    def _check_schemas(self) -> None:
        """Everybody who is alive must be able to read what is stored: else nothing is."""
        old = self._acks.too_old(POLICY_SCHEMA)
        if old:
            names = ", ".join(each.place for each in old[:5])
            more = f" and {len(old) - 5} more" if len(old) > 5 else ""
            raise ConfigError(
                f"{names}{more}: run a version that reads no policies of schema {POLICY_SCHEMA}; update them first"
            )

    async def _gone(self, report: Report) -> None:
        """Of those that are silent, forget who is not there any more."""
        if not report.silent:
            return
        here = {(each.service, each.instance) for each in await self._acks.roll_call()}
        for member in report.silent:
            if (member.service, member.instance) not in here:
                self._acks.forget(member)


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


def _all(problems: Problems) -> Sequence[PolicyError]:
    error = problems.error()
    return () if error is None else error.problems

"""A change of the policies on the bus, from the documents that are wanted to everybody's acknowledgement.

Everything is checked before anything is stored: each document, all of them together with what stands there, and the
set that each step leaves. Then the steps are stored one after another (:mod:`nats_mesh.policy.bus.plan`), each as one,
each once everybody who is alive has acknowledged the one before. Whoever stops in between leaves a set that holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

import anyio
import msgspec

from nats_mesh.core.presence import POLICY_SCHEMA, Rejection
from nats_mesh.discovery.acks import Acks, Member, Report
from nats_mesh.errors import ConfigError, MeshError
from nats_mesh.policy.bus.checking import Prepared, check_change, stored_documents
from nats_mesh.policy.bus.plan import Document
from nats_mesh.policy.bus.revisions import Applied, Change, Snapshot
from nats_mesh.policy.bus.store import PolicyStore

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


class Changed(NamedTuple):
    """How a change went. ``applied`` is what each step stored, in order; empty where everything stood there already.

    ``report`` says who acknowledged the last step or, where nothing was stored, what stood there already. It is what
    was known when waiting ended, without those of the silent that had left by then. Who stands where in it does not
    change afterwards, but its members are those of :class:`~nats_mesh.discovery.acks.Acks`: what is heard of one while
    that is open still shows in it. ``None``: nobody was waited for, or nothing of it ever stood there.
    """

    applied: tuple[Applied, ...]
    report: Report | None


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
        return check_change(snapshot, changes, namespace=self._store.subjects.namespace)

    async def carry_out(
        self,
        prepared: Prepared,
        *,
        message: str = "",
        wait_s: float | None = ACK_S,
        one_by_one: bool = False,
        back_to: int | None = None,
    ) -> Changed:
        """Store the steps. Between two of them, and with ``wait_s`` after the last one, everybody is waited for who
        ought to be there: who answers, and where there is a witness of presence, who does not.
        ``back_to`` is what :meth:`PolicyStore.apply` says of it.

        :class:`UnacknowledgedError` where somebody has not acknowledged a step that another one builds upon.
        """
        if not prepared.steps:
            return Changed((), None if wait_s is None else await self._in_effect(prepared, wait_s))
        applied: list[Applied] = []
        report: Report | None = None
        expected = dict(prepared.snapshot.expected)
        last = len(prepared.steps) - 1
        if last or wait_s is not None:
            await self._attend()
        else:
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
                changes,
                message=message,
                change=applied[0].change if applied else "",
                back_to=back_to,
                one_by_one=one_by_one,
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

    async def _attend(self) -> None:
        """Find out who is there, and who ought to be."""
        await self._acks.attend()
        if self._acks.problem:
            self._tell(self._acks.problem)

    async def _in_effect(self, prepared: Prepared, wait_s: float) -> Report | None:
        """Whether what stands there already is in effect everywhere; ``None`` where nothing of it ever did."""
        snapshot = prepared.snapshot
        sequences = {key: snapshot.expected[key] for key in prepared.keys if snapshot.expected.get(key)}
        if not sequences:
            return None
        await self._attend()
        report = await self._acks.wait(snapshot.epoch, sequences, timeout_s=wait_s)
        await self._gone(report)
        return _with_refusals(self._acks.report(snapshot.epoch, sequences), prepared.keys)

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
        if report.silent:
            for note in await self._acks.look_again(report.silent):
                self._tell(note)


def _with_refusals(report: Report, keys: Collection[str]) -> Report:
    """Who is as far as it goes may have refused something on the way: answers to a roll call name the newest, and how
    many there are. Where any of them may be of these ``keys``, it has not applied them."""
    applied: list[Member] = []
    refused = list(report.rejected)
    for member in report.applied:
        key = member.reason.partition(": ")[0]
        if member.rejected and (member.rejected > 1 or key == "*" or key in keys):
            refused.append((member, Rejection(policy=key, reason=member.reason.partition(": ")[2])))
        else:
            applied.append(member)
    return msgspec.structs.replace(report, applied=tuple(applied), rejected=tuple(refused))

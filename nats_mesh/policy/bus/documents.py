"""From what stands in the store to the set that holds: every value checked alone, then all of them together.

What is wrong never takes effect, and takes nothing else with it but what was stored in one change with it: of those
keys the last good documents stay. Where what is wrong cannot be told from the rest, all of the last good set stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET

from nats_mesh.core.presence import MAX_REJECTIONS, Rejection
from nats_mesh.core.replica import Record
from nats_mesh.errors import UNREADABLE, PolicyError
from nats_mesh.model import is_name
from nats_mesh.policy.decode import Policy, decode
from nats_mesh.policy.policy_set import PolicySet
from nats_mesh.policy.problems import Problems
from nats_mesh.wire.headers import one_line

__all__ = ["MAX_VALUE", "Builder", "Built", "key_of", "read_document"]

#: The largest value that is read, in bytes.
MAX_VALUE: Final = 256 << 10
#: How often what is wrong is taken out and the rest tried again.
_ROUNDS: Final = 16
_MAX_KEY, _MAX_REASON = 160, 512
#: Documents of the store have no lines.
_NO_LINES: Mapping[str, int] = {}


class Built(NamedTuple):
    """What came of it. ``policies`` is ``None`` where nothing of it could be taken; ``rejected`` counts what was
    refused, of which ``rejections`` has the newest."""

    policies: PolicySet | None
    rejections: tuple[Rejection, ...]
    rejected: int


def key_of(policy: Policy) -> str:
    """The key of a document in the store: ``Kind.name``."""
    return f"{policy.kind}.{policy.document.metadata.name}"


def place_of(key: str, sequence: int) -> str:
    """What errors call a document of the store in the place of a file."""
    return f"{key}@{sequence}"


def read_document(key: str, value: bytes, sequence: int, *, namespace: str) -> Policy:
    """The one document that ``value`` is; :class:`PolicyError` where it is none, or not the one of its key."""
    place = place_of(one_line(key, _MAX_KEY), sequence)
    if len(value) > MAX_VALUE:
        raise PolicyError(f"{place}: has {len(value)} bytes, at most {MAX_VALUE} are read", file=place)
    kind, dot, name = key.partition(".")
    if not (dot and is_name(kind) and is_name(name)):
        raise PolicyError(f"{place}: is no key of a policy: Kind.name", file=place)
    try:
        msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    except UNREADABLE as error:
        raise PolicyError(f"{place}: is no document of JSON: {error}", file=place) from None
    problems = Problems()
    found = decode(value, place, problems)
    problems.raise_if_any()
    if len(found) != 1:
        raise PolicyError(f"{place}: holds {len(found)} documents; a key has one", file=place)
    policy = found[0]
    if key_of(policy) != key:
        raise PolicyError(
            f"{place}: the document is {policy.name}, which belongs under another key", file=place
        )
    said = policy.document.metadata.namespace
    if said is not UNSET and said != namespace:
        raise PolicyError(
            f"{place}: is for the namespace {said!r}, and this store is of {namespace!r}", file=place
        )
    return msgspec.structs.replace(policy, lines=_NO_LINES)


class _Read(NamedTuple):
    """What a record was found to be: a policy, or why it is none."""

    sequence: int
    time: str
    policy: Policy | None
    reason: str


class Builder:
    """Makes sets of one namespace's store. ``current`` is the last good set, of which ``good`` are the documents.

    :meth:`build` changes nothing; what it came to counts once :meth:`accept` is called. One at a time.
    """

    def __init__(self, namespace: str) -> None:
        self.current = PolicySet.empty(namespace=namespace)
        self.good: dict[str, Policy] = {}
        self._namespace = namespace
        #: The entries that were looked at last, what each was found to be, and why some are no policy.
        self._seen: Mapping[str, Record] = {}
        self._read: dict[str, _Read] = {}
        self._unreadable: dict[str, str] = {}
        #: Those that are policies, the oldest first, and the sequence of the newest one.
        self._policies: dict[str, Policy] = {}
        self._newest = 0
        self._next: dict[str, Policy] = {}

    def build(self, entries: Mapping[str, Record], epoch: int) -> Built:
        """The set of ``entries``. It may take long, and run in a thread, as long as nobody else uses this object."""
        self._take(entries)
        bad = self._unreadable.copy()
        together: Mapping[str, list[str]] | None = None
        error: PolicyError | None = None
        for _ in range(_ROUNDS):
            if bad:
                together = _changes(entries) if together is None else together
                self._spread(bad, entries, together)
            chosen = self._chosen(entries, bad)
            if chosen == self.good:  # the very same documents: policies are equal to nothing but themselves
                self._next = chosen
                return self._built(self.current, bad, entries, epoch)
            problems = Problems()
            made = self._collect(chosen.values(), problems)
            error = problems.error()
            if error is None:
                self._next = chosen
                return self._built(made, bad, entries, epoch)
            if not self._blame(error, chosen, entries, bad) and not self._undo(error, chosen, entries, bad):
                break
        newest = max((record.sequence for record in entries.values()), default=0)
        why = "too much of it is wrong" if error is None else _reason(error)
        whole = Rejection(policy="*", reason=why, revision=(epoch, newest))
        built = self._built(None, bad, entries, epoch)
        return Built(None, (whole, *built.rejections[: MAX_REJECTIONS - 1]), built.rejected + 1)

    def accept(self, policies: PolicySet) -> None:
        """What :meth:`build` came to last is in effect."""
        self.current, self.good = policies, self._next

    def _collect(self, policies: Iterable[Policy], problems: Problems) -> PolicySet:
        return PolicySet.collect(policies, problems, namespace=self._namespace, before=self.current)

    def _take(self, entries: Mapping[str, Record]) -> None:
        """Read what is new."""
        seen = self._seen
        new = [record for key, record in entries.items() if seen.get(key) is not record]
        gone = seen.keys() - entries.keys() if len(seen) + len(new) > len(entries) else ()
        for key in gone:
            self._forget(key)
        new.sort(key=_sequence)
        in_order = not new or new[0].sequence > self._newest
        for record in new:
            known = self._read.get(record.key)
            if record.value is None:
                self._forget(record.key)
                continue
            if known is None or (known.sequence, known.time) != (record.sequence, record.time):
                known = self._document(record)
                self._forget(record.key)
            self._read[record.key] = known
            if known.policy is None:
                self._unreadable[record.key] = known.reason
            else:
                self._policies[record.key] = known.policy
        if new:
            self._newest = max(self._newest, new[-1].sequence)
        if not in_order:  # the log was read anew
            self._policies = dict(
                sorted(self._policies.items(), key=lambda item: self._read[item[0]].sequence)
            )
            self._newest = max((record.sequence for record in entries.values()), default=0)
        self._seen = entries

    def _forget(self, key: str) -> None:
        self._read.pop(key, None)
        self._unreadable.pop(key, None)
        self._policies.pop(key, None)

    def _document(self, record: Record) -> _Read:
        assert record.value is not None
        if record.size > MAX_VALUE:
            reason = f"has {record.size} bytes, at most {MAX_VALUE} are read"
            return _Read(record.sequence, record.time, None, reason)
        try:
            policy = read_document(record.key, record.value, record.sequence, namespace=self._namespace)
        except PolicyError as error:
            return _Read(record.sequence, record.time, None, _reason(error))
        return _Read(record.sequence, record.time, policy, "")

    @staticmethod
    def _spread(
        bad: dict[str, str], entries: Mapping[str, Record], together: Mapping[str, list[str]]
    ) -> None:
        """What was stored in one change with something wrong is not taken either: half of a change is none."""
        for key in list(bad):
            change = _change(entries[key])
            for other in together.get(change, ()) if change else ():
                bad.setdefault(other, f"was stored in one change with {key}, which was rejected")

    def _chosen(self, entries: Mapping[str, Record], bad: Mapping[str, str]) -> dict[str, Policy]:
        """What is tried, the oldest first, so that of two that contradict each other the newer one is refused."""
        chosen = self._policies.copy()
        old: dict[str, Policy] = {}
        for key in sorted(bad, key=lambda key: entries[key].sequence):
            chosen.pop(key, None)
            if key in self.good:
                old[key] = self.good[key]
        return old | chosen if old else chosen

    @staticmethod
    def _blame(
        error: PolicyError, chosen: Mapping[str, Policy], entries: Mapping[str, Record], bad: dict[str, str]
    ) -> bool:
        """Find whose fault it is; whether somebody was found whose document can be left out."""
        blamed = False
        for each in error.problems:
            key = (each.file or "").partition("@")[0]
            if key in bad or key not in entries or key not in chosen:
                continue
            bad[key] = _reason(each)
            blamed = True
        return blamed

    def _undo(
        self,
        error: PolicyError,
        chosen: Mapping[str, Policy],
        entries: Mapping[str, Record],
        bad: dict[str, str],
    ) -> bool:
        """What was good before is wrong now, so something else that changed made it so: of that the newest is
        not taken, be it a deletion. Whether there was any."""
        changed = [
            record
            for key, record in entries.items()
            if key not in bad and chosen.get(key) is not self.good.get(key)
        ]
        if not changed:
            return False
        newest = max(changed, key=_sequence)
        bad[newest.key] = f"would leave another policy wrong: {_reason(error)}"[:_MAX_REASON]
        return True

    def _built(
        self, made: PolicySet | None, bad: Mapping[str, str], entries: Mapping[str, Record], epoch: int
    ) -> Built:
        newest = sorted(bad, key=lambda key: entries[key].sequence, reverse=True)
        rejections = tuple(
            Rejection(
                policy=one_line(key, _MAX_KEY), reason=bad[key], revision=(epoch, entries[key].sequence)
            )
            for key in newest[:MAX_REJECTIONS]
        )
        return Built(made, rejections, len(bad))


def _sequence(record: Record) -> int:
    return record.sequence


def _change(record: Record) -> str:
    return record.change or record.batch


def _changes(entries: Mapping[str, Record]) -> dict[str, list[str]]:
    """The keys of each change, by its id."""
    found: dict[str, list[str]] = {}
    for key, record in entries.items():
        if change := _change(record):
            found.setdefault(change, []).append(key)
    return found


def _reason(error: PolicyError) -> str:
    return one_line(str(error), _MAX_REASON)

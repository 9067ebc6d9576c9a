"""Which of the changes that records tell of one key belong to the line of revisions that a store really has. Pure.

A store that was restored from a backup had changes that it knows nothing of any more: their records are honest, and
still they and those of what came afterwards cannot both be true of one line. What the store itself says tells them
apart as far as it goes: its newest revision of the key with the instant of that, and where its epoch begins. A change
of this epoch is above that place, one of an earlier epoch below; whatever is not was lost with the restore, or never
made. What is left and cannot have been one after the other is believed only where it makes no difference: where all of
it goes back to the same revision, which then stood there at the moment, whichever way things went from there.

Rejected: to follow the records that reach up to the newest revision without a gap, and to pass over all others. Where a
true record is missing, a forged one would be enough to be believed beside those that contradict it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from nats_mesh.audit.records import DocumentChange, Stood
from nats_mesh.core.presence import incarnation
from nats_mesh.policy.bus.revisions import Snapshot

__all__ = ["Step", "of_line", "settled", "step_of"]


class Step(NamedTuple):
    """A change after the moment: from which revision to which, each with its instant as it sorts (empty: not known).

    ``stood``: what it replaced stood there at the moment, or nothing ever did. ``before`` is what it replaced, where
    that may be so.
    """

    epoch: int
    low: int
    low_time: str
    high: int
    high_time: str
    stood: bool
    before: Stood | None


def step_of(change: DocumentChange, epoch: int, moment: str) -> Step:
    """A change that was made after the ``moment``."""
    before, after = change.before, change.after
    low_time = "" if before is None or not before.time else incarnation(before.time)
    high_time = incarnation(after.time) if after.time else ""
    low = 0 if before is None else before.revision
    if before is None:
        return Step(epoch, low, low_time, after.revision, high_time, True, None)
    kept = before if low_time <= moment else None  # its bytes are not needed
    return Step(epoch, low, low_time, after.revision, high_time, "" < low_time <= moment, kept)


def of_line(steps: Iterable[Step], key: str, time: str, now: Snapshot) -> list[Step]:
    """Those of ``steps`` that the store, as it is ``now``, may have come by; ``time`` is its instant of the newest
    revision of ``key``. A change that was made is always among them."""
    newest, at = now.expected.get(key, 0), incarnation(time)
    return [
        each
        for each in steps
        if each.high <= newest
        and (each.high < newest or each.high_time in ("", at))
        and (each.high > now.began if each.epoch == now.epoch else each.high < now.began)
    ]


def settled(steps: Iterable[Step]) -> Step | None:
    """The first change after the moment; ``None`` where that cannot be said, because not all of them were made."""
    line = sorted(steps, key=lambda each: (each.low, each.high))
    if (
        not all(each.low < each.high for each in line)
        or len({each.before for each in line if each.stood}) > 1
    ):
        return None
    if all(one.high <= other.low for one, other in pairwise(line)):
        return line[0]
    made: dict[int, set[str]] = {}
    for each in line:
        made.setdefault(each.high, set()).add(each.high_time)
    for each in line:
        if not each.stood and not made.get(each.low, set()) & {each.low_time, ""}:
            return None  # nobody tells where it comes from
    return line[0]

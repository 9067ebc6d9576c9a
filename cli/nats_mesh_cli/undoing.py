"""What ``undo`` undoes: the last change that still holds. Pure, over the log of a store.

An undo is written like any change, and says as of which revision what it puts back stood (``Revision.back_to``). For
each key what holds then is what held as of that revision, so that a second undo goes one change further back, whoever
made the first, and whichever other policies were changed in between. Rejected: that an undo is itself what the next one
undoes (two of them would be none, and nobody could go back two changes), and a pointer for the whole store (an undo of
one policy would move all others).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from nats_mesh.core.sync_state import policy_label
from nats_mesh.policy.bus.bucket import HISTORY
from nats_mesh.policy.bus.revisions import Revision
from nats_mesh_cli.errors import FAILED, CliError
from nats_mesh_cli.instants import shown_time
from nats_mesh_cli.naming import by_key

__all__ = ["Back", "last_change", "told"]


class Back(NamedTuple):
    """What is put back, by key (``None``: nothing stood there), and as of which revision that was so. ``undone`` is a
    revision of the change that it undoes."""

    found: Mapping[str, Revision | None]
    back_to: int
    undone: Revision


class _Held(NamedTuple):
    """A change of one key that still holds: where it began, and what it left.

    ``back_to``: an undo put it back as of that revision, and what is kept does not go back so far. Then it is not known
    which change it is, but that it was made by then.
    """

    first: int
    revision: Revision
    back_to: int | None = None

    @property
    def latest(self) -> int:
        """The revision after which it was not made."""
        return self.revision.sequence if self.back_to is None else self.back_to


def last_change(log: Sequence[Revision], keys: Iterable[str] = ()) -> Back:
    """What to put back so that the last change of ``keys`` (empty: of any) is undone that is not undone already and
    is no undo itself; :class:`CliError` where there is none, or what stood there is not kept any more."""
    only = set(keys)
    of = {key: each for key, each in by_key(log).items() if not only or key in only}
    held = {key: _holding(revisions) for key, revisions in of.items()}
    tops = [changes[-1] for changes in held.values() if changes]
    if not tops:
        raise CliError(
            "there is nothing to undo: "
            + ("every change is undone already" if of else "nothing was changed"),
            hint="--to-revision N puts back any revision of 'history'" if of else "",
            code=FAILED,
        )
    last = max(tops, key=lambda each: each.latest)
    if last.back_to is not None:
        raise CliError(
            f"{policy_label(last.revision.key)}: it is as it was at revision {last.back_to} (by the undo that is "
            f"revision {last.revision.sequence}), and what is kept does not go back so far: what to undo next is "
            "not known",
            hint="--to-revision N puts back any revision of 'history'",
            code=FAILED,
        )
    found: dict[str, Revision | None] = {}
    first = last.first
    for key, changes in held.items():
        if not changes or changes[-1].back_to is not None or not _same(changes[-1].revision, last.revision):
            continue
        if len(changes) == 1 and len(of[key]) >= HISTORY:
            raise CliError(f"{policy_label(key)}: what stood there before is not kept any more", code=FAILED)
        found[key] = changes[-2].revision if len(changes) > 1 else None
        first = min(first, changes[-1].first)
    return Back(found, first - 1, last.revision)


def told(back: Back, again: str) -> str:
    """Which change is undone, for people; ``again`` is the command that would put it back."""
    undone = back.undone
    why = f": {undone.message}" if undone.message else ""
    return (
        f"undoes revision {undone.sequence} ({undone.operator or 'unknown'}, {shown_time(undone.time)}{why}); "
        f"{again} --to-revision {undone.sequence} puts that back"
    )


def _holding(revisions: Sequence[Revision]) -> list[_Held]:
    """The changes of one key that are not undone, the oldest first."""
    complete = len(revisions) < HISTORY
    held: list[_Held] = []
    then: list[tuple[int, list[_Held]]] = []  # what held after each revision
    for each in revisions:
        if each.back_to is not None:
            nothing = complete or each.back_to == 0  # and not merely something that is not kept any more
            unknown = [] if nothing else [_Held(each.sequence, each, each.back_to)]
            held = next((past for at, past in reversed(then) if at <= each.back_to), unknown)
        elif held and _same(held[-1].revision, each):  # a further step of the same change
            held = [*held[:-1], held[-1]._replace(revision=each)]
        else:
            held = [*held, _Held(each.sequence, each)]
        if _is_nothing(held, complete=complete):
            held = held[:-1]
        then.append((each.sequence, held))
    return held


def _is_nothing(held: Sequence[_Held], *, complete: bool) -> bool:
    """Whether the last change left what stood there before, because it was taken back at once."""
    if len(held) > 1:
        return held[-1].revision.value == held[-2].revision.value
    return bool(held) and complete and held[-1].revision.value is None


def _same(one: Revision, other: Revision) -> bool:
    return one is other or (bool(one.change) and one.change == other.change)

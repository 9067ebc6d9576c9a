"""How a member stands with the policies on the bus: one word and one reason, for whatever counts or shows members.

``SYNCED`` has applied the revision that holds, ``STALE`` has not, or does not answer, ``REJECTED`` refuses some of it,
``ELSEWHERE`` takes its policies from where no change of the store reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from nats_mesh.core.presence import Rejection

__all__ = ["ELSEWHERE", "ORDER", "SyncState", "Verdict", "policy_label", "verdict_of"]

SyncState: TypeAlias = Literal["REJECTED", "STALE", "SYNCED", "ELSEWHERE"]
#: The states, the worst first.
ORDER: Final[tuple[SyncState, ...]] = ("REJECTED", "STALE", "SYNCED", "ELSEWHERE")
#: Sources of a member's policies that no change of the store reaches.
ELSEWHERE: Final = frozenset({"files", "given", "off"})
#: What each of them is called.
_SOURCES: Final = {
    "files": "its policies come from files",
    "given": "its policies are given in its code",
    "off": "it follows no policies",
}


class Verdict(msgspec.Struct, frozen=True):
    """A state, and why it is no better; ``reason`` is empty where there is nothing to say."""

    state: SyncState
    reason: str = ""

    @property
    def follows(self) -> bool:
        """Whether it is one of those whom a change of the store reaches."""
        return self.state != "ELSEWHERE"


def policy_label(key: str) -> str:
    """``Kind/name``, as people read it, of the ``Kind.name`` that travels and is stored."""
    return key.replace(".", "/", 1)


def verdict_of(
    source: str,
    revision: tuple[int, int],
    head: tuple[int, int],
    *,
    rejected: int = 0,
    rejections: Sequence[Rejection] = (),
    reason: str = "",
    silent: str = "",
) -> Verdict:
    """The verdict on a member whose policies come from ``source`` and who has applied ``revision``.

    ``head`` is the revision that holds; (epoch, number), both (0, 0) where there is none. ``rejected`` counts what it
    refuses, of which it told ``rejections``, or of the last one the ``reason`` alone. ``silent`` says why nothing is
    heard of it, where that is so. A member that does not say where its policies come from follows the bus if it has
    applied anything.
    """
    if source in ELSEWHERE:
        return Verdict("ELSEWHERE", _SOURCES[source])
    if silent:
        return Verdict("STALE", silent)
    if not source and revision == (0, 0):
        return Verdict("ELSEWHERE", "it does not say whom it follows")
    if rejected or rejections:
        return Verdict("REJECTED", _refused(max(rejected, len(rejections)), rejections, reason))
    if source == "cache":
        return Verdict("STALE", "it reads from its cache: the store has not answered it")
    if revision[0] != head[0]:
        return Verdict(
            "STALE", "it follows another store than there is now" if revision[0] else "it has none yet"
        )
    if revision < head:
        return Verdict("STALE", f"it is at {revision[1]}, the policies are at {head[1]}")
    return Verdict("SYNCED")


def _refused(count: int, rejections: Sequence[Rejection], reason: str) -> str:
    policy, colon, why = reason.partition(": ")
    first = f"{policy_label(policy)}{colon}{why}"
    if rejections:
        first = f"{policy_label(rejections[0].policy)}: {rejections[0].reason}"
    if not first:
        return f"{count} policies" if count > 1 else "1 policy"
    return f"{first} (and {count - 1} more)" if count > 1 else first

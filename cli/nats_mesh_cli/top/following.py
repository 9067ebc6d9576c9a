"""Who follows the policies, and how far: from what members say of themselves. Pure."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import Final

from nats_mesh.telemetry.alert_messages import LevelName
from nats_mesh.telemetry.snapshots import Member
from nats_mesh_cli.top.model import Data, Follower, PolicyLine

__all__ = ["ORDER", "Facts", "followers", "head_of", "state_of"]

#: The states, the worst first.
ORDER: Final = ("REJECTED", "STALE", "SYNCED", "ELSEWHERE")
_ELSEWHERE: Final = frozenset({"files", "given", "off", ""})


def head_of(data: Data) -> tuple[int, int]:
    """The revision that members ought to have: the store's, or where nobody can read that the highest applied."""
    return data.mesh.policies.head if data.head is None else data.head


def state_of(member: Member, head: tuple[int, int]) -> tuple[str, str]:
    """How far a member follows, and what is to be said of it."""
    if member.rejected:
        reasons = [f"{each.policy}: {each.reason}" for each in member.rejections]
        more = member.rejected - len(reasons)
        return "REJECTED", "; ".join([*reasons, *([f"and {more} more"] if more > 0 and reasons else [])])
    if member.policy_source == "cache":
        return "STALE", "it reads from its cache: the store has not answered it"
    if member.policy_source in _ELSEWHERE and member.revision == (0, 0):
        where = member.policy_source
        return "ELSEWHERE", f"its policies come from {where}" if where else "it does not say whom it follows"
    if head == (0, 0):
        return "ELSEWHERE", "there are no policies to follow"
    if member.revision != head:
        return "STALE", f"the policies are at {head[1]}" if member.revision[0] == head[0] else "another epoch"
    return "SYNCED", ""


def followers(data: Data) -> list[Follower]:
    """Everybody, the worst first."""
    head = head_of(data)
    found = []
    for member in data.mesh.members:
        state, reason = state_of(member, head)
        found.append(
            Follower(
                service=member.service,
                id=member.id,
                name=member.name,
                state=state,
                revision=None if state == "ELSEWHERE" else member.revision[1],
                reason=reason,
            )
        )
    return sorted(found, key=lambda each: (ORDER.index(each.state), each.service, each.id))


class Facts:
    """What rows need of all the data together, counted once for a frame."""

    def __init__(self, data: Data) -> None:
        self.data = data

    @cached_property
    def head(self) -> tuple[int, int]:
        """See :func:`head_of`."""
        return head_of(self.data)

    @cached_property
    def followers(self) -> list[Follower]:
        """Everybody, the worst first."""
        return followers(self.data)

    @cached_property
    def following(self) -> list[int]:
        """The revisions of those that follow the store."""
        return [each.revision for each in self.followers if each.revision is not None]

    @cached_property
    def counts(self) -> Counter[str]:
        """How many members are in each state."""
        return Counter(each.state for each in self.followers)

    @cached_property
    def levels(self) -> dict[str, LevelName]:
        """The worst level of the objectives of each service, where somebody watches them."""
        return self.data.promised.worst

    @property
    def fires(self) -> bool:
        """Whether any alert does."""
        return any(level != "ok" for level in self.levels.values())

    @cached_property
    def ejected(self) -> Counter[str]:
        """How many callers have ejected an instance."""
        return Counter(each.ejected for each in self.data.mesh.ejections)

    @cached_property
    def refusals(self) -> dict[str, list[tuple[Member, str]]]:
        """Who does not take a policy (``Kind/name``), and why."""
        found: dict[str, list[tuple[Member, str]]] = {}
        for member in self.data.mesh.members:
            for each in member.rejections:
                found.setdefault(each.policy.replace(".", "/", 1), []).append((member, each.reason))
        return found

    def refused(self, policy: PolicyLine) -> list[tuple[Member, str]]:
        """Who does not take this one, and why."""
        return self.refusals.get(policy.name, [])

"""Who follows the policies, and how far: from what members say of themselves. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

from nats_mesh.core.sync_state import ORDER, policy_label
from nats_mesh.telemetry.alert_messages import LevelName
from nats_mesh.telemetry.snapshots import Member
from nats_mesh_cli.last_errors import LastError, last_errors
from nats_mesh_cli.top.model import Data, Follower, PolicyLine
from nats_mesh_cli.trouble import SOME_GAVE_UP

__all__ = ["Facts", "facts_of", "followers"]

#: So many tables are remembered of one data.
_TABLES: Final = 8


def followers(data: Data) -> list[Follower]:
    """Everybody, the worst first."""
    found = []
    for member in data.mesh.members:
        said = member.verdict(data.head)
        found.append(
            Follower(
                service=member.service,
                id=member.id,
                name=member.name,
                state=said.state,
                revision=member.revision[1] if said.follows else None,
                reason=said.reason,
            )
        )
    return sorted(found, key=lambda each: (ORDER.index(each.state), each.service, each.id))


class Facts:
    """What rows need of all the data together, counted once; and the rows of tables and pages that were asked for:
    keys and frames ask for the same again and again."""

    def __init__(self, data: Data) -> None:
        self.data = data
        #: The instant that ages are counted to.
        self.at = data.mesh.at
        self._tables: dict[tuple[Any, ...], list[Any]] = {}

    @cached_property
    def errors(self) -> dict[tuple[str, str], LastError]:
        """The last errors that their callers alone know of."""
        return last_errors(self.data.mesh)

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
        head = self.data.head
        return Counter([each.verdict(head).state for each in self.data.mesh.members])

    @cached_property
    def levels(self) -> dict[str, LevelName]:
        """The worst level of the objectives of each service, where somebody watches them."""
        return self.data.promised.worst

    @property
    def policed(self) -> bool:
        """Whether there are policies on the bus at all, or members that refuse some."""
        return self.data.head != (0, 0) or bool(self.counts["REJECTED"])

    @property
    def fires(self) -> bool:
        """Whether any alert does."""
        return any(level != "ok" for level in self.levels.values())

    @cached_property
    def some_gave_up(self) -> bool:
        """Whether so many calls of anybody were given up that it shows."""
        mesh = self.data.mesh
        reds = [*(each.red for each in mesh.services), *(each.red for each in mesh.edges)]
        return any(red.gave_up >= SOME_GAVE_UP for red in reds)

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
                found.setdefault(policy_label(each.policy), []).append((member, each.reason))
        return found

    def table(self, key: tuple[Any, ...], make: Callable[[], list[Any]]) -> list[Any]:
        """The rows that ``make`` makes of this data and of what is in ``key``; nobody changes them."""
        rows = self._tables.get(key)
        if rows is None:
            if len(self._tables) >= _TABLES:
                self._tables.clear()
            rows = self._tables[key] = make()
        return rows

    def refused(self, policy: PolicyLine) -> list[tuple[Member, str]]:
        """Who does not take this one, and why."""
        return self.refusals.get(policy.name, [])


class _Last:
    """The facts of the last data that was asked about: keys and frames ask again and again before there is newer."""

    def __init__(self) -> None:
        self.facts: Facts | None = None


_last: Final = _Last()


def facts_of(data: Data) -> Facts:
    """The facts of some data; the same ones as long as nobody asks about other data."""
    facts = _last.facts
    if facts is None or facts.data is not data:
        facts = _last.facts = Facts(data)
    return facts

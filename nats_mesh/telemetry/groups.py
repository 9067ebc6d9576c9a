"""All groups of calls that a view shows, and which of them a series counts in. Pure."""

from __future__ import annotations

from collections import deque
from operator import attrgetter
from typing import Any, Final, TypeVar

from nats_mesh.telemetry.group import Group
from nats_mesh.telemetry.intake import Fresh, Intake
from nats_mesh.telemetry.stats_messages import StatsMessage

__all__ = ["Groups"]

_K = TypeVar("_K", bound=tuple[str, ...])


_SECOND: Final = attrgetter("second")


class Groups:
    """All groups of calls, by kind.

    Services, endpoints, versions and members have what the instances tell of the calls that reached them; edges and
    places have what the caller tells, and where it tells nothing what the instances do: their key begins with the side.
    What the instances tell of an edge is not even counted, from when its caller's word is there; it is again once that
    is forgotten (:meth:`keep`).

    ``places`` are the endpoints of edges: what one service calls of another one. With ``durations`` the totals have
    them, too; else only the window has.
    """

    __slots__ = (
        "_intakes",
        "_waiting",
        "durations",
        "edges",
        "endpoints",
        "members",
        "places",
        "services",
        "versions",
    )

    def __init__(self, *, durations: bool = False) -> None:
        self.durations = durations
        #: By service, and by service and endpoint.
        self.services: dict[tuple[str], Group] = {}
        self.endpoints: dict[tuple[str, str], Group] = {}
        #: By side, caller and service, and each of these by endpoint.
        self.edges: dict[tuple[str, str, str], Group] = {}
        self.places: dict[tuple[str, str, str], dict[str, Group]] = {}
        #: By side, service and instance.
        self.members: dict[tuple[str, str, str], Group] = {}
        #: By service and version, as the instances tell.
        self.versions: dict[tuple[str, str], Group] = {}
        #: By what they count in, and those of which something has come since the last look.
        self._intakes: dict[tuple[Group, ...], Intake] = {}
        self._waiting: deque[Fresh] = deque()

    @property
    def waiting(self) -> int:
        """Of how many kinds of calls something has come that does not count yet, second by second."""
        return len(self._waiting)

    def order(self) -> None:
        """Have what came first count first: a group that has come to one second puts nothing in the one before."""
        ordered = sorted(self._waiting, key=_SECOND)
        self._waiting.clear()
        self._waiting.extend(ordered)

    def settle(self, most: int) -> None:
        """Have what has come of ``most`` of them count wherever it does."""
        waiting = self._waiting
        for _ in range(min(most, len(waiting))):
            waiting.popleft().settle()

    def intake(self, groups: tuple[Group, ...]) -> Intake:
        """Where a series that counts in ``groups`` does so."""
        found = self._intakes.get(groups)
        if found is None:
            found = self._intakes[groups] = Intake(groups, self._waiting)
        return found

    def of_line(self, side: str, source: str, service: str, endpoint: str) -> tuple[Group, ...]:
        """What a series counts in, beside what all of its member's side do."""
        edge = side, source, service
        if side == "in":
            both = self._edge(edge, endpoint)
            if ("out", source, service) in self.edges:
                for group in both:
                    group.mute()
            return (self._of(self.endpoints, (service, endpoint), history=False), *both)
        if edge not in self.edges:
            told = "in", source, service
            _mute(self.edges.get(told))
            for place in self.places.get(told, {}).values():
                _mute(place)
        return self._edge(edge, endpoint)

    def _edge(self, edge: tuple[str, str, str], endpoint: str) -> tuple[Group, ...]:
        places = self.places.setdefault(edge, {})
        place = places.get(endpoint) or places.setdefault(
            endpoint, Group(history=True, durations=self.durations)
        )
        return self._of(self.edges, edge), place

    def of_side(self, side: str, message: StatsMessage, service: str) -> Intake:
        """Where all calls of one side of a member count; ``service`` is what its own is shown as."""
        member = self._of(self.members, (side, message.service, message.instance), history=False)
        if side == "out":
            return Intake((member,), self._waiting)
        groups = (
            self._of(self.services, (service,), history=False),
            self._of(self.versions, (service, message.version), history=False),
            member,
        )
        return Intake(groups, self._waiting)

    def _of(self, table: dict[_K, Group], key: _K, *, history: bool = True) -> Group:
        return table.get(key) or table.setdefault(key, Group(history=history, durations=self.durations))

    def keep(self, used: set[Group]) -> set[Group]:
        """Forget every group that is not one of ``used``: nobody is left who has calls there. Returns those that count
        again from now on, because whoever told better of the same is one of them; what is under way now does not."""
        tables: list[dict[Any, Group]] = [
            self.services, self.endpoints, self.edges, self.members, self.versions, *self.places.values(),
        ]  # fmt: skip
        for table in tables:
            for key in [key for key, group in table.items() if group not in used]:
                del table[key]
        for edge in [edge for edge, places in self.places.items() if not places]:
            del self.places[edge]
        for groups in [groups for groups in self._intakes if not used.issuperset(groups)]:
            del self._intakes[groups]
        again: set[Group] = set()
        for (side, source, service), group in self.edges.items():
            if side == "in" and group.muted and ("out", source, service) not in self.edges:
                again |= {group, *self.places.get((side, source, service), {}).values()}
        for group in again:
            group.listen()
        return again

    def all(self) -> list[Group]:
        """Every one there is."""
        found: list[Group] = []
        found.extend(self.services.values())
        found.extend(self.endpoints.values())
        found.extend(self.edges.values())
        found.extend(self.members.values())
        found.extend(self.versions.values())
        for places in self.places.values():
            found.extend(places.values())
        return found


def _mute(group: Group | None) -> None:
    if group is not None:
        group.mute()

"""How many calls each endpoint of an instance may run at a time, and how near it is to that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from nats_mesh.core.rules import ConcurrencyRules
from nats_mesh.layers.base import Arrival
from nats_mesh.serving.handling import Served
from nats_mesh.telemetry.stats_messages import EndpointLoad

__all__ = ["Limits"]


class Limits:
    """The slots of all endpoints; ``total`` is how many there are."""

    __slots__ = ("_served", "total")

    def __init__(self, served: Mapping[str, Served]) -> None:
        self._served = served
        self.total = 0
        self._sum()

    def apply(self, find: Callable[[str], ConcurrencyRules | None]) -> dict[str, tuple[int, int]]:
        """Limit each endpoint as ``find`` says of its name; ``None``: as it declares. What changed, as (before, after).

        Calls that run go on. A chain that has not changed stays as it is.
        """
        changed: dict[str, tuple[int, int]] = {}
        for name, served in self._served.items():
            rules, slots = find(name), served.concurrency
            declared = served.endpoint.concurrency
            limit = declared if rules is None else rules.of(declared)
            if limit != slots.limit:
                changed[name] = (slots.limit, limit)
                slots.limit = limit
            if served.credit is not None:
                served.credit.present = rules is not None and rules.leave_queue
            served.compose()
        self._sum()
        return changed

    def _sum(self) -> None:
        self.total = sum(served.concurrency.limit for served in self._served.values())

    def loads(self, waiting: Iterable[Arrival]) -> dict[str, EndpointLoad]:
        """How busy each endpoint is: its slots, those taken, and which of the calls ``waiting`` are its own."""
        queued = Counter(call.kind.endpoint.name for call in waiting)
        return {
            name: EndpointLoad(
                limit=served.concurrency.limit, in_flight=served.concurrency.in_flight, queue=queued[name]
            )
            for name, served in self._served.items()
        }

    def refused(self) -> dict[tuple[str, str], int]:
        """How many calls the slots have refused, by endpoint and by the policy that says how many there are."""
        found: dict[tuple[str, str], int] = {}
        for name, served in list(self._served.items()):
            for policy, count in list(served.concurrency.refused_by.items()):
                found[name, policy] = count
        return found

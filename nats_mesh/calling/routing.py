"""Where the calls of one target go, and what is done to them on the way, where routes ask something of each call.

What a call meets is asked of :mod:`nats_mesh.core.router`. Every combination of rules and destination has a target
of its own, with layers of its own, that is made when a call first takes it and kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from nats_mesh.calling.exchange import Target
from nats_mesh.core.drawing import Draws
from nats_mesh.core.router import Leg, Path, Rule, choose, key_of, laid
from nats_mesh.core.seldom import worth_saying
from nats_mesh.model import Headers

__all__ = ["Routing"]

log = logging.getLogger("nats_mesh.policies")

#: How many combinations of rules are known at a time, each with its targets; the oldest goes where there are more.
_MAX_WAYS = 4096
_ITSELF = (Leg(),)


class _Way:
    """What calls share that have met the same rules, with the targets that were taken so far by their places."""

    __slots__ = ("legs", "path", "targets")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.legs = path.legs or _ITSELF
        self.targets: list[Target | None] = [None] * len(self.legs)


class Routing:
    """Chooses for each call of one target. ``make`` makes the target for calls that have met a path's rules and go to
    one of its legs; ``forget`` is told of those that nobody takes any more. ``dropped`` counts the combinations of
    rules that had to make room for others: calls that meet such a one again begin with a new target."""

    def __init__(
        self,
        service: str,
        rules: Sequence[tuple[Rule, ...]],
        *,
        caller: str,
        chance: Callable[[], float],
        make: Callable[[Path, Leg], Target],
        forget: Callable[[Target], None],
    ) -> None:
        self.rules = tuple(rules)
        self._draws = [Draws(each) for each in self.rules]
        self._service = service
        self._caller = caller
        self._chance = chance
        self._make = make
        self._forget = forget
        self.dropped = 0
        self._ways: dict[tuple[int, ...], _Way] = {}

    def choose(self, headers: Headers) -> Target:
        """The target for one call that has these headers."""
        values, caller, service = headers.get_all, self._caller, self._service
        met = [draws.first(headers, values, caller, service, self._chance) for draws in self._draws]
        key = tuple([-1 if rule is None else rule.index for rule in met])
        way = self._ways.get(key)
        if way is None:
            if len(self._ways) >= _MAX_WAYS:
                self._drop()
            way = self._ways[key] = _Way(laid([rule for rule in met if rule is not None]))
        place = 0
        if len(way.legs) > 1:
            sticky = key_of(way.path.sticky, headers.get_all, self._caller)
            place = choose(way.legs, sticky, self._service, self._chance)
        target = way.targets[place]
        if target is None:
            target = way.targets[place] = self._make(way.path, way.legs[place])
        return target

    def target_of(self, path: Path, leg: Leg) -> Target:
        """One more target, made as :meth:`choose` makes that of the calls which have met the rules of ``path`` and go
        to ``leg``; for whoever wants to know what they meet there. Nobody keeps it here."""
        return self._make(path, leg)

    def targets(self) -> Iterator[Target]:
        """Every target that was taken so far."""
        for way in self._ways.values():
            for target in way.targets:
                if target is not None:
                    yield target

    def _drop(self) -> None:
        """Forget what was first taken longest ago. Rejected: what was not taken for longest, which every call would
        have to note."""
        way = self._ways.pop(next(iter(self._ways)))
        for target in way.targets:
            if target is not None:
                self._forget(target)
        self.dropped += 1
        if worth_saying(self.dropped):
            log.warning(
                "calls to %s meet more than %d combinations of rules: the oldest begins anew (%d so far); "
                "have fewer routes about one target, or fewer rules in them",
                self._service, _MAX_WAYS, self.dropped,
            )  # fmt: skip

    def close(self) -> None:
        """Forget every target; calls on their way end as they began."""
        targets = list(self.targets())
        self._ways.clear()
        for target in targets:
            self._forget(target)

    def __repr__(self) -> str:
        return f"<Routing of {self._service}: {len(self._ways)} ways>"

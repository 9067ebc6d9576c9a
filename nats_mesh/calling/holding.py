"""A route that leads to a subset waits until the subset is a second old: its instances may not know of it yet.

Policies reach callers and instances at different moments, and a caller that hears first would send calls where nobody
listens. Whoever changes policies sees to the order as well, and waits for acknowledgements; this is for one that was
stopped in between, and for files that everybody reads in his own time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nats_mesh.core.rules import SubsetRules
from nats_mesh.errors import PolicyError
from nats_mesh.policy import PolicySet
from nats_mesh.wire.loop import Timer, call_later

__all__ = ["HOLD_S", "RouteHold"]

#: How old a subset must be before calls are sent to it (seconds).
HOLD_S: Final = 1.0
#: A subset that was away for longer is a new one: the instances that it selected may have left it (seconds).
_AWAY_S: Final = 2.0
#: How long routes wait at most, however many subsets come meanwhile: others than theirs, too (seconds).
_LONGEST_S: Final = 5.0


class RouteHold:
    """Hands policies on to ``apply``: at once, and where a route is held, first with the routes that were in effect.

    The ``policies`` of the beginning are in effect already, whatever they say. ``released`` is called once routes that
    waited are followed.
    """

    def __init__(
        self, policies: PolicySet, apply: Callable[[PolicySet], None], now: Callable[[], float]
    ) -> None:
        self.released: Callable[[], None] = _nobody
        self._apply = apply
        self._now = now
        self._timer: Timer | None = None
        #: Since when routes that are known wait.
        self._held: float | None = None
        self._current = policies
        self._known = policies.all_subsets()
        #: Since when each subset has been there that may be younger than a second; of thousands it is a few.
        self._young: dict[tuple[str, SubsetRules], float] = {}
        #: Of those that are known no more: since when they had been there, and when they were known last.
        self._gone: dict[tuple[str, SubsetRules], tuple[float, float]] = {}

    def begin(self, policies: PolicySet) -> None:
        """Follow ``policies`` that were in effect already."""
        self.close()
        self._held = None
        self._young.clear()
        self._gone.clear()
        self._known = policies.all_subsets()
        self._apply(policies)
        self._current = policies

    @property
    def holding(self) -> bool:
        """Whether routes that are known already wait to be followed."""
        return self._timer is not None

    def take(self, policies: PolicySet) -> None:
        """Follow ``policies`` as soon as may be."""
        self.close()
        now = self._now()
        self._remember(policies, now)
        routed = policies.routed_subsets() if self._young else frozenset()
        until = max(
            [
                since + HOLD_S
                for (service, rules), since in self._young.items()
                if (service, rules.name) in routed
            ],
            default=now,
        )
        held_since = now if self._held is None else self._held
        until = min(until, held_since + _LONGEST_S)
        if until > now:
            self._held = held_since
            try:
                held = policies.with_routes_of(self._current)
            except PolicyError:
                pass  # routes of then beside destinations of now: what is in effect stays meanwhile
            else:
                self._apply(held)
            self._timer = call_later(until - now, self._release, policies)
        else:
            self._held = None
            self._apply(policies)
            self._current = policies

    def _remember(self, policies: PolicySet, now: float) -> None:
        """Which subsets have come and which have gone."""
        before, self._known = self._known, policies.all_subsets()
        if self._known is not before:
            for key in before - self._known:
                self._gone[key] = (self._young.pop(key, float("-inf")), now)
        for key, (_, last) in list(self._gone.items()):
            if now - last > _AWAY_S:
                del self._gone[key]
        if self._known is not before:
            for key in self._known - before:
                self._young[key] = self._gone.pop(key, (now, now))[0]
        for key, since in list(self._young.items()):
            if since + HOLD_S <= now:
                del self._young[key]

    def _release(self, policies: PolicySet) -> None:
        self._timer = self._held = None
        self._apply(policies)
        self._current = policies
        self.released()

    def close(self) -> None:
        """Wait for nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _nobody() -> None:
    """Nobody waits for it."""

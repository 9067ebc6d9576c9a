"""The answers of a set of policies: each is made once, and stays the same object from set to set while it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeAlias, TypeVar

from nats_mesh.core.telemetry_rules import TelemetryRules
from nats_mesh.policy.rules import InboundRules, OutboundRules, same_rules
from nats_mesh.policy.scopes import Via

__all__ = ["Answers", "Key"]

#: How many answers a set keeps, in each direction; the oldest is forgotten first.
MAX_ANSWERS: Final = 10_000

A = TypeVar("A", OutboundRules, InboundRules, TelemetryRules)
#: Service, endpoint, and for callers who calls, the subset, and the rules that a call has met.
Key: TypeAlias = "tuple[str, str, str, str, Via | None]"


class Answers(Generic[A]):
    """The answers of one set in one direction, and those of the sets before that may still hold.

    Of those that ``before`` gave, the ones whose key ``stays`` hold as they are; without it each is compared first.
    """

    def __init__(self, before: Answers[A] | None, stays: Callable[[Key], bool] | None) -> None:
        self._now: dict[Key, A] = {}
        self._before: dict[Key, A] = {}
        if before is None:
            return
        now = before._now.copy()  # a copy: whoever asks the set before may do so on another thread
        if stays is not None:
            self._now = {key: answer for key, answer in now.items() if stays(key)}
        earlier = {**before._before, **now}
        for key in self._now:
            del earlier[key]
        self._before = dict(list(earlier.items())[-MAX_ANSWERS:])

    def answer(self, key: Key, compile_: Callable[[], A]) -> A:
        """What this set says about ``key``: always the same object, and the one from before where it still holds."""
        found = self._now.get(key)
        if found is None:
            found = compile_()
            earlier = self._before.pop(key, None)
            if earlier is not None and same_rules(earlier, found):
                found = earlier
            if len(self._now) >= MAX_ANSWERS:
                del self._now[next(iter(self._now))]
            self._now[key] = found
        return found

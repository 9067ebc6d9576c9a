"""What is promised held against what is seen: one alarm for each promise and service, and what to say of it.

Pure: calls that ended and the monotonic time go in, alerts and changes of level come out. How burn rates and levels
come about is :mod:`nats_mesh.core.burn`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from nats_mesh.core.burn import Alarm, Ledger, Level, Pair, is_whole
from nats_mesh.telemetry.alert_messages import (
    MAX_ALERTS,
    Alert,
    AlertKey,
    Burn,
    LevelName,
    brief,
    burn_text,
    span_text,
)
from nats_mesh.telemetry.ended import Ended
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.telemetry.slo import Promise, within_bound

__all__ = ["MAX_WATCHED", "AlertBook", "Turn"]

#: Promises, of one service each, that are watched; what is beyond that is counted and left out.
MAX_WATCHED: Final = MAX_ALERTS
_NAMES: Final[Mapping[Level, LevelName]] = {Level.OK: "ok", Level.TICKET: "ticket", Level.PAGE: "page"}
_LEVELS: Final = {name: level for level, name in _NAMES.items()}


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """An alert whose level has changed, and what to say of it."""

    kind: EventKind
    alert: Alert
    before: LevelName
    detail: str
    numbers: dict[str, float] = {}


class _Watched:
    __slots__ = ("alarm", "ledger", "promise", "service")

    def __init__(self, promise: Promise, service: str, now: float) -> None:
        self.promise = promise
        self.service = service
        self.ledger = Ledger(promise.pairs)
        self.alarm = Alarm(promise.share, promise.pairs)
        self.alarm.since = now

    @property
    def key(self) -> AlertKey:
        return self.promise.policy, self.promise.name, self.promise.indicator.value, self.service

    def bad(self, ended: Ended) -> tuple[int, int]:
        """How many calls count, and how many of them went wrong."""
        if self.promise.threshold_s is None:
            return ended.calls, ended.failures
        bound = within_bound(self.promise.threshold_s)
        calls = ended.took.count
        return calls, calls - (0 if bound is None else ended.took.at_most(bound))

    def alert(self, now: float) -> Alert:
        promise = self.promise
        return Alert(
            objective=promise.name,
            policy=promise.policy,
            indicator=promise.indicator,
            service=self.service,
            endpoints=promise.endpoints,
            share=promise.share,
            window_s=promise.window_s,
            threshold_s=promise.threshold_s,
            level=_NAMES[self.alarm.level],
            for_s=max(0.0, now - self.alarm.since),
            burns=tuple(
                [
                    Burn(
                        window_s=seen.window_s,
                        seen_s=seen.seen_s,
                        calls=seen.calls,
                        bad=seen.bad,
                        burn=seen.burn(promise.budget),
                    )
                    for seen in self.ledger.all(now)
                ]
            ),
        )


class AlertBook:
    """Every promise that is watched. ``overflowed`` counts those that found no room."""

    def __init__(self) -> None:
        self.overflowed = 0
        self._promises: tuple[Promise, ...] = ()
        self._watched: dict[AlertKey, _Watched] = {}

    def follow(self, promised: Sequence[Promise], now: float) -> list[Turn]:
        """These are the promises from now on. One that still says the same keeps what was seen; an alert on one that is
        not made any more is over."""
        if tuple(promised) == self._promises:
            return []
        self._promises = tuple(promised)
        same = set(self._promises)
        turns = []
        for key, watched in list(self._watched.items()):
            if watched.promise not in same:
                del self._watched[key]
                if watched.alarm.level is not Level.OK:
                    before = _NAMES[watched.alarm.level]
                    alert = msgspec.structs.replace(watched.alert(now), level="ok", for_s=0.0)
                    turns.append(
                        Turn(
                            kind=EventKind.ALERT_RESOLVED,
                            alert=alert,
                            before=before,
                            detail=f"{watched.promise.policy} does not promise {watched.promise.name} any more",
                        )
                    )
        for promise in self._promises:
            if promise.service:
                self._watch(promise, promise.service, now)
        return turns

    def take(self, ended: Mapping[tuple[str, str], Ended], now: float, seen_s: float) -> list[Turn]:
        """``ended`` ended in the last ``seen_s`` seconds; which alerts have changed."""
        counts: dict[AlertKey, tuple[int, int]] = {}
        for (service, endpoint), calls in ended.items():
            for promise in self._promises:
                if promise.concerns(service, endpoint):
                    watched = self._watch(promise, service, now)
                    if watched is not None:
                        more, bad = watched.bad(calls)
                        had = counts.get(watched.key, (0, 0))
                        counts[watched.key] = had[0] + more, had[1] + bad
        return [
            turn
            for key, watched in self._watched.items()
            if (turn := _updated(watched, *counts.get(key, (0, 0)), now, seen_s)) is not None
        ]

    def adopt(self, alerts: Iterable[Alert], now: float) -> None:
        """What somebody who told of alerts before said last: what is firing is, until it is known better."""
        for alert in alerts:
            if alert.level == "ok":
                continue
            for promise in self._promises:
                same = (promise.policy, promise.name, promise.indicator.value) == alert.key[:3]
                if same and promise.service in ("", alert.service):
                    watched = self._watch(promise, alert.service, now)
                    if watched is not None:
                        watched.alarm.adopt(_LEVELS[alert.level], now)

    def alerts(self, now: float) -> tuple[Alert, ...]:
        """All of them, the most urgent first."""
        found = [watched.alert(now) for watched in self._watched.values()]
        return tuple(sorted(found, key=lambda each: (-_LEVELS[each.level], each.service, each.key)))

    def _watch(self, promise: Promise, service: str, now: float) -> _Watched | None:
        key = (promise.policy, promise.name, promise.indicator.value, service)
        watched = self._watched.get(key)
        if watched is None:
            if len(self._watched) >= MAX_WATCHED:
                self.overflowed += 1
                return None
            watched = self._watched[key] = _Watched(promise, service, now)
        return watched

    def __len__(self) -> int:
        return len(self._watched)


def _updated(watched: _Watched, calls: int, bad: int, now: float, seen_s: float) -> Turn | None:
    watched.ledger.add(now, calls, bad, seen_s)
    before = watched.alarm.level
    reading, changed = watched.alarm.update(watched.ledger, now)
    if not changed:
        return None
    level = watched.alarm.level
    alert = watched.alert(now)
    if level is Level.OK or reading.pair is None:
        text = f"{brief(alert)} burns no faster than its budget allows"
        return Turn(kind=EventKind.ALERT_RESOLVED, alert=alert, before=_NAMES[before], detail=text)
    numbers = {"level": float(level), "share": watched.promise.share}
    return Turn(
        kind=EventKind.ALERT_FIRING,
        alert=alert,
        before=_NAMES[before],
        detail=f"{_NAMES[level]}: {brief(alert)} burns its budget {_said(watched, reading.pair, now)}",
        numbers={**numbers, **_numbers(watched, reading.pair, now)},
    )


def _said(watched: _Watched, pair: Pair, now: float) -> str:
    parts = []
    for span_s in (pair.long_s, pair.short_s):
        seen = watched.ledger.seen(now, span_s)
        known = "" if is_whole(seen.seen_s, seen.window_s) else f" (seen {span_text(seen.seen_s)} of it)"
        parts.append(f"{burn_text(seen.burn(watched.promise.budget))} times over {span_text(span_s)}{known}")
    return f"{' and '.join(parts)}; {pair.factor:g} is the limit"


def _numbers(watched: _Watched, pair: Pair, now: float) -> dict[str, float]:
    long, short = (watched.ledger.seen(now, span_s) for span_s in (pair.long_s, pair.short_s))
    budget = watched.promise.budget
    return {
        "burn_long": long.burn(budget),
        "burn_short": short.burn(budget),
        "factor": pair.factor,
        "calls": float(long.calls),
        "bad": float(long.bad),
    }

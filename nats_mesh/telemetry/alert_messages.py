"""Alerts as they are shown, told and kept: what is promised, how it stands, and in which words."""

from __future__ import annotations

from typing import Annotated, Final, Literal, NamedTuple, TypeAlias

import msgspec

from nats_mesh.core.burn import Level, Pair, is_whole, pairs_for
from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.presence import Instant, Name
from nats_mesh.core.shares import share_text
from nats_mesh.errors import CodecError
from nats_mesh.telemetry.slo import Indicator
from nats_mesh.wire.codecs import JSON

__all__ = [
    "MAX_ALERTS",
    "MAX_BYTES",
    "Alert",
    "AlertKey",
    "Burn",
    "Coming",
    "LevelName",
    "Standing",
    "brief",
    "burn_text",
    "coming_of",
    "decode_standing",
    "encode_standing",
    "limit_of",
    "limit_text",
    "promise_text",
    "seen_text",
    "span_text",
]

#: Alerts that one standing has at most.
MAX_ALERTS: Final = 1000
#: The largest standing that is read or written (bytes).
MAX_BYTES: Final = 128 * 1024


LevelName: TypeAlias = Literal["ok", "ticket", "page"]
#: The policy, the objective, which number it is about, and the service.
AlertKey: TypeAlias = tuple[str, str, str, str]

_Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=1e10)]
#: On one line: anybody may have written it, and it is shown in terminals.
_Text = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z", max_length=200)]


class Burn(msgspec.Struct, frozen=True, kw_only=True):
    """One window: how many times faster than allowed the budget was used in what was seen of it (``seen_s``)."""

    window_s: _Seconds
    seen_s: _Seconds
    calls: Annotated[int, msgspec.Meta(ge=0)]
    bad: Annotated[int, msgspec.Meta(ge=0)]
    burn: _Seconds


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """A promise about one service, and how it stands: ``level`` for ``for_s`` seconds."""

    objective: _Text
    policy: _Text
    indicator: Indicator
    service: Name
    endpoints: tuple[Name, ...] = ()
    share: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
    window_s: _Seconds
    threshold_s: _Seconds | None = None
    level: LevelName
    for_s: _Seconds
    burns: Annotated[tuple[Burn, ...], msgspec.Meta(max_length=16)] = ()

    @property
    def key(self) -> AlertKey:
        """What tells it from others."""
        return self.policy, self.objective, self.indicator.value, self.service


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What whoever tells of alerts knew last. ``at`` is his wall time, ``left_out`` alerts (none of them firing where
    others are not) found no room."""

    holder: _Text
    at: Instant
    alerts: Annotated[tuple[Alert, ...], msgspec.Meta(max_length=MAX_ALERTS)] = ()
    left_out: Annotated[int, msgspec.Meta(ge=0)] = 0
    wire: Literal[1] = 1


def brief(alert: Alert) -> str:
    """What is promised, in a few words: `available 99.9% of orders`, `fast 99% within 300ms of orders.place`."""
    some = f".{{{','.join(alert.endpoints)}}}" if len(alert.endpoints) > 1 else ""
    one = f".{alert.endpoints[0]}" if len(alert.endpoints) == 1 else some
    return f"{alert.objective} {promise_text(alert)} of {alert.service}{one}"


def promise_text(alert: Alert) -> str:
    """What is promised of a share of the calls, exactly as it was said: `99.9%`, `99% within 300ms`."""
    within = "" if alert.threshold_s is None else f" within {alert.threshold_s * 1000.0:g}ms"
    return f"{share_text(alert.share, 9)}{within}"


def burn_text(burn: float) -> str:
    """Three digits, and never an exponent: `0.25`, `14.4`, `1000`."""
    return f"{burn:.0f}" if burn >= 100.0 else f"{burn:.3g}" if burn >= 0.001 or not burn else "<0.001"


def seen_text(burn: Burn, sign: str = "") -> str:
    """How fast a window burns, as levels count it; where less was seen than the window is long, that and how fast that
    burns, too: `2.88 (seen 12m of 1h: 14.4)`. What was not seen counts as if nothing had failed."""
    seen = f"{sign}{burn_text(burn.burn)}"
    if is_whole(burn.seen_s, burn.window_s):
        return seen
    counts = f"{sign}{burn_text(_sure(burn))}"
    return f"{counts} (seen {span_text(burn.seen_s)} of {span_text(burn.window_s)}: {seen})"


def _sure(burn: Burn) -> float:
    """How fast it burns as levels count it: as if nothing had failed in what was not seen."""
    return burn.burn * min(1.0, burn.seen_s / burn.window_s)


def limit_of(alert: Alert) -> Pair | None:
    """By which pair of windows its level is in force; ``None`` where it is ``ok``, or where none of this level holds in
    what whoever tells has seen: it is about to be left, or somebody saw it before him."""
    sure = {burn.window_s: _sure(burn) for burn in alert.burns}
    for pair in pairs_for(alert.share, alert.window_s):
        least = min(sure.get(pair.long_s, 0.0), sure.get(pair.short_s, 0.0))
        if pair.level.name.lower() == alert.level and least >= pair.factor:
            return pair
    return None


class Coming(NamedTuple):
    """A level that will be in force ``in_s`` seconds from now, if calls go on as in the short window of its pair."""

    level: LevelName
    in_s: float


def coming_of(alert: Alert) -> Coming | None:
    """The most urgent level above the one in force whose short window burns above its limit, and that only waits for
    its windows to be long enough; ``None`` where there is none. It is a forecast, and no level: nothing fires by it."""
    seen = {burn.window_s: burn for burn in alert.burns}
    found: list[tuple[int, float]] = []
    for pair in pairs_for(alert.share, alert.window_s):
        long, short = seen.get(pair.long_s), seen.get(pair.short_s)
        if long is None or short is None or pair.level <= Level[alert.level.upper()]:
            continue
        # Shorter windows know first that it is over.
        if all(burn.burn >= pair.factor for burn in alert.burns if burn.window_s <= pair.short_s):
            # In each second at this rate a window gets its part of what is missing.
            in_s = max((pair.factor - _sure(burn)) * burn.window_s / short.burn for burn in (long, short))
            if in_s > 0.0:
                found.append((-pair.level, in_s))
    if not found:
        return None
    level, in_s = min(found)
    return Coming("page" if -level == Level.PAGE else "ticket", in_s)


def limit_text(alert: Alert) -> str:
    """That in words: ``14.4 over 1h and 5m``, and what is coming: ``page in 3m at this rate``; empty where it is ``ok``
    and goes on so."""
    parts = []
    if alert.level != "ok":
        pair = limit_of(alert)
        parts.append(
            "none any more"
            if pair is None
            else f"{pair.factor:g} over {span_text(pair.long_s)} and {span_text(pair.short_s)}"
        )
    if coming := coming_of(alert):
        parts.append(f"{coming.level} in {span_text(max(1.0, coming.in_s))} at this rate")
    return "; ".join(parts)


def span_text(seconds: float) -> str:
    """`6h`, `12m`, `3d`, `45s`; rounded down, so that nobody is said to have seen more than he has."""
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("m", 60.0)):
        if seconds >= size:
            return f"{int(seconds / size * 10) / 10:g}{unit}"
    return f"{int(seconds)}s"


def encode_standing(standing: Standing) -> bytes:
    """What is kept; where it is too large, without the alerts at its end, which are the least urgent."""
    while True:
        body = JSON.encode(standing)
        if len(body) <= MAX_BYTES or not standing.alerts:
            return body
        kept = standing.alerts[: len(standing.alerts) * 3 // 4]
        left_out = standing.left_out + len(standing.alerts) - len(kept)
        standing = msgspec.structs.replace(standing, alerts=kept, left_out=left_out)


_decode = at_first_use(lambda: JSON.decoder(Standing))


def decode_standing(data: bytes) -> Standing:
    """Read it, or raise :class:`CodecError`."""
    if len(data) > MAX_BYTES:
        raise CodecError(f"alerts: {len(data)} bytes, at most {MAX_BYTES} are read")
    found: Standing = _decode(data)
    return found

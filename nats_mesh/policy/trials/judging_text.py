"""The words in which a test of policies tells what it expected and what it found."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET

from nats_mesh.core.shares import share_text
from nats_mesh.policy.kinds import DURATION
from nats_mesh.policy.trials.expectation_parts import ALL, Decided, Destined, Mirrored, Share
from nats_mesh.policy.trials.predict import Way

__all__ = [
    "as_decided",
    "decided_text",
    "decider",
    "destined_text",
    "fault_text",
    "fits",
    "goes",
    "is_subset",
    "place_text",
    "share_of",
    "value_text",
    "verdict_word",
    "verdicts",
    "way_text",
]


def share_of(expected: Destined | Mirrored) -> Share:
    """The share that is expected; all calls where none is said."""
    return Share(1.0) if expected.share is UNSET else expected.share


def fits(wanted: object, found: str) -> bool:
    """Whether that is the value, if one is said."""
    return wanted is UNSET or wanted == found


def is_subset(wanted: object, found: str) -> bool:
    """Whether that is the subset, if one is said."""
    return wanted is UNSET or wanted == (found or ALL)


def goes(way: Way, expected: Destined) -> bool:
    """Whether a way leads where it is expected to."""
    return (
        fits(expected.service, way.service)
        and fits(expected.endpoint, way.endpoint)
        and is_subset(expected.subset, way.subset)
    )


def place_text(service: str, subset: str) -> str:
    """A service and its subset."""
    return f"{service}/{subset}" if subset else service


def way_text(way: Way) -> str:
    """Where a way leads."""
    return place_text(f"{way.service}.{way.endpoint}", way.subset or ALL)


def destined_text(expected: Destined) -> str:
    """Where calls are expected to go."""
    name = ".".join(part for part in (expected.service or "", expected.endpoint or "") if part)
    return "/".join(part for part in (name, expected.subset or "") if part) or "anywhere"


def fault_text(way: Way) -> str:
    """What is done to calls on a way."""
    fault = way.fault
    if fault is None:
        return "nothing"
    parts = []
    if fault.delay_s:
        parts.append(f"delay {DURATION.write(fault.delay_s)} for {share_text(fault.delay_share, 6)}")
    if fault.abort is not None:
        parts.append(f"{fault.abort} for {share_text(fault.abort_share, 6)}")
    return " and ".join(parts) or "nothing"


def as_decided(way: Way, allowed: bool, decided: Decided) -> bool:
    """Whether the decision is the one that is expected."""
    found = way.access
    return found.allowed is allowed and fits(decided.by, found.by) and fits(decided.rule, found.rule)


def verdict_word(allowed: bool) -> str:
    """The decision in a word."""
    return "allowed" if allowed else "denied"


def decided_text(allowed: bool, decided: Decided) -> str:
    """The decision that is expected."""
    who = " ".join(part for part in (decided.by or "", decided.rule or "") if part)
    return f"{verdict_word(allowed)} by {who}" if who else verdict_word(allowed)


def verdicts(ways: Iterable[Way]) -> str:
    """Every decision that is found."""
    found = [f"{verdict_word(way.access.allowed)} ({way.access.reason})" for way in ways]
    return ", ".join(dict.fromkeys(found))


def decider(way: Way) -> str:
    """Who decides, and where that stands."""
    verdict = way.access
    name = " ".join(part for part in (verdict.by, verdict.rule) if part)
    return f"{name} ({verdict.where})" if verdict.where else name


def value_text(field: str, value: object) -> str:
    """A value as a policy writes it."""
    if value is None:
        return {"perTryTimeout": "off", "limit": "off"}.get(field, "said by no policy")
    if isinstance(value, bool):
        return ("true" if value else "false") if field == "idempotent" else ("on" if value else "off")
    if field in ("timeout", "perTryTimeout") and isinstance(value, float):
        return DURATION.write(value)
    return str(value)

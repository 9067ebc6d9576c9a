"""How likely each thing is that may become of a call: sums over its ways."""

from __future__ import annotations

from collections.abc import Sequence

from nats_mesh.policy.whatif.replay_fates import Way
from nats_mesh.policy.whatif.replay_words import known

__all__ = ["aborts", "by", "copies", "cut", "delays", "fault_rule", "largest", "late", "targets"]


def targets(ways: Sequence[Way]) -> dict[str, tuple[float, str]]:
    """The probability of each destination, and the rule that leads most of it there."""
    shares: dict[str, float] = {}
    best: dict[str, tuple[float, str]] = {}
    for way in ways:
        shares[way.target] = shares.get(way.target, 0.0) + way.share
        if way.share > best.get(way.target, (-1.0, ""))[0]:
            best[way.target] = way.share, way.rule
    return {target: (share, best[target][1]) for target, share in shares.items()}


def aborts(ways: Sequence[Way]) -> dict[str, float]:
    """How likely it is failed on purpose, by what with."""
    found: dict[str, float] = {}
    for way in ways:
        fault = way.fault
        if fault is not None and fault.abort is not None:
            status = f"aborted with {fault.abort}"
            found[status] = found.get(status, 0.0) + way.share * fault.abort_share
    return found


def delays(ways: Sequence[Way]) -> dict[float, float]:
    """How likely it is delayed on purpose, by the delay (seconds)."""
    found: dict[float, float] = {}
    for way in ways:
        fault = way.fault
        if fault is not None and fault.delay_s > 0.0:
            found[fault.delay_s] = found.get(fault.delay_s, 0.0) + way.share * fault.delay_share
    return found


def copies(ways: Sequence[Way]) -> dict[str, float]:
    """How many copies go to each destination of mirrors."""
    found: dict[str, float] = {}
    for way in ways:
        for target, share in way.mirrors:
            found[target] = found.get(target, 0.0) + way.share * share
    return found


def late(ways: Sequence[Way], duration_s: float) -> float:
    """How likely a call of that duration runs out of its policy's time."""
    return sum(
        way.share for way in ways if way.rules.timeout_s is not None and duration_s > way.rules.timeout_s
    )


def cut(ways: Sequence[Way], duration_s: float) -> float:
    """How likely its first attempt is given up before it."""
    found = 0.0
    for way in ways:
        bound, timeout_s = way.rules.retry.per_try_timeout_s, way.rules.timeout_s
        if bound is not None and duration_s > bound and (timeout_s is None or bound < timeout_s):
            found += way.share
    return found


def largest(ways: Sequence[Way]) -> Way:
    """The likeliest way."""
    return max(ways, key=lambda way: way.share)


def fault_rule(ways: Sequence[Way]) -> str:
    """The first rule that does something to it on purpose; empty where none does."""
    return next((way.fault_rule for way in ways if way.fault_rule), "")


def by(way: Way, path: str) -> str:
    """Which policy says the value at ``path``; empty where it is a default."""
    return known(way.sources.get(path, ""))

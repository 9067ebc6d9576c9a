"""Rules of routes in words, for whoever looks at them."""

from __future__ import annotations

from nats_mesh.core.router import Fault, Leg, Mirror, Rule
from nats_mesh.core.shares import share_text

__all__ = ["rule_text"]


def rule_text(rule: Rule) -> str:
    """Which calls a rule is about, and what becomes of them: in one line."""
    about = " or ".join(str(match) for match in rule.matches) or "every call"
    does = [_legs(rule.legs)] if rule.legs else []
    does += [f"copies to {_mirror(mirror)}" for mirror in rule.mirrors or ()]
    does += [] if rule.fault is None else _fault(rule.fault)
    if rule.sticky is not None:
        does.append(f"sticky by {'header ' + rule.sticky.header if rule.sticky.header else 'caller'}")
    return f"{about} → {', '.join(does) or 'its own timeout and retries'}"


def _legs(legs: tuple[Leg, ...]) -> str:
    total = sum(leg.weight for leg in legs)
    if len(legs) == 1:
        return str(legs[0])
    return " · ".join(f"{leg} {share_text(leg.weight / total)}" for leg in legs)


def _mirror(mirror: Mirror) -> str:
    where = "/".join(part for part in (mirror.service, mirror.subset) if part)
    return where if mirror.share >= 1.0 else f"{where} ({share_text(mirror.share)})"


def _fault(fault: Fault) -> list[str]:
    found = []
    if fault.delay_s:
        found.append(f"delay {fault.delay_s * 1000:g} ms for {share_text(fault.delay_share)}")
    if fault.abort is not None:
        found.append(f"{fault.abort} for {share_text(fault.abort_share)}")
    return found

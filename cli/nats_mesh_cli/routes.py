"""Rules of routes in words, for whoever looks at them."""

from __future__ import annotations

from nats_mesh.core.router import Fault, Leg, Mirror, Rule

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
    return " · ".join(f"{leg} {leg.weight / total * 100:.4g}%" for leg in legs)


def _mirror(mirror: Mirror) -> str:
    where = "/".join(part for part in (mirror.service, mirror.subset) if part)
    return where if mirror.share >= 1.0 else f"{where} ({mirror.share * 100:.4g}%)"


def _fault(fault: Fault) -> list[str]:
    found = []
    if fault.delay_s:
        found.append(f"delay {fault.delay_s * 1000:g} ms for {fault.delay_share * 100:.4g}%")
    if fault.abort is not None:
        found.append(f"{fault.abort} for {fault.abort_share * 100:.4g}%")
    return found

"""How the differences between two sets of policies are said: in the words of policies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from nats_mesh.core.access import Decision
from nats_mesh.core.shares import share_text
from nats_mesh.policy.fields import fields_of
from nats_mesh.policy.kinds import Kind, write_duration
from nats_mesh.policy.parts import Part
from nats_mesh.policy.rules import DEFAULT, OutboundRules
from nats_mesh.policy.schema import DestinationSpec

__all__ = [
    "distinct",
    "flat",
    "known",
    "said_decision",
    "said_delays",
    "said_limit",
    "said_share",
    "said_time",
]

#: Compared under names of their own, or not values at all.
_NOT_SETTINGS = ("routing", "sources", "subset")


def known(source: str) -> str:
    """Where a value comes from; empty for a default."""
    return "" if source == DEFAULT else source


def distinct(*sources: str) -> tuple[str, ...]:
    """Those that there are, each once."""
    return tuple(dict.fromkeys([source for source in sources if source]))


def said_decision(decision: Decision) -> str:
    """Whether a call is let in, and why."""
    return f"{'allowed' if decision.allowed else 'denied'}: {decision.reason}"


def said_share(share: float, what: str) -> str:
    """So many of the calls, or none."""
    return f"{share_text(share, 6)} {what}" if share else f"not {what}"


def said_delays(delays: Mapping[float, float]) -> str:
    """Delays by the shares of the calls that meet them."""
    said = [
        f"{share_text(share, 6)} delayed by {write_duration(delay)}"
        for delay, share in sorted(delays.items())
    ]
    return ", ".join(said) or "not delayed"


def said_time(seconds: float | None) -> str:
    """A bound of time."""
    return "no policy's time" if seconds is None else write_duration(seconds)


def said_limit(limit: int | None) -> str:
    """A number of slots; ``None`` where nobody says any."""
    return "any number" if limit is None else str(limit)


def _words(
    part: type[Part], rule_prefix: str = "", prefix: str = ""
) -> Iterator[tuple[str, tuple[str, Kind | None]]]:
    """How policies call the values of rules and write them, by the path of each in the rules."""
    for field in fields_of(part).values():
        rule, path = f"{rule_prefix}{field.rule}", f"{prefix}{field.name}"
        yield rule, (path, field.kind)
        if field.part is not None and not field.each:
            yield from _words(field.part, f"{rule}.", f"{path}.")


_WORDS = dict(_words(DestinationSpec))


def flat(rules: OutboundRules) -> dict[str, str]:
    """The values of rules in the words of policies, by their paths there."""
    found: dict[str, str] = {}
    for name in rules.__struct_fields__:
        if name not in _NOT_SETTINGS:
            _flatten(name, getattr(rules, name), found)
    return found


def _flatten(rule: str, value: Any, found: dict[str, str]) -> None:
    path, kind = _WORDS.get(rule, (rule, None))
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            _flatten(f"{rule}.{name}", getattr(value, name), found)
    elif value is None:
        found[path] = "off" if kind is None else "unset"
    elif isinstance(value, frozenset):
        found[path] = ", ".join(sorted(value)) or "nothing"
    else:
        found[path] = str(value) if kind is None or kind.several else kind.write(value)

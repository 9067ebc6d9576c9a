"""Istio's Telemetry as ours: which traces are kept, which calls get a line in the log."""

from __future__ import annotations

import re
from typing import Any, Final

from nats_mesh.core.presence import check_labels
from nats_mesh.errors import ConfigError
from nats_mesh.policy.istio.found import made
from nats_mesh.policy.istio.items import Item
from nats_mesh.policy.istio.targets import aims_of, emit_widely
from nats_mesh.policy.istio.world import World, share
from nats_mesh.policy.reader import Node

__all__ = ["translate_telemetry"]

_BOTH: Final = "CLIENT_AND_SERVER"
_FAILED = re.compile(r"response\.code\s*(?:>=\s*(?:400|500)|>\s*(?:399|499))")


def translate_telemetry(spec: Item, world: World) -> None:
    """Add what a Telemetry says."""
    aims = aims_of(spec, world)
    document = {**_tracing(spec), **_logging(spec)}
    if not document:
        return
    emit_widely(spec, world, "Telemetry", aims, lambda aim: {**aim.target, **document})


def _tracing(spec: Item) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in spec.many("tracing"):
        if not _is_for_both(each):
            continue
        sampling = share(each, "randomSamplingPercentage", each.number("randomSamplingPercentage"))
        if each.flag("disableSpanReporting"):
            sampling = made("0%", each.line("disableSpanReporting"))
        if sampling is not None:
            found["tracing"] = made({"sampling": sampling}, each.line())
        labels: dict[str, Node] = {}
        for name, tag in each.by_name("customTags").items():
            literal = tag.one("literal")
            if literal is None or not literal.text("value"):
                tag.lost("", "only words can go along, and nothing that is read from a process or a call")
            else:
                try:
                    check_labels({name: literal.text("value")})
                    labels[name] = made(literal.text("value"), tag.line())
                except ConfigError as error:
                    tag.lost("", str(error))
        if labels:
            found["labels"] = made(labels, each.line("customTags"))
    return found


def _logging(spec: Item) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in spec.many("accessLogging"):
        if not _is_for_both(each):
            continue
        mode = "off" if each.flag("disabled") else "on"
        condition = each.one("filter")
        expression = "" if condition is None else condition.text("expression").strip()
        if condition is not None and expression and mode == "on":
            if _FAILED.fullmatch(expression):
                mode = "errors"
            else:
                condition.lost(
                    "expression", "a line is written of every call, or of those that failed: of every call"
                )
        found["accessLog"] = made({"mode": mode}, each.line())
    return found


def _is_for_both(each: Item) -> bool:
    match = each.one("match")
    if match is None or match.text("mode") in ("", _BOTH):
        return True
    each.lost("", "is for one end of a call alone, and a policy for both")
    return False

"""Istio's conditions on requests, as conditions on calls.

What a call of the mesh does not have (a path, a method, a port) cannot be asked for. A rule that asks for it is left
out, never widened: its calls then meet the rules below it, as requests would that the condition does not hold for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from nats_mesh.model import is_header_name, is_reserved_header
from nats_mesh.policy.istio.found import made
from nats_mesh.policy.istio.hosts import service_of_labels
from nats_mesh.policy.istio.items import Item
from nats_mesh.policy.reader import Node

__all__ = ["ALWAYS", "MESH", "Alternative", "both", "header", "header_name", "matches_of", "text_match"]

#: The name of the calls between services, beside those of gateways.
MESH: Final = "mesh"
#: One set of conditions, all of which a call must meet: the fields of a `match`.
Alternative = dict[str, Any]
#: The alternatives of a rule that every call meets.
ALWAYS: Final[list[Alternative]] = [{}]

_NEVER: Final[Alternative] = {"never": True}
_LEFT_OUT: Final = "the rule does not hold for such calls, rather than for more"
_NOT_ASKED: Final = {
    "uri": "calls name an endpoint and have no path",
    "scheme": "calls have no scheme",
    "method": "calls have no method",
    "authority": "calls have no authority",
    "port": "services have no ports",
}
_ANY_REGEX: Final = frozenset({".*", "^.*$", "*", "/.*", "^/.*$", ".+"})


def text_match(item: Item) -> tuple[str, str]:
    """A condition on a text: `exact`, `prefix` or `regex` and its text, or `present` for any text at all."""
    for name in ("exact", "prefix", "regex"):
        if item.has(name):
            text = item.text(name)
            anything = text == "*" if name == "regex" else not text
            return ("present", "") if anything else (name, text)
    return "present", ""


def _asks_nothing(item: Item, name: str) -> bool:
    """Whether a condition holds for whatever is there."""
    how, text = text_match(item)
    if how == "regex":
        return text in _ANY_REGEX
    return how == "present" or (how == "prefix" and name == "uri" and text == "/")


def header_name(name: str) -> str:
    """Why a header cannot be asked for; empty where it can."""
    if not is_header_name(name):
        return "is no header of a call"
    if is_reserved_header(name):
        return "belongs to the mesh"
    return "carries bytes" if name.lower().endswith("-bin") else ""


def header(item: Item, *, without: bool) -> Node:
    """A condition on a header; ``without``: it must not hold."""
    how, text = text_match(item)
    line = item.line(how)
    if how == "present":
        return made({"absent" if without else "present": True}, line)
    value = made(text, line)
    if how == "exact" and not without:
        return value
    return made({how: value, **({"invert": True} if without else {})}, line)


def matches_of(items: Sequence[Item], namespace: str) -> tuple[list[Alternative], bool]:
    """The alternatives of a rule for calls between services, and whether all of them could be said. ``ALWAYS`` where
    every call meets it. ``namespace`` is the one the rule is for."""
    if not items:
        return ALWAYS, True
    found = [_match(item, namespace) for item in items]
    kept = [each for each in found if each is not None and each is not _NEVER]
    whole = all(each is not None for each in found)
    return (ALWAYS, True) if any(not each for each in kept) else (kept, whole)


def _match(item: Item, namespace: str) -> Alternative | None:
    """What a call must be like: ``None`` where that cannot be said, ``_NEVER`` where no call is."""
    gateways = item.words("gateways")
    if gateways and MESH not in gateways:
        return _NEVER  # for requests at a gateway alone
    good = True
    for name, why in _NOT_ASKED.items():
        if not item.has(name):
            continue
        if name == "port":
            item.whole(name)
        elif (asked := item.one(name)) is None or _asks_nothing(asked, name):
            continue
        item.lost(name, f"{why}: {_LEFT_OUT}", "serious")
        good = False
    asked_query = [
        key for key, each in item.by_name("queryParams").items() if not _asks_nothing(each, "queryParams")
    ]
    if asked_query:
        item.lost("queryParams", f"calls have no query: {_LEFT_OUT}", "serious")
        good = False
    if item.flag("ignoreUriCase") is not None:
        item.lost("ignoreUriCase", _NOT_ASKED["uri"])
    found: Alternative = {}
    good = _callers(item, found) and good
    good = _headers(item, found) and good
    source = item.text("sourceNamespace")
    if source and source != namespace:
        item.note("sourceNamespace", "no caller of another namespace comes here, so no call meets this")
        return _NEVER
    return found if good else None


def _callers(item: Item, found: Alternative) -> bool:
    """Who calls; whether it can be asked for."""
    labels = item.pairs("sourceLabels")
    if labels:
        service, others = service_of_labels(labels)
        if not service or others:
            missing = ", ".join(others) or "a label app"
            item.lost("sourceLabels", f"callers are known by name, not by {missing}: {_LEFT_OUT}", "serious")
            return False
        found["callers"] = made([service], item.line("sourceLabels"))
    return True


def _headers(item: Item, found: Alternative) -> bool:
    headers: dict[str, Node] = {}
    good = True
    for field, without in (("headers", False), ("withoutHeaders", True)):
        for name, each in item.by_name(field).items():
            reason = header_name(name)
            key = name.lower()
            if not reason and key in headers:
                reason = "stands here twice, and one condition per header can be asked for"
            condition = header(each, without=without)
            if reason:
                each.source.lost(each.at(), each.line(), f"{reason}: {_LEFT_OUT}", "serious")
                good = False
            else:
                headers[key] = condition
    if headers:
        found["headers"] = headers
    return good


def both(one: Sequence[Alternative], other: Sequence[Alternative]) -> tuple[list[Alternative], bool]:
    """Calls that meet an alternative of each; and whether some pairs could not be put into one."""
    found: list[Alternative] = []
    whole = True
    for left in one:
        for right in other:
            merged = _merged(left, right)
            whole = whole and merged is not None
            if merged is not None:
                found.append(merged)
    return found, whole


def _merged(left: Alternative, right: Alternative) -> Alternative | None:
    merged: Alternative = {**left, **right}
    if "callers" in left and "callers" in right:
        if left["callers"].plain() != right["callers"].plain():
            return None
        merged["callers"] = left["callers"]
    if "headers" in left and "headers" in right:
        headers = dict(left["headers"])
        for name, node in right["headers"].items():
            if name in headers and headers[name].plain() != node.plain():
                return None
            headers[name] = node
        merged["headers"] = headers
    return merged

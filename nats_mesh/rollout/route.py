"""What a rollout changes in a `Route`: the weights of one rule, and nothing else.

The rule is the one that every call meets which no other rule was about. It may send calls to the two subsets alone:
whatever else it says (another service, a redirect) was meant by somebody, and is not thrown away.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from nats_mesh.errors import MeshError

__all__ = ["InTheWayError", "route_with"]

_ALL: Final = 100
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError, KeyError, TypeError, AttributeError)


class InTheWayError(MeshError):
    """The route says something that a rollout would have to throw away."""


def route_with(
    value: bytes | None,
    *,
    name: str,
    service: str,
    old: str,
    new: str,
    weight: int,
    sticky: dict[str, str | bool] | None,
) -> bytes:
    """The route ``value`` (``None``: there is none yet) with ``weight`` of 100 calls to the subset ``new``, the others
    to ``old``. The very same bytes where it says so already."""
    legs: list[dict[str, Any]] = [
        {"subset": subset, "weight": share}
        for subset, share in ((old, _ALL - weight), (new, weight))
        if share > 0
    ]
    if len(legs) == 1:
        del legs[0]["weight"]
    wanted: dict[str, Any] = {"split": legs}
    if sticky is not None:
        wanted["sticky"] = sticky
    if value is None:
        document: dict[str, Any] = {
            "apiVersion": "mesh/v1",
            "kind": "Route",
            "metadata": {"name": name},
            "spec": {"target": {"service": service}, "rules": [wanted]},
        }
        return msgspec.json.encode(document)
    try:
        document = msgspec.json.decode(value, type=dict[str, Any])
        rules = document["spec"]["rules"]
        rule = next((each for each in rules if not each.get("match")), None)
        target = document["spec"].get("target", {})
        if target.get("service") != service or target.get("endpoints"):
            raise InTheWayError(f"Route/{name} is about something else than {service}")
        if rule is None:
            rules.append(wanted)
        else:
            _check(rule, name, service, old, new)
            if all(rule.get(key) == said for key, said in wanted.items()):
                return value
            rule.update(wanted)
    except _UNREADABLE as error:
        raise InTheWayError(f"Route/{name} cannot be read: {error}") from None
    return msgspec.json.encode(document)


def _check(rule: dict[str, Any], name: str, service: str, old: str, new: str) -> None:
    if rule.get("redirect"):
        raise InTheWayError(f"Route/{name} redirects every call: take that out first")
    for leg in rule.get("split") or ():
        if leg.get("service", service) != service:
            raise InTheWayError(f"Route/{name} splits calls over {leg['service']}, too: take that out first")
        subset = leg.get("subset", "")
        if subset not in (old, new):
            said = f"the subset {subset}" if subset else f"every instance of {service}"
            raise InTheWayError(f"Route/{name} sends calls to {said}, too: leave {old} or {new} there alone")

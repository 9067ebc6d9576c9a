"""The rules of a VirtualService for requests that come in at a gateway, as the routes of an `ingress`."""

from __future__ import annotations

import re
from typing import Any, Final

from nats_mesh.model import is_name
from nats_mesh.policy.istio.destinations import destination_of
from nats_mesh.policy.istio.found import made
from nats_mesh.policy.istio.items import Item
from nats_mesh.policy.istio.matches import header, header_name, text_match
from nats_mesh.policy.istio.virtual_service import find_delegate
from nats_mesh.policy.istio.world import World, duration
from nats_mesh.policy.reader import Node

__all__ = ["routes_of"]

_LEFT_OUT: Final = "such requests are not taken"
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_BELONGS: Final = "belongs to the calls, whoever makes them: say it in a Route of the service that is called"
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()+,;=:@%/-]*")


def routes_of(spec: Item, gateway: str, world: World) -> list[Node]:
    """The routes of a VirtualService at ``gateway``, in their order."""
    found: list[Node] = []
    for http in spec.many("http"):
        if http.has("delegate"):
            delegate = find_delegate(http, world)
            if delegate is None:
                http.lost("delegate", f"stands in none of these files: {_LEFT_OUT}", "serious")
                http.give_up()
                continue
            _of_the_calls(http)
            http.note("timeout", "what is delegated has timeouts of its own")
            found += _delegated(http, delegate, gateway, world)
        else:
            found += _rule(http, gateway, world)
    return found


def _delegated(http: Item, delegate: Item, gateway: str, world: World) -> list[Node]:
    """The routes of a delegate, under the conditions of the rule that hands requests on, too."""
    outer: list[dict[str, Any]] = []
    for match in http.many("match"):
        if not (gateways := match.words("gateways")) or gateway in gateways:
            outer += _conditions(match)
    if not http.many("match"):
        outer = _conditions(None)
    found: list[Node] = []
    for inner in delegate.many("http"):
        for route in _rule(inner, gateway, world):
            merged = [each for each in (_both(conditions, route) for conditions in outer) if each is not None]
            if not merged:
                inner.lost(
                    "", f"does not go with the conditions of {http.source.title}: {_LEFT_OUT}", "serious"
                )
            origin = f"{http.source.title} {http.path}, line {http.line()}, and "
            found += [made(each, route.line, origin + getattr(route, "origin", "")) for each in merged]
    return found


def _both(outer: dict[str, Any], route: Node) -> dict[str, Any] | None:
    """The conditions of both, where they can stand in one route."""
    assert isinstance(route.value, dict)
    inner: dict[str, Any] = dict(route.value)
    around, inside = made(outer["path"], route.line).plain(), inner["path"].plain()
    if any(name in inner for name in outer if name != "path"):
        return None
    if around == inside or (around.endswith("/*") and inside.startswith(around[:-1])):
        return {**outer, **inner}
    if inside.endswith("/*") and around.startswith(inside[:-1]):
        return {**inner, **outer}
    return None


def _rule(http: Item, gateway: str, world: World) -> list[Node]:
    _of_the_calls(http)
    service = _service(http, world)
    if service is None:
        http.give_up()
        return []
    slow = duration(http, "timeout")
    if slow is not None and slow.value == "0s":
        slow = None
    found: list[Node] = []
    matches: list[Item | None] = [*http.many("match")]
    for match in matches or [None]:
        if match is not None and (gateways := match.words("gateways")) and gateway not in gateways:
            continue
        origin = f"{http.source.title} {match.path if match is not None else http.path}, line {(match or http).line()}"
        for conditions in _conditions(match):
            body: dict[str, Any] = {**conditions, "service": service}
            if slow is not None:
                body["timeout"] = slow
            found.append(made(body, (http if match is None else match).line(), origin))
    return found


def _of_the_calls(http: Item) -> None:
    """What is done to the calls that requests become is no affair of a gateway."""
    for name in (
        "retries",
        "fault",
        "mirror",
        "mirrors",
        "mirrorPercent",
        "mirrorPercentage",
        "mirror_percent",
    ):
        http.lost(name, _BELONGS, "serious")


def _service(http: Item, world: World) -> Node | None:
    """The service that requests call; ``None``, and said why, where it is not one."""
    for name in ("redirect", "directResponse"):
        if http.has(name):
            http.lost(name, f"a gateway calls services, and answers nothing itself: {_LEFT_OUT}", "serious")
            return None
    names: dict[str, Node] = {}
    routes = http.many("route")
    if not routes:
        http.source.wrong(
            http.path, http.line(), "leads nowhere: give it a route, redirect, directResponse or delegate"
        )
        return None
    for route in routes:
        destination = route.one("destination")
        assert destination is not None
        found = destination_of(destination, world, world.within(http.source))
        if found is None:
            return None
        if "subset" in found:
            destination.lost("subset", _BELONGS, "serious")
        if route.whole("weight") is not None and len(routes) > 1:
            route.lost("weight", _BELONGS, "serious")
        names.setdefault(str(found["service"].value), found["service"])
    if len(names) > 1:
        http.lost(
            "route", f"requests become calls of one service, which a Route may split: {_LEFT_OUT}", "serious"
        )
        return None
    return next(iter(names.values()))


def _conditions(match: Item | None) -> list[dict[str, Any]]:
    """What a request must be like, once for each way to say it; nothing where it cannot be said."""
    if match is None:
        return [{"path": "/*"}]
    line = match.line()
    good = True
    found: dict[str, Any] = {}
    for name in ("scheme", "authority", "sourceLabels", "sourceNamespace", "port"):
        if match.has(name):
            match.lost(
                name,
                f"cannot be asked for at a gateway; hosts and ports are those of its servers: {_LEFT_OUT}",
                "serious",
            )
            good = False
    if match.flag("ignoreUriCase"):
        match.lost("ignoreUriCase", "paths are compared as they are: fewer requests are taken", "serious")
    method = match.one("method")
    if method is not None and (methods := _methods(method)) is not None:
        if methods:
            found["methods"] = made(methods, method.line())
        else:
            method.lost("", f"is no list of methods: {_LEFT_OUT}", "serious")
            good = False
    headers: dict[str, Node] = {}
    for field, without in (("headers", False), ("withoutHeaders", True)):
        for name, each in match.by_name(field).items():
            reason = header_name(name) or ("stands here twice" if name.lower() in headers else "")
            condition = header(each, without=without)
            if reason:
                each.source.lost(each.at(), each.line(), f"{reason}: {_LEFT_OUT}", "serious")
                good = False
            headers[name.lower()] = condition
    if headers:
        found["headers"] = made(headers, match.line("headers"))
    query = {name: header(each, without=False) for name, each in match.by_name("queryParams").items()}
    if query:
        found["query"] = made(query, match.line("queryParams"))
    uri = match.one("uri")
    paths = ["/*"] if uri is None else _paths(uri)
    if not paths and uri is not None:
        uri.lost("", f"paths are exact, or all below one: {_LEFT_OUT}", "serious")
    at = line if uri is None else uri.line()
    if not good:
        return []
    named = [path for path in paths if _names_endpoint(path)]
    if uri is not None and len(named) < len(paths):
        missing = ", ".join([path for path in paths if path not in named])
        uri.lost("", f"{missing}: its last part names no endpoint: {_LEFT_OUT}", "serious")
    return [{"path": made(path, at), **found} for path in named]


def _names_endpoint(path: str) -> bool:
    last = path.rpartition("/")[2]
    return last == "*" or is_name(last)


def _methods(method: Item) -> list[str] | None:
    """The methods that a condition means; ``None`` for any, none where they cannot be listed."""
    how, text = text_match(method)
    if how == "present" or (how == "regex" and text == ".*"):
        return None
    if how == "exact":
        return [text] if text in _METHODS else []
    if how == "regex":
        words = text.strip("^$").removeprefix("(").removesuffix(")").split("|")
        return words if all(word in _METHODS for word in words) else []
    return [word for word in _METHODS if word.startswith(text)]


def _paths(uri: Item) -> list[str]:
    how, text = text_match(uri)
    if how == "present" or (how == "regex" and text in (".*", "/.*")):
        return ["/*"]
    if how == "regex" or _PATH.fullmatch(text) is None:
        return []
    segments = text.strip("/").split("/")
    if text != "/" and any(each in ("", ".", "..") for each in segments):
        return []
    if how == "exact":
        return [text]
    return [f"{text}*"] if text.endswith("/") else [text, f"{text}/*"]

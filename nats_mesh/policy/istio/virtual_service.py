"""Istio's VirtualService for the calls between services: a `Route` for each of its hosts."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from nats_mesh.errors import Status
from nats_mesh.policy.istio.calls import fault_of, retry_of, status_of_http, timeout_of
from nats_mesh.policy.istio.destinations import destination_of
from nats_mesh.policy.istio.found import made
from nats_mesh.policy.istio.hosts import MESH_WIDE, NO_SERVICE, Host, name_of
from nats_mesh.policy.istio.items import Item
from nats_mesh.policy.istio.matches import ALWAYS, MESH, Alternative, both, matches_of
from nats_mesh.policy.istio.world import World, share
from nats_mesh.policy.reader import Node

__all__ = ["find_delegate", "translate_virtual_service"]

_LEFT_OUT: Final = "the rule is left out, and its calls meet those below it"


_MAX_RULES: Final = 20_000
#: How much `mirror` gets: the first of them that is there counts.
_PARTS_OF_MIRROR: Final = ("mirrorPercentage", "mirrorPercent", "mirror_percent")


class _Rule(NamedTuple):
    """A rule before it is written: for which calls, what it does, where it comes from."""

    alternatives: list[Alternative]
    body: dict[str, Any]
    line: int
    origin: str


def delegated_to(world: World) -> set[int]:
    """The virtual services that others hand requests on to."""
    if world.delegated is None:
        found = [
            find_delegate(http, world)
            for spec in world.of_kind("VirtualService")
            for http in spec.many("http")
            if http.has("delegate")
        ]
        world.delegated = {id(spec) for spec in found if spec is not None}
    return world.delegated


def translate_virtual_service(spec: Item, world: World) -> None:
    """Add what a VirtualService says of calls between services."""
    source = spec.source
    hosts = spec.words("hosts")
    gateways = spec.words("gateways")
    if not hosts:
        if id(spec) not in delegated_to(world):
            spec.lost("", "has no hosts, and no VirtualService in these files delegates to it", "serious")
        return
    if gateways and MESH not in gateways:
        return
    if len(hosts) * len(spec.many("http")) > _MAX_RULES:
        spec.source.wrong(
            spec.at("hosts"), spec.line("hosts"), f"come to more than {_MAX_RULES} rules: split it"
        )
        return
    meant = [(text, world.names.host(text)) for text in hosts]
    if all(host is None for _, host in meant):
        spec.give_up()
    node = spec.take("hosts")
    for index, (text, host) in enumerate(meant):
        path, line = f"{spec.at('hosts')}[{index}]", spec.line("hosts")
        if node is not None and isinstance(node.value, list):
            line = node.value[index].line
        if text == "*":
            source.wrong(
                path, line, "only gateways take every host: name services, or the gateways this is for"
            )
            continue
        if host is None:
            source.lost(path, line, f"{text[:80]} {NO_SERVICE}: no call goes there", "serious")
            continue
        if host.mesh:
            source.lost(path, line, MESH_WIDE, "info")
        if not spec.many("http"):
            continue
        namespace = world.of_host(source, host, path, line)
        rules = _Rules(spec, host, namespace or world.within(source), world).written()
        if not rules:
            source.lost(
                spec.at("http"),
                spec.line("http"),
                f"no rule is left for {text[:80]}: there is no Route",
                "serious",
            )
            continue
        several = sum(1 for _, other in meant if other is not None) > 1
        name = name_of(source.name, host.service or "all-services") if several else name_of(source.name)
        target = {"target": made({"service": host.service}, line)} if host.service else {}
        world.emit(source, "Route", name, namespace, {**target, "rules": made(rules, spec.line("http"))})


def find_delegate(http: Item, world: World) -> Item | None:
    """The VirtualService that a rule hands requests on to, where it stands in these files."""
    delegate = http.one("delegate")
    if delegate is None:
        return None
    name = delegate.text("name")
    namespace = delegate.text("namespace") or world.within(http.source)
    return world.delegates.get((namespace, name))


class _Rules:
    """The rules of a VirtualService for one of its hosts."""

    def __init__(self, spec: Item, host: Host, namespace: str, world: World) -> None:
        self._spec = spec
        self._host = host
        self._namespace = namespace
        self._world = world
        self._whole = True  # nothing was left out so far

    def written(self) -> list[Node]:
        """The rules in their order, without those that cannot be said or cannot be reached."""
        found: list[Node] = []
        above = ""
        for http in self._spec.many("http"):
            if above:
                http.lost("", f"is never reached: {above} applies to every call")
                continue
            for rule in self._of(http):
                if above or not rule.alternatives:
                    continue
                match: dict[str, Any] = {}
                if rule.alternatives is not ALWAYS and all(rule.alternatives):
                    one = len(rule.alternatives) == 1
                    match["match"] = rule.alternatives[0] if one else rule.alternatives
                else:
                    above = rule.origin
                found.append(made({**match, **rule.body}, rule.line, rule.origin))
        if found and not above:
            self._refuse_others(found)
        return found

    def _refuse_others(self, found: list[Node]) -> None:
        """What no rule of a VirtualService is about, Istio answers with 404; calls that no rule is about would go
        on."""
        spec = self._spec
        if self._whole:
            line = spec.line("http")
            refused = {"fault": {"abort": {"status": made(str(Status.NOT_FOUND), line)}}}
            found.append(
                made(refused, line, f"{spec.at('http')}: what meets none of them, Istio answers with 404")
            )
        else:
            text = "as rules are left out, calls that meet none of the others go on, where Istio answers some with 404"
            spec.source.lost(spec.at("http"), spec.line("http"), text, "serious")

    def _of(self, http: Item) -> list[_Rule]:
        alternatives, whole = matches_of(http.many("match"), self._namespace)
        self._whole = self._whole and whole
        body = self._body(http)
        origin = f"{http.path}, line {http.line()}"
        if http.has("delegate"):
            if any(http.has(name) for name in ("route", "redirect", "directResponse")):
                text = "cannot stand beside route, redirect or directResponse"
                http.source.wrong(http.at("delegate"), http.line("delegate"), text)
            return self._delegated(http, alternatives, body)
        where = self._where_to(http)
        if where is None or not alternatives:
            self._whole = self._whole and where is not None
            if where is None:
                http.give_up()
            return []
        fault = where.pop("fault", None)
        return [
            _Rule(alternatives, {**where, **body, **({"fault": fault} if fault else {})}, http.line(), origin)
        ]

    def _body(self, http: Item) -> dict[str, Any]:
        found = {
            "mirror": self._mirrors(http),
            "fault": fault_of(http),
            "timeout": timeout_of(http),
            "retry": retry_of(http),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _delegated(self, http: Item, alternatives: list[Alternative], body: dict[str, Any]) -> list[_Rule]:
        delegate = find_delegate(http, self._world)
        if delegate is None:
            http.lost("delegate", f"stands in none of these files: {_LEFT_OUT}", "serious")
            http.give_up()
            self._whole = False
            return []
        found: list[_Rule] = []
        for inner in delegate.many("http"):
            if inner.has("delegate"):
                inner.lost("delegate", f"only one VirtualService can stand between: {_LEFT_OUT}", "serious")
                inner.give_up()
                self._whole = False
                continue
            conditions, whole = matches_of(inner.many("match"), self._namespace)
            merged, together = both(alternatives, conditions)
            self._whole = self._whole and whole and together
            if not together:
                inner.lost("match", f"does not go with that of {http.source.title}: {_LEFT_OUT}", "serious")
            inside = self._body(inner)
            where = self._where_to(inner)
            if where is None or not merged:
                self._whole = self._whole and where is not None
                if where is None:
                    inner.give_up()
                continue
            merged = ALWAYS if any(not each for each in merged) else merged
            origin = (
                f"{http.path}, line {http.line()}, and {inner.source.title} {inner.path}, line {inner.line()}"
            )
            found.append(_Rule(merged, {**where, **body, **inside}, http.line(), origin))
        return found

    def _where_to(self, http: Item) -> dict[str, Any] | None:
        """Where the calls go: a split, a redirect, or a failure in their place; ``None`` where that cannot be said."""
        if http.has("redirect"):
            return self._redirect(http)
        if http.has("directResponse"):
            return _direct(http)
        if not http.many("route"):
            http.source.wrong(
                http.path, http.line(), "leads nowhere: give it a route, redirect, directResponse or delegate"
            )
            return None
        return self._split(http)

    def _split(self, http: Item) -> dict[str, Any] | None:
        legs: dict[tuple[str, str], dict[str, Any]] = {}
        routes = http.many("route")
        good = True
        for route in routes:
            destination = route.one("destination")
            assert destination is not None
            weight = route.whole("weight")
            found = destination_of(destination, self._world, self._namespace)
            if found is None:
                good = False
                continue
            if len(routes) == 1:
                weight = None
            elif weight is None:
                weight = 0
            key = (found.get("service", made("", 0)).plain(), found.get("subset", made("", 0)).plain())
            if key in legs and weight is not None:
                legs[key]["weight"] = made(legs[key]["weight"].plain() + weight, route.line("weight"))
                route.note("", "goes where another one goes, too: the weights are one")
                continue
            if weight is not None:
                found["weight"] = made(weight, route.line("weight"))
            legs[key] = found
        if not good:
            http.lost("route", _LEFT_OUT, "serious")
            return None
        if len(routes) > 1 and not any(leg["weight"].plain() for leg in legs.values()):
            http.source.wrong(
                http.at("route"), http.line("route"), "sends nobody anywhere: the weights are all 0"
            )
            return None
        if len(legs) == 1:
            for leg in legs.values():
                leg.pop("weight", None)
        return {"split": made(list(legs.values()), http.line("route"))}

    def _redirect(self, http: Item) -> dict[str, Any] | None:
        said = http.one("redirect")
        assert said is not None
        said.lost("uri", "calls name an endpoint and have no path")
        authority = said.text("authority")
        host = self._world.names.host(authority) if authority else None
        if host is None or not host.service or host.namespace not in ("", self._namespace):
            why = (
                "leads to no service of the mesh" if authority else "leads to a path, which calls do not have"
            )
            http.lost("redirect", f"{why}: {_LEFT_OUT}", "serious")
            return None
        return {"redirect": made({"service": made(host.service, said.line("authority"))}, said.line())}

    def _mirrors(self, http: Item) -> Node | None:
        found: list[Node] = []
        said = http.one("mirror")
        parts = [name for name in _PARTS_OF_MIRROR if http.has(name)]
        if said is None:
            for name in parts:
                http.note(name, "is the part of a mirror, and there is no `mirror` beside it")
        else:
            self._mirror(said, _part(http, parts[0]) if parts else None, found)
            for name in parts[1:]:
                http.note(name, f"does not count beside {parts[0]}")
        for each in http.many("mirrors"):
            destination, percentage = each.one("destination"), each.one("percentage")
            assert destination is not None
            number = None if percentage is None else percentage.number("value") or 0.0
            self._mirror(destination, share(percentage or each, "value", number), found)
        return made(found, http.line("mirror" if said is not None else "mirrors")) if found else None

    def _mirror(self, destination: Item, part: Node | None, found: list[Node]) -> None:
        where = destination_of(destination, self._world, self._namespace)
        if where is None:
            return
        if part is not None and part.value != "100%":
            where["share"] = part
        found.append(made(where, destination.line()))


def _part(http: Item, name: str) -> Node | None:
    """How much `mirror` gets, by the field that says so; ``None`` where that is a mistake."""
    if name == "mirrorPercentage":
        percentage = http.one(name)
        assert percentage is not None
        return share(percentage, "value", percentage.number("value") or 0.0)
    return share(http, name, float(http.whole(name) or 0))


def _direct(http: Item) -> dict[str, Any] | None:
    said = http.one("directResponse")
    assert said is not None
    status = status_of_http(said.whole("status") or 0)
    if not status:
        said.lost("status", f"only a failure can be made up: {_LEFT_OUT}", "serious")
        return None
    return {
        "fault": made(
            {"abort": made({"status": made(status, said.line("status"))}, said.line())}, said.line()
        )
    }

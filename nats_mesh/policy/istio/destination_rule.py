"""Istio's DestinationRule: a `Destination` for the service, one for each subset with settings of its own, and a
`Limit`.

What Istio says of a subset replaces what it says of the service block by block, while ours are laid over each other
field by field. So a block is always written whole, with Istio's defaults where it says nothing.
"""

from __future__ import annotations

from typing import Any, Final

from nats_mesh.policy.istio.found import made
from nats_mesh.policy.istio.hosts import MESH_WIDE, NO_SERVICE, Host, name_of
from nats_mesh.policy.istio.items import Item
from nats_mesh.policy.istio.matches import header_name
from nats_mesh.policy.istio.traffic import concurrency_of, ejection_of, tls_of
from nats_mesh.policy.istio.world import World, duration, share
from nats_mesh.policy.reader import Node

__all__ = ["translate_destination_rule"]

_BALANCERS: Final = {
    "ROUND_ROBIN": "round_robin", "LEAST_REQUEST": "least_request", "LEAST_CONN": "least_request", "RANDOM": "random",
    "PASSTHROUGH": "queue",
}  # fmt: skip
#: Istio's own where it says nothing.
_DEFAULT: Final = "least_request"
_ZONES: Final = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")


def translate_destination_rule(spec: Item, world: World) -> None:
    """Add what a DestinationRule says."""
    source = spec.source
    text = spec.text("host")
    host = world.names.host(text)
    if host is None:
        spec.lost("host", f"{text[:80] or 'it'} {NO_SERVICE}: no call goes there", "serious")
        spec.give_up()
        return
    if host.mesh:
        spec.note("host", MESH_WIDE)
    some_callers = spec.one("workloadSelector")
    if some_callers is not None:
        reason = (
            "is for some callers alone, and a Destination is for all: what it says of traffic is left out"
        )
        some_callers.lost("", reason, "serious")
    namespace = world.of_host(source, host, spec.at("host"), spec.line("host"))
    _Rule(spec, host, namespace, world, traffic=some_callers is None).emit()


class _Rule:
    def __init__(self, spec: Item, host: Host, namespace: str, world: World, *, traffic: bool) -> None:
        self._spec = spec
        self._host = host
        self._namespace = namespace
        self._world = world
        self._traffic = traffic
        self._name = name_of(spec.source.name)

    def emit(self) -> None:
        spec = self._spec
        own = self._settings(spec, "")
        concurrency = own.pop("concurrency", None)
        subsets = self._subsets()
        document: dict[str, Any] = dict(own)
        if subsets:
            document["subsets"] = made(subsets, spec.line("subsets"))
        if document:
            self._destination(self._name, "", document, 0)
        elif concurrency is None and not spec.has("subsets"):
            spec.note("", "says nothing that needs a policy here")
        if concurrency is not None:
            target = (
                {"target": made({"service": self._host.service}, spec.line("host"))}
                if self._host.service
                else {}
            )
            limit = {**target, "concurrency": made({"limit": concurrency}, concurrency.line)}
            self._world.emit(spec.source, "Limit", self._name, self._namespace, limit, concurrency.line)
        self._of_subsets(own, subsets)

    def _destination(self, name: str, subset: str, document: dict[str, Any], line: int) -> None:
        spec = self._spec
        target: dict[str, Any] = (
            {"service": made(self._host.service, spec.line("host"))} if self._host.service else {}
        )
        if subset:
            target["subset"] = made(subset, line)
        about = {"target": made(target, line)} if target else {}
        self._world.emit(spec.source, "Destination", name, self._namespace, {**about, **document}, line)

    def _subsets(self) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for each in self._spec.many("subsets"):
            name, labels = each.text("name"), each.take("labels")
            if name in found:
                each.source.wrong(
                    each.at("name"), each.line("name"), f"{name[:63]!a} is the name of two subsets"
                )
            elif not self._host.service:
                each.lost("", "a subset needs a host that is one service", "serious")
            elif labels is None or not labels.value or not isinstance(labels.value, dict):
                each.lost("", "selects every instance: a subset needs labels", "serious")
            else:
                pairs = {key: made(value.value, value.line) for key, value in labels.value.items()}
                found[name] = made(
                    {"labels": made(pairs, each.line("labels"))},
                    each.line(),
                    f"{each.path}, line {each.line()}",
                )
        return found

    def _of_subsets(self, own: dict[str, Any], subsets: dict[str, Node]) -> None:
        for each in self._spec.many("subsets"):
            name = each.text("name")
            said = self._settings(each, name)
            said.pop("concurrency", None)
            if not said or name not in subsets:
                if said:
                    each.lost("trafficPolicy", "belongs to a subset that is left out", "serious")
                continue
            if "balancer" in own and "balancer" in said:
                _replaced(own["balancer"], said["balancer"])
            self._destination(name_of(self._spec.source.name, name), name, said, each.line())

    def _settings(self, item: Item, subset: str) -> dict[str, Any]:
        """The fields of a Destination; `concurrency` for the Limit beside it."""
        traffic = item.one("trafficPolicy")
        if traffic is None:
            return {}
        if not self._traffic:
            traffic.lost("", "is for some callers alone", "serious")
            return {}
        found: dict[str, Any] = {}
        balancer = self._balancer(traffic)
        ejection = ejection_of(traffic)
        if ejection is not None:
            if balancer is not None and balancer["name"].value == "queue":
                traffic.lost(
                    "outlierDetection", "whoever leaves the choice to the server cannot avoid an instance"
                )
                ejection = None
            elif balancer is None:  # Istio's own balancer avoids instances, and the mesh's queue cannot
                balancer = {"name": made(_DEFAULT, traffic.line("outlierDetection"))}
        if balancer is not None:
            alone = len(balancer) == 1
            found["balancer"] = balancer["name"] if alone else made(balancer, balancer["name"].line)
        if ejection is not None:
            found["ejection"] = ejection
        if (budget := traffic.one("retryBudget")) is not None:
            ratio = share(budget, "percent", budget.number("percent"))
            if ratio is not None:
                found["retry"] = made({"budget": {"ratio": ratio}}, budget.line())
        concurrency = concurrency_of(traffic)
        if concurrency is not None and subset:
            traffic.lost(
                "connectionPool",
                "a Limit is for all of a service's instances, and not for a subset",
                "serious",
            )
        elif concurrency is not None:
            found["concurrency"] = concurrency
        tls_of(traffic)
        return found

    def _balancer(self, traffic: Item) -> dict[str, Node] | None:
        said = traffic.one("loadBalancer")
        if said is None:
            return None
        line = said.line()
        found: dict[str, Node] = {}
        simple, hashed = said.text("simple"), said.one("consistentHash")
        if hashed is not None:
            found = _hash(hashed)
        elif simple and simple != "UNSPECIFIED":
            found["name"] = made(_BALANCERS[simple], said.line("simple"))
            if simple == "PASSTHROUGH":
                said.note(
                    "simple", "nobody on the mesh knows an address to pass through to: the server chooses"
                )
        else:
            found["name"] = made(_DEFAULT, line)
        if not found:
            return None
        for name in ("warmup", "warmupDurationSecs"):
            holder = said.one("warmup") if name == "warmup" else said
            field = "duration" if name == "warmup" else name
            if holder is not None and (slow := duration(holder, field)) is not None:
                found["slowStart"] = slow
        if (zones := said.one("localityLbSetting")) is not None and _near_first(zones):
            found["locality"] = made(True, zones.line())
        if found["name"].value == "queue" and len(found) > 1:
            said.lost("", "whoever leaves the choice to the server can prefer no instance")
            found = {"name": found["name"]}
        return found


def _hash(hashed: Item) -> dict[str, Node]:
    line = hashed.line()
    found = {"name": made("consistent_hash", line)}
    if hashed.has("httpHeaderName"):
        name = hashed.text("httpHeaderName")
        if reason := header_name(name):
            hashed.lost("httpHeaderName", f"{reason}, so nothing can be hashed by it: the server chooses")
            return {}
        found["header"] = made(name.lower(), hashed.line("httpHeaderName"))
        return found
    if hashed.flag("useSourceIp"):
        hashed.note("useSourceIp", "calls have no address: the caller's name is hashed")
        return found
    if hashed.has("httpCookie"):
        hashed.lost("httpCookie", "calls have no cookies: the server chooses; a header can be hashed")
    elif hashed.has("httpQueryParameterName"):
        hashed.lost(
            "httpQueryParameterName", "calls have no query: the server chooses; a header can be hashed"
        )
    else:
        hashed.lost("", "says nothing to hash by: the server chooses")
    return {}


def _near_first(zones: Item) -> bool:
    """Whether the own zone comes first."""
    enabled, order = zones.flag("enabled"), zones.words("failoverPriority")
    if enabled is False:
        return False
    if order and not any(label in _ZONES for label in order):
        zones.lost("failoverPriority", "instances are near by their label `zone` alone")
        return False
    if len(order) > 1:
        zones.lost("failoverPriority", "there is one order: the own zone first, then every other")
    return bool(enabled or order or zones.has("failover"))


def _replaced(own: Node, said: Node) -> None:
    """Take back in ``said`` what ``own`` says and ``said`` does not."""
    if not isinstance(own.value, dict):
        return
    back: dict[str, Any] = {"slowStart": "0s", "locality": False}
    if not isinstance(said.value, dict):
        if not any(name in own.value for name in back):
            return
        said.value = {"name": made(said.value, said.line)}
        said.key_lines = {"name": said.line}
    for name, value in back.items():
        if name in own.value and name not in said.value:
            said.value[name] = made(value, said.line)
            said.key_lines[name] = said.line

"""Istio's ServiceEntry for a server outside: a way out of the mesh, as `egress` of a `Gateway`."""

from __future__ import annotations

from typing import Any, Final

from nats_mesh.policy.istio.found import made
from nats_mesh.policy.istio.hosts import name_of
from nats_mesh.policy.istio.items import Item
from nats_mesh.policy.istio.world import World
from nats_mesh.policy.reader import Node

__all__ = ["name_outside", "translate_service_entry"]

_SCHEMES: Final = {"HTTPS": "https", "TLS": "https", "HTTP": "http", "HTTP2": "http"}


def name_outside(spec: Item, world: World) -> None:
    """Make the service known by which calls reach the hosts."""
    if spec.text("location") != "MESH_INTERNAL" and _ways(spec):
        for host in spec.words("hosts"):
            if world.names.host(host) is None:
                world.names.outside.setdefault(host.lower(), name_of(spec.source.name))


def _ways(spec: Item) -> list[tuple[str, Item]]:
    """The ports that HTTP is spoken at, and how; those with TLS first."""
    found = []
    for port in spec.many("ports"):
        scheme = _SCHEMES.get(port.text("protocol").upper())
        if scheme is not None:
            found.append((scheme, port))
    return sorted(found, key=lambda each: each[0] != "https")


def translate_service_entry(spec: Item, world: World) -> None:
    """Add the way out that a ServiceEntry opens."""
    if spec.text("location") == "MESH_INTERNAL":
        spec.lost("", "services of the mesh announce themselves")
        return
    ways = _ways(spec)
    hosts: list[Node] = []
    node = spec.take("hosts")
    for index, each in enumerate(node.value if node is not None and isinstance(node.value, list) else []):
        if world.names.outside.get(str(each.value).lower()) == name_of(spec.source.name):
            hosts.append(made(each.value, each.line))
        else:
            why = (
                "is a host of the mesh, or stands in another ServiceEntry"
                if ways
                else "is not reached by HTTP"
            )
            spec.source.lost(f"{spec.at('hosts')}[{index}]", each.line, why, "serious")
    for port in spec.many("ports"):
        port.text("name")
        port.whole("number")
        if _SCHEMES.get(port.text("protocol").upper()) is None:
            port.lost("", "only HTTP leaves the mesh, by a gateway")
        elif ways and port is not ways[0][1]:
            port.lost("", "one port of a server is used, with TLS where there is one")
        port.lost("targetPort", "the port is asked for as it is outside")
    if not ways or not hosts:
        return
    scheme, port = ways[0]
    way: dict[str, Any] = {
        "service": made(name_of(spec.source.name), spec.source.line),
        "hosts": made(hosts, spec.line("hosts")),
        "port": made(port.whole("number"), port.line("number")),
        "scheme": made(scheme, port.line("protocol")),
    }
    spec.note("hosts", f"is called as the service {name_of(spec.source.name)}, by way of a gateway")
    world.emit(
        spec.source,
        "Gateway",
        name_of(spec.source.name),
        spec.source.namespace,
        {"egress": made(way, spec.line())},
    )

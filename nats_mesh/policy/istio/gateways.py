"""Istio's Gateway, and the VirtualServices bound to it, as a `Gateway`: which requests become calls of which
service."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from nats_mesh.policy.istio.found import Made, made
from nats_mesh.policy.istio.hosts import name_of
from nats_mesh.policy.istio.items import Item
from nats_mesh.policy.istio.matches import MESH
from nats_mesh.policy.istio.requests import routes_of
from nats_mesh.policy.istio.world import World
from nats_mesh.policy.reader import Node

__all__ = ["translate_gateways"]

_MAX_ROUTES: Final = 20_000
_HTTP: Final = ("HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "HTTP3")
_IN_THE_CLEAR: Final = "it is left out, rather than open it without TLS"
_NOT_OF_KEYS: Final = (
    "subjectAltNames", "verifyCertificateSpki", "verifyCertificateHash", "caCrl", "caCertCredentialName",
    "cipherSuites",
    "maxProtocolVersion",
)  # fmt: skip


class _Bound(NamedTuple):
    """A VirtualService at a gateway: its hosts, and what its requests become."""

    spec: Item
    hosts: tuple[str, ...]
    routes: list[Node]


def translate_gateways(world: World) -> None:
    """Add what gateways let in."""
    bound: dict[tuple[str, str], list[_Bound]] = {}
    for spec in world.of_kind("VirtualService"):
        names = [name for name in spec.words("gateways") if name != MESH]
        if not names or not spec.has("hosts"):
            continue
        namespace = world.within(spec.source)
        if len(names) * len(spec.many("http")) > _MAX_ROUTES:
            text = f"come to more than {_MAX_ROUTES} routes: split it"
            spec.source.wrong(spec.at("gateways"), spec.line("gateways"), text)
            continue
        for name in names:
            where, _, short = name.rpartition("/")
            routes = routes_of(spec, name, world)
            hosts = tuple(host.lower() for host in spec.words("hosts"))
            bound.setdefault((where or namespace, short), []).append(_Bound(spec, hosts, routes))
    for spec in world.of_kind("Gateway"):
        key = (world.within(spec.source), spec.source.name)
        _gateway(spec, bound.pop(key, []), world)
    for (_, short), each in bound.items():
        for one in each:
            _without(short, one, world)


def _without(name: str, bound: _Bound, world: World) -> None:
    """A VirtualService whose gateway stands in none of the files."""
    spec = bound.spec
    text = f"the gateway {name[:80]} is in none of these files: its port and TLS are the defaults"
    spec.source.lost(spec.at("gateways"), spec.line("gateways"), text, "serious")
    if not bound.routes:
        return
    ingress: dict[str, Any] = {"routes": made(bound.routes, spec.line("http"))}
    if "*" not in bound.hosts:
        ingress = {"hosts": made(list(bound.hosts), spec.line("hosts")), **ingress}
    document = {"ingress": made(ingress, spec.line())}
    world.emit(spec.source, "Gateway", name_of(spec.source.name, name), spec.source.namespace, document)


def _gateway(spec: Item, bound: list[_Bound], world: World) -> None:
    selector = spec.pairs("selector")
    word = selector.get("istio") or selector.get("app") or ""
    document: dict[str, Any] = {}
    if word:
        document["gateways"] = made([name_of(word)], spec.line("selector"))
        spec.note("selector", f"is the gateway that is called {name_of(word)}")
    elif selector:
        spec.lost(
            "selector",
            "a gateway is known by name, as the label istio or app has it: every gateway does this",
            "serious",
        )
    ingress: list[Node] = []
    for server in spec.many("servers"):
        common = _server(server)
        if common is None:
            server.give_up()
            continue
        hosts = _hosts(server)
        origin = f"{server.path}, line {server.line()}"
        if "httpsRedirect" in common:
            ingress.append(
                made({**_host_field(hosts, server.line("hosts")), **common}, server.line(), origin)
            )
            continue
        taken = _by_hosts(hosts, [each for each in bound if each.routes])
        if not taken:
            server.lost(
                "", "no VirtualService in these files says what its requests become: it takes none", "serious"
            )
        for shared, several in taken:
            line = several[0].spec.line("hosts")
            routes = _in_order([route for each in several for route in each.routes], server)
            inside = {
                **_host_field(shared, line),
                **common,
                "routes": made(routes, several[0].spec.line("http")),
            }
            titles = ", ".join(
                [f"{each.spec.source.title}, line {each.spec.source.line}" for each in several]
            )
            ingress.append(made(inside, server.line(), f"{origin}, and {titles}"))
    for each in bound:
        if not any(_shared(_hosts(server), each.hosts) for server in spec.many("servers")):
            text = f"no server of {spec.source.title} takes requests for its hosts: they come in nowhere"
            each.spec.source.lost(each.spec.at("hosts"), each.spec.line("hosts"), text, "serious")
    if ingress:
        document["ingress"] = made(ingress if len(ingress) > 1 else ingress[0], spec.line("servers"))
        world.emit(spec.source, "Gateway", name_of(spec.source.name), spec.source.namespace, document)


def _by_hosts(server: tuple[str, ...], bound: list[_Bound]) -> list[tuple[tuple[str, ...], list[_Bound]]]:
    """Hosts of a server that have the same virtual services, and these."""
    of_host: dict[str, list[_Bound]] = {}
    for each in bound:
        for host in _shared(server, each.hosts):
            of_host.setdefault(host, []).append(each)
    grouped: dict[tuple[int, ...], tuple[list[str], list[_Bound]]] = {}
    for host, several in of_host.items():
        hosts, _ = grouped.setdefault(tuple([id(each) for each in several]), ([], several))
        hosts.append(host)
    return [(tuple(hosts), several) for hosts, several in grouped.values()]


def _in_order(routes: list[Node], server: Item) -> list[Node]:
    """The routes that are reached: for Istio the first counts, for the mesh the most specific path and then the
    first."""
    found: list[Node] = []
    for route in routes:
        above = next((each for each in found if _takes_all_of(each, route)), None)
        if above is None:
            found.append(route)
        else:
            origin = route.origin if isinstance(route, Made) else ""
            text = f"{origin} is never reached: what stands above takes it all (line {above.line})"
            server.source.lost(server.path, server.line(), text)
    return found


def _takes_all_of(one: Node, other: Node) -> bool:
    """Whether every request of the route ``other`` is one of the route ``one``."""
    above, below = one.plain(), other.plain()
    if "headers" in above or "query" in above:
        return False
    if "methods" in above and not set(below.get("methods", ["?"])) <= set(above["methods"]):
        return False
    path: str = above["path"]
    return path == below["path"] or (path.endswith("/*") and str(below["path"]).startswith(path[:-1]))


def _host_field(hosts: tuple[str, ...], line: int) -> dict[str, Node]:
    return {} if "*" in hosts or not hosts else {"hosts": made(list(hosts), line)}


def _hosts(server: Item) -> tuple[str, ...]:
    """The hosts of a server, without the namespaces of the VirtualServices that may be bound to it."""
    return tuple(host.rpartition("/")[2].lower() for host in server.words("hosts"))


def _shared(server: tuple[str, ...], hosts: tuple[str, ...]) -> tuple[str, ...]:
    """The hosts of a VirtualService that a server takes, each as narrow as the narrower of the two."""
    found: list[str] = []
    for host in hosts:
        for other in server:
            if _covers(other, host):
                found.append(host)
            elif _covers(host, other):
                found.append(other)
    return tuple(dict.fromkeys(found))


def _covers(pattern: str, host: str) -> bool:
    if pattern == "*":
        return True
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _server(server: Item) -> dict[str, Any] | None:
    """Where a server listens, and how; ``None``, and said why, where it cannot be opened here."""
    port = server.one("port")
    assert port is not None
    number, protocol = port.whole("number"), port.text("protocol").upper()
    port.text("name")
    port.lost("targetPort", "a gateway listens itself")
    bind = server.text("bind")
    if bind and bind not in ("0.0.0.0", "::"):
        server.lost("bind", "a gateway listens at all addresses of its process", "serious")
    tls = server.one("tls")
    redirect = tls is not None and tls.flag("httpsRedirect") is True
    if protocol and protocol not in _HTTP:
        server.lost("", f"{protocol[:20]} is not HTTP, and nothing else comes in by a gateway", "serious")
        return None
    found: dict[str, Any] = {}
    if number:
        found["port"] = made(number, port.line("number"))
    if redirect and tls is not None:
        found["httpsRedirect"] = made(True, tls.line("httpsRedirect"))
        for name in tls.names():
            if name != "httpsRedirect":
                tls.note(name, "a server that sends clients on to https needs none")
        return found
    if tls is None or not tls.has("mode"):
        if protocol == "HTTPS":
            server.lost("", f"names no certificate: {_IN_THE_CLEAR}", "serious")
            return None
        for name in () if tls is None else tls.names():
            if tls is not None:
                tls.lost(name, "without a mode nothing is encrypted")
        return found
    keys = _tls(tls)
    if keys is None:
        return None
    return {**found, "tls": keys}


def _tls(tls: Item) -> Node | None:
    mode = tls.text("mode")
    if mode not in ("SIMPLE", "MUTUAL"):
        tls.lost("mode", f"{mode}: only SIMPLE and MUTUAL end here: {_IN_THE_CLEAR}", "serious")
        return None
    certificate, key = tls.text("serverCertificate"), tls.text("privateKey")
    for pair in tls.many("tlsCertificates"):
        certificate, key = certificate or pair.text("serverCertificate"), key or pair.text("privateKey")
    for name in ("credentialName", "credentialNames"):
        tls.lost(name, "is a secret of Kubernetes: name the files of the certificate and its key", "serious")
    if not certificate or not key:
        tls.lost("", f"names no files with a certificate and its key: {_IN_THE_CLEAR}", "serious")
        return None
    found: dict[str, Any] = {
        "certificate": made(certificate, tls.line("serverCertificate")),
        "key": made(key, tls.line("privateKey")),
    }
    authorities = tls.text("caCertificates")
    if mode == "MUTUAL":
        if not authorities:
            tls.lost("mode", f"names no file with the clients' authorities: {_IN_THE_CLEAR}", "serious")
            return None
        found["clientCa"] = made(authorities, tls.line("caCertificates"))
    for name in _NOT_OF_KEYS:
        tls.lost(name, "clients' certificates are checked by their authority alone", "serious")
    least = tls.text("minProtocolVersion")
    if least in ("TLSV1_2", "TLSV1_3"):
        found["minVersion"] = made(least[-3:].replace("_", "."), tls.line("minProtocolVersion"))
    elif least and least != "TLS_AUTO":
        tls.lost("minProtocolVersion", "nothing older than TLS 1.2 is spoken")
    if authorities and mode == "SIMPLE":
        tls.lost("caCertificates", "clients show no certificate with SIMPLE")
    return made(found, tls.line())

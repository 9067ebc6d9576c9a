"""What the fields of a `Gateway` may only say together."""

from __future__ import annotations

from msgspec import UNSET

from nats_mesh.model import is_name
from nats_mesh.policy.gateway_parts import Cors, GatewaySpec, HttpRoute, Ingress
from nats_mesh.policy.look import Look

__all__ = ["gateway"]

_PORT, _TLS_PORT = 8080, 8443


def gateway(spec: GatewaySpec, look: Look) -> None:
    """Requests go to one place each, and what is let out has one name each."""
    look.something("spec", ("ingress", "egress"))
    look.names("spec", spec, ("gateways",))
    claimed: dict[tuple[int, str], str] = {}
    secured: dict[int, tuple[bool, str]] = {}
    for index, ingress in enumerate([] if spec.ingress is UNSET else spec.ingress):
        path = look.place("spec.ingress", index)
        _ingress(path, ingress, look)
        port = _port(ingress)
        tls = f"{path}.tls" in look.lines
        for host in ["*"] if ingress.hosts is UNSET else ingress.hosts:
            other = claimed.setdefault((port, host), path)
            if other != path:
                look.say(path, f"takes {host} at port {port}, as {other} does: put the two into one")
        first, other = secured.setdefault(port, (tls, path))
        if first is not tls:
            look.say(path, f"and {other} share port {port}, of which only one is by TLS: give them two")
    names: dict[str, str] = {}
    for index, egress in enumerate([] if spec.egress is UNSET else spec.egress):
        path = look.place("spec.egress", index)
        look.names(path, egress, ("hosts", "methods", "paths"))
        other = names.setdefault(egress.service, path)
        if other != path:
            look.say(f"{path}.service", f"is the name of {other}, too: give one of them another")


def _port(ingress: Ingress) -> int:
    if ingress.port is not UNSET:
        return ingress.port
    return _PORT if ingress.tls is UNSET else _TLS_PORT


def _ingress(path: str, ingress: Ingress, look: Look) -> None:
    look.names(path, ingress, ("hosts",))
    if ingress.https_redirect is True:
        if f"{path}.routes" in look.lines:
            look.say(f"{path}.routes", "have no effect beside httpsRedirect: remove one of them")
        if f"{path}.tls" in look.lines:
            look.say(f"{path}.httpsRedirect", "would go round in circles: with tls it is https already")
    elif f"{path}.routes" not in look.lines and f"{path}.httpsRedirect" not in look.lines:
        look.say(path, "takes no request: give it routes, or httpsRedirect: true")
    if ingress.max_body == 0:
        look.say(f"{path}.maxBody", "must be above 0B")
    if ingress.cors is not UNSET:
        _cors(f"{path}.cors", ingress.cors, look)
    seen: dict[tuple[str, str], str] = {}
    for index, route in enumerate([] if ingress.routes is UNSET else ingress.routes):
        where = f"{path}.routes[{index}]"
        _route(where, route, look)
        if route.headers is UNSET and route.query is UNSET:
            for method in ["*"] if route.methods is UNSET else route.methods:
                other = seen.setdefault((route.path, method), where)
                if other != where:
                    look.say(where, f"takes nothing that {other} does not take: remove one of them")
                    break


def _route(path: str, route: HttpRoute, look: Look) -> None:
    look.names(path, route, ("methods", "headers", "query"))
    look.conditions(f"{path}.headers", route.headers)
    look.conditions(f"{path}.query", route.query)
    look.positive(f"{path}.timeout", route.timeout)
    if route.endpoint is UNSET and f"{path}.endpoint" not in look.lines:
        last = route.path.rpartition("/")[2]
        if not is_name(last) and last != "*" and not last.startswith("{"):
            look.say(f"{path}.endpoint", "is missing: the path's last part names none")


def _cors(path: str, cors: Cors, look: Look) -> None:
    look.names(path, cors, ("origins", "methods", "headers", "expose"))
    if cors.credentials is True and "*" in cors.origins:
        look.say(f"{path}.credentials", "cannot go with the origin *: name the origins")

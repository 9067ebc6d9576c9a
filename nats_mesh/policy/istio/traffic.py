"""What a traffic policy says beside its balancer: who is avoided, how much goes at a time, and TLS."""

from __future__ import annotations

from typing import Any

from nats_mesh.policy.istio.found import made
from nats_mesh.policy.istio.items import Item
from nats_mesh.policy.istio.world import duration
from nats_mesh.policy.reader import Node

__all__ = ["concurrency_of", "ejection_of", "tls_of"]


def ejection_of(traffic: Item) -> Node | None:
    """Outlier detection, with Istio's defaults where they are not the mesh's."""
    said = traffic.one("outlierDetection")
    if said is None:
        return None
    counts = []
    for name in ("consecutive5xxErrors", "consecutiveErrors", "consecutiveGatewayErrors"):
        count = said.whole(name)
        if count is not None:
            counts.append((count, name))
    used = [(count, name) for count, name in counts if count > 0]
    if not used and any(name == "consecutive5xxErrors" for _, name in counts):
        said.lost(
            "",
            "wherever a caller chooses the instance bad ones are avoided, by the mesh's defaults: it cannot be off",
        )
        for other in said.names():
            said.take(other)
        return None
    line = said.line()
    least, name = min(used, default=(5, ""))
    if name == "consecutiveGatewayErrors" or len(used) > 1:
        said.note(name or "", "failures are counted together, of whatever status: the smallest number holds")
    found: dict[str, Any] = {"consecutive": made(least, said.line(name) if name else line)}
    found["successRatio"] = made("0%", line)  # Istio ejects nobody for its success rate
    split, silent = said.flag("splitExternalLocalOriginErrors"), said.whole("consecutiveLocalOriginFailures")
    if silent and split:
        found["silent"] = made(silent, said.line("consecutiveLocalOriginFailures"))
    elif silent is not None:
        said.lost(
            "consecutiveLocalOriginFailures", "counts for Istio with splitExternalLocalOriginErrors alone"
        )
    if split is not None:
        said.note("splitExternalLocalOriginErrors", "silence and failures are always counted apart")
    base = duration(said, "baseEjectionTime")
    if base is None or base.value == "0s":
        base = made("30s", line)
    found["base"] = base
    seconds = said.seconds("baseEjectionTime") or 0.0
    if seconds > 300.0:
        found["max"] = base
    percent, healthy = said.whole("maxEjectionPercent"), said.whole("minHealthPercent")
    found["maxRatio"] = made(f"{10 if percent is None else percent}%", said.line("maxEjectionPercent"))
    found["panicRatio"] = made(f"{healthy or 0}%", said.line("minHealthPercent"))
    return made(found, line)


def concurrency_of(traffic: Item) -> Node | None:
    """How much an instance takes: Envoy bounds it at every caller, the mesh at the instance."""
    said = traffic.one("connectionPool")
    if said is None:
        return None
    tcp, http = said.one("tcp"), said.one("http")
    requests = None if http is None else http.whole("http2MaxRequests")
    connections = None if tcp is None else tcp.whole("maxConnections")
    if http is not None and requests:
        if tcp is not None and connections is not None:
            tcp.note("maxConnections", "http2MaxRequests says how many calls there are at a time")
        http.note("http2MaxRequests", "holds at every instance and endpoint, instead of at every caller")
        return made(requests, http.line("http2MaxRequests"))
    if tcp is not None and connections:
        text = "a connection carries a request at a time: so many calls at a time, at every instance and endpoint, "
        tcp.note("maxConnections", f"{text}instead of at every caller")
        return made(connections, tcp.line("maxConnections"))
    for item, name in ((http, "http2MaxRequests"), (tcp, "maxConnections")):
        if item is not None and item.has(name):
            item.note(name, "is no limit")
    return None


def tls_of(traffic: Item) -> None:
    """Say what becomes of TLS: the bus has it."""
    said = traffic.one("tls")
    if said is None or not said.has("mode"):
        return
    mode = said.text("mode")
    if mode == "ISTIO_MUTUAL":
        said.note(
            "mode",
            "the bus carries identity: the server vouches for who calls, and encrypts where it has TLS",
        )
    else:
        said.lost("mode", "TLS is between a process and the bus, and set there: nobody connects to a service")

"""Istio's RequestAuthentication as `Authentication`: whose tokens count."""

from __future__ import annotations

from typing import Any

from nats_mesh.policy.istio.found import made
from nats_mesh.policy.istio.items import Item
from nats_mesh.policy.istio.matches import header_name
from nats_mesh.policy.istio.targets import aims_of, emit_widely
from nats_mesh.policy.istio.world import World
from nats_mesh.policy.reader import Node

__all__ = ["translate_request_authentication"]


def translate_request_authentication(spec: Item, world: World) -> None:
    """Add what a RequestAuthentication says."""
    aims = aims_of(spec, world)
    issuers: list[Node] = []
    seen: set[str] = set()
    for rule in spec.many("jwtRules"):
        issuer = _issuer(rule)
        if issuer is not None and rule.text("issuer") in seen:
            text = "an issuer is described once, and this one stands above: its tokens here do not count"
            rule.lost("", text, "serious")
        elif issuer is not None:
            issuers.append(issuer)
            seen.add(rule.text("issuer"))
    if aims and not issuers:
        spec.lost("", "names no issuer whose tokens count", "info" if not spec.has("jwtRules") else "serious")
        spec.give_up()
        return
    if not aims:
        spec.give_up()
    emit_widely(
        spec,
        world,
        "Authentication",
        aims,
        lambda aim: {**aim.target, "issuers": made(issuers, spec.line("jwtRules"))},
    )


def _issuer(rule: Item) -> Node | None:
    issuer = rule.text("issuer")
    if not issuer:
        rule.lost(
            "",
            "tokens are told apart by their issuer, which it does not name: its tokens do not count",
            "serious",
        )
        return None
    found: dict[str, Any] = {"issuer": made(issuer, rule.line("issuer"))}
    if audiences := rule.words("audiences"):
        found["audiences"] = made(audiences, rule.line("audiences"))
    for name in ("jwksUri", "jwks_uri"):
        if uri := rule.text(name):
            found["jwks"] = made({"url": made(uri, rule.line(name))}, rule.line(name))
    if keys := rule.text("jwks"):
        found["jwks"] = made({"inline": made(keys, rule.line("jwks"))}, rule.line("jwks"))
    if "jwks" not in found and not issuer.startswith("https://"):
        text = "says nowhere where its keys are, and its issuer is no address: its tokens do not count"
        rule.lost("", text, "serious")
        return None
    headers = rule.many("fromHeaders")
    for index, header in enumerate(headers):
        name, prefix = header.text("name"), header.text("prefix")
        if index:
            header.lost("", "a token comes in one header: the first that is named")
        elif reason := header_name(name):
            header.lost("", f"{name[:80]} {reason}: the token comes in `authorization`", "serious")
        else:
            found["header"] = made(name.lower(), header.line("name"))
            if prefix:
                found["prefix"] = made(prefix, header.line("prefix"))
    return made(found, rule.line(), f"{rule.path}, line {rule.line()}")

"""Gateways, the virtual services bound to them, servers outside, and telemetry: convert has them, whatever applies
them."""

from __future__ import annotations

from typing import Any

import pytest

from nats_mesh.policy.istio import Translation, translate
from tests.istio import documents, lost, notes, of, round_trip, text_of

_SERVER = "port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']"


def _bound(http: str, servers: str = f"[{{{_SERVER}}}]", hosts: str = "['*']") -> Translation:
    gateway = text_of("Gateway", f"selector: {{istio: ingressgateway}}\nservers: {servers}", name="gw")
    service = text_of("VirtualService", f"hosts: {hosts}\ngateways: [gw]\nhttp: {http}", name="shop")
    return translate(f"{gateway}---\n{service}", "x.yaml")


_CART = "route: [{destination: {host: cart}}]"

# What stands below `http:`, the routes of the ingress, the paths of the VirtualService that are lost.
ROUTES: list[tuple[str, str, list[dict[str, Any]], list[str]]] = [
    (
        "a path",
        f"[{{match: [{{uri: {{exact: /cart}}}}], {_CART}}}]",
        [{"path": "/cart", "service": "cart"}],
        [],
    ),
    (
        "all below one",
        f"[{{match: [{{uri: {{prefix: /cart}}}}], {_CART}}}]",
        [{"path": "/cart", "service": "cart"}, {"path": "/cart/*", "service": "cart"}],
        [],
    ),
    (
        "all below one with a stroke",
        f"[{{match: [{{uri: {{prefix: /cart/}}}}], {_CART}}}]",
        [{"path": "/cart/*", "service": "cart"}],
        [],
    ),
    ("everything", f"[{{{_CART}}}]", [{"path": "/*", "service": "cart"}], []),
    (
        "methods, headers, a query and a timeout",
        "[{match: [{uri: {exact: /cart}, method: {regex: 'GET|HEAD'}, headers: {x-a: {exact: b}}, "
        f"queryParams: {{q: {{prefix: c}}}}}}], timeout: 3s, {_CART}}}]",
        [
            {
                "path": "/cart",
                "methods": ["GET", "HEAD"],
                "headers": {"x-a": "b"},
                "query": {"q": {"prefix": "c"}},
                "service": "cart",
                "timeout": "3s",
            }
        ],
        [],
    ),
    (
        "an expression for paths",
        f"[{{match: [{{uri: {{regex: '/c.*t'}}}}], {_CART}}}, {{{_CART}}}]",
        [{"path": "/*", "service": "cart"}],
        ["spec.http[0].match[0].uri"],
    ),
    (
        "a path that names no endpoint",
        f"[{{match: [{{uri: {{exact: /index.html}}}}], {_CART}}}, {{{_CART}}}]",
        [{"path": "/*", "service": "cart"}],
        ["spec.http[0].match[0].uri"],
    ),
    (
        "subsets and weights are the calls' own affair",
        "[{route: [{destination: {host: cart, subset: v1}, weight: 90}, {destination: {host: cart, "
        "subset: v2}, weight: 10}]}]",
        [{"path": "/*", "service": "cart"}],
        [
            "spec.http[0].route[0].destination.subset",
            "spec.http[0].route[0].weight",
            "spec.http[0].route[1].destination.subset",
            "spec.http[0].route[1].weight",
        ],
    ),
    (
        "two services",
        f"[{{route: [{{destination: {{host: a}}, weight: 1}}, {{destination: {{host: b}}, weight: 1}}]}}, {{{_CART}}}]",
        [{"path": "/*", "service": "cart"}],
        ["spec.http[0].route", "spec.http[0].route[0].weight", "spec.http[0].route[1].weight"],
    ),
    (
        "a redirect",
        f"[{{match: [{{uri: {{exact: /old}}}}], redirect: {{uri: /new}}}}, {{{_CART}}}]",
        [{"path": "/*", "service": "cart"}],
        ["spec.http[0].redirect"],
    ),
    (
        "what is never reached",
        f"[{{{_CART}}}, {{match: [{{uri: {{exact: /x}}}}], route: [{{destination: {{host: b}}}}]}}]",
        [{"path": "/*", "service": "cart"}],
        ["spec.servers[0]"],
    ),
]


@pytest.mark.parametrize(
    ("http", "routes", "gone"), [row[1:] for row in ROUTES], ids=[row[0] for row in ROUTES]
)
def test_routes(http: str, routes: list[dict[str, Any]], gone: list[str]) -> None:
    """Requests become calls of one service; what is lost of the VirtualService is named by its path."""
    found = _bound(http)
    assert documents(found) == [
        {
            "kind": "Gateway",
            "spec": {"gateways": ["ingressgateway"], "ingress": {"port": 80, "routes": routes}},
        }
    ]
    assert sorted(lost(found)) == gone
    round_trip(found)


_KEYS = "serverCertificate: /tls/a.pem, privateKey: /tls/a.key"


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (f"{_SERVER}, name: a", {"port": 80}),
        ("port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*']", None),
        (
            "port: {number: 443, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: secret}",
            None,
        ),
        ("port: {number: 443, protocol: HTTPS}, hosts: ['*'], tls: {mode: PASSTHROUGH}", None),
        ("port: {number: 31400, protocol: TCP}, hosts: ['*']", None),
        (
            f"port: {{number: 443, protocol: HTTPS}}, hosts: ['*'], tls: {{mode: SIMPLE, {_KEYS}, "
            f"minProtocolVersion: TLSV1_3}}",
            {"port": 443, "tls": {"certificate": "/tls/a.pem", "key": "/tls/a.key", "minVersion": "1.3"}},
        ),
        (
            f"port: {{number: 443, protocol: HTTPS}}, hosts: ['*'], tls: {{mode: MUTUAL, {_KEYS}, "
            f"caCertificates: /tls/ca.pem}}",
            {
                "port": 443,
                "tls": {"certificate": "/tls/a.pem", "key": "/tls/a.key", "clientCa": "/tls/ca.pem"},
            },
        ),
        (f"port: {{number: 443, protocol: HTTPS}}, hosts: ['*'], tls: {{mode: MUTUAL, {_KEYS}}}", None),
    ],
)
def test_servers(server: str, expected: dict[str, Any] | None) -> None:
    """A server listens as Istio's does, or not at all: never in the clear where it was to be encrypted."""
    found = _bound(f"[{{{_CART}}}]", servers=f"[{{{server}}}]")
    routes = [{"path": "/*", "service": "cart"}]
    if expected is None:
        assert documents(found) == []
        assert any(each.severity == "serious" for each in found.untranslated)
    else:
        assert documents(found)[0]["spec"]["ingress"] == {**expected, "routes": routes}
    round_trip(found)


def test_hosts_of_servers_and_services() -> None:
    """A VirtualService is taken by the servers that have its hosts, at the narrower of the two; namespaces before hosts
    are Kubernetes' own; a redirect to https needs no routes."""
    servers = (
        "[{port: {number: 80, protocol: HTTP}, hosts: ['*/*.example.com'], tls: {httpsRedirect: true}}, "
        "{port: {number: 8080, protocol: HTTP}, hosts: ['./*.example.com', other.test]}]"
    )
    found = _bound(f"[{{{_CART}}}]", servers=servers, hosts="[shop.example.com, '*']")
    assert documents(found)[0]["spec"]["ingress"] == [
        {"hosts": ["*.example.com"], "port": 80, "httpsRedirect": True},
        {
            "hosts": ["shop.example.com", "*.example.com", "other.test"],
            "port": 8080,
            "routes": [{"path": "/*", "service": "cart"}],
        },
    ]


def test_two_virtual_services_of_one_host() -> None:
    """Their routes stand together, as Istio merges them."""
    gateway = text_of("Gateway", f"servers: [{{{_SERVER}}}]", name="gw")
    services = [
        text_of(
            "VirtualService",
            f"hosts: ['*']\ngateways: [gw]\nhttp: [{{match: [{{uri: {{exact: /{name}}}}}], "
            f"route: [{{destination: {{host: {name}}}}}]}}]",
            name=name,
        )
        for name in ("a", "b")
    ]
    found = translate("---\n".join([gateway, *services]), "x.yaml")
    assert documents(found)[0]["spec"]["ingress"]["routes"] == [
        {"path": "/a", "service": "a"},
        {"path": "/b", "service": "b"},
    ]


def test_a_gateway_that_is_not_here() -> None:
    """Its port and TLS are unknown, which is said; what its requests become is not lost."""
    found = of("VirtualService", f"hosts: [shop.example.com]\ngateways: [infra/public]\nhttp: [{{{_CART}}}]")
    assert documents(found) == [
        {
            "kind": "Gateway",
            "spec": {
                "ingress": {"hosts": ["shop.example.com"], "routes": [{"path": "/*", "service": "cart"}]}
            },
        }
    ]
    assert [each.path for each in found.serious] == ["spec.gateways"]


def test_a_gateway_without_virtual_services() -> None:
    """It takes no request, and is left out."""
    found = of("Gateway", f"selector: {{istio: ingressgateway}}\nservers: [{{{_SERVER}}}]")
    assert (documents(found), lost(found)) == ([], ["spec.servers[0]"])


ENTRIES: list[tuple[str, dict[str, Any] | None, list[str]]] = [
    (
        "hosts: [api.example.com]\nlocation: MESH_EXTERNAL\nresolution: DNS\nports: [{number: 443, "
        "name: https, protocol: TLS}]",
        {"service": "x", "hosts": ["api.example.com"], "port": 443, "scheme": "https"},
        ["spec.resolution"],
    ),
    (
        "hosts: [a.test, '*.b.test']\nports: [{number: 80, protocol: HTTP}, {number: 443, protocol: HTTPS}]",
        {"service": "x", "hosts": ["a.test", "*.b.test"], "port": 443, "scheme": "https"},
        ["spec.ports[0]"],
    ),
    (
        "hosts: [mongo.test]\nports: [{number: 27017, protocol: MONGO}]",
        None,
        ["spec.hosts[0]", "spec.ports[0]"],
    ),
    (
        "hosts: [vm.internal]\nlocation: MESH_INTERNAL\nresolution: STATIC\nports: [{number: 80, protocol: HTTP}]\n"
        "endpoints: [{address: 10.0.0.1, labels: {app: vm}}]",
        None,
        ["spec", "spec.endpoints", "spec.resolution"],
    ),
    (
        "hosts: [reviews.default.svc.cluster.local]\nports: [{number: 80, protocol: HTTP}]",
        None,
        ["spec.hosts[0]"],
    ),
]


@pytest.mark.parametrize(("spec", "egress", "gone"), ENTRIES)
def test_servers_outside(spec: str, egress: dict[str, Any] | None, gone: list[str]) -> None:
    """A server that HTTP is spoken with is called as a service, by way of a gateway; every other one is named."""
    found = of("ServiceEntry", spec)
    assert documents(found) == ([] if egress is None else [{"kind": "Gateway", "spec": {"egress": egress}}])
    assert sorted(lost(found)) == gone
    round_trip(found)


def test_rules_for_a_server_outside() -> None:
    """A VirtualService for the host of a ServiceEntry in the same files is about the service that stands for it."""
    entry = text_of(
        "ServiceEntry", "hosts: [httpbin.org]\nports: [{number: 80, protocol: HTTP}]", name="httpbin-ext"
    )
    rule = text_of(
        "VirtualService",
        "hosts: [httpbin.org]\nhttp: [{timeout: 3s, route: [{destination: {host: httpbin.org}}]}]",
    )
    found = translate(f"{rule}---\n{entry}", "x.yaml")
    assert documents(found)[1]["spec"] == {
        "target": {"service": "httpbin-ext"},
        "rules": [{"split": [{"service": "httpbin-ext"}], "timeout": "3s"}],
    }


TELEMETRY: list[tuple[str, dict[str, Any] | None, list[str]]] = [
    ("tracing: [{randomSamplingPercentage: 10}]", {"tracing": {"sampling": "10%"}}, []),
    ("tracing: [{disableSpanReporting: true}]", {"tracing": {"sampling": "0%"}}, []),
    (
        "tracing: [{providers: [{name: zipkin}], randomSamplingPercentage: 0.5, "
        "customTags: {env: {literal: {value: prod}}, user: {header: {name: x-user}}, ':p': {literal: {value: a}}}}]",
        {"tracing": {"sampling": "0.5%"}, "labels": {"env": "prod"}},
        ["spec.tracing[0].customTags.':p'", "spec.tracing[0].customTags.user", "spec.tracing[0].providers"],
    ),
    (
        "accessLogging: [{providers: [{name: envoy}]}]",
        {"accessLog": {"mode": "on"}},
        ["spec.accessLogging[0].providers"],
    ),
    ("accessLogging: [{disabled: true}]", {"accessLog": {"mode": "off"}}, []),
    (
        "accessLogging: [{filter: {expression: 'response.code >= 400'}}]",
        {"accessLog": {"mode": "errors"}},
        [],
    ),
    (
        "accessLogging: [{filter: {expression: 'request.duration > 10'}}]",
        {"accessLog": {"mode": "on"}},
        ["spec.accessLogging[0].filter.expression"],
    ),
    ("accessLogging: [{match: {mode: CLIENT}}]", None, ["spec.accessLogging[0]"]),
    (
        "metrics: [{providers: [{name: prometheus}], overrides: [{match: {metric: REQUEST_COUNT}, "
        "tagOverrides: {a: {operation: REMOVE}}}]}]",
        None,
        ["spec.metrics"],
    ),
]


@pytest.mark.parametrize(("spec", "expected", "gone"), TELEMETRY)
def test_telemetry(spec: str, expected: dict[str, Any] | None, gone: list[str]) -> None:
    """Sampling, words that go along, and the access log have a meaning; where things go and which metrics there are,
    none."""
    found = of("Telemetry", f"selector: {{matchLabels: {{app: a}}}}\n{spec}")
    made = (
        [] if expected is None else [{"kind": "Telemetry", "spec": {"target": {"service": "a"}, **expected}}]
    )
    assert documents(found) == made
    assert sorted(lost(found)) == gone
    round_trip(found)


def test_telemetry_of_the_whole_mesh() -> None:
    """In istio-system it holds where it is applied, and says so."""
    found = of("Telemetry", "tracing: [{randomSamplingPercentage: 1}]", extra="namespace: istio-system")
    assert found.converted[0].value["metadata"] == {"name": "x"}
    assert "metadata.namespace" in notes(found)


@pytest.mark.parametrize(
    ("outer", "inner", "paths"),
    [
        ("{uri: {prefix: /shop/}}", "", ["/shop/*"]),
        ("{uri: {prefix: /shop/}}", "match: [{uri: {exact: /shop/cart}}], ", ["/shop/cart"]),
        ("{uri: {prefix: /shop/}}", "match: [{uri: {exact: /other}}], ", []),
        ("{}", "match: [{uri: {exact: /other}}], ", ["/other"]),
        ("{headers: {a: {exact: x}}}", "match: [{headers: {b: {exact: y}}}], ", []),
    ],
)
def test_delegates_at_a_gateway(outer: str, inner: str, paths: list[str]) -> None:
    """What is handed on is taken under the conditions of both; where they cannot stand together it is left out."""
    gateway = text_of("Gateway", f"servers: [{{{_SERVER}}}]", name="gw")
    root = text_of(
        "VirtualService",
        f"hosts: ['*']\ngateways: [gw]\nhttp: [{{match: [{outer}], delegate: {{name: cart}}}}]",
        name="root",
    )
    delegate = text_of("VirtualService", f"http: [{{{inner}{_CART}}}]", name="cart")
    found = translate("---\n".join([gateway, root, delegate]), "x.yaml")
    routes = [route for each in documents(found) for route in each["spec"]["ingress"]["routes"]]
    assert [route["path"] for route in routes] == paths
    assert bool(found.serious) is not bool(paths)

"""DestinationRules as people have them: subsets, balancers, ejection, limits; with Istio's defaults where ours
differ."""

from __future__ import annotations

from typing import Any

import pytest

from nats_mesh.errors import PolicyError
from nats_mesh.policy import PolicySet
from nats_mesh.policy.istio import translate
from tests.istio import documents, lost, notes, of, round_trip, text_of

_EJECTION = {
    "consecutive": 5,
    "successRatio": "0%",
    "base": "30s",
    "maxRatio": "10%",
    "panicRatio": "0%",
}

# What stands in `trafficPolicy`, what the Destination says, the paths in it that are lost.
POLICIES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("{loadBalancer: {simple: ROUND_ROBIN}}", {"balancer": "round_robin"}, []),
    ("{loadBalancer: {simple: LEAST_REQUEST}}", {"balancer": "least_request"}, []),
    ("{loadBalancer: {simple: LEAST_CONN}}", {"balancer": "least_request"}, []),
    ("{loadBalancer: {simple: RANDOM}}", {"balancer": "random"}, []),
    ("{loadBalancer: {simple: PASSTHROUGH}}", {"balancer": "queue"}, []),
    ("{loadBalancer: {simple: UNSPECIFIED}}", {"balancer": "least_request"}, []),
    (
        "{loadBalancer: {consistentHash: {httpHeaderName: X-User, ringHash: {minimumRingSize: 1024}}}}",
        {"balancer": {"name": "consistent_hash", "header": "x-user"}},
        ["loadBalancer.consistentHash.ringHash"],
    ),
    ("{loadBalancer: {consistentHash: {useSourceIp: true}}}", {"balancer": "consistent_hash"}, []),
    (
        "{loadBalancer: {consistentHash: {httpCookie: {name: user, ttl: 0s}}}}",
        {},
        ["loadBalancer.consistentHash.httpCookie"],
    ),
    (
        "{loadBalancer: {consistentHash: {httpQueryParameterName: q, maglev: {}}}}",
        {},
        ["loadBalancer.consistentHash.httpQueryParameterName", "loadBalancer.consistentHash.maglev"],
    ),
    (
        "{loadBalancer: {simple: ROUND_ROBIN, warmupDurationSecs: 60s}}",
        {"balancer": {"name": "round_robin", "slowStart": "1m"}},
        [],
    ),
    (
        "{loadBalancer: {simple: LEAST_REQUEST, warmup: {duration: 30s, minimumPercent: 10, aggression: 1.0}}}",
        {"balancer": {"name": "least_request", "slowStart": "30s"}},
        ["loadBalancer.warmup.aggression", "loadBalancer.warmup.minimumPercent"],
    ),
    (
        "{loadBalancer: {localityLbSetting: {enabled: true, failover: [{from: eu, to: us}]}}}",
        {"balancer": {"name": "least_request", "locality": True}},
        ["loadBalancer.localityLbSetting.failover"],
    ),
    (
        "{loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {distribute: [{from: 'a/*', "
        "to: {'a/*': 80, 'b/*': 20}}]}}}",
        {"balancer": "round_robin"},
        ["loadBalancer.localityLbSetting.distribute"],
    ),
    (
        "{loadBalancer: {localityLbSetting: {enabled: false}}}",
        {"balancer": "least_request"},
        [],
    ),
    ("{outlierDetection: {}}", {"balancer": "least_request", "ejection": _EJECTION}, []),
    (
        "{loadBalancer: {simple: RANDOM}, outlierDetection: {consecutive5xxErrors: 1, interval: 1s, "
        "baseEjectionTime: 3m, "
        "maxEjectionPercent: 100, minHealthPercent: 40}}",
        {
            "balancer": "random",
            "ejection": {
                "consecutive": 1,
                "successRatio": "0%",
                "base": "3m",
                "maxRatio": "100%",
                "panicRatio": "40%",
            },
        },
        ["outlierDetection.interval"],
    ),
    (
        "{outlierDetection: {consecutiveGatewayErrors: 3, consecutive5xxErrors: 0}}",
        {"balancer": "least_request", "ejection": {**_EJECTION, "consecutive": 3}},
        [],
    ),
    (
        "{outlierDetection: {consecutiveErrors: 7, baseEjectionTime: 10m}}",
        {"balancer": "least_request", "ejection": {**_EJECTION, "consecutive": 7, "base": "10m", "max": "10m"}},
        [],
    ),
    (
        "{outlierDetection: {splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 4}}",
        {"balancer": "least_request", "ejection": {**_EJECTION, "silent": 4}},
        [],
    ),
    ("{outlierDetection: {consecutive5xxErrors: 0}}", {}, ["outlierDetection"]),
    (
        "{loadBalancer: {simple: PASSTHROUGH}, outlierDetection: {consecutive5xxErrors: 5}}",
        {"balancer": "queue"},
        ["outlierDetection"],
    ),
    ("{retryBudget: {percent: 20, minRetryConcurrency: 3}}", {"retry": {"budget": {"ratio": "20%"}}},
     ["retryBudget.minRetryConcurrency"]),
    ("{tls: {mode: ISTIO_MUTUAL}}", {}, []),
    ("{tls: {mode: SIMPLE, sni: a, caCertificates: /a}}", {}, ["tls.caCertificates", "tls.mode", "tls.sni"]),
    ("{tls: {mode: DISABLE}}", {}, ["tls.mode"]),
    (
        "{portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}], "
        "tunnel: {targetHost: a, targetPort: 1}, "
        "proxyProtocol: {version: V1}}",
        {},
        ["portLevelSettings", "proxyProtocol", "tunnel"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("traffic", "expected", "gone"), POLICIES, ids=[row[0][:60] for row in POLICIES])
def test_traffic_policies(traffic: str, expected: dict[str, Any], gone: list[str]) -> None:
    """Each comes to what its row says, what is lost is named by its path, and a mesh takes the result."""
    found = of("DestinationRule", f"host: reviews\ntrafficPolicy: {traffic}")
    if not expected:
        assert documents(found) == []
    else:
        assert documents(found) == [
            {"kind": "Destination", "spec": {"target": {"service": "reviews"}, **expected}}
        ]
    assert sorted(path.removeprefix("spec.trafficPolicy.") for path in lost(found)) == gone
    PolicySet.of(found.policies)
    round_trip(found)


def test_what_the_bus_does_is_said() -> None:
    """ISTIO_MUTUAL is no loss: the bus carries identity."""
    found = of("DestinationRule", "host: reviews\ntrafficPolicy: {tls: {mode: ISTIO_MUTUAL}}")
    assert [each.reason for each in found.notes if each.path.endswith("tls.mode")] == [
        "the bus carries identity: the server vouches for who calls, and encrypts where it has TLS"
    ]


@pytest.mark.parametrize(
    ("pool", "limit", "gone"),
    [
        ("{http: {http2MaxRequests: 1000, maxRetries: 3}}", 1000, ["http.maxRetries"]),
        (
            "{tcp: {maxConnections: 1, connectTimeout: 30ms}, http: {http1MaxPendingRequests: 1, "
            "maxRequestsPerConnection: 1}}",
            1,
            ["http.http1MaxPendingRequests", "http.maxRequestsPerConnection", "tcp.connectTimeout"],
        ),
        ("{tcp: {maxConnections: 100}, http: {http2MaxRequests: 50}}", 50, []),
        ("{tcp: {tcpKeepalive: {time: 7200s, interval: 75s}}}", None, ["tcp.tcpKeepalive"]),
        ("{tcp: {maxConnections: 0}}", None, []),
    ],
)
def test_connection_pools(pool: str, limit: int | None, gone: list[str]) -> None:
    """How much may be under way at a time is a Limit beside the Destination; nothing queues, and connections are
    none."""
    found = of("DestinationRule", f"host: reviews\ntrafficPolicy: {{connectionPool: {pool}}}")
    assert documents(found) == (
        []
        if limit is None
        else [{"kind": "Limit", "spec": {"target": {"service": "reviews"}, "concurrency": {"limit": limit}}}]
    )
    assert sorted(path.removeprefix("spec.trafficPolicy.connectionPool.") for path in lost(found)) == gone
    PolicySet.of(found.policies)


SUBSETS = """
host: reviews.default.svc.cluster.local
trafficPolicy:
  loadBalancer: {simple: LEAST_REQUEST, warmupDurationSecs: 10s}
  outlierDetection: {consecutive5xxErrors: 2}
subsets:
- name: v1
  labels: {version: v1}
- name: v2
  labels: {version: v2, track: canary}
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    outlierDetection: {maxEjectionPercent: 50}
    connectionPool: {http: {http2MaxRequests: 5}}
"""


def test_subsets_and_their_own_policies() -> None:
    """A label stays a label. What a subset says replaces what the service says block by block, as Istio has it, though
    ours are laid over each other field by field."""
    found = of("DestinationRule", SUBSETS)
    service, subset = documents(found)
    assert service["spec"]["subsets"] == {
        "v1": {"labels": {"version": "v1"}},
        "v2": {"labels": {"version": "v2", "track": "canary"}},
    }
    assert subset["spec"]["target"] == {"service": "reviews", "subset": "v2"}
    assert lost(found) == ["spec.subsets[1].trafficPolicy.connectionPool"]
    rules = PolicySet.of(found.policies).outbound("reviews", "get", "web", subset="v2")
    assert (rules.balancer.name, rules.balancer.slow_start_s) == ("round_robin", 0.0)
    assert (rules.ejection.consecutive, rules.ejection.max_ratio) == (5, 0.5)
    general = PolicySet.of(found.policies).outbound("reviews", "get", "web", subset="v1")
    assert (general.balancer.name, general.balancer.slow_start_s, general.ejection.consecutive) == (
        "least_request",
        10.0,
        2,
    )


@pytest.mark.parametrize(
    ("host", "target", "namespace"),
    [
        ("reviews", "reviews", None),
        ("reviews.prod.svc.cluster.local", "reviews", "prod"),
        ("'*.prod.svc.cluster.local'", None, "prod"),
        ("'*.local'", None, None),
        ("'*'", None, None),
    ],
)
def test_hosts(host: str, target: str | None, namespace: str | None) -> None:
    """A host is a service, or with a wildcard a whole namespace; one of every namespace says that it must be applied in
    each."""
    found = of("DestinationRule", f"host: {host}\ntrafficPolicy: {{loadBalancer: {{simple: RANDOM}}}}")
    value = found.converted[0].value
    assert value["spec"].get("target", {}).get("service") == target
    assert value["metadata"].get("namespace") == namespace
    assert ("spec.host" in notes(found)) is ((target is None and namespace is None) or namespace is not None)


def test_what_is_for_some_callers_alone_is_not_for_all() -> None:
    """A rule with a workload selector keeps its subsets, which define and do nothing, and loses what it says of
    traffic."""
    found = of(
        "DestinationRule",
        "host: reviews\nworkloadSelector: {matchLabels: {app: web}}\ntrafficPolicy: {loadBalancer: {simple: RANDOM}}\n"
        "subsets: [{name: v1, labels: {version: v1}}]",
    )
    assert documents(found) == [
        {
            "kind": "Destination",
            "spec": {"target": {"service": "reviews"}, "subsets": {"v1": {"labels": {"version": "v1"}}}},
        }
    ]
    assert {each.severity for each in found.untranslated} == {"serious"}


def test_subsets_that_select_nothing_in_particular() -> None:
    """A subset without labels, or of a wildcard host, is left out and named."""
    assert lost(of("DestinationRule", "host: a\nsubsets: [{name: every}]")) == ["spec.subsets[0]"]
    assert "spec.subsets[0]" in lost(
        of("DestinationRule", "host: '*.local'\nsubsets: [{name: v, labels: {a: b}}]")
    )


def test_a_host_outside() -> None:
    """A server outside is no service, unless a ServiceEntry in the same files makes it one."""
    rule = text_of(
        "DestinationRule", "host: api.example.com\ntrafficPolicy: {loadBalancer: {simple: RANDOM}}"
    )
    alone = translate(rule, "x.yaml")
    assert (documents(alone), lost(alone)) == ([], ["spec.host"])
    entry = text_of(
        "ServiceEntry",
        "hosts: [api.example.com]\nports: [{number: 443, name: https, protocol: HTTPS}]",
        name="api",
    )
    found = translate(f"{entry}---\n{rule}", "x.yaml")
    assert [each["spec"].get("target") for each in documents(found)] == [None, {"service": "api"}]


@pytest.mark.parametrize(
    ("spec", "line", "said"),
    [
        ("subsets: []", 4, "spec.host: is missing, and Istio needs it"),
        ("host: a\ntrafficPolicy: {loadBalancer: {simple: ROUND_ROBBIN}}", 6, "did you mean ROUND_ROBIN?"),
        ("host: a\ntrafficpolicy: {}", 6, "did you mean trafficPolicy?"),
        ("host: a\nsubsets: [{name: v1, labels: {a: b}}, {name: v1, labels: {a: c}}]", 6, "the name of two subsets"),
        ("host: a\nsubsets: [{name: all, labels: {a: b}}]", 6, "is reserved by the mesh"),
        ("host: a\ntrafficPolicy: {outlierDetection: {maxEjectionPercent: 101}}", 6, "a whole number from 0 to 100"),
        ("host: a\ntrafficPolicy: {outlierDetection: {baseEjectionTime: 30}}", 6, "a duration with its unit"),
        ("host: a\ntrafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}", 6,
         "only one of"),
    ],
)  # fmt: skip
def test_mistakes(spec: str, line: int, said: str) -> None:
    """A mistake is an error at its line, with the nearest word where one is near."""
    with pytest.raises(PolicyError) as caught:
        of("DestinationRule", spec)
    assert said in str(caught.value)
    assert caught.value.line == line

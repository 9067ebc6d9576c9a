"""The fields of Istio's DestinationRule (networking.istio.io: v1alpha3, v1beta1 and v1 have the same)."""

from __future__ import annotations

from typing import Final

from nats_mesh.policy.istio.api_common import LOCALITY, NO_PORTS, PORT_SELECTOR, SELECTOR
from nats_mesh.policy.istio.shapes import (
    DURATION,
    FLAG,
    NUMBER,
    TEXT,
    WHOLE,
    enum,
    lost,
    many,
    message,
    named,
    whole,
)  # fmt: skip

__all__ = ["DESTINATION_RULE"]

_ONE_CONNECTION: Final = "a process has one connection to the bus for all its calls"
_NO_RING: Final = "the ring needs no size: it is weighted and bounded instead"
_OWN_TLS: Final = "the connection to the bus has its TLS and credentials from the settings of the process"

_CONSISTENT_HASH = message(
    "ConsistentHashLB",
    {
        "httpHeaderName": TEXT,
        "httpCookie": message("HTTPCookie", {
            "name": TEXT, "path": TEXT, "ttl": DURATION,
            "attributes": many(message("Attribute", {"name": TEXT, "value": TEXT})),
        }),
        "useSourceIp": FLAG,
        "httpQueryParameterName": TEXT,
        "ringHash": lost(message("RingHash", {"minimumRingSize": WHOLE}, empty=True), _NO_RING),
        "maglev": lost(message("MagLev", {"tableSize": WHOLE}, empty=True), _NO_RING),
        "minimumRingSize": lost(WHOLE, _NO_RING),
    },
    one_of=(("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"), ("ringHash", "maglev")),
)  # fmt: skip
_LOAD_BALANCER = message(
    "LoadBalancerSettings",
    {
        "simple": enum("UNSPECIFIED", "ROUND_ROBIN", "LEAST_REQUEST", "LEAST_CONN", "RANDOM", "PASSTHROUGH"),
        "consistentHash": _CONSISTENT_HASH,
        "localityLbSetting": LOCALITY,
        "warmupDurationSecs": DURATION,
        "warmup": message("WarmupConfiguration", {
            "duration": DURATION,
            "minimumPercent": lost(NUMBER, "a new instance begins with a small share of its own"),
            "aggression": lost(NUMBER, "its share grows evenly"),
        }, required=("duration",)),
    },
    one_of=(("simple", "consistentHash"), ("warmupDurationSecs", "warmup")),
)  # fmt: skip
_TCP = message(
    "TCPSettings",
    {
        "maxConnections": whole(0, 2**31 - 1),
        "connectTimeout": lost(DURATION, _ONE_CONNECTION),
        "tcpKeepalive": lost(
            message("TcpKeepalive", {"probes": WHOLE, "time": DURATION, "interval": DURATION}),
            _ONE_CONNECTION,
        ),
        "maxConnectionDuration": lost(DURATION, _ONE_CONNECTION),
        "idleTimeout": lost(DURATION, _ONE_CONNECTION),
    },
)
_HTTP = message(
    "HTTPSettings",
    {
        "http1MaxPendingRequests": lost(
            whole(0, 2**31 - 1),
            "nothing queues: a call that finds no room is refused at once, and tried elsewhere",
        ),
        "http2MaxRequests": whole(0, 2**31 - 1),
        "maxRequestsPerConnection": lost(whole(0, 2**31 - 1), _ONE_CONNECTION),
        "maxRetries": lost(
            whole(0, 2**31 - 1), "retries are bounded as a share of the calls: `retry.budget`"
        ),
        "idleTimeout": lost(DURATION, _ONE_CONNECTION),
        "h2UpgradePolicy": lost(enum("DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"), "there is no HTTP underneath"),
        "useClientProtocol": lost(FLAG, "there is no HTTP underneath"),
        "maxConcurrentStreams": lost(whole(0, 2**31 - 1), _ONE_CONNECTION),
    },
)
_POOL = message("ConnectionPoolSettings", {"tcp": _TCP, "http": _HTTP})
_OUTLIERS = message(
    "OutlierDetection",
    {
        "consecutiveErrors": whole(0, 2**31 - 1),
        "splitExternalLocalOriginErrors": FLAG,
        "consecutiveLocalOriginFailures": WHOLE,
        "consecutiveGatewayErrors": WHOLE,
        "consecutive5xxErrors": WHOLE,
        "interval": lost(DURATION, "there are no sweeps: instances are judged with every answer"),
        "baseEjectionTime": DURATION,
        "maxEjectionPercent": whole(0, 100),
        "minHealthPercent": whole(0, 100),
    },
)
_TLS = message(
    "ClientTLSSettings",
    {
        "mode": enum("DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"),
        **{
            name: lost(TEXT, _OWN_TLS)
            for name in (
                "clientCertificate",
                "privateKey",
                "caCertificates",
                "credentialName",
                "sni",
                "caCrl",
            )
        },
        "subjectAltNames": lost(many(TEXT).shape, _OWN_TLS),
        "insecureSkipVerify": lost(FLAG, _OWN_TLS),
    },
)
_SETTINGS = {
    "loadBalancer": _LOAD_BALANCER,
    "connectionPool": _POOL,
    "outlierDetection": _OUTLIERS,
    "tls": _TLS,
}
_PORT_SETTINGS = message("PortTrafficPolicy", {"port": PORT_SELECTOR, **_SETTINGS})
_TRAFFIC = message(
    "TrafficPolicy",
    {
        **_SETTINGS,
        "portLevelSettings": lost(many(_PORT_SETTINGS).shape, NO_PORTS),
        "tunnel": lost(
            message("TunnelSettings", {"protocol": TEXT, "targetHost": TEXT, "targetPort": WHOLE}),
            "there are no connections to tunnel",
        ),
        "proxyProtocol": lost(
            message("ProxyProtocol", {"version": enum("V1", "V2")}, empty=True), "there are no proxies"
        ),
        "retryBudget": message(
            "RetryBudget",
            {
                "percent": NUMBER,
                "minRetryConcurrency": lost(
                    WHOLE, "the floor of a budget is a rate here: `retry.budget.floor`"
                ),
            },
        ),
    },
)

DESTINATION_RULE = message(
    "DestinationRule",
    {
        "host": TEXT,
        "trafficPolicy": _TRAFFIC,
        "subsets": many(
            message(
                "Subset", {"name": TEXT, "labels": named(TEXT), "trafficPolicy": _TRAFFIC}, required=("name",)
            )
        ),
        "exportTo": lost(many(TEXT).shape, "a policy holds in its own namespace alone"),
        "workloadSelector": SELECTOR,
    },
    required=("host",),
)

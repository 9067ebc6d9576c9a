"""The fields of Istio's VirtualService (networking.istio.io: v1alpha3, v1beta1 and v1 have the same)."""

from __future__ import annotations

from typing import Final

from nats_mesh.policy.istio.api_common import NO_PORTS, PERCENT, PORT_SELECTOR, STRING_MATCH
from nats_mesh.policy.istio.shapes import (
    DURATION,
    FLAG,
    TEXT,
    WHOLE,
    Field,
    Shape,
    enum,
    lost,
    many,
    message,
    named,
    whole,
)  # fmt: skip

__all__ = ["VIRTUAL_SERVICE"]

_NO_HEADERS: Final = "callers and services set the headers of their calls and answers themselves"
_NO_TCP: Final = "calls are messages on the bus: there are no connections to route"
_NO_NAME: Final = "rules have no names here: they are told apart by their place"
_NO_PATHS: Final = "calls name an endpoint: there is no path or authority to rewrite"

_DESTINATION = message(
    "Destination", {"host": TEXT, "subset": TEXT, "port": lost(PORT_SELECTOR, NO_PORTS)}, required=("host",)
)
_OPERATIONS = message(
    "HeaderOperations", {"set": named(TEXT), "add": named(TEXT), "remove": many(TEXT)}, empty=True
)
_HEADERS = message("Headers", {"request": _OPERATIONS, "response": _OPERATIONS})

_HTTP_MATCH = message(
    "HTTPMatchRequest",
    {
        "name": lost(TEXT, _NO_NAME),
        "uri": STRING_MATCH,
        "scheme": STRING_MATCH,
        "method": STRING_MATCH,
        "authority": STRING_MATCH,
        "headers": named(STRING_MATCH),
        "port": whole(1, 65_535),
        "sourceLabels": named(TEXT),
        "gateways": many(TEXT),
        "queryParams": named(STRING_MATCH),
        "ignoreUriCase": FLAG,
        "withoutHeaders": named(STRING_MATCH),
        "sourceNamespace": TEXT,
        "statPrefix": lost(TEXT, "statistics are per service and endpoint"),
    },
)
_HTTP_DESTINATION = message(
    "HTTPRouteDestination",
    {"destination": _DESTINATION, "weight": whole(0, 2**31 - 1), "headers": lost(_HEADERS, _NO_HEADERS)},
    required=("destination",),
)
_REDIRECT = message(
    "HTTPRedirect",
    {
        "uri": TEXT,
        "authority": TEXT,
        "port": lost(WHOLE, NO_PORTS),
        "derivePort": lost(enum("FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"), NO_PORTS),
        "scheme": lost(TEXT, "calls have no scheme"),
        "redirectCode": lost(WHOLE, "the caller is not told: its call goes there at once"),
    },
    one_of=(("port", "derivePort"),),
)
_DIRECT = message(
    "HTTPDirectResponse",
    {
        "status": whole(100, 599),
        "body": lost(message("HTTPBody", {"string": TEXT, "bytes": TEXT}, one_of=(("string", "bytes"),)),
                     "an error that is made up here has a text of the mesh's own"),
    },
    required=("status",),
)  # fmt: skip
_REWRITE = message(
    "HTTPRewrite",
    {
        "uri": TEXT,
        "authority": TEXT,
        "uriRegexRewrite": message("RegexRewrite", {"match": TEXT, "rewrite": TEXT}),
    },
    one_of=(("uri", "uriRegexRewrite"),),
)
_RETRY = message(
    "HTTPRetry",
    {
        "attempts": whole(0, 2**31 - 1),
        "perTryTimeout": DURATION,
        "retryOn": TEXT,
        "backoff": DURATION,
        "retryRemoteLocalities": lost(
            FLAG, "`balancer.locality` decides about zones, for every attempt alike"
        ),
        "retryIgnorePreviousHosts": FLAG,
    },
)
_DELAY = message(
    "Delay",
    {
        "percent": whole(0, 100),
        "percentage": PERCENT,
        "fixedDelay": DURATION,
        "exponentialDelay": lost(DURATION, "a delay is always of the same length"),
    },
    one_of=(("fixedDelay", "exponentialDelay"),),
)
_ABORT = message(
    "Abort",
    {
        "percent": whole(0, 100),
        "percentage": PERCENT,
        "httpStatus": whole(200, 600),
        "grpcStatus": TEXT,
        "http2Error": lost(TEXT, "there is no HTTP/2 underneath"),
    },
    one_of=(("httpStatus", "grpcStatus", "http2Error"),),
)
_CORS = message(
    "CorsPolicy",
    {
        "allowOrigin": many(TEXT),
        "allowOrigins": many(STRING_MATCH),
        "allowMethods": many(TEXT),
        "allowHeaders": many(TEXT),
        "exposeHeaders": many(TEXT),
        "maxAge": DURATION,
        "allowCredentials": FLAG,
        "unmatchedPreflights": enum("UNSPECIFIED", "FORWARD", "IGNORE"),
    },
)
_HTTP_ROUTE = message(
    "HTTPRoute",
    {
        "name": lost(TEXT, _NO_NAME),
        "match": many(_HTTP_MATCH),
        "route": many(_HTTP_DESTINATION),
        "redirect": _REDIRECT,
        "directResponse": _DIRECT,
        "delegate": message("Delegate", {"name": TEXT, "namespace": TEXT}, required=("name",)),
        "rewrite": lost(_REWRITE, _NO_PATHS),
        "timeout": DURATION,
        "retries": _RETRY,
        "fault": message("HTTPFaultInjection", {"delay": _DELAY, "abort": _ABORT}),
        "mirror": _DESTINATION,
        "mirrors": many(
            message("HTTPMirrorPolicy", {"destination": _DESTINATION, "percentage": PERCENT}, required=("destination",))
        ),
        "mirrorPercent": whole(0, 100),
        "mirror_percent": whole(0, 100),
        "mirrorPercentage": PERCENT,
        "corsPolicy": lost(_CORS, "no browser calls over the bus"),
        "headers": lost(_HEADERS, _NO_HEADERS),
    },
    one_of=(("route", "redirect", "directResponse"), ("mirror", "mirrors")),
)  # fmt: skip

_L4_MATCH: dict[str, Shape | Field] = {
    "destinationSubnets": many(TEXT),
    "port": whole(1, 65_535),
    "sourceSubnet": TEXT,
    "sourceLabels": named(TEXT),
    "gateways": many(TEXT),
    "sourceNamespace": TEXT,
}
_L4_DESTINATION = message(
    "RouteDestination", {"destination": _DESTINATION, "weight": WHOLE}, required=("destination",)
)
_TCP_ROUTE = message(
    "TCPRoute", {"match": many(message("L4MatchAttributes", _L4_MATCH)), "route": many(_L4_DESTINATION)}
)
_TLS_MATCH = message("TLSMatchAttributes", {"sniHosts": many(TEXT), **_L4_MATCH}, required=("sniHosts",))
_TLS_ROUTE = message(
    "TLSRoute", {"match": many(_TLS_MATCH), "route": many(_L4_DESTINATION)}, required=("match",)
)

VIRTUAL_SERVICE = message(
    "VirtualService",
    {
        "hosts": many(TEXT),
        "gateways": many(TEXT),
        "http": many(_HTTP_ROUTE),
        "tls": lost(many(_TLS_ROUTE).shape, _NO_TCP),
        "tcp": lost(many(_TCP_ROUTE).shape, _NO_TCP),
        "exportTo": lost(many(TEXT).shape, "a policy holds in its own namespace alone"),
    },
)

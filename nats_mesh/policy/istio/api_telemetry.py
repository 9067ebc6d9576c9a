"""The fields of Istio's Telemetry (telemetry.istio.io: v1alpha1 and v1)."""

from __future__ import annotations

from nats_mesh.policy.istio.api_common import SELECTOR, TARGET_REF
from nats_mesh.policy.istio.shapes import DURATION, FLAG, NUMBER, TEXT, enum, lost, many, message, named

__all__ = ["TELEMETRY"]

_PROVIDERS = lost(
    many(message("ProviderRef", {"name": TEXT}, required=("name",))).shape,
    "where it goes is decided by whoever collects it, not by policies",
)
_METRICS = (
    "ALL_METRICS", "REQUEST_COUNT", "REQUEST_DURATION", "REQUEST_SIZE", "RESPONSE_SIZE", "TCP_OPENED_CONNECTIONS",
    "TCP_CLOSED_CONNECTIONS", "TCP_SENT_BYTES", "TCP_RECEIVED_BYTES", "GRPC_REQUEST_MESSAGES", "GRPC_RESPONSE_MESSAGES",
)  # fmt: skip
_MODE = enum("CLIENT_AND_SERVER", "CLIENT", "SERVER")
_CUSTOM_TAG = message(
    "CustomTag",
    {
        "literal": message("Literal", {"value": TEXT}),
        "environment": message("Environment", {"name": TEXT, "defaultValue": TEXT}),
        "header": message("RequestHeader", {"name": TEXT, "defaultValue": TEXT}),
        "formatter": message("Formatter", {"value": TEXT}),
    },
    one_of=(("literal", "environment", "header", "formatter"),),
)
_TRACING = message(
    "Tracing",
    {
        "match": message("TracingSelector", {"mode": _MODE}),
        "providers": _PROVIDERS,
        "randomSamplingPercentage": NUMBER,
        "disableSpanReporting": FLAG,
        "customTags": named(_CUSTOM_TAG),
        "enableIstioTags": lost(FLAG, "spans always have the same attributes"),
        "useRequestIdForTraceSampling": lost(FLAG, "the trace's id decides"),
        "disableContextPropagation": lost(FLAG, "the trace of a call always travels"),
    },
)
_OVERRIDE = message(
    "MetricsOverrides",
    {
        "match": message(
            "MetricSelector",
            {"metric": enum(*_METRICS), "customMetric": TEXT, "mode": _MODE},
            one_of=(("metric", "customMetric"),),
        ),
        "disabled": FLAG,
        "tagOverrides": named(
            message("TagOverride", {"operation": enum("UPSERT", "REMOVE"), "value": TEXT}),
        ),
    },
)
_NO_METRICS = "the mesh's metrics and their labels are always the same"
_METRICS_RULE = message(
    "Metrics", {"providers": _PROVIDERS, "overrides": many(_OVERRIDE), "reportingInterval": DURATION}
)
_LOGGING = message(
    "AccessLogging",
    {
        "match": message("LogSelector", {"mode": _MODE}),
        "providers": _PROVIDERS,
        "disabled": FLAG,
        "filter": message("Filter", {"expression": TEXT}),
    },
)

TELEMETRY = message(
    "Telemetry",
    {
        "selector": SELECTOR,
        "targetRef": TARGET_REF,
        "targetRefs": many(TARGET_REF),
        "tracing": many(_TRACING),
        "metrics": lost(many(_METRICS_RULE).shape, _NO_METRICS),
        "accessLogging": many(_LOGGING),
    },
    one_of=(("selector", "targetRef", "targetRefs"),),
)

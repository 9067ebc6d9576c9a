"""Fields that several of Istio's kinds share."""

from __future__ import annotations

from typing import Final

from nats_mesh.policy.istio.shapes import FLAG, FREE, NUMBER, TEXT, WHOLE, lost, many, message, named, whole

__all__ = [
    "LOCALITY",
    "METADATA",
    "NO_PORTS",
    "OF_KUBERNETES",
    "PERCENT",
    "PORT",
    "PORT_SELECTOR",
    "SELECTOR",
    "STRING_MATCH",
    "TARGET_REF",
]

NO_PORTS: Final = "services have no ports here: calls name a service and an endpoint"
OF_KUBERNETES: Final = "Kubernetes keeps it for itself"

STRING_MATCH = message(
    "StringMatch",
    {"exact": TEXT, "prefix": TEXT, "regex": TEXT},
    one_of=(("exact", "prefix", "regex"),),
    empty=True,
)
PERCENT = message("Percent", {"value": NUMBER})
PORT_SELECTOR = message("PortSelector", {"number": whole(1, 65_535), "name": TEXT})
PORT = message(
    "Port",
    {"number": whole(0, 65_535), "protocol": TEXT, "name": TEXT, "targetPort": WHOLE},
    required=("number",),
)
SELECTOR = message("WorkloadSelector", {"matchLabels": named(TEXT)})
TARGET_REF = message(
    "PolicyTargetReference",
    {"group": TEXT, "kind": TEXT, "name": TEXT, "namespace": TEXT},
    required=("kind", "name"),
)

_TO_FROM = message("Locality", {"from": TEXT, "to": named(whole(0, 100))})
_FAILOVER = message("Failover", {"from": TEXT, "to": TEXT})
LOCALITY = message(
    "LocalityLoadBalancerSetting",
    {
        "distribute": lost(many(_TO_FROM).shape, "zones get no shares: the own zone first, then every other"),
        "failover": lost(many(_FAILOVER).shape, "there is one order: the own zone first, then every other"),
        "failoverPriority": many(TEXT),
        "enabled": FLAG,
    },
    one_of=(("distribute", "failover"),),
)

#: What may stand in `metadata`.
METADATA = message(
    "metadata",
    {
        "name": TEXT,
        "namespace": TEXT,
        "labels": named(TEXT),
        "annotations": named(TEXT),
        "generateName": TEXT,
        **dict.fromkeys(("creationTimestamp", "deletionTimestamp", "resourceVersion", "selfLink", "uid"), TEXT),
        **dict.fromkeys(("deletionGracePeriodSeconds", "generation"), WHOLE),
        "finalizers": many(TEXT),
        "managedFields": many(message("managedFields", {
            "apiVersion": TEXT, "fieldsType": TEXT, "fieldsV1": FREE, "manager": TEXT, "operation": TEXT,
            "subresource": TEXT, "time": TEXT,
        })),
        "ownerReferences": many(message("ownerReferences", {
            "apiVersion": TEXT, "blockOwnerDeletion": FLAG, "controller": FLAG, "kind": TEXT, "name": TEXT, "uid": TEXT,
        })),
        "clusterName": TEXT,
    },
)  # fmt: skip

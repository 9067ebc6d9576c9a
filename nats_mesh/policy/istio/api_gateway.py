"""The fields of Istio's Gateway and ServiceEntry (networking.istio.io: v1alpha3, v1beta1 and v1 have the same)."""

from __future__ import annotations

from typing import Final

from nats_mesh.policy.istio.api_common import PORT
from nats_mesh.policy.istio.shapes import FLAG, TEXT, WHOLE, enum, lost, many, message, named

__all__ = ["GATEWAY", "SERVICE_ENTRY"]

_BY_NAME: Final = "a gateway that lets calls out finds the server by its host name"

_TLS = message(
    "ServerTLSSettings",
    {
        "httpsRedirect": FLAG,
        "mode": enum(
            "PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"
        ),
        "serverCertificate": TEXT,
        "privateKey": TEXT,
        "caCertificates": TEXT,
        "caCrl": TEXT,
        "caCertCredentialName": TEXT,
        "credentialName": TEXT,
        "credentialNames": many(TEXT),
        "tlsCertificates": many(
            message("TLSCertificate", {"serverCertificate": TEXT, "privateKey": TEXT, "caCertificates": TEXT})
        ),
        "subjectAltNames": many(TEXT),
        "verifyCertificateSpki": many(TEXT),
        "verifyCertificateHash": many(TEXT),
        "minProtocolVersion": enum("TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"),
        "maxProtocolVersion": enum("TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"),
        "cipherSuites": many(TEXT),
    },
)
_SERVER = message(
    "Server",
    {
        "port": PORT,
        "bind": TEXT,
        "hosts": many(TEXT),
        "tls": _TLS,
        "defaultEndpoint": lost(TEXT, "a gateway listens itself"),
        "name": lost(TEXT, "servers have no names here"),
    },
    required=("port", "hosts"),
)

GATEWAY = message("Gateway", {"servers": many(_SERVER), "selector": named(TEXT)})

_PORTS = message(
    "ServicePort",
    {"number": WHOLE, "protocol": TEXT, "name": TEXT, "targetPort": WHOLE},
    required=("number",),
)
_ENDPOINT = message(
    "WorkloadEntry",
    {
        "address": TEXT,
        "ports": named(WHOLE),
        "labels": named(TEXT),
        "network": TEXT,
        "locality": TEXT,
        "weight": WHOLE,
        "serviceAccount": TEXT,
    },
)

SERVICE_ENTRY = message(
    "ServiceEntry",
    {
        "hosts": many(TEXT),
        "addresses": lost(many(TEXT).shape, _BY_NAME),
        "ports": many(_PORTS),
        "location": enum("MESH_EXTERNAL", "MESH_INTERNAL"),
        "resolution": lost(enum("NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"), _BY_NAME),
        "endpoints": lost(many(_ENDPOINT).shape, _BY_NAME),
        "workloadSelector": lost(
            message("WorkloadSelector", {"labels": named(TEXT), "matchLabels": named(TEXT)}), _BY_NAME
        ),
        "exportTo": lost(many(TEXT).shape, "a policy holds in its own namespace alone"),
        "subjectAltNames": lost(many(TEXT).shape, _BY_NAME),
    },
    required=("hosts",),
)

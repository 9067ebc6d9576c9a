"""Answers to ``$SRV.INFO``, as mesh services and others give them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nats_mesh.discovery.services_api import InfoReply, mesh_endpoint, parse_info
from nats_mesh.wire.subjects import Subjects

__all__ = ["foreign_info", "mesh_info", "payload"]


def payload(
    name: str, identifier: str, version: str, metadata: Mapping[str, str], endpoints: list[dict[str, Any]]
) -> bytes:
    """The bytes of an answer."""
    return json.dumps(
        {
            "type": "io.nats.micro.v1.info_response",
            "name": name,
            "id": identifier,
            "version": version,
            "description": "",
            "metadata": dict(metadata),
            "endpoints": endpoints,
        }
    ).encode()


def mesh_info(
    name: str = "orders",
    identifier: str = "AAAA",
    version: str = "1.0.0",
    *,
    namespace: str = "default",
    endpoints: tuple[str, ...] = ("place",),
    state: str = "ready",
    labels: Mapping[str, str] | None = None,
    **metadata: str,
) -> InfoReply:
    """What an instance of the mesh answers."""
    documents = [
        mesh_endpoint(
            Subjects(namespace),
            name,
            each,
            timeout_s=2.0,
            idempotent=True,
            concurrency=64,
            schema_hash="abcd",
            request_schema={"type": "integer"},
            response_schema={"type": "string"},
        )
        for each in endpoints
    ]
    listed = [
        {"name": d.name, "subject": d.subject, "queue_group": d.queue_group, "metadata": d.metadata}
        for d in documents
    ]
    own = {
        "mesh.wire": "1",
        "mesh.namespace": namespace,
        "mesh.kind": "service",
        "mesh.instance": f"host-{identifier}",
        "mesh.state": state,
        "mesh.started": "2025-01-31T12:00:00.000000Z",
        "mesh.seq": "3",
        "mesh.interval_s": "5.0",
        "mesh.in_flight": "2",
        "mesh.limit": "64",
        **(labels or {}),
        **{key.replace("_", "."): value for key, value in metadata.items()},
    }
    return parse_info(payload(name, identifier, version, own, listed))


def foreign_info(name: str = "legacy", identifier: str = "ZZZZ", version: str = "0.1.0") -> InfoReply:
    """What a service of the NATS Services API answers that knows nothing of the mesh."""
    endpoint = {"name": "do", "subject": f"{name}.do", "queue_group": "q"}
    return parse_info(payload(name, identifier, version, {"team": "x"}, [endpoint]))

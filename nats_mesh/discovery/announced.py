"""What an instance says of itself where somebody asks, as if it had announced it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nats_mesh.core.presence import Announcement, EndpointInfo, Kind, State
from nats_mesh.discovery.messages import parse_revision
from nats_mesh.discovery.services_api import InfoReply, PingReply
from nats_mesh.errors import ConfigError
from nats_mesh.model import check_name

__all__ = ["announced"]


def announced(
    kind: Kind, answer: PingReply | InfoReply, endpoints: Sequence[EndpointInfo] = ()
) -> Announcement | None:
    """An answer to ``$SRV.PING`` or ``$SRV.INFO`` as a message of ``kind``; ``None`` for what is no instance of a mesh
    service, or cannot be one. Only ``$SRV.INFO`` names ``endpoints``."""
    meta = answer.metadata
    if meta.get("mesh.kind", "service") != "service":
        return None
    try:
        check_name("instance", answer.id)
        return msgspec.convert(
            {
                "type": kind,
                "service": answer.name,
                "instance": answer.id,
                "name": meta["mesh.instance"],
                "version": answer.version,
                "namespace": meta["mesh.namespace"],
                "seq": int(meta["mesh.seq"]),
                "started": meta["mesh.started"],
                "interval_s": float(meta["mesh.interval_s"]),
                "state": meta.get("mesh.state", State.READY),
                "labels": {key: value for key, value in meta.items() if not key.startswith("mesh.")},
                "endpoints": [msgspec.to_builtins(each) for each in endpoints],
                "load": {
                    "in_flight": int(meta.get("mesh.in_flight", "0")),
                    "limit": int(meta.get("mesh.limit", "0")),
                    "full": meta.get("mesh.full") == "true",
                },
                "revision": parse_revision(meta.get("mesh.revision", "")),
            },
            Announcement,
        )
    except (KeyError, ValueError, ConfigError, msgspec.ValidationError):
        return None

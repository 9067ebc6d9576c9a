"""What ADR-32 and the published schemas of the NATS Services API ask of its three documents.

Written for these tests from the fields' descriptions (nats-architecture-and-design ADR-32; jsm.go,
``schema_source/micro/v1``), and stricter where they are loose: every field of the ADR is required, and
metadata is never null.
"""

from typing import Any

__all__ = ["INFO", "PING", "STATS"]

_NAME = {"type": "string", "pattern": r"^[a-zA-Z0-9_-]+$"}
_SEMVER = {
    "type": "string",
    "minLength": 5,
    "pattern": r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$",
}
_METADATA = {"type": "object", "additionalProperties": {"type": "string"}}
_TEXT = {"type": "string", "minLength": 1}
_INT64 = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z$", "format": "date-time"}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


def _document(kind: str, **properties: Any) -> dict[str, Any]:
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **_object(
            type={"const": f"io.nats.micro.v1.{kind}_response"},
            name=_NAME,
            id=_TEXT,
            version=_SEMVER,
            metadata=_METADATA,
            **properties,
        ),
    }


PING = _document("ping")
INFO = _document(
    "info",
    description={"type": "string"},
    endpoints={
        "type": "array",
        "items": _object(name=_NAME, subject=_TEXT, queue_group=_TEXT, metadata=_METADATA),
    },
)
STATS = _document(
    "stats",
    started=_TIME,
    endpoints={
        "type": "array",
        "items": _object(
            name=_NAME,
            subject=_TEXT,
            queue_group=_TEXT,
            num_requests=_INT64,
            num_errors=_INT64,
            last_error={"type": "string"},
            processing_time=_INT64,
            average_processing_time=_INT64,
            data={"type": "object"},
        ),
    },
)

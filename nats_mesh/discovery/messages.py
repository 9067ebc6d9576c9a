"""The body of presence messages: bytes to :class:`Announcement` and back, and how often to send one.

Whoever may publish presence may send any bytes, so a body is checked whole before anything sees it:
size first, then every field's bounds, then that it speaks of the instance its subject names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nats_mesh.clock import rfc3339
from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.presence import (
    MAX_INTERVAL_S,
    POLICY_SCHEMA,
    Announcement,
    EndpointInfo,
    Kind,
    Load,
    Rejection,
    Standing,
    State,
    check_labels,
    check_version,
)
from nats_mesh.errors import CodecError
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.vouching import check_claims

__all__ = [
    "BASE_INTERVAL_S",
    "JITTER",
    "MAX_BEATS_PER_S",
    "MAX_BYTES",
    "Announcement",
    "EndpointInfo",
    "Kind",
    "Load",
    "Rejection",
    "State",
    "beat_interval_s",
    "check_labels",
    "check_version",
    "decode",
    "encode",
    "nominal_interval_s",
    "parse_revision",
    "rejection_text",
    "rfc3339",
    "standing_metadata",
]

#: The largest body that is read or sent; a quarter of the server's default max_payload.
MAX_BYTES: Final = 256 * 1024
#: Seconds between the beats of an instance whose service is small.
BASE_INTERVAL_S: Final = 5.0
#: How far a beat may be off its interval, so that instances started together do not beat together.
JITTER: Final = 0.2
#: Beats a second that all instances of one service together may send.
MAX_BEATS_PER_S: Final = 20.0

_MAX_REASON = 512
_MAX_DIGITS = 15
_RESERVED = frozenset({"all", "anonymous"})
_decode = at_first_use(lambda: JSON.decoder(Announcement))


def encode(announcement: Announcement) -> bytes:
    """The bytes of a presence message; :class:`CodecError` where a peer would refuse them."""
    data = JSON.encode(announcement)
    decode(data)
    return data


def decode(
    data: bytes,
    *,
    service: str | None = None,
    instance: str | None = None,
    namespace: str | None = None,
) -> Announcement:
    """Read a presence message, or raise :class:`CodecError` saying what is wrong with it.

    The keyword arguments are what its subject says; a body that claims something else is refused,
    because the server vouches for the subject alone. Unknown fields are ignored.
    """
    if len(data) > MAX_BYTES:
        raise CodecError(f"presence: {len(data)} bytes, at most {MAX_BYTES} are read")
    announcement: Announcement = _decode(data)
    for what, claimed in (
        ("service", announcement.service),
        ("instance", announcement.instance),
        ("namespace", announcement.namespace),
    ):
        if claimed in _RESERVED:
            raise CodecError(f"presence: {claimed!r} is reserved and cannot be the {what}")
    check_claims("presence", announcement, service=service, instance=instance, namespace=namespace)
    return announcement


def nominal_interval_s(instances_known: int) -> float:
    """Seconds between two beats, without jitter: what ``interval_s`` of an announcement promises.

    Every observer of a service hears each beat, so with a fixed interval the work of observing grows
    with the service. From 100 instances on the interval grows with their number instead, and the
    service as a whole sends at most 20 beats a second (up to 12,000 instances, where the interval
    reaches its cap of 600 s). Absence is noticed at once by other means (no responders, a leave,
    failed calls), so a slower beat costs only a later removal from listings.
    """
    return min(MAX_INTERVAL_S, max(BASE_INTERVAL_S, instances_known / MAX_BEATS_PER_S))


def beat_interval_s(instances_known: int, rng_value: float) -> float:
    """Seconds to wait for the next beat: the nominal interval ± 20 %, by ``rng_value`` in [0, 1).

    Use the same ``instances_known`` as for the ``interval_s`` of the announcement just sent: observers
    judge silence by what was promised.
    """
    return nominal_interval_s(instances_known) * (1.0 - JITTER + 2.0 * JITTER * rng_value)


def standing_metadata(standing: Standing) -> dict[str, str]:
    """Where a member stands with its policies, as the metadata of its answers to ``$SRV`` say it."""
    epoch, sequence = standing.revision
    found = {
        "mesh.policies": standing.source,
        "mesh.policy.schema": str(POLICY_SCHEMA),
        "mesh.revision": f"{epoch}.{sequence}",
    }
    if standing.rejected:
        found["mesh.rejected"] = str(standing.rejected)
    if standing.rejections:
        found["mesh.rejection"] = rejection_text(standing.rejections)
    return found


def rejection_text(rejections: Sequence[Rejection]) -> str:
    """What was refused last and why, in one line; empty where nothing was."""
    return f"{rejections[0].policy}: {rejections[0].reason}"[:_MAX_REASON] if rejections else ""


def parse_revision(text: str) -> tuple[int, int]:
    """What :func:`standing_metadata` made of a revision; (0, 0) for anything else."""
    epoch, _, sequence = text.partition(".")
    if not (epoch.isascii() and epoch.isdigit() and sequence.isascii() and sequence.isdigit()):
        return 0, 0
    return (int(epoch), int(sequence)) if max(len(epoch), len(sequence)) <= _MAX_DIGITS else (0, 0)

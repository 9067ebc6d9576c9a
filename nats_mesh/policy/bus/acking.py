"""What a member says of the policies it follows: the highest revision it has applied, and what it refused and why.

A single change is acknowledged at once, and so are a few in a row; in bulk it is one acknowledgement a second,
which has the newest state. Nothing is lost by that: an acknowledgement says where its member stands, not what came.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Final, Literal

import msgspec

from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.presence import MAX_REJECTIONS, Count, Name, Rejection, Standing
from nats_mesh.errors import CallError, CodecError
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.loop import Timer, call_later
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport
from nats_mesh.wire.vouching import check_claims

__all__ = ["Ack", "Acker", "decode_ack"]

log = logging.getLogger("nats_mesh.policies")

#: How many acknowledgements go out at once; after those, one in so long (seconds).
BURST: Final = 4
EVERY_S: Final = 1.0
MAX_BYTES: Final = 256 << 10

Source = Annotated[str, msgspec.Meta(pattern=r"\A[a-z]{1,16}\Z")]


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``control.ack.<service>.<instance>``; of a pure client, its name and its connection's id."""

    service: Name
    instance: Name
    namespace: Name
    kind: Literal["service", "client"] = "service"
    source: Source = "bus"
    revision: tuple[Count, Count] = (0, 0)
    rejections: Annotated[tuple[Rejection, ...], msgspec.Meta(max_length=MAX_REJECTIONS)] = ()
    rejected: Count = 0
    wire: Literal[1] = 1


_decode = at_first_use(lambda: JSON.decoder(Ack))


def decode_ack(
    data: bytes, *, service: str | None = None, instance: str | None = None, namespace: str | None = None
) -> Ack:
    """Read an acknowledgement, or raise :class:`CodecError`. The keyword arguments are what its subject says."""
    if len(data) > MAX_BYTES:
        raise CodecError(f"ack: {len(data)} bytes, at most {MAX_BYTES} are read")
    ack: Ack = _decode(data)
    check_claims("ack", ack, service=service, instance=instance, namespace=namespace)
    return ack


class Acker:
    """Acknowledges for one member. ``failed`` counts what could not be said."""

    def __init__(
        self,
        *,
        service: str,
        instance: str,
        kind: Literal["service", "client"],
        subjects: Subjects,
        transport: Transport,
        mux: ReplyMux,
        now: Callable[[], float],
    ) -> None:
        self.failed = 0
        self._service = service
        self._instance = instance
        self._kind = kind
        self._namespace = subjects.namespace
        self._subject = subjects.ack(service, instance)
        self._transport = transport
        self._mux = mux
        self._now = now
        self._standing: Standing | None = None
        #: From when on there is room for one more at once: each moves it by :data:`EVERY_S`.
        self._full_at = now() - EVERY_S
        self._timer: Timer | None = None

    def say(self, standing: Standing) -> None:
        """Where the member stands now; said at once, or with what follows within the second."""
        self._standing = standing
        if self._timer is not None:
            return
        wait_s = self._full_at - self._now() - EVERY_S * (BURST - 1)
        if wait_s <= 0.0:
            self._publish()
        else:
            self._timer = call_later(wait_s, self._due)

    def again(self) -> None:
        """Say it once more, as after a reconnect."""
        if self._standing is not None:
            self.say(self._standing)

    def _due(self) -> None:
        self._timer = None
        self._publish()

    def _publish(self) -> None:
        standing = self._standing
        if standing is None:
            return
        self._full_at = max(self._full_at, self._now()) + EVERY_S
        ack = Ack(
            service=self._service,
            instance=self._instance,
            namespace=self._namespace,
            kind=self._kind,
            source=standing.source,
            revision=standing.revision,
            rejections=standing.rejections,
            rejected=standing.rejected,
        )
        try:
            self._transport.publish(self._subject, JSON.encode(ack), self._mux.one_way("control"))
        except CallError as error:  # away: it is said again after the reconnect
            self.failed += 1
            log.debug("%s could not acknowledge: %s", self._service, error.message)

    def close(self) -> None:
        """Say nothing any more."""
        self._standing = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

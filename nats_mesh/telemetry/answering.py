"""What a member remembers, for whoever asks: a lease whose reply subject is an inbox that waits for something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from nats_mesh.core.refill import Refill
from nats_mesh.errors import CallError
from nats_mesh.wire.transport import Transport

__all__ = ["Answering"]

#: How many questions a second are answered; one beyond that gets no answer.
_ANSWERS_PER_S: Final = 20.0

T = TypeVar("T")


class Answering(Generic[T]):
    """Answers with what ``encode`` makes of it, in messages of at most ``max_bytes``. ``failed`` counts those that
    could not be sent."""

    def __init__(
        self, encode: Callable[[Sequence[T]], bytes], max_bytes: int, now: Callable[[], float]
    ) -> None:
        self.failed = 0
        self._encode = encode
        self._max_bytes = max_bytes
        self._now = now
        self._room = Refill(_ANSWERS_PER_S, _ANSWERS_PER_S, now())

    def lease(self, reply: str, kept: Sequence[T], transport: Transport) -> None:
        """A lease came with this reply subject; where somebody waits there, ``kept`` goes there."""
        if reply.endswith(".0") or self._room.room(self._now()) < 1:
            return
        self._room.take(1)
        self._send(reply, kept, transport)

    def _send(self, reply: str, kept: Sequence[T], transport: Transport) -> None:
        body = self._encode(kept)
        if len(body) > min(self._max_bytes, transport.max_payload) and len(kept) > 1:
            half = len(kept) // 2
            self._send(reply, kept[:half], transport)
            self._send(reply, kept[half:], transport)
            return
        try:
            transport.publish(reply, body)
        except CallError:
            self.failed += 1  # away: whoever is back asks again

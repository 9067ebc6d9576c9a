"""What a connection counts."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["MAX_STALLS", "TransportStats"]

#: How many of the last stalls of the event loop are kept.
MAX_STALLS: Final = 64


class TransportStats:
    """Plain counters, read by whoever reports them."""

    __slots__ = (
        "dropped_handler_errors",
        "dropped_not_text",
        "in_messages",
        "out_messages",
        "reconnects",
        "rtt_s",
        "stall_s",
        "stalls",
    )

    def __init__(self) -> None:
        self.in_messages = 0
        self.out_messages = 0
        self.reconnects = 0
        #: How long the last ping to the server took until its answer was read (seconds); ``None`` before the first.
        self.rtt_s: float | None = None
        self.dropped_handler_errors = 0
        #: Messages whose subject or reply is not UTF-8.
        self.dropped_not_text = 0
        #: Age in seconds to give to what is being read: above 0 after the event loop stalled, until the next PONG.
        self.stall_s = 0.0
        #: When the event loop stood still lately: from and until (monotonic seconds), the oldest first.
        self.stalls: deque[tuple[float, float]] = deque(maxlen=MAX_STALLS)

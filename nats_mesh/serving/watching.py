"""Who is told of the calls that an instance answers, once each has ended: logs, taps, spans, and whatever else
observes."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Final

from nats_mesh.context import Context
from nats_mesh.errors import Status
from nats_mesh.layers.base import Arrival, Tap
from nats_mesh.telemetry.watchers import Watchers
from nats_mesh.wire import headers as h

__all__ = ["Watching"]

log = logging.getLogger("nats_mesh.instance")

#: An attribute of an enumeration costs a call each time it is looked up.
_OK: Final = Status.OK
#: What stands before the ids of a trace that is the last thing in a block.
_IS_LAST: Final = b" 00-"
#: What stands behind them, of most.
_SAMPLED: Final = b"-01"
_NOT_SAMPLED: Final = b"-00"
_NO_IDS: Final = b""
#: Ids of spans that are drawn at a time.
_DRAWN: Final = 32


class Watching(Watchers[Tap]):
    """The watchers of one instance, by name. While there is none (:attr:`anybody`), no call is asked anything.

    ``note`` is called with whether somebody wants to hear of every call, whenever others are told.
    """

    __slots__ = ("_drawn", "_note", "_rng", "anybody", "every", "own_calls")

    def __init__(self, rng: random.Random, note: Callable[[bool], None]) -> None:
        super().__init__()
        self._note = note
        self._rng = rng
        self._drawn: list[str] = []
        self.anybody = False
        #: Whether somebody wants to hear of every call, which then is noted from its arrival on; and whether somebody
        #: reads which calls its handler made (:attr:`~nats_mesh.context.Context.own_calls`).
        self.every = False
        self.own_calls = False

    def _settle(self) -> None:
        self.every = bool(self._every)
        self.anybody = self.every or bool(self._notable)
        self.own_calls = bool(self._readers)
        self._note(self.every)

    def ended(self, call: Arrival, took_s: float) -> None:
        """``call`` has ended, and there is :attr:`anybody`: tell whoever wants to hear of such calls."""
        if call.noted:  # whoever came to watch after it had arrived is not told
            for name, tap in self._every.items():
                _tell(name, tap, call, took_s)
        if not self._notable:
            return
        if call.status is _OK and took_s < self.slow_s:
            block, context, notes = call.headers, call.context, self.notes
            # Behind the trace of most requests stands nothing, not even a codec.
            last = call.plain and block[-60:-56] == _IS_LAST
            flags = block[-7:-4] if last else _NO_IDS
            if flags != _SAMPLED and (flags == _NOT_SAMPLED or not h.is_sampled(block, alone=call.plain)):
                return
            if notes is not None and context is not None and not call.injected and not call.ended:
                ids = _NO_IDS
                if last:
                    ids = block[-56:-7]
                elif call.plain:
                    at = block.find(h.TRACEPARENT) + 18
                    ids = block[at : at + 49]
                elif call.attempt == 1:
                    above = h.trace_parent(block)
                    ids = _NO_IDS if above is None else f"{above.trace_id}-{above.span_id}".encode()
                if ids:
                    own, received = context.own_span_id or self._span_id(context), call.received
                    notes.add_row(
                        (call.kind, call.caller),
                        (ids, own, call.route, "", received, took_s, call.started - received),
                    )
                    if self._rest:
                        for name, tap in self._rest.items():
                            _tell(name, tap, call, took_s)
                    return
        for name, (tap, _, _) in self._notable.items():
            _tell(name, tap, call, took_s)

    def _span_id(self, context: Context) -> str:
        """Draw the span id of a call that made none of its own; many at a time cost as much as one."""
        if not self._drawn:
            self._drawn = self._rng.randbytes(8 * _DRAWN).hex(" ", 8).split(" ")
        context.own_span_id = drawn = self._drawn.pop()
        return drawn


def _tell(name: str, tap: Tap, call: Arrival, took_s: float) -> None:
    try:
        tap(call, took_s)
    # Whoever observes must not change what a caller gets, whatever is wrong with it.
    except Exception:
        log.exception("a call could not be told to %s", name)

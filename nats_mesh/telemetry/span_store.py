"""Where spans are kept for minutes: a small stream beside the mesh, and reading it.

Whoever looks at traces makes it, with an operator's rights; members publish whether it is there or not. It keeps what
is younger than :data:`MAX_AGE_S` and drops what is oldest where there is no more room. In memory, unless the server has
none to give: spans outlive no restart, and nobody's disk is written for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from nats_mesh.clock import rfc3339
from nats_mesh.errors import CodecError
from nats_mesh.telemetry.span_messages import decode_spans, let_go, spans_of
from nats_mesh.telemetry.span_parts import RecordedSpan
from nats_mesh.wire.jetstream import NAME_TAKEN, NOT_FOUND
from nats_mesh.wire.kv import KvAbsentError, trouble
from nats_mesh.wire.kv_log import KvLog, Message
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.streams import ask_stream, create_stream
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["MAX_AGE_S", "MAX_READ", "SpanStore"]

#: How long spans are kept (seconds), and how much of them (bytes): the server may set that much aside at once, so where
#: it has not so much left, it is less.
MAX_AGE_S: Final = 15 * 60
_TOTAL_BYTES: Final = (64 << 20, 16 << 20, 4 << 20)
#: How much of it one member may fill: whoever floods it pushes out his own (messages, each of many spans).
_MAX_OF_ONE: Final = 2000
#: How many spans one reading takes in at most; of more, the latest.
MAX_READ: Final = 200_000
_PAGE: Final = 500
_NS: Final = 1_000_000_000
_FROM_STREAM: Final = b"\r\nNats-Stream:"


class SpanStore:
    """The spans that a namespace keeps. ``untrusted`` counts what was not believed, by reason; ``dropped`` what members
    say they let go, by the reason (``UNSAID``: none that is known here), and ``dropped_at`` when they said so last
    (RFC 3339; none where nobody knows); ``cut``: there were more than
    :data:`MAX_READ`. Methods raise :class:`~nats_mesh.wire.kv.KvError` where nobody answers,
    :class:`~nats_mesh.wire.kv.KvAbsentError` where there is no stream."""

    def __init__(
        self, subjects: Subjects, *, transport: Transport, mux: ReplyMux, timeout_s: float = 5.0
    ) -> None:
        self.untrusted: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.dropped_at: dict[str, str] = {}
        self.cut = False
        name = f"mesh_spans_{subjects.namespace}"
        self.log = KvLog(
            name, transport=transport, mux=mux, stream=name, prefix=f"{subjects.prefix}telemetry.span."
        )
        self._namespace = subjects.namespace
        self._timeout_s = timeout_s

    async def make(self) -> bool:
        """Make the stream where there is none; whether it was made. One that is there stays as it is."""
        found = await ask_stream(self.log, "INFO", None, self._timeout_s)
        if found.error is None:
            return False
        if found.error.err_code != NOT_FOUND:
            raise trouble(found.error.err_code, f"{self.log.name}: {found.error.description}")
        config = {
            "name": self.log.stream,
            "subjects": [f"{self.log.prefix}*.*"],
            "description": "spans of a mesh namespace, for minutes",
            "retention": "limits",
            "storage": "memory",
            "discard": "old",
            "max_age": MAX_AGE_S * _NS,
            "max_msgs_per_subject": _MAX_OF_ONE,
            "num_replicas": 1,
            "allow_direct": True,
        }
        made = await create_stream(self.log, config, _TOTAL_BYTES, self._timeout_s)
        if made.error is not None and made.error.err_code != NAME_TAKEN:
            made = await create_stream(self.log, {**config, "storage": "file"}, _TOTAL_BYTES, self._timeout_s)
        if (
            made.error is not None and made.error.err_code != NAME_TAKEN
        ):  # taken: somebody else made it meanwhile
            raise trouble(made.error.err_code, f"{self.log.name}: {made.error.description}")
        return made.error is None

    async def read(self, *, since: str) -> list[RecordedSpan]:
        """What was stored from the instant ``since`` (RFC 3339) on, the oldest first."""
        found: list[RecordedSpan] = []
        at, time = 1, since
        while True:
            page = await self.log.after(at, count=_PAGE, time=time, timeout_s=self._timeout_s)
            time = ""
            for message in page.messages:
                found += self._spans(message)
            if len(found) > MAX_READ:
                self.cut = True
                del found[: len(found) - MAX_READ]
            if not page.more or not page.messages:
                return found
            at = page.messages[-1].sequence + 1

    def _spans(self, message: Message) -> list[RecordedSpan]:
        service, _, instance = message.key.partition(".")
        if message.headers.count(_FROM_STREAM) != 1:
            self.untrusted["forged"] += 1
            return []
        return self.spans(service, instance, message.value or b"", at=message.time)

    def spans(self, service: str, instance: str, body: bytes, *, at: str = "") -> list[RecordedSpan]:
        """What is to be believed of a message that ``service`` and ``instance`` published, ``at`` an instant that is
        known, else when its last span ended."""
        try:
            message = decode_spans(body, service=service, instance=instance, namespace=self._namespace)
        except CodecError:
            self.untrusted["malformed"] += 1
            return []
        if dropped := let_go(message):
            self.dropped.update(dropped)
            if not at and message.spans:
                at = rfc3339(max(span.end_us for span in message.spans) / 1e6)
            if at:
                self.dropped_at |= {reason: max(at, self.dropped_at.get(reason, "")) for reason in dropped}
        return spans_of(message)

    async def info(self) -> Mapping[str, Any]:
        """How the stream stands; :class:`~nats_mesh.wire.kv.KvAbsentError` where there is none."""
        found = await ask_stream(self.log, "INFO", None, self._timeout_s)
        if found.error is not None:
            if found.error.err_code == NOT_FOUND:
                raise KvAbsentError(f"there is no stream {self.log.stream!r}")
            raise trouble(found.error.err_code, f"{self.log.name}: {found.error.description}")
        state = found.state
        return {"messages": state.messages, "bytes": state.bytes, "since": state.first_ts}

    def __repr__(self) -> str:
        return f"<SpanStore {self.log.name}>"

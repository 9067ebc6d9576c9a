"""Spans for OpenTelemetry: to whatever takes OTLP over HTTP, with the extra ``otel``.

A thread of its own makes and sends them, so that no call ever waits for a collector. What it has not sent is bounded,
what finds no room or cannot be sent is counted and let go; at the end it gets a few seconds for the rest. Where to send
it, how long to try and with which headers is what OpenTelemetry's own variables say (``OTEL_EXPORTER_OTLP_…``).

The SDK's own batch processor is not used: it takes spans that are made already, which would be the event loop's work.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Protocol

import msgspec

from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.sampling import failed
from nats_mesh.errors import CodecError
from nats_mesh.telemetry.span_columns import read_columns
from nats_mesh.telemetry.span_messages import Chunk
from nats_mesh.telemetry.span_parts import Span

__all__ = ["MAX_WAITING", "OtelExport", "start_export"]

log = logging.getLogger("nats_mesh.telemetry")

#: How many spans wait to be sent at most, and how many go at once.
MAX_WAITING: Final = 8192
_BATCH: Final = 512
#: How often what there is is sent (seconds), and how long the rest gets at the end.
_EVERY_S: Final = 1.0
_END_S: Final = 5.0
_SYSTEM: Final = "nats_mesh"
_MISSING: Final = (
    "%s: OTEL_EXPORTER_OTLP_ENDPOINT is set, and what sends spans there is not installed: "
    "pip install 'nats-mesh[otel]'"
)

_decode = at_first_use(lambda: msgspec.json.Decoder(list[Span]).decode)

#: Who may still have something to send when the process ends.
_open: weakref.WeakSet[OtelExport] = weakref.WeakSet()


class _Exporter(Protocol):
    def export(self, spans: Sequence[Any], /) -> Any: ...

    def shutdown(self) -> None: ...


class OtelExport:
    """Sends the spans of one member with an ``exporter`` of OpenTelemetry; ``make`` turns one into its words.

    Calling it takes spans in and never waits. ``sent`` counts those that were taken there, ``dropped`` those that found
    no room or were not.
    """

    def __init__(self, exporter: _Exporter, make: Callable[[Span], Any], whose: str) -> None:
        self.sent = 0
        self.dropped = 0
        self._exporter = exporter
        self._make = make
        self._whose = whose
        self._waiting: deque[tuple[Chunk, float]] = deque()
        #: How many spans wait.
        self._count = 0
        self._counting = threading.Lock()
        self._wake = threading.Event()
        self._ending = False
        self._over = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"otel-{whose}", daemon=True)
        self._thread.start()
        _open.add(self)

    def __call__(self, chunks: Sequence[Chunk], clock_s: float) -> None:
        """Some more."""
        for chunk in chunks:
            with self._counting:
                room = self._count + chunk.size <= MAX_WAITING
                if room:
                    self._count += chunk.size
            if room:
                self._waiting.append((chunk, clock_s))
            else:
                self.dropped += chunk.size
        if self._count >= _BATCH:
            self._wake.set()

    def _run(self) -> None:
        while True:
            ending = self._ending
            self._send_all()
            if ending:
                break
            self._wake.wait(_EVERY_S)
            self._wake.clear()
        self._shut()

    def _shut(self) -> None:
        """End the exporter, once: it complains of more."""
        with self._lock:
            done, self._over = self._over, True
        if not done:
            self._exporter.shutdown()

    def _send_all(self) -> None:
        while self._waiting:
            if self._over:
                with self._counting:
                    self.dropped += self._count
                    self._waiting.clear()
                    self._count = 0
                return
            batch = self._next()
            if not batch:
                continue
            try:
                result = self._exporter.export([self._make(span) for span in batch])
                taken = getattr(result, "name", "") == "SUCCESS"
            # Whatever is wrong there, calls go on, and so does the next batch.
            except Exception:
                taken = False
                log.debug("%s: spans could not be sent", self._whose, exc_info=True)
            if taken:
                self.sent += len(batch)
            else:
                if not self.dropped:
                    log.warning("%s: spans cannot be sent to the collector; they are let go", self._whose)
                self.dropped += len(batch)

    def _next(self) -> list[Span]:
        """What goes together; a chunk that cannot be read is let go, and the others are not."""
        batch: list[Span] = []
        while self._waiting and len(batch) < _BATCH:
            chunk, clock_s = self._waiting.popleft()
            with self._counting:
                self._count -= chunk.size
            try:
                batch += read_columns(chunk.body, clock_s) if chunk.rows else _decode(b"[%b]" % chunk.body)
            except (CodecError, msgspec.MsgspecError):
                if not self.dropped:
                    log.warning("%s: a span cannot be read; it is let go", self._whose, exc_info=True)
                self.dropped += chunk.size
        return batch

    def close(self) -> None:
        """Send the rest, beside everything else, for a few seconds at most."""
        if self._ending:
            return
        self._ending = True
        self._wake.set()
        timer = threading.Timer(_END_S, self._shut)  # ends an export that tries again and again
        timer.daemon = True
        timer.start()

    def join(self, timeout_s: float = _END_S) -> bool:
        """Wait for that, in whatever thread; whether it is done."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()


@atexit.register
def _end_all() -> None:
    """What was closed a moment ago may still be sending."""
    exports = list(_open)
    for each in exports:
        each.close()
    for each in exports:
        each.join()


def start_export(*, member: str, instance: str, member_version: str, namespace: str) -> OtelExport | None:
    """Send the spans of a member from now on; ``None``, and a line in the log, where the extra is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
    except ImportError:
        log.warning(_MISSING, member)
        return None
    resource = Resource.create(
        {
            "service.name": member,
            "service.version": member_version,
            "service.instance.id": instance,
            "service.namespace": namespace,
        }
    )
    return OtelExport(OTLPSpanExporter(), _maker(resource), member)


def _maker(resource: Any) -> Callable[[Span], Any]:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    scope = InstrumentationScope("nats_mesh", _own_version())
    sampled = TraceFlags(TraceFlags.SAMPLED)

    def make(span: Span) -> Any:
        trace = int(span.trace, 16)
        server = span.kind == "server"
        error = failed(span.status) if server else span.status != "OK"
        above = None
        if span.parent:
            above = SpanContext(
                trace, int(span.parent, 16), is_remote=span.kind != "attempt", trace_flags=sampled
            )
        return ReadableSpan(
            name=span.name,
            context=SpanContext(trace, int(span.id, 16), is_remote=False, trace_flags=sampled),
            parent=above,
            resource=resource,
            attributes=_attributes(span, error=error),
            kind=SpanKind.SERVER if server else SpanKind.CLIENT,
            instrumentation_scope=scope,
            status=Status(StatusCode.ERROR, span.error or span.status) if error else Status(StatusCode.UNSET),
            start_time=span.start_us * 1000,
            end_time=span.end_us * 1000,
        )

    return make


def _attributes(span: Span, *, error: bool) -> dict[str, Any]:
    """What OpenTelemetry's conventions for RPC have words for, and the mesh's own for the rest."""
    found: dict[str, Any] = {
        "rpc.system.name": _SYSTEM,
        "rpc.method": span.name,
        "rpc.response.status_code": span.status,
        "mesh.caller": span.caller,
        "mesh.kept": span.why,
    }
    if error:
        found["error.type"] = span.status
    for name, value in (
        ("mesh.instance", span.instance),
        ("mesh.flags", span.flags),
        ("mesh.refused", span.refused),
        ("mesh.injected", span.injected),
        ("mesh.route", "" if span.route == "all" else span.route),
        ("mesh.rules", list(span.rules)),
    ):
        if value:
            found[name] = value
    for name, value in span.labels.items():
        found[f"mesh.label.{name}"] = value
    if span.kind == "client":
        found["mesh.attempts"] = span.attempt
    else:
        found["mesh.attempt"] = span.attempt
    if span.kind == "server":
        found["mesh.queue_ms"] = span.queue_us / 1e3
    if span.fault_us:
        found["mesh.fault_ms"] = span.fault_us / 1e3
    return found


def _own_version() -> str:
    try:
        return version("nats-mesh")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"

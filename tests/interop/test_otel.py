"""Spans for OpenTelemetry: programs that are not ours take them, and its own protocol says the same of them.

Rotel is such a program; OpenTelemetry's own collector, which `make collector` builds, is another, and where it is not
there its test is skipped. A receiver that reads the protocol's messages says the rest.
"""

from __future__ import annotations

import gzip
import http.server
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from nats_mesh import ApplicationError, Context, Service
from nats_mesh.policy import PolicySet, parse
from nats_mesh.telemetry import otel
from nats_mesh.telemetry.otel import MAX_WAITING, OtelExport
from nats_mesh.telemetry.span_messages import Chunk, encode_span
from nats_mesh.telemetry.span_parts import Span
from nats_mesh.testing import MemoryMesh
from tests.harness import eventually
from tests.tools import ROOT, require_tool

pytestmark = pytest.mark.anyio

COLLECTOR = Path(os.environ.get("TEST_COLLECTOR") or ROOT / "build" / "otelcol")
SAMPLED = """
apiVersion: mesh/v1
kind: Telemetry
metadata: {name: traces}
spec: {tracing: 100%, labels: {team: shop}}
"""


class Receiver:
    """Takes OTLP over HTTP, as the protocol says, and answers with ``status``."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.status = 200
        self.wait_s = 0.0
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                assert self.headers["Content-Type"] == "application/x-protobuf"
                time.sleep(receiver.wait_s)
                if receiver.status == 200:
                    receiver.requests.append(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(receiver.status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing is said of it."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def spans(self) -> list[tuple[dict[str, Any], Any]]:
        """Every span that came, each with what its resource says."""
        return [
            ({each.key: each.value.string_value for each in resource.resource.attributes}, span)
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def close(self) -> None:
        """Take no more."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Something that takes OTLP."""
    found = Receiver()
    yield found
    found.close()


def services() -> list[Service]:
    """front calls deep, which fails once."""
    policies = PolicySet.of(parse(SAMPLED))
    front, deep = (Service(name, version="1.2.0", policies=policies) for name in ("front", "deep"))
    left = [1]

    class Busy(ApplicationError, status="UNAVAILABLE"):
        pass

    @deep.endpoint(idempotent=True)
    async def get(ctx: Context) -> int:
        if left[0]:
            left[0] -= 1
            raise Busy("busy")
        return 5

    @front.endpoint()
    async def page(ctx: Context) -> int:
        value: int = await ctx.call("deep.get", returns=int, idempotent=True)
        return value

    return [deep, front]


@pytest.fixture
def sending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send at once, and not in a while."""
    monkeypatch.setattr(otel, "_EVERY_S", 0.05)
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


async def one_page(monkeypatch: pytest.MonkeyPatch, url: str) -> str:
    """One call of two hops with a retry, by members that send their spans to ``url``; the trace."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    mesh = MemoryMesh(*services())
    mesh.settings = msgspec.structs.replace(mesh.settings, otlp=True)
    async with mesh, mesh.client("web", policies=PolicySet.of(parse(SAMPLED))) as web:
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        assert await web.call("front.page", returns=int, headers=headers) == 5
    for export in list(otel._open):
        assert await anyio.to_thread.run_sync(export.join)
    return trace


async def test_a_receiver_gets_what_happened(
    receiver: Receiver, sending: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who called whom, in OpenTelemetry's words: kinds, parents, statuses, conventions for RPC, and whose they are.
    Whoever leaves sends the rest."""
    trace = await one_page(monkeypatch, receiver.url)
    await eventually(lambda: len(receiver.spans()) >= 7, lambda: [span.name for _, span in receiver.spans()])
    told = receiver.spans()
    assert len(told) == 7
    assert {span.trace_id.hex() for _, span in told} == {trace}
    by_id = {span.span_id: (whose, span) for whose, span in told}
    assert len(by_id) == 7
    shape = sorted(
        (
            whose["service.name"],
            span.name,
            {2: "SERVER", 3: "CLIENT"}[span.kind],
            {0: "UNSET", 2: "ERROR"}[span.status.code],
            by_id[span.parent_span_id][1].name if span.parent_span_id in by_id else span.parent_span_id.hex(),
        )
        for whose, span in told
    )
    assert shape == [
        ("deep", "deep/get", "SERVER", "ERROR", "deep/get"),
        ("deep", "deep/get", "SERVER", "UNSET", "deep/get"),
        ("front", "deep/get", "CLIENT", "ERROR", "deep/get"),
        ("front", "deep/get", "CLIENT", "UNSET", "deep/get"),
        ("front", "deep/get", "CLIENT", "UNSET", "front/page"),
        ("front", "front/page", "SERVER", "UNSET", "front/page"),
        ("web", "front/page", "CLIENT", "UNSET", "00f067aa0ba902b7"),
    ]
    for whose, span in told:
        said = {each.key: each.value for each in span.attributes}
        assert said["rpc.system.name"].string_value == "nats_mesh"
        assert said["rpc.method"].string_value == span.name
        assert said["mesh.label.team"].string_value == "shop"
        assert ("error.type" in said) == (span.status.code == 2)
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
        assert whose["service.namespace"] == "default"
        assert whose["service.instance.id"]
        assert whose["telemetry.sdk.name"] == "opentelemetry"
    assert {whose["service.version"] for whose, _ in told} == {"1.2.0", "0.0.0"}


def rotel(port: int, folder: Path) -> list[str]:
    """A receiver that is quickly had: Rust, by Streamfold; `.ci/run` installs it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        unused = probe.getsockname()[1]
    return [
        require_tool("rotel-agent"), "start", "--exporter=blackhole", "--debug-log=traces",
        "--debug-log-verbosity=detailed", f"--otlp-http-endpoint=127.0.0.1:{port}",
        f"--otlp-grpc-endpoint=127.0.0.1:{unused}", f"--pid-file={folder / 'pid'}",
    ]  # fmt: skip


def otelcol(port: int, folder: Path) -> list[str]:
    """OpenTelemetry's own collector, which takes Go and minutes to build: `make collector`, and so `make verify`."""
    if not COLLECTOR.exists():
        pytest.skip(
            "there is no collector of OpenTelemetry's: make collector builds it, and make verify asks for it"
        )
    config = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}},
        "exporters": {"debug": {"verbosity": "detailed"}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["debug"]}},
        },
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return [str(COLLECTOR), f"--config=file:{path}"]


@pytest.fixture(params=[rotel, otelcol])
def collector(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Somebody else's program that takes OTLP; where, and the log that it writes them to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command, log = request.param(port, tmp_path), tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.terminate()
        process.wait(10)


def answers(url: str) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 1.0).close()
    except OSError:
        return False
    return True


async def test_programs_that_are_not_ours_take_them(
    collector: tuple[str, Path], sending: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they write of them is what happened: names, kinds, parents, statuses, attributes and resource."""
    url, log = collector
    await eventually(lambda: answers(url), log.read_text)
    trace = await one_page(monkeypatch, url)

    def written() -> list[str]:
        return re.findall(r"^Span #\d+$", log.read_text(), re.MULTILINE)

    def of(what: str) -> list[str]:
        return re.findall(rf"^    {what} +: (\S*)$", log.read_text(), re.MULTILINE)

    await eventually(lambda: len(written()) >= 7, log.read_text)
    text = log.read_text()
    assert len(written()) == 7
    assert of("Trace ID") == [trace] * 7
    kinds = [kind.removeprefix("SPAN_KIND_").lower() for kind in of("Kind")]
    assert sorted(kinds) == ["client"] * 4 + ["server"] * 3
    codes = [code.removeprefix("STATUS_CODE_").lower() for code in of("Status code")]
    assert sorted(codes) == ["error"] * 2 + ["unset"] * 5
    ids = set(of("ID"))
    assert len(ids) == 7
    assert sorted(parent in ids for parent in of("Parent ID")) == [False] + [True] * 6
    for said in (
        "-> service.name: Str(front)", "-> service.version: Str(1.2.0)", "-> rpc.system.name: Str(nats_mesh)",
        "-> rpc.method: Str(deep/get)", "-> error.type: Str(UNAVAILABLE)", "-> mesh.attempts: Int(2)",
        "-> mesh.label.team: Str(shop)", "InstrumentationScope nats_mesh",
    ):  # fmt: skip
        assert said in text, said


# -- trouble ----------------------------------------------------------------------------------------


def a_span(number: int) -> Span:
    """Some span."""
    return Span(
        trace="1" * 32, id=f"{number:016x}", kind="server", service="s", endpoint="e", caller="c", start_us=1, took_us=1
    )  # fmt: skip


class Stuck:
    """An exporter that takes nothing until it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.taken = 0

    def export(self, spans: Any, /) -> Any:
        """Wait, and fail."""
        self.go.wait()
        self.taken += len(spans)
        raise RuntimeError("no")

    def shutdown(self) -> None:
        """Whoever waits need not any more."""
        self.go.set()


async def test_a_collector_that_does_not_answer_costs_nobody_anything() -> None:
    """Taking spans in never waits; what waits is bounded, the rest is counted, and the end comes all the same."""
    exporter = Stuck()
    export = OtelExport(exporter, lambda span: span, "s")
    start = time.monotonic()
    for number in range(100):
        export([Chunk(1, encode_span(a_span(number * 1000 + n)), False) for n in range(1000)], 0.0)
    assert time.monotonic() - start < 60.0
    assert len(export._waiting) <= MAX_WAITING
    export.close()
    exporter.go.set()
    assert await anyio.to_thread.run_sync(export.join)
    assert export.sent == 0
    assert export.dropped == 100_000


class Taker:
    """An exporter that takes everything."""

    def __init__(self) -> None:
        self.taken: list[Span] = []

    def export(self, spans: Any, /) -> Any:
        """All of it."""
        self.taken += spans
        return type("Result", (), {"name": "SUCCESS"})

    def shutdown(self) -> None:
        """Nothing to end."""


async def test_a_span_that_cannot_be_read_costs_no_other() -> None:
    """Whatever found its way into one, its thread lives on, and what comes before and behind it is sent."""
    exporter = Taker()
    export = OtelExport(exporter, lambda span: span, "s")
    good = Chunk(1, encode_span(a_span(1)), False)
    odd = encode_span(msgspec.structs.replace(a_span(2), instance="\x1b[2J"))
    export([good, Chunk(1, odd, False), Chunk(1, b"{", True), good], 0.0)
    export.close()
    assert await anyio.to_thread.run_sync(export.join)
    assert len(exporter.taken) == export.sent == 2
    assert export.dropped == 2


async def test_calls_go_on_while_the_collector_fails(
    receiver: Receiver, sending: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses everything: calls are answered as ever, and nothing of it reaches them."""
    receiver.status = 400
    await one_page(monkeypatch, receiver.url)
    assert receiver.requests == []


async def test_without_the_extra_it_is_said_and_calls_go_on(
    sending: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """How to install it, in the log."""
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    await one_page(monkeypatch, "http://127.0.0.1:1")
    assert "pip install 'nats-mesh[otel]'" in caplog.text

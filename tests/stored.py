"""A policy store for tests: an operator on the bus, documents for it, and what members made of them."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from nats_mesh import Mesh
from nats_mesh.core.presence import Standing
from nats_mesh.policy import PolicySet
from nats_mesh.policy.bus.store import Applied, Change, PolicyStore
from nats_mesh.policy.bus.sync import PolicySync
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.wire.kv_log import KvLog
from nats_mesh.wire.loop import future_maker
from nats_mesh.wire.nats_transport import connect
from nats_mesh.wire.transport import Connector

__all__ = ["Operator", "destination", "document", "followed", "limit", "operator", "standing", "sync_of"]


def document(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> bytes:
    """A document as the store keeps it."""
    body = {"apiVersion": "mesh/v1", "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}
    return json.dumps(body, separators=(",", ":")).encode()


def destination(name: str, timeout: str = "2s", service: str | None = None) -> bytes:
    """A Destination of a service that is called as the policy, unless said otherwise."""
    return document("Destination", name, {"target": {"service": service or name}, "timeout": timeout})


def limit(name: str, at_most: int, service: str | None = None) -> bytes:
    """A Limit, likewise."""
    return document(
        "Limit", name, {"target": {"service": service or name}, "concurrency": {"limit": at_most}}
    )


class Operator:
    """Somebody with all rights, and an open store."""

    def __init__(self, mesh: Mesh, store: PolicyStore) -> None:
        self.mesh = mesh
        self.store = store
        client = mesh.client
        self.log = KvLog(store.subjects.policy_bucket, transport=client.transport, mux=client.mux)

    async def put(self, *values: bytes, delete: tuple[str, ...] = (), message: str = "") -> Applied:
        """Store documents under the keys they belong to, whatever stands there; and delete others."""
        expected = (await self.store.snapshot()).expected
        changes = []
        for value in values:
            said = json.loads(value)
            key = f"{said['kind']}.{said['metadata']['name']}"
            changes.append(Change(key, value, expected.get(key, 0)))
        changes += [Change(key, None, expected.get(key, 0)) for key in delete]
        return await self.store.apply(changes, message=message)

    async def raw(self, key: str, value: bytes, lines: str = "") -> None:
        """Write as a program that knows nothing of policies does: no check, whatever headers.

        Returns when it is stored: that the server has the message (a fence) is no promise that a read finds it.
        """
        mux, subject = self.mesh.client.mux, f"{self.log.prefix}{key}"
        head = f"NATS/1.0\r\n{lines}\r\n".encode() if lines else b""
        inbox, stored = mux.inbox("$JS"), future_maker()()
        number = mux.expect(inbox, subject, stored, math.inf)
        try:
            self.mesh.client.transport.publish(subject, value, f"{inbox}{number}", head)
            with anyio.fail_after(20):
                _, answer = await stored
        finally:
            mux.forget(inbox, number)
        said = json.loads(answer)
        assert "error" not in said, said


@asynccontextmanager
async def operator(
    url: str | tuple[str, ...],
    namespace: str,
    *,
    connector: Connector = connect,
    make: bool = True,
    **options: Any,
) -> AsyncIterator[Operator]:
    """An operator called ``ops``, and the store, made where it is not there."""
    settings = Settings(servers=(url,) if isinstance(url, str) else url, namespace=namespace)
    async with Mesh("ops", settings=settings, connector=connector, policies=False) as mesh:
        client = mesh.client
        store = PolicyStore(namespace, transport=client.transport, mux=client.mux, **options)
        if make:
            await store.open()
        yield Operator(mesh, store)


def _follower(member: Mesh | Instance) -> Any:
    follower = member._follower
    assert follower is not None
    return follower


def followed(member: Mesh | Instance) -> PolicySet:
    """The policies that are in effect at ``member``."""
    current: PolicySet = _follower(member).current
    return current


def standing(member: Mesh | Instance) -> Standing:
    """Where ``member`` stands."""
    found: Standing = _follower(member).standing
    return found


def sync_of(member: Mesh | Instance) -> PolicySync:
    """What follows the bus for ``member``."""
    sync = _follower(member)._sync
    assert isinstance(sync, PolicySync)
    return sync

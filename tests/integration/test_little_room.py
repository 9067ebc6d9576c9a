"""A server that has little to set aside: what the mesh keeps in JetStream is made smaller, and only then refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nats_mesh import Mesh
from nats_mesh.clock import SYSTEM_CLOCK
from nats_mesh.settings import Settings
from nats_mesh.testing import NatsServer
from nats_mesh.testing.plugin import NatsServerFactory
from nats_mesh.wire.kv import KvBucket, KvFullError
from nats_mesh.wire.kv_log import KvLog
from tests.stored import destination, operator

pytestmark = pytest.mark.anyio

_MIB = 1 << 20


@pytest.fixture
def small(nats_server_factory: NatsServerFactory) -> NatsServer:
    """A server that sets 40 MB aside, and no more."""
    return nats_server_factory(config="jetstream { max_file_store: 40MB }")


async def _config(mesh: Mesh, bucket: str) -> Any:
    log = KvLog(bucket, transport=mesh.client.transport, mux=mesh.client.mux)
    return json.loads(await log.api(f"STREAM.INFO.{log.stream}", None, timeout_s=5.0))["config"]


async def test_a_bucket_gets_the_size_that_there_is_room_for(small: NatsServer) -> None:
    """The largest of its sizes that fits; with none, an error that says what is missing."""
    async with Mesh("web", settings=Settings(servers=(small.url,))) as mesh:

        async def make(name: str) -> None:
            bucket = KvBucket(
                name, transport=mesh.client.transport, mux=mesh.client.mux, now=SYSTEM_CLOCK.monotonic
            )
            await bucket.make(
                max_age_s=60.0,
                sizes=(256 * _MIB, 30 * _MIB, 6 * _MIB),
                max_value_bytes=1000,
                replicas=1,
                description="",
                timeout_s=5.0,
            )

        await make("one")
        assert (await _config(mesh, "one"))["max_bytes"] == 30 * _MIB
        await make("two")
        assert (await _config(mesh, "two"))["max_bytes"] == 6 * _MIB
        await make("two")
        with pytest.raises(KvFullError, match="three: insufficient storage"):
            await make("three")


async def test_policies_are_kept_where_there_is_little_room(small: NatsServer) -> None:
    """The bucket of policies is as small as it must be, and takes a change."""
    async with operator(small.url, "default") as ops:
        assert (await _config(ops.mesh, "mesh_policy_default"))["max_bytes"] == 16 * _MIB
        await ops.put(destination("orders"))


async def test_a_server_in_a_folder_that_goes_sets_aside_more_than_the_disk_has(
    nats_server_factory: NatsServerFactory,
) -> None:
    """However many namespaces tests make on it; a `jetstream` block of the user's own stands."""
    async with Mesh("web", settings=Settings(servers=(nats_server_factory().url,))) as mesh:
        bucket = KvBucket(
            "vast", transport=mesh.client.transport, mux=mesh.client.mux, now=SYSTEM_CLOCK.monotonic
        )
        await bucket.make(
            max_age_s=60.0,
            sizes=(8 << 40,),
            max_value_bytes=1000,
            replicas=1,
            description="",
            timeout_s=5.0,
        )
        assert (await _config(mesh, "vast"))["max_bytes"] == 8 << 40

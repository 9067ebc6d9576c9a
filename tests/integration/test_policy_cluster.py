"""The policy store on three clustered servers: copies on all, a leader that dies in mid-update."""

from __future__ import annotations

import json
from collections.abc import Callable, Sized

import anyio
import pytest

from nats_mesh import Mesh
from nats_mesh.policy.bus.store import Applied, Change, ConflictError
from nats_mesh.settings import Settings
from nats_mesh.testing import NatsCluster, NatsServer
from nats_mesh.wire.kv import KvError
from tests.harness import eventually
from tests.stored import Operator, destination, followed, limit, operator, standing

pytestmark = pytest.mark.anyio

#: How long policy writes may be away (seconds). Where the bucket's leader is killed it is the servers that take their
#: time: a follower waits 4 to 9 s for a heartbeat before it stands for election, and no setting shortens that.
WRITES_S = {"a follower is killed": 5.0, "the leader ends": 5.0, "the leader is killed": 15.0}


async def leader_of(ops: Operator, cluster: NatsCluster) -> NatsServer:
    """The server that leads the bucket."""
    body = await ops.log.api(f"STREAM.INFO.{ops.log.stream}", None, timeout_s=5.0)
    name = json.loads(body)["cluster"]["leader"]
    return next(server for server in cluster.servers if server.name == name)


async def write_until_it_takes(ops: Operator, n: int) -> Applied:
    """Store one document as an operator would who tries again; what may have been stored is looked at."""
    key, value = f"Destination.d{n}", destination(f"d{n}")
    while True:
        try:
            return await ops.store.apply([Change(key, value), Change(f"Limit.d{n}", limit(f"d{n}", 5))])
        except ConflictError as error:
            found = error.found
        except KvError:
            await anyio.sleep(0.05)
            continue
        # The one that was not answered. What the conflict names is looked at: another copy may be behind.
        assert found is not None
        assert (found.key, found.value) == (key, value)
        return Applied(epoch=0, sequence=found.sequence, sequences={}, change="", atomic=True)


@pytest.mark.parametrize("what", WRITES_S)
async def test_a_server_goes_in_mid_update(nats_cluster: NatsCluster, mesh_namespace: str, what: str) -> None:
    """Writes go on, members have every change as a whole, and never half of one."""
    settings = Settings(servers=tuple(nats_cluster.urls), namespace=mesh_namespace)
    with anyio.fail_after(120):
        async with (
            operator(tuple(nats_cluster.urls), mesh_namespace, timeout_s=1.0) as ops,
            Mesh("web", settings=settings) as one,
            Mesh("web", settings=settings) as two,
        ):
            assert ops.store.bucket is not None
            assert ops.store.bucket.replicas == 3
            halves: list[int] = []
            for mesh in (one, two):
                follower = mesh._follower
                assert follower is not None
                apply = follower._apply

                def check(policies: Sized, apply: Callable[..., object] = apply) -> None:
                    if len(policies) % 2:
                        halves.append(len(policies))
                    apply(policies)

                follower._apply = check
            for n in range(5):
                await write_until_it_takes(ops, n)
            longest_s = 0.0
            written: list[int] = []
            async with anyio.create_task_group() as group:

                async def write() -> None:
                    nonlocal longest_s
                    for n in range(5, 60):
                        start = anyio.current_time()
                        await write_until_it_takes(ops, n)
                        longest_s = max(longest_s, anyio.current_time() - start)
                        written.append(n)
                        await anyio.sleep(0.02)

                group.start_soon(write)
                await eventually(lambda: len(written) > 5)
                # As late as can be: it may have been another before.
                leader = await leader_of(ops, nats_cluster)
                other = next(server for server in nats_cluster.servers if server is not leader)
                if what == "the leader ends":
                    await leader.stop()
                else:
                    await (leader if what == "the leader is killed" else other).kill()
            assert longest_s < WRITES_S[what]
            for mesh in (one, two):
                await eventually(lambda mesh=mesh: len(followed(mesh)) == 120, lambda: standing(one))  # type: ignore[misc]  # a default holds what the loop's variable is now
                assert standing(mesh).rejected == 0
            assert halves == []

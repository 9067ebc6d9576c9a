"""What tests of rollouts stand on: a service in two versions, its policies on the bus, and a load on it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio

from nats_mesh import ApplicationError, CallError, Context, Mesh, Service, Status
from nats_mesh.core.rollout import Phase, Progress
from nats_mesh.policy.bus.documents import read_document
from nats_mesh.policy.bus.plan import Document
from nats_mesh.rollout import Entry, Runner, Starting, Told
from nats_mesh.rollout.starting import Started
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from tests.harness import PATIENCE_S
from tests.stored import Operator, document, operator

__all__ = ["SUBSETS", "Stage", "rollout", "staged", "until"]

SUBSETS = document(
    "Destination",
    "shop",
    {
        "target": {"service": "shop"},
        "subsets": {"v1": {"version": "1.0.0"}, "v2": {"labels": {"version": "v2"}}},
        "breaker": "off",
        "retry": {"attempts": 1},
    },
)


def rollout(name: str = "shop", service: str = "shop", **spec: Any) -> Document:
    """A rollout from v1 to v2, one second a step, with a gate on errors unless said otherwise."""
    said: dict[str, Any] = {
        "target": {"service": service},
        "from": "v1",
        "to": "v2",
        "steps": [{"weight": 5, "for": "1s"}, {"weight": 50, "for": "1s"}, {"weight": 100}],
        "gates": {"errorRate": {"max": "10%", "minCalls": 3}},
        "interval": "1s",
        **spec,
    }
    said = {key: value for key, value in said.items() if value is not None}
    value = document("Rollout", name, said)
    policy = read_document(f"Rollout.{name}", value, 1, namespace="any")
    return Document(policy=policy, value=value)


class Stage:
    """The shop, its store, its callers' ledger, and what runners told."""

    def __init__(self, settings: Settings, op: Operator, stack: AsyncExitStack) -> None:
        self.settings = settings
        self.op = op
        self.told: list[Told] = []
        #: Who answered each call, by user, in order; and how calls failed.
        self.answers: dict[str, list[str]] = {}
        self.failures: list[tuple[float, CallError]] = []
        self.calls = 0
        self.bad: set[str] = set()
        self.starting = Starting(op.mesh, by="ops")
        self._stack = stack

    async def version(self, subset: str) -> Instance:
        """One more instance; it fails while its subset is in ``bad``."""
        number = subset.removeprefix("v")
        service = Service("shop", version=f"{number}.0.0", labels={"version": subset})

        @service.endpoint(idempotent=True)
        async def buy(ctx: Context) -> str:
            if subset in self.bad:
                raise ApplicationError("bad", status=Status.INTERNAL)
            return subset

        return await self._stack.enter_async_context(Instance(service, settings=self.settings))

    async def caller(self, name: str = "web") -> Mesh:
        """One more caller."""
        return await self._stack.enter_async_context(Mesh(name, settings=self.settings))

    async def runner(self, name: str, **options: Any) -> Runner:
        """A member that could carry out rollouts."""
        mesh = await self.caller(name)
        return Runner(mesh, look_on=self.told.append, **{"lease_s": 1.5, "renew_s": 0.1, **options})

    async def start(self, given: Document | str | None = None) -> Started:
        """Start a rollout."""
        return await self.starting.start(rollout() if given is None else given)

    async def entry(self, service: str = "shop") -> Entry:
        """What is kept of it."""
        entry = await self.starting.book.read(service)
        assert entry is not None
        return entry

    async def at(self) -> Progress:
        """How far it is."""
        return (await self.entry()).record.progress

    async def phase(self, *phases: Phase) -> Progress:
        """How far it is, once it is in one of these phases."""
        found: Progress = await until(self.at, lambda at: at.phase in phases)
        return found

    async def route(self, key: str = "Route.shop") -> list[dict[str, Any]]:
        """The rules of the route as it stands."""
        found = (await self.op.store.snapshot()).policies[key]
        assert found.value is not None
        rules: list[dict[str, Any]] = json.loads(found.value)["spec"]["rules"]
        return rules

    async def writers(self, key: str = "Route.shop") -> list[tuple[str, str]]:
        """Who wrote the route, and why, in order."""
        return [(each.operator, each.message) for each in await self.op.store.history(key)]

    def words(self) -> list[str]:
        """The kinds of what was told."""
        return [each.kind.removeprefix("rollout.") for each in self.told]

    async def load(self, mesh: Mesh, per_s: float = 100.0, users: int = 50) -> None:
        """Calls at a steady rate, of one user after another, until cancelled."""
        start = time.monotonic()
        sent = 0
        async with anyio.create_task_group() as tasks:
            while True:
                while sent < (time.monotonic() - start) * per_s:
                    tasks.start_soon(self._call, mesh, f"user-{sent % users}")
                    sent += 1
                await anyio.sleep(0.01)

    async def _call(self, mesh: Mesh, user: str) -> None:
        self.calls += 1
        try:
            answer = await mesh.call("shop.buy", returns=str, headers={"end-user": user}, timeout=5.0)
        except CallError as error:
            self.failures.append((time.monotonic(), error))
        else:
            self.answers.setdefault(user, []).append(answer)


async def until(read: Callable[[], Awaitable[Any]], condition: Callable[[Any], object]) -> Any:
    """What ``read`` returns, once it is so."""
    give_up = anyio.current_time() + PATIENCE_S
    while True:
        found = await read()
        if condition(found):
            return found
        assert anyio.current_time() < give_up, f"it never came true: {found!r}"
        await anyio.sleep(0.02)


@asynccontextmanager
async def staged(
    url: str | tuple[str, ...], namespace: str, *, versions: tuple[str, ...] = ("v1", "v2"), **options: Any
) -> AsyncIterator[Stage]:
    """A shop whose subsets are known, with an instance of each version."""
    servers = (url,) if isinstance(url, str) else url
    settings = Settings(servers=servers, namespace=namespace, plugins=False)
    async with AsyncExitStack() as stack:
        op = await stack.enter_async_context(operator(servers, namespace, **options))
        await op.put(SUBSETS)
        stage = Stage(settings, op, stack)
        for version in versions:
            await stage.version(version)
        yield stage

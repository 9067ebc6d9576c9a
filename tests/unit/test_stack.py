"""The order that the stack tells is the order in which a call is handled."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from nats_mesh import CircuitOpenError, CodecError, Next, RemoteError, Reply, Request, Service
from nats_mesh.calling.exchange import Target
from nats_mesh.layers.stack import INBOUND, OUTBOUND
from nats_mesh.policy import PolicySet, parse
from nats_mesh.testing import MemoryMesh, run_virtual

POLICY = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: everything}
spec:
  idempotent: true
  retry: {attempts: 2, perTryTimeout: 1s}
  breaker: {consecutive: 1}
  hedge: {delay: 100ms, maxRatio: 100%}
"""


class Picks:
    """In a balancer's place: counts who asks, and leaves every attempt to the queue group."""

    def __init__(self) -> None:
        self.count = 0

    def pick(self, now: float, request: Request, avoid: str) -> None:
        """One more."""
        self.count += 1


class Watch:
    """An interceptor that notes what it sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, bool]] = []

    async def __call__(self, request: Request, proceed: Next) -> Reply[Any]:
        self.seen.append((request.value, request.deadline > 0.0))
        return await proceed(request)


def service() -> Service:
    """One endpoint that fails, one that takes its time."""
    made = Service("shop", version="1.0.0")

    @made.endpoint()
    async def fail(value: Any) -> None:
        raise RuntimeError("on purpose")

    @made.endpoint()
    async def nap(seconds: float) -> str:
        await anyio.sleep(seconds)
        return "done"

    return made


def names(side: str) -> list[str]:
    """The layers of one side."""
    return [position.name for position in (OUTBOUND if side == "outbound" else INBOUND)]


@pytest.mark.parametrize("side", ["outbound", "inbound"])
def test_every_layer_has_a_name_of_its_own_and_a_reason(side: str) -> None:
    """A reason says what the layer must sit above, below or around; only the work itself needs none."""
    positions = OUTBOUND if side == "outbound" else INBOUND
    assert len(set(names(side))) == len(positions)
    assert all(
        each.why.startswith(("above", "below", "around")) or each.name == "handler" for each in positions
    )


def test_a_reason_points_the_way_the_order_goes() -> None:
    """What a layer says that it sits above comes after it, what it says that it sits below comes before."""
    for positions in (OUTBOUND, INBOUND):
        order = [position.name for position in positions]
        for at, position in enumerate(positions):
            for clause in position.why.split("; "):
                word, _, rest = clause.partition(" ")
                said = [name for name in rest.partition(":")[0].replace(",", "").split() if name in order]
                for name in said:
                    assert word not in ("above", "below") or (order.index(name) > at) == (word == "above"), (
                        clause
                    )


def test_encode_stands_below_the_interceptors_and_above_the_breaker() -> None:
    """They see the typed value, with its deadline; what cannot be encoded is told, whatever the circuit thinks."""
    order = names("outbound")
    assert (
        order.index("deadline") < order.index("interceptors") < order.index("encode") < order.index("breaker")
    )
    watch = Watch()

    async def work() -> None:
        async with MemoryMesh(service()) as mesh, client(mesh, watch) as caller:
            with pytest.raises(RemoteError):
                await caller.call("shop.fail", 1)
            with pytest.raises(CircuitOpenError):
                await caller.call("shop.fail", 2)
            with pytest.raises(CodecError):
                await caller.call("shop.fail", watch)

    run_virtual(work)
    assert watch.seen == [(1, True), (2, True), (watch, True)]


def test_the_breaker_stands_above_the_balancer() -> None:
    """No instance is chosen for a call that the circuit refuses."""
    order = names("outbound")
    assert order.index("breaker") < order.index("balance")
    picks = Picks()

    async def work() -> None:
        async with MemoryMesh(service()) as mesh, client(mesh) as caller:
            with_picks(caller, "shop.fail", picks)
            with pytest.raises(RemoteError):
                await caller.call("shop.fail", 1)
            assert picks.count == 1
            with pytest.raises(CircuitOpenError):
                await caller.call("shop.fail", 2)

    run_virtual(work)
    assert picks.count == 1


def test_a_hedge_stands_above_the_balancer_and_below_the_retries() -> None:
    """The second request of a race is balanced anew, within the time of one attempt, and is no retry."""
    order = names("outbound")
    assert (
        order.index("retry") < order.index("attempt-timeout") < order.index("hedge") < order.index("balance")
    )
    picks = Picks()

    async def work() -> None:
        async with MemoryMesh(service()) as mesh, client(mesh) as caller:
            target = with_picks(caller, "shop.nap", picks)
            reply = await caller.request("shop.nap", 0.5)
            assert (reply.value, reply.attempts, target.hedges) == ("done", 2, 1)
            assert target.retries is not None
            assert target.retries.made == 0

    run_virtual(work)
    assert picks.count == 2


def client(mesh: MemoryMesh, *interceptors: Any) -> Any:
    """A caller under the policy."""
    policies = PolicySet.of(parse(POLICY))
    return mesh.client("web", policies=policies, interceptors=interceptors)


def with_picks(caller: Any, name: str, picks: Picks) -> Target:
    """The caller's target, with ``picks`` for its balancer."""
    target: Target = caller.client._known(name)
    target.balance = picks  # type: ignore[assignment]  # all that is asked of it
    return target

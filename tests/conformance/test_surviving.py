"""Calls that survive: retries, budgets and breakers over every transport, as policies and endpoints ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from nats_mesh import (
    ApplicationError,
    CallError,
    CircuitOpenError,
    ConfigError,
    Context,
    DeadlineExceededError,
    Executed,
    Next,
    NoInstancesError,
    OverloadedError,
    Reply,
    Request,
    Service,
    Status,
)
from tests.harness import PATIENCE_S, Bus, eventually, policies

pytestmark = pytest.mark.anyio


class Flaky:
    """A service whose endpoints fail as they are told, and note every attempt that reached them."""

    def __init__(self, name: str = "flaky") -> None:
        self.service = service = Service(name, version="1.0.0")
        self.attempts: list[int] = []
        self.fail_first = 0
        self.status = Status.UNAVAILABLE
        self.hang_first = 0

        async def run(ctx: Context) -> int:
            self.attempts.append(ctx.attempt)
            if len(self.attempts) <= self.hang_first:
                await anyio.sleep_forever()
            if len(self.attempts) <= self.fail_first:
                raise ApplicationError("not now", status=self.status)
            return len(self.attempts)

        @service.endpoint(idempotent=True)
        async def read(ctx: Context) -> int:
            return await run(ctx)

        @service.endpoint()
        async def write(ctx: Context) -> int:
            return await run(ctx)


RETRY_FIVE = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: flaky}
spec:
  target: {service: flaky}
  retry:
    attempts: 5
    backoff: {initial: 1ms, max: 2ms}
    budget: {ratio: 100%, floor: 100/s}
"""


async def test_retry_up_to_four(bus: Bus, tmp_path: Path) -> None:
    """What succeeds on its fourth attempt succeeds for a caller that may retry four times; each says which it is."""
    flaky = Flaky()
    await bus.serve(flaky.service)
    caller = await bus.caller("cart", policies=policies(tmp_path, RETRY_FIVE))
    for _ in range(5):
        flaky.attempts.clear()
        flaky.fail_first = 3
        reply = await caller.request("flaky.read", returns=int, idempotent=True)
        assert (reply.value, reply.attempts) == (4, 4)
        assert flaky.attempts == [1, 2, 3, 4]


async def test_retries_end(bus: Bus, tmp_path: Path) -> None:
    """What goes on failing fails for its caller, who learns how often it was tried."""
    flaky = Flaky()
    flaky.fail_first = 100
    await bus.serve(flaky.service)
    caller = await bus.caller("cart", policies=policies(tmp_path, RETRY_FIVE))
    with pytest.raises(CallError) as caught:
        await caller.call("flaky.read", idempotent=True)
    assert (caught.value.status, caught.value.attempts) == (Status.UNAVAILABLE, 5)
    assert flaky.attempts == [1, 2, 3, 4, 5]


async def test_by_default_an_idempotent_call_gets_a_second_attempt(bus: Bus) -> None:
    """No policy at all: two attempts of what may run twice, one of what may not."""
    flaky = Flaky()
    flaky.fail_first = 1
    await bus.serve(flaky.service)
    assert await bus.mesh.call("flaky.write", idempotent=True, returns=int) == 2
    flaky.attempts.clear()
    with pytest.raises(CallError) as caught:
        await bus.mesh.call("flaky.write")
    assert (caught.value.status, caught.value.attempts) == (Status.UNAVAILABLE, 1)
    assert flaky.attempts == [1]


async def test_what_an_endpoint_declares_is_learned(bus: Bus) -> None:
    """An endpoint that says it may run twice is retried by callers that know it by name alone."""
    flaky = Flaky()
    await bus.serve(flaky.service)
    await bus.mesh.call("flaky.read")
    await eventually(lambda: bus.mesh.client._targets["flaky.read"].usual.idempotent)
    flaky.attempts.clear()
    flaky.fail_first = 1
    assert await bus.mesh.call("flaky.read", returns=int) == 2


async def test_a_call_may_say_no(bus: Bus) -> None:
    """What the call itself says wins over what the endpoint declares."""
    flaky = Flaky()
    await bus.serve(flaky.service)
    await bus.mesh.call("flaky.read")
    await eventually(lambda: bus.mesh.client._targets["flaky.read"].usual.idempotent)
    flaky.attempts.clear()
    flaky.fail_first = 1
    with pytest.raises(CallError):
        await bus.mesh.call("flaky.read", idempotent=False)
    assert flaky.attempts == [1]


@pytest.mark.parametrize(
    "status", [Status.NOT_FOUND, Status.INVALID_ARGUMENT, Status.PERMISSION_DENIED, Status.ABORTED]
)
async def test_an_answer_is_not_retried(bus: Bus, status: Status) -> None:
    """A status that another attempt would not change is the call's, at once."""
    flaky = Flaky()
    flaky.fail_first, flaky.status = 5, status
    await bus.serve(flaky.service)
    with pytest.raises(CallError) as caught:
        await bus.mesh.call("flaky.read", idempotent=True)
    assert (caught.value.status, caught.value.attempts) == (status, 1)
    assert flaky.attempts == [1]


async def test_an_attempt_that_hangs_leaves_time_for_another(bus: Bus) -> None:
    """Half the time for the first: the second finds an answer, and the handler that hung was stopped."""
    flaky = Flaky()
    flaky.hang_first = 1
    await bus.serve(flaky.service)
    reply = await bus.mesh.request("flaky.read", returns=int, idempotent=True, timeout=1.0)
    assert (reply.value, reply.attempts) == (2, 2)
    await bus.at_rest()


async def test_all_attempts_hang(bus: Bus) -> None:
    """The deadline of the call is the deadline of all its attempts together."""
    flaky = Flaky()
    flaky.hang_first = 10
    await bus.serve(flaky.service)
    with anyio.fail_after(PATIENCE_S), pytest.raises(DeadlineExceededError) as caught:
        await bus.mesh.call("flaky.read", idempotent=True, timeout=0.2)
    assert caught.value.attempts == 2
    await bus.at_rest()


async def test_a_full_instance_is_tried_again(bus: Bus) -> None:
    """A refusal that says when to come back is waited for, whatever the call is: nothing has run."""
    service = Service("narrow", version="1.0.0")
    entered, go = anyio.Event(), anyio.Event()

    @service.endpoint(concurrency=1)
    async def pass_through(wait: bool) -> str:
        if wait:
            entered.set()
            await go.wait()
        return "through"

    await bus.serve(service)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bus.mesh.call, "narrow.pass_through", True)
        await entered.wait()
        with pytest.raises(OverloadedError) as caught:
            await bus.mesh.call("narrow.pass_through", False)
        assert (caught.value.attempts, caught.value.executed) == (2, Executed.NO)
        assert bus.mesh.client._targets["narrow.pass_through"].retries.made == 1  # type: ignore[union-attr]  # there is one here
        go.set()
    assert await bus.mesh.call("narrow.pass_through", False) == "through"


async def test_nobody_there_is_said_soon(bus: Bus) -> None:
    """One more look after a moment, and then the truth: well before the deadline."""
    with pytest.raises(NoInstancesError) as caught:
        await bus.mesh.call("nobody.home", timeout=PATIENCE_S)
    assert (caught.value.attempts, caught.value.executed) == (2, Executed.NO)


async def test_the_retry_budget_bounds_a_storm(bus: Bus, tmp_path: Path) -> None:
    """Ten per cent and no floor: of a hundred calls that all fail, at most ten are tried again."""
    flaky = Flaky()
    flaky.fail_first = 10_000
    await bus.serve(flaky.service)
    text = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: flaky}
spec:
  target: {service: flaky}
  breaker: off
  retry: {attempts: 3, backoff: {initial: 0ms, max: 0ms}, budget: {ratio: 10%, floor: 0/s, window: 60s}}
"""
    caller = await bus.caller("cart", policies=policies(tmp_path, text))
    for _ in range(100):
        with pytest.raises(CallError):
            await caller.call("flaky.read", idempotent=True)
    assert 100 <= len(flaky.attempts) <= 110


BREAKER = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: flaky}
spec:
  target: {service: flaky}
  retry: {attempts: 1}
  breaker: {failureRatio: 75%, minCalls: 4, window: 10s, open: 60s}
"""


async def test_a_breaker_opens(bus: Bus, tmp_path: Path) -> None:
    """Four calls that fail, and the fifth is refused here: nothing is sent, and the error says when to come back."""
    flaky = Flaky()
    flaky.fail_first = 100
    await bus.serve(flaky.service)
    caller = await bus.caller("cart", policies=policies(tmp_path, BREAKER))
    for _ in range(4):
        with pytest.raises(CallError) as failed:
            await caller.call("flaky.read")
        assert not isinstance(failed.value, CircuitOpenError)
    with pytest.raises(CircuitOpenError) as caught:
        await caller.call("flaky.read")
    assert (caught.value.executed, caught.value.attempts, caught.value.service) == (Executed.NO, 0, "flaky")
    assert caught.value.retry_after_s is not None
    assert 0.0 < caught.value.retry_after_s <= 60.0 * 1.2
    assert len(flaky.attempts) == 4


async def test_a_breaker_is_its_endpoints_own(bus: Bus, tmp_path: Path) -> None:
    """One endpoint that fails takes no other with it."""
    flaky = Flaky()
    flaky.fail_first = 4
    await bus.serve(flaky.service)
    caller = await bus.caller("cart", policies=policies(tmp_path, BREAKER))
    for _ in range(4):
        with pytest.raises(CallError):
            await caller.call("flaky.read")
    with pytest.raises(CircuitOpenError):
        await caller.call("flaky.read")
    assert await caller.call("flaky.write", returns=int) == 5


@pytest.mark.parametrize("status", [Status.NOT_FOUND, Status.ALREADY_EXISTS, Status.RESOURCE_EXHAUSTED])
async def test_an_applications_no_is_no_failure(bus: Bus, tmp_path: Path, status: Status) -> None:
    """Statuses below 500 say that the service works: the circuit stays closed."""
    flaky = Flaky()
    flaky.fail_first, flaky.status = 100, status
    await bus.serve(flaky.service)
    caller = await bus.caller("cart", policies=policies(tmp_path, BREAKER))
    for _ in range(12):
        with pytest.raises(CallError) as caught:
            await caller.call("flaky.read")
        assert caught.value.status is status


async def test_nobody_there_opens_no_circuit(bus: Bus, tmp_path: Path) -> None:
    """No responders is no failure of a service: who comes back is called at once."""
    caller = await bus.caller("cart", policies=policies(tmp_path, BREAKER))
    for _ in range(12):
        with pytest.raises(NoInstancesError):
            await caller.call("flaky.read")
    await bus.serve(Flaky().service)
    assert await caller.call("flaky.read", returns=int) == 1


async def test_a_cancelled_probe_gives_its_permit_back(bus: Bus, tmp_path: Path) -> None:
    """A half-open circuit whose probe was given up by its caller lets the next one try."""
    flaky = Flaky()
    flaky.fail_first = 4
    await bus.serve(flaky.service)
    text = BREAKER.replace("open: 60s", "open: 1ms, jitter: 0%, permits: 1, successes: 1")
    caller = await bus.caller("cart", policies=policies(tmp_path, text))
    for _ in range(4):
        with pytest.raises(CallError):
            await caller.call("flaky.read")
    circuit = caller.client._targets["flaky.read"].circuit
    assert circuit is not None
    assert not circuit.breaker.closed
    await anyio.sleep(0.01)
    flaky.hang_first = 5
    with anyio.move_on_after(0.05):
        await caller.call("flaky.read")
    assert await caller.call("flaky.read", returns=int) == 6


async def test_changed_policies_take_effect(bus: Bus, tmp_path: Path) -> None:
    """The next call follows a file that was changed; one with a mistake changes nothing, and the reason is known."""
    flaky = Flaky()
    await bus.serve(flaky.service)
    folder = policies(tmp_path, RETRY_FIVE)
    caller = await bus.caller("cart", policies=folder)
    flaky.fail_first = 3
    assert await caller.call("flaky.read", returns=int, idempotent=True) == 4
    before = caller.client.outbound.policies.revision
    policies(tmp_path, RETRY_FIVE.replace("attempts: 5", "attempts: 1"))
    await eventually(lambda: caller.client.outbound.policies.revision != before)
    flaky.attempts.clear()
    with pytest.raises(CallError) as caught:
        await caller.call("flaky.read", idempotent=True)
    assert caught.value.attempts == 1
    policies(tmp_path, RETRY_FIVE.replace("attempts: 5", "attempts: none"))
    follower = caller._follower
    assert follower is not None
    await eventually(lambda: "attempts" in follower.rejected)
    flaky.attempts.clear()
    with pytest.raises(CallError) as caught:
        await caller.call("flaky.read", idempotent=True)
    assert caught.value.attempts == 1


async def test_a_target_that_no_change_concerns_keeps_its_layers(bus: Bus, tmp_path: Path) -> None:
    """New policies for others leave a target's breaker, with all it knows, as it is."""
    flaky = Flaky()
    await bus.serve(flaky.service)
    caller = await bus.caller("cart", policies=policies(tmp_path, BREAKER))
    await caller.call("flaky.read")
    target = caller.client._targets["flaky.read"]
    layers = (target.rules, target.circuit, target.retries)
    before = caller.client.outbound.policies.revision
    policies(tmp_path, BREAKER, BREAKER.replace("flaky", "other"))
    await eventually(lambda: caller.client.outbound.policies.revision != before)
    assert all(
        now is then for now, then in zip((target.rules, target.circuit, target.retries), layers, strict=True)
    )


async def test_what_may_have_run_is_never_said_not_to_have(bus: Bus) -> None:
    """The first attempt reached a handler, the second nobody: the call may have run, whatever its last attempt says."""
    flaky = Flaky()
    flaky.hang_first = 100
    await bus.serve(flaky.service)
    caller = await bus.caller("cart")
    errors: list[CallError] = []

    async def call() -> None:
        try:
            await caller.call("flaky.read", idempotent=True, timeout=0.4)
        except CallError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await eventually(lambda: len(flaky.attempts) == 2)
        await caller.client.close()
    assert [(error.executed, error.attempts) for error in errors] == [(Executed.MAYBE, 2)]


async def test_what_was_never_sent_is_no_failure_of_anybody(bus: Bus, tmp_path: Path) -> None:
    """An interceptor that eats all the time opens no circuit: nothing has reached the endpoint."""
    flaky = Flaky()
    await bus.serve(flaky.service)

    async def slow(request: Request, proceed: Next) -> Reply[Any]:
        await anyio.sleep(max(0.0, request.deadline - caller._clock.monotonic()) + 0.001)
        return await proceed(request)

    caller = await bus.caller("cart", policies=policies(tmp_path, BREAKER), interceptors=(slow,))
    for _ in range(6):
        with pytest.raises(DeadlineExceededError):
            await caller.call("flaky.read", timeout=0.002)
    circuit = caller.client._targets["flaky.read"].circuit
    assert circuit is not None
    assert circuit.breaker.closed
    assert flaky.attempts == []


@pytest.mark.parametrize("idempotent", ["no", 1, "yes"])
async def test_idempotent_is_yes_or_no(bus: Bus, idempotent: Any) -> None:
    """A word that is neither is refused, and nothing is sent."""
    flaky = Flaky()
    await bus.serve(flaky.service)
    with pytest.raises(ConfigError, match="idempotent must be True, False or None"):
        await bus.mesh.call("flaky.write", idempotent=idempotent)
    assert flaky.attempts == []

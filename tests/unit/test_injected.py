"""What is done to calls on purpose is named as that, wherever it is seen: last errors, slow calls, spans, reasons."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from nats_mesh import CallError, CircuitOpenError, DeadlineExceededError, Service
from nats_mesh.core.fault import EVERY, Fault
from nats_mesh.errors import Status
from nats_mesh.policy import PolicySet, parse
from nats_mesh.serving.instance import Instance
from nats_mesh.telemetry.slow import said
from nats_mesh.telemetry.spans import assemble
from nats_mesh.testing import MemoryMesh, run_virtual
from nats_mesh_cli.trace_text import waterfall
from nats_mesh_cli.why_calls import calls_of
from tests.unit.test_call_log import Heard, instance_of, policies, shop, slow_of
from tests.unit.test_traces import span

ROUTE = (
    "apiVersion: mesh/v1\nkind: Route\nmetadata: {{name: storm}}\n"
    "spec: {{target: {{service: stock}}, rules: [{{fault: {}}}]}}\n"
)


def inject(instance: Instance, **fault: Any) -> None:
    """As an operator's command does it."""
    instance.dispatcher.faults.set(EVERY, Fault(until=1e9, **fault))
    instance.dispatcher.compose()


def test_an_injected_delay_is_no_queue() -> None:
    """A slow call, its line in the log and the access log say how long a fault held it, apart from queue and handler;
    also of one that ends while it is held."""

    async def main() -> None:
        async with MemoryMesh(*shop(policies("slow: 200ms, accessLog: on"))) as mesh:
            own, heard = instance_of(mesh, "stock"), Heard()
            heard.listen(own)
            inject(own, delay_s=0.5)
            await mesh.call("stock.take", 0.1)
            (call,) = slow_of(mesh, "stock")
            assert call.fault_s == pytest.approx(0.5, abs=0.01)
            assert call.queue_s == pytest.approx(0.0, abs=0.01)
            assert call.own_s == call.handler_s == pytest.approx(0.1, abs=0.01)
            assert "injected delay 50" in said(call)
            (line,) = heard.of(reporter="destination")
            assert line.fault_ms == pytest.approx(500.0, abs=10.0)
            assert line.queue_ms == pytest.approx(0.0, abs=10.0)
            with pytest.raises(CallError):
                await mesh.call("stock.take", 0.1, timeout=0.3)
            await anyio.sleep(0.1)  # the instance is told that nobody waits any more
            late = slow_of(mesh, "stock")[-1]
            assert late.fault_s == pytest.approx(0.3, abs=0.02)
            assert late.queue_s + late.handler_s == pytest.approx(0.0, abs=0.02)

    run_virtual(main)


def test_a_call_that_nobody_delays_has_no_such_field() -> None:
    """A line of the access log has `fault_ms` only where there was a fault."""

    async def main() -> None:
        async with MemoryMesh(*shop(policies("accessLog: on"))) as mesh:
            heard = Heard()
            heard.listen(instance_of(mesh, "stock"))
            await mesh.call("stock.take", 0.1)
            (line,) = heard.lines
            assert line.fault_ms is msgspec.UNSET

    run_virtual(main)


def test_an_injected_abort_is_the_last_error_at_both_ends() -> None:
    """Whoever looks sees that an operator did it; what goes well afterwards does not take that back."""

    async def main() -> None:
        async with MemoryMesh(*shop(policies("slow: 9s"))) as mesh, mesh.client("web") as web:
            own = instance_of(mesh, "stock")
            inject(own, abort=Status.UNAVAILABLE)
            with pytest.raises(CallError):
                await web.call("stock.take", 0.1)
            own.dispatcher.faults.clear(EVERY)
            own.dispatcher.compose()
            await web.call("stock.take", 0.1)
            said = "UNAVAILABLE: an operator injected this error (nats-mesh fault)"
            assert own.stats.series("in", "stock", "take", "web").last_error == said
            assert web.stats.series("out", "stock", "take", "web").last_error == said

    run_virtual(main)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("{abort: {status: UNAVAILABLE}}", "UNAVAILABLE: Route/storm rules[0] fails this call on purpose"),
        (
            "{delay: {duration: 9s}}",
            "DEADLINE_EXCEEDED: Route/storm rules[0] delays it by 9 s on purpose, and it had 1 s",
        ),
    ],
)
def test_what_a_route_does_is_named_by_its_rule(fault: str, error: str) -> None:
    """The error and the last error of calls that a route's fault ends say which rule of which policy that was."""

    async def main() -> None:
        rules = PolicySet.of(parse(ROUTE.format(fault)))
        async with MemoryMesh(*shop(policies("slow: 9s"))) as mesh, mesh.client("web", policies=rules) as web:
            with pytest.raises(CallError) as caught:
                await web.call("stock.take", 0.1, timeout=1.0)
            assert caught.value.message in error
            assert web.stats.series("out", "stock", "take", "web").last_error == error

    run_virtual(main)


def test_what_opened_a_circuit_stays_the_last_error() -> None:
    """A call that a circuit refused never came anywhere, and says nothing of what is wrong there."""

    async def main() -> None:
        service = Service("till", version="1.0.0")

        @service.endpoint()
        async def pay() -> None:
            raise ValueError("secret")

        async with MemoryMesh(service) as mesh, mesh.client("web") as web:
            for _ in range(40):
                with pytest.raises(CallError) as caught:
                    await web.call("till.pay")
            assert isinstance(caught.value, CircuitOpenError)
            assert "; next try in " in caught.value.message
            series = web.stats.series("out", "till", "pay", "web")
            assert series.last_error == "INTERNAL, as its instance answered"
            assert series.flagged["UNAVAILABLE", "UO"] > 0

    run_virtual(main)


def test_texts_of_handlers_are_in_no_last_error() -> None:
    """Anybody may ask for statistics: what a handler said to its caller stays between them."""

    async def main() -> None:
        service = Service("till", version="1.0.0")

        @service.endpoint()
        async def pay() -> None:
            raise CallError("card 4242", status=Status.UNAVAILABLE)

        async with MemoryMesh(service) as mesh, mesh.client("web") as web:
            with pytest.raises(CallError, match="card 4242"):
                await web.call("till.pay")
            own = instance_of(mesh, "till")
            assert (
                own.stats.series("in", "till", "pay", "web").last_error
                == "UNAVAILABLE: the handler raised CallError"
            )
            there = web.stats.series("out", "till", "pay", "web").last_error
            assert there == "UNAVAILABLE, as its instance answered"

    run_virtual(main)


HELD = ROUTE.format("{delay: {duration: 10ms}}")


@pytest.mark.parametrize(
    ("error", "policy", "flags"),
    [
        (CallError("card 4242", status=Status.UNAVAILABLE), "", "URX"),
        (CallError("card 4242", status=Status.UNAVAILABLE), HELD, "URX,DI"),
        (CallError("card 4242", status=Status.DEADLINE_EXCEEDED), "", "UT,URX"),
        (DeadlineExceededError("card 4242"), HELD, "UT,URX,DI"),
        (CallError("card 4242", status=Status.INTERNAL), HELD, "DI"),
    ],
)
def test_what_else_was_done_to_a_call_tells_nobody_what_its_handler_said(
    error: CallError, policy: str, flags: str
) -> None:
    """Attempts that were used up, a delay on purpose, a status that the mesh has, too: whatever flags a call has, the
    text of its error stays with its caller."""

    async def main() -> None:
        service = Service("stock", version="1.0.0")

        @service.endpoint()
        async def take() -> None:
            raise error

        rules = PolicySet.of(parse(policy)) if policy else None
        async with MemoryMesh(service) as mesh, mesh.client("web", policies=rules) as web:
            with pytest.raises(CallError, match="card 4242"):
                await web.call("stock.take", idempotent=True)
            series = web.stats.series("out", "stock", "take", "web")
            assert set(series.flagged) == {(str(error.status), flags)}
            assert series.last_error == f"{error.status}, as its instance answered"
            assert (
                "4242" not in instance_of(mesh, "stock").stats.series("in", "stock", "take", "web").last_error
            )

    run_virtual(main)


def told(*spans: Any) -> list[tuple[str, str]]:
    """The steps of the one call that these spans tell of."""
    (call,) = calls_of(assemble(spans))
    return [(step["layer"], step["happened"]) for step in call["steps"]]


def test_why_names_an_operators_abort_and_no_handler() -> None:
    """The handler of a call that was aborted on purpose did not run, and that is what is said."""
    client = span("1", "", 0, 900, kind="client", status="UNAVAILABLE")
    server = msgspec.structs.replace(
        span("2", "1", 100, 200, status="UNAVAILABLE"), injected="abort", flags="FI", error="injected"
    )
    steps = told(client, server)
    assert (
        "fault",
        "an operator's fault ended it: UNAVAILABLE, the handler did not run (nats-mesh fault --abort)",
    ) in steps
    assert "handler" not in [layer for layer, _ in steps]


def test_why_tells_an_injected_delay_from_waiting_and_running() -> None:
    """Of 500 ms that a call took, a fault held it 300 ms: the handler ran for what is left."""
    client = span("1", "", 0, 600_000, kind="client")
    server = msgspec.structs.replace(
        span("2", "1", 100, 500_000), injected="delay", queue_us=10_000, fault_us=300_000
    )
    steps = told(client, server)
    assert ("fault", "an operator's fault held it back for 300 ms (nats-mesh fault --delay)") in steps
    assert ("handler", "waited 10.0 ms, then ran for 190 ms: OK") in steps
    assert "held 300 ms on purpose" in waterfall(assemble([client, server]), 120, wide=False, color=False)


def test_why_says_which_circuit_and_which_rule_sent_nothing() -> None:
    """What never came to an instance was refused by somebody: a circuit by its name, or the rule of a route."""
    failed = span("1", "", 0, 90, kind="client", status="UNAVAILABLE")
    circuit = "the circuit of b.get is open: too many of the last calls failed; next try in 3.0 s"
    refused = msgspec.structs.replace(failed, flags="UO", error=circuit)
    assert told(refused)[0] == ("breaker", f"not sent: {circuit}")
    aborted = msgspec.structs.replace(
        failed, flags="FI", error="Route/storm rules[0] fails this call on purpose"
    )
    assert told(aborted)[0] == ("fault", "not sent: Route/storm rules[0] fails this call on purpose")


def test_why_says_of_each_attempt_whether_a_circuit_refused_it() -> None:
    """An attempt that failed, and the next one, that the circuit refused, which opened meanwhile."""
    circuit = "the circuit of b.get is open: too many of the last calls failed; next try in 5.0 s"
    client = msgspec.structs.replace(
        span("1", "", 0, 9000, kind="client", status="UNAVAILABLE", attempt=2), flags="UO", error=circuit
    )
    first = span("2", "1", 0, 2000, kind="attempt", status="UNAVAILABLE", attempt=1)
    second = msgspec.structs.replace(
        span("3", "1", 9000, 0, kind="attempt", status="UNAVAILABLE", attempt=2), error=circuit
    )
    steps = told(client, first, second)
    assert steps[1][1].startswith("attempt 1, after 0 µs: UNAVAILABLE in 2.00 ms")
    assert steps[2] == ("breaker", f"attempt 2, after 9.00 ms: not sent, {circuit}")

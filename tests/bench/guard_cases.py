"""The calls that the guard measures, and the workload it compares them with."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec

from nats_mesh import Mesh, Service
from nats_mesh.core.refill import Refill
from nats_mesh.policy import PolicySet, parse
from nats_mesh.serving.instance import Instance
from nats_mesh.telemetry import tracing
from nats_mesh.telemetry.span_messages import decode_spans
from tests.bench.guard_server import GuardLoop, Link, message

__all__ = ["CASES", "SIDES", "Bench", "Case", "Echo", "echo_service", "opened", "reference"]

#: Whose work is counted: the caller's with canned replies, the instance's with canned requests, both together.
SIDES = ("caller", "instance", "round trip")
_SIZE = 128
_SERVER = "nats://127.0.0.1:4222"
#: So long after the first answer to a roll call the caller takes it that everybody has answered (seconds).
_ANSWERED_S = 0.1
#: Until after everything (seconds).
_NEVER_S = 86_400.0
_BATCH_S = tracing.BATCH_S
#: Room for more spans than there are calls.
_ROOM = 1e9
_TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Case(msgspec.Struct, frozen=True):
    """One way to call: so many in flight, to an endpoint of the service below, with these options."""

    what: str
    in_flight: int
    endpoint: str = "echo"
    options: Mapping[str, Any] = {}

    @property
    def name(self) -> str:
        """What tables and the committed figures call it."""
        return f"{self.what} x{self.in_flight}"


#: One line per case; what costs something gets a line when it comes.
CASES = (
    Case("json", in_flight=1),
    Case("json", in_flight=64),
    Case("msgpack", in_flight=64, options={"codec": "msgpack"}),
    Case("suspending handler", in_flight=64, endpoint="suspend"),
    Case(
        "trace and timeout", in_flight=64, options={"headers": {"traceparent": _TRACEPARENT}, "timeout": 60.0}
    ),
    Case("user headers", in_flight=64, options={"headers": {"X-Tenant": "blue", "X-Request": "b-17"}}),
    Case("chosen instance", in_flight=64, endpoint="chosen"),
    Case("hedged", in_flight=64, endpoint="hedged"),
    Case("traced", in_flight=64, endpoint="traced"),
)

_POLICIES = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: chosen}
spec: {target: {service: guarded, endpoints: [chosen]}, balancer: least_request}
---
apiVersion: mesh/v1
kind: Destination
metadata: {name: hedged}
spec: {target: {service: guarded, endpoints: [hedged]}, idempotent: true, hedge: {delay: 60s, maxRatio: 1%}}
---
apiVersion: mesh/v1
kind: Telemetry
metadata: {name: traced}
spec: {target: {service: guarded, endpoints: [traced]}, tracing: 100%}
"""


class Echo(msgspec.Struct):
    """The typed value of every call; ``text`` makes up the size."""

    text: str


_VALUE = Echo("x" * (_SIZE - len('{"text":""}')))


def echo_service() -> Service:
    """What is called; a case names one of its endpoints."""
    service = Service("guarded", version="1.0.0", servers=_SERVER)

    @service.endpoint()
    async def echo(value: Echo) -> Echo:
        return value

    @service.endpoint()
    async def suspend(value: Echo) -> Echo:
        await asyncio.sleep(0)
        return value

    @service.endpoint()
    async def chosen(value: Echo) -> Echo:
        return value

    @service.endpoint()
    async def hedged(value: Echo) -> Echo:
        return value

    @service.endpoint()
    async def traced(value: Echo) -> Echo:
        return value

    return service


@asynccontextmanager
async def opened(service: Service | None = None) -> AsyncIterator[Bench]:
    """``service`` (or :func:`echo_service`) and its caller, connected; must run in a :class:`GuardLoop`."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, GuardLoop):
        raise TypeError(f"the guard's bench runs in a GuardLoop, not in {loop!r}")
    server = loop.server
    async with (
        Instance(service or echo_service(), rng=random.Random(1), connect_timeout=60.0) as instance,
        Mesh(
            "guard",
            servers=_SERVER,
            rng=random.Random(2),
            connect_timeout=60.0,
            policies=PolicySet.of(parse(_POLICIES)),
        ) as mesh,
    ):
        if len(server.links) != 2:
            raise RuntimeError(
                f"{len(server.links)} connections came through the loop's create_connection instead of 2: "
                "the wire dials in another way now, and tests/bench/guard_server.py must stand in for that"
            )
        bench = Bench(mesh, instance, *server.links)
        for member in (mesh._tracing, instance._parts.tracing):
            if member is not None:
                # While the clock stands still no room is made for more spans: there is enough for all of them.
                member.tracing._refill = Refill(_ROOM, _ROOM, 0.0)
                bench.tracings.append(member.tracing)
        try:
            yield bench
        finally:
            vars(tracing)["BATCH_S"] = _BATCH_S  # of whatever else this process does


class Bench:
    """An open mesh and an open instance, with the server between them."""

    def __init__(self, mesh: Mesh, serving: Instance, instance: Link, caller: Link) -> None:
        self.mesh = mesh
        self.serving = serving
        self.server = instance.server
        self.instance = instance
        self.caller = caller
        #: Requests of the caller that were answered from the can, and replies to canned requests.
        self.requests = 0
        self.replies = 0
        #: What tells of spans, at both ends.
        self.tracings: list[tracing.Tracing] = []
        self._inboxes = 1_000_000
        self._request: tuple[list[bytes], bytes] = ([], b"")
        self._reply: tuple[list[bytes], bytes] = ([], b"")
        self._written: list[tuple[Link, bytes]] = []
        self._missing = 0
        self._done = asyncio.Event()

    async def prepare(self, case: Case) -> None:
        """Make the first calls of ``case``, and record the request and the reply that the canned sides repeat."""

        def request(link: Link, fields: list[bytes], body: bytes) -> None:
            if b".guarded." in fields[1]:
                self._request = (fields, body)
            self.server.relay(link, fields, body)

        def reply(link: Link, fields: list[bytes], body: bytes) -> None:
            if fields[1].startswith(b"_INBOX."):  # and no beat
                self._reply = (fields, body)
            self.server.relay(link, fields, body)

        await self._calls(case, 1)
        if case.endpoint == "chosen":  # who asks everybody waits until it is known who is there
            await asyncio.sleep(_ANSWERED_S)
            _pass(_ANSWERED_S)
            await self.mesh.gather("guarded.chosen", _VALUE, returns=Echo)
        # What the first call of a target asks for beside the call is asked and answered now.
        await asyncio.sleep(0.1)
        self.caller.publish, self.instance.publish = request, reply
        try:
            value = await self._call(case)
        finally:
            self.caller.publish = self.instance.publish = self.server.relay
        if case.endpoint == "traced":
            told: list[bytes] = []
            await asyncio.sleep(2 * _BATCH_S)
            self.server.spans = told
            await self.run(case, "round trip", 1)
            await asyncio.sleep(0.1)
            self.server.spans = None
            if (count := sum([len(decode_spans(each).spans) for each in told])) != 2 * case.in_flight:
                raise RuntimeError(f"{case.name}: {count} spans of {2 * case.in_flight} were told")
            # Time passes fifty times as fast under valgrind: how many batches came of it would be chance. There is one
            # after each run, which counts all its calls.
            vars(tracing)["BATCH_S"] = _NEVER_S
        if case.endpoint == "chosen" and b".direct." not in self._request[0][1]:
            raise RuntimeError(f"{case.name}: nobody was chosen: {self._request!r}")
        if value != _VALUE or self._request[1][-16:] != self._reply[1][-16:]:
            raise RuntimeError(
                f"{case.name}: the echo is none: {self._request!r} was answered by {self._reply!r}"
            )
        self.server.tap = self._written = []
        await self._calls(case, 1)
        self.server.tap = None

    async def run(self, case: Case, side: str, rounds: int) -> int:
        """``rounds`` times ``in_flight`` calls, of which only ``side`` is real; returns how many that were."""
        if side == "caller":
            self.caller.publish = self._answer
            try:
                await self._calls(case, rounds)
            finally:
                self.caller.publish = self.server.relay
        elif side == "instance":
            self.instance.publish = self._count
            try:
                for _ in range(rounds):
                    self._done.clear()
                    self._inject(case.in_flight)
                    await self._done.wait()
            finally:
                self.instance.publish = self.server.relay
        else:
            await self._calls(case, rounds)
        self._flush()  # what it costs to tell of a call comes after it
        return rounds * case.in_flight

    async def run_server(self, case: Case, side: str, rounds: int) -> int:
        """What the server in this process does in :meth:`run`, alone: that is no cost of a call."""
        self.caller.mute = self.instance.mute = True
        if side == "caller":
            self.caller.publish = self._answer
        elif side == "instance":
            self.instance.publish = self._count
        try:
            for _ in range(rounds):
                if side == "instance":
                    self._inject(case.in_flight)
                for link, data in self._written:
                    if side == "round trip" or link is (self.caller if side == "caller" else self.instance):
                        self.server.received(link, data)
        finally:
            self.caller.mute = self.instance.mute = False
            self.caller.publish = self.instance.publish = self.server.relay
        return rounds * case.in_flight

    def _flush(self) -> None:
        """Have both ends tell of the spans of the calls that have ended."""
        for each in self.tracings:
            each.flush()

    async def _calls(self, case: Case, rounds: int) -> None:
        async def worker() -> None:
            for _ in range(rounds):
                await self._call(case)

        if case.in_flight == 1:
            await worker()
        else:
            await asyncio.gather(*(worker() for _ in range(case.in_flight)))

    def _call(self, case: Case) -> Awaitable[Echo]:
        return self.mesh.call(f"guarded.{case.endpoint}", _VALUE, returns=Echo, **case.options)

    def _answer(self, link: Link, fields: list[bytes], body: bytes) -> None:
        if b".rpc." not in fields[1] and b".direct." not in fields[1]:  # what the caller tells of a call
            self.server.relay(link, fields, body)
            return
        self.requests += 1
        canned, answer = self._reply
        canned[1] = fields[2]
        link.deliver(message(canned, self.server.route(fields[2])[0][1], answer))

    def _inject(self, count: int) -> None:
        """The recorded request, ``count`` times, each with an inbox of its own."""
        self._missing = count
        fields, body = self._request
        sid = self.server.route(fields[1])[0][1]
        head = fields[2].rpartition(b".")[0]
        for _ in range(count):
            self._inboxes += 1
            fields[2] = b"%b.%d" % (head, self._inboxes)
            self.instance.deliver(message(fields, sid, body))

    def _count(self, link: Link, fields: list[bytes], body: bytes) -> None:
        if not fields[1].startswith(b"_INBOX."):  # what the instance tells of a call, or a beat
            self.server.relay(link, fields, body)
            return
        self.replies += 1
        self._missing -= 1
        if not self._missing:
            self._done.set()


def _pass(seconds: float) -> None:
    """Let the guard's clock, which stands still, move on; a real one moves by itself."""
    if isinstance(time.monotonic, partial):
        time.monotonic.args[0][0] += seconds


async def reference(rounds: int) -> int:
    """A fixed piece of work of the kind that a call is made of, by which all figures are divided."""
    loop = asyncio.get_running_loop()
    decoder = msgspec.json.Decoder(Echo)
    table: dict[str, int] = {}

    async def step(waiter: asyncio.Future[None]) -> None:
        await waiter

    for number in range(rounds):
        line = f"reference.{number}.{number * 7:016x}\r\n".encode()
        end = line.find(b"\r\n")
        for field in line[:end].split(b"."):
            table[field.decode()] = len(field)
        while table:
            table.popitem()
        decoder.decode(msgspec.json.encode(_VALUE))
        waiter: asyncio.Future[None] = loop.create_future()
        loop.call_soon(waiter.set_result, None)
        await loop.create_task(step(waiter))
    return rounds

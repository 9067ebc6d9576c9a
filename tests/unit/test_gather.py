"""Scatter-gather among hundreds of simulated instances, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import msgspec
import pytest

from nats_mesh import (
    CallError,
    CodecError,
    ConfigError,
    Context,
    DeadlineExceededError,
    DisconnectedError,
    Executed,
    Gathered,
    Mesh,
    Next,
    NoInstancesError,
    OverloadedError,
    PermissionDeniedError,
    Refused,
    RemoteError,
    Reply,
    Request,
    Service,
    Status,
)
from nats_mesh.calling import gathering as module
from nats_mesh.calling.gather import MAX_ASKED
from nats_mesh.calling.watching import CallEnd
from nats_mesh.core.presence import Kind, State
from nats_mesh.testing import MemoryMesh, run_virtual
from nats_mesh.wire import headers as h
from nats_mesh.wire.outcome import encode_error
from tests.crowd import Crowd

MANY = [f"i{number:03}" for number in range(200)]


class Scene:
    """A mesh in memory whose caller gathers from a crowd of simulated instances of ``pool``."""

    def __init__(self, memory: MemoryMesh, crowd: Crowd) -> None:
        self.memory = memory
        self.crowd = crowd

    @property
    def mesh(self) -> Mesh:
        """The caller."""
        return self.memory.mesh

    async def gather(self, **options: Any) -> Gathered[Any]:
        """Ask for everybody's id."""
        return await self.mesh.gather("pool.who", **{"returns": str, **options})

    def statuses(self) -> dict[str, int]:
        """The caller's calls by their status."""
        counts: dict[str, int] = {}
        for series in self.mesh.stats:
            for status, count in series.by_status.items():
                counts[status] = counts.get(status, 0) + count
            assert series.in_flight == 0
        return counts


def play(scenario: Callable[[Scene], Awaitable[None]]) -> None:
    """Run ``scenario`` in virtual time; at its end nothing may wait for a reply any more."""

    async def main() -> None:
        async with MemoryMesh() as memory:
            crowd = await Crowd.on(memory.bus)
            await scenario(Scene(memory, crowd))
            await anyio.sleep(2.0)
            assert memory.mesh.client.mux.pending == 0
            for client in memory.bus.clients:
                assert client.stats.dropped_handler_errors == 0

    run_virtual(main)


# -- everybody --------------------------------------------------------------------------------------


def test_everybody_is_asked_and_answers() -> None:
    """Two hundred instances: each is asked once, on its own subject, under an inbox of its own, and counted once."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there(*MANY)
        gathered = await scene.gather(headers={"x-shelf": "7"})
        assert gathered.answers == {each: each for each in MANY}
        assert sorted(gathered.values) == MANY
        assert (gathered.errors, gathered.missing, gathered.why) == ({}, (), "")
        assert (gathered.asked, gathered.wanted, gathered.complete) == (200, 200, True)
        asked = scene.crowd.requests
        assert sorted(each.instance for each in asked) == MANY
        assert {(each.endpoint, each.caller) for each in asked} == {("who", "test")}
        assert len({each.reply for each in asked}) == 200
        assert len({each.reply.rpartition(".")[0] for each in asked}) == 1, "one secret for one destination"
        assert all(h.user_headers(each.headers)["x-shelf"] == "7" for each in asked)
        assert scene.crowd.cancelled == []
        assert scene.statuses() == {"OK": 1}

    play(scenario)


def test_the_requests_are_written_in_one_turn() -> None:
    """Nothing else runs between the first request and the last; large ones go in portions, all the same."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there(*MANY)
        await scene.gather()
        turns: list[int] = []
        turn = 0
        stop = False
        publish = scene.mesh.client.transport.publish

        def noting(subject: str, *rest: Any) -> None:
            if ".direct." in subject:
                turns.append(turn)
            publish(subject, *rest)

        async def count() -> None:
            nonlocal turn
            while not stop:
                turn += 1
                await asyncio.sleep(0)

        scene.mesh.client.transport.publish = noting  # type: ignore[method-assign, assignment]  # a stand-in for this test
        counting = asyncio.ensure_future(count())
        await scene.gather()
        assert (len(turns), len(set(turns))) == (200, 1)
        gathered = await scene.mesh.gather("pool.who", bytes(100_000), returns=str)
        assert (gathered.asked, gathered.complete, len(turns)) == (200, True, 400)
        stop = True
        await counting

    play(scenario)


def test_a_later_gather_asks_who_is_there_then() -> None:
    """The fleet is kept: whoever joined is asked, whoever left or drains is not, and there is no second roll call."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", "b", "c")
        assert set((await scene.gather()).answers) == {"a", "b", "c"}
        scene.crowd.join("d")
        scene.crowd.leave("a")
        scene.crowd.say("b", Kind.CHANGE, state=State.DRAINING)
        await anyio.sleep(0.0)
        assert set((await scene.gather()).answers) == {"c", "d"}
        assert scene.crowd.pinged == 1

    play(scenario)


def test_a_suspect_is_asked() -> None:
    """Presence fails no call: who missed two beats may well be there."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a")
        await scene.gather()
        await anyio.sleep(15.0)
        assert scene.mesh.client.fleets.fleet("pool").instances()[0].suspect
        assert (await scene.gather()).complete

    play(scenario)


def test_the_first_gather_waits_a_quarter_of_a_second_for_who_is_there() -> None:
    """Whoever has said so by then is asked; with a short deadline, half of it is kept for the work."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a")
        scene.crowd.silent.add("a")
        before = anyio.current_time()
        with pytest.raises(NoInstancesError):
            await scene.gather()
        assert anyio.current_time() - before == pytest.approx(0.25)
        scene.crowd.beat("a")
        await anyio.sleep(0.0)
        other = scene.memory.client("other")
        async with other:
            before = anyio.current_time()
            with pytest.raises(NoInstancesError):
                await other.gather("pool.who", returns=str, timeout=0.1)
            assert anyio.current_time() - before == pytest.approx(0.05)

    play(scenario)


# -- enough -----------------------------------------------------------------------------------------


def test_the_first_k_are_enough() -> None:
    """Exactly as many answers as were wanted; the others are stopped, each by its own reply subject, and named."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there(*MANY)
        scene.crowd.mute.update(MANY[3:])
        before = anyio.current_time()
        await scene.gather(want=3)
        await anyio.sleep(0.01)
        scene.crowd.requests.clear()
        scene.crowd.cancelled.clear()
        scene.crowd.cancellations = 0
        gathered = await scene.gather(want=3)
        assert anyio.current_time() - before < 0.1
        assert sorted(gathered.answers) == MANY[:3]
        assert (gathered.asked, gathered.wanted, gathered.complete, gathered.why) == (200, 3, True, "")
        assert gathered.missing == tuple(MANY[3:])
        await anyio.sleep(0.0)
        running = {each.reply for each in scene.crowd.requests if each.instance in MANY[3:]}
        assert set(scene.crowd.cancelled) == running
        assert (len(scene.crowd.cancelled), scene.crowd.cancellations) == (197, 1), (
            "one message says it to all"
        )
        assert scene.statuses() == {"OK": 2}

    play(scenario)


def test_answers_beyond_those_wanted_do_not_count() -> None:
    """What arrives in the same turn as the last one wanted is late: not in the answers, and nobody is told to stop."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there(*MANY)
        gathered = await scene.gather(want=50)
        assert len(gathered.answers) == 50
        assert len(gathered.missing) == 150
        await anyio.sleep(0.1)
        assert scene.crowd.cancelled == []

    play(scenario)


@pytest.mark.parametrize(("there", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (200, 101)])
def test_a_quorum_is_more_than_half_of_those_asked(there: int, needed: int) -> None:
    """With exactly as many answers as that it is complete, with one fewer it is not."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there(*MANY[:there])
        scene.crowd.mute.update(MANY[needed:there])
        gathered = await scene.gather(want="quorum", timeout=1.0)
        assert (gathered.wanted, len(gathered.answers), gathered.complete) == (needed, needed, True)
        scene.crowd.mute.add(MANY[0])
        gathered = await scene.gather(want="quorum", timeout=1.0)
        assert (gathered.wanted, len(gathered.answers), gathered.complete) == (needed, needed - 1, False)

    play(scenario)


def test_more_than_there_are() -> None:
    """Everybody is asked, what comes is returned as soon as all have answered, and it says that it is not complete."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", "b")
        before = anyio.current_time()
        gathered = await scene.gather(want=5, timeout=10.0)
        assert anyio.current_time() - before < 0.1
        assert set(gathered.answers) == {"a", "b"}
        assert (gathered.asked, gathered.wanted, gathered.complete) == (2, 5, False)
        assert gathered.why == "2 of 5 wanted answers; only 2 instances are there"
        assert scene.statuses() == {"UNAVAILABLE": 1}

    play(scenario)


# -- not everybody ----------------------------------------------------------------------------------


def test_at_the_deadline_there_is_what_there_is() -> None:
    """Who has not answered is named, stopped, and no exception; the statistics say that time ran out."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there(*MANY)
        scene.crowd.mute.update(MANY[:7])
        before = anyio.current_time()
        gathered = await scene.gather(timeout=0.3)
        assert anyio.current_time() - before == pytest.approx(0.3)
        assert sorted(gathered.answers) == MANY[7:]
        assert (gathered.missing, gathered.errors, gathered.complete) == (tuple(MANY[:7]), {}, False)
        assert gathered.why == (
            "193 of 200 wanted answers; no answer in 300 ms: i000, i001, i002, i003, i004 and 2 more"
        )
        await anyio.sleep(0.0)
        assert len(scene.crowd.cancelled) == 7
        assert scene.statuses() == {"DEADLINE_EXCEEDED": 1}

    play(scenario)


def test_out_of_time_is_out_of_time_whoever_says_it_first() -> None:
    """An instance counts the same time in whole milliseconds, and may be the first to say that it is over: it is
    missing all the same. One that says so long before is in ``errors``."""

    async def scenario(scene: Scene) -> None:
        crowd = scene.crowd
        crowd.there("early", "last", "fine")
        for each in ("early", "last"):
            crowd.blocks[each], crowd.bodies[each] = encode_error(
                Status.DEADLINE_EXCEEDED, "stopped", instance=each
            )
        crowd.mute.add("last")
        await scene.gather(want=1)
        crowd.requests.clear()

        def answer_at_last() -> None:
            for asked in crowd.requests:
                if asked.instance == "last":
                    crowd.answer(asked)

        asyncio.get_running_loop().call_later(0.4995, answer_at_last)
        gathered = await scene.gather(timeout=0.5)
        assert (set(gathered.answers), set(gathered.errors), gathered.missing) == (
            {"fine"},
            {"early"},
            ("last",),
        )
        assert type(gathered.errors["early"]) is DeadlineExceededError

    play(scenario)


def test_failures_belong_to_their_instance() -> None:
    """Errors, refusals and answers that do not fit are in ``errors``, as a call would raise them; the others count."""

    async def scenario(scene: Scene) -> None:
        crowd = scene.crowd
        crowd.there("error", "full", "misfit", "fine")
        crowd.blocks["error"], crowd.bodies["error"] = encode_error(
            Status.NOT_FOUND, "no such shelf", instance="error"
        )
        crowd.blocks["full"], crowd.bodies["full"] = encode_error(
            Status.RESOURCE_EXHAUSTED, "full", instance="full", refused=Refused.CONCURRENCY, retry_after_s=0.5
        )
        crowd.bodies["misfit"] = b"17"
        gathered = await scene.gather()
        assert gathered.answers == {"fine": "fine"}
        assert gathered.missing == ()
        error, full, misfit = (gathered.errors[each] for each in ("error", "full", "misfit"))
        assert (type(error), error.status, error.message) == (RemoteError, Status.NOT_FOUND, "no such shelf")
        assert (type(full), full.executed, full.retry_after_s) == (OverloadedError, Executed.NO, 0.5)
        assert (misfit.status, misfit.executed) == (Status.INTERNAL, Executed.YES)
        assert isinstance(misfit.__cause__, CodecError)
        assert "Expected `str`, got `int`" in misfit.message
        for each in (error, full, misfit):
            assert (each.service, each.endpoint, each.attempts) == ("pool", "who", 1)
        assert not gathered.complete
        assert gathered.why.startswith("1 of 4 wanted answers; failed: ")
        assert "error (NOT_FOUND)" in gathered.why
        assert scene.statuses() == {str(next(iter(gathered.errors.values())).status): 1}

    play(scenario)


def test_whatever_a_type_raises_is_that_answers_error() -> None:
    """A type of the caller's own that breaks while it is decoded spoils one answer and not the gather."""

    class Picky(msgspec.Struct):
        """Takes one answer."""

        name: str

        def __post_init__(self) -> None:
            if self.name == "b":
                raise RuntimeError("not this one")

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", "b")
        for each in ("a", "b"):
            scene.crowd.bodies[each] = msgspec.json.encode({"name": each})
        gathered = await scene.gather(returns=Picky)
        assert gathered.answers == {"a": Picky("a")}
        assert gathered.errors["b"].status is Status.INTERNAL
        assert "not this one" in str(gathered.errors["b"].__cause__)

    play(scenario)


def test_an_instance_that_vanished_is_an_error_of_its_own() -> None:
    """Nobody listens on its subject: known at once, nothing ran there, and the others answer."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", "b", "c")
        await scene.gather()
        scene.crowd.vanish("b")
        before = anyio.current_time()
        gathered = await scene.gather(timeout=1000.0)
        assert anyio.current_time() == before
        assert set(gathered.answers) == {"a", "c"}
        error = gathered.errors["b"]
        assert (type(error), error.executed, error.status) == (
            NoInstancesError,
            Executed.NO,
            Status.UNAVAILABLE,
        )
        assert "instance b is gone" in error.message
        assert (gathered.asked, gathered.complete) == (3, False)
        assert (await scene.gather(want="quorum")).complete

    play(scenario)


def test_an_answer_counts_once() -> None:
    """Second replies of an instance are nobody's: they count neither for it nor for another."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", "b", "c", "d")
        scene.crowd.replies["a"] = 5
        scene.crowd.mute.update({"c", "d"})
        late = scene.mesh.client.mux.late
        gathered = await scene.gather(want=3, timeout=1.0)
        assert sorted(gathered.values) == ["a", "b"]
        assert gathered.missing == ("c", "d")
        assert scene.mesh.client.mux.late == late + 4

    play(scenario)


def test_an_answer_after_the_end_finds_nobody() -> None:
    """What a gather returned does not change any more, and a late answer is only counted."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", "b")
        scene.crowd.mute.add("b")
        gathered = await scene.gather(timeout=0.5)
        late = scene.mesh.client.mux.late
        for asked in scene.crowd.requests:
            scene.crowd.answer(asked)
        await anyio.sleep(0.1)
        assert (gathered.answers, gathered.missing) == ({"a": "a"}, ("b",))
        assert scene.mesh.client.mux.late == late + 2

    play(scenario)


# -- nobody -----------------------------------------------------------------------------------------


def test_nobody_is_there() -> None:
    """No instance at all is an error, at once."""

    async def scenario(scene: Scene) -> None:
        before = anyio.current_time()
        with pytest.raises(NoInstancesError, match="nobody serves 'none' in namespace 'default'") as caught:
            await scene.mesh.gather("none.who", returns=str)
        assert anyio.current_time() == before
        assert (caught.value.service, caught.value.endpoint, caught.value.attempts) == ("none", "who", 0)
        assert scene.statuses() == {"UNAVAILABLE": 1}

    play(scenario)


def test_too_many_are_there() -> None:
    """Beyond a thousand nobody is asked, and the error says the limit and what to do."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there(*(f"n{number}" for number in range(MAX_ASKED)))
        gathered = await scene.gather(want="quorum")
        assert (gathered.asked, gathered.wanted, gathered.complete) == (1000, 501, True)
        scene.crowd.mute.update(scene.crowd.members)
        await scene.gather(timeout=1.0)
        await anyio.sleep(0.0)
        assert (len(set(scene.crowd.cancelled)), scene.crowd.cancellations) == (1000, 4)
        scene.crowd.join("one-more")
        scene.crowd.requests.clear()
        await anyio.sleep(0.0)
        with pytest.raises(
            CallError, match="1001 instances are there, a gather asks at most 1000: split"
        ) as caught:
            await scene.gather(want=1)
        assert (caught.value.status, caught.value.executed) == (Status.RESOURCE_EXHAUSTED, Executed.NO)
        assert scene.crowd.requests == []

    play(scenario)


def test_the_connection_is_away() -> None:
    """Nothing could be sent: an error as of a call, whether the instances are known or not."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a")
        scene.memory.cut("test")
        for _ in range(2):
            with pytest.raises(DisconnectedError) as caught:
                await scene.gather()
            assert (caught.value.executed, caught.value.attempts) == (Executed.NO, 0)
            scene.memory.mend("test")
            await scene.gather()
            scene.memory.cut("test")
        scene.memory.mend("test")
        await anyio.sleep(1.0)

    play(scenario)


def test_the_connection_is_lost_meanwhile() -> None:
    """Whoever had answered is kept; what the others did is not known, and the gather ends at once."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", "b")
        scene.crowd.mute.add("b")
        await scene.gather(want=1)
        asyncio.get_running_loop().call_later(1.0, scene.memory.cut, "test")
        before = anyio.current_time()
        gathered = await scene.gather(timeout=10.0)
        assert anyio.current_time() - before == pytest.approx(1.0)
        assert set(gathered.answers) == {"a"}
        error = gathered.errors["b"]
        assert (type(error), error.executed, error.attempts) == (DisconnectedError, Executed.MAYBE, 1)
        assert scene.statuses() == {"OK": 1, "UNAVAILABLE": 1}
        scene.memory.mend("test")

    play(scenario)


def test_the_server_does_not_let_it_ask_one() -> None:
    """A refusal by the server's permissions is the error of the instance that could not be asked."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", "b")
        scene.crowd.mute.add("b")
        await scene.gather(want=1)
        denied = "mesh.default.direct.pool.b.who.test"
        asyncio.get_running_loop().call_later(1.0, scene.mesh.client.mux.on_denied, "publish", denied)
        gathered = await scene.gather(timeout=10.0)
        error = gathered.errors["b"]
        assert (type(error), error.executed, error.attempts) == (PermissionDeniedError, Executed.NO, 0)

    play(scenario)


def test_no_request_could_be_written() -> None:
    """What no instance could be sent is an error of the gather; what only some could not is theirs."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", "b")
        with pytest.raises(CallError, match="the server takes at most") as caught:
            await scene.mesh.gather("pool.who", bytes(2_000_000), returns=str)
        assert (caught.value.status, caught.value.attempts) == (Status.RESOURCE_EXHAUSTED, 0)
        publish = scene.mesh.client.transport.publish

        def failing(subject: str, *rest: Any) -> None:
            if ".direct.pool.b." in subject:
                raise OverloadedError("no room")
            publish(subject, *rest)

        scene.mesh.client.transport.publish = failing  # type: ignore[method-assign, assignment]  # a stand-in for this test
        gathered = await scene.gather()
        assert (set(gathered.answers), set(gathered.errors), gathered.asked) == ({"a"}, {"b"}, 2)
        assert gathered.errors["b"].attempts == 0

    play(scenario)


# -- time -------------------------------------------------------------------------------------------


def test_no_time_was_left_for_the_last_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where writing takes longer than the time there is, those not asked say so, and surely nothing ran there."""
    monkeypatch.setattr(module, "_TURN_BYTES", 1)

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", "b", "c")
        await scene.gather()
        loop: Any = asyncio.get_running_loop()
        publish = scene.mesh.client.transport.publish

        def slow(subject: str, *rest: Any) -> None:
            publish(subject, *rest)
            if ".direct.pool.b." in subject:
                loop._jumping.now += 1.0

        scene.mesh.client.transport.publish = slow  # type: ignore[method-assign, assignment]  # a stand-in for this test
        gathered = await scene.gather(timeout=0.5)
        error = gathered.errors["c"]
        assert (type(error), error.executed, error.attempts) == (DeadlineExceededError, Executed.NO, 0)
        assert set(gathered.missing) | set(gathered.answers) == {"a", "b"}
        assert not gathered.complete

    play(scenario)


def test_a_gather_in_a_handler_ends_with_its_call() -> None:
    """The deadline, the trace and the baggage of the call it is made from go along, with the context and without."""
    seen: list[Gathered[Any]] = []

    def front(memory: MemoryMesh) -> Service:
        service = Service("front", version="1.0.0")

        @service.endpoint()
        async def ask(ctx: Context) -> float:
            ctx.baggage["who"] = "ann"
            seen.append(await ctx.gather("pool.who", returns=str, timeout=10.0))
            return ctx.remaining()

        return service

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", "b")
        scene.crowd.mute.add("b")
        await scene.memory.serve(front(scene.memory))
        before = anyio.current_time()
        with pytest.raises(CallError) as caught:
            await scene.mesh.call(
                "front.ask", timeout=0.5, headers={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
            )
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        assert anyio.current_time() - before == pytest.approx(0.5)
        await anyio.sleep(0.1)
        for asked in scene.crowd.requests:
            assert asked.caller == "front"
            assert h.int_field(asked.headers, h.TIMEOUT_MS) in range(400, 500)
            assert (h.field(asked.headers, h.TRACEPARENT) or b"").startswith(b"00-" + b"ab" * 16)
            assert h.field(asked.headers, h.BAGGAGE) == b"who=ann"
        assert len(scene.crowd.cancelled) == 1, "the handler was stopped, and so was what it had asked for"
        assert seen == []

    play(scenario)


def test_a_gather_that_is_cancelled_stops_everybody() -> None:
    """Every instance that still works on it is told; nothing waits any more, and it counts as cancelled."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there(*MANY)
        scene.crowd.mute.update(MANY[10:])
        await scene.gather(want=1)
        await anyio.sleep(0.01)
        scene.crowd.cancelled.clear()
        with anyio.move_on_after(1.0):
            await scene.gather(timeout=10.0)
        assert scene.mesh.client.mux.pending == 0
        await anyio.sleep(0.0)
        assert len(scene.crowd.cancelled) == 190
        assert scene.statuses() == {"OK": 1, "CANCELLED": 1}

    play(scenario)


# -- what is given ----------------------------------------------------------------------------------


@pytest.mark.parametrize("want", [0, -1, True, 1.5, "most", None, "ALL", [1]])
def test_what_cannot_be_wanted_is_said(want: Any) -> None:
    """A mistake in ``want`` is an error that names what may stand there, before anybody is asked."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a")
        with pytest.raises(
            ConfigError, match=r"gather from pool.who: want must be 'all', 'quorum' or a number"
        ):
            await scene.gather(want=want)
        assert scene.crowd.pinged == 0

    play(scenario)


def test_what_has_no_instances_is_said() -> None:
    """A plain subject has none that are known; other mistakes are those of a call."""

    async def scenario(scene: Scene) -> None:
        with pytest.raises(ConfigError, match="a plain subject has no instances"):
            await scene.mesh.gather("nats://some.subject", returns=str)
        with pytest.raises(ConfigError, match=r"say 'service\.endpoint'"):
            await scene.mesh.gather("pool", returns=str)
        with pytest.raises(ConfigError, match="timeout must be above 0"):
            await scene.gather(timeout=0)
        scene.crowd.there("a")
        with pytest.raises(CodecError, match=r"pool\.who"):
            await scene.mesh.gather("pool.who", object(), returns=str)
        assert scene.statuses() == {"INVALID_ARGUMENT": 1}

    play(scenario)


def test_a_function_is_its_contract() -> None:
    """Asked by the function itself, answers have its type; without a type they are plain values."""
    service = Service("pool", version="1.0.0")

    class Shelf(msgspec.Struct):
        name: str

    @service.endpoint()
    async def who() -> Shelf:
        return Shelf("here")

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a")
        scene.crowd.bodies["a"] = b'{"name":"there"}'
        assert (await scene.mesh.gather(who)).answers == {"a": Shelf("there")}
        assert (await scene.mesh.gather("pool.who")).answers == {"a": {"name": "there"}}

    play(scenario)


def test_interceptors_run_once_around_the_whole() -> None:
    """They see one call with its headers and its time, and get the Gathered; another value in its place is an error."""
    calls: list[Any] = []

    async def note(request: Request, proceed: Next) -> Reply[Any]:
        request.headers["x-added"] = "yes"
        reply = await proceed(request)
        calls.append((request.endpoint, request.instance, type(reply.value)))
        return reply

    async def spoil(request: Request, proceed: Next) -> Reply[Any]:
        await proceed(request)
        return Reply("mine")

    async def scenario(scene: Scene) -> None:
        scene.crowd.there(*MANY)
        async with scene.memory.client("noting", interceptors=[note]) as noting:
            assert (await noting.gather("pool.who", returns=str)).complete
            assert calls == [("who", "", Gathered)]
            assert all(h.user_headers(each.headers)["x-added"] == "yes" for each in scene.crowd.requests)
        async with scene.memory.client("spoiling", interceptors=[spoil]) as spoiling:
            with pytest.raises(ConfigError, match="an interceptor put str in the place of the Gathered"):
                await spoiling.gather("pool.who", returns=str)

    play(scenario)


def test_all_places_for_fleets_are_taken() -> None:
    """Where so many services are held that this one cannot be watched, the gather says so."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a")
        fleets = scene.mesh.client.fleets
        fleets._max_fleets = 2
        x, _ = [fleets.fleet(each) for each in ("x", "y")]
        with pytest.raises(CallError, match="too many services are watched") as caught:
            await scene.gather()
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        fleets.release(x)
        assert (await scene.gather()).complete

    play(scenario)


def test_without_the_right_to_hear_presence_everybody_is_asked_each_time() -> None:
    """The list would grow old, so it is asked for before each gather; without any answer the reason is said."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", "b")
        fleet = scene.mesh.client.fleets.visit("pool")
        assert fleet is not None
        fleet.on_denied("subscription", "mesh.default.presence.pool.*")
        assert set((await scene.gather()).answers) == {"a", "b"}
        await anyio.sleep(2.0)
        scene.crowd.vanish("a")
        assert set((await scene.gather()).answers) == {"b"}
        await anyio.sleep(2.0)
        scene.crowd.vanish("b")
        with pytest.raises(
            PermissionDeniedError, match="who serves 'pool' cannot be known: the server's permissions"
        ):
            await scene.gather()

    play(scenario)


# -- who is told ------------------------------------------------------------------------------------


def test_each_instance_that_was_asked_is_a_call_to_whoever_watches() -> None:
    """Answers, failures and those that nobody waits for any more: each with its instance, and a span of its own."""

    async def scenario(scene: Scene) -> None:
        ids = [f"i{number}" for number in range(4)]
        scene.crowd.there(*ids)
        scene.crowd.mute.add("i3")
        seen: list[CallEnd] = []
        scene.mesh.client.watching.set("test", seen.append)
        gathered = await scene.gather(want="all", timeout=0.5)
        assert set(gathered.missing) == {"i3"}
        assert {each.attempts[0].instance: each.status for each in seen} == {
            "i0": Status.OK, "i1": Status.OK, "i2": Status.OK, "i3": Status.DEADLINE_EXCEEDED,
        }  # fmt: skip
        assert len({each.attempts[0].ids[:32] for each in seen}) == 1
        assert len({each.attempts[0].ids for each in seen}) == len(seen)
        assert {each.flags for each in seen if each.status is not Status.OK} == {"UT"}
        assert all(each.sent == 1 and each.start <= each.end for each in seen)
        scene.mesh.client.watching.set("test", None)
        await scene.gather(want=1, timeout=0.5)
        assert len(seen) == len(ids)

    play(scenario)

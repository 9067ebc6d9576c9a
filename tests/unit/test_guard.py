"""The guard of the data path's cost: what it says of figures, and that it measures what it claims to."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from nats_mesh import Service
from tests.bench import guard
from tests.bench.guard_cases import CASES, SIDES, Case, Echo, opened, reference
from tests.bench.guard_compare import (
    Committed,
    Figure,
    Figures,
    Verdict,
    accepted,
    cheapest,
    compare,
    middle,
    report,
    table,
)
from tests.bench.guard_driver import marked, paired
from tests.bench.guard_measure import GuardError, figures_of, parts_of, times_of
from tests.bench.guard_server import GuardLoop, Link, Server

T = TypeVar("T")

KNOWN: Figures = {"json x1": {"caller": Figure(4.0, 160_000), "instance": Figure(5.0, 200_000)}}


def one(caller: float, instance: float = 5.0) -> Figures:
    """Figures as measured."""
    return {
        "json x1": {"caller": Figure(caller, int(caller * 40_000)), "instance": Figure(instance, 200_000)}
    }


def in_guard_loop(work: Callable[[], Awaitable[T]]) -> T:
    """Run it where connections lead to the guard's own server."""
    with asyncio.Runner(loop_factory=GuardLoop) as runner:

        async def main() -> T:
            return await work()

        return runner.run(main())


def test_what_became_dearer_by_more_than_a_tenth_is_a_regression_and_a_tenth_is_not() -> None:
    """The limit itself is allowed; beyond it, only the figure concerned is called dearer."""
    assert [row.verdict for row in compare(one(4.4), KNOWN)] == [Verdict.SAME, Verdict.SAME]
    caller, instance = compare(one(4.41), KNOWN)
    assert (caller.verdict, instance.verdict) == (Verdict.DEARER, Verdict.SAME)
    assert caller.change == pytest.approx(0.1025)


def test_the_message_of_a_regression_says_which_figure_and_what_to_do() -> None:
    """Case, side, both figures, how to look further and how to accept stand in it; the rest does not."""
    said = report(compare(one(4.6), KNOWN), "instructions", "3.11")
    assert "json x1, caller: 4.600 times the reference, committed 4.000 (+15.0%" in said
    assert "184,000 instructions, committed 160,000" in said
    assert "--profile --only 'json x1'" in said
    assert "python -m tests.bench.guard --accept" in said
    assert "instance" not in said


def test_an_improvement_is_reported_kindly_and_is_no_regression() -> None:
    """Who made a call cheaper is asked to commit that, so that it stays."""
    rows = compare(one(3.5), KNOWN)
    assert [row.verdict for row in rows] == [Verdict.CHEAPER, Verdict.SAME]
    said = report(rows, "instructions", "3.11")
    assert "well done" in said
    assert "--accept" in said
    assert "dearer" not in said


def test_nothing_is_said_where_nothing_changed() -> None:
    """A quiet run prints its table and no more."""
    assert report(compare(one(4.1), KNOWN), "instructions", "3.11") == ""


def test_a_case_without_a_committed_figure_is_named_and_passes() -> None:
    """A new line in the table of cases does not break the check before its figure is accepted."""
    measured = {**one(4.0), "json x64": {"caller": Figure(3.0)}}
    rows = compare(measured, KNOWN)
    assert rows[-1].verdict is Verdict.NEW
    assert "no committed figure yet for json x64 (caller)" in report(rows, "instructions", "3.11")


def test_a_committed_case_that_is_measured_no_more_is_named() -> None:
    """A case cannot leave the table unseen."""
    assert "measured no more: msgpack x1" in report(compare(one(4.0), KNOWN), "time", "3.11", ["msgpack x1"])


def test_another_python_than_the_committed_ones_passes_and_is_named() -> None:
    """Where nothing is committed for this minor version, nothing is compared, and that is said."""
    rows = compare(one(4.0), {})
    assert {row.verdict for row in rows} == {Verdict.NEW}
    assert "nothing is committed for Python 3.19 by instructions" in report(rows, "instructions", "3.19")


def test_the_table_has_a_line_for_every_figure() -> None:
    """Instructions, ratio, committed ratio and change stand in one line; what is unknown is a dash."""
    lines = table(compare({"json x1": {"caller": Figure(4.2, 168_000), "other": Figure(1.0)}}, KNOWN)).split(
        "\n"
    )
    assert lines[1].split() == ["json", "x1", "caller", "168,000", "4.200", "4.000", "+5.0%"]
    assert lines[2].split() == ["json", "x1", "other", "-", "1.000", "-", "new"]


def test_accepting_replaces_the_figures_of_this_python_and_method_alone() -> None:
    """Other versions and methods stay; a whole run forgets cases that are gone, a partial one keeps them."""
    old = Committed("about", {"3.12": {"time": KNOWN}, "3.11": {"time": KNOWN, "instructions": KNOWN}})
    new: Figures = {"json x64": {"caller": Figure(3.0)}}
    part = accepted(old, "3.11", "time", new, whole=False).figures
    assert part["3.11"]["time"] == {**KNOWN, **new}
    whole = accepted(old, "3.11", "time", new, whole=True).figures
    assert whole["3.11"] == {"time": new, "instructions": KNOWN}
    assert whole["3.12"] == old.figures["3.12"]
    assert old.figures["3.11"]["time"] == KNOWN


@pytest.mark.parametrize(("method", "by"), [("time", "measure_time"), ("instructions", "count_instructions")])
def test_a_case_is_measured_again_before_it_is_called_a_regression(
    method: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three dear measurements fail; one cheap one among them passes, and ends the measuring."""
    asked: list[list[str]] = []
    waiting = [{**one(6.0), "json x64": {"caller": Figure(3.0)}}, one(4.1), one(6.0)]

    def measured(only: list[str]) -> Figures:
        asked.append(only)
        return waiting.pop(0)

    monkeypatch.setattr(guard, by, measured)
    assert guard.measure(method, [""], KNOWN) == {**one(4.1), "json x64": {"caller": Figure(3.0)}}
    assert asked == [[""], ["json x1"]]
    waiting = [one(6.0), one(7.0), one(5.0)]
    caller, _ = compare(guard.measure(method, [""], KNOWN), KNOWN)
    assert caller.verdict is Verdict.DEARER
    assert not waiting


def test_of_two_measurements_each_figure_is_the_cheaper_one() -> None:
    """Noise in one place of one run and in another of the next leaves nothing dear."""
    assert cheapest(one(6.0, 5.0), one(4.0, 7.0)) == one(4.0, 5.0)


def test_what_is_committed_of_three_measurements_is_the_middle_one_of_each_figure() -> None:
    """A lucky run must not become what every later one is held against."""
    assert middle([one(6.0, 5.0), one(4.0, 7.0), one(5.0, 6.0)]) == one(5.0, 6.0)


def test_a_time_is_the_cheapest_chunk_by_the_cheapest_chunk() -> None:
    """Chunks that something else disturbed, of either kind, do not count."""
    timings = [("json x1", "caller", [9.0, 4.0, 8.0], [3.0, 2.0, 1.0])]
    assert times_of(timings) == {"json x1": {"caller": Figure(4.0)}}


def test_without_valgrind_the_build_machine_fails_and_names_the_package(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On CI a missing valgrind is an error; elsewhere CPU time stands in, which is said."""
    assert guard.method_for("/usr/bin/valgrind", ci=True) == "instructions"
    with pytest.raises(GuardError, match="Debian: valgrind"):
        guard.method_for(None, ci=True)
    assert guard.method_for(None, ci=False) == "time"
    assert "valgrind is missing" in capsys.readouterr().err


def dump(part: int, trigger: str, totals: int) -> str:
    """A file as callgrind writes it, shortened."""
    return (
        "# callgrind format\nversion: 1\ncreator: callgrind-3.19.0\npid: 18013\n"
        f"cmd:  python\npart: {part}\n\n\ndesc: I1 cache: \ndesc: Timerange: Basic block 0 - 1\n"
        f"desc: Trigger: {trigger}\n\npositions: line\nevents: Ir\nsummary: {totals}\n\n\n"
        f"ob=(1) /lib/libc.so.6\nfl=(1) ???\nfn=(1) getppid\n0 {totals}\n\ntotals: {totals}\n"
    )


def test_callgrinds_files_are_read_in_the_order_of_their_parts() -> None:
    """Files come in any order, and the one written at the end of the program is no part."""
    mark = "--dump-before=getppid"
    texts = [dump(10, mark, 30), dump(2, mark, 20), dump(11, "Program termination", 99), dump(1, mark, 10)]
    assert parts_of(texts) == [10, 20, 30]


def test_a_file_of_callgrind_without_a_total_is_refused() -> None:
    """A file that was cut off is no zero."""
    text = re.sub(r"(?m)^totals: .*\n", "", dump(1, "--dump-before=getppid", 10))
    with pytest.raises(GuardError, match="cannot be read"):
        parts_of([text])


def test_a_figure_is_the_difference_of_two_sizes_less_the_server_by_the_reference() -> None:
    """What a run costs once falls out, and so does what stands in for the server."""
    labels = [
        ("reference", "", "all", 10), ("reference", "", "all", 30), ("", "", "", 0),
        ("json x1", "caller", "all", 10), ("json x1", "caller", "all", 20),
        ("json x1", "caller", "server", 10), ("json x1", "caller", "server", 20),
    ]  # fmt: skip
    counts = [500 + 10 * 100, 500 + 30 * 100, 777, 900 + 10 * 450, 900 + 20 * 450, 50 + 10 * 50, 50 + 20 * 50]
    assert figures_of(labels, counts) == {"json x1": {"caller": Figure(4.0, 400)}}


def test_marks_that_do_not_fit_the_labels_are_refused() -> None:
    """Figures under the wrong name would be worse than none."""
    with pytest.raises(GuardError, match="2 marks of 1"):
        figures_of([("reference", "", "all", 1)], [1, 2])


def test_the_committed_file_is_what_the_guard_reads() -> None:
    """guard.json decodes, and each figure in it is a positive one of a side that is measured."""
    known = guard.committed()
    assert known.figures
    for methods in known.figures.values():
        assert set(methods) <= {"instructions", "time"}
        for figures in methods.values():
            for sides in figures.values():
                assert set(sides) == set(SIDES)
                assert all(figure.ratio > 0 for figure in sides.values())


def counting_service(ran: Counter[str]) -> Service:
    """The guard's service, whose handlers count."""
    service = Service("guarded", version="1.0.0", servers="nats://127.0.0.1:4222")

    @service.endpoint()
    async def echo(value: Echo) -> Echo:
        ran["echo"] += 1
        return value

    @service.endpoint()
    async def suspend(value: Echo) -> Echo:
        await asyncio.sleep(0)
        ran["suspend"] += 1
        return value

    @service.endpoint()
    async def chosen(value: Echo) -> Echo:
        ran["chosen"] += 1
        return value

    @service.endpoint()
    async def hedged(value: Echo) -> Echo:
        ran["hedged"] += 1
        return value

    @service.endpoint()
    async def traced(value: Echo) -> Echo:
        ran["traced"] += 1
        return value

    return service


def requests_in(tap: list[tuple[Link, bytes]], caller: Link) -> int:
    """How many commands the caller wrote that are requests to the service."""
    written = b"\r\n" + b"".join(data for link, data in tap if link is caller)
    return len(re.findall(rb"\r\nH?PUB mesh\.\S*\.guarded\.\S* _INBOX\.", written))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_side_makes_exactly_the_calls_it_claims(case: Case) -> None:
    """A canned caller's requests reach no handler, a canned instance's requests come from no caller."""
    ran: Counter[str] = Counter()
    calls = 2 * case.in_flight

    async def work() -> None:
        async with opened(counting_service(ran)) as bench:
            await bench.prepare(case)
            for side, asked, handled in (
                ("caller", True, False),
                ("instance", False, True),
                ("round trip", True, True),
            ):
                ran.clear()
                canned = bench.requests, bench.replies
                tap: list[tuple[Link, bytes]] = []
                bench.server.tap = tap
                assert await bench.run(case, side, 2) == calls
                assert requests_in(tap, bench.caller) == asked * calls
                assert ran == ({case.endpoint: calls} if handled else {})
                assert bench.requests - canned[0] == (calls if side == "caller" else 0)
                assert bench.replies - canned[1] == (calls if side == "instance" else 0)

    in_guard_loop(work)


@pytest.mark.parametrize("side", SIDES)
def test_the_server_alone_runs_no_handler_and_ends_no_call(side: str) -> None:
    """What is subtracted holds the messages of as many calls, and no work of caller or instance."""
    ran: Counter[str] = Counter()
    case = next(case for case in CASES if case.in_flight > 1)

    async def work() -> None:
        async with opened(counting_service(ran)) as bench:
            await bench.prepare(case)
            ran.clear()
            canned = bench.requests, bench.replies
            assert await bench.run_server(case, side, 3) == 3 * case.in_flight
            assert bench.requests - canned[0] == (3 * case.in_flight if side == "caller" else 0)
            assert bench.replies - canned[1] == (3 * case.in_flight if side == "instance" else 0)
            assert not ran
            await bench.run(case, "round trip", 1)
            assert ran.total() == case.in_flight

    in_guard_loop(work)


def test_every_mark_has_its_label() -> None:
    """The driver enters getppid once per label, and labels two sizes of everything."""
    entered = 0

    def getppid() -> int:
        nonlocal entered
        entered += 1
        return 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getppid", getppid)
        labels = in_guard_loop(lambda: marked([CASES[0]]))
    assert entered == len(labels)
    sizes: dict[tuple[str, str, str], list[int]] = {}
    for case, side, part, calls in labels:
        if case:
            sizes.setdefault((case, side, part), []).append(calls)
    assert set(sizes) == {("reference", "", "all")} | {
        (CASES[0].name, side, part) for side in SIDES for part in ("all", "server")
    }
    assert all(few < many for few, many in sizes.values())


def test_pairs_yield_as_many_chunks_as_asked_for() -> None:
    """Each side has its own chunks, each beside one of reference work, and all took time."""
    found = in_guard_loop(lambda: paired([CASES[1]], 3))
    assert [(case, side) for case, side, _, _ in found] == [(CASES[1].name, side) for side in SIDES]
    for _, _, calls, pieces in found:
        assert len(calls) == len(pieces) == 3
        assert min(*calls, *pieces) > 0


def test_the_reference_work_is_as_long_as_asked_for() -> None:
    """One piece more creates one task more."""
    made = 0

    async def work() -> int:
        def factory(loop: Any, work: Any, **options: Any) -> Any:
            nonlocal made
            made += 1
            return asyncio.Task(work, loop=loop, **options)

        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        try:
            return await reference(7)
        finally:
            loop.set_task_factory(None)

    assert in_guard_loop(work) == 7
    assert made == 7


def test_the_bench_refuses_another_loop() -> None:
    """In another loop it would dial a real port."""

    async def work() -> None:
        with pytest.raises(TypeError, match="GuardLoop"):
            async with opened():
                pass

    asyncio.run(work())


def test_a_relayed_message_reaches_one_of_a_group_and_everybody_else() -> None:
    """The stand-in routes as a server does, and says where nobody listens."""

    async def work() -> None:
        server = Server()
        seen: list[list[bytes]] = [[], [], []]
        for number in range(3):
            link = server.connect(asyncio.Protocol(), asyncio.get_running_loop())
            link.deliver = seen[number].append  # type: ignore[assignment, method-assign]  # a stand-in for this test
        first, second, third = server.links
        for link in (first, second):
            server.received(link, b"SUB a.*.c g 1\r\n")
        server.received(third, b"SUB a.> 7\r\nPUB a.b.c inbox.1 2\r\nh")
        assert seen == [[], [], []]  # an incomplete message waits
        server.received(third, b"i\r\nSUB inbox.* 8\r\nHPUB nobody inbox.2 12 13\r\nNATS/1.0\r\n\r\n!\r\n")
        assert seen[0] == [b"MSG a.b.c 1 inbox.1 2\r\nhi\r\n"]
        assert seen[1] == []
        assert seen[2] == [
            b"MSG a.b.c 7 inbox.1 2\r\nhi\r\n",
            b"HMSG inbox.2 8 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
        ]

    in_guard_loop(work)

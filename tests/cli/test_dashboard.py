"""The web view without a browser: what the page is told, who gets it, and who is refused."""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import secrets
import signal
import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from nats_mesh.core.histogram import BOUNDS
from nats_mesh.core.presence import Rejection
from nats_mesh.discovery.reports import Member as Acked
from nats_mesh.policy.bus.revisions import Revision
from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.snapshots import Edge, Member, PolicySync, Snapshot
from nats_mesh.testing import NatsServer
from nats_mesh_cli.dashboard.app import Stream, application, page
from nats_mesh_cli.dashboard.document import MAX_EVENTS, Picture, document, state_of, trends
from nats_mesh_cli.dashboard.guard import host_of
from nats_mesh_cli.dashboard.hub import FullError, Hub, difference
from nats_mesh_cli.dashboard.layout import MAX_ROWS, arrange
from nats_mesh_cli.dashboard.service_page import service_document
from nats_mesh_cli.dashboard.serving import pump
from nats_mesh_cli.policy_board import MAX_POLICIES, Board
from nats_mesh_cli.policy_history import member_record
from nats_mesh_cli.silent import Silent, silent_text
from nats_mesh_cli.top.following import followers
from nats_mesh_cli.top.model import Data
from tests.cli.program import Background, run_cli, run_many
from tests.harness import eventually
from tests.snapshots import figures, red, snapshot

pytestmark = pytest.mark.anyio

HOSTILE = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>'

# -- where services stand -----------------------------------------------------------------------------

_names = st.sampled_from([f"s{n}" for n in range(12)])
_links = st.lists(st.tuples(_names, _names), max_size=40)


@given(nodes=st.lists(_names, unique=True), links=_links)
def test_everybody_has_a_place_of_his_own(nodes: list[str], links: list[tuple[str, str]]) -> None:
    """Whatever calls whatever, in circles too: each node gets a place, no two the same, in whatever order they come."""
    places = arrange(nodes, links)
    assert places.keys() == set(nodes)
    assert len(set(places.values())) == len(nodes)
    assert all(place.column >= 0 and place.row >= 0 for place in places.values())
    assert arrange(nodes[::-1], links[::-1]) == places


@given(links=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=40))
def test_callers_stand_left_of_whom_they_call(links: list[tuple[int, int]]) -> None:
    """Where nobody calls in a circle every line leads to the right."""
    down = [(f"s{a}", f"s{b}") for a, b in links if a < b]
    places = arrange({name for link in down for name in link}, down)
    assert all(places[a].column < places[b].column for a, b in down)


def test_columns_are_bounded_and_the_lonely_stand_beneath() -> None:
    """A caller of a hundred services gets several short columns, and who calls nobody is in nobody's way."""
    called = [f"c{n:03}" for n in range(100)]
    places = arrange(["web", *called, "alone"], [("web", name) for name in called])
    columns: dict[float, int] = {}
    for name in called:
        columns[places[name].column] = columns.get(places[name].column, 0) + 1
    assert MAX_ROWS <= max(columns.values()) <= 2 * MAX_ROWS
    assert places["alone"].row > max(places[name].row for name in called)
    assert len(set(places.values())) == 102
    assert arrange([], []) == {}


# -- what the page is told ----------------------------------------------------------------------------


def _document(shown: Snapshot, board: Board | None = None, *, tls: bool = False) -> Any:
    return document(shown, Picture(), board or Board(), tls=tls)


def test_the_document_says_what_the_snapshot_says() -> None:
    """Services, edges, clients, breakers and figures, in milliseconds and with one word for each service's state."""
    found = _document(snapshot(4))
    assert list(found["services"]) == ["service-0", "service-1", "service-2", "service-3", "web"]
    assert found["services"]["web"]["kind"] == "client"
    ill, well = found["services"]["service-3"], found["services"]["service-0"]
    assert (ill["state"], ill["breakers"], ill["ejected"]) == ("failing", {"OPEN": 1}, 1)
    assert (well["state"], well["rate_per_s"], well["success"]) == ("ok", 100.0, 1.0)
    assert well["p99_ms"] == pytest.approx(red(errors=0).p99_s * 1e3, rel=0.01)  # type: ignore[operator]  # there were calls
    edge = found["edges"]["service-2>service-3"]
    assert (edge["breaker"], edge["success"], edge["locks"]) == ("OPEN", 0.88, [])
    assert well["x"] < found["services"]["service-1"]["x"]
    assert found["mesh"][""]["breakers_open"] == 1
    assert msgspec.json.decode(msgspec.json.encode(found)) == found
    assert trends(snapshot(1)).keys() == {"", "service-0"}


def test_who_hangs_is_told_of() -> None:
    """By what others know of him."""
    silent = [Silent("legacy", "ABC", "host-7", 60.0), Silent("old")]
    told = document(snapshot(2), Picture(), Board(), tls=False, silent=silent)["mesh"][""]["silent"]
    assert told == silent_text(silent)
    assert "legacy ABC (host-7, heard 60 s ago)" in told
    assert _document(snapshot(2))["mesh"][""]["silent"] == ""


def test_an_empty_mesh_is_a_document_too() -> None:
    """Without a single service there are just no records."""
    found = _document(Snapshot(red=red(0, 0)))
    assert [list(found[each]) for each in ("services", "edges", "members", "events")] == [[], [], [], []]
    assert found["mesh"][""]["success"] is None


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "ok"),
        ({"red": red(0, 0)}, "idle"),
        ({"ready": 0}, "down"),
        ({"ready": 1}, "degraded"),
        ({"breakers": {"HALF_OPEN": 1}}, "degraded"),
        ({"breakers": {"OPEN": 1}}, "failing"),
        ({"ejected": 1}, "degraded"),
        ({"red": red(1000, 2)}, "degraded"),
        ({"red": red(1000, 11)}, "failing"),
    ],
)
def test_a_service_has_one_state(changes: dict[str, Any], state: str) -> None:
    """The worst of what is known of it counts."""
    service = msgspec.structs.replace(snapshot(1).services[0], **changes)
    assert state_of(service) == state


def test_locks_come_from_tls_and_from_access_policies() -> None:
    """An edge is locked by what holds for its destination: the server's TLS, a policy of access about it or all."""
    board = Board()
    body = b'{"spec": {"target": {"service": "service-1"}}}'
    board.take((1, 7), [Revision(key="Access.closed", sequence=7, value=body, time="2026-01-01T00:00:00Z")])
    found = _document(snapshot(2), board, tls=True)["edges"]
    assert found["web>service-0"]["locks"] == ["TLS"]
    assert found["service-0>service-1"]["locks"] == ["TLS", "access policy"]


def test_a_revision_that_the_store_does_not_have_puts_nobody_behind() -> None:
    """What somebody has applied and was not read yet is believed until the store has been read again; it may come to
    have it later."""
    board = Board()
    board.take((1, 7), [])
    assert board.head_with((1, 900)) == (1, 900)
    applied = board.applied
    board.take((1, 7), [], applied)
    assert board.head_with((1, 900)) == (1, 7)
    assert board.head_with((1, 8)) == (1, 8)
    board.take((1, 900), [], applied)
    assert board.head_with((1, 900)) == (1, 900)


def test_members_stand_as_policy_status_says() -> None:
    """Synced, behind, refusing with the reason, or following something else."""
    head, rejection = (1, 42), Rejection(policy="Route/x", revision=(1, 42), reason="no such subset")

    def member(name: str, **fields: Any) -> Member:
        return Member(service="s", id=name, name=name, red=red(0, 0), **fields)

    members = (
        member("a", policy_source="bus", revision=head),
        member("b", policy_source="bus", revision=(1, 41)),
        member("c", policy_source="bus", revision=head, rejected=3, rejections=(rejection,)),
        member("d", policy_source="files"),
        member("e", policy_source="cache", revision=head),
    )
    shown = msgspec.structs.replace(snapshot(0), members=members)
    found = {each["id"]: (each["sync"], each["reason"]) for each in _document(shown)["members"].values()}
    assert found == {
        "a": ("SYNCED", ""),
        "b": ("STALE", "it is at 41, the policies are at 42"),
        "c": ("REJECTED", "Route/x: no such subset (and 2 more)"),
        "d": ("ELSEWHERE", "its policies come from files"),
        "e": ("STALE", "it reads from its cache: the store has not answered it"),
    }


def test_every_view_gives_the_same_verdict() -> None:
    """A member stands in `top`, in the page and in `policy status` in the same words, and is counted once."""
    head, refusal = (1, 42), Rejection(policy="Route.x", revision=(1, 42), reason="no such subset")
    sources = ("bus", "cache", "files", "given", "off")
    members = tuple(
        Member(
            service="s",
            id=f"{source}{revision}{rejected}",
            name="n",
            red=red(0, 0),
            policy_source=source,
            revision=(epoch, revision),
            rejected=rejected,
            rejections=(refusal,) if rejected else (),
        )
        for source in sources
        for epoch, revision in ((1, 42), (1, 41), (2, 1), (0, 0))
        for rejected in (0, 1, 3)
    )
    board = Board()
    board.take(head, [])
    shown = msgspec.structs.replace(snapshot(0), members=members, policies=PolicySync(head=head))
    page = _document(shown, board)
    in_page = {
        each["id"]: (each["sync"], each["revision"], each["reason"]) for each in page["members"].values()
    }
    in_top = {
        each.id: (each.state, each.revision, each.reason) for each in followers(Data(mesh=shown, head=head))
    }
    in_status = {}
    for each in members:
        record = member_record(
            Acked(
                service="s",
                instance=each.id,
                source=each.policy_source,
                revision=each.revision,
                rejected=each.rejected,
                rejections=each.rejections,
            ),
            head,
        )
        in_status[each.id] = (record["state"], record["revision"], record["reason"])
    assert in_page == in_top == in_status
    counted = page["mesh"][""]
    assert sum(counted[each] for each in ("synced", "stale", "rejecting", "others")) == len(members)


def test_what_is_listed_is_bounded() -> None:
    """Policies and events have a highest number; what is left out of the policies is said."""
    board = Board()
    many = [Revision(key=f"Limit.l{n}", sequence=n, value=b"{", time="") for n in range(1, MAX_POLICIES + 3)]
    board.take((1, 9), many)
    found = _document(snapshot(3, events=MAX_EVENTS + 50), board)
    assert (len(found["policies"]), len(found["events"])) == (MAX_POLICIES, MAX_EVENTS)
    assert found["mesh"][""]["policies_problem"] == "2 more policies are not listed"


def test_events_of_days_to_come_hide_none_of_others() -> None:
    """A member says when something was: however many it tells of, those of others are on the page, too."""
    mesh = snapshot(3, events=10)
    (first, *_) = mesh.events
    made_up = [
        msgspec.structs.replace(first, service="made-up", seq=number, at="9999-01-01T00:00:00Z")
        for number in range(1, MAX_EVENTS + 1)
    ]
    found = _document(msgspec.structs.replace(mesh, events=(*mesh.events, *made_up)), Board())
    assert len(found["events"]) == MAX_EVENTS
    assert len([each for each in found["events"].values() if each["service"] != "made-up"]) == 10


def test_what_several_members_tell_alike_is_one_row() -> None:
    """As in `events` and in `top`; each of their services' pages has it, too."""
    told = [
        Event(
            kind="policy.applied", at=f"2026-01-31T12:00:0{n}.000Z", service=service, instance=str(n), seq=n,
            namespace="default", target="7", detail="revision 7",
        )
        for n, service in enumerate(("orders", "orders", "stock"), 1)
    ]  # fmt: skip
    (row,) = _document(msgspec.structs.replace(snapshot(1), events=tuple(told)))["events"].values()
    assert (row["service"], row["services"], row["instance"]) == ("3 members", ["orders", "stock"], "")
    (row,) = _document(msgspec.structs.replace(snapshot(1), events=tuple(told[:1])))["events"].values()
    assert (row["service"], row["services"], row["instance"]) == ("orders", ["orders"], "1")


def test_one_service_in_full() -> None:
    """Its endpoints, instances, versions, who calls it and whom it calls, and the bars of its histogram."""
    found = service_document(snapshot(4), "service-3")
    assert found is not None
    assert [each["name"] for each in found["endpoints"]] == ["op-0", "op-1"]
    assert [each["id"] for each in found["instances"]] == ["i3-0", "i3-1"]
    assert {each["source"] for each in found["calls"]} == {"service-2"}
    assert found["breakers"][0]["state"] == "OPEN"
    assert found["total"] == {"requests": 10_000, "errors": 1200}
    assert service_document(snapshot(4), "nobody") is None
    client = service_document(snapshot(4), "web")
    assert client is not None
    assert client["endpoints"] == []


def test_bars_show_gaps_and_lose_no_call() -> None:
    """Every call is in one bar, bars in between that are empty are there, and there are never many."""
    spread = tuple((BOUNDS[at], at + 1) for at in range(3, 80, 7))
    recent = msgspec.structs.replace(figures(), buckets=(*spread, (float("inf"), 5)))
    service = msgspec.structs.replace(
        snapshot(1).services[0], red=msgspec.structs.replace(red(), recent=recent)
    )
    found = service_document(msgspec.structs.replace(snapshot(1), services=(service,)), "service-0")
    assert found is not None
    bars = found["histogram"]
    assert sum(bar["count"] for bar in bars) == sum(count for _, count in spread) + 5
    assert bars[-1] == {"le_ms": None, "count": 5}
    assert len(bars) <= 17
    bounds = [bar["le_ms"] for bar in bars[:-1]]
    assert bounds == sorted(set(bounds))


# -- who gets it --------------------------------------------------------------------------------------


@given(
    before=st.dictionaries(st.sampled_from("abc"), st.integers(0, 2).map(lambda n: {"n": n})),
    after=st.dictionaries(st.sampled_from("abc"), st.integers(0, 2).map(lambda n: {"n": n})),
)
def test_a_difference_leads_from_one_document_to_the_next(before: Any, after: Any) -> None:
    """What is set and what is gone makes the one out of the other; where nothing changed it is empty."""
    change = difference({"s": before}, {"s": after}).get("s", {"set": {}, "gone": []})
    made = {**before, **change["set"]}
    for key in change["gone"]:
        del made[key]
    assert made == after
    assert not difference({"s": after}, {"s": after})


def _events(data: bytes) -> list[tuple[str, str]]:
    """Kind and id of each message."""
    return [
        (found[1].decode(), found[0].decode())
        for found in re.findall(rb"id: (\S+)\nevent: (\w+)\ndata: [^\n]*\n\n", data)
    ]


def _put(hub: Hub, number: int) -> None:
    hub.put({"s": {"a": {"n": number, "text": f"two\nlines {HOSTILE}"}}}, {"": [float(number)]})


async def test_a_browser_gets_everything_and_then_what_is_new() -> None:
    """First the whole document, then differences; after a break those it missed, or everything where they are gone."""
    hub = Hub("e1", kept=3)
    _put(hub, 1)
    stream = hub.follow()
    assert await anext(stream) == b"retry: 1000\n\n"
    assert _events(await anext(stream)) == [("full", "e1-1")]
    _put(hub, 2)
    assert _events(await anext(stream)) == [("delta", "e1-2")]
    _put(hub, 3)
    _put(hub, 4)
    assert _events(await anext(stream)) == [("delta", "e1-3"), ("delta", "e1-4")], (
        "a slow one gets them together"
    )
    for last, expected in (
        ("e1-2", [("delta", "e1-3"), ("delta", "e1-4")]),
        ("e1-0", [("full", "e1-4")]),
        ("e0-3", [("full", "e1-4")]),
        ("e1-999", [("full", "e1-4")]),
        ("nonsense", [("full", "e1-4")]),
    ):
        again = hub.follow(last)
        await anext(again)
        assert _events(await anext(again)) == expected, last
    hub.close()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_nobody_gets_what_is_old() -> None:
    """After a rest without browsers a new one waits for a new document."""
    hub = Hub("e1")
    _put(hub, 1)
    hub.rest()
    stream = hub.follow("e1-1")
    await anext(stream)
    found: list[bytes] = []

    async def take() -> None:
        found.append(await anext(stream))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        assert not found
        _put(hub, 2)
    assert _events(found[0]) == [("full", "e1-2")]


async def test_who_comes_after_a_pause_sees_what_is_found_out_then() -> None:
    """What is asked for only while somebody looks on is asked before the first document, and not by everybody again;
    where nobody answers the document comes all the same."""
    hub, looks = Hub("e1"), 0
    hangs = anyio.Event()

    async def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            await hangs.wait()

    async def first() -> int:
        with hub.seat():
            stream = hub.follow()
            await anext(stream)
            found = re.search(rb'"looks":(\d+)', await anext(stream))
            assert found is not None
            return int(found[1])

    async with anyio.create_task_group() as tasks:
        make = partial(
            pump, hub, look, lambda: ({"s": {"a": {"looks": looks}}}, {}), every_s=0.01, first_s=0.1
        )
        tasks.start_soon(make)
        await anyio.wait_all_tasks_blocked()
        with hub.seat():  # somebody else stays
            assert (await first(), await first()) == (1, 1)
        for expected in (2, 3):
            await eventually(lambda: hub._document is None)  # it rests
            assert await first() == expected
        tasks.cancel_scope.cancel()


async def test_seats_are_bounded_and_given_back() -> None:
    """So many browsers and no more; one that leaves makes room."""
    hub = Hub("e1", most=1)
    with hub.seat(), pytest.raises(FullError), hub.seat():
        pass
    assert hub.browsers == 0
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(hub.wanted)
        await anyio.wait_all_tasks_blocked()
        with hub.seat():
            await hub.wanted()


class _Peer:
    """The other end of an ASGI call: what was sent, and a browser that may stop taking it."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.stuck = False
        self.gone = anyio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.stuck:
            await anyio.sleep_forever()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


_SCOPE: dict[str, Any] = {"type": "http", "method": "GET", "path": "/api/stream", "query_string": b""}


async def test_who_takes_nothing_any_more_is_dropped() -> None:
    """A stuck browser loses its seat; nothing waits for it but the one message that it does not take."""
    hub, peer = Hub("e1"), _Peer()
    _put(hub, 1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Stream(hub, send_s=0.01), {**_SCOPE, "headers": []}, peer.receive, peer.send)
        await anyio.wait_all_tasks_blocked()
        assert _events(peer.body) == [("full", "e1-1")]
        peer.stuck = True
        _put(hub, 2)
    assert hub.browsers == 0
    assert _events(peer.body) == [("full", "e1-1")]


async def test_who_leaves_gives_the_seat_back() -> None:
    """A closed tab ends its stream at once, and so does the end of the program."""
    for ending in ("gone", "close"):
        hub, peer = Hub("e1"), _Peer()
        _put(hub, 1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Stream(hub), {**_SCOPE, "headers": []}, peer.receive, peer.send)
            await anyio.wait_all_tasks_blocked()
            assert hub.browsers == 1
            if ending == "gone":
                peer.gone.set()
            else:
                hub.close()
        assert hub.browsers == 0


# -- who is refused -----------------------------------------------------------------------------------


async def _ask(
    path: str = "/", headers: Mapping[str, str] | None = None, *, method: str = "GET", hub: Hub | None = None
) -> tuple[int, dict[str, str], bytes]:
    given = {"host": "127.0.0.1:8480", **(headers or {})}
    peer = _Peer()
    app = application(
        hub or Hub("e1"), lambda name: service_document(snapshot(2), name), names=["localhost", "desk"]
    )
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    await app(scope, peer.receive, peer.send)
    start = peer.sent[0]
    return start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, peer.body


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8480", "localhost", "LOCALHOST:1", "[::1]:8480", "10.0.0.7:8480", "desk.:80"]
)
async def test_addresses_and_allowed_names_are_served(host: str) -> None:
    """An address cannot be made to mean another one; names count where they were allowed."""
    assert (await _ask(headers={"host": host}))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8480",
        "localhost.evil.example",
        "",
        "127.0.0.1@evil.example",
        "a/b",
        "[::1",
        "x,y",
    ],
)
async def test_other_names_are_refused(host: str) -> None:
    """A name that suddenly leads here is somebody else's (DNS rebinding): not even the page is served under it."""
    for path in ("/", "/api/stream", "/api/services/service-0"):
        assert (await _ask(path, {"host": host}))[0] == 421
    assert host_of("127.0.0.1:8480") == "127.0.0.1"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8481"},
        {"origin": "file://127.0.0.1:8480"},
        {"origin": "http://[127.0.0.1:8480"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_other_sites_are_refused(headers: dict[str, str]) -> None:
    """A page of another origin gets no figures."""
    assert (await _ask("/api/services/service-0", headers))[0] == 403


async def test_the_page_itself_is_served_to_itself() -> None:
    """Requests of the page say its own origin, and a link from elsewhere may lead to it."""
    same = {"origin": "http://127.0.0.1:8480", "sec-fetch-site": "same-origin"}
    status, headers, body = await _ask("/api/services/service-0", same)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert msgspec.json.decode(body)["name"] == "service-0"
    assert (await _ask("/", {"sec-fetch-site": "cross-site"}))[0] == 200
    assert (await _ask("/api/services/nobody"))[0] == 404
    assert (await _ask("/nowhere"))[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_nothing_can_be_changed(method: str) -> None:
    """No method but GET and HEAD exists, on any path."""
    for path in ("/", "/api/stream", "/api/services/service-0", "/nowhere"):
        assert (await _ask(path, method=method))[0] == 405


async def test_head_gets_no_stream() -> None:
    """Who asks for the head alone gets it, and takes no seat."""
    hub = Hub("e1")
    status, headers, body = await _ask("/api/stream", method="HEAD", hub=hub)
    assert (status, body, hub.browsers) == (200, b"", 0)
    assert headers["content-type"].startswith("text/event-stream")


async def test_a_full_house_is_said() -> None:
    """Whoever finds no seat is told to come again."""
    status, headers, _ = await _ask("/api/stream", hub=Hub("e1", most=0))
    assert (status, headers["retry-after"]) == (503, "10")


async def test_every_answer_says_what_browsers_must_not_do() -> None:
    """Neither the page nor an error can be framed, sniffed, kept, or made to run or load anything else."""
    for path in ("/", "/nowhere", "/api/services/service-0"):
        _, headers, _ = await _ask(path)
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")


def test_the_page_stands_alone() -> None:
    """One document: its own style and program, each allowed by its hash alone, and no address of anything else."""
    text, policy = page()
    for tag in ("style", "script"):
        found = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", text, re.DOTALL)
        assert len(found) == 1
        wanted = base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{wanted}'" in policy
    assert set(re.findall(r"https?://[^\s\"'`)]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|\bon\w+=", text)
    assert re.findall(r"url\(([^)]*)\)", text) == ["#tip"]


async def test_hostile_texts_travel_as_data() -> None:
    """A version, a label, an error or a caller that is markup, or has line ends, is a JSON string on one line."""
    nasty = f"{HOSTILE}\n\nevent: full\ndata: {{}}"
    edge = Edge(source="web", service="service-0", reporter="in", red=red(last_error=nasty))
    hub = Hub("e1")
    hub.put(_document(msgspec.structs.replace(snapshot(1), edges=(edge,))), {})
    stream = hub.follow()
    await anext(stream)
    message = await anext(stream)
    assert _events(message) == [("full", "e1-1")]
    lines = message.decode().split("\n")
    assert [line.partition(":")[0] for line in lines] == ["id", "event", "data", "", ""]
    sent = msgspec.json.decode(lines[2].removeprefix("data: "))
    assert sent["document"]["edges"]["web>service-0"]["last_error"] == nasty


# -- the command --------------------------------------------------------------------------------------


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    """Without starlette the command says what to install, and starts nothing."""
    (tmp_path / "starlette.py").write_text("raise ModuleNotFoundError(name='starlette')", encoding="utf-8")
    done = run_cli("dashboard", env={"PYTHONPATH": str(tmp_path), "NATS_URL": "nats://127.0.0.1:1"})
    assert (done.code, done.out) == (2, "")
    assert "starlette" in done.err
    assert "pip install 'nats-mesh[dashboard]'" in done.err


def test_what_cannot_be_served_is_said() -> None:
    """A port that is taken, an address that is not this machine's, a bus that is not there: each with what to do."""
    env = {"NATS_URL": "nats://127.0.0.1:1"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        busy, elsewhere, busless = run_many(
            [
                ["dashboard", "--port", port],
                ["dashboard", "--host", "192.0.2.1", "--port", "0"],
                ["dashboard", "--port", "0"],
            ],
            env,
        )
    assert (busy.code, busy.out) == (2, "")
    assert f"127.0.0.1 port {port}" in busy.err
    assert "--port 0" in busy.err
    assert (elsewhere.code, busless.code) == (2, 3)
    assert "192.0.2.1" in elsewhere.err


def test_the_command_serves_and_ends(nats_server: NatsServer) -> None:
    """stdout has the address alone; a stream comes from there, and Ctrl-C ends it with 0 though somebody looks on."""
    env = {"NATS_URL": nats_server.url, "MESH_NAMESPACE": f"d-{secrets.token_hex(4)}"}
    with Background(["dashboard", "--port", "0", "-o", "json"], env=env) as running:
        url = msgspec.json.decode(running.wait_for('"url"'))["url"]
        host = url.removeprefix("http://").rstrip("/")
        looking = http.client.HTTPConnection(host, timeout=20)
        looking.request("GET", "/api/stream")
        stream = looking.getresponse()
        assert stream.getheader("Content-Type") == "text/event-stream; charset=utf-8"
        found = b"".join(stream.readline() for _ in range(5))
        assert re.search(rb"event: full\ndata: \{", found), found
        one = http.client.HTTPConnection(host, timeout=20)
        one.request("GET", "/", headers={"Host": "evil.example"})
        assert one.getresponse().status == 421
        assert running.interrupt() == 0
    assert running.err[-1] == "stopped"
    assert not any("Traceback" in line for line in running.err)
    looking.close()
    one.close()


def test_what_is_open_to_others_is_said(nats_server: NatsServer) -> None:
    """Whoever opens the port to others is told that it has no log-in."""
    with Background(
        ["dashboard", "--host", "0.0.0.0", "--port", "0"], env={"NATS_URL": nats_server.url}
    ) as running:
        running.wait_for("without a log-in")
        assert running.end(signal.SIGTERM) == 0

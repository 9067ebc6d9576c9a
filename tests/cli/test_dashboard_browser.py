"""The web view in a real browser: what people see, and what a hostile name, a lost server or a lost bus does."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import msgspec
import pytest

from nats_mesh.telemetry.snapshots import Red, Snapshot
from nats_mesh.testing import NatsServer
from nats_mesh_cli.silent import Silent
from tests.browser import Browser, chromium
from tests.cli.program import Background, run_cli
from tests.dashboards import Scripted, bookinfo, scripted
from tests.snapshots import red, snapshot

pytestmark = pytest.mark.timeout(180)

HOSTILE = '"><img src=x onerror=alert(1)></text></script><script>alert(2)</script>'
SERVICES = ["details", "productpage", "ratings", "reviews"]
EDGES = ["productpage>details", "productpage>reviews", "reviews>ratings", "web>productpage"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests; each opens a page that knows of no other."""
    with chromium() as made:
        yield made


def _node(name: str) -> str:
    return f"a.node[data-service={name!r}]"


def _edge(name: str) -> str:
    return f"g.edge[data-edge={name!r}]"


def _nothing_left_the_origin(browser: Browser, url: str) -> None:
    """Every request went where the page came from, and the browser had nothing to complain of."""
    seen = browser.seen()
    origins = {urlsplit(request.split(" ", 1)[1])[:2] for request in seen["requests"]}
    assert origins <= {urlsplit(url)[:2], ("data", "")}
    assert {request.split(" ", 1)[0] for request in seen["requests"]} == {"GET"}
    assert (seen["errors"], seen["dialogs"]) == ([], [])


# -- a mesh that runs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bus() -> Iterator[NatsServer]:
    """A server that tests may stop and start again."""
    with NatsServer() as server:
        yield server


@pytest.fixture(scope="module")
def mesh(bus: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Bookinfo under load; what points a command at it."""
    env = {"NATS_URL": bus.url, "MESH_NAMESPACE": "books"}
    with bookinfo(env, tmp_path_factory.mktemp("books"), rate=40):
        yield env


@pytest.fixture(scope="module")
def served(mesh: dict[str, str]) -> Iterator[str]:
    """`nats-mesh dashboard` for it; its address."""
    with Background(["dashboard", "--port", "0"], env=mesh) as running:
        yield running.wait_for("http://127.0.0.1:")
        assert running.end(signal.SIGTERM) == 0
        assert running.err[-1] == "stopped"


# First: a breaker looks at the last ten seconds, and few good calls are in them yet.
def test_an_error_and_a_breaker_show(browser: Browser, mesh: dict[str, str], served: str) -> None:
    """Where ratings fail: its edge says so in words, its caller's breaker is drawn as open, and it heals again."""
    browser.open(served)
    edge, node = _edge("reviews>ratings"), _node("ratings")
    broken = run_cli("fault", "ratings", "--abort", "UNAVAILABLE", "--for", "1m", env=mesh)
    assert broken.code == 0, broken.err
    browser.until_text(f"{edge} .trouble", "⊘ OPEN")
    browser.until(f"document.querySelector({edge!r}).classList.contains('open')")
    browser.until_text(f"{edge} .trouble", "✕ ")
    browser.until_text(f"{node} .badge", "⊘ OPEN")
    browser.until_text("[data-tile=open]", "⊘ ")
    browser.ask("press", key="4")
    browser.until_text("main", "breaker.open")
    browser.ask("press", key="1")
    healed = run_cli("fault", "ratings", "--clear", env=mesh)
    assert healed.code == 0, healed.err


def test_the_graph_shows_a_mesh_that_runs(browser: Browser, served: str) -> None:
    """Bookinfo's services and edges stand there with rates and latency, and traffic moves on the edges."""
    browser.open(served)
    for name in [*SERVICES, "web"]:
        browser.until(f"document.querySelector({_node(name)!r}) !== null")
    for name in EDGES:
        browser.until(
            f"parseFloat(document.querySelector({_edge(name)!r})?.querySelector('text')?.textContent) > 1"
        )
        assert re.search(r"\d (µs|ms)", browser.text(f"{_edge(name)} text"))
    flow = f"getComputedStyle(document.querySelector({_edge(EDGES[0])!r} + ' path.flow'))"
    assert browser.evaluate(f"{flow}.animationName") == "flow"
    places = browser.evaluate(
        "Object.fromEntries([...document.querySelectorAll('a.node')].map((n) => "
        "[n.dataset.service, n.getBoundingClientRect().left]))"
    )
    assert places["web"] < places["productpage"] < places["reviews"] < places["ratings"]
    assert browser.text("#namespace") == "books"
    assert float(browser.text("[data-tile=rate]")) > 40
    _nothing_left_the_origin(browser, served)


def test_a_service_has_a_page_that_keys_lead_to(browser: Browser, served: str) -> None:
    """From the graph by Tab and Enter to a service: endpoints, versions, callers, bars, and back by a key."""
    browser.open(served)
    browser.until(f"document.querySelector({_node('reviews')!r}) !== null")
    browser.evaluate(f"document.querySelector({_node('reviews')!r}).focus()")
    browser.ask("press", key="Enter")
    browser.until_text("h2", "reviews")
    browser.until("document.querySelectorAll('.bars .fill').length > 1")
    page = browser.text("main")
    for words in ("1.0.0 ×1, 2.0.0 ×1, 3.0.0 ×1", "Called by", "productpage", "ratings", "Latency"):
        assert words in page, words
    assert browser.evaluate("location.hash") == "#/services/reviews"
    browser.ask("press", key="2")
    browser.until("document.querySelectorAll('main tbody tr').length === 4")
    browser.ask("press", key="/")
    browser.ask("type", text="rat")
    browser.until("document.querySelectorAll('main tbody tr').length === 1")
    browser.ask("press", key="Escape")
    browser.until("document.querySelectorAll('main tbody tr').length === 4")
    browser.ask("click", at="thead button >> text=p99")
    assert browser.evaluate("document.querySelector('th[aria-sort] button').textContent") == "p99"
    _nothing_left_the_origin(browser, served)


def test_policies_show_with_who_has_them(
    browser: Browser, mesh: dict[str, str], served: str, tmp_path: Path
) -> None:
    """A policy on the bus is listed, with its revision and everybody who follows it."""
    file = tmp_path / "limit.yaml"
    file.write_text(
        "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: patient}\n"
        "spec: {target: {service: ratings}, timeout: 2s}\n",
        encoding="utf-8",
    )
    applied = run_cli("policy", "apply", "-f", str(file), "--message", HOSTILE, "--wait", env=mesh)
    assert applied.code == 0, applied.err
    browser.open(f"{served}#/policies")
    browser.until_text("main", "Destination/patient")
    browser.until_text("main", HOSTILE)
    browser.until_text("main", "● SYNCED")
    browser.until_text("#sync", "in sync")
    _nothing_left_the_origin(browser, served)


def test_the_page_survives_its_server_and_its_bus(
    browser: Browser, bus: NatsServer, mesh: dict[str, str]
) -> None:
    """A banner says which of the two is away; both times the page comes back by itself, without being loaded anew."""
    with Background(["dashboard", "--port", "0"], env=mesh) as first:
        url = first.wait_for("http://127.0.0.1:")
        browser.open(url)
        browser.until(f"document.querySelector({_node('reviews')!r}) !== null")
        browser.evaluate("window.same = true")
        first.process.kill()
        first.wait()
    browser.until("!document.querySelector('#banner').hidden")
    browser.until_text("#banner", "server does not answer")
    with Background(["dashboard", "--port", str(urlsplit(url).port)], env=mesh) as second:
        browser.until("document.querySelector('#banner').hidden")
        anyio.run(bus.kill)
        browser.until_text("#banner", "The bus is away")
        anyio.run(bus.restart)
        browser.until("document.querySelector('#banner').hidden")
        browser.until(f"document.querySelector({_node('reviews')!r}) !== null")
        assert browser.evaluate("window.same")
        assert second.end(signal.SIGINT) == 0


# -- meshes that never were ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage() -> Iterator[Scripted]:
    """A server of made-up snapshots."""
    with scripted(snapshot(4)) as made:
        yield made


def _hostile() -> Snapshot:
    """A mesh in which every text that anybody can choose is markup."""
    shown, bad = snapshot(4), HOSTILE
    nasty = red(errors=500, last_error=bad)
    names = {service.name: f"{service.name}{bad}" for service in shown.services}
    replace = msgspec.structs.replace
    return replace(
        shown,
        namespace=bad,
        server=bad,
        services=tuple(
            replace(s, name=names[s.name], versions={bad: 2, "1": 1}, red=nasty) for s in shown.services
        ),
        endpoints=tuple(replace(e, service=names[e.service], name=bad, red=nasty) for e in shown.endpoints),
        versions=tuple(replace(v, service=names[v.service], version=bad) for v in shown.versions),
        edges=tuple(
            replace(
                e,
                source=names.get(e.source, bad),
                service=names[e.service],
                red=nasty,
                endpoints={bad: nasty},
            )
            for e in shown.edges
        ),
        members=tuple(
            replace(m, service=names[m.service], name=bad, version=bad, state=bad, labels={bad: bad})
            for m in shown.members
        ),
        breakers=tuple(
            replace(b, service=names[b.service], caller=bad, endpoint=bad) for b in shown.breakers
        ),
        events=tuple(
            replace(e, kind=bad, service=names[e.service], target=bad, detail=bad) for e in shown.events
        ),
    )


def test_hostile_names_are_text(browser: Browser, stage: Scripted) -> None:
    """Markup in names, versions, labels, errors and events is shown as it is: no element, no dialog, no request."""
    stage.shown = _hostile()
    browser.open(stage.url)
    browser.until("document.querySelectorAll('a.node').length === 5")
    browser.until_text("#namespace", HOSTILE)
    for view in ("graph", "services", "policies", "events"):
        browser.evaluate(f"location.hash = '#/{view}'")
        browser.until_text("main", HOSTILE[:12] if view == "graph" else HOSTILE)
    browser.evaluate(
        "location.hash = document.querySelector('main a, a.node')?.getAttribute('href') ?? '#/services'"
    )
    browser.evaluate("location.hash = '#/services'")
    browser.until("document.querySelector('main tbody a') !== null")
    browser.ask("click", at="main tbody a")
    browser.until("document.querySelector('h2')?.textContent.includes('<img')")
    browser.until_text("main", "Endpoints")
    assert (
        browser.evaluate(
            "document.querySelectorAll('img, script:not(head script):not(body > script)').length"
        )
        == 0
    )
    assert browser.evaluate("document.querySelectorAll('script').length") == 1
    _nothing_left_the_origin(browser, stage.url)


def test_the_browser_itself_forbids_more(browser: Browser, stage: Scripted) -> None:
    """A page that was tricked could neither run other scripts, nor turn texts into markup, nor send anything away."""
    stage.shown = snapshot(2)
    browser.open(stage.url)
    for attempt in (
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))",
        "document.body.innerHTML = '<b>x</b>'",
        "eval('window.ran = 1')",
    ):
        browser.evaluate(
            # In a task of the page's own: what the debugger evaluates is above the policy.
            f"setTimeout(() => {{ try {{ {attempt} }} catch {{ window.refused = (window.refused || 0) + 1 }} }})"
        )
    browser.until("window.refused === 3")
    assert browser.evaluate("window.ran === undefined")
    away = "fetch('http://localhost:9/').then(() => 'sent', () => 'refused')"
    assert browser.evaluate(away) == "refused"
    assert any("Content Security Policy" in error for error in browser.seen()["errors"])


def test_nothing_and_two_hundred(browser: Browser, stage: Scripted) -> None:
    """An empty mesh says how to begin; 200 services stand apart from each other, and the page answers a key soon."""
    stage.shown = Snapshot(red=red(0, 0))
    browser.open(stage.url)
    browser.until_text("main", "No service is there yet")
    stage.shown = snapshot(200)
    browser.until("document.querySelectorAll('a.node').length === 201")
    assert (
        browser.evaluate(
            "new Set([...document.querySelectorAll('a.node')].map((n) => n.getAttribute('transform'))).size"
        )
        == 201
    )
    browser.ask("press", key="2")
    browser.until("document.querySelectorAll('main tbody tr').length === 200")
    assert "✕ failing" in browser.text("main tbody tr"), "the worst stands first"
    stage.shown = snapshot(1)
    browser.until("document.querySelectorAll('main tbody tr').length === 1")
    _nothing_left_the_origin(browser, stage.url)


def test_locks_colours_and_motion(browser: Browser, stage: Scripted) -> None:
    """Locked edges show a lock; dark and light follow the system and the button; who wants no motion sees none."""
    stage.shown, stage.tls = snapshot(2), True
    browser.open(stage.url, scheme="dark", calm=True)
    # The page is there before the first figures, and its edges come with these.
    browser.until(f"document.querySelector({_edge('web>service-0')!r}) !== null")
    lock = f"getComputedStyle(document.querySelector({_edge('web>service-0')!r} + ' .lock')).display"
    browser.until(f"{lock} !== 'none'")
    flow = f"getComputedStyle(document.querySelector({_edge('web>service-0')!r} + ' path.flow'))"
    assert browser.evaluate(f"{flow}.animationName") == "none"
    assert browser.evaluate("document.documentElement.dataset.theme") == "dark"
    dark = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    for expected in ("dark", "light"):
        browser.ask("click", at="#theme")
        assert browser.evaluate("document.documentElement.dataset.theme") == expected
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    stage.tls = False
    browser.until(f"{lock} === 'none'")


def test_what_is_bad_is_shown_as_bad(browser: Browser, stage: Scripted) -> None:
    """In every table that has it: the colour and the sign of the level that the server gives, whatever the page is."""
    shown = snapshot(4)
    calls = (red(1000, 0), red(1000, 5), red(1000, 11), red(0, 0))
    services = tuple(
        msgspec.structs.replace(each, red=calls[at], breakers={}, ejected=0, ready=each.instances)
        for at, each in enumerate(shown.services)
    )
    edges = tuple(
        msgspec.structs.replace(each, red=calls[at], breakers={}) for at, each in enumerate(shown.edges)
    )
    stage.shown = msgspec.structs.replace(shown, services=services, edges=edges, breakers=(), ejections=())
    for view, name in (("services", "Services"), ("graph", "Edges")):
        browser.open(f"{stage.url}#/{view}", scheme="light")
        browser.until("document.querySelectorAll('main tbody tr').length >= 4")
        rows = browser.evaluate(
            "Object.fromEntries([...document.querySelectorAll('main tbody tr')].map((row) => { "
            "const cell = [...row.cells].find((each) => / %$|^–$/.test(each.textContent)); "
            "const probe = document.createElement('i'); document.body.append(probe); "
            "const of = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; }; "
            "const ground = getComputedStyle(row.cells[0]).backgroundColor; "
            "probe.style.color = 'var(--badback)'; const bad = getComputedStyle(probe).color === ground; "
            "const found = [cell.textContent, row.dataset.level || '', bad, "
            "['bad', 'warn', 'ok'].find((each) => of(each) === getComputedStyle(cell).color) || '']; "
            "probe.remove(); return [row.cells[view_column].textContent, found]; }))".replace(
                "view_column", "0" if view == "services" else "1"
            )
        )
        assert rows["service-0"] == ["100 %", "ok", False, "ok"], name
        assert rows["service-1"] == ["▲ 99.50 %", "warn", False, "warn"], name
        assert rows["service-2"] == ["✕ 98.90 %", "bad", True, "bad"], name
        assert rows["service-3"] == ["–", "", False, ""], name
    kinds = browser.evaluate(
        "Object.fromEntries([...document.querySelectorAll('g.edge')].map((edge) => "
        "[edge.dataset.edge.split('>')[1], edge.classList.contains('errors')]))"
    )
    assert kinds == {"service-0": False, "service-1": False, "service-2": True, "service-3": False}


def test_figures_stay_where_a_reader_looks(browser: Browser, stage: Scripted) -> None:
    """New figures change texts and no elements: what has the focus keeps it, and a row keeps its node."""
    stage.shown = snapshot(3)
    browser.open(f"{stage.url}#/services")
    browser.until("document.querySelectorAll('main tbody tr').length === 3")
    browser.evaluate("(window.row = document.querySelector('main tbody tr')).querySelector('a').focus()")
    faster: Red = red(calls=7770, errors=0)
    first = stage.shown.services[0]
    shown = tuple(msgspec.structs.replace(each, red=faster) for each in stage.shown.services)
    stage.shown = msgspec.structs.replace(stage.shown, services=shown)
    browser.until_text("main tbody tr", "777")
    assert first.name in browser.evaluate("window.row.textContent")
    assert browser.evaluate("document.activeElement === window.row.querySelector('a')")
    assert browser.evaluate("[...document.querySelectorAll('main tbody tr')].includes(window.row)")


def test_a_lost_bus_is_said(browser: Browser, stage: Scripted) -> None:
    """While the bus is away the page says so and for how long; when it is back the banner goes."""
    stage.shown = msgspec.structs.replace(snapshot(2), connected=False, away_s=7.2)
    browser.open(stage.url)
    browser.until_text("#banner", "The bus is away (for 7 s)")
    assert "away" in browser.text("#bus")
    stage.shown = snapshot(2)
    browser.until("document.querySelector('#banner').hidden")
    browser.until_text("#bus", "● connected")


def test_who_hangs_and_has_no_row_is_named(browser: Browser, stage: Scripted) -> None:
    """A banner says who is connected and answers nothing; figures are those of now all the same."""
    stage.shown = snapshot(2)
    stage.silent = (Silent("legacy", "ABCDEFGH", "host-7", 60.0),)
    browser.open(stage.url)
    browser.until_text("#banner", "legacy ABCDEFGH (host-7, heard 60 s ago)")
    assert not browser.evaluate("document.body.classList.contains('stale')")
    stage.silent = ()
    browser.until("document.querySelector('#banner').hidden")

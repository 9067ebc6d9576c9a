"""Bookinfo behaves as the public sample does, on both transports and in any of its versions."""

from __future__ import annotations

import http.server
import importlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from examples.bookinfo import ALL, DEFAULT, load
from examples.bookinfo.model import NoSuchProductError, Page, ProductId, Rating, Reviews
from nats_mesh import CallError, ConfigError, Context, Mesh, Service, Status
from nats_mesh.clock import SYSTEM_CLOCK
from nats_mesh.discovery.observer import Observer
from nats_mesh.settings import Settings
from nats_mesh.testing import MemoryMesh, NatsServer, run_virtual
from tests.harness import TRANSPORTS, Bus, open_bus
from tests.tools import ROOT

pytestmark = pytest.mark.anyio

SORRY = "Sorry, product {} are currently unavailable for this book."
NO_RATINGS = Rating(error="Ratings service is currently unavailable")


@pytest.fixture(params=sorted(TRANSPORTS))
async def bus(request: pytest.FixtureRequest, mesh_namespace: str) -> AsyncIterator[Bus]:
    """An empty mesh, in memory and on a real server."""
    async with open_bus(request, request.param, mesh_namespace) as opened:
        yield opened


async def serve(bus: Bus, *names: str) -> None:
    """Start some of Bookinfo's services."""
    for name in names:
        await bus.serve(load(name))


async def page(bus: Bus, **options: Any) -> Page:
    """The page of the one product."""
    found: Page = await bus.mesh.call("productpage.page", ProductId(), returns=Page, **options)
    return found


def stars(page: Page) -> list[Rating | None]:
    """The ratings on a page, in the order of its reviews."""
    assert page.reviews is not None
    return [review.rating for review in page.reviews.reviews]


async def test_the_page_has_the_samples_data(bus: Bus) -> None:
    """Title, details and both reviewers' texts are those of the public sample."""
    await serve(bus, "details:v1", "reviews:v1", "productpage:v1")
    raw = await bus.mesh.call("productpage.page")
    assert raw["product"]["title"] == "The Comedy of Errors"
    assert raw["details"] == {
        "id": 0,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    }
    assert [review["reviewer"] for review in raw["reviews"]["reviews"]] == ["Reviewer1", "Reviewer2"]
    assert raw["reviews"]["reviews"][0]["text"].endswith("The slapstick humour is refreshing!")
    assert "errors" not in raw


async def test_the_api_has_the_published_shapes(bus: Bus) -> None:
    """Each endpoint answers with the fields that the sample's API description requires."""
    await serve(bus, "ratings:v1", "details:v1", "reviews:v3", "productpage:v1")
    products = await bus.mesh.call("productpage.products")
    assert [set(product) for product in products] == [{"id", "title", "descriptionHtml"}]
    details = await bus.mesh.call("productpage.product", {"id": 0})
    required = {"id", "publisher", "language", "author", "ISBN-10", "ISBN-13", "year", "type", "pages"}
    assert set(details) == required
    reviews = await bus.mesh.call("productpage.reviews", {"id": 0})
    assert {"id", "reviews"} <= set(reviews)
    assert [set(review) for review in reviews["reviews"]] == [{"reviewer", "text", "rating"}] * 2
    assert [set(review["rating"]) for review in reviews["reviews"]] == [{"stars", "color"}] * 2
    assert await bus.mesh.call("productpage.ratings", {"id": 0}) == {
        "id": 0,
        "ratings": {"Reviewer1": 5, "Reviewer2": 4},
    }


@pytest.mark.parametrize(("version", "color"), [("v1", None), ("v2", "black"), ("v3", "red")])
async def test_each_version_of_reviews_has_its_stars(bus: Bus, version: str, color: Any) -> None:
    """No stars in v1, five and four black ones in v2, red ones in v3."""
    await serve(bus, "ratings:v1", "details:v1", f"reviews:{version}", "productpage:v1")
    expected = [None, None] if color is None else [Rating(stars=n, color=color) for n in (5, 4)]
    assert stars(await page(bus)) == expected


async def test_all_versions_of_reviews_share_the_calls(bus: Bus) -> None:
    """Without a policy every version answers pages, and the page names the instance that did."""
    await serve(bus, *DEFAULT)
    seen: set[str] = set()
    for _ in range(300):  # missing one of three by chance: 3 · (2/3)^300
        found = (await page(bus)).reviews
        assert found is not None
        seen.add(found.podname)
        if len(seen) == 3:
            break
    assert seen == {each.id for each in bus.instances if each.service.name == "reviews"}
    await bus.at_rest()


async def test_without_ratings_the_texts_stay(bus: Bus) -> None:
    """Reviews say that the ratings are unavailable instead of failing."""
    await serve(bus, "details:v1", "reviews:v2", "productpage:v1")
    found = await page(bus)
    assert stars(found) == [NO_RATINGS, NO_RATINGS]
    assert found.errors == {}


async def test_a_reviewer_without_a_rating_is_told_apart(bus: Bus) -> None:
    """Ratings that name one reviewer leave the other without stars."""
    await serve(bus, "ratings:v1", "details:v1", "reviews:v3", "productpage:v1")
    put = await bus.mesh.call("ratings.put", {"id": 0, "ratings": {"Reviewer2": 1}})
    assert put == {"id": 0, "ratings": {"Reviewer2": 1}}
    assert stars(await page(bus)) == [NO_RATINGS, Rating(stars=1, color="red")]


async def test_a_missing_part_leaves_the_rest_of_the_page(bus: Bus) -> None:
    """Without details and reviews the page says so in the sample's words, and the API passes the status on."""
    await serve(bus, "productpage:v1")
    found = await page(bus)
    assert (found.details, found.reviews) == (None, None)
    assert found.errors == {part: SORRY.format(part) for part in ("details", "reviews")}
    with pytest.raises(CallError, match="product reviews are currently unavailable") as error:
        await bus.mesh.call("productpage.reviews")
    assert error.value.status is Status.UNAVAILABLE


async def test_reviews_are_asked_twice(bus: Bus) -> None:
    """Productpage tries its reviews once more before it gives them up, and details only once."""
    asked: list[str] = []

    def failing(name: str) -> Service:
        service = Service(name, version="9.0.0")

        @service.endpoint()
        async def get(wanted: ProductId) -> None:
            asked.append(name)
            raise ValueError("broken")

        return service

    for name in ("details", "reviews"):
        await bus.serve(failing(name))
    await serve(bus, "productpage:v1")
    assert set((await page(bus)).errors) == {"details", "reviews"}
    assert sorted(asked) == ["details", "reviews", "reviews"]


async def test_details_and_reviews_are_asked_at_the_same_time(bus: Bus) -> None:
    """Neither waits for the other: each of these two answers only when both are asked."""
    arrived: list[str] = []
    both = anyio.Event()

    def waiting(name: str) -> Service:
        service = Service(name, version="9.0.0")

        @service.endpoint()
        async def get(wanted: ProductId) -> None:
            arrived.append(name)
            if len(arrived) >= 2:
                both.set()
            await both.wait()
            raise ValueError("both were here")

        return service

    for name in ("details", "reviews"):
        await bus.serve(waiting(name))
    await serve(bus, "productpage:v1")
    await page(bus)
    assert set(arrived[:2]) == {"details", "reviews"}


async def test_the_end_user_goes_along_and_credentials_do_not(bus: Bus) -> None:
    """`end-user` and the trace reach ratings (through reviews) and details; the rest stays behind."""
    seen: dict[str, list[str]] = {}
    traces: set[str] = set()

    def spy(name: str) -> Service:
        service = Service(name, version="9.0.0")

        @service.endpoint()
        async def get(wanted: ProductId, ctx: Context) -> None:
            seen[name] = [f"{key}={value}" for key, value in ctx.headers.pairs() if key != "traceparent"]
            traces.add(ctx.trace_id)
            raise ValueError("seen")

        return service

    for name in ("ratings", "details"):
        await bus.serve(spy(name))
    await serve(bus, "reviews:v2", "productpage:v1")
    await page(bus, headers={"end-user": "jason", "authorization": "Bearer x", "x-other": "1"})
    assert seen == {"ratings": ["end-user=jason"], "details": ["end-user=jason"]}
    assert len(traces) == 1


async def test_an_unknown_product_is_a_typed_error(bus: Bus) -> None:
    """The caller gets the declared error back as itself, with its field."""
    await serve(bus, "productpage:v1")
    with pytest.raises(NoSuchProductError) as error:
        await bus.mesh.call("productpage.page", {"id": 7}, raises=(NoSuchProductError,))
    assert (error.value.id, error.value.status) == (7, Status.NOT_FOUND)


@pytest.mark.parametrize("value", [{"id": -1}, {"id": "x"}, {"id": 2**31}, []])
async def test_a_product_number_that_is_none_is_refused(bus: Bus, value: Any) -> None:
    """The sample answers 400 there; the mesh says INVALID_ARGUMENT before any code of the service runs."""
    await serve(bus, "productpage:v1")
    with pytest.raises(CallError) as error:
        await bus.mesh.call("productpage.page", value)
    assert error.value.status is Status.INVALID_ARGUMENT


@pytest.mark.parametrize("ratings", [{"Reviewer1": 0}, {"Reviewer1": 6}, {f"r{n}": 1 for n in range(101)}])
async def test_impossible_ratings_are_refused(bus: Bus, ratings: dict[str, int]) -> None:
    """One to five stars, from at most a hundred reviewers."""
    await serve(bus, "ratings:v1")
    with pytest.raises(CallError) as error:
        await bus.mesh.call("ratings.put", {"id": 0, "ratings": ratings})
    assert error.value.status is Status.INVALID_ARGUMENT


async def test_ratings_start_anew_with_each_instance(bus: Bus) -> None:
    """What was put lives in memory as long as its instance, as in the sample."""
    await serve(bus, "ratings:v1")
    await bus.mesh.call("ratings.put", {"id": 3, "ratings": {"Reviewer1": 2}})
    assert await bus.mesh.call("ratings.get", {"id": 3}) == {"id": 3, "ratings": {"Reviewer1": 2}}
    await bus.instances[-1].__aexit__(None, None, None)
    await serve(bus, "ratings:v1")
    assert await bus.mesh.call("ratings.get", {"id": 3}) == {
        "id": 3,
        "ratings": {"Reviewer1": 5, "Reviewer2": 4},
    }


# -- the versions that do not start by default ----------------------------------------------------------


@pytest.mark.parametrize("name", ["ratings:v2", "ratings:v2-mysql"])
async def test_ratings_from_a_database_are_those_of_the_sample(bus: Bus, name: str) -> None:
    """Version 2 reads five and four from the database it brings along, and takes no new ones."""
    await serve(bus, name)
    assert await bus.mesh.call("ratings.get") == {"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}
    with pytest.raises(CallError, match="Post not implemented for database backed ratings") as error:
        await bus.mesh.call("ratings.put", {"id": 0, "ratings": {}})
    assert error.value.status is Status.UNIMPLEMENTED


async def test_ratings_come_from_the_database_that_is_named(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is missing counts as no stars; a file that is missing is an error in the sample's words."""
    file = tmp_path / "a name with spaces?.db"
    monkeypatch.setenv("BOOKINFO_RATINGS_DB", str(file))
    await serve(bus, "ratings:v2")
    with pytest.raises(CallError, match="could not connect to ratings database") as error:
        await bus.mesh.call("ratings.get")
    assert error.value.status is Status.INTERNAL
    assert not file.exists()
    with sqlite3.connect(file) as made:
        made.execute("CREATE TABLE ratings (review_id INTEGER PRIMARY KEY, rating INTEGER)")
        made.execute("INSERT INTO ratings VALUES (1, 3)")
    made.close()
    assert await bus.mesh.call("ratings.get") == {"id": 0, "ratings": {"Reviewer1": 3, "Reviewer2": 0}}


class _BookService(http.server.BaseHTTPRequestHandler):
    """Answers every question with the body that its server was given."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.answer)  # type: ignore[attr-defined]  # set by the fixture

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def book_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.HTTPServer]:
    """A book service on this machine; set its `answer`."""
    with http.server.HTTPServer(("127.0.0.1", 0), _BookService) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("BOOKINFO_BOOK_SERVICE", f"http://127.0.0.1:{server.server_port}/?q=")
        yield server
        server.shutdown()
        thread.join()


async def test_details_come_from_the_book_service(bus: Bus, book_service: http.server.HTTPServer) -> None:
    """Version 2 hands on what the book service knows, in the same shape as version 1."""
    volume = {
        "authors": ["William Shakespeare"],
        "publishedDate": "2002-05-01",
        "publisher": "Courier",
        "printType": "BOOK",
        "pageCount": 64,
        "language": "en",
        "industryIdentifiers": [{"type": "ISBN_10", "identifier": "0486424618"}],
    }
    book_service.answer = json.dumps({"items": [{"volumeInfo": volume}]}).encode()  # type: ignore[attr-defined]  # what the handler above reads
    await serve(bus, "details:v2", "reviews:v1", "productpage:v1")
    details = (await page(bus)).details
    assert details is not None
    assert (details.year, details.pages, details.type, details.isbn_10, details.isbn_13) == (
        2002,
        64,
        "paperback",
        "0486424618",
        "",
    )


@pytest.mark.parametrize("answer", [b"not json", b'{"items": []}', b"{}"])
async def test_a_strange_book_service_makes_details_unavailable(
    bus: Bus, book_service: http.server.HTTPServer, answer: bytes
) -> None:
    """Whatever it answers, version 2 fails in order and the page goes without details."""
    book_service.answer = answer  # type: ignore[attr-defined]  # what the handler above reads
    await serve(bus, "details:v2", "reviews:v1", "productpage:v1")
    assert (await page(bus)).errors == {"details": SORRY.format("details")}


async def test_an_address_that_is_none_is_not_followed(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only http and https are asked: a `file:` address would read this machine's files."""
    monkeypatch.setenv("BOOKINFO_BOOK_SERVICE", "file:///etc/passwd?")
    await serve(bus, "details:v2")
    with pytest.raises(CallError, match="is no http address"):
        await bus.mesh.call("details.get")


# -- what a delay brings to light, in virtual time -------------------------------------------------------


@pytest.mark.parametrize(("version", "with_reviews"), [("v2", False), ("v3", True)])
def test_a_slow_ratings_service_shows_the_samples_mistake(version: str, with_reviews: bool) -> None:
    """Seven seconds of delay cost v2 all its reviews, because productpage gives up first; v3 loses the stars alone."""

    async def scenario() -> tuple[Page, float]:
        slow = Service("ratings", version="1.0.0")

        @slow.endpoint(timeout=10.0)
        async def get(wanted: ProductId) -> None:
            await anyio.sleep(7.0)

        services = (slow, *map(load, ("details:v1", f"reviews:{version}", "productpage:v1")))
        async with MemoryMesh(*services, caller="web") as mesh:
            start = anyio.current_time()
            found = await mesh.call("productpage.page", returns=Page, timeout=8.0)
            return found, anyio.current_time() - start

    found, took_s = run_virtual(scenario)
    if with_reviews:
        assert stars(found) == [NO_RATINGS, NO_RATINGS]
        assert 2.5 <= took_s < 3.0
    else:
        assert (found.reviews, found.errors) == (None, {"reviews": SORRY.format("reviews")})
        assert 6.0 <= took_s < 6.5


# -- how it is started ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_every_service_says_which_subset_it_is(name: str) -> None:
    """Label `version: vN` (or `v2-mysql`) and SemVer N.0.0, for Istio's subsets and for the mesh's."""
    service, label = load(name), name.partition(":")[2]
    assert f"{service.name}:{label}" == name
    assert (service.version, service.labels) == (f"{label[1]}.0.0", {"version": label})


@pytest.mark.parametrize(
    "target",
    ["details:details", "ratings:ratings", "ratings:v2_mysql", "productpage:productpage", "reviews:v2"],
)
def test_the_names_that_run_takes_exist(target: str) -> None:
    """`nats-mesh run examples.bookinfo.<module>:<name>` finds a service there."""
    module, _, attribute = target.partition(":")
    assert isinstance(getattr(importlib.import_module(f"examples.bookinfo.{module}"), attribute), Service)


def test_a_service_that_does_not_exist_is_named() -> None:
    """The error lists what there is."""
    with pytest.raises(ConfigError, match="no 'reviews:v9'; it has: details:v1"):
        load("reviews:v9")


def _run(arguments: list[str], cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_wrong_name_on_the_command_line_is_exit_code_2() -> None:
    """`python -m examples.bookinfo` refuses what it does not have, in one line."""
    done = _run(["-m", "examples.bookinfo", "reviews:v9"], ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: Bookinfo has no 'reviews:v9'")
    assert done.stderr.count("\n") == 1


def test_the_modules_work_under_another_name(tmp_path: Path) -> None:
    """Inside the wheel the package has another name: no module may know its own."""
    shutil.copytree(
        ROOT / "examples" / "bookinfo", tmp_path / "elsewhere", ignore=shutil.ignore_patterns("__pycache__")
    )
    code = "import elsewhere; print([elsewhere.load(n).name for n in elsewhere.ALL])"
    done = _run(["-P", "-c", code], tmp_path, PYTHONPATH=str(tmp_path))
    assert done.stderr == ""
    assert done.stdout.count("reviews") == 3


async def test_everything_runs_in_one_process(nats_server: NatsServer, mesh_namespace: str) -> None:
    """`python -m examples.bookinfo` serves all six instances, and ends in order on SIGTERM."""
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    everybody = anyio.Event()
    async with Mesh("web", settings=settings) as mesh:
        client = mesh.client
        observer = Observer(
            subjects=client.subjects,
            transport=client.transport,
            mux=client.mux,
            clock=SYSTEM_CLOCK,
            on_change=lambda _: everybody.set() if len(observer.registry) == len(DEFAULT) else None,
        )
        await client.transport.fence()
        environ = {**os.environ, "NATS_URL": nats_server.url, "MESH_NAMESPACE": mesh_namespace}
        command = [sys.executable, "-m", "examples.bookinfo"]
        with subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE) as child:
            try:
                with anyio.fail_after(60):
                    await everybody.wait()
                reviews = await mesh.call("productpage.reviews", returns=Reviews)
                assert len(reviews.reviews) == 2
                child.terminate()
                assert await anyio.to_thread.run_sync(child.wait, 20) == 0
            finally:
                child.kill()
        observer.close()

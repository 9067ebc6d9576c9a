"""`nats-mesh alerts`: several watch, one tells, and what it told outlives it."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nats_mesh.testing import NatsServer
from nats_mesh.testing.plugin import NatsServerFactory
from tests.cli.conftest import SHOP, Shop
from tests.cli.program import PATIENCE_S, run_cli

#: Of a promise over an hour one failure in thousands of calls is enough: the test does not last an hour.
PROMISE = """
apiVersion: mesh/v1
kind: Telemetry
metadata: {name: orders}
spec:
  target: {service: orders}
  objectives: {name: up, availability: 99.999%, window: 1h}
"""


def _until(condition: Callable[[], object], explain: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, explain()
        time.sleep(0.5)


def _fired(shop: Shop) -> list[str]:
    done = shop("events", "-o", "json")
    return [f"{each['service']}: {each['target']}" for each in done.json if each["kind"] == "alert.firing"]


@pytest.fixture
def promised(place: Shop) -> Shop:
    """The shop's namespace, with a promise of orders on the bus; nothing runs yet."""
    (place.folder / "promise.yaml").write_text(PROMISE, encoding="utf-8")
    done = place("policy", "apply", str(place.folder / "promise.yaml"))
    assert done.code == 0, done.err
    return place


def test_two_watch_one_tells_and_the_other_goes_on(promised: Shop) -> None:
    """Both see that calls fail, one event tells it; with the one that told killed, the other goes on where it was."""
    with (
        promised.background("run", "shopapp:both") as services,
        promised.background("alerts", "--watch", "-o", "jsonl", "--as", "first") as first,
    ):
        services.wait_for("stock 0.3.0 is ready")
        first.wait_for("watches 1 promise")
        first.wait_for("tells of alerts")
        with promised.background("alerts", "--watch", "-o", "jsonl", "--as", "second") as second:
            second.wait_for("watches 1 promise")
            load = promised("bench", "orders.boom", "--rate", "20", "--duration", "3s", "--as", "web")
            assert load.code in (0, 1), load.err
            for each in (first, second):
                assert json.loads(each.wait_for('"kind":"alert.firing"'))["level"] == "page"
            _until(lambda: _fired(promised), lambda: first.err)
            assert _fired(promised) == ["first: orders"]
            first.end(signal.SIGKILL)
            second.wait_for("tells of alerts")
            shown = promised("alerts", "-o", "json")
            assert shown.code == 1
            assert "as second/" in shown.err
            assert [(each["service"], each["objective"], each["level"]) for each in shown.json] == [
                ("orders", "up", "page")
            ]
            assert {burn["window_s"] for burn in shown.json[0]["burns"]} == {300.0, 3600.0}
            assert all(burn["seen_s"] < 3600.0 for burn in shown.json[0]["burns"])
            assert _fired(promised) == []  # what is known is not told again
            _observers_show(promised)
            assert second.end(signal.SIGTERM) == 0
    left = promised("alerts")
    assert (left.code, "page" in left.out, "(seen " in left.out) == (1, True, True)


def _observers_show(shop: Shop) -> None:
    """`stat` and `top` tell of it, too."""
    for_programs, for_people, once = shop.at_once(
        ["stat", "--window", "2s", "-o", "json"],
        ["stat", "orders", "--window", "2s", "-o", "wide"],
        ["top", "--once", "--timeout", "1s", "-o", "json"],
    )
    assert {each["service"]: each["objectives"] for each in for_programs.json} == {
        "orders": "page",
        "stock": None,
    }
    assert re.search(r"OBJECTIVES.*\norders .* page ", for_people.out)
    told = once.json["objectives"]
    assert (told["watched"], [each["level"] for each in told["alerts"]]) == (True, ["page"])


def test_nobody_watches(promised: Shop) -> None:
    """A promise that nobody watches is not called kept."""
    done = promised("alerts", "-o", "json")
    assert (done.code, done.json) == (1, [])
    assert "--watch" in done.err
    told = promised("top", "--once", "--timeout", "500ms", "-o", "json").json["objectives"]
    assert told == {"watched": False, "at": None, "alerts": []}


def test_nothing_is_promised(nats_server: NatsServer) -> None:
    """Without a promise there is nothing to break."""
    done = run_cli("alerts", env={"NATS_URL": nats_server.url, "MESH_NAMESPACE": "nothing-promised"})
    assert (done.code, done.out) == (0, "")
    assert "Telemetry" in done.err


def test_without_jetstream_every_watcher_tells(
    nats_server_factory: NatsServerFactory, tmp_path: Path
) -> None:
    """Where there is no store to agree in, that is said, and alerts are told all the same."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "promise.yaml").write_text(PROMISE, encoding="utf-8")
    (tmp_path / "shopapp.py").write_text(SHOP, encoding="utf-8")
    shop = Shop(nats_server_factory(jetstream=False).url, "alone", tmp_path)
    watching = ["alerts", "--watch", "--policies", str(folder)]
    with (
        shop.background("run", "shopapp:both") as services,
        shop.background(*watching) as watcher,
    ):
        services.wait_for("stock 0.3.0 is ready")
        watcher.wait_for("no store to agree in")
        shop("bench", "orders.boom", "--rate", "20", "--duration", "2s")
        watcher.wait_for("PAGE")
        _until(lambda: _fired(shop), lambda: watcher.err)
        asked = shop("alerts", "--policies", str(folder))
        assert asked.code == 1
        assert "nobody watches" in asked.err


@pytest.mark.parametrize("words", [["--watch", "-o", "json"], ["--watch", "orders"], ["or ders"]])
def test_what_cannot_be_asked_is_refused(words: list[str], place: Shop) -> None:
    """An endless list as JSON, a watch of one service, a name that is none."""
    done = place("alerts", *words)
    assert (done.code, done.out) == (2, "")

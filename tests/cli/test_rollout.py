"""`rollout`: what it says and stores, its exit codes, and that an abort works also where nobody carries it out."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nats_mesh.testing import NatsServer
from nats_mesh_cli.errors import FAILED, INTERRUPTED, OK, USAGE
from tests.cli.conftest import Shop
from tests.cli.program import Background

APP = """
from nats_mesh import Service

def make(number):
    service = Service("reviews", version=f"{number}.0.0")

    @service.endpoint()
    async def get() -> int:
        return number

    return service

v1, v2 = make(1), make(2)
"""
DESTINATION = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: reviews}
spec:
  target: {service: reviews}
  subsets: {v1: {version: 1.0.0}, v2: {version: 2.0.0}}
"""
ROLLOUT = """
apiVersion: mesh/v1
kind: Rollout
metadata: {name: reviews-v2}
spec:
  target: {service: reviews}
  from: v1
  to: v2
  steps:
    - {weight: 10, for: FOR}
    - {weight: 100}
"""


@pytest.fixture
def place(place: Shop) -> Iterator[Shop]:
    """Two versions of a service that run, and the policy that tells them apart."""
    (place.folder / "versions.py").write_text(APP, encoding="utf-8")
    (place.folder / "destination.yaml").write_text(DESTINATION, encoding="utf-8")
    for name, lasts in (("long.yaml", "1h"), ("short.yaml", "1s")):
        (place.folder / name).write_text(ROLLOUT.replace("FOR", lasts), encoding="utf-8")
    with (
        place.background("run", "versions:v1") as old,
        place.background("run", "versions:v2") as new,
    ):
        old.wait_for("reviews 1.0.0 is ready")
        new.wait_for("reviews 2.0.0 is ready")
        applied = place("policy", "apply", str(place.folder / "destination.yaml"))
        assert applied.code == OK, applied.err
        yield place


def path(place: Shop, name: str) -> str:
    """A file of the test."""
    return str(Path(place.folder, name))


def test_from_start_to_end(place: Shop) -> None:
    """Started, followed, promoted: exit code 0; each change is a line, and the route says so at the end."""
    with place.background("rollout", "start", path(place, "short.yaml"), "--follow", "-o", "jsonl") as follow:
        assert follow.wait() == OK, follow.err
        lines = [json.loads(line) for line in follow.out]
    seen = [(line["phase"], line["weight_percent"]) for line in lines]
    assert seen[-1] == ("promoted", 100)
    assert ("step", 10) in seen
    assert any("no gates: time alone decides" in line for line in follow.err)
    route = place("policy", "get", "Route/reviews-v2", "-o", "json")
    assert '"subset":"v2"' in route.out.replace(" ", "")
    listed, one, over, nobody = place.many(
        ["rollout", "status", "-o", "json"],
        ["rollout", "status", "reviews"],
        ["rollout", "abort", "reviews"],
        ["rollout", "status", "revews"],
    )
    assert [record["service"] for record in listed.json] == ["reviews"]
    assert "promoted" in one.out
    assert (over.code, "is over: promoted" in over.err) == (FAILED, True)
    assert (nobody.code, "did you mean 'reviews'?" in nobody.err) == (FAILED, True)


def test_where_nobody_carries_it_out(place: Shop) -> None:
    """Start says so; pause and abort are done all the same, by the command itself; resume is kept for who comes."""
    started, paused, resumed, again, aborted, over, route = place.many(
        ["rollout", "start", path(place, "long.yaml"), "-m", "try it", "--as", "alice"],
        ["rollout", "pause", "-o", "json"],
        ["rollout", "resume"],
        ["rollout", "start", path(place, "long.yaml")],
        ["rollout", "abort", "-m", "enough", "--as", "alice", "-o", "json"],
        ["rollout", "abort"],
        ["policy", "get", "Route/reviews-v2", "-o", "json"],
    )
    assert (started.code, "nobody carries it out yet" in started.err) == (OK, True), started.err
    assert (paused.code, paused.json["phase"]) == (OK, "paused"), paused.err
    assert (resumed.code, "nobody carries it out" in resumed.err) == (FAILED, True)
    assert (again.code, "under way" in again.err) == (FAILED, True)
    assert (aborted.code, aborted.json["phase"]) == (OK, "aborted"), aborted.err
    assert aborted.json["reason"] == "by alice: enough"
    assert aborted.json["started_by"] == "alice"
    assert (over.code, "no rollout is under way" in over.err) == (FAILED, True)
    assert '"subset":"v1"' in route.out.replace(" ", "")


def test_a_runner_carries_out_what_others_start(place: Shop) -> None:
    """It says what it does, answers pause and resume, and gives the lease back when it is told to end."""
    with place.background("rollout", "run", "--as", "ci") as runner:
        runner.wait_for("carries out rollouts")
        started = place("rollout", "start", path(place, "long.yaml"), "-o", "json")
        assert (started.code, str(started.json["runner"]).startswith("ci/")) == (OK, True), started.err
        runner.wait_for("step 1 of 2: 10% to v2, for 60m")
        for word, expected in (("pause", "paused"), ("resume", "step")):
            done = place("rollout", word, "reviews", "-o", "json")
            assert (done.code, done.json["phase"]) == (OK, expected), done.err
        refused = place("rollout", "resume", "reviews")
        assert (refused.code, "it is not paused" in refused.err) == (FAILED, True)
        assert runner.end(signal.SIGTERM) == OK
    left = place("rollout", "status", "reviews", "-o", "json")
    assert left.json["runner"] is None
    with place.background("rollout", "start", "reviews", "--follow") as refused_again:
        assert refused_again.wait() == FAILED  # it is under way
    with place.background("rollout", "run") as runner:
        runner.wait_for("taken over that nobody carried out")
        assert runner.interrupt() == INTERRUPTED
    assert place("rollout", "abort").code == OK


def test_what_is_no_rollout_is_said(place: Shop) -> None:
    """With exit code 2 and before anything is stored; a rollout that cannot begin is a 1 or a 2 of its own."""
    (place.folder / "both.yaml").write_text(
        ROLLOUT.replace("FOR", "1h") + "---" + DESTINATION.replace("1.0.0", "1.1.0"), encoding="utf-8"
    )
    (place.folder / "typo.yaml").write_text(ROLLOUT.replace("weight: 10, for: FOR", "wieght: 10"), "utf-8")
    (place.folder / "other.yaml").write_text(
        ROLLOUT.replace("FOR", "1h").replace("to: v2", "to: v9"), "utf-8"
    )
    both, two, typo, other, none, unknown, many, forever = place.many(
        ["rollout", "start", path(place, "both.yaml")],
        ["rollout", "start", path(place, "destination.yaml")],
        ["rollout", "start", path(place, "typo.yaml")],
        ["rollout", "start", path(place, "other.yaml")],
        ["rollout", "start", "nothing"],
        ["rollout", "pause", "nothing"],
        ["rollout", "abort"],
        ["rollout", "run", "-o", "json"],
    )
    assert (both.code, "Destination/reviews is otherwise in the store" in both.err) == (FAILED, True)
    assert (two.code, "one Rollout is started at a time" in two.err) == (USAGE, True)
    assert (typo.code, "typo.yaml:10" in typo.err, "did you mean weight" in typo.err) == (
        USAGE,
        True,
        True,
    ), typo.err
    assert (other.code, "reviews has no subset v9" in other.err) == (USAGE, True), other.err
    assert (none.code, "no Rollout of such a service" in none.err) == (FAILED, True)
    assert (unknown.code, "there is no rollout of 'nothing'" in unknown.err) == (FAILED, True)
    assert (many.code, "no rollout is under way" in many.err) == (FAILED, True)
    assert (forever.code, "-o jsonl" in forever.err) == (USAGE, True)
    assert place("rollout", "status", "-o", "json").json == []
    kinds = place("policy", "get", "-o", "name").out
    assert "Rollout" not in kinds


def test_without_jetstream_it_says_so(nats_server_factory: Callable[..., NatsServer]) -> None:
    """With exit code 3, and what is needed."""
    server = nats_server_factory(jetstream=False)
    env = {"NATS_URL": server.url}
    with Background(["rollout", "run"], env) as runner:
        assert runner.wait() == 3
        assert any("JetStream" in line for line in runner.err)

"""`policy apply`, `delete`, `get`, `history`, `undo` and `status` against a real server with members that follow it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import pytest
import yaml

from nats_mesh.testing import NatsServer
from nats_mesh_cli.errors import BUS, FAILED, OK, USAGE
from tests.cli.program import Background, Done, run_cli, run_many
from tests.stored import destination, operator

SERVICE = """
from nats_mesh import Service

one, two = (Service("reviews", version="1.0.0", labels={"version": f"v{n}"}) for n in (1, 2))
for each in (one, two):

    @each.endpoint(name="get")
    async def get(version: str = each.labels["version"]) -> str:
        return version


both = [one, two]
"""
DESTINATION = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: reviews}
spec:
  target: {service: reviews}
  subsets:
    v1: {labels: {version: v1}}
    v2: {labels: {version: v2}}
"""
ROUTE = """
apiVersion: mesh/v1
kind: Route
metadata: {name: reviews}
spec:
  target: {service: reviews}
  rules:
    - match: {headers: {end-user: jason}}
      split: [{subset: v2}]
    - split: [{subset: v1}]
"""


class Desk:
    """A server, members that follow its store, and an operator's folder of files."""

    def __init__(self, url: str, folder: Path) -> None:
        self.env = {"NATS_URL": url, "NO_COLOR": "1"}
        self.folder = folder

    def write(self, name: str, *documents: str) -> str:
        """A file of policies."""
        path = self.folder / name
        path.write_text("---".join(documents))
        return str(path)

    def run(self, *lines: Sequence[str]) -> list[Done]:
        """Commands one after the other."""
        return run_many(lines, self.env)

    def answers(self, *headers: str) -> str:
        """Which version answers."""
        line = ["call", "reviews.get", *(part for header in headers for part in ("-H", header))]
        (done,) = self.run(line)
        assert done.code == OK, done.err
        return done.out.strip().strip('"')


@pytest.fixture
def desk(nats_server: NatsServer, tmp_path: Path, mesh_namespace: str) -> Iterator[Desk]:
    """Two versions of one service, of which neither follows files."""
    (tmp_path / "shop.py").write_text(SERVICE)
    made = Desk(nats_server.url, tmp_path)
    made.env["MESH_NAMESPACE"] = mesh_namespace
    with Background(["run", "shop:both"], made.env, cwd=tmp_path) as services:
        services.wait_for("is ready", times=2)
        yield made


def test_policies_from_first_to_last(desk: Desk) -> None:
    """Applied, in effect, changed, undone, deleted: each step seen in what the members do."""
    both = desk.write("reviews.yaml", DESTINATION, ROUTE)
    missing, dry, first, again, synced = desk.run(
        ["policy", "get"],
        ["policy", "apply", both, "--dry-run"],
        ["policy", "apply", both, "-m", "dark launch", "--wait"],
        ["policy", "apply", both],
        ["policy", "status"],
    )
    assert (missing.code, missing.out, "no policy store" in missing.err) == (OK, "", True)
    assert (dry.code, dry.out.count("created (dry run)")) == (OK, 2)
    assert first.out.splitlines() == ["Destination/reviews created", "Route/reviews created"]
    assert "acknowledged by 2 of 2 members" in first.err
    assert again.out.splitlines() == ["Destination/reviews unchanged", "Route/reviews unchanged"]
    assert synced.code == OK
    assert synced.out.count("SYNCED") == 2
    assert desk.answers() == "v1"
    assert desk.answers("end-user: jason") == "v2"

    changed = desk.write(
        "reviews.yaml", DESTINATION, ROUTE.replace("- split: [{subset: v1}]", "- split: [{subset: v2}]")
    )
    all_v2, history, shown = desk.run(
        ["policy", "apply", changed, "--wait"],
        ["policy", "history", "-o", "json"],
        ["policy", "get", "Route/reviews", "-o", "yaml"],
    )
    assert all_v2.out.splitlines() == ["Destination/reviews unchanged", "Route/reviews configured"]
    assert desk.answers() == "v2"
    assert [(each["policy"], each["action"], each["message"]) for each in history.json] == [
        ("Route/reviews", "configured", ""),
        ("Route/reviews", "created", "dark launch"),
        ("Destination/reviews", "created", "dark launch"),
    ]
    before = history.json[1]["revision"]
    assert yaml.safe_load(shown.out)["spec"]["rules"][1] == {"split": [{"subset": "v2"}]}

    undone, then, now, back = desk.run(
        ["policy", "undo", "--to-revision", str(before), "--wait"],
        ["policy", "get", "Route/reviews", "-o", "json", "--revision", str(before)],
        ["policy", "get", "Route/reviews", "-o", "json"],
        ["policy", "undo", "--to-revision", str(history.json[0]["revision"]), "--wait"],
    )
    assert undone.out.splitlines()[-1] == "Route/reviews configured"
    assert f"policy undo --to-revision {history.json[0]['revision']} takes that back" in undone.err
    assert then.out == now.out
    assert back.code == OK
    assert desk.answers() == "v2"

    refused, gone, empty = desk.run(
        ["policy", "delete", "Destination/reviews"],
        ["policy", "delete", "-f", changed, "--wait"],
        ["policy", "get", "-o", "json"],
    )
    assert (refused.code, "no Destination names subsets of reviews" in refused.err) == (USAGE, True)
    assert sorted(gone.out.splitlines()) == ["Destination/reviews deleted", "Route/reviews deleted"]
    assert "waiting 5 s for calls that are under way" in gone.err
    assert empty.json == []


def test_one_mistake_of_ten_changes_nothing(desk: Desk) -> None:
    """Every problem with its line; the store is as it was."""
    good = [DESTINATION.replace("reviews", f"shop-{number}") for number in range(9)]
    path = desk.write("ten.yaml", *good, ROUTE.replace("subset: v2", "subset: v9").replace("Route", "Rout"))
    done, shown = desk.run(["policy", "apply", path], ["policy", "get", "-o", "json"])
    assert done.code == USAGE
    assert f"{path}:84: kind: 'Rout' is no kind of mesh/v1; did you mean Route?" in done.err
    assert shown.code == FAILED or shown.json == []
    path = desk.write("ten.yaml", *good, ROUTE.replace("subset: v2", "subset: v9"))
    done, shown = desk.run(["policy", "apply", path], ["policy", "get", "-o", "json"])
    assert done.code == USAGE
    assert "no Destination names subsets of reviews: add one with v9" in done.err
    assert shown.json == []


def test_prune_deletes_what_is_not_in_the_files(desk: Desk) -> None:
    """And nothing else."""
    both = desk.write("reviews.yaml", DESTINATION, ROUTE)
    one = desk.write("one.yaml", DESTINATION)
    first, pruned, left = desk.run(
        ["policy", "apply", both],
        ["policy", "apply", one, "--prune", "-o", "json"],
        ["policy", "get", "-o", "name"],
    )
    assert first.code == OK
    assert {(each["policy"], each["action"]) for each in pruned.json} == {
        ("Destination/reviews", "unchanged"),
        ("Route/reviews", "deleted"),
    }
    assert left.out.splitlines() == ["Destination/reviews"]


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (["policy", "apply"], USAGE, "name the files of policies"),
        (["policy", "apply", "nowhere.yaml"], USAGE, "nowhere.yaml"),
        (["policy", "delete"], USAGE, "say which policies to delete"),
        (["policy", "get", "--revision", "1", "--at", "-1m"], USAGE, "not both"),
    ],
)
def test_wrong_lines_are_said(desk: Desk, line: list[str], code: int, says: str) -> None:
    """Before anything is asked of the bus, where that is possible."""
    (done,) = desk.run(line)
    assert (done.code, says in done.err) == (code, True), done.err


def test_every_problem_of_every_document_is_told_at_once(desk: Desk) -> None:
    """What nothing applies, what leads nowhere, what cannot be read: one look is enough, each with file and line."""
    access = (
        "\napiVersion: mesh/v1\nkind: Access\nmetadata: {name: a}\n"
        "spec:\n  target: {service: reviews}\n  default: deny\n"
    )
    limit = access.replace("Access", "Limit").replace("default: deny", "rate: 10/s")
    lost = ROUTE.replace("v1}", "v9}")
    path = desk.write("all.yaml", access, DESTINATION, lost, limit)
    broken = desk.write("broken.yaml", access, ROUTE.replace("split", "splitt"), limit)
    at_once, unreadable = desk.run(["policy", "apply", path], ["policy", "apply", broken, "-o", "json"])
    assert at_once.code == unreadable.code == USAGE
    for said in (
        f"{path}:3: kind: Access policies: not in this version yet",
        f"{path}:26: spec.rules[1].split[0].subset:",
        f"{path}:33: spec.rate: rate limits: not in this version yet",
    ):
        assert said in at_once.err
    problems = json.loads(unreadable.err)["error"]["problems"]
    assert {each["path"] for each in problems} >= {"kind", "spec.rules[0].splitt", "spec.rate"}
    assert all(each["file"] == broken and each["line"] for each in problems)


def test_undo_goes_back_step_by_step(desk: Desk) -> None:
    """Each says what it undoes; what an undo took away comes back by its revision, and by the id of its change."""
    first, second = (
        desk.write("1.yaml", DESTINATION),
        desk.write("2.yaml", DESTINATION.replace("v2}}", "v3}}")),
    )
    *_, once, again, nothing, history = desk.run(
        ["policy", "apply", first],
        ["policy", "apply", second, "-m", "three"],
        ["policy", "undo"],
        ["policy", "undo"],
        ["policy", "undo"],
        ["policy", "history", "-o", "json"],
    )
    revisions = [each["revision"] for each in reversed(history.json)]
    changes = [each["change"] for each in reversed(history.json)]
    assert f"undoes revision {revisions[1]} (" in once.err
    assert (
        f": three); policy undo Destination/reviews --to-revision {revisions[1]} puts that back" in once.err
    )
    assert f"puts back Destination/reviews: revision {revisions[0]}" in once.err
    assert again.out == "Destination/reviews deleted\n"
    assert (nothing.code, "every change is undone already" in nothing.err) == (FAILED, True)
    assert [each["back_to"] for each in reversed(history.json)] == [
        None,
        None,
        revisions[0],
        revisions[0] - 1,
    ]
    back, shown, of, time, gone = desk.run(
        ["policy", "undo", "--to-revision", changes[1]],
        ["policy", "get", f"Destination/reviews@{revisions[1]}", "-o", "json"],
        ["policy", "history", changes[1], "-o", "json"],
        ["policy", "history"],
        ["policy", "history", "Destination/review"],
    )
    assert back.out == "Destination/reviews created\n"
    assert shown.json["spec"]["subsets"]["v2"]["labels"] == {"version": "v3"}
    assert [each["revision"] for each in of.json] == [revisions[1]]
    assert "did you mean 'Destination/reviews'?" in gone.err
    moment = time.out.splitlines()[-1].split()[1]  # as it is printed
    (then,) = desk.run(["policy", "get", "--at", moment, "-o", "json"])
    assert [each["spec"]["subsets"]["v2"]["labels"]["version"] for each in then.json] == ["v2"]


def test_names_that_are_not_there_are_said(desk: Desk) -> None:
    """With the nearest one that is."""
    both = desk.write("reviews.yaml", DESTINATION, ROUTE)
    _, *unknown, kind, name, ahead, moment, elsewhere = desk.run(
        ["policy", "apply", both],
        ["policy", "get", "--revision", "99"],
        ["policy", "get", "Route/reviews@99"],
        ["policy", "get", "--revision", "²"],
        ["policy", "get", "Rout"],
        ["policy", "get", "Route/review"],
        ["policy", "undo", "--to-revision", "99"],
        ["policy", "get", "--at", "yesterday"],
        [
            "-n",
            "other",
            "policy",
            "apply",
            desk.write("other.yaml", DESTINATION.replace("reviews}", "r, namespace: one}", 1)),
        ],
    )
    assert "did you mean 'Route'?" in kind.err
    assert "did you mean 'Route/reviews'?" in name.err
    for each in (ahead, *unknown[:2]):
        assert (each.code, "there is no revision 99" in each.err) == (FAILED, True)
    assert (unknown[2].code, "is no revision and no change" in unknown[2].err) == (FAILED, True)
    assert (moment.code, "write 2026-01-31T12:00:00Z" in moment.err) == (USAGE, True)
    assert (elsewhere.code, "give -n one" in elsewhere.err) == (USAGE, True)


def test_without_a_bus(tmp_path: Path) -> None:
    """As for every command."""
    (tmp_path / "p.yaml").write_text(DESTINATION)
    env = {"NATS_URL": "nats://127.0.0.1:1", "NO_COLOR": "1"}
    done = run_cli("policy", "apply", str(tmp_path / "p.yaml"), env=env)
    assert done.code == BUS


def test_what_other_programs_wrote_is_shown_and_deleted(
    nats_server: NatsServer, mesh_namespace: str, tmp_path: Path
) -> None:
    """No value and no key of the store stops an operator from seeing what stands there, or from removing it."""
    spoiled = {
        "Destination.bytes": b"\xff\xfe",
        "Destination.list": b"[]",
        "Destination.text": b'{"spec": {"target": "x"}}',
        "Destination.deep": b'{"a":' + b"[" * 900 + b"]" * 900 + b"}",
        "odd.key.of.many": b"{}",
    }

    async def spoil() -> None:
        async with operator(nats_server.url, mesh_namespace) as ops:
            await ops.put(destination("shop"))
            for key, value in spoiled.items():
                await ops.raw(key, value)

    anyio.run(spoil)
    names = [key.replace(".", "/", 1) for key in spoiled]
    table, whole, gone, after = run_many(
        [["policy", "get"], ["policy", "get", "-o", "yaml"], ["policy", "delete", *names], ["policy", "get"]],
        {"NATS_URL": nats_server.url, "MESH_NAMESPACE": mesh_namespace, "NO_COLOR": "1"},
    )
    assert (table.code, gone.code, after.code) == (OK, OK, OK), (table.err, gone.err)
    assert all(name in table.out for name in (*names, "Destination/shop"))
    assert whole.code == FAILED
    assert next(yaml.safe_load_all(whole.out))["metadata"] == {"name": "shop"}
    assert "Destination/bytes@3 is no document that can be shown" in whole.err
    assert gone.out.splitlines() == [f"{name} deleted" for name in names]
    assert [line.split()[0] for line in after.out.splitlines()] == ["POLICY", "Destination/shop"]


def test_what_leads_nowhere_now_is_said_when_it_is_applied(desk: Desk) -> None:
    """A route to a subset that no instance is in is valid, and may be meant: it is stored, and named with its remedy.
    One to instances that run is not."""
    empty = desk.write(
        "empty.yaml",
        DESTINATION.replace("v2: {labels: {version: v2}}", "v3: {labels: {version: v3}}"),
        ROUTE.replace("{subset: v2}", "{subset: v3}"),
    )
    full = desk.write("full.yaml", DESTINATION, ROUTE)
    nowhere, well = desk.run(["policy", "apply", empty], ["policy", "apply", full])
    assert (nowhere.code, well.code) == (OK, OK)
    assert "NM0501" in nowhere.err
    assert "v3" in nowhere.err
    assert "stored all the same" in nowhere.err
    assert "NM0501" not in well.err

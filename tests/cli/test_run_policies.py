"""`run`, `call` and `bench` under policies, and the `policy` commands."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import yaml

from nats_mesh.policy import json_schema
from nats_mesh.policy.schema import KINDS, LATER_KINDS
from tests.cli.conftest import Shop
from tests.cli.program import run_cli, run_many

LIMIT = """apiVersion: mesh/v1
kind: Limit
metadata: {{name: slots}}
spec:
  target: {{service: orders}}
  concurrency: {{limit: {limit}}}
"""
PATIENT = """apiVersion: mesh/v1
kind: Route
metadata: {name: patient}
spec:
  target: {service: orders, endpoints: [slow]}
  rules:
    - timeout: 5s
"""
WRONG = "apiVersion: mesh/v1\nkind: Limit\nmetadata: {name: slots}\nspec:\n  concurrency: {limit: none}\n"

FOLLOWING = """
import os

from nats_mesh import Mesh, Service

inner = Service("inner", version="1.0.0", policies="{other}")


@inner.endpoint()
async def look() -> list[str]:
    async with Mesh("inside") as mesh:
        policies = mesh.client.outbound.policies
        return [os.environ["MESH_POLICIES"], *(policy.name for policy in policies.policies)]
"""


@pytest.fixture
def folder(place: Shop) -> Path:
    """A folder of policies in the shop's own folder, with one policy that limits the orders."""
    made = place.folder / "policies"
    made.mkdir()
    write(made, LIMIT.format(limit=3))
    return made


def write(folder: Path, text: str, name: str = "slots.yaml") -> None:
    """Save a file as careful editors do: whole, or not at all."""
    draft = folder / f".{name}"
    draft.write_text(text, encoding="utf-8")
    draft.replace(folder / name)


def limit_of(place: Shop) -> object:
    """How many calls `orders.echo` takes now, as its instance says itself."""
    (endpoint,) = [
        each
        for each in place("get", "endpoints", "orders.echo", "-o", "json").json
        if each["endpoint"] == "orders.echo"
    ]
    return endpoint["concurrency"]


def test_a_service_follows_its_policies_and_their_changes(place: Shop, folder: Path) -> None:
    """They hold from the start; a change is logged and holds; a mistake is logged with its line and changes nothing."""
    with place.background("run", "shopapp:orders", "--policies", "policies") as running:
        assert "under 1 policy on" in running.wait_for("orders 1.2.0 is ready")
        assert limit_of(place) == 3
        write(folder, LIMIT.format(limit=4))
        running.wait_for("are in effect")
        assert limit_of(place) == 4
        write(folder, WRONG)
        refused = running.wait_for("policies were not applied")
        assert "slots.yaml:5" in refused
        assert limit_of(place) == 4
        write(folder, LIMIT.format(limit=5))
        running.wait_for("are in effect", times=2)
        assert limit_of(place) == 5
        assert running.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("extra", [[], ["--workers", "2"], ["--reload"]], ids=["alone", "workers", "reload"])
def test_a_mistake_in_the_files_is_said_before_the_start(extra: list[str], place: Shop, folder: Path) -> None:
    """Exit code 2 and one line with file and line; nothing is started, and nothing is tried again."""
    write(folder, WRONG)
    with place.background("run", "shopapp:orders", "--policies", "policies", *extra) as running:
        assert running.wait() == 2
    (line,) = running.err
    assert line.startswith("error: policies/slots.yaml:5: spec.concurrency.limit: must be a whole number")
    assert running.out == []


def test_a_mistake_in_what_the_environment_names_keeps_it_from_starting_too(
    place: Shop, folder: Path
) -> None:
    """MESH_POLICIES is read by the service itself: exit code 2 as well, also out of a worker."""
    write(folder, WRONG)
    for extra in ([], ["--workers", "2"]):
        done = run_cli(
            "run", "shopapp:orders", *extra, env={**place.env, "MESH_POLICIES": str(folder)}, cwd=place.folder
        )
        assert done.code == 2
        assert f"{folder}/slots.yaml:5" in done.err
        assert "Traceback" not in done.err


def test_a_folder_that_is_not_there_is_a_usage_error(place: Shop) -> None:
    """Said as typed, whatever is run."""
    done = run_cli("run", "shopapp:orders", "--policies", "nowhere", env=place.env, cwd=place.folder)
    assert done.code == 2
    assert "error: --policies nowhere: there is no such folder" in done.err


def test_workers_and_what_they_open_themselves_follow_the_same_folder(place: Shop, folder: Path) -> None:
    """The command line wins over the code; a Mesh inside finds the folder in MESH_POLICIES, by its full path."""
    other = place.folder / "other"
    other.mkdir()
    (place.folder / "inner.py").write_text(FOLLOWING.format(other=other), encoding="utf-8")
    arguments = ("shopapp:orders", "inner:inner", "--workers", "2", "--policies", "policies")
    with place.background("run", *arguments) as running:
        running.wait_for("inner 1.0.0 is ready", times=2)
        lines = [line for line in running.err if "is ready" in line]
        assert len(lines) == 4
        assert all("under 1 policy on" in line for line in lines)
        assert place("call", "inner.look", "-o", "json").json == [str(folder), "Limit/slots"]
        write(folder, LIMIT.format(limit=4))
        running.wait_for("are in effect", times=4)
        assert running.end(signal.SIGTERM) == 0


def test_reload_tries_again_when_the_policies_are_mended(place: Shop, folder: Path) -> None:
    """Files that were broken while it ran keep a new start from happening, until they are in order."""
    module = place.folder / "shopapp.py"
    with place.background("run", "shopapp:orders", "--reload", "--policies", "policies") as running:
        running.wait_for("orders 1.2.0 is ready")
        write(folder, WRONG)
        running.wait_for("policies were not applied")
        text = module.read_text(encoding="utf-8").replace('version="1.2.0"', 'version="1.3.0"')
        module.write_text(text, encoding="utf-8")
        running.wait_for("tried again when a file changes")
        write(folder, LIMIT.format(limit=7))
        running.wait_for("orders 1.3.0 is ready")
        assert limit_of(place) == 7
        assert running.end(signal.SIGTERM) == 0


def test_calls_follow_policies(shop: Shop, tmp_path: Path) -> None:
    """A policy's timeout goes before the endpoint's own, and --timeout before both; `bench` does the same."""
    write(tmp_path, PATIENT)
    under = ["--policies", str(tmp_path)]
    declared, patient, hurried, bench = shop.many(
        ["call", "orders.slow", "0.4"],
        ["call", "orders.slow", "0.4", *under],
        ["call", "orders.slow", "0.4", *under, "--timeout", "100ms"],
        ["bench", "orders.slow", "0.4", "--count", "2", "-c", "2", "-o", "json", *under],
    )
    assert (declared.code, hurried.code) == (1, 1)
    assert "DEADLINE_EXCEEDED" in declared.err
    assert "DEADLINE_EXCEEDED" in hurried.err
    assert (patient.code, patient.out) == (0, '"done"\n')
    assert (bench.code, bench.json["calls"]) == (0, 2)
    by_environment = shop("call", "orders.slow", "0.4", env={"MESH_POLICIES": str(tmp_path)})
    assert by_environment.code == 0


def test_broken_policies_end_calls_and_hinder_nobody_who_looks(shop: Shop, tmp_path: Path) -> None:
    """A call must not go out under half of its policies; `get` needs none."""
    write(tmp_path, WRONG)
    lines = [
        ["call", "orders.echo"],
        ["bench", "orders.echo", "--count", "1"],
        ["get", "services", "-o", "name"],
    ]
    called, benched, got = run_many(lines, {**shop.env, "MESH_POLICIES": str(tmp_path)})
    for done in (called, benched):
        assert (done.code, done.out) == (2, "")
        assert f"{tmp_path}/slots.yaml:5" in done.err
    assert (got.code, got.out.split()) == (0, ["orders", "stock"])


# -- policy validate, policy explain ------------------------------------------------------------------


def test_a_folder_in_order_is_told_in_every_form(tmp_path: Path) -> None:
    """What is in it, with its target and place; a single object for programs; names for scripts; exit code 0."""
    write(tmp_path, f"{LIMIT.format(limit=3)}---\n{PATIENT}")
    forms: tuple[list[str], ...] = ([], ["-o", "json"], ["-o", "yaml"], ["-o", "jsonl"], ["-o", "name"])
    results = run_many([["policy", "validate", str(tmp_path), *form] for form in forms], {})
    table, as_json, as_yaml, as_line, names = results
    assert all(done.code == 0 for done in results)
    document = as_json.json
    assert (document["valid"], document["namespace"], document["problems"]) == (True, "default", [])
    assert document["policies"][1] == {
        "policy": "Route/patient",
        "kind": "Route",
        "name": "patient",
        "service": "orders",
        "endpoints": ["slow"],
        "subset": None,
        "file": str(tmp_path / "slots.yaml"),
        "line": 8,
    }
    assert yaml.safe_load(as_yaml.out) == json.loads(as_line.out) == document
    assert names.out.split() == ["Limit/slots", "Route/patient"]
    assert table.out.splitlines()[0].split() == ["POLICY", "TARGET", "PLACE"]
    assert "orders.slow" in table.out
    assert "2 policies for namespace default" in table.err
    assert "\x1b" not in table.out + table.err


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    """A line for each problem with file and line, and exit code 1; in JSON valid is false, and stderr is empty."""
    write(tmp_path, WRONG)
    write(tmp_path, "apiVersion: mesh/v1\nkind: Limt\nmetadata: {name: x}\nspec: {}\n", "more.yaml")
    lines = [["policy", "validate", str(tmp_path), *form] for form in ([], ["-o", "json"], ["-o", "name"])]
    table, as_json, names = run_many(lines, {})
    assert [done.code for done in (table, as_json, names)] == [1, 1, 1]
    first, second = table.out.splitlines()
    assert first.startswith(f"{tmp_path}/more.yaml:2: kind: ")
    assert "did you mean Limit?" in first
    assert second.startswith(f"{tmp_path}/slots.yaml:5: spec.concurrency.limit: ")
    assert "2 problems" in table.err
    document = as_json.json
    assert (document["valid"], document["policies"], as_json.err) == (False, [], "")
    assert [(problem["line"], problem["path"]) for problem in document["problems"]] == [
        (2, "kind"),
        (5, "spec.concurrency.limit"),
    ]
    assert names.out == ""
    assert f"{tmp_path}/slots.yaml:5" in names.err


def test_a_file_will_do_and_what_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    """One file is checked as a folder is; an empty folder is in order, and JSON of it is valid."""
    write(tmp_path, WRONG)
    file, nothing, empty = run_many(
        [
            ["policy", "validate", str(tmp_path / "slots.yaml")],
            ["policy", "validate", str(tmp_path / "nothing")],
            ["policy", "validate", str(Path(__file__).parent), "-o", "json"],
        ],
        {},
    )
    assert (file.code, nothing.code) == (1, 2)
    assert "not valid: " in file.err
    assert "there is no such folder or file" in nothing.err
    assert (empty.code, empty.json["policies"]) == (0, [])


def test_the_namespace_decides_which_policies_hold(tmp_path: Path) -> None:
    """-n, then MESH_NAMESPACE; those of other namespaces are checked all the same."""
    elsewhere = PATIENT.replace("{name: patient}", "{name: patient, namespace: prod}")
    write(tmp_path, elsewhere)
    here, there = run_many(
        [["policy", "validate", str(tmp_path), *extra, "-o", "name"] for extra in ([], ["-n", "prod"])], {}
    )
    assert (here.code, here.out, there.out) == (0, "", "Route/patient\n")
    assert "0 policies for namespace default" in here.err
    write(tmp_path, elsewhere.replace("timeout: 5s", "timeout: 5"))
    done = run_cli("policy", "validate", str(tmp_path))
    assert done.code == 1


def test_kinds_and_fields_are_explained() -> None:
    """From the schema: what it does, how it is written, its default; a wrong name gets the nearest."""
    lines = [
        ["policy", "explain"],
        ["policy", "explain", "Destination.breaker.open"],
        ["policy", "explain", "Destination.breaker", "-o", "json"],
        ["policy", "explain", "-o", "json"],
        ["policy", "explain", "destination.breaker"],
        ["policy", "explain", "Destination.breaker.opne"],
        ["policy", "explain", "Destination", "-o", "name"],
        ["policy", "explain", "Limit.rate", "-o", "json"],
    ]
    kinds, field, as_json, kinds_json, kind, typo, name, later = run_many(lines, {})
    applied = {line.split()[0]: line.split()[1] for line in kinds.out.splitlines()}
    assert [applied[kind] for kind in ("Destination", "Route", "Limit", "Access")] == ["yes"] * 3 + ["not"]
    assert (field.code, field.err) == (0, "")
    assert "duration, default: 5s" in field.out
    document = as_json.json
    assert document["name"] == "Destination.breaker"
    assert document["fields"]["open"]["default"] == "5s"
    assert [each["kind"] for each in kinds_json.json] == list(KINDS)
    assert [each["kind"] for each in kinds_json.json if not each["applied"]] == list(LATER_KINDS)
    assert document["applied"] is True
    rate = later.json
    assert (rate["applied"], rate["fields"]["burst"]["applied"], rate["written"]) == (
        False,
        False,
        "mapping or rate",
    )
    for done, said in ((kind, "did you mean Destination?"), (typo, "did you mean open?"), (name, "-o name")):
        assert (done.code, done.out) == (2, "")
        assert said in done.err


def test_the_json_schema_comes_out_for_editors() -> None:
    """As JSON, with lines, unless YAML is asked for; it is the one that the library has."""
    forms: tuple[list[str], ...] = ([], ["-o", "yaml"], ["-o", "name"])
    plain, as_yaml, name = run_many([["policy", "schema", *form] for form in forms], {})
    assert (plain.code, plain.err) == (0, "")
    assert json.loads(plain.out) == json_schema() == yaml.safe_load(as_yaml.out)
    assert plain.out.count("\n") > 100
    assert (name.code, name.out) == (2, "")
    assert "-o name has nothing to show" in name.err


def test_only_what_there_is_is_offered() -> None:
    """The group lists its commands, each with an example; others are unknown."""
    group, alone, other, validate, explain, schema, root = run_many(
        [
            ["policy", "--help"],
            ["policy"],
            ["policy", "explode", "x"],
            ["policy", "validate", "--help"],
            ["policy", "explain", "--help"],
            ["policy", "schema", "--help"],
            ["--help"],
        ],
        {},
    )
    listed = [line.split()[0] for line in group.out.partition("Commands:")[2].splitlines() if line.strip()]
    assert [word for word in listed if word in ("validate", "explain", "schema", "explode")] == [
        "validate",
        "explain",
        "schema",
    ]
    assert "validate" in alone.out + alone.err
    assert (other.code, other.out) == (2, "")
    assert "there are: validate, explain, schema" in other.err
    for done in (validate, explain, schema):
        assert "Example: nats-mesh policy" in done.out
    assert "Policies:" in root.out

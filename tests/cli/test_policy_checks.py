"""`policy analyze` and `policy test`: findings and failures with their places, for people and programs; exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Shop
from tests.cli.program import run_cli, run_many

GOOD = """apiVersion: mesh/v1
kind: Destination
metadata: {name: orders}
spec:
  target: {service: orders}
  timeout: 4s
  subsets:
    v1: {version: 1.2.0}
    v9: {version: 9.0.0}
"""
BAD = """---
apiVersion: mesh/v1
kind: Route
metadata: {name: canary}
spec:
  target: {service: orders}
  rules:
    - split:
        - {subset: v1, weight: 90}
        - {subset: v2, weight: 20}
"""
SOME = BAD.replace("v2", "v9")
MISTAKE = "apiVersion: mesh/v1\nkind: Route\nmetadata: {name: a}\nspec:\n  rule: []\n"
ISTIO = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: orders}
spec:
  hosts: [orders]
  http:
    - route: [{destination: {host: orders, subset: v2}}]
      corsPolicy: {allowOrigins: [{exact: https://a.example.com}]}
"""
TESTS = """apiVersion: mesh/v1
kind: PolicyTest
metadata: {name: orders}
spec:
  policies: [../orders.yaml]
  cases:
    - name: four seconds
      call: orders.place
      expect: {timeout: 4s}
    - name: to nine
      call: orders.place
      expect: {route: {subset: v9, share: 10%}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A policy with a mistake in company, and its tests below it."""
    (tmp_path / "orders.yaml").write_text(GOOD + SOME, encoding="utf-8")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "orders.yaml").write_text(TESTS, encoding="utf-8")
    return tmp_path


# -- policy analyze -----------------------------------------------------------------------------------


def test_a_finding_has_its_code_its_place_and_a_remedy(folder: Path) -> None:
    """For people on stdout, and a count on stderr; for programs a list; the codes alone for -o name."""
    (folder / "orders.yaml").write_text(GOOD + BAD, encoding="utf-8")
    path = str(folder / "orders.yaml")
    forms: tuple[list[str], ...] = ([], ["-o", "json"], ["-o", "name"], ["-o", "jsonl"])
    text, as_json, names, lines = run_many(
        [["policy", "analyze", "--offline", str(folder), *form] for form in forms], {}
    )
    assert {each.code for each in (text, as_json, names, lines)} == {1}
    assert f"error    NM0103  Route/canary  {path}:19: spec.rules[0].split[1].subset" in text.out
    assert "orders has no subset v2; there are: v1, v9" in text.out
    assert "→ Mend the name" in text.out
    assert text.err == "1 error, 1 warning, 1 info in 2 policies\n"
    found = {each["code"]: each for each in as_json.json}
    assert set(found) == {"NM0103", "NM0301", "NM0503"}
    assert found["NM0301"] == {
        "code": "NM0301",
        "severity": "warning",
        "policy": "Route/canary",
        "file": path,
        "line": 17,
        "path": "spec.rules[0].split",
        "message": "the weights come to 110, not to 100: 90 is 81.8%, 20 is 18.2%",
        "remedy": found["NM0301"]["remedy"],
    }
    assert names.out.split() == ["NM0503", "NM0301", "NM0103"]
    assert len(lines.out.splitlines()) == 3
    assert as_json.err == ""


def test_warnings_count_where_they_are_told_to(folder: Path) -> None:
    """Without an error the exit code is 0; with --strict a warning is enough for 1; nothing found is said."""
    one, strict = run_many(
        [["policy", "analyze", "--offline", str(folder), *more] for more in ([], ["--strict"])], {}
    )
    assert (one.code, strict.code) == (0, 1)
    assert "1 warning in 2 policies" in one.err
    (folder / "orders.yaml").write_text(GOOD, encoding="utf-8")
    nothing, as_json = run_many(
        [
            ["policy", "analyze", "--offline", "--strict", str(folder), "-o", form]
            for form in ("table", "json")
        ],
        {},
    )
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "nothing found in 1 policy\n")
    assert as_json.json == []


def test_bad_files_are_bad_input(folder: Path) -> None:
    """A mistake of its own is told with its line and exit code 2, and so is a file that is not there."""
    (folder / "orders.yaml").write_text(MISTAKE, encoding="utf-8")
    mistake, gone, nothing = run_many(
        [
            ["policy", "analyze", "--offline", str(folder)],
            ["policy", "analyze", "--offline", str(folder / "gone.yaml")],
            ["policy", "analyze", "--offline"],
        ],
        {},
    )
    assert (mistake.code, gone.code, nothing.code) == (2, 2, 2)
    assert "orders.yaml:5: spec.rule: is no field here; did you mean rules?" in mistake.err
    assert "gone.yaml: there is no such file" in gone.err
    assert "name files or folders" in nothing.err


def test_istio_s_files_are_looked_at(folder: Path) -> None:
    """They are translated first; what has no meaning is counted."""
    (folder / "istio.yaml").write_text(ISTIO, encoding="utf-8")
    done = run_cli("policy", "analyze", "--offline", str(folder / "istio.yaml"))
    assert done.code == 1
    assert "NM0103  Route/orders" in done.out
    assert "has no meaning here" in done.err


def test_without_a_bus_the_files_alone_are_looked_at(folder: Path) -> None:
    """That the bus cannot be reached is said, and is no failure."""
    done = run_cli("policy", "analyze", str(folder), "-s", "nats://127.0.0.1:1", "-o", "json")
    assert done.code == 0
    assert [each["code"] for each in done.json] == ["NM0301"]
    assert "only what the files show by themselves was looked at" in done.err


def test_what_runs_is_held_against_the_files(shop: Shop, folder: Path) -> None:
    """Endpoints, versions and declared timeouts come from those who answer."""
    (folder / "orders.yaml").write_text(
        GOOD
        + SOME
        + "---\napiVersion: mesh/v1\nkind: Destination\nmetadata: {name: late}\n"
        + "spec: {target: {service: orders, endpoints: [place, plase]}, timeout: 1s}\n",
        encoding="utf-8",
    )
    online, offline = shop.many(
        ["policy", "analyze", str(folder), "-o", "json"],
        ["policy", "analyze", str(folder), "-o", "json", "--offline"],
    )
    found = {each["code"]: each["message"] for each in online.json}
    assert online.code == 1
    assert "version 1.2.0" in found["NM0501"]
    assert "did you mean place?" in found["NM0104"]
    assert "2s that orders.place declares" in found["NM0701"]
    assert [each["code"] for each in offline.json] == ["NM0301"]


def test_what_is_in_effect_is_looked_at(place: Shop, folder: Path) -> None:
    """Without files it is what stands in the store, held against what runs."""
    applied = place("policy", "apply", str(folder / "orders.yaml"))
    assert applied.code == 0, applied.err
    with place.background("run", "shopapp:both") as running:
        running.wait_for("stock 0.3.0 is ready")
        done, tested = place.many(
            ["policy", "analyze", "-o", "json"], ["policy", "test", str(folder / "tests"), "-o", "json"]
        )
    assert done.code == 1
    assert {each["code"] for each in done.json} == {"NM0301", "NM0501"}
    assert {each["file"].partition("@")[0] for each in done.json} == {"Route.canary"}
    assert tested.code == 1


# -- policy test --------------------------------------------------------------------------------------


def test_a_failing_test_says_what_was_found_and_who_makes_it_so(folder: Path) -> None:
    """What was expected, what was found, and the policy and rule with file and line; exit code 1."""
    tests, policy = str(folder / "tests" / "orders.yaml"), str(folder / "orders.yaml")
    text, wide, as_json, names = run_many(
        [
            ["policy", "test", str(folder), *form]
            for form in ([], ["-o", "wide"], ["-o", "json"], ["-o", "name"])
        ],
        {},
    )
    assert {each.code for each in (text, wide, as_json, names)} == {1}
    assert text.out == (
        f"✗ orders: to nine  ({tests}:10)\n"
        f"  route ({tests}:12)\n"
        "    expected  v9: 10%\n"
        "    found     orders.place/v1: 81.8182%, orders.place/v9: 18.1818%\n"
        f"    by        Route/canary rules[0] ({policy}:17)\n"
    )
    assert text.err == "1 passed, 1 failed\n"
    assert "✓ orders: four seconds" in wide.out
    good, bad = as_json.json
    assert (good["passed"], good["failures"], bad["passed"]) == (True, [], False)
    assert bad["failures"][0]["by"] == [f"Route/canary rules[0] ({policy}:17)"]
    assert names.out == "orders: to nine\n"


def test_the_policies_of_a_test_can_be_replaced(folder: Path) -> None:
    """--policies goes above those that the test names; without either they are those of MESH_POLICIES."""
    other = folder / "other"
    other.mkdir()
    weights = SOME.replace("weight: 20", "weight: 10")
    (other / "orders.yaml").write_text(GOOD + weights, encoding="utf-8")
    tests = folder / "tests" / "orders.yaml"
    assert run_cli("policy", "test", str(tests), "--policies", str(other)).code == 0
    tests.write_text(TESTS.replace("  policies: [../orders.yaml]\n", ""), encoding="utf-8")
    assert run_cli("policy", "test", str(tests), env={"MESH_POLICIES": str(other)}).code == 0


def test_bad_tests_are_bad_input(folder: Path) -> None:
    """A mistake is told with its line and the nearest name; nothing to run, or policies that are refused: 2, too."""
    tests = folder / "tests" / "orders.yaml"
    broken = {
        TESTS.replace(
            "expect: {timeout", "expect: {timeot"
        ): "orders.yaml:9: spec.cases[0].expect.timeot: is no field",
        TESTS.replace("../orders.yaml", "../gone.yaml"): "gone.yaml: there is no such file",
        GOOD: "there is no PolicyTest in",
    }
    for text, said in broken.items():
        tests.write_text(text, encoding="utf-8")
        done = run_cli("policy", "test", str(tests))
        assert done.code == 2, text
        assert said in done.err
    tests.write_text(TESTS, encoding="utf-8")
    (folder / "orders.yaml").write_text(GOOD + BAD, encoding="utf-8")
    refused = run_cli("policy", "test", str(tests))
    assert refused.code == 2
    assert "orders has no subset v2" in refused.err
    away = run_cli("policy", "test", str(tests), "-s", "nats://127.0.0.1:1")
    assert away.code == 2
    tests.write_text(TESTS.replace("  policies: [../orders.yaml]\n", ""), encoding="utf-8")
    assert run_cli("policy", "test", str(tests), "-s", "nats://127.0.0.1:1").code == 3

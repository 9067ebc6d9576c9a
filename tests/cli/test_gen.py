"""Files that other tools read: dashboards, alert rules, the compose stack."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from nats_mesh.core.histogram import BOUNDS
from nats_mesh.policy.decode import decode
from nats_mesh.policy.policy_set import PolicySet
from nats_mesh.policy.problems import Problems
from nats_mesh.telemetry.metrics import BUCKETS_S, METRICS
from nats_mesh.telemetry.slo import Indicator, Promise, promises, within_bound
from nats_mesh.testing import NatsServer
from nats_mesh_cli.gen import files
from nats_mesh_cli.gen.dashboards import DASHBOARDS
from nats_mesh_cli.gen.panels import COLUMNS, document
from nats_mesh_cli.gen.promql import any_of, span
from nats_mesh_cli.gen.rules import BUCKETS_S as BUCKETS
from nats_mesh_cli.gen.rules import loosened, rules
from tests.cli.program import run_cli
from tests.tools import ROOT, require_tool

OBJECTIVES = str(ROOT / "policies" / "objectives.yaml")

#: What Prometheus adds to every label set.
METRICS_OF_PROMETHEUS = {"instance"}


def _there() -> dict[str, set[str]]:
    """What a scrape calls each metric, and the labels it has there."""
    found: dict[str, set[str]] = {"mesh_build_info": {"version", "python_version"}}
    for name, (make, labels, _) in METRICS.items():
        if make is HistogramMetricFamily:
            found[f"{name}_bucket"] = {*labels, "le"}
            found[f"{name}_count"] = found[f"{name}_sum"] = set(labels)
        else:
            found[f"{name}_total" if make is CounterMetricFamily else name] = set(labels)
    return found


def _set(text: str) -> PolicySet:
    problems = Problems()
    found = decode(text.encode(), "p.yaml", problems)
    problems.raise_if_any()
    return PolicySet.of(found)


def _telemetry(name: str, target: str, said: str) -> str:
    aim = f"\n  target: {target}" if target else ""
    return (
        f"---\napiVersion: mesh/v1\nkind: Telemetry\nmetadata: {{name: {name}}}\nspec:{aim}\n"
        f"  objectives: {said}\n"
    )


AVAILABLE = "{availability: 99.9%}"
NESTED = _set(
    _telemetry("every", "", AVAILABLE)
    + _telemetry("orders", "{service: orders}", "{availability: 99%}")
    + _telemetry("place", "{service: orders, endpoints: [place, cancel]}", "{availability: 95%}")
    + _telemetry("list", "{service: stock, endpoints: [list]}", "{latency: {threshold: 300ms, share: 90%}}")
)


def _expressions() -> Iterator[tuple[str, str]]:
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard.panels():
            for query in panel.queries:
                yield f"{name}: {panel.title}", query.expr
    for group in rules(promises(NESTED))["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]


def test_expressions_ask_for_what_there_is() -> None:
    """Every metric in a panel or a rule is one that the mesh gives, and so is every label beside it."""
    there = _there()
    own = {
        rule["record"]
        for group in rules(promises(NESTED))["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    for where, expr in _expressions():
        for name, labels in re.findall(r"\b(mesh[_:][a-z0-9_:]+)(?:\{([^}]*)\})?", expr):
            if name in own:
                continue
            assert name in there, f"{where}: {name}"
            used = set(re.findall(r"([a-z_]+)(?:=~|!~|!=|=)", labels))
            assert used <= there[name] | METRICS_OF_PROMETHEUS, f"{where}: {name}"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_side_by_side(name: str) -> None:
    """No panel covers another one or leaves the page; each has an id of its own, a query and a sentence."""
    found = document(DASHBOARDS[name])
    taken: set[tuple[int, int]] = set()
    for panel in found["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= COLUMNS
        taken |= cells
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert panel["description"].endswith("."), panel["title"]
    ids = [panel["id"] for panel in found["panels"]]
    assert len(ids) == len(set(ids))


def test_dashboards_have_names_of_their_own() -> None:
    """Grafana knows a dashboard by its uid, and a variable that a query names is one of its dashboard."""
    assert len({each.uid for each in DASHBOARDS.values()}) == len(DASHBOARDS)
    for dashboard in DASHBOARDS.values():
        known = {variable.name for variable in dashboard.variables}
        for panel in dashboard.panels():
            for query in panel.queries:
                assert set(re.findall(r"\$([a-z]+)\b", query.expr)) <= known, panel.title


def test_a_narrower_promise_takes_its_calls_out_of_the_wider_one() -> None:
    """Each call counts for the most specific policy alone: that of its endpoint, its service, or everybody."""
    found = {each.policy.rpartition("/")[2]: each for each in promises(NESTED)}
    whose = {
        call: [name for name, promise in found.items() if promise.concerns(*call)]
        for call in (
            ("web", "page"),
            ("orders", "show"),
            ("orders", "place"),
            ("stock", "list"),
            ("stock", "count"),
        )
    }
    assert whose == {
        ("web", "page"): ["every"],
        ("orders", "show"): ["orders"],
        ("orders", "place"): ["place"],
        ("stock", "list"): ["list"],
        ("stock", "count"): ["every"],
    }


@pytest.mark.parametrize("service", ["web", "orders", "stock"])
@pytest.mark.parametrize("endpoint", ["page", "place", "cancel", "list"])
def test_promises_agree_with_what_members_are_told(service: str, endpoint: str) -> None:
    """Whoever asks the policies for one endpoint's objectives gets the policy whose promises count its calls."""
    told = {each.policy for each in NESTED.telemetry(service, endpoint).objectives}
    assert told == {each.policy for each in promises(NESTED) if each.concerns(service, endpoint)}


@pytest.mark.parametrize(
    ("threshold_s", "bound"),
    [(0.3, 0.256), (0.256, 0.256), (0.255, 0.128), (0.0001, None), (0.00025, 0.00025), (1e9, BUCKETS_S[-1])],
)
def test_threshold_stands_for_a_bucket_that_is_there(threshold_s: float, bound: float | None) -> None:
    """The bucket is the largest that is not above the threshold, and one that the metrics have."""
    assert within_bound(threshold_s, BUCKETS) == bound
    assert BUCKETS == BUCKETS_S
    fine = within_bound(threshold_s)
    assert fine is None or (fine in BOUNDS and fine <= threshold_s * 1.000001)


def test_what_rules_cannot_say_is_said() -> None:
    """A threshold between two buckets, one below all, and a promise that cannot be broken fast are named."""
    text = _telemetry("a", "", "{latency: {threshold: 300ms, share: 90%}}")
    assert "256ms" in loosened(promises(_set(text)))[0]
    tiny = Promise(
        name="n", policy="Telemetry/p", indicator=Indicator.LATENCY, share=0.9, window_s=3e6, threshold_s=1e-5
    )
    assert "left out" in loosened([tiny])[0]
    assert [rule for group in rules([tiny])["groups"] for rule in group["rules"] if "record" in rule] == []


def test_words_of_promql() -> None:
    """Durations are whole numbers of one unit; matchers for no name, one and several."""
    assert [span(each) for each in (300.0, 3600.0, 259_200.0, 90.0, 5400.0)] == [
        "5m",
        "1h",
        "3d",
        "90s",
        "90m",
    ]
    assert [any_of("a", names) for names in ([], ["x"], ["y", "x"])] == ["", 'a="x"', 'a=~"x|y"']
    assert any_of("a", ["y", "x"], none=True) == 'a!~"x|y"'


def test_burn_rates_are_those_of_the_contract() -> None:
    """14.4 times over 1 h and 5 min, 6 times over 6 h and 30 min page; 3 times over 1 d and 2 h, and once over 3 d and
    6 h, are a ticket."""
    alerts = [
        rule
        for group in rules(promises(_set(_telemetry("a", "", AVAILABLE))))["groups"]
        for rule in group["rules"]
    ]
    found = {
        rule["labels"]["severity"]: re.findall(r"ratio_rate(\w+)\{[^}]*\} > ([0-9.e-]+)", rule["expr"])
        for rule in alerts
        if rule.get("alert") == "MeshObjectiveBurns"
    }
    assert found == {
        "page": [("1h", "0.0144"), ("5m", "0.0144"), ("6h", "0.006"), ("30m", "0.006")],
        "ticket": [("1d", "0.003"), ("2h", "0.003"), ("3d", "0.001"), ("6h", "0.001")],
    }


# -- the command ---------------------------------------------------------------------------------------


def test_grafana_goes_into_a_folder(tmp_path: Path) -> None:
    """All dashboards and their provisioning; again changes nothing; what says otherwise is not overwritten unasked."""
    folder = tmp_path / "grafana"
    first = run_cli("gen", "grafana", "--out", str(folder), "-o", "json")
    assert (first.code, {each["state"] for each in first.json}) == (0, {"created"})
    made = {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()
    }
    assert made == files.grafana()
    again = run_cli("gen", "grafana", "--out", str(folder), "-o", "json")
    assert {each["state"] for each in again.json} == {"unchanged"}
    mine = folder / "dashboards" / "mesh.json"
    mine.write_text("{}")
    (folder / "dashboards" / "service.json").unlink()
    refused = run_cli("gen", "grafana", "--out", str(folder))
    assert (refused.code, mine.read_text()) == (1, "{}")
    assert "mesh.json" in refused.err
    assert "--force" in refused.err
    assert not (folder / "dashboards" / "service.json").exists()
    forced = run_cli("gen", "grafana", "--out", str(folder), "--force", "-o", "json")
    states = {Path(each["file"]).name: each["state"] for each in forced.json}
    assert (states["mesh.json"], states["service.json"]) == ("replaced", "created")


def test_one_dashboard_goes_to_stdout() -> None:
    """A dashboard that is named is printed; a name that is none gets the nearest."""
    done = run_cli("gen", "grafana", "service")
    assert (done.code, json.loads(done.out)) == (0, document(DASHBOARDS["service"]))
    wrong = run_cli("gen", "grafana", "servise")
    assert (wrong.code, wrong.out) == (2, "")
    assert "did you mean 'service'?" in wrong.err


@pytest.mark.parametrize("what", ["grafana", "compose"])
def test_several_files_need_a_folder(what: str) -> None:
    """Several files do not go to stdout."""
    done = run_cli("gen", what)
    assert (done.code, done.out) == (2, "")
    assert "--out" in done.err


def test_alerts_of_files_go_to_stdout() -> None:
    """Rules for what the files promise, as YAML; what they cannot say exactly stands on stderr."""
    done = run_cli("gen", "alerts", OBJECTIVES)
    assert done.code == 0, done.err
    names = {rule.get("alert") for group in yaml.safe_load(done.out)["groups"] for rule in group["rules"]}
    assert {"MeshObjectiveBurns", "MeshNobodyThere", "MeshPolicyRejected", "MeshBreakerOpenLong"} <= names
    assert "256ms" in done.err


def test_alerts_of_an_empty_bus_are_the_meshs_own(nats_server: NatsServer) -> None:
    """Where nothing is stored, or there is no store, nothing is promised, and that is said."""
    env = {"NATS_URL": nats_server.url, "MESH_NAMESPACE": "gen-nothing"}
    done = run_cli("gen", "alerts", env=env)
    assert done.code == 0, done.err
    assert [group["name"] for group in yaml.safe_load(done.out)["groups"]] == ["mesh"]
    assert "nothing is promised" in done.err


def test_compose_says_where_its_checkout_is_missing(tmp_path: Path) -> None:
    """Outside a checkout the image cannot be built, which is said at once; the files that build it are there anyway."""
    done = run_cli("gen", "compose", "--out", str(tmp_path / "stack"))
    assert done.code == 0
    assert "--context" in done.err
    other = run_cli("gen", "compose", "--out", str(tmp_path / "other"), "--context", str(ROOT))
    assert "--context" not in other.err
    written: dict[str, Any] = yaml.safe_load((tmp_path / "other" / "compose.yaml").read_text())
    build = written["services"]["details"]["build"]
    assert build["context"] == str(ROOT)
    dockerfile = Path(os.path.normpath(ROOT / build["dockerfile"]))
    assert dockerfile == tmp_path / "other" / "Dockerfile"
    assert dockerfile.read_bytes() == (ROOT / "compose" / "Dockerfile").read_bytes()
    assert dockerfile.with_name("Dockerfile.dockerignore").exists()


def test_compose_folder_of_the_project_is_its_output(tmp_path: Path) -> None:
    """Made again where it stands, everything in compose/ is unchanged."""
    for name in ("pyproject.toml", "nats_mesh", "cli", "examples", "requirements"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "compose", tmp_path / "compose")
    done = run_cli("gen", "compose", "--out", "compose", "-o", "json", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert {each["state"] for each in json.loads(done.out)} == {"unchanged"}
    there = {str(path.relative_to(tmp_path)) for path in (tmp_path / "compose").rglob("*") if path.is_file()}
    assert {each["file"] for each in json.loads(done.out)} == there


@pytest.mark.parametrize(
    "promised",
    [(), promises(NESTED), promises(_set(_telemetry("short", "", "{availability: 50%, window: 1h}")))],
    ids=["nothing", "nested", "short"],
)
def test_promtool_takes_the_rules(promised: tuple[Promise, ...], tmp_path: Path) -> None:
    """Prometheus' own checker reads every rule."""
    path = tmp_path / "alerts.yml"
    path.write_text(files.alerts(promised), encoding="utf-8")
    done = subprocess.run(
        [require_tool("promtool"), "check", "rules", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_configuration() -> None:
    """And what Prometheus is started with in the stack, with the rules that it names."""
    done = subprocess.run(
        [
            require_tool("promtool"),
            "check",
            "config",
            str(ROOT / "compose" / "prometheus" / "prometheus.yml"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr

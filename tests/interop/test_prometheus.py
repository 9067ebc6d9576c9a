"""A real Prometheus reads Bookinfo and services in trouble; every panel and every rule has something to show."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from nats_mesh.testing import NatsServer
from nats_mesh_cli.gen.dashboards import DASHBOARDS
from tests.cli.program import PROGRAM, environment, run_cli
from tests.tools import ROOT, require_tool

#: How long to wait for anything before it is a failure (seconds).
PATIENCE_S = 60.0
POLICIES = """
apiVersion: mesh/v1
kind: Telemetry
metadata: {name: everybody}
spec:
  objectives: {availability: 99.9%, latency: {threshold: 64ms, share: 99%}}
---
apiVersion: mesh/v1
kind: Destination
metadata: {name: uneven}
spec:
  target: {service: uneven}
  balancer: round_robin
  breaker: off
  ejection: {consecutive: 2, base: 1s}
"""
#: Alerts for troubles that are not made here: what they look at must be there, whatever it says.
UNMADE = {"MeshPolicyRejected", "MeshPoliciesApart", "MeshBusReconnects"}


class Prometheus:
    """The server of the Debian package, asked over HTTP."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series that an expression has now."""
        asked = urllib.parse.urlencode({"query": expr}).encode()
        with urllib.request.urlopen(f"{self.url}/api/v1/query", asked, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def get(self, path: str) -> Any:
        """What its API says at a path."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
            return json.load(answer)["data"]


def _until(condition: Callable[[], object], explain: Callable[[], object]) -> None:
    """Return once it is so; fail where it does not become so."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, explain()
        time.sleep(0.25)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def scraped(
    nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Prometheus, str]]:
    """Bookinfo, services in trouble and Prometheus with the rules; and the address of one process's metrics."""
    program = require_tool("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "policies.yaml").write_text(POLICIES, encoding="utf-8")
    env = {"NATS_URL": nats_server.url, "MESH_NAMESPACE": f"prometheus-{secrets.token_hex(6)}"}
    applied = run_cli("policy", "apply", str(folder / "policies.yaml"), env=env)
    assert applied.code == 0, applied.err
    made = run_cli("gen", "alerts", "--out", str(folder), env=env)
    assert made.code == 0, made.err
    _hurry(folder / "alerts.yml")
    apps = ["details:details", "ratings:ratings", "reviews:v1", "reviews:v2", "reviews:v3"]
    services = [f"examples.bookinfo.{each}" for each in (*apps, "productpage:productpage")]
    measured = {**env, "MESH_METRICS_PORT": "127.0.0.1:0", "MESH_LOG": "info"}
    with ExitStack() as stack:
        bookinfo = stack.enter_context(
            Running([PROGRAM, "run", *services], measured, folder / "bookinfo.log")
        )
        troubled = stack.enter_context(
            Running([sys.executable, "-m", "tests.interop.troubled"], measured, folder / "troubled.log")
        )
        ports = [
            each.said(r"metrics of this process are on http://127.0.0.1:(\d+)/")
            for each in (bookinfo, troubled)
        ]
        bookinfo.said("(productpage) 1.0.0 is ready")
        configuration = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yml"],
            # The last one is nobody's: a process that cannot be read.
            "scrape_configs": [
                {
                    "job_name": "mesh",
                    "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in (*ports, "1")]}],
                }
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
        arguments = [
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--web.listen-address=127.0.0.1:0",
        ]
        started = stack.enter_context(Running([program, *arguments], {}, folder / "prometheus.log"))
        prometheus = Prometheus(int(started.said(r'"Listening on" address=127.0.0.1:(\d+)')))
        _until(lambda: _answers(f"{prometheus.url}/-/ready"), started.told)
        yield prometheus, f"http://127.0.0.1:{ports[0]}/metrics"


class Running(ExitStack):
    """A program beside the test; ended with it. What it says goes into a file."""

    def __init__(self, command: list[str], env: Mapping[str, str], log: Path) -> None:
        super().__init__()
        self._log = log
        file = self.enter_context(log.open("w"))
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment(env), stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
        self.callback(self._end)

    def told(self) -> str:
        """All that it has said."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def said(self, pattern: str) -> str:
        """The first group of what it says, once it does."""
        _until(lambda: re.search(pattern, self.told()) or self.process.poll() is not None, self.told)
        found = re.search(pattern, self.told())
        assert found is not None, self.told()
        return found[1]

    def _end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _hurry(path: Path) -> None:
    """Have the rules looked at each second, as the test does not last five minutes."""
    rules = yaml.safe_load(path.read_text(encoding="utf-8"))
    for group in rules["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            rule.pop("for", None)
    path.write_text(yaml.safe_dump(rules), encoding="utf-8")


def _filled_in(expr: str) -> str:
    """As Grafana sends it, with everything picked."""
    return re.sub(r"\$(service|instance)\b", ".*", expr.replace("$__rate_interval", "10s"))


def test_every_panel_has_data(scraped: tuple[Prometheus, str]) -> None:
    """No query of any dashboard fails, and each of them comes to some series."""
    prometheus, _ = scraped
    waiting = {
        f"{name}, {panel.title}: {expr}": expr
        for name, dashboard in DASHBOARDS.items()
        for panel in dashboard.panels()
        for query in panel.queries
        for expr in [_filled_in(query.expr)]
    }

    def all_there() -> bool:
        for name, expr in list(waiting.items()):
            if prometheus.query(expr):
                del waiting[name]
        return not waiting

    _until(all_there, lambda: "no data:\n" + "\n".join(waiting))


def test_every_variable_has_values(scraped: tuple[Prometheus, str]) -> None:
    """What a viewer can pick in a dashboard is there: services with Bookinfo's among them, and instances."""
    prometheus, _ = scraped
    for dashboard in DASHBOARDS.values():
        for variable in dashboard.variables:
            found = {
                each["metric"].get(variable.label)
                for each in prometheus.query(f"group by ({variable.label}) ({variable.metric})")
            }
            expected = (
                {"productpage", "reviews", "ratings", "details"} if variable.name == "service" else set()
            )
            assert found >= expected
            assert found - {None}


def test_every_rule_is_evaluated_and_those_of_troubles_fire(scraped: tuple[Prometheus, str]) -> None:
    """All rules are healthy, recorded series are there, and an alert fires for every trouble that is made here."""
    prometheus, _ = scraped
    made = {"MeshNobodyThere", "MeshBreakerOpenLong", "MeshNearlyFull", "MeshNotRead", "MeshObjectiveBurns"}
    waiting: dict[str, str] = {}

    def all_well() -> bool:
        waiting.clear()
        known: set[str] = set()
        for group in prometheus.get("/api/v1/rules")["groups"]:
            for rule in group["rules"]:
                known.add(rule["name"])
                if rule["health"] != "ok":
                    waiting[rule["name"]] = f"{rule['health']}: {rule.get('lastError')}"
                elif rule["type"] == "recording" and not prometheus.query(rule["name"]):
                    waiting[rule["name"]] = "no data"
                elif rule["name"] in UNMADE and not prometheus.query(rule["query"].rpartition(" > ")[0]):
                    waiting[rule["name"]] = "what it looks at is not there"
                elif rule["name"] in made and rule["state"] != "firing" and not _is_slow(rule):
                    waiting[rule["name"]] = rule["state"]
        return not waiting and made | UNMADE <= known

    _until(all_well, lambda: waiting)


def _is_slow(rule: Mapping[str, Any]) -> bool:
    """Whether an alert on a promise is one that the test does not break: only failures are made, and few are slow."""
    return bool(rule["name"] == "MeshObjectiveBurns" and rule["labels"]["indicator"] == "latency")


def test_promises_burn_where_calls_fail_and_nowhere_else(scraped: tuple[Prometheus, str]) -> None:
    """The failures of a service that always fails are all of its calls; Bookinfo's ratings break nothing."""
    prometheus, _ = scraped
    ratio = 'mesh:objective_failures:ratio_rate5m{indicator="availability"}'
    found: dict[str, float] = {}

    def known() -> bool:
        found.update(
            {
                each["metric"]["destination_service"]: float(each["value"][1])
                for each in prometheus.query(ratio)
            }
        )
        return found.keys() >= {"nobody", "ratings"}

    _until(known, lambda: found)
    assert found["nobody"] == 1.0
    assert found["ratings"] == 0.0
    burning = {
        each["metric"]["destination_service"]
        for each in prometheus.query('ALERTS{alertname="MeshObjectiveBurns",indicator="availability"}')
    }
    assert burning <= {"nobody", "shaky", "steady", "uneven"}
    assert "nobody" in burning


def test_promtool_takes_the_metrics(scraped: tuple[Prometheus, str]) -> None:
    """Prometheus' own checker reads a scrape, and finds nothing to say about names, types and texts."""
    _, url = scraped
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read()
    done = subprocess.run(
        [require_tool("promtool"), "check", "metrics"],
        input=text,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")

"""The metrics that docs/observability.md names are those that are served, with the same labels, and no others."""

from __future__ import annotations

import re
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from nats_mesh.core.histogram import Histogram
from nats_mesh.telemetry.collector import MeshCollector
from nats_mesh.telemetry.http import MetricsServer
from nats_mesh.telemetry.metrics import METRICS, families
from nats_mesh.telemetry.workers import WorkersCollector
from tests.tools import ROOT

_ROW = re.compile(r"^\| `(mesh_\w+)` \| ((?:`\w+` ?)+)\|", re.MULTILINE)
#: What a kind of metric puts behind its name.
_SUFFIXES = ("_bucket", "_count", "_sum", "_created")


def documented() -> dict[str, tuple[str, ...]]:
    """The labels of each metric in the table of the documentation."""
    text = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    return {name: tuple(sorted(re.findall(r"`(\w+)`", labels))) for name, labels in _ROW.findall(text)}


class Everything(Collector):
    """Every metric, with one sample of each."""

    def collect(self) -> list[object]:  # type: ignore[override]
        """A histogram has one duration, and all others count one."""
        tables: dict[str, dict[tuple[str, ...], object]] = {}
        for name, (make, labels, _) in METRICS.items():
            value: object = 1
            if make is HistogramMetricFamily:
                value = Histogram()
                value.record(0.001)
            tables[name] = {tuple(f"a {label}" for label in labels): value}
        build = [each for each in MeshCollector().collect() if each.name == "mesh_build"]
        return [*families(tables), *build]


def test_the_table_names_every_metric_with_its_labels_and_no_other() -> None:
    """What a scrape shows of each is what the table says, in both directions."""
    registry = CollectorRegistry()
    registry.register(Everything())
    served: dict[str, tuple[str, ...]] = {}
    for line in generate_latest(registry).decode().splitlines():
        match = re.match(r"(mesh_\w+)(?:\{(.*)\})? ", line)
        if match is None:
            assert line.startswith("#"), line
            continue
        name = match[1]
        for suffix in _SUFFIXES:
            name = name.removesuffix(suffix)
        labels = set(re.findall(r'(\w+)="', match[2] or "")) - {"le"}
        served[name] = tuple(sorted(labels))
    assert served == documented()
    assert len(served) == len(METRICS) + 1


@pytest.mark.parametrize("collector", [MeshCollector, WorkersCollector])
@pytest.mark.parametrize("modern", [False, True], ids=["text", "OpenMetrics"])
def test_every_metric_has_its_help_and_type_from_the_first_scrape_on(
    collector: type[MeshCollector] | type[WorkersCollector], modern: bool
) -> None:
    """Over HTTP, in both formats, of a process in which nothing has happened and of a supervisor without workers."""
    server = MetricsServer(collector(), "127.0.0.1", 0, healthy=lambda: (True, {}), ready=lambda: (True, {}))
    try:
        accept = "application/openmetrics-text; version=1.0.0" if modern else "text/plain"
        request = urllib.request.Request(  # ours
            f"http://127.0.0.1:{server.port}/metrics", headers={"Accept": accept}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
    finally:
        server.close()
    for name in documented():
        if modern and name.endswith(("_total", "_info")):
            name = name.rpartition("_")[0]
        (told,) = [line for line in lines if line.startswith(f"# HELP {name} ")]
        assert len(told) > len(f"# HELP {name} ") + 10
        (kind,) = [line.rpartition(" ")[2] for line in lines if line.startswith(f"# TYPE {name} ")]
        assert kind != "untyped"
    assert [line for line in lines if not line.startswith("#")] == [
        line for line in lines if line.startswith("mesh_build_info{")
    ]

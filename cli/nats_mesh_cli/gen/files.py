"""The files that ``gen`` makes, as texts by their paths, and how they get into a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from nats_mesh.policy.decode import decode
from nats_mesh.policy.policy_set import PolicySet
from nats_mesh.policy.problems import Problems
from nats_mesh.telemetry.slo import Promise, promises
from nats_mesh_cli.errors import FAILED, CliError
from nats_mesh_cli.gen import stack
from nats_mesh_cli.gen.dashboards import DASHBOARDS
from nats_mesh_cli.gen.image import IMAGE
from nats_mesh_cli.gen.panels import document
from nats_mesh_cli.gen.rules import rules

__all__ = ["alerts", "compose", "dashboard", "grafana", "write"]

_WIDTH: Final = 120
#: What the demonstration's policies say: every trace is kept, and promises that its load can break.
_POLICIES: Final = """\
# Bookinfo's promises, and all of its traces; the container `policies` stores them on the bus.
apiVersion: mesh/v1
kind: Telemetry
metadata:
  name: bookinfo
spec:
  tracing: 100%
---
apiVersion: mesh/v1
kind: Telemetry
metadata:
  name: productpage
spec:
  target: {service: productpage}
  objectives:
    - name: pages
      availability: 99.9%
      latency: {threshold: 512ms, share: 99%}
      window: 30d
"""


class _Dumper(yaml.SafeDumper):
    """Everything in full: aliases would save lines, and nobody could read it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(value: Any, *comments: str) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)
    return "".join([f"# {line}\n" for line in comments]) + text


def dashboard(name: str) -> str:
    """One dashboard as Grafana reads it."""
    return json.dumps(document(DASHBOARDS[name]), indent=2, ensure_ascii=False) + "\n"


def grafana() -> dict[str, str]:
    """All dashboards, and how Grafana finds them and Prometheus."""
    found = {f"dashboards/{name}.json": dashboard(name) for name in DASHBOARDS}
    found["provisioning/datasources/mesh.yaml"] = _yaml(
        stack.datasources(), "Where Grafana asks: `nats-mesh gen grafana` made this."
    )
    found["provisioning/dashboards/mesh.yaml"] = _yaml(
        stack.dashboards_provision(), "Where the dashboards are: `nats-mesh gen grafana` made this."
    )
    return found


def alerts(promised: Sequence[Promise]) -> str:
    """Prometheus' rules for what is promised, and the mesh's own."""
    return _yaml(
        rules(promised),
        "Rules for Prometheus 2.42 and later: `nats-mesh gen alerts` made this.",
        "severity: page wakes somebody; ticket waits for the morning.",
    )


def compose(context: str, dockerfile: str = stack.DOCKERFILE) -> dict[str, str]:
    """The whole stack. ``context`` is the checkout, as seen from its folder; ``dockerfile`` is how the image is built,
    as seen from the checkout."""
    found = {
        "compose.yaml": _yaml(
            stack.compose(context, dockerfile),
            "The whole mesh: a NATS cluster with JetStream, Bookinfo under load, Prometheus, Grafana, Jaeger.",
            "`nats-mesh gen compose` made this. Start it in this folder: `docker compose up --build`.",
            "Grafana: http://127.0.0.1:3000 · Prometheus: http://127.0.0.1:9090 · Jaeger: http://127.0.0.1:16686",
            "The bus: nats-mesh -s nats://127.0.0.1:4222,nats://127.0.0.1:4223,nats://127.0.0.1:4224 get services",
            "All ports are on loopback alone. Images have exact versions and no digests: those are yours to add.",
        ),
        **IMAGE,
        "policies.yaml": _POLICIES,
        "prometheus/prometheus.yml": _yaml(
            stack.prometheus(), "Whom Prometheus reads: `nats-mesh gen compose` made this."
        ),
        "prometheus/alerts.yml": alerts(_demonstrated()),
    }
    return {**found, **{f"grafana/{path}": text for path, text in grafana().items()}}


def _demonstrated() -> tuple[Promise, ...]:
    problems = Problems()
    found = decode(_POLICIES.encode(), "policies.yaml", problems)
    problems.raise_if_any()
    return promises(PolicySet.of(found))


def write(files: Mapping[str, str], folder: Path, *, force: bool) -> list[str]:
    """Write the files; those that are there already and say the same stay as they are. :class:`CliError` where one
    would be overwritten without ``force``, before any is written. Returns what became of each, in order."""
    states = {path: _state(folder / path, text) for path, text in files.items()}
    in_the_way = sorted(path for path, state in states.items() if state == "other")
    if in_the_way and not force:
        named = ", ".join(in_the_way[:5]) + (" and others" if len(in_the_way) > 5 else "")
        raise CliError(
            f"{folder} has other files of these names: {named}",
            hint="--force overwrites them; or name another folder",
            code=FAILED,
        )
    try:
        for path, text in files.items():
            if states[path] != "same":
                _replace(folder / path, text)
    except OSError as error:
        raise CliError(
            f"{folder} cannot be written: {error.strerror}: {error.filename}", code=FAILED
        ) from None
    words = {"same": "unchanged", "other": "replaced", "none": "created"}
    return [words[states[path]] for path in files]


def _state(path: Path, text: str) -> str:
    try:
        return "same" if path.read_text(encoding="utf-8") == text else "other"
    except FileNotFoundError:
        return "none"
    except (OSError, UnicodeDecodeError):
        return "other"


def _replace(path: Path, text: str) -> None:
    """All of it or nothing: a tool may read it at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)

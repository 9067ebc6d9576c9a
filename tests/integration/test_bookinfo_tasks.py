"""Istio's tasks on Bookinfo, as the example's page has them: every command of it is run, and does what it says."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from examples.bookinfo import ALL, load
from nats_mesh import Service
from nats_mesh.policy import PolicySet
from nats_mesh.policy.istio import translate_files
from nats_mesh.testing import NatsServer
from tests.consoles import PATIENCE_S, blocks_of, check, commands_of, run_commands, sections_of, unlike
from tests.forked import serving
from tests.harness import Bus
from tests.tools import ROOT, is_full_run

EXAMPLE = ROOT / "examples" / "bookinfo"
ISTIO = EXAMPLE / "istio"
PAGE = (EXAMPLE / "README.md").read_text(encoding="utf-8")
WALK = sections_of(PAGE, "##")["Istio's tasks"]
SECTIONS = sections_of(WALK, "###")
BEFORE, CLEAN_UP = "Before you begin", "Clean up"
#: The ten of them.
TASKS = (
    "Request routing", "Fault injection", "Traffic shifting", "Request timeouts", "Circuit breaking", "Mirroring",
    "Ingress", "Egress", "Authorization", "JWT",
)  # fmt: skip
#: What the page uses for the book service; here it is a port that is free.
PORT = "8099"
_FOREIGN = ("NATS_", "MESH_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "BOOKINFO_")


def environment(url: str, namespace: str) -> dict[str, str]:
    """What points commands at the server; `nats-mesh` and `python` are those of this Python."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH', '')}"
    more = {"NATS_URL": url, "MESH_NAMESPACE": namespace, "NO_COLOR": "1", "MESH_CACHE_DIR": "off"}
    return {**own, **more, "PATH": path, "PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def running(command: str, env: dict[str, str], ready: str, times: int = 1) -> Iterator[None]:
    """A command of the page that is left running, once it has said so many times that it is ``ready``."""
    words = shlex.split(command)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        env = {**env, name: value}
    with subprocess.Popen(
        words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            said: list[str] = []
            while sum(ready in line for line in said) < times:
                line = process.stdout.readline()
                assert line, f"{command} ended: {''.join(said)}"
                said.append(line)
            # Whatever else it says must not fill the pipe.
            with subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL) as drain:
                try:
                    yield
                finally:
                    process.send_signal(signal.SIGTERM)
                    process.wait(PATIENCE_S)
                    drain.wait(PATIENCE_S)
        finally:
            process.kill()


@pytest.fixture
def env(nats_server: NatsServer, mesh_namespace: str) -> Iterator[dict[str, str]]:
    """Everything that the page says to leave running: the server, the book service, and all services as processes."""
    up, books, services = (block.strip() for block in blocks_of(WALK, "sh"))
    assert up == "nats-mesh up"  # the server of the tests is one
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    assert PORT in books
    assert PORT in services
    env = environment(nats_server.url, mesh_namespace)
    with (
        running(books.replace(PORT, port), env, "Serving HTTP"),
        running(services.replace(PORT, port), env, "is ready", times=len(ALL)),
    ):
        yield env


@pytest.fixture(scope="module")
def quick() -> Iterator[str]:
    """A folder with a `nats-mesh` that starts at once."""
    with serving() as folder:
        yield folder


@pytest.mark.parametrize("task", TASKS)
def test_the_task_does_what_the_page_shows(task: str, env: dict[str, str], quick: str) -> None:
    """What comes before every task, then the task: every command prints what stands below it."""
    commands = commands_of(SECTIONS[BEFORE] + SECTIONS[task])
    check(commands, run_commands(commands, {**env, "PATH": f"{quick}{os.pathsep}{env['PATH']}"}, ROOT))


@pytest.mark.skipif(
    not is_full_run(), reason="a minute for what each task alone shows in parts; make verify has it"
)
def test_the_page_can_be_followed_from_top_to_bottom(env: dict[str, str], quick: str) -> None:
    """As a reader does: what a task leaves behind is in the way of none that comes after it."""
    commands = [command for text in SECTIONS.values() for command in commands_of(text)]
    path = f"{quick}{os.pathsep}{env['PATH']}"
    check(commands, run_commands(commands, {**env, "PATH": path}, ROOT, patience_s=4 * PATIENCE_S))


def test_nothing_is_left_at_the_end(env: dict[str, str]) -> None:
    """What the page ends with deletes what it began with; here the commands are the installed program itself."""
    commands = commands_of(SECTIONS[BEFORE] + SECTIONS[CLEAN_UP])
    check(commands, run_commands(commands, env, ROOT))


def test_the_page_has_all_tasks_and_all_files() -> None:
    """Ten tasks, each with commands; and each of Istio's files, and of those beside them, is used by one."""
    assert tuple(SECTIONS) == (BEFORE, *TASKS, CLEAN_UP)
    assert all(commands_of(text) for text in SECTIONS.values())
    used = " ".join(command.text for text in SECTIONS.values() for command in commands_of(text))
    for folder, name in (("istio", "$I"), ("tasks", "$T")):
        files = sorted((EXAMPLE / folder).glob("*.yaml"))
        assert files
        assert [file.name for file in files if f"{name}/{file.name}" not in used] == []


def leads_to(file: str) -> dict[str, dict[str, str]]:
    """Which shares of the calls of each service a VirtualService of Istio's sends where, read by this test itself."""
    found: dict[str, dict[str, str]] = {}
    for document in yaml.safe_load_all((ISTIO / file).read_text(encoding="utf-8")):
        if document is not None:
            rule = document["spec"]["http"][-1]
            found[document["metadata"]["name"]] = {
                each["destination"]["subset"]: each.get("weight", 100) for each in rule["route"]
            }
    return found


@pytest.mark.anyio
@pytest.mark.parametrize("file", sorted(path.name for path in ISTIO.glob("virtual-service-*.yaml")))
async def test_calls_go_where_the_file_says(bus: Bus, file: str) -> None:
    """Of each of Istio's files: whoever is nobody in particular gets the subsets of the last rule, and no others."""
    names = ("destination-rule-all.yaml", file)
    found = translate_files([((ISTIO / name).read_bytes(), name) for name in names], namespace=bus.namespace)
    followed = PolicySet.of(found.policies, namespace=bus.namespace)
    for name in ALL:
        await bus.serve(stand_in(load(name), followed))
    caller = await bus.caller("productpage", policies=followed)
    for service, shares in leads_to(file).items():
        count = 1 if len(shares) == 1 else 200  # none of 10 % by chance: 0.9^200
        labels = {await caller.call(f"{service}.which", returns=str) for _ in range(count)}
        assert labels == set(shares)


def stand_in(service: Service, followed: PolicySet) -> Service:
    """A service of the same name, version and labels that says its label."""
    label = service.labels["version"]
    made = Service(service.name, version=service.version, labels=service.labels, policies=followed)

    @made.endpoint()
    async def which() -> str:
        return label

    return made


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["a …", "…"], ["a b"]),
        (["…", "b"], ["a", "a", "b"]),
        ([], []),
        (["     20 black"], ["     20 black"]),
        (["    100 black", "    900 none"], ["    149 black", "    851 none"]),
        (["  errors   3  (1.5%)"], ["  errors   12  (6%)"]),
    ],
)
def test_what_is_as_shown(shown: list[str], printed: list[str]) -> None:
    """Wildcards, and numbers within five points."""
    assert unlike(shown, printed) == ""


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["a"], ["b"]),
        (["a"], ["a", "b"]),
        (["a", "…", "b"], ["a"]),
        ([], ["a"]),
        (["     20 black"], ["     19 black", "      1 none"]),
        (["     20 black"], ["     19 black"]),
        (["    100 black", "    900 none"], ["    151 black", "    849 none"]),
        (["  errors   3  (1.5%)"], ["  errors   14  (7%)"]),
    ],
)
def test_what_is_not(shown: list[str], printed: list[str]) -> None:
    """A line more or less, another word, a number that is off by more."""
    assert unlike(shown, printed)

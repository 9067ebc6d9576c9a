"""The program as a whole: its names, its help, its exit codes, and what it must not load."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nats_mesh import __version__
from nats_mesh.testing.plugin import NatsServerFactory
from tests.cli.program import PATIENCE_S, PROGRAM, environment, run_cli, run_many

#: One user may do nothing but connect; another may do everything but serve.
USERS = """
authorization {
  users: [
    {user: mute, password: pw, permissions: {publish: ["_INBOX.>"], subscribe: ["_INBOX.>", "mesh.*.telemetry.want.>"]}}
    {user: caller, password: pw, permissions: {publish: [">"], subscribe: ["_INBOX.>", "mesh.*.telemetry.want.>"]}}
  ]
}
"""


def test_both_names_are_installed() -> None:
    """`nats-mesh` and `mesh` are one program, and `python -m` is the third way in."""
    short = str(Path(PROGRAM).with_name("mesh"))
    for command in ([PROGRAM], [short], [sys.executable, "-m", "nats_mesh_cli"]):
        shown = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, check=True, timeout=PATIENCE_S
        )
        assert shown.stdout == f"nats-mesh {__version__}\n"


def test_help_is_grouped_and_has_examples() -> None:
    """No arguments mean help; each command has a help text with one example; nothing goes to stderr."""
    commands = ["up", "run", "call", "bench", "get", "describe", "check"]
    commands += ["drain", "undrain", "fault", "log-level", "events", "record", "slow"]
    root, *others = run_many([[], *([name, "--help"] for name in commands)], {})
    assert root.code == 0
    assert {"Serve:", "Call:", "Look:", "Operate:", "Global options, before or behind the command:"} <= set(
        root.out.splitlines()
    )
    for name, done in zip(commands, others, strict=True):
        assert (done.code, done.err) == (0, "")
        assert f"Example: nats-mesh {name}" in done.out
        assert "\x1b" not in done.out


def test_help_loads_neither_the_library_nor_rich() -> None:
    """--help must be quick: what it does not need is not imported."""
    code = (
        "import sys; from nats_mesh_cli.main import run; code = run(['--help'])\n"
        "print(code, sorted({'nats', 'nats_mesh', 'msgspec', 'anyio', 'rich', 'yaml', 'asyncio'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
        env=environment({}),
    )
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell: str) -> None:
    """The completion script of typer is there, and completing a command gives the command."""
    env = {"_NATS_MESH_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "nats-mesh desc"}
    env |= {"COMP_WORDS": "nats-mesh desc", "COMP_CWORD": "1", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = run_cli(env=env)
    assert "describe" in done.out


def test_usage_errors_are_exit_code_2() -> None:
    """A wrong word, option or value: two lines, no usage page, no traceback; an object where JSON is asked for."""
    lines = [
        ["serivces"],
        ["get", "--namspace", "x"],
        ["get", "services", "-o", "jsn"],
        ["get", "services", "--timeout", "soon"],
        ["get", "services", "-s", "http://x"],
        ["get", "services", "--context", "nowhere"],
        ["get", "services", "--creds", "nofile"],
        ["run"],
        ["up", "--port", "99999"],
        ["up", "--cluster", "1"],
    ]
    for line, done in zip(lines, run_many(lines, {"XDG_CONFIG_HOME": "/nonexistent"}), strict=True):
        assert (done.code, done.out) == (2, ""), line
        assert done.err.startswith("error: "), line
        assert len(done.err.splitlines()) <= 2, line
    (done,) = run_many([["get", "services", "-o", "json", "-s", "http://x"]], {})
    assert json.loads(done.err)["error"]["exit_code"] == 2


def test_without_a_bus_it_is_exit_code_3() -> None:
    """Nothing listens: every command says so at once, and how to start a server."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    lines = [["get", "services"], ["call", "a.b"], ["describe", "a"], ["check"], ["bench", "a.b"]]
    env = {"NATS_URL": f"nats://127.0.0.1:{port}"}
    for line, done in zip(
        lines, run_many([[*line, "--timeout", "100ms"] for line in lines], env), strict=True
    ):
        assert done.code == 3, line
        assert "nats-mesh up" in done.out + done.err, line
        assert "Traceback" not in done.err, line


def test_what_is_not_allowed_is_exit_code_4(nats_server_factory: NatsServerFactory, tmp_path: Path) -> None:
    """Refused credentials, and permissions that the server does not give: 4, with the subject that was refused."""
    port = nats_server_factory(config=USERS).port
    (tmp_path / "own.py").write_text(
        "from nats_mesh import Service\nx = Service('x', version='1.0.0')\n@x.endpoint()\nasync def y() -> int: ...\n",
        encoding="utf-8",
    )

    def at(user: str) -> list[str]:
        return ["-s", f"nats://{user}@127.0.0.1:{port}", "--timeout", "2s"]

    cases = [
        (["get", "services", *at("mute:wrong")], "refused the credentials"),
        (["get", "services", *at("mute:pw")], "$SRV.INFO"),
        (["call", "a.b", "1", *at("mute:pw")], "mesh.default.rpc.a.all.b.nats-mesh"),
        (["bench", "a.b", "1", *at("mute:pw")], "mesh.default.rpc.a.all.b.nats-mesh"),
        (["run", "own:x", "--app-dir", str(tmp_path), *at("caller:pw")], "subscribe to"),
    ]
    for (line, said), done in zip(cases, run_many([line for line, _ in cases], {}), strict=True):
        assert (done.code, done.out) == (4, ""), (line, done)
        assert said in done.err, line
        assert "wrong" not in done.err, "no password is ever shown"


def test_check_tells_what_the_server_does_not_allow(nats_server_factory: NatsServerFactory) -> None:
    """Serving is refused, calling is not: exit code 1, with what to grant; without JetStream a warning."""
    port = nats_server_factory(config=USERS, jetstream=False).port
    done = run_cli(
        "check", "--quick", "-s", f"nats://caller:pw@127.0.0.1:{port}", "--as", "web", "-o", "json"
    )
    assert done.code == 1
    findings = {finding["check"]: finding for finding in done.json}
    assert (findings["may serve"]["state"], findings["may call"]["state"]) == ("fail", "ok")
    assert findings["may serve"]["refused"] == [
        "subscribe mesh.default.rpc.web.*.*.*",
        "subscribe mesh.default.direct.web.*.*.*",
        "subscribe mesh.default.cancel.web.*",
        "subscribe $SRV.*.web",
        "subscribe mesh.default.control.command.web.*.*",
    ]
    assert findings["may discover"]["refused"] == ["subscribe mesh.default.presence.*.*"]
    assert findings["jetstream"]["state"] == "warn"
    assert "-js" in findings["jetstream"]["remedy"]

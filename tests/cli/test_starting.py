"""The start of the program: as much of the tree as is needed, a bus that is not there, totals of several calls."""

from __future__ import annotations

import gc
import io
import json
import socket
from typing import Any

import anyio
import pytest
import typer.main

from nats_mesh import DisconnectedError
from nats_mesh.errors import Executed
from nats_mesh.wire.transport import ConnectOptions
from nats_mesh_cli import starting
from nats_mesh_cli.argv import Level, level_of
from nats_mesh_cli.main import app, run
from nats_mesh_cli.narrowing import narrowed
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out
from nats_mesh_cli.reaching import connector_of, reach
from nats_mesh_cli.totals import Totals

WHOLE = level_of(typer.main.get_command(app))


def lines(level: Level, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command there is."""
    found = [(*before, name) for name, child in level.children.items() if not child.children]
    for name, child in level.children.items():
        found += lines(child, (*before, name))
    return found


@pytest.mark.parametrize("line", lines(WHOLE), ids=" ".join)
def test_a_command_is_the_same_without_the_others(line: tuple[str, ...]) -> None:
    """Its options are, and no command beside it is made that the line does not name."""
    small = level_of(typer.main.get_command(narrowed(app, line)))
    whole = WHOLE
    assert small.options == whole.options
    for name in line:
        assert set(small.children) <= set(line)
        small, whole = small.children[name], whole.children[name]
        assert small.options == whole.options


def told(*line: str) -> str:
    """What a command line that fails says."""
    stderr = io.StringIO()
    assert run(line, out=Out(io.StringIO(), stderr)) == 2
    return stderr.getvalue()


def test_errors_know_the_whole_tree() -> None:
    """What is near is found also where the line names another command."""
    assert "did you mean 'policy'?" in told("polcy", "get")
    assert "did you mean 'history'?" in told("policy", "histry", "--", "apply")
    assert narrowed(app, ["policy", "--help"]) is app


@pytest.mark.parametrize(
    ("line", "command"), [(("-n", "demo"), "describe"), (("policy", "-n", "apply"), "history")]
)
def test_help_that_nobody_asked_for_knows_the_whole_tree(
    line: tuple[str, ...], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line without a command shows which there are, also where a value in it is called like one of them."""
    assert run(line) == 0
    assert f"\n  {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [("-o", "yaml", "nope"), ("nope", "-oyaml"), ("nope", "--output=yaml"), ("policy", "-o", "yaml", "x")],
)
def test_errors_come_in_the_form_asked_for(line: tuple[str, ...]) -> None:
    """Also those of a line that cannot be read."""
    assert told(*line).startswith("error:\n  message: ")
    assert json.loads(told("-o", "json", "nope"))["error"]["exit_code"] == 2
    assert told("nope", "--", "-o", "json").startswith("error: ")


def test_garbage_is_collected_as_usual_once_the_program_runs() -> None:
    """The thresholds are raised for the start alone, and nothing happens where nothing began."""
    usual, frozen = gc.get_threshold(), gc.get_freeze_count()
    starting.over()
    assert gc.get_freeze_count() == frozen
    try:
        starting.begin()
        assert gc.get_threshold()[0] > usual[0]
    finally:
        starting.over()
        gc.unfreeze()
    assert gc.get_threshold() == usual


def test_a_view_has_everything_looked_through_seldom() -> None:
    """What is young is looked at as often as ever; afterwards all is as it was."""
    usual = gc.get_threshold()
    with starting.seldom():
        young, middle, old = gc.get_threshold()
    assert (young, middle) == usual[:2]
    assert old > usual[2]
    assert gc.get_threshold() == usual


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.mark.anyio
async def test_servers_that_refuse_are_told_before_the_time_is_over() -> None:
    """All of them do: nobody waits for the rest of an hour."""
    urls = tuple(f"nats://127.0.0.1:{closed_port()}" for _ in range(2))
    with anyio.fail_after(45.0), pytest.raises(DisconnectedError, match="connection refused") as caught:
        await reach(ConnectOptions(servers=urls, name="x", connect_timeout_s=3600.0))
    assert caught.value.executed is Executed.NO
    assert all(url in str(caught.value) for url in urls)


@pytest.mark.anyio
async def test_a_server_that_says_nothing_is_waited_for() -> None:
    """Where one of them listens, the time that there is decides."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        urls = (f"nats://127.0.0.1:{closed_port()}", f"nats://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(DisconnectedError, match="within 1 s"):
            await reach(ConnectOptions(servers=urls, name="x", connect_timeout_s=1.0))


def test_a_timeout_asks_for_patience() -> None:
    """Whoever says how long gets that long."""
    assert connector_of(None) is reach
    assert connector_of(5.0) is not reach


def totals(*calls: tuple[float, str]) -> Totals:
    """Of these calls."""
    made = Totals()
    for seconds, status in calls:
        made.add(seconds, status)
    return made


def shown(of: Totals, fmt: Format) -> str:
    """What is told, on stderr alone."""
    stdout, stderr = io.StringIO(), io.StringIO()
    of.tell(Options(format=fmt), Out(stdout, stderr))
    assert stdout.getvalue() == ""
    return stderr.getvalue()


def test_several_calls_have_a_total() -> None:
    """How many, how many failed and of what, and how long they took."""
    made = totals(*((0.001 * n, "OK") for n in range(1, 99)), (0.5, "UNAVAILABLE"), (0.6, "UNAVAILABLE"))
    assert shown(made, Format.TABLE) == ("100 calls, 2 failed (UNAVAILABLE 2); p50 50.0 ms, p99 500 ms\n")
    document: dict[str, Any] = json.loads(shown(made, Format.JSON))["totals"]
    assert document == {
        "calls": 100,
        "failed": 2,
        "by_status": {"OK": 98, "UNAVAILABLE": 2},
        "p50_ms": 50.0,
        "p99_ms": 500.0,
    }
    assert shown(totals((0.001, "OK")), Format.YAML).startswith("totals:\n")
    assert totals().quantile(0.5) is None

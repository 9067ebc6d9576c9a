"""`up` and `run`: what starts, what it says, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Shop
from tests.cli.program import PATIENCE_S, Background, run_cli, run_many

READY = "orders 1.2.0 is ready"


def is_gone(pid: int) -> bool:
    """Whether no such process runs any more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def await_end(pids: list[int]) -> None:
    """Wait until none of these processes, which are not our children, runs; fail where one does."""
    deadline = time.monotonic() + PATIENCE_S
    while not all(is_gone(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still there: {[pid for pid in pids if not is_gone(pid)]}"
        time.sleep(0.05)


def pids_of(running: Background) -> list[int]:
    """The processes that said that they are ready, by their display name host-pid."""
    lines = [line for line in running.err if READY in line]
    return [int(re.findall(r"-(\d+)\)$", line)[0]) for line in lines]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_serves_until_it_is_told_to_stop(number: int) -> None:
    """The URL on stdout, messages on stderr; Ctrl-C or SIGTERM ends server and command with 0."""
    with Background(["up", "--port", "0", "-o", "jsonl"]) as up:
        url, pid = re.findall(r'"urls":\["([^"]+)"\].*"pids":\[(\d+)\]', up.wait_for('"urls"'))[0]
        found = run_cli("get", "services", "-s", url, "-o", "json")
        assert (found.code, found.out) == (0, "[]\n")
        assert up.end(number) == 0
        await_end([int(pid)])
    assert any("Ctrl-C ends" in line for line in up.err)
    assert up.err[-1].startswith("stopped")


def test_up_can_be_a_cluster() -> None:
    """Three servers, a URL each on stdout, all of them one bus; all gone after the signal."""
    with Background(["up", "--port", "0", "--cluster", "3", "-o", "jsonl"]) as up:
        document = json.loads(up.wait_for('"urls"'))
        assert len(set(document["urls"])) == len(set(document["pids"])) == 3
        (found,) = run_many([["check", "--quick", "-o", "json"]], {"NATS_URL": ",".join(document["urls"])})
        assert found.code == 0
        assert up.end(signal.SIGTERM) == 0
        await_end(document["pids"])


def test_up_says_when_its_port_is_taken() -> None:
    """Exit code 2, which port, and what to do instead."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_cli("up", "--port", port)
    assert (done.code, done.out) == (2, "")
    assert f"port {port}" in done.err
    assert "--port 0" in done.err


def test_up_keeps_what_it_is_told_to_keep(tmp_path: Path) -> None:
    """--store is a folder that outlives the server; a server that dies on its own is a failure."""
    folder = tmp_path / "new" / "data"
    with Background(["up", "--port", "0", "--store", str(folder), "-o", "jsonl"]) as up:
        pid = int(re.findall(r'"pids":\[(\d+)\]', up.wait_for('"pids"'))[0])
        assert folder.is_dir()
        os.kill(pid, signal.SIGKILL)
        assert up.wait() == 1
    assert "ended with status -9" in "\n".join(up.err)
    assert (folder / "jetstream").is_dir()


def test_run_says_when_it_is_ready_and_drains(place: Shop) -> None:
    """One line per service on stderr, and 0 after SIGTERM; what the command line says wins over the environment."""
    with place.background("run", "shopapp:both", "-n", f"{place.namespace}x") as running:
        running.wait_for("stock 0.3.0 is ready: 1 endpoint in namespace")
        assert f"{place.namespace}x" in running.wait_for(READY)
        assert place("call", "stock.count", "2", "-n", f"{place.namespace}x").out == "-2\n"
        assert running.end(signal.SIGTERM) == 0
    assert running.out == []


@pytest.mark.parametrize("extra", [[], ["--workers", "2"]])
def test_run_of_what_is_not_there_is_a_usage_error(extra: list[str], place: Shop) -> None:
    """Exit code 2 with the Services there are, also out of a worker; said once."""
    with place.background("run", "shopapp:ordres", *extra) as running:
        assert running.wait() == 2
    assert len([line for line in running.err if "did you mean 'orders'?" in line]) == 1


def test_run_without_a_bus_ends_with_3(place: Shop) -> None:
    """It waits as long as --timeout says, and then tells; workers end the command with their code."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for extra in ([], ["--workers", "2"]):
        with place.background(
            "run", "shopapp:orders", "-s", f"127.0.0.1:{port}", "--timeout", "200ms", *extra
        ) as running:
            assert running.wait() == 3
        assert "nats-mesh up" in "\n".join(running.err)


@pytest.fixture
def workers(place: Shop) -> Iterator[Background]:
    """The shop in two supervised processes."""
    with place.background("run", "shopapp:orders", "--workers", "2") as running:
        running.wait_for(READY, times=2)
        yield running


def test_workers_are_instances_and_all_drain(workers: Background, place: Shop) -> None:
    """Each process is an instance; SIGTERM to the command ends all of them, with 0, and leaves none."""
    pids = pids_of(workers)
    assert len(set(pids)) == 2
    (listed,) = place.many(["get", "services", "-o", "json"])
    assert (listed.json[0]["ready"], listed.json[0]["instances"]) == (2, 2)
    assert workers.end(signal.SIGTERM) == 0
    await_end(pids)


def test_a_worker_that_dies_is_started_again(workers: Background) -> None:
    """It is said which died, of what, and when the next comes; the number of workers is kept."""
    victim = pids_of(workers)[0]
    os.kill(victim, signal.SIGKILL)
    assert "killed by SIGKILL; started again in 0.5 s" in workers.wait_for(f"(pid {victim}) ended on its own")
    workers.wait_for(READY, times=3)
    assert workers.interrupt() == 0
    await_end(pids_of(workers))
    assert not any("second signal" in line for line in workers.err), "Ctrl-C must reach a worker once"


def test_workers_do_not_outlive_a_supervisor_that_was_killed(workers: Background) -> None:
    """Whatever happens to the command, its workers drain and leave."""
    pids = pids_of(workers)
    assert workers.end(signal.SIGKILL) == -signal.SIGKILL
    await_end(pids)


def test_reload_serves_what_was_saved(place: Shop) -> None:
    """A change starts the service anew, also one within the second and of the same size; a file that does not load is
    told, and mended by the next change."""
    module = place.folder / "shopapp.py"
    text = module.read_text(encoding="utf-8")
    second = module.stat().st_mtime_ns // 10**9 * 10**9
    os.utime(module, ns=(second, second))
    with place.background("run", "shopapp:orders", "--reload") as running:
        running.wait_for(READY)
        first = pids_of(running)
        saved = module.with_suffix(".saved")
        saved.write_text(text.replace('version="1.2.0"', 'version="1.3.0"'), encoding="utf-8")
        os.utime(saved, ns=(second + 10**6, second + 10**6))
        saved.replace(module)
        running.wait_for("orders 1.3.0 is ready")
        await_end(first)
        assert "changed: shopapp.py" in running.wait_for("changed")
        module.write_text(text + "\nx = (", encoding="utf-8")
        running.wait_for("SyntaxError")
        running.wait_for("tried again when a file changes")
        module.write_text(text.replace('version="1.2.0"', 'version="1.4.0"'), encoding="utf-8")
        running.wait_for("orders 1.4.0 is ready")
        assert running.end(signal.SIGTERM) == 0

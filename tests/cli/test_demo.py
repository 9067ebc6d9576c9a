"""`nats-mesh demo` from the outside: its figures add up, it tells trouble, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from nats_mesh import ConfigError
from nats_mesh_cli.demo.logs import LogFile, Logs
from nats_mesh_cli.who import operator_name
from tests.cli.program import run_cli
from tests.terminals import Terminal, eventually

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="who is left behind is looked up in /proc"),
]

DEMO = [sys.executable, "-m", "nats_mesh_cli", "demo"]
PATIENCE_S = 90.0
MARK = "NATS_MESH_TEST_MARK"
SERVICES = ["productpage", "details", "reviews", "ratings"]


class Family:
    """A run of the demo and everything that it started: all carry one mark in their environment."""

    def __init__(self, folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.folder = folder
        self.environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("NATS_", "MESH_"))
        }
        # What a real mesh of this developer would set must make no difference.
        self.environ |= {
            MARK: self.mark,
            "TMPDIR": str(folder),
            "NATS_URL": "nats://127.0.0.1:1",
            "NATS_CREDS": "/none",
        }
        self.process: subprocess.Popen[str] | None = None
        self.told: list[str] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Run the demo without a terminal."""
        self.process = subprocess.Popen(
            [*DEMO, *arguments],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self.process

    def until(self, words: str) -> None:
        """Read messages until one has ``words``."""
        assert self.process is not None
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.told.append(line.rstrip())
            if words in line:
                return
        pytest.fail(f"it never said {words!r}: {self.told}")

    def finish(self) -> tuple[int, str]:
        """Wait for its end; exit code and data."""
        assert self.process is not None
        out, err = self.process.communicate(timeout=PATIENCE_S)
        self.told += err.splitlines()
        return self.process.returncode, out

    def pid_of(self, who: str) -> int:
        """The process of an instance, by what was told of its joining."""
        found = re.search(rf"joined: {re.escape(who)} \(pid (\d+)\)", "\n".join(self.told))
        assert found is not None, self.told
        return int(found[1])

    def alive(self) -> list[str]:
        """The command lines of all processes that carry the mark."""
        return list(self._alive().values())

    def pids(self, pattern: str) -> list[int]:
        """Those of which the command line has a pattern."""
        return [pid for pid, line in self._alive().items() if re.search(pattern, line)]

    def _alive(self) -> dict[int, str]:
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes():
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(entry.name)] = line
            except (OSError, ProcessLookupError):
                continue  # it has gone, or is somebody else's
        return found

    def gone(self, but: str = "^$") -> None:
        """Nothing is left: no process (but those with a pattern), and nothing in the folder for temporary files."""
        eventually(lambda: all(re.search(but, line) for line in self.alive()), self.alive)
        eventually(lambda: not list(self.folder.iterdir()), lambda: list(self.folder.iterdir()))


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    """A run to be; whatever is left of it is killed, and that is a failure of its own."""
    folder = tmp_path / "t"
    folder.mkdir()
    made = Family(folder)
    yield made
    if made.process is not None:
        if made.process.poll() is None:
            made.process.kill()
        made.process.communicate()
    made.gone()


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows of a summary by service."""
    return {row["service"]: row for row in rows}


def test_the_summary_adds_up(family: Family) -> None:
    """Three seconds of load: every page arrived, every sum agrees, all versions of reviews had their part."""
    family.start("--duration", "3", "-o", "json")
    code, out = family.finish()
    found = json.loads(out)
    assert (code, found["ok"], found["problems"]) == (0, True, []), family.told
    pages, services = found["pages"], by_name(found["services"])
    assert list(services) == SERVICES
    assert pages["calls"] == services["productpage"]["calls"] == services["details"]["calls"]
    assert pages["calls"] >= 3 * 50 - pages["skipped"]
    assert (pages["errors"], pages["degraded"], pages["success"]) == (0, 0, 1.0)
    versions = services["reviews"]["versions"]
    assert list(versions) == ["1.0.0", "2.0.0", "3.0.0"]
    assert min(versions.values()) > 0
    assert services["ratings"]["calls"] == versions["2.0.0"] + versions["3.0.0"]
    edges = {(edge["source"], edge["service"]): edge["calls"] for edge in found["edges"]}
    assert edges == {
        ("web", "productpage"): pages["calls"],
        ("productpage", "details"): pages["calls"],
        ("productpage", "reviews"): pages["calls"],
        ("reviews", "ratings"): services["ratings"]["calls"],
    }
    for row in [pages, *found["services"], *found["edges"]]:
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
    assert out.count("\n") == 1
    family.gone()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_load_and_brings_the_summary(family: Family, number: signal.Signals) -> None:
    """Ctrl-C is how a run without a duration ends: the summary is complete, and nothing is left."""
    process = family.start()
    family.until("the load begins")
    process.send_signal(number)
    code, out = family.finish()
    assert code == 0, family.told
    assert out.splitlines()[-1].endswith("0 failed, 0 incomplete: all is well")
    assert f"{number.name}: stopping; Ctrl-C stops at once" in family.told


def test_stopped_before_it_is_up_there_is_nothing_to_report(family: Family) -> None:
    """A signal during the start undoes the start: exit code 130 and no data."""
    process = family.start("-o", "json")
    eventually(lambda: any("nats.conf" in line for line in family.alive()), family.alive)
    process.send_signal(signal.SIGINT)
    code, out = family.finish()
    assert (code, out) == (130, ""), family.told


def test_a_second_signal_stops_at_once(family: Family) -> None:
    """Nobody has to wait for the summary; the services are gone all the same."""
    process = family.start()
    family.until("the load begins")
    process.send_signal(signal.SIGINT)
    family.until("stopping")
    process.send_signal(signal.SIGINT)
    code, out = family.finish()
    assert (code, out) == (130, ""), family.told


def test_killed_the_demo_takes_everything_with_it(family: Family) -> None:
    """Even SIGKILL leaves neither services nor server nor files."""
    process = family.start()
    family.until("the load begins")
    assert len(family.alive()) > len(SERVICES)
    process.kill()
    process.wait()
    family.gone()


def test_a_service_that_dies_by_itself_is_a_problem_with_its_reason(family: Family) -> None:
    """The rest goes on, the summary names who died and how, and the exit code is 1."""
    family.start("--duration", "4", "-o", "json")
    family.until("the load begins")
    os.kill(family.pid_of("reviews 2.0.0"), signal.SIGSEGV)
    code, out = family.finish()
    found = json.loads(out)
    assert (code, found["ok"]) == (1, False)
    assert re.match(r"reviews:v2 \(pid \d+\) was killed by signal 11: ", found["problems"][0])
    assert f"error: {found['problems'][0]}" in family.told
    assert found["pages"]["calls"] > 0


def test_what_is_done_to_it_is_no_problem_of_its_own(family: Family) -> None:
    """Who kills an instance and injects a fault reads what he did, and what came of it, and is not blamed: the exit
    code is 0."""
    family.start("--duration", "16", "-o", "json")
    family.until("the load begins")
    (url,) = re.findall(r"begins on (nats://\S+)", family.told[-1])
    os.kill(family.pid_of("reviews 2.0.0"), signal.SIGKILL)
    done = run_cli("fault", "ratings", "--abort", "UNAVAILABLE", "--for", "60s", env={"NATS_URL": url})
    assert done.code == 0, done.err
    code, out = family.finish()
    found = json.loads(out)
    assert (code, found["ok"], found["problems"]) == (0, True, []), family.told
    assert len(found["done"]) == 2, (found, family.told)
    killed, fault = found["done"]
    assert re.fullmatch(
        r"reviews:v2 \(pid \d+\) was killed by signal 9 \(by somebody else: a person, .*\)", killed
    )
    who = re.escape(operator_name(None))
    assert re.match(
        rf"a fault was injected into ratings by nats-mesh \({who}\): abort UNAVAILABLE for 100% of calls",
        fault,
    )
    assert any(text.startswith("ratings failed") for text in found["caused"])
    assert f"done to it: {fault}" in family.told


def test_pages_that_fail_before_a_deed_is_noticed_come_of_it_all_the_same(family: Family) -> None:
    """A process that was killed is seen to have ended a moment later: what fails meanwhile is no trouble of before. How
    many pages were lost to it stands in the verdict's own sentence."""
    process = family.start("--duration", "60s", "--rate", "300")
    family.until("the load begins")
    details = family.pid_of("details 1.0.0")
    os.kill(details, signal.SIGKILL)
    family.until("a page came without its details")
    if not any("was killed by signal 9" in line for line in family.told):
        family.until("was killed by signal 9")
    process.send_signal(signal.SIGINT)
    code, out = family.finish()
    assert code == 0, family.told
    assert re.search(
        r": all is well, beside what was done to it, but \d+ of \d+ pages were incomplete \(without details \d+\) "
        r"because of it$",
        out.strip(),
    )
    assert any(line.startswith("came of that: ") for line in family.told)


def test_who_was_frozen_is_named(family: Family) -> None:
    """One that comes back and one that does not: the verdict says who, for how long and what came of it, none of which
    is a problem; and whoever is frozen still goes on for its end, so that nobody has to be killed."""
    process = family.start("-o", "json")
    family.until("the load begins")
    back, away = family.pid_of("reviews 2.0.0"), family.pid_of("reviews 3.0.0")
    os.kill(back, signal.SIGSTOP)
    family.until(f"reviews:v2 (pid {back}) was stopped by a signal")
    os.kill(away, signal.SIGSTOP)
    family.until(f"reviews:v3 (pid {away}) was stopped by a signal")
    family.until("a page came without its reviews")
    os.kill(back, signal.SIGCONT)
    family.until(f"reviews:v2 (pid {back}) goes on")
    process.send_signal(signal.SIGINT)
    code, out = family.finish()
    found = json.loads(out)
    assert (code, found["ok"], found["problems"]) == (0, True, []), family.told
    first, second = found["silences"]
    assert (first["service"], first["version"], first["back"], first["stopped"]) == (
        "reviews",
        "2.0.0",
        True,
        True,
    )
    assert (second["version"], second["back"], second["host_pid"].rpartition("-")[2]) == (
        "3.0.0",
        False,
        str(away),
    )
    assert min(first["silent_s"], second["silent_s"]) > 2.0  # a part of a page is waited for as long as that
    assert re.fullmatch(
        rf"reviews 2\.0\.0 \(pid {back}\) was frozen \(stopped by a signal\): it did not answer for [\d.]+ s, "
        "then it came back",
        found["done"][0],
    )
    assert found["done"][1].endswith("and did not come back")
    assert all(f"done to it: {text}" in family.told for text in found["done"])
    assert any("pages came without one of their parts" in text for text in found["caused"])
    family.gone()


def test_what_services_write_goes_where_it_was_asked_for(family: Family, tmp_path: Path) -> None:
    """A file for each process, appended to, of which the path is told at the start; what `log-level` and an access log
    ask for is in it. The first line of all is the server's address."""
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "ratings-v1.log").write_text("of before\n")
    process = family.start("--duration", "60s", "--logs", str(folder))
    family.until("the load begins")
    (url,) = re.findall(r"info: the server is (nats://\S+) ", family.told[0])
    assert url in family.told[-1]
    assert family.told[1].endswith(f"info: what the services write goes to {folder}/*.log")
    policy = tmp_path / "p.yaml"
    policy.write_text(
        "apiVersion: mesh/v1\nkind: Telemetry\nmetadata: {name: log}\n"
        "spec: {target: {service: details}, accessLog: {mode: on}}\n"
    )
    for arguments in (["log-level", "ratings", "debug"], ["policy", "apply", str(policy)]):
        done = run_cli(*arguments, env={"NATS_URL": url})
        assert done.code == 0, done.err
    family.until("policies of revision")
    eventually(
        lambda: '"destination_service":"details"' in (folder / "details-v1.log").read_text(), folder.iterdir
    )
    eventually(
        lambda: "INFO    nats_mesh.policies" in (folder / "ratings-v1.log").read_text(), folder.iterdir
    )
    process.send_signal(signal.SIGINT)
    assert family.finish()[0] == 0, family.told
    assert (folder / "ratings-v1.log").read_text().startswith("of before\n")
    names = ["details-v1", "productpage-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3"]
    assert sorted(each.name for each in folder.iterdir()) == [f"{name}.log" for name in names]


def test_logs_that_cannot_be_kept_are_refused_before_anything_starts(family: Family, tmp_path: Path) -> None:
    """Exit code 2, and which place it is."""
    (tmp_path / "file").write_text("")
    family.start("--logs", str(tmp_path / "file"))
    code, out = family.finish()
    assert (code, out) == (2, "")
    assert f"--logs: nothing can be written to {tmp_path}/file" in family.told[0]


def test_a_log_is_bounded_and_says_when_it_is_full(tmp_path: Path) -> None:
    """With what was there before; once, and whatever else comes is left out. Full from the start is refused."""
    (tmp_path / "a-v1.log").write_bytes(b"12345")
    told: list[str] = []
    logs = Logs.open(tmp_path, ["a:v1", "b:v1"], told.append, max_bytes=8)
    log = logs.of("a:v1")
    assert log is not None
    for data in (b"6", b"789", b"more"):
        log.write(data)
    logs.close()
    assert (tmp_path / "a-v1.log").read_bytes() == b"12345678"
    assert told == [f"{tmp_path}/a-v1.log is full: nothing more is written there"]
    with pytest.raises(ConfigError, match=r"a-v1.log has 8 bytes, and no more than 8 are kept: move it away"):
        Logs.open(tmp_path, ["a:v1"], told.append, max_bytes=8)


def test_a_log_that_cannot_be_written_any_more_is_said_once() -> None:
    """A full disk ends the file, and not the demo."""
    told: list[str] = []
    with Path("/dev/full").open("ab", buffering=0) as file:
        log = LogFile(file, Path("/logs/a.log"), told.append)
        log.write(b"1")
        log.write(b"2")
    assert told == ["/logs/a.log cannot be written any more: No space left on device"]


def test_every_service_has_the_metrics_port_that_the_mesh_names(family: Family) -> None:
    """With port 0 each takes a free one, which `get` and `describe` tell: the operator need not search for it."""
    family.environ["MESH_METRICS_PORT"] = "127.0.0.1:0"
    process = family.start()
    family.until("the load begins")
    (url,) = re.findall(r"begins on (nats://\S+)", family.told[-1])
    listed = json.loads(run_cli("get", "instances", "-o", "json", env={"NATS_URL": url}).out)
    ports = {each["instance"]: each["metrics_port"] for each in listed}
    assert len(set(ports.values())) == len(listed) == 6
    identifier, port = next(iter(ports.items()))
    described = run_cli("describe", identifier, env={"NATS_URL": url}).out
    assert re.search(rf"metrics +/metrics, /healthz, /readyz on port {port}\n", described)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10.0) as answer:
        assert json.load(answer)["ok"]
    process.send_signal(signal.SIGINT)
    assert family.finish()[0] == 0, family.told


def test_a_metrics_port_that_all_would_share_is_refused(family: Family) -> None:
    """Before anything starts, with what to do."""
    family.environ["MESH_METRICS_PORT"] = "9464"
    family.start()
    code, out = family.finish()
    assert (code, out) == (2, "")
    assert "MESH_METRICS_PORT is '9464'" in family.told[0]


def test_a_server_that_dies_ends_the_demo(family: Family) -> None:
    """Without a bus there is nothing to see: it ends at once and says why."""
    family.start("-o", "json")
    family.until("the load begins")
    (server,) = (
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and is_server_of(family.mark, entry)
    )
    os.kill(server, signal.SIGKILL)
    code, out = family.finish()
    assert code == 1
    assert json.loads(out)["problems"][0] == "the embedded nats-server ended with status -9"


def is_server_of(mark: str, entry: Path) -> bool:
    """Whether a process is the nats-server of a run."""
    try:
        command, environ = ((entry / name).read_bytes() for name in ("cmdline", "environ"))
    except OSError:
        return False
    return b"nats-server\0-c" in command and mark.encode() in environ


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-s", "nats://127.0.0.1:4222"], "demo takes no --server"),
        (["--rate", "0"], "--rate"),
        (["--rate", "6000"], "--rate"),
        (["--duration", "0"], "'0' is no duration"),
        (["--duration", "nan"], "'nan' is no duration"),
        (["-n", "a b"], "namespace name 'a b'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(
    family: Family, arguments: list[str], says: str
) -> None:
    """Exit code 2, one line that says why, nothing on stdout."""
    family.start(*arguments)
    code, out = family.finish()
    assert (code, out) == (2, "")
    assert says in family.told[0]


# -- on a terminal ------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(family: Family, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """``terminal(width, height, *arguments, **environ)`` runs the demo in a terminal; then it says how it ended."""
    opened: list[Terminal] = []

    def open_terminal(width: int, height: int, *arguments: str, **environ: str) -> Terminal:
        demo = shlex.join([*DEMO, *arguments])
        restored = '[ "$before" = "$(stty -g)" ] && echo tty=restored'
        # cat waits for input: it would end at once on a terminal that was left non-blocking.
        shell = f'before=$(stty -g); {demo}; echo "exit=$?"; {restored}; exec cat'
        inside = {
            name: value
            for name, value in family.environ.items()
            if name not in ("TMUX", "NO_COLOR", "COLUMNS", "LINES")
        }
        made = Terminal(tmp_path / "s", width, height, shell, {**inside, **environ})
        opened.append(made)
        return made

    yield open_terminal
    for each in opened:
        each.close()


@pytest.mark.parametrize(
    ("width", "height", "key", "environ"),
    [(80, 24, "q", {"NO_COLOR": "1"}), (120, 36, "C-c", {})],
    ids=["80x24", "120x36"],
)
def test_the_view_on_a_terminal(
    terminal: Callable[..., Terminal], width: int, height: int, key: str, environ: dict[str, str]
) -> None:
    """Everything is on the screen and whole; a key ends it, the summary follows, the terminal is as it was."""
    shown = terminal(width, height, **environ)
    # Once in the line of all pages, once for each service and each edge.
    text = shown.wait_for(r"(?s)● running (.*✓ 100%){9}.*the load begins")
    lines = text.splitlines()
    assert len(lines) == height or text.count("\n") == height
    assert lines[0].startswith("nats-mesh demo  nats://127.0.0.1:")
    assert lines[0].endswith("q quits")
    assert len(lines[0]) == width
    rows = [line.split() for line in lines]
    heads = [row[0] for row in rows if row and row[0].isupper()]
    assert heads == ["SERVICES", "EDGES", "INSTANCES", "EVENTS"]
    for service in SERVICES:
        (row,) = (row for row in rows if row[:1] == [service] and "/" in row[1])
        assert row[3:5] == ["✓", "100%"]
    assert text.count("● ready") == 6
    assert "all 6 instances answer" in text
    assert ("ANSWERED BY" in text) == (width >= 120)
    colored = re.search(r"\x1b\[[0-9;]*3[1-7]", shown.screen(colors=True)) is not None
    assert colored == ("NO_COLOR" not in environ)
    shown.press(key)
    end = shown.wait_for(r"exit=\d+\s[^$]*tty=restored")
    assert "exit=0" in end
    assert "0 failed, 0 incomplete: all is well" in end
    assert (shown.ask("alternate_on"), shown.ask("cursor_flag")) == ("0", "1")


CLOSER = r"(?s)┌ mesh ▸ default .*1 Services.*productpage .*✓ 100%.*└ .*q quit"


def test_a_key_opens_the_whole_view_of_it(terminal: Callable[..., Terminal], family: Family) -> None:
    """`t` is named in the first line and opens `top` on the demo's own server; q leads back, and so does its death."""
    shown = terminal(80, 24)
    text = shown.wait_for(r"(?s)● running .*the load begins")
    assert "t top" in text.splitlines()[0]
    shown.press("t")
    shown.wait_for(CLOSER)
    (view,) = family.pids(r" -n default top ?$")
    os.kill(view, signal.SIGKILL)
    shown.wait_for(r"(?s)nats-mesh demo .*● running.*top ended with exit code -9")
    shown.press("t")
    shown.wait_for(CLOSER)
    shown.press("q")
    shown.wait_for(r"nats-mesh demo .*● running")
    assert shown.ask("alternate_on") == "1"
    shown.press("q")
    all_is_as_it_was(shown, family)


@pytest.mark.parametrize("how", ["C-c", "SIGTERM", "over"])
def test_the_whole_view_ends_with_the_demo(
    terminal: Callable[..., Terminal], family: Family, how: str
) -> None:
    """Ctrl-C, a signal to the demo and the end of its time end both, and the summary follows."""
    shown = terminal(80, 24, *(["--duration", "8s"] if how == "over" else []))
    shown.wait_for("the load begins")
    shown.press("t")
    shown.wait_for(CLOSER)
    if how == "C-c":
        shown.press("C-c")
    elif how == "SIGTERM":
        (demo,) = family.pids(r"nats_mesh_cli demo ?$")
        os.kill(demo, signal.SIGTERM)
    all_is_as_it_was(shown, family)


def all_is_as_it_was(shown: Terminal, family: Family) -> None:
    """The demo ended well, the terminal is as it was, and no process is left but those of the terminal."""
    end = shown.wait_for(r"exit=\d+\s[^$]*tty=restored")
    assert "exit=0" in end
    assert "0 failed, 0 incomplete: all is well" in end
    assert (shown.ask("alternate_on"), shown.ask("cursor_flag")) == ("0", "1")
    family.gone(but=r"^cat ?$|tmux")


def test_a_view_with_a_duration_ends_by_itself(terminal: Callable[..., Terminal]) -> None:
    """First the view, then the summary, without a key."""
    shown = terminal(80, 24, "--duration", "2s")
    shown.wait_for(r"● running 0:0\d of 0:02")
    assert "all is well" in shown.wait_for(r"exit=0\s")


def test_a_crash_is_seen_at_once(terminal: Callable[..., Terminal]) -> None:
    """The instance is marked and the event says why, long before its beats are missed; somebody did that, so that the
    exit code is 0."""
    shown = terminal(100, 30)
    text = shown.wait_for(r"(?s)● running.*reviews 1\.0\.0 +● ready")
    found = re.search(r"reviews 1\.0\.0 +● ready.* (\d+)\n", text)
    assert found is not None
    os.kill(int(found[1]), signal.SIGKILL)
    shown.wait_for(r"reviews 1\.0\.0 +✗ ended")
    shown.wait_for(rf"- left +reviews:v1 \(pid {found[1]}\) was killed by signal 9")
    shown.press("q")
    assert "exit=0" in shown.wait_for(r"exit=\d")


def test_the_streams_are_kept_apart_on_a_terminal(family: Family) -> None:
    """With `-o json` a terminal gets no view: JSON is for programs, also where a person reads along."""
    leader, follower = os.openpty()
    try:
        process = subprocess.Popen(
            [*DEMO, "--duration", "1s", "-o", "json"],
            env=family.environ | {"TERM": "xterm"},
            stdin=subprocess.DEVNULL,
            stdout=follower,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(follower)
        with os.fdopen(leader, "rb", buffering=0) as screen:
            out = read_all(screen)
        assert process.wait(PATIENCE_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert b"\x1b" not in out
    assert json.loads(out)["ok"] is True


def read_all(screen: IO[bytes]) -> bytes:
    """Everything that is written to a terminal until its other end is closed."""
    out = b""
    try:
        while data := screen.read(65_536):
            out += data
    except OSError:
        pass  # how Linux says that the other end of a terminal is closed
    return out

"""`nats-mesh top` on a terminal: real services, real keys, and a terminal that is as it was whatever ends the view."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nats_mesh.testing import NatsServer
from tests.cli.conftest import Shop
from tests.cli.program import PROGRAM, environment
from tests.terminals import Terminal, eventually

pytestmark = pytest.mark.timeout(180)

VIEW = r"(?s)┌ mesh ▸ .*1 Services.*└ .*q quit"
PROMPT = r"bash-[0-9.]+[#$]"
RESTORED = r"exit=(\d+)\s+tty=restored"
Open = Callable[..., Terminal]


#: A service of which one endpoint fails at every third call: often enough to be seen, too seldom to open a breaker.
APP = """
import itertools

from nats_mesh import Service

orders = Service("orders", version="1.2.0")
stock = Service("stock", version="0.3.0")
both = [orders, stock]
calls = itertools.count()


@orders.endpoint()
async def place(number: int) -> int:
    return -number


@orders.endpoint()
async def shaky() -> str:
    if next(calls) % 3 == 0:
        raise RuntimeError("secret")
    return "done"


@stock.endpoint()
async def count(number: int) -> int:
    return number
"""


@pytest.fixture(scope="module")
def busy(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Two services and their customers: most calls succeed, some do not."""
    folder = tmp_path_factory.mktemp("busy")
    (folder / "topapp.py").write_text(APP, encoding="utf-8")
    shop = Shop(nats_server.url, f"top-{secrets.token_hex(6)}", folder)
    with shop.background("run", "topapp:both") as running:
        running.wait_for("stock 0.3.0 is ready")
        with (
            shop.background("bench", "orders.place", "17", "--rate", "20", "-d", "30m", "--as", "web"),
            shop.background("bench", "orders.shaky", "--rate", "5", "-d", "30m", "--as", "clumsy"),
        ):
            yield shop


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Open]:
    """``terminal(command, width, height, **environ)``: a command in a terminal, which then tells how it ended."""
    opened: list[Terminal] = []

    def open_terminal(command: str, width: int = 80, height: int = 24, **environ: str) -> Terminal:
        restored = '[ "$before" = "$(stty -g)" ] && echo tty=restored'
        # cat waits for input: it would end at once on a terminal that was left non-blocking.
        shell = f'before=$(stty -g); {command}; echo "exit=$?"; {restored}; exec cat'
        inside = {name: value for name, value in environment(environ).items() if name != "TMUX"}
        made = Terminal(tmp_path / f"s{len(opened)}", width, height, shell, inside)
        opened.append(made)
        return made

    yield open_terminal
    for each in opened:
        each.close()


def top(shop: Shop, *arguments: str) -> str:
    """The command, for a shell."""
    return shlex.join([PROGRAM, "-s", shop.url, "-n", shop.namespace, "top", *arguments])


def pid_of(shop: Shop) -> int:
    """The process of the view."""
    found: list[str] = []

    def look() -> bool:
        found[:] = subprocess.run(
            ["pgrep", "-f", f"^{sys.executable}.*-n {shop.namespace} top"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.split()
        return len(found) == 1

    eventually(look, lambda: found)
    return int(found[0])


def left(shown: Terminal) -> tuple[str, str]:
    """Whether the alternate screen shows, and whether the cursor does."""
    return shown.ask("alternate_on"), shown.ask("cursor_flag")


def row(text: str, name: str) -> list[str]:
    """The words of the row that begins with a name."""
    for line in text.splitlines():
        words = line.strip("│▶ ").split()
        if words[:1] == [name]:
            return words
    pytest.fail(f"no row {name!r} in\n{text}")


def test_keys_show_the_views(terminal: Open, busy: Shop) -> None:
    """Every view of a mesh that is at work, what there is to look into, and the way out."""
    shown = terminal(top(busy))
    text = shown.wait_for(r"(?s)orders .*✗ \d\d\.\d\d%.*INTERNAL")
    assert row(text, "orders")[2] == "1/1"
    assert text.index("orders") < text.index("stock"), "the worst is first"
    lines = text.split("\n")
    assert [len(line) for line in lines[:24]] == [80] * 24

    shown.press("Enter")
    text = shown.wait_for(r"(?s)LATENCY.*LAST ERRORS")
    assert "calls/s" in text
    shown.press("End")
    shown.wait_for(r"(?s)CALLER .*\bweb +✓ 100%.*INSTANCE ")
    shown.press("Escape")
    shown.wait_for("enter drill")

    shown.press("2")
    text = shown.wait_for(r"CALLER +→ SERVICE")
    assert row(text, "clumsy")[1:3] == ["→", "orders"]
    shown.press("g")
    text = shown.wait_for("WHO CALLS WHOM")
    assert re.search(r"web +│?\n.*└─▶ orders", text)

    shown.press("3")
    text = shown.wait_for(r"INSTANCE +SERVICE")
    assert text.count("● ready") == 2

    shown.press("4")
    shown.wait_for("no policy store in this namespace")

    shown.press("5")
    text = shown.wait_for(r"web +→ orders\.place +✓ OK")
    shown.wait_for(r"clumsy +→ orders\.shaky +✗ INTERNAL")

    shown.press("f")
    shown.press("-l", "orders.shaky errors")
    shown.press("Enter")
    shown.wait_for(r"(?s)only orders.shaky errors .*clumsy +→ orders\.shaky +✗ INTERNAL")

    shown.press("6")
    shown.wait_for(r"KIND +SERVICE")

    shown.press("1", "/", "s", "t", "o", "Enter")
    shown.wait_for("/sto ")
    eventually(lambda: "orders " not in shown.screen(), shown.screen)
    shown.press("d")
    shown.wait_for(r"(?s)describe stock.*endpoint stock\.count")
    shown.press("Escape")
    shown.press("?")
    shown.wait_for("(?s)KEYS.*choose a row")
    shown.press("q")
    end = shown.wait_for(RESTORED)
    assert "exit=0" in end
    assert left(shown) == ("0", "1")


def test_the_window_may_change_its_size(terminal: Open, busy: Shop) -> None:
    """Small and large, while it runs: the screen is filled, no line is torn; also where a shell has exported the size
    that it began with."""
    shown = terminal(top(busy), LINES="24", COLUMNS="80")
    shown.wait_for("orders")
    for width, height in ((40, 10), (200, 60), (20, 5), (120, 40)):
        shown.resize(width, height)
        if width == 20:
            shown.wait_for("This window is")
            continue
        shown.wait_for(rf"(?m)^┌ mesh.{{{width - 8}}} ┐$")
        lines = shown.wait_for(rf"(?m)^└.{{{width - 2}}}┘$").rstrip("\n").split("\n")
        assert [len(line) for line in lines] == [width] * height
    shown.press("q")
    assert "exit=0" in shown.wait_for(RESTORED)


def test_control_l_mends_a_screen_that_another_program_has_torn(terminal: Open, busy: Shop) -> None:
    """All of it is painted again, also what has not changed."""
    shown = terminal(top(busy))
    shown.wait_for("orders")
    shown.press("?")
    whole = shown.wait_for("(?s)KEYS.*choose a row.*└.*scroll")
    shown.press("p")  # nothing changes by itself any more
    shown.wait_for("PAUSED")
    with open(shown.ask("pane_tty"), "w", encoding="utf-8") as other:
        other.write("\x1b[2J\x1b[1;1Htorn")
    shown.wait_for(r"\Atorn")
    shown.press("C-l")
    mended = shown.wait_for("(?s)KEYS.*choose a row.*└.*scroll")
    assert mended.split("\n")[3:] == whole.split("\n")[3:]
    shown.press("q")
    assert "exit=0" in shown.wait_for(RESTORED)


def test_colour_is_for_those_who_want_it(terminal: Open, busy: Shop) -> None:
    """NO_COLOR is honoured; without it there is colour."""
    for environ in ({}, {"NO_COLOR": "1"}):
        shown = terminal(top(busy), **environ)
        shown.wait_for("orders")
        colored = re.search(r"\x1b\[[0-9;]*3[1-7]", shown.screen(colors=True)) is not None
        assert colored == (not environ)
        shown.press("q")
        shown.wait_for(RESTORED)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_a_signal_gives_the_terminal_back(
    terminal: Open, busy: Shop, number: signal.Signals, code: int
) -> None:
    """The alternate screen is left, the cursor shows, the line discipline is as it was."""
    shown = terminal(top(busy))
    shown.wait_for("orders")
    assert left(shown) == ("1", "0")
    os.kill(pid_of(busy), number)
    assert f"exit={code}" in shown.wait_for(RESTORED)
    assert left(shown) == ("0", "1")


def test_control_c_is_a_way_out(terminal: Open, busy: Shop) -> None:
    """As everywhere."""
    shown = terminal(top(busy))
    shown.wait_for("orders")
    shown.press("C-c")
    assert "exit=130" in shown.wait_for(RESTORED)
    assert left(shown) == ("0", "1")


CRASH = """
import sys
import nats_mesh_cli.top.run as run

before, frames = run.render, []

def render(state, size):
    frames.append(size)
    if len(frames) > 2:
        raise ZeroDivisionError("on purpose")
    return before(state, size)

run.render = render
from nats_mesh_cli.main import main
sys.argv[0] = "nats-mesh"
main()
"""


def test_a_defect_gives_the_terminal_back(terminal: Open, busy: Shop) -> None:
    """What went wrong is said on the screen that was there before."""
    command = shlex.join([sys.executable, "-c", CRASH, "-s", busy.url, "-n", busy.namespace, "top"])
    shown = terminal(command)
    end = shown.wait_for(RESTORED)
    assert "exit=1" in end
    assert "a defect of nats-mesh: ZeroDivisionError: on purpose" in end
    assert left(shown) == ("0", "1")


@pytest.mark.parametrize("by", ["key", "signal"])
def test_stopped_by_the_shell_it_leaves_the_terminal_and_comes_back(
    terminal: Open, busy: Shop, by: str
) -> None:
    """Ctrl-Z, or the signal: the shell has its terminal as it was; `fg` brings the view back, keys and all."""
    shown = terminal("bash --norc --noprofile -i", 160)
    shown.wait_for(PROMPT)
    shown.press(top(busy), "Enter")
    shown.wait_for("orders ")
    if by == "key":
        shown.press("C-z")
    else:
        os.kill(pid_of(busy), signal.SIGTSTP)
    shown.wait_for(r"Stopped .* top")
    assert left(shown) == ("0", "1")
    shown.press("echo still=here", "Enter")  # the shell echoes what is typed, and its line ends are lines
    shown.wait_for(rf"{PROMPT} echo still=here\s*\nstill=here")
    shown.press("fg", "Enter")
    shown.wait_for(VIEW)
    assert left(shown) == ("1", "0")
    shown.press("3")
    shown.wait_for(r"INSTANCE +SERVICE")
    shown.press("q")
    eventually(lambda: left(shown) == ("0", "1"), lambda: left(shown))
    shown.press("exit", "Enter")
    shown.wait_for(RESTORED)


@pytest.mark.parametrize("by", ["fg", "another shell, then fg"])
def test_stopped_by_force_it_leaves_the_shell_alone_and_comes_back(
    terminal: Open, busy: Shop, by: str
) -> None:
    """SIGSTOP, which nobody can obey: while the shell has the terminal nothing is drawn, even where the view goes on;
    `fg` brings it back, keys and all."""
    shown = terminal("bash --norc --noprofile -i", 160)
    shown.wait_for(PROMPT)
    shown.press(top(busy), "Enter")
    shown.wait_for("orders ")
    os.kill(pid_of(busy), signal.SIGSTOP)
    shown.wait_for(r"Stopped .* top")
    shown.press("clear; echo the shell=has it", "Enter")
    shown.wait_for(r"(^|\n)the shell=has it")
    if by != "fg":
        os.kill(pid_of(busy), signal.SIGCONT)
        shown.press("sleep 1.5; echo and keeps=it", "Enter")
        assert "worst first" not in shown.wait_for(r"(^|\n)and keeps=it")
    shown.press("fg", "Enter")
    shown.wait_for(VIEW)
    shown.press("3")
    shown.wait_for(r"INSTANCE +SERVICE")
    shown.press("q")
    eventually(lambda: left(shown) == ("0", "1"), lambda: left(shown))
    shown.press("exit", "Enter")
    shown.wait_for(RESTORED)


@pytest.mark.anyio
async def test_a_bus_that_goes_away_is_a_banner_and_comes_back(terminal: Open, place: Shop) -> None:
    """What was known stays on the screen, marked as old; when the bus is back so are the figures."""
    server = NatsServer(name="top-away")
    async with server:
        own = Shop(server.url, place.namespace, place.folder)
        with own.background("run", "shopapp:both") as running:
            running.wait_for("stock 0.3.0 is ready")
            shown = terminal(top(own))
            shown.wait_for("(?s)orders .*stock")
            await server.kill()
            text = shown.wait_for("✗ THE BUS IS AWAY since")
            assert "✗ away" in text
            assert "orders" in text
            shown.press("3")
            shown.wait_for(r"INSTANCE +SERVICE")
            await server.restart()
            eventually(lambda: "AWAY" not in shown.screen(), shown.screen)
            assert "● " in shown.wait_for(r"orders")
            shown.press("q")
            assert "exit=0" in shown.wait_for(RESTORED)


def test_without_a_terminal_it_says_what_to_do(place: Shop) -> None:
    """No escape codes into a pipe; a format that no view has is refused too."""
    done, shaped = place.many(["top"], ["top", "-o", "json"])
    assert (done.code, done.out) == (2, "")
    assert "top --once" in done.err
    assert "--once" in shaped.err


def test_once_prints_what_the_view_would_show(busy: Shop) -> None:
    """JSON for scripts with raw numbers, tables for people, names for shells; without escape codes."""
    done, printed, names = busy.at_once(
        ["top", "--once", "-o", "json"],
        ["top", "--once", "--timeout", "2s"],
        ["top", "--once", "--timeout", "2s", "-o", "name"],
    )
    assert done.code == 0, done.err
    found = done.json
    services = {each["service"]: each for each in found["services"]}
    assert set(services) == {"orders", "stock"}
    assert services["orders"]["ready"] == 1
    assert services["orders"]["success"] < 1.0
    assert services["orders"]["rate_per_s"] > 10.0
    assert {(each["source"], each["service"]) for each in found["edges"]} == {
        ("web", "orders"),
        ("clumsy", "orders"),
    }
    assert found["policies"]["policies"] == []
    assert printed.code == 0
    assert re.search(r"(?m)^web → orders +100%", printed.out)
    assert "\x1b" not in printed.out
    assert names.out.split() == ["orders", "stock"]


def test_once_is_not_empty_because_it_looked_early(busy: Shop) -> None:
    """However short it is told to listen: who is there is told, with what was called."""
    names, done = busy.at_once(
        ["top", "--once", "--timeout", "500ms", "-o", "name"],
        ["top", "--once", "--timeout", "500ms", "-o", "json"],
    )
    assert names.out.split() == ["orders", "stock"]
    assert {each["service"] for each in done.json["edges"]} == {"orders"}


def test_once_of_nothing_is_valid(place: Shop) -> None:
    """An empty mesh is an object with empty lists, a note for people, and success; no bus at all is exit code 3."""
    done, told, away = place.many(
        ["top", "--once", "-o", "json", "--timeout", "500ms"],
        ["top", "--once", "--timeout", "500ms"],
        ["-s", "nats://127.0.0.1:1", "top", "--once"],
    )
    assert done.code == 0
    assert (done.json["services"], done.json["edges"]) == ([], [])
    assert (told.code, told.out) == (0, "")
    assert "no services yet" in told.err
    assert away.code == 3

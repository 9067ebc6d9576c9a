"""What is written to a terminal: whatever showed before, it shows the frame afterwards; and no more than that takes."""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Callable

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.demo.painting import Painter
from nats_mesh_cli.demo.state import Size
from nats_mesh_cli.top.model import Data
from nats_mesh_cli.top.reducing import fed, reduce
from nats_mesh_cli.top.run import _obey_signals
from nats_mesh_cli.top.state import State, start
from nats_mesh_cli.top.view import render
from tests.cli.top_data import DATA
from tests.snapshots import snapshot

_CODE = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|([^\x1b])")


class Glass:
    """As much of a terminal as a painter needs: it knows where the cursor is and what shows in which style, and takes
    nothing that it does not know. ``measure`` is how wide it takes a character for."""

    def __init__(self, size: Size, measure: Callable[[str], int] = cell_len) -> None:
        self.size = size
        self._measure = measure
        self.rows = [self._blank() for _ in range(size.height)]
        self.wraps = True
        self._at = (0, 0)
        self._style = ""

    def _blank(self) -> list[tuple[str, str]]:
        return [(" ", "")] * self.size.width

    def write(self, text: str) -> None:
        """Take what a program writes."""
        taken = 0
        for match in _CODE.finditer(text):
            assert match.start() == taken, repr(text[taken : match.start()])
            taken = match.end()
            private, numbers, verb, character = match.groups()
            if character is not None:
                self._put(character)
            elif private:
                assert (numbers, verb) in (("7", "l"), ("7", "h"))
                self.wraps = verb == "h"
            elif verb == "H":
                row, column = (int(each) for each in (numbers or "1;1").split(";"))
                self._at = row - 1, column - 1
            elif verb == "J":
                assert numbers == "2"
                self.rows = [self._blank() for _ in self.rows]
            elif verb == "K":
                assert not numbers
                row, column = self._at
                self.rows[row][column:] = self._blank()[column:]
            else:
                assert verb == "m"
                self._style = "" if numbers == "0" else numbers
        assert taken == len(text)

    def _put(self, character: str) -> None:
        row, column = self._at
        wide = self._measure(character)
        assert character.isprintable()
        assert column + wide <= self.size.width, "what is too long would be lost"
        for at in range(column, column + wide):
            self.rows[row][at] = (character if at == column else "", self._style)
        self._at = row, column + wide

    @property
    def text(self) -> list[str]:
        """What there is to see."""
        return ["".join(character for character, _ in row).rstrip() for row in self.rows]


def console(*, colors: str | None = "standard", no_color: bool = False) -> Console:
    """A terminal as rich sees it."""
    return Console(file=io.StringIO(), force_terminal=True, color_system=colors, no_color=no_color)  # type: ignore[arg-type]


_SIZES = st.sampled_from([Size(8, 3), Size(5, 4)])
_STYLES = st.sampled_from(["", "bold", "red", "red reverse", "bold cyan"])


@st.composite
def _frames(draw: st.DrawFn) -> tuple[Size, list[list[Cell]]]:
    size = draw(_SIZES)
    lines = []
    for _ in range(size.height):
        text = draw(st.sampled_from(["ab", "│", "xyz ", "▂▃", "日本"])) * 8
        cut = draw(st.integers(0, 3))
        kept = ""
        for character in text:
            if cell_len(kept + character) <= size.width:
                kept += character
        kept += " " * (size.width - cell_len(kept))
        lines.append([Cell(kept[:cut], draw(_STYLES)), Cell(kept[cut:], draw(_STYLES))])
    return size, lines


@given(st.lists(st.one_of(_frames(), st.sampled_from(["forget", "torn"])), max_size=30))
def test_whatever_showed_the_frame_shows(steps: list[object]) -> None:
    """Frames of any sizes in any order, in every style; and after another program has written over everything, once the
    painter knows of it."""
    painter, whole = Painter(console()), Painter(console())
    glass = Glass(Size(8, 4))
    for step in steps:
        if isinstance(step, str):
            painter.forget()
            if step == "torn":
                glass.write("\x1b[1;1Htorn\x1b[3;1Htorn")
            continue
        assert isinstance(step, tuple)
        size, lines = step
        glass.write(painter.painted(lines, size))
        whole.forget()
        other = Glass(glass.size)
        other.write(whole.painted(lines, size))
        assert glass.rows == other.rows
        assert glass.text[: size.height] == ["".join(cell.text for cell in line).rstrip() for line in lines]
        assert glass.wraps


def test_only_what_changed_is_written() -> None:
    """The first frame is all of it on an empty screen, the same once more is nothing, one other line is that line."""
    painter, size = Painter(console()), Size(4, 3)
    lines = [[Cell("aaaa")], [Cell("bbbb", "red")], [Cell("cccc")]]
    assert painter.painted(lines, size).count("\x1b[2J") == 1
    assert painter.painted(lines, size) == ""
    lines[1] = [Cell("dd", "red"), Cell("dd")]
    assert painter.painted(lines, size) == "\x1b[?7l\x1b[2;1H\x1b[31mdd\x1b[0mdd\x1b[?7h"


def test_a_terminal_that_measures_less_keeps_nothing_of_the_line_before() -> None:
    """Where it takes a character for narrower than we do, the line ends early: there is nothing behind it."""
    painter, size = Painter(console()), Size(8, 1)
    glass = Glass(size, lambda character: 1)
    for text in ("abcdefgh", "日本old|", "日 new.|", "abcdefgh"):
        assert cell_len(text) == size.width
        glass.write(painter.painted([[Cell(text)]], size))
        assert glass.text == [text]


def test_a_torn_screen_mends_itself() -> None:
    """Every now and then all of a frame is written, though nothing in it is new; without a blank screen in between."""
    painter, size = Painter(console()), Size(4, 1)
    lines = [[Cell("aaaa")]]
    painter.painted(lines, size)
    written = [painter.painted(lines, size) for _ in range(20)]
    assert sum("aaaa" in text for text in written) == 2
    assert not any("\x1b[2J" in text for text in written)


def test_another_size_and_another_program_are_a_whole_frame() -> None:
    """What the terminal made of the old one is wiped."""
    painter = Painter(console())
    painter.painted([[Cell("aaaa")]], Size(4, 1))
    assert "\x1b[2J" in painter.painted([[Cell("aa")], [Cell("bb")]], Size(2, 2))
    painter.forget()
    assert "\x1b[2J" in painter.painted([[Cell("aa")], [Cell("bb")]], Size(2, 2))


def test_colours_are_those_that_the_terminal_has() -> None:
    """Where they are not wanted the other styles stay; a terminal that has no styles at all gets text alone."""
    lines, size = [[Cell("a", "bold red"), Cell("b", "dim"), Cell("c")]], Size(3, 1)
    assert "\x1b[1;31ma\x1b[0m\x1b[2mb\x1b[0mc" in Painter(console()).painted(lines, size)
    assert "\x1b[1ma\x1b[0m\x1b[2mb\x1b[0mc" in Painter(console(no_color=True)).painted(lines, size)
    assert "\x1b[1;1Habc" in Painter(console(colors=None)).painted(lines, size)


def test_a_view_is_painted_as_it_is_drawn() -> None:
    """Through views, news, filters, help, banners and resizes: the glass has what the frame says."""
    painter, size = Painter(console()), Size(100, 30)
    glass = Glass(Size(140, 40))
    state = start(DATA, size)
    other = Data(mesh=snapshot(30))
    steps: list[str | Size | Data] = [
        "2",
        "down",
        other,
        "down",
        "/",
        "s",
        "enter",
        "esc",
        "?",
        "down",
        "q?",
        Size(140, 40),
        DATA,
        "g",
        "1",
        "enter",
        "p",
        "S",
    ]
    for step in steps:
        if isinstance(step, Data):
            state = fed(state, step)
        elif isinstance(step, Size):
            size = step
        else:
            state = reduce(state, step)
        frame = render(state, size)
        glass.write(painter.painted(frame.lines, size))
        assert "\n".join(glass.text[: size.height]) == frame.plain


def test_control_l_asks_for_a_whole_frame() -> None:
    """It is part of the state until it is done, in every mode; all else stays."""
    for keys in ([], ["/"], ["?"], ["5", "f"]):
        state = start(DATA)
        for key in keys:
            state = reduce(state, key)
        asked = reduce(state, "ctrl-l")
        assert asked.anew
        assert not state.anew
        assert render(asked, state.size).plain == render(state, state.size).plain


class Showing:
    """As much of the view as signals know of."""

    def __init__(self) -> None:
        self.state = start(DATA)
        self.told = anyio.Event()

    def change(self, state: State) -> None:
        self.state = state
        self.told.set()


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGCONT, signal.SIGWINCH])
async def test_whoever_goes_on_or_had_another_size_draws_all_of_it(number: signal.Signals) -> None:
    """After a stop that nobody could obey a shell has written to the screen; a terminal that was smaller for a moment
    has lost what found no room. Neither can be seen from its size."""
    show = Showing()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_obey_signals, show, None)  # type: ignore[arg-type]  # as much as it asks of them
        await anyio.wait_all_tasks_blocked()
        signal.raise_signal(number)
        with anyio.fail_after(10.0):
            await show.told.wait()
        tasks.cancel_scope.cancel()
    assert show.state.anew

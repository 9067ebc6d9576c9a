"""The terminal while the live view has it: taken with care, given back whatever happens."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.live import Live

from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.demo.painting import Painter
from nats_mesh_cli.demo.state import Size

__all__ = ["Screen", "screen"]

_MAX_SIZE = Size(500, 300)


class Screen:
    """The alternate screen of a terminal: :meth:`show` or :meth:`paint` draws, :attr:`size` is asked anew for each
    frame."""

    def __init__(self, console: Console, live: Live, keys: _Keys) -> None:
        self._console = console
        self._live = live
        self._keys = keys
        self._painter = Painter(console)
        #: Whether another program had the terminal when something was to be drawn last. Who never had it to himself
        #: (`timeout 9 nats-mesh top`) draws all the same.
        self._lost = False
        self._ever = _is_ours(sys.stdout)

    @property
    def size(self) -> Size:
        """The terminal's size now, which it says itself: LINES and COLUMNS may be of the day the shell began."""
        if size := _size_of(sys.stdout):
            self._console.size = size
        width, height = self._console.size
        return Size(min(width, _MAX_SIZE.width), min(height, _MAX_SIZE.height))

    def show(self, what: RenderableType) -> None:
        """Draw one frame, while the terminal is ours."""
        if not self._have():
            return
        if size := _size_of(sys.stdout):  # what is drawn is cut to this size, not to what rich takes for it
            self._console.size = size
        self._live.update(what, refresh=True)
        self._painter.forget()

    def paint(self, lines: Sequence[Sequence[Cell]], size: Size) -> None:
        """Draw one frame of which all lines are as wide as ``size``, while the terminal is ours: what is new in it is
        written, at once."""
        if not self._have():
            return
        if text := self._painter.painted(lines, size):
            self._console.file.write(text)
            self._console.file.flush()

    def forget(self) -> None:
        """Draw the next frame whole, whatever shows now, on a terminal that is set up as at the beginning."""
        self._painter.forget()
        if _is_ours(sys.stdout):  # else this would stop us
            self._keys.set_up()

    def _have(self) -> bool:
        """Whether the terminal is ours now. Where it is again, a shell had it meanwhile (after SIGSTOP, which nobody
        can obey), and has left neither its settings nor what showed."""
        if self._ever and not _is_ours(sys.stdout):
            self._lost = True
        elif self._lost:
            self._lost = False
            self.forget()
        return not self._lost

    @contextlib.contextmanager
    def given_back(self) -> Iterator[None]:
        """Leave the terminal to others for a while; afterwards it is taken again, and the next frame draws all."""
        self._live.stop()
        self._keys.give_back()
        try:
            yield
        finally:
            self._keys.take()
            self._live.start()
            self._painter.forget()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """The same for a program of our own; settings of the terminal that it leaves behind are undone."""
        with self.given_back(), self._keys.kept():
            yield


@contextlib.contextmanager
def screen(on_key: Callable[[str], None], *, colorless: bool) -> Iterator[Screen]:
    """Take the terminal for a view; keys come one by one, without Enter, to ``on_key``."""
    if sys.stdout.encoding.lower().replace("-", "") != "utf8":
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal's stdout can do that
    console = Console(no_color=colorless, highlight=False, soft_wrap=False)
    live = Live(
        console=console,
        screen=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
        transient=True,
    )
    keys = _Keys(on_key)
    try:
        keys.take()
        with live:
            yield Screen(console, live, keys)
    finally:
        keys.close()


class _Keys:
    """Reads keys while there is a terminal to read from that is ours; Ctrl-C stays a signal, Ctrl-Z comes as a key."""

    def __init__(self, on_key: Callable[[str], None]) -> None:
        self._on_key = on_key
        self._loop = asyncio.get_running_loop()
        self._fd = _open_terminal()
        self._before: list[Any] | None = None
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def take(self) -> None:
        """Set the terminal up for keys, and read them."""
        fd = self._fd
        if fd is None:
            return
        self._before = termios.tcgetattr(fd)
        self.set_up()
        self._loop.add_reader(fd, self._read)

    def set_up(self) -> None:
        """Have keys come one by one, where they are read."""
        fd = self._fd
        if fd is None or self._before is None:
            return
        ours: list[Any] = termios.tcgetattr(fd)
        ours[tty.LFLAG] &= ~(termios.ICANON | termios.ECHO)
        ours[tty.CC][termios.VMIN], ours[tty.CC][termios.VTIME] = 1, 0
        # Stopped in the middle, a program would leave the shell with the alternate screen and without a cursor.
        ours[tty.CC][termios.VSUSP] = b"\x00"
        termios.tcsetattr(fd, termios.TCSADRAIN, ours)

    def give_back(self) -> None:
        """The terminal as it was."""
        if self._fd is None or self._before is None:
            return
        self._loop.remove_reader(self._fd)
        with contextlib.suppress(termios.error):  # the terminal may have been closed under us
            termios.tcsetattr(self._fd, termios.TCSAFLUSH, self._before)
        self._before = None

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """After the block the terminal's settings are those before it."""
        before = None if self._fd is None else termios.tcgetattr(self._fd)
        try:
            yield
        finally:
            if self._fd is not None and before is not None:
                with contextlib.suppress(termios.error):  # as above
                    termios.tcsetattr(self._fd, termios.TCSAFLUSH, before)

    def close(self) -> None:
        """Give back what there is to give back, for good."""
        self.give_back()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _read(self) -> None:
        fd = self._fd
        if fd is None or not _is_ours(
            fd
        ):  # what is typed is for another program, and reading it would stop us
            return
        try:
            data = os.read(fd, 64)
        except BlockingIOError:
            return
        if not data:  # the terminal is gone
            self._loop.remove_reader(fd)
        for key in self._decode(data):
            self._on_key(key)


def _size_of(stream: TextIO) -> tuple[int, int] | None:
    """Width and height of a terminal; ``None`` where it is none, or does not know."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return None
    return (size.columns, size.lines) if size.columns and size.lines else None


def _is_ours(terminal: TextIO | int) -> bool:
    """Whether no other job of the shell has the terminal now."""
    try:
        return os.tcgetpgrp(terminal if isinstance(terminal, int) else terminal.fileno()) == os.getpgrp()
    except (OSError, ValueError):  # none that jobs share
        return True


def _open_terminal() -> int | None:
    """Standard input's terminal once more; ``None`` where it is none, or another program has it.

    A descriptor of our own: an event loop makes what it reads non-blocking, and standard input is shared with
    standard output and with the shell, for which that would be a fault that outlives us.
    """
    try:
        fd = sys.stdin.fileno()
        # Touching the terminal from the background would stop us.
        if not os.isatty(fd) or os.tcgetpgrp(fd) != os.getpgrp():
            return None
        return os.open(os.ttyname(fd), os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError, AttributeError):  # closed, detached, without a name, or no file at all
        return None

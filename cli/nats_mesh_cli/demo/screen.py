"""The terminal while the live view has it: taken with care, given back whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

from nats_mesh_cli.demo.state import Size

__all__ = ["Screen", "screen"]

_MAX_SIZE = Size(500, 300)


class Screen:
    """The alternate screen of a terminal: :meth:`show` draws, :attr:`size` is asked anew for each frame."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console = console
        self._live = live

    @property
    def size(self) -> Size:
        """The terminal's size now."""
        size = self._console.size
        return Size(min(size.width, _MAX_SIZE.width), min(size.height, _MAX_SIZE.height))

    def show(self, what: RenderableType) -> None:
        """Draw one frame."""
        self._live.update(what, refresh=True)


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
    with _keys(on_key), live:
        yield Screen(console, live)


@contextlib.contextmanager
def _keys(on_key: Callable[[str], None]) -> Iterator[None]:
    """Read keys while there is a terminal to read from that is ours; Ctrl-C stays a signal, Ctrl-Z does nothing."""
    fd = _open_terminal()
    if fd is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            data = os.read(fd, 64)
        except BlockingIOError:
            return
        if not data:  # the terminal is gone
            loop.remove_reader(fd)
        for key in data.decode("utf-8", "replace"):
            on_key(key)

    before = termios.tcgetattr(fd)
    ours: list[Any] = termios.tcgetattr(fd)
    ours[tty.LFLAG] &= ~(termios.ICANON | termios.ECHO)
    ours[tty.CC][termios.VMIN], ours[tty.CC][termios.VTIME] = 1, 0
    # A stopped program would leave the shell with the alternate screen and without a cursor.
    ours[tty.CC][termios.VSUSP] = b"\x00"
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, ours)
        loop.add_reader(fd, read)
        yield
    finally:
        loop.remove_reader(fd)
        with contextlib.suppress(termios.error):  # the terminal may have been closed under us
            termios.tcsetattr(fd, termios.TCSAFLUSH, before)
        os.close(fd)


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

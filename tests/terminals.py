"""Terminals of a given size, by tmux, for what draws on one: keys go in, the screen comes out."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.tools import require_tool

__all__ = ["Terminal", "eventually"]

PATIENCE_S = 90.0


def eventually(condition: Callable[[], object], explain: Callable[[], object]) -> None:
    """Wait for what other processes bring about."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > give_up:
            pytest.fail(f"it never came true: {explain()}")
        time.sleep(0.05)


class Terminal:
    """A terminal in which one command runs, given to a shell."""

    def __init__(
        self, socket: Path, width: int, height: int, command: str, environ: Mapping[str, str]
    ) -> None:
        self._tmux = [require_tool("tmux"), "-S", str(socket), "-f", os.devnull]
        size = ["-x", str(width), "-y", str(height)]
        self._do("new-session", "-d", *size, command, environ=environ)

    def _do(self, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments], env=environ, capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout

    def screen(self, *, colors: bool = False) -> str:
        """What there is to see; ``colors`` keeps the escape codes."""
        return self._do("capture-pane", "-p", *(["-e"] if colors else []))

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names for them."""
        self._do("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        """Drag the window to another size."""
        self._do("resize-window", "-x", str(width), "-y", str(height))

    def ask(self, variable: str) -> str:
        """One of tmux's facts about the terminal."""
        return self._do("display-message", "-p", f"#{{{variable}}}").strip()

    def wait_for(self, pattern: str) -> str:
        """Wait until the screen shows something; the screen that did."""
        shown: list[str] = [""]

        def look() -> bool:
            shown[0] = self.screen()
            return re.search(pattern, shown[0]) is not None

        eventually(look, lambda: f"{pattern!r} in\n{shown[0]}")
        return shown[0]

    def close(self) -> None:
        """End the terminal and what runs in it."""
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, timeout=30, check=False)

"""A headless Chromium that tests command: the system's own, driven by playwright-core (`interop/js/browser.mjs`)."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.tools import ROOT, require_npm_packages, require_that, require_tool

__all__ = ["PATIENCE_S", "Browser", "chromium"]

#: How long anything may take before a test fails instead of hanging (seconds).
PATIENCE_S = 30.0
_HERE = ROOT / "tests" / "interop" / "js"
_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


class Browser:
    """One page at a time; every method is a command of ``browser.mjs`` and returns what it answers."""

    def __init__(self, executable: str) -> None:
        self._process = subprocess.Popen(
            [require_tool("node"), str(_HERE / "browser.mjs"), executable],
            cwd=_HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self._answers.put(line)
        self._answers.put("")

    def ask(self, command: str, **options: Any) -> Any:
        """The result of one command; what it throws is an AssertionError."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": command, **options}) + "\n")
        self._process.stdin.flush()
        line = self._answers.get(timeout=PATIENCE_S * 2)
        assert line, "the browser ended"
        answer = json.loads(line)
        assert "failed" not in answer, answer["failed"]
        return answer["result"]

    def open(self, url: str, **options: Any) -> None:
        """Show a page, in a browser that knows of no other."""
        self.ask("open", url=url, **options)

    def evaluate(self, code: str) -> Any:
        """The value of an expression of JavaScript."""
        return self.ask("evaluate", code=code)

    def until(self, code: str) -> None:
        """Return once an expression of JavaScript is true; fails where it never is, with what the page shows."""
        try:
            self.ask("wait", code=code, timeout_ms=PATIENCE_S * 1000)
        except AssertionError as error:
            shown = self.evaluate("document.body.innerText")
            raise AssertionError(f"it never came true: {code}\n{error}\nthe page shows:\n{shown}") from None

    def until_text(self, at: str, words: str) -> None:
        """Return once the first element that fits ``at`` has ``words`` in it."""
        self.until(
            f"(document.querySelector({json.dumps(at)})?.textContent ?? '').includes({json.dumps(words)})"
        )

    def text(self, at: str) -> str:
        """What the first element that fits ``at`` shows."""
        found: str = self.ask("text", at=at)
        return found

    def seen(self) -> dict[str, list[str]]:
        """The ``requests`` of the page, its ``errors`` and the ``dialogs`` that it opened."""
        found: dict[str, list[str]] = self.ask("seen")
        return found

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """A picture of the window, or of the ``whole`` page."""
        self.ask("screenshot", path=str(path), whole=whole)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser for a block; the calling test is skipped where there is none, and fails in CI."""
    require_npm_packages(_HERE)
    named = os.environ.get("CHROMIUM", "")
    found = named or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        require_that(
            "no Chromium is on PATH: install Debian's chromium-headless-shell, or name one in CHROMIUM"
        )
        raise AssertionError("unreachable: the test was skipped or failed")
    browser = Browser(found)
    try:
        yield browser
    finally:
        browser.close()

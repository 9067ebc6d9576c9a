"""How much the process logs, changed by operators, logger by logger, and taken back when its time is over."""

from __future__ import annotations

import difflib
import logging
import threading
from collections.abc import Callable
from typing import Final

from nats_mesh.errors import ConfigError
from nats_mesh.wire.loop import Timer, call_later

__all__ = ["LogLevels"]

#: How many loggers' names a hint chooses from.
_MAX_NAMES: Final = 1000
_ROOT: Final = "root"


class _Process:
    """What is changed in this process: each logger's level before anybody changed it, and who did so last.

    Instances of several loops may share a process, and with it its loggers: the last word counts, and only who said it
    takes it back.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.before: dict[str, int] = {}
        self.holder: dict[str, object] = {}


_process: Final = _Process()


class LogLevels:
    """The levels that operators set by way of one instance. ``ended`` is told the name of a logger whose time is over,
    and what it logs from then on."""

    def __init__(self, ended: Callable[[str, str], None]) -> None:
        self._ended = ended
        self._timers: dict[str, Timer] = {}

    def set(self, name: str, level: str, for_s: float | None) -> str:
        """Have the logger ``name`` log at ``level``, for so long (``None``: for good); says what was done.

        :class:`ConfigError` where the process has no such logger.
        """
        logger = _logger(name)
        before = _shown(logger)
        self._forget(name)
        with _process.lock:
            _process.before.setdefault(name, logger.level)
            _process.holder[name] = self
            logger.setLevel(level)
        text = f"{_said(name)} logs {level} and above now, before it was {before}"
        if for_s is None:
            return text
        self._timers[name] = call_later(for_s, self._end, name)
        return f"{text}; in {for_s:g} s it is as it was at first"

    def reset(self, name: str) -> str:
        """Have the logger log as before anybody changed it; says what was done."""
        logger = _logger(name)
        before = _shown(logger)
        self._forget(name)
        if not _take_back(name, None):
            return f"{_said(name)} logs {before} and above, as nobody has changed it"
        return f"{_said(name)} logs {_shown(logger)} and above again, before it was {before}"

    def _end(self, name: str) -> None:
        del self._timers[name]
        if _take_back(name, self):
            self._ended(name, _shown(_logger(name)))

    def _forget(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Take back what was set for a time: nobody else would."""
        for name in list(self._timers):
            self._forget(name)
            _take_back(name, self)


def _take_back(name: str, holder: object) -> bool:
    """Whether the level was still ``holder``'s (``None``: anybody's) to take back."""
    with _process.lock:
        if name not in _process.before or (holder is not None and _process.holder.get(name) is not holder):
            return False
        _logger(name).setLevel(_process.before.pop(name))
        _process.holder.pop(name, None)
        return True


def _logger(name: str) -> logging.Logger:
    """A logger that the process has: to make one up would change nothing, and stay for ever."""
    known = logging.root.manager.loggerDict
    if name != _ROOT and name not in known:
        near = difflib.get_close_matches(name, [_ROOT, *list(known)[:_MAX_NAMES]], n=1)
        hint = f"did you mean {near[0]}?" if near else "they are called as Python's modules, or root"
        raise ConfigError(f"the process has no logger {name[:80]!r}; {hint}")
    return logging.getLogger(None if name == _ROOT else name)


def _shown(logger: logging.Logger) -> str:
    return logging.getLevelName(logger.getEffectiveLevel())


def _said(name: str) -> str:
    return "the process" if name == "nats_mesh" else f"the logger {name}"

"""Which files changed: looked at twice a second, because that works on every file system."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["MAX_FILES", "POLICIES", "PYTHON", "Snapshot", "difference", "scan", "shown"]

#: More files are not looked at; ``run --reload`` says so.
MAX_FILES = 20_000
#: How the names of files end that hold code, and policies.
PYTHON = (".py",)
POLICIES = (".yaml", ".yml", ".json")
_NAMED = 3
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})

#: Path to time of the last change (nanoseconds) and size in bytes.
Snapshot = Mapping[str, tuple[int, int]]


def scan(root: Path, limit: int = MAX_FILES, suffixes: tuple[str, ...] = PYTHON) -> tuple[Snapshot, bool]:
    """Every file below ``root`` whose name ends so (hidden folders, virtual environments and the like aside), and
    whether there were more than ``limit``."""
    found: dict[str, tuple[int, int]] = {}
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in _SKIPPED)
        for name in files:
            if not name.endswith(suffixes):
                continue
            if len(found) >= limit:
                return found, True
            path = os.path.join(folder, name)
            try:
                state = os.stat(path)
            except OSError:
                continue  # an editor replaces files; it is there again at the next look
            found[path] = (state.st_mtime_ns, state.st_size)
    return found, False


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """The files that came, went or changed."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def shown(paths: Sequence[str], root: Path) -> str:
    """The first few of ``paths`` as seen from ``root``, and how many more there are."""
    names = ", ".join(os.path.relpath(path, root) for path in paths[:_NAMED])
    return names if len(paths) <= _NAMED else f"{names} and {len(paths) - _NAMED} more"

"""What several tests need: programs that may be missing, and counts that depend on how long a run may take.

On a developer's machine a test whose tool is missing is skipped with the reason. In CI (`CI=true`) a missing
tool is a failure, so that a green run means that every test ran.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["ROOT", "in_ci", "is_full_run", "require_npm_packages", "require_that", "require_tool", "scaled"]

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""

_TRUE = {"1", "true", "yes"}


def in_ci(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether nothing may be skipped: `CI` is set and true."""
    return environ.get("CI", "").lower() in _TRUE


def is_full_run(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this is `make verify` (`MESH_FULL=1`): full counts instead of reduced ones."""
    return environ.get("MESH_FULL", "").lower() in _TRUE


def scaled(reduced: int, full: int) -> int:
    """The count a test uses: `reduced` in `make test`, `full` in `make verify`."""
    return full if is_full_run() else reduced


def require_tool(name: str) -> str:
    """Return the path of a program on PATH; without it, skip the calling test, or fail it in CI."""
    path = shutil.which(name)
    if path is None:
        _missing(f"`{name}` is not on PATH: install it with the system's package manager")
    return path


def require_npm_packages(folder: Path) -> Path:
    """Return `folder/node_modules` when it holds exactly the versions that `folder/package.json` pins.

    Asks for node first; without the packages, skips the calling test, or fails it in CI.
    """
    require_tool("node")
    wanted: dict[str, str] = json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"]
    modules = folder / "node_modules"
    for name, version in sorted(wanted.items()):
        manifest = modules / name / "package.json"
        found = json.loads(manifest.read_text(encoding="utf-8"))["version"] if manifest.is_file() else "none"
        if found != version:
            where = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
            _missing(f"{name} {version} is needed, {found} is installed: run `npm ci` in {where}")
    return modules


def require_that(problem: str) -> None:
    """Where ``problem`` says that something is missing: skip the calling test with it, or fail it in CI."""
    if problem:
        _missing(problem)


def _missing(reason: str) -> NoReturn:
    if in_ci():
        pytest.fail(f"{reason} (a failure and no skip, because CI is set)", pytrace=False)
    pytest.skip(reason)

"""Who may import whom: `make check` runs the contracts of pyproject.toml; here they are put to the test."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.tools import ROOT

PACKAGE = ROOT / "nats_mesh"
FOLDERS = ("wire", "core", "policy", "discovery", "security", "telemetry", "layers", "testing")
FILES = ("errors", "clock", "model", "settings", "service", "client", "mesh", "context")
PURE = ("wire/subjects", "wire/headers", "wire/codecs", "core/breaker")


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """The import rules of the project."""
    rules: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "importlinter"
    ]
    return rules


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small lawful mesh: the packages' names with next to nothing in them, under the project's rules."""
    for package in ("nats_mesh_cli", "nats_mesh", *(f"nats_mesh/{folder}" for folder in FOLDERS)):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    for module in (*FILES, *PURE):
        (tmp_path / "nats_mesh" / f"{module}.py").touch()
    (tmp_path / "nats_mesh" / "__init__.py").write_text("import nats_mesh.service\n")
    (tmp_path / "nats_mesh_cli" / "main.py").write_text("import rich, typer, nats_mesh\n")
    (tmp_path / "nats_mesh" / "service.py").write_text("import nats_mesh.layers, nats_mesh.core.breaker\n")
    (tmp_path / "nats_mesh" / "clock.py").write_text("import time\n")
    (tmp_path / "nats_mesh" / "core" / "breaker.py").write_text("import nats_mesh.clock, math\n")
    (tmp_path / "nats_mesh" / "wire" / "transport.py").write_text(
        "import nats, asyncio, nats_mesh.core.breaker\n"
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def _lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """Run the linter as `make check` does, on another tree."""
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as lint; lint()",
            "--no-cache",
        ],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_lawful_tree_keeps_every_contract(tree: Path, config: dict[str, Any]) -> None:
    """The rules allow what the design draws: downward imports, nats in the wire, a clock below the core."""
    result = _lint(tree)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"Contracts: {len(config['contracts'])} kept, 0 broken." in result.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("nats_mesh/core/breaker.py", "import time", "pure-core"),
        ("nats_mesh/core/breaker.py", "from random import Random", "pure-core"),
        ("nats_mesh/core/breaker.py", "def f():\n    import asyncio", "pure-core"),
        ("nats_mesh/core/breaker.py", "import nats_mesh.settings", "layers"),
        ("nats_mesh/wire/headers.py", "import time", "pure-wire"),
        ("nats_mesh/service.py", "import nats.aio.client", "nats-in-wire"),
        ("nats_mesh_cli/main.py", "import nats", "nats-in-wire"),
        ("nats_mesh/errors.py", "import rich.console", "library-without-terminal"),
        ("nats_mesh/wire/codecs.py", "import nats_mesh.layers", "layers"),
        ("nats_mesh/discovery/__init__.py", "import nats_mesh", "layers"),
        ("nats_mesh/service.py", "import nats_mesh.testing", "layers"),
        ("nats_mesh/testing/__init__.py", "import nats_mesh_cli.main", "layers"),
    ],
)
def test_each_breach_breaks_its_contract(
    module: str, line: str, broken: str, tree: Path, config: dict[str, Any]
) -> None:
    """An import against the grain, in a function or by the root package too, breaks its contract alone."""
    names = {contract["id"]: contract["name"] for contract in config["contracts"]}
    path = tree / module
    path.write_text(f"{path.read_text()}{line}\n")
    result = _lint(tree)
    assert result.returncode == 1, result.stdout + result.stderr
    assert re.findall(r"^(.+) BROKEN", result.stdout, re.MULTILINE) == [names[broken]]


def test_every_module_has_its_place_in_the_layers(config: dict[str, Any]) -> None:
    """A module of nats_mesh that no layer names is under no rule: put it into a line of the contract."""
    layers = next(contract["layers"] for contract in config["contracts"] if contract["id"] == "layers")
    placed = {name.rpartition(".")[2] for line in layers for name in re.findall(r"[\w.]+", line)}
    present = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    assert present - {"__init__"} <= placed


def test_every_folder_with_modules_is_a_package() -> None:
    """A folder without __init__.py would be invisible to the import rules and missing its docstring."""
    folders = {
        path.parent for root in (PACKAGE, ROOT / "cli" / "nats_mesh_cli") for path in root.rglob("*.py")
    }
    assert sorted(folder for folder in folders if not (folder / "__init__.py").is_file()) == []

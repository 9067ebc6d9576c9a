"""What is promised to those who install nats-mesh: names, bounds, and lock files that hold."""

import json
import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.lockfile import LOCKS, locked, problems, project_requirements
from tests.tools import ROOT

REQUIREMENTS = [Requirement("alpha>=1.2,<2"), Requirement("beta; sys_platform != 'win32'")]
HASH = "--hash=sha256:" + "0" * 64
IN_SYNC = f"""\
# made by make lock
alpha==1.9 \\
    {HASH}
    # via nats-mesh (pyproject.toml)
beta==4.0 ; sys_platform != 'win32' \\
    {HASH} \\
    {HASH}
    # via
    #   alpha
    #   nats-mesh (pyproject.toml)
gamma==0.1 \\
    {HASH}
    # via beta
"""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The project table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def test_both_commands_and_the_pytest_plugin_are_declared(project: dict[str, Any]) -> None:
    """`nats-mesh` and `mesh` are one program, and pytest finds the fixtures without configuration."""
    assert project["scripts"] == dict.fromkeys(("nats-mesh", "mesh"), "nats_mesh_cli.main:main")
    assert project["entry-points"]["pytest11"] == {"nats_mesh": "nats_mesh.testing.plugin"}


def test_nats_py_is_held_to_the_minor_version_whose_insides_are_known(project: dict[str, Any]) -> None:
    """The wire touches nats-py's private surface: neither an older nor the next minor version will do."""
    bounds = next(r.specifier for r in map(Requirement, project["dependencies"]) if r.name == "nats-py")
    assert [bounds.contains(v) for v in ("2.15.9", "2.16.0", "2.16.7", "2.17.0")] == [
        False,
        True,
        True,
        False,
    ]


def test_every_python_package_is_marked_typed() -> None:
    """Both packages carry py.typed: their types count for those who import them."""
    assert [(ROOT / p / "py.typed").is_file() for p in ("nats_mesh", "cli/nats_mesh_cli")] == [True, True]


@pytest.mark.parametrize("name", LOCKS)
def test_lock_file_is_in_sync(name: str) -> None:
    """Each lock file pins what pyproject.toml asks for, with hashes and without addresses."""
    requirements = project_requirements(ROOT / "pyproject.toml", LOCKS[name])
    assert problems((ROOT / name).read_text(encoding="utf-8"), requirements) == []


def test_locks_agree_with_each_other() -> None:
    """What runs in the image is the very version that was tested."""
    dev, runtime = (
        locked((ROOT / f"requirements/{n}.lock").read_text(encoding="utf-8")) for n in ("dev", "runtime")
    )
    assert {(pin.name, pin.version) for pin in runtime} <= {(pin.name, pin.version) for pin in dev}


def test_a_lock_in_sync_has_no_problems() -> None:
    """Markers, several hashes and indirect pins are all lawful."""
    assert problems(IN_SYNC, REQUIREMENTS) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (IN_SYNC.replace("alpha==1.9", "alpha==2.0"), "alpha is locked at 2.0, <2,>=1.2 is asked for"),
        (IN_SYNC.replace("beta==", "delta=="), "beta is asked for and not locked"),
        (IN_SYNC.replace("beta==", "delta=="), "delta is locked and no longer asked for"),
        (IN_SYNC.removesuffix("    # via beta\n").removesuffix(f"    {HASH}\n"), "gamma has no hash"),
        (
            f"# --index-url ftp://example.invalid/\n{IN_SYNC}",
            "an address: # --index-url ftp://example.invalid/",
        ),
    ],
)
def test_a_lock_out_of_sync_is_told_apart(text: str, problem: str) -> None:
    """Each way to be out of sync is named with its package."""
    assert problem in problems(text, REQUIREMENTS)


@pytest.mark.parametrize("line", ["    --hash=sha256:00", "alpha>=1.9", "-e ."])
def test_a_line_that_is_no_pin_is_refused(line: str) -> None:
    """A line that the check cannot read is an error and never skipped: it could install anything."""
    with pytest.raises(ValueError, match=re.escape(line.strip())):
        locked(f"{line}\n{IN_SYNC}")


def test_npm_packages_are_pinned_exactly_and_by_hash_alone() -> None:
    """The JavaScript peers are exact versions with hashes; no address says where they must come from."""
    folder = ROOT / "tests" / "interop" / "js"
    wanted = json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"]
    text = (folder / "package-lock.json").read_text(encoding="utf-8")
    packages = json.loads(text)["packages"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert [name for name, package in packages.items() if name and "integrity" not in package] == []
    assert "://" not in text

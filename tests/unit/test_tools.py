"""The helpers that decide what is skipped and how much is run."""

import json
from pathlib import Path

import pytest

from tests import tools

SKIPPED = pytest.skip.Exception
FAILED = pytest.fail.Exception


@pytest.fixture
def npm_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pins one npm package, on a machine that has node."""
    (tmp_path / "package.json").write_text(json.dumps({"dependencies": {"@scope/thing": "1.2.3"}}))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    return tmp_path


def _install(folder: Path, version: str) -> None:
    package = folder / "node_modules" / "@scope" / "thing"
    package.mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({"version": version}))


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", SKIPPED), ("false", SKIPPED), ("true", FAILED), ("1", FAILED)]
)
def test_missing_tool_skips_here_and_fails_in_ci(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing tool is a skip with its reason on a developer's machine and a failure in CI."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(outcome, match="`no-such-tool` is not on PATH"):
        tools.require_tool("no-such-tool")


def test_present_tool_is_returned_with_its_path() -> None:
    """A tool that is there is returned as the path to run."""
    assert Path(tools.require_tool("sh")).is_absolute()


def test_npm_packages_are_accepted_in_exactly_the_pinned_version(npm_folder: Path) -> None:
    """The pinned version installed is enough to run."""
    _install(npm_folder, "1.2.3")
    assert tools.require_npm_packages(npm_folder) == npm_folder / "node_modules"


@pytest.mark.parametrize("installed", [None, "1.2.4"])
def test_missing_or_other_npm_packages_are_named(
    installed: str | None, npm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absent packages and other versions are refused with the command that mends it."""
    monkeypatch.setenv("CI", "true")
    if installed is not None:
        _install(npm_folder, installed)
    with pytest.raises(
        FAILED, match=rf"@scope/thing 1\.2\.3 is needed, {installed or 'none'} is installed: run `npm ci`"
    ):
        tools.require_npm_packages(npm_folder)


def test_counts_follow_the_kind_of_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """MESH_FULL chooses the full counts; without it they are reduced."""
    monkeypatch.setenv("MESH_FULL", "1")
    assert tools.scaled(3, 1000) == 1000
    monkeypatch.delenv("MESH_FULL")
    assert tools.scaled(3, 1000) == 3

"""Whether the lock files still say what pyproject.toml asks for: `python -m tests.lockfile`, offline.

`make lock` resolves anew, which takes an index. This check reads both sides instead: every requirement must
be pinned within its bounds, every pin that the project asked for must still be asked for, and nothing may
lack a hash or name the address of an index.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import msgspec
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.tools import ROOT

__all__ = ["LOCKS", "Pin", "locked", "problems", "project_requirements"]

LOCKS: dict[str, frozenset[str] | None] = {
    "requirements/dev.lock": None,
    "requirements/runtime.lock": frozenset({"speed", "otel"}),
}
"""Each lock file with the extras it covers; None stands for all of them and the build backend."""

_PROJECT = "nats-mesh (pyproject.toml)"
_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


class Pin(msgspec.Struct, frozen=True):
    """One pinned package: how many hashes stand with it, and whether the project itself asks for it."""

    name: str
    version: Version
    hashes: int
    direct: bool


def locked(text: str) -> list[Pin]:
    """The pins of a lock file as `uv pip compile --generate-hashes` writes it; ValueError elsewhere."""
    blocks: list[list[str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("#") or not line.strip():
            continue
        if not line.startswith(" "):
            blocks.append([line])
        elif blocks:
            blocks[-1].append(line)
        else:
            raise ValueError(f"line {number}: {line.strip()!r} stands before the first pin")
    return [_pin(block) for block in blocks]


def _pin(block: list[str]) -> Pin:
    match = _PIN.match(block[0])
    if match is None:
        raise ValueError(f"{block[0]!r} is no `name==version`")
    return Pin(
        name=canonicalize_name(match["name"]),
        version=Version(match["version"]),
        hashes=sum(len(_HASH.findall(line)) for line in block),
        direct=any(_PROJECT in line for line in block),
    )


def project_requirements(pyproject: Path, extras: frozenset[str] | None) -> list[Requirement]:
    """What the project asks for with these extras; with None all extras and the build backend."""
    tables = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    wanted: list[str] = list(tables["project"]["dependencies"])
    optional: dict[str, list[str]] = tables["project"]["optional-dependencies"]
    for extra, requirements in optional.items():
        if extras is None or extra in extras:
            wanted += requirements
    if extras is None:
        wanted += tables["build-system"]["requires"]
    return [Requirement(text) for text in wanted]


def problems(text: str, requirements: Iterable[Requirement]) -> list[str]:
    """Everything in which a lock file's text disagrees with the requirements; empty when it is in sync."""
    pins = locked(text)
    wanted: dict[str, SpecifierSet] = {}
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        wanted[name] = wanted.get(name, SpecifierSet()) & requirement.specifier
    direct = {pin.name for pin in pins if pin.direct}
    found = [f"{name} is asked for and not locked" for name in sorted(wanted.keys() - direct)]
    found += [f"{name} is locked and no longer asked for" for name in sorted(direct - wanted.keys())]
    found += [
        f"{pin.name} is locked at {pin.version}, {wanted[pin.name]} is asked for"
        for pin in pins
        if pin.name in wanted and not wanted[pin.name].contains(pin.version, prereleases=True)
    ]
    found += [f"{pin.name} has no hash" for pin in pins if not pin.hashes]
    found += [f"an address: {line.strip()}" for line in text.splitlines() if "://" in line]
    return found


def main() -> int:
    """Print what is out of sync, with the remedy; the exit code says whether anything is."""
    found = [
        f"{name}: {problem}"
        for name, extras in LOCKS.items()
        for problem in problems(
            (ROOT / name).read_text(encoding="utf-8"), project_requirements(ROOT / "pyproject.toml", extras)
        )
    ]
    sys.stderr.writelines(f"{line}\n" for line in found)
    if found:
        sys.stderr.write("The lock files are out of date: run `make lock`.\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

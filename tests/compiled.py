"""The compiled tree, ``build/compiled``: ``python -m tests.compiled`` builds it where it is not of these sources.

A whole copy of the package with the extensions beside their sources, never in place: an edit in the checkout can
meet no extension of an older text. Whoever runs with :func:`compiled_environ` imports the copy.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hatch_build import CompileError, compile_into, copy_package, no_compiler
from tests.tools import ROOT

__all__ = [
    "PURE_ONLY",
    "TREE",
    "UNDER_TEST",
    "build",
    "compiled_environ",
    "not_built",
    "problem_of_this_run",
]

TREE = ROOT / "build" / "compiled"
UNDER_TEST = "TEST_COMPILED"
"""Set to 1 by ``make test-compiled``: this run is refused where it would test the pure modules."""

_STAMP = ".sources"
_SHOW = "import nats_mesh.calling.client as module; print(module.__file__)"

_REPLACES = (
    "it puts a function in the place of a method of one object, and compiled objects have none to replace"
)
PURE_ONLY: dict[str, str] = {
    "test_calls.py::test_request_equal_to_and_over_the_servers_limit": _REPLACES,
    "test_calls.py::test_reply_equal_to_and_over_the_servers_limit": _REPLACES,
    "test_calls.py::test_a_handler_that_outlives_its_deadline_is_stopped": _REPLACES,
    "test_lifecycle.py::test_a_client_whose_closing_is_cut_short_closes_its_connection": _REPLACES,
    "test_discovery.py::test_an_instance_leaves_in_order": _REPLACES,
}
"""Ends of the ids of tests (or the start, with a trailing ``::``: a whole file) that cannot hold for compiled modules,
each with the reason. ``make test-compiled`` skips them."""


def compiled_environ(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment in which a Python imports the compiled tree, and the rest from the checkout.

    The safe path keeps ``python -m`` from putting its working directory, a checkout perhaps, before it.
    """
    return {**environ, "PYTHONPATH": f"{TREE}{os.pathsep}{ROOT}", "PYTHONSAFEPATH": "1"}


def _sources(package: Path) -> str:
    """What the extensions are made from: sources, list and options, mypy, Python and platform."""
    found = hashlib.sha256()
    found.update(f"{importlib.metadata.version('mypy')} {sys.version} {sysconfig.get_platform()}".encode())
    for path in (*sorted(package.rglob("*.py")), ROOT / "hatch_build.py"):
        text = path.read_bytes()
        name = path.name if path.parent == ROOT else path.relative_to(package).as_posix()
        found.update(f"\0{name} {len(text)}\0".encode() + text)
    return found.hexdigest()


def not_built() -> str:
    """Why there is no compiled tree of these very sources; empty where there is."""
    try:
        stamp = (TREE / _STAMP).read_text(encoding="ascii")
    except FileNotFoundError:
        return "not built: `make compiled` builds it"
    return "" if stamp == _sources(ROOT / "nats_mesh") else "not built of these sources: `make compiled` does"


def build() -> bool:
    """Build the tree where it is missing or of other sources; whether it had to be.

    One process builds, others wait for it. :class:`CompileError` where it fails.
    """
    if reason := no_compiler():
        raise CompileError(reason)
    TREE.parent.mkdir(exist_ok=True)
    with (TREE.parent / "compiled.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not not_built():
            return False
        with tempfile.TemporaryDirectory(dir=TREE.parent, prefix="compiling-") as work:
            source, made = Path(work, "source"), Path(work, "compiled")
            copy_package(
                ROOT, source
            )  # what is hashed and compiled is the copy: an edit meanwhile has no part in it
            stamp = _sources(source / "nats_mesh")
            copy_package(source, made)
            compile_into(made, source)
            (made / _STAMP).write_text(stamp, encoding="ascii")
            if TREE.exists():
                TREE.rename(Path(work, "old"))
            made.rename(TREE)
        return True


def problem_of_this_run(environ: Mapping[str, str] = os.environ) -> str:
    """Why a run would not test the compiled modules, here or in the processes it starts; empty where it does."""
    import nats_mesh.calling.client

    if not str(nats_mesh.calling.client.__file__).startswith(f"{TREE}{os.sep}"):
        return f"this process imports {nats_mesh.calling.client.__file__}: run `make test-compiled`"
    if str(nats_mesh.calling.client.__file__).endswith(".py"):
        return "the compiled tree has no extension for this Python: run `make compiled`"
    child = subprocess.run(
        [sys.executable, "-c", _SHOW],
        cwd=ROOT,
        env=dict(environ),
        capture_output=True,
        text=True,
        check=False,
    )
    if child.stdout.strip() != nats_mesh.calling.client.__file__:
        return f"child processes import {child.stdout.strip() or child.stderr.strip()}"
    return not_built()


def main() -> int:
    """Build and say so; with ``--if-possible`` it is no failure that there is no C compiler."""
    if (reason := no_compiler()) and "--if-possible" in sys.argv[1:]:
        sys.stderr.write(f"going on without the compiled modules: {reason}\n")
        return 0
    shown = TREE.relative_to(ROOT)
    try:
        if not_built() and not reason:
            sys.stderr.write("compiling the modules of the hot path: half a minute, once for these sources\n")
        built = build()
    except CompileError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stderr.write(f"{shown}: built\n" if built else f"{shown}: up to date\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

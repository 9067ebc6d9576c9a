"""Build hook of the wheel: puts the Bookinfo example inside, and compiles the hot path where that is asked for.

The example is where `nats-mesh demo` finds it without a checkout. A hook and not `force-include` in pyproject.toml,
because hatchling would copy force-included files into editable installs as well, where they would grow stale: there
the example runs from the checkout itself.

Where there is a C compiler, `pip install .` and `pip wheel .` make a wheel for this platform and this Python, whose
`COMPILED` modules have a native extension beside their source; Python imports the extension first. Elsewhere, or where
compiling fails, the wheel is pure. `NATS_MESH_COMPILE=0` makes a pure one in any case, `1` a compiled one or none.
`tests/compiled.py` uses the same functions for the compiled tree of a checkout.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "examples/bookinfo"
TARGET = "nats_mesh_cli/_bookinfo"

COMPILED = (
    "calling/client",
    "calling/effects",
    "calling/exchange",
    "calling/heads",
    "calling/reading",
    "calling/replies",
    "calling/sending",
    "calling/watching",
    "core/age",
    "core/breaker",
    "core/budget",
    "core/deadline",
    "core/histogram",
    "core/window",
    "layers/base",
    "layers/breaker",
    "layers/concurrency",
    "layers/deadline",
    "layers/retry",
    "serving/arriving",
    "serving/dispatch",
    "serving/handling",
    "serving/refusing",
    "serving/replier",
    "serving/waiting",
    "serving/watching",
    "telemetry/counts",
    "telemetry/group",
    "telemetry/groups",
    "telemetry/intake",
    "telemetry/known",
    "telemetry/lines",
    "telemetry/notes",
    "telemetry/pace",
    "telemetry/series",
    "telemetry/tallies",
    "telemetry/telling_series",
    "telemetry/watchers",
    "wire/codecs",
    "wire/connection",
    "wire/counters",
    "wire/eager",
    "wire/headers",
    "wire/mux",
    "wire/nats_transport",
    "wire/outbox",
    "wire/parser",
    "wire/public_transport",
)
"""The modules of nats_mesh that are compiled: what every call passes through, and what tells of calls and takes that in
once a second. The one list there is."""

ASKED_FOR_BY = "NATS_MESH_COMPILE"
#: The C is generated and built by these; a pure wheel needs neither.
_TOOLS = ["mypy>=1.14", "setuptools>=77"]
#: All compiled modules share one library, of this name inside the package.
_GROUP = "nats_mesh.compiled"


class CompileError(Exception):
    """The modules could not be compiled; the text says why and what to do."""


def no_compiler() -> str:
    """Why nothing can be compiled here, with the remedy; empty where it can."""
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} is no CPython, and mypyc compiles for no other"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        return f"no C compiler: {compiler} is not on PATH; install one (Debian: gcc), or name one: CC=..."
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        return f"no C headers of this Python: {header} is missing; install them (Debian: python3-dev)"
    return ""


def compile_into(out: Path, source: Path) -> list[Path]:
    """Compile `source`/nats_mesh; the extensions, as paths below `out`. `CompileError` where it fails.

    `source` is a folder of its own with a copy of the package: caches and generated C are left in it.
    """
    if reason := no_compiler():
        raise CompileError(reason)
    out.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-P", str(Path(__file__).resolve()), str(out.resolve())],
        cwd=source,
        env={name: value for name, value in os.environ.items() if name != "MYPYPATH"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    made = sorted(path.relative_to(out) for path in out.rglob("*") if path.suffix in (".so", ".pyd"))
    if done.returncode or len(made) != len(COMPILED) + 1:
        raise CompileError(f"the compiled modules could not be built:\n{done.stdout[-20000:]}")
    return made


def copy_package(root: Path, to: Path) -> None:
    """Copy `root`/nats_mesh below `to`, without what Python or an editor left there."""
    unwanted = shutil.ignore_patterns("__pycache__", "*.py[cod]", "*.so", ".*")
    shutil.copytree(root / "nats_mesh", to / "nats_mesh", ignore=unwanted)


class NatsMeshHook(BuildHookInterface):  # type: ignore[type-arg]  # generic only in hatchling's stubs, not at run time
    """Adds to standard wheels the example's folder as a subpackage of the command line, and what is compiled."""

    _work: tempfile.TemporaryDirectory[str] | None = None

    def dependencies(self) -> list[str]:
        """The compiler, and the libraries whose types it reads: without them it would know less and build else."""
        wanted = _asked_for()
        if wanted is False or (wanted is None and no_compiler()):
            return []
        return [*_TOOLS, *self.metadata.core.dependencies]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the mappings; FileNotFoundError without the example, so that no wheel lacks its demo."""
        if version != "standard":
            return
        if not Path(self.root, SOURCE, "__init__.py").is_file():
            raise FileNotFoundError(f"{SOURCE}/__init__.py is missing: build from a whole checkout or sdist")
        build_data["force_include"][SOURCE] = TARGET
        wanted = _asked_for()
        if wanted is False or (wanted is None and no_compiler()):
            return
        self._work = tempfile.TemporaryDirectory(prefix="nats-mesh-compile-")
        source, out = Path(self._work.name, "source"), Path(self._work.name, "out")
        copy_package(Path(self.root), source)
        try:
            extensions = compile_into(out, source)
        except CompileError as error:
            if wanted:
                raise
            self.app.display_warning(f"the hot path stays as it is, which is slower: {error}")
            return
        for extension in extensions:
            build_data["force_include"][str(out / extension)] = extension.as_posix()
        build_data["infer_tag"] = True
        build_data["pure_python"] = False

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what compiling left."""
        if self._work is not None:
            self._work.cleanup()


def _asked_for() -> bool | None:
    """Whether to compile; `None`: where that is possible."""
    value = os.environ.get(ASKED_FOR_BY, "").lower()
    if value not in ("", "0", "false", "no", "1", "true", "yes"):
        raise ValueError(f"{ASKED_FOR_BY}={value}: say 1 for a wheel with compiled modules, 0 for a pure one")
    return value in ("1", "true", "yes") if value else None


def _compile_here(out: str) -> None:
    """Compile what lies in the working directory; ends the process with mypy's messages where it is refused."""
    # Imported here: hatchling loads this file before it knows what else it has to install. setuptools must come first.
    from setuptools import Distribution  # type: ignore[import-untyped,unused-ignore] # noqa: I001
    from mypyc.build import mypycify

    paths = [f"nats_mesh/{module}.py" for module in COMPILED]
    # Options of our own and no file's: a wheel must not depend on where it is built.
    options = [
        "--config-file=",
        "--strict",
        "--explicit-package-bases",
        # Extras that are not installed, or have no types, are no reason to build nothing.
        "--disable-error-code=import-not-found",
        "--disable-error-code=import-untyped",
    ]
    extensions = mypycify([*options, *paths], group_name=_GROUP, target_dir="generated", debug_level="0")
    build: Any = Distribution({"name": "nats-mesh", "ext_modules": extensions}).get_command_obj("build_ext")
    build.build_lib, build.build_temp = out, "objects"
    build.ensure_finalized()
    build.run()


if __name__ == "__main__":
    _compile_here(sys.argv[1])

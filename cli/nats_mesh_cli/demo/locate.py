"""Where the Bookinfo example is: inside an installed wheel, or beside this package in a checkout."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import msgspec

from nats_mesh.errors import ConfigError

__all__ = ["DEFAULT", "EXPECTED", "Bookinfo", "locate"]

#: The processes of the demo, ``module:version``, callees first; the same list as the example's own.
DEFAULT = ("ratings:v1", "details:v1", "reviews:v1", "reviews:v2", "reviews:v3", "productpage:v1")
#: Service → versions that run, in the order of the view: callers first.
EXPECTED: dict[str, tuple[str, ...]] = {
    "productpage": ("1.0.0",),
    "details": ("1.0.0",),
    "reviews": ("1.0.0", "2.0.0", "3.0.0"),
    "ratings": ("1.0.0",),
}

_SHIPPED = "nats_mesh_cli._bookinfo"
_IN_CHECKOUT = "examples.bookinfo"
_CHECKOUT = Path(__file__).resolve().parents[3]


class Bookinfo(msgspec.Struct, frozen=True):
    """The package to run; ``root`` is the folder to find it from, where it is not installed."""

    module: str
    root: Path | None = None

    def command(self, name: str) -> list[str]:
        """What serves one ``module:version``. ``-P``: nothing in the current folder can take its place."""
        return [sys.executable, "-P", "-m", self.module, name]

    def python_path(self, inherited: str = "") -> str:
        """The value of ``PYTHONPATH`` under which the package is found."""
        return os.pathsep.join(part for part in (str(self.root or ""), inherited) if part)


def locate(checkout: Path = _CHECKOUT) -> Bookinfo:
    """The example; :class:`ConfigError` where this installation has none."""
    if importlib.util.find_spec(_SHIPPED) is not None:
        return Bookinfo(_SHIPPED)
    if (checkout / "examples" / "bookinfo" / "__init__.py").is_file():
        return Bookinfo(_IN_CHECKOUT, checkout)
    raise ConfigError(
        f"the Bookinfo example is neither installed ({_SHIPPED}) nor in {checkout}: install nats-mesh from a "
        "wheel, or run from a whole checkout"
    )

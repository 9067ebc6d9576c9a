"""Build hook: puts the Bookinfo example inside the wheel, where `nats-mesh demo` finds it without a checkout.

A hook and not `force-include` in pyproject.toml, because hatchling would copy force-included files into
editable installs as well, where they would grow stale: there the example runs from the checkout itself.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "examples/bookinfo"
TARGET = "nats_mesh_cli/_bookinfo"


class BookinfoHook(BuildHookInterface):  # type: ignore[type-arg]  # generic only in hatchling's stubs, not at run time
    """Maps the example's folder to a subpackage of the command line, in standard wheels only."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the mapping; FileNotFoundError without the example, so that no wheel lacks its demo."""
        if version != "standard":
            return
        if not Path(self.root, SOURCE, "__init__.py").is_file():
            raise FileNotFoundError(f"{SOURCE}/__init__.py is missing: build from a whole checkout or sdist")
        build_data["force_include"][SOURCE] = TARGET

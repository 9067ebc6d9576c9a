"""Which variant of this package runs: the pure one, or the one whose hot path is compiled."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["COMPILED"]


def _is_compiled() -> bool:
    found = find_spec("nats_mesh.calling.client")
    return found is not None and not str(found.origin).endswith((".py", ".pyc"))


COMPILED: bool = _is_compiled()
"""Whether the modules that every call passes through are native extensions."""

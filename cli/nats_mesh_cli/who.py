"""Who changes something: what the history shows."""

from __future__ import annotations

import getpass
import socket

__all__ = ["operator_name"]


def operator_name(name: str | None) -> str:
    """The operator that was named, else the user of this machine."""
    if name is not None:
        return name
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"

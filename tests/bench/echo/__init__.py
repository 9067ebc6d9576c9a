"""One module for each way to echo: ``serve(address, variant)`` answers, ``connect(address, variant)`` calls.

What runs in another virtual environment than the mesh's (FastStream, gRPC, HTTP) imports nothing but the
standard library when it is loaded, and its own libraries by name when it is opened.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

__all__ = ["TIMEOUT_S", "Call", "Echo", "Prepare"]

#: What every peer allows a call, seconds: far more than any takes, so that no cell measures a timeout.
TIMEOUT_S = 30

Call = Callable[[], Awaitable[Any]]


class Echo(NamedTuple):
    """``call()`` makes one call, ``data_of`` takes from its answer what must equal ``sent``."""

    call: Call
    data_of: Callable[[Any], Any]
    sent: Any


#: From the bytes of a request's body to the call that sends them.
Prepare = Callable[[int], Echo]

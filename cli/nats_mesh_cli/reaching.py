"""Reach the bus, or say soon that nobody is there.

The library tries until its time is over, because the order in which programs start must not matter. Somebody at a
terminal who has mistyped an address should not wait for that: where every address of every server refuses twice, it is
given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from typing import Final
from urllib.parse import urlsplit

from nats_mesh.errors import DisconnectedError, Executed
from nats_mesh.wire.dialling import where
from nats_mesh.wire.nats_transport import connect
from nats_mesh.wire.transport import ConnectOptions, Connector, Transport

__all__ = ["connector_of", "reach"]

#: How long a connection is left alone at first, between two looks, and how long a look may take (seconds).
_HEAD_START_S: Final = 0.1
_AGAIN_S: Final = 0.15
_LOOK_S: Final = 0.3
_LOOKS: Final = 2
_PORTS: Final = {"nats": 4222, "tls": 4222, "ws": 80, "wss": 443}
#: What says at once that nobody listens there.
_NOBODY: Final = frozenset(
    (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
)


def connector_of(timeout_s: float | None) -> Connector:
    """How to connect under ``--timeout``: whoever gives one has asked to wait."""
    return reach if timeout_s is None else connect


async def reach(options: ConnectOptions) -> Transport:
    """A :data:`~nats_mesh.wire.transport.Connector`: as the library's own, but :class:`DisconnectedError` at once where
    every server refuses."""
    dialling = asyncio.ensure_future(connect(options))
    try:
        done, _ = await asyncio.wait({dialling}, timeout=_HEAD_START_S)
        reason = "" if done else await _refusal(options, dialling)
        if reason and not dialling.done():
            raise DisconnectedError(
                f"cannot reach {where(options)}: {reason}; is a nats-server running there? 'nats-mesh up' starts one",
                executed=Executed.NO,
            )
        return await dialling
    finally:
        if not dialling.done():
            dialling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await dialling


async def _refusal(options: ConnectOptions, dialling: asyncio.Future[Transport]) -> str:
    """Why nobody is there; empty where somebody is, where that cannot be told, or where ``dialling`` has ended."""
    reason = ""
    for look in range(_LOOKS):
        if look:
            await asyncio.wait({dialling}, timeout=_AGAIN_S)
        if dialling.done():
            return ""
        reasons = await asyncio.gather(*(_look(server) for server in options.servers))
        if not all(reasons):
            return ""
        reason = "; ".join(dict.fromkeys(reasons))
    return reason


async def _look(server: str) -> str:
    """Why nobody listens at this address; empty where somebody does, or may."""
    url = urlsplit(server if "://" in server else f"nats://{server}")
    try:
        port = url.port or _PORTS.get(url.scheme)
    except ValueError:
        return ""
    if port is None or not url.hostname:
        return ""
    loop = asyncio.get_running_loop()
    reason = ""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LOOK_S):
            try:
                found = await loop.getaddrinfo(url.hostname, port, type=socket.SOCK_STREAM)
            except socket.gaierror as error:
                # The resolver itself may be away for a moment: that is no word about the name.
                return "" if error.errno == socket.EAI_AGAIN else f"{url.hostname}: {error.strerror}"
            for address in found:
                try:
                    _, writer = await asyncio.open_connection(str(address[4][0]), port)
                except OSError as error:
                    if error.errno is None or error.errno not in _NOBODY:
                        return ""
                    reason = os.strerror(error.errno).lower()  # its own text names the address once more
                else:
                    writer.close()
                    return ""
            return reason
    return ""

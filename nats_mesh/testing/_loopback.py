"""Sockets of this machine: a port that stays ours, and a small HTTP GET for the monitoring pages."""

from __future__ import annotations

import errno
import socket
import sys
import time
from collections.abc import Generator

from nats_mesh.errors import ConfigError

__all__ = ["PortReservation", "authority", "http_get_steps"]

_HTTP_TIMEOUT_S = 2.0
_HTTP_BODY_LIMIT_BYTES = 4 * 1024 * 1024

# What a socket says while it still connects (EAGAIN, ENOTCONN) or has nothing to read (EAGAIN).
_NOT_YET = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOTCONN})

# Whether this system lets a second socket listen on a port that a first one only bound.
_CAN_HOLD = sys.platform == "linux"


class PortReservation:
    """A TCP port that nobody else on this machine is given by chance while the reservation lives.

    On Linux a socket that is bound with ``SO_REUSEADDR`` and never listens keeps the kernel from
    handing the port out, to servers as well as to outgoing connections (so a client that reconnects
    in a loop cannot connect to itself), and yet lets another process that sets the same option
    listen on it: nats-server and asyncio both do. So a port survives a kill and a restart.
    Elsewhere the port is only known to have been free a moment ago: ``held`` is False then, and
    who uses it must be ready to try another one.
    """

    __slots__ = ("_socket", "host", "port")

    def __init__(self, host: str, port: int = 0) -> None:
        """``port`` 0 takes any free port; a taken or impossible one is a ``ConfigError``."""
        self.host = host
        self._socket: socket.socket | None = None
        try:
            sock = _bound_socket(host, port)
        except (OSError, OverflowError) as error:
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            reason = "it is in use by another process" if taken else str(error)
            raise ConfigError(
                f"cannot use port {port} on {host}: {reason}; choose another port, or none for a free one"
            ) from error
        self.port: int = sock.getsockname()[1]
        if _CAN_HOLD:
            self._socket = sock
        else:
            sock.close()

    @property
    def held(self) -> bool:
        """Whether the port is kept, not merely likely to be free."""
        return self._socket is not None

    def listen(self, backlog: int = 128) -> socket.socket:
        """A non-blocking listening socket on the reserved port; ``OSError`` if another process took it."""
        sock = _bound_socket(self.host, self.port)
        try:
            sock.listen(backlog)
            sock.setblocking(False)
        except OSError:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        """Give the port up; harmless when done twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _bound_socket(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def authority(host: str, port: int) -> str:
    """``host:port`` as it stands in a URL that a client on this machine can use."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{reachable}]:{port}" if ":" in reachable else f"{reachable}:{port}"


def http_get_steps(host: str, port: int, path: str) -> Generator[None, None, tuple[int, bytes] | None]:
    """GET one page; yields while it waits and returns ``(status, body)``.

    ``None`` stands for "no answer": refused, reset, cut short, silent for two seconds or too
    long. A caller that polls a server which is just starting or dying asks again.
    """
    deadline = time.monotonic() + _HTTP_TIMEOUT_S
    target = authority(host, port)
    address = target.rsplit(":", 1)[0].strip("[]")
    unsent = f"GET {path} HTTP/1.0\r\nHost: {target}\r\n\r\n".encode()
    received = bytearray()
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        sock.setblocking(False)
        sock.connect_ex((address, port))
        while len(received) <= _HTTP_BODY_LIMIT_BYTES and time.monotonic() < deadline:
            try:
                if unsent:
                    unsent = unsent[sock.send(unsent) :]
                elif chunk := sock.recv(65536):
                    received += chunk
                else:
                    return _parse_response(bytes(received))
            except OSError as error:
                if error.errno not in _NOT_YET:
                    return None
                yield
    return None


def _parse_response(raw: bytes) -> tuple[int, bytes] | None:
    head, separator, body = raw.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if not separator or not status or not status[0].isdigit():
        return None
    return int(status[0]), body

"""Who may ask the web view for something, and what a browser may do with the answer.

The view has no log-in: whoever reaches its port on this machine sees what the operator sees. What must not reach it
is a page of somebody else that the operator's browser has open. Three things hold those off: nothing but GET and
HEAD exists; the `Host` header is an address or a name that was allowed, so that a name of theirs which suddenly
means 127.0.0.1 is refused (DNS rebinding); and a request that says where it comes from comes from here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "host_of", "refusal"]

_METHODS: Final = ("GET", "HEAD")
_SAME: Final = ("same-origin", "none")
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
#: What everything but the page itself gets: it is data, and does nothing.
_NOTHING: Final = "default-src 'none'; frame-ancestors 'none'"


def host_of(value: str) -> str:
    """The host of a `Host` header, in lower case and without port and brackets; empty where it is none."""
    if any(sign in value for sign in "/@?#\\ ,"):
        return ""
    try:
        return (urlsplit(f"//{value}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def refusal(method: str, path: str, headers: Headers, names: frozenset[str]) -> tuple[int, str] | None:
    """Status and reason where a request is refused; ``names`` are the allowed hosts besides addresses.

    An address cannot be rebound: a page that was loaded from one is that machine's own.
    """
    if method not in _METHODS:
        return 405, "this view changes nothing: GET and HEAD only"
    hosts = headers.getlist("host")
    host = host_of(hosts[0]) if len(hosts) == 1 else ""
    if not host or not (_is_address(host) or host in names):
        return 421, "this name is not served here: use the address, or start with --allow-host NAME"
    for origin in headers.getlist("origin"):
        scheme, _, netloc = origin.lower().partition("://")
        if scheme not in ("http", "https") or netloc != hosts[0].lower():
            return 403, "requests of other sites' pages are refused"
    site = headers.get("sec-fetch-site")
    if path != "/" and site is not None and site not in _SAME:
        return 403, "requests of other sites' pages are refused"
    return None


class Guard:
    """ASGI middleware: refuses as :func:`refusal` says, and adds to every answer what browsers are to keep to."""

    def __init__(self, app: ASGIApp, names: Iterable[str], policy: str) -> None:
        self._app = app
        self._names = frozenset(name.lower().rstrip(".") for name in names)
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        if scope["type"] != "http":
            return  # there is no other kind: no WebSocket, no lifespan
        path: str = scope["path"]

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers["Content-Security-Policy"] = self._policy if path == "/" else _NOTHING
            await send(message)

        refused = refusal(scope["method"], path, Headers(scope=scope), self._names)
        if refused is None:
            await self._app(scope, receive, guarded)
            return
        status, reason = refused
        await PlainTextResponse(f"{reason}\n", status)(scope, receive, guarded)

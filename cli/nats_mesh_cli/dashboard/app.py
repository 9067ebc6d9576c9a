"""What is served: the page, the stream of what it shows, and one service in full. Nothing that changes anything."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from functools import cache
from importlib import resources
from typing import Final

import anyio
import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from nats_mesh_cli.dashboard.guard import Guard
from nats_mesh_cli.dashboard.hub import FullError, Hub
from nats_mesh_cli.output import Record

__all__ = ["Stream", "application", "page"]

#: A browser that takes nothing for so long is dropped (seconds).
_SEND_S: Final = 10.0
#: No proxy is to wait until it has more of it.
_STREAM: Final = {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}
_SCRIPTS: Final = ("format.js", "dom.js", "model.js", "graph.js", "tables.js", "service.js", "main.js")


@cache
def page() -> tuple[str, str]:
    """The page with its style and its program inside, and the Content-Security-Policy that lets just these two run.

    No name, no text of a service and no address but this one can get a browser to fetch or run anything: what is not
    listed is forbidden, and ``trusted-types`` forbids markup made out of texts altogether.
    """
    folder = resources.files("nats_mesh_cli.dashboard") / "page"
    style = (folder / "style.css").read_text(encoding="utf-8")
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    text = (folder / "index.html").read_text(encoding="utf-8")
    text = text.replace("/*style*/", style).replace("/*script*/", script)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hash(style)}",
            f"script-src {_hash(script)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    return text, policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class Stream:
    """One browser's stream of server-sent events."""

    def __init__(self, hub: Hub, *, send_s: float = _SEND_S) -> None:
        self._hub = hub
        self._send_s = send_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the browser has gone, is too slow, or the program ends."""
        if scope["method"] == "HEAD":
            await Response(headers=_STREAM)(scope, receive, send)
            return
        request = Request(scope)
        try:
            with self._hub.seat():
                await self._run(request.headers.get("last-event-id", ""), receive, send)
        except FullError as full:
            refusal = PlainTextResponse(f"{full}\n", 503, {"Retry-After": "10"})
            await refusal(scope, receive, send)

    async def _run(self, last: str, receive: Receive, send: Send) -> None:
        headers = [(name.encode(), value.encode()) for name, value in _STREAM.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with anyio.create_task_group() as tasks:

            async def leave() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass  # browsers say nothing there until they leave
                tasks.cancel_scope.cancel()

            tasks.start_soon(leave)
            with anyio.CancelScope() as writing:
                async for message in self._hub.follow(last):
                    # Returns when the socket has taken what was written before: what waits here is one message.
                    writing.deadline = anyio.current_time() + self._send_s
                    await send({"type": "http.response.body", "body": message, "more_body": True})
                    writing.deadline = float("inf")
                writing.deadline = anyio.current_time() + self._send_s
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            tasks.cancel_scope.cancel()


def application(hub: Hub, service: Callable[[str], Record | None], *, names: Iterable[str]) -> Starlette:
    """The whole application. ``service`` tells of one service, ``names`` are the hosts that it may be called by."""
    text, policy = page()

    async def index(request: Request) -> Response:
        return HTMLResponse(text)

    async def one(request: Request) -> Response:
        found = service(request.path_params["name"])
        if found is None:
            return PlainTextResponse("nobody here knows this service\n", 404)
        return Response(msgspec.json.encode(found), media_type="application/json")

    stream = Stream(hub)
    return Starlette(
        routes=[
            Route("/", index),
            Route("/api/stream", stream),
            Route("/api/services/{name:path}", one),
        ],
        middleware=[Middleware(Guard, names=tuple(names), policy=policy)],
    )

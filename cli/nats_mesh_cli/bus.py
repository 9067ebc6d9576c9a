"""The bus for one command: connect as somebody, run to the end, ask everybody a question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import msgspec

from nats_mesh import CallError, Mesh
from nats_mesh.runner import loop_factory
from nats_mesh.wire.headers import server_status
from nats_mesh_cli import starting
from nats_mesh_cli.options import Options
from nats_mesh_cli.reaching import connector_of

__all__ = ["CALLER", "CONNECT_S", "QUESTION_S", "Replies", "ask", "connected", "run_async"]

T = TypeVar("T")

#: Who the command line is where nothing else is said.
CALLER = "nats-mesh"
#: How long to try to reach a server, and to wait for answers to a question (seconds).
CONNECT_S = 2.0
QUESTION_S = 2.0
_MAX_REPLIES = 20_000
#: Nobody answers any more once nothing came for this long, or three times what the first answer took (seconds).
_QUIET_S = 0.15
_NO_RESPONDERS = 503


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; Ctrl-C cancels it and comes out as :class:`KeyboardInterrupt`."""
    starting.over()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(work)


@asynccontextmanager
async def connected(options: Options, name: str = CALLER, *, calls: bool = False) -> AsyncIterator[Mesh]:
    """A mesh connection under the global options, as ``name``. Plug-ins are for services and callers: none runs.

    Where every server refuses that is said at once, unless ``--timeout`` asks for patience. Policies are followed
    where ``calls`` are made; whoever only looks needs none, and must not fail of one.
    """
    timeout_s = min(CONNECT_S, options.timeout_s or CONNECT_S)
    settings = msgspec.structs.replace(options.settings(), plugins=False, metrics=None)
    if not calls:
        settings = msgspec.structs.replace(settings, policies=None, follow=False)
    connector = connector_of(options.timeout_s)
    async with Mesh(name, settings=settings, connect_timeout=timeout_s, connector=connector) as mesh:
        yield mesh


class Replies:
    """Every reply to one question, up to a bound; ``overflow`` counts what was beyond it."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.payloads: list[bytes] = []
        self.overflow = 0
        self.error: CallError | None = None
        self.over = anyio.Event()
        self.first = anyio.Event()

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        if headers and server_status(headers) == _NO_RESPONDERS:
            self.over.set()
        elif len(self.payloads) < _MAX_REPLIES:
            self.payloads.append(payload)
        else:
            self.overflow += 1
        self.first.set()

    def on_failure(self, error: CallError) -> None:
        self.error = error
        self.over.set()
        self.first.set()


async def ask(
    mesh: Mesh, subject: str, *, timeout_s: float = QUESTION_S, destination: str = "$SRV"
) -> Replies:
    """Ask on ``subject`` and collect the answers until it is quiet or ``timeout_s`` is over.

    ``destination`` names those who may answer: each has an inbox of its own.

    Nobody there is no error; a question that the server refuses, or a connection that is lost, is one.
    """
    client = mesh.client
    replies = Replies(subject)
    inbox = client.mux.open(destination, replies)
    start = anyio.current_time()
    try:
        client.transport.publish(subject, b"", inbox)
        with anyio.move_on_after(timeout_s):
            await replies.first.wait()
            quiet_s = max(_QUIET_S, 3.0 * (anyio.current_time() - start))
            seen = -1
            while not replies.over.is_set() and seen != len(replies.payloads) + replies.overflow:
                seen = len(replies.payloads) + replies.overflow
                await anyio.sleep(quiet_s)
    finally:
        client.mux.close(inbox)
    if replies.error is not None:
        raise replies.error
    return replies

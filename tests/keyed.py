"""Calls with an idempotency key to one instance that the test chooses, for tests of duplicates."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import anyio
import msgspec

from nats_mesh.calling.client import Client
from nats_mesh.errors import NoInstancesError
from nats_mesh.serving.instance import Instance
from nats_mesh.wire import headers as h
from nats_mesh.wire.outcome import decode_error, is_error

__all__ = ["Answer", "ask"]


class Answer(msgspec.Struct):
    """A reply that is no error: its body, its header block, and the instance that it names."""

    body: bytes
    headers: bytes
    instance: str

    @property
    def value(self) -> Any:
        """The body, read as JSON."""
        return msgspec.json.decode(self.body)


async def ask(
    client: Client,
    instance: Instance | tuple[str, str],
    endpoint: str,
    value: Any = None,
    *,
    key: str | None = "k",
    timeout: float = 5.0,
    lines: str = "",
    raises: tuple[type[Exception], ...] = (),
) -> Answer:
    """Call ``endpoint`` at ``instance`` (or service and id); what it answers, or the error that its reply carries.

    ``lines`` are more header lines, each with its CR LF. The instance has ``timeout`` seconds; it must answer.
    """
    service, id_ = (instance.service.name, instance.id) if isinstance(instance, Instance) else instance
    subject = client.subjects.direct(service, id_, endpoint, client.name)
    inbox = client.mux.inbox(service)
    future = asyncio.get_running_loop().create_future()
    number = client.mux.expect(inbox, subject, future, math.inf)
    keyed = "" if key is None else f"Mesh-Idempotency-Key: {key}\r\n"
    block = f"NATS/1.0\r\nMesh-Timeout-Ms: {round(timeout * 1000)}\r\n{keyed}{lines}\r\n".encode()
    body = value if isinstance(value, bytes) else msgspec.json.encode(value)
    try:
        client.transport.publish(subject, body, f"{inbox}{number}", block)
        with anyio.fail_after(timeout + 10.0):
            headers, reply = await future
    finally:
        client.mux.forget(inbox, number)
    if h.server_status(headers) == 503:
        raise NoInstancesError(f"nobody serves {subject}")
    if is_error(headers):
        raise decode_error(headers, reply, service=service, endpoint=endpoint, attempts=1, raises=raises)
    return Answer(reply, headers, h.text_field(headers, h.INSTANCE))

"""Ask everybody: one request to each instance of a service, and what they answer within one deadline.

Each instance is asked on its own ``direct`` subject, under a reply inbox of its own, so it answers at most once. The
instances are those that the caller's fleet knows (``discovery/fleet.py``). Retries, breakers and balancing have no part
in it: who does not answer is named, not replaced.

Rejected: one request on a subject that all instances hear. Its answers would come in at one inbox, nobody would
know who is missing, and the subject would need a subscription more in every instance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio

from nats_mesh.calling.exchange import Target
from nats_mesh.calling.gathering import Gathered, Gathering, Want
from nats_mesh.context import Context
from nats_mesh.errors import (
    CallError,
    CodecError,
    ConfigError,
    DisconnectedError,
    Executed,
    NoInstancesError,
    PermissionDeniedError,
    Status,
)
from nats_mesh.layers.stack import compose
from nats_mesh.model import Reply, Request
from nats_mesh.wire.loop import CancelledError

if TYPE_CHECKING:
    from nats_mesh.calling.client import Client

__all__ = ["MAX_ASKED", "gather"]

#: How many instances one gather asks.
MAX_ASKED: Final = 1000
#: How long the first gather of a service waits for the answers to who is there (seconds); half of its time at most.
_FIRST_ANSWERS_S: Final = 0.25


async def gather(
    client: Client,
    target: Any,
    value: Any,
    *,
    returns: Any,
    want: Any,
    timeout: Any,
    headers: Any,
    codec: Any,
    parent: Context | None,
) -> Gathered[Any]:
    """See :meth:`nats_mesh.Mesh.gather`; ``parent`` is the call it is made from.

    The client's interceptors run once, around the whole of it: their reply's value is the :class:`Gathered`.
    """
    known, request, parent = client._prepare(
        target, value, returns, parent, timeout=timeout, headers=headers, codec=codec
    )
    if not known.mesh:
        raise ConfigError(
            f"gather from {known.label}: a plain subject has no instances; name 'service.endpoint'"
        )
    _check_want(known.label, want)

    async def end(request: Request) -> Reply[Any]:
        start = client._now()
        aim = known  # where there are interceptors, it is not routed before they are done with the headers
        if aim.routing is not None:
            aim = aim.routing.choose(request.headers)
        gathered = await _counted(client, aim, request, parent, want)
        return Reply(gathered, duration_s=client._now() - start)

    reply = await compose(client.interceptors, end)(request)
    if not isinstance(reply.value, Gathered):
        raise ConfigError(
            f"gather from {known.label}: an interceptor put {type(reply.value).__name__} in the place of the "
            "Gathered; let those replies pass as they are"
        )
    return reply.value


def _check_want(label: str, want: object) -> None:
    if want in ("all", "quorum") or (isinstance(want, int) and not isinstance(want, bool) and want >= 1):
        return
    raise ConfigError(
        f"gather from {label}: want must be 'all', 'quorum' or a number from 1 on, got {want!r:.80}"
    )


async def _counted(
    client: Client, known: Target, request: Request, parent: Context | None, want: Want
) -> Gathered[Any]:
    """One gather is one call of the caller's statistics: OK where it is complete, else as what is missing ended."""
    series = known.series
    start = client._now()
    series.in_flight += 1
    status = Status.UNKNOWN
    try:
        work = Gathering(client, known, request, await _instances(client, known, request.deadline), want)
        try:
            await work.ask(parent)
            with anyio.move_on_after(max(0.0, request.deadline - client._now())):
                await work.over.wait()
        finally:
            work.close()
        status = work.status()
        return work.result(client._now() - start)
    except CallError as error:
        status = error.status
        error.service, error.endpoint = known.service, known.endpoint
        raise
    except CancelledError:
        status = Status.CANCELLED
        raise
    except (CodecError, ConfigError):
        status = Status.INVALID_ARGUMENT
        raise
    finally:
        series.in_flight -= 1
        series.record(client._now() - start, status)


async def _instances(client: Client, known: Target, deadline: float) -> list[str]:
    """The ids of everybody who is to be asked; an error where there is nobody, or where there are too many."""
    service = known.service
    await client._sender.become_ready(deadline)
    fleet = client.fleets.visit(service)
    if fleet is None:
        raise CallError(
            "too many services are watched by this client for another one; gather from fewer services",
            status=Status.RESOURCE_EXHAUSTED,
            executed=Executed.NO,
        )
    if not fleet.ready:
        await fleet.wait(min(_FIRST_ANSWERS_S, 0.5 * (deadline - client._now())))
    found = [member.id for member in fleet.known()]
    if len(found) > MAX_ASKED:
        raise CallError(
            f"{len(found)} instances are there, a gather asks at most {MAX_ASKED}: split the service, or have its "
            "instances answer for each other",
            status=Status.RESOURCE_EXHAUSTED,
            executed=Executed.NO,
        )
    if found:
        return found
    if not client.transport.connected:
        raise DisconnectedError("not connected: nobody can be asked who is there", executed=Executed.NO)
    if fleet.problem:
        raise PermissionDeniedError(f"who serves {service!r} cannot be known: {fleet.problem}")
    raise NoInstancesError(f"nobody serves {service!r} in namespace {client.namespace!r}; is it running?")

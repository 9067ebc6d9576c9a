"""Where a call goes when nobody serves its mesh subject: to a service of the NATS Services API, on its own subject."""

from __future__ import annotations

from nats_mesh.calling.exchange import Target
from nats_mesh.discovery.directory import Directory
from nats_mesh.errors import Executed, NoInstancesError, RemoteError, Status
from nats_mesh.model import Request

__all__ = ["elsewhere"]


async def elsewhere(directory: Directory, namespace: str, known: Target, request: Request, now: float) -> str:
    """The subject; :class:`NoInstancesError` or :class:`RemoteError` where there is none, saying what there is."""
    if known.subset:
        raise NoInstancesError(
            f"no instance of {known.service!r} is in its subset {known.subset!r}",
            attempts=request.attempt,
        )
    found = await directory.find(known.service, timeout_s=min(1.0, max(0.001, request.deadline - now)))
    # Whose own instances answer is a service of the mesh, wherever it runs: nobody else is asked in their place.
    foreign = None if found is None or found.namespaces else found.foreign_subject(known.endpoint)
    if foreign is not None:
        return foreign
    text = f"nobody serves {known.service!r} in namespace {namespace!r}; is it running?"
    if found is not None and found.namespaces and namespace not in found.namespaces:
        there = ", ".join(repr(n) for n in sorted(found.namespaces))
        text = f"{known.service!r} runs in namespace {there}, this caller is in {namespace!r}"
    elif found is not None and not found.namespaces:
        there = ", ".join(sorted(found.endpoints)) or "none"
        raise RemoteError(
            f"the service has no endpoint {known.endpoint!r}; it has: {there}",
            status=Status.UNIMPLEMENTED,
            executed=Executed.NO,
            attempts=request.attempt,
        )
    raise NoInstancesError(text, attempts=request.attempt)

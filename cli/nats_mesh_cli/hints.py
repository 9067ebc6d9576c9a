"""What to say to somebody who asked for what is not there. Pure, over the answers to ``$SRV.INFO``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.model import check_name, is_name
from nats_mesh_cli.errors import FAILED, CliError, did_you_mean

__all__ = [
    "listed",
    "missing_endpoint",
    "missing_service",
    "namespace_text",
    "nearest",
    "no_endpoint",
    "no_service",
    "service_given",
]

_LISTED = 8


def listed(names: Iterable[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    ordered = sorted(set(names))
    more = f" and {len(ordered) - _LISTED} more" if len(ordered) > _LISTED else ""
    return ", ".join(ordered[:_LISTED]) + more


def nearest(word: str, known: Iterable[str]) -> str:
    """What to try in place of ``word``: the nearest name there is, else which there are; empty where there are none."""
    names = sorted(set(known))
    return did_you_mean(word, names) or (f"there are: {listed(names)}" if names else "")


def namespace_text(namespace: str | None) -> str:
    """Where was looked, for a sentence."""
    return "any namespace" if namespace is None else f"namespace {namespace!r}"


def service_given(word: str, instead: str) -> str:
    """``word``, which has to be the name of a service; whoever named an endpoint learns the line for its service, which
    is ``instead`` with the name in it. :class:`CliError`, or :class:`~nats_mesh.ConfigError` where it is neither."""
    service, _, endpoint = word.partition(".")
    if is_name(service) and is_name(endpoint):
        text = f"{word!r} names an endpoint, and a service is wanted"
        raise CliError(text, hint=f"'nats-mesh {instead.format(service)}'")
    return check_name("service", word)


def missing_service(service: str, infos: Sequence[InfoReply], namespace: str | None) -> str:
    """What to do when ``service`` does not answer: another namespace, another spelling, or what there is."""
    elsewhere = {
        i.metadata["mesh.namespace"] for i in infos if i.name == service and "mesh.namespace" in i.metadata
    }
    elsewhere.discard(namespace or "")
    if elsewhere:
        there = sorted(elsewhere)
        return f"it runs in namespace {listed(there)}: use -n {there[0]}"
    here = {
        i.name for i in infos if namespace is None or i.metadata.get("mesh.namespace", namespace) == namespace
    }
    if not here:
        others = {i.metadata["mesh.namespace"] for i in infos if "mesh.namespace" in i.metadata}
        if others:
            return f"nothing runs here; there are services in namespace {listed(others)} (-n NAME, or get -A)"
        return "nothing runs here; 'nats-mesh run MOD:APP' starts a service"
    guess = did_you_mean(service, here)
    return f"{guess} there are: {listed(here)}" if guess else f"there are: {listed(here)}"


def missing_endpoint(service: str, endpoint: str, infos: Sequence[InfoReply]) -> str:
    """What to do when the service is there and the endpoint is not; empty where the endpoint exists."""
    names = {e.name for i in infos if i.name == service for e in i.endpoints}
    if not names or endpoint in names:
        return ""
    guess = did_you_mean(f"{service}.{endpoint}", [f"{service}.{name}" for name in names])
    return f"{guess} {service} has: {listed(names)}" if guess else f"{service} has: {listed(names)}"


def no_service(service: str, infos: Sequence[InfoReply], namespace: str | None) -> CliError:
    """What ends a command that was asked for a service that is not there: the answer is no."""
    text = f"there is no service {service!r} in {namespace_text(namespace)}"
    return CliError(text, hint=missing_service(service, infos, namespace), code=FAILED)


def no_endpoint(service: str, endpoint: str, infos: Sequence[InfoReply]) -> CliError | None:
    """The same of an endpoint; ``None`` where it exists, or nobody serves the service."""
    hint = missing_endpoint(service, endpoint, infos)
    return CliError(f"{service} has no endpoint {endpoint!r}", hint=hint, code=FAILED) if hint else None

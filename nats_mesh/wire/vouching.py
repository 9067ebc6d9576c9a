"""Whose a message is: its subject says so, which the server checks, and its inbox; never its body alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from nats_mesh.errors import CodecError
from nats_mesh.wire.subjects import reply_allowed

__all__ = ["check_claims", "check_own", "member_of"]

#: ``mesh.<ns>.<area>.<kind>.<member>.<instance>``
_TOKENS: Final = 6


class Claims(Protocol):
    """A body that says whose it is."""

    @property
    def service(self) -> str: ...

    @property
    def instance(self) -> str: ...

    @property
    def namespace(self) -> str: ...


def member_of(subject: str, reply: str, *, enforced: bool) -> tuple[str, str] | None:
    """The member and the instance whose subject this is (telemetry, audit, acknowledgements); ``None`` where the
    message is not to be believed, by the inbox that it names."""
    parts = subject.split(".")
    if len(parts) != _TOKENS or not reply_allowed(reply, parts[4], enforced=enforced):
        return None
    return parts[4], parts[5]


def check_claims(
    what: str, body: Claims, *, service: str | None, instance: str | None, namespace: str | None
) -> None:
    """:class:`CodecError` where a body claims to be another's than its subject says; ``None``: that says nothing."""
    for name, said, claimed in (
        ("service", service, body.service),
        ("instance", instance, body.instance),
        ("namespace", namespace, body.namespace),
    ):
        if said is not None and said != claimed:
            raise CodecError(f"{what}: the body says {name} {claimed!r}, its subject says {said!r}")


def check_own(what: str, bodies: Sequence[Claims], *, service: str | None, namespace: str | None) -> None:
    """:class:`CodecError` where what one member keeps of itself bears several names, or another ``service`` or
    ``namespace`` than was asked."""
    if not bodies:
        return
    first = bodies[0]
    for body in bodies:
        for name, said, own in (
            ("service", body.service, service or first.service),
            ("instance", body.instance, first.instance),
            ("namespace", body.namespace, namespace or first.namespace),
        ):
            if said != own:
                raise CodecError(f"{what}: one of {name} {said!r} in an answer of {name} {own!r}")

"""Statuses as the command line takes them."""

from __future__ import annotations

from collections.abc import Sequence

from nats_mesh.errors import Status
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.hints import nearest

__all__ = ["statuses_of"]


def statuses_of(given: Sequence[str]) -> tuple[str, ...]:
    """The statuses of ``UNAVAILABLE,not-found``, each once; :class:`CliError` for a word that is none, with the
    nearest."""
    known = [str(status) for status in Status]
    wanted: list[str] = []
    for word in [each.strip() for text in given for each in text.split(",")]:
        name = word.upper().replace("-", "_")
        if name not in known:
            raise CliError(f"--status {word}: there is no such status", hint=nearest(name, known))
        wanted.append(name)
    return tuple(dict.fromkeys(wanted))

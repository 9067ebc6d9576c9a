"""Which names a port that serves whoever comes may be asked by: against pages that give their own name to an address
of ours (DNS rebinding), so that a browser which runs here, or in this network, reads for them what it can reach.

An address is no name that anybody else could have given, and a name without a dot is none that the world resolves. A
scraper may come by any other name, so by itself only whoever runs on this very machine is held to that: there is where
somebody browses. Rejected: to tell browsers by their headers; a page may send most of them as it likes. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address

__all__ = ["is_host_pattern", "may_ask", "same_machine"]

_LOCAL = "localhost"
_PATTERN = re.compile(r"\*|(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_PORT = re.compile(r":[0-9]*\Z")


def is_host_pattern(text: str) -> bool:
    """Whether this can be one of the ``names`` of :func:`may_ask`: a name, ``*.`` and a name, or ``*``; lower case."""
    return len(text) <= 253 and _PATTERN.fullmatch(text) is not None


def may_ask(host: str | None, names: Sequence[str], *, here: bool) -> bool:
    """Whether a request is answered whose ``Host`` says this (``None``: it has none, which no browser sends).

    With ``names``: by an address, as ``localhost``, or by one of them (``*.example.com``: anything below; ``*``: any).
    Without: by any name, but for whoever is ``here``, on this machine, by one without a dot.
    """
    if host is None or "*" in names:
        return True
    name = _PORT.sub("", host.strip()).lower().removesuffix(".")
    if name == _LOCAL or name.endswith(f".{_LOCAL}") or _is_address(name):
        return True
    if not names:
        return bool(name) and (not here or "." not in name)
    return any(name == each or (each[:2] == "*." and name.endswith(each[1:])) for each in names)


def same_machine(peer: str, local: str) -> bool:
    """Whether a connection from the address ``peer`` to ``local`` never left the machine."""
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return peer == local or (mapped or address).is_loopback


def _is_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True

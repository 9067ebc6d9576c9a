"""Identifiers: NUIDs for connections and instances, secrets for inboxes."""

from __future__ import annotations

import os
import secrets

from nats.nuid import NUID

__all__ = ["new_id", "new_secret"]

_nuid = NUID()


def _anew() -> None:
    global _nuid
    _nuid = NUID()


if hasattr(os, "register_at_fork"):  # a forked worker would go on with its parent's ids
    os.register_at_fork(after_in_child=_anew)


def new_id() -> str:
    """A NUID: 22 characters, unique in the world, cheap."""
    return _nuid.next().decode("ascii")


def new_secret() -> str:
    """128 random bits in 32 hexadecimal digits, from the system's secure source."""
    return secrets.token_hex(16)

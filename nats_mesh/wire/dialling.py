"""How to reach a bus, said to nats-py; and why it could not be reached, said to people."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import unquote, urlsplit

from nats_mesh.errors import CallError, DisconnectedError, Executed, PermissionDeniedError, Status
from nats_mesh.wire.transport import ConnectOptions

__all__ = ["arguments", "is_hopeless", "unreachable", "where", "without_secrets"]

_REFUSED = ("authorization", "authentication expired", "authentication revoked")


def arguments(options: ConnectOptions) -> dict[str, Any]:
    """nats-py's arguments: it reconnects for ever, buffers nothing and notices a dead server soon."""
    user, password, token = _credentials(options)
    given: dict[str, Any] = {
        "servers": list(options.servers),
        "name": options.name,
        "allow_reconnect": True,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.25,
        "connect_timeout": min(2.0, options.connect_timeout_s),
        "ping_interval": options.ping_interval_s,
        "max_outstanding_pings": options.max_outstanding_pings,
        "pending_size": 0,
        "user": user,
        "password": password,
        "token": token,
        "user_credentials": options.credentials,
        "nkeys_seed_str": options.nkey_seed,
        "tls": options.tls,
    }
    return {key: value for key, value in given.items() if value is not None}


def is_hopeless(error: Exception | None) -> bool:
    """Whether asking again would not help: the server refuses our credentials, or we its certificate."""
    return _refuses_us(error) or isinstance(error, ssl.SSLCertVerificationError)


def _refuses_us(error: Exception | None) -> bool:
    text = str(error).lower()
    return any(word in text for word in _REFUSED)


def unreachable(options: ConnectOptions, error: Exception | None) -> CallError:
    """The error of a connection that did not come about: whose fault it seems to be, and what to do."""
    text = str(error or "no answer").strip()
    if _refuses_us(error):
        return PermissionDeniedError(
            f"{where(options)} refused the credentials of {options.name!r}: {text}",
            status=Status.UNAUTHENTICATED,
        )
    if isinstance(error, ssl.SSLError):
        return DisconnectedError(
            f"no TLS connection to {where(options)}: {text}; check tls= (or NATS_CA) and the server's certificate",
            executed=Executed.NO,
        )
    return DisconnectedError(
        f"cannot reach {where(options)} within {options.connect_timeout_s:g} s: {text}; "
        "is a nats-server running there? 'nats-mesh up' starts one",
        executed=Executed.NO,
    )


def where(options: ConnectOptions) -> str:
    """The servers' addresses, without credentials."""
    return ", ".join(without_secrets(server) for server in options.servers)


def without_secrets(url: str) -> str:
    """An address fit for logs and messages."""
    parts = urlsplit(url if "://" in url else f"nats://{url}")
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"


def _credentials(options: ConnectOptions) -> tuple[str | None, str | None, str | None]:
    """User, password and token: as given, or as the addresses agree on them.

    nats-py uses what stands in an address for that server alone; servers that it learns of later have
    addresses without it, and would refuse us.
    """
    given = (options.user, options.password, options.token)
    if any(given) or options.credentials or options.nkey_seed:
        return given
    urls = [urlsplit(server if "://" in server else f"nats://{server}") for server in options.servers]
    found = {(url.username, url.password) for url in urls if url.username}
    if len(found) != 1:
        return given
    [(user, password)] = found
    assert user is not None
    return (None, None, unquote(user)) if password is None else (unquote(user), unquote(password), None)

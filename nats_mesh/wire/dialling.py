"""How to reach a bus, said to nats-py; and why it could not be reached, said to people."""

from __future__ import annotations

import base64
import importlib.util
import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from nats_mesh.errors import (
    CallError,
    ConfigError,
    DisconnectedError,
    Executed,
    PermissionDeniedError,
    Status,
)
from nats_mesh.wire.transport import ConnectOptions

__all__ = ["arguments", "is_hopeless", "unreachable", "where", "without_secrets"]

_REFUSED = ("authorization", "authentication expired", "authentication revoked")
_JWT = re.compile(r"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END NATS USER JWT-+")
_SEED = re.compile(r"-+BEGIN USER NKEY SEED-+\s+(\S+)\s+-+END USER NKEY SEED-+")


class CredentialsFile:
    """A user's token and key out of a ``.creds`` file, read anew for each connection because it may be renewed.

    nats-py's own reader never returns from a file without a token, and reads the file twice, so that
    token and key may be of two versions of it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._token = b""

    def sign(self, nonce: str) -> bytes:
        """The server's ``nonce`` signed, in base64; :class:`ConfigError` where the file is not what it should be."""
        import nkeys

        try:
            text = Path(self._path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"credentials file {self._path!r} cannot be read: {error}") from error
        token, seed = _JWT.search(text), _SEED.search(text)
        if token is None or seed is None:
            missing = "token (BEGIN NATS USER JWT)" if token is None else "key (BEGIN USER NKEY SEED)"
            raise ConfigError(f"credentials file {self._path!r} holds no {missing}")
        self._token = token[1].encode()
        try:
            pair = nkeys.from_seed(bytearray(seed[1].encode()))
            return base64.b64encode(pair.sign(nonce.encode()))
        except (nkeys.NkeysError, ValueError) as error:
            raise ConfigError(f"credentials file {self._path!r}: its key is not valid: {error}") from error

    def token(self) -> bytes:
        """The token that belongs to the last signature."""
        return self._token


def arguments(options: ConnectOptions) -> dict[str, Any]:
    """nats-py's arguments: it reconnects for ever, buffers nothing and notices a dead server soon."""
    user, password, token = _credentials(options)
    if (options.credentials or options.nkey_seed) and importlib.util.find_spec("nkeys") is None:
        raise ConfigError("credentials with keys need the package nkeys: install nats-mesh[nkeys]")
    file = CredentialsFile(options.credentials) if options.credentials else None
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
        "signature_cb": None if file is None else file.sign,
        "user_jwt_cb": None if file is None else file.token,
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

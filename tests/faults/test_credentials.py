"""Who may connect: credentials that are wrong, run out or are revoked, and TLS."""

from __future__ import annotations

import base64
import datetime
import hashlib
import importlib.util
import ipaddress
import json
import os
import re
import signal
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nkeys
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nats_mesh import ConfigError, DisconnectedError, Executed, Mesh, PermissionDeniedError, Service, Status
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing.plugin import NatsServerFactory
from nats_mesh.testing.proxy import TcpProxy
from nats_mesh.testing.server import NatsServer
from nats_mesh.wire.nats_transport import NatsTransport, connect
from nats_mesh.wire.transport import ConnectOptions
from tests.harness import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

LOOPS = ["asyncio", "uvloop"] if importlib.util.find_spec("uvloop") else ["asyncio"]
#: A connect timeout so long that whoever is refused within a fraction of it was refused at once.
LONG_S, AT_ONCE_S = 60.0, 10.0


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """TLS differs between the loops."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


def hello() -> Service:
    """The smallest service."""
    service = Service("hello", version="1.0.0")

    @service.endpoint()
    async def say() -> str:
        return "hello"

    return service


# -- keys and tokens of a server in operator mode -------------------------------------------------


class Signer:
    """An nkey: what signs, and the public name it signs under."""

    def __init__(self, kind: int) -> None:
        self.seed = nkeys.encode_seed(os.urandom(32), kind)
        self._pair = nkeys.from_seed(bytearray(self.seed))
        self.public: str = self._pair.public_key.decode()

    def token(self, subject: str, name: str, kind: str, valid_s: float | None = None, **claims: Any) -> str:
        """A NATS JWT about ``subject``."""
        body: dict[str, Any] = {
            "iat": int(time.time()),
            "iss": self.public,
            "name": name,
            "sub": subject,
            "nats": {"type": kind, "version": 2, **claims},
        }
        if valid_s is not None:
            body["exp"] = int(time.time() + valid_s)
        digest = hashlib.new("sha512_256", json.dumps(body).encode()).digest()
        body["jti"] = base64.b32encode(digest).decode().rstrip("=")
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        text = ".".join(_base64(json.dumps(part).encode()) for part in (head, body))
        return f"{text}.{_base64(self._pair.sign(text.encode()))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Operator:
    """An operator with one account, and what it issues."""

    def __init__(self) -> None:
        operator, account = Signer(nkeys.PREFIX_BYTE_OPERATOR), Signer(nkeys.PREFIX_BYTE_ACCOUNT)
        self._account = account
        limits = dict.fromkeys(("subs", "conn", "leaf", "imports", "exports", "data", "payload"), -1)
        self.config = (
            f"operator: {operator.token(operator.public, 'O', 'operator')}\n"
            "resolver: MEMORY\nresolver_preload: { "
            f"{account.public}: {operator.token(account.public, 'A', 'account', limits=limits)} }}"
        )

    def issue(self, path: Path, *, valid_s: float) -> None:
        """Write credentials for a new user into ``path``."""
        user = Signer(nkeys.PREFIX_BYTE_USER)
        token = self._account.token(user.public, "web", "user", valid_s, subs=-1, data=-1, payload=-1)
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )


# -- at the start ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"user": "ann", "password": "wrong"},
        {"user": "bob", "password": "right"},
        {"token": "guess"},
        {},
    ],
    ids=["password", "user", "token", "none"],
)
async def test_wrong_credentials_are_said_at_once(
    nats_server_factory: NatsServerFactory, wrong: dict[str, Any]
) -> None:
    """Trying again would not help: a typed error that names the server and shows no secret, long before the timeout."""
    server = nats_server_factory(
        jetstream=False, config='authorization { users: [{user: ann, password: "right"}] }'
    )
    start = time.monotonic()
    with pytest.raises(
        PermissionDeniedError, match=f"127.0.0.1:{server.port} refused the credentials"
    ) as caught:
        await connect(ConnectOptions(name="web", servers=(server.url,), connect_timeout_s=LONG_S, **wrong))
    assert time.monotonic() - start < AT_ONCE_S
    assert caught.value.status is Status.UNAUTHENTICATED
    assert caught.value.executed is Executed.NO
    assert not any(secret in str(caught.value) for secret in ("wrong", "guess"))
    secret_url = server.url.replace("nats://", "nats://ann:s3cret@")
    with pytest.raises(PermissionDeniedError) as caught:
        await connect(ConnectOptions(name="web", servers=(secret_url,), connect_timeout_s=LONG_S))
    assert "s3cret" not in str(caught.value)


async def test_expired_credentials_are_said_at_once(
    nats_server_factory: NatsServerFactory, tmp_path: Path
) -> None:
    """A user token that ran out before the start is an error of the start."""
    operator, path = Operator(), tmp_path / "web.creds"
    server = nats_server_factory(jetstream=False, config=operator.config)
    operator.issue(path, valid_s=-10)
    start = time.monotonic()
    with pytest.raises(PermissionDeniedError):
        await connect(
            ConnectOptions(name="web", servers=(server.url,), credentials=str(path), connect_timeout_s=LONG_S)
        )
    assert time.monotonic() - start < AT_ONCE_S


async def test_a_credentials_file_that_is_none_is_a_clear_error(
    nats_server_factory: NatsServerFactory, tmp_path: Path
) -> None:
    """What cannot be read as credentials is refused at once with file and reason."""
    operator, path = Operator(), tmp_path / "web.creds"
    server = nats_server_factory(jetstream=False, config=operator.config)
    operator.issue(path, valid_s=60)
    good = path.read_text()
    options = ConnectOptions(
        name="web", servers=(server.url,), credentials=str(path), connect_timeout_s=LONG_S
    )
    for content, reason in (
        ("", "holds no token"),
        (good.replace("BEGIN NATS USER JWT", "BEGIN SOMETHING"), "holds no token"),
        (good.replace("BEGIN USER NKEY SEED", "BEGIN SOMETHING"), "holds no key"),
        (re.sub("^SU.*", "not-a-seed", good, flags=re.MULTILINE), "its key is not valid"),
        (re.sub("^SU", "SX", good, flags=re.MULTILINE), "its key is not valid"),
    ):
        path.write_text(content)
        with pytest.raises(ConfigError, match=f"web.creds.*{reason}"):
            await connect(options)
    path.unlink()
    with pytest.raises(ConfigError, match=r"web\.creds.*cannot be read"):
        await connect(options)
    with pytest.raises(ConfigError, match="seed"):
        await connect(ConnectOptions(name="web", servers=(server.url,), nkey_seed="SUnothing"))


@pytest.mark.parametrize("server", ["nats://127.0.0.1:1", "nats://nowhere.invalid:4222"])
async def test_a_server_that_is_not_there_is_said_with_its_address(server: str) -> None:
    """Nobody listening, or no such host: a typed error within the timeout, with the address and what to do."""
    start = time.monotonic()
    with pytest.raises(DisconnectedError, match=r"nats-mesh up") as caught:
        async with Mesh("web", servers=server, connect_timeout=1.0):
            pytest.fail("there is no server")
    assert time.monotonic() - start < AT_ONCE_S
    assert server in str(caught.value)
    assert caught.value.executed is Executed.NO


async def test_a_server_that_says_nothing_is_given_up(nats_server: NatsServer) -> None:
    """A port that accepts and stays silent ends in the same error, within the timeout."""
    async with TcpProxy("127.0.0.1", nats_server.port) as proxy:
        await proxy.pause()
        start = time.monotonic()
        with pytest.raises(DisconnectedError):
            await connect(ConnectOptions(name="web", servers=(proxy.url,), connect_timeout_s=0.5))
        assert time.monotonic() - start < AT_ONCE_S
        await proxy.resume()
        await eventually(lambda: proxy.connections == 0)


# -- on the way -------------------------------------------------------------------------------------


async def test_credentials_that_run_out_lead_to_a_reconnect_with_the_new_ones(
    nats_server_factory: NatsServerFactory, tmp_path: Path
) -> None:
    """At expiry the connection is lost, not closed for good; once the file holds new credentials, it is back."""
    operator, path = Operator(), tmp_path / "web.creds"
    server = nats_server_factory(jetstream=False, config=operator.config)
    operator.issue(path, valid_s=3)
    settings = Settings(servers=(server.url,), credentials=str(path))
    async with Instance(hello(), settings=settings) as instance, Mesh("web", settings=settings) as mesh:
        assert await mesh.call("hello.say") == "hello"
        await eventually(lambda: not mesh.client.transport.connected and not instance.transport.connected)
        with pytest.raises(DisconnectedError) as caught:
            await mesh.call("hello.say")
        assert caught.value.executed is Executed.NO
        path.write_text("half a fi")  # whoever reads it in the middle of a rewrite must try again
        await eventually(lambda: "reconnecting: nats:" in mesh.client.transport._why())  # type: ignore[attr-defined]  # only the fast transport has it
        path.unlink()
        await eventually(lambda: "No such file" in mesh.client.transport._why())  # type: ignore[attr-defined]  # only the fast transport has it
        operator.issue(path, valid_s=3600)
        await eventually(lambda: mesh.client.transport.connected and instance.transport.connected)
        await instance.transport.fence()
        assert await mesh.call("hello.say") == "hello"


async def test_credentials_revoked_by_a_reload_lead_to_reconnects_until_they_are_given_back(
    nats_server_factory: NatsServerFactory, tmp_path: Path
) -> None:
    """A user taken out of the configuration is cut off and keeps asking; put back, it is there again."""
    users = tmp_path / "users.conf"
    known, unknown = (
        '[{user: ann, password: "p"}, {user: bob, password: "p"}]',
        '[{user: bob, password: "p"}]',
    )
    users.write_text(f"users: {known}")
    # The server looks for it from the folder of its configuration, which is one below the temporary one.
    include = os.path.relpath(users, Path(tempfile.gettempdir()) / "any")
    config = (
        f"server_name: reloaded\nauthorization {{ include '{include}' }}"  # a reload must find the same name
    )
    server = nats_server_factory(jetstream=False, name="reloaded", config=config)
    ann = await connect(ConnectOptions(name="ann", servers=(server.url,), user="ann", password="p"))
    bob = await connect(ConnectOptions(name="bob", servers=(server.url,), user="bob", password="p"))
    assert isinstance(ann, NatsTransport)
    try:
        users.write_text(f"users: {unknown}")
        os.kill(server.pid, signal.SIGHUP)
        await eventually(lambda: not ann.connected)
        await eventually(lambda: "Authorization Violation" in ann._why(), ann._why)
        users.write_text(f"users: {known}")
        os.kill(server.pid, signal.SIGHUP)
        await eventually(lambda: ann.connected)
        await ann.fence()
        assert bob.stats.reconnects == 0
    finally:
        await ann.close()
        await bob.close()


# -- TLS --------------------------------------------------------------------------------------------


class Authority(NamedTuple):
    """A certificate authority made for one test, as files."""

    ca: Path
    cert: Path
    key: Path


def authority(folder: Path, name: str) -> Authority:
    """A CA, and a certificate of it for 127.0.0.1."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def certificate(
        subject: str, public: ec.EllipticCurvePublicKey, extensions: list[tuple[x509.ExtensionType, bool]]
    ) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} CA")]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    files = Authority(folder / f"{name}-ca.pem", folder / f"{name}.pem", folder / f"{name}-key.pem")
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    files.ca.write_bytes(
        certificate(
            f"{name} CA", ca_key.public_key(), [(x509.BasicConstraints(True, None), True), (usage, True)]
        )
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    files.cert.write_bytes(certificate("server", key.public_key(), [(names, False)]))
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


@pytest.fixture
def tls_server(
    nats_server_factory: NatsServerFactory, tmp_path: Path
) -> tuple[NatsServer, Callable[[str], Settings]]:
    """A server that insists on TLS, and settings of a client that trusts the authority of that name."""
    ours = authority(tmp_path, "ours")
    authority(tmp_path, "theirs")
    server = nats_server_factory(
        jetstream=False, config=f"tls {{ cert_file: '{ours.cert}', key_file: '{ours.key}' }}"
    )

    def settings(trusted: str) -> Settings:
        context = ssl.create_default_context(cafile=str(tmp_path / f"{trusted}-ca.pem"))
        return Settings(servers=(server.url,), tls=context)

    return server, settings


async def test_calls_go_over_tls_and_survive_a_reconnect(
    tls_server: tuple[NatsServer, Callable[[str], Settings]],
) -> None:
    """A server that insists on TLS is joined, left by force, and joined again."""
    server, settings = tls_server
    async with (
        Instance(hello(), settings=settings("ours")) as instance,
        Mesh("web", settings=settings("ours")) as mesh,
    ):
        assert await mesh.call("hello.say") == "hello"
        await server.kill()
        await eventually(lambda: not mesh.client.transport.connected)
        await server.restart()
        await eventually(
            lambda: mesh.client.transport.stats.reconnects == 1 and instance.transport.stats.reconnects == 1
        )
        assert await mesh.call("hello.say") == "hello"


async def test_a_certificate_of_another_authority_is_refused_at_once(
    tls_server: tuple[NatsServer, Callable[[str], Settings]],
) -> None:
    """A server that is not who it should be is never talked to, and the error says where to look."""
    _, settings = tls_server
    start = time.monotonic()
    with pytest.raises(DisconnectedError, match=r"certificate verify failed.*NATS_CA"):
        async with Mesh("web", settings=settings("theirs"), connect_timeout=LONG_S):
            pytest.fail("it trusted a stranger")
    assert time.monotonic() - start < AT_ONCE_S


async def test_a_dead_tls_connection_is_closed_without_hanging(
    tls_server: tuple[NatsServer, Callable[[str], Settings]],
) -> None:
    """Closing does not wait for the other side's farewell."""
    server, settings = tls_server
    mesh = Mesh("web", settings=settings("ours"))
    await mesh.__aenter__()
    await server.freeze()
    start = time.monotonic()
    await mesh.__aexit__(None, None, None)
    assert time.monotonic() - start < AT_ONCE_S
    await server.thaw()

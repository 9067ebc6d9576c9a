"""Calls over TLS take the same fast way: the socket's feed stands behind the encryption, on either loop."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nats_mesh import Mesh, Service
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing.plugin import NatsServerFactory
from nats_mesh.wire.nats_transport import NatsTransport
from tests.harness import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both loops have a TLS transport of their own."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


async def test_calls_over_tls_take_the_fast_way(
    nats_server_factory: NatsServerFactory, mesh_namespace: str, tmp_path: Path
) -> None:
    """Small and large values arrive whole, hundreds at once are not mixed up, and a restart is survived."""
    cert, key = certificate(tmp_path)
    server = nats_server_factory(jetstream=False, config=f'tls {{ cert_file: "{cert}", key_file: "{key}" }}')
    settings = Settings(
        servers=(f"tls://localhost:{server.port}",),
        namespace=mesh_namespace,
        tls=ssl.create_default_context(cafile=str(cert)),
    )
    service = Service("secret", version="1.0.0")

    @service.endpoint()
    async def echo(value: bytes) -> bytes:
        return value

    async with Instance(service, settings=settings) as instance, Mesh("web", settings=settings) as mesh:
        transport = mesh.client.transport
        assert isinstance(transport, NatsTransport)
        assert transport._client._feed is not None, "nats-py's stream reads"
        for size in (1, 1000, 300_000):
            assert await mesh.call("secret.echo", b"x" * size, returns=bytes) == b"x" * size
        right = []

        async def one(number: int) -> None:
            right.append(await mesh.call("secret.echo", b"%d" % number, returns=bytes) == b"%d" % number)

        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(one, number)
        assert right == [True] * 200
        await server.restart()
        await eventually(lambda: transport.stats.reconnects == 1 and transport.ready)
        await eventually(lambda: instance.transport.stats.reconnects == 1 and instance.transport.ready)
        assert await mesh.call("secret.echo", b"back", returns=bytes) == b"back"
